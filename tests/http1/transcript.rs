//! What the codec understands of a connection, as a text: the oracle of the corpus, and of every
//! property that says that two ways to feed the same bytes mean the same.

use granian_uring::http1::{
    AutomaticHeaders, BodyLength, Connection, Event, Limits, ProtocolError, RequestHead, Version,
};
use std::fmt::Write;

/// Small, so that a file can exceed each of them.
const LIMITS: Limits = Limits {
    head_bytes: 1024,
    header_count: 20,
    target_bytes: 128,
    chunk_line_bytes: 32,
    trailer_bytes: 100,
    body_bytes: Some(300),
};

const NO_HEADERS: AutomaticHeaders<'static> = AutomaticHeaders { date: None, server: None };

/// A connection that answers every request and writes down what it is told.
pub struct Transcript {
    connection: Connection,
    pub text: String,
    body: Vec<u8>,
    pub unconsumed: Vec<u8>,
    requests_ended: usize,
    pub is_over: bool,
}

impl Transcript {
    pub fn new() -> Self {
        Self {
            connection: Connection::new(LIMITS),
            text: String::new(),
            body: Vec::new(),
            unconsumed: Vec::new(),
            requests_ended: 0,
            is_over: false,
        }
    }

    /// Takes in the next bytes; stops for good after `stop_after` requests, or an error.
    pub fn feed(&mut self, bytes: &[u8], stop_after: usize) {
        let buffer = [&self.unconsumed[..], bytes].concat();
        let mut input = &buffer[..];
        while !self.is_over && self.requests_ended < stop_after {
            match self.connection.next_event(&mut input) {
                Ok(None) => break,
                Ok(Some(Event::Body(piece))) => {
                    assert!(!piece.is_empty(), "an empty piece of a body");
                    self.body.extend_from_slice(piece);
                }
                Ok(Some(Event::Request(head))) => write_head(&head, &mut self.text),
                Ok(Some(Event::End)) => self.end(),
                Err(error) => {
                    let again = self.connection.next_event(&mut input);
                    assert_eq!(again, Err(error), "an error is final");
                    self.fail(error);
                }
            }
        }
        self.unconsumed = input.to_vec();
    }

    fn end(&mut self) {
        self.flush_body();
        let mut out = Vec::new();
        self.connection.start_response(200, std::iter::empty(), &NO_HEADERS).unwrap();
        self.connection.send_body(0, true, &mut out).unwrap();
        self.requests_ended += 1;
        let lives = self.connection.keeps_alive();
        self.text += if lives { "end, keeps alive\n" } else { "end, closes\n" };
        assert_eq!(self.connection.next_cycle().is_ok(), lives);
        self.is_over = !lives;
    }

    fn fail(&mut self, error: ProtocolError) {
        self.flush_body();
        writeln!(self.text, "error {} {error}", error.status()).unwrap();
        self.is_over = true;
    }

    fn flush_body(&mut self) {
        if !self.body.is_empty() {
            writeln!(self.text, "body \"{}\"", self.body.escape_ascii()).unwrap();
            self.body.clear();
        }
    }

    /// The client closes its side.
    fn finish(&mut self) {
        if !self.is_over
            && let Err(error) = self.connection.end_of_input(self.unconsumed.len())
        {
            self.fail(error);
        }
    }
}

fn write_head(head: &RequestHead, text: &mut String) {
    let version = if head.version() == Version::Http10 { "1.0" } else { "1.1" };
    let target = head.target().escape_ascii();
    writeln!(text, "{} {target} HTTP/{version}", head.method()).unwrap();
    let (path, query) = (head.path().escape_ascii(), head.query().escape_ascii());
    writeln!(text, "path \"{path}\" query \"{query}\"").unwrap();
    for (name, value) in head.headers() {
        writeln!(text, "header {} \"{}\"", name.escape_ascii(), value.escape_ascii()).unwrap();
    }
    match head.body_length() {
        BodyLength::None => (),
        BodyLength::Length(length) => writeln!(text, "length {length}").unwrap(),
        BodyLength::Chunked => text.push_str("chunked\n"),
    }
    if head.expects_continue() {
        text.push_str("expects 100-continue\n");
    }
    if head.is_upgrade() {
        text.push_str("upgrade\n");
    }
}

/// What is understood when `pieces` arrive one by one and the client then closes its side.
pub fn transcribe<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut transcript = Transcript::new();
    for piece in pieces {
        transcript.feed(piece, usize::MAX);
    }
    transcript.finish();
    transcript.text
}
