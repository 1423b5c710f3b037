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
    /// Read these headers of trusted peers.
    pub headers: Option<Format>,
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
        self.headers.is_some() || self.strip_untrusted
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
        let (forwarded, host_is_told) = match self.headers? {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::{Connection, Event, Limits};
    use crate::proactor::simulated::Random;

    const PROXY: &str = "10.0.0.1";

    fn head(headers: &str) -> RequestHead {
        let text = format!("GET / HTTP/1.0\r\n{headers}\r\n");
        let mut input = text.as_bytes();
        match Connection::new(Limits::default()).next_event(&mut input) {
            Ok(Some(Event::Request(head))) => head,
            other => panic!("{other:?} from {text:?}"),
        }
    }

    fn tcp(ip: &str, port: u16) -> Address {
        Address::tcp((ip.parse::<IpAddr>().unwrap(), port).into())
    }

    /// Trusts `10.0.0.0/8` and `2001:db8::/32`, and reads these headers.
    fn options(format: Format) -> Options {
        let trusted = ["10.0.0.0/8", "2001:db8::/32"].map(str::to_owned);
        Options {
            trusted: Trusted::parse(&trusted).unwrap(),
            headers: Some(format),
            prefix: true,
            ..Options::default()
        }
    }

    fn resolve(options: &Options, peer: &str, head: &mut RequestHead) -> Option<Forwarded> {
        let (peer, local) = (tcp(peer, 1000), tcp("10.0.0.9", 8000));
        options.resolve(head, (&peer, &local), Scheme::Http).map(|it| *it)
    }

    /// `client`, `scheme`, `server` and `prefix` as one line; `-` is what nothing is told of.
    fn told(format: Format, headers: &str) -> String {
        let shown = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let found = resolve(&options(format), PROXY, &mut head(headers)).unwrap_or_default();
        let server = found.server.map(|it| format!("{}|{}", it.host, it.port));
        let scheme = found.scheme.map(|it| it.to_string());
        let client = found.client.map(|it| it.to_string());
        format!("{} {} {} {}", shown(client), shown(scheme), shown(server), shown(found.prefix))
    }

    fn check(format: Format, table: &[(&str, &str)]) {
        for (headers, expected) in table {
            let lines = headers.replace('|', "\r\n") + "\r\n";
            assert_eq!(told(format, &lines), *expected, "{headers}");
        }
    }

    #[test]
    fn the_client_is_the_first_from_the_right_that_is_not_trusted() {
        let for_ = |value: &str| format!("X-Forwarded-For: {value}");
        let table = [
            ("192.0.2.1", "192.0.2.1:0"),
            ("192.0.2.1:1234", "192.0.2.1:1234"),
            ("198.51.100.1, 192.0.2.1", "192.0.2.1:0"),
            ("198.51.100.1, 192.0.2.1, 10.0.0.2", "192.0.2.1:0"),
            ("198.51.100.1, 192.0.2.1, 10.0.0.2, 2001:db8::9", "192.0.2.1:0"),
            ("10.0.0.3, 10.0.0.2", "10.0.0.3:0"),
            ("198.51.100.1|X-Forwarded-For: 192.0.2.1|X-Other: 203.0.113.1", "192.0.2.1:0"),
            ("198.51.100.1|x-forwarded-for: 192.0.2.1|X-FORWARDED-FOR: 10.0.0.2", "192.0.2.1:0"),
            // Spellings.
            ("2001:dba::1", "[2001:dba::1]:0"),
            ("[2001:dba::1]", "[2001:dba::1]:0"),
            ("[2001:dba::1]:80", "[2001:dba::1]:80"),
            ("::ffff:192.0.2.1", "192.0.2.1:0"),
            ("192.0.2.1, ::ffff:10.0.0.2", "192.0.2.1:0"),
            ("192.0.2.1:_hidden", "192.0.2.1:0"),
            (" ,192.0.2.1,, ", "192.0.2.1:0"),
            ("192.0.2.1\t,\t10.0.0.2", "192.0.2.1:0"),
            // What is no address is never a client, and ends the walk.
            ("", "-"),
            (" , ,", "-"),
            ("unknown", "-"),
            ("_hidden", "-"),
            ("192.0.2.1, unknown", "-"),
            ("192.0.2.1, unknown, 10.0.0.2", "10.0.0.2:0"),
            ("made up, 192.0.2.1", "192.0.2.1:0"),
            ("<script>", "-"),
            ("192.0.2.1 10.0.0.2", "-"),
            ("192.0.2.256", "-"),
            ("192.0.2.01", "-"),
            ("192.0.2.1:", "-"),
            ("192.0.2.1:65536", "-"),
            ("192.0.2.1:+80", "-"),
            ("192.0.2.1:80:80", "-"),
            ("[192.0.2.1]:80", "-"),
            ("[2001:dba::1", "-"),
            ("[2001:dba::1]80", "-"),
            ("[2001:dba::1]:", "-"),
            ("fe80::1%eth0", "-"),
            ("\"192.0.2.1\"", "-"),
            ("localhost", "-"),
            ("\u{661}.2.3.4", "-"),
        ];
        for (value, expected) in table {
            let lines = for_(value).replace('|', "\r\n") + "\r\n";
            assert_eq!(told(Format::XForwarded, &lines), format!("{expected} - - -"), "{value}");
        }
    }

    #[test]
    fn scheme_server_and_prefix_are_those_at_the_clients_place() {
        check(
            Format::XForwarded,
            &[
                ("X-Forwarded-Proto: https", "- https - -"),
                ("X-Forwarded-Proto: HTTP", "- http - -"),
                ("X-Forwarded-Proto: wss", "- https - -"),
                ("X-Forwarded-Proto: ws", "- http - -"),
                ("X-Forwarded-Proto: gopher", "- - - -"),
                ("X-Forwarded-Proto: ", "- - - -"),
                ("X-Forwarded-Proto: https http", "- - - -"),
                // One trusted hop: the last, which that one wrote.
                (
                    "X-Forwarded-For: 192.0.2.1|X-Forwarded-Proto: https, http",
                    "192.0.2.1:0 http - -",
                ),
                ("X-Forwarded-Proto: https|X-Forwarded-Proto: http", "- http - -"),
                // Two: the second from the right, or all there is.
                (
                    "X-Forwarded-For: 192.0.2.1, 10.0.0.2|X-Forwarded-Proto: http, https, http",
                    "192.0.2.1:0 https - -",
                ),
                (
                    "X-Forwarded-For: 198.51.100.1, 192.0.2.1, 10.0.0.2|X-Forwarded-Proto: https",
                    "192.0.2.1:0 https - -",
                ),
                ("X-Forwarded-Host: example.org", "- - example.org|80 -"),
                ("X-Forwarded-Host: example.org:8080", "- - example.org|8080 -"),
                ("X-Forwarded-Host: [2001:db8::1]:81", "- - 2001:db8::1|81 -"),
                ("X-Forwarded-Host: [2001:db8::1]", "- - 2001:db8::1|80 -"),
                ("X-Forwarded-Host: [x:y]", "- - - -"),
                ("X-Forwarded-Host: evil.example, example.org", "- - example.org|80 -"),
                (
                    "X-Forwarded-Host: example.org|X-Forwarded-Proto: https",
                    "- https example.org|443 -",
                ),
                ("X-Forwarded-Host: a b", "- - - -"),
                ("X-Forwarded-Host: user@example.org", "- - - -"),
                ("X-Forwarded-Host: example.org/path", "- - - -"),
                ("X-Forwarded-Host: example.org:http", "- - - -"),
                ("X-Forwarded-Host: example.org:0", "- - - -"),
                ("X-Forwarded-Host: :80", "- - - -"),
                ("X-Forwarded-Host: example.org:", "- - example.org|80 -"),
                ("X-Forwarded-Port: 8443", "- - 10.0.0.9|8443 -"),
                ("X-Forwarded-Port: 0", "- - - -"),
                ("X-Forwarded-Port: https", "- - - -"),
                ("X-Forwarded-Host: example.org|X-Forwarded-Port: 8443", "- - example.org|8443 -"),
                ("X-Forwarded-Host: example.org:1|X-Forwarded-Port: 2", "- - example.org|2 -"),
                ("X-Forwarded-Prefix: /api", "- - - /api"),
                ("X-Forwarded-Prefix: /api/v1.0/~x_-/", "- - - /api/v1.0/~x_-"),
                ("X-Forwarded-Prefix: /", "- - - -"),
                ("X-Forwarded-Prefix: api", "- - - -"),
                ("X-Forwarded-Prefix: //evil.example", "- - - -"),
                ("X-Forwarded-Prefix: /a//b", "- - - -"),
                ("X-Forwarded-Prefix: /api//", "- - - -"),
                ("X-Forwarded-Prefix: /\\evil.example", "- - - -"),
                ("X-Forwarded-Prefix: /a/../b", "- - - -"),
                ("X-Forwarded-Prefix: /.", "- - - -"),
                ("X-Forwarded-Prefix: /%2e%2e", "- - - -"),
                ("X-Forwarded-Prefix: /\"><script>", "- - - -"),
                // The other family is not read.
                ("Forwarded: for=192.0.2.1;proto=https;host=evil.example", "- - - -"),
            ],
        );
        let long = format!("X-Forwarded-Prefix: /{}\r\n", "a".repeat(PREFIX_BYTES));
        assert_eq!(told(Format::XForwarded, &long), "- - - -");
    }

    #[test]
    fn forwarded_is_that_of_rfc_7239() {
        check(
            Format::Forwarded,
            &[
                // The RFC's own examples, §4.
                ("Forwarded: for=\"_gazonk\"", "- - - -"),
                ("Forwarded: For=\"[2001:dba:cafe::17]:4711\"", "[2001:dba:cafe::17]:4711 - - -"),
                ("Forwarded: for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60:0 http - -"),
                ("Forwarded: for=192.0.2.43, for=198.51.100.17", "198.51.100.17:0 - - -"),
                // §7.5
                ("Forwarded: for=192.0.2.43|Forwarded: for=\"10.0.0.2:80\"", "192.0.2.43:0 - - -"),
                (
                    "Forwarded: for=192.0.2.1;host=example.org:81;proto=https,for=10.0.0.2;proto=http",
                    "192.0.2.1:0 https example.org|81 -",
                ),
                // What the outer one does not say, the inner one may.
                ("Forwarded: for=192.0.2.1, for=10.0.0.2;proto=https", "192.0.2.1:0 https - -"),
                ("Forwarded: for=198.51.100.1;proto=https, for=192.0.2.1", "192.0.2.1:0 - - -"),
                ("Forwarded: proto=https", "- https - -"),
                ("Forwarded: for=192.0.2.1, proto=https", "- https - -"),
                ("Forwarded: for=unknown;proto=https", "- https - -"),
                ("Forwarded: for=192.0.2.1, for=unknown, for=10.0.0.2", "10.0.0.2:0 - - -"),
                // Quoting.
                ("Forwarded: for=\"192.0.2.1\"; PROTO=\"https\" ;", "192.0.2.1:0 https - -"),
                ("Forwarded: for=\"192.\\0.2.1\"", "192.0.2.1:0 - - -"),
                ("Forwarded: for=192.0.2.1;x=\"a,b;for=10.0.0.1\"", "192.0.2.1:0 - - -"),
                ("Forwarded: for=192.0.2.1;x=\"a\\\",\\\\\"", "192.0.2.1:0 - - -"),
                ("Forwarded: for=192.0.2.1:80", "192.0.2.1:80 - - -"),
                ("Forwarded: , for=192.0.2.1 ,,", "192.0.2.1:0 - - -"),
                // What a client left open swallows nothing of the proxy's.
                ("Forwarded: for=\"x, for=192.0.2.1", "192.0.2.1:0 - - -"),
                ("Forwarded: for=\"x, for=\"[2001:dba::1]\"", "[2001:dba::1]:0 - - -"),
                ("Forwarded: for=\"x\\, for=192.0.2.1;proto=https", "192.0.2.1:0 https - -"),
                ("Forwarded: for=\"x|Forwarded: for=192.0.2.1", "192.0.2.1:0 - - -"),
                // An element that is not well-formed says nothing.
                ("Forwarded: for", "- - - -"),
                ("Forwarded: for=", "- - - -"),
                ("Forwarded: for=192.0.2.1;for=192.0.2.2", "- - - -"),
                ("Forwarded: for=192.0.2.1;junk", "- - - -"),
                ("Forwarded: for=\"192.0.2.1", "- - - -"),
                ("Forwarded: for=\"192.0.2.1\"x", "- - - -"),
                ("Forwarded: for=192.0.2.1 proto=https", "- - - -"),
                // The other family is not read.
                ("X-Forwarded-For: 192.0.2.1|X-Forwarded-Proto: https", "- - - -"),
                ("X-Forwarded-Port: 81|X-Forwarded-Prefix: /a|X-Forwarded-Host: b", "- - - -"),
            ],
        );
    }

    const EVERYTHING: &str = "Host: own\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n\
                              X-Forwarded-Host: told\r\nX-Forwarded-Port: 9\r\n\
                              X-Forwarded-Prefix: /p\r\nForwarded: for=192.0.2.1\r\n\
                              X-Real-IP: 192.0.2.1\r\nX_Forwarded_For: 192.0.2.1\r\nX-Other: kept\r\n";

    fn names(head: &RequestHead) -> Vec<String> {
        head.headers().map(|(name, _)| String::from_utf8(name.to_vec()).unwrap()).collect()
    }

    #[test]
    fn nobody_else_is_believed() {
        for format in [Format::XForwarded, Format::Forwarded] {
            let mut all = head(EVERYTHING);
            let options = Options { rewrite_host: true, ..options(format) };
            assert_eq!(resolve(&options, "192.0.2.9", &mut all), None);
            assert_eq!(all, head(EVERYTHING));
            let off = Options { headers: None, ..options };
            assert_eq!(resolve(&off, PROXY, &mut all), None);
            assert_eq!(all, head(EVERYTHING));
        }
    }

    #[test]
    fn headers_of_others_are_removed_if_that_is_asked_for() {
        for headers in [None, Some(Format::XForwarded)] {
            let options = Options { strip_untrusted: true, headers, ..options(Format::XForwarded) };
            let mut all = head(EVERYTHING);
            assert_eq!(resolve(&options, "192.0.2.9", &mut all), None);
            assert_eq!(names(&all), ["host", "x-other"]);
            let mut all = head(EVERYTHING);
            resolve(&options, PROXY, &mut all);
            assert_eq!(names(&all).len(), 10);
        }
    }

    #[test]
    fn the_host_is_rewritten_if_that_is_asked_for() {
        let table = [
            ("Host: own\r\nX-Forwarded-Host: told", "told"),
            ("Host: own\r\nX-Forwarded-Host: told\r\nX-Forwarded-Port: 81", "told:81"),
            ("Host: own\r\nX-Forwarded-Host: told:443\r\nX-Forwarded-Proto: https", "told"),
            ("Host: own\r\nX-Forwarded-Host: [2001:db8::1]:81", "[2001:db8::1]:81"),
            ("X-Forwarded-Host: told", "told"),
            // A port alone is no host.
            ("Host: own\r\nX-Forwarded-Port: 81", "own"),
            ("Host: own\r\nX-Forwarded-Host: a b", "own"),
            ("Host: own", "own"),
        ];
        for (headers, expected) in table {
            let mut rewritten = head(&format!("{headers}\r\nX-Last: last\r\n"));
            let options = Options { rewrite_host: true, ..options(Format::XForwarded) };
            resolve(&options, PROXY, &mut rewritten);
            assert_eq!(rewritten.header(b"host"), Some(expected.as_bytes()), "{headers}");
            assert_eq!(rewritten.header(b"x-last"), Some(&b"last"[..]));
            assert_eq!(names(&rewritten).iter().filter(|name| *name == "host").count(), 1);
        }
    }

    #[test]
    fn prefixes_are_taken_only_if_that_is_asked_for() {
        let options = Options { prefix: false, ..options(Format::XForwarded) };
        assert_eq!(resolve(&options, PROXY, &mut head("X-Forwarded-Prefix: /p\r\n")), None);
    }

    #[test]
    fn everybody_is_trusted_up_to_the_left_end() {
        let trusted = Trusted::parse(&["*".to_owned()]).unwrap();
        let options = Options { trusted, ..options(Format::XForwarded) };
        let mut list = head("X-Forwarded-For: 192.0.2.1, 192.0.2.2, 192.0.2.3\r\n");
        let found = resolve(&options, "198.51.100.1", &mut list).unwrap();
        assert_eq!(found.client, Some(tcp("192.0.2.1", 0)));
    }

    /// Whatever a client writes, a proxy that adds its address at the right end is believed: the
    /// client is that address, and nothing the client wrote changes scheme or server.
    #[test]
    fn nothing_on_the_left_changes_what_a_trusted_proxy_added() {
        let seed = 7239;
        let mut random = Random::new(seed);
        let pieces: &[&str] = &[
            "\"",
            "\\",
            ",",
            ";",
            "=",
            "for",
            "proto",
            "host",
            "https",
            "10.0.0.2",
            "10.0.0.3:80",
            "[2001:db8::1]",
            "\"[2001:db8::1]:80\"",
            "192.0.2.1",
            "unknown",
            "_x",
            " ",
            "\t",
            "x",
            ":",
            "[",
            "]",
            "evil.example",
            "\u{fc}",
            "for=10.0.0.2",
            "proto=https",
            ", for=",
        ];
        for round in 0..100_000 {
            let count = random.below(12);
            let junk: String = (0..count).map(|_| pieces[random.below(pieces.len())]).collect();
            let separator = [", ", ",", "\r\n"][random.below(3)];
            let (format, line) = if random.one_in(2) {
                (Format::XForwarded, "X-Forwarded-For: ")
            } else {
                (Format::Forwarded, "Forwarded: ")
            };
            let added = match format {
                Format::XForwarded => "203.0.113.7",
                Format::Forwarded => {
                    ["for=203.0.113.7", "for=\"203.0.113.7\"", "For=\"203.0.113.7\";by=_p"]
                        [random.below(3)]
                }
            };
            let separator =
                if separator == "\r\n" { format!("\r\n{line}") } else { separator.into() };
            let headers = format!("{line}{junk}{separator}{added}\r\n");
            let found = told(format, &headers);
            assert_eq!(found, "203.0.113.7:0 - - -", "seed {seed}, round {round}: {headers:?}");
        }
    }
}
