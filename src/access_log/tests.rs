//! What lines look like, over records that a test makes; and that no bytes of a client make a line
//! anything else than one line.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clock::Clock;
use super::{ATOMS, Endpoints, Format, Record};
use crate::http1::{Connection, Event, Limits, RequestHead};
use crate::listener::Address;
use crate::proactor::simulated::Random;

fn head(bytes: &[u8]) -> RequestHead {
    let mut input = bytes;
    match Connection::new(Limits::default()).next_event(&mut input).unwrap() {
        Some(Event::Request(head)) => head,
        other => panic!("{other:?} is no head"),
    }
}

const HEAD: &[u8] = b"PUT /a%0Ab?c=%0A HTTP/1.1\r\nHost: web\r\nUser-Agent: \"curl\"\r\n\
                      X-Tag: 1\r\nx-tag: 2\r\n\r\n";

fn record(head: Option<RequestHead>) -> Record {
    let begun = Instant::now();
    Record {
        endpoints: Some(Arc::new(Endpoints {
            peer: Address::tcp("10.0.0.1:40000".parse().unwrap()),
            local: Address::tcp("[::1]:8000".parse().unwrap()),
            connection: 7,
            tls: None,
        })),
        forwarded: None,
        head,
        number: 3,
        serial: 0xff,
        first_byte: Some(begun + Duration::from_micros(500)),
        ended: begun + Duration::from_micros(1250),
        status: 404,
        response: b"HTTP/1.1 404 Not Found\r\nX-Cache: no\r\nx-cache:  yes\r\n".to_vec(),
        response_body: 12,
        request_body: 5,
        complete: true,
        ..Record::new(begun)
    }
}

fn lines(format: Option<&str>, json: bool, record: &Record) -> String {
    let format = Format::compile(format, json, false).unwrap();
    let mut clock = Clock::new();
    clock.read();
    let mut out = Vec::new();
    format.write(record, &mut clock, &mut out);
    String::from_utf8(out).unwrap()
}

fn line(format: &str) -> String {
    let written = lines(Some(format), false, &record(Some(head(HEAD))));
    written.strip_suffix('\n').unwrap().to_owned()
}

#[test]
fn every_atom() {
    for (atom, expected) in [
        ("addr", "10.0.0.1"),
        ("port", "40000"),
        ("dt_ms", "1.25"),
        ("ttfb_ms", "0.5"),
        ("status", "404"),
        ("completion", "OK"),
        ("body_bytes", "12"),
        ("request_bytes", &(HEAD.len() + 5).to_string()),
        ("request_line", "PUT /a%0Ab?c=%0A HTTP/1.1"),
        ("method", "PUT"),
        ("target", "/a%0Ab?c=%0A"),
        ("path", r"/a\x0ab"),
        ("query_string", "c=%0A"),
        ("protocol", "HTTP/1.1"),
        ("scheme", "http"),
        ("host", "web"),
        ("referer", "-"),
        ("user_agent", r#"\"curl\""#),
        ("header{X-Tag}", "1, 2"),
        ("header{missing}", "-"),
        ("response_header{X-Cache}", "no, yes"),
        ("connection", "7"),
        ("connection_requests", "3"),
        ("server", "[::1]:8000"),
        ("pid", &std::process::id().to_string()),
        ("tls_version", "-"),
        ("tls_cipher", "-"),
    ] {
        assert_eq!(line(&format!("%({atom})s")), expected, "{atom}");
    }
    for (atom, _) in ATOMS {
        line(&format!("%({})s", atom.replace("NAME", "x")));
    }
    assert!(line("%(request_id)s").ends_with("00000000000000ff"));
}

#[test]
fn what_is_not_known_is_a_dash() {
    let refused = Record { status: 0, complete: false, request_body: 0, ..record(None) };
    let format = "%(method)s %(path)s %(header{a})s %(status)d %(completion)s %(request_bytes)d";
    assert_eq!(lines(Some(format), false, &refused), "- - - 499 - 0\n");
    let json = lines(Some(format), true, &refused);
    assert!(json.starts_with(r#"{"method":null,"path":null,"header{a}":null,"status":499,"#));
}

#[test]
fn conversions() {
    for (format, expected) in [
        ("%(status)d %(dt_ms).1f %(dt_ms).3f %(dt_ms)d", "404 1.2 1.250 1"),
        ("100%% %(method)-5s|%(method)5s|%(method).2s|", "100% PUT  |  PUT|PU|"),
        ("%(status)06d %(status)-6d| %(status).2f", "000404 404   | 404.00"),
        ("no atom", "no atom"),
        ("", ""),
    ] {
        assert_eq!(line(format), expected, "{format}");
    }
}

#[test]
fn formats_by_name() {
    let common = line("common");
    let (before, rest) = common.split_once('[').unwrap();
    assert_eq!(before, "10.0.0.1 - - ");
    let (time, rest) = rest.split_once(']').unwrap();
    assert_eq!(time.len(), "10/Oct/2000:13:55:36 -0700".len());
    assert_eq!(rest, r#" "PUT /a%0Ab?c=%0A HTTP/1.1" 404 12"#);
    assert!(line("combined").ends_with(r#" 404 12 "-" "\"curl\"""#));
    assert_eq!(&line("default")[27..], r#" 10.0.0.1 "PUT /a\x0ab HTTP/1.1" 404 1.250"#);
    assert_eq!(
        lines(None, false, &record(Some(head(HEAD))))[27..],
        line("default")[27..].to_owned() + "\n"
    );
    let format = Format::compile(None, false, true).unwrap();
    let mut out = Vec::new();
    format.write(&record(Some(head(HEAD))), &mut Clock::new(), &mut out);
    assert_eq!(out, b"<6>10.0.0.1 \"PUT /a\\x0ab HTTP/1.1\" 404 1.250\n");
}

#[test]
fn json_names_each_atom_once_and_writes_numbers_as_numbers() {
    let format = "%(method)s %(header{X-Tag})s %(method)s [%(dt_ms).0f] %(status)s %(user_agent)s";
    assert_eq!(
        lines(Some(format), true, &record(Some(head(HEAD)))),
        "{\"method\":\"PUT\",\"header{X-Tag}\":\"1, 2\",\"dt_ms\":1.25,\"status\":404,\
         \"user_agent\":\"\\\"curl\\\"\"}\n"
    );
}

#[test]
fn milliseconds_in_json_have_three_decimals_at_most() {
    for microseconds in (0..20_000).chain([3_600_000_338]) {
        let mut record = record(None);
        record.ended = record.begun + Duration::from_micros(microseconds);
        let line = lines(Some("%(dt_ms)s"), true, &record);
        let (_, decimals) = line.trim_end_matches("}\n").split_once('.').unwrap();
        assert!(decimals.len() <= 3, "{line}");
    }
}

#[test]
fn no_bytes_make_a_line_anything_else_than_one_line() {
    let seed = std::env::var("SEED").map_or(1, |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let mut random = Random::new(seed);
    let alphabet: [&[u8]; 16] = [
        b"\"",
        b"\\",
        b"\x80",
        b"\xff",
        b"\xc2\x85",
        b"\xe2\x80\xa8",
        b"\xe2\x80\xae",
        b"\t",
        b"%0A",
        b"%0d",
        b"%00",
        b"%1b",
        b"%22",
        "é".as_bytes(),
        "\u{10ffff}".as_bytes(),
        b"x",
    ];
    for _ in 0..20_000 {
        let bytes = |random: &mut Random| -> Vec<u8> {
            (0..random.below(12)).flat_map(|_| alphabet[random.below(16)].to_vec()).collect()
        };
        let value = bytes(&mut random);
        let path: Vec<u8> = bytes(&mut random).into_iter().filter(u8::is_ascii_graphic).collect();
        let sent =
            [b"GET /", &path[..], b" HTTP/1.1\r\nhost: a\r\nx: ", &value, b"\r\n\r\n"].concat();
        let mut input = &sent[..];
        let Ok(Some(Event::Request(head))) =
            Connection::new(Limits::default()).next_event(&mut input)
        else {
            continue;
        };
        let record = Record { response: sent, ..record(Some(head)) };
        let format = "%(path)s \"%(header{x})s\" %(response_header{x})s %(request_line)s";
        let text = lines(Some(format), false, &record);
        let json = lines(Some(format), true, &record);
        for line in [&text, &json] {
            assert_eq!(line.lines().count(), 1, "{line:?}");
            let printable = |c: char| c == '"' || c == '\\' || !c.is_control() && c != '\u{202e}';
            assert!(line.trim_end_matches('\n').chars().all(printable), "{line:?}");
        }
        assert_eq!(unescaped_quotes(&text), 2, "{text:?}");
        assert_eq!(unescaped_quotes(&json), 16, "{json:?}");
        assert!(only_json_escapes(&json), "{json:?}");
    }
}

fn unescaped_quotes(line: &str) -> usize {
    let mut escaped = false;
    line.chars()
        .filter(|&c| {
            let counts = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            counts
        })
        .count()
}

/// RFC 8259 §7: what may follow a backslash. What else may be wrong with a string, a control or a
/// quote, is looked for above.
fn only_json_escapes(line: &str) -> bool {
    let mut rest = line;
    while let Some((_, after)) = rest.split_once('\\') {
        let digits =
            |text: &str| text.len() >= 4 && text.bytes().take(4).all(|b| b.is_ascii_hexdigit());
        match after.as_bytes().first() {
            Some(b'"' | b'\\') => rest = &after[1..],
            Some(b'u') if digits(&after[1..]) => rest = &after[5..],
            _ => return false,
        }
    }
    true
}
