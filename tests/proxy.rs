//! PROXY protocol in a simulated world: clients of every kind on a listener that has it and on one
//! that has not, their bytes cut anywhere, a drain at any moment.
//!
//! The application answers with the client and the scheme that it was told. Who may not be there,
//! or does not begin as one must, gets no byte; everybody else gets answers that name the client of
//! their own header and no other. `SEED=7` replays a seed, `SEEDS=10000` tries that many.
//!
//! Not here: what a header means (`src/proxy`), real sockets (`tests/python/asgi/test_proxy.py`).
#![allow(clippy::unwrap_used, reason = "a test panics, and tells its seed")]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use granian_uring::config::Config;
use granian_uring::proactor::simulated::{ClientId, Random, Sight, Simulated, World};
use granian_uring::proactor::{ListenerId, Proactor};
use granian_uring::proxy::{Format, Options, Refusal, Trusted};
use granian_uring::server::{Body, Census, Event, RequestId, Server};

/// Seeds of an ordinary run.
const SEEDS: u64 = 1000;
const TURNS: usize = 20_000;
const PROXIED: ListenerId = ListenerId(0);
const PLAIN: ListenerId = ListenerId(1);
/// The longest that the server waits for anything here, and a margin.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a client begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opening {
    Version1,
    Version2,
    /// Version 2 with the vector that tells of TLS.
    Tls,
    /// A health check.
    Local,
    /// A request at once.
    Nothing,
    Garbage,
    /// A part of a header, and no more.
    Part,
}

struct Client {
    id: ClientId,
    listener: ListenerId,
    opening: Opening,
    /// What it still sends.
    unsent: Vec<u8>,
    received: Vec<u8>,
    /// The bodies that it must get, one for each request.
    expected: Vec<String>,
    /// It leaves in the middle of its bytes.
    breaks_off: bool,
}

/// The header of a client with this number: no two have one address.
fn header(opening: Opening, number: u8) -> Vec<u8> {
    let fixed = |command, rest: &[u8]| {
        let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        bytes.extend([command, 0x11, 0, u8::try_from(rest.len()).unwrap()]);
        bytes.extend(rest);
        bytes
    };
    let addresses = [203, 0, 113, number, 192, 0, 2, 1, 0x10, number, 0x01, 0xbb];
    match opening {
        Opening::Version1 => {
            let port = 0x1000 + u16::from(number);
            format!("PROXY TCP4 203.0.113.{number} 192.0.2.1 {port} 443\r\n").into_bytes()
        }
        Opening::Version2 => fixed(0x21, &addresses),
        Opening::Tls => {
            let tls = [0x20, 0, 15, 1, 0, 0, 0, 0, 0x21, 0, 7];
            fixed(0x21, &[&addresses[..], &tls, b"TLSv1.3"].concat())
        }
        Opening::Local => fixed(0x20, &[]),
        Opening::Nothing => Vec::new(),
        Opening::Garbage => b"PROXY TCP4 203.0.113.1\r\n".to_vec(),
        Opening::Part => fixed(0x21, &addresses)[..20].to_vec(),
    }
}

struct Simulation {
    random: Random,
    world: World,
    server: Server<Simulated>,
    trusts_loopback: bool,
    clients: Vec<Client>,
    drain_at: Option<Instant>,
    refusals: Vec<Refusal>,
    drained: bool,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x9707);
        let proactor = Simulated::new(seed);
        let (world, now) = (proactor.world(), proactor.now());
        let trusts_loopback = !random.one_in(4);
        let config = Config {
            proxy: Options {
                trusted: if trusts_loopback { Trusted::default() } else { Trusted::nobody() },
                headers: Some(Format::XForwarded),
                ..Options::default()
            },
            report_refusals: true,
            ..Config::default()
        };
        let mut server = Server::new(proactor, config);
        server.add_proxy_listener(World::listening_socket()).unwrap();
        server.add_listener(World::listening_socket()).unwrap();
        server.start_accepting();
        let count = 1 + random.below(6);
        let clients = (0..count).map(|number| client(&mut random, &world, number)).collect();
        let drain_at =
            random.one_in(3).then(|| now + Duration::from_millis(random.below(3000) as u64));
        Self {
            random,
            world,
            server,
            trusts_loopback,
            clients,
            drain_at,
            refusals: Vec::new(),
            drained: false,
        }
    }

    fn now(&mut self) -> Instant {
        self.server.proactor().now()
    }

    fn run(&mut self) {
        let end = self.now() + PATIENCE;
        for _ in 0..TURNS {
            self.clients_act();
            let now = self.now();
            if self.drain_at.is_some_and(|at| at <= now) || now >= end {
                self.server.drain();
            }
            let pause = Duration::from_millis(if self.all_sent() { 1000 } else { 20 });
            self.server.turn(Some(now + pause)).unwrap();
            while let Some(event) = self.server.next_event() {
                match event {
                    Event::Request(request) => self.answer(request),
                    Event::Unproxied(_, refusal) => self.refusals.push(refusal),
                    Event::Drained => self.drained = true,
                    _ => {}
                }
            }
            if self.drained {
                return self.check();
            }
        }
        panic!("the server spins, or hangs: {:?}", self.server.census());
    }

    fn all_sent(&self) -> bool {
        self.clients.iter().all(|client| client.unsent.is_empty())
    }

    fn clients_act(&mut self) {
        for client in &mut self.clients {
            client.received.extend(self.world.client_receive(client.id, 1 << 20));
            if client.unsent.is_empty() || self.random.one_in(2) {
                continue;
            }
            let length = match self.random.below(3) {
                0 => 1,
                1 => 1 + self.random.below(client.unsent.len()),
                _ => client.unsent.len(),
            };
            let piece: Vec<u8> = client.unsent.drain(..length).collect();
            self.world.client_send(client.id, &piece);
            if client.breaks_off && self.random.one_in(3) {
                self.world.client_reset(client.id);
                client.unsent.clear();
            }
        }
    }

    fn answer(&mut self, request: RequestId) {
        if let Some(asked) = self.server.take_request(request) {
            let told = format!("{} {}", asked.client(), asked.scheme());
            let length = told.len().to_string();
            let headers = [(&b"content-length"[..], length.as_bytes())];
            // Whoever has left meanwhile gets no answer.
            let _ = self.server.start_response(request, 200, headers.into_iter());
            let _ = self.server.send_body(request, Body::Copied(told.as_bytes()), false);
        }
        self.server.finish(request);
    }

    fn check(&mut self) {
        assert_eq!(self.server.census(), Census::default());
        assert_eq!(self.world.open_streams(), 0);
        let mut untrusted = 0;
        for client in &self.clients {
            let Client { listener, opening, .. } = client;
            let shown = format!("{opening:?} on {listener:?}");
            let welcome = match (*listener, opening) {
                (PLAIN, Opening::Nothing) => true,
                (PLAIN, _) => {
                    // No request, and answered as that.
                    let answer = client.received.first_chunk::<12>();
                    assert!(answer.is_none_or(|begin| begin == b"HTTP/1.1 400"), "{shown}");
                    continue;
                }
                (_, Opening::Nothing | Opening::Garbage | Opening::Part) => false,
                (_, _) => self.trusts_loopback,
            };
            let bodies = bodies(if welcome { &client.received } else { b"" });
            if !welcome {
                assert_eq!(client.received.escape_ascii().to_string(), "", "{shown}");
                untrusted += usize::from(self.world.client_sees(client.id) == Sight::Reset);
            } else if client.breaks_off || self.drain_at.is_some() {
                assert_eq!(bodies, client.expected[..bodies.len()], "{shown}");
            } else {
                assert_eq!(bodies, client.expected, "{shown}");
            }
        }
        // Each has its reason, and who was not refused is none of them.
        assert!(self.refusals.len() <= untrusted, "{:?}", self.refusals);
    }
}

fn client(random: &mut Random, world: &World, number: usize) -> Client {
    let listener = if random.one_in(4) { PLAIN } else { PROXIED };
    let id = world.connect(listener);
    let opening = match random.below(if listener == PLAIN { 5 } else { 10 }) {
        0..=2 if listener == PLAIN => Opening::Nothing,
        0 => Opening::Nothing,
        1 => Opening::Garbage,
        2 => Opening::Part,
        3 => Opening::Local,
        4 | 5 => Opening::Tls,
        6 | 7 => Opening::Version1,
        _ => Opening::Version2,
    };
    let number = u8::try_from(number).unwrap();
    let own = format!("127.0.0.1:{}", 10_000 + id.0);
    let from_header = format!("203.0.113.{number}:{}", 0x1000 + u16::from(number));
    let mut unsent = header(opening, number);
    let mut expected = Vec::new();
    let requests = if opening == Opening::Part { 0 } else { 1 + random.below(3) };
    for _ in 0..requests {
        let forwards = random.one_in(2);
        let forwarded = "X-Forwarded-For: 198.51.100.9\r\nX-Forwarded-Proto: https\r\n";
        let forwarded = if forwards { forwarded } else { "" };
        unsent.extend(format!("GET / HTTP/1.1\r\nHost: a\r\n{forwarded}\r\n").into_bytes());
        expected.push(match opening {
            // The address of the header is not trusted: what its requests claim is nothing.
            Opening::Version1 | Opening::Version2 => format!("{from_header} http"),
            Opening::Tls => format!("{from_header} https"),
            _ => format!("{own} http|{forwards}"),
        });
    }
    let breaks_off = random.one_in(5);
    Client { id, listener, opening, unsent, received: Vec::new(), expected, breaks_off }
}

/// The bodies of whole answers; behind them there may be a part of one.
fn bodies(received: &[u8]) -> Vec<String> {
    const BEGIN: &str = "HTTP/1.1 200 OK\r\n";
    let mut rest = str::from_utf8(received).unwrap();
    let mut bodies = Vec::new();
    while !rest.is_empty() {
        let begins = rest.starts_with(BEGIN) || BEGIN.starts_with(rest);
        assert!(begins, "what is no answer: {rest:?}");
        let Some((head, tail)) = rest.split_once("\r\n\r\n") else { break };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let Some((body, tail)) = tail.split_at_checked(length.unwrap().parse().unwrap()) else {
            break;
        };
        bodies.push(body.to_owned());
        rest = tail;
    }
    bodies
}

#[test]
fn answers_name_the_client_of_their_own_header() {
    let variable = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match (variable("SEED"), variable("SEEDS")) {
        (Some(seed), None) => seed..seed + 1,
        (first, count) => first.unwrap_or(0)..first.unwrap_or(0) + count.unwrap_or(SEEDS),
    };
    for seed in seeds {
        let run = || {
            let mut simulation = Simulation::new(seed);
            // Whom the kernel's address is that of a trusted proxy, its headers count.
            for client in &mut simulation.clients {
                for body in &mut client.expected {
                    if let Some((own, forwards)) = body.clone().split_once('|') {
                        let told = forwards == "true" && simulation.trusts_loopback;
                        *body = if told { "198.51.100.9:0 https" } else { own }.to_owned();
                    }
                }
            }
            simulation.run();
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
            eprintln!("failed with SEED={seed}");
            resume_unwind(panic);
        }
    }
}

/// A listener with PROXY protocol, and one client that sends this and then waits.
fn alone(bytes: &[u8], trusted: Trusted) -> (Vec<u8>, Sight, Vec<Refusal>, Duration) {
    let proactor = Simulated::new(1);
    let world = proactor.world();
    let begin = proactor.now();
    let proxy = Options { trusted, ..Options::default() };
    let config = Config { proxy, report_refusals: true, ..Config::default() };
    let mut server = Server::new(proactor, config);
    server.add_proxy_listener(World::listening_socket()).unwrap();
    server.start_accepting();
    let client = world.connect(PROXIED);
    world.client_send(client, bytes);
    let mut refusals = Vec::new();
    let (mut turns, mut connected) = (0, false);
    while !connected || server.census().connections > 0 {
        let pause = server.proactor().now() + Duration::from_secs(100);
        server.turn(Some(pause)).unwrap();
        connected |= server.census().connections > 0;
        while let Some(event) = server.next_event() {
            if let Event::Unproxied(_, refusal) = event {
                refusals.push(refusal);
            }
        }
        turns += 1;
        assert!(turns < 1000, "the connection never ends");
    }
    let received = world.client_receive(client, 1 << 20);
    let passed = server.proactor().now() - begin;
    (received, world.client_sees(client), refusals, passed)
}

#[test]
fn who_says_nothing_or_half_of_it_is_reset_in_its_own_time() {
    for bytes in [&b""[..], b"PROXY ", &header(Opening::Part, 1)] {
        let (received, sight, refusals, passed) = alone(bytes, Trusted::default());
        assert_eq!((&received[..], sight), (&b""[..], Sight::Reset));
        assert_eq!(refusals, [Refusal::Late]);
        assert!(passed >= Duration::from_secs(5) && passed < Duration::from_secs(7), "{passed:?}");
    }
}

#[test]
fn a_header_of_somebody_else_is_not_even_read() {
    let (received, sight, refusals, _) = alone(&header(Opening::Version2, 1), Trusted::nobody());
    assert_eq!((&received[..], sight), (&b""[..], Sight::Reset));
    assert_eq!(refusals, [Refusal::Untrusted]);
}

#[test]
fn a_request_where_a_header_must_be_is_reset_without_an_answer() {
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let (received, sight, refusals, _) = alone(request, Trusted::default());
    assert_eq!((&received[..], sight), (&b""[..], Sight::Reset));
    assert_eq!(refusals, [Refusal::Missing]);
}
