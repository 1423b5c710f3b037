//! Style that a program can check, and the arrows of the architecture: who may know whom.
//!
//! A rule that is broken names the file and line. `docs/architecture.md` says why the arrows are.

#![allow(clippy::unwrap_used, reason = "a test that cannot read the tree has failed")]

use std::fs;
use std::path::{Path, PathBuf};

/// A function that does not fit here does not fit in a head either.
const FUNCTION_LINES: usize = 70;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `folder` whose name ends so.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "no file of {folder} ends in {ending}");
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// The code of a file: without comments, which may speak of anything.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = (1..).zip(text.lines());
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Lines of code in `files` that contain one of `words`.
fn mentions(files: &[PathBuf], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for path in files {
        let text = read(path);
        for (number, line) in code_lines(&text) {
            for word in words.iter().filter(|word| line.contains(**word)) {
                found.push(format!("{}:{number}: {word}", path.display()));
            }
        }
    }
    found
}

fn assert_none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

#[test]
fn the_core_does_not_know_python() {
    let found = mentions(&files("src", ".rs"), &["pyo3", "Python", "PyObject"]);
    assert_none(&found, "src/ is pure Rust; Python is the business of pybind/");
}

/// What a protocol without I/O does not name; and of this crate only what is in `known`.
fn assert_sans_io(folder: &str, known: &[&str]) {
    let words = ["io_uring", "socket2", "libc::", "std::net", "std::thread", "std::time"];
    assert_none(&mentions(&files(folder, ".rs"), &words), "a protocol is bytes in, events out");
    for path in files(folder, ".rs") {
        for (number, line) in code_lines(&read(&path)) {
            let known = known.iter().any(|module| line.contains(&format!("crate::{module}")));
            assert!(!line.contains("crate::") || known, "{}:{number}: {line}", path.display());
        }
    }
    let module = read(&root().join(folder).join("mod.rs"));
    assert!(module.contains("#![forbid(unsafe_code)]"));
}

#[test]
fn the_codec_knows_httparse_alone() {
    assert_sans_io("src/http1", &["http1"]);
}

#[test]
fn the_websocket_protocol_knows_http1_alone() {
    assert_sans_io("src/websocket", &["http1", "websocket"]);
}

#[test]
fn what_a_proxy_tells_is_read_without_a_socket_or_a_clock() {
    // Of the proactor, tests use the generator of random numbers.
    let words =
        ["io_uring", "socket2", "libc::", "std::thread", "std::time", "crate::server", "Proactor"];
    let found = mentions(&files("src/proxy", ".rs"), &words);
    assert_none(&found, "src/proxy is sans-IO: it knows addresses and the heads of requests");
    let module = read(&root().join("src/proxy/mod.rs"));
    assert!(module.contains("#![forbid(unsafe_code)]"));
}

#[test]
fn the_access_log_knows_no_server() {
    // Of the proactor, tests use the generator of random numbers.
    let words = ["io_uring", "crate::server", "Proactor", "uring::"];
    let found = mentions(&files("src/access_log", ".rs"), &words);
    assert_none(&found, "src/access_log has records put in and lines taken out");
}

#[test]
fn the_server_does_not_name_an_implementation_of_the_proactor() {
    let found = mentions(&files("src/server", ".rs"), &["uring", "Uring", "Simulated"]);
    assert_none(&found, "src/server is written against the trait");
}

#[test]
fn unsafe_is_where_it_is_said_to_be() {
    let allowed = [
        "proactor/seccomp.rs",
        "uring.rs",
        "proactor/sending.rs",
        "proactor/sockets.rs",
        "hosted/epoll.rs",
        "hosted/monoio.rs",
        "hosted/ring.rs",
        "hosted/tokio_uring.rs",
        "hosted/wake.rs",
        "activation.rs",
        "notify.rs",
        "listener/adopt.rs",
        "listener/bind.rs",
        "access_log/clock.rs",
        "access_log/writer.rs",
    ];
    for path in files("src", ".rs") {
        let text = read(&path);
        let uses = code_lines(&text).any(|(_, line)| line.contains("unsafe {"));
        let name = path.to_string_lossy();
        let expected = allowed.iter().any(|allowed| name.ends_with(allowed));
        assert!(!uses || expected, "{name}: unsafe code in a file that is not listed here");
    }
}

#[test]
fn no_function_is_too_long() {
    for folder in ["src", "pybind/src", "examples", "benches"] {
        for path in files(folder, ".rs") {
            let text = read(&path);
            let lines: Vec<&str> = text.lines().collect();
            for (start, line) in lines.iter().enumerate() {
                let code = line.trim_start();
                let indent = line.len() - code.len();
                let opens = code.split_whitespace().any(|word| word == "fn");
                if !opens || code.starts_with("//") || code.ends_with(';') {
                    continue;
                }
                let end = format!("{}}}", " ".repeat(indent));
                let length = lines[start..].iter().position(|line| **line == end).unwrap_or(0);
                assert!(
                    length <= FUNCTION_LINES,
                    "{}:{}: a function of {length} lines",
                    path.display(),
                    start + 1
                );
            }
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    for folder in ["src", "pybind/src", "tests", "examples", "benches"] {
        for path in files(folder, ".rs") {
            assert!(read(&path).starts_with("//!"), "{} has no head comment", path.display());
        }
    }
    for path in files("pybind/granian_uring", ".py") {
        assert!(read(&path).starts_with("\"\"\""), "{} has no docstring", path.display());
    }
}

#[test]
fn the_words_are_the_design_s_words() {
    for folder in ["src", "pybind", "docs"] {
        for ending in [".rs", ".py", ".pyi", ".md"] {
            let banned = ["utils", "TODO", "FIXME", "XXX", "for now"];
            if folder == "docs" && ending != ".md" || folder == "src" && ending != ".rs" {
                continue;
            }
            if folder == "pybind" && ending == ".md" {
                continue;
            }
            for path in files(folder, ending) {
                let text = read(&path);
                for word in banned {
                    assert!(!text.contains(word), "{}: {word}", path.display());
                }
            }
        }
    }
}

#[test]
fn nothing_points_out_of_the_repository() {
    let outside = ["../shared", "/work/", "/root/"];
    for (folder, ending) in
        [("src", ".rs"), ("pybind", ".py"), ("docs", ".md"), ("examples", ".py")]
    {
        for path in files(folder, ending) {
            let text = read(&path);
            for word in outside {
                assert!(!text.contains(word), "{}: {word}", path.display());
            }
        }
    }
}
