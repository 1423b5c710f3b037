//! What the headers of a request say of its client: `X-Forwarded-*`, or `Forwarded` (RFC 7239).
//!
//! Everything is read from the right. Each proxy adds at the right end, so what a client has made
//! up is at the left; the value at the very end is from the peer itself, which is trusted. An
//! address that is trusted as well vouches for the one on its left, and so on: the first that is
//! not trusted is the client. What stands further left is never looked at.
//!
//! ```text
//! X-Forwarded-For:   made-up, 203.0.113.7, 10.0.0.2        peer 10.0.0.1
//!                             └ client     └ trusted            └ trusted
//! X-Forwarded-Proto:          https,       http
//! ```
//!
//! Scheme, host and port are those at the client's place, counted from the right, since the same
//! proxy wrote them; of a shorter list it is the leftmost value. An element that names no address
//! (`unknown`, `_hidden`, garbage) ends the walk at the last address that is known.
//!
//! One family of headers is read, the other never: a proxy hands on what it does not know, and
//! then it is the client who wrote it.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Scheme, Trusted};
use crate::http1::{RequestHead, is_host};
use crate::listener::Address;

/// The longest prefix that is taken, in bytes.
const PREFIX_BYTES: usize = 256;

/// Which headers a proxy writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `X-Forwarded-For`, `-Proto`, `-Host`, `-Port` and `-Prefix`: what nearly all proxies write.
    #[default]
    XForwarded,
    /// `Forwarded`, RFC 7239.
    Forwarded,
}

/// What a server behind a proxy believes.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Peers that may speak for others.
    pub trusted: Trusted,
    /// Read the headers of trusted peers.
    pub headers: bool,
    /// Which headers those are.
    pub format: Format,
    /// The host that they name becomes the request's `host`, too.
    pub rewrite_host: bool,
    /// Take `X-Forwarded-Prefix` as well.
    pub prefix: bool,
    /// Remove such headers, whatever they are called, from requests of peers that are not trusted.
    pub strip_untrusted: bool,
}

/// What a trusted peer told of a request; `None` is what it did not tell, and the connection's own
/// holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// Who asked; port 0 where it is not known.
    pub client: Option<Address>,
    /// How.
    pub scheme: Option<Scheme>,
    /// Whom.
    pub server: Option<Server>,
    /// The path that the proxy has taken off the front of the target: `/` and segments of
    /// unreserved characters, without a slash at the end.
    pub prefix: Option<String>,
}

/// The server that a client asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// A name, or an address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl Options {
    /// Whether there is anything to do for a request.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.headers || self.strip_untrusted
    }

    /// What is told of the request with this `head`, which came from `peer` to `local` over a
    /// connection of this `scheme`. Changes the head where the options say so.
    pub fn resolve(
        &self,
        head: &mut RequestHead,
        (peer, local): (&Address, &Address),
        scheme: Scheme,
    ) -> Option<Box<Forwarded>> {
        if !self.trusted.trusts(peer, local) {
            if self.strip_untrusted {
                head.remove_headers(speaks_for_others);
            }
            return None;
        }
        if !self.headers {
            return None;
        }
        let (forwarded, host_is_told) = match self.format {
            Format::XForwarded => {
                self.read(|field| Some(list(head, field.x_name()?)), local, scheme)
            }
            Format::Forwarded => {
                self.read(|field| Some(parameters(head, field.parameter()?)), local, scheme)
            }
        };
        if self.rewrite_host
            && host_is_told
            && let Some(server) = &forwarded.server
        {
            let default_port = forwarded.scheme.unwrap_or(scheme).default_port();
            head.set_header(b"host", server.authority(default_port).as_bytes());
        }
        (forwarded != Forwarded::default()).then(|| Box::new(forwarded))
    }

    /// `values` gives those of a field, from the right; `None` within them for an element that does
    /// not say it. Also returns whether there is a host among them.
    fn read<'h, I: Iterator<Item = Option<Cow<'h, [u8]>>>>(
        &self,
        values: impl Fn(Field) -> Option<I>,
        local: &Address,
        scheme: Scheme,
    ) -> (Forwarded, bool) {
        let (client, place) = match values(Field::For) {
            Some(values) => walk(values, &self.trusted),
            None => (None, 0),
        };
        let at_place = |field| values(field)?.take(place + 1).flatten().last();
        let told_scheme = at_place(Field::Proto).and_then(|value| read_scheme(&value));
        let default_port = told_scheme.unwrap_or(scheme).default_port();
        let host = at_place(Field::Host).and_then(|value| read_host(&value));
        let port = at_place(Field::Port).and_then(|value| read_port(&value)).filter(|&it| it > 0);
        let host_is_told = host.is_some();
        let server = match (host, port, local) {
            (Some((host, own_port)), port, _) => {
                Some(Server { host, port: port.or(own_port).unwrap_or(default_port) })
            }
            (None, Some(port), Address::Tcp(local)) => {
                Some(Server { host: local.ip().to_string(), port })
            }
            _ => None,
        };
        let prefix = match at_place(Field::Prefix) {
            Some(value) if self.prefix => read_prefix(&value),
            _ => None,
        };
        (Forwarded { client, scheme: told_scheme, server, prefix }, host_is_told)
    }
}

impl Server {
    /// `uri-host [ ":" port ]`, RFC 3986 §3.2, without the port that goes without saying.
    fn authority(&self, default_port: u16) -> String {
        let Self { host, port } = self;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        if *port == default_port { host } else { format!("{host}:{port}") }
    }
}

/// What there is to know.
#[derive(Clone, Copy, Debug)]
enum Field {
    For,
    Proto,
    Host,
    Port,
    Prefix,
}

impl Field {
    #[allow(clippy::unnecessary_wraps, reason = "as its sibling")]
    fn x_name(self) -> Option<&'static [u8]> {
        Some(match self {
            Self::For => b"x-forwarded-for",
            Self::Proto => b"x-forwarded-proto",
            Self::Host => b"x-forwarded-host",
            Self::Port => b"x-forwarded-port",
            Self::Prefix => b"x-forwarded-prefix",
        })
    }

    /// RFC 7239 §5. `by` is the proxy's own end, which nobody asks for.
    fn parameter(self) -> Option<&'static [u8]> {
        match self {
            Self::For => Some(b"for"),
            Self::Proto => Some(b"proto"),
            Self::Host => Some(b"host"),
            Self::Port | Self::Prefix => None,
        }
    }
}

/// A header by which a peer speaks for others, also under the names that applications after CGI
/// cannot tell from these (RFC 3875 §4.1.18 makes every hyphen an underscore).
fn speaks_for_others(name: &[u8]) -> bool {
    let begins = |prefix: &[u8]| {
        name.len() >= prefix.len()
            && name
                .iter()
                .zip(prefix)
                .all(|(&byte, &wanted)| byte == wanted || (byte == b'_' && wanted == b'-'))
    };
    name == b"forwarded" || begins(b"x-forwarded-") || begins(b"x-real-ip")
}

/// The client, and how many elements are on the right of the one where the walk ended.
fn walk<'h>(
    elements: impl Iterator<Item = Option<Cow<'h, [u8]>>>,
    trusted: &Trusted,
) -> (Option<Address>, usize) {
    let mut client = None;
    let mut last = 0;
    for (place, element) in elements.enumerate() {
        last = place;
        let Some((ip, port)) = element.and_then(|element| read_node(&element)) else { break };
        let address = Address::tcp((ip, port).into());
        let goes_on = trusted.trusts(&address, &Address::UnixUnnamed);
        client = Some(address);
        if !goes_on {
            break;
        }
    }
    (client, last)
}

/// The elements of all lines of this name as one list (RFC 9110 §5.3), from the right; empty ones
/// do not count (§5.6.1).
fn list<'h>(
    head: &'h RequestHead,
    name: &'static [u8],
) -> impl Iterator<Item = Option<Cow<'h, [u8]>>> {
    lines(head, name)
        .flat_map(|line| line.rsplit(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
        .map(|element| Some(Cow::Borrowed(element)))
}

/// This parameter of each element of all `Forwarded` lines, RFC 7239 §4, from the right.
fn parameters<'h>(
    head: &'h RequestHead,
    name: &'static [u8],
) -> impl Iterator<Item = Option<Cow<'h, [u8]>>> {
    lines(head, b"forwarded")
        .flat_map(|line| Pieces { rest: Some(line), separator: b',' })
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
        .map(move |element| parameter(element, name))
}

/// The values of all lines of this name, the last line first.
fn lines<'h>(head: &'h RequestHead, name: &'static [u8]) -> impl Iterator<Item = &'h [u8]> {
    head.headers().rev().filter(move |(other, _)| *other == name).map(|(_, value)| value)
}

/// The parts of a text between separators that are not in quotes, from the right: a quote that a
/// client has left open swallows nothing of what a proxy wrote behind it.
struct Pieces<'a> {
    rest: Option<&'a [u8]>,
    separator: u8,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let mut quoted = false;
        let mut position = rest.len();
        while position > 0 {
            position -= 1;
            match rest[position] {
                // From the right every quote opens one, unless it is escaped within one.
                b'"' => {
                    let before = &rest[..position];
                    let escapes = before.iter().rev().take_while(|&&byte| byte == b'\\').count();
                    if !quoted || escapes % 2 == 0 {
                        quoted = !quoted;
                    }
                }
                byte if byte == self.separator && !quoted => {
                    self.rest = Some(&rest[..position]);
                    return Some(&rest[position + 1..]);
                }
                _ => {}
            }
        }
        self.rest = None;
        Some(rest)
    }
}

/// The value of a parameter of one element. `None` if it is not there, or the element is not as
/// RFC 7239 §4 has it.
fn parameter<'a>(element: &'a [u8], name: &[u8]) -> Option<Cow<'a, [u8]>> {
    let mut found = None;
    for pair in (Pieces { rest: Some(element), separator: b';' }).map(<[u8]>::trim_ascii) {
        if pair.is_empty() {
            continue;
        }
        let equals = pair.iter().position(|&byte| byte == b'=')?;
        let value = value(&pair[equals + 1..])?;
        if pair[..equals].eq_ignore_ascii_case(name) && found.replace(value).is_some() {
            // Twice is an error, and nobody can say which is meant.
            return None;
        }
    }
    found
}

/// A token or a quoted string (RFC 9110 §5.6.4). Colons and brackets are let pass without quotes,
/// as many proxies write them.
fn value(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let plain = text.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'"');
        return (plain && !text.is_empty()).then_some(Cow::Borrowed(text));
    };
    let inner = quoted.strip_suffix(b"\"")?;
    if !inner.iter().any(|byte| matches!(byte, b'\\' | b'"')) {
        return Some(Cow::Borrowed(inner));
    }
    let mut plain = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        plain.push(match byte {
            b'\\' => *bytes.next()?,
            b'"' => return None,
            byte => byte,
        });
    }
    Some(Cow::Owned(plain))
}

/// An address with or without a port, as RFC 7239 §6 and the many habits of `X-Forwarded-For` have
/// it: an IPv6 address without a port may go without brackets. An unknown or hidden port is 0.
fn read_node(text: &[u8]) -> Option<(IpAddr, u16)> {
    let text = str::from_utf8(text).ok()?;
    if let Ok(ip) = text.parse() {
        return Some((ip, 0));
    }
    let (ip, port) = if let Some(literal) = text.strip_prefix('[') {
        let (ip, rest) = literal.split_once(']')?;
        let ip = IpAddr::V6(ip.parse::<Ipv6Addr>().ok()?);
        if rest.is_empty() {
            return Some((ip, 0));
        }
        (ip, rest.strip_prefix(':')?)
    } else {
        let (ip, port) = text.split_once(':')?;
        (IpAddr::V4(ip.parse::<Ipv4Addr>().ok()?), port)
    };
    let port = if port.starts_with('_') { 0 } else { read_port(port.as_bytes())? };
    Some((ip, port))
}

fn read_port(text: &[u8]) -> Option<u16> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits.then(|| str::from_utf8(text).ok()?.parse().ok()).flatten()
}

/// A WebSocket begins as a request: its schemes are those of HTTP.
fn read_scheme(text: &[u8]) -> Option<Scheme> {
    let is = |name: &str| text.eq_ignore_ascii_case(name.as_bytes());
    if is("https") || is("wss") {
        Some(Scheme::Https)
    } else {
        (is("http") || is("ws")).then_some(Scheme::Http)
    }
}

/// A host without brackets, and the port behind it.
fn read_host(text: &[u8]) -> Option<(String, Option<u16>)> {
    if !is_host(text) {
        return None;
    }
    let text = str::from_utf8(text).ok()?;
    let (host, rest) = match text.strip_prefix('[') {
        Some(literal) => {
            let (host, rest) = literal.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, rest)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match rest.strip_prefix(':') {
        None | Some("") => None,
        Some(digits) => Some(read_port(digits.as_bytes()).filter(|&port| port > 0)?),
    };
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// What could be taken for another host (`//evil.example`), leads out of the prefix (`..`) or needs
/// decoding is no prefix.
fn read_prefix(text: &[u8]) -> Option<String> {
    let text = str::from_utf8(text).ok().filter(|text| text.len() <= PREFIX_BYTES)?;
    let text = text.strip_suffix('/').unwrap_or(text);
    let unreserved =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let is_segment = |segment: &str| {
        !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(unreserved)
    };
    text.strip_prefix('/')?.split('/').all(is_segment).then(|| text.to_owned())
}
