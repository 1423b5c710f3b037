//! What only a kernel can show of the proactors that an async runtime hosts: the flags of what they
//! accept, signals, limits, and what a dropped one leaves behind.
//!
//! `uring.rs` has the same for the ring of our own, and the laws are in `proactor_laws.rs`.
#![allow(unsafe_code, reason = "signals and limits are asked for from libc")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test panics, and says why")]

mod alone;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, io, mem, ptr, thread};

use alone::alone;
use granian_uring::listener::Address;
use granian_uring::proactor::hosted::monoio::{Epoll, Monoio};
use granian_uring::proactor::hosted::tokio_uring::TokioUring;
use granian_uring::proactor::{Accepted, Completion, ListenerId, Outgoing, Proactor};
use socket2::SockRef;

const PATIENCE: Duration = Duration::from_secs(10);

type Make = fn() -> Box<dyn Proactor>;

const HOSTED: [(&str, Make); 3] = [
    ("monoio", || Box::new(Monoio::new().unwrap())),
    ("tokio-uring", || Box::new(TokioUring::new().unwrap())),
    ("epoll", || Box::new(Epoll::new().unwrap())),
];

fn on_each(test: impl Fn(Make)) {
    for (name, make) in HOSTED {
        println!("{name}");
        test(make);
    }
}

/// Completions of one `wait` after the other, until there is one.
fn complete(proactor: &mut dyn Proactor) -> Vec<Completion> {
    let give_up = Instant::now() + PATIENCE;
    let mut completions = Vec::new();
    while completions.is_empty() {
        assert!(Instant::now() < give_up, "nothing completed");
        proactor.wait(Some(give_up), &mut completions).unwrap();
    }
    completions
}

fn accepted(proactor: &mut dyn Proactor) -> io::Result<Accepted> {
    match complete(proactor).pop() {
        Some(Completion::Accepted { result, .. }) => result,
        _ => panic!("expected Accepted"),
    }
}

/// Submit what was asked for, and let the kernel act on it.
fn submit(proactor: &mut dyn Proactor) {
    let mut completions = Vec::new();
    for _ in 0..3 {
        proactor.wait(Some(proactor.now()), &mut completions).unwrap();
    }
    assert!(completions.is_empty());
}

fn accept(proactor: &mut dyn Proactor, listener: ListenerId) -> Accepted {
    proactor.accept(listener);
    accepted(proactor).unwrap()
}

fn flags(fd: BorrowedFd) -> (i32, i32) {
    // SAFETY: asks about a live fd.
    unsafe {
        (libc::fcntl(fd.as_raw_fd(), libc::F_GETFD), libc::fcntl(fd.as_raw_fd(), libc::F_GETFL))
    }
}

#[test]
fn an_accepted_connection_is_cloexec_and_without_delay_and_the_listener_stays_as_it_was() {
    on_each(|make| {
        for nonblocking in [false, true] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            listener.set_nonblocking(nonblocking).unwrap();
            let before = flags(listener.as_fd());
            let mut proactor = make();
            let id = proactor.register_listener(listener.try_clone().unwrap().into()).unwrap();
            // Armed before anybody comes: it must wait, O_NONBLOCK or not.
            proactor.accept(id);
            submit(&mut *proactor);
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let accepted = accepted(&mut *proactor).unwrap();
            // SAFETY: the stream is open; the proactor closes it later than this.
            let fd = unsafe { BorrowedFd::borrow_raw(accepted.stream.0.cast_signed()) };
            assert_eq!(flags(fd).0, libc::FD_CLOEXEC);
            assert!(SockRef::from(&fd).tcp_nodelay().unwrap());
            assert_eq!(accepted.peer, Address::Tcp(client.local_addr().unwrap()));
            assert_eq!(accepted.local, Address::Tcp(listener.local_addr().unwrap()));
            assert_eq!(flags(listener.as_fd()), before);
            assert!(!SockRef::from(&listener).tcp_nodelay().unwrap());
        }
    });
}

/// Both proactors wait for the same listener, and one connection comes.
#[test]
fn an_accept_that_lost_the_race_to_a_sibling_can_be_cancelled() {
    on_each(|make| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut pair = [make(), make()];
        let ids = pair.each_mut().map(|proactor| {
            let id = proactor.register_listener(listener.try_clone().unwrap().into()).unwrap();
            proactor.accept(id);
            submit(&mut **proactor);
            id
        });
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut taken = 0;
        let give_up = Instant::now() + PATIENCE;
        let mut ends = [false, false];
        while taken == 0 {
            assert!(Instant::now() < give_up, "nobody took the client");
            for (proactor, end) in pair.iter_mut().zip(&mut ends) {
                let mut completions = Vec::new();
                let soon = Instant::now() + Duration::from_millis(5);
                proactor.wait(Some(soon), &mut completions).unwrap();
                *end = !completions.is_empty();
                taken += completions.len();
            }
        }
        assert_eq!(taken, 1);
        for ((proactor, end), id) in pair.iter_mut().zip(ends).zip(ids) {
            if !end {
                proactor.cancel(granian_uring::proactor::Operation::Accept(id));
                let error = accepted(&mut **proactor).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
            }
        }
    });
}

#[test]
fn without_a_free_fd_the_accept_fails_and_the_client_stays_in_the_queue() {
    if !alone() {
        return;
    }
    on_each(|make| {
        let mut proactor = make();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_all(b"x").unwrap();
        let id = proactor.register_listener(listener.into()).unwrap();
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: valid pointers to a live struct; this process runs this test alone.
        unsafe {
            libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
            // poll(2) wants the limit to be no lower than the number of fds that it is given.
            let none = libc::rlimit { rlim_cur: 1, ..limit };
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const none);
        }
        proactor.accept(id);
        let error = accepted(&mut *proactor).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
        // SAFETY: as above.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
        let accepted = accept(&mut *proactor, id);
        proactor.receive(accepted.stream);
        let Some(Completion::Received { result, .. }) = complete(&mut *proactor).pop() else {
            panic!("expected Received")
        };
        assert_eq!(proactor.bytes(&result.unwrap()), b"x");
    });
}

static SIGNALS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count_signal(_: libc::c_int) {
    SIGNALS.fetch_add(1, Ordering::SeqCst);
}

#[test]
fn a_signal_ends_a_wait_whether_something_was_begun_or_not() {
    if !alone() {
        return;
    }
    // SAFETY: the handler only counts; the struct is valid, and without SA_RESTART.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = count_signal as extern "C" fn(libc::c_int) as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, ptr::null_mut()), 0);
    }
    on_each(|make| {
        for begins in [true, false] {
            let done = &*Box::leak(Box::new(AtomicBool::new(false)));
            let waiter = thread::spawn(move || {
                let mut proactor = make();
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                let id = proactor.register_listener(listener.into()).unwrap();
                proactor.accept(id);
                if !begins {
                    submit(&mut *proactor);
                }
                let before = SIGNALS.load(Ordering::SeqCst);
                let mut completions = Vec::new();
                proactor.wait(Some(Instant::now() + PATIENCE), &mut completions).unwrap();
                assert!(completions.is_empty());
                let signals = SIGNALS.load(Ordering::SeqCst);
                done.store(true, Ordering::SeqCst);
                assert!(signals > before, "the wait ended without a signal");
            });
            while !done.load(Ordering::SeqCst) && !waiter.is_finished() {
                // SAFETY: the thread has not been joined.
                unsafe { libc::pthread_kill(waiter.as_pthread_t(), libc::SIGUSR1) };
                thread::sleep(Duration::from_millis(1));
            }
            waiter.join().unwrap();
        }
    });
}

/// Opens and closes epolls until it is told to stop, as an application's threads with loops do: the
/// number of one that it closes is free for others while it has another one.
fn open_and_close_epolls(stop: &AtomicBool) {
    let mut moved = None;
    for turn in (0..100).cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // SAFETY: no memory is involved; the kernel has made the fd for us.
        let low = unsafe { OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC)) };
        thread::sleep(Duration::from_micros(turn * 37 % 300));
        // SAFETY: as above.
        moved = Some(unsafe {
            let number = 200 + i32::try_from(turn).unwrap();
            OwnedFd::from_raw_fd(libc::fcntl(low.as_raw_fd(), libc::F_DUPFD_CLOEXEC, number))
        });
        drop(low);
        thread::sleep(Duration::from_micros(turn * 53 % 300));
    }
    drop(moved);
}

/// The fd to wait on must be the runtime's own, or a wait sleeps through its news, or never sleeps.
#[test]
fn a_runtime_on_epoll_is_not_mistaken_for_an_epoll_of_another_thread() {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| open_and_close_epolls(&stop));
        let is_wrong =
            |_: &usize| !Epoll::new().is_ok_and(|mut proactor| rests_and_wakes(&mut proactor));
        let wrong = (0..1000).find(is_wrong);
        stop.store(true, Ordering::Relaxed);
        assert_eq!(wrong, None, "that one of 1000 waited for something else");
    });
}

fn rests_and_wakes(proactor: &mut dyn Proactor) -> bool {
    let (reader, mut writer) = io::pipe().unwrap();
    proactor.watch(reader.as_raw_fd());
    submit(proactor);
    let mut completions = Vec::new();
    let begin = Instant::now();
    proactor.wait(Some(begin + Duration::from_millis(2)), &mut completions).unwrap();
    let rests = begin.elapsed() >= Duration::from_millis(2);
    writer.write_all(b"x").unwrap();
    let begin = Instant::now();
    proactor.wait(Some(begin + PATIENCE), &mut completions).unwrap();
    rests && begin.elapsed() < PATIENCE && completions.len() == 1
}

fn count(folder: &str) -> usize {
    fs::read_dir(folder).unwrap().count()
}

/// Everything under way at once.
fn busy(make: Make, listener: &TcpListener) -> (Box<dyn Proactor>, Vec<TcpStream>, io::PipeWriter) {
    let mut proactor = make();
    let id = proactor.register_listener(listener.try_clone().unwrap().into()).unwrap();
    let mut clients = Vec::new();
    for number in 0..40 {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let stream = accept(&mut *proactor, id).stream;
        if number % 4 < 2 {
            proactor.receive(stream);
        } else {
            proactor.watch_hang_up(stream);
        }
        if number % 2 == 0 {
            let mut data = Outgoing::default();
            data.append(&vec![b'x'; 8 * 1024 * 1024]);
            proactor.send(stream, data);
        }
        clients.push(client);
    }
    let (reader, writer) = io::pipe().unwrap();
    proactor.watch(reader.as_raw_fd());
    proactor.accept(id);
    submit(&mut *proactor);
    drop(reader);
    (proactor, clients, writer)
}

#[test]
fn a_dropped_one_leaves_no_fd_no_thread_and_no_client_waiting() {
    if !alone() {
        return;
    }
    on_each(|make| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let before = (count("/proc/self/fd"), count("/proc/self/task"));
        let (proactor, clients, writer) = busy(make, &listener);
        assert!(count("/proc/self/fd") > before.0 + 80);
        let start = Instant::now();
        drop(proactor);
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        for mut client in clients {
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            // The end, or a reset when the client's window was full; a hang would be a time-out.
            if let Err(error) = client.read_to_end(&mut Vec::new()) {
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            }
        }
        drop(writer);
        assert_eq!((count("/proc/self/fd"), count("/proc/self/task")), before);
    });
}

#[test]
fn a_dropped_one_takes_no_further_connection() {
    on_each(|make| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        for _ in 0..10 {
            let (proactor, _clients, _writer) = busy(make, &listener);
            drop(proactor);
            let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let mut other = make();
            let id = other.register_listener(listener.try_clone().unwrap().into()).unwrap();
            other.try_accept(id);
            accepted(&mut *other).expect("the client waits in the queue");
        }
    });
}

/// Nobody in particular: an unprivileged user whose locked memory no other process counts in.
const NOBODY: libc::uid_t = 64_986;

#[test]
fn a_ring_that_may_not_lock_memory_says_which_limit_to_raise_and_epoll_needs_none() {
    if !alone() {
        return;
    }
    // SAFETY: plain system calls; this process runs one test alone.
    unsafe {
        if libc::geteuid() != 0 {
            assert!(env::var_os("NO_SKIP").is_none(), "expected root, to become another user");
            println!("skipped: only root can become another user");
            return;
        }
        let limit = libc::rlimit { rlim_cur: 16 * 1024, rlim_max: 16 * 1024 };
        assert_eq!(libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit), 0);
        assert_eq!(libc::setresuid(NOBODY, NOBODY, NOBODY), 0);
    }
    for refused in [Monoio::new().err(), TokioUring::new().err()] {
        let text = refused.expect("a ring needs more than 16 KiB").to_string();
        println!("{text}");
        assert!(text.contains("io_uring_setup failed: "), "{text}");
        assert!(text.contains("\n\nhint: ") && text.contains("LimitMEMLOCK="), "{text}");
    }
    let (reader, mut writer) = io::pipe().unwrap();
    writer.write_all(b"x").unwrap();
    let mut epoll = Epoll::new().unwrap();
    epoll.watch(reader.as_raw_fd());
    assert!(matches!(complete(&mut epoll).as_slice(), [Completion::Readable { .. }]));
}
