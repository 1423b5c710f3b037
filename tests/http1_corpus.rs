//! The request side of the codec against `tests/corpus/http1`: one rule a file, named for it.
//!
//! Each `.http` file is fed whole, byte by byte, cut once at every offset, and with bytes after it;
//! the events must be the same text each time, and the one in the `.expect` file beside it.
//! `UPDATE=1` rewrites these files; the difference is to be reviewed like code. A random part cuts
//! and damages the same files: nothing panics, and no cut changes what is understood.

#![allow(clippy::unwrap_used, reason = "helpers of a test may fail where they stand")]

use granian_uring::http1::{
    AutomaticHeaders, BodyLength, Connection, Event, Limits, RequestHead, Version,
};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

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
struct Transcript {
    connection: Connection,
    text: String,
    body: Vec<u8>,
    unconsumed: Vec<u8>,
    requests_ended: usize,
    is_over: bool,
}

impl Transcript {
    fn new() -> Self {
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
    fn feed(&mut self, bytes: &[u8], stop_after: usize) {
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

    fn fail(&mut self, error: granian_uring::http1::ProtocolError) {
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
fn transcribe<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut transcript = Transcript::new();
    for piece in pieces {
        transcript.feed(piece, usize::MAX);
    }
    transcript.finish();
    transcript.text
}

/// The cases of one directory: path, content.
fn cases(directory: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/http1").join(directory);
    let paths = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|name| name == "http")).collect();
    paths.sort();
    assert!(paths.len() > 100, "{} has {} cases", root.display(), paths.len());
    let read = |path: PathBuf| {
        let content = fs::read(&path).unwrap();
        (path, content)
    };
    paths.into_iter().map(read).collect()
}

/// Feeds one file every way and compares; returns the common text.
fn check(path: &Path, content: &[u8]) -> String {
    let name = path.file_name().unwrap().display();
    let whole = transcribe([content]);
    let expect = path.with_extension("expect");
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        fs::write(&expect, &whole).unwrap();
    }
    let expected = fs::read_to_string(&expect).unwrap_or_default();
    assert_eq!(whole, expected, "{name}: not as in {}", expect.display());
    assert_eq!(transcribe(content.chunks(1)), whole, "{name}: fed bytewise");
    for cut in 0..=content.len() {
        let (start, rest) = content.split_at(cut);
        assert_eq!(transcribe([start, rest]), whole, "{name}: cut at {cut}");
    }
    whole
}

#[test]
fn valid_requests_are_understood() {
    for (path, content) in cases("valid") {
        let text = check(&path, &content);
        assert!(!text.contains("error"), "{}: {text}", path.display());
        let requests = text.matches("\nend").count();
        // What came after a request that closes is nobody's.
        let mut alone = Transcript::new();
        alone.feed(&content, requests);
        assert!(alone.unconsumed.is_empty() || alone.is_over, "{}", path.display());
        for tail in [&b"GET"[..], b"\r\n\r\n", b"0\r\n\r\n", b"\0\n"] {
            let mut transcript = Transcript::new();
            transcript.feed(&[&content, tail].concat(), requests);
            assert_eq!(transcript.text, text, "{}: with a tail", path.display());
            let rest = [&alone.unconsumed, tail].concat();
            assert_eq!(transcript.unconsumed, rest, "{}: the tail", path.display());
        }
    }
}

#[test]
fn invalid_requests_are_refused() {
    for (path, content) in cases("invalid") {
        let text = check(&path, &content);
        let last = text.lines().last().unwrap_or_default();
        assert!(last.starts_with("error "), "{}: {text}", path.display());
        // Only the end of the input is no longer one where more follows.
        if !last.contains("was closed within") {
            let tail = b"\r\n\r\nGET / HTTP/1.1\r\n\r\n";
            let followed = transcribe([&[&content, &tail[..]].concat()[..]]);
            assert_eq!(followed, text, "{}: with a tail", path.display());
        }
    }
}

#[test]
fn no_case_is_there_twice() {
    let mut seen = std::collections::HashMap::new();
    for (path, content) in [cases("valid"), cases("invalid")].concat() {
        if let Some(first) = seen.insert(content, path.clone()) {
            panic!("{} and {} are the same bytes", first.display(), path.display());
        }
    }
}

/// xorshift64*: enough to choose cuts, and the same everywhere for one seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap() % bound
    }

    /// Changes, removes, doubles or exchanges a few bytes.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        const FAVOURITES: &[u8] = b"\r\n :;,0aF\0\t/?#*%chunked";
        for _ in 0..=self.below(3) {
            if bytes.is_empty() {
                return;
            }
            let position = self.below(bytes.len());
            match self.below(5) {
                0 => bytes[position] = FAVOURITES[self.below(FAVOURITES.len())],
                1 => bytes[position] = self.below(256).to_le_bytes()[0],
                2 => drop(bytes.remove(position)),
                3 => bytes.insert(position, FAVOURITES[self.below(FAVOURITES.len())]),
                _ => bytes.truncate(position),
            }
        }
    }

    fn cut<'a>(&mut self, mut bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let longest = 1 + self.below(40);
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at((1 + self.below(longest)).min(bytes.len()));
            pieces.push(piece);
            bytes = rest;
        }
        pieces
    }
}

#[test]
fn damaged_requests_mean_the_same_in_every_cut() {
    let clock = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let given = std::env::var("SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = given.unwrap_or_else(|| u64::from(clock().subsec_nanos())) | 1;
    println!("SEED={seed}");
    let mut random = Random(seed);
    let originals = [cases("valid"), cases("invalid")].concat();
    for round in 0..20_000 {
        let first = &originals[random.below(originals.len())].1;
        let second = &originals[random.below(originals.len())].1;
        let mut bytes = [&first[..], second].concat();
        random.damage(&mut bytes);
        let whole = transcribe([&bytes[..]]);
        let pieces = transcribe(random.cut(&bytes));
        assert_eq!(pieces, whole, "SEED={seed}, round {round}: {}", bytes.escape_ascii());
    }
}
