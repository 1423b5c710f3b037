//! From bytes to a [`RequestHead`]: is the head complete, within its limits, and well-formed.
//!
//! A head that is all there, which nearly every head is, goes straight through httparse. What
//! httparse lets pass and we do not, a line feed alone, costs one look per line. Everything else,
//! be it incomplete, too long or wrong, takes the slow way: a scan that remembers how far it came
//! looks at every byte once, whatever the cut, and when it has found the end of the head, httparse
//! is asked again. So a verdict depends on the bytes alone, never on how they arrived, and a head
//! that comes in single bytes costs linear time.

use super::Limits;
use super::error::ProtocolError;
use super::request::{RequestHead, Version};
use super::syntax::{is_field_byte, is_token};
use super::words::plain_length;
use httparse::{Header, Request, Status};
use std::mem::MaybeUninit;

/// Empty lines that are skipped before a request line. Old clients send one after a body (RFC 9112
/// §2.2); more than a few are somebody's game.
const EMPTY_LINES_MAX: u8 = 4;

/// One head on its way in.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeadReader {
    empty_lines: u8,
    /// How far the scan came; 0 before the first attempt.
    scanned: usize,
    /// Where the current line starts.
    line_start: usize,
    /// Where the target starts, once the method is over.
    target_start: Option<usize>,
    target_over: bool,
}

impl HeadReader {
    /// Consumes a head from the front of `input` into `head`. `false`: it is not complete, and what
    /// is left in `input` must be at the front of it the next time.
    pub(super) fn next(
        &mut self,
        input: &mut &[u8],
        limits: &Limits,
        head: &mut RequestHead,
    ) -> Result<bool, ProtocolError> {
        if matches!(input.first(), Some(b'\r' | b'\n')) {
            self.skip_empty_lines(input)?;
            // Half an empty line, perhaps: the scan must not begin within it.
            if matches!(*input, [] | [b'\r']) {
                return Ok(false);
            }
        }
        if self.scanned == 0
            && let Ok(Some(parsed)) = parse(input, limits, head)
        {
            parsed?;
            *input = &input[head.length()..];
            return Ok(true);
        }
        let Some(length) = self.scan(input, limits)? else { return Ok(false) };
        let (bytes, rest) = input.split_at(length);
        match parse(bytes, limits, head) {
            Ok(Some(parsed)) => {
                *input = rest;
                parsed.map(|()| true)
            }
            Ok(None) => Err(ProtocolError::MalformedRequestLine),
            Err(error) => Err(diagnose(bytes, error)),
        }
    }

    fn skip_empty_lines(&mut self, input: &mut &[u8]) -> Result<(), ProtocolError> {
        loop {
            match **input {
                [b'\r', b'\n', ..] if self.empty_lines == EMPTY_LINES_MAX => {
                    return Err(ProtocolError::EmptyLines);
                }
                [b'\r', b'\n', ..] => self.empty_lines += 1,
                [b'\r', _, ..] => return Err(ProtocolError::BareCarriageReturn),
                [b'\n', ..] => return Err(ProtocolError::BareLineFeed),
                _ => return Ok(()),
            }
            *input = &input[2..];
        }
    }

    /// Looks at what is new in `input`; returns the length of the head once its end is there.
    fn scan(&mut self, input: &[u8], limits: &Limits) -> Result<Option<usize>, ProtocolError> {
        while let Some(&byte) = input.get(self.scanned) {
            let position = self.scanned;
            if position >= limits.head_bytes {
                return Err(ProtocolError::HeadTooLong);
            }
            let after_return = position > 0 && input[position - 1] == b'\r';
            match byte {
                b'\n' if !after_return => return Err(ProtocolError::BareLineFeed),
                b'\n' if position == self.line_start + 1 => return Ok(Some(position + 1)),
                b'\n' => self.line_start = position + 1,
                _ if after_return => return Err(ProtocolError::BareCarriageReturn),
                b'\r' => (),
                _ if !is_field_byte(byte) => return Err(ProtocolError::ControlCharacter),
                _ if self.line_start == 0 => self.measure_target(byte, limits)?,
                _ => {
                    // What follows in a header line is as plain, mostly.
                    let end = input.len().min(limits.head_bytes);
                    self.scanned += plain_length(&input[position + 1..end]);
                }
            }
            self.scanned += 1;
        }
        Ok(None)
    }

    fn measure_target(&mut self, byte: u8, limits: &Limits) -> Result<(), ProtocolError> {
        match self.target_start {
            None if byte == b' ' => self.target_start = Some(self.scanned + 1),
            Some(_) if byte == b' ' => self.target_over = true,
            Some(start) if !self.target_over && self.scanned - start >= limits.target_bytes => {
                return Err(ProtocolError::TargetTooLong);
            }
            _ => (),
        }
        Ok(())
    }
}

/// What httparse says to the head at the front of `input`, which is read into `head`. `None`: it is
/// not complete, or not of the plain kind that needs no scan. The inner result is our own verdict on
/// the meaning.
fn parse(
    input: &[u8],
    limits: &Limits,
    head: &mut RequestHead,
) -> Result<Option<Result<(), ProtocolError>>, httparse::Error> {
    let mut storage = [const { MaybeUninit::<Header<'_>>::uninit() }; Limits::HEADER_COUNT_MAX];
    let storage = &mut storage[..limits.header_count.min(Limits::HEADER_COUNT_MAX)];
    let mut request = Request::new(&mut []);
    let Status::Complete(length) = request.parse_with_uninit_headers(input, storage)? else {
        return Ok(None);
    };
    let (Some(method), Some(target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return Ok(None);
    };
    let input = &input[..length];
    if length > limits.head_bytes
        || target.len() > limits.target_bytes
        || !has_strict_line_ends(input, request.headers)
    {
        return Ok(None);
    }
    let version = if version == 0 { Version::Http10 } else { Version::Http11 };
    Ok(Some(head.read(input, (method, target, version), request.headers)))
}

/// Whether every line of `head` ends in CR LF. httparse has seen that each ends in a line feed,
/// and that a carriage return is nowhere else: two bytes before a name is one, or is missing.
fn has_strict_line_ends(head: &[u8], headers: &[Header<'_>]) -> bool {
    head.ends_with(b"\r\n\r\n")
        && headers.iter().all(|header| {
            let name = header.name.as_ptr().addr() - head.as_ptr().addr();
            head[name - 2] == b'\r'
        })
}

/// Says which rule `head` broke, which httparse refused with `error`. The scan has seen that it is
/// complete, that all lines end in CR LF and that there are no control characters.
#[cold]
fn diagnose(head: &[u8], error: httparse::Error) -> ProtocolError {
    let mut lines =
        head.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let request_line = lines.next().unwrap_or_default();
    let mut parts = request_line.split(|&byte| byte == b' ');
    let mut part = || parts.next().unwrap_or_default();
    let (method, target, version) = (part(), part(), part());
    match error {
        httparse::Error::TooManyHeaders => ProtocolError::TooManyHeaders,
        httparse::Error::HeaderName => {
            lines.find_map(refuse_header).unwrap_or(ProtocolError::InvalidHeaderName)
        }
        httparse::Error::HeaderValue => ProtocolError::ControlCharacter,
        httparse::Error::Version => match version.strip_prefix(b"HTTP/") {
            Some([b'0'..=b'9', b'.', b'0'..=b'9']) => ProtocolError::UnsupportedVersion,
            _ => ProtocolError::MalformedVersion,
        },
        _ if method.is_empty() || target.is_empty() => ProtocolError::MalformedRequestLine,
        _ if !is_token(method) => ProtocolError::InvalidMethod,
        _ if !target.iter().all(u8::is_ascii_graphic) => ProtocolError::InvalidTarget,
        _ => ProtocolError::MalformedRequestLine,
    }
}

/// What is wrong with a header line, if anything.
fn refuse_header(line: &[u8]) -> Option<ProtocolError> {
    if matches!(line, [b' ' | b'\t', ..]) {
        return Some(ProtocolError::FoldedHeader);
    }
    if line.is_empty() {
        return None;
    }
    let Some(colon) = line.iter().position(|&byte| byte == b':') else {
        return Some(ProtocolError::HeaderWithoutColon);
    };
    match &line[..colon] {
        name if is_token(name) => None,
        [name @ .., b' ' | b'\t'] if is_token(name.trim_ascii_end()) => {
            Some(ProtocolError::SpaceBeforeColon)
        }
        _ => Some(ProtocolError::InvalidHeaderName),
    }
}
