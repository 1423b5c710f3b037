//! The head of a request, and what its header fields mean for this connection.
//!
//! A head owns one copy of its bytes; everything else is spans into it. Names are lower-cased in
//! that copy once, values are without the white space around them, and nothing is decoded.

use super::error::ProtocolError;
use super::framing::{FramingFields, request_length};
use super::range::RangeRequest;
use super::syntax::{is_host, list};
use super::target;
use super::words::write_lower_case;
use std::ops::Range;

/// The version of a request. A response always says HTTP/1.1 (RFC 9110 §6.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
}

/// How long a request's body is, RFC 9112 §6.3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyLength {
    /// The request has no body.
    #[default]
    None,
    /// That many bytes.
    Length(u64),
    /// As many as the chunks have.
    Chunked,
}

/// Where something is in a head. Heads are shorter than 4 GiB (see [`super::Connection::new`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    #[allow(clippy::cast_possible_truncation, reason = "a head is shorter than 4 GiB")]
    fn new(range: Range<usize>) -> Self {
        Self { start: range.start as u32, end: range.end as u32 }
    }

    /// Where `part` is in `head`, whose memory it is.
    fn of(part: &[u8], head: &[u8]) -> Self {
        let start = part.as_ptr().addr() - head.as_ptr().addr();
        Self::new(start..start + part.len())
    }

    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    name: Span,
    value: Span,
}

/// The request line and the header fields of one request. The default one is none yet: a place for
/// [`Connection::next_head`](super::Connection::next_head) to read one into.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RequestHead {
    /// The head, and behind it what [`RequestHead::set_header`] added.
    bytes: Vec<u8>,
    fields: Vec<Field>,
    line: Line,
}

/// Where the parts of the request line are, and what the header fields mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Line {
    /// The length of the head in the input.
    length: usize,
    method: Span,
    target: Span,
    path: Span,
    query: Span,
    version: Version,
    body_length: BodyLength,
    expects_continue: bool,
    is_upgrade: bool,
    keeps_alive: bool,
    accepts_trailers: bool,
    /// Which fields ask for a part of the representation.
    range: Option<u32>,
    if_range: Option<u32>,
}

impl Clone for RequestHead {
    fn clone(&self) -> Self {
        Self { bytes: self.bytes.clone(), fields: self.fields.clone(), line: self.line }
    }

    /// Uses the memory of the old head again.
    fn clone_from(&mut self, source: &Self) {
        self.bytes.clone_from(&source.bytes);
        self.fields.clone_from(&source.fields);
        self.line = source.line;
    }
}

impl RequestHead {
    /// Become a copy of `source` without its headers.
    pub fn clone_line_from(&mut self, source: &Self) {
        self.bytes.clear();
        self.bytes.extend_from_slice(&source.bytes[..source.line.target.end as usize]);
        self.fields.clear();
        self.line = source.line;
    }

    /// The method as sent; it is case-sensitive (RFC 9110 §9.1).
    #[must_use]
    #[allow(clippy::missing_panics_doc, reason = "the sentence below is the proof")]
    pub fn method(&self) -> &str {
        str::from_utf8(self.slice(self.line.method)).expect("a method is a token, which is ASCII")
    }

    /// The target as sent, RFC 9112 §3.2.
    #[must_use]
    pub fn target(&self) -> &[u8] {
        self.slice(self.line.target)
    }

    /// The path of the target, percent-encoded as sent: `/` where an absolute-form has none, `*`
    /// for the asterisk-form.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        match self.slice(self.line.path) {
            b"" => b"/",
            path => path,
        }
    }

    /// The query without its question mark, percent-encoded as sent. Empty where there is none.
    #[must_use]
    pub fn query(&self) -> &[u8] {
        self.slice(self.line.query)
    }

    /// The version of the request.
    #[must_use]
    pub fn version(&self) -> Version {
        self.line.version
    }

    /// Names (lower case) and values (trimmed) in the order of the lines. Host has the authority
    /// of an absolute-form target (RFC 9112 §3.2.2).
    #[must_use]
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> + DoubleEndedIterator {
        self.fields.iter().map(|field| (self.slice(field.name), self.slice(field.value)))
    }

    /// The value of the first line with this name, which is given in lower case.
    #[must_use]
    pub fn header(&self, lower_case_name: &[u8]) -> Option<&[u8]> {
        self.headers().find(|(name, _)| *name == lower_case_name).map(|(_, value)| value)
    }

    /// Take out the lines whose name (in lower case) is one of those.
    pub fn remove_headers(&mut self, is_one: impl Fn(&[u8]) -> bool) {
        let bytes = &self.bytes;
        self.fields.retain(|field| !is_one(&bytes[field.name.range()]));
    }

    /// Give the first line with this name, which is in lower case, another value; or add one.
    pub fn set_header(&mut self, lower_case_name: &[u8], value: &[u8]) {
        let value = self.keep(value);
        let bytes = &self.bytes;
        let mut fields = self.fields.iter_mut();
        if let Some(field) = fields.find(|field| bytes[field.name.range()] == *lower_case_name) {
            field.value = value;
        } else {
            let name = self.keep(lower_case_name);
            self.fields.push(Field { name, value });
        }
    }

    /// How long the body is.
    #[must_use]
    pub fn body_length(&self) -> BodyLength {
        self.line.body_length
    }

    /// Whether the client waits for `100 Continue` before it sends the body, RFC 9110 §10.1.1.
    /// Never for HTTP/1.0, nor where there is no body to wait for.
    #[must_use]
    pub fn expects_continue(&self) -> bool {
        self.line.expects_continue
    }

    /// Whether the client asks for another protocol, RFC 9110 §7.8.
    #[must_use]
    pub fn is_upgrade(&self) -> bool {
        self.line.is_upgrade
    }

    /// Whether the client takes trailers, RFC 9110 §10.1.4. Never in HTTP/1.0, which has none.
    #[must_use]
    pub fn accepts_trailers(&self) -> bool {
        self.line.accepts_trailers
    }

    /// What asks for a part of the representation: of a GET, where it is said once.
    pub(super) fn range_request(&self) -> Option<Box<RangeRequest>> {
        let value = |field: u32| self.slice(self.fields[field as usize].value).to_vec();
        let range = self.line.range.filter(|_| self.slice(self.line.method) == b"GET")?;
        Some(Box::new(RangeRequest {
            range: value(range),
            if_range: self.line.if_range.map(value),
        }))
    }

    /// Whether the answer has no body whatever it says, RFC 9110 §9.3.2.
    pub(super) fn is_head(&self) -> bool {
        self.slice(self.line.method) == b"HEAD"
    }

    /// Whether the client lets the connection live after this request, RFC 9112 §9.3.
    pub(super) fn keeps_alive(&self) -> bool {
        self.line.keeps_alive
    }

    /// The length of the head as sent, in bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        self.line.length
    }

    /// The memory that it holds, in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.bytes.capacity() + self.fields.capacity() * size_of::<Field>()
    }

    /// Becomes `head`, which is exactly one, with the meaning of what httparse found in it. Uses the
    /// memory of the old head again; after an error there is no head in it.
    pub(super) fn read(
        &mut self,
        head: &[u8],
        (method, target, version): (&str, &str, Version),
        headers: &[httparse::Header<'_>],
    ) -> Result<(), ProtocolError> {
        let parts = target::split(method, target.as_bytes())?;
        let target = Span::of(target.as_bytes(), head);
        let within_target = |range: Range<usize>| {
            let offset = target.start as usize;
            Span::new(range.start + offset..range.end + offset)
        };
        let Self { bytes, fields, line } = self;
        bytes.clear();
        bytes.extend_from_slice(head);
        fields.clear();
        fields.reserve(headers.len());
        let mut meaning = Meaning::default();
        for header in headers {
            let name = Span::of(header.name.as_bytes(), head);
            let lower_case = &mut bytes[name.range()];
            write_lower_case(header.name.as_bytes(), lower_case);
            meaning.read(lower_case, header.value, fields.len())?;
            fields.push(Field { name, value: Span::of(header.value, head) });
        }
        meaning.check_host(version)?;
        let body_length = request_length(version, meaning.framing, meaning.codings(headers))?;
        if let (Some(authority), Some(host)) = (parts.authority, meaning.host) {
            fields[host].value = within_target(authority);
        }
        let is_11 = version == Version::Http11;
        let has_body = !matches!(body_length, BodyLength::None | BodyLength::Length(0));
        *line = Line {
            method: Span::of(method.as_bytes(), head),
            target,
            path: within_target(parts.path),
            query: within_target(parts.query),
            version,
            body_length,
            expects_continue: meaning.expects_continue && is_11 && has_body,
            is_upgrade: meaning.upgrade_field && meaning.upgrade_option && is_11,
            // RFC 9112 §9.3, in its order.
            keeps_alive: !meaning.close && (is_11 || meaning.keep_alive),
            accepts_trailers: meaning.te_trailers && is_11,
            range: meaning.range.filter(|_| !meaning.ranges),
            if_range: meaning.if_range,
            length: head.len(),
        };
        Ok(())
    }

    fn slice(&self, span: Span) -> &[u8] {
        &self.bytes[span.range()]
    }

    /// A copy of `text` behind the bytes of the head.
    fn keep(&mut self, text: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(text);
        Span::new(start..self.bytes.len())
    }
}

/// The number of a field.
#[allow(clippy::cast_possible_truncation, reason = "a head has no more fields than bytes")]
fn number(index: usize) -> u32 {
    index as u32
}

/// What the header fields say to a server, collected line by line.
#[derive(Default)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts, each of one header line")]
struct Meaning<'a> {
    /// Which field is Host.
    host: Option<usize>,
    framing: FramingFields<'a>,
    close: bool,
    keep_alive: bool,
    upgrade_option: bool,
    upgrade_field: bool,
    expects_continue: bool,
    te_trailers: bool,
    /// Which fields are Range and If-Range.
    range: Option<u32>,
    if_range: Option<u32>,
    /// There is more than one Range.
    ranges: bool,
}

impl<'a> Meaning<'a> {
    /// Takes in the line at `index`; `name` is in lower case.
    fn read(&mut self, name: &[u8], value: &'a [u8], index: usize) -> Result<(), ProtocolError> {
        match name {
            b"host" => {
                if self.host.replace(index).is_some() {
                    return Err(ProtocolError::DuplicateHost);
                }
                if !is_host(value) {
                    return Err(ProtocolError::InvalidHost);
                }
            }
            b"content-length" => {
                self.framing.content_length = Some(value);
                self.framing.content_length_count += 1;
            }
            b"transfer-encoding" => self.framing.transfer_encoding_count += 1,
            b"connection" => self.connection(value),
            b"upgrade" => self.upgrade_field = true,
            b"expect" => {
                if !list(value).all(|item| item.eq_ignore_ascii_case(b"100-continue")) {
                    return Err(ProtocolError::UnknownExpectation);
                }
                self.expects_continue = true;
            }
            b"te" => {
                self.te_trailers |= list(value).any(|item| item.eq_ignore_ascii_case(b"trailers"));
            }
            b"range" => self.ranges |= self.range.replace(number(index)).is_some(),
            b"if-range" => self.if_range = Some(number(index)),
            _ => (),
        }
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) {
        for option in list(value) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.upgrade_option |= option.eq_ignore_ascii_case(b"upgrade");
        }
    }

    /// RFC 9112 §3.2: HTTP/1.1 has exactly one Host. It may be empty.
    fn check_host(&self, version: Version) -> Result<(), ProtocolError> {
        match (version, self.host) {
            (Version::Http11, None) => Err(ProtocolError::MissingHost),
            _ => Ok(()),
        }
    }

    /// The values of all Transfer-Encoding lines.
    fn codings<'h>(&self, headers: &'h [httparse::Header<'_>]) -> impl Iterator<Item = &'h [u8]> {
        let searched = if self.framing.transfer_encoding_count > 0 { headers } else { &[] };
        let coded =
            searched.iter().filter(|header| header.name.eq_ignore_ascii_case("transfer-encoding"));
        coded.map(|header| header.value)
    }
}
