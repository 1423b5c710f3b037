//! The ring's side of the thread pool: requests become jobs, messages become output. Nothing here
//! touches a Python object, so all of it runs without the GIL, inside `select`.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use granian_uring::http1::BodyLength;
use granian_uring::proactor::runtime::Runtime;
use granian_uring::server::{Body, Event, Progress, Reading, RequestId, Server};

use super::exchange::{Exchange, Link};
use super::pool::{Answer, Job, Message, Piece, Pool};

/// For a job that nobody has taken for so long another idle thread is woken, and answers that were
/// given meanwhile are looked for.
const LOOK_AFTER: Duration = Duration::from_millis(1);
/// For one that waits for so long a thread is started. That is how long Python lets a thread keep
/// the GIL: below, a further one would find no time to work.
const START_AFTER: Duration = Duration::from_millis(5);
/// Copied pieces of at least this many bytes become a part of the output as they are.
const OWNED_PIECE_BYTES: usize = 16 * 1024;

/// What the ring keeps for the pool.
pub struct Ring {
    pool: Arc<Pool>,
    /// Those that wait for news of their connection.
    waiting: HashMap<RequestId, Arc<Exchange>>,
    /// For the next visit.
    jobs: Vec<Job>,
    messages: Vec<Message>,
    /// The bell is watched.
    armed: bool,
    /// When to look after jobs that nobody has taken.
    look: Option<Instant>,
    /// Threads that the last look asked for: the next one asks for twice as many.
    grown: usize,
    /// What Python has to know.
    notices: VecDeque<Event>,
}

impl Ring {
    pub fn new(pool: Arc<Pool>) -> Self {
        Self {
            pool,
            waiting: HashMap::new(),
            jobs: Vec::new(),
            messages: Vec::new(),
            armed: false,
            look: None,
            grown: 0,
            notices: VecDeque::new(),
        }
    }

    /// Somebody else watches the bell. Returns its fd.
    pub fn give_bell(&mut self) -> RawFd {
        self.armed = true;
        self.pool.bell()
    }

    /// Who watches the bell has heard it.
    pub fn silence(&self) {
        self.pool.silence();
    }

    /// Before the wait: how long it may last at the most.
    pub fn before_wait(
        &mut self,
        server: &mut Server<Runtime>,
        deadline: Option<Instant>,
    ) -> Option<Instant> {
        if !mem::replace(&mut self.armed, true) {
            server.watch(self.pool.bell());
        }
        if !self.lie_down() {
            return Some(Instant::now());
        }
        [deadline, self.look].into_iter().flatten().min()
    }

    /// From here on the bell rings for messages. False when there are some already.
    pub fn lie_down(&mut self) -> bool {
        self.pool.lie_down(self.look.is_some())
    }

    /// When to look after jobs.
    pub fn deadline(&self) -> Option<Instant> {
        self.look
    }

    /// A watched fd has become readable. True when it is the bell.
    pub fn hears(&mut self, fd: RawFd) -> bool {
        let bell = fd == self.pool.bell();
        if bell {
            self.armed = false;
            self.pool.silence();
        }
        bell
    }

    /// After the wait: hand over what came, and apply what the threads have given.
    pub fn after_wait(&mut self, server: &mut Server<Runtime>) {
        let now = Instant::now();
        while let Some(event) = server.next_event() {
            self.handle(server, event, now);
        }
        let visit = self.pool.visit(&mut self.jobs, &mut self.messages);
        let mut messages = mem::take(&mut self.messages);
        for message in messages.drain(..) {
            self.apply(server, message);
        }
        self.messages = messages;
        match visit.oldest {
            Some(oldest) if now.saturating_duration_since(oldest) >= LOOK_AFTER => {
                self.grown = (self.grown * 2).max(1);
                let waits = now.saturating_duration_since(oldest);
                self.pool.grow(self.grown, waits >= START_AFTER);
                self.look = Some(now + LOOK_AFTER);
            }
            Some(oldest) => {
                self.grown = 0;
                self.look = Some(oldest + LOOK_AFTER);
            }
            None => {
                self.grown = 0;
                self.look = None;
            }
        }
    }

    /// Whether Python has to know something.
    pub fn has_notices(&self) -> bool {
        !self.notices.is_empty()
    }

    /// The next thing that Python has to know.
    pub fn next_notice(&mut self) -> Option<Event> {
        self.notices.pop_front()
    }

    /// Release every thread that waits for news.
    pub fn close(&mut self) {
        for (_, exchange) in self.waiting.drain() {
            exchange.lose();
        }
        self.pool.close();
    }

    /// In a forked child.
    pub fn abandon(&self) {
        self.pool.abandon();
    }

    fn handle(&mut self, server: &mut Server<Runtime>, event: Event, now: Instant) {
        match event {
            Event::Request(id) => self.begin(server, id, now),
            Event::Readable(id) => {
                if let Some(exchange) = self.waiting.get(&id).cloned() {
                    Self::read(server, &exchange);
                }
            }
            Event::Writable(id) => {
                if let Some(exchange) = self.waiting.get(&id) {
                    match server.room(id) {
                        Ok(Progress::Ready) => exchange.make_room(),
                        Ok(Progress::Wait) => {}
                        Err(_) => exchange.lose(),
                    }
                }
            }
            notice => self.notices.push_back(notice),
        }
    }

    fn begin(&mut self, server: &mut Server<Runtime>, id: RequestId, since: Instant) {
        // Its client may have left while it waited in the queue.
        let Some(request) = server.take_request(id) else {
            server.finish(id);
            return;
        };
        let length = request.head.body_length();
        let has_body = !matches!(length, BodyLength::None | BodyLength::Length(0));
        let mut body = (Vec::new(), !has_body);
        // What has come with the head goes along. A client that waits to be asked for its body is
        // asked when the application reads.
        if has_body && !request.head.expects_continue() {
            match server.read_body(id) {
                Reading::Data { bytes, more } => body = (bytes, !more),
                Reading::Wait => {}
                Reading::Disconnected => {
                    server.finish(id);
                    return;
                }
            }
        }
        let link = Link::Threads(self.pool.clone());
        let exchange = Arc::new(Exchange::new(id, link, has_body, body.0, body.1));
        self.jobs.push(Job { request, exchange, since });
    }

    fn apply(&mut self, server: &mut Server<Runtime>, message: Message) {
        match message {
            Message::Answer(answer) => self.answer(server, answer),
            Message::Read(exchange) => {
                self.waiting.insert(exchange.id(), exchange.clone());
                Self::read(server, &exchange);
            }
            Message::GiveUp(exchange) => self.finish(server, exchange.id()),
        }
    }

    fn answer(&mut self, server: &mut Server<Runtime>, answer: Answer) {
        let Answer { exchange, head, piece, last } = answer;
        let id = exchange.id();
        let started = head
            .as_ref()
            .map_or(Ok(()), |head| server.start_response(id, head.status, head.fields()));
        let sent = started.and_then(|()| match piece {
            Piece::Copied(bytes) if bytes.len() < OWNED_PIECE_BYTES => {
                server.send_body(id, Body::Copied(&bytes), !last)
            }
            Piece::Copied(bytes) => server.send_body(id, Body::Shared(Box::new(bytes)), !last),
            Piece::File(range) => server.send_body(id, Body::File(range), !last),
            Piece::Shared(object) => server.send_body(id, Body::Shared(Box::new(object)), !last),
        });
        if last {
            return self.finish(server, id);
        }
        match sent {
            Ok(Progress::Ready) => exchange.make_room(),
            Ok(Progress::Wait) => {
                self.waiting.insert(id, exchange);
            }
            // What the codec could refuse was checked before.
            Err(_) => exchange.lose(),
        }
    }

    /// Read on until the application has enough ahead.
    fn read(server: &mut Server<Runtime>, exchange: &Exchange) {
        loop {
            match server.read_body(exchange.id()) {
                Reading::Data { bytes, more } => {
                    if !exchange.put_body(bytes, !more) {
                        return;
                    }
                }
                Reading::Wait => return,
                Reading::Disconnected => return exchange.lose(),
            }
        }
    }

    fn finish(&mut self, server: &mut Server<Runtime>, id: RequestId) {
        server.finish(id);
        if !self.waiting.is_empty() {
            self.waiting.remove(&id);
        }
    }
}
