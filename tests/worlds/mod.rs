//! The two sides of a proactor under test, for each kind of proactor: the proactor itself, and
//! clients that the test drives by hand.
//!
//! [`on_every_world`] runs one law on every implementation with TCP and with Unix sockets, and on
//! the simulator with several seeds. [`Rig`] turns completions into [`Event`]s that own their bytes.

mod random;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use granian_uring::proactor::hosted::monoio::{Epoll, Monoio};
use granian_uring::proactor::hosted::tokio_uring::TokioUring;
use granian_uring::proactor::simulated::{self, Simulated};
use granian_uring::proactor::uring::Uring;
use granian_uring::proactor::{Accepted, Completion, ListenerId, Outgoing, Proactor, StreamId};
use socket2::{Domain, SockAddr, Socket, Type};

/// What never takes long fails the test after this.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long "nothing happens" is watched. On the simulator it is virtual.
const QUIET: Duration = Duration::from_millis(30);

/// So few that a turn with many receives runs out of them.
const FEW_BUFFERS: u16 = 3;

/// What a client finds when it reads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Bytes(Vec<u8>),
    Nothing,
    End,
    Reset,
}

/// A proactor and the clients on its other side.
pub(crate) trait World {
    fn proactor(&mut self) -> &mut dyn Proactor;
    /// More bytes than a connection holds whose client does not read.
    fn huge(&self) -> usize;
    fn listen(&mut self) -> ListenerId;
    /// A client; it is numbered.
    fn connect(&mut self, listener: ListenerId) -> usize;
    fn client_send(&mut self, client: usize, bytes: &[u8]);
    fn client_read(&mut self, client: usize) -> Heard;
    fn client_shutdown(&mut self, client: usize);
    fn client_reset(&mut self, client: usize);
    fn client_close(&mut self, client: usize);
    /// An fd for `Proactor::watch`, not readable yet.
    fn watchable(&mut self) -> RawFd;
    fn make_readable(&mut self, fd: RawFd);
    fn make_unreadable(&mut self, fd: RawFd);
    /// Whether an fd, the wake fd among them, is readable now.
    fn is_readable(&self, fd: RawFd) -> bool;
}

/// A proactor on the kernel, and real sockets.
pub(crate) struct Kernel {
    proactor: Box<dyn Proactor>,
    domain: Domain,
    addresses: Vec<SockAddr>,
    clients: Vec<Option<Socket>>,
    pipes: Vec<(io::PipeReader, io::PipeWriter)>,
}

impl Kernel {
    fn new(domain: Domain, proactor: Box<dyn Proactor>) -> Self {
        Self { proactor, domain, addresses: Vec::new(), clients: Vec::new(), pipes: Vec::new() }
    }

    fn client(&self, client: usize) -> &Socket {
        self.clients[client].as_ref().unwrap()
    }

    fn pipe(&mut self, fd: RawFd) -> &mut (io::PipeReader, io::PipeWriter) {
        self.pipes.iter_mut().find(|pipe| pipe.0.as_raw_fd() == fd).unwrap()
    }
}

/// A listener on a free loopback port, or on an abstract name that the kernel chooses.
pub(crate) fn listening_socket(domain: Domain) -> Socket {
    let socket = Socket::new(domain, Type::STREAM, None).unwrap();
    let address = if domain == Domain::UNIX {
        // unix(7), autobind: an address without a name makes the kernel choose an abstract one.
        SockAddr::unix("").unwrap()
    } else {
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()
    };
    socket.bind(&address).unwrap();
    socket.listen(4096).unwrap();
    socket
}

impl World for Kernel {
    fn proactor(&mut self) -> &mut dyn Proactor {
        &mut *self.proactor
    }

    fn huge(&self) -> usize {
        16 * 1024 * 1024
    }

    fn listen(&mut self) -> ListenerId {
        let socket = listening_socket(self.domain);
        self.addresses.push(socket.local_addr().unwrap());
        self.proactor.register_listener(OwnedFd::from(socket)).unwrap()
    }

    fn connect(&mut self, listener: ListenerId) -> usize {
        let socket = Socket::new(self.domain, Type::STREAM, None).unwrap();
        socket.connect(&self.addresses[listener.0 as usize]).unwrap();
        socket.set_nonblocking(true).unwrap();
        self.clients.push(Some(socket));
        self.clients.len() - 1
    }

    fn client_send(&mut self, client: usize, bytes: &[u8]) {
        assert_eq!(self.client(client).send(bytes).unwrap(), bytes.len());
    }

    fn client_read(&mut self, client: usize) -> Heard {
        let mut bytes = vec![0; 64 * 1024];
        let mut socket = self.client(client);
        match socket.read(&mut bytes) {
            Ok(0) => Heard::End,
            Ok(length) => {
                bytes.truncate(length);
                Heard::Bytes(bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Heard::Nothing,
            Err(_) => Heard::Reset,
        }
    }

    fn client_shutdown(&mut self, client: usize) {
        self.client(client).shutdown(Shutdown::Write).unwrap();
    }

    fn client_reset(&mut self, client: usize) {
        if self.domain != Domain::UNIX {
            self.client(client).set_linger(Some(Duration::ZERO)).unwrap();
        }
        self.clients[client] = None;
    }

    fn client_close(&mut self, client: usize) {
        self.clients[client] = None;
    }

    fn watchable(&mut self) -> RawFd {
        self.pipes.push(io::pipe().unwrap());
        self.pipes.last().unwrap().0.as_raw_fd()
    }

    fn make_readable(&mut self, fd: RawFd) {
        self.pipe(fd).1.write_all(b"!").unwrap();
    }

    fn make_unreadable(&mut self, fd: RawFd) {
        self.pipe(fd).0.read_exact(&mut [0]).unwrap();
    }

    fn is_readable(&self, fd: RawFd) -> bool {
        let mut polled = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, which outlives the call.
        unsafe { libc::poll(&raw mut polled, 1, 0) == 1 }
    }
}

/// The simulator.
struct Pretended {
    proactor: Simulated,
    world: simulated::World,
    watchable: RawFd,
}

impl World for Pretended {
    fn proactor(&mut self) -> &mut dyn Proactor {
        &mut self.proactor
    }

    fn huge(&self) -> usize {
        64 * 1024
    }

    fn listen(&mut self) -> ListenerId {
        self.proactor.register_listener(simulated::World::listening_socket()).unwrap()
    }

    fn connect(&mut self, listener: ListenerId) -> usize {
        self.world.connect(listener).0
    }

    fn client_send(&mut self, client: usize, bytes: &[u8]) {
        self.world.client_send(simulated::ClientId(client), bytes);
    }

    fn client_read(&mut self, client: usize) -> Heard {
        let client = simulated::ClientId(client);
        let bytes = self.world.client_receive(client, usize::MAX);
        match self.world.client_sees(client) {
            _ if !bytes.is_empty() => Heard::Bytes(bytes),
            simulated::Sight::Open => Heard::Nothing,
            simulated::Sight::End => Heard::End,
            simulated::Sight::Reset => Heard::Reset,
        }
    }

    fn client_shutdown(&mut self, client: usize) {
        self.world.client_shutdown(simulated::ClientId(client));
    }

    fn client_reset(&mut self, client: usize) {
        self.world.client_reset(simulated::ClientId(client));
    }

    fn client_close(&mut self, client: usize) {
        self.world.client_close(simulated::ClientId(client));
    }

    fn watchable(&mut self) -> RawFd {
        self.watchable += 1;
        self.watchable
    }

    fn make_readable(&mut self, fd: RawFd) {
        self.world.make_readable(fd);
    }

    fn make_unreadable(&mut self, fd: RawFd) {
        self.world.make_unreadable(fd);
    }

    fn is_readable(&self, fd: RawFd) -> bool {
        self.world.is_readable(fd)
    }
}

/// The name of a runtime, and how it is made.
type Named = (&'static str, fn() -> Box<dyn Proactor>);

/// Every proactor on the kernel, as it is and with few buffers and without newer features.
pub(crate) fn proactors() -> Vec<Named> {
    let all: Vec<Named> = vec![
        ("uring", || Box::new(Uring::new().unwrap())),
        ("uring, few buffers, no IORING_ACCEPT_DONTWAIT", || {
            let mut ring = Uring::with_buffers(FEW_BUFFERS).unwrap();
            ring.forget_accept_dontwait();
            Box::new(ring)
        }),
        ("monoio", || Box::new(Monoio::new().unwrap())),
        ("monoio, few buffers", || Box::new(Monoio::with_buffers(FEW_BUFFERS).unwrap())),
        ("epoll", || Box::new(Epoll::new().unwrap())),
        ("epoll, few buffers", || Box::new(Epoll::with_buffers(FEW_BUFFERS).unwrap())),
        ("tokio-uring", || Box::new(TokioUring::new().unwrap())),
        ("tokio-uring, few buffers", || Box::new(TokioUring::with_buffers(FEW_BUFFERS).unwrap())),
    ];
    let chosen = std::env::var("RUNTIME").unwrap_or_default();
    all.into_iter().filter(|(name, _)| name.starts_with(&chosen)).collect()
}

/// Run `law` on every proactor. `RUNTIME` in the environment chooses one on the kernel, `SEED`
/// replays one seed of the simulator.
pub(crate) fn on_every_world(law: impl Fn(&mut Rig)) {
    for (name, make) in proactors() {
        for domain in [Domain::IPV4, Domain::UNIX] {
            println!("{name} with {domain:?}");
            law(&mut Rig::new(Box::new(Kernel::new(domain, make()))));
        }
    }
    let replayed = std::env::var("SEED").ok().map(|seed| seed.parse().unwrap());
    for seed in replayed.map_or(1..=64, |seed: u64| seed..=seed) {
        println!("simulated with SEED={seed}");
        let proactor = Simulated::new(seed);
        let world = proactor.world();
        law(&mut Rig::new(Box::new(Pretended { proactor, world, watchable: 100 })));
    }
}

/// A completion that owns what it brings.
#[derive(Debug)]
pub(crate) enum Event {
    Accepted(ListenerId, io::Result<Accepted>),
    Received(StreamId, io::Result<Vec<u8>>),
    Sent(StreamId, io::Result<()>, usize),
    HungUp(StreamId, io::Result<()>),
    Closed(StreamId),
    Readable(RawFd),
}

/// A world, and the events of its proactor that the test has not looked at yet.
pub(crate) struct Rig {
    pub(crate) world: Box<dyn World>,
    arrived: VecDeque<Event>,
}

impl Rig {
    fn new(world: Box<dyn World>) -> Self {
        Self { world, arrived: VecDeque::new() }
    }

    pub(crate) fn proactor(&mut self) -> &mut dyn Proactor {
        self.world.proactor()
    }

    /// One `wait`; returns how many completions it delivered.
    pub(crate) fn turn(&mut self, patience: Duration) -> usize {
        let proactor = self.world.proactor();
        let mut completions = Vec::new();
        let deadline = proactor.now() + patience;
        proactor.wait(Some(deadline), &mut completions).unwrap();
        let delivered = completions.len();
        for completion in completions {
            self.arrived.push_back(match completion {
                Completion::Accepted { listener, result } => Event::Accepted(listener, result),
                Completion::Received { stream, result } => Event::Received(
                    stream,
                    result.map(|lease| {
                        assert_eq!(proactor.bytes(&lease).len(), lease.length());
                        proactor.bytes(&lease).to_vec()
                    }),
                ),
                Completion::Sent { stream, result, data } => {
                    Event::Sent(stream, result, data.length())
                }
                Completion::HungUp { stream, result } => Event::HungUp(stream, result),
                Completion::Closed { stream } => Event::Closed(stream),
                Completion::Readable { fd } => Event::Readable(fd),
            });
        }
        delivered
    }

    /// The next event.
    pub(crate) fn next(&mut self) -> Event {
        let give_up = self.proactor().now() + PATIENCE;
        loop {
            if let Some(event) = self.arrived.pop_front() {
                return event;
            }
            assert!(self.proactor().now() < give_up, "nothing completed");
            self.turn(PATIENCE);
        }
    }

    /// The next event, as a loop of another kind comes by it: by turns that do not wait, and only
    /// when the wake fd is readable.
    pub(crate) fn next_when_woken(&mut self, wake: RawFd) -> Event {
        let give_up = Instant::now() + PATIENCE;
        loop {
            if let Some(event) = self.arrived.pop_front() {
                return event;
            }
            assert!(Instant::now() < give_up, "the wake fd tells nothing");
            if self.world.is_readable(wake) {
                self.turn(Duration::ZERO);
            }
        }
    }

    /// Assert that the wake fd falls silent after a bounded number of turns, and stays so.
    pub(crate) fn assert_not_woken(&mut self, wake: RawFd) {
        assert!(self.arrived.is_empty(), "{:?}", self.arrived);
        for _ in 0..50 {
            if !self.world.is_readable(wake) {
                break;
            }
            self.turn(Duration::ZERO);
        }
        assert!(!self.world.is_readable(wake), "the wake fd tells of nothing");
        assert!(self.arrived.is_empty(), "{:?}", self.arrived);
    }

    /// An event that is there already.
    pub(crate) fn arrived(&mut self) -> Option<Event> {
        self.arrived.pop_front()
    }

    /// Assert that nothing completes any more, and that the proactor rests.
    pub(crate) fn assert_quiet(&mut self) {
        assert!(self.arrived.is_empty(), "{:?}", self.arrived);
        let until = self.proactor().now() + QUIET;
        let mut turns = 0;
        while self.proactor().now() < until {
            self.turn(QUIET);
            assert!(self.arrived.is_empty(), "{:?}", self.arrived);
            turns += 1;
        }
        // It may wake for itself now and then, but not over and over again.
        assert!(turns < 50, "{turns} turns without a completion");
    }

    /// The next event, which must be an accept's.
    pub(crate) fn accepted(&mut self) -> io::Result<Accepted> {
        match self.next() {
            Event::Accepted(_, result) => result,
            other => panic!("expected Accepted, found {other:?}"),
        }
    }

    /// The next event, which must be a receive's.
    pub(crate) fn received(&mut self) -> (StreamId, io::Result<Vec<u8>>) {
        match self.next() {
            Event::Received(stream, result) => (stream, result),
            other => panic!("expected Received, found {other:?}"),
        }
    }

    /// The next event, which must be a send's.
    pub(crate) fn sent(&mut self) -> io::Result<()> {
        match self.next() {
            Event::Sent(_, result, _) => result,
            other => panic!("expected Sent, found {other:?}"),
        }
    }

    /// The next event, which must be a hang-up watch's.
    pub(crate) fn hung_up(&mut self) -> io::Result<()> {
        match self.next() {
            Event::HungUp(_, result) => result,
            other => panic!("expected HungUp, found {other:?}"),
        }
    }

    /// A client and its stream.
    pub(crate) fn connection(&mut self, listener: ListenerId) -> (usize, StreamId) {
        let client = self.world.connect(listener);
        self.proactor().accept(listener);
        (client, self.accepted().unwrap().stream)
    }

    /// Send a copy of `bytes`.
    pub(crate) fn send(&mut self, stream: StreamId, bytes: &[u8]) {
        let mut data = Outgoing::default();
        data.append(bytes);
        self.proactor().send(stream, data);
    }

    /// Close and await it.
    pub(crate) fn close(&mut self, stream: StreamId) {
        self.proactor().close(stream);
        match self.next() {
            Event::Closed(closed) => assert_eq!(closed, stream),
            other => panic!("expected Closed, found {other:?}"),
        }
    }
}

/// True for the error of a cancelled operation.
pub(crate) fn is_cancelled<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.raw_os_error() == Some(libc::ECANCELED))
}
