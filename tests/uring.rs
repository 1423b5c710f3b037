//! What only a kernel can show of the `io_uring` proactor: the addresses and flags of what it
//! accepts, signals, limits, and what a dropped ring leaves behind.
//!
//! A test that changes or counts what belongs to the whole process runs alone, in a child of its
//! own: see [`alone()`]. The laws of the trait are in `proactor_laws.rs`.
#![allow(unsafe_code, reason = "signals and limits are asked for from libc")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test panics, and says why")]

mod alone;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, io, mem, ptr, thread};

use alone::alone;
use granian_uring::listener::Address;
use granian_uring::proactor::uring::{RingError, Uring};
use granian_uring::proactor::{Accepted, Completion, ListenerId, Outgoing, Proactor};
use socket2::{Domain, SockRef, Socket, Type};

const PATIENCE: Duration = Duration::from_secs(10);

/// Completions of one `wait` after the other, until there is one.
fn complete(ring: &mut Uring) -> Vec<Completion> {
    let give_up = Instant::now() + PATIENCE;
    let mut completions = Vec::new();
    while completions.is_empty() {
        assert!(Instant::now() < give_up, "nothing completed");
        ring.wait(Some(give_up), &mut completions).unwrap();
    }
    completions
}

fn accepted(ring: &mut Uring) -> io::Result<Accepted> {
    match complete(ring).pop() {
        Some(Completion::Accepted { result, .. }) => result,
        _ => panic!("expected Accepted"),
    }
}

/// Submit what was asked for, and let the kernel act on it.
fn submit(ring: &mut Uring) {
    let mut completions = Vec::new();
    ring.wait(Some(ring.now()), &mut completions).unwrap();
    assert!(completions.is_empty());
}

fn accept(ring: &mut Uring, listener: ListenerId) -> Accepted {
    ring.accept(listener);
    accepted(ring).unwrap()
}

fn fd_of(accepted: &Accepted) -> BorrowedFd<'_> {
    // SAFETY: the stream is open; the ring closes it later than the caller looks at it.
    unsafe { BorrowedFd::borrow_raw(accepted.stream.0.cast_signed()) }
}

fn flags(fd: BorrowedFd) -> (i32, i32) {
    // SAFETY: asks about a live fd.
    unsafe {
        (libc::fcntl(fd.as_raw_fd(), libc::F_GETFD), libc::fcntl(fd.as_raw_fd(), libc::F_GETFL))
    }
}

fn tcp(ip: impl Into<std::net::IpAddr>, port: u16) -> Address {
    Address::Tcp(SocketAddr::new(ip.into(), port))
}

#[test]
fn an_accepted_connection_is_cloexec_and_without_delay_and_the_listener_stays_as_it_was() {
    for nonblocking in [false, true] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(nonblocking).unwrap();
        // SAFETY: clears CLOEXEC of a live fd, as systemd passes it.
        unsafe { libc::fcntl(listener.as_raw_fd(), libc::F_SETFD, 0) };
        let before = flags(listener.as_fd());
        assert_eq!(before.0, 0);
        let mut ring = Uring::new().unwrap();
        let id = ring.register_listener(listener.try_clone().unwrap().into()).unwrap();
        // Armed before anybody comes: it must wait, O_NONBLOCK or not.
        ring.accept(id);
        submit(&mut ring);
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = accepted(&mut ring).unwrap();

        let (descriptor, description) = flags(fd_of(&accepted));
        assert_eq!(descriptor, libc::FD_CLOEXEC);
        assert_eq!(description & libc::O_NONBLOCK, 0);
        assert!(SockRef::from(&fd_of(&accepted)).tcp_nodelay().unwrap());
        let SocketAddr::V4(local) = client.local_addr().unwrap() else { unreachable!() };
        assert_eq!(accepted.peer, tcp(*local.ip(), local.port()));
        assert_eq!(accepted.local, Address::Tcp(listener.local_addr().unwrap()));

        assert_eq!(flags(listener.as_fd()), before);
        assert!(!SockRef::from(&listener).tcp_nodelay().unwrap());
    }
}

#[test]
fn addresses_of_ipv6_and_of_mapped_ipv4() {
    let mut ring = Uring::new().unwrap();
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    socket.set_only_v6(false).unwrap();
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into()).unwrap();
    socket.listen(16).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    let listener = ring.register_listener(socket.into()).unwrap();

    let client = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
    let over_six = accept(&mut ring, listener);
    assert_eq!(over_six.peer, Address::Tcp(client.local_addr().unwrap()));
    assert_eq!(over_six.local, tcp(Ipv6Addr::LOCALHOST, port));

    let client = TcpStream::connect((Ipv4Addr::new(127, 0, 0, 5), port)).unwrap();
    let over_four = accept(&mut ring, listener);
    assert_eq!(over_four.peer, Address::Tcp(client.local_addr().unwrap()));
    assert_eq!(over_four.local, tcp(Ipv4Addr::new(127, 0, 0, 5), port));
}

#[test]
fn the_local_address_of_a_listener_on_all_addresses_is_the_one_the_client_used() {
    let mut ring = Uring::new().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let id = ring.register_listener(listener.into()).unwrap();
    let _client = TcpStream::connect((Ipv4Addr::new(127, 0, 0, 9), port)).unwrap();
    assert_eq!(accept(&mut ring, id).local, tcp(Ipv4Addr::new(127, 0, 0, 9), port));
}

#[test]
fn addresses_of_unix_sockets() {
    let mut ring = Uring::new().unwrap();
    let path = env::temp_dir().join(format!("granian-uring-test-{}.sock", std::process::id()));
    let name = format!("granian-uring test {}", std::process::id());
    let abstract_address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let by_path = UnixListener::bind(&path).unwrap();
    let by_name = UnixListener::bind_addr(&abstract_address).unwrap();
    let by_path = ring.register_listener(by_path.into()).unwrap();
    let by_name = ring.register_listener(by_name.into()).unwrap();

    let _client = UnixStream::connect(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let accepted = accept(&mut ring, by_path);
    assert_eq!((accepted.peer, accepted.local), (Address::UnixUnnamed, Address::UnixPath(path)));

    let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    client.bind(&socket2::SockAddr::unix(format!("\0{name} client")).unwrap()).unwrap();
    client.connect(&socket2::SockAddr::unix(format!("\0{name}")).unwrap()).unwrap();
    let accepted = accept(&mut ring, by_name);
    assert_eq!(accepted.peer, Address::UnixAbstract(format!("{name} client").into_bytes()));
    assert_eq!(accepted.local, Address::UnixAbstract(name.into_bytes()));
    // A connection by name does not keep the address of the longer one before it.
    let _client = UnixStream::connect_addr(&abstract_address).unwrap();
    assert_eq!(accept(&mut ring, by_name).peer, Address::UnixUnnamed);
}

#[test]
fn without_a_free_fd_the_accept_fails_and_the_client_stays_in_the_queue() {
    if !alone() {
        return;
    }
    let mut ring = Uring::new().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.write_all(b"x").unwrap();
    let id = ring.register_listener(listener.into()).unwrap();
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: valid pointers to a live struct; this process runs this test alone.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        let none = libc::rlimit { rlim_cur: 0, ..limit };
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const none);
    }
    ring.accept(id);
    let error = accepted(&mut ring).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
    // SAFETY: as above.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    let accepted = accept(&mut ring, id);
    ring.receive(accepted.stream);
    let Some(Completion::Received { result, .. }) = complete(&mut ring).pop() else {
        panic!("expected Received")
    };
    assert_eq!(ring.bytes(&result.unwrap()), b"x");
}

#[test]
fn the_kernel_says_that_more_bytes_wait_as_long_as_they_do() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let mut ring = Uring::new().unwrap();
    let listener = ring.register_listener(listener.into()).unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    let stream = accept(&mut ring, listener).stream;
    client.write_all(&vec![b'x'; 40_000]).unwrap();
    let mut got = 0;
    while got < 40_000 {
        ring.receive(stream);
        let Some(Completion::Received { result, .. }) = complete(&mut ring).pop() else {
            panic!("expected Received")
        };
        let lease = result.unwrap();
        got += lease.length();
        assert_eq!(lease.more_waits(), got < 40_000, "after {got} bytes");
    }
}

#[test]
fn more_operations_than_the_queues_hold_all_complete() {
    const WATCHES: usize = 10_000;
    let mut ring = Uring::new().unwrap();
    let (reader, mut writer) = io::pipe().unwrap();
    for _ in 0..WATCHES {
        ring.watch(reader.as_raw_fd());
    }
    writer.write_all(b"x").unwrap();
    let mut told = 0;
    while told < WATCHES {
        let completions = complete(&mut ring);
        assert!(completions.len() <= 256);
        told += completions.len();
    }
    submit(&mut ring);
    assert!(!ring.is_ready());
}

static SIGNALS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count_signal(_: libc::c_int) {
    SIGNALS.fetch_add(1, Ordering::SeqCst);
}

/// When entries were submitted, `io_uring_enter` returns their number and hides EINTR.
#[test]
fn a_signal_ends_a_wait_whether_entries_were_submitted_or_not() {
    if !alone() {
        return;
    }
    // SAFETY: the handler only counts; the struct is valid, and without SA_RESTART.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = count_signal as extern "C" fn(libc::c_int) as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, ptr::null_mut()), 0);
    }
    for submits in [true, false] {
        let done = AtomicBool::new(false);
        let done = &*Box::leak(Box::new(done));
        let waiter = thread::spawn(move || {
            let mut ring = Uring::new().unwrap();
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let id = ring.register_listener(listener.into()).unwrap();
            ring.accept(id);
            if !submits {
                submit(&mut ring);
            }
            let before = SIGNALS.load(Ordering::SeqCst);
            let mut completions = Vec::new();
            ring.wait(Some(Instant::now() + PATIENCE), &mut completions).unwrap();
            assert!(completions.is_empty());
            let signals = SIGNALS.load(Ordering::SeqCst);
            done.store(true, Ordering::SeqCst);
            assert!(signals > before, "the wait ended without a signal");
        });
        while !done.load(Ordering::SeqCst) && !waiter.is_finished() {
            // SAFETY: the thread has not been joined.
            unsafe { libc::pthread_kill(waiter.as_pthread_t(), libc::SIGUSR1) };
            thread::yield_now();
        }
        waiter.join().unwrap();
    }
}

fn open_fds() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Everything under way at once, on a listener whose clone and address come back.
fn busy_ring(listener: &TcpListener) -> (Uring, Vec<TcpStream>, io::PipeWriter) {
    let mut ring = Uring::new().unwrap();
    let id = ring.register_listener(listener.try_clone().unwrap().into()).unwrap();
    let mut clients = Vec::new();
    for number in 0..40 {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let stream = accept(&mut ring, id).stream;
        if number % 4 < 2 {
            ring.receive(stream);
        } else {
            ring.watch_hang_up(stream);
        }
        if number % 2 == 0 {
            let mut data = Outgoing::default();
            data.append(&vec![b'x'; 8 * 1024 * 1024]);
            ring.send(stream, data);
        }
        clients.push(client);
    }
    let (reader, writer) = io::pipe().unwrap();
    ring.watch(reader.as_raw_fd());
    ring.accept(id);
    submit(&mut ring);
    drop(reader);
    (ring, clients, writer)
}

#[test]
fn a_dropped_ring_leaves_no_fd_and_no_client_waiting() {
    if !alone() {
        return;
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let before = open_fds();
    let (ring, clients, writer) = busy_ring(&listener);
    assert!(open_fds() > before + 80);
    let start = Instant::now();
    drop(ring);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    for mut client in clients {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        // The end, or a reset when the client's window was full; a hang would be a time-out.
        if let Err(error) = client.read_to_end(&mut Vec::new()) {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
    }
    drop(writer);
    assert_eq!(open_fds(), before);
}

#[test]
fn a_dropped_ring_takes_no_further_connection() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    for _ in 0..20 {
        let (ring, _clients, _writer) = busy_ring(&listener);
        drop(ring);
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut other = Uring::new().unwrap();
        let id = other.register_listener(listener.try_clone().unwrap().into()).unwrap();
        other.try_accept(id);
        accepted(&mut other).expect("the client waits in the queue");
    }
}

#[test]
fn a_dropped_ring_frees_its_address_at_once() {
    // Alone: a child that another test starts has a copy of every fd until its exec.
    if !alone() {
        return;
    }
    // An address that nobody else uses: below the ports that the kernel gives to clients, which may
    // be taken on every address of the machine.
    let address = SocketAddr::from((Ipv4Addr::new(127, 77, 0, 1), 20_077));
    for _ in 0..30 {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&address.into()).expect("the ring before this one is gone");
        socket.listen(16).unwrap();
        let mut ring = Uring::new().unwrap();
        let id = ring.register_listener(OwnedFd::from(socket)).unwrap();
        ring.accept(id);
        submit(&mut ring);
    }
}

/// Nobody in particular: an unprivileged user whose locked memory no other process counts in.
const NOBODY: libc::uid_t = 64_987;

/// Become an unprivileged user who may lock `bytes` of memory. False when this is not root.
fn become_unprivileged(bytes: libc::rlim_t) -> bool {
    // SAFETY: plain system calls; this process runs one test alone.
    unsafe {
        if libc::geteuid() != 0 {
            assert!(env::var_os("NO_SKIP").is_none(), "expected root, to become another user");
            println!("skipped: only root can become another user");
            return false;
        }
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
        assert_eq!(libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit), 0);
        assert_eq!(libc::setresuid(NOBODY, NOBODY, NOBODY), 0);
    }
    true
}

#[test]
fn an_unprivileged_ring_fits_into_the_default_limit_of_locked_memory() {
    if alone() && become_unprivileged(8 * 1024 * 1024) {
        let mut ring = Uring::new().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"x").unwrap();
        ring.watch(reader.as_raw_fd());
        assert!(matches!(complete(&mut ring).as_slice(), [Completion::Readable { .. }]));
    }
}

#[test]
fn a_ring_that_may_not_lock_memory_says_which_limit_to_raise() {
    if alone() && become_unprivileged(16 * 1024) {
        let error: RingError = Uring::new().err().expect("a ring needs more than 16 KiB");
        let text = error.to_string();
        println!("{text}");
        assert!(text.contains("io_uring_setup failed: "), "{text}");
        assert!(text.contains("\n\nhint: ") && text.contains("LimitMEMLOCK="), "{text}");
    }
}
