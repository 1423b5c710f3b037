//! Everything that can be wrong with a socket, each with what was expected, what was found, and a
//! `hint:` on a line of its own. The caller prints `error: ` before it.

use std::path::PathBuf;
use std::{fmt, io};

use super::STORED_NAME;
use crate::activation::ActivationError;

/// Why a listening socket cannot be had. All of these are the operator's to repair.
///
/// `what` names the descriptor, as `fd 3 ("web")`; `address` names the place, as
/// `127.0.0.1:8000` or `unix:/run/web.sock`.
#[derive(Debug)]
#[allow(missing_docs, reason = "each field is explained above, each variant by its message")]
pub enum ListenError {
    Activation(ActivationError),
    NamesAbsent { wanted: Vec<String> },
    UnknownName { wanted: String, known: Vec<String> },
    OnlyStored,
    Closed { what: String },
    NotASocket { what: String, found: &'static str },
    Family { what: String, family: i32 },
    Datagram { what: String },
    SequentialPacket { what: String },
    Type { what: String, kind: i32 },
    Connection { what: String },
    NotListening { what: String },
    Inspect { what: String, error: io::Error },
    Resolve { host: String, error: io::Error },
    Bind { address: String, error: io::Error },
    UnixName { name: String, error: io::Error },
    AbstractPermissions { name: String },
    NotASocketFile { path: PathBuf },
    Live { path: PathBuf },
    Locked { directory: PathBuf },
    SocketFile { path: PathBuf, error: io::Error },
    NoSuchListener { wanted: String, known: Vec<String> },
}

impl ListenError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        let text = match self {
            Self::Activation(error) => return hint_of(&error.to_string()),
            Self::NamesAbsent { .. } => {
                "the program that passes the sockets gives no LISTEN_FDNAMES \
                 (systemd-socket-activate needs --fdname=NAME); without names use --fd-from-systemd"
            }
            Self::UnknownName { .. } => {
                "the name is FileDescriptorName= in the .socket unit, or the unit's own name"
            }
            Self::OnlyStored => {
                "the .socket unit must be active before the service starts: \
                 Requires=NAME.socket and After=NAME.socket in the service, or Sockets=NAME.socket"
            }
            Self::Closed { .. } => {
                "whatever starts the server must leave the descriptor open: check LISTEN_FDS, and \
                 that no wrapper closes it"
            }
            Self::NotASocket { .. } => {
                "use ListenStream= in the .socket unit; what the service stores itself must keep \
                 the name \"stored\", or be left out by --fd-name"
            }
            Self::Family { .. } => "ListenStream= with a port, an address, a path or @name",
            Self::Datagram { .. } => "use ListenStream=, not ListenDatagram=, in the .socket unit",
            Self::SequentialPacket { .. } => {
                "use ListenStream=, not ListenSequentialPacket=, in the .socket unit"
            }
            Self::Type { .. } => "use ListenStream= in the .socket unit",
            Self::Connection { .. } => {
                "use Accept=no (the default) in the .socket unit: the server accepts for itself"
            }
            Self::NotListening { .. } => {
                "call listen() on it before it is passed, or let a .socket unit make it"
            }
            Self::Inspect { .. } => "the kernel refused to describe the socket; see socket(7)",
            Self::Resolve { .. } => {
                "`getent ahosts HOST` shows what a name resolves to; an IP address needs no name \
                 service"
            }
            Self::Bind { address, error } => return bind_hint(address, error),
            Self::UnixName { .. } => {
                "a path or @name has 1 to 107 bytes, unix(7); a path under /run is short"
            }
            Self::AbstractPermissions { .. } => {
                "an abstract socket is no file: drop --uds-permissions, or use a path"
            }
            Self::NotASocketFile { .. } => "choose another --uds path, or move that file away",
            Self::Live { .. } => {
                "another server is running: stop it first, or choose another --uds path"
            }
            Self::Locked { .. } => "another server is starting there; try again when it is up",
            Self::SocketFile { .. } => {
                "the directory must exist, and the server's user must be able to read and write it \
                 (RuntimeDirectory= makes one)"
            }
            Self::NoSuchListener { .. } => {
                "give --proxy-protocol the FileDescriptorName= of a socket, or its address as it \
                 is written here"
            }
        };
        text.to_owned()
    }

    /// A dead server's last moments look like a live server: worth another try, for a while.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Bind { error, .. } => error.kind() == io::ErrorKind::AddrInUse,
            Self::Live { .. } | Self::Locked { .. } => true,
            _ => false,
        }
    }

    fn message(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const EXPECTED: &str = "expected a listening stream socket";
        match self {
            Self::Activation(error) => {
                let text = error.to_string();
                f.write_str(text.split_once("\n\n").map_or(text.as_str(), |(message, _)| message))
            }
            Self::NamesAbsent { wanted } => write!(
                f,
                "--fd-name {} matches nothing: the sockets were passed without names",
                quoted(wanted)
            ),
            Self::UnknownName { wanted, known } => {
                write!(f, "no passed socket is named \"{wanted}\"; the names are {}", quoted(known))
            }
            Self::OnlyStored => write!(
                f,
                "no listening socket was passed, only descriptors from the service's own store \
                 (\"{STORED_NAME}\")"
            ),
            Self::Closed { what } => write!(f, "{what} is not open, {EXPECTED}"),
            Self::NotASocket { what, found } => write!(f, "{what} is {found}, {EXPECTED}"),
            Self::Family { what, family } => write!(
                f,
                "{what} is a socket of address family {family}, expected IPv4, IPv6 or Unix"
            ),
            Self::Datagram { what } => write!(f, "{what} is a datagram socket, {EXPECTED}"),
            Self::SequentialPacket { what } => {
                write!(f, "{what} is a sequential-packet socket, {EXPECTED}")
            }
            Self::Type { what, kind } => write!(f, "{what} is a socket of type {kind}, {EXPECTED}"),
            Self::Connection { what } => write!(f, "{what} is a connection, {EXPECTED}"),
            Self::NotListening { what } => {
                write!(f, "{what} is a stream socket that does not listen, {EXPECTED}")
            }
            Self::Inspect { what, error } => write!(f, "cannot inspect {what}: {error}"),
            Self::Resolve { host, error } => write!(f, "cannot resolve --host {host:?}: {error}"),
            Self::Bind { address, error } => write!(f, "cannot listen on {address}: {error}"),
            Self::UnixName { name, error } => write!(f, "cannot use --uds {name:?}: {error}"),
            Self::AbstractPermissions { name } => {
                write!(f, "--uds-permissions was given for the abstract socket {name:?}")
            }
            Self::NotASocketFile { path } => write!(
                f,
                "cannot listen on unix:{}: the path exists and is not a socket",
                path.display()
            ),
            Self::Live { path } => {
                write!(f, "cannot listen on unix:{}: a server listens there", path.display())
            }
            Self::Locked { directory } => {
                write!(f, "cannot lock the directory {}", directory.display())
            }
            Self::SocketFile { path, error } => {
                write!(f, "cannot make the socket unix:{}: {error}", path.display())
            }
            Self::NoSuchListener { wanted, known } => write!(
                f,
                "--proxy-protocol: expected one of the listeners {}, found {wanted:?}",
                known.join(", ")
            ),
        }
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message(f)?;
        write!(f, "\n\nhint: {}", self.hint())
    }
}

impl std::error::Error for ListenError {}

impl From<ActivationError> for ListenError {
    fn from(error: ActivationError) -> Self {
        Self::Activation(error)
    }
}

fn bind_hint(address: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another program listens on {address}: `ss -lxtnp` shows which; choose another --port \
             or --uds"
        ),
        io::ErrorKind::AddrNotAvailable => {
            "`ip address` shows the addresses that this machine has; 0.0.0.0 and :: are all of them"
                .to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "a port below 1024 needs AmbientCapabilities=CAP_NET_BIND_SERVICE, or a .socket unit \
             and --fd-from-systemd"
                .to_owned()
        }
        _ => "see bind(2) and listen(2) for this error".to_owned(),
    }
}

fn hint_of(text: &str) -> String {
    text.split_once("hint: ").map(|(_, hint)| hint.to_owned()).unwrap_or_default()
}

fn quoted(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    names.join(", ")
}
