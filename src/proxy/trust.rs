//! Which peers may speak for others: addresses, networks and Unix sockets.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::listener::Address;

/// The peers whose word about their clients is taken.
///
/// By default those that only somebody with a process on this machine can be: the loopback
/// addresses, and every Unix socket (whose file says who may connect).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trusted {
    everyone: bool,
    every_unix: bool,
    /// Listeners whose clients are trusted.
    unix: Vec<Address>,
    /// Network and mask.
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Default for Trusted {
    fn default() -> Self {
        let loopback = (u32::from(Ipv4Addr::LOCALHOST) & 0xff00_0000, 0xff00_0000);
        Self {
            every_unix: true,
            v4: vec![loopback],
            v6: vec![(u128::from(Ipv6Addr::LOCALHOST), u128::MAX)],
            ..Self::nobody()
        }
    }
}

impl Trusted {
    /// Trust in no one.
    #[must_use]
    pub fn nobody() -> Self {
        Self {
            everyone: false,
            every_unix: false,
            unix: Vec::new(),
            v4: Vec::new(),
            v6: Vec::new(),
        }
    }

    /// Reads what an operator wrote, each of these one of
    ///
    /// - an IPv4 or IPv6 address, or a network such as `10.0.0.0/8`; an IPv4-mapped one is IPv4
    /// - `unix`: the clients of every Unix listener
    /// - `unix:PATH`, `unix:@NAME`: those of this one, as the log names it
    /// - `*`: everybody
    ///
    /// Nothing at all is the [default](Trusted::default).
    ///
    /// # Errors
    /// The first that is none of these.
    pub fn parse(texts: &[String]) -> Result<Self, TrustError> {
        if texts.is_empty() {
            return Ok(Self::default());
        }
        let mut trusted = Self::nobody();
        for text in texts {
            trusted.add(text)?;
        }
        Ok(trusted)
    }

    fn add(&mut self, text: &str) -> Result<(), TrustError> {
        let error = |problem| TrustError { found: text.to_owned(), problem };
        match text {
            "*" => self.everyone = true,
            "unix" | "unix:" => self.every_unix = true,
            _ => {
                if let Some(path) = text.strip_prefix("unix:") {
                    self.unix.push(Address::unix(path));
                } else {
                    self.add_network(text).map_err(error)?;
                }
            }
        }
        Ok(())
    }

    fn add_network(&mut self, text: &str) -> Result<(), Problem> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let (v6_bits, width) = match address.parse::<IpAddr>().map_err(|_| Problem::Unknown)? {
            IpAddr::V4(ip) => (u128::from(ip.to_ipv6_mapped()), 32),
            IpAddr::V6(ip) => (u128::from(ip), 128),
        };
        let length = match length {
            None => width,
            Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map_err(|_| Problem::Length(width))?
            }
            Some(_) => return Err(Problem::Length(width)),
        };
        if length > width {
            return Err(Problem::Length(width));
        }
        // Both families as 128 bits, where an IPv4 network is behind 96 bits of its own.
        let length_of_128 = length + 128 - width;
        let mask = u128::MAX.checked_shl(128 - length_of_128).unwrap_or(0);
        if v6_bits & !mask != 0 {
            let network = Ipv6Addr::from(v6_bits & mask);
            let network = if width == 32 {
                network.to_ipv4_mapped().map_or(IpAddr::V6(network), IpAddr::V4)
            } else {
                IpAddr::V6(network)
            };
            return Err(Problem::HostBits(format!("{network}/{length}")));
        }
        match Ipv6Addr::from(v6_bits).to_ipv4_mapped() {
            Some(ip) if length_of_128 >= 96 => {
                let mask = u32::MAX.checked_shl(128 - length_of_128).unwrap_or(0);
                self.v4.push((u32::from(ip), mask));
            }
            _ => self.v6.push((v6_bits, mask)),
        }
        Ok(())
    }

    /// Whether the word of `peer`, on a connection whose other end is `local`, is taken. A Unix
    /// socket has a name at the listener's end only.
    #[must_use]
    pub fn trusts(&self, peer: &Address, local: &Address) -> bool {
        match peer {
            Address::Tcp(address) => self.trusts_ip(address.ip()),
            Address::UnixPath(_) | Address::UnixAbstract(_) | Address::UnixUnnamed => {
                self.everyone || self.every_unix || self.unix.contains(local)
            }
        }
    }

    /// Whether the word of this address is taken, which must not be an IPv4-mapped one.
    pub(super) fn trusts_ip(&self, ip: IpAddr) -> bool {
        self.everyone
            || match ip {
                IpAddr::V4(ip) => {
                    self.v4.iter().any(|(network, mask)| u32::from(ip) & mask == *network)
                }
                IpAddr::V6(ip) => {
                    self.v6.iter().any(|(network, mask)| u128::from(ip) & mask == *network)
                }
            }
    }
}

/// A trusted peer that cannot be understood. The operator's to repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustError {
    found: String,
    problem: Problem,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Problem {
    Unknown,
    /// The most that there may be.
    Length(u32),
    /// The network that was perhaps meant.
    HostBits(String),
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = &self.found;
        match &self.problem {
            Problem::Unknown => write!(
                f,
                "--proxy-trusted: expected an IP address, a network, unix, unix:PATH or *, found \
                 {found:?}\n\nhint: names are not looked up; give the addresses from which the \
                 proxy connects, each with an option of its own"
            ),
            Problem::Length(most) => write!(
                f,
                "--proxy-trusted: expected a prefix length from 0 to {most} after the slash, found \
                 {found:?}\n\nhint: 10.0.0.0/8 and fd00::/8 are networks"
            ),
            Problem::HostBits(network) => write!(
                f,
                "--proxy-trusted: expected a network, found {found:?}, which has bits set behind \
                 its prefix\n\nhint: the network around that address is {network}"
            ),
        }
    }
}

impl std::error::Error for TrustError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(texts: &[&str]) -> Trusted {
        Trusted::parse(&texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>()).unwrap()
    }

    fn tcp(ip: &str) -> Address {
        Address::tcp((ip.parse::<IpAddr>().unwrap(), 1234).into())
    }

    fn trusts(trusted: &Trusted, ip: &str) -> bool {
        trusted.trusts(&tcp(ip), &tcp("127.0.0.1"))
    }

    #[test]
    fn networks_have_edges() {
        let table: &[(&str, &[&str], &[&str])] = &[
            ("10.0.0.0/8", &["10.0.0.0", "10.255.255.255"], &["9.255.255.255", "11.0.0.0"]),
            ("10.1.2.3", &["10.1.2.3", "::ffff:10.1.2.3"], &["10.1.2.2", "10.1.2.4"]),
            ("0.0.0.0/0", &["0.0.0.0", "255.255.255.255"], &["::", "::1"]),
            ("192.0.2.128/25", &["192.0.2.128", "192.0.2.255"], &["192.0.2.127"]),
            ("::/0", &["::", "ffff::1"], &["127.0.0.1", "::ffff:127.0.0.1"]),
            ("fd00::/8", &["fd00::", "fdff::1"], &["fc00::1", "fe00::"]),
            ("2001:db8::1", &["2001:db8::1"], &["2001:db8::", "2001:db8::2"]),
            ("2001:db8::8/125", &["2001:db8::8", "2001:db8::f"], &["2001:db8::10", "::8"]),
            ("::ffff:10.0.0.0/104", &["10.9.9.9"], &["11.0.0.0", "::10.9.9.9"]),
            ("::ffff:0:0/96", &["1.2.3.4"], &["::1"]),
            ("*", &["1.2.3.4", "::1", "2001:db8::1"], &[]),
        ];
        for (text, inside, outside) in table {
            let trusted = trusted(&[text]);
            for ip in *inside {
                assert!(trusts(&trusted, ip), "{ip} is in {text}");
            }
            for ip in *outside {
                assert!(!trusts(&trusted, ip), "{ip} is not in {text}");
            }
        }
    }

    #[test]
    fn by_default_this_machine_is_trusted() {
        let default = Trusted::parse(&[]).unwrap();
        for ip in ["127.0.0.1", "127.255.0.3", "::1", "::ffff:127.0.0.1"] {
            assert!(trusts(&default, ip), "{ip}");
        }
        for ip in ["10.0.0.1", "192.168.0.1", "fe80::1", "::2", "::", "0.0.0.0"] {
            assert!(!trusts(&default, ip), "{ip}");
        }
        assert!(default.trusts(&Address::UnixUnnamed, &Address::UnixPath("/run/a".into())));
        // What is named takes the place of the default.
        assert!(!trusts(&trusted(&["unix"]), "127.0.0.1"));
    }

    #[test]
    fn unix_sockets_are_known_by_the_listener() {
        let a = Address::UnixPath("/run/a".into());
        let b = Address::UnixAbstract(b"b".to_vec());
        let table: &[(&str, bool, bool)] = &[
            ("unix", true, true),
            ("unix:", true, true),
            ("unix:/run/a", true, false),
            ("unix:@b", false, true),
            ("*", true, true),
            ("127.0.0.1", false, false),
        ];
        for (text, at_a, at_b) in table {
            let trusted = trusted(&[text]);
            assert_eq!(trusted.trusts(&Address::UnixUnnamed, &a), *at_a, "{text}");
            assert_eq!(trusted.trusts(&Address::UnixUnnamed, &b), *at_b, "{text}");
            // The name that a client gave itself means nothing.
            assert_eq!(trusted.trusts(&a, &b), *at_b, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_refused_with_a_hint() {
        let table = [
            ("", "expected an IP address"),
            ("localhost", "expected an IP address"),
            ("10.0.0.1:80", "expected an IP address"),
            ("010.0.0.1", "expected an IP address"),
            ("10.0.0.0/8,::1", "prefix length from 0 to 32"),
            ("fe80::1%eth0", "expected an IP address"),
            ("/8", "expected an IP address"),
            ("10.0.0.0/33", "prefix length from 0 to 32"),
            ("10.0.0.0/", "prefix length from 0 to 32"),
            ("10.0.0.0/+8", "prefix length from 0 to 32"),
            ("10.0.0.0/255.0.0.0", "prefix length from 0 to 32"),
            ("::/129", "prefix length from 0 to 128"),
            ("::/99999999999", "prefix length from 0 to 128"),
            ("10.0.0.1/8", "10.0.0.0/8"),
            ("fd00::1/8", "fd00::/8"),
        ];
        for (text, expected) in table {
            let error = Trusted::parse(&["::1".to_owned(), text.to_owned()]).unwrap_err();
            let shown = error.to_string();
            assert!(shown.contains(expected), "{shown}");
            assert!(shown.contains(&format!("{text:?}")), "{shown}");
            assert_eq!(shown.matches("\n\nhint: ").count(), 1, "{shown}");
        }
    }
}
