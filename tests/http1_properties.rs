//! What holds for every input of the codec, tried on generated ones.
//!
//! `SEED` replays a run, `CASES` sets how many inputs each property gets; what fails is shrunk and
//! shown with its seed. A failure becomes a case of the corpus, not a file of seeds.

#![allow(clippy::unwrap_used, reason = "helpers of a test may fail where they stand")]

mod http1;

use granian_uring::http1::{BodyLength, Connection, Event, Limits, RequestHead, Version};
use http1::exchange::{Exchange, REQUESTS};
use http1::transcript::transcribe;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{RngSeed, TestRunner};

/// Tries `property` on inputs of `strategy`.
fn check<S: Strategy>(strategy: &S, property: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let clock = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = number("SEED").unwrap_or_else(|| clock().subsec_nanos().into());
    let mut runner = TestRunner::new(ProptestConfig {
        cases: number("CASES").map_or(1000, |cases| cases.try_into().unwrap()),
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    if let Err(error) = runner.run(strategy, property) {
        panic!("SEED={seed}: {error}");
    }
}

/// Pieces that requests are made of, and that make them go wrong.
const PIECES: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "POST /a?b HTTP/1.0\r\n",
    "HEAD http://example.org HTTP/1.1\r\n",
    "OPTIONS * HTTP/1.1\r\n",
    "Host: example.org\r\n",
    "Host:[::1]:80\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive, Upgrade\r\n",
    "Upgrade: websocket\r\n",
    "Expect: 100-continue\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "\r\n",
    "\r\n\r\n",
    "5\r\nhello\r\n",
    "0\r\n",
    "0\r\n\r\n",
    "A: b\r\n",
    "a;b=c\r\n",
    "\n",
    "\r",
    " ",
    "\t",
    ":",
    "\0",
    "HTTP/1.1",
    "ffffffffffffffff\r\n",
];

fn any_input() -> impl Strategy<Value = Vec<u8>> {
    let piece = select(PIECES).prop_map(|piece| piece.as_bytes().to_vec());
    let pieces = vec(prop_oneof![9 => piece, 1 => vec(any::<u8>(), 0..8)], 0..24);
    prop_oneof![4 => pieces.prop_map(|pieces| pieces.concat()), 1 => vec(any::<u8>(), 0..200)]
}

#[test]
fn every_input_means_the_same_in_every_cut() {
    check(&(any_input(), vec(any::<Index>(), 0..8)), |(input, cuts)| {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(input.len());
        let mut start = 0;
        let pieces = cuts.iter().map(|&cut| &input[std::mem::replace(&mut start, cut)..cut]);
        prop_assert_eq!(transcribe(pieces), transcribe([&input[..]]));
        prop_assert_eq!(transcribe(input.chunks(1)), transcribe([&input[..]]));
        Ok(())
    });
}

/// A request, and how it is put on the wire.
#[derive(Clone, Debug)]
struct Request {
    method: String,
    path: String,
    query: Option<String>,
    version: Version,
    headers: Vec<(String, Vec<u8>)>,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    None,
    Length(Vec<u8>),
    /// Data and extension of each chunk, and the trailers.
    Chunked(Vec<(Vec<u8>, String)>, Vec<(String, Vec<u8>)>),
}

fn header() -> impl Strategy<Value = (String, Vec<u8>)> {
    // The `x` keeps the name from being one that means something to us.
    let name = "[xX][!#$%&'*+.^_`|~0-9A-Za-z-]{0,20}";
    let inner = prop_oneof![Just(b'\t'), 0x20u8..0x7f, 0x80u8..=0xff];
    (name, vec(inner, 0..20))
}

fn body() -> impl Strategy<Value = Body> {
    let data = || vec(any::<u8>(), 1..40);
    let extension = "(;[a-z]{1,5}(=([a-z]{1,5}|\"([ -!#-\\[\\]-~]|\\\\[ -~]){0,5}\"))?){0,2}";
    let chunks = vec((data(), extension), 0..6);
    prop_oneof![
        Just(Body::None),
        vec(any::<u8>(), 0..80).prop_map(Body::Length),
        (chunks, vec(header(), 0..3))
            .prop_map(|(chunks, trailers)| Body::Chunked(chunks, trailers)),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let method = prop_oneof!["GET|HEAD|POST|OPTIONS|TRACE", "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}"];
    let method = method.prop_filter("CONNECT is for proxies", |method| method != "CONNECT");
    let path = "/[!\"$->@-~]{0,20}";
    let query = proptest::option::of("[!\"$-~]{0,20}");
    let parts = (method, path, query, any::<bool>(), vec(header(), 0..6), body());
    parts.prop_map(|(method, path, query, is_10, headers, body)| {
        // HTTP/1.0 has no transfer coding.
        let is_10 = is_10 && !matches!(body, Body::Chunked(..));
        let version = if is_10 { Version::Http10 } else { Version::Http11 };
        Request { method, path, query, version, headers, body }
    })
}

impl Request {
    fn target(&self) -> String {
        let query = self.query.as_ref().map(|query| format!("?{query}"));
        self.path.clone() + &query.unwrap_or_default()
    }

    fn wire(&self) -> Vec<u8> {
        let version = if self.version == Version::Http10 { "1.0" } else { "1.1" };
        let target = self.target();
        let framing = match &self.body {
            Body::None => String::new(),
            Body::Length(data) => format!("content-length: {}\r\n", data.len()),
            Body::Chunked(..) => "transfer-encoding: chunked\r\n".to_owned(),
        };
        let line = format!("{} {target} HTTP/{version}\r\n", self.method);
        let mut wire = format!("{line}host: example.org\r\n{framing}").into_bytes();
        write_fields(&self.headers, &mut wire);
        match &self.body {
            Body::None => (),
            Body::Length(data) => wire.extend_from_slice(data),
            Body::Chunked(chunks, trailers) => {
                for (data, extension) in chunks {
                    wire.extend_from_slice(format!("{:x}{extension}\r\n", data.len()).as_bytes());
                    wire.extend_from_slice(data);
                    wire.extend_from_slice(b"\r\n");
                }
                wire.extend_from_slice(b"0\r\n");
                write_fields(trailers, &mut wire);
            }
        }
        wire
    }

    fn data(&self) -> Vec<u8> {
        match &self.body {
            Body::None => Vec::new(),
            Body::Length(data) => data.clone(),
            Body::Chunked(chunks, _) => chunks.iter().flat_map(|(data, _)| data.clone()).collect(),
        }
    }

    fn compare(&self, head: &RequestHead) {
        assert_eq!(head.method(), self.method);
        assert_eq!(head.target(), self.target().as_bytes());
        assert_eq!(head.path(), self.path.as_bytes());
        assert_eq!(head.query(), self.query.clone().unwrap_or_default().as_bytes());
        assert_eq!(head.version(), self.version);
        let own = head.headers().filter(|(name, _)| name.starts_with(b"x"));
        let own: Vec<_> = own.map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        let lower = |name: &str| name.to_ascii_lowercase().into_bytes();
        let sent = self.headers.iter();
        let sent: Vec<_> = sent
            .map(|(name, value)| (lower(name), http1::response::trim(value).to_vec()))
            .collect();
        assert_eq!(own, sent);
        let length = match &self.body {
            Body::None => BodyLength::None,
            Body::Length(data) => BodyLength::Length(data.len() as u64),
            Body::Chunked(..) => BodyLength::Chunked,
        };
        assert_eq!(head.body_length(), length);
    }
}

/// Field lines and the empty line after them.
fn write_fields(fields: &[(String, Vec<u8>)], wire: &mut Vec<u8>) {
    for (name, value) in fields {
        wire.extend_from_slice(&[name.as_bytes(), b":", value, b"\r\n"].concat());
    }
    wire.extend_from_slice(b"\r\n");
}

#[test]
fn a_valid_request_is_understood_as_it_was_meant() {
    check(&(request(), request()), |(first, second)| {
        let wire = [first.wire(), second.wire()].concat();
        let mut input = &wire[..];
        let mut connection = Connection::new(Limits::default());
        let mut body = Vec::new();
        loop {
            match connection.next_event(&mut input) {
                Ok(Some(Event::Request(head))) => first.compare(&head),
                Ok(Some(Event::Body(piece))) => body.extend_from_slice(piece),
                Ok(Some(Event::End)) => break,
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            }
        }
        prop_assert_eq!(body, first.data());
        prop_assert_eq!(input, &second.wire()[..]);
        Ok(())
    });
}

fn exchange() -> impl Strategy<Value = Exchange> {
    let status = prop_oneof![
        select(&[200u16, 204, 205, 206, 304, 404, 500, 100, 101, 999][..]),
        0..=1100u16
    ];
    let declared = "[0-9]{1,2}| 7 |-1||5, 5|0x5";
    let special = prop_oneof![
        ("[Cc]ontent-[Ll]ength", declared),
        ("[Cc]onnection", "close|keep-alive|Close, x|, upgrade|"),
        ("[Tt]ransfer-[Ee]ncoding", "chunked|gzip"),
        ("[Dd]ate|Server", "[ -~]{0,10}"),
    ];
    let special = special.prop_map(|(name, value)| (name.into_bytes(), value.into_bytes()));
    let plain = header().prop_map(|(name, value)| (name.into_bytes(), value));
    let broken = (vec(any::<u8>(), 0..4), vec(any::<u8>(), 0..4));
    let headers = vec(prop_oneof![8 => special, 8 => plain, 1 => broken], 0..4);
    let messages = vec(vec(any::<u8>(), 0..20), 1..5);
    let link = prop_oneof![8 => "</[a-z]{0,3}>; rel=preload", 1 => "[\\x00-\\x20]{0,2}"];
    let hints = option::of(vec(link.prop_map(String::into_bytes), 0..3));
    let trailer = prop_oneof![
        8 => ("x-[a-z]{1,3}", "[ -~]{0,10}"),
        1 => ("Content-Length|Host|te|Set-Cookie", "1"),
        1 => ("|a b|x", "\r\n|a\0"),
    ];
    let trailer = trailer.prop_map(|(name, value)| (name.into_bytes(), value.into_bytes()));
    let trailers = option::of(vec(trailer, 0..3));
    let parts = (select(&REQUESTS[..]), hints, status, headers, messages, trailers);
    parts.prop_map(|(request, hints, status, headers, messages, trailers)| Exchange {
        request,
        hints,
        status,
        headers,
        messages,
        trailers,
    })
}

#[test]
fn what_we_send_a_client_reads_as_it_was_meant() {
    check(&exchange(), |exchange| {
        exchange.check();
        Ok(())
    });
}
