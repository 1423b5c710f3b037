//! The life of WebSocket connections in the server, in virtual time: closes from both sides, pings,
//! back-pressure, draining. Bytes of the protocol are tested by `websocket.rs`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use granian_uring::config::{Config, Timeouts, WebSocket};
use granian_uring::proactor::simulated::{ClientId, Sight, Simulated, World};
use granian_uring::proactor::{ListenerId, Proactor};
use granian_uring::server::{Body, Event, Left, Progress, RequestId, SendError, Server};
use granian_uring::websocket::{self, Message};
use std::time::{Duration, Instant};

const HANDSHAKE: &[u8] = b"GET /chat HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: a, b\r\n\
Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
const MASK: [u8; 4] = [1, 2, 3, 4];
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    let mut frame = vec![first];
    match payload.len() {
        0..126 => frame.push(0x80 | length.to_be_bytes()[1]),
        _ => frame.extend([&[0xfe], &length.to_be_bytes()[..]].concat()),
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn text(text: &str) -> websocket::Event {
    websocket::Event::Text(text.to_owned())
}

fn close(code: u16, reason: &str) -> websocket::Event {
    websocket::Event::Close { code, reason: reason.to_owned() }
}

/// A server with one client, and what the application was told.
struct Rig {
    world: World,
    server: Server<Simulated>,
    client: ClientId,
    requests: Vec<RequestId>,
    news: Vec<websocket::Event>,
    writable: usize,
    drained: bool,
    got: Vec<u8>,
}

impl Rig {
    fn new() -> Self {
        let proactor = Simulated::new(11);
        let world = proactor.world();
        let websocket = WebSocket {
            settings: websocket::Settings { max_message_bytes: 40_000, ..Default::default() },
            ping_interval: Some(Duration::from_secs(20)),
            ping_timeout: Some(Duration::from_secs(5)),
        };
        // A peer that takes nothing is cut by another rule, which is not looked at here.
        let timeouts = Timeouts { write: Duration::from_secs(3600), ..Timeouts::default() };
        let config = Config { websocket: Some(websocket), timeouts, ..Config::default() };
        let mut server = Server::new(proactor, config);
        server.add_listener(World::listening_socket()).unwrap();
        server.start_accepting();
        let client = world.connect(ListenerId(0));
        Self {
            world,
            server,
            client,
            requests: Vec::new(),
            news: Vec::new(),
            writable: 0,
            drained: false,
            got: Vec::new(),
        }
    }

    /// One that has accepted its client.
    fn open() -> (Self, RequestId) {
        let mut rig = Self::new();
        rig.send(HANDSHAKE);
        let request = rig.request();
        let taken = rig.server.take_request(request).unwrap();
        assert_eq!(taken.subprotocols.unwrap(), ["a", "b"]);
        rig.server.accept_websocket(request, Some("b"), [].into_iter()).unwrap();
        rig.until(|rig| rig.got.ends_with(b"\r\n\r\n"));
        assert!(rig.got.starts_with(b"HTTP/1.1 101 "));
        rig.got.clear();
        (rig, request)
    }

    fn send(&mut self, bytes: &[u8]) {
        self.world.client_send(self.client, bytes);
    }

    fn now(&mut self) -> Instant {
        self.server.proactor().now()
    }

    fn turn(&mut self, deadline: Option<Instant>) {
        self.server.turn(deadline).unwrap();
        while let Some(event) = self.server.next_event() {
            match event {
                Event::Request(request) => self.requests.push(request),
                Event::WebSocket(request, event) => {
                    assert!(self.requests.contains(&request));
                    self.news.push(event);
                }
                Event::Writable(_) => self.writable += 1,
                Event::Drained => self.drained = true,
                other => panic!("nobody asked for {other:?}"),
            }
        }
    }

    /// Turns, in which the client reads everything, until something is so.
    fn until(&mut self, done: impl Fn(&Self) -> bool) {
        for _ in 0..10_000 {
            if done(self) {
                return;
            }
            self.turn(None);
            self.got.extend(self.world.client_receive(self.client, usize::MAX));
        }
        panic!("it never came to that: {:?} {}", self.news, self.got.escape_ascii());
    }

    /// Turns without waiting, in which nothing is read by anyone: whatever can happen does.
    fn settle(&mut self) {
        for _ in 0..300 {
            let now = self.now();
            self.turn(Some(now));
        }
    }

    fn request(&mut self) -> RequestId {
        self.until(|rig| !rig.requests.is_empty());
        self.requests[0]
    }

    fn sees(&self) -> Sight {
        self.world.client_sees(self.client)
    }

    /// The client closes too, and the server holds nothing any more.
    fn end(&mut self) {
        self.until(|rig| rig.sees() != Sight::Open);
        self.world.client_close(self.client);
        self.until(|rig| rig.world.open_streams() == 0);
        assert_eq!(self.server.census().connections, 0);
    }
}

#[test]
fn messages_go_both_ways_until_the_client_closes() {
    let (mut rig, request) = Rig::open();
    rig.send(&frame(TEXT, b"Hello"));
    rig.until(|rig| !rig.news.is_empty());
    assert_eq!(rig.news, [text("Hello")]);
    rig.server.took_message(request, 5);
    let sent = rig.server.send_message(request, Message::Text("World"), None);
    assert_eq!(sent, Ok(Progress::Ready));
    rig.until(|rig| rig.got == b"\x81\x05World");
    rig.send(&frame(CLOSE, b"\x03\xe8bye"));
    rig.until(|rig| rig.news.len() == 2);
    assert_eq!(rig.news[1], close(1000, "bye"));
    let late = rig.server.send_message(request, Message::Text("late"), None);
    assert_eq!(late, Err(SendError::Gone));
    assert_eq!(rig.server.finish(request), Left::Answered);
    rig.end();
    assert_eq!(rig.got, b"\x81\x05World\x88\x02\x03\xe8");
    assert_eq!(rig.news.len(), 2);
}

#[test]
fn frames_behind_the_handshake_wait_for_the_accept() {
    let mut rig = Rig::new();
    rig.send(&[HANDSHAKE, &frame(TEXT, b"eager")].concat());
    let request = rig.request();
    rig.server.take_request(request).unwrap();
    rig.settle();
    assert_eq!(rig.news, []);
    rig.server.accept_websocket(request, None, [].into_iter()).unwrap();
    rig.until(|rig| rig.news == [text("eager")]);
}

#[test]
fn who_says_something_and_leaves_is_heard() {
    let (mut rig, request) = Rig::open();
    for payload in [b"one", b"two"] {
        rig.send(&frame(TEXT, payload));
    }
    rig.world.client_close(rig.client);
    rig.until(|rig| rig.world.open_streams() == 0);
    assert_eq!(rig.news, [text("one"), text("two"), close(1006, "")]);
    assert_eq!(rig.server.finish(request), Left::Answered);
    assert_eq!(rig.server.census().running, 0);
}

#[test]
fn a_request_that_is_answered_by_http_stays_http() {
    let mut rig = Rig::new();
    rig.send(&[HANDSHAKE, b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"].concat());
    let request = rig.request();
    rig.server.take_request(request).unwrap();
    rig.server.start_response(request, 403, [].into_iter()).unwrap();
    rig.server.send_body(request, Body::Copied(b"no"), false).unwrap();
    assert_eq!(rig.server.finish(request), Left::Answered);
    rig.until(|rig| rig.requests.len() == 2);
    let next = rig.server.take_request(rig.requests[1]).unwrap();
    assert_eq!((next.head.path(), next.subprotocols), (&b"/next"[..], None));
    assert_eq!(rig.news, []);
}

#[test]
fn an_application_that_says_nothing_to_a_handshake_is_refused() {
    let mut rig = Rig::new();
    rig.send(HANDSHAKE);
    let request = rig.request();
    rig.server.take_request(request).unwrap();
    assert_eq!(rig.server.finish(request), Left::Refused);
    rig.end();
    assert!(rig.got.starts_with(b"HTTP/1.1 500 ") && rig.news.is_empty());
}

#[test]
fn a_bad_handshake_never_reaches_the_application() {
    let mut rig = Rig::new();
    let old = str::from_utf8(HANDSHAKE).unwrap().replace("Version: 13", "Version: 8");
    rig.send(old.as_bytes());
    rig.end();
    let answer = String::from_utf8(rig.got).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 426 ") && answer.contains("\r\nsec-websocket-version: 13")
    );
    assert!(rig.requests.is_empty());
}

#[test]
fn the_application_closes_and_the_client_answers() {
    let (mut rig, request) = Rig::open();
    rig.server.close_websocket(request, 4000, "done").unwrap();
    assert_eq!(rig.server.finish(request), Left::Answered);
    rig.until(|rig| rig.got == b"\x88\x06\x0f\xa0done");
    rig.send(&frame(TEXT, b"late"));
    rig.settle();
    assert_eq!(rig.sees(), Sight::Open, "the client's close frame is waited for");
    rig.send(&frame(CLOSE, b"\x0f\xa0"));
    rig.end();
    assert_eq!(rig.news, []);
}

#[test]
fn a_close_that_is_not_answered_is_not_waited_for_for_ever() {
    let (mut rig, request) = Rig::open();
    rig.server.close_websocket(request, 1000, "").unwrap();
    rig.server.finish(request);
    let start = rig.now();
    rig.end();
    let waited = rig.now() - start;
    // For the close frame, and then for the end of the client's side.
    assert!((10..13).contains(&waited.as_secs()), "{waited:?}");
}

#[test]
fn an_application_that_fails_closes_with_1011() {
    let (mut rig, request) = Rig::open();
    assert_eq!(rig.server.finish(request), Left::Aborted);
    rig.until(|rig| rig.got == b"\x88\x02\x03\xf3");
    rig.send(&frame(CLOSE, b"\x03\xf3"));
    rig.end();
    assert_eq!(rig.news, []);
}

#[test]
fn a_misdeed_is_told_to_both_sides() {
    let (mut rig, request) = Rig::open();
    rig.send(&[frame(TEXT, b"fine"), vec![BINARY, 0xfe, 0xff, 0xff, 0, 0, 0, 0]].concat());
    rig.until(|rig| rig.news.len() == 2);
    assert_eq!(rig.news, [text("fine"), close(1009, "the message is too long")]);
    rig.end();
    assert!(rig.got.starts_with(b"\x88\x19\x03\xf1"));
    assert_eq!(rig.server.finish(request), Left::Answered);
}

#[test]
fn messages_that_nobody_takes_are_not_read() {
    let (mut rig, request) = Rig::open();
    let message = frame(BINARY, &[0; 1000]);
    let flood = message.repeat(1000);
    rig.send(&flood);
    rig.settle();
    let held = rig.news.len();
    assert!((61..70).contains(&held), "{held} messages are held");
    assert!(rig.world.bytes_unreceived(rig.client) > flood.len() - 128 * 1024);
    // Empty ones cost something too.
    for count in 0..1000 {
        rig.until(|rig| rig.news.len() > count);
        rig.server.took_message(request, 1000);
    }
    rig.send(&frame(TEXT, b"").repeat(100_000));
    rig.settle();
    assert!(rig.news.len() < 2100, "{} messages are held", rig.news.len() - 1000);
}

#[test]
fn a_client_that_reads_no_pongs_is_not_read() {
    let (mut rig, _) = Rig::open();
    let flood = frame(PING, &[0; 100]).repeat(20_000);
    rig.send(&flood);
    rig.settle();
    // One window, one send under way, one output behind it.
    let read = flood.len() - rig.world.bytes_unreceived(rig.client);
    assert!(read < 512 * 1024, "{read} bytes of pings were read");
    rig.until(|rig| rig.got.len() == 20_000 * 102);
}

#[test]
fn an_application_that_sends_too_fast_has_to_wait() {
    let (mut rig, request) = Rig::open();
    let message = [7; 10_000];
    let mut sent = 0;
    while rig.server.send_message(request, Message::Binary(&message), None) == Ok(Progress::Ready) {
        sent += 1;
        assert!(sent < 10, "64 KiB are the mark");
    }
    rig.until(|rig| rig.writable == 1);
    assert_eq!(rig.server.room(request), Ok(Progress::Ready));
}

#[test]
fn a_silent_client_is_pinged_and_cut() {
    let (mut rig, request) = Rig::open();
    let start = rig.now();
    rig.until(|rig| rig.got == b"\x89\x00");
    assert_eq!((rig.now() - start).as_secs(), 20);
    rig.send(&frame(PONG, b""));
    rig.got.clear();
    rig.until(|rig| rig.got == b"\x89\x00");
    assert!((40..42).contains(&(rig.now() - start).as_secs()), "the pong was heard");
    rig.until(|rig| !rig.news.is_empty());
    assert!((45..47).contains(&(rig.now() - start).as_secs()));
    assert_eq!(rig.news, [close(1006, "")]);
    rig.until(|rig| rig.sees() == Sight::Reset);
    rig.server.finish(request);
}

#[test]
fn a_restart_closes_with_1012_and_waits_for_nobody() {
    let (mut rig, request) = Rig::open();
    rig.server.drain();
    let start = rig.now();
    rig.until(|rig| !rig.news.is_empty());
    assert_eq!(rig.news, [close(1012, "service restart")]);
    rig.until(|rig| rig.got == b"\x88\x11\x03\xf4service restart");
    rig.server.finish(request);
    rig.until(|rig| rig.drained);
    assert!(rig.now() - start < Duration::from_millis(1500));
    assert_eq!(rig.news.len(), 1);
}
