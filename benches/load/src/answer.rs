//! Reads HTTP/1.1 answers from a stream and checks their status and length.

use crate::Failure;

/// More than any peer sends.
const MOST_HEADERS: usize = 32;

/// Where in an answer the stream is.
enum Place {
    Head,
    /// So many bytes of a body whose length was told.
    Body(usize),
    /// In the chunked coding.
    Chunked(Chunk),
}

/// Where in the chunked coding (RFC 9112, 7.1) the stream is.
enum Chunk {
    Size,
    /// So many bytes, the line's end behind them included.
    Data(usize),
    /// Trailer lines, up to an empty one.
    Trailers,
}

/// The answers of one connection.
pub(crate) struct Answers {
    place: Place,
    /// The begin of a head or of a line whose end has not come.
    pending: Vec<u8>,
    body_bytes: usize,
    says_close: bool,
}

/// A part of the stream that was understood: so many bytes, and whether they end an answer.
struct Step {
    taken: usize,
    ends: bool,
}

impl Answers {
    /// A connection that has had no answer.
    pub(crate) fn new() -> Self {
        Self { place: Place::Head, pending: Vec::new(), body_bytes: 0, says_close: false }
    }

    /// Whether the last answer said `Connection: close`.
    pub(crate) fn says_close(&self) -> bool {
        self.says_close
    }

    /// Takes received bytes; how many answers they end. Each must have a body of `expect` bytes.
    pub(crate) fn feed(&mut self, received: &[u8], expect: usize) -> Result<usize, Failure> {
        if self.pending.is_empty() {
            return self.read(received, expect);
        }
        let mut whole = std::mem::take(&mut self.pending);
        whole.extend_from_slice(received);
        self.read(&whole, expect)
    }

    fn read(&mut self, mut bytes: &[u8], expect: usize) -> Result<usize, Failure> {
        let mut answers = 0;
        while !bytes.is_empty() {
            let Some(step) = self.step(bytes)? else {
                self.pending.extend_from_slice(bytes);
                break;
            };
            bytes = &bytes[step.taken..];
            if step.ends {
                if self.body_bytes != expect {
                    let found = self.body_bytes;
                    return Err(format!("expected a body of {expect} bytes, found {found}").into());
                }
                self.place = Place::Head;
                answers += 1;
            }
        }
        Ok(answers)
    }

    /// The next part; none if its end has not come.
    fn step(&mut self, bytes: &[u8]) -> Result<Option<Step>, Failure> {
        match &mut self.place {
            Place::Head => self.head(bytes),
            Place::Body(left) => {
                let taken = bytes.len().min(*left);
                *left -= taken;
                Ok(Some(Step { taken, ends: *left == 0 }))
            }
            Place::Chunked(Chunk::Data(left)) => {
                let taken = bytes.len().min(*left);
                *left -= taken;
                if *left == 0 {
                    self.place = Place::Chunked(Chunk::Size);
                }
                Ok(Some(Step { taken, ends: false }))
            }
            Place::Chunked(_) => self.line(bytes),
        }
    }

    fn head(&mut self, bytes: &[u8]) -> Result<Option<Step>, Failure> {
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(taken) = response.parse(bytes)? else {
            return Ok(None);
        };
        if response.code != Some(200) {
            let found = String::from_utf8_lossy(&bytes[..bytes.len().min(500)]);
            return Err(format!("expected status 200, found {found:?}").into());
        }
        self.says_close = false;
        let (mut length, mut chunked) = (None, false);
        for header in response.headers.iter() {
            if header.name.eq_ignore_ascii_case("content-length") {
                length = Some(std::str::from_utf8(header.value)?.parse::<usize>()?);
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = header.value.eq_ignore_ascii_case(b"chunked");
            } else if header.name.eq_ignore_ascii_case("connection") {
                self.says_close = header.value.eq_ignore_ascii_case(b"close");
            }
        }
        self.body_bytes = length.unwrap_or(0);
        self.place = match length {
            _ if chunked => Place::Chunked(Chunk::Size),
            Some(length) => Place::Body(length),
            None => return Err("expected an answer that tells its length, found none".into()),
        };
        Ok(Some(Step { taken, ends: !chunked && length == Some(0) }))
    }

    /// A line of the chunked coding: a size, or a trailer.
    fn line(&mut self, bytes: &[u8]) -> Result<Option<Step>, Failure> {
        let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else {
            return Ok(None);
        };
        let taken = end + 2;
        if matches!(self.place, Place::Chunked(Chunk::Trailers)) {
            return Ok(Some(Step { taken, ends: end == 0 }));
        }
        let digits = std::str::from_utf8(&bytes[..end])?.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(digits.trim(), 16)?;
        self.body_bytes += size;
        let next = if size == 0 { Chunk::Trailers } else { Chunk::Data(size + 2) };
        self.place = Place::Chunked(next);
        Ok(Some(Step { taken, ends: false }))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    const PLAIN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
    const CHUNKED: &[u8] =
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\na: b\r\n\r\n";

    #[test]
    fn answers_are_counted_however_the_stream_is_cut() {
        let stream = [PLAIN, CHUNKED, PLAIN].concat();
        for size in 1..=stream.len() {
            let mut answers = Answers::new();
            let counted: usize =
                stream.chunks(size).map(|piece| answers.feed(piece, 3).unwrap()).sum();
            assert_eq!(counted, 3, "in pieces of {size}");
        }
    }

    #[test]
    fn a_wrong_answer_is_an_error() {
        for wrong in [
            &b"HTTP/1.1 500 no\r\ncontent-length: 3\r\n\r\nabc"[..],
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"what?",
        ] {
            assert!(Answers::new().feed(wrong, 3).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_announced_close_is_seen() {
        let mut answers = Answers::new();
        let close = b"HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(answers.feed(close, 0).unwrap(), 1);
        assert!(answers.says_close());
    }
}
