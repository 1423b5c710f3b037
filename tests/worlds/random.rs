//! Random operations in random order, on every implementation: the laws of the proactor must hold
//! whatever is done at the same time.
//!
//! Each run prints its seed; `SEED` replays one, `FUZZ_SECONDS` goes on with new seeds for so long,
//! `RUNTIME` chooses one implementation. A kernel adds an order of its own, so that a seed is no
//! promise that a failure comes again; on the simulator it is one.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use granian_uring::proactor::simulated::Random;
use granian_uring::proactor::{ListenerId, Operation, StreamId};

use super::{Event, Heard, Rig, is_cancelled, on_every_world};

const STEPS: usize = 300;
/// Seeds of a run without `FUZZ_SECONDS`.
const ROUNDS: u64 = 5;
const STREAMS: usize = 20;
const LARGEST: usize = 300_000;

/// What is known of a connection from both sides.
#[allow(clippy::struct_excessive_bools, reason = "each is about another operation")]
struct Connection {
    client: usize,
    /// Both sides send the bytes of a count that goes round.
    sent_by_client: u8,
    sent_by_server: u8,
    expected_by_server: u8,
    expected_by_client: u8,
    receiving: bool,
    sending: bool,
    watching: bool,
    /// The receive, the send and the hang-up watch that is under way was asked to end.
    asked_to_end: [bool; 3],
    client_gone: bool,
    /// A send was cancelled, so that the client's count is not known any more.
    cut: bool,
    closing: bool,
}

impl Connection {
    fn new(client: usize) -> Self {
        Self {
            client,
            sent_by_client: 0,
            sent_by_server: 0,
            expected_by_server: 0,
            expected_by_client: 0,
            receiving: false,
            sending: false,
            watching: false,
            asked_to_end: [false; 3],
            client_gone: false,
            cut: false,
            closing: false,
        }
    }
}

/// The next `length` bytes of a count.
fn count_on(count: &mut u8, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length);
    for _ in 0..length {
        bytes.push(*count);
        *count = count.wrapping_add(1);
    }
    bytes
}

/// A run.
struct Run<'a> {
    rig: &'a mut Rig,
    random: Random,
    listener: ListenerId,
    accepting: bool,
    /// Clients in the order of their arrival, which is that of their accepts.
    waiting: VecDeque<usize>,
    streams: BTreeMap<StreamId, Connection>,
}

impl Run<'_> {
    fn step(&mut self) {
        match self.random.below(8) {
            0 if self.waiting.len() + self.streams.len() < STREAMS => {
                let client = self.rig.world.connect(self.listener);
                self.waiting.push_back(client);
            }
            1 if !self.accepting => {
                self.accepting = true;
                if self.random.one_in(3) {
                    self.rig.proactor().try_accept(self.listener);
                } else {
                    self.rig.proactor().accept(self.listener);
                }
            }
            2 if self.random.one_in(4) => {
                self.rig.proactor().cancel(Operation::Accept(self.listener));
            }
            3 => {
                let patience = self.random.below(3) as u64;
                self.turn(Duration::from_millis(patience));
            }
            _ => {
                let streams = self.streams.len();
                if streams > 0 {
                    let which = self.random.below(streams);
                    let stream = *self.streams.keys().nth(which).unwrap();
                    self.act(stream);
                }
            }
        }
    }

    fn act(&mut self, stream: StreamId) {
        let connection = self.streams.get_mut(&stream).unwrap();
        if connection.closing {
            return;
        }
        match self.random.below(12) {
            0..=2 if !connection.receiving && !connection.watching => {
                connection.receiving = true;
                connection.asked_to_end[0] = false;
                self.rig.proactor().receive(stream);
            }
            3 | 4 if !connection.sending && !connection.cut => {
                connection.sending = true;
                connection.asked_to_end[1] = false;
                let length = self.random.below(LARGEST);
                let bytes = count_on(&mut connection.sent_by_server, length);
                self.rig.send(stream, &bytes);
            }
            5 if !connection.receiving && !connection.watching => {
                connection.watching = true;
                connection.asked_to_end[2] = false;
                self.rig.proactor().watch_hang_up(stream);
            }
            6 => {
                let operations = [
                    Operation::Receive(stream),
                    Operation::Send(stream),
                    Operation::HangUp(stream),
                ];
                let which = self.random.below(3);
                connection.asked_to_end[which] = true;
                self.rig.proactor().cancel(operations[which]);
            }
            7 | 8 if !connection.client_gone => {
                let length = 1 + self.random.below(2000);
                let bytes = count_on(&mut connection.sent_by_client, length);
                self.rig.world.client_send(connection.client, &bytes);
            }
            9 | 10 if !connection.client_gone => {
                if let Heard::Bytes(bytes) = self.rig.world.client_read(connection.client) {
                    let expected = count_on(&mut connection.expected_by_client, bytes.len());
                    assert!(bytes == expected, "the client's bytes are not in order");
                }
            }
            11 if !connection.client_gone && self.random.one_in(4) => {
                connection.client_gone = true;
                self.rig.world.client_reset(connection.client);
            }
            _ => {
                let idle = !connection.receiving && !connection.sending && !connection.watching;
                if idle && self.random.one_in(3) {
                    connection.closing = true;
                    self.rig.proactor().close(stream);
                }
            }
        }
    }

    fn turn(&mut self, patience: Duration) {
        assert!(self.rig.turn(patience) <= 256);
        while let Some(event) = self.rig.arrived() {
            self.check(event);
        }
    }

    fn check(&mut self, event: Event) {
        match event {
            Event::Accepted(listener, result) => {
                assert!(listener == self.listener && self.accepting, "an accept ended twice");
                self.accepting = false;
                match result {
                    Ok(accepted) => {
                        let client = self.waiting.pop_front().expect("nobody waited");
                        let before = self.streams.insert(accepted.stream, Connection::new(client));
                        assert!(before.is_none(), "the number of an open stream came again");
                    }
                    Err(error) => {
                        let nobody = error.kind() == std::io::ErrorKind::WouldBlock;
                        assert!(nobody || is_cancelled::<()>(&Err(error)));
                    }
                }
            }
            Event::Received(stream, result) => {
                let connection = self.streams.get_mut(&stream).unwrap();
                assert!(std::mem::take(&mut connection.receiving), "a receive ended twice");
                match result {
                    Ok(bytes) if bytes.is_empty() => assert!(connection.client_gone),
                    Ok(bytes) => {
                        let expected = count_on(&mut connection.expected_by_server, bytes.len());
                        assert!(bytes == expected, "received bytes are not in order");
                    }
                    result if is_cancelled(&result) => assert!(connection.asked_to_end[0]),
                    Err(error) => assert!(connection.client_gone, "{error}"),
                }
            }
            Event::Sent(stream, result, _) => {
                let connection = self.streams.get_mut(&stream).unwrap();
                assert!(std::mem::take(&mut connection.sending), "a send ended twice");
                if is_cancelled(&result) {
                    assert!(connection.asked_to_end[1]);
                    connection.cut = true;
                } else if let Err(error) = result {
                    assert!(connection.client_gone, "{error}");
                    connection.cut = true;
                }
            }
            Event::HungUp(stream, result) => {
                let connection = self.streams.get_mut(&stream).unwrap();
                assert!(std::mem::take(&mut connection.watching), "a watch ended twice");
                let cancelled = is_cancelled(&result) && connection.asked_to_end[2];
                assert!(cancelled || connection.client_gone, "{result:?}");
            }
            Event::Closed(stream) => {
                let connection = self.streams.remove(&stream).expect("a close ended twice");
                assert!(connection.closing);
            }
            Event::Readable(fd) => panic!("nobody watches {fd}"),
        }
    }

    /// Ask for the end of everything: it must come.
    fn end(&mut self) {
        self.rig.proactor().cancel(Operation::Accept(self.listener));
        for (stream, connection) in &mut self.streams {
            if !connection.closing {
                connection.asked_to_end = [true; 3];
                self.rig.proactor().cancel(Operation::Receive(*stream));
                self.rig.proactor().cancel(Operation::Send(*stream));
                self.rig.proactor().cancel(Operation::HangUp(*stream));
            }
        }
        let give_up = Instant::now() + Duration::from_secs(10);
        while self.accepting || !self.streams.is_empty() {
            assert!(Instant::now() < give_up, "an operation did not end");
            self.turn(Duration::from_millis(100));
            for (stream, connection) in &mut self.streams {
                let idle = !connection.receiving && !connection.sending && !connection.watching;
                if idle && !connection.closing {
                    connection.closing = true;
                    self.rig.proactor().close(*stream);
                }
            }
        }
        // The rest of the clients is still there to be accepted.
        while !self.waiting.is_empty() {
            assert!(Instant::now() < give_up, "a client was lost");
            if !self.accepting {
                self.accepting = true;
                self.rig.proactor().accept(self.listener);
            }
            self.turn(Duration::from_millis(100));
        }
        self.rig.assert_quiet();
    }
}

#[test]
fn every_operation_ends_once_and_no_byte_is_lost_whatever_is_done_at_the_same_time() {
    let seconds = std::env::var("FUZZ_SECONDS").ok().map_or(0, |it| it.parse().unwrap());
    let until = Instant::now() + Duration::from_secs(seconds);
    let replayed = std::env::var("SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let first = replayed.unwrap_or_else(|| u64::from(std::process::id()) << 20);
    for seed in first.. {
        on_every_world(|rig| {
            println!("SEED={seed}");
            let listener = rig.world.listen();
            let mut run = Run {
                rig,
                random: Random::new(seed),
                listener,
                accepting: false,
                waiting: VecDeque::new(),
                streams: BTreeMap::new(),
            };
            for _ in 0..STEPS {
                run.step();
            }
            run.end();
        });
        let enough = seed + 1 >= first + ROUNDS && Instant::now() >= until;
        if replayed.is_some() || enough {
            return;
        }
    }
}
