//! Many a WebSocket in a simulated world: one seed decides about clients, application and faults.
//!
//! Clients send messages in fragments and with pings between them, cut at random points, and end
//! with a close frame, a FIN, a reset, a misdeed or not at all. They read in random amounts. The
//! application echoes at its own pace, and may refuse, close or fail. A drain comes at some time.
//! `SEED=7` replays a seed, `SEEDS=10000` tries that many. What single cases look like is in
//! `websocket_server.rs`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test panics, and tells its seed")]

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use granian_uring::config::{Config, Timeouts, WebSocket};
use granian_uring::proactor::simulated::{ClientId, Random, Sight, Simulated, World};
use granian_uring::proactor::{ListenerId, Proactor};
use granian_uring::server::{Body, Event, Progress, RequestId, SendError, Server};
use granian_uring::websocket::{self, Message};

const SEEDS: u64 = 300;
const TURNS: usize = 20_000;
/// What a message has behind its name, at the most; and what the application may hold of messages
/// that it has not taken.
const LONGEST: usize = 9000;
const INBOX_BYTES: usize = 64 * 1024 + LONGEST + 100;
/// Turns until the drain, at the latest: it ends whoever does not end by itself.
const DRAIN_AFTER: usize = 3000;
const HANDSHAKE: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Close,
    Fin,
    Reset,
    Misdeed,
    Never,
}

struct Client {
    id: ClientId,
    wire: VecDeque<u8>,
    messages: Vec<String>,
    pings: usize,
    end: End,
    ended: bool,
    got: Vec<u8>,
}

/// An application's side of one WebSocket.
#[derive(Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Task {
    inbox: VecDeque<String>,
    /// It does something in one of so many turns.
    pace: usize,
    /// It hears, and says nothing.
    silent: bool,
    heard: Vec<String>,
    waits: bool,
    /// The application has ended it.
    closed: bool,
    told_end: usize,
    finished: bool,
}

fn frame(first: u8, payload: &[u8], mask: u8) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![first];
    match payload.len() {
        0..126 => frame.push(0x80 | length[1]),
        _ => frame.extend([0xfe, length[0], length[1]]),
    }
    frame.extend([mask; 4]);
    frame.extend(payload.iter().map(|byte| byte ^ mask));
    frame
}

fn client(random: &mut Random, number: usize, id: ClientId) -> Client {
    let ends = [End::Close, End::Close, End::Fin, End::Reset, End::Misdeed, End::Never];
    let end = ends[random.below(ends.len())];
    let mask = u8::try_from(random.below(256)).unwrap();
    let mut wire = HANDSHAKE.to_vec();
    let (mut messages, mut pings) = (Vec::new(), 0);
    // Some say more than the server reads ahead.
    let large = random.one_in(2);
    for count in 0..random.below(50) {
        let length = random.below(if large { LONGEST } else { 200 });
        let message = format!("{number}-{count} {}", "x".repeat(length));
        let (mut rest, mut opcode) = (message.as_bytes(), 1);
        while random.one_in(2) {
            let (piece, after) = rest.split_at(random.below(rest.len() + 1));
            wire.extend(frame(opcode, piece, mask));
            (rest, opcode) = (after, 0);
            if random.one_in(3) {
                wire.extend(frame(0x89, b"ping", mask));
                pings += 1;
            }
        }
        wire.extend(frame(0x80 | opcode, rest, mask));
        messages.push(message);
    }
    match end {
        End::Close => wire.extend(frame(0x88, &4001_u16.to_be_bytes(), mask)),
        End::Misdeed => wire.extend([0x81, 0x01, b'x']),
        End::Fin | End::Reset | End::Never => {}
    }
    Client { id, wire: wire.into(), messages, pings, end, ended: false, got: Vec::new() }
}

struct Simulation {
    random: Random,
    world: World,
    server: Server<Simulated>,
    clients: Vec<Client>,
    tasks: HashMap<RequestId, Task>,
    drained: usize,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x5eed);
        let proactor = Simulated::new(seed);
        let world = proactor.world();
        let websocket = WebSocket {
            ping_interval: random.one_in(2).then_some(Duration::from_secs(1)),
            ping_timeout: random.one_in(2).then_some(Duration::from_secs(3600)),
            ..WebSocket::default()
        };
        let timeouts = Timeouts { write: Duration::from_secs(3600), ..Timeouts::default() };
        let config = Config { websocket: Some(websocket), timeouts, ..Config::default() };
        let mut server = Server::new(proactor, config);
        server.add_listener(World::listening_socket()).unwrap();
        server.start_accepting();
        let clients = (0..=random.below(4))
            .map(|number| client(&mut random, number, world.connect(ListenerId(0))))
            .collect();
        Self { random, world, server, clients, tasks: HashMap::new(), drained: 0 }
    }

    fn run(&mut self) {
        let drain_at = if self.random.one_in(3) { self.random.below(400) } else { DRAIN_AFTER };
        for turn in 0..TURNS {
            if turn == drain_at {
                self.server.drain();
            }
            (0..self.clients.len()).for_each(|index| self.act_as(index));
            let now = self.server.proactor().now();
            let idle = turn > DRAIN_AFTER;
            self.server.turn((!idle).then_some(now)).unwrap();
            self.serve();
            let most = self.server.most_held();
            assert!(most.0 < 200 * 1024 && most.1 < 200 * 1024, "{most:?} bytes are held");
            if self.drained > 0 {
                return self.judge(drain_at == DRAIN_AFTER);
            }
        }
        panic!("never drained: {:?}", self.server.census());
    }

    fn act_as(&mut self, index: usize) {
        let (random, client) = (&mut self.random, &mut self.clients[index]);
        if random.one_in(2) {
            let limit = random.below(20_000);
            client.got.extend(self.world.client_receive(client.id, limit));
        }
        if client.ended {
            return;
        }
        let sight = self.world.client_sees(client.id);
        if sight != Sight::Open {
            client.got.extend(self.world.client_receive(client.id, usize::MAX));
            self.world.client_close(client.id);
            client.ended = true;
        } else if !client.wire.is_empty() && random.one_in(3) {
            let length = (1 + random.below(6000)).min(client.wire.len());
            let piece: Vec<u8> = client.wire.drain(..length).collect();
            self.world.client_send(client.id, &piece);
        } else if client.wire.is_empty() && random.one_in(10) {
            match client.end {
                End::Fin => self.world.client_close(client.id),
                End::Reset => self.world.client_reset(client.id),
                End::Close | End::Misdeed | End::Never => return,
            }
            client.ended = true;
        }
    }

    fn serve(&mut self) {
        while let Some(event) = self.server.next_event() {
            match event {
                Event::Request(request) => self.begin(request),
                Event::Writable(request) => {
                    if let Some(task) = self.tasks.get_mut(&request) {
                        task.waits = false;
                    }
                }
                Event::WebSocket(request, event) => self.hear(request, event),
                Event::Drained => self.drained += 1,
                Event::Readable(_) => {}
                other => panic!("nobody asked for {other:?}"),
            }
        }
        let mut requests: Vec<_> = self.tasks.keys().copied().collect();
        requests.sort_by_key(|request| request.stream().index());
        for request in requests {
            self.go_on(request);
        }
    }

    fn begin(&mut self, request: RequestId) {
        let Some(taken) = self.server.take_request(request) else {
            self.server.finish(request);
            return;
        };
        assert!(taken.subprotocols.is_some());
        let pace = if self.random.one_in(3) { 30 } else { 2 };
        let mut task = Task { pace, silent: self.random.one_in(3), ..Task::default() };
        match self.random.below(12) {
            0 => task.closed = true,
            1 => {
                let started = self.server.start_response(request, 403, [].into_iter());
                let body =
                    started.map(|()| self.server.send_body(request, Body::Copied(b""), false));
                assert!(matches!(body, Ok(Ok(_)) | Err(SendError::Gone)));
                task.closed = true;
            }
            _ => {
                let accepted = self.server.accept_websocket(request, None, [].into_iter());
                task.finished = accepted.is_err();
            }
        }
        if task.closed || task.finished {
            self.server.finish(request);
            task.finished = true;
        }
        self.tasks.insert(request, task);
    }

    fn hear(&mut self, request: RequestId, event: websocket::Event) {
        let task = self.tasks.get_mut(&request).unwrap();
        if task.closed {
            // It was on its way already.
            assert!(matches!(event, websocket::Event::Text(_)), "{event:?}");
            return;
        }
        assert_eq!(task.told_end, 0, "behind the end comes {event:?}");
        match event {
            websocket::Event::Text(text) => {
                task.inbox.push_back(text);
                let held: usize = task.inbox.iter().map(String::len).sum();
                assert!(held < INBOX_BYTES, "{held} bytes wait for the application");
            }
            websocket::Event::Close { .. } => task.told_end += 1,
            other => panic!("nobody sent {other:?}"),
        }
    }

    /// The application takes a message and echoes it, ends, or does nothing.
    fn go_on(&mut self, request: RequestId) {
        let Self { random, server, tasks, .. } = self;
        let task = tasks.get_mut(&request).unwrap();
        if task.finished || task.waits || !random.one_in(task.pace) {
            return;
        }
        if let Some(text) = task.inbox.pop_front() {
            server.took_message(request, text.len());
            let sent = if task.silent {
                Ok(Progress::Ready)
            } else {
                server.send_message(request, Message::Text(&text), None)
            };
            match sent {
                Ok(Progress::Ready) => {}
                Ok(Progress::Wait) => task.waits = true,
                Err(error) => assert_eq!(error, SendError::Gone),
            }
            task.heard.push(text);
            if random.one_in(100) {
                task.closed = server.close_websocket(request, 4000, "enough").is_ok();
            }
        }
        let fails = task.told_end == 0 && random.one_in(1500);
        if task.closed || fails || (task.told_end == 1 && task.inbox.is_empty()) {
            task.closed |= fails;
            task.finished = true;
            task.inbox.clear();
            server.finish(request);
        }
    }

    fn judge(&mut self, drained_late: bool) {
        let census = self.server.census();
        assert_eq!((census.connections, census.running, census.queued), (0, 0, 0));
        for client in &mut self.clients {
            client.got.extend(self.world.client_receive(client.id, usize::MAX));
            client.judge();
        }
        for task in self.tasks.values() {
            assert!(task.finished);
            let Some(first) = task.heard.first() else { continue };
            let number: usize = first.split('-').next().unwrap().parse().unwrap();
            let client = &self.clients[number];
            assert_eq!(task.heard, client.messages[..task.heard.len()]);
            if client.end == End::Close && drained_late && !task.closed && client.wire.is_empty() {
                assert_eq!(task.heard.len(), client.messages.len(), "a message was not heard");
            }
        }
    }
}

impl Client {
    /// What came is the answer and whole frames: the echo, in order; pongs; at most one close.
    fn judge(&self) {
        let Some(end) = self.got.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return };
        if !self.got.starts_with(b"HTTP/1.1 101 ") {
            return;
        }
        let mut rest = &self.got[end + 4..];
        let (mut echoed, mut pongs, mut closed) = (0, 0, false);
        while let Some((first, payload, after)) = read_frame(rest) {
            rest = after;
            assert!(!closed, "behind the close frame comes {first:#x}");
            match first {
                0x81 => {
                    assert_eq!(payload, self.messages[echoed].as_bytes());
                    echoed += 1;
                }
                0x8a => {
                    assert_eq!(payload, b"ping");
                    pongs += 1;
                }
                0x88 => closed = true,
                _ => assert_eq!((first, payload), (0x89, &b""[..])),
            }
        }
        assert!(pongs <= self.pings, "{pongs} pongs for {} pings", self.pings);
    }
}

/// The first frame, if it is whole: its first byte, its payload, and what follows.
fn read_frame(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[first, second], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match second {
        0..126 => (usize::from(second), rest),
        126 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => panic!("no message is that long, or it has a mask"),
    };
    let (payload, rest) = rest.split_at_checked(length)?;
    Some((first, payload, rest))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().filter(|text| !text.is_empty()).map(|text| text.parse().unwrap())
}

#[test]
fn whatever_happens_messages_are_heard_in_order_and_nothing_is_left() {
    let first = number("SEED");
    let count = number("SEEDS").unwrap_or(if first.is_some() { 1 } else { SEEDS });
    for seed in first.unwrap_or(0)..first.unwrap_or(0) + count {
        let result = catch_unwind(AssertUnwindSafe(|| Simulation::new(seed).run()));
        if let Err(panic) = result {
            println!("\nseed {seed} fails: SEED={seed} cargo test --test websocket_simulation\n");
            resume_unwind(panic);
        }
    }
}
