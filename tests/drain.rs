//! The drain: a worker that shares its listener with another one stops, and no client is lost.
//!
//! To stop: arm no further accept; cancel the armed one; wait for its completion and serve the
//! connection that may come with it; then sweep with `try_accept` until nobody waits; leave when
//! everybody who came is served. The sweep is for the client whose arrival woke this worker: the
//! kernel wakes nobody else for it, so that it would wait for ever beside an idle sibling.
//!
//! [`fifty_thousand_clients_over_twenty_drains`] runs the protocol with processes that have one
//! ring each; [`a_client_that_woke_the_leaving_worker_is_not_stranded`] has the one hard moment by
//! itself. The ignored tests are their negative controls: the same without the protocol's steps,
//! where clients are lost (`cargo test --test drain -- --ignored control`).
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

use granian_uring::proactor::simulated::{Random, Sight, Simulated, World};
use granian_uring::proactor::uring::Uring;
use granian_uring::proactor::{Completion, ListenerId, Operation, Outgoing, Proactor, StreamId};
use socket2::SockRef;

/// A client without an answer for that long is lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// Threads that connect, one client after the other.
const CLIENT_THREADS: usize = 8;
/// A process that leaves out a step of the protocol: for the negative controls.
const CARELESS: &str = "DRAIN_WITHOUT_REAPING";
const OLD_KERNEL: &str = "DRAIN_WITHOUT_ACCEPT_DONTWAIT";

/// Where a worker is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    Cancelling,
    Sweeping,
    Swept,
}

/// A server of one byte: what a client sends comes back, and the connection is closed.
struct Worker<P> {
    proactor: P,
    listener: ListenerId,
    phase: Phase,
    accepting: bool,
    open: usize,
    served: usize,
    /// Connections that came with the cancelled accept, and with the sweep.
    late: usize,
    swept: usize,
}

impl<P: Proactor> Worker<P> {
    fn new(mut proactor: P, listener: OwnedFd) -> Self {
        let listener = proactor.register_listener(listener).unwrap();
        proactor.accept(listener);
        let phase = Phase::Serving;
        Self { proactor, listener, phase, accepting: true, open: 0, served: 0, late: 0, swept: 0 }
    }

    fn stop(&mut self) {
        assert_eq!(self.phase, Phase::Serving);
        self.phase = Phase::Cancelling;
        if self.accepting {
            self.proactor.cancel(Operation::Accept(self.listener));
        }
    }

    fn is_finished(&self) -> bool {
        self.phase == Phase::Swept && self.open == 0
    }

    /// True when a watched fd became readable.
    fn turn(&mut self, deadline: Option<Instant>) -> bool {
        let mut completions = Vec::new();
        self.proactor.wait(deadline, &mut completions).unwrap();
        let mut told = false;
        for completion in completions {
            match completion {
                Completion::Accepted { result, .. } => self.accepted(result.map(|it| it.stream)),
                Completion::Received { stream, result } => match result {
                    Ok(lease) if lease.length() > 0 => {
                        let mut data = Outgoing::default();
                        data.append(self.proactor.bytes(&lease));
                        self.proactor.send(stream, data);
                    }
                    _ => self.proactor.close(stream),
                },
                Completion::Sent { stream, result, .. } => {
                    self.served += usize::from(result.is_ok());
                    self.proactor.close(stream);
                }
                Completion::Closed { .. } => self.open -= 1,
                Completion::HungUp { .. } => unreachable!("no watch was armed"),
                Completion::Readable { .. } => told = true,
            }
        }
        if !self.accepting {
            self.accept_again();
        }
        told
    }

    fn accepted(&mut self, result: io::Result<StreamId>) {
        self.accepting = false;
        match result {
            Ok(stream) => {
                self.open += 1;
                self.late += usize::from(self.phase == Phase::Cancelling);
                self.swept += usize::from(self.phase == Phase::Sweeping);
                self.proactor.receive(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.phase = Phase::Swept,
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ECANCELED), "{error}"),
        }
    }

    fn accept_again(&mut self) {
        match self.phase {
            Phase::Serving => self.proactor.accept(self.listener),
            Phase::Cancelling | Phase::Sweeping => {
                self.phase = Phase::Sweeping;
                self.proactor.try_accept(self.listener);
            }
            Phase::Swept => return,
        }
        self.accepting = true;
    }
}

fn ring() -> Uring {
    let mut ring = Uring::new().unwrap();
    if env::var_os(OLD_KERNEL).is_some() {
        ring.forget_accept_dontwait();
    }
    ring
}

/// A worker process. Its listener is fd 0; fd 2 is the other end of [`Process::control`].
#[test]
#[ignore = "a process of the other tests"]
fn worker() {
    let mut control = UnixStream::from(io::stderr().as_fd().try_clone_to_owned().unwrap());
    let listener = io::stdin().as_fd().try_clone_to_owned().unwrap();
    let mut worker = Worker::new(ring(), listener);
    worker.proactor.watch(control.as_raw_fd());
    worker.turn(Some(Instant::now()));
    writeln!(control, "ready").unwrap();
    while !worker.turn(None) {}
    if env::var_os(CARELESS).is_some() {
        return;
    }
    worker.stop();
    while !worker.is_finished() {
        worker.turn(None);
    }
    let Worker { served, late, swept, proactor, .. } = worker;
    drop(proactor);
    write!(control, "{served} {late} {swept}").unwrap();
}

/// A worker process, seen from its parent. It stops when `control` is closed, so it does not
/// outlive the test.
struct Process {
    child: Child,
    control: BufReader<UnixStream>,
}

impl Process {
    fn start(listener: &TcpListener, switch: Option<&str>) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "worker", "--nocapture"]);
        command.envs(switch.map(|name| (name, "1")));
        command.stdin(OwnedFd::from(listener.try_clone().unwrap()));
        command.stdout(Stdio::null()).stderr(OwnedFd::from(theirs));
        let child = command.spawn().unwrap();
        let mut process = Self { child, control: BufReader::new(ours) };
        let mut line = String::new();
        process.control.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        process
    }

    /// Let it drain and exit; how many it served, and of these came late and by the sweep.
    fn stop(mut self) -> [usize; 3] {
        self.control.get_ref().shutdown(Shutdown::Write).unwrap();
        let mut report = String::new();
        self.control.read_to_string(&mut report).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {report}");
        let mut numbers = report.split(' ').map(|number| number.parse().unwrap_or(0));
        [(); 3].map(|()| numbers.next().unwrap_or(0))
    }
}

/// One client: connect, send a byte, and have it back.
fn call(port: u16, number: usize) -> io::Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    // A reset at the end leaves no port in TIME_WAIT.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let byte = [u8::try_from(number % 251).unwrap()];
    stream.write_all(&byte)?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    assert_eq!(answer, byte);
    Ok(())
}

/// Let `clients` connect to two processes, of which one at a time drains and is replaced. Returns
/// the errors of the clients that were lost, and how many the processes say they have served.
fn calls_over_drains(
    clients: usize,
    drains: usize,
    switch: Option<&str>,
) -> (Vec<io::Error>, usize) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut processes = [(); 2].map(|()| Some(Process::start(&listener, switch)));
    let (started, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let mut totals = [0; 3];
    let mut add = |numbers: [usize; 3]| {
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
            *process = Some(Process::start(&listener, switch));
        }
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    for process in processes.into_iter().flatten() {
        add(process.stop());
    }
    let [served, late, swept] = totals;
    println!("{clients} clients, {drains} drains: {} lost, {served} served", lost.len());
    println!("{late} came with a cancelled accept, {swept} by a sweep");
    (lost, served)
}

#[test]
fn fifty_thousand_clients_over_twenty_drains() {
    let (lost, served) = calls_over_drains(50_000, 20, None);
    assert!(lost.is_empty(), "{lost:?}");
    assert_eq!(served, 50_000);
}

#[test]
fn the_same_before_linux_6_10() {
    let (lost, served) = calls_over_drains(10_000, 10, Some(OLD_KERNEL));
    assert!(lost.is_empty(), "{lost:?}");
    assert_eq!(served, 10_000);
}

#[test]
#[ignore = "negative control: shows that the tests above can fail"]
fn control_workers_that_exit_with_an_armed_accept_lose_clients() {
    let (lost, _) = calls_over_drains(10_000, 10, Some(CARELESS));
    assert!(!lost.is_empty());
}

/// Two idle workers; a client comes and wakes the first, which is just about to leave. True when
/// the client is answered.
fn leave_when_woken(dontwait: bool, sweep: bool) -> bool {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let [mut leaving, mut sibling] = [(); 2].map(|()| {
        let mut ring = Uring::new().unwrap();
        if !dontwait {
            ring.forget_accept_dontwait();
        }
        Worker::new(ring, listener.try_clone().unwrap().into())
    });
    // The first to wait is the first to be woken. A client before it makes both go through the
    // whole turn once, so that nothing but the accept is under way.
    client.write_all(b"1").unwrap();
    while leaving.served == 0 || leaving.open > 0 {
        leaving.turn(Some(Instant::now() + PATIENCE));
    }
    leaving.turn(Some(Instant::now()));
    sibling.turn(Some(Instant::now()));

    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.write_all(b"2").unwrap();
    leaving.stop();
    if !sweep {
        leaving.turn(Some(Instant::now() + PATIENCE));
        leaving.phase = Phase::Swept;
    }
    let give_up = Instant::now() + PATIENCE;
    while !leaving.is_finished() && Instant::now() < give_up {
        leaving.turn(Some(Instant::now() + Duration::from_millis(1)));
    }
    drop(leaving);
    let give_up = Instant::now() + Duration::from_millis(50);
    while Instant::now() < give_up {
        sibling.turn(Some(give_up));
    }
    client.set_nonblocking(true).unwrap();
    client.read(&mut [0]).is_ok_and(|length| length == 1)
}

#[test]
fn a_client_that_woke_the_leaving_worker_is_not_stranded() {
    for dontwait in [true, false] {
        for round in 0..20 {
            assert!(leave_when_woken(dontwait, true), "round {round}, dontwait: {dontwait}");
        }
    }
}

#[test]
#[ignore = "negative control: shows that the test above can fail"]
fn control_without_the_sweep_a_client_is_stranded() {
    let stranded = (0..20).filter(|_| !leave_when_woken(true, false)).count();
    println!("{stranded} of 20 stranded");
    assert!(stranded > 0);
}

/// A client that arrives at any moment of a drain is served, or still in the queue for whoever
/// comes next; and the drain ends.
#[test]
fn a_simulated_drain_serves_or_leaves_in_the_queue() {
    for seed in 1..=500 {
        println!("SEED={seed}");
        let proactor = Simulated::new(seed);
        let world = proactor.world();
        let mut worker = Worker::new(proactor, World::listening_socket());
        let listener = worker.listener;
        let mut random = Random::new(seed);
        let mut clients = Vec::new();
        let stop = random.below(40);
        for step in 0.. {
            assert!(step < 10_000, "the drain does not end");
            if step == stop {
                worker.stop();
            }
            if clients.len() < 30 && random.one_in(3) {
                let client = world.connect(listener);
                world.client_send(client, b"x");
                clients.push(client);
            }
            let deadline = worker.proactor.now() + Duration::from_millis(1);
            worker.turn(Some(deadline));
            if worker.is_finished() {
                break;
            }
        }
        let waiting = world.waiting(listener);
        drop(worker);
        let served = clients.len() - waiting;
        for (number, client) in clients.into_iter().enumerate() {
            let answered = world.client_receive(client, usize::MAX) == b"x";
            assert_eq!(answered, number < served, "client {number} of {served} + {waiting}");
            let sees = if answered { Sight::End } else { Sight::Open };
            assert_eq!(world.client_sees(client), sees);
        }
    }
}
