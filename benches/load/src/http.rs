//! Requests over HTTP/1.1: closed and open loops, pipelining, churn, idle connections.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Poll, Token};

use crate::answer::Answers;
use crate::client::Client;
use crate::options::Options;
use crate::pace::Pace;
use crate::report::Report;
use crate::{Failure, wait_for_go};

/// Without an answer for so long the server is taken for hung.
const HUNG: Duration = Duration::from_secs(10);
const BUFFER_BYTES: usize = 256 * 1024;
/// How many connections of `idle` are made at once, so that no queue of a listener overflows.
const IDLE_WINDOW: usize = 64;

/// A place for a connection, which has at most one turn of requests under way.
struct Slot {
    client: Option<Client>,
    answers: Answers,
    /// From when the turn under way counts.
    since: Instant,
    /// Answers that the turn under way still lacks.
    lacks: usize,
    /// With a connection for each request: all is answered, and the server's end is awaited.
    closing: bool,
}

/// All connections, and what is asked of them.
struct Load<'a> {
    options: &'a Options,
    /// What a turn sends: a request, or several at once.
    wire: Vec<u8>,
    poll: Poll,
    slots: Vec<Slot>,
    /// Slots without a turn, the longest idle first.
    idle: VecDeque<usize>,
    buffer: Vec<u8>,
    report: Report,
    last_answer: Instant,
}

/// Requests as the options say: a warm-up, and what is measured.
pub(crate) fn run(options: &Options) -> Result<Report, Failure> {
    let mut load = Load::new(options)?;
    load.run(Pace::closed(options.warm_up))?;
    wait_for_go()?;
    load.report.start()?;
    let begin = Instant::now();
    let pace = match options.rate {
        Some(rate) => Pace::open(rate, options.measured),
        None => Pace::closed(options.measured),
    };
    let backlog = load.run(pace)?.backlog();
    load.report.finish(load.last_answer - begin, backlog)?;
    Ok(load.report)
}

/// One request on each of many connections, which are then held, and another one at the end.
pub(crate) fn run_idle(options: &Options) -> Result<Report, Failure> {
    let mut load = Load::new(options)?;
    let each_once = || Pace::Counted { left: options.connections, window: IDLE_WINDOW };
    load.run(each_once())?;
    wait_for_go()?;
    load.report.start()?;
    let begin = Instant::now();
    load.run(each_once())?;
    load.report.finish(load.last_answer - begin, 0)?;
    if load.report.connects > 0 {
        return Err(format!("{} idle connections were closed", load.report.connects).into());
    }
    Ok(load.report)
}

impl<'a> Load<'a> {
    fn new(options: &'a Options) -> Result<Self, Failure> {
        let now = Instant::now();
        let slot =
            || Slot { client: None, answers: Answers::new(), since: now, lacks: 0, closing: false };
        Ok(Self {
            options,
            wire: request(options).repeat(options.pipeline),
            poll: Poll::new()?,
            slots: (0..options.connections).map(|_| slot()).collect(),
            idle: (0..options.connections).collect(),
            buffer: vec![0; BUFFER_BYTES],
            report: Report::new()?,
            last_answer: now,
        })
    }

    /// Asks as the pace says, and ends when everything is answered.
    fn run(&mut self, mut pace: Pace) -> Result<Pace, Failure> {
        let mut events = Events::with_capacity(1024);
        self.last_answer = Instant::now();
        // When nothing more is asked, what is under way has its time once.
        let mut last_progress = self.last_answer;
        loop {
            let now = Instant::now();
            self.begin_what_is_due(&mut pace, now)?;
            if pace.is_over(now) && self.idle.len() == self.slots.len() {
                return Ok(pace);
            }
            if !pace.is_over(now) {
                last_progress = self.last_answer;
            }
            if now > last_progress + HUNG && self.idle.len() < self.slots.len() {
                let waiting = self.slots.len() - self.idle.len();
                return Err(format!("{waiting} connections had no answer in {HUNG:?}").into());
            }
            match self.poll.poll(&mut events, Some(pace.sleep())) {
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                    return Err(error.into());
                }
                _ => {}
            }
            for event in &events {
                self.serve(event)?;
            }
        }
    }

    fn begin_what_is_due(&mut self, pace: &mut Pace, now: Instant) -> Result<(), Failure> {
        while let Some(&index) = self.idle.front() {
            let Some(since) = pace.take(now, self.slots.len() - self.idle.len()) else {
                break;
            };
            self.idle.pop_front();
            self.begin(index, since)?;
        }
        Ok(())
    }

    /// Begins a turn, on a new connection if there is none.
    fn begin(&mut self, index: usize, since: Instant) -> Result<(), Failure> {
        let slot = &mut self.slots[index];
        slot.since = since;
        slot.lacks = self.options.pipeline;
        if slot.client.is_none() {
            let token = Token(index);
            slot.client = Some(Client::connect(self.options.address, self.poll.registry(), token)?);
            slot.answers = Answers::new();
            self.report.connects += 1;
        }
        let client = slot.client.as_mut().ok_or("there is a client")?;
        client.ask(&self.wire)
    }

    fn serve(&mut self, event: &Event) -> Result<(), Failure> {
        let index = event.token().0;
        let slot = &mut self.slots[index];
        let Some(client) = &mut slot.client else {
            return Ok(());
        };
        if event.is_writable() && client.is_sending() {
            client.go_on(&self.wire)?;
        }
        if !event.is_readable() && !event.is_error() && !event.is_read_closed() {
            return Ok(());
        }
        // Edges are reported once: what is there is read until there is no more.
        while let Some(length) = client.receive(&mut self.buffer)? {
            if length == 0 {
                return self.end_of_stream(index);
            }
            let found = slot.answers.feed(&self.buffer[..length], self.options.expect)?;
            if found > slot.lacks {
                return Err("more answers came than were asked for".into());
            }
            if found > 0 {
                self.last_answer = Instant::now();
                self.report.count(found, slot.since, self.last_answer);
                slot.lacks -= found;
                if slot.lacks == 0 {
                    slot.closing = self.options.churn || slot.answers.says_close();
                    if !slot.closing {
                        self.idle.push_back(index);
                    }
                }
            }
            // A short read was the last, unless the stream's end has come in the same edge.
            if length < self.buffer.len() && !slot.closing && !event.is_read_closed() {
                break;
            }
        }
        Ok(())
    }

    /// The server has closed, which it may when nothing is under way.
    fn end_of_stream(&mut self, index: usize) -> Result<(), Failure> {
        let slot = &mut self.slots[index];
        if slot.lacks > 0 {
            return Err("a connection was closed before its answer was whole".into());
        }
        slot.client = None;
        if slot.closing {
            slot.closing = false;
            self.idle.push_back(index);
        }
        Ok(())
    }
}

/// The bytes of one request. The headers are what a simple client sends.
fn request(options: &Options) -> Vec<u8> {
    let method = if options.post.is_some() { "POST" } else { "GET" };
    let mut head = format!("{method} {} HTTP/1.1\r\nHost: {}\r\n", options.path, options.address);
    head.push_str("User-Agent: load\r\nAccept: */*\r\n");
    if options.churn {
        head.push_str("Connection: close\r\n");
    }
    if let Some(length) = options.post {
        head.push_str("Content-Type: application/octet-stream\r\n");
        head.push_str("Content-Length: ");
        head.push_str(&length.to_string());
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.resize(bytes.len() + options.post.unwrap_or(0), b'x');
    bytes
}
