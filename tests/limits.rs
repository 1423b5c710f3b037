//! Each timeout, each limit and each promise about overload and fairness, one test each, in a
//! simulated world with virtual time: what a client gets, when, and what it can make the server hold.
//!
//! Each runs with several seeds, which decide how bytes are cut and completions are ordered. What
//! happens when everything happens at once is `simulation.rs`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test panics, and tells its seed")]

use std::time::{Duration, Instant};

use granian_uring::config::{Config, Overload, Timeouts};
use granian_uring::http1::Limits;
use granian_uring::proactor::simulated::{ClientId, Sight, Simulated, World};
use granian_uring::proactor::{ListenerId, Proactor};
use granian_uring::server::{Body, Event, Left, Reading, RequestId, Server};

const SEEDS: u64 = 24;
/// What a timer may be late by: a tick of the wheel, and turns on the way.
const SLACK: Duration = Duration::from_millis(40);
/// A piece of a test in which everything that can happen at once does.
const MOMENT: Duration = Duration::from_millis(5);
const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

/// A server with one listener and its clients.
struct Scene {
    server: Server<Simulated>,
    world: World,
    start: Instant,
    /// Requests that the application has taken and not answered.
    open: Vec<RequestId>,
    /// How many it was given.
    taken: usize,
    timed_out: Vec<(RequestId, Left)>,
    overloaded: usize,
    refused_accepts: usize,
}

impl Scene {
    fn new(seed: u64, config: Config) -> Self {
        let proactor = Simulated::new(seed);
        let (world, start) = (proactor.world(), proactor.now());
        let mut server = Server::new(proactor, config);
        server.add_listener(World::listening_socket()).unwrap();
        server.start_accepting();
        Self {
            server,
            world,
            start,
            open: Vec::new(),
            taken: 0,
            timed_out: Vec::new(),
            overloaded: 0,
            refused_accepts: 0,
        }
    }

    fn connect(&self) -> ClientId {
        self.world.connect(ListenerId(0))
    }

    fn asking(&self, bytes: &[u8]) -> ClientId {
        let client = self.connect();
        self.world.client_send(client, bytes);
        client
    }

    /// Since the start of the scene.
    fn clock(&mut self) -> Duration {
        self.server.proactor().now() - self.start
    }

    /// Turns for so long; requests are given to `application`.
    fn play(&mut self, time: Duration, mut application: impl FnMut(&mut Self, RequestId)) {
        let end = self.server.proactor().now() + time;
        let mut turns = 0;
        while self.server.proactor().now() < end || !self.world.is_idle() {
            turns += 1;
            assert!(turns < 200_000, "the server spins");
            self.server.turn(Some(end)).unwrap();
            while let Some(event) = self.server.next_event() {
                match event {
                    Event::Request(request) if self.server.take_request(request).is_some() => {
                        self.taken += 1;
                        self.open.push(request);
                        application(self, request);
                    }
                    Event::Request(request) => {
                        assert_eq!(self.server.finish(request), Left::Answered);
                    }
                    Event::TimedOut(request, left) => self.timed_out.push((request, left)),
                    Event::Overloaded => self.overloaded += 1,
                    Event::AcceptFailed(_) => self.refused_accepts += 1,
                    Event::Readable(request) => application(self, request),
                    _ => {}
                }
            }
        }
    }

    /// Play until the server has ended the client's connection, at most for so long. Returns when
    /// that was, in time since the scene's start, and how.
    fn until_ended(&mut self, client: ClientId, most: Duration) -> (Duration, Sight, String) {
        let mut got = String::new();
        let give_up = self.clock() + most;
        loop {
            got += &self.got(client);
            let sight = self.world.client_sees(client);
            if sight != Sight::Open {
                return (self.clock(), sight, got);
            }
            assert!(self.clock() < give_up, "still open after {most:?}; got {got:?}");
            self.play(MOMENT, |_, _| {});
        }
    }

    fn answer(&mut self, request: RequestId, length: usize) {
        self.server.start_response(request, 200, std::iter::empty()).unwrap();
        self.server.send_body(request, Body::Copied(&vec![b'.'; length]), false).unwrap();
        self.finish(request);
    }

    fn finish(&mut self, request: RequestId) -> Left {
        self.open.retain(|open| *open != request);
        self.server.finish(request)
    }

    fn got(&self, client: ClientId) -> String {
        String::from_utf8(self.world.client_receive(client, usize::MAX)).unwrap()
    }
}

/// An application that answers at once.
fn hello(scene: &mut Scene, request: RequestId) {
    scene.answer(request, 5);
}

/// An application that takes requests and does nothing.
fn silent(_scene: &mut Scene, _request: RequestId) {}

/// An application that reads all of the body and answers at its end.
fn reader(scene: &mut Scene, request: RequestId) {
    loop {
        match scene.server.read_body(request) {
            Reading::Data { more: true, .. } => {}
            Reading::Data { more: false, .. } => return scene.answer(request, 5),
            Reading::Wait => return,
            Reading::Disconnected => {
                scene.finish(request);
                return;
            }
        }
    }
}

fn each_seed(mut test: impl FnMut(u64)) {
    for seed in 0..SEEDS {
        println!("seed {seed}");
        test(seed);
    }
}

fn with_timeouts(timeouts: Timeouts) -> Config {
    Config { timeouts, ..Config::default() }
}

/// `got` is one whole answer of the server's own: readable, short, and it closes.
fn assert_refusal(got: &str, status: u16) {
    let (head, body) = got.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {got:?}"));
    let mut lines = head.split("\r\n");
    assert!(lines.next().unwrap().starts_with(&format!("HTTP/1.1 {status} ")), "{got}");
    let lines: Vec<&str> = lines.collect();
    assert!(lines.contains(&"connection: close"), "{got}");
    assert!(lines.contains(&"content-type: text/plain; charset=utf-8"), "{got}");
    assert!(lines.contains(&format!("content-length: {}", body.len()).as_str()), "{got}");
    let told = lines.contains(&"retry-after: 1");
    assert_eq!(told, status == 503, "{got}");
    assert!(body.ends_with('\n') && body.len() > 5 && body.len() < 100, "{got}");
}

fn assert_between(found: Duration, least: Duration) {
    assert!(found >= least && found <= least + SLACK, "expected {least:?}, found {found:?}");
}

#[test]
fn a_client_that_says_nothing_is_closed_without_an_answer() {
    each_seed(|seed| {
        let mut scene = Scene::new(
            seed,
            with_timeouts(Timeouts {
                first_byte: seconds(3),
                head: seconds(9),
                ..Timeouts::default()
            }),
        );
        let client = scene.connect();
        let (when, sight, got) = scene.until_ended(client, seconds(20));
        assert_eq!((sight, got.as_str()), (Sight::End, ""));
        assert_between(when, seconds(3));
    });
}

#[test]
fn a_head_that_drips_is_refused_when_its_time_is_over() {
    each_seed(|seed| {
        let mut scene = Scene::new(
            seed,
            with_timeouts(Timeouts {
                first_byte: seconds(3),
                head: seconds(9),
                ..Timeouts::default()
            }),
        );
        let client = scene.connect();
        scene.play(seconds(2), silent);
        let mut got = String::new();
        while scene.world.client_sees(client) == Sight::Open {
            assert!(scene.clock() < seconds(12));
            scene.world.client_send(client, b"x");
            scene.play(Duration::from_millis(500), silent);
            got += &scene.got(client);
        }
        assert_refusal(&got, 408);
        let when = scene.clock();
        assert!(when >= seconds(11), "{when:?}");
    });
}

#[test]
fn a_quiet_connection_is_closed_after_its_keep_alive_time() {
    each_seed(|seed| {
        let mut scene = Scene::new(
            seed,
            with_timeouts(Timeouts { keep_alive: seconds(7), ..Timeouts::default() }),
        );
        let client = scene.asking(GET);
        scene.play(seconds(1), hello);
        assert!(scene.got(client).starts_with("HTTP/1.1 200 "));
        let (when, sight, got) = scene.until_ended(client, seconds(20));
        assert_eq!((sight, got.as_str()), (Sight::End, ""));
        assert_between(when, seconds(7));
    });
}

const POST: &[u8] = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n";

#[test]
fn a_body_that_stops_is_refused() {
    each_seed(|seed| {
        let timeouts = Timeouts { body: seconds(4), body_min_rate: 0, ..Timeouts::default() };
        let mut scene = Scene::new(seed, with_timeouts(timeouts));
        let client = scene.asking(POST);
        // It drips, and may.
        for _ in 0..10 {
            scene.play(seconds(3), reader);
            scene.world.client_send(client, b"x");
        }
        scene.play(MOMENT, reader);
        assert_eq!(scene.got(client), "");
        scene.play(seconds(3), reader);
        assert_eq!(scene.got(client), "");
        scene.play(seconds(1) + SLACK, reader);
        assert_refusal(&scene.got(client), 408);
        assert!(scene.open.is_empty(), "the application was told");
    });
}

#[test]
fn a_body_that_drips_does_not_hold_a_request_for_ever() {
    each_seed(|seed| {
        let timeouts = Timeouts { body: seconds(4), body_min_rate: 100, ..Timeouts::default() };
        let mut scene = Scene::new(seed, with_timeouts(timeouts));
        let client = scene.asking(POST);
        // A byte for each 3 s: 4 s are allowed, and 10 ms more for each byte.
        let mut got = String::new();
        for half_second in 1.. {
            assert!(scene.clock() < seconds(5), "a byte now and then is not enough");
            scene.play(Duration::from_millis(500), reader);
            got += &scene.got(client);
            if !got.is_empty() {
                break;
            }
            if half_second % 6 == 0 {
                scene.world.client_send(client, b"x");
            }
        }
        assert_refusal(&got, 408);
        assert!(scene.clock() >= seconds(4));
    });
}

#[test]
fn a_body_that_comes_fast_enough_may_take_its_time() {
    each_seed(|seed| {
        let timeouts = Timeouts { body: seconds(4), body_min_rate: 1000, ..Timeouts::default() };
        let mut scene = Scene::new(seed, with_timeouts(timeouts));
        let client = scene.asking(POST);
        // 1250 bytes a second, 80 seconds.
        for _ in 0..80 {
            scene.world.client_send(client, &[b'x'; 1250]);
            scene.play(seconds(1), reader);
        }
        assert!(scene.got(client).starts_with("HTTP/1.1 200 "));
    });
}

#[test]
fn time_in_which_the_application_does_not_read_is_not_the_clients() {
    each_seed(|seed| {
        let timeouts = Timeouts { body: seconds(4), body_min_rate: 1000, ..Timeouts::default() };
        let mut scene = Scene::new(seed, with_timeouts(timeouts));
        let client = scene.asking(POST);
        for _ in 0..20 {
            scene.world.client_send(client, &[b'x'; 5000]);
            // The application looks once in five seconds.
            scene.play(seconds(5), silent);
            for request in scene.open.clone() {
                reader(&mut scene, request);
                // And sometimes keeps the thread.
                scene.world.pass(seconds(7));
            }
            scene.play(Duration::from_millis(200), reader);
        }
        assert!(scene.got(client).starts_with("HTTP/1.1 200 "));
    });
}

#[test]
fn who_keeps_the_thread_takes_no_time_from_clients() {
    each_seed(|seed| {
        let timeouts = Timeouts { body: seconds(4), half_close: seconds(1), ..Timeouts::default() };
        let mut scene = Scene::new(seed, with_timeouts(timeouts));
        let client = scene.asking(POST);
        scene.play(MOMENT, |scene, request| {
            reader(scene, request);
            scene.world.pass(seconds(30));
        });
        // Only now does the client have anything to wait for.
        scene.play(seconds(3), reader);
        assert_eq!(scene.got(client), "", "refused although it had no time");
        scene.world.client_send(client, &vec![b'x'; 100_000]);
        scene.play(seconds(1), reader);
        assert!(scene.got(client).starts_with("HTTP/1.1 200 "));
    });
}

#[test]
fn who_takes_nothing_of_its_answer_is_cut() {
    each_seed(|seed| {
        let timeouts = Timeouts { write: seconds(5), ..Timeouts::default() };
        let mut scene = Scene::new(seed, with_timeouts(timeouts));
        let client = scene.asking(GET);
        scene.play(MOMENT, |scene, request| scene.answer(request, 60_000));
        // The first look finds what the client's own buffer took.
        scene.play(seconds(4), silent);
        assert_eq!(scene.world.client_sees(client), Sight::Open);
        scene.play(seconds(6) + 2 * SLACK, silent);
        assert_eq!(scene.world.client_sees(client), Sight::Reset);
        assert_eq!(scene.server.census().connections, 0);
    });
}

#[test]
fn who_does_not_close_after_the_last_answer_is_closed() {
    each_seed(|seed| {
        let timeouts = Timeouts { linger: seconds(2), ..Timeouts::default() };
        let mut scene = Scene::new(seed, with_timeouts(timeouts));
        scene.asking(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        scene.play(seconds(1), hello);
        assert_eq!(scene.server.census().connections, 1);
        scene.play(seconds(1) + SLACK, hello);
        assert_eq!(scene.server.census().connections, 0);
    });
}

#[test]
fn a_request_has_a_time_of_its_own_if_asked_for() {
    each_seed(|seed| {
        let timeouts = Timeouts { request: Some(seconds(6)), ..Timeouts::default() };
        let mut scene = Scene::new(seed, with_timeouts(timeouts));
        let (late, begun) = (scene.asking(GET), scene.asking(GET));
        let reading = scene.asking(POST);
        let mut order = Vec::new();
        scene.play(seconds(5), |scene, request| {
            let _ = scene.server.read_body(request);
            order.push(request);
        });
        // The streams are numbered in the order of their accepts, which is that of the clients.
        order.sort_by_key(|request| request.stream());
        order.dedup();
        let [first, second, third] = order[..] else { panic!("{order:?}") };
        scene.server.start_response(second, 200, std::iter::empty()).unwrap();
        let _ = scene.server.send_body(second, Body::Copied(b"a part"), true).unwrap();
        scene.play(MOMENT, silent);
        assert!(scene.timed_out.is_empty());
        let mut news = Vec::new();
        scene.play(seconds(1) + SLACK, |_, request| news.push(request));
        assert_refusal(&scene.got(late), 503);
        assert_refusal(&scene.got(reading), 503);
        assert_eq!(scene.world.client_sees(begun), Sight::Reset);
        scene.timed_out.sort_by_key(|(request, _)| request.stream());
        assert_eq!(
            scene.timed_out,
            [(first, Left::Refused), (second, Left::Aborted), (third, Left::Refused)]
        );
        assert!(news.contains(&third), "who reads is told");
        for request in order {
            assert_eq!(scene.server.read_body(request), Reading::Disconnected);
            assert_eq!(scene.finish(request), Left::Answered);
        }
        assert_eq!(scene.server.census().running, 0);
    });
}

#[test]
fn a_request_that_waits_for_its_turn_for_too_long_is_refused_too() {
    each_seed(|seed| {
        let timeouts = Timeouts { request: Some(seconds(6)), ..Timeouts::default() };
        let config = Config { backpressure: 1, timeouts, ..Config::default() };
        let mut scene = Scene::new(seed, config);
        // Both come before the first is given out: an accept is armed until then.
        let clients = [scene.asking(GET), scene.asking(GET)];
        scene.play(seconds(6) + SLACK, silent);
        assert_eq!(scene.taken, 1);
        assert_refusal(&scene.got(clients[0]), 503);
        let open = scene.open.clone();
        for request in open {
            scene.finish(request);
        }
        scene.play(seconds(1), hello);
        let second = scene.got(clients[1]);
        assert!(
            second.starts_with("HTTP/1.1 503 ") || second.starts_with("HTTP/1.1 200 "),
            "{second}"
        );
        assert_eq!(scene.server.census().running, 0);
    });
}

#[test]
fn a_body_that_is_too_long_is_refused_before_it_is_read() {
    each_seed(|seed| {
        let limits = Limits { body_bytes: Some(99_999), ..Limits::default() };
        let mut scene = Scene::new(seed, Config { limits, ..Config::default() });
        let clients = [
            scene.asking(POST),
            scene.asking(
                b"PUT / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 100000\r\n\r\n",
            ),
        ];
        scene.play(MOMENT, silent);
        for client in clients {
            assert_refusal(&scene.got(client), 413);
        }
        assert_eq!(scene.taken, 0, "the application never hears of it");
    });
}

#[test]
fn a_body_in_chunks_is_refused_when_it_gets_too_long() {
    each_seed(|seed| {
        let limits = Limits { body_bytes: Some(1000), ..Limits::default() };
        let mut scene = Scene::new(seed, Config { limits, ..Config::default() });
        let client =
            scene.asking(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
        for _ in 0..2 {
            scene.world.client_send(client, b"1f4\r\n");
            scene.world.client_send(client, &[b'x'; 500]);
            scene.world.client_send(client, b"\r\n");
        }
        scene.play(MOMENT, reader);
        assert_eq!((scene.got(client).as_str(), scene.open.len()), ("", 1));
        scene.world.client_send(client, b"1\r\nx\r\n");
        scene.play(MOMENT, reader);
        assert_refusal(&scene.got(client), 413);
        assert!(scene.open.is_empty(), "the application was told");
    });
}

#[test]
fn without_keep_alive_every_answer_closes() {
    each_seed(|seed| {
        let mut scene = Scene::new(seed, Config { keep_alive: false, ..Config::default() });
        let client = scene.asking(&GET.repeat(3));
        scene.play(MOMENT, hello);
        let got = scene.got(client);
        assert!(got.contains("connection: close\r\n"), "{got}");
        assert_eq!((got.matches("HTTP/1.1 200").count(), scene.taken), (1, 1));
        assert_eq!(scene.world.client_sees(client), Sight::End);
    });
}

#[test]
fn requests_beyond_the_bound_are_refused_if_asked_for() {
    each_seed(|seed| {
        let config = Config { backpressure: 2, overload: Overload::Refuse, ..Config::default() };
        let mut scene = Scene::new(seed, config);
        // Idle ones do not count.
        for _ in 0..20 {
            let idle = scene.asking(GET);
            scene.play(MOMENT, hello);
            assert!(scene.got(idle).starts_with("HTTP/1.1 200 "));
        }
        let busy = [scene.asking(GET), scene.asking(GET)];
        scene.play(MOMENT, silent);
        assert_eq!(scene.open.len(), 2);
        let told = scene.overloaded;
        let refused: Vec<_> = (0..10).map(|_| scene.asking(GET)).collect();
        scene.play(MOMENT, silent);
        for client in refused {
            assert_refusal(&scene.got(client), 503);
        }
        assert!(scene.overloaded > 0 && scene.overloaded <= told + 1, "told once in a while");
        for request in scene.open.clone() {
            scene.answer(request, 5);
        }
        let next = scene.asking(GET);
        scene.play(MOMENT, hello);
        for client in [busy[0], busy[1], next] {
            assert!(scene.got(client).starts_with("HTTP/1.1 200 "));
        }
    });
}

#[test]
fn requests_beyond_the_bound_wait_and_nobody_is_accepted_meanwhile() {
    each_seed(|seed| {
        let mut scene = Scene::new(seed, Config { backpressure: 2, ..Config::default() });
        let mut clients = vec![scene.asking(GET), scene.asking(GET)];
        scene.play(seconds(1), silent);
        assert_eq!(scene.open.len(), 2);
        clients.extend((0..4).map(|_| scene.asking(GET)));
        scene.play(seconds(1), silent);
        // One accept was armed.
        assert_eq!(scene.world.waiting(ListenerId(0)), 3, "they stay in the listener's queue");
        for request in scene.open.clone() {
            scene.answer(request, 5);
        }
        scene.play(seconds(1), hello);
        assert!(clients.iter().all(|&client| scene.got(client).starts_with("HTTP/1.1 200 ")));
    });
}

#[test]
fn without_descriptors_accepting_rests_instead_of_spinning() {
    each_seed(|seed| {
        let mut scene = Scene::new(seed, Config::default());
        scene.play(MOMENT, silent);
        scene.world.exhaust_descriptors(seconds(5));
        let client = scene.asking(GET);
        scene.play(Duration::from_millis(4990), hello);
        let attempts = scene.world.accepts_exhausted();
        assert!((10..=60).contains(&attempts), "{attempts} attempts in 5 s");
        assert_eq!(scene.refused_accepts, 1, "told once");
        scene.play(seconds(1), hello);
        assert!(scene.got(client).starts_with("HTTP/1.1 200 "));
    });
}

/// More than the server may hold of one client's answers: what was asked for before it was full, and
/// one answer more.
const MARK_BYTES: usize = 64 * 1024;

#[test]
fn who_pipelines_and_never_reads_costs_a_bounded_output() {
    each_seed(|seed| {
        for answer in [100, 10_000, 100_000] {
            let limits = Limits { head_bytes: 1000, ..Limits::default() };
            let mut scene = Scene::new(seed, Config { limits, ..Config::default() });
            let client = scene.asking(&GET.repeat(2000));
            let mut most = 0;
            scene.play(seconds(2), |scene, request| {
                scene.answer(request, answer);
                let (input, output) = scene.server.most_held();
                // The rest of one receive, and one more that was armed.
                assert!(input <= 1000 + 2 * 2048, "{input} bytes of input");
                most = most.max(output);
            });
            assert!(most <= MARK_BYTES + answer + 500, "{most} bytes of output");
            // Its window, the send under way, and what waits for that.
            let asked = 3 * (MARK_BYTES + answer) / answer;
            assert!(scene.taken <= asked, "{} requests begun", scene.taken);
            // Nothing is lost by it.
            let mut got = 0;
            for _ in 0..100_000 {
                let bytes = scene.got(client);
                got += bytes.matches("HTTP/1.1 200 OK").count();
                if scene.taken == 2000 && bytes.is_empty() {
                    break;
                }
                scene.play(Duration::from_micros(1), |scene, request| scene.answer(request, 100));
            }
            // A status line may be cut by a read.
            assert!(scene.taken == 2000 && got > 1000, "{} begun, {got} answered", scene.taken);
        }
    });
}

#[test]
fn pipelined_requests_before_an_end_are_answered_although_they_had_to_wait() {
    each_seed(|seed| {
        let mut scene = Scene::new(seed, Config::default());
        let client = scene.asking(&GET.repeat(40));
        scene.world.client_shutdown(client);
        let mut got = String::new();
        for _ in 0..100_000 {
            scene.play(Duration::from_micros(1), |scene, request| scene.answer(request, 30_000));
            got += &scene.got(client);
            if scene.world.client_sees(client) != Sight::Open {
                break;
            }
        }
        assert_eq!(got.matches("HTTP/1.1 200 OK").count(), 40);
        assert_eq!(scene.world.client_sees(client), Sight::End);
    });
}

#[test]
fn who_pipelines_flat_out_leaves_others_their_turn() {
    each_seed(|seed| {
        let config = Config { pipeline_depth: 4, ..Config::default() };
        let mut scene = Scene::new(seed, config);
        let other = scene.asking(b"");
        let greedy = scene.asking(b"");
        scene.play(MOMENT, hello);
        scene.world.client_send(greedy, &GET.repeat(200));
        scene.world.client_send(other, GET);
        let mut turns = 0;
        while scene.got(other).is_empty() {
            scene.server.turn(None).unwrap();
            turns += 1;
            let mut begun = 0;
            while let Some(event) = scene.server.next_event() {
                let Event::Request(request) = event else { panic!("{event:?}") };
                scene.server.take_request(request).unwrap();
                scene.answer(request, 5);
                begun += 1;
            }
            // Those of the turn's share, the one that had begun before, and the other client's.
            assert!(begun <= 6, "{begun} requests in one turn");
        }
        assert!(turns < 40, "served after {turns} turns");
    });
}

#[test]
fn who_uploads_flat_out_leaves_others_their_turn() {
    each_seed(|seed| {
        let mut scene = Scene::new(seed, Config::default());
        let greedy: Vec<_> = (0..20).map(|_| scene.asking(POST)).collect();
        scene.play(MOMENT, reader);
        for client in greedy {
            scene.world.client_send(client, &b"x".repeat(90_000));
        }
        let other = scene.asking(GET);
        // An application that handles two events a turn has news of uploads in each of them.
        let mut turns = 0;
        while scene.got(other).is_empty() {
            turns += 1;
            assert!(turns < 60, "uploads starve the other client");
            scene.server.turn(None).unwrap();
            for _ in 0..2 {
                match scene.server.next_event() {
                    Some(Event::Request(request)) => {
                        scene.server.take_request(request).unwrap();
                        scene.answer(request, 5);
                    }
                    Some(Event::Readable(request)) => reader(&mut scene, request),
                    _ => {}
                }
            }
        }
    });
}

/// The buffers of the simulated kernel have 2 KiB.
const BUFFER: usize = 2 * 1024;

/// Reads a body of `length` bytes to its end, and answers; the lengths of its pieces.
fn pieces(scene: &mut Scene, length: usize) -> Vec<usize> {
    let mut pieces = Vec::new();
    scene.play(seconds(1), |scene, request| {
        while let Reading::Data { bytes, more } = scene.server.read_body(request) {
            pieces.push(bytes.len());
            if !more {
                return scene.answer(request, 5);
            }
        }
    });
    assert_eq!(pieces.iter().sum::<usize>(), length);
    pieces
}

#[test]
fn a_body_that_has_come_wakes_the_application_for_much_at_once_within_a_bound() {
    let head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n";
    let mut largest = 0;
    each_seed(|seed| {
        let mut scene = Scene::new(seed, Config::default());
        let client = scene.asking(head.as_bytes());
        scene.play(MOMENT, reader);
        scene.world.client_send(client, &b"x".repeat(1_000_000));
        largest = largest.max(pieces(&mut scene, 1_000_000).into_iter().max().unwrap_or(0));
        assert!(scene.got(client).starts_with("HTTP/1.1 200"));
    });
    assert!(largest > 2 * BUFFER, "at most {largest} bytes were read at once");
    assert!(largest <= 64 * 1024 + BUFFER, "{largest} bytes were read ahead");
}

#[test]
fn a_body_that_came_with_its_head_is_given_in_one_piece_with_what_waits_behind_it() {
    let mut largest = 0;
    each_seed(|seed| {
        let mut scene = Scene::new(seed, Config::default());
        let client = scene.asking(&[POST, &b"x".repeat(100_000)].concat());
        largest = largest.max(pieces(&mut scene, 100_000)[0]);
        assert!(scene.got(client).starts_with("HTTP/1.1 200"));
    });
    assert!(largest > 2 * BUFFER, "the first piece has {largest} bytes at the most");
}

#[test]
fn who_has_had_its_share_waits_for_nothing_but_its_turn() {
    each_seed(|seed| {
        let mut scene = Scene::new(seed, Config { pipeline_depth: 4, ..Config::default() });
        // It reads nothing: no send ends, and nothing else wakes the server.
        scene.asking(&GET.repeat(60));
        let mut last = Duration::ZERO;
        scene.play(seconds(10), |scene, request| {
            scene.answer(request, 300);
            last = scene.clock();
        });
        assert_eq!(scene.taken, 60);
        assert!(last < seconds(1), "the last one began after {last:?}");
    });
}
