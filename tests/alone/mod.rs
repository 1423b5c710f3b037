//! Tests that change or count what belongs to the whole process.
#![allow(clippy::unwrap_used, reason = "a test panics")]

use std::process::Command;
use std::{env, thread};

/// True in a child process that runs nothing but the calling test. In the parent, run that child
/// and fail when it fails.
pub(crate) fn alone() -> bool {
    let test = thread::current().name().unwrap().to_owned();
    if env::var("RUNS_ALONE").is_ok_and(|name| name == test) {
        return true;
    }
    let status = Command::new(env::current_exe().unwrap())
        .args(["--exact", &test, "--nocapture"])
        .env("RUNS_ALONE", &test)
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    false
}
