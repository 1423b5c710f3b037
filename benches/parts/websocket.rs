//! WebSocket messages without a socket: what one costs on its way in and out again.

use crate::case::Case;
use granian_uring::http1::{self, AutomaticHeaders};
use granian_uring::websocket::{Codecs, Connection, Deflate, Event, Framed, Message, Settings};
use std::hint::black_box;

const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";

/// What an accepted connection needs beside its input.
struct Peer {
    connection: Connection,
    codecs: Codecs,
    out: Vec<u8>,
}

impl Peer {
    fn new(deflate: Deflate) -> Self {
        let mut http = http1::Connection::new(http1::Limits::default());
        let mut input = REQUEST;
        let Ok(Some(http1::Event::Request(head))) = http.next_event(&mut input) else {
            unreachable!("the request is valid")
        };
        let ended = http.next_event(&mut input);
        let settings = Settings { deflate, ..Settings::default() };
        let mut connection = Connection::new(&head, settings).expect("the handshake is valid");
        let (automatic, mut out) = (AutomaticHeaders::default(), Vec::new());
        let accepted = connection.accept(None, [].into_iter(), &automatic, &mut http, &mut out);
        assert!(ended.is_ok() && accepted.is_ok());
        Self { connection, codecs: Codecs::default(), out }
    }

    /// Reads one message, and sends it back.
    fn echo(&mut self, mut input: &[u8]) {
        let Self { connection, codecs, out } = self;
        out.clear();
        let event = connection.next_event(&mut input, codecs, out);
        let (framed, data) = match &event {
            Ok(Some(Event::Text(text))) => {
                (connection.send(Message::Text(text), codecs, out), text.as_bytes())
            }
            Ok(Some(Event::Binary(bytes))) => {
                (connection.send(Message::Binary(bytes), codecs, out), &bytes[..])
            }
            other => unreachable!("the message is valid: {other:?}"),
        };
        if framed == Ok(Framed::Header) {
            out.extend_from_slice(data);
        }
        black_box(&out);
    }
}

/// A client's message in one frame.
fn message(opcode: u8, length: usize) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    let bytes = (length as u64).to_be_bytes();
    if length < 126 {
        frame.push(0x80 | bytes[7]);
    } else if length < 0x1_0000 {
        frame.extend([&[0xfe], &bytes[6..]].concat());
    } else {
        frame.extend([&[0xff], &bytes[..]].concat());
    }
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    frame.extend(mask);
    let words = b"some words that are said again and again, ".iter().cycle().take(length);
    frame.extend(words.zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

pub(super) fn cases() -> Vec<Case> {
    let echo = |name: String, opcode: u8, length: usize, deflate: Deflate| {
        Case::new("websocket", name, move || {
            let (input, mut peer) = (message(opcode, length), Peer::new(deflate));
            move || peer.echo(black_box(&input))
        })
        .bytes(length)
    };
    let mut cases = Vec::new();
    for length in [16, 128, 4096, 1 << 16] {
        for (kind, opcode) in [("text", 1), ("binary", 2)] {
            cases.push(echo(format!("echo {kind} of {length}"), opcode, length, Deflate::Off));
        }
    }
    for deflate in [Deflate::EachMessage, Deflate::Context] {
        cases.push(echo(format!("echo text of 1024, deflate {deflate:?}"), 1, 1024, deflate));
    }
    cases
}
