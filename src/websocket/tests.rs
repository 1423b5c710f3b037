//! Tables of the two RFCs, and what applications may not do. What clients may do to us is tested by
//! `tests/websocket.rs`.

use super::frame::{FrameHeader, Mask, Opcode, write_header};
use super::state::{State, Step};
use super::*;
use crate::http1::{self, AutomaticHeaders, ResponseError};

const NONE: AutomaticHeaders<'static> = AutomaticHeaders { date: None, server: None };
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";

/// The head of a request, with `lines` after those of any handshake.
fn head(request_line: &str, lines: &str) -> (http1::RequestHead, http1::Connection) {
    let text = format!(
        "{request_line}\r\nHost: x\r\nUpgrade: h2c, WebSocket\r\nConnection: keep-alive, Upgrade\r\n{lines}\r\n"
    );
    let mut http = http1::Connection::new(http1::Limits::default());
    let mut input = text.as_bytes();
    let Some(http1::Event::Request(head)) = http.next_event(&mut input).unwrap() else {
        panic!("no request in {text}")
    };
    http.next_event(&mut input).unwrap();
    (head, http)
}

fn get(lines: &str) -> (http1::RequestHead, http1::Connection) {
    head("GET /chat HTTP/1.1", &format!("{KEY}{VERSION}{lines}"))
}

/// An open connection with `deflate`, and the parameters that were agreed on.
fn open(deflate: Deflate, offer: &str) -> (Connection, String) {
    let (head, mut http) = get(&format!("Sec-WebSocket-Extensions: {offer}\r\n"));
    let settings = Settings { deflate, max_message_bytes: 1000 };
    let mut connection = Connection::new(&head, settings).unwrap();
    let mut out = Vec::new();
    connection.accept(None, [].into_iter(), &NONE, &mut http, &mut out).unwrap();
    let wire = String::from_utf8(out).unwrap();
    let line = wire.lines().find_map(|line| line.strip_prefix("sec-websocket-extensions: "));
    (connection, line.unwrap_or("none").to_owned())
}

/// A client's frame. The mask is not all zeros, nor the same on both sides of a byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    write_header(Opcode::Text, false, payload.len(), &mut frame);
    frame[0] = first;
    frame[1] |= 0x80;
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Feeds `input`, which must be consumed whole. Events, and the bytes of the answer.
fn feed(
    connection: &mut Connection,
    mut input: &[u8],
) -> (Vec<Event>, Vec<u8>, Option<ProtocolError>) {
    let (mut codecs, mut events, mut out) = (Codecs::default(), Vec::new(), Vec::new());
    loop {
        match connection.next_event(&mut input, &mut codecs, &mut out) {
            Ok(Some(event)) => events.push(event),
            Ok(None) => break,
            Err(error) => return (events, out, Some(error)),
        }
    }
    assert_eq!(input, b"");
    (events, out, None)
}

fn text(text: &str) -> Event {
    Event::Text(text.to_owned())
}

#[test]
fn only_an_upgrade_to_websocket_is_a_handshake() {
    assert!(is_handshake(&get("").0));
    assert!(!is_handshake(&head("POST / HTTP/1.1", KEY).0));
    assert!(!is_handshake(&head("GET / HTTP/1.0", KEY).0));
    let bare = |lines: &str| {
        let text = format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
        let mut http = http1::Connection::new(http1::Limits::default());
        let Ok(Some(http1::Event::Request(head))) = http.next_event(&mut text.as_bytes()) else {
            panic!("no request in {text}")
        };
        is_handshake(&head)
    };
    assert!(bare("Upgrade: websocket\r\nConnection: upgrade\r\n"));
    assert!(bare("Upgrade: h2c\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"));
    assert!(!bare("Upgrade: websocket\r\n"));
    assert!(!bare("Upgrade: h2c\r\nConnection: upgrade\r\n"));
    assert!(!bare("Upgrade: websockets\r\nConnection: upgrade\r\n"));
}

#[test]
fn handshakes_are_judged() {
    use HandshakeError as E;
    let key = |value: &str| format!("{VERSION}Sec-WebSocket-Key: {value}\r\n");
    let with = |line: &str| format!("{KEY}{VERSION}{line}\r\n");
    let table = [
        (VERSION.to_owned(), Err(E::InvalidKey)),
        (key(""), Err(E::InvalidKey)),
        (key("dGhlIHNhbXBsZSBub25j"), Err(E::InvalidKey)),
        (key("dGhlIHNhbXBsZSBub25jZQ"), Err(E::InvalidKey)),
        (key("dGhlIHNhbXBsZSBub25jZWE="), Err(E::InvalidKey)),
        (key("dGhlIHNhbXBsZSBub25j%Q=="), Err(E::InvalidKey)),
        (key("dGhlIHNhbXBsZSBub25jZR=="), Ok(())),
        (format!("{KEY}{KEY}{VERSION}"), Err(E::InvalidKey)),
        (KEY.to_owned(), Err(E::UnsupportedVersion)),
        (format!("{KEY}Sec-WebSocket-Version: 8\r\n"), Err(E::UnsupportedVersion)),
        (format!("{KEY}Sec-WebSocket-Version: 13, 8\r\n"), Err(E::UnsupportedVersion)),
        (format!("{KEY}{VERSION}{VERSION}"), Err(E::UnsupportedVersion)),
        (with("Content-Length: 1"), Err(E::HasBody)),
        (with("Transfer-Encoding: chunked"), Err(E::HasBody)),
        (with("Content-Length: 0"), Ok(())),
        (with("Sec-WebSocket-Protocol: chat, su per"), Err(E::InvalidSubprotocols)),
        (with("Sec-WebSocket-Protocol: ch\u{e4}t"), Err(E::InvalidSubprotocols)),
        (with("Sec-WebSocket-Protocol: , chat,"), Ok(())),
        (with("Sec-WebSocket-Extensions: a b"), Err(E::InvalidExtensions)),
        (with("Sec-WebSocket-Extensions: a; =1"), Err(E::InvalidExtensions)),
        (with("Sec-WebSocket-Extensions: a; b="), Err(E::InvalidExtensions)),
        (with("Sec-WebSocket-Extensions: a; b=\"1"), Err(E::InvalidExtensions)),
        (with("Sec-WebSocket-Extensions: a; b=\"1,2\""), Err(E::InvalidExtensions)),
        (with("Sec-WebSocket-Extensions: ;"), Err(E::InvalidExtensions)),
        (with("Sec-WebSocket-Extensions: a; b=\"1\"; c , , d"), Ok(())),
    ];
    for (lines, expected) in table {
        let (head, _) = head("GET / HTTP/1.1", &lines);
        let found = Connection::new(&head, Settings::default()).map(|_| ());
        assert_eq!(found, expected, "{lines}");
    }
    assert_eq!(E::UnsupportedVersion.status(), 426);
    assert_eq!(E::UnsupportedVersion.headers()[0], (&b"sec-websocket-version"[..], &b"13"[..]));
    assert_eq!((E::InvalidKey.status(), E::InvalidKey.headers().len()), (400, 0));
}

#[test]
fn the_accept_key_is_that_of_rfc_6455_1_3() {
    let (head, mut http) = get("Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: v2\r\n");
    let mut connection = Connection::new(&head, Settings::default()).unwrap();
    assert_eq!(connection.subprotocols(), ["chat", "v2"]);
    let mut out = Vec::new();
    let headers = [(&b"Set-Cookie"[..], &b"a=b"[..])];
    let automatic = AutomaticHeaders { date: None, server: Some(b"server: ours\r\n") };
    connection.accept(Some("v2"), headers.into_iter(), &automatic, &mut http, &mut out).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\
         sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nsec-websocket-protocol: v2\r\n\
         Set-Cookie: a=b\r\nserver: ours\r\nconnection: upgrade\r\n\r\n"
    );
    assert!(connection.is_open() && http.response_ended() && !http.keeps_alive());
    assert!(http.next_cycle().is_err());
}

#[test]
fn an_accept_that_cannot_be_sent_changes_nothing() {
    let (head, mut http) = get("Sec-WebSocket-Protocol: chat\r\n");
    let mut connection = Connection::new(&head, Settings::default()).unwrap();
    let mut out = Vec::new();
    let mut accept = |connection: &mut Connection, subprotocol, name: &str, value: &str| {
        let headers = [(name.as_bytes(), value.as_bytes())];
        connection.accept(subprotocol, headers.into_iter(), &NONE, &mut http, &mut out)
    };
    let not_offered = AcceptError::NotOffered("Chat".to_owned());
    assert_eq!(accept(&mut connection, Some("Chat"), "a", "b"), Err(not_offered));
    let reserved = [
        "Sec-WebSocket-Protocol",
        "sec-websocket-accept",
        "SEC-WEBSOCKET-EXTENSIONS",
        "Upgrade",
        "connection",
        "Content-Length",
        "transfer-encoding",
    ];
    for name in reserved {
        let error = AcceptError::ReservedHeader(name.to_owned());
        assert_eq!(accept(&mut connection, None, name, "x"), Err(error));
    }
    let error = AcceptError::Response(ResponseError::InvalidHeaderValue("a".to_owned()));
    assert_eq!(accept(&mut connection, None, "a", "b\r\nc: d"), Err(error));
    let error = AcceptError::Response(ResponseError::InvalidHeaderName("a b".to_owned()));
    assert_eq!(accept(&mut connection, None, "a b", "c"), Err(error));
    assert_eq!(accept(&mut connection, Some("chat"), "sec-websocket", "x"), Ok(()));
    assert_eq!(accept(&mut connection, None, "a", "b"), Err(AcceptError::NotConnecting));
    assert_eq!(out.windows(4).filter(|end| end == b"\r\n\r\n").count(), 1);
}

#[test]
fn a_rejected_connection_leaves_the_request_to_http() {
    let (head, mut http) = get("");
    let mut connection = Connection::new(&head, Settings::default()).unwrap();
    let (mut input, mut codecs, mut out) = (&b"\x81\x80"[..], Codecs::default(), Vec::new());
    assert_eq!(connection.next_event(&mut input, &mut codecs, &mut out), Ok(None));
    assert_eq!(input.len(), 2, "nothing is read before the answer");
    let sent = connection.send(Message::Text("early"), &mut codecs, &mut out);
    assert_eq!(sent, Err(SendError::NotAccepted));
    assert_eq!(connection.close(1000, "", &mut out), Err(SendError::NotAccepted));
    connection.reject();
    assert!(connection.is_closed());
    let accepted = connection.accept(None, [].into_iter(), &NONE, &mut http, &mut out);
    assert_eq!(accepted, Err(AcceptError::NotConnecting));
    http.start_response(403, [].into_iter(), &NONE).unwrap();
    http.send_body(0, true, &mut out).unwrap();
    assert!(out.starts_with(b"HTTP/1.1 403 Forbidden\r\n") && http.next_cycle().is_ok());
}

#[test]
fn compression_is_negotiated() {
    const ALONE: &str =
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    let (off, each, context) = (Deflate::Off, Deflate::EachMessage, Deflate::Context);
    let table = [
        (off, "permessage-deflate", "none"),
        (each, "x-webkit-deflate-frame", "none"),
        (each, "permessage-deflate", ALONE),
        (each, "Permessage-Deflate", "none"),
        (each, "permessage-deflate; client_max_window_bits", ALONE),
        (context, "permessage-deflate; client_max_window_bits", "permessage-deflate"),
        (context, "permessage-deflate; client_max_window_bits=8", "permessage-deflate"),
        (
            context,
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            ALONE,
        ),
        (
            context,
            "permessage-deflate;client_no_context_takeover",
            "permessage-deflate; client_no_context_takeover",
        ),
        (
            context,
            "permessage-deflate; server_max_window_bits=\"10\"",
            "permessage-deflate; server_max_window_bits=10",
        ),
        // Declined, each for one thing that is wrong with it: RFC 7692 §7.1.
        (context, "permessage-deflate; server_max_window_bits", "none"),
        (context, "permessage-deflate; server_max_window_bits=8", "none"),
        (context, "permessage-deflate; server_max_window_bits=16", "none"),
        (context, "permessage-deflate; server_max_window_bits=09", "none"),
        (context, "permessage-deflate; server_max_window_bits=+9", "none"),
        (context, "permessage-deflate; client_max_window_bits=7", "none"),
        (context, "permessage-deflate; client_max_window_bits=a", "none"),
        (context, "permessage-deflate; server_no_context_takeover=1", "none"),
        (context, "permessage-deflate; client_no_context_takeover=1", "none"),
        (context, "permessage-deflate; unknown", "none"),
        (context, "permessage-deflate; client_max_window_bits; client_max_window_bits", "none"),
        // The first one that is possible.
        (
            context,
            "permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=9, permessage-deflate",
            "permessage-deflate; server_max_window_bits=9",
        ),
    ];
    for (deflate, offer, expected) in table {
        assert_eq!(open(deflate, offer).1, expected, "{offer}");
    }
}

#[test]
fn frames_of_rfc_6455_5_7() {
    let (mut connection, _) = open(Deflate::Off, "");
    let masked = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(feed(&mut connection, &masked).0, [text("Hello")]);
    let fragments = [frame(0x01, b"Hel"), frame(0x80, b"lo")].concat();
    assert_eq!(feed(&mut connection, &fragments).0, [text("Hello")]);
    let ping = [0x89, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(feed(&mut connection, &ping).1, [0x8a, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
    let answer = [0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(feed(&mut connection, &answer).0, [Event::Pong(b"Hello".to_vec())]);

    let (mut codecs, mut out) = (Codecs::default(), Vec::new());
    let sent = connection.send(Message::Text("Hello"), &mut codecs, &mut out);
    assert_eq!((sent, &out[..]), (Ok(Framed::Header), &[0x81, 0x05][..]));
    for (length, header) in [
        (125, &[0x82, 0x7d][..]),
        (126, &[0x82, 0x7e, 0x00, 0x7e][..]),
        (256, &[0x82, 0x7e, 0x01, 0x00][..]),
        (65535, &[0x82, 0x7e, 0xff, 0xff][..]),
        (65536, &[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0][..]),
    ] {
        out.clear();
        let message = vec![0; length];
        let sent = connection.send(Message::Binary(&message), &mut codecs, &mut out);
        assert_eq!((sent, &out[..]), (Ok(Framed::Header), header));
    }
    out.clear();
    connection.ping(b"Hello", &mut out).unwrap();
    assert_eq!(out, [0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
}

#[test]
fn compressed_messages_of_rfc_7692_7_2_3() {
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    // §7.2.3.1: in one frame, and in two.
    let (mut connection, _) = open(Deflate::EachMessage, "permessage-deflate");
    assert_eq!(feed(&mut connection, &frame(0xc1, &hello)).0, [text("Hello")]);
    let fragments = [frame(0x41, &hello[..3]), frame(0x80, &hello[3..])].concat();
    assert_eq!(feed(&mut connection, &fragments).0, [text("Hello")]);
    // An uncompressed message between two compressed ones.
    assert_eq!(feed(&mut connection, &frame(0x81, b"Hello")).0, [text("Hello")]);
    // §7.2.3.3: no compression within DEFLATE.
    let stored = [0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
    assert_eq!(feed(&mut connection, &frame(0xc1, &stored)).0, [text("Hello")]);
    // §7.2.3.4: a final block, with and without the byte that follows it.
    let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
    assert_eq!(feed(&mut connection, &frame(0xc1, &last)).0, [text("Hello")]);
    assert_eq!(feed(&mut connection, &frame(0xc1, &last[..7])).0, [text("Hello")]);
    // §7.2.3.5: two blocks.
    let blocks = [0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
    assert_eq!(feed(&mut connection, &frame(0xc1, &blocks)).0, [text("Hello")]);
    // §7.2.3.6: an empty message, and one that is even emptier.
    assert_eq!(feed(&mut connection, &frame(0xc1, &[0x00])).0, [text("")]);
    assert_eq!(feed(&mut connection, &frame(0xc1, &[])).0, [text("")]);
    assert_eq!(feed(&mut connection, &frame(0xc1, &hello)).0, [text("Hello")]);

    // §7.2.3.2: the second one refers to the first.
    let again = [0xf2, 0x00, 0x11, 0x00, 0x00];
    let (mut connection, _) = open(Deflate::Context, "permessage-deflate");
    let both = [frame(0xc1, &hello), frame(0xc1, &again)].concat();
    assert_eq!(feed(&mut connection, &both).0, [text("Hello"), text("Hello")]);
    // What ends without the block that the tail belongs to leaves the next message as it is.
    for bare in [&last[..7], &[]] {
        let hello = frame(0xc1, &hello);
        let bytes = [hello.clone(), frame(0xc1, bare), hello].concat();
        let (events, _, error) = feed(&mut connection, &bytes);
        assert_eq!((events.len(), error), (3, None));
        assert_eq!(events[2], text("Hello"));
    }
    let (mut connection, _) = open(Deflate::EachMessage, "permessage-deflate");
    assert_eq!(feed(&mut connection, &both).2, Some(ProtocolError::InvalidDeflate));
}

#[test]
fn close_codes_are_checked_both_ways() {
    let valid =
        [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999];
    let invalid = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535];
    for code in valid.into_iter().chain(invalid) {
        let is_valid = valid.contains(&code);
        let payload = u16::to_be_bytes(code);
        let (mut connection, _) = open(Deflate::Off, "");
        let (events, out, error) = feed(&mut connection, &frame(0x88, &payload));
        if is_valid {
            assert_eq!(events, [Event::Close { code, reason: String::new() }]);
            assert_eq!(out, [&[0x88, 2], &payload[..]].concat(), "the same code comes back");
            assert_eq!(connection.end_of_input(), Ok(()));
        } else {
            assert_eq!(error, Some(ProtocolError::InvalidClose), "{code}");
            assert_eq!(out[2..4], 1002u16.to_be_bytes());
        }
        assert!(connection.is_closed());

        let (mut connection, _) = open(Deflate::Off, "");
        let expected = if is_valid { Ok(()) } else { Err(SendError::InvalidCode(code)) };
        assert_eq!(connection.close(code, "", &mut Vec::new()), expected);
        assert_eq!(connection.is_open(), !is_valid);
    }
    let (mut connection, _) = open(Deflate::Off, "");
    assert_eq!(
        connection.close(1000, &"x".repeat(124), &mut Vec::new()),
        Err(SendError::TooLong(124))
    );
    assert_eq!(connection.ping(&[0; 126], &mut Vec::new()), Err(SendError::TooLong(126)));
    assert_eq!(connection.close(1000, &"x".repeat(123), &mut Vec::new()), Ok(()));
}

#[test]
fn nothing_is_sent_after_a_close() {
    let (mut connection, _) = open(Deflate::Context, "permessage-deflate");
    let (mut codecs, mut out) = (Codecs::default(), Vec::new());
    // In the middle of a message, which is then of no interest.
    assert_eq!(feed(&mut connection, &frame(0x01, b"Hel")).0, []);
    connection.close(1001, "bye", &mut out).unwrap();
    assert_eq!(out, b"\x88\x05\x03\xe9bye");
    let sent = connection.send(Message::Text("late"), &mut codecs, &mut out);
    assert_eq!(sent, Err(SendError::Closed));
    assert_eq!(connection.ping(b"", &mut out), Err(SendError::Closed));
    assert_eq!(connection.close(1000, "", &mut out), Err(SendError::Closed));
    assert!(!connection.is_closed());
    assert_eq!(connection.end_of_input(), Err(ProtocolError::Truncated));
    let late = [
        frame(0x80, b"lo"),
        frame(0x89, b"ping"),
        frame(0x8a, b"pong"),
        frame(0xc1, b"no deflate"),
        frame(0x82, &[0; 2000]),
    ];
    assert_eq!(feed(&mut connection, &late.concat()), (vec![], vec![], None));
    let answer = [frame(0x88, &1001u16.to_be_bytes()), b"garbage".to_vec()].concat();
    let close = Event::Close { code: 1001, reason: String::new() };
    assert_eq!(feed(&mut connection, &answer), (vec![close], vec![], None));
    assert_eq!(connection.end_of_input(), Ok(()));
    assert_eq!(out.len(), 7);

    // A misdeed is not answered by a second close frame.
    let (mut connection, _) = open(Deflate::Off, "");
    connection.close(1000, "", &mut out).unwrap();
    let misdeed = Some(ProtocolError::UnknownOpcode);
    assert_eq!(feed(&mut connection, &frame(0x83, b"")), (vec![], vec![], misdeed));
    assert!(connection.is_closed());
}

#[test]
fn masks_go_on_from_piece_to_piece() {
    let mask = *b"\x01\x20\x33\xf4";
    let header = [&[0x82, 0x80][..], &mask].concat();
    let plain: Vec<u8> = (0..100).collect();
    let masked: Vec<u8> = (0..100).map(|at| plain[at] ^ mask[at % 4]).collect();
    for first in 0..=100 {
        for second in first..=100 {
            let (parsed, length) = FrameHeader::parse(&header, false).unwrap().unwrap();
            assert_eq!(length, header.len());
            let (mut mask, mut bytes): (Mask, _) = (parsed.mask, masked.clone());
            mask.apply(&mut bytes[..first]);
            mask.apply(&mut bytes[first..second]);
            mask.apply(&mut bytes[second..]);
            assert_eq!(bytes, plain, "cut at {first} and {second}");
        }
    }
}

#[test]
fn the_table_of_states_is_what_it_says() {
    use State as S;
    let steps =
        [Step::Accept, Step::Reject, Step::Send, Step::SendClose, Step::ReceiveClose, Step::Fail];
    let table = [
        (S::Connecting, [Some(S::Open), Some(S::Closed), None, None, None, None]),
        (S::Open, [None, None, Some(S::Open), Some(S::Closing), Some(S::Closed), Some(S::Closed)]),
        (S::Closing, [None, None, None, None, Some(S::Closed), Some(S::Closed)]),
        (S::Closed, [None; 6]),
    ];
    for (state, expected) in table {
        assert_eq!(steps.map(|step| state.after(step)), expected, "{state:?}");
    }
}
