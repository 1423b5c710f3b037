//! The codec alone, without a socket: what one request costs before and after the application.
//!
//! `cargo bench --bench http1` shows wall time. Instructions, which are the same on every run, are
//! counted over a fixed number of exchanges and nothing else: `HTTP1_ROUNDS=100000 valgrind
//! --tool=callgrind target/release/deps/http1-* browser` (or `plain`).

use criterion::{Criterion, Throughput};
use granian_uring::http1::{AutomaticHeaders, Connection, Event, Limits};
use std::hint::black_box;

/// What load generators send.
const PLAIN: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n";

/// What a browser behind a proxy sends.
const BROWSER: &[u8] = b"GET /articles/2024/05/some-title?page=2&sort=newest HTTP/1.1\r\n\
Host: www.example.org\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8\r\n\
Accept-Language: en-US,en;q=0.5\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Referer: https://www.example.org/articles/2024/05/\r\n\
DNT: 1\r\n\
Sec-GPC: 1\r\n\
Connection: keep-alive\r\n\
Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; consent=yes; _ga=GA1.2.3.4\r\n\
Upgrade-Insecure-Requests: 1\r\n\
Sec-Fetch-Dest: document\r\n\
Sec-Fetch-Mode: navigate\r\n\
Sec-Fetch-Site: same-origin\r\n\
Sec-Fetch-User: ?1\r\n\
X-Forwarded-For: 203.0.113.7\r\n\
X-Forwarded-Proto: https\r\n\
X-Request-ID: 6f1e0b7a-5c1d-4a3e-9c55-0e9f3a0c7b11\r\n\
Priority: u=0, i\r\n\r\n";

const POST_CHUNKED: &[u8] = b"POST /upload HTTP/1.1\r\nHost: www.example.org\r\n\
Transfer-Encoding: chunked\r\n\r\n";

const AUTOMATIC: AutomaticHeaders<'static> = AutomaticHeaders {
    date: Some(b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"),
    server: Some(b"server: granian\r\n"),
};

/// Reads one request and answers it, on a connection that lives on.
fn exchange(connection: &mut Connection, mut input: &[u8], wire: &mut Vec<u8>) {
    while let Ok(Some(event)) = connection.next_event(&mut input) {
        black_box(event);
    }
    let headers: [(&[u8], &[u8]); 1] = [(b"content-type", b"text/plain; charset=utf-8")];
    wire.clear();
    let started = connection.start_response(200, headers.into_iter(), &AUTOMATIC);
    let sent = connection.send_body(13, true, wire);
    assert!(started.is_ok() && sent.is_ok() && connection.next_cycle().is_ok());
}

/// Reads one head and forgets the connection.
fn read_head(pieces: &[&[u8]]) {
    let mut connection = Connection::new(Limits::default());
    for piece in pieces {
        let mut input = *piece;
        black_box(connection.next_event(&mut input)).expect("the request is valid");
    }
}

fn chunked_body(size: usize, count: usize) -> Vec<u8> {
    let mut bytes = POST_CHUNKED.to_vec();
    for _ in 0..count {
        bytes.extend_from_slice(format!("{size:x}\r\n{}\r\n", "x".repeat(size)).as_bytes());
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

fn read_body(bytes: &[u8]) {
    let mut connection = Connection::new(Limits::default());
    let mut input = bytes;
    while let Some(event) = connection.next_event(&mut input).expect("the request is valid") {
        black_box(&event);
        if event == Event::End {
            break;
        }
    }
}

/// So many exchanges and nothing else: for counting instructions.
fn count(name: &str, rounds: u64) {
    let input = if name == "browser" { BROWSER } else { PLAIN };
    let mut connection = Connection::new(Limits::default());
    let mut wire = Vec::new();
    for _ in 0..rounds {
        exchange(&mut connection, black_box(input), &mut wire);
    }
}

fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("http1");
    for (name, input) in [("plain", PLAIN), ("browser", BROWSER)] {
        let mut connection = Connection::new(Limits::default());
        let mut wire = Vec::new();
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("exchange {name}"), |bencher| {
            bencher.iter(|| exchange(&mut connection, black_box(input), &mut wire));
        });
        group.bench_function(format!("head {name}"), |bencher| {
            bencher.iter(|| read_head(&[black_box(input)]));
        });
    }
    let halves = [&BROWSER[..BROWSER.len() / 2], BROWSER];
    group.bench_function("head browser in two pieces", |bencher| {
        bencher.iter(|| read_head(black_box(&halves)));
    });
    for (size, count) in [(1, 1000), (8192, 8)] {
        let bytes = chunked_body(size, count);
        group.throughput(Throughput::Bytes((size * count) as u64));
        group.bench_function(format!("{count} chunks of {size}"), |bencher| {
            bencher.iter(|| read_body(black_box(&bytes)));
        });
    }
    group.finish();
}

fn main() {
    if let Some(rounds) = std::env::var("HTTP1_ROUNDS").ok().and_then(|text| text.parse().ok()) {
        count(&std::env::args().nth(1).unwrap_or_default(), rounds);
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    measure(&mut criterion);
    criterion.final_summary();
}
