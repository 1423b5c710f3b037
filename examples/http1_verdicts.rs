//! What the codec understands of a connection: each line of standard input has the bytes of one, in
//! hexadecimal; each line of standard output is JSON that tells the requests and how it ended.
//!
//! The loop shows how [`Connection`] is driven without a socket. It is also how other parsers are
//! compared with this one, see `tests/python/codec/`.
//!
//!     printf 'GET / HTTP/1.1\r\nHost: x\r\n\r\n' | xxd -p | tr -d '\n' |
//!         cargo run --example http1_verdicts

use std::fmt::Write as _;
use std::io::{self, BufRead, Write};

use granian_uring::http1::{
    AutomaticHeaders, Connection, Event, Limits, ProtocolError, RequestHead, Version,
};

fn main() -> io::Result<()> {
    let mut output = io::BufWriter::new(io::stdout().lock());
    for line in io::stdin().lock().lines() {
        writeln!(output, "{}", verdict(&from_hexadecimal(&line?)))?;
    }
    output.flush()
}

/// The complete requests in `bytes`, after which the client closes, and what is wrong, if anything.
fn verdict(bytes: &[u8]) -> String {
    let mut requests = Vec::new();
    let error = match read(bytes, &mut requests) {
        Ok(()) => "null".to_owned(),
        Err(error) => format!("\"{error}\""),
    };
    format!("{{\"requests\":[{}],\"error\":{error}}}", requests.join(","))
}

fn read(bytes: &[u8], requests: &mut Vec<String>) -> Result<(), ProtocolError> {
    let mut connection = Connection::new(Limits::default());
    let mut input = bytes;
    let (mut request, mut body) = (String::new(), Vec::new());
    while let Some(event) = connection.next_event(&mut input)? {
        match event {
            Event::Request(head) => request = describe(&head),
            Event::Body(piece) => body.extend_from_slice(piece),
            Event::End => {
                let keeps_alive = answer(&mut connection);
                let body = hexadecimal(&std::mem::take(&mut body));
                requests
                    .push(format!("{{{request},\"body\":{body},\"keeps_alive\":{keeps_alive}}}"));
                if !keeps_alive {
                    return Ok(());
                }
            }
        }
    }
    connection.end_of_input(input.len())
}

/// Answers with an empty response; returns whether the connection takes another request.
fn answer(connection: &mut Connection) -> bool {
    let automatic = AutomaticHeaders::default();
    let started = connection.start_response(200, std::iter::empty(), &automatic);
    let sent = connection.send_body(0, true, &mut Vec::new());
    assert!(started.is_ok() && sent.is_ok(), "an empty answer to a whole request is legal");
    connection.next_cycle().is_ok()
}

fn describe(head: &RequestHead) -> String {
    let version = if head.version() == Version::Http10 { "1.0" } else { "1.1" };
    let headers = head.headers();
    let headers: Vec<String> = headers
        .map(|(name, value)| format!("[{},{}]", hexadecimal(name), hexadecimal(value)))
        .collect();
    format!(
        "\"method\":{},\"target\":{},\"version\":\"{version}\",\"headers\":[{}]",
        hexadecimal(head.method().as_bytes()),
        hexadecimal(head.target()),
        headers.join(",")
    )
}

/// `bytes` as a string of JSON with two digits for each.
fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text + "\""
}

/// The bytes that `text` stands for; what is no pair of digits is left out.
fn from_hexadecimal(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks_exact(2);
    pairs.filter_map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()).collect()
}
