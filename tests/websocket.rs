//! What clients do to a WebSocket connection, right and wrong, through the public interface.
//!
//! Each case is fed whole, byte by byte and cut at every place, and the outcome must be the same.
//! `SEED=7 cargo test --test websocket` repeats one run of the random test.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use granian_uring::http1::{self, AutomaticHeaders};
use granian_uring::websocket::{
    Codecs, Connection, Deflate, Event, Framed, Message, ProtocolError, Settings,
};
use proptest::prelude::*;
use std::fmt::Write as _;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

const LIMIT: usize = 1000;
const SMALL: Settings = Settings { max_message_bytes: LIMIT, deflate: Deflate::EachMessage };

/// An open connection whose client has offered `extensions`.
fn open(settings: Settings, extensions: &str) -> Connection {
    let request = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
         Sec-WebSocket-Extensions: {extensions}\r\n\r\n"
    );
    let mut http = http1::Connection::new(http1::Limits::default());
    let mut input = request.as_bytes();
    let Some(http1::Event::Request(head)) = http.next_event(&mut input).unwrap() else {
        panic!("no request")
    };
    http.next_event(&mut input).unwrap();
    let mut connection = Connection::new(&head, settings).unwrap();
    let automatic = AutomaticHeaders::default();
    connection.accept(None, [].into_iter(), &automatic, &mut http, &mut Vec::new()).unwrap();
    connection
}

/// A client's frame with its length in the shortest form.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u64;
    let bytes = length.to_be_bytes();
    let mut frame = vec![first];
    match length {
        0..126 => frame.push(0x80 | bytes[7]),
        126..0x1_0000 => frame.extend([&[0xfe], &bytes[6..]].concat()),
        _ => frame.extend([&[0xff], &bytes[..]].concat()),
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn frames(frames: &[(u8, &[u8])]) -> Vec<u8> {
    frames.iter().flat_map(|(first, payload)| frame(*first, payload)).collect()
}

/// A client's compressed message, without the tail.
fn deflated(compressor: &mut Compress, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 1024);
    compressor.compress_vec(data, &mut out, FlushCompress::Sync).unwrap();
    assert!(out.ends_with(&[0, 0, 0xff, 0xff]) && out.len() < out.capacity());
    out.truncate(out.len() - 4);
    out
}

fn deflated_alone(data: &[u8]) -> Vec<u8> {
    deflated(&mut Compress::new(Compression::best(), false), data)
}

/// A server that keeps what is left of its input, as ours does.
struct Server {
    connection: Connection,
    codecs: Codecs,
    input: Vec<u8>,
    events: Vec<Event>,
    out: Vec<u8>,
    error: Option<ProtocolError>,
}

impl Server {
    fn new(settings: Settings, extensions: &str) -> Self {
        Self {
            connection: open(settings, extensions),
            codecs: Codecs::default(),
            input: Vec::new(),
            events: Vec::new(),
            out: Vec::new(),
            error: None,
        }
    }

    fn feed(&mut self, piece: &[u8]) {
        self.input.extend_from_slice(piece);
        let mut rest = &self.input[..];
        while self.error.is_none() {
            match self.connection.next_event(&mut rest, &mut self.codecs, &mut self.out) {
                Ok(Some(event)) => self.events.push(event),
                Ok(None) => break,
                Err(error) => self.error = Some(error),
            }
        }
        let left = rest.len();
        assert!(left < 140 || self.error.is_some(), "{left} bytes are left to the caller");
        self.input.drain(..self.input.len() - left);
    }

    /// Everything that can be seen from outside, as text.
    fn outcome(&self) -> String {
        let mut text = String::new();
        for event in &self.events {
            match event {
                Event::Binary(bytes) if bytes.len() > 40 => {
                    writeln!(text, "binary of {}", bytes.len()).unwrap();
                }
                Event::Text(string) if string.len() > 40 => {
                    writeln!(text, "text of {}", string.len()).unwrap();
                }
                event => writeln!(text, "{event:?}").unwrap(),
            }
        }
        if !self.out.is_empty() {
            writeln!(text, "out {}", self.out.escape_ascii()).unwrap();
        }
        if let Some(error) = self.error {
            writeln!(text, "error {} {error}", error.code()).unwrap();
        }
        text
    }
}

fn fed(settings: Settings, extensions: &str, pieces: &[&[u8]]) -> Server {
    let mut server = Server::new(settings, extensions);
    for piece in pieces {
        server.feed(piece);
    }
    server
}

/// The outcome of `input`, whatever the cut.
fn outcome(name: &str, input: &[u8]) -> String {
    const OFFER: &str = "permessage-deflate";
    let whole = fed(SMALL, OFFER, &[input]).outcome();
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(fed(SMALL, OFFER, &bytes).outcome(), whole, "{name}: byte by byte");
    for cut in 0..=input.len() {
        let (first, second) = input.split_at(cut);
        assert_eq!(fed(SMALL, OFFER, &[first, second]).outcome(), whole, "{name}: cut at {cut}");
    }
    whole
}

#[test]
#[rustfmt::skip]
fn what_clients_may_do() {
    let table = [
        ("empty messages", frames(&[(FIN | TEXT, b""), (FIN | BINARY, b"")]),
            "Text(\"\")\nBinary([])\n"),
        ("an empty message of empty fragments", frames(&[(TEXT, b""), (0, b""), (FIN, b"")]),
            "Text(\"\")\n"),
        ("a ping within a message", frames(&[(TEXT, b"a"), (FIN | PING, b"p"), (FIN, b"b")]),
            "Text(\"ab\")\nout \\x8a\\x01p\n"),
        ("every ping is answered", frames(&[(FIN | PING, b""), (FIN | PING, b"1"), (FIN | PING, b"2")]),
            "out \\x8a\\x00\\x8a\\x011\\x8a\\x012\n"),
        ("a pong that nobody asked for", frames(&[(FIN | PONG, b"x")]),
            "Pong([120])\n"),
        ("a character cut by fragments", frames(&[(TEXT, b"\xf0\x9f"), (0, b"\x92"), (FIN, b"\x96")]),
            "Text(\"\u{1f496}\")\n"),
        ("the longest message", frame(FIN | BINARY, &[0; LIMIT]),
            "binary of 1000\n"),
        ("the longest message, in fragments", frames(&[(BINARY, &[0; 999]), (FIN, &[0; 1])]),
            "binary of 1000\n"),
        ("the longest message, compressed", frame(FIN | RSV1 | BINARY, &deflated_alone(&[0; LIMIT])),
            "binary of 1000\n"),
        ("close without a code", frames(&[(FIN | CLOSE, b""), (FIN | TEXT, b"late")]),
            "Close { code: 1005, reason: \"\" }\nout \\x88\\x00\n"),
        ("close with a reason", frame(FIN | CLOSE, b"\x03\xe8bye"),
            "Close { code: 1000, reason: \"bye\" }\nout \\x88\\x02\\x03\\xe8\n"),
        ("close within a message", frames(&[(TEXT, b"a"), (FIN | CLOSE, b"\x03\xe9")]),
            "Close { code: 1001, reason: \"\" }\nout \\x88\\x02\\x03\\xe9\n"),
        ("garbage after a close", [frame(FIN | CLOSE, b"\x03\xe8"), vec![0xff; 200]].concat(),
            "Close { code: 1000, reason: \"\" }\nout \\x88\\x02\\x03\\xe8\n"),
    ];
    for (name, input, expected) in table {
        assert_eq!(outcome(name, &input), expected, "{name}");
    }
}

#[test]
#[rustfmt::skip]
fn what_clients_may_not_do() {
    use ProtocolError as E;
    let table = [
        ("no mask", b"\x81\x05Hello".to_vec(), 1002, E::NotMasked),
        ("the second reserved bit", frame(FIN | 0x20 | TEXT, b""), 1002, E::ReservedBit),
        ("the third reserved bit", frame(FIN | 0x10 | TEXT, b""), 1002, E::ReservedBit),
        ("a compressed ping", frame(FIN | RSV1 | PING, b""), 1002, E::ReservedBit),
        ("a compressed continuation", frames(&[(RSV1 | TEXT, b""), (FIN | RSV1, b"")]), 1002, E::ReservedBit),
        ("a data opcode of nobody", frame(FIN | 3, b""), 1002, E::UnknownOpcode),
        ("a control opcode of nobody", frame(FIN | 0xf, b""), 1002, E::UnknownOpcode),
        ("a ping in fragments", frames(&[(PING, b"a"), (FIN, b"b")]), 1002, E::FragmentedControl),
        ("a ping of 126 bytes", frame(FIN | PING, &[0; 126]), 1002, E::ControlTooLong),
        ("a continuation of nothing", frame(FIN, b"a"), 1002, E::NothingToContinue),
        ("a message within a message", frames(&[(TEXT, b"a"), (FIN | TEXT, b"b")]), 1002, E::UnfinishedMessage),
        ("a length of two bytes that fits one", [&b"\x82\xfe\x00\x7d"[..], &MASK].concat(), 1002, E::InvalidLength),
        ("a length of eight bytes that fits two", [&b"\x82\xff\0\0\0\0\0\0\xff\xff"[..], &MASK].concat(), 1002, E::InvalidLength),
        // CVE-2020-13935: a length that a signed number takes for a negative one.
        ("a length of 2^63", [&b"\x82\xff\x80\0\0\0\0\0\0\0"[..], &MASK].concat(), 1002, E::InvalidLength),
        ("half a close code", frame(FIN | CLOSE, b"\x03"), 1002, E::InvalidClose),
        ("a reason that is not UTF-8", frame(FIN | CLOSE, b"\x03\xe8\xff"), 1007, E::InvalidUtf8),
        ("a text that is not UTF-8", frame(FIN | TEXT, b"\xc0\x80"), 1007, E::InvalidUtf8),
        ("a text that ends within a character", frames(&[(TEXT, b"\xf0\x9f"), (FIN, b"")]), 1007, E::InvalidUtf8),
        ("half a surrogate pair", frames(&[(TEXT, b"\xed"), (0, b"\xa0"), (FIN | PING, b"")]), 1007, E::InvalidUtf8),
        ("a compressed text that is not UTF-8", frame(FIN | RSV1 | TEXT, &deflated_alone(b"\xff")), 1007, E::InvalidUtf8),
        ("no DEFLATE", frame(FIN | RSV1 | BINARY, b"\xff"), 1007, E::InvalidDeflate),
    ];
    for (name, input, code, error) in table {
        let sentence = error.to_string();
        let length = sentence.len() + 2;
        let close = [&[FIN | CLOSE, u8::try_from(length).unwrap()], &u16::to_be_bytes(code)[..], sentence.as_bytes()];
        let close = close.concat();
        let expected = format!("out {}\nerror {code} {sentence}\n", close.escape_ascii());
        assert_eq!(outcome(name, &input), expected, "{name}");
    }
}

#[test]
fn a_bad_text_is_refused_at_its_first_bad_byte() {
    let message =
        frame(FIN | TEXT, &[b"\xce\xba\xe1\xbd\xb9\xf4\x90"[..].to_vec(), vec![b'a'; 90]].concat());
    // The frame's header has six bytes; 0xf4 may begin a character, and 0x90 cannot go on with it.
    assert_eq!(fed(SMALL, "", &[&message[..12]]).error, None);
    assert_eq!(fed(SMALL, "", &[&message[..13]]).error, Some(ProtocolError::InvalidUtf8));
}

#[test]
fn too_long_messages_are_refused_before_they_are_buffered() {
    let too_long = |bytes: &[u8]| {
        let server = fed(SMALL, "permessage-deflate", &[bytes]);
        assert!(server.events.is_empty());
        assert_eq!(&server.out[2..4], 1009u16.to_be_bytes());
        assert_eq!(server.error, Some(ProtocolError::MessageTooLong));
    };
    let header = |payload: usize| {
        let whole = frame(FIN | BINARY, &vec![0; payload]);
        whole[..whole.len() - payload].to_vec()
    };
    too_long(&header(LIMIT + 1));
    too_long(&[frame(BINARY, &[0; 999]), frame(0, b""), frame(FIN, b"ab")[..6].to_vec()].concat());
    // CVE-2020-27813: lengths of fragments that add up to less than nothing.
    let huge = [&b"\x00\xff\x7f\xff\xff\xff\xff\xff\xff\xff"[..], &MASK].concat();
    too_long(&[frame(BINARY, b"a"), huge].concat());
    // CVE-2018-1000518: a bomb. 16 MB in 16 KB, and it is seen in the first of 200 pieces.
    let bomb = deflated_alone(&vec![0; 16 << 20]);
    assert!(bomb.len() < 20_000);
    too_long(&frame(FIN | RSV1 | BINARY, &bomb));
    too_long(&frame(RSV1 | BINARY, &bomb[..bomb.len() / 200]));
    too_long(&frame(FIN | RSV1 | BINARY, &deflated_alone(&[0; LIMIT + 1])));
}

#[test]
fn messages_may_be_as_long_as_memory() {
    let settings = Settings { max_message_bytes: usize::MAX, ..SMALL };
    let mut server = Server::new(settings, "permessage-deflate");
    server.feed(&frame(FIN | BINARY, &vec![1; 70_000]));
    server.feed(&frame(FIN | RSV1 | BINARY, &deflated_alone(&vec![2; 70_000])));
    assert_eq!(server.events, [Event::Binary(vec![1; 70_000]), Event::Binary(vec![2; 70_000])]);
    // Only a header: what it promises is not allocated.
    server.feed(&[&b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff"[..], &MASK].concat());
    assert_eq!((server.error, server.events.len()), (None, 2));
}

#[test]
fn without_agreement_there_is_no_compression() {
    let server = fed(SMALL, "", &[&frame(FIN | RSV1 | TEXT, &deflated_alone(b"Hello"))]);
    assert_eq!(server.error, Some(ProtocolError::ReservedBit));
    let mut connection = open(SMALL, "");
    let (mut codecs, mut out) = (Codecs::default(), Vec::new());
    let sent = connection.send(Message::Binary(&[0; 900]), &mut codecs, &mut out);
    assert_eq!((sent, out.len()), (Ok(Framed::Header), 4));
}

#[test]
fn the_codecs_are_shared_by_connections_that_keep_no_context() {
    let mut codecs = Codecs::default();
    let hello = frame(FIN | RSV1 | TEXT, &deflated_alone(b"Hello"));
    let mut connections: Vec<_> = (0..20).map(|_| open(SMALL, "permessage-deflate")).collect();
    let mut out = Vec::new();
    // Each within a message at the same time as the others.
    for half in [&hello[..8], &hello[8..]] {
        for (index, connection) in connections.iter_mut().enumerate() {
            let event = connection.next_event(&mut { half }, &mut codecs, &mut out).unwrap();
            let is_end = half.len() != 8;
            assert_eq!(event.is_some(), is_end, "{index}");
            assert!(event.is_none_or(|event| event == Event::Text("Hello".to_owned())));
        }
    }
    // One that fails within a message leaves nothing behind for the next.
    let cut = [&hello[..8], &frame(FIN | TEXT, b"")].concat();
    let failed = connections[0].next_event(&mut &cut[..], &mut codecs, &mut out);
    assert!(failed.is_err());
    for connection in &mut connections[1..] {
        let event = connection.next_event(&mut &hello[..], &mut codecs, &mut out);
        assert_eq!(event, Ok(Some(Event::Text("Hello".to_owned()))));
    }
}

/// What a client understands of our frames.
fn understand(mut wire: &[u8], decompressor: &mut Decompress, alone: bool) -> Vec<(u8, Vec<u8>)> {
    let mut messages = Vec::new();
    while let [first, second, rest @ ..] = wire {
        assert!(first & FIN != 0 && second & 0x80 == 0, "our frames are whole and not masked");
        let (length, rest) = match second {
            126 => {
                let (bytes, rest) = rest.split_first_chunk().unwrap();
                (usize::from(u16::from_be_bytes(*bytes)), rest)
            }
            127 => {
                let (bytes, rest) = rest.split_first_chunk().unwrap();
                (usize::try_from(u64::from_be_bytes(*bytes)).unwrap(), rest)
            }
            short => (usize::from(*short), rest),
        };
        let (payload, rest) = rest.split_at(length);
        wire = rest;
        let mut payload = payload.to_vec();
        if first & RSV1 != 0 {
            let compressed = [&payload[..], &[0, 0, 0xff, 0xff]].concat();
            payload = Vec::with_capacity(1 << 20);
            let before = decompressor.total_in();
            decompressor.decompress_vec(&compressed, &mut payload, FlushDecompress::Sync).unwrap();
            assert_eq!(decompressor.total_in() - before, compressed.len() as u64);
            if alone {
                decompressor.reset(false);
            }
        }
        messages.push((first & 0xf, payload));
    }
    assert!(wire.is_empty());
    messages
}

fn sent(connection: &mut Connection, message: Message<'_>, codecs: &mut Codecs) -> Vec<u8> {
    let mut out = Vec::new();
    let framed = connection.send(message, codecs, &mut out).unwrap();
    if framed == Framed::Header {
        out.extend_from_slice(match message {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(bytes) => bytes,
        });
    }
    out
}

#[test]
fn our_compressor_keeps_within_the_window_of_the_client() {
    // Random, then again: the repetition is further back than a small window reaches.
    let mut random = Random::new(7);
    let block: Vec<u8> = (0..4096).map(|_| random.byte()).collect();
    let message = [&block[..], &block].concat();
    let mut lengths = Vec::new();
    for bits in 9..=15 {
        let offer = format!("permessage-deflate; server_max_window_bits={bits}");
        let mut connection = open(Settings { deflate: Deflate::Context, ..SMALL }, &offer);
        let wire = sent(&mut connection, Message::Binary(&message), &mut Codecs::default());
        let mut decompressor = Decompress::new_with_window_bits(false, bits);
        assert_eq!(understand(&wire, &mut decompressor, false), [(BINARY, message.clone())]);
        lengths.push(wire.len());
    }
    assert!(lengths[0] > 8000 && lengths[6] < 4500, "{lengths:?}");
}

#[test]
fn a_context_pays_and_none_is_kept_where_none_is_agreed_on() {
    let message = Message::Text(
        "{\"kind\": \"position\", \"of\": [1, 2, 3], \"unit\": \"metre\", \"when\": \"now\"}",
    );
    let long = "an announcement of something that is said ten times ".repeat(10);
    let lengths = |deflate, message| {
        let mut connection = open(Settings { deflate, ..SMALL }, "permessage-deflate");
        let mut codecs = Codecs::default();
        let mut length = || sent(&mut connection, message, &mut codecs).len();
        [length(), length()]
    };
    let [first, second] = lengths(Deflate::Context, message);
    assert!(second < 16 && second < first / 4, "{first} and {second} bytes");
    let [first, second] = lengths(Deflate::EachMessage, Message::Text(&long));
    assert!(first == second && first < 100, "{first} and {second} bytes");
    assert_eq!(lengths(Deflate::EachMessage, Message::Binary(&[0; 64])), [66, 66], "not worth it");
}

/// A small generator, for tests that repeat themselves.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

/// A few frames that are mostly right.
fn some_frames(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..=random.below(6) {
        let text = "grün und mehr ".repeat(random.below(12));
        let data = text.as_bytes();
        match random.below(8) {
            0 => bytes.extend(frame(FIN | PING, &data[..data.len().min(9)])),
            1 => bytes.extend(frame(FIN | PONG, b"")),
            2 if random.below(4) == 0 => bytes.extend(frame(FIN | CLOSE, b"\x03\xe8x")),
            2 | 3 => {
                let cut = random.below(data.len() + 1);
                bytes.extend(frames(&[(TEXT, &data[..cut]), (FIN | PING, b"x")]));
                bytes.extend(frame(FIN, &data[cut..]));
            }
            4 | 5 => {
                let payload = deflated_alone(data);
                let cut = random.below(payload.len() + 1);
                bytes.extend(frames(&[(RSV1 | TEXT, &payload[..cut]), (FIN, &payload[cut..])]));
            }
            6 => bytes.extend(frame(FIN | RSV1 | TEXT, &deflated_alone(data))),
            _ => bytes.extend(frame(FIN | BINARY, data)),
        }
    }
    bytes
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        match random.below(4) {
            0 => drop(bytes.remove(at)),
            1 => bytes.insert(at, random.byte()),
            2 => bytes[at] ^= 1 << random.below(8),
            _ => bytes[at] = random.byte(),
        }
    }
}

/// One world: bytes that are nearly right, cut anywhere.
fn world(seed: u64) -> bool {
    let random = &mut Random::new(seed);
    let mut bytes = some_frames(random);
    mutate(&mut bytes, random);
    let deflate = [Deflate::Off, Deflate::EachMessage, Deflate::Context][random.below(3)];
    let settings = Settings { max_message_bytes: 100, deflate };
    let whole = fed(settings, "permessage-deflate", &[&bytes]);
    let mut pieces = Vec::new();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let (piece, others) = rest.split_at(1 + random.below(rest.len().min(40)));
        pieces.push(piece);
        rest = others;
    }
    let cut = fed(settings, "permessage-deflate", &pieces);
    assert_eq!(cut.outcome(), whole.outcome(), "SEED={seed}: the outcome depends on the cut");
    for event in &whole.events {
        let length = match event {
            Event::Text(text) => text.len(),
            Event::Binary(bytes) => bytes.len(),
            _ => 0,
        };
        assert!(length <= 100, "SEED={seed}: a message of {length} bytes");
    }
    // Pongs are not longer than pings, and there is one close frame at most.
    assert!(whole.out.len() <= bytes.len() + 127, "SEED={seed}");
    let answers = understand(&whole.out, &mut Decompress::new(false), true);
    let closes = answers.iter().filter(|(opcode, _)| *opcode == CLOSE).count();
    assert!(answers.iter().all(|(opcode, _)| matches!(*opcode, CLOSE | PONG)), "SEED={seed}");
    assert_eq!(closes, usize::from(whole.connection.is_closed()), "SEED={seed}");
    whole.error.is_some()
}

#[test]
fn damaged_input_has_one_outcome_whatever_the_cut() {
    if let Ok(seed) = std::env::var("SEED") {
        world(seed.parse().unwrap());
        return;
    }
    let failed = (0..5_000).filter(|seed| world(*seed)).count();
    assert!((500..4_500).contains(&failed), "{failed} of 5000: the damage is not well chosen");
}

fn any_message() -> impl Strategy<Value = (bool, Vec<u8>)> {
    let length = prop_oneof![0..300usize, 65_000..66_000usize];
    prop_oneof![
        ".{0,200}".prop_map(|text| (true, text.into_bytes())),
        length.prop_flat_map(|length| (Just(false), prop::collection::vec(0..4u8, length))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_said_is_understood_both_ways(
        messages in prop::collection::vec((any_message(), any::<bool>(), 1..200_000usize), 1..6),
        deflate in prop_oneof![Just(Deflate::Off), Just(Deflate::EachMessage), Just(Deflate::Context)],
        piece in 1..70_000usize,
    ) {
        let settings = Settings { max_message_bytes: 1 << 20, deflate };
        let mut server = Server::new(settings, "permessage-deflate");
        let (mut compressor, mut decompressor) =
            (Compress::new(Compression::default(), false), Decompress::new(false));
        let alone = deflate == Deflate::EachMessage;
        let mut bytes = Vec::new();
        for ((is_text, data), compressed, fragment) in &messages {
            let is_compressed = *compressed && deflate != Deflate::Off;
            let payload = if is_compressed {
                let payload = deflated(&mut compressor, data);
                if alone {
                    compressor.reset();
                }
                payload
            } else {
                data.clone()
            };
            let mut opcode = if *is_text { TEXT } else { BINARY } | if is_compressed { RSV1 } else { 0 };
            let mut fragments = payload.chunks(*fragment).peekable();
            while let Some(part) = fragments.next() {
                let fin = if fragments.peek().is_none() { FIN } else { 0 };
                bytes.extend(frame(fin | opcode, part));
                opcode = CONTINUATION;
            }
            if payload.is_empty() {
                bytes.extend(frame(FIN | opcode, b""));
            }
        }
        for piece in bytes.chunks(piece) {
            server.feed(piece);
        }
        prop_assert_eq!(server.error, None);
        let mut wire = Vec::new();
        for event in &server.events {
            let message = match event {
                Event::Text(text) => Message::Text(text),
                Event::Binary(bytes) => Message::Binary(bytes),
                other => panic!("nobody sent {other:?}"),
            };
            wire.extend(sent(&mut server.connection, message, &mut server.codecs));
        }
        let expected: Vec<(u8, Vec<u8>)> = messages
            .into_iter()
            .map(|((is_text, data), ..)| (if is_text { TEXT } else { BINARY }, data))
            .collect();
        prop_assert_eq!(understand(&wire, &mut decompressor, alone), expected);
    }
}
