//! The drain: a server that shares its listener with another one stops, and no client is lost.
//!
//! The protocol is that of `src/server/accept.rs`, run by the real [`Server`]: cancel the accept,
//! serve who came with it, sweep, leave when everybody who came is answered. The sweep is for the
//! client whose arrival woke this server: the kernel wakes nobody else for it, so that it would
//! wait for ever beside an idle sibling.
//!
//! [`fifty_thousand_clients_over_twenty_drains`] has processes of one ring each, and asks for a
//! whole answer each time; [`a_client_that_woke_the_leaving_server_is_not_stranded`] has the one
//! hard moment by itself; [`a_simulated_drain_serves_or_leaves_in_the_queue`] has all its orders of
//! events. The ignored tests are negative controls: the same without steps of the protocol, where
//! clients are lost (`cargo test --test drain -- --ignored control`).
//!
//! Each runtime drains; `RUNTIME` in the environment chooses one.
//!
//! Not here: what becomes of requests and idle connections in a drain (`simulation.rs`), and the
//! drain of a whole service (`systemd`).
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test panics, and tells its numbers"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{env, io, thread};

use granian_uring::config::Config;
use granian_uring::proactor::runtime::{Choice, Kind, Runtime, Wish};
use granian_uring::proactor::simulated::{Random, Sight, Simulated, World};
use granian_uring::proactor::uring::Uring;
use granian_uring::proactor::{ListenerId, Proactor};
use granian_uring::server::{Body, Event, RequestId, Server};
use socket2::SockRef;

/// A client without an answer for that long is lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// Threads that connect, one client after the other.
const CLIENT_THREADS: usize = 8;
/// A process that exits instead of draining: for the negative control.
const CARELESS: &str = "DRAIN_NOT_AT_ALL";
/// The runtime of a process: the name of one, or this.
const RUNTIME: &str = "DRAIN_ON";
const OLD_KERNEL: &str = "uring before Linux 6.10";

/// A server whose application answers every request with the target that was asked for.
struct Worker<P> {
    server: Server<P>,
    answered: usize,
    drained: bool,
}

impl<P: Proactor> Worker<P> {
    fn new(proactor: P, listener: OwnedFd) -> Self {
        let mut server = Server::new(proactor, Config::default());
        server.add_listener(listener).unwrap();
        server.start_accepting();
        Self { server, answered: 0, drained: false }
    }

    fn turn(&mut self, deadline: Option<Instant>) {
        self.server.turn(deadline).unwrap();
        while let Some(event) = self.server.next_event() {
            match event {
                Event::Request(request) => self.answer(request),
                Event::Drained => self.drained = true,
                event => panic!("{event:?}"),
            }
        }
    }

    fn answer(&mut self, request: RequestId) {
        // Without a request the client has lost its patience, and counts it itself.
        if let Some(asked) = self.server.take_request(request) {
            let target = asked.head.target();
            let length = target.len().to_string();
            let headers = [(b"content-length".as_slice(), length.as_bytes())];
            self.server.start_response(request, 200, headers.into_iter()).unwrap();
            self.server.send_body(request, Body::Copied(target), false).unwrap();
            self.answered += 1;
        }
        self.server.finish(request);
    }
}

fn ask(target: &str, connection: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: {connection}\r\n\r\n")
}

/// Read the answer to [`ask`], which must be whole; what follows it stays in the reader.
fn read_answer(reader: &mut impl BufRead, target: &str) -> io::Result<()> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let mut body = vec![0; target.len()];
    reader.read_exact(&mut body)?;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!(body, target.as_bytes(), "the answer to another request: {head}");
    Ok(())
}

/// The runtimes under test.
fn kinds() -> Vec<Kind> {
    let chosen = env::var("RUNTIME").unwrap_or_default();
    Kind::ALL.into_iter().filter(|kind| chosen.is_empty() || kind.name() == chosen).collect()
}

fn open(wish: Wish) -> Runtime {
    Choice::new(wish).unwrap().open().unwrap().0
}

fn old_ring() -> Uring {
    let mut ring = Uring::new().unwrap();
    ring.forget_accept_dontwait();
    ring
}

/// A worker process. Its listener is fd 0; fd 2 is the other end of [`Process::control`].
#[test]
#[ignore = "a process of the other tests"]
fn worker() {
    let listener = io::stdin().as_fd().try_clone_to_owned().unwrap();
    match env::var(RUNTIME).unwrap() {
        name if name == OLD_KERNEL => work(Worker::new(old_ring(), listener)),
        name => work(Worker::new(open(name.parse().unwrap()), listener)),
    }
}

fn work<P: Proactor>(mut worker: Worker<P>) {
    let mut control = UnixStream::from(io::stderr().as_fd().try_clone_to_owned().unwrap());
    worker.server.watch(control.as_raw_fd());
    worker.turn(Some(Instant::now()));
    writeln!(control, "ready").unwrap();
    while worker.server.take_watched().is_none() {
        worker.turn(None);
    }
    if env::var_os(CARELESS).is_some() {
        return;
    }
    let before = worker.answered;
    // After the flush an accept is armed for certain, and under load it still takes a client.
    worker.server.flush();
    worker.server.drain();
    while !worker.drained {
        worker.turn(None);
    }
    let Worker { server, answered, .. } = worker;
    drop(server);
    write!(control, "{answered} {}", answered - before).unwrap();
}

/// A worker process, seen from its parent. It stops when `control` is closed, so it does not
/// outlive the test.
struct Process {
    child: Child,
    control: BufReader<UnixStream>,
}

impl Process {
    fn start(listener: &TcpListener, environment: &[(&str, &str)]) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "worker", "--nocapture"]);
        command.envs(environment.iter().copied());
        command.stdin(OwnedFd::from(listener.try_clone().unwrap()));
        command.stdout(Stdio::null()).stderr(OwnedFd::from(theirs));
        let child = command.spawn().unwrap();
        let mut process = Self { child, control: BufReader::new(ours) };
        let mut line = String::new();
        process.control.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        process
    }

    /// Let it drain and exit; how many it answered, and how many of these while it drained.
    fn stop(mut self) -> [usize; 2] {
        self.control.get_ref().shutdown(Shutdown::Write).unwrap();
        let mut report = String::new();
        self.control.read_to_string(&mut report).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {report}");
        let mut numbers = report.split(' ').map(|number| number.parse().unwrap_or(0));
        [(); 2].map(|()| numbers.next().unwrap_or(0))
    }
}

/// One client: connect, ask, and have the answer. Every other one asks for the server's close too,
/// and must see it; the others close first.
fn call(port: u16, number: usize) -> io::Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    // A reset at the end leaves no port in TIME_WAIT.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let target = format!("/{number}");
    let connection = if number.is_multiple_of(2) { "close" } else { "keep-alive" };
    stream.write_all(ask(&target, connection).as_bytes())?;
    let mut reader = BufReader::new(stream);
    read_answer(&mut reader, &target)?;
    if connection == "close" {
        assert_eq!(reader.read(&mut [0])?, 0, "bytes behind the answer");
    }
    Ok(())
}

/// Let `clients` connect to two processes, of which one at a time drains and is replaced. Returns
/// the errors of the clients that were lost, and how many the processes say they have answered.
fn calls_over_drains(
    clients: usize,
    drains: usize,
    environment: &[(&str, &str)],
) -> (Vec<io::Error>, usize) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut processes = [(); 2].map(|()| Some(Process::start(&listener, environment)));
    let (started, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let mut totals = [0; 2];
    let mut add = |numbers: [usize; 2]| {
        for (total, number) in totals.iter_mut().zip(numbers) {
            *total += number;
        }
    };
    let lost = thread::scope(|scope| {
        let client = || {
            let mut lost = Vec::new();
            loop {
                let number = started.fetch_add(1, Ordering::Relaxed);
                if number >= clients {
                    return lost;
                }
                lost.extend(call(port, number).err());
                ended.fetch_add(1, Ordering::Release);
            }
        };
        let threads = [(); CLIENT_THREADS].map(|()| scope.spawn(client));
        for drain in 0..drains {
            // The drains are spread over the clients, all of them under load.
            while ended.load(Ordering::Acquire) < (drain + 1) * clients / (drains + 1) {
                thread::sleep(Duration::from_micros(200));
            }
            let process = &mut processes[drain % 2];
            add(process.take().unwrap().stop());
            *process = Some(Process::start(&listener, environment));
        }
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    for process in processes.into_iter().flatten() {
        add(process.stop());
    }
    let [answered, late] = totals;
    println!("{clients} clients, {drains} drains: {} lost", lost.len());
    println!("{answered} answered, {late} of them by a process that drained");
    (lost, answered)
}

fn assert_none_is_lost(clients: usize, drains: usize, runtime: &str) {
    println!("{runtime}");
    let (lost, answered) = calls_over_drains(clients, drains, &[(RUNTIME, runtime)]);
    assert!(lost.is_empty(), "{lost:?}");
    assert_eq!(answered, clients);
}

#[test]
fn fifty_thousand_clients_over_twenty_drains() {
    if kinds().contains(&Kind::Uring) {
        assert_none_is_lost(50_000, 20, Kind::Uring.name());
    }
}

#[test]
fn ten_thousand_clients_over_ten_drains_of_the_other_runtimes() {
    for kind in kinds().into_iter().filter(|kind| *kind != Kind::Uring) {
        assert_none_is_lost(10_000, 10, kind.name());
    }
}

#[test]
fn the_same_before_linux_6_10() {
    if kinds().contains(&Kind::Uring) {
        assert_none_is_lost(10_000, 10, OLD_KERNEL);
    }
}

#[test]
#[ignore = "negative control: shows that the tests above can fail"]
fn control_processes_that_exit_instead_of_draining_lose_clients() {
    for kind in kinds() {
        let environment = [(RUNTIME, kind.name()), (CARELESS, "1")];
        let (lost, _) = calls_over_drains(10_000, 10, &environment);
        assert!(!lost.is_empty(), "{kind:?}");
    }
}

/// A client that asks, and ends its side behind that: its connection is over with the answer.
fn connect_and_ask(listener: &TcpListener, target: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    stream.write_all(ask(target, "close").as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream.set_nonblocking(true).unwrap();
    BufReader::new(stream)
}

/// Two idle servers; a client comes and wakes the first, which is just about to leave. True when
/// the client is answered.
fn leave_when_woken<P: Proactor>(make: impl Fn() -> P, sweep: bool) -> bool {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut client = connect_and_ask(&listener, "/first");
    let [mut leaving, mut sibling] =
        [(); 2].map(|()| Worker::new(make(), listener.try_clone().unwrap().into()));
    // The first to wait is the first to be woken. A client before it makes both go through the
    // whole turn once, so that nothing but the accept is under way.
    while leaving.answered == 0 || leaving.server.census().connections > 0 {
        leaving.turn(Some(Instant::now() + PATIENCE));
    }
    read_answer(&mut client, "/first").unwrap();
    leaving.turn(Some(Instant::now()));
    sibling.turn(Some(Instant::now()));

    let mut client = connect_and_ask(&listener, "/second");
    leaving.server.drain();
    if sweep {
        let give_up = Instant::now() + PATIENCE;
        while !leaving.drained {
            assert!(Instant::now() < give_up, "the drain does not end");
            leaving.turn(Some(give_up));
        }
    } else {
        // The turn that cancels the accept; the next one would begin with the sweep.
        leaving.turn(Some(Instant::now() + PATIENCE));
    }
    drop(leaving);
    // A sibling that was woken for the client has it at once.
    let give_up = Instant::now() + Duration::from_millis(50);
    let mut result = read_answer(&mut client, "/second");
    while result.is_err() && Instant::now() < give_up {
        sibling.turn(Some(give_up));
        result = read_answer(&mut client, "/second");
    }
    result.is_ok()
}

#[test]
fn a_client_that_woke_the_leaving_server_is_not_stranded() {
    for round in 0..20 {
        for kind in kinds() {
            let answered = leave_when_woken(|| open(Wish::Exactly(kind)), true);
            assert!(answered, "round {round}, {kind:?}");
        }
        if kinds().contains(&Kind::Uring) {
            assert!(leave_when_woken(old_ring, true), "round {round}, {OLD_KERNEL}");
        }
    }
}

#[test]
#[ignore = "negative control: shows that the test above can fail"]
fn control_without_the_sweep_a_client_is_stranded() {
    for kind in kinds() {
        let make = || open(Wish::Exactly(kind));
        let stranded = (0..20).filter(|_| !leave_when_woken(make, false)).count();
        println!("{kind:?}: {stranded} of 20 stranded");
        assert!(stranded > 0);
    }
}

/// A client that is there when the drain begins is answered; one that comes later is too, or is
/// still in the queue for whoever comes next; and the drain ends.
#[test]
fn a_simulated_drain_serves_or_leaves_in_the_queue() {
    for seed in 1..=500 {
        println!("SEED={seed}");
        let proactor = Simulated::new(seed);
        let world = proactor.world();
        let mut worker = Worker::new(proactor, World::listening_socket());
        let listener = ListenerId(0);
        let mut random = Random::new(seed);
        let mut clients = Vec::new();
        let (begin, mut early) = (random.below(40), 0);
        for step in 0.. {
            assert!(step < 10_000, "the drain does not end");
            if step == begin {
                early = clients.len();
                worker.server.drain();
            }
            if clients.len() < 30 && random.one_in(3) {
                let client = world.connect(listener);
                world.client_send(client, ask(&format!("/{}", clients.len()), "close").as_bytes());
                world.client_shutdown(client);
                clients.push(client);
            }
            let deadline = worker.server.proactor().now() + Duration::from_millis(1);
            worker.turn(Some(deadline));
            if worker.drained {
                break;
            }
        }
        drop(worker);
        let served = clients.len() - world.waiting(listener);
        assert!(served >= early, "{early} were there when the drain began, {served} were served");
        for (number, client) in clients.into_iter().enumerate() {
            let bytes = world.client_receive(client, usize::MAX);
            let answered = read_answer(&mut bytes.as_slice(), &format!("/{number}")).is_ok();
            assert_eq!(answered, number < served, "client {number}, {served} were served");
            let sees = if answered { Sight::End } else { Sight::Open };
            assert_eq!(world.client_sees(client), sees);
        }
    }
}
