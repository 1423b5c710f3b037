//! Making listening sockets of our own: TCP by host and port, Unix by path or abstract name.
//!
//! An address in use is tried again for [`RETRY_FOR`]: the kernel tears an `io_uring` down after its
//! process is gone, and the armed accept keeps a listener alive for that time.
//!
//! A socket file is made under a lock on its directory, so that two servers that both find the file
//! of a dead one cannot remove each other's; its mode is set before `listen(2)`, and before that no
//! client can connect, so no one ever gets in by wider permissions than asked for.

#![allow(unsafe_code, reason = "flock(2): std has it from Rust 1.89 on")]

use std::fs::{self, File, Permissions};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{io, process, thread};

use socket2::{Domain, SockAddr, Socket, Type};

use super::{Address, Level, ListenError, Listener, Notice};

/// Fifteen times the longest teardown that was measured (66 ms), and short for a person who waits.
const RETRY_FOR: Duration = Duration::from_secs(1);
const RETRY_EVERY: Duration = Duration::from_millis(50);
/// With port 0 the port that is free on one address can be taken on the next: then another is tried.
const PORT_PICKS: u32 = 16;

/// The file of a Unix socket bound here. Dropped, it removes the file, unless another one has taken
/// its place, or this is a fork of the process that made it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    owner: u32,
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        // Absolute, because the working directory may be another one when the file is removed.
        let path = std::path::absolute(path)?;
        let (device, inode) = (metadata.dev(), metadata.ino());
        Ok(Self { path, device, inode, owner: process::id() })
    }

    fn is_ours(&self) -> bool {
        let same =
            |metadata: fs::Metadata| metadata.dev() == self.device && metadata.ino() == self.inode;
        self.owner == process::id() && fs::symlink_metadata(&self.path).is_ok_and(same)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Without the lock the file could be replaced between the look and the removal; when it
        // cannot be had, another server is at work there, and it replaces the file itself.
        if let Ok(_lock) = lock_directory(&self.path)
            && self.is_ours()
        {
            // A file that cannot be removed is replaced by the next server: nothing to do here.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens on every address of `host`, on the same port.
pub(super) fn tcp(
    host: &str,
    port: u16,
    backlog: u32,
    notices: &mut Vec<Notice>,
) -> Result<Vec<Listener>, ListenError> {
    let addresses = resolve(host, port)?;
    let mut picks = 0;
    let (listeners, missing) = loop {
        picks += 1;
        match tcp_all(&addresses, port, backlog) {
            Err(error) if port == 0 && error.may_pass() && picks < PORT_PICKS => {}
            result => break result?,
        }
    };
    notices.extend(missing.into_iter().map(|address| Notice {
        level: Level::Info,
        text: format!("--host {host:?} is also {}, which this machine does not have", address.ip()),
    }));
    Ok(listeners)
}

/// The addresses of a host name, each once, in the resolver's order.
fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, ListenError> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let failed = |error| ListenError::Resolve { host: host.to_owned(), error };
    let mut addresses = Vec::new();
    for address in (bare, port).to_socket_addrs().map_err(failed)? {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(failed(io::Error::other("it has no address")));
    }
    Ok(addresses)
}

/// One listener for each address, and the addresses that this machine does not have (a name such as
/// `localhost` often has an IPv6 address where IPv6 is off). One at least must be there.
fn tcp_all(
    addresses: &[SocketAddr],
    port: u16,
    backlog: u32,
) -> Result<(Vec<Listener>, Vec<SocketAddr>), ListenError> {
    let only = addresses.len() == 1;
    let mut picked = port;
    let mut listeners: Vec<Listener> = Vec::new();
    let mut missing = Vec::new();
    let mut reason = None;
    for &address in addresses {
        let address = SocketAddr::new(address.ip(), picked);
        // A port picked a moment ago that is taken is replaced by another one, without waiting.
        let patience = if port == 0 { Duration::ZERO } else { RETRY_FOR };
        match retry(patience, || tcp_one(address, !only, backlog)) {
            Ok(listener) => {
                if let Address::Tcp(bound) = listener.address {
                    picked = bound.port();
                }
                listeners.push(listener);
            }
            Err(error) if is_absent(&error) => {
                missing.push(address);
                reason = reason.or(Some(error));
            }
            Err(error) => return Err(error),
        }
    }
    match reason {
        Some(error) if listeners.is_empty() => Err(error),
        _ => Ok((listeners, missing)),
    }
}

fn is_absent(error: &ListenError) -> bool {
    let ListenError::Bind { error, .. } = error else { return false };
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

/// Alone, an IPv6 wildcard takes IPv4 clients too, whatever the system's default (ipv6(7)); beside
/// others it must not, or their binds would collide.
fn tcp_one(address: SocketAddr, v6_only: bool, backlog: u32) -> Result<Listener, ListenError> {
    let make = || -> io::Result<Listener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // Else the connections of the last server, in TIME_WAIT, keep the port for a minute.
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(v6_only)?;
        }
        socket.bind(&address.into())?;
        listen(socket.into(), backlog, None)
    };
    make().map_err(|error| ListenError::Bind { address: address.to_string(), error })
}

/// Listens on a Unix path, or on an abstract name that begins with `@`.
pub(super) fn unix(
    name: &str,
    permissions: Option<u32>,
    backlog: u32,
) -> Result<Listener, ListenError> {
    let unusable = |error| ListenError::UnixName { name: name.to_owned(), error };
    if name.is_empty() || name == "@" {
        return Err(unusable(io::Error::other("the name is empty")));
    }
    let Some(abstract_name) = name.strip_prefix('@') else {
        let address = SockAddr::unix(name).map_err(unusable)?;
        return retry(RETRY_FOR, || unix_path(Path::new(name), &address, permissions, backlog));
    };
    if permissions.is_some() {
        return Err(ListenError::AbstractPermissions { name: name.to_owned() });
    }
    let address = SockAddr::unix(format!("\0{abstract_name}")).map_err(unusable)?;
    retry(RETRY_FOR, || {
        let make = || {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.bind(&address)?;
            listen(socket.into(), backlog, None)
        };
        make().map_err(|error| ListenError::Bind { address: format!("unix:{name}"), error })
    })
}

/// One try at a socket file; the file of a dead server is replaced.
fn unix_path(
    path: &Path,
    address: &SockAddr,
    permissions: Option<u32>,
    backlog: u32,
) -> Result<Listener, ListenError> {
    let failed = |error| ListenError::SocketFile { path: path.to_owned(), error };
    let _lock = lock_directory(path)?;
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ListenError::NotASocketFile { path: path.to_owned() });
        }
        Ok(_) if is_live(address).map_err(failed)? => {
            return Err(ListenError::Live { path: path.to_owned() });
        }
        Ok(_) => fs::remove_file(path).map_err(failed)?,
    }

    let make = || -> io::Result<Listener> {
        let socket = File::from(OwnedFd::from(Socket::new(Domain::UNIX, Type::STREAM, None)?));
        if let Some(mode) = permissions {
            // The file gets the mode of the socket less the umask (unix(7)): never wider than it.
            socket.set_permissions(Permissions::from_mode(mode))?;
        }
        let socket = Socket::from(OwnedFd::from(socket));
        socket.bind(address)?;
        let file = SocketFile::new(path)?;
        if let Some(mode) = permissions {
            // What the umask took away.
            fs::set_permissions(path, Permissions::from_mode(mode))?;
        }
        listen(socket.into(), backlog, Some(file))
    };
    make().map_err(failed)
}

/// True unless nobody listens on this socket file any more.
fn is_live(address: &SockAddr) -> io::Result<bool> {
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A live server with a full backlog would make a blocking connect wait.
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        // A socket of another type: somebody's, and alive.
        Err(error) if error.raw_os_error() == Some(libc::EPROTOTYPE) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        Err(error) => Err(error),
    }
}

fn listen(socket: OwnedFd, backlog: u32, file: Option<SocketFile>) -> io::Result<Listener> {
    let socket = Socket::from(socket);
    // The kernel cuts larger values to net.core.somaxconn, listen(2).
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    let address = Address::from_socket(&socket.local_addr()?)
        .expect("the families bound here are the ones that Address has");
    Ok(Listener {
        name: None,
        address,
        fd: socket.into(),
        inherited: false,
        file,
        proxy_protocol: false,
    })
}

/// Locks the directory of `path` until the file is dropped: `flock(2)`, which needs no file of its
/// own that somebody would have to remove. Does not wait.
fn lock_directory(path: &Path) -> Result<File, ListenError> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let file = File::open(directory)
        .map_err(|error| ListenError::SocketFile { path: path.to_owned(), error })?;
    // SAFETY: the descriptor is open for the whole call; flock takes nothing else but flags.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
        return Err(ListenError::Locked { directory: directory.to_owned() });
    }
    Ok(file)
}

/// Tries again while the failure is one that may pass by itself, for `patience` at most.
fn retry<T>(
    patience: Duration,
    mut attempt: impl FnMut() -> Result<T, ListenError>,
) -> Result<T, ListenError> {
    let deadline = Instant::now() + patience;
    loop {
        match attempt() {
            Err(error) if error.may_pass() && Instant::now() < deadline => {
                thread::sleep(RETRY_EVERY);
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(hosts: &[&str]) -> Vec<SocketAddr> {
        hosts.iter().map(|host| SocketAddr::new(host.parse().unwrap(), 0)).collect()
    }

    #[test]
    fn all_addresses_of_a_name_share_the_port_that_the_first_one_got() {
        let (listeners, missing) =
            tcp_all(&addresses(&["127.0.0.1", "127.0.0.2", "::1"]), 0, 8).unwrap();
        let port = |listener: &Listener| match &listener.address {
            Address::Tcp(address) => address.port(),
            other => panic!("{other} is not TCP"),
        };
        assert_eq!(listeners.len(), 3);
        assert!(
            port(&listeners[0]) != 0 && listeners.iter().all(|l| port(l) == port(&listeners[0]))
        );
        assert_eq!(missing, []);
    }

    /// 192.0.2.0/24 is for documentation (RFC 5737): no machine has it.
    #[test]
    fn an_address_that_is_not_here_is_left_out_unless_it_is_the_only_one() {
        let (listeners, missing) = tcp_all(&addresses(&["192.0.2.1", "127.0.0.1"]), 0, 8).unwrap();
        assert_eq!((listeners.len(), missing), (1, addresses(&["192.0.2.1"])));
        let error = tcp_all(&addresses(&["192.0.2.1"]), 0, 8).unwrap_err();
        assert!(is_absent(&error), "{error}");
    }

    #[test]
    fn an_ipv4_and_an_ipv6_wildcard_fit_on_one_port() {
        let (listeners, _) = tcp_all(&addresses(&["::", "0.0.0.0"]), 0, 8).unwrap();
        assert_eq!(listeners.len(), 2);
    }
}
