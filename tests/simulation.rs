//! The whole server in a simulated world: one seed decides about clients, application and faults.
//!
//! Clients send what a plan says (pipelined, cut at random points, half-closed, broken off); the
//! application answers as a script says (whole, in pieces, slowly, wrongly, not at all). Both live
//! in virtual time, so that every timeout of the server is reached. Afterwards each client's bytes
//! are read by a strict parser and compared with what the application gave out.
//!
//! `make sim SEED=7` replays a seed and tells what happens; `make sim SEED=0 SEEDS=100000` tries
//! that many. Not here: system calls (`uring.rs`), bytes of the protocol (`http1_corpus.rs`).
#![allow(unsafe_code, reason = "a payload for sends is an unsafe trait")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test panics, and tells its seed")]

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use granian_uring::access_log::{AccessLog, Format, Lines};
use granian_uring::config::{Config, Overload, Timeouts};
use granian_uring::http1::Limits;
use granian_uring::proactor::simulated::{ClientId, Random, Sight, Simulated, World};
use granian_uring::proactor::{ListenerId, Payload, Proactor, StreamId};
use granian_uring::server::{Body, Event, Left, Progress, Reading, RequestId, SendError, Server};

/// Seeds of an ordinary run.
const SEEDS: u64 = 2000;
/// A seed that needs more turns than this spins, or hangs.
const TURNS: usize = 100_000;
/// Turns in a row in which nothing happens: early returns of `wait` are rarer.
const IDLE_TURNS: usize = 50;
/// Nothing may wait longer than this: more than all timeouts that can follow one another.
const PATIENCE: Duration = Duration::from_secs(30);
const LISTENERS: u32 = 2;
/// What the application sends at once at the most, and what the server may hold of it: as much again
/// as it takes before a sender has to wait.
const PIECE_BYTES: usize = 90_000;
const OUTPUT_BYTES: usize = 64 * 1024 + PIECE_BYTES + 1000;
/// What one receive brings.
const RECEIVE_BYTES: usize = 2048;
const ACCESS_FORMAT: &str = "%(connection)d %(connection_requests)d %(target)s %(status)d \
                             %(completion)s %(body_bytes)d";

/// Far above what a well-behaved client needs, so that no timeout hits one by chance; the clock is
/// virtual, so they cost nothing.
fn timeouts() -> Timeouts {
    Timeouts {
        first_byte: Duration::from_secs(3),
        head: Duration::from_secs(3),
        keep_alive: Duration::from_secs(5),
        body: Duration::from_secs(4),
        write: Duration::from_secs(4),
        linger: Duration::from_secs(2),
        body_min_rate: 240,
        request: None,
        half_close: Duration::from_secs(1),
        close_frame: Duration::from_secs(1),
        drain_idle: Duration::from_millis(100),
        drain_first: Duration::from_secs(1),
        drain_write: Duration::from_secs(1),
        drain_linger: Duration::from_millis(1500),
    }
}

/// Any of the settings may be tight.
fn config(random: &mut Random) -> Config {
    let small = |random: &mut Random, usual: usize| {
        if random.one_in(4) { between(random, 1, 3) } else { usual }
    };
    let mut timeouts = timeouts();
    timeouts.request = random.one_in(6).then_some(Duration::from_millis(1500));
    let limits = Limits {
        body_bytes: random.one_in(6).then_some(1500),
        head_bytes: if random.one_in(4) { 400 } else { Limits::default().head_bytes },
        ..Limits::default()
    };
    Config {
        backpressure: small(random, 1000),
        overload: if random.one_in(3) { Overload::Refuse } else { Overload::Wait },
        max_connections: small(random, 1000),
        keep_alive: !random.one_in(10),
        pipeline_depth: small(random, 16),
        limits,
        timeouts,
        ..Config::default()
    }
}

fn between(random: &mut Random, low: usize, high: usize) -> usize {
    low + random.below(high - low + 1)
}

fn milliseconds(number: usize) -> Duration {
    Duration::from_millis(number as u64)
}

/// Bytes that tell whose they are and where.
fn pattern(owner: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| b'a' + u8::try_from((at / 7 + at + owner * 5) % 26).unwrap()).collect()
}

struct Bytes(Vec<u8>);

// SAFETY: the vector is never changed, so its memory stays where it is until the drop.
unsafe impl Payload for Bytes {
    fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

// What happens: plans, made before the world begins.

/// What the application does with a request, one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Read the body to its end.
    ReadAll,
    /// Read once.
    ReadOnce,
    /// Wait for the client's going, but not for ever.
    AwaitDisconnect,
    Sleep(usize),
    Start {
        declared: Option<usize>,
    },
    Send {
        length: usize,
        more: bool,
    },
}

/// One request and what becomes of it.
struct Plan {
    method: &'static str,
    body: Vec<u8>,
    wire: Vec<u8>,
    script: Vec<Step>,
    /// When the client has sent all of it.
    sent_at: Option<Instant>,
    /// The server had ended its side by then.
    too_late: bool,
    outcome: Option<Outcome>,
    /// How its client was left when it had taken too long.
    timed_out: Option<Left>,
    /// What the application gave out.
    given: usize,
    /// Whether the answer has to say that the connection closes, once its head is given out.
    closes: Option<bool>,
}

impl Plan {
    fn is_chunked(&self) -> bool {
        self.wire.windows(9).any(|part| part == b": chunked")
    }

    fn is_longer_than(&self, most: Option<u64>) -> bool {
        most.is_some_and(|most| self.body.len() as u64 > most)
    }

    fn is_refused_by_its_head(&self, most: Option<u64>) -> bool {
        self.is_longer_than(most) && !self.is_chunked()
    }
}

/// How the application and the server left a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Whole,
    Refused,
    Aborted,
    /// The peer was gone before the answer was whole.
    Gone,
}

#[derive(Clone, Debug)]
enum Action {
    Send(Vec<u8>),
    /// All of this request is sent.
    Complete(usize),
    Sleep(usize),
    /// Wait for that many answers.
    Await(usize),
    Shutdown,
    Close,
    Reset,
}

/// What follows the last request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    Nothing,
    Garbage,
    PartialHead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    Fast,
    /// Reads a little, often enough for every timeout.
    Slow,
    Never,
}

fn answer_script(random: &mut Random) -> Vec<Step> {
    let length = |random: &mut Random| match random.below(40) {
        0 => between(random, 60_000, PIECE_BYTES),
        1..=6 => between(random, 3000, 12_000),
        7..=10 => 0,
        _ => random.below(300),
    };
    let style = random.below(16);
    let mut pieces: Vec<usize> = (0..between(random, 1, 5)).map(|_| length(random)).collect();
    let total: usize = pieces.iter().sum();
    let declared = match style {
        0..=5 | 12 => None,
        6..=8 => Some(total),
        9 => Some(total + 3),
        10 => Some(total.saturating_sub(2)),
        11 => return Vec::new(),
        13 => return vec![Step::Sleep(3000)],
        _ => {
            pieces.truncate(1);
            None
        }
    };
    let mut script = vec![Step::Start { declared }];
    let slow = random.one_in(4);
    let last = pieces.len() - 1;
    for (index, &length) in pieces.iter().enumerate() {
        // Style 12 returns in the middle of its answer.
        let more = index < last || style == 12;
        script.push(Step::Send { length, more });
        if slow && more {
            script.push(Step::Sleep(between(random, 1, 1500)));
        }
    }
    script
}

fn script(random: &mut Random) -> Vec<Step> {
    let mut script = match random.below(8) {
        0..=2 => Vec::new(),
        3 | 4 => vec![Step::ReadAll],
        5 => vec![Step::ReadOnce],
        6 => vec![Step::ReadAll, Step::AwaitDisconnect],
        _ => vec![Step::Sleep(between(random, 1, 400)), Step::ReadAll],
    };
    if random.one_in(6) {
        script.push(Step::Sleep(between(random, 1, 2000)));
    }
    let answer = answer_script(random);
    let early = script.contains(&Step::ReadAll) && random.one_in(5) && answer.len() > 2;
    if early {
        // The answer begins before the body is read.
        script.splice(0..0, answer[..2].iter().copied());
        script.extend(&answer[2..]);
    } else {
        script.extend(answer);
    }
    if random.one_in(16) {
        script.push(Step::Sleep(500));
    }
    script
}

fn chunked(random: &mut Random, body: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(between(random, 1, rest.len()));
        let extension = if random.one_in(8) { ";x=y" } else { "" };
        wire.extend(format!("{:x}{extension}\r\n", chunk.len()).into_bytes());
        wire.extend(chunk);
        wire.extend(b"\r\n");
        rest = after;
    }
    wire.extend(if random.one_in(8) { b"0\r\nx-sum: 1\r\n\r\n".as_slice() } else { b"0\r\n\r\n" });
    wire
}

fn plan(random: &mut Random, id: usize) -> Plan {
    let http10 = random.one_in(8);
    let method = ["GET", "GET", "HEAD", "POST", "POST", "POST"][random.below(6)];
    let length = match random.below(16) {
        0 => between(random, 10_000, 40_000),
        1..=3 => 0,
        _ => random.below(3000),
    };
    let body = if method == "POST" { pattern(id + 3, length) } else { Vec::new() };
    let version = if http10 { "1.0" } else { "1.1" };
    let mut wire = format!("{method} /{id} HTTP/{version}\r\nhost: x\r\n");
    if http10 && random.one_in(2) {
        wire += "connection: keep-alive\r\n";
    } else if random.one_in(8) {
        wire += "connection: close\r\n";
    }
    if method == "POST" && random.one_in(8) {
        wire += "expect: 100-continue\r\n";
    }
    let mut wire = wire.into_bytes();
    if method == "POST" && !http10 && random.one_in(2) {
        wire.extend(b"transfer-encoding: chunked\r\n\r\n");
        wire.extend(chunked(random, &body));
    } else {
        if method == "POST" {
            wire.extend(format!("content-length: {}\r\n", body.len()).into_bytes());
        }
        wire.extend(b"\r\n");
        wire.extend(&body);
    }
    let script = script(random);
    Plan {
        method,
        body,
        wire,
        script,
        sent_at: None,
        too_late: false,
        outcome: None,
        timed_out: None,
        given: 0,
        closes: None,
    }
}

struct Client {
    id: Option<ClientId>,
    listener: ListenerId,
    connect_at: Instant,
    connected_at: Option<Instant>,
    actions: VecDeque<Action>,
    wake_at: Option<Instant>,
    reader: Reader,
    read_at: Instant,
    requests: Vec<usize>,
    tail: Tail,
    /// It keeps to the protocol and reads everything: nothing of it may be lost.
    strict: bool,
    ended_writing: bool,
    closed: bool,
    got: Vec<u8>,
    sight: Sight,
}

fn cut(random: &mut Random, wire: &[u8], actions: &mut VecDeque<Action>) {
    let mut rest = wire;
    for _ in 0..random.below(4) {
        let (piece, after) = rest.split_at(random.below(rest.len() + 1));
        rest = after;
        actions.push_back(Action::Send(piece.to_vec()));
        if random.one_in(3) {
            actions.push_back(Action::Sleep(between(random, 1, 30)));
        }
    }
    actions.push_back(Action::Send(rest.to_vec()));
}

fn client(random: &mut Random, now: Instant, plans: &mut Vec<Plan>) -> Client {
    let reader = match random.below(12) {
        0 => Reader::Never,
        1 | 2 => Reader::Slow,
        _ => Reader::Fast,
    };
    let pipelines = reader != Reader::Fast || random.one_in(3);
    let mut actions = VecDeque::new();
    let mut requests = Vec::new();
    for _ in 0..random.below(5) {
        let id = plans.len();
        let plan = plan(random, id);
        cut(random, &plan.wire, &mut actions);
        plans.push(plan);
        requests.push(id);
        actions.push_back(Action::Complete(id));
        if !pipelines {
            actions.push_back(Action::Await(requests.len()));
            if random.one_in(3) {
                actions.push_back(Action::Sleep(random.below(1000)));
            }
        }
    }
    let connect_at = now + milliseconds(random.below(1500));
    let listener = ListenerId(u32::try_from(random.below(LISTENERS as usize)).unwrap());
    let mut client = Client {
        id: None,
        listener,
        connect_at,
        connected_at: None,
        actions,
        wake_at: None,
        reader,
        read_at: connect_at,
        requests,
        tail: Tail::Nothing,
        strict: reader != Reader::Never,
        ended_writing: false,
        closed: false,
        got: Vec::new(),
        sight: Sight::Open,
    };
    give_an_end(random, &mut client);
    client
}

/// From somewhere on, the client sends single bytes, long after one another.
fn drip(random: &mut Random, actions: &mut VecDeque<Action>) {
    let rest = actions.split_off(random.below(actions.len() + 1));
    let pause = between(random, 100, 900);
    for action in rest {
        let Action::Send(bytes) = action else {
            actions.push_back(action);
            continue;
        };
        let (single, others) = bytes.split_at(bytes.len().min(30));
        for byte in single {
            actions.extend([Action::Sleep(pause), Action::Send(vec![*byte])]);
        }
        actions.push_back(Action::Send(others.to_vec()));
    }
}

/// How the client leaves, if it does.
fn give_an_end(random: &mut Random, client: &mut Client) {
    let all = client.requests.len();
    let actions = &mut client.actions;
    let anywhere = random.below(actions.len() + 1);
    match random.below(15) {
        0 => actions.push_back(Action::Shutdown),
        14 => {
            drip(random, actions);
            client.strict = false;
        }
        1 => {
            client.tail = Tail::Garbage;
            let long = [b"GET /".as_slice(), &[b'x'; 9000]].concat();
            let garbage: [&[u8]; 4] =
                [b"\0\x01\x02\r\n\r\n", b"GET /\r\n\r\n", b"G T / HTTP/9\r\n\r\n", &long];
            actions.push_back(Action::Send(garbage[random.below(4)].to_vec()));
        }
        2 => {
            client.tail = Tail::PartialHead;
            actions.push_back(Action::Send(b"GET /x HTTP/1.1\r\nho".to_vec()));
            if random.one_in(2) {
                actions.push_back(Action::Shutdown);
            }
        }
        3 | 4 => {
            actions.truncate(anywhere);
            actions.push_back(if random.one_in(2) { Action::Close } else { Action::Reset });
            client.strict = false;
        }
        5 => {
            actions.truncate(anywhere);
            actions.push_back(Action::Shutdown);
        }
        6 => {
            actions.insert(anywhere, Action::Sleep(between(random, 3000, 9000)));
            client.strict = false;
        }
        7..=9 if client.reader != Reader::Never => {
            actions.push_back(Action::Await(all));
            actions.push_back(Action::Close);
        }
        _ => {}
    }
}

// What a client got.

#[derive(Debug, Default)]
struct Answer {
    status: u16,
    id: Option<usize>,
    body: Vec<u8>,
    whole: bool,
    close: bool,
}

/// A line without its end, consumed.
fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    let line = std::str::from_utf8(&rest[..end]).expect("a head is ASCII");
    *rest = &rest[end + 2..];
    Some(line)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, after) = rest.split_at(length.min(rest.len()));
    *rest = after;
    taken
}

enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// The head of an answer; `None` when it has not all come.
fn read_head(rest: &mut &[u8]) -> Option<(Answer, Framing)> {
    let status_line = line(rest)?;
    let mut words = status_line.splitn(3, ' ');
    assert_eq!(words.next(), Some("HTTP/1.1"), "not a status line: {status_line:?}");
    let status: u16 = words.next().unwrap().parse().unwrap();
    assert!(words.next().is_some(), "no space before the reason: {status_line:?}");
    let mut answer = Answer { status, ..Answer::default() };
    let mut headers = HashMap::new();
    loop {
        let line = line(rest)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ").expect("a header has a name and a value");
        assert!(headers.insert(name, value).is_none(), "{name} came twice");
    }
    answer.id = headers.get("x-id").map(|id| id.parse().unwrap());
    answer.close = headers.get("connection") == Some(&"close");
    let length = headers.get("content-length");
    let framing = match (length, headers.get("transfer-encoding")) {
        (Some(length), None) => Framing::Length(length.parse().unwrap()),
        (None, Some(coding)) => {
            assert_eq!(*coding, "chunked");
            Framing::Chunked
        }
        (None, None) => Framing::UntilClose,
        (Some(_), Some(_)) => panic!("both lengths: {headers:?}"),
    };
    Some((answer, framing))
}

/// Appends the chunks that have come. True when the last one has.
fn read_chunks(rest: &mut &[u8], body: &mut Vec<u8>) -> bool {
    loop {
        let Some(size) = line(rest) else { return false };
        let size = usize::from_str_radix(size, 16).expect("a chunk begins with its size");
        let data = take(rest, size);
        body.extend(data);
        if data.len() < size || rest.len() < 2 {
            return false;
        }
        assert_eq!(take(rest, 2), b"\r\n", "a chunk ends with its data");
        if size == 0 {
            return true;
        }
    }
}

/// The final answers in `got`, the last of which may be incomplete. `ended`: the server's FIN has
/// come.
fn read_answers(got: &[u8], plans: &[Plan], requests: &[usize], ended: bool) -> Vec<Answer> {
    let mut rest = got;
    let mut answers: Vec<Answer> = Vec::new();
    while !rest.is_empty() {
        assert!(
            answers.last().is_none_or(|last| !last.close),
            "bytes behind the last answer: {}",
            rest.escape_ascii()
        );
        let Some((mut answer, framing)) = read_head(&mut rest) else { break };
        if answer.status == 100 {
            continue;
        }
        let request = requests.get(answers.len()).map(|&id| &plans[id]);
        let head = request.is_some_and(|plan| plan.method == "HEAD");
        match framing {
            _ if head && answer.id.is_some() => answer.whole = true,
            // Whether our refusal knows the method depends on how much of the head had come.
            _ if head && rest.is_empty() => answer.whole = true,
            Framing::Length(length) => {
                answer.body = take(&mut rest, length).to_vec();
                answer.whole = answer.body.len() == length;
            }
            Framing::Chunked => answer.whole = read_chunks(&mut rest, &mut answer.body),
            Framing::UntilClose => {
                assert!(answer.close, "only a close ends this answer");
                answer.body = take(&mut rest, usize::MAX).to_vec();
                answer.whole = ended;
            }
        }
        let whole = answer.whole;
        answers.push(answer);
        if !whole {
            break;
        }
    }
    answers
}

// The application.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    No,
    Readable,
    Writable,
}

/// A request that the application works on.
struct Task {
    request: RequestId,
    plan: usize,
    /// Position in the script.
    step: usize,
    wake_at: Option<Instant>,
    waits: Waits,
    read: usize,
    read_all: bool,
    sent: usize,
    whole: bool,
    gone: bool,
}

/// Whether a task goes on, waits, or is over.
enum Then {
    Next,
    Wait,
    Leave,
}

impl Task {
    /// `shares`: bodies are sent from where they are; `closes`: an answer that begins now has to say
    /// that it is the last.
    fn step(
        &mut self,
        server: &mut Server<Simulated>,
        plan: &mut Plan,
        (shares, closes): (bool, bool),
    ) -> Then {
        let now = server.proactor().now();
        let Some(step) = plan.script.get(self.step).copied() else { return Then::Leave };
        match step {
            Step::ReadAll | Step::ReadOnce => {
                match self.read(server, plan) {
                    Some(Reading::Wait) => return Then::Wait,
                    Some(Reading::Data { more: true, .. }) if step == Step::ReadAll => {
                        return Then::Next;
                    }
                    _ => {}
                }
                self.step += 1;
                Then::Next
            }
            Step::AwaitDisconnect | Step::Sleep(_) => {
                let length = if let Step::Sleep(length) = step { length } else { 2500 };
                let until = *self.wake_at.get_or_insert(now + milliseconds(length));
                let left = step == Step::AwaitDisconnect
                    && self.read_all
                    && server.read_body(self.request) == Reading::Disconnected;
                if until > now && !left {
                    return Then::Wait;
                }
                self.wake_at = None;
                self.step += 1;
                Then::Next
            }
            Step::Start { declared } => {
                self.step += 1;
                self.start(server, declared)
            }
            Step::Send { length, more } => {
                self.step += 1;
                self.send(server, plan, (length, more), (shares, closes))
            }
        }
    }

    /// Read on, and compare with what the client sends. `None`: there is nothing more.
    fn read(&mut self, server: &mut Server<Simulated>, plan: &Plan) -> Option<Reading> {
        if self.read_all {
            return None;
        }
        let reading = server.read_body(self.request);
        match &reading {
            Reading::Data { bytes, more } => {
                let expected = plan.body.get(self.read..self.read + bytes.len());
                assert_eq!(expected, Some(&bytes[..]), "the body is not what was sent");
                self.read += bytes.len();
                self.read_all = !more;
                assert!(*more || self.read == plan.body.len(), "the body ended too early");
            }
            Reading::Wait => self.waits = Waits::Readable,
            Reading::Disconnected => self.read_all = true,
        }
        Some(reading)
    }

    fn start(&mut self, server: &mut Server<Simulated>, declared: Option<usize>) -> Then {
        let id = self.plan.to_string();
        let length = declared.map(|length| length.to_string());
        let mut headers = vec![(b"x-id".as_slice(), id.as_bytes())];
        headers.extend(length.as_ref().map(|it| (b"content-length".as_slice(), it.as_bytes())));
        match server.start_response(self.request, 200, headers.into_iter()) {
            Ok(()) => Then::Next,
            Err(error) => {
                assert_eq!(error, SendError::Gone);
                self.gone = true;
                Then::Leave
            }
        }
    }

    fn send(
        &mut self,
        server: &mut Server<Simulated>,
        plan: &mut Plan,
        (length, more): (usize, bool),
        (shares, closes): (bool, bool),
    ) -> Then {
        let bytes = pattern(self.plan, self.sent + length).split_off(self.sent);
        let body = if shares { Body::Shared(Box::new(Bytes(bytes))) } else { Body::Copied(&bytes) };
        match server.send_body(self.request, body, more) {
            Ok(progress) => {
                self.sent += length;
                plan.given = self.sent;
                plan.closes.get_or_insert(closes);
                self.whole = !more;
                if progress == Progress::Wait {
                    assert_eq!(server.room(self.request), Ok(Progress::Wait));
                    self.waits = Waits::Writable;
                    return Then::Wait;
                }
                Then::Next
            }
            Err(error) => {
                self.gone = error == SendError::Gone;
                Then::Leave
            }
        }
    }

    fn outcome(&self, left: Left) -> Outcome {
        match (left, self.whole) {
            (Left::Answered, true) => Outcome::Whole,
            (Left::Answered, false) => Outcome::Gone,
            (Left::Refused, false) => Outcome::Refused,
            (Left::Aborted, false) => Outcome::Aborted,
            (left, true) => panic!("a whole answer was left as {left:?}"),
        }
    }
}

// The world.

struct Simulation {
    random: Random,
    world: World,
    server: Server<Simulated>,
    lines: Lines,
    config: Config,
    plans: Vec<Plan>,
    clients: Vec<Client>,
    tasks: Vec<Task>,
    requests: HashSet<RequestId>,
    /// Their plans, as far as the application took them.
    given: HashMap<RequestId, usize>,
    /// Requests of each connection that were given out in this turn.
    begun: HashMap<StreamId, usize>,
    drain_at: Option<Instant>,
    drained_at: Option<Instant>,
    cut_at: Option<Instant>,
    was_cut: bool,
    /// Times that draining was told to be over.
    told: usize,
    shortages: usize,
    /// Accepts that may fail meanwhile: more are no rest.
    attempts: usize,
    refused_accepts: usize,
    start: Instant,
    progress_at: Instant,
    traces: bool,
}

impl Simulation {
    fn new(seed: u64, traces: bool) -> Self {
        let mut random = Random::new(seed ^ 0x5eed);
        let proactor = Simulated::new(seed);
        let (world, now) = (proactor.world(), proactor.now());
        let config = config(&mut random);
        let mut server = Server::new(proactor, config.clone());
        for _ in 0..LISTENERS {
            server.add_listener(World::listening_socket()).unwrap();
        }
        let format = Format::compile(Some(ACCESS_FORMAT), false, false).unwrap();
        let (log, lines) = AccessLog::new(format);
        server.log_access(log);
        server.start_accepting();
        let mut plans = Vec::new();
        let count = between(&mut random, 1, 6);
        let clients = (0..count).map(|_| client(&mut random, now, &mut plans)).collect();
        let drain_at = random.one_in(3).then(|| now + milliseconds(random.below(3000)));
        let cut_at = drain_at.filter(|_| random.one_in(3));
        let cut_at = cut_at.map(|at| at + milliseconds(random.below(2000)));
        Self {
            random,
            world,
            server,
            lines,
            config,
            plans,
            clients,
            tasks: Vec::new(),
            requests: HashSet::new(),
            given: HashMap::new(),
            begun: HashMap::new(),
            drain_at,
            drained_at: None,
            cut_at,
            was_cut: false,
            told: 0,
            shortages: 0,
            attempts: 0,
            refused_accepts: 0,
            start: now,
            progress_at: now,
            traces,
        }
    }

    fn now(&mut self) -> Instant {
        self.server.proactor().now()
    }

    fn tell(&mut self, news: impl FnOnce() -> String) {
        self.progress_at = self.now();
        if self.traces {
            let passed = self.progress_at - self.start;
            println!("{passed:>14.6?} {}", news());
        }
    }

    /// Until nothing is left to do. Panics when something is wrong.
    fn run(&mut self) {
        let mut idle = 0;
        let mut last = self.now();
        for _ in 0..TURNS {
            let before = self.progress_at;
            let pending = self.act();
            if self.is_over() {
                self.read_rest();
                self.judge_log();
                return self.judge();
            }
            let now = self.now();
            let deadline = if pending { Some(now) } else { self.next_wish() };
            self.server.flush();
            let completions = self.server.wait(deadline).unwrap();
            self.server.deliver();
            self.serve();
            self.check_limits();
            let now = self.now();
            let moved = completions > 0 || pending || now > last || self.progress_at != before;
            idle = if moved { 0 } else { idle + 1 };
            assert!(idle < IDLE_TURNS, "the server spins, or waits for nothing: {}", self.state());
            let waited = now - self.progress_at;
            assert!(waited < PATIENCE, "something waits for ever: {}", self.state());
            last = now;
        }
        panic!("more than {TURNS} turns: {}", self.state());
    }

    /// When all clients are done and their connections closed, the server drains if it has not.
    fn state(&self) -> String {
        let clients = self.clients.iter().map(|client| {
            (client.id, client.is_done(), client.sight, client.actions.len(), client.wake_at)
        });
        let clients: Vec<_> = clients.collect();
        let tasks: Vec<_> = self.tasks.iter().map(|task| (task.plan, task.waits)).collect();
        format!("{:?}\nclients {clients:?}\ntasks {tasks:?}", self.server.census())
    }

    fn is_over(&mut self) -> bool {
        let done = self.clients.iter().all(Client::is_done) && self.tasks.is_empty();
        if done && self.server.census().connections == 0 && self.drained_at.is_none() {
            assert_eq!(self.world.open_streams(), 0, "a connection was forgotten");
            self.drain_at = Some(self.progress_at);
        }
        self.told > 0 && self.tasks.is_empty()
    }

    /// What is still on its way to the clients.
    fn read_rest(&mut self) {
        for client in self.clients.iter_mut().filter(|client| !client.closed) {
            let Some(id) = client.id else { continue };
            client.got.extend(self.world.client_receive(id, usize::MAX));
            client.sight = self.world.client_sees(id);
        }
    }

    /// The next moment at which a client or the application does something.
    fn next_wish(&mut self) -> Option<Instant> {
        let drains = self.drained_at.is_some();
        let wishes = self.clients.iter().filter_map(|client| client.next_wish(drains));
        let tasks = self.tasks.iter().filter_map(|task| task.wake_at);
        let drain = self.drain_at.filter(|_| !drains);
        let cut = self.cut_at.filter(|_| !self.was_cut);
        wishes.chain(tasks).chain(drain).chain(cut).min()
    }

    /// Everything that is due on the clients' side. True when a client has more to do now.
    fn act(&mut self) -> bool {
        let now = self.now();
        // Amid the work too, and not only after a wait.
        if self.cut_at.is_some() && self.random.one_in(60) {
            let at = if self.drained_at.is_some() { &mut self.cut_at } else { &mut self.drain_at };
            *at = Some(now);
        }
        if self.drained_at.is_none() && self.drain_at.is_some_and(|at| at <= now) {
            self.tell(|| "drain".to_owned());
            self.drained_at = Some(now);
            self.server.drain();
        }
        if !self.was_cut && self.cut_at.is_some_and(|at| at <= now) {
            self.was_cut = true;
            let cut = self.server.cut();
            self.tell(|| format!("cut {cut} requests"));
        }
        if self.random.one_in(200) && self.drained_at.is_none() {
            let listener = ListenerId(u32::try_from(self.random.below(2)).unwrap());
            if self.random.one_in(2) {
                self.world.fail_accept(listener, libc::ECONNABORTED);
            } else {
                let length = between(&mut self.random, 1, 500);
                self.world.exhaust_descriptors(milliseconds(length));
                self.shortages += 1;
                // One each 100 ms for each listener, at both ends, and in the sweep.
                self.attempts += (length / 100 + 3) * LISTENERS as usize;
            }
        }
        let mut pending = false;
        for index in 0..self.clients.len() {
            pending |= self.act_as(index);
        }
        pending
    }

    /// What this client does now. True when it has more to do at once.
    fn act_as(&mut self, index: usize) -> bool {
        let now = self.now();
        let client = &mut self.clients[index];
        let Some(id) = client.id else {
            if client.connect_at <= now && self.drained_at.is_none() {
                client.id = Some(self.world.connect(client.listener));
                client.connected_at = Some(now);
                self.tell(|| format!("client {index} connects"));
                return true;
            }
            return false;
        };
        if client.closed {
            return false;
        }
        let more = self.read_as(index, id);
        let client = &mut self.clients[index];
        if client.wake_at.is_some_and(|at| at > now) {
            return more;
        }
        client.wake_at = None;
        if client.actions.is_empty() {
            return more;
        }
        if !self.random.one_in(3) {
            self.next_action(index, id);
        }
        let client = &self.clients[index];
        let waits = matches!(client.actions.front(), Some(Action::Await(_)) | None);
        more || !(waits || client.closed || client.wake_at.is_some())
    }

    fn read_as(&mut self, index: usize, id: ClientId) -> bool {
        let now = self.now();
        let client = &mut self.clients[index];
        let limit = match client.reader {
            Reader::Fast => between(&mut self.random, 1, 6000),
            Reader::Slow if client.read_at <= now => {
                client.read_at = now + milliseconds(between(&mut self.random, 100, 900));
                between(&mut self.random, 500, 3000)
            }
            Reader::Slow | Reader::Never => 0,
        };
        let bytes = self.world.client_receive(id, limit);
        client.got.extend(&bytes);
        let sight = self.world.client_sees(id);
        let (news, full) = (sight != client.sight, bytes.len() == limit && limit > 0);
        if sight != Sight::Open && news {
            client.sight = sight;
            client.actions.clear();
            client.wake_at = None;
            client.got.extend(self.world.client_receive(id, usize::MAX));
            // Some leave at the server's end, others leave it waiting.
            client.closed = self.random.one_in(2);
            if client.closed {
                self.world.client_close(id);
            }
        }
        if !bytes.is_empty() || news {
            self.tell(|| format!("client {index} reads {} bytes, sees {sight:?}", bytes.len()));
        }
        full
    }

    fn next_action(&mut self, index: usize, id: ClientId) {
        let now = self.now();
        let client = &mut self.clients[index];
        let Some(action) = client.actions.pop_front() else { return };
        match &action {
            Action::Send(bytes) => self.world.client_send(id, bytes),
            Action::Complete(request) => {
                self.plans[*request].sent_at = Some(now);
                self.plans[*request].too_late = self.world.server_has_ended(id);
            }
            Action::Sleep(length) => client.wake_at = Some(now + milliseconds(*length)),
            Action::Await(count) => {
                let answers = read_answers(&client.got, &self.plans, &client.requests, false);
                let whole = answers.iter().filter(|answer| answer.whole).count();
                if answers.last().is_some_and(|last| last.close) {
                    // Nothing more will be answered.
                    client.actions.clear();
                } else if whole < *count {
                    return client.actions.push_front(action);
                }
            }
            Action::Shutdown => {
                client.ended_writing = true;
                self.world.client_shutdown(id);
            }
            Action::Close => {
                client.closed = true;
                self.world.client_close(id);
            }
            Action::Reset => {
                client.closed = true;
                self.world.client_reset(id);
            }
        }
        self.tell(|| match action {
            Action::Send(bytes) => format!("client {index} sends {}", bytes.escape_ascii()),
            action => format!("client {index}: {action:?}"),
        });
    }

    /// Let the application take what is there and go on with what can go on.
    fn serve(&mut self) {
        self.begun.clear();
        // Sometimes the application is slow to look.
        let mut looks = between(&mut self.random, 1, 20);
        while looks > 0
            && let Some(event) = self.server.next_event()
        {
            looks -= 1;
            self.tell(|| format!("    {event:?}"));
            match event {
                Event::Request(request) => self.begin(request),
                Event::Readable(request) => self.wake(request, Waits::Readable),
                Event::Writable(request) => self.wake(request, Waits::Writable),
                Event::Drained => {
                    self.told += 1;
                    assert_eq!(self.told, 1, "the end of the drain was told twice");
                    assert!(self.server.is_drained());
                    assert_eq!(self.world.open_streams(), 0, "a connection was forgotten");
                }
                Event::AcceptFailed(_) => self.refused_accepts += 1,
                Event::Refused(..) | Event::Unproxied(..) => panic!("nobody asked for reports"),
                Event::WebSocket(..) => panic!("nobody asked for a WebSocket"),
                Event::AccessLost(lines) => panic!("{lines} lines of the access log are lost"),
                Event::Overloaded => assert_eq!(self.config.overload, Overload::Refuse),
                Event::TimedOut(request, left) => self.time_out(request, left),
            }
        }
        let now = self.now();
        for index in (0..self.tasks.len()).rev() {
            if self.tasks[index].wake_at.is_some_and(|at| at <= now) {
                self.go_on(index);
            }
        }
    }

    fn begin(&mut self, request: RequestId) {
        assert!(self.requests.insert(request), "a request was given out twice");
        let Some(taken) = self.server.take_request(request) else {
            assert_eq!(self.server.finish(request), Left::Answered);
            return;
        };
        // Only here: the number may have been that of an earlier connection, too.
        let begun = self.begun.entry(request.stream()).or_insert(0);
        *begun += 1;
        // One may have waited since the last turn.
        assert!(*begun <= self.config.pipeline_depth + 1, "a connection had more than its share");
        let path = std::str::from_utf8(&taken.head.path()[1..]).unwrap();
        let plan: usize = path.parse().unwrap();
        assert_eq!(taken.head.method(), self.plans[plan].method);
        self.server.give_back(taken);
        let long = self.plans[plan].is_refused_by_its_head(self.config.limits.body_bytes);
        assert!(!long, "the application got a body too long");
        let known = self.tasks.iter().any(|task| task.plan == plan);
        assert!(!known && self.plans[plan].outcome.is_none(), "request {plan} came twice");
        self.given.insert(request, plan);
        self.tasks.push(Task {
            request,
            plan,
            step: 0,
            wake_at: None,
            waits: Waits::No,
            read: 0,
            read_all: false,
            sent: 0,
            whole: false,
            gone: false,
        });
        self.go_on(self.tasks.len() - 1);
    }

    fn time_out(&mut self, request: RequestId, left: Left) {
        assert!(self.config.timeouts.request.is_some());
        assert_eq!(self.server.read_body(request), Reading::Disconnected);
        // One that waits for its turn has no plan, one that was told by other news no task.
        let Some(&plan) = self.given.get(&request) else { return };
        self.plans[plan].timed_out = Some(left);
        let Some(index) = self.tasks.iter().position(|task| task.request == request) else {
            return;
        };
        self.tasks[index].wake_at = None;
        self.go_on(index);
    }

    fn wake(&mut self, request: RequestId, news: Waits) {
        assert!(self.requests.contains(&request), "news of a request that nobody knows");
        let Some(index) = self.tasks.iter().position(|task| task.request == request) else {
            return;
        };
        if self.tasks[index].waits == news || self.tasks[index].wake_at.is_some() {
            self.go_on(index);
        }
    }

    /// Steps of a task until it waits or is over.
    fn go_on(&mut self, index: usize) {
        let shares = self.random.one_in(3);
        let closes = self.drained_at.is_some() || !self.config.keep_alive;
        loop {
            let task = &mut self.tasks[index];
            task.waits = Waits::No;
            match task.step(&mut self.server, &mut self.plans[task.plan], (shares, closes)) {
                Then::Next => {}
                Then::Wait => return,
                Then::Leave => break,
            }
        }
        let task = self.tasks.swap_remove(index);
        let left = self.server.finish(task.request);
        let outcome = task.outcome(left);
        self.plans[task.plan].outcome = Some(outcome);
        self.tell(|| format!("    request {} is left: {outcome:?}", task.plan));
    }

    fn check_limits(&mut self) {
        let census = self.server.census();
        assert_eq!(census.running, self.tasks.len());
        assert!(census.running <= self.config.backpressure);
        // One for each connection, also for those that are gone: the application has yet to look.
        assert!(census.queued <= self.clients.len());
        assert!(census.connections >= self.world.open_streams());
        // Each listener may have an accept armed while one place is left; the sweep has no limit.
        let most = self.config.max_connections + LISTENERS as usize - 1;
        assert!(self.drained_at.is_some() || census.connections <= most);
        let (input, output) = self.server.most_held();
        let most = self.config.limits.head_bytes + RECEIVE_BYTES;
        assert!(input <= most, "{input} bytes of input are held");
        assert!(output <= OUTPUT_BYTES, "{output} bytes of output are held");
    }

    fn may_answer_503(&self, plan: &Plan) -> bool {
        let config = &self.config;
        plan.outcome.is_none_or(|_| plan.timed_out == Some(Left::Refused))
            && (config.overload == Overload::Refuse || config.timeouts.request.is_some())
    }

    /// Each request has one line in the access log, and it says how the request ended.
    fn judge_log(&mut self) {
        assert_eq!(self.server.close_access_log(), 0);
        let mut lines = Vec::new();
        while let Some(text) = self.lines.next() {
            lines.extend(std::str::from_utf8(text).unwrap().lines().map(str::to_owned));
        }
        let (mut places, mut logged) = (HashSet::new(), HashSet::new());
        for line in &lines {
            let [connection, number, target, status, completion, bytes]: [&str; 6] =
                line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            assert!(places.insert((connection, number)), "twice in the log: {line}");
            let status: u16 = status.parse().unwrap();
            let Some(Ok(request)) = target.strip_prefix('/').map(str::parse::<usize>) else {
                assert!(target == "-" && status >= 400, "{line}");
                continue;
            };
            assert!(logged.insert(request), "request {request} is twice in the log: {line}");
            let plan = &self.plans[request];
            match plan.outcome {
                Some(Outcome::Whole) => {
                    assert_eq!(status, 200, "{line}");
                    let given = if plan.method == "HEAD" { 0 } else { plan.given };
                    assert_eq!(bytes, given.to_string(), "{line}");
                }
                // Too many at once, or out of time.
                _ if status == 503 => assert!(self.may_answer_503(plan), "{line}"),
                Some(Outcome::Refused) => assert_eq!(status, 500, "{line}"),
                Some(Outcome::Aborted) => assert_eq!((status, completion), (200, "-"), "{line}"),
                Some(Outcome::Gone) => {
                    assert!(completion == "-" || status >= 400, "{line}");
                }
                None if plan.is_refused_by_its_head(self.config.limits.body_bytes) => {
                    assert_eq!(status, 413, "{line}");
                }
                None => assert_eq!((status, completion), (499, "-"), "{line}"),
            }
        }
        for (request, plan) in self.plans.iter().enumerate() {
            let is_over = plan.outcome.is_some();
            assert!(!is_over || logged.contains(&request), "request {request} is not in the log");
        }
    }

    fn judge(&self) {
        assert!(self.refused_accepts <= self.shortages);
        let attempts = self.world.accepts_exhausted();
        assert!(attempts <= self.attempts, "{attempts} accepts without a descriptor");
        for (index, client) in self.clients.iter().enumerate() {
            let ended = client.sight == Sight::End;
            let answers = read_answers(&client.got, &self.plans, &client.requests, ended);
            for (position, answer) in answers.iter().enumerate() {
                self.judge_answer(client, position, answer);
            }
            if client.strict && !self.was_cut {
                self.judge_losses(index, client, &answers);
            }
        }
    }

    /// What a client got is what the application gave out for this request.
    fn judge_answer(&self, client: &Client, position: usize, answer: &Answer) {
        let Some(&request) = client.requests.get(position) else {
            assert!(answer.status >= 400 && answer.close, "an answer without request");
            assert!(client.tail != Tail::Nothing || !client.strict, "an answer without request");
            return;
        };
        let plan = &self.plans[request];
        if answer.id.is_none() {
            let right = match answer.status {
                500 => plan.outcome == Some(Outcome::Refused),
                413 => plan.is_longer_than(self.config.limits.body_bytes),
                503 => self.may_be_put_off(plan),
                _ => false,
            };
            let broken = plan.sent_at.is_none() || !client.strict;
            assert!(right || broken, "request {request} got a {}", answer.status);
            return assert!(answer.close, "a refusal closes");
        }
        assert_eq!((answer.id, answer.status), (Some(request), 200), "the answers are mixed up");
        assert!(answer.close || plan.closes != Some(true), "{request}: no word of the close");
        if plan.method == "HEAD" {
            // Whole as soon as its head has come.
            return;
        }
        // Every byte that was promised had been given out before the application went wrong.
        let kept = plan.script.contains(&Step::Start { declared: Some(plan.given) });
        if answer.whole && !kept {
            assert_eq!(plan.outcome, Some(Outcome::Whole), "{request}: a cut answer looks whole");
        }
        let length = answer.body.len();
        assert!(length <= plan.given, "request {request} got more than was sent");
        assert!(!answer.whole || length == plan.given, "request {request} lost bytes");
        assert_eq!(answer.body, pattern(request, length), "request {request} got wrong bytes");
    }

    /// Whether a 503 is right: there were too many requests, or this one took too long.
    fn may_be_put_off(&self, plan: &Plan) -> bool {
        let waited = plan.outcome.is_none() && self.config.timeouts.request.is_some();
        let refused = plan.outcome.is_none() && self.config.overload == Overload::Refuse;
        refused || waited || plan.timed_out == Some(Left::Refused)
    }

    /// Every request that was sent in full has a whole answer, unless the server said close or
    /// the application aborted.
    fn judge_losses(&self, index: usize, client: &Client, answers: &[Answer]) {
        // A reset may destroy answers before it: where the application aborted, or where a body
        // was cut after its answer had begun.
        let resets = |&request: &usize| {
            let plan = &self.plans[request];
            let begun = matches!(plan.script.first(), Some(Step::Start { .. }));
            // Its end is not looked for where the application does not read it, and then a close
            // that was not announced is the client's own fault.
            let long = plan.is_longer_than(self.config.limits.body_bytes) && plan.is_chunked();
            plan.outcome == Some(Outcome::Aborted)
                || plan.timed_out == Some(Left::Aborted)
                || (plan.sent_at.is_none() && begun)
                || long
        };
        if client.requests.iter().any(resets) {
            return;
        }
        for (position, &request) in client.requests.iter().enumerate() {
            if self.plans[request].sent_at.is_none() {
                return;
            }
            let Some(answer) = answers.get(position) else {
                assert!(
                    !self.must_be_answered(client, request),
                    "client {index}: request {request} is lost, {:?}, seen {:?}",
                    self.plans[request].outcome,
                    client.sight
                );
                return;
            };
            assert!(answer.whole, "client {index}: the answer to {request} is cut");
            if answer.close {
                return;
            }
        }
        let asks = client.tail == Tail::Garbage && client.actions.is_empty();
        if asks && self.drain_at.is_none() {
            let refusal = answers.get(client.requests.len());
            assert!(refusal.is_some_and(|it| it.whole), "client {index}: garbage got no answer");
        }
    }

    /// Whether a server that drains, or whose machine has no more fds, still owes this answer.
    fn must_be_answered(&self, client: &Client, request: usize) -> bool {
        let (Some(drained_at), Some(connected_at)) = (self.drained_at, client.connected_at) else {
            return true;
        };
        if connected_at > drained_at || (self.shortages > 0 && client.got.is_empty()) {
            return false;
        }
        !self.plans[request].too_late
    }
}

impl Client {
    /// A client that does not read never sees the end.
    fn is_done(&self) -> bool {
        let left = self.actions.is_empty() && self.reader == Reader::Never;
        self.closed || self.sight != Sight::Open || left
    }

    /// `draining`: who has not connected will not.
    fn next_wish(&self, draining: bool) -> Option<Instant> {
        if self.id.is_none() {
            return (!draining).then_some(self.connect_at);
        }
        let reads = !self.is_done() && self.reader == Reader::Slow;
        let reads = reads.then_some(self.read_at);
        self.wake_at.filter(|_| !self.closed).into_iter().chain(reads).min()
    }
}

/// A request whose application waits for the client's going, while the client sends on.
#[test]
fn a_client_that_sends_on_is_not_read_without_bound() {
    let proactor = Simulated::new(1);
    let world = proactor.world();
    let mut server = Server::new(proactor, Config { timeouts: timeouts(), ..Config::default() });
    server.add_listener(World::listening_socket()).unwrap();
    server.start_accepting();
    let client = world.connect(ListenerId(0));
    world.client_send(client, b"GET /0 HTTP/1.1\r\nhost: x\r\n\r\n");
    let request = loop {
        server.turn(None).unwrap();
        if let Some(Event::Request(request)) = server.next_event() {
            break request;
        }
    };
    let end = Reading::Data { bytes: Vec::new(), more: false };
    assert_eq!((server.read_body(request), server.read_body(request)), (end, Reading::Wait));
    let flood = 1 << 20;
    world.client_send(client, &pattern(0, flood));
    for _ in 0..1000 {
        let now = server.proactor().now();
        server.turn(Some(now)).unwrap();
        assert!(server.next_event().is_none(), "bytes behind a request are no news of it");
        assert_eq!(server.read_body(request), Reading::Wait);
    }
    assert!(world.bytes_unreceived(client) > flood - 128 * 1024, "the server read on");
    world.client_reset(client);
    while !matches!(server.next_event(), Some(Event::Readable(it)) if it == request) {
        server.turn(None).unwrap();
    }
    assert_eq!(server.read_body(request), Reading::Disconnected);
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().filter(|text| !text.is_empty()).map(|text| text.parse().unwrap())
}

fn run(seed: u64, traces: bool) {
    let result = catch_unwind(AssertUnwindSafe(|| Simulation::new(seed, traces).run()));
    if let Err(panic) = result {
        println!("\nseed {seed} fails; see what happens in it:\n\n    make sim SEED={seed}\n");
        resume_unwind(panic);
    }
}

#[test]
fn whatever_happens_no_request_is_lost_and_no_connection_forgotten() {
    let first = number("SEED");
    let count = number("SEEDS").unwrap_or(if first.is_some() { 1 } else { SEEDS });
    let first = first.unwrap_or(0);
    for seed in first..first + count {
        run(seed, count == 1);
    }
}
