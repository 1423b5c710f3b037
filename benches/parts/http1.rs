//! The codec alone, without a socket: what one request costs before and after the application.

use crate::case::Case;
use granian_uring::http1::{AutomaticHeaders, Connection, Event, Limits, RequestHead};
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

/// What a site of many years has left in a browser: 4 KiB in one line.
fn cookie_heavy() -> Vec<u8> {
    let cookies: Vec<String> = (0..64)
        .map(|number| format!("name_{number:02}={}", "0123456789abcdef".repeat(3)))
        .collect();
    let end = BROWSER.len() - b"\r\n".len();
    [&BROWSER[..end], b"Cookie: ", cookies.join("; ").as_bytes(), b"\r\n\r\n"].concat()
}

/// The headers of an answer.
type Headers = [(&'static [u8], &'static [u8])];

/// What a framework with middleware for security, caching and sessions sends.
const MANY_HEADERS: &Headers = &[
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-length", b"13"),
    (b"cache-control", b"max-age=0, no-cache, no-store, must-revalidate, private"),
    (b"etag", b"\"6f1e0b7a5c1d4a3e9c550e9f3a0c7b11\""),
    (b"expires", b"Sun, 06 Nov 1994 08:49:37 GMT"),
    (b"vary", b"Accept-Encoding, Cookie, Origin"),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"strict-transport-security", b"max-age=31536000; includeSubDomains"),
    (b"content-security-policy", b"default-src 'self'; img-src 'self' data:; style-src 'self'"),
    (b"set-cookie", b"session=0123456789abcdef0123456789abcdef; HttpOnly; Path=/; SameSite=Lax"),
    (b"x-request-id", b"6f1e0b7a-5c1d-4a3e-9c55-0e9f3a0c7b11"),
];

const FEW_HEADERS: &Headers =
    &[(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"13")];

/// Reads one request and answers it, on a connection that lives on.
fn exchange(
    connection: &mut Connection,
    mut input: &[u8],
    head: &mut RequestHead,
    headers: &Headers,
    wire: &mut Vec<u8>,
) {
    assert_eq!(connection.next_head(&mut input, head), Ok(true));
    black_box(&head);
    assert_eq!(connection.next_event(&mut input), Ok(Some(Event::End)));
    wire.clear();
    let started = connection.start_response(200, headers.iter().copied(), &AUTOMATIC);
    let sent = connection.send_body(13, true, wire);
    assert!(started.is_ok() && sent.is_ok() && connection.next_cycle().is_ok());
}

/// Reads one head, into memory that was used before, and forgets the connection.
fn read_head(pieces: &[&[u8]], head: &mut RequestHead) {
    let mut connection = Connection::new(Limits::default());
    for piece in pieces {
        let mut input = *piece;
        connection.next_head(&mut input, head).expect("the request is valid");
        black_box(&head);
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

/// A connection whose application is about to answer.
fn asked() -> Connection {
    let mut connection = Connection::new(Limits::default());
    let mut input = PLAIN;
    while let Ok(Some(_)) = connection.next_event(&mut input) {}
    connection
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = heads();
    cases.extend([(1, 100), (512, 64), (8192, 8)].map(|(size, count)| {
        Case::new("http1", format!("{count} chunks of {size}"), move || {
            let bytes = chunked_body(size, count);
            move || read_body(black_box(&bytes))
        })
        .bytes(size * count)
    }));
    cases.extend(responses());
    cases
}

fn heads() -> Vec<Case> {
    let inputs =
        [("few", PLAIN.to_vec()), ("many", BROWSER.to_vec()), ("cookie-heavy", cookie_heavy())];
    let mut cases: Vec<Case> = inputs
        .into_iter()
        .map(|(name, input)| {
            Case::new("http1", format!("head, {name} headers"), || {
                let mut head = RequestHead::default();
                move || read_head(&[black_box(&input)], &mut head)
            })
        })
        .collect();
    cases.push(Case::new("http1", "head, many headers in two pieces", || {
        let halves = [&BROWSER[..BROWSER.len() / 2], BROWSER];
        let mut head = RequestHead::default();
        move || read_head(black_box(&halves), &mut head)
    }));
    cases
}

fn responses() -> Vec<Case> {
    let answers = [("few", FEW_HEADERS), ("many", MANY_HEADERS)];
    let mut cases = Vec::new();
    for (name, headers) in answers {
        // The head is checked and written; what a pending one costs beyond that is one copy.
        cases.push(Case::new("http1", format!("response head, {name} headers"), move || {
            let mut connection = asked();
            move || {
                let headers = black_box(headers).iter().copied();
                let started = connection.start_response(200, headers, &AUTOMATIC);
                connection.discard_response();
                assert!(started.is_ok());
            }
        }));
    }
    cases.push(Case::new("http1", "a chunk framed", || {
        let (mut connection, mut wire) = (asked(), Vec::new());
        let started = connection.start_response(200, [].into_iter(), &AUTOMATIC);
        assert!(started.is_ok());
        move || {
            wire.clear();
            let framed = connection.send_body(black_box(4096), false, &mut wire);
            assert!(framed.is_ok());
            black_box(&wire);
        }
    }));
    for (name, input, headers) in [("few", PLAIN, FEW_HEADERS), ("many", BROWSER, MANY_HEADERS)] {
        cases.push(Case::new("http1", format!("exchange, {name} headers"), move || {
            let mut connection = Connection::new(Limits::default());
            let (mut head, mut wire) = (RequestHead::default(), Vec::new());
            move || exchange(&mut connection, black_box(input), &mut head, headers, &mut wire)
        }));
    }
    cases
}
