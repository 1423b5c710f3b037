//! The request side of the codec against `tests/corpus/http1`: one rule a file, named for it.
//!
//! Each `.http` file is fed whole, byte by byte, cut once at every offset, and with bytes after it;
//! the events must be the same text each time, and the one in the `.expect` file beside it.
//! `UPDATE=1` rewrites these files; the difference is to be reviewed like code. A random part cuts
//! and damages the same files: nothing panics, and no cut changes what is understood.

#![allow(clippy::unwrap_used, reason = "helpers of a test may fail where they stand")]

mod http1;

use http1::transcript::{Transcript, transcribe};
use std::fs;
use std::path::{Path, PathBuf};

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

/// Whether `name` is what `pattern` says, in which a `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(name) = name.strip_prefix(start) else { return false };
    name.char_indices().any(|(index, _)| matches(rest, &name[index..])) || matches(rest, "")
}

#[test]
fn every_case_is_of_a_rule_and_every_rule_has_its_cases() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rules = fs::read_to_string(root.join("tests/corpus/http1/README.md")).unwrap();
    let is_name = |word: &&str| {
        *word != "*"
            && word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'*'))
    };
    let named: Vec<&str> = rules.split('`').skip(1).step_by(2).filter(is_name).collect();
    let unit = fs::read_to_string(root.join("src/http1/tests.rs")).unwrap();
    let cases = [cases("valid"), cases("invalid")].concat();
    let cases: Vec<&str> =
        cases.iter().map(|(path, _)| path.file_stem().unwrap().to_str().unwrap()).collect();
    for case in &cases {
        assert!(named.iter().any(|name| matches(name, case)), "{case} is of no rule in README.md");
    }
    for name in named {
        let is_case = cases.iter().any(|case| matches(name, case));
        let is_test = unit.contains(&format!("fn {name}("));
        assert!(is_case || is_test || !name.contains('_'), "README.md: no case {name}");
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
