//! A chunked body against a second decoder, which knows the whole of it and reads it line by line:
//! both find the same data and the same end, or both refuse it.

#![no_main]

use granian_uring::http1::{Connection, Event, Limits, ProtocolError};
use libfuzzer_sys::fuzz_target;

const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";

/// None of them is reached: the second decoder knows no limits.
const LIMITS: Limits = Limits {
    head_bytes: 1024,
    header_count: 8,
    target_bytes: 128,
    chunk_line_bytes: 1 << 30,
    trailer_bytes: 1 << 30,
    body_bytes: None,
};

#[derive(Debug, PartialEq, Eq)]
enum End {
    /// So many bytes follow the body.
    Complete(usize),
    Incomplete,
    Refused,
}

fuzz_target!(|data: &[u8]| {
    let (body, end) = ours(data);
    let (expected, expected_end) = theirs(data);
    match (&end, &expected_end) {
        // Where all lines must be there before they are judged, ours may know earlier.
        (End::Refused, End::Incomplete) => {
            assert!(expected.starts_with(&body) || body.starts_with(&expected))
        }
        _ => assert_eq!((end, body), (expected_end, expected)),
    }
});

fn ours(data: &[u8]) -> (Vec<u8>, End) {
    let mut connection = Connection::new(LIMITS);
    assert!(matches!(connection.next_event(&mut &HEAD[..]), Ok(Some(Event::Request(_)))));
    let (mut input, mut body) = (data, Vec::new());
    loop {
        match connection.next_event(&mut input) {
            Ok(Some(Event::Body(piece))) => body.extend_from_slice(piece),
            Ok(Some(Event::End)) => return (body, End::Complete(input.len())),
            Ok(None) => return (body, End::Incomplete),
            Ok(Some(Event::Request(_))) => panic!("a second head"),
            Err(error) => {
                assert_ne!(error, ProtocolError::ChunkLineTooLong);
                return (body, End::Refused);
            }
        }
    }
}

fn theirs(mut rest: &[u8]) -> (Vec<u8>, End) {
    let mut body = Vec::new();
    loop {
        let Some((line, after)) = line(rest) else { return (body, End::Incomplete) };
        rest = after;
        let Some(size) = size(line) else { return (body, End::Refused) };
        if size == 0 {
            return (body, trailers(rest));
        }
        let available = usize::try_from(size).unwrap_or(usize::MAX).min(rest.len());
        let (data, after) = rest.split_at(available);
        body.extend_from_slice(data);
        match after {
            _ if (available as u64) < size => return (body, End::Incomplete),
            [b'\r', b'\n', after @ ..] => rest = after,
            [] | [b'\r'] => return (body, End::Incomplete),
            _ => return (body, End::Refused),
        }
    }
}

fn trailers(mut rest: &[u8]) -> End {
    loop {
        let Some((line, after)) = line(rest) else { return End::Incomplete };
        rest = after;
        let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
        let token = |byte: &u8| byte.is_ascii_graphic() && !b"\"(),/;<=>?@[\\]{}".contains(byte);
        match line {
            [] => return End::Complete(rest.len()),
            _ if name.is_empty() || name.len() == line.len() => return End::Refused,
            _ if !name.iter().all(token) || !line.iter().all(is_plain) => return End::Refused,
            _ => (),
        }
    }
}

/// `1*HEXDIG *( ";" extension )`
fn size(line: &[u8]) -> Option<u64> {
    let end = line.iter().position(|&byte| byte == b';').unwrap_or(line.len());
    let digits = str::from_utf8(&line[..end]).ok()?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let extensions = line[end..].iter().all(is_plain) && are_extensions(&line[end..]);
    u64::from_str_radix(digits, 16).ok().filter(|_| plain && extensions)
}

/// `*( ";" BWS name [ BWS "=" BWS value ] )`
fn are_extensions(mut rest: &[u8]) -> bool {
    while let [b';', after @ ..] = rest {
        let Some(after_name) = after_token(after.trim_ascii_start()) else { return false };
        rest = after_name;
        if let [b'=', value @ ..] = after_name.trim_ascii_start() {
            let value = value.trim_ascii_start();
            let after_value = match value {
                [b'"', quoted @ ..] => after_quoted(quoted),
                _ => after_token(value),
            };
            let Some(after_value) = after_value else { return false };
            rest = after_value;
        }
    }
    rest.is_empty()
}

fn after_token(text: &[u8]) -> Option<&[u8]> {
    let token = |byte: &u8| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(byte);
    let length = text.iter().take_while(|byte| token(byte)).count();
    (length > 0).then(|| &text[length..])
}

/// What follows the closing quotation mark.
fn after_quoted(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        text = match text {
            [b'"', rest @ ..] => return Some(rest),
            [b'\\', _, rest @ ..] | [_, rest @ ..] => rest,
            [] => return None,
        };
    }
}

fn is_plain(byte: &u8) -> bool {
    *byte == b'\t' || !byte.is_ascii_control()
}

fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&bytes[..end], &bytes[end + 2..]))
}
