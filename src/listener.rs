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

impl Address {
    /// The address that the kernel wrote, as `getsockname(2)` or `accept(2)` give it.
    #[must_use]
    pub fn from_socket(address: &socket2::SockAddr) -> Self {
        if let Some(address) = address.as_socket() {
            Self::tcp(address)
        } else if let Some(path) = address.as_pathname() {
            Self::UnixPath(path.to_path_buf())
        } else if let Some(name) = address.as_abstract_namespace() {
            Self::UnixAbstract(name.to_vec())
        } else {
            Self::UnixUnnamed
        }
    }

    /// True for a TCP address that stands for every address of the host.
    #[must_use]
    pub fn is_unspecified(&self) -> bool {
        matches!(self, Self::Tcp(address) if address.ip().is_unspecified())
    }
}
