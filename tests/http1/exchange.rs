//! A request and what an application answers to it, right or wrong: whatever it is, a client must
//! read what was meant, or see that the answer is broken.

use super::response::{Response, Unreadable, read, trim};
use granian_uring::http1::{AutomaticHeaders, Connection, Event, Limits, ResponseError};

/// Requests that a response depends on.
pub const REQUESTS: [&str; 9] = [
    "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nConnection: TE\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
];

/// What an application says in answer to one of [`REQUESTS`].
#[derive(Clone, Debug)]
pub struct Exchange {
    pub request: &'static str,
    /// Links that are sent ahead of the response, in a 103.
    pub hints: Option<Vec<Vec<u8>>>,
    pub status: u16,
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// The body messages; the last one ends the response, if no trailers do.
    pub messages: Vec<Vec<u8>>,
    pub trailers: Option<Vec<(Vec<u8>, Vec<u8>)>>,
}

impl Exchange {
    /// Encodes the answer, reads it back as a client, and compares.
    pub fn check(&self) {
        let mut connection = Connection::new(Limits::default());
        let mut input = self.request.as_bytes();
        while connection.next_event(&mut input).unwrap().is_some_and(|event| event != Event::End) {}
        self.check_hints(&mut connection);
        let headers = pairs(&self.headers);
        let automatic = AutomaticHeaders { date: Some(b"date: now\r\n"), server: None };
        let started = connection.start_response(self.status, headers, &automatic);
        assert_eq!(started.is_ok(), self.is_legal(), "{self:?}: {started:?}");
        if started.is_err() {
            assert!(!connection.response_started());
            return;
        }
        let (mut wire, mut result) = self.send(&mut connection);
        if let (Ok(()), Some(trailers)) = (&result, &self.trailers) {
            let length = wire.len();
            result = connection.send_trailers(pairs(trailers), &mut wire);
            assert!(result.is_ok() || wire.len() == length, "{self:?}: {result:?}");
            if matches!(result, Err(ResponseError::ForbiddenTrailer(_)))
                || !self.trailers_are_legal()
            {
                assert!(result.is_err() && !connection.response_ended(), "{self:?}");
                return;
            }
        }
        assert_eq!(result.is_ok(), self.keeps_its_promise(), "{self:?}: {result:?}");
        assert_eq!(result.is_ok(), connection.response_ended());
        let read = read(&wire, self.is_head());
        if let Err(error) = result {
            // What is on the wire must not look whole, unless it is: the refused rest was too much.
            let whole = matches!(error, ResponseError::BodyTooLong { declared, .. }
                if read.as_ref().is_ok_and(|(read, _)| read.body.len() as u64 == declared));
            let incomplete = matches!(read, Err(Unreadable::Incomplete));
            assert!(whole || incomplete, "{self:?}: {read:?}");
            return;
        }
        match read {
            Ok((response, rest)) => {
                assert_eq!(rest, b"", "{self:?}: bytes after the response");
                self.compare(&response, connection.keeps_alive());
            }
            Err(error) => panic!("{self:?}: {error:?} in {}", wire.escape_ascii()),
        }
    }

    /// A 103 has the links and nothing else, and an old client never sees it.
    fn check_hints(&self, connection: &mut Connection) {
        let Some(links) = &self.hints else { return };
        let mut wire = Vec::new();
        let result = connection.write_early_hints(links.iter().map(|link| &link[..]), &mut wire);
        if self.is_http10() || result.is_err() {
            assert_eq!(wire, b"", "{self:?}");
            assert!(self.is_http10() || !links.iter().all(|link| is_value(link)), "{self:?}");
            return;
        }
        let (hints, rest) = read(&wire, false).unwrap();
        assert_eq!((hints.status, rest), (103, &b""[..]));
        let expected: Vec<_> =
            links.iter().map(|link| (b"link".to_vec(), trim(link).to_vec())).collect();
        assert_eq!(hints.headers, expected);
    }

    /// What goes on the wire, up to the first message that is refused.
    fn send(&self, connection: &mut Connection) -> (Vec<u8>, Result<(), ResponseError>) {
        let mut wire = Vec::new();
        for (index, data) in self.messages.iter().enumerate() {
            let length = wire.len();
            let ends = index + 1 == self.messages.len() && self.trailers.is_none();
            match connection.send_body(data.len(), ends, &mut wire) {
                Ok(frame) => {
                    if let Some(suffix) = frame.suffix {
                        wire.extend_from_slice(data);
                        wire.extend_from_slice(suffix);
                    }
                }
                Err(error) => {
                    assert_eq!(wire.len(), length, "{error}: something was written");
                    return (wire, Err(error));
                }
            }
        }
        (wire, Ok(()))
    }

    fn compare(&self, response: &Response, keeps_alive: bool) {
        assert_eq!(response.status, self.status);
        let sent = self.messages.concat();
        let expected = if self.has_body() { &sent[..] } else { b"" };
        assert_eq!(response.body, expected, "{self:?}");
        let chunked = !response.values("transfer-encoding").is_empty();
        let trailers = match &self.trailers {
            Some(trailers) if chunked && self.request.contains("TE: trailers") => &trailers[..],
            _ => &[],
        };
        let trailers: Vec<_> =
            trailers.iter().map(|(name, value)| (name.clone(), trim(value).to_vec())).collect();
        assert_eq!(response.trailers, trailers, "{self:?}");
        let says = |option: &[u8]| response.values("connection").contains(&option);
        assert_eq!(says(b"close"), !keeps_alive, "{self:?}: {response:?}");
        assert_eq!(says(b"keep-alive"), keeps_alive && self.is_http10(), "{self:?}");
        assert!(!keeps_alive || !response.until_close, "{self:?}");
        assert!(!self.is_http10() || response.values("transfer-encoding").is_empty(), "{self:?}");
        if self.status == 204 {
            assert!(response.values("content-length").is_empty(), "RFC 9110 §8.6");
        }
        let dates = self.values(b"date").count().max(1);
        assert_eq!(response.values("date").len(), dates, "{self:?}");
        for (name, value) in &self.headers {
            let ours = ["connection", "content-length", "transfer-encoding"];
            if !ours.iter().any(|ours| name.eq_ignore_ascii_case(ours.as_bytes())) {
                let line = (name.clone(), trim(value).to_vec());
                assert!(response.headers.contains(&line), "{self:?}: {response:?}");
            }
        }
    }

    /// Whether the head can be sent at all.
    fn is_legal(&self) -> bool {
        (200..=999).contains(&self.status)
            && self.headers.iter().all(|(name, value)| is_name(name) && is_value(value))
            && self.values(b"content-length").count() <= 1
            && self.values(b"content-length").all(|value| declared(value).is_some())
    }

    /// Whether no trailer breaks the message; what else cannot be one is the codec's own list.
    fn trailers_are_legal(&self) -> bool {
        let framing: [&[u8]; 4] = [b"content-length", b"transfer-encoding", b"connection", b"host"];
        self.trailers.iter().flatten().all(|(name, value)| {
            let frames = framing.iter().any(|one| name.eq_ignore_ascii_case(one));
            is_name(name) && is_value(value) && !frames
        })
    }

    /// Whether the body is as long as the head says.
    fn keeps_its_promise(&self) -> bool {
        let declared = self.values(b"content-length").next().and_then(declared);
        let sent: usize = self.messages.iter().map(Vec::len).sum();
        !self.has_body() || declared.is_none_or(|declared| declared == sent as u64)
    }

    fn has_body(&self) -> bool {
        !self.is_head() && ![204, 205, 304].contains(&self.status)
    }

    fn is_head(&self) -> bool {
        self.request.starts_with("HEAD")
    }

    fn is_http10(&self) -> bool {
        self.request.contains("HTTP/1.0")
    }

    fn values<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let named = move |header: &&(Vec<u8>, Vec<u8>)| header.0.eq_ignore_ascii_case(name);
        self.headers.iter().filter(named).map(|header| &header.1[..])
    }
}

fn declared(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}

fn pairs(fields: &[(Vec<u8>, Vec<u8>)]) -> impl Iterator<Item = (&[u8], &[u8])> {
    fields.iter().map(|(name, value)| (&name[..], &value[..]))
}

fn is_name(name: &[u8]) -> bool {
    let token = |byte: &u8| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(byte);
    !name.is_empty() && name.iter().all(token)
}

fn is_value(value: &[u8]) -> bool {
    !value.iter().any(|byte| b"\r\n\0".contains(byte))
}
