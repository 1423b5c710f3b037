//! What a client sends on an open WebSocket connection: no bytes panic, no cut changes what is
//! understood, and neither input nor output grows beyond what the protocol allows. The last three
//! bytes say where the cut is, and how messages are compressed.

#![no_main]

use granian_uring::http1::{self, AutomaticHeaders};
use granian_uring::websocket::{Codecs, Connection, Deflate, Event, ProtocolError, Settings};
use libfuzzer_sys::fuzz_target;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";
const LIMIT: usize = 1000;
/// A part of a frame's header, or of a control frame.
const LEFT_BYTES: usize = 140;
/// A close frame.
const CLOSE_BYTES: usize = 127;

#[derive(Debug, Default, PartialEq)]
struct Outcome {
    events: Vec<Event>,
    out: Vec<u8>,
    error: Option<ProtocolError>,
}

fuzz_target!(|data: &[u8]| {
    let (&[mode, low, high], frames) = data.last_chunk().map_or((&[0; 3], data), |last| {
        (last, &data[..data.len() - 3])
    });
    let deflate = [Deflate::Off, Deflate::EachMessage, Deflate::Context][usize::from(mode) % 3];
    let cut = usize::from(u16::from_le_bytes([low, high])) % (frames.len() + 1);
    let (start, rest) = frames.split_at(cut);
    let whole = outcome(deflate, &[frames]);
    for event in &whole.events {
        let length = match event {
            Event::Text(text) => text.len(),
            Event::Binary(bytes) => bytes.len(),
            Event::Pong(bytes) => bytes.len(),
            Event::Close { reason, .. } => reason.len(),
        };
        assert!(length <= LIMIT);
    }
    assert!(whole.out.len() <= frames.len() + CLOSE_BYTES);
    assert_eq!(outcome(deflate, &[start, rest]), whole);
});

/// What comes of these pieces, whose rest is kept as a server does.
fn outcome(deflate: Deflate, pieces: &[&[u8]]) -> Outcome {
    let mut connection = open(deflate);
    let (mut codecs, mut input, mut outcome) =
        (Codecs::default(), Vec::new(), Outcome::default());
    for piece in pieces {
        input.extend_from_slice(piece);
        let mut rest = &input[..];
        while outcome.error.is_none() {
            match connection.next_event(&mut rest, &mut codecs, &mut outcome.out) {
                Ok(Some(event)) => outcome.events.push(event),
                Ok(None) => break,
                Err(error) => outcome.error = Some(error),
            }
        }
        assert!(rest.len() < LEFT_BYTES || outcome.error.is_some());
        input = rest.to_vec();
    }
    outcome
}

fn open(deflate: Deflate) -> Connection {
    let mut http = http1::Connection::new(http1::Limits::default());
    let mut input = REQUEST;
    let Ok(Some(http1::Event::Request(head))) = http.next_event(&mut input) else {
        panic!("no request")
    };
    http.next_event(&mut input).expect("the end of the request");
    let settings = Settings { max_message_bytes: LIMIT, deflate };
    let mut connection = Connection::new(&head, settings).expect("a handshake");
    let automatic = AutomaticHeaders::default();
    connection
        .accept(None, [].into_iter(), &automatic, &mut http, &mut Vec::new())
        .expect("an answer");
    connection
}
