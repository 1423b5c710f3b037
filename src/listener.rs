//! Listening sockets: what they are called, where they listen, who owns the file descriptor.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// The address of one end of a connection, or of a listener, as the kernel tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP. An IPv4-mapped IPv6 address (`::ffff:a.b.c.d`) is stored as the IPv4 address it is.
    Tcp(SocketAddr),
    /// A Unix socket bound to a path, unix(7).
    UnixPath(PathBuf),
    /// A Unix socket in the abstract namespace; the name without its leading NUL, unix(7).
    UnixAbstract(Vec<u8>),
    /// A Unix socket without a name: what the clients of a Unix listener usually have.
    UnixUnnamed,
}

impl Address {
    /// A TCP address, with an IPv4-mapped IPv6 address shown as IPv4.
    #[must_use]
    pub fn tcp(address: SocketAddr) -> Self {
        let ip = match address.ip() {
            IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4),
            ip @ IpAddr::V4(_) => ip,
        };
        Self::Tcp(SocketAddr::new(ip, address.port()))
    }
}
