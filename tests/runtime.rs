//! Which runtime a process gets, and what it is told, where the kernel refuses `io_uring`.
//!
//! Seccomp filters stand for containers, for `SystemCallFilter=` and for the sysctl
//! `kernel.io_uring_disabled`, which answers as they do: `io_uring_setup` fails with EPERM.
#![allow(unsafe_code, reason = "filters are put on through prctl")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test panics, and says why")]

mod alone;

use std::io;
use std::time::Instant;

use alone::alone;
use granian_uring::proactor::Proactor;
use granian_uring::proactor::runtime::{Choice, Kind, Refusal, Runtime, Wish};

/// `linux/seccomp.h`: the whole process is killed by SIGSYS; or the call fails.
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

const SETUP: libc::c_long = libc::SYS_io_uring_setup;
const ENTER: libc::c_long = libc::SYS_io_uring_enter;
const REGISTER: libc::c_long = libc::SYS_io_uring_register;

/// `struct sock_filter`; `jf` says how many instructions to leave out where a comparison fails.
fn instruction(code: u32, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code.try_into().unwrap(), jt: 0, jf, k }
}

/// From now on this process gets `answer` to `call`; every architecture has the same numbers.
fn filter(call: libc::c_long, answer: u32) {
    let call = u32::try_from(call).unwrap();
    let mut program = [
        // The number of the call is the first field of `struct seccomp_data`.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, call),
        instruction(libc::BPF_RET | libc::BPF_K, 0, answer),
        instruction(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
    // SAFETY: a program of four instructions that outlives the calls, which copy it. This process
    // runs one test alone.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let filtered = libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
            &raw const program,
        );
        assert_eq!(filtered, 0, "{}", io::Error::last_os_error());
    }
}

fn open(wish: Wish) -> Result<(Runtime, Option<Refusal>), Refusal> {
    Choice::new(wish)?.open()
}

/// The runtime that `auto` gives, which must work, and why it is not the best one.
fn auto() -> (Kind, Option<String>) {
    let (mut runtime, refusal) = open(Wish::Auto).unwrap();
    runtime.wait(Some(Instant::now()), &mut Vec::new()).unwrap();
    let refusal = refusal.map(|refusal| refusal.to_string());
    println!("{:?}: {refusal:?}", runtime.kind());
    (runtime.kind(), refusal)
}

/// `auto` falls back and names `problem` and `advice`; whatever needs `io_uring` fails with them,
/// and names what does not.
fn assert_refused(problem: &str, advice: &str) {
    let (kind, told) = auto();
    let told = told.unwrap();
    assert_eq!(kind, Kind::Epoll);
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Epoll) {
        let error = open(Wish::Exactly(kind)).err().unwrap().to_string();
        println!("{error}");
        assert!(error.contains(&format!("--runtime {} cannot be used: ", kind.name())));
        assert!(error.contains("--runtime epoll"));
        assert!(error.contains(problem) && error.contains(advice), "{error}");
    }
    assert!(told.contains(problem) && told.contains(advice), "{told}");
    assert!(open(Wish::Exactly(Kind::Epoll)).unwrap().1.is_none());
}

#[test]
fn auto_is_uring_where_the_kernel_allows_it() {
    assert_eq!(auto(), (Kind::Uring, None));
}

#[test]
fn a_filter_that_has_nothing_to_do_with_io_uring_changes_nothing() {
    if alone() {
        filter(libc::SYS_reboot, KILL);
        assert_eq!(auto(), (Kind::Uring, None));
    }
}

fn assert_found_out(call: libc::c_long, name: &str) {
    filter(call, KILL);
    assert_refused(&format!("ends the process at {name} (SIGSYS)"), "SystemCallFilter=");
}

#[test]
fn a_filter_that_kills_at_the_setup_is_found_out_without_dying() {
    if alone() {
        assert_found_out(SETUP, "io_uring_setup");
    }
}

#[test]
fn a_filter_that_kills_at_a_registration_is_found_out_without_dying() {
    if alone() {
        assert_found_out(REGISTER, "io_uring_register");
    }
}

#[test]
fn a_filter_that_kills_at_the_first_wait_is_found_out_without_dying() {
    if alone() {
        assert_found_out(ENTER, "io_uring_enter");
    }
}

#[test]
fn a_filter_that_refuses_is_told_with_the_way_out() {
    if alone() {
        filter(SETUP, REFUSE);
        assert_refused("io_uring_setup failed: Operation not permitted", "io_uring_disabled");
    }
}

#[test]
fn a_call_that_comes_later_is_tried_too() {
    if alone() {
        filter(ENTER, REFUSE);
        assert_refused("io_uring_enter failed: Operation not permitted", "SystemCallFilter=");
    }
}

#[test]
fn a_child_that_cannot_be_made_is_a_reason_too() {
    if alone() {
        filter(libc::SYS_clone, REFUSE);
        assert_refused("no process could be started to try", "TasksMax=");
    }
}
