//! What the tests of the codec and the fuzzers in `fuzz/` have in common.

#![allow(dead_code, reason = "no test needs all of it")]
#![allow(unreachable_pub, reason = "a module of several programs, each its own crate")]
#![allow(clippy::unwrap_used, reason = "helpers of a test may fail where they stand")]

pub mod exchange;
pub mod response;
pub mod transcript;
