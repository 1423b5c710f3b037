//! Sockets of every kind, real ones: what `adopt` says of each and leaves untouched, what `open`
//! decides, what a bind of our own does to files and ports, and what systemd hears from `notify`.
//!
//! `activation::take` and `notify::take` change the process's environment, so they run in a child:
//! this same program, started as systemd starts a service (descriptor 3, `LISTEN_PID` its own).

#![allow(unsafe_code, reason = "the kernel's view of a socket is read with raw getsockopt")]
#![allow(clippy::unwrap_used, reason = "clippy allows it in tests, but not in their helpers")]

use std::fs::{self, File};
use std::io;
use std::mem::ManuallyDrop;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use granian_uring::activation::{self, Activation, ActivationError, PassedFd};
use granian_uring::listener::{
    Address, Level, ListenError, Listener, Notice, SocketOptions, adopt, open,
};
use granian_uring::notify::{self, Notifier, State};
use socket2::{Domain, SockAddr, Socket, Type};

// --- adopt ---------------------------------------------------------------------------------------

#[test]
fn adopt_takes_a_listener_of_each_family() {
    let directory = Directory::new();
    let path = directory.join("web.sock");
    let abstract_name = unique("web").into_bytes();
    let unix_address = |name: &[u8]| {
        let name = [b"\0", name].concat();
        SockAddr::unix(String::from_utf8(name).unwrap()).unwrap()
    };
    let table: [(SockAddr, Domain, Address); 2] = [
        (SockAddr::unix(&path).unwrap(), Domain::UNIX, Address::UnixPath(path.clone())),
        (unix_address(&abstract_name), Domain::UNIX, Address::UnixAbstract(abstract_name.clone())),
    ];
    for (address, domain, expected) in table {
        let socket = listening(domain, &address, 4);
        let listener = adopt(socket.as_raw_fd(), Some("web")).unwrap();
        assert_eq!(listener.address, expected);
        assert_eq!(listener.name.as_deref(), Some("web"));
        assert!(listener.inherited && listener.file.is_none());
    }
    for host in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
        let socket = TcpListener::bind(host).unwrap();
        let listener = adopt(socket.as_raw_fd(), None).unwrap();
        assert_eq!(listener.address, Address::Tcp(socket.local_addr().unwrap()));
        assert_eq!(listener.name, None);
    }
}

#[test]
fn adopt_names_what_else_it_found() {
    let directory = Directory::new();
    let (connection, _peer) = UnixStream::pair().unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let accepted = TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
    let (pipe, _writer) = io::pipe().unwrap();
    let unbound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    bound.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    let (packets, _) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    let netlink = Socket::new(Domain::from(libc::AF_NETLINK), Type::DGRAM, None).unwrap();
    let table: Vec<(OwnedFd, &str, &str)> = vec![
        (UdpSocket::bind("127.0.0.1:0").unwrap().into(), "is a datagram socket", "ListenStream="),
        (UnixDatagram::unbound().unwrap().into(), "is a datagram socket", "ListenStream="),
        (packets.into(), "is a sequential-packet socket", "ListenSequentialPacket="),
        (connection.into(), "is a connection", "Accept=no"),
        (accepted.into(), "is a connection", "Accept=no"),
        (unbound.into(), "does not listen", "listen()"),
        (bound.into(), "does not listen", "listen()"),
        (pipe.into(), "is a pipe", "ListenStream="),
        (File::open("/dev/null").unwrap().into(), "is a character device", "ListenStream="),
        (File::open("/proc/self/exe").unwrap().into(), "is a file", "ListenStream="),
        (File::open(&directory.path).unwrap().into(), "is a directory", "ListenStream="),
        (netlink.into(), "address family 16", "ListenStream="),
    ];
    for (fd, message, hint) in table {
        let number = fd.as_raw_fd();
        let before = descriptor_flags(number);
        let text = adopt(number, Some("web")).expect_err(message).to_string();
        let (head, tail) = text.split_once("\n\nhint: ").expect("a hint after an empty line");
        assert!(head.starts_with(&format!("fd {number} (\"web\")")) && head.contains(message));
        assert!(tail.contains(hint), "{text}");
        assert!(!text.contains('\t') && !text.contains("  "), "{text:?}");
        assert_eq!(descriptor_flags(number), before, "a refused descriptor is left as it was");
    }
    let closed = 1_000_000;
    let text = adopt(closed, None).unwrap_err().to_string();
    assert!(
        text.starts_with("fd 1000000 is not open, expected a listening stream socket\n\nhint:")
    );
}

#[test]
fn adopt_leaves_the_socket_as_found() {
    let directory = Directory::new();
    let path = directory.join("web.sock");
    let tcp = |text: &str| SockAddr::from(text.parse::<SocketAddr>().unwrap());
    for (domain, address) in [
        (Domain::IPV4, tcp("127.0.0.1:0")),
        (Domain::IPV6, tcp("[::1]:0")),
        (Domain::UNIX, SockAddr::unix(&path).unwrap()),
    ] {
        let socket = listening(domain, &address, 3);
        set_close_on_exec(&socket, false);
        let before = snapshot(&socket);
        assert_eq!(changed(&before, &socket), []);
        let file = fs::metadata(&path).map(|m| (m.ino(), m.mode(), m.ctime_nsec())).ok();

        let listener = adopt(socket.as_raw_fd(), None).unwrap();
        assert_eq!(changed(&before, &socket), []);
        assert_eq!(descriptor_flags(socket.as_raw_fd()), libc::FD_CLOEXEC);
        assert_eq!(descriptor_flags(listener.fd.as_raw_fd()), libc::FD_CLOEXEC);

        drop(listener);
        assert_eq!(changed(&before, &socket), []);
        assert_eq!(fs::metadata(&path).map(|m| (m.ino(), m.mode(), m.ctime_nsec())).ok(), file);

        // What the snapshot would have seen.
        socket.set_nonblocking(true).unwrap();
        assert_eq!(changed(&before, &socket), [(-1, libc::F_GETFL)]);
        socket.set_nonblocking(false).unwrap();
        assert_eq!(changed(&before, &socket), []);
        if domain == Domain::UNIX {
            assert_eq!(clients_until_full(&address), 4, "backlog 3, and one that waits");
        } else {
            socket.listen(100).unwrap();
            assert_eq!(changed(&before, &socket), [(libc::IPPROTO_TCP, libc::TCP_INFO)]);
        }
    }
}

#[test]
fn adopt_of_a_standard_stream_does_not_close_it_for_children() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let output = child("child_adopts_standard_input", OwnedFd::from(socket), &[]);
    assert_passed(&output);
}

#[test]
#[ignore = "run by adopt_of_a_standard_stream_does_not_close_it_for_children"]
fn child_adopts_standard_input() {
    // The child is started with the socket as 0 and as 3.
    let listener = adopt(0, None).unwrap();
    assert!(listener.fd.as_raw_fd() > 2);
    assert_eq!(descriptor_flags(0), 0);
}

// --- open: what was asked for against what was passed --------------------------------------------

#[test]
fn activation_asked_for_never_becomes_a_bind() {
    let demand = SocketOptions { fd_from_systemd: true, ..anywhere() };
    let by_name = SocketOptions { fd_names: vec!["web".to_owned()], ..anywhere() };
    for options in [demand, by_name] {
        let text = failure(&options, Err(ActivationError::Absent("LISTEN_PID")));
        assert!(text.contains("LISTEN_PID is not set"), "{text}");
        let other = ActivationError::OtherProcess { listen_pid: 17, pid: 18 };
        let text = failure(&options, Err(other));
        assert!(text.contains("process 17") && text.contains("process 18"), "{text}");
        assert!(text.contains("\n\nhint: ") && text.contains("exec granian-uring"), "{text}");
        let text = failure(&options, Err(ActivationError::InvalidCount("junk".to_owned())));
        assert!(text.contains("\"junk\""), "{text}");
    }
}

#[test]
fn every_passed_listener_is_used_when_asked_for() {
    let sockets = [tcp_listener(), tcp_listener()];
    let options = SocketOptions { fd_from_systemd: true, ..SocketOptions::default() };
    let (listeners, notices) = open(&options, passed(&sockets, Some(&["web", ""]))).unwrap();
    assert_eq!(addresses(&listeners), sockets.each_ref().map(address_of));
    assert_eq!(listeners[0].name.as_deref(), Some("web"));
    assert_eq!(listeners[1].name.as_deref(), Some(""));
    assert_eq!(notices, []);
}

#[test]
fn names_choose_and_an_unknown_one_lists_what_there_is() {
    let sockets = [tcp_listener(), tcp_listener(), tcp_listener()];
    let names = Some(&["web", "admin", "web"][..]);
    let choose = |wanted: &[&str]| SocketOptions {
        fd_names: wanted.iter().map(|&name| name.to_owned()).collect(),
        ..SocketOptions::default()
    };
    let (listeners, _) = open(&choose(&["web"]), passed(&sockets, names)).unwrap();
    assert_eq!(addresses(&listeners), [address_of(&sockets[0]), address_of(&sockets[2])]);
    let (listeners, _) = open(&choose(&["web", "admin"]), passed(&sockets, names)).unwrap();
    assert_eq!(listeners.len(), 3);

    let text = failure(&choose(&["web", "api"]), passed(&sockets, names));
    assert!(text.contains("named \"api\"; the names are \"admin\", \"web\"\n\nhint: "), "{text}");
    let text = failure(&choose(&["web"]), passed(&sockets, None));
    assert!(text.contains("--fd-name \"web\" matches nothing"), "{text}");
    assert!(text.contains("LISTEN_FDNAMES"), "{text}");
}

#[test]
fn names_leave_bad_descriptors_of_other_names_alone() {
    let web = OwnedFd::from(tcp_listener());
    let (memory, _writer) = io::pipe().unwrap();
    let fds = vec![named(web.as_raw_fd(), "web"), named(memory.as_raw_fd(), "cache")];
    let options = SocketOptions { fd_names: vec!["web".to_owned()], ..SocketOptions::default() };
    let (listeners, _) = open(&options, Ok(Activation { fds })).unwrap();
    assert_eq!(listeners.len(), 1);
}

#[test]
fn the_descriptor_store_is_skipped_and_anything_else_is_fatal() {
    let web = tcp_listener();
    let (pipe, _writer) = io::pipe().unwrap();
    let datagram = UdpSocket::bind("127.0.0.1:0").unwrap();
    let options = SocketOptions { fd_from_systemd: true, ..SocketOptions::default() };
    let open_with = |others: &[(RawFd, &str)]| {
        let mut fds = vec![named(web.as_raw_fd(), "web")];
        fds.extend(others.iter().map(|&(fd, name)| named(fd, name)));
        open(&options, Ok(Activation { fds }))
    };

    let stored = [(pipe.as_raw_fd(), "stored"), (datagram.as_raw_fd(), "stored")];
    let (listeners, notices) = open_with(&stored).unwrap();
    assert_eq!(addresses(&listeners), [address_of(&web)]);
    assert_eq!(notices.iter().map(|n| n.level).collect::<Vec<_>>(), [Level::Info; 2]);
    assert!(notices[0].text.contains(&format!("fd {} ", pipe.as_raw_fd())), "{notices:?}");

    assert!(matches!(
        open_with(&[(pipe.as_raw_fd(), "cache")]),
        Err(ListenError::NotASocket { .. })
    ));
    assert!(matches!(
        open_with(&[(datagram.as_raw_fd(), "web")]),
        Err(ListenError::Datagram { .. })
    ));
    assert!(matches!(open_with(&[(1_000_000, "stored")]), Err(ListenError::Closed { .. })));
    let only = Activation { fds: vec![named(pipe.as_raw_fd(), "stored")] };
    assert!(matches!(open(&options, Ok(only)), Err(ListenError::OnlyStored)));
}

#[test]
fn without_options_what_was_passed_is_used_and_said() {
    let sockets = [tcp_listener()];
    let activation = passed(&sockets, Some(&["web"]));
    let (listeners, notices) = open(&SocketOptions::default(), activation).unwrap();
    assert_eq!(addresses(&listeners), [address_of(&sockets[0])]);
    assert!(listeners[0].inherited);
    let [Notice { level: Level::Info, text }] = &notices[..] else { panic!("{notices:?}") };
    assert!(text.contains(&address_of(&sockets[0]).to_string()), "{text}");
}

#[test]
fn without_options_a_malformed_activation_is_not_hidden_by_a_bind() {
    let error = ActivationError::NameCount { names: 1, fds: 2 };
    let text = failure(&SocketOptions::default(), Err(error.clone()));
    assert!(text.contains("1 names for 2 descriptors"), "{text}");
    let (listeners, notices) = open(&anywhere(), Err(error)).unwrap();
    assert_eq!(listeners.len(), 1);
    assert_eq!(notices[0].level, Level::Warning);
}

#[test]
fn without_options_and_sockets_the_default_address_is_bound() {
    // Whether port 8000 is free on this machine is not ours to know; the address shows either way.
    let (text, notices) =
        match open(&SocketOptions::default(), Err(ActivationError::Absent("LISTEN_PID"))) {
            Ok((listeners, notices)) => (listeners[0].address.to_string(), notices),
            Err(error) => (error.to_string(), Vec::new()),
        };
    assert!(text.contains("127.0.0.1:8000"), "{text}");
    assert_eq!(notices, []);
}

#[test]
fn another_process_s_sockets_are_a_debug_line() {
    let other = ActivationError::OtherProcess { listen_pid: 17, pid: 18 };
    let (listeners, notices) = open(&anywhere(), Err(other)).unwrap();
    assert!(!listeners[0].inherited);
    let [Notice { level: Level::Debug, text }] = &notices[..] else { panic!("{notices:?}") };
    assert!(text.contains("17") && text.contains("18"), "{text}");
}

#[test]
fn passed_sockets_that_nobody_asked_for_are_ignored_with_a_warning() {
    let sockets = [tcp_listener()];
    let (listeners, notices) = open(&anywhere(), passed(&sockets, Some(&["web"]))).unwrap();
    assert_eq!(listeners.len(), 1);
    assert_ne!(listeners[0].address, address_of(&sockets[0]));
    let [Notice { level: Level::Warning, text }] = &notices[..] else { panic!("{notices:?}") };
    assert!(text.contains("(\"web\")") && text.contains("--fd-from-systemd"), "{text}");
}

#[test]
fn a_number_is_adopted_once_and_with_its_name() {
    let sockets = [tcp_listener(), tcp_listener()];
    let fd = sockets[0].as_raw_fd();
    let options = SocketOptions { fds: vec![fd, fd], ..SocketOptions::default() };
    let (listeners, notices) = open(&options, passed(&sockets, Some(&["web", "api"]))).unwrap();
    assert_eq!(listeners.len(), 1);
    assert_eq!(listeners[0].name.as_deref(), Some("web"));
    assert!(notices[0].text.contains("api") && !notices[0].text.contains("web"), "{notices:?}");

    let options = SocketOptions { fd_from_systemd: true, ..options };
    let (listeners, notices) = open(&options, passed(&sockets, None)).unwrap();
    assert_eq!((listeners.len(), notices.len()), (2, 0));
}

#[test]
fn every_kind_of_socket_may_be_combined() {
    let directory = Directory::new();
    let sockets = [tcp_listener()];
    let numbered = tcp_listener();
    let options = SocketOptions {
        fd_from_systemd: true,
        fds: vec![numbered.as_raw_fd()],
        uds: Some(directory.text("web.sock")),
        ..anywhere()
    };
    let (listeners, notices) = open(&options, passed(&sockets, Some(&["web"]))).unwrap();
    let inherited: Vec<bool> = listeners.iter().map(|listener| listener.inherited).collect();
    assert_eq!(inherited, [true, true, false, false]);
    assert_eq!(notices, []);
}

// --- open: our own TCP ---------------------------------------------------------------------------

#[test]
fn a_host_name_listens_on_all_its_addresses_on_one_port() {
    let options = SocketOptions { host: Some("localhost".to_owned()), ..anywhere() };
    let (listeners, _) = open(&options, absent()).unwrap();
    let bound: Vec<SocketAddr> = listeners.iter().map(|l| tcp_address(&l.address)).collect();
    assert!(bound.iter().all(|address| address.port() == bound[0].port() && address.port() != 0));
    for (position, address) in bound.iter().enumerate() {
        assert!(!bound[..position].contains(address), "{address} is there twice");
        TcpStream::connect(address).unwrap();
    }
}

#[test]
fn an_ipv6_wildcard_alone_serves_ipv4_too() {
    for (host, dual_stack) in [("::", true), ("[::]", true), ("::1", false)] {
        let options = SocketOptions { host: Some(host.to_owned()), ..anywhere() };
        let (listeners, _) = open(&options, absent()).unwrap();
        let port = tcp_address(&listeners[0].address).port();
        TcpStream::connect(("::1", port)).unwrap();
        assert_eq!(TcpStream::connect(("127.0.0.1", port)).is_ok(), dual_stack, "{host}");
    }
}

#[test]
fn an_own_socket_is_made_as_a_server_wants_it() {
    let options = SocketOptions { backlog: 7, ..anywhere() };
    let (listeners, _) = open(&options, absent()).unwrap();
    let socket = Socket::from(listeners[0].fd.try_clone().unwrap());
    assert!(socket.reuse_address().unwrap());
    assert!(!socket.reuse_port().unwrap(), "two servers on one port must not happen by accident");
    assert_eq!(descriptor_flags(listeners[0].fd.as_raw_fd()), libc::FD_CLOEXEC);
    assert_eq!(tcp_backlog(&socket), 7);
    assert!(!listeners[0].inherited);
}

#[test]
fn what_cannot_be_bound_says_why() {
    let taken = tcp_listener();
    let port = taken.local_addr().unwrap().port();
    let table = [
        ("127.0.0.1", port, "Address already in use", "ss -lxtnp"),
        ("192.0.2.1", 0, "192.0.2.1:0", "ip address"),
        ("no such host", 0, "cannot resolve --host \"no such host\"", "getent"),
        ("", 0, "cannot resolve --host \"\"", "getent"),
    ];
    for (host, port, message, hint) in table {
        let options = SocketOptions { host: Some(host.to_owned()), port: Some(port), ..anywhere() };
        let text = failure(&options, absent());
        let (head, tail) = text.split_once("\n\nhint: ").expect("a hint after an empty line");
        assert!(head.contains(message) && tail.contains(hint), "{text}");
    }
}

// --- open: our own Unix sockets ------------------------------------------------------------------

#[test]
fn a_socket_file_has_exactly_the_mode_asked_for() {
    let directory = Directory::new();
    for mode in [0o600, 0o660, 0o666, 0o777] {
        let listener = unix(&directory.text("web.sock"), Some(mode)).unwrap();
        let path = directory.join("web.sock");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        assert_eq!(listener.address, Address::UnixPath(path.clone()));
        UnixStream::connect(&path).unwrap();
    }
}

#[test]
fn the_file_of_a_dead_server_is_replaced() {
    let directory = Directory::new();
    let path = directory.join("web.sock");
    drop(UnixListener::bind(&path).unwrap());
    let listener = unix(&directory.text("web.sock"), None).unwrap();
    UnixStream::connect(&path).expect("somebody listens");
    drop(listener);
    assert!(!path.exists(), "our own file goes when the listener does");
}

#[test]
fn a_server_that_dies_while_we_look_is_replaced() {
    let directory = Directory::new();
    let path = directory.join("web.sock");
    let dying = UnixListener::bind(&path).unwrap();
    let name = directory.text("web.sock");
    let successor = thread::spawn(move || unix(&name, None).map(|_| ()));
    dying.accept().expect("the successor looks whether anybody is there");
    drop(dying);
    successor.join().unwrap().expect("it looks again");
}

#[test]
fn a_live_server_and_any_other_file_are_left_alone() {
    let directory = Directory::new();
    let live = UnixListener::bind(directory.join("live.sock")).unwrap();
    let full = listening(Domain::UNIX, &SockAddr::unix(directory.join("full.sock")).unwrap(), 0);
    let waiting = clients_until_full(&full.local_addr().unwrap());
    assert!(waiting > 0, "the backlog is full");
    let _datagram = UnixDatagram::bind(directory.join("datagram.sock")).unwrap();
    fs::write(directory.join("notes.txt"), "kept").unwrap();
    std::os::unix::fs::symlink(directory.join("notes.txt"), directory.join("link")).unwrap();

    for (name, message) in [
        ("live.sock", "a server listens there"),
        ("full.sock", "a server listens there"),
        ("datagram.sock", "a server listens there"),
        ("notes.txt", "is not a socket"),
        ("link", "is not a socket"),
        ("missing/web.sock", "No such file"),
    ] {
        let before = fs::symlink_metadata(directory.join(name)).map(|m| m.ino()).ok();
        let text = unix(&directory.text(name), None).expect_err(message).to_string();
        assert!(text.contains(message) && text.contains("\n\nhint: "), "{text}");
        let after = fs::symlink_metadata(directory.join(name)).map(|m| m.ino()).ok();
        assert_eq!(before, after, "{name}");
    }
    assert_eq!(fs::read_to_string(directory.join("notes.txt")).unwrap(), "kept");
    live.set_nonblocking(true).unwrap();
    live.accept().expect("the live server was asked, politely");
}

/// Without the lock on the directory two of them find the dead file, and the slower one removes the
/// file of the faster: a server that nobody can reach.
#[test]
fn of_many_servers_at_once_one_gets_the_path_and_keeps_it() {
    let directory = Directory::new();
    let path = directory.join("web.sock");
    drop(UnixListener::bind(&path).unwrap());
    let start = Barrier::new(16);
    let name = directory.text("web.sock");
    let results: Vec<_> = thread::scope(|scope| {
        let server = || {
            start.wait();
            unix(&name, None)
        };
        let servers: Vec<_> = (0..16).map(|_| scope.spawn(server)).collect();
        servers.into_iter().map(|server| server.join().unwrap()).collect()
    });
    let winners: Vec<&Listener> = results.iter().flatten().collect();
    assert_eq!(winners.len(), 1);
    let server = UnixListener::from(winners[0].fd.try_clone().unwrap());
    server.set_nonblocking(true).unwrap();
    while server.accept().is_ok() {}
    UnixStream::connect(&path).unwrap();
    server.accept().expect("the path leads to the winner");
}

#[test]
fn a_server_that_is_starting_keeps_the_others_out() {
    let directory = Directory::new();
    let path = directory.join("web.sock");
    drop(UnixListener::bind(&path).unwrap());
    let before = fs::metadata(&path).unwrap().ino();
    let lock = File::open(&directory.path).unwrap();
    // SAFETY: plain numbers, and the descriptor is open.
    assert_eq!(unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_SH) }, 0);
    let text = unix(&directory.text("web.sock"), None).unwrap_err().to_string();
    assert!(text.starts_with("cannot lock the directory"), "{text}");
    assert_eq!(fs::metadata(&path).unwrap().ino(), before);
    drop(lock);
    unix(&directory.text("web.sock"), None).expect("the lock ends with its holder");
}

#[test]
fn a_file_that_is_no_longer_ours_stays() {
    let directory = Directory::new();
    let path = directory.join("web.sock");
    let listener = unix(&directory.text("web.sock"), None).unwrap();
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(listener);
    assert!(path.exists());
}

#[test]
fn a_fork_that_ends_does_not_remove_the_file() {
    let directory = Directory::new();
    let listener = ManuallyDrop::new(unix(&directory.text("web.sock"), None).unwrap());
    // SAFETY: the child runs one destructor (open, flock, getpid, close) and leaves.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop(ManuallyDrop::into_inner(listener));
        // SAFETY: leaves at once, without the parent's exit handlers.
        unsafe { libc::_exit(0) };
    }
    let mut status = -1;
    // SAFETY: `status` outlives the call, and the child is ours.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
    assert!(directory.join("web.sock").exists());
    drop(ManuallyDrop::into_inner(listener));
    assert!(!directory.join("web.sock").exists());
}

#[test]
fn an_abstract_name_needs_no_file() {
    let name = unique("abstract");
    let listener = unix(&format!("@{name}"), None).unwrap();
    assert_eq!(listener.address, Address::UnixAbstract(name.clone().into_bytes()));
    assert!(listener.file.is_none());
    let text = unix(&format!("@{name}"), None).unwrap_err().to_string();
    assert!(text.contains("Address already in use"), "{text}");
    let text = unix(&format!("@{name}"), Some(0o600)).unwrap_err().to_string();
    assert!(text.contains("--uds-permissions"), "{text}");
    for unusable in ["", "@", &"x".repeat(108)] {
        let text = unix(unusable, None).unwrap_err().to_string();
        assert!(text.starts_with("cannot use --uds"), "{text}");
    }
}

#[test]
fn permissions_without_a_unix_socket_are_pointed_out() {
    let options = SocketOptions { uds_permissions: Some(0o600), ..anywhere() };
    let (_, notices) = open(&options, absent()).unwrap();
    assert!(notices[0].level == Level::Warning && notices[0].text.contains("--uds-permissions"));
}

// --- take, in a child started as systemd starts a service ----------------------------------------

#[test]
fn take_reads_the_environment_once_and_hides_it_from_children() {
    let socket = OwnedFd::from(tcp_listener());
    let environment = [
        ("LISTEN_FDS", "1"),
        ("LISTEN_FDNAMES", "web"),
        ("NOTIFY_SOCKET", "@nobody"),
        ("WATCHDOG_USEC", "2000000"),
    ];
    assert_passed(&child("child_takes_everything", socket, &environment));
}

#[test]
#[ignore = "run by take_reads_the_environment_once_and_hides_it_from_children"]
fn child_takes_everything() {
    assert_eq!(descriptor_flags(3), 0, "systemd passes descriptors that survive exec");
    // SAFETY: the test harness's other thread only waits for this one.
    let activation = unsafe { activation::take() }.unwrap();
    assert_eq!(activation.fds, [named(3, "web")]);
    assert_eq!(descriptor_flags(3), libc::FD_CLOEXEC);
    // SAFETY: as above.
    let (notifier, watchdog) = unsafe { notify::take() }.unwrap();
    assert!(notifier.is_connected());
    assert_eq!(watchdog, Some(Duration::from_secs(2)));

    for variable in activation::VARIABLES.iter().chain(&notify::VARIABLES) {
        assert_eq!(std::env::var_os(variable), None, "{variable}");
    }
    let output = Command::new("sh").args(["-c", "env; test ! -e /dev/fd/3"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "a child of ours has the socket");
    assert!(text.contains("PATH=") && !text.contains("LISTEN_") && !text.contains("NOTIFY_"));

    // SAFETY: as above.
    let again = unsafe { activation::take() };
    assert_eq!(again, Err(ActivationError::Absent("LISTEN_PID")));
}

#[test]
fn take_removes_the_variables_after_a_failure_too() {
    let socket = OwnedFd::from(tcp_listener());
    let environment = [
        ("LISTEN_FDS", "many"),
        ("LISTEN_FDNAMES", "web"),
        ("NOTIFY_SOCKET", "vsock:1:2"),
        ("WATCHDOG_USEC", "soon"),
    ];
    assert_passed(&child("child_fails_to_take", socket, &environment));
}

#[test]
#[ignore = "run by take_removes_the_variables_after_a_failure_too"]
fn child_fails_to_take() {
    // SAFETY: the test harness's other thread only waits for this one.
    let activation = unsafe { activation::take() };
    assert_eq!(activation, Err(ActivationError::InvalidCount("many".to_owned())));
    // SAFETY: as above.
    let error = unsafe { notify::take() }.expect_err("vsock is not supported").to_string();
    assert!(error.contains("vsock:1:2") && error.contains("\n\nhint: "), "{error}");
    for variable in activation::VARIABLES.iter().chain(&notify::VARIABLES) {
        assert_eq!(std::env::var_os(variable), None, "{variable}");
    }
}

// --- notify --------------------------------------------------------------------------------------

#[test]
fn messages_arrive_by_path_and_by_abstract_name() {
    let directory = Directory::new();
    let path = directory.join("notify");
    let abstract_name = unique("notify");
    let by_path = UnixDatagram::bind(&path).unwrap();
    let by_name = Socket::new(Domain::UNIX, Type::DGRAM, None).unwrap();
    by_name.bind(&SockAddr::unix(format!("\0{abstract_name}")).unwrap()).unwrap();
    let by_name = UnixDatagram::from(by_name);

    for (manager, address) in
        [(by_path, path.into_os_string()), (by_name, format!("@{abstract_name}").into())]
    {
        let notifier = Notifier::new(address).unwrap();
        notifier.send(&[State::Ready, State::Status("2 listeners")]).unwrap();
        assert_eq!(heard(&manager), "READY=1\nSTATUS=2 listeners\n");
        notifier.send(&[State::Stopping, State::ExtendTimeout(Duration::from_secs(3))]).unwrap();
        assert_eq!(heard(&manager), "STOPPING=1\nEXTEND_TIMEOUT_USEC=3000000\n");
        notifier.send(&[State::Watchdog]).unwrap();
        assert_eq!(heard(&manager), "WATCHDOG=1\n");
        let before = monotonic_usec();
        notifier.send(&[State::Reloading]).unwrap();
        let text = heard(&manager);
        let usec = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("both, in this order");
        let usec: i64 = usec.trim_end().parse().unwrap();
        assert!((before..=monotonic_usec()).contains(&usec), "{usec} is not CLOCK_MONOTONIC");
    }
}

#[test]
fn a_full_queue_does_not_block_the_server() {
    let directory = Directory::new();
    let manager = UnixDatagram::bind(directory.join("notify")).unwrap();
    let notifier = Notifier::new(directory.join("notify").into_os_string()).unwrap();
    let refusal = (0..100_000).find_map(|_| notifier.send(&[State::Watchdog]).err());
    let error = refusal.expect("a queue that nobody reads fills up");
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    heard(&manager);
    notifier.send(&[State::Ready]).expect("there is room again");
    drop(manager);
    assert!(notifier.send(&[State::Watchdog]).is_err(), "a manager that is gone is an error");
    Notifier::silent().send(&[State::Ready]).expect("nobody to tell is no error");
}

#[test]
fn an_address_that_is_no_unix_socket_is_refused() {
    for address in ["", "@", "relative", "vsock:2:1234", &format!("/{}", "x".repeat(200))] {
        let error = Notifier::new(address.into()).expect_err(address).to_string();
        assert!(error.contains("NOTIFY_SOCKET"), "{error}");
    }
}

// --- helpers -------------------------------------------------------------------------------------

/// A directory of one test, removed with it.
struct Directory {
    path: PathBuf,
}

impl Directory {
    fn new() -> Self {
        let path = std::env::temp_dir().join(unique("granian-uring-test"));
        fs::create_dir(&path).unwrap();
        Self { path }
    }

    fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.join(name).into_os_string().into_string().unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.path).unwrap();
    }
}

fn unique(prefix: &str) -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{}-{number}", std::process::id())
}

fn tcp_listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn listening(domain: Domain, address: &SockAddr, backlog: i32) -> Socket {
    let socket = Socket::new(domain, Type::STREAM, None).unwrap();
    socket.bind(address).unwrap();
    socket.listen(backlog).unwrap();
    socket
}

/// Options that bind a free port: any test may use them beside the others.
fn anywhere() -> SocketOptions {
    SocketOptions { port: Some(0), ..SocketOptions::default() }
}

fn absent() -> Result<Activation, ActivationError> {
    Err(ActivationError::Absent("LISTEN_PID"))
}

#[allow(clippy::unnecessary_wraps, reason = "it stands for what `activation::take` returns")]
fn passed(sockets: &[TcpListener], names: Option<&[&str]>) -> Result<Activation, ActivationError> {
    let name = |index: usize| names.map(|names| names[index].to_owned());
    let fds = sockets.iter().enumerate();
    let fds = fds.map(|(index, s)| PassedFd { fd: s.as_raw_fd(), name: name(index) });
    Ok(Activation { fds: fds.collect() })
}

fn named(fd: RawFd, name: &str) -> PassedFd {
    PassedFd { fd, name: Some(name.to_owned()) }
}

fn failure(options: &SocketOptions, activation: Result<Activation, ActivationError>) -> String {
    open(options, activation).expect_err("nothing may be opened").to_string()
}

fn unix(name: &str, permissions: Option<u32>) -> Result<Listener, ListenError> {
    let options = SocketOptions {
        uds: Some(name.to_owned()),
        uds_permissions: permissions,
        ..SocketOptions::default()
    };
    open(&options, absent()).map(|(mut listeners, _)| listeners.remove(0))
}

fn addresses(listeners: &[Listener]) -> Vec<Address> {
    listeners.iter().map(|listener| listener.address.clone()).collect()
}

fn address_of(socket: &TcpListener) -> Address {
    Address::tcp(socket.local_addr().unwrap())
}

fn tcp_address(address: &Address) -> SocketAddr {
    let Address::Tcp(address) = address else { panic!("{address} is not TCP") };
    *address
}

fn heard(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 512];
    let length = manager.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

/// `CLOCK_MONOTONIC` in microseconds.
fn monotonic_usec() -> i64 {
    // SAFETY: `timespec` is plain integers, for which all zeroes is a value.
    let mut now: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: `now` outlives the call.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) }, 0);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
}

/// How many clients a Unix listener lets wait, found by trying.
fn clients_until_full(address: &SockAddr) -> usize {
    let mut clients = Vec::new();
    loop {
        let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        match client.connect(address) {
            Ok(()) => clients.push(client),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // They stay in the queue when their owner is gone.
                return clients.len();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// `FD_CLOEXEC` or nothing.
fn descriptor_flags(fd: RawFd) -> libc::c_int {
    // SAFETY: plain numbers; the caller asserts on an error.
    unsafe { libc::fcntl(fd, libc::F_GETFD) }
}

fn set_close_on_exec(socket: &Socket, on: bool) {
    socket.set_cloexec(on).unwrap();
}

/// Level, option, value or error.
type Snapshot = Vec<(libc::c_int, libc::c_int, Result<Vec<u8>, i32>)>;

/// Everything that `fcntl(F_GETFL)` and `getsockopt` tell of a socket: every option number of every
/// level it may have, as raw bytes or as the error.
fn snapshot(socket: &Socket) -> Snapshot {
    /// `SO_PEERPIDFD` makes a new descriptor at each call; `TCP_TIMESTAMP` is the clock.
    const NOT_STATE: [(libc::c_int, libc::c_int); 2] =
        [(libc::SOL_SOCKET, 77), (libc::IPPROTO_TCP, libc::TCP_TIMESTAMP)];
    let fd = socket.as_raw_fd();
    // SAFETY: plain numbers.
    let status = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    let mut found = vec![(-1, libc::F_GETFL, Ok(status.to_ne_bytes().to_vec()))];
    for level in [libc::SOL_SOCKET, libc::IPPROTO_IP, libc::IPPROTO_IPV6, libc::IPPROTO_TCP] {
        for name in (0..=100).filter(|&name| !NOT_STATE.contains(&(level, name))) {
            found.push((level, name, option(fd, level, name)));
        }
    }
    found
}

/// The level and number of each option that is not what it was.
fn changed(before: &Snapshot, socket: &Socket) -> Vec<(libc::c_int, libc::c_int)> {
    let after = snapshot(socket);
    let pairs = before.iter().zip(&after).filter(|(before, after)| before != after);
    pairs.map(|(before, _)| (before.0, before.1)).collect()
}

fn option(fd: RawFd, level: libc::c_int, name: libc::c_int) -> Result<Vec<u8>, i32> {
    let mut value = vec![0_u8; 512];
    let mut length = libc::socklen_t::try_from(value.len()).unwrap();
    // SAFETY: the kernel writes at most `length` bytes, which `value` has.
    let result =
        unsafe { libc::getsockopt(fd, level, name, value.as_mut_ptr().cast(), &raw mut length) };
    if result != 0 {
        return Err(io::Error::last_os_error().raw_os_error().unwrap());
    }
    value.truncate(length as usize);
    Ok(value)
}

/// The backlog of a listening TCP socket: the field `tcpi_sacked` of `TCP_INFO`, tcp(7).
fn tcp_backlog(socket: &Socket) -> u32 {
    const TCPI_SACKED: usize = 28;
    let info = option(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO).unwrap();
    u32::from_ne_bytes(info[TCPI_SACKED..TCPI_SACKED + 4].try_into().unwrap())
}

/// Runs an ignored test of this file in a process of its own, with `socket` as descriptors 0 and 3
/// and `LISTEN_PID` its own id.
fn child(test: &str, socket: OwnedFd, environment: &[(&str, &str)]) -> Output {
    Command::new("sh")
        .args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\" 3<&0"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
        .envs(environment.iter().copied())
        .stdin(Stdio::from(socket))
        .output()
        .unwrap()
}

fn assert_passed(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    let complete = output.status.success() && text.contains("1 passed");
    assert!(complete, "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}
