//! The response side: whatever an application says in answer to whatever request, a client that was
//! written independently reads what was meant, or sees that the answer is broken. And whatever part of
//! a file it asks for, it gets what it is told it gets.

#![no_main]

#[path = "../../tests/http1/mod.rs"]
mod http1;

use granian_uring::http1::{AutomaticHeaders, Connection, Limits};
use http1::exchange::{Exchange, REQUESTS};
use http1::response::{Response, read};
use libfuzzer_sys::arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;

/// Names that mean something to us; others are made up.
const NAMES: [&str; 8] = [
    "content-length",
    "Connection",
    "transfer-encoding",
    "Date",
    "server",
    "x-name",
    "Trailer",
    "set-cookie",
];

#[derive(Debug)]
enum Input {
    Exchange(Exchange),
    /// The value of a Range field, and the length of the file.
    Range(Vec<u8>, u8),
}

impl<'a> Arbitrary<'a> for Input {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        if bytes.ratio(1, 8)? {
            let length = bytes.arbitrary()?;
            return Ok(Self::Range(some_bytes(bytes)?, length));
        }
        let request = *bytes.choose(&REQUESTS)?;
        let hints = if bytes.ratio(1, 4)? { Some(some_messages(bytes)?) } else { None };
        let status = bytes.int_in_range(0..=1100)?;
        let headers = some_fields(bytes)?;
        let messages = some_messages(bytes)?;
        let trailers = if bytes.ratio(1, 4)? { Some(some_fields(bytes)?) } else { None };
        Ok(Self::Exchange(Exchange { request, hints, status, headers, messages, trailers }))
    }
}

fn some_fields(bytes: &mut Unstructured<'_>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut fields = Vec::new();
    for _ in 0..bytes.int_in_range(0..=6)? {
        let name = match NAMES.get(bytes.int_in_range(0..=NAMES.len())?) {
            Some(name) => name.as_bytes().to_vec(),
            None => some_bytes(bytes)?,
        };
        fields.push((name, some_bytes(bytes)?));
    }
    Ok(fields)
}

fn some_messages(bytes: &mut Unstructured<'_>) -> Result<Vec<Vec<u8>>> {
    let count = bytes.int_in_range(1..=5)?;
    (0..count).map(|_| some_bytes(bytes)).collect()
}

fn some_bytes(bytes: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let length = bytes.int_in_range(0..=40)?;
    Ok(bytes.bytes(length.min(bytes.len()))?.to_vec())
}

fuzz_target!(|input: Input| match input {
    Input::Exchange(exchange) => exchange.check(),
    Input::Range(value, length) => check_range(&value, length),
});

/// A client that wrote this in its Range field reads the whole file, or a part and which one it is,
/// or that there is no such part.
fn check_range(value: &[u8], length: u8) {
    let mut connection = Connection::new(Limits::default());
    let request = [b"GET / HTTP/1.1\r\nHost: x\r\nRange: ", value, b"\r\n\r\n"].concat();
    let Ok(Some(_)) = connection.next_event(&mut &request[..]) else { return };
    let automatic = AutomaticHeaders::default();
    connection.start_response(200, [].into_iter(), &automatic).expect("a plain response");
    let file: Vec<u8> = (0..length).collect();
    let part = connection.select_range(length.into());
    let part = &file[part.start as usize..part.end as usize];
    let mut wire = Vec::new();
    let frame = connection.send_body(part.len(), true, &mut wire).expect("the part of a file");
    assert!(frame.suffix == Some(&b""[..]));
    wire.extend_from_slice(part);
    let (response, rest) = read(&wire, false).expect("a response");
    assert_eq!((&response.body[..], rest), (part, &b""[..]));
    let told = told_range(&response);
    match response.status {
        200 => assert_eq!((part, told), (&file[..], None)),
        206 => {
            let (first, last) = (part[0], part[part.len() - 1]);
            assert_eq!(told, Some(format!("bytes {first}-{last}/{length}")));
        }
        416 => assert_eq!((part, told), (&[][..], Some(format!("bytes */{length}")))),
        other => panic!("{other} for a range"),
    }
}

fn told_range(response: &Response) -> Option<String> {
    let values = response.values("content-range");
    assert!(values.len() <= 1);
    Some(String::from_utf8(values.first()?.to_vec()).expect("ASCII"))
}
