//! The scope of an ASGI request, built in a real interpreter: `benches/README.md` says how to run it.
//!
//! A module for Python, as the binding is, and not a program that holds an interpreter: so it is
//! compiled and linked the same way, and works in every interpreter that the binding works in. It
//! has the binding's own source of scopes, because a `cdylib` shows nothing of itself to Rust.

#[allow(dead_code, reason = "a round here is about a request, not about bytes")]
#[path = "../../benches/parts/case.rs"]
mod case;
#[allow(dead_code, unreachable_pub, reason = "the binding is about more than this bench")]
#[path = "../src/scope.rs"]
mod scope;

use case::Case;
use criterion::Criterion;
use granian_uring::http1::{Connection, Event, Limits};
use granian_uring::listener::Address;
use granian_uring::server::Request;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use scope::{ScopeBuilder, Template};
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};

/// What load generators send.
const FEW: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n";

/// What a browser behind a proxy sends.
const MANY: &[u8] = b"GET /articles/caf%C3%A9/some-title?page=2&sort=newest HTTP/1.1\r\n\
Host: www.example.org\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8\r\n\
Accept-Language: en-US,en;q=0.5\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Referer: https://www.example.org/articles/\r\n\
Connection: keep-alive\r\n\
Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; consent=yes; _ga=GA1.2.3.4\r\n\
Upgrade-Insecure-Requests: 1\r\n\
Sec-Fetch-Dest: document\r\n\
Sec-Fetch-Mode: navigate\r\n\
Sec-Fetch-Site: same-origin\r\n\
X-Forwarded-For: 203.0.113.7\r\n\
X-Forwarded-Proto: https\r\n\
X-Custom-Header: one that nobody knows\r\n\r\n";

fn request(mut bytes: &[u8]) -> Request {
    let mut connection = Connection::new(Limits::default());
    let Ok(Some(Event::Request(head))) = connection.next_event(&mut bytes) else {
        unreachable!("the request is valid")
    };
    let address = |port| Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let (peer, local) = (address(50_000), address(8000));
    Request { head: Box::new(head), peer, local, subprotocols: None, tls: None, forwarded: None }
}

/// A connection's scopes: what makes them, and what they have in common.
fn connection(request: &Request) -> (ScopeBuilder, Template) {
    Python::attach(|py| {
        let scopes = ScopeBuilder::new(py, "", None).expect("nothing fails here");
        let template = scopes.template(py, request).expect("nothing fails here");
        (scopes, template)
    })
}

fn cases() -> Vec<Case> {
    let inputs = [("few", FEW), ("many", MANY)];
    let mut cases: Vec<Case> = inputs
        .into_iter()
        .map(|(name, input)| {
            Case::new("scope", format!("{name} headers"), move || {
                let request = request(input);
                let (scopes, template) = connection(&request);
                move || {
                    Python::attach(|py| {
                        let built = scopes.scope(py, &template, black_box(&request));
                        assert!(built.is_ok());
                    });
                }
            })
        })
        .collect();
    cases.push(Case::new("scope", "template of a connection", || {
        let request = request(FEW);
        let (scopes, _) = connection(&request);
        move || {
            Python::attach(|py| {
                let template = scopes.template(py, black_box(&request));
                assert!(template.is_ok_and(|template| template.fits(&request)));
            });
        }
    }));
    cases
}

/// Criterion would read the command line of the interpreter; ours is a part of a name, or nothing.
fn criterion(arguments: &[String]) -> Criterion {
    arguments.iter().fold(Criterion::default(), Criterion::with_filter)
}

/// The module `scope_cases`.
#[pymodule]
mod scope_cases {
    use super::{PyResult, PyValueError, case, cases, criterion, pyfunction};

    /// As the program `parts`, with what would be the arguments of its command line.
    #[pyfunction]
    #[allow(clippy::needless_pass_by_value, reason = "a list of Python becomes a Vec")]
    fn measure(arguments: Vec<String>) -> PyResult<()> {
        case::measure(cases(), &arguments, criterion)
            .map_err(|error| PyValueError::new_err(error.to_string()))
    }
}
