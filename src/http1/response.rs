//! Encoding of a response's head: what the application said is checked and written at once into
//! one buffer, which waits there until the first piece of the body decides about the framing.
//!
//! Framing and persistence are ours: the application's `transfer-encoding` is dropped, of its
//! `connection` the options `close` and `keep-alive` are, and its `content-length` is a promise
//! about the body, which the connection checks.

use super::error::ResponseError;
use super::framing::ResponseFraming;
use super::syntax::{decimal, is_token, list, write_decimal};
use super::words::has_control;

/// Headers that every response has unless the application sends its own, each a whole field line
/// with its line end: most responses have them, and a line is copied faster than it is put together.
#[derive(Clone, Copy, Debug, Default)]
pub struct AutomaticHeaders<'a> {
    /// `date: ...`, RFC 9110 §6.6.1.
    pub date: Option<&'a [u8]>,
    /// `server: ...`, RFC 9110 §10.2.4.
    pub server: Option<&'a [u8]>,
}

/// What a response's first line says besides the version, RFC 9112 §4. A number alone has the
/// registered reason phrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status<'a> {
    /// The status code.
    pub code: u16,
    /// A reason phrase of the application's own, without control characters.
    pub reason: Option<&'a [u8]>,
}

impl From<u16> for Status<'_> {
    fn from(code: u16) -> Self {
        Self { code, reason: None }
    }
}

/// What goes on the wire around the data of one body message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyFrame {
    /// What follows the data. `None`: not even the data is sent, as for HEAD, 204, 205 and 304.
    pub suffix: Option<&'static [u8]>,
}

/// The memory of a head is kept for the next one up to this size: most fit, and an idle connection
/// costs no more than that.
const KEPT_BYTES: usize = 512;

/// A response's head that waits for its framing.
#[derive(Clone, Debug, Default)]
pub(super) struct ResponseHead {
    /// Status line and fields, without framing, `connection` and the final empty line. The memory
    /// is kept from one response to the next, if it is not much.
    bytes: Vec<u8>,
    pub(super) status: u16,
    /// The application's Content-Length.
    pub(super) declared: Option<u64>,
    /// The application wants the connection closed.
    pub(super) close: bool,
    has_date: bool,
    has_server: bool,
}

impl ResponseHead {
    /// Checks and encodes the application's head. After an error the old content is gone.
    pub(super) fn encode<'h>(
        &mut self,
        status: Status<'_>,
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        automatic: &AutomaticHeaders<'_>,
    ) -> Result<(), ResponseError> {
        match status.code {
            100..=199 => return Err(ResponseError::InformationalStatus(status.code)),
            200..=999 => (),
            _ => return Err(ResponseError::InvalidStatus(status.code)),
        }
        if status.reason.is_some_and(|reason| reason.iter().any(u8::is_ascii_control)) {
            return Err(ResponseError::InvalidReason);
        }
        self.fields(status, headers, automatic)
    }

    /// Checks and encodes the head of `101 Switching Protocols`, but for its `connection`.
    pub(super) fn encode_switch<'h>(
        &mut self,
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        automatic: &AutomaticHeaders<'_>,
    ) -> Result<(), ResponseError> {
        self.fields(101.into(), headers, automatic)
    }

    fn fields<'h>(
        &mut self,
        status: Status<'_>,
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        automatic: &AutomaticHeaders<'_>,
    ) -> Result<(), ResponseError> {
        self.start(status);
        for (name, value) in headers {
            self.header(name, value)?;
        }
        self.add_automatic(automatic);
        Ok(())
    }

    fn start(&mut self, status: Status<'_>) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        *self = Self { bytes, status: status.code, ..Self::default() };
        write_status_line(status, &mut self.bytes);
    }

    fn header(&mut self, name: &[u8], value: &[u8]) -> Result<(), ResponseError> {
        if is_content_length(name)
            && let Some(length) = decimal(value)
        {
            // Nothing but digits, and the name is right: there is nothing more to check.
            return self.declare(length);
        }
        check_field(name, value)?;
        // Few lengths, so that most names are told apart without a comparison.
        match name.len() {
            4 => self.has_date |= name.eq_ignore_ascii_case(b"date"),
            6 => self.has_server |= name.eq_ignore_ascii_case(b"server"),
            10 if name.eq_ignore_ascii_case(b"connection") => {
                self.connection(value);
                return Ok(());
            }
            14 if is_content_length(name) => return self.length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => return Ok(()),
            _ => (),
        }
        write_field(name, value, &mut self.bytes);
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) {
        for option in list(value) {
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if !option.is_empty() && !option.eq_ignore_ascii_case(b"keep-alive") {
                write_field(b"connection", option, &mut self.bytes);
            }
        }
    }

    fn length(&mut self, value: &[u8]) -> Result<(), ResponseError> {
        let Some(length) = decimal(value.trim_ascii()) else {
            let value = value.escape_ascii().to_string();
            return Err(ResponseError::InvalidContentLength(value));
        };
        self.declare(length)
    }

    fn declare(&mut self, length: u64) -> Result<(), ResponseError> {
        match self.declared.replace(length) {
            None => Ok(()),
            Some(_) => Err(ResponseError::DuplicateContentLength),
        }
    }

    fn add_automatic(&mut self, automatic: &AutomaticHeaders<'_>) {
        if let (Some(date), false) = (automatic.date, self.has_date) {
            self.bytes.extend_from_slice(date);
        }
        if let (Some(server), false) = (automatic.server, self.has_server) {
            self.bytes.extend_from_slice(server);
        }
    }

    /// Gives back memory that an idle connection should not hold.
    pub(super) fn rest(&mut self) {
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
    }

    /// The value of the first field with this name.
    pub(super) fn field(&self, name: &[u8]) -> Option<&[u8]> {
        self.bytes.split(|&byte| byte == b'\n').find_map(|line| {
            let (found, value) = line.split_at_checked(name.len())?;
            let value = value.strip_prefix(b": ")?;
            found.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
        })
    }

    /// Adds a field of ours.
    pub(super) fn add(&mut self, name: &[u8], value: &[u8]) {
        write_field(name, value, &mut self.bytes);
    }

    /// Makes it another status, with that many bytes of content.
    pub(super) fn become_status(&mut self, status: u16, length: u64) {
        let end = self.bytes.iter().position(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let rest = self.bytes.split_off(end);
        self.bytes.clear();
        write_status_line(status.into(), &mut self.bytes);
        self.bytes.extend_from_slice(&rest);
        self.status = status;
        self.declared = Some(length);
    }

    /// Appends the whole head with its framing and the `connection` option, if one is needed.
    pub(super) fn finish(
        &self,
        framing: ResponseFraming,
        connection: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) {
        // The length of everything below but the head, at most: one allocation.
        out.reserve(self.bytes.len() + 96);
        out.extend_from_slice(&self.bytes);
        match framing {
            ResponseFraming::Length(length) | ResponseFraming::Bodiless(Some(length)) => {
                out.extend_from_slice(b"content-length: ");
                write_decimal(length, out);
                out.extend_from_slice(b"\r\n");
            }
            ResponseFraming::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            ResponseFraming::Bodiless(None) | ResponseFraming::UntilClose => (),
        }
        if let Some(option) = connection {
            write_field(b"connection", option, out);
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends `103 Early Hints` with one Link field for each of `links`, RFC 8297. After an error
/// nothing was appended.
pub(super) fn write_early_hints<'h>(
    links: impl Iterator<Item = &'h [u8]>,
    out: &mut Vec<u8>,
) -> Result<(), ResponseError> {
    let before = out.len();
    write_status_line(103.into(), out);
    for link in links {
        if let Err(error) = check_field(b"link", link) {
            out.truncate(before);
            return Err(error);
        }
        write_field(b"link", link, out);
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Appends a trailer section and its empty line, RFC 9112 §7.1.2. After an error nothing was
/// appended.
pub(super) fn write_trailers<'h>(
    fields: impl Iterator<Item = (&'h [u8], &'h [u8])>,
    out: &mut Vec<u8>,
) -> Result<(), ResponseError> {
    let before = out.len();
    for (name, value) in fields {
        let allowed = if NOT_IN_TRAILERS.iter().any(|it| name.eq_ignore_ascii_case(it)) {
            Err(ResponseError::ForbiddenTrailer(name.escape_ascii().to_string()))
        } else {
            check_field(name, value)
        };
        if let Err(error) = allowed {
            out.truncate(before);
            return Err(error);
        }
        write_field(name, value, out);
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Fields of which a recipient must know before the content, RFC 9110 §6.5.1: framing, routing,
/// controls, authentication, and how the content is to be understood.
const NOT_IN_TRAILERS: [&[u8]; 16] = [
    b"transfer-encoding",
    b"content-length",
    b"host",
    b"connection",
    b"te",
    b"trailer",
    b"upgrade",
    b"cache-control",
    b"expires",
    b"age",
    b"set-cookie",
    b"www-authenticate",
    b"location",
    b"content-encoding",
    b"content-type",
    b"content-range",
];

fn check_field(name: &[u8], value: &[u8]) -> Result<(), ResponseError> {
    if !is_token(name) {
        return Err(ResponseError::InvalidHeaderName(name.escape_ascii().to_string()));
    }
    // Hardly any value has a control character, be it one that it may have.
    if has_control(value) && value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | b'\0')) {
        return Err(ResponseError::InvalidHeaderValue(name.escape_ascii().to_string()));
    }
    Ok(())
}

/// Most responses have it, in one of two spellings: two comparisons of words.
fn is_content_length(name: &[u8]) -> bool {
    name.len() == b"content-length".len()
        && (name == b"content-length"
            || name == b"Content-Length"
            || name.eq_ignore_ascii_case(b"content-length"))
}

fn write_status_line(status: Status<'_>, out: &mut Vec<u8>) {
    if status == Status::from(200) {
        // Most are.
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    write_decimal(u64::from(status.code), out);
    out.push(b' ');
    out.extend_from_slice(status.reason.unwrap_or(reason_phrase(status.code).as_bytes()));
    out.extend_from_slice(b"\r\n");
}

fn write_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The reason phrase of a status as the IANA registry has it; empty for a status that is not
/// there, which RFC 9112 §4 allows.
#[must_use]
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        _ => error_phrase(status),
    }
}

fn error_phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => "",
    }
}
