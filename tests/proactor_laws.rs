//! The laws of [`granian_uring::proactor`], each one test that runs on every implementation.
//!
//! What only a kernel can show (addresses, limits, signals, what a drop leaves) is in `uring.rs`.
#![allow(unsafe_code, reason = "a payload for sends is an unsafe trait")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test panics, and tells its seed")]

mod worlds;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::FromRawFd;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use granian_uring::proactor::{Completion, FileRange, Operation, Outgoing, Payload, StreamId};
use worlds::{Event, Heard, Rig, is_cancelled, on_every_world};

/// Streams with a receive: more than there are receive buffers, and than one `wait` delivers.
const MANY: usize = 300;
/// What one `wait` delivers at the most, whatever the implementation.
const BOUND: usize = 256;

fn panics(misuse: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(misuse)).is_err()
}

/// Bytes that tell where they are.
fn pattern(length: usize) -> Vec<u8> {
    (0..251).cycle().take(length).collect()
}

/// Read at the client while the proactor works, until `length` bytes have come.
fn read_exactly(rig: &mut Rig, client: usize, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let give_up = Instant::now() + Duration::from_secs(20);
    while bytes.len() < length {
        assert!(Instant::now() < give_up, "only {} of {length} bytes came", bytes.len());
        match rig.world.client_read(client) {
            Heard::Bytes(more) => bytes.extend(more),
            Heard::Nothing => _ = rig.turn(Duration::from_millis(1)),
            other => panic!("the client heard {other:?}"),
        }
    }
    bytes
}

/// What the client hears once something is to be heard.
fn hear(rig: &mut Rig, client: usize) -> Heard {
    let give_up = Instant::now() + Duration::from_secs(5);
    loop {
        match rig.world.client_read(client) {
            Heard::Nothing => assert!(Instant::now() < give_up, "the client hears nothing"),
            heard => return heard,
        }
    }
}

// Law 1: every operation completes exactly once.

#[test]
fn bytes_come_back() {
    on_every_world(|rig| {
        let listener = rig.world.listen();
        let (client, stream) = rig.connection(listener);
        rig.world.client_send(client, b"there and back");
        let mut echoed = Vec::new();
        while echoed.len() < 14 {
            rig.proactor().receive(stream);
            let (from, bytes) = rig.received();
            let bytes = bytes.unwrap();
            assert!(from == stream && !bytes.is_empty());
            rig.send(stream, &bytes);
            rig.sent().unwrap();
            echoed.extend(bytes);
        }
        assert_eq!(read_exactly(rig, client, 14), b"there and back");
        rig.assert_quiet();
        rig.close(stream);
        assert_eq!(hear(rig, client), Heard::End);
        rig.assert_quiet();
    });
}

#[test]
fn a_cancelled_receive_completes_once() {
    on_every_world(|rig| {
        let listener = rig.world.listen();
        let (client, stream) = rig.connection(listener);
        rig.proactor().receive(stream);
        rig.assert_quiet();
        rig.proactor().cancel(Operation::Receive(stream));
        assert!(is_cancelled(&rig.received().1));
        rig.assert_quiet();

        // The stream lives on, and the cancellation hits no later receive.
        rig.proactor().receive(stream);
        rig.assert_quiet();
        rig.world.client_send(client, b"x");
        assert_eq!(rig.received().1.unwrap(), b"x");
        rig.assert_quiet();
    });
}

#[test]
fn a_receive_that_races_with_its_cancellation_loses_no_byte() {
    on_every_world(|rig| {
        let listener = rig.world.listen();
        let (client, stream) = rig.connection(listener);
        rig.proactor().receive(stream);
        rig.turn(Duration::ZERO);
        rig.world.client_send(client, b"x");
        rig.proactor().cancel(Operation::Receive(stream));
        let (_, result) = rig.received();
        rig.assert_quiet();
        if is_cancelled(&result) {
            rig.proactor().receive(stream);
            assert_eq!(rig.received().1.unwrap(), b"x");
        } else {
            assert_eq!(result.unwrap(), b"x");
        }
    });
}

#[test]
fn a_cancelled_send_completes_once_even_after_it_has_sent_a_part() {
    on_every_world(|rig| {
        let huge = rig.world.huge();
        let listener = rig.world.listen();
        let (client, stream) = rig.connection(listener);
        rig.send(stream, &pattern(huge));
        rig.assert_quiet();
        rig.proactor().cancel(Operation::Send(stream));
        match rig.next() {
            Event::Sent(_, result, length) => {
                assert!(is_cancelled(&result), "{result:?}");
                assert_eq!(length, huge, "the data comes back whole");
            }
            other => panic!("expected Sent, found {other:?}"),
        }
        rig.assert_quiet();
        assert!(matches!(rig.world.client_read(client), Heard::Bytes(_)), "a part was sent");
        rig.close(stream);
    });
}

#[test]
fn a_cancelled_hang_up_watch_completes_once() {
    on_every_world(|rig| {
        let listener = rig.world.listen();
        let (_, stream) = rig.connection(listener);
        rig.proactor().watch_hang_up(stream);
        rig.assert_quiet();
        rig.proactor().cancel(Operation::HangUp(stream));
        assert!(is_cancelled(&rig.hung_up()));
        rig.assert_quiet();
        rig.close(stream);
    });
}

#[test]
fn a_hang_up_that_races_with_its_cancellation_completes_once() {
    on_every_world(|rig| {
        let listener = rig.world.listen();
        let (client, stream) = rig.connection(listener);
        rig.proactor().watch_hang_up(stream);
        rig.turn(Duration::ZERO);
        rig.world.client_reset(client);
        rig.proactor().cancel(Operation::HangUp(stream));
        let result = rig.hung_up();
        assert!(result.is_ok() || is_cancelled(&result), "{result:?}");
        rig.assert_quiet();
        rig.close(stream);
    });
}

#[test]
fn cancelling_what_is_not_under_way_does_nothing() {
    on_every_world(|rig| {
        let listener = rig.world.listen();
        let (client, stream) = rig.connection(listener);
        rig.proactor().cancel(Operation::Accept(listener));
        rig.proactor().cancel(Operation::Receive(stream));
        rig.proactor().cancel(Operation::Send(stream));
        rig.proactor().cancel(Operation::HangUp(stream));
        rig.assert_quiet();
        rig.proactor().receive(stream);
        rig.send(stream, b"answer");
        rig.sent().unwrap();
        rig.world.client_send(client, b"x");
        assert_eq!(rig.received().1.unwrap(), b"x");
        rig.assert_quiet();
    });
}

#[test]
fn both_directions_work_at_once() {
    on_every_world(|rig| {
        let huge = rig.world.huge();
        let listener = rig.world.listen();
        let (client, stream) = rig.connection(listener);
        rig.proactor().receive(stream);
        rig.send(stream, &pattern(huge));
        rig.assert_quiet();
        rig.world.client_send(client, b"x");
        assert_eq!(rig.received().1.unwrap(), b"x");
        rig.assert_quiet();
        assert!(read_exactly(rig, client, huge) == pattern(huge));
        rig.sent().unwrap();
        rig.assert_quiet();
    });
}

#[test]
fn the_number_of_a_closed_stream_comes_again_and_is_a_new_stream() {
    on_every_world(|rig| {
        let listener = rig.world.listen();
        let (_, first) = rig.connection(listener);
        rig.close(first);
        let mut streams = Vec::new();
        for _ in 0..3 {
            let (client, stream) = rig.connection(listener);
            rig.proactor().receive(stream);
            rig.world.client_send(client, b"x");
            assert_eq!(rig.received().1.unwrap(), b"x");
            streams.push(stream);
        }
        streams.sort_unstable();
        streams.dedup();
        assert_eq!(streams.len(), 3);
        for stream in streams {
            rig.close(stream);
        }
        rig.assert_quiet();
    });
}

#[test]
fn the_number_of_a_stream_comes_again_only_after_its_close_has_completed() {
    on_every_world(|rig| {
        let listener = rig.world.listen();
        let (_, mut stream) = rig.connection(listener);
        for _ in 0..20 {
            rig.world.connect(listener);
            rig.proactor().close(stream);
            rig.proactor().accept(listener);
            let (mut closed, mut next) = (false, None);
            while !closed || next.is_none() {
                match rig.next() {
                    Event::Closed(which) => {
                        assert_eq!(which, stream);
                        closed = true;
                    }
                    Event::Accepted(_, accepted) => {
                        let accepted = accepted.unwrap().stream;
                        assert!(closed || accepted != stream);
                        next = Some(accepted);
                    }
                    other => panic!("{other:?}"),
                }
            }
            stream = next.unwrap();
        }
        rig.assert_quiet();
    });
}

#[test]
fn misuse_panics() {
    on_every_world(|rig| {
        let listener = rig.world.listen();
        rig.proactor().accept(listener);
        assert!(panics(|| rig.proactor().accept(listener)));
    });
    on_every_world(|rig| {
        let listener = rig.world.listen();
        let (_, stream) = rig.connection(listener);
        rig.proactor().receive(stream);
        assert!(panics(|| rig.proactor().receive(stream)));
    });
    on_every_world(|rig| {
        let listener = rig.world.listen();
        let (_, stream) = rig.connection(listener);
        rig.send(stream, b"x");
        assert!(panics(|| rig.send(stream, b"x")));
    });
    on_every_world(|rig| {
        let listener = rig.world.listen();
        let (_, stream) = rig.connection(listener);
        rig.proactor().receive(stream);
        assert!(panics(|| rig.proactor().close(stream)), "a receive is under way");
    });
    on_every_world(|rig| {
        let listener = rig.world.listen();
        let (_, stream) = rig.connection(listener);
        rig.proactor().close(stream);
        assert!(panics(|| rig.proactor().receive(stream)), "the stream is closed");
    });
}

// Law 2: accepting, and its end.

#[test]
fn a_cancelled_accept_takes_nothing_afterwards() {
    on_every_world(|rig| {
        let listener = rig.world.listen();
        rig.proactor().accept(listener);
        rig.assert_quiet();
        rig.proactor().cancel(Operation::Accept(listener));
        assert!(is_cancelled(&rig.accepted()));
        rig.world.connect(listener);
        rig.assert_quiet();
        rig.proactor().accept(listener);
        rig.accepted().unwrap();
        rig.assert_quiet();
    });
}

#[test]
fn a_connection_that_races_with_the_cancellation_is_delivered_or_stays_in_the_queue() {
    on_every_world(|rig| {
        let listener = rig.world.listen();
        rig.proactor().accept(listener);
        rig.turn(Duration::ZERO);
        let client = rig.world.connect(listener);
        rig.proactor().cancel(Operation::Accept(listener));
        let result = rig.accepted();
        let stream = if is_cancelled(&result) {
            rig.proactor().accept(listener);
            rig.accepted().unwrap().stream
        } else {
            result.unwrap().stream
        };
        rig.assert_quiet();
        rig.send(stream, b"hello");
        rig.sent().unwrap();
        assert_eq!(read_exactly(rig, client, 5), b"hello");
    });
}

#[test]
fn a_try_takes_who_waits_and_never_waits_itself() {
    on_every_world(|rig| {
        let listener = rig.world.listen();
        let would_block = |result: std::io::Result<_>| match result {
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
            Ok(_) => false,
        };
        rig.proactor().try_accept(listener);
        assert!(would_block(rig.accepted()));
        rig.assert_quiet();
        for _ in 0..3 {
            rig.world.connect(listener);
        }
        let mut streams = Vec::new();
        for _ in 0..3 {
            rig.proactor().try_accept(listener);
            streams.push(rig.accepted().unwrap().stream);
        }
        rig.proactor().try_accept(listener);
        assert!(would_block(rig.accepted()));
        rig.assert_quiet();
        streams.dedup();
        assert_eq!(streams.len(), 3);
        // And the ordinary accept still waits.
        rig.proactor().accept(listener);
        rig.assert_quiet();
        rig.world.connect(listener);
        rig.accepted().unwrap();
    });
}

#[test]
fn listeners_do_not_mix() {
    on_every_world(|rig| {
        let (first, second) = (rig.world.listen(), rig.world.listen());
        rig.proactor().accept(first);
        rig.world.connect(second);
        rig.assert_quiet();
        rig.proactor().accept(second);
        assert!(matches!(rig.next(), Event::Accepted(listener, Ok(_)) if listener == second));
        rig.world.connect(first);
        assert!(matches!(rig.next(), Event::Accepted(listener, Ok(_)) if listener == first));
    });
}

// Law 3: sending.

/// A payload that tells when it is freed.
struct Watched {
    bytes: Vec<u8>,
    freed: Rc<Cell<usize>>,
}

// SAFETY: the vector is never touched again before it is dropped with this value.
unsafe impl Payload for Watched {
    fn as_slice(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.freed.set(self.freed.get() + 1);
    }
}

#[test]
fn a_send_completes_when_all_is_taken_and_keeps_its_memory_until_then() {
    on_every_world(|rig| {
        let huge = rig.world.huge();
        let listener = rig.world.listen();
        let (client, stream) = rig.connection(listener);
        let freed = Rc::new(Cell::new(0));
        let mut data = Outgoing::default();
        data.append_shared(Box::new(Watched { bytes: pattern(huge), freed: Rc::clone(&freed) }));
        rig.proactor().send(stream, data);
        rig.assert_quiet();
        assert_eq!(freed.get(), 0, "the kernel still reads it");
        assert!(read_exactly(rig, client, huge) == pattern(huge));
        rig.sent().unwrap();
        assert_eq!(freed.get(), 1, "the completion gave it back");
        rig.assert_quiet();
    });
}

#[test]
fn many_chunks_are_sent_in_order() {
    on_every_world(|rig| {
        let listener = rig.world.listen();
        let (client, stream) = rig.connection(listener);
        let freed = Rc::new(Cell::new(0));
        let mut data = Outgoing::default();
        let mut expected = Vec::new();
        for number in 0..500_usize {
            let chunk = format!("<{number}{}>", "-".repeat(number % 97)).into_bytes();
            expected.extend_from_slice(&chunk);
            if number % 3 == 0 {
                data.append(&chunk);
            } else if number % 50 == 1 {
                // An empty chunk among the others.
                data.append(&chunk);
                let freed = Rc::clone(&freed);
                data.append_shared(Box::new(Watched { bytes: Vec::new(), freed }));
            } else {
                let freed = Rc::clone(&freed);
                data.append_shared(Box::new(Watched { bytes: chunk, freed }));
            }
        }
        assert_eq!(data.length(), expected.len());
        rig.proactor().send(stream, data);
        let bytes = read_exactly(rig, client, expected.len());
        assert!(bytes == expected, "{}", String::from_utf8_lossy(&bytes));
        rig.sent().unwrap();
        rig.assert_quiet();
    });
}

/// A file without a name that holds `content`.
fn file_with(content: &[u8]) -> File {
    // SAFETY: a fresh descriptor, or -1, which the assertion refuses before it is owned.
    let file = unsafe {
        let fd = libc::memfd_create(c"file".as_ptr(), libc::MFD_CLOEXEC);
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        File::from_raw_fd(fd)
    };
    file.write_all_at(content, 0).unwrap();
    file
}

#[test]
fn files_are_sent_between_bytes_and_keep_their_position() {
    on_every_world(|rig| {
        let huge = rig.world.huge();
        let listener = rig.world.listen();
        let (client, stream) = rig.connection(listener);
        let content = pattern(huge);
        let mut data = Outgoing::default();
        let mut expected = Vec::new();
        for (offset, length) in [(0, 3), (5, 0), (huge / 3, huge - huge / 3), (1, 100)] {
            let file = file_with(&content);
            data.append(b"<");
            data.append_file(FileRange::new(file, offset as u64, length));
            data.append(b">");
            expected.extend_from_slice(b"<");
            expected.extend_from_slice(&content[offset..offset + length]);
            expected.extend_from_slice(b">");
        }
        assert_eq!(data.length(), expected.len());
        rig.proactor().send(stream, data);
        assert!(read_exactly(rig, client, expected.len()) == expected);
        rig.sent().unwrap();
        rig.assert_quiet();
    });
}

#[test]
fn a_file_that_has_become_shorter_fails_its_send_once() {
    on_every_world(|rig| {
        let listener = rig.world.listen();
        let (client, stream) = rig.connection(listener);
        let mut data = Outgoing::default();
        data.append(b"<");
        data.append_file(FileRange::new(file_with(b"short"), 2, 4));
        data.append(b">");
        rig.proactor().send(stream, data);
        match rig.next() {
            Event::Sent(_, Err(error), 6) => {
                assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
            }
            other => panic!("expected an error, found {other:?}"),
        }
        rig.assert_quiet();
        rig.close(stream);
        let mut heard = Vec::new();
        while let Heard::Bytes(more) = hear(rig, client) {
            heard.extend(more);
        }
        assert!(b"<ort".starts_with(&heard), "nothing is made up: {heard:?}");
    });
}

#[test]
fn a_cancelled_send_of_a_file_completes_once() {
    on_every_world(|rig| {
        let huge = rig.world.huge();
        let listener = rig.world.listen();
        for turns_before in [0, 1, 2, 7] {
            let (_, stream) = rig.connection(listener);
            let mut data = Outgoing::default();
            data.append_file(FileRange::new(file_with(&pattern(huge)), 0, huge));
            rig.proactor().send(stream, data);
            for _ in 0..turns_before {
                rig.turn(Duration::from_millis(1));
                assert!(rig.arrived().is_none(), "nobody reads it, so it cannot end");
            }
            rig.proactor().cancel(Operation::Send(stream));
            match rig.next() {
                Event::Sent(_, result, length) => {
                    assert!(is_cancelled(&result), "{result:?}");
                    assert_eq!(length, huge, "the data comes back whole");
                }
                other => panic!("expected Sent, found {other:?}"),
            }
            rig.assert_quiet();
            rig.close(stream);
        }
    });
}

#[test]
fn a_send_of_nothing_completes() {
    on_every_world(|rig| {
        let listener = rig.world.listen();
        let (_, stream) = rig.connection(listener);
        rig.proactor().send(stream, Outgoing::default());
        rig.sent().unwrap();
        rig.assert_quiet();
    });
}

#[test]
fn a_send_to_a_peer_that_is_gone_ends_with_an_error() {
    on_every_world(|rig| {
        let huge = rig.world.huge();
        let listener = rig.world.listen();
        let (client, stream) = rig.connection(listener);
        rig.send(stream, &pattern(huge));
        rig.assert_quiet();
        rig.world.client_reset(client);
        assert!(rig.sent().is_err(), "while it was under way");
        rig.send(stream, b"more");
        assert!(rig.sent().is_err(), "and afterwards");
        rig.close(stream);
    });
}

#[test]
fn a_shutdown_is_seen_by_the_client_which_can_still_send() {
    on_every_world(|rig| {
        let listener = rig.world.listen();
        let (client, stream) = rig.connection(listener);
        rig.send(stream, b"last words");
        rig.sent().unwrap();
        rig.proactor().shutdown(stream);
        assert_eq!(read_exactly(rig, client, 10), b"last words");
        assert_eq!(hear(rig, client), Heard::End);
        rig.world.client_send(client, b"x");
        rig.proactor().receive(stream);
        assert_eq!(rig.received().1.unwrap(), b"x");
        rig.assert_quiet();
    });
}

// Law 4: receiving.

#[test]
fn idle_connections_hold_no_buffer_and_all_are_served() {
    on_every_world(|rig| {
        let listener = rig.world.listen();
        let mut expected = BTreeMap::new();
        for number in 0..MANY {
            let (client, stream) = rig.connection(listener);
            rig.proactor().receive(stream);
            expected.insert(stream, (client, format!("client {number}").into_bytes()));
        }
        rig.assert_quiet();
        for (client, message) in expected.values() {
            rig.world.client_send(*client, message);
        }
        let mut empty_turns = 0;
        while !expected.is_empty() {
            let delivered = rig.turn(Duration::from_secs(5));
            assert!(delivered <= BOUND);
            empty_turns += usize::from(delivered == 0);
            while let Some(event) = rig.arrived() {
                let Event::Received(stream, bytes) = event else { panic!("{event:?}") };
                // A receive may bring a part; the rest comes with the next one.
                let (_, message) = expected.get_mut(&stream).unwrap();
                let bytes = bytes.unwrap();
                assert!(!bytes.is_empty() && message.starts_with(&bytes));
                message.drain(..bytes.len());
                if message.is_empty() {
                    expected.remove(&stream);
                } else {
                    rig.proactor().receive(stream);
                }
            }
        }
        // Running out of buffers must not be answered by trying again and again.
        assert!(empty_turns < 100, "{empty_turns} turns for nothing");
        rig.assert_quiet();
    });
}

#[test]
fn receives_that_wait_for_a_buffer_can_be_cancelled() {
    on_every_world(|rig| {
        let listener = rig.world.listen();
        let (clients, streams): (Vec<_>, Vec<_>) =
            (0..MANY).map(|_| rig.connection(listener)).unzip();
        for (client, stream) in clients.iter().zip(&streams) {
            rig.proactor().receive(*stream);
            rig.world.client_send(*client, b"x");
        }
        let mut ended: BTreeMap<StreamId, usize> = BTreeMap::new();
        rig.turn(Duration::ZERO);
        for stream in &streams {
            rig.proactor().cancel(Operation::Receive(*stream));
        }
        while ended.len() < MANY {
            let (stream, result) = rig.received();
            assert!(is_cancelled(&result) || result.unwrap() == b"x");
            *ended.entry(stream).or_default() += 1;
        }
        rig.assert_quiet();
        assert!(ended.values().all(|count| *count == 1));
        for stream in streams {
            rig.close(stream);
        }
    });
}

#[test]
fn a_lease_ends_with_the_next_wait() {
    on_every_world(|rig| {
        let listener = rig.world.listen();
        let (client, stream) = rig.connection(listener);
        rig.world.client_send(client, b"x");
        rig.proactor().receive(stream);
        let mut completions = Vec::new();
        while completions.is_empty() {
            let deadline = rig.proactor().now() + Duration::from_secs(5);
            rig.proactor().wait(Some(deadline), &mut completions).unwrap();
        }
        let Some(Completion::Received { result: Ok(lease), .. }) = completions.pop() else {
            panic!("expected bytes")
        };
        assert_eq!(rig.proactor().bytes(&lease), b"x");
        rig.turn(Duration::ZERO);
        assert!(panics(|| assert_eq!(rig.proactor().bytes(&lease), b"x")));
    });
}

#[test]
fn a_lease_that_says_more_waits_tells_the_truth() {
    on_every_world(|rig| {
        let listener = rig.world.listen();
        let (client, stream) = rig.connection(listener);
        let sent = pattern(40_000);
        rig.world.client_send(client, &sent);
        let (mut got, mut more_waits) = (Vec::new(), false);
        while got.len() < sent.len() || more_waits {
            rig.proactor().receive(stream);
            let mut completions = Vec::new();
            let give_up = rig.proactor().now() + Duration::from_secs(5);
            while completions.is_empty() {
                assert!(rig.proactor().now() < give_up, "nothing more has waited");
                rig.proactor().wait(Some(give_up), &mut completions).unwrap();
            }
            let Some(Completion::Received { result: Ok(lease), .. }) = completions.pop() else {
                panic!("expected bytes")
            };
            got.extend_from_slice(rig.proactor().bytes(&lease));
            more_waits = lease.more_waits();
        }
        assert!(got == sent);
    });
}

#[test]
fn the_end_of_input_has_length_zero_and_the_answer_still_goes_out() {
    on_every_world(|rig| {
        let listener = rig.world.listen();
        let (client, stream) = rig.connection(listener);
        rig.world.client_send(client, b"x");
        rig.world.client_shutdown(client);
        for expected in [b"x".as_slice(), b"", b""] {
            rig.proactor().receive(stream);
            assert_eq!(rig.received().1.unwrap(), expected);
        }
        rig.send(stream, b"answer");
        rig.sent().unwrap();
        assert_eq!(read_exactly(rig, client, 6), b"answer");
        rig.close(stream);
    });
}

#[test]
fn a_receive_from_a_peer_that_is_gone_ends() {
    on_every_world(|rig| {
        let listener = rig.world.listen();
        let (client, stream) = rig.connection(listener);
        rig.proactor().receive(stream);
        rig.assert_quiet();
        rig.world.client_reset(client);
        // A Unix socket has no reset: there it is the end.
        let (_, result) = rig.received();
        assert!(result.is_err() || result.unwrap().is_empty());
        rig.close(stream);
    });
}

#[test]
fn a_hang_up_watch_sees_a_reset() {
    on_every_world(|rig| {
        let listener = rig.world.listen();
        let (client, stream) = rig.connection(listener);
        rig.proactor().watch_hang_up(stream);
        rig.world.client_send(client, b"a request that nobody has read yet");
        rig.assert_quiet();
        rig.world.client_reset(client);
        rig.hung_up().unwrap();
        rig.assert_quiet();
        rig.proactor().watch_hang_up(stream);
        rig.hung_up().unwrap();
        rig.close(stream);
    });
}

#[test]
fn a_hang_up_watch_does_not_take_a_half_close_for_a_hang_up() {
    on_every_world(|rig| {
        let listener = rig.world.listen();
        let (client, stream) = rig.connection(listener);
        rig.proactor().watch_hang_up(stream);
        rig.assert_quiet();
        rig.world.client_shutdown(client);
        rig.assert_quiet();
        rig.world.client_reset(client);
        rig.hung_up().unwrap();
        rig.assert_quiet();
        rig.close(stream);
    });
    on_every_world(|rig| {
        let listener = rig.world.listen();
        let (client, stream) = rig.connection(listener);
        rig.world.client_shutdown(client);
        rig.proactor().watch_hang_up(stream);
        rig.assert_quiet();
        rig.proactor().cancel(Operation::HangUp(stream));
        assert!(is_cancelled(&rig.hung_up()));
        rig.assert_quiet();
        rig.close(stream);
    });
}

#[test]
fn a_hang_up_watch_sees_both_directions_closed() {
    on_every_world(|rig| {
        let listener = rig.world.listen();
        let (client, stream) = rig.connection(listener);
        rig.proactor().watch_hang_up(stream);
        rig.proactor().shutdown(stream);
        rig.assert_quiet();
        rig.world.client_close(client);
        rig.hung_up().unwrap();
        rig.assert_quiet();
        rig.close(stream);
    });
}

// Law 5: waiting.

#[test]
fn a_wait_ends_at_its_deadline() {
    on_every_world(|rig| {
        let listener = rig.world.listen();
        rig.proactor().accept(listener);
        for patience in [Duration::ZERO, Duration::from_millis(20)] {
            let (real, before) = (Instant::now(), rig.proactor().now());
            while rig.proactor().now() < before + patience {
                assert_eq!(rig.turn(patience), 0);
            }
            assert!(rig.proactor().now() < before + patience + Duration::from_millis(500));
            assert!(real.elapsed() < Duration::from_secs(1));
        }
        let past = rig.proactor().now();
        rig.turn(Duration::from_millis(5));
        let mut completions = Vec::new();
        let before = Instant::now();
        rig.proactor().wait(Some(past), &mut completions).unwrap();
        assert!(completions.is_empty() && before.elapsed() < Duration::from_millis(500));
    });
}

#[test]
fn a_wait_without_deadline_ends_with_a_completion() {
    on_every_world(|rig| {
        let listener = rig.world.listen();
        rig.proactor().accept(listener);
        rig.world.connect(listener);
        let mut completions = Vec::new();
        while completions.is_empty() {
            rig.proactor().wait(None, &mut completions).unwrap();
        }
        assert!(matches!(completions.as_slice(), [Completion::Accepted { result: Ok(_), .. }]));
    });
}

#[test]
fn a_wait_delivers_a_bounded_number_of_completions() {
    on_every_world(|rig| {
        let fds: Vec<_> = (0..MANY).map(|_| rig.world.watchable()).collect();
        for fd in &fds {
            rig.world.make_readable(*fd);
            rig.proactor().watch(*fd);
        }
        let mut left = MANY;
        while left > 0 {
            let delivered = rig.turn(Duration::from_secs(5));
            assert!(delivered <= BOUND);
            left -= delivered;
        }
    });
}

#[test]
fn a_watch_tells_once_and_can_be_armed_again() {
    on_every_world(|rig| {
        let fd = rig.world.watchable();
        rig.proactor().watch(fd);
        rig.assert_quiet();
        rig.world.make_readable(fd);
        assert!(matches!(rig.next(), Event::Readable(readable) if readable == fd));
        rig.assert_quiet();
        rig.proactor().watch(fd);
        assert!(matches!(rig.next(), Event::Readable(_)), "it still is readable");
        rig.world.make_unreadable(fd);
        rig.proactor().watch(fd);
        rig.assert_quiet();
        rig.world.make_readable(fd);
        assert!(matches!(rig.next(), Event::Readable(_)));
    });
}

// Law 6: the wake fd.

#[test]
fn who_turns_only_when_woken_misses_nothing() {
    on_every_world(|rig| {
        let huge = rig.world.huge();
        let wake = rig.proactor().wake_fd().unwrap();
        assert_eq!(rig.proactor().wake_fd().unwrap(), wake);
        let listener = rig.world.listen();
        let watched = rig.world.watchable();
        rig.proactor().accept(listener);
        rig.proactor().watch(watched);
        rig.turn(Duration::ZERO);
        rig.assert_not_woken(wake);

        let client = rig.world.connect(listener);
        let Event::Accepted(_, Ok(accepted)) = rig.next_when_woken(wake) else { panic!() };
        let stream = accepted.stream;
        rig.assert_not_woken(wake);
        rig.world.make_readable(watched);
        assert!(matches!(rig.next_when_woken(wake), Event::Readable(fd) if fd == watched));

        rig.proactor().receive(stream);
        rig.send(stream, &pattern(huge));
        rig.turn(Duration::ZERO);
        rig.assert_not_woken(wake);
        rig.world.client_send(client, b"x");
        assert!(matches!(rig.next_when_woken(wake), Event::Received(_, Ok(_))));
        let (mut read, give_up) = (0, Instant::now() + Duration::from_secs(20));
        while read < huge {
            assert!(Instant::now() < give_up, "only {read} of {huge} bytes came");
            if let Heard::Bytes(bytes) = rig.world.client_read(client) {
                read += bytes.len();
            }
            if rig.world.is_readable(wake) {
                rig.turn(Duration::ZERO);
            }
        }
        assert!(matches!(rig.next_when_woken(wake), Event::Sent(_, Ok(()), _)));

        rig.proactor().watch_hang_up(stream);
        rig.turn(Duration::ZERO);
        rig.assert_not_woken(wake);
        rig.world.client_reset(client);
        assert!(matches!(rig.next_when_woken(wake), Event::HungUp(_, Ok(()))));
        rig.proactor().close(stream);
        rig.turn(Duration::ZERO);
        assert!(matches!(rig.next_when_woken(wake), Event::Closed(_)));
        rig.assert_not_woken(wake);
    });
}

#[test]
fn the_wake_fd_tells_of_what_one_wait_could_not_deliver() {
    on_every_world(|rig| {
        let wake = rig.proactor().wake_fd().unwrap();
        let listener = rig.world.listen();
        let streams: Vec<_> = (0..MANY).map(|_| rig.connection(listener)).collect();
        for (client, stream) in &streams {
            rig.proactor().receive(*stream);
            rig.world.client_send(*client, b"x");
        }
        rig.turn(Duration::ZERO);
        let mut heard = Vec::new();
        while heard.len() < MANY {
            match rig.next_when_woken(wake) {
                Event::Received(stream, Ok(bytes)) if bytes == b"x" => heard.push(stream),
                other => panic!("expected Received, found {other:?}"),
            }
        }
        rig.assert_not_woken(wake);
        heard.sort_unstable();
        heard.dedup();
        assert_eq!(heard.len(), MANY);
    });
}
