//! The response side, `100 Continue`, and what the state machine forbids. The request side is
//! tested by `tests/http1_corpus.rs`.

use super::*;

const NONE: AutomaticHeaders<'static> = AutomaticHeaders { date: None, server: None };
const BOTH: AutomaticHeaders<'static> = AutomaticHeaders {
    date: Some(b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"),
    server: Some(b"server: ours\r\n"),
};

const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const HEAD: &str = "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n";
const HEAD_10: &str = "HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
const GET_10: &str = "GET / HTTP/1.0\r\n\r\n";
const KEEP_10: &str = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
const EXPECT: &str =
    "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";

type Headers<'a> = &'a [(&'a str, &'a str)];

/// A connection that has read `input`, which must be consumed whole.
fn after(input: &str) -> Connection {
    let mut connection = Connection::new(Limits::default());
    let mut rest = input.as_bytes();
    while connection.next_event(&mut rest).unwrap().is_some() {}
    assert_eq!(rest, b"");
    connection
}

fn start(
    connection: &mut Connection,
    status: u16,
    headers: Headers<'_>,
    automatic: &AutomaticHeaders<'_>,
) -> Result<(), ResponseError> {
    let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    connection.start_response(status, headers, automatic)
}

/// What goes on the wire for one body message.
fn send(connection: &mut Connection, data: &str, end: bool) -> Result<String, ResponseError> {
    let mut wire = Vec::new();
    let frame = connection.send_body(data.len(), end, &mut wire)?;
    if let Some(suffix) = frame.suffix {
        wire.extend_from_slice(data.as_bytes());
        wire.extend_from_slice(suffix);
    }
    Ok(String::from_utf8(wire).unwrap())
}

/// The answer to `request`: its wire image, and whether the connection lives on.
fn answer(request: &str, status: u16, headers: Headers<'_>, body: &[&str]) -> (String, bool) {
    let mut connection = after(request);
    start(&mut connection, status, headers, &NONE).unwrap();
    let mut wire = String::new();
    for (index, data) in body.iter().enumerate() {
        assert!(!connection.response_ended());
        wire += &send(&mut connection, data, index + 1 == body.len()).unwrap();
    }
    assert!(connection.response_ended());
    let lives = connection.keeps_alive();
    assert_eq!(connection.next_cycle().is_ok(), lives);
    (wire, lives)
}

struct Framing {
    name: &'static str,
    request: &'static str,
    status: u16,
    headers: Headers<'static>,
    body: &'static [&'static str],
    wire: &'static str,
    lives: bool,
}

const CLOSE: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
const FIVE: Headers<'static> = &[("Content-Length", "5")];

#[rustfmt::skip]
const FRAMINGS: &[Framing] = &[
    Framing { name: "one message: its length", request: GET, status: 200, headers: &[], body: &["hello"],
        wire: "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", lives: true },
    Framing { name: "one empty message", request: GET, status: 404, headers: &[], body: &[""],
        wire: "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", lives: true },
    Framing { name: "declared length, in pieces", request: GET, status: 200, headers: &[("Content-Length", " 5\t")], body: &["he", "", "llo", ""],
        wire: "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", lives: true },
    Framing { name: "chunked", request: GET, status: 200, headers: &[], body: &["hello", "0123456789abcdef", ""],
        wire: "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n", lives: true },
    Framing { name: "chunked, data in the last message, empty ones dropped", request: GET, status: 200, headers: &[], body: &["", "a", "", "b"],
        wire: "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n", lives: true },
    Framing { name: "HTTP/1.0 closes", request: GET_10, status: 200, headers: &[], body: &["hello"],
        wire: "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello", lives: false },
    Framing { name: "HTTP/1.0 until the close", request: GET_10, status: 200, headers: &[], body: &["he", "llo"],
        wire: "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello", lives: false },
    Framing { name: "HTTP/1.0 until the close, in spite of keep-alive", request: KEEP_10, status: 200, headers: &[], body: &["he", "llo"],
        wire: "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello", lives: false },
    Framing { name: "HTTP/1.0 keep-alive", request: KEEP_10, status: 200, headers: &[], body: &["hello"],
        wire: "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: keep-alive\r\n\r\nhello", lives: true },
    Framing { name: "the client closes", request: CLOSE, status: 200, headers: &[], body: &["hello"],
        wire: "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello", lives: false },
    Framing { name: "the application closes", request: GET, status: 200, headers: &[("Connection", "Close")], body: &[""],
        wire: "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", lives: false },
    Framing { name: "the application closes HTTP/1.0 keep-alive", request: KEEP_10, status: 200, headers: &[("connection", "close")], body: &[""],
        wire: "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", lives: false },
    Framing { name: "other connection options stay", request: GET, status: 426, headers: &[("connection", "keep-alive, , upgrade,"), ("upgrade", "h2c")], body: &[""],
        wire: "HTTP/1.1 426 Upgrade Required\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: 0\r\n\r\n", lives: true },
    Framing { name: "transfer-encoding is ours", request: GET, status: 200, headers: &[("Transfer-Encoding", "chunked"), ("a", "b")], body: &["hello"],
        wire: "HTTP/1.1 200 OK\r\na: b\r\ncontent-length: 5\r\n\r\nhello", lives: true },
    Framing { name: "HEAD, body sent all the same", request: HEAD, status: 200, headers: &[], body: &["hello"],
        wire: "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", lives: true },
    Framing { name: "HEAD, no body: its length is unknown", request: HEAD, status: 200, headers: &[], body: &[""],
        wire: "HTTP/1.1 200 OK\r\n\r\n", lives: true },
    Framing { name: "HEAD, streamed", request: HEAD, status: 200, headers: &[], body: &["a", "b"],
        wire: "HTTP/1.1 200 OK\r\n\r\n", lives: true },
    Framing { name: "HEAD, declared and not sent", request: HEAD, status: 200, headers: FIVE, body: &[""],
        wire: "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", lives: true },
    Framing { name: "HEAD, declared and exceeded", request: HEAD, status: 200, headers: FIVE, body: &["hello", " world"],
        wire: "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", lives: true },
    Framing { name: "204 has neither body nor length", request: GET, status: 204, headers: FIVE, body: &["hello"],
        wire: "HTTP/1.1 204 No Content\r\n\r\n", lives: true },
    Framing { name: "304 has a declared length and no body", request: GET, status: 304, headers: FIVE, body: &[""],
        wire: "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", lives: true },
    Framing { name: "304 has no length of ours", request: GET, status: 304, headers: &[], body: &["x"],
        wire: "HTTP/1.1 304 Not Modified\r\n\r\n", lives: true },
    Framing { name: "304 to HTTP/1.0 keeps alive", request: KEEP_10, status: 304, headers: &[], body: &["a", "b"],
        wire: "HTTP/1.1 304 Not Modified\r\nconnection: keep-alive\r\n\r\n", lives: true },
    Framing { name: "304 to HEAD has a declared length", request: HEAD, status: 304, headers: FIVE, body: &["hello"],
        wire: "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", lives: true },
    Framing { name: "204 to HTTP/1.0 keeps alive, streamed", request: KEEP_10, status: 204, headers: &[], body: &["a", "b"],
        wire: "HTTP/1.1 204 No Content\r\nconnection: keep-alive\r\n\r\n", lives: true },
    Framing { name: "204 has no transfer coding", request: GET, status: 204, headers: &[("transfer-encoding", "chunked")], body: &["a", "b"],
        wire: "HTTP/1.1 204 No Content\r\n\r\n", lives: true },
    Framing { name: "205 has no body and says so", request: GET, status: 205, headers: &[], body: &["hello"],
        wire: "HTTP/1.1 205 Reset Content\r\ncontent-length: 0\r\n\r\n", lives: true },
    Framing { name: "205 has no body, whatever is declared", request: GET, status: 205, headers: FIVE, body: &["he", "llo"],
        wire: "HTTP/1.1 205 Reset Content\r\ncontent-length: 0\r\n\r\n", lives: true },
    Framing { name: "205 to HTTP/1.0 keeps alive, streamed", request: KEEP_10, status: 205, headers: &[], body: &["a", "b"],
        wire: "HTTP/1.1 205 Reset Content\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n", lives: true },
    Framing { name: "HEAD in HTTP/1.0 keeps alive", request: HEAD_10, status: 200, headers: FIVE, body: &[""],
        wire: "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: keep-alive\r\n\r\n", lives: true },
    Framing { name: "HEAD in HTTP/1.0, streamed: no body, no length, keeps alive", request: HEAD_10, status: 200, headers: &[], body: &["a", "b"],
        wire: "HTTP/1.1 200 OK\r\nconnection: keep-alive\r\n\r\n", lives: true },
    Framing { name: "an unknown status is framed like any other", request: GET, status: 299, headers: &[], body: &["a", ""],
        wire: "HTTP/1.1 299 \r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", lives: true },
    Framing { name: "304 to a client that closes", request: CLOSE, status: 304, headers: &[], body: &[""],
        wire: "HTTP/1.1 304 Not Modified\r\nconnection: close\r\n\r\n", lives: false },
    Framing { name: "a status without a phrase", request: GET, status: 599, headers: &[], body: &[""],
        wire: "HTTP/1.1 599 \r\ncontent-length: 0\r\n\r\n", lives: true },
    Framing { name: "values keep their bytes", request: GET, status: 200, headers: &[("X-Case", " caf\u{e9}\t"), ("x", "")], body: &[""],
        wire: "HTTP/1.1 200 OK\r\nX-Case:  caf\u{e9}\t\r\nx: \r\ncontent-length: 0\r\n\r\n", lives: true },
];

#[test]
fn every_framing_on_the_wire() {
    for case in FRAMINGS {
        let (wire, lives) = answer(case.request, case.status, case.headers, case.body);
        assert_eq!((&*wire, lives), (case.wire, case.lives), "{}", case.name);
    }
}

#[test]
fn automatic_headers_are_never_doubled() {
    let date = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let cases: &[(Headers<'_>, String)] = &[
        (&[], format!("{date}server: ours\r\n")),
        (&[("Date", "now")], "Date: now\r\nserver: ours\r\n".into()),
        (&[("SERVER", "theirs")], format!("SERVER: theirs\r\n{date}")),
        (&[("server", ""), ("date", "")], "server: \r\ndate: \r\n".into()),
        (
            &[("dat", "1"), ("servers", "2")],
            format!("dat: 1\r\nservers: 2\r\n{date}server: ours\r\n"),
        ),
    ];
    for (headers, expected) in cases {
        let mut connection = after(GET);
        start(&mut connection, 200, headers, &BOTH).unwrap();
        let wire = send(&mut connection, "", true).unwrap();
        assert_eq!(wire, format!("HTTP/1.1 200 OK\r\n{expected}content-length: 0\r\n\r\n"));
    }
}

#[test]
fn a_reason_phrase_is_sent_as_it_is_or_refused() {
    let mut connection = after(GET);
    for (reason, split) in [(&b"Fine\r\nx: y"[..], true), (b"\xe9t\xe9", false)] {
        let status = Status { code: 200, reason: Some(reason) };
        let started = connection.start_response(status, [].into_iter(), &NONE);
        assert_eq!(started, if split { Err(ResponseError::InvalidReason) } else { Ok(()) });
    }
    let mut out = Vec::new();
    connection.send_body(0, true, &mut out).unwrap();
    assert!(out.starts_with(b"HTTP/1.1 200 \xe9t\xe9\r\n"));
}

#[test]
fn a_refused_start_leaves_the_response_unstarted() {
    let cases: &[(u16, Headers<'_>, ResponseError)] = &[
        (0, &[], ResponseError::InvalidStatus(0)),
        (99, &[], ResponseError::InvalidStatus(99)),
        (1000, &[], ResponseError::InvalidStatus(1000)),
        (100, &[], ResponseError::InformationalStatus(100)),
        (101, &[], ResponseError::InformationalStatus(101)),
        (199, &[], ResponseError::InformationalStatus(199)),
        (200, &[("", "x")], ResponseError::InvalidHeaderName(String::new())),
        (200, &[("a b", "x")], ResponseError::InvalidHeaderName("a b".into())),
        (200, &[("a:", "x")], ResponseError::InvalidHeaderName("a:".into())),
        (200, &[("a\r\nb", "x")], ResponseError::InvalidHeaderName("a\\r\\nb".into())),
        (200, &[("\u{e9}", "x")], ResponseError::InvalidHeaderName("\\xc3\\xa9".into())),
        (200, &[("a", "x\ny")], ResponseError::InvalidHeaderValue("a".into())),
        (200, &[("a", "x\ry")], ResponseError::InvalidHeaderValue("a".into())),
        (200, &[("a", "x\0y")], ResponseError::InvalidHeaderValue("a".into())),
        (
            200,
            &[("connection", "close\r\n")],
            ResponseError::InvalidHeaderValue("connection".into()),
        ),
        (200, &[("content-length", "-1")], ResponseError::InvalidContentLength("-1".into())),
        (200, &[("content-length", "")], ResponseError::InvalidContentLength(String::new())),
        (200, &[("content-length", "1, 1")], ResponseError::InvalidContentLength("1, 1".into())),
        (
            200,
            &[("content-length", "1"), ("Content-Length", "1")],
            ResponseError::DuplicateContentLength,
        ),
    ];
    for (status, headers, error) in cases {
        let mut connection = after(GET);
        assert_eq!(start(&mut connection, *status, headers, &NONE).as_ref(), Err(error));
        assert!(!connection.response_started(), "{error}");
        start(&mut connection, 500, &[], &NONE).unwrap();
        let wire = send(&mut connection, "", true).unwrap();
        assert_eq!(wire, "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n");
    }
}

#[test]
fn messages_out_of_order_are_refused() {
    let mut connection = Connection::new(Limits::default());
    assert_eq!(start(&mut connection, 200, &[], &NONE), Err(ResponseError::WithoutRequest));
    let mut connection = after(GET);
    assert_eq!(send(&mut connection, "x", true), Err(ResponseError::BodyBeforeStart));
    start(&mut connection, 200, &[], &NONE).unwrap();
    assert_eq!(start(&mut connection, 200, &[], &NONE), Err(ResponseError::StartedTwice));
    assert_eq!(connection.next_cycle(), Err(NotFinished));
    send(&mut connection, "x", false).unwrap();
    assert_eq!(start(&mut connection, 200, &[], &NONE), Err(ResponseError::StartedTwice));
    send(&mut connection, "x", true).unwrap();
    assert_eq!(send(&mut connection, "x", true), Err(ResponseError::BodyAfterEnd));
    assert_eq!(start(&mut connection, 200, &[], &NONE), Err(ResponseError::StartedTwice));
    connection.next_cycle().unwrap();
    assert_eq!(start(&mut connection, 200, &[], &NONE), Err(ResponseError::WithoutRequest));
}

#[test]
fn a_body_must_fit_its_content_length() {
    let mut connection = after(GET);
    start(&mut connection, 200, FIVE, &NONE).unwrap();
    let long = ResponseError::BodyTooLong { declared: 5, sent: 6 };
    assert_eq!(send(&mut connection, "hello!", true), Err(long.clone()));
    let short = ResponseError::BodyTooShort { declared: 5, sent: 2 };
    assert_eq!(send(&mut connection, "he", true), Err(short.clone()));
    assert!(connection.response_pending(), "nothing was given out: a 500 is possible");
    send(&mut connection, "he", false).unwrap();
    assert!(!connection.response_pending());
    assert_eq!(send(&mut connection, "llo!", false), Err(long));
    assert_eq!(send(&mut connection, "", true), Err(short));
    assert!(!connection.response_ended());
    assert_eq!(send(&mut connection, "llo", true).unwrap(), "llo");
}

#[test]
fn a_pending_response_can_be_discarded() {
    let mut connection = after(GET);
    start(&mut connection, 200, &[("content-length", "5"), ("connection", "close")], &BOTH)
        .unwrap();
    connection.discard_response();
    assert!(!connection.response_started());
    start(&mut connection, 201, &[], &NONE).unwrap();
    let wire = send(&mut connection, "x", true).unwrap();
    assert_eq!(wire, "HTTP/1.1 201 Created\r\ncontent-length: 1\r\n\r\nx");
    connection.discard_response();
    assert!(connection.response_ended(), "what was given out cannot be discarded");
}

#[test]
fn an_error_answer_replaces_what_was_not_given_out() {
    let plain = "content-type: text/plain; charset=utf-8\r\n";
    let automatic = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\nserver: ours\r\n";
    let head = format!("HTTP/1.1 500 Internal Server Error\r\n{plain}{automatic}");
    for (request, body) in
        [(GET, "oh\n"), (HEAD, ""), (KEEP_10, "oh\n"), ("", "oh\n"), (EXPECT, "oh\n")]
    {
        let mut connection = after(request);
        if !request.is_empty() {
            start(&mut connection, 200, FIVE, &NONE).unwrap();
        }
        let mut out = Vec::new();
        connection.write_error(500, "oh", &BOTH, &mut out).unwrap();
        let expected = format!("{head}content-length: 3\r\nconnection: close\r\n\r\n{body}");
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        assert!(connection.response_ended() && !connection.keeps_alive());
        assert_eq!(connection.next_cycle(), Err(NotFinished));
    }
    let mut connection = after(GET);
    start(&mut connection, 200, FIVE, &NONE).unwrap();
    send(&mut connection, "", false).unwrap();
    let mut out = Vec::new();
    let refused = connection.write_error(500, "oh", &NONE, &mut out);
    assert_eq!((refused, &out[..]), (Err(ResponseError::StartedTwice), &b""[..]));
}

#[test]
fn a_broken_request_can_still_be_answered() {
    let mut connection = Connection::new(Limits::default());
    let mut input: &[u8] = b"GET / HTTP/2.0\r\n\r\n";
    let error = connection.next_event(&mut input).unwrap_err();
    assert_eq!((error, error.status()), (ProtocolError::UnsupportedVersion, 505));
    assert_eq!(connection.end_of_input(0), Err(error));
    let mut out = Vec::new();
    connection.write_error(error.status(), &error.to_string(), &NONE, &mut out).unwrap();
    assert!(
        out.starts_with(b"HTTP/1.1 505 HTTP Version Not Supported\r\n"),
        "{}",
        out.escape_ascii()
    );
}

#[test]
fn a_response_that_runs_when_the_body_breaks_says_close() {
    let chunked = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut connection = after(chunked);
    start(&mut connection, 200, &[], &NONE).unwrap();
    assert_eq!(connection.next_event(&mut &b"x"[..]), Err(ProtocolError::InvalidChunkSize));
    let wire = send(&mut connection, "", true).unwrap();
    assert_eq!(wire, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    assert_eq!(connection.next_cycle(), Err(NotFinished));
}

#[test]
fn continue_is_written_once_and_only_when_waited_for() {
    let written = |connection: &mut Connection| {
        let mut out = Vec::new();
        connection.write_continue(&mut out);
        String::from_utf8(out).unwrap()
    };
    let interim = "HTTP/1.1 100 Continue\r\n\r\n";
    let mut connection = after(EXPECT);
    assert_eq!(written(&mut connection), interim);
    assert_eq!(written(&mut connection), "");
    assert_eq!(written(&mut after(GET)), "", "nobody waits");
    assert_eq!(written(&mut after(&format!("{EXPECT}h"))), "", "the body comes already");

    let mut connection = after(EXPECT);
    start(&mut connection, 200, &[], &NONE).unwrap();
    assert_eq!(written(&mut connection), interim, "nothing of the response is on the wire");
    let mut connection = after(EXPECT);
    start(&mut connection, 200, &[], &NONE).unwrap();
    send(&mut connection, "", false).unwrap();
    assert_eq!(written(&mut connection), "", "the head is on the wire");
}

#[test]
fn an_answer_without_the_awaited_continue_closes() {
    let closes = |connection: &mut Connection| {
        start(connection, 403, &[], &NONE).unwrap();
        send(connection, "", true).unwrap().contains("connection: close\r\n")
    };
    assert!(closes(&mut after(EXPECT)));
    assert!(!closes(&mut after(&format!("{EXPECT}h"))), "the body came");
    let mut told = after(EXPECT);
    told.write_continue(&mut Vec::new());
    assert!(!closes(&mut told), "the body will come");
}

#[test]
fn a_draining_server_says_close_while_it_can() {
    let mut connection = after(GET);
    start(&mut connection, 200, &[], &NONE).unwrap();
    connection.close_after_response();
    let wire = send(&mut connection, "", true).unwrap();
    assert_eq!(wire, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    assert_eq!(connection.next_cycle(), Err(NotFinished));
    let mut idle = Connection::new(Limits::default());
    idle.close_after_response();
    let mut input = GET.as_bytes();
    while idle.next_event(&mut input).unwrap().is_some() {}
    start(&mut idle, 200, &[], &NONE).unwrap();
    assert_eq!(send(&mut idle, "", true).unwrap(), wire, "told before the request came");
    let mut late = after(GET);
    start(&mut late, 200, &[], &NONE).unwrap();
    send(&mut late, "", true).unwrap();
    late.close_after_response();
    assert_eq!(late.next_cycle(), Err(NotFinished));
}

#[test]
fn the_next_cycle_waits_for_the_request_too() {
    let mut connection = after(&format!("{EXPECT}h"));
    assert_eq!(connection.body_remaining(), Some(1));
    start(&mut connection, 200, &[], &NONE).unwrap();
    send(&mut connection, "", true).unwrap();
    assert!(connection.keeps_alive() && !connection.request_ended());
    assert_eq!(connection.next_cycle(), Err(NotFinished));
    assert_eq!(connection.end_of_input(0), Err(ProtocolError::Truncated));
    let mut input: &[u8] = b"iGET / HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(connection.next_event(&mut input), Ok(Some(Event::Body(b"i"))));
    assert_eq!(connection.next_event(&mut input), Ok(Some(Event::End)));
    assert_eq!(connection.next_event(&mut input), Ok(None), "not before the next cycle");
    assert_eq!(connection.end_of_input(input.len()), Ok(()));
    connection.next_cycle().unwrap();
    assert!(connection.is_between_requests());
    assert!(matches!(connection.next_event(&mut input), Ok(Some(Event::Request(_)))));
    assert_eq!((input, connection.is_between_requests()), (&b""[..], false));
}

#[test]
fn nothing_of_a_cycle_is_left_in_the_next() {
    let mut connection = after(HEAD);
    start(&mut connection, 200, FIVE, &NONE).unwrap();
    send(&mut connection, "hello", true).unwrap();
    connection.next_cycle().unwrap();
    let mut input = GET.as_bytes();
    while connection.next_event(&mut input).unwrap().is_some() {}
    start(&mut connection, 200, FIVE, &NONE).unwrap();
    assert!(send(&mut connection, "hello", true).unwrap().ends_with("\r\n\r\nhello"));

    let mut connection = after(HEAD);
    start(&mut connection, 200, &[], &NONE).unwrap();
    send(&mut connection, "", true).unwrap();
    connection.next_cycle().unwrap();
    let mut out = Vec::new();
    connection.write_error(408, "too slow", &NONE, &mut out).unwrap();
    assert!(out.ends_with(b"\r\n\r\ntoo slow\n"), "the next request is not known to be HEAD");
}

/// What was scanned is not looked at again, whatever the cut: spoiling it goes unnoticed until the
/// head is complete. Parsing anew for each byte would make 64 KiB take minutes here.
#[test]
fn a_head_in_single_bytes_is_scanned_once() {
    let line = format!("X: {}\r\n", "v".repeat(990));
    let head = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", line.repeat(64));
    let mut connection = Connection::new(Limits::default());
    let mut received = Vec::new();
    for byte in &head.as_bytes()[..head.len() - 1] {
        received.push(*byte);
        let mut input = &received[..];
        assert_eq!(connection.next_event(&mut input), Ok(None));
        assert_eq!(input.len(), received.len(), "nothing is consumed");
        if let Some(before_last) = received.len().checked_sub(2) {
            received[before_last] = b'\0';
        }
    }
    let mut input = head.as_bytes();
    assert!(matches!(connection.next_event(&mut input), Ok(Some(Event::Request(_)))));
    assert_eq!(input, b"");
}

// Early hints, RFC 8297.

fn hints(connection: &mut Connection, links: &[&str]) -> Result<String, ResponseError> {
    let mut wire = Vec::new();
    let result = connection.write_early_hints(links.iter().map(|it| it.as_bytes()), &mut wire);
    let wire = String::from_utf8(wire).unwrap();
    assert!(result.is_ok() || wire.is_empty());
    result.map(|()| wire)
}

#[test]
fn early_hints_go_before_the_answer_and_not_to_http_10() {
    let mut connection = after(GET);
    let sent = hints(&mut connection, &["</a.css>; rel=preload", "</b.js>"]).unwrap();
    let expected =
        "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nlink: </b.js>\r\n\r\n";
    assert_eq!(sent, expected);
    assert!(hints(&mut connection, &["a\r\nset-cookie: b"]).is_err());
    start(&mut connection, 200, &[], &NONE).unwrap();
    assert_eq!(hints(&mut connection, &[]), Err(ResponseError::StartedTwice));
    send(&mut connection, "", true).unwrap();
    assert!(hints(&mut connection, &[]).is_err());

    assert_eq!(hints(&mut after(GET_10), &["</a.css>"]).unwrap(), "");
    let mut idle = Connection::new(Limits::default());
    assert_eq!(hints(&mut idle, &[]), Err(ResponseError::WithoutRequest));
}

// Trailers, RFC 9110 §6.5.

const GET_TE: &str = "GET / HTTP/1.1\r\nHost: x\r\nTE: deflate;q=0.5, Trailers\r\n\r\n";

fn trailers(connection: &mut Connection, fields: Headers<'_>) -> Result<String, ResponseError> {
    let mut wire = Vec::new();
    let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let result = connection.send_trailers(fields, &mut wire);
    let wire = String::from_utf8(wire).unwrap();
    assert!(result.is_ok() || wire.is_empty());
    result.map(|()| wire)
}

#[test]
fn trailers_follow_a_chunked_body_to_a_client_that_takes_them() {
    let table: [(&str, Headers<'_>, &str); 4] = [
        (GET_TE, &[], "0\r\nx-sum: 7\r\n\r\n"),
        (GET, &[], "0\r\n\r\n"),
        (GET_TE, FIVE, ""),
        ("GET / HTTP/1.0\r\nTE: trailers\r\n\r\n", &[], ""),
    ];
    for (request, headers, expected) in table {
        let mut connection = after(request);
        start(&mut connection, 200, headers, &NONE).unwrap();
        send(&mut connection, "hello", false).unwrap();
        assert_eq!(trailers(&mut connection, &[("x-sum", "7")]).unwrap(), expected, "{request}");
        assert!(connection.response_ended());
    }
}

#[test]
fn what_must_be_known_before_the_content_is_no_trailer() {
    let mut connection = after(GET_TE);
    assert_eq!(trailers(&mut connection, &[]), Err(ResponseError::BodyBeforeStart));
    start(&mut connection, 200, &[], &NONE).unwrap();
    send(&mut connection, "hello", false).unwrap();
    for name in ["Content-Length", "transfer-encoding", "Host", "set-cookie"] {
        let refused = trailers(&mut connection, &[("x-sum", "7"), (name, "1")]);
        assert_eq!(refused, Err(ResponseError::ForbiddenTrailer(name.to_owned())));
    }
    assert!(trailers(&mut connection, &[("x", "a\nb")]).is_err());
    assert!(trailers(&mut connection, &[("x y", "a")]).is_err());
    assert_eq!(trailers(&mut connection, &[]).unwrap(), "0\r\n\r\n");
    assert_eq!(trailers(&mut connection, &[]), Err(ResponseError::BodyAfterEnd));
}

// Ranges, RFC 9110 §14.

/// The part of 10 bytes that is selected, and the head that goes out.
fn select(fields: &str, status: u16, headers: Headers<'_>) -> (std::ops::Range<u64>, String) {
    let mut connection = after(&format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n"));
    start(&mut connection, status, headers, &NONE).unwrap();
    let part = connection.select_range(10);
    let length = usize::try_from(part.end - part.start).unwrap();
    let mut wire = Vec::new();
    connection.send_body(length, true, &mut wire).unwrap();
    (part, String::from_utf8(wire).unwrap())
}

#[test]
fn a_range_of_a_whole_representation_is_selected() {
    let etag: Headers<'_> = &[("ETag", "\"a\""), ("content-length", "10")];
    let (part, head) = select("Range: bytes=2-4\r\n", 200, etag);
    assert_eq!(part, 2..5);
    let expected = "HTTP/1.1 206 Partial Content\r\nETag: \"a\"\r\naccept-ranges: bytes\r\n\
                    content-range: bytes 2-4/10\r\ncontent-length: 3\r\n\r\n";
    assert_eq!(head, expected);

    let (part, head) = select("Range: bytes=10-\r\n", 200, etag);
    assert_eq!(part, 0..0);
    assert!(head.starts_with("HTTP/1.1 416 Range Not Satisfiable\r\n"), "{head}");
    assert!(head.contains("content-range: bytes */10\r\ncontent-length: 0\r\n"), "{head}");

    let (part, head) = select("Range: bytes=2-4\r\nIf-Range: \"a\"\r\n", 200, etag);
    assert_eq!((part, &head[..12]), (2..5, "HTTP/1.1 206"));
}

#[test]
fn the_whole_is_sent_where_no_range_may_be_selected() {
    let etag: Headers<'_> = &[("etag", "\"a\"")];
    let table: [(&str, u16, Headers<'_>); 8] = [
        ("", 200, etag),
        ("Range: bytes=2-4\r\nIf-Range: \"b\"\r\n", 200, etag),
        ("Range: bytes=2-4\r\nIf-Range: W/\"a\"\r\n", 200, etag),
        ("Range: bytes=0-1\r\nRange: bytes=2-4\r\n", 200, etag),
        ("Range: bytes=0-1,2-4\r\n", 200, etag),
        ("Range: bytes=2-4\r\n", 404, etag),
        ("Range: bytes=2-4\r\n", 200, &[("accept-ranges", "none")]),
        ("Range: bytes=2-4\r\n", 200, &[("content-range", "bytes 0-9/20")]),
    ];
    for (fields, status, headers) in table {
        let (part, head) = select(fields, status, headers);
        assert_eq!(part, 0..10, "{fields}{headers:?}");
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert_eq!(
            head.matches("content-range").count(),
            usize::from(headers[0].0 == "content-range")
        );
    }
    let mut head_only = after("HEAD / HTTP/1.1\r\nHost: x\r\nRange: bytes=2-4\r\n\r\n");
    start(&mut head_only, 200, &[], &NONE).unwrap();
    assert_eq!(head_only.select_range(10), 0..10);
}
