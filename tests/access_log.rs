//! The access log over a real ring: what is in it when a client and an application misbehave, and
//! what a destination that takes nothing can do. Lines themselves are tested beside their code, and
//! "each request once" in `simulation.rs`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on has failed")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use granian_uring::access_log::{ATOMS, AccessLog, Format, Lines};
use granian_uring::config::Config;
use granian_uring::proactor::uring::Uring;
use granian_uring::server::{Body, Event, Server};

const LONGEST: Duration = Duration::from_secs(20);

fn server(config: Config, log: AccessLog) -> (Server<Uring>, SocketAddr) {
    let mut server = Server::new(Uring::new().unwrap(), config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    server.add_listener(OwnedFd::from(listener)).unwrap();
    server.log_access(log);
    server.start_accepting();
    (server, address)
}

/// Turns until `is_over`; answers `/hello` with a header and a body, and leaves everything else.
fn serve(
    server: &mut Server<Uring>,
    lost: &mut u64,
    mut is_over: impl FnMut(&Server<Uring>) -> bool,
) {
    let deadline = Instant::now() + LONGEST;
    while !is_over(server) {
        assert!(Instant::now() < deadline, "not over in time");
        server.turn(Some(Instant::now() + Duration::from_millis(5))).unwrap();
        while let Some(event) = server.next_event() {
            match event {
                Event::Request(request) => {
                    let taken = server.take_request(request);
                    if taken.is_some_and(|taken| taken.head.path() == b"/hello") {
                        let headers: [(&[u8], &[u8]); 1] = [(b"x-cache", b"hit")];
                        server.start_response(request, 200, headers.into_iter()).unwrap();
                        server.send_body(request, Body::Copied(b"hello"), false).unwrap();
                    }
                    server.finish(request);
                }
                Event::AccessLost(lines) => *lost += lines,
                _ => {}
            }
        }
    }
}

fn collect(lines: &mut Lines) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(text) = lines.next() {
        all.extend(std::str::from_utf8(text).unwrap().lines().map(str::to_owned));
    }
    all
}

/// What is logged about clients that each send this and end.
fn logged(config: Config, format: &str, clients: &[&[u8]]) -> Vec<String> {
    let (log, mut lines) = AccessLog::new(Format::compile(Some(format), false, false).unwrap());
    let (mut server, address) = server(config, log);
    for sent in clients {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(sent).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut came = false;
        serve(&mut server, &mut 0, |server| {
            came |= server.census().connections > 0;
            came && server.census().connections == 0
        });
    }
    assert_eq!(server.close_access_log(), 0);
    let mut all = collect(&mut lines);
    all.sort();
    all
}

#[test]
fn requests_that_end_in_every_way() {
    let format = "%(connection)d.%(connection_requests)d %(status)d %(completion)s %(target)s \
                  %(response_header{x-cache})s %(response_header{content-length})s %(body_bytes)d";
    let clients: [&[u8]; 4] = [
        b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\nHEAD /hello HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET /nothing HTTP/1.1\r\nhost: a\r\n\r\n",
        b"\x16\x03\x01 no http\r\n\r\n",
        b"",
    ];
    assert_eq!(
        logged(Config::default(), format, &clients),
        [
            "1.1 200 OK /hello hit 5 5",
            "1.2 200 OK /hello hit 5 0",
            "2.1 500 OK /nothing - 22 22",
            "3.1 400 OK - - 38 38",
        ]
    );
}

#[test]
fn an_id_is_the_client_s_or_made() {
    let config = Config { request_id_header: Some("X-Request-Id".to_owned()), ..Config::default() };
    let client = [
        &b"GET /hello HTTP/1.1\r\nhost: a\r\nx-request-id: abc-1\r\n\r\n"[..],
        b"GET /hello HTTP/1.1\r\nhost: a\r\nX-Request-ID: a b\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nhost: a\r\nX-Request-ID: a\r\nX-Request-ID: b\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n",
    ]
    .concat();
    let found = logged(config, "%(connection_requests)d %(header{x-request-id})s", &[&client]);
    let ids: Vec<&str> = found.iter().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(ids[0], "abc-1");
    for made in &ids[1..] {
        assert!(made.len() == 32 && made.bytes().all(|byte| byte.is_ascii_hexdigit()), "{found:?}");
    }
    assert!(ids[1] != ids[2] && ids[2] != ids[3] && ids[1] != ids[3]);
}

#[test]
fn a_destination_that_takes_nothing_costs_lines_and_no_time() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    // Each record is large, so that the bound is soon reached; the lines alone fill the pipe.
    let format = Format::compile(Some("%(target)s %(header{x})s"), false, false).unwrap();
    let log = AccessLog::to_file(format, File::from(OwnedFd::from(writer))).unwrap();
    let (mut server, address) = server(Config::default(), log);
    let mut client = TcpStream::connect(address).unwrap();
    let request =
        format!("GET /hello HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(40_000)).into_bytes();
    let mut lost = 0;
    let mut asked = 0_u64;
    let mut answer = [0; 4096];
    while lost == 0 {
        assert!(asked < 2000, "nothing is lost, though nobody reads");
        client.write_all(&request).unwrap();
        asked += 1;
        let (mut received, mut ended) = (0, false);
        client.set_nonblocking(true).unwrap();
        serve(&mut server, &mut lost, |_| {
            received += client.read(&mut answer[received..]).unwrap_or(0);
            ended |= answer[..received].ends_with(b"hello");
            ended
        });
        client.set_nonblocking(false).unwrap();
    }
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    server.drain();
    serve(&mut server, &mut lost, Server::is_drained);
    lost += server.close_access_log();
    drop(server);
    let text = reading.join().unwrap();
    assert!(text.lines().all(|line| line.len() == 40_007), "a line is not whole");
    assert_eq!(text.lines().count() as u64 + lost, asked);
}

#[test]
fn a_closed_pipe_is_survived() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let format = Format::compile(None, false, false).unwrap();
    let log = AccessLog::to_file(format, File::from(OwnedFd::from(writer))).unwrap();
    let (mut server, address) = server(Config::default(), log);
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    serve(&mut server, &mut 0, |server| server.census().connections == 1);
    server.drain();
    serve(&mut server, &mut 0, Server::is_drained);
    assert_eq!(server.close_access_log(), 1);
}

#[test]
fn the_documented_atoms_are_those_there_are() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/logging.md");
    let document = std::fs::read_to_string(path).unwrap();
    let (_, rest) = document.split_once("<!-- atoms -->\n").unwrap();
    let (table, _) = rest.split_once("<!-- end of atoms -->").unwrap();
    let rows = ATOMS.iter().map(|(atom, meaning)| format!("| `%({atom})s` | {meaning} |\n"));
    let expected = "| atom | what it is |\n|---|---|\n".to_owned() + &rows.collect::<String>();
    assert_eq!(table, expected, "docs/logging.md is not what src/access_log/atoms.rs has");
}
