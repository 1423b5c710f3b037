//! What there is to know about a request, by name: the atoms of a format.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::process;
use std::time::{Duration, Instant};

use super::Record;
use super::clock::Style;
use crate::http1::{RequestHead, Version};
use crate::listener::Address;
use crate::percent;
use crate::proxy::Scheme;

/// What nginx logs for a client that left before its answer.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// A row of the table of atoms: the name, and what it is.
pub type AtomRow = (&'static str, &'static str);

/// Every atom, as `docs/logging.md` has them; a test compares.
pub const ATOMS: &[AtomRow] = &[
    ("addr", "the client's address, `-` for a Unix socket"),
    ("port", "the client's port, `-` where a proxy does not tell it"),
    ("time", "when the request began, in local time: `2026-01-31 03:00:00 +0100`"),
    ("time_utc", "the same in UTC: `2026-01-31T02:00:00.123Z`"),
    ("time_clf", "the same as Apache and nginx write it: `31/Jan/2026:03:00:00 +0100`"),
    ("time_epoch", "the same in seconds since 1970, with milliseconds"),
    ("dt_ms", "how long it took from its head to the last byte of the answer, in milliseconds"),
    ("ttfb_ms", "how long it took to the first byte of the answer, in milliseconds"),
    ("status", "the response's status; 499 when the client left before it had one"),
    ("completion", "`OK` when the kernel took all of the response, else `-`"),
    ("body_bytes", "bytes of the response's body that were given out"),
    ("request_bytes", "bytes of the request: its head, and of its body what was read"),
    ("request_line", "the request line as sent"),
    ("method", "the method"),
    ("target", "the target as sent: path and query"),
    ("path", "the path, percent-decoded"),
    ("query_string", "the query, without `?`"),
    ("protocol", "`HTTP/1.1` or `HTTP/1.0`"),
    ("scheme", "`http` or `https`"),
    ("host", "the request's `Host`"),
    ("referer", "the request's `Referer`"),
    ("user_agent", "the request's `User-Agent`"),
    ("header{NAME}", "a header of the request; several lines are joined by `, `"),
    ("response_header{NAME}", "a header of the response, in the same way"),
    ("request_id", "the id of `--request-id-header`; without that option one that is made"),
    ("connection", "the number of the connection in this process, from 1"),
    ("connection_requests", "the number of the request on its connection, from 1"),
    ("server", "our address: `127.0.0.1:8000`, `unix:/run/web.sock`"),
    ("pid", "the process that answered"),
    ("tls_version", "the version of TLS, as a proxy in front tells it: `TLSv1.3`"),
    ("tls_cipher", "the cipher of TLS, as a proxy in front tells it"),
];

/// An atom of a compiled format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Atom {
    Addr,
    Port,
    Time(Style),
    Duration,
    FirstByte,
    Status,
    Completion,
    ResponseBody,
    RequestBytes,
    RequestLine,
    Method,
    Target,
    Path,
    Query,
    Protocol,
    Scheme,
    Header(Box<[u8]>),
    ResponseHeader(Box<[u8]>),
    RequestId,
    Connection,
    Number,
    Server,
    Pid,
    TlsVersion,
    TlsCipher,
}

/// What an atom says about one record.
#[derive(Debug, PartialEq)]
pub(super) enum Value<'r> {
    /// Not known, or not there.
    Missing,
    /// From the client or the application: to be escaped.
    Bytes(Cow<'r, [u8]>),
    Ip(IpAddr),
    Integer(u64),
    Milliseconds(Duration),
    Time(Instant, Style),
}

impl<'r> From<&'r str> for Value<'r> {
    fn from(text: &'r str) -> Self {
        Self::Bytes(Cow::Borrowed(text.as_bytes()))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Bytes(Cow::Owned(text.into_bytes()))
    }
}

impl<'r> From<&'r [u8]> for Value<'r> {
    fn from(bytes: &'r [u8]) -> Self {
        Self::Bytes(Cow::Borrowed(bytes))
    }
}

impl<'r, T: Into<Value<'r>>> From<Option<T>> for Value<'r> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Missing, Into::into)
    }
}

impl Atom {
    /// The atom of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "addr" => Self::Addr,
            "port" => Self::Port,
            "time" => Self::Time(Style::Local),
            "time_utc" => Self::Time(Style::Utc),
            "time_clf" => Self::Time(Style::CommonLog),
            "time_epoch" => Self::Time(Style::Epoch),
            "dt_ms" => Self::Duration,
            "ttfb_ms" => Self::FirstByte,
            "status" => Self::Status,
            "completion" => Self::Completion,
            "body_bytes" => Self::ResponseBody,
            "request_bytes" => Self::RequestBytes,
            "request_line" => Self::RequestLine,
            "method" => Self::Method,
            "target" => Self::Target,
            "path" => Self::Path,
            "query_string" => Self::Query,
            "protocol" => Self::Protocol,
            "scheme" => Self::Scheme,
            "host" => Self::Header((*b"host").into()),
            "referer" => Self::Header((*b"referer").into()),
            "user_agent" => Self::Header((*b"user-agent").into()),
            "request_id" => Self::RequestId,
            "connection" => Self::Connection,
            "connection_requests" => Self::Number,
            "server" => Self::Server,
            "pid" => Self::Pid,
            "tls_version" => Self::TlsVersion,
            "tls_cipher" => Self::TlsCipher,
            _ => {
                let (kind, rest) = name.split_once('{')?;
                let header = rest.strip_suffix('}')?.trim().to_ascii_lowercase();
                let header: Box<[u8]> = header.into_bytes().into();
                match kind {
                    _ if header.is_empty() || header.contains(&b'{') => return None,
                    "header" => Self::Header(header),
                    "response_header" => Self::ResponseHeader(header),
                    _ => return None,
                }
            }
        })
    }

    /// Whether what it says is a number, which may be written with `%d` and `%f`.
    pub(super) fn is_number(&self) -> bool {
        matches!(
            self,
            Self::Port
                | Self::Duration
                | Self::FirstByte
                | Self::Status
                | Self::ResponseBody
                | Self::RequestBytes
                | Self::Connection
                | Self::Number
                | Self::Pid
        )
    }

    /// What it says about `record`. `made_id` makes the id of a request that has none.
    pub(super) fn value<'r>(
        &self,
        record: &'r Record,
        made_id: impl FnOnce(&Record) -> String,
    ) -> Value<'r> {
        let head = record.head.as_ref();
        let endpoints = record.endpoints.as_deref();
        let tls = endpoints.and_then(|endpoints| endpoints.tls.as_ref());
        match self {
            Self::Addr => peer(record).map_or(Value::Missing, |peer| Value::Ip(peer.ip())),
            // A proxy need not tell it.
            Self::Port => integer(peer(record).map(|peer| peer.port()).filter(|&port| port != 0)),
            Self::Time(style) => Value::Time(record.begun, *style),
            Self::Duration => Value::Milliseconds(record.ended - record.begun),
            Self::FirstByte => record.first_byte.map_or(Value::Missing, |first| {
                Value::Milliseconds(first.saturating_duration_since(record.begun))
            }),
            Self::Status if record.status == 0 => Value::Integer(CLIENT_CLOSED_REQUEST.into()),
            Self::Status => Value::Integer(record.status.into()),
            Self::Completion => record.complete.then_some("OK").into(),
            Self::ResponseBody => Value::Integer(record.response_body),
            Self::RequestBytes => {
                Value::Integer(head.map_or(0, RequestHead::length) as u64 + record.request_body)
            }
            Self::RequestLine => head.map(request_line).map_or(Value::Missing, Value::Bytes),
            Self::Method => head.map(RequestHead::method).into(),
            Self::Target => head.map(RequestHead::target).into(),
            Self::Path => head.map_or(Value::Missing, |head| Value::Bytes(path(head))),
            Self::Query => head.map(RequestHead::query).into(),
            Self::Protocol => head.map(protocol).into(),
            Self::Scheme => scheme(record).into(),
            Self::Header(name) => head.map_or(Value::Missing, |head| {
                joined(head.headers().filter(|(one, _)| **one == **name).map(|(_, value)| value))
            }),
            Self::ResponseHeader(name) => joined(response_values(&record.response, name)),
            Self::RequestId => made_id(record).into(),
            Self::Connection => integer(endpoints.map(|endpoints| endpoints.connection)),
            Self::Number => Value::Integer(record.number.into()),
            Self::Server => endpoints.map(|endpoints| endpoints.local.to_string()).into(),
            Self::Pid => Value::Integer(process::id().into()),
            Self::TlsVersion => tls.and_then(|tls| tls.version.as_deref()).into(),
            Self::TlsCipher => tls.and_then(|tls| tls.cipher.as_deref()).into(),
        }
    }
}

fn integer(number: Option<impl Into<u64>>) -> Value<'static> {
    number.map_or(Value::Missing, |number| Value::Integer(number.into()))
}

/// Who asked, as far as that is known.
fn peer(record: &Record) -> Option<SocketAddr> {
    let told = record.forwarded.as_ref().and_then(|told| told.client.as_ref());
    match told.or_else(|| Some(&record.endpoints.as_ref()?.peer))? {
        Address::Tcp(address) => Some(*address),
        Address::UnixPath(_) | Address::UnixAbstract(_) | Address::UnixUnnamed => None,
    }
}

fn scheme(record: &Record) -> &'static str {
    let told = record.forwarded.as_ref().and_then(|told| told.scheme);
    let tls = record.endpoints.as_ref().is_some_and(|ends| ends.tls.is_some());
    match told {
        Some(Scheme::Https) => "https",
        None if tls => "https",
        Some(Scheme::Http) | None => "http",
    }
}

fn path(head: &RequestHead) -> Cow<'_, [u8]> {
    let path = head.path();
    if path.contains(&b'%') { Cow::Owned(percent::decoded(path)) } else { Cow::Borrowed(path) }
}

fn protocol(head: &RequestHead) -> &'static str {
    match head.version() {
        Version::Http10 => "HTTP/1.0",
        Version::Http11 => "HTTP/1.1",
    }
}

fn request_line(head: &RequestHead) -> Cow<'_, [u8]> {
    let parts = [head.method().as_bytes(), head.target(), protocol(head).as_bytes()];
    Cow::Owned(parts.join(&b' '))
}

fn joined<'r>(mut values: impl Iterator<Item = &'r [u8]>) -> Value<'r> {
    let Some(first) = values.next() else { return Value::Missing };
    let Some(second) = values.next() else { return first.into() };
    let all: Vec<&[u8]> = [first, second].into_iter().chain(values).collect();
    Value::Bytes(Cow::Owned(all.join(&b", "[..])))
}

/// The values of a header in the head of a response as we have written it.
fn response_values<'r>(head: &'r [u8], name: &[u8]) -> impl Iterator<Item = &'r [u8]> {
    head.split(|&byte| byte == b'\n').skip(1).filter_map(move |line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let (one, value) = line.split_at(colon);
        one.eq_ignore_ascii_case(name).then(|| value[1..].trim_ascii())
    })
}
