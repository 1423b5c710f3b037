//! PROXY protocol, versions 1 and 2: the header that a proxy puts before the first byte of a
//! connection, as `doc/proxy-protocol.txt` of `HAProxy` describes it (section numbers below).
//!
//! [`parse`] looks at what has arrived and says what the header tells, or that more is needed, or
//! why the connection is to be refused. It is a pure function: the same bytes give the same answer
//! however they were cut. A header is never guessed at: that it must be there is the listener's
//! setting (§5), and what does not match exactly ends the connection.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::TlsInfo;
use crate::listener::Address;

/// The first bytes of version 2, §2.2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The first bytes of version 1, §2.1.
const WORD: &[u8] = b"PROXY ";
/// The longest line of version 1 with its line end, §2.1.
const LINE_BYTES: usize = 107;
/// Signature, version and command, family and transport, and the length of the rest: §2.2.
const FIXED_BYTES: usize = 16;
/// The rest of a header of version 2. The protocol expects it to fit in a segment; client
/// certificates that some proxies send along may need a few of them. What nginx takes is 4096.
const REST_BYTES: usize = 4096;
/// Names of TLS versions and ciphers have some 50 characters at most.
const NAME_BYTES: usize = 64;

/// Types of the vectors of version 2, §2.2.
const CRC32C: u8 = 0x03;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_CIPHER: u8 = 0x23;
/// Bit of the client field of [`SSL`]: the client came over TLS.
const CLIENT_SSL: u8 = 0x01;

/// What a header tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The client and the address that it connected to. `None`: those of the connection itself,
    /// where the proxy speaks for itself (`LOCAL`, a health check) or does not know (`UNKNOWN`).
    pub ends: Option<(Address, Address)>,
    /// Of the client's connection to the proxy, if that was over TLS.
    pub tls: Option<TlsInfo>,
}

impl Header {
    const NOTHING: Self = Self { ends: None, tls: None };
}

/// Why a connection to a listener with PROXY protocol is closed without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The peer may not speak for others.
    Untrusted,
    /// What came does not begin as a header does.
    Missing,
    /// It begins as a header does, and then breaks this rule.
    Malformed(&'static str),
    /// The header is longer than any that makes sense.
    TooLong,
    /// The header's own checksum says that it was changed.
    Checksum,
    /// The header was not complete in time.
    Late,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untrusted => {
                f.write_str("not one of --proxy-trusted, and this listener has PROXY protocol")
            }
            Self::Missing => f.write_str("expected a PROXY protocol header, found something else"),
            Self::Malformed(rule) => write!(f, "malformed PROXY protocol header: {rule}"),
            Self::TooLong => write!(
                f,
                "expected a PROXY protocol header of at most {LINE_BYTES} (version 1) or \
                 {} (version 2) bytes, found a longer one",
                FIXED_BYTES + REST_BYTES
            ),
            Self::Checksum => f.write_str("the checksum of the PROXY protocol header is wrong"),
            Self::Late => f.write_str("the PROXY protocol header did not come in time"),
        }
    }
}

/// The header at the front of `input`, and its length; `None` as long as it is not complete.
///
/// # Errors
/// There is no valid header, and will not be one whatever follows.
pub fn parse(input: &[u8]) -> Result<Option<(Header, usize)>, Refusal> {
    if begins_alike(input, WORD) {
        version_1(input)
    } else if begins_alike(input, &SIGNATURE) {
        version_2(input)
    } else {
        Err(Refusal::Missing)
    }
}

/// Whether `input` is `expected`, or the beginning of it, or begins with it.
fn begins_alike(input: &[u8], expected: &[u8]) -> bool {
    input.iter().zip(expected).all(|(one, other)| one == other)
}

/// §2.1.
fn version_1(input: &[u8]) -> Result<Option<(Header, usize)>, Refusal> {
    let window = &input[..input.len().min(LINE_BYTES)];
    let Some(line_feed) = window.iter().position(|&byte| byte == b'\n') else {
        return if window.len() == LINE_BYTES { Err(Refusal::TooLong) } else { Ok(None) };
    };
    let malformed = Refusal::Malformed;
    let line =
        window[..line_feed].strip_suffix(b"\r").ok_or(malformed("the line ends in CR LF"))?;
    let line = str::from_utf8(&line[WORD.len()..]).map_err(|_| malformed("the line is ASCII"))?;
    let mut words = line.split(' ');
    let protocol = words.next().unwrap_or_default();
    let header = match protocol {
        // What follows is ignored.
        "UNKNOWN" => Header::NOTHING,
        "TCP4" | "TCP6" => {
            let words: Vec<&str> = words.collect();
            let [source, destination, source_port, destination_port] = words[..] else {
                return Err(malformed("two addresses and two ports follow, one space before each"));
            };
            let ip = |text: &str| match protocol {
                "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::V4),
                _ => text.parse::<Ipv6Addr>().map(IpAddr::V6),
            };
            let end = |address, port| {
                let ip = ip(address).map_err(|_| malformed("an address is of the family named"))?;
                let port = decimal_port(port).ok_or(malformed("a port is a decimal number"))?;
                Ok(Address::tcp((ip, port).into()))
            };
            let ends = (end(source, source_port)?, end(destination, destination_port)?);
            Header { ends: Some(ends), tls: None }
        }
        _ => return Err(malformed("the protocol is TCP4, TCP6 or UNKNOWN")),
    };
    Ok(Some((header, line_feed + 1)))
}

/// Digits without a sign or a leading zero, up to 65535.
fn decimal_port(text: &str) -> Option<u16> {
    let canonical = text == "0" || !text.starts_with('0');
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    (canonical && digits).then(|| text.parse().ok()).flatten()
}

/// §2.2.
fn version_2(input: &[u8]) -> Result<Option<(Header, usize)>, Refusal> {
    let malformed = Refusal::Malformed;
    // Looked at as soon as it is there: a wrong byte is not waited behind.
    let local = match input.get(SIGNATURE.len()) {
        None => return Ok(None),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(_) => return Err(malformed("the version is 2, and the command LOCAL or PROXY")),
    };
    let Some(&[family_and_transport, high, low]) = input.get(13..FIXED_BYTES) else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > REST_BYTES {
        return Err(Refusal::TooLong);
    }
    let (family, transport) = (family_and_transport >> 4, family_and_transport & 0xf);
    if !local && (family > 3 || transport > 2) {
        return Err(malformed("the family and the transport are known ones"));
    }
    let whole = FIXED_BYTES + length;
    let Some(header) = input.get(..whole) else { return Ok(None) };
    // Whatever a health check, or a connection of unknown kind, says about addresses is ignored.
    if local || family == 0 {
        return Ok(Some((Header::NOTHING, whole)));
    }
    let (ends, vectors) = addresses(family, &header[FIXED_BYTES..])
        .ok_or(malformed("the length has room for the addresses"))?;
    let tls = read_vectors(header, vectors)?;
    // A datagram is no connection: valid, and not known here, so that it is as UNSPEC (§2.2).
    let ends = (transport == 1).then_some(ends);
    Ok(Some((Header { ends, tls }, whole)))
}

/// Source and destination, and what is behind them.
fn addresses(family: u8, rest: &[u8]) -> Option<((Address, Address), &[u8])> {
    Some(match family {
        1 => {
            let (source, rest) = rest.split_first_chunk::<4>()?;
            let (destination, rest) = rest.split_first_chunk::<4>()?;
            tcp(IpAddr::from(*source), IpAddr::from(*destination), rest)?
        }
        2 => {
            let (source, rest) = rest.split_first_chunk::<16>()?;
            let (destination, rest) = rest.split_first_chunk::<16>()?;
            tcp(IpAddr::from(*source), IpAddr::from(*destination), rest)?
        }
        _ => {
            let (source, rest) = rest.split_first_chunk::<108>()?;
            let (destination, rest) = rest.split_first_chunk::<108>()?;
            ((Address::unix_field(source), Address::unix_field(destination)), rest)
        }
    })
}

/// The two ports follow both addresses.
fn tcp(source: IpAddr, destination: IpAddr, rest: &[u8]) -> Option<((Address, Address), &[u8])> {
    let (source_port, rest) = rest.split_first_chunk::<2>()?;
    let (destination_port, rest) = rest.split_first_chunk::<2>()?;
    let source = Address::tcp((source, u16::from_be_bytes(*source_port)).into());
    let destination = Address::tcp((destination, u16::from_be_bytes(*destination_port)).into());
    Some(((source, destination), rest))
}

/// The vectors at the end of `header`: those that are known are used, and all must fit.
fn read_vectors(header: &[u8], vectors: &[u8]) -> Result<Option<TlsInfo>, Refusal> {
    let mut tls = None;
    let mut checksum = None;
    let mut rest = vectors;
    while let Some((kind, value)) = next_vector(&mut rest)? {
        match kind {
            CRC32C => {
                let expected = value
                    .try_into()
                    .map_err(|_| Refusal::Malformed("a checksum has four bytes"))?;
                let position = header.len() - rest.len() - value.len();
                if checksum.replace((u32::from_be_bytes(expected), position)).is_some() {
                    return Err(Refusal::Malformed("there is one checksum"));
                }
            }
            SSL => tls = read_ssl(value)?,
            _ => {}
        }
    }
    match checksum {
        Some((expected, position)) if crc32c(header, position) != expected => {
            Err(Refusal::Checksum)
        }
        _ => Ok(tls),
    }
}

/// Takes one vector off the front: its type and value. `None` at the end.
fn next_vector<'a>(rest: &mut &'a [u8]) -> Result<Option<(u8, &'a [u8])>, Refusal> {
    if rest.is_empty() {
        return Ok(None);
    }
    let malformed = Refusal::Malformed("each vector ends within the header");
    let (&[kind, high, low], tail) = rest.split_first_chunk().ok_or(malformed)?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let (value, tail) = tail.split_at_checked(length).ok_or(malformed)?;
    *rest = tail;
    Ok(Some((kind, value)))
}

/// §2.2.6. `None`: the client did not come over TLS.
fn read_ssl(value: &[u8]) -> Result<Option<TlsInfo>, Refusal> {
    // One byte of flags, and four that tell whether a client's certificate was verified.
    let (flags, mut rest) = value
        .split_first_chunk::<5>()
        .ok_or(Refusal::Malformed("the TLS vector has a client and a verify field"))?;
    let mut tls = TlsInfo::default();
    while let Some((kind, name)) = next_vector(&mut rest)? {
        match kind {
            SSL_VERSION => tls.version = Some(visible(name)?),
            SSL_CIPHER => tls.cipher = Some(visible(name)?),
            _ => {}
        }
    }
    Ok((flags[0] & CLIENT_SSL != 0).then_some(tls))
}

/// A name that may go into a log as it is.
fn visible(name: &[u8]) -> Result<String, Refusal> {
    let valid = !name.is_empty() && name.len() <= NAME_BYTES;
    match str::from_utf8(name) {
        Ok(text) if valid && name.iter().all(u8::is_ascii_graphic) => Ok(text.to_owned()),
        _ => Err(Refusal::Malformed("names of TLS versions and ciphers are visible ASCII")),
    }
}

/// The checksum `CRC32c` (RFC 4960, Appendix B) of `header` with the four bytes at `position` taken as zero, as
/// §2.2.3 wants. Bit by bit: it is needed once a connection, for some hundred bytes.
fn crc32c(header: &[u8], position: usize) -> u32 {
    let blanked = position..position + 4;
    let mut crc = u32::MAX;
    for (index, &byte) in header.iter().enumerate() {
        crc ^= if blanked.contains(&index) { 0 } else { u32::from(byte) };
        for _ in 0..8 {
            let low = crc & 1;
            crc = (crc >> 1) ^ (0x82f6_3b78 * low);
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proactor::simulated::Random;

    fn tcp(text: &str) -> Address {
        Address::tcp(text.parse().unwrap())
    }

    fn version_2_header(command: u8, family_and_transport: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([command, family_and_transport]);
        header.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        header.extend(rest);
        header
    }

    fn vector(kind: u8, value: &[u8]) -> Vec<u8> {
        let mut vector = vec![kind];
        vector.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        vector.extend(value);
        vector
    }

    /// 192.0.2.1:1000 to 192.0.2.2:443, and these vectors.
    fn ipv4(vectors: &[u8]) -> Vec<u8> {
        let addresses = [192, 0, 2, 1, 192, 0, 2, 2, 0x03, 0xe8, 0x01, 0xbb];
        version_2_header(0x21, 0x11, &[&addresses, vectors].concat())
    }

    fn ipv6(source: &str) -> Vec<u8> {
        let source = source.parse::<Ipv6Addr>().unwrap().octets();
        let destination = "2001:db8::2".parse::<Ipv6Addr>().unwrap().octets();
        let ports = [0xff, 0xff, 0, 80];
        version_2_header(0x21, 0x21, &[&source[..], &destination, &ports].concat())
    }

    fn unix(source: &[u8], destination: &[u8]) -> Vec<u8> {
        let mut rest = [0; 216];
        rest[..source.len()].copy_from_slice(source);
        rest[108..108 + destination.len()].copy_from_slice(destination);
        version_2_header(0x21, 0x31, &rest)
    }

    fn ssl(flags: u8, vectors: &[u8]) -> Vec<u8> {
        vector(SSL, &[&[flags, 0, 0, 0, 0], vectors].concat())
    }

    fn with_checksum() -> Vec<u8> {
        let mut header = ipv4(&[vector(CRC32C, &[0; 4]), vector(0x04, b"padding")].concat());
        let position = FIXED_BYTES + 12 + 3;
        let checksum = crc32c(&header, position).to_be_bytes();
        header[position..position + 4].copy_from_slice(&checksum);
        header
    }

    fn told(ends: Option<(&str, &str)>) -> Header {
        Header { ends: ends.map(|(source, own)| (tcp(source), tcp(own))), tls: None }
    }

    fn valid() -> Vec<(Vec<u8>, Header)> {
        let line = |text: &str| text.as_bytes().to_vec();
        let usual = ("192.0.2.1:1000", "192.0.2.2:443");
        let path = |text: &str| Address::UnixPath(text.into());
        let names = [vector(SSL_CIPHER, b"AES"), vector(SSL_VERSION, b"TLSv1.3")].concat();
        let tls = |version: Option<&str>, cipher: Option<&str>| Header {
            tls: Some(TlsInfo {
                version: version.map(str::to_owned),
                cipher: cipher.map(str::to_owned),
            }),
            ..told(Some(usual))
        };
        vec![
            (line("PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n"), told(Some(usual))),
            (
                line("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"),
                told(Some(("255.255.255.255:65535", "255.255.255.255:65535"))),
            ),
            (
                line("PROXY TCP6 2001:db8::1 ::1 0 443\r\n"),
                told(Some(("[2001:db8::1]:0", "[::1]:443"))),
            ),
            (line("PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 1000 443\r\n"), told(Some(usual))),
            (line("PROXY UNKNOWN\r\n"), told(None)),
            (line(&format!("PROXY UNKNOWN {}\r\n", "f".repeat(91))), told(None)),
            (ipv4(&[]), told(Some(usual))),
            (ipv6("2001:db8::1"), told(Some(("[2001:db8::1]:65535", "[2001:db8::2]:80")))),
            (ipv6("::ffff:192.0.2.1"), told(Some(("192.0.2.1:65535", "[2001:db8::2]:80")))),
            (
                unix(b"", b"/run/web"),
                Header { ends: Some((Address::UnixUnnamed, path("/run/web"))), tls: None },
            ),
            (
                unix(b"\0name", &[b'x'; 108]),
                Header {
                    ends: Some((Address::UnixAbstract(b"name".to_vec()), path(&"x".repeat(108)))),
                    tls: None,
                },
            ),
            // LOCAL, with and without what is to be ignored.
            (version_2_header(0x20, 0x00, &[]), told(None)),
            (version_2_header(0x20, 0xff, b"anything"), told(None)),
            // UNSPEC and datagrams.
            (version_2_header(0x21, 0x00, b"any"), told(None)),
            (version_2_header(0x21, 0x01, &[]), told(None)),
            (version_2_header(0x21, 0x10, &[0; 12]), told(None)),
            (version_2_header(0x21, 0x12, &[0; 12]), told(None)),
            (ipv4(&vector(0xee, b"unknown")), told(Some(usual))),
            (ipv4(&vector(0x04, &vec![0; REST_BYTES - 15])), told(Some(usual))),
            (with_checksum(), told(Some(usual))),
            (ipv4(&ssl(1, &names)), tls(Some("TLSv1.3"), Some("AES"))),
            (ipv4(&ssl(7, &[])), tls(None, None)),
            (ipv4(&ssl(0, &names)), told(Some(usual))),
        ]
    }

    fn invalid_lines() -> Vec<(Vec<u8>, Refusal)> {
        let line = |text: &str| text.as_bytes().to_vec();
        let malformed = Refusal::Malformed;
        let end = malformed("the line ends in CR LF");
        let family = malformed("an address is of the family named");
        let port = malformed("a port is a decimal number");
        let words = malformed("two addresses and two ports follow, one space before each");
        vec![
            (line("GET / HTTP/1.1\r\n\r\n"), Refusal::Missing),
            (line("PROXYTCP4 1.1.1.1 1.1.1.1 1 1\r\n"), Refusal::Missing),
            (line("proxy TCP4 1.1.1.1 1.1.1.1 1 1\r\n"), Refusal::Missing),
            (line("\r\n\r\n\0\r\nQUIT\r"), Refusal::Missing),
            (b"\x16\x03\x01\x02\x00".to_vec(), Refusal::Missing),
            (line("PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n"), end),
            (line(&format!("PROXY UNKNOWN {}\r\n", "f".repeat(92))), Refusal::TooLong),
            (line("PROXY TCP4 1.1.1.1 ::1 1 1\r\n"), family),
            (line("PROXY TCP6 1.1.1.1 ::1 1 1\r\n"), family),
            (line("PROXY TCP4 01.1.1.1 1.1.1.1 1 1\r\n"), family),
            (line("PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n"), family),
            (line("PROXY TCP4 1.1.1.1 1.1.1.1 01 1\r\n"), port),
            (line("PROXY TCP4 1.1.1.1 1.1.1.1 +1 1\r\n"), port),
            (line("PROXY TCP4 1.1.1.1 1.1.1.1 1 65536\r\n"), port),
            (line("PROXY TCP4 1.1.1.1 1.1.1.1 1 \r\n"), port),
            (line("PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n"), words),
            (line("PROXY TCP4 1.1.1.1  1.1.1.1 1 1\r\n"), words),
            (line("PROXY TCP4 1.1.1.1 1.1.1.1 1 1 1\r\n"), words),
            (line("PROXY TCP4\r\n"), words),
            (
                line("PROXY UDP4 1.1.1.1 1.1.1.1 1 1\r\n"),
                malformed("the protocol is TCP4, TCP6 or UNKNOWN"),
            ),
            (line("PROXY \r\n"), malformed("the protocol is TCP4, TCP6 or UNKNOWN")),
            (b"PROXY \xff\r\n".to_vec(), malformed("the line is ASCII")),
        ]
    }

    fn invalid_blocks() -> Vec<(Vec<u8>, Refusal)> {
        let malformed = Refusal::Malformed;
        let room = malformed("the length has room for the addresses");
        let fits = malformed("each vector ends within the header");
        let names = malformed("names of TLS versions and ciphers are visible ASCII");
        let mut broken = with_checksum();
        *broken.last_mut().unwrap() ^= 1;
        let too_long = [&SIGNATURE[..], &[0x21, 0x11, 0x10, 0x01]].concat();
        vec![
            (
                version_2_header(0x11, 0x11, &[0; 12]),
                malformed("the version is 2, and the command LOCAL or PROXY"),
            ),
            (
                version_2_header(0x22, 0x11, &[0; 12]),
                malformed("the version is 2, and the command LOCAL or PROXY"),
            ),
            (
                version_2_header(0x21, 0x41, &[0; 12]),
                malformed("the family and the transport are known ones"),
            ),
            (
                version_2_header(0x21, 0x13, &[0; 12]),
                malformed("the family and the transport are known ones"),
            ),
            (version_2_header(0x21, 0x11, &[0; 11]), room),
            (version_2_header(0x21, 0x21, &[0; 35]), room),
            (version_2_header(0x21, 0x31, &[0; 215]), room),
            (too_long, Refusal::TooLong),
            (ipv4(&[4]), fits),
            (ipv4(&[4, 0]), fits),
            (ipv4(&[4, 0, 1]), fits),
            (ipv4(&vector(CRC32C, &[0; 3])), malformed("a checksum has four bytes")),
            (ipv4(&vector(CRC32C, &[0; 4]).repeat(2)), malformed("there is one checksum")),
            (ipv4(&vector(CRC32C, &[0; 4])), Refusal::Checksum),
            (broken, Refusal::Checksum),
            (
                ipv4(&vector(SSL, &[1, 0, 0, 0])),
                malformed("the TLS vector has a client and a verify field"),
            ),
            (ipv4(&ssl(1, &[0x21, 0, 9])), fits),
            (ipv4(&ssl(1, &vector(SSL_VERSION, b"TLS\n"))), names),
            (ipv4(&ssl(1, &vector(SSL_CIPHER, b""))), names),
            (ipv4(&ssl(1, &vector(SSL_CIPHER, &[b'x'; 65]))), names),
            (ipv4(&ssl(1, &vector(SSL_CIPHER, "\u{e9}".as_bytes()))), names),
        ]
    }

    #[test]
    fn headers_are_taken_whole_at_any_cut_and_leave_the_rest() {
        for (header, expected) in valid() {
            let shown = header.escape_ascii();
            for cut in 0..header.len() {
                assert_eq!(parse(&header[..cut]), Ok(None), "{cut} of {shown}");
            }
            let whole = Some((expected, header.len()));
            assert_eq!(parse(&header), Ok(whole.clone()), "{shown}");
            for tail in [&b"GET / HTTP/1.1\r\n"[..], b"\r\n", b"PROXY ", &[0; 300]] {
                assert_eq!(parse(&[&header, tail].concat()), Ok(whole.clone()), "{shown}");
            }
        }
    }

    /// Once a beginning is refused, whatever follows is: the same reason at any cut.
    #[test]
    fn what_breaks_a_rule_is_refused_at_any_cut() {
        for (input, expected) in [invalid_lines(), invalid_blocks()].concat() {
            let shown = input.escape_ascii();
            assert_eq!(parse(&input), Err(expected), "{shown}");
            let mut refused = false;
            for cut in 0..=input.len() {
                match parse(&input[..cut]) {
                    Ok(None) => assert!(!refused, "{cut} of {shown}"),
                    Ok(Some(header)) => panic!("{cut} of {shown}: {header:?}"),
                    Err(found) => {
                        assert_eq!(found, expected, "{cut} of {shown}");
                        refused = true;
                    }
                }
            }
        }
    }

    /// The limit holds before the line or the rest has arrived: nobody makes us keep more.
    #[test]
    fn a_header_without_an_end_is_not_waited_for() {
        let line = [WORD, &[b'f'; LINE_BYTES - WORD.len()]].concat();
        assert_eq!(parse(&line[..LINE_BYTES - 1]), Ok(None));
        assert_eq!(parse(&line), Err(Refusal::TooLong));
    }

    #[test]
    fn the_checksum_is_that_of_rfc_3720() {
        // RFC 3720, B.4: 32 bytes of zeroes, and of ones; the blanked bytes count as zero.
        assert_eq!(crc32c(&[0; 32], 0), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32], 32), 0x62a8_ab43);
        let mut blanked = [0; 32];
        blanked[7..11].copy_from_slice(&[1, 2, 3, 4]);
        assert_eq!(crc32c(&blanked, 7), 0x8a91_36aa);
    }

    /// Headers with one to three bytes changed: no panic, never more consumed than there is, and
    /// what is under a checksum is either unchanged or refused.
    #[test]
    fn damage_is_survived() {
        let seed = 20_240_611;
        let mut random = Random::new(seed);
        let headers = valid();
        for round in 0..200_000 {
            let (header, expected) = &headers[random.below(headers.len())];
            let mut damaged = header.clone();
            for _ in 0..=random.below(3) {
                let position = random.below(damaged.len());
                damaged[position] ^= 1 << random.below(8);
            }
            let length = random.below(damaged.len() + 1);
            let result = parse(&damaged[..length]);
            if let Ok(Some((_, consumed))) = &result {
                assert!(*consumed <= length, "seed {seed}, round {round}");
            }
            // A changed address that is believed is what the checksum is there against; a change
            // of the type of the checksum's own vector takes it away.
            let checked = *header == with_checksum() && damaged[28] == CRC32C;
            if checked && damaged[SIGNATURE.len()..16] == header[SIGNATURE.len()..16] {
                match parse(&damaged) {
                    Ok(Some((found, _))) => {
                        assert_eq!((&found, &damaged), (expected, header), "round {round}");
                    }
                    Ok(None) => panic!("seed {seed}, round {round}: all of it was there"),
                    Err(_) => {}
                }
            }
        }
    }
}
