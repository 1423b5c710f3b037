//! Listening sockets: what they are called, where they listen, who owns the file descriptor.
//!
//! [`open`] is the one place that decides which sockets a server has: those systemd passed
//! ([`crate::activation`]), those adopted by number, and those it binds itself. The two ways to
//! come by a socket are below: [`adopt`] inspects one and changes nothing, `bind` makes one.
//!
//! Not here: accepting. That is the [`crate::proactor`]'s, which takes the descriptor from here.

mod adopt;
mod bind;
mod error;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::activation::{Activation, ActivationError, PassedFd};

pub use adopt::adopt;
pub use bind::SocketFile;
pub use error::ListenError;

/// Where a server listens when nobody says otherwise.
pub const DEFAULT_HOST: &str = "127.0.0.1";
/// See [`DEFAULT_HOST`].
pub const DEFAULT_PORT: u16 = 8000;
/// The name systemd gives to an unnamed descriptor of the service's store, `sd_listen_fds(3)`.
pub const STORED_NAME: &str = "stored";

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

    /// An address as the kernel returns it; `None` for a family that is neither IP nor Unix.
    #[must_use]
    pub fn from_socket(address: &socket2::SockAddr) -> Option<Self> {
        if let Some(address) = address.as_socket() {
            Some(Self::tcp(address))
        } else if let Some(path) = address.as_pathname() {
            Some(Self::UnixPath(path.to_owned()))
        } else if let Some(name) = address.as_abstract_namespace() {
            Some(Self::UnixAbstract(name.to_owned()))
        } else {
            address.is_unix().then_some(Self::UnixUnnamed)
        }
    }

    /// A Unix address as people write it: a path, or `@name` in the abstract namespace.
    #[must_use]
    pub fn unix(text: &str) -> Self {
        match text.strip_prefix('@') {
            Some(name) => Self::UnixAbstract(name.as_bytes().to_owned()),
            None => Self::UnixPath(text.into()),
        }
    }

    /// The content of a `sun_path` of full length, unix(7), which is filled up with zeroes.
    #[must_use]
    pub fn unix_field(path: &[u8; 108]) -> Self {
        let used = path.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        match &path[..used] {
            [] => Self::UnixUnnamed,
            [0, name @ ..] => Self::UnixAbstract(name.to_owned()),
            path => {
                let end = path.iter().position(|&byte| byte == 0).unwrap_or(path.len());
                Self::UnixPath(OsStr::from_bytes(&path[..end]).into())
            }
        }
    }

    /// True for a TCP address that stands for every address of the host.
    #[must_use]
    pub fn is_unspecified(&self) -> bool {
        matches!(self, Self::Tcp(address) if address.ip().is_unspecified())
    }
}

/// For logs and messages: `127.0.0.1:8000`, `[::1]:8000`, `unix:/run/web.sock`, `unix:@web`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::UnixPath(path) => write!(f, "unix:{}", path.display()),
            Self::UnixAbstract(name) => write!(f, "unix:@{}", name.escape_ascii()),
            Self::UnixUnnamed => write!(f, "unix:"),
        }
    }
}

/// A socket that listens. Dropping it closes the descriptor, and removes the socket file if it
/// was bound here and is still the same file.
#[derive(Debug)]
pub struct Listener {
    /// `FileDescriptorName=` of the unit; `None` when it has none, and for an own bind.
    pub name: Option<String>,
    /// Where it listens, as the kernel tells it.
    pub address: Address,
    /// The socket, close-on-exec. Whoever takes it keeps `file` for as long.
    pub fd: OwnedFd,
    /// True when another process made the socket: nothing about it may be changed.
    pub inherited: bool,
    /// The file of a Unix socket that was bound here.
    pub file: Option<SocketFile>,
    /// Each connection begins with a PROXY protocol header ([`crate::proxy::protocol`]).
    pub proxy_protocol: bool,
}

impl Listener {
    /// Whether `text` is its name, or its address as the log writes it; `unix:` may be left out.
    fn is_called(&self, text: &str) -> bool {
        if self.name.as_deref() == Some(text) {
            return true;
        }
        match (text.parse::<SocketAddr>(), &self.address) {
            (Ok(address), own) => *own == Address::tcp(address),
            (Err(_), Address::Tcp(_)) => false,
            (Err(_), own) => *own == Address::unix(text.strip_prefix("unix:").unwrap_or(text)),
        }
    }
}

/// For messages: `"web" (127.0.0.1:8000)`, `unix:/run/web.sock`.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name:?} ({})", self.address),
            None => write!(f, "{}", self.address),
        }
    }
}

/// What the operator asked for. `None` and empty mean "not given", never "the default".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// `--fd-from-systemd`: demand at least one passed listener.
    pub fd_from_systemd: bool,
    /// `--fd-name`: of the passed sockets, only those with one of these names.
    pub fd_names: Vec<String>,
    /// `--fd`: inherited sockets by number.
    pub fds: Vec<RawFd>,
    /// `--host`: an IP address or a name, which stands for all its addresses.
    pub host: Option<String>,
    /// `--port`: 0 lets the kernel pick one.
    pub port: Option<u16>,
    /// `--uds`: a path, or `@name` in the abstract namespace.
    pub uds: Option<String>,
    /// `--uds-permissions`: the mode of the socket file, `chmod(2)`.
    pub uds_permissions: Option<u32>,
    /// `--backlog` of the sockets bound here, `listen(2)`.
    pub backlog: u32,
    /// `--proxy-protocol`: names or addresses of listeners.
    pub proxy_protocol: Vec<String>,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            fd_from_systemd: false,
            fd_names: Vec::new(),
            fds: Vec::new(),
            host: None,
            port: None,
            uds: None,
            uds_permissions: None,
            backlog: 1024,
            proxy_protocol: Vec::new(),
        }
    }
}

impl SocketOptions {
    /// Passed sockets were asked for.
    fn wants_passed(&self) -> bool {
        self.fd_from_systemd || !self.fd_names.is_empty()
    }

    /// Some other socket was asked for.
    fn wants_other(&self) -> bool {
        self.wants_tcp() || self.uds.is_some() || !self.fds.is_empty()
    }

    fn wants_tcp(&self) -> bool {
        self.host.is_some() || self.port.is_some()
    }
}

/// How much a [`Notice`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// For whoever looks for the reason of something.
    Debug,
    /// What the operator wants to see at every start.
    Info,
    /// Probably not what the operator meant.
    Warning,
}

/// Something to be logged once logging works; [`open`] runs before that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// How much it matters.
    pub level: Level,
    /// One line.
    pub text: String,
}

/// Opens every socket that `options` and `activation` ask for, in the order passed, `--fd`, TCP,
/// Unix.
///
/// | asked for | sockets passed to us | none passed |
/// |---|---|---|
/// | `--fd-from-systemd`, `--fd-name` | used | error, never a bind instead |
/// | only `--fd`, `--host`, `--port`, `--uds` | ignored, with a warning | what was asked for |
/// | nothing | used, and said so | 127.0.0.1:8000 |
///
/// A passed descriptor named [`STORED_NAME`] that is not a listener comes from the service's file
/// descriptor store and is skipped. systemd lets a name in the store be anything, but then nothing
/// tells it from a wrong `.socket` unit: everything else that is not a listener is an error, and
/// `--fd-name` picks the listeners where the store has names of its own. A descriptor that is
/// skipped or ignored stays open and untouched.
///
/// # Errors
/// [`ListenError`] for the first socket that cannot be had; those already bound are closed.
pub fn open(
    options: &SocketOptions,
    activation: Result<Activation, ActivationError>,
) -> Result<(Vec<Listener>, Vec<Notice>), ListenError> {
    let mut notices = Vec::new();
    let mut listeners = Vec::new();
    let mut adopted = BTreeSet::new();

    let passed = match activation {
        Ok(activation) => activation.fds,
        Err(error) if options.wants_passed() => return Err(error.into()),
        Err(error) => {
            notices.extend(without_activation(error, options)?);
            Vec::new()
        }
    };
    for passed in &choose(&passed, options)? {
        match adopt(passed.fd, passed.name.as_deref()) {
            Ok(listener) => {
                adopted.insert(passed.fd);
                listeners.push(listener);
            }
            Err(error) if is_stored(passed, &error) => notices.push(skipped(passed)),
            Err(error) => return Err(error),
        }
    }
    if options.wants_passed() && listeners.is_empty() {
        return Err(ListenError::OnlyStored);
    }
    if !options.wants_passed() && !listeners.is_empty() {
        notices.push(implied(&listeners));
    }

    for &fd in &options.fds {
        let name = passed.iter().find(|passed| passed.fd == fd).and_then(|p| p.name.as_deref());
        if adopted.insert(fd) {
            listeners.push(adopt(fd, name)?);
        }
    }
    if !options.wants_passed() && options.wants_other() {
        notices.extend(ignored(&passed, &adopted));
    }

    bind_own(options, &mut listeners, &mut notices)?;
    switch_proxy_protocol_on(&options.proxy_protocol, &mut listeners)?;
    Ok((listeners, notices))
}

/// Several listeners may have one name, and then it means them all.
fn switch_proxy_protocol_on(
    wanted: &[String],
    listeners: &mut [Listener],
) -> Result<(), ListenError> {
    for text in wanted {
        let mut is_known = false;
        for listener in listeners.iter_mut().filter(|listener| listener.is_called(text)) {
            listener.proxy_protocol = true;
            is_known = true;
        }
        if !is_known {
            return Err(ListenError::NoSuchListener {
                wanted: text.clone(),
                known: listeners.iter().map(ToString::to_string).collect(),
            });
        }
    }
    Ok(())
}

/// Binds the sockets that no one passed.
fn bind_own(
    options: &SocketOptions,
    listeners: &mut Vec<Listener>,
    notices: &mut Vec<Notice>,
) -> Result<(), ListenError> {
    if options.wants_tcp() || listeners.is_empty() && options.uds.is_none() {
        let host = options.host.as_deref().unwrap_or(DEFAULT_HOST);
        let port = options.port.unwrap_or(DEFAULT_PORT);
        listeners.extend(bind::tcp(host, port, options.backlog, notices)?);
    }
    match (&options.uds, options.uds_permissions) {
        (Some(uds), permissions) => listeners.push(bind::unix(uds, permissions, options.backlog)?),
        (None, Some(_)) => {
            notices.push(warning("--uds-permissions has no effect without --uds".to_owned()));
        }
        (None, None) => {}
    }
    Ok(())
}

/// What an activation error means when no passed socket was asked for.
fn without_activation(
    error: ActivationError,
    options: &SocketOptions,
) -> Result<Option<Notice>, ListenError> {
    match error {
        ActivationError::OtherProcess { listen_pid, pid } => Ok(Some(Notice {
            level: Level::Debug,
            text: format!(
                "sockets were passed to process {listen_pid} (LISTEN_PID), not to this one, {pid}"
            ),
        })),
        error if error.nothing_passed() => Ok(None),
        error if options.wants_other() => {
            let message = error.to_string();
            let line = message.lines().next().unwrap_or_default();
            Ok(Some(warning(format!("what systemd passed is ignored: {line}"))))
        }
        // Something was passed, and nothing else asked for: a bind elsewhere would hide that.
        error => Err(error.into()),
    }
}

/// The passed descriptors that are wanted.
fn choose(passed: &[PassedFd], options: &SocketOptions) -> Result<Vec<PassedFd>, ListenError> {
    if options.fd_names.is_empty() {
        let use_all = options.fd_from_systemd || !options.wants_other();
        return Ok(if use_all { passed.to_vec() } else { Vec::new() });
    }
    if passed.iter().all(|passed| passed.name.is_none()) {
        return Err(ListenError::NamesAbsent { wanted: options.fd_names.clone() });
    }
    let has = |name: &String| passed.iter().any(|passed| passed.name.as_ref() == Some(name));
    if let Some(unknown) = options.fd_names.iter().find(|name| !has(name)) {
        let known: BTreeSet<&str> = passed.iter().filter_map(|p| p.name.as_deref()).collect();
        return Err(ListenError::UnknownName {
            wanted: unknown.clone(),
            known: known.into_iter().map(str::to_owned).collect(),
        });
    }
    let wanted =
        |passed: &&PassedFd| passed.name.as_ref().is_some_and(|n| options.fd_names.contains(n));
    Ok(passed.iter().filter(wanted).cloned().collect())
}

/// systemd never stores a closed descriptor, so that one is an error under any name.
fn is_stored(passed: &PassedFd, error: &ListenError) -> bool {
    passed.name.as_deref() == Some(STORED_NAME) && !matches!(error, ListenError::Closed { .. })
}

fn skipped(passed: &PassedFd) -> Notice {
    Notice {
        level: Level::Info,
        text: format!(
            "fd {} (\"{STORED_NAME}\") comes from the file descriptor store and is not a \
             listening socket: skipped",
            passed.fd
        ),
    }
}

fn implied(listeners: &[Listener]) -> Notice {
    let addresses: Vec<String> = listeners.iter().map(|l| l.address.to_string()).collect();
    Notice {
        level: Level::Info,
        text: format!("using the sockets that systemd passed: {}", addresses.join(", ")),
    }
}

fn ignored(passed: &[PassedFd], adopted: &BTreeSet<RawFd>) -> Option<Notice> {
    let numbers: Vec<String> = passed
        .iter()
        .filter(|passed| !adopted.contains(&passed.fd))
        .map(|passed| match &passed.name {
            Some(name) => format!("{} (\"{name}\")", passed.fd),
            None => passed.fd.to_string(),
        })
        .collect();
    (!numbers.is_empty()).then(|| {
        warning(format!(
            "systemd passed fd {}, ignored because other sockets were asked for; add \
             --fd-from-systemd to use both",
            numbers.join(", ")
        ))
    })
}

fn warning(text: String) -> Notice {
    Notice { level: Level::Warning, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_people_write_them() {
        let tcp = |text: &str| Address::tcp(text.parse().unwrap());
        let table = [
            (tcp("127.0.0.1:80"), "127.0.0.1:80"),
            (tcp("[::1]:80"), "[::1]:80"),
            (tcp("[::ffff:10.0.0.1]:80"), "10.0.0.1:80"),
            (Address::UnixPath("/run/web.sock".into()), "unix:/run/web.sock"),
            (Address::UnixAbstract(b"web\n".to_vec()), "unix:@web\\n"),
            (Address::UnixUnnamed, "unix:"),
        ];
        for (address, expected) in table {
            assert_eq!(address.to_string(), expected);
        }
    }

    fn listener(name: Option<&str>, address: Address) -> Listener {
        let fd = std::fs::File::open("/dev/null").unwrap().into();
        let name = name.map(str::to_owned);
        Listener { name, address, fd, inherited: true, file: None, proxy_protocol: false }
    }

    #[test]
    fn listeners_go_by_their_name_and_by_their_address() {
        let tcp = |text: &str| Address::tcp(text.parse().unwrap());
        let table: &[(&str, &[usize])] = &[
            ("web", &[0, 1]),
            ("127.0.0.1:80", &[0]),
            ("[::ffff:127.0.0.1]:80", &[0]),
            ("[::1]:80", &[1]),
            ("[0:0::1]:80", &[1]),
            ("unix:/run/web", &[2]),
            ("/run/web", &[2]),
            ("@web", &[3]),
            ("unix:@web", &[3]),
        ];
        let all = || {
            [
                listener(Some("web"), tcp("127.0.0.1:80")),
                listener(Some("web"), tcp("[::1]:80")),
                listener(Some("other"), Address::UnixPath("/run/web".into())),
                listener(None, Address::UnixAbstract(b"web".to_vec())),
            ]
        };
        for (wanted, expected) in table {
            let mut listeners = all();
            switch_proxy_protocol_on(&[(*wanted).to_owned()], &mut listeners).unwrap();
            let found: Vec<usize> = (0..4).filter(|&it| listeners[it].proxy_protocol).collect();
            assert_eq!(found, *expected, "{wanted}");
        }
        for unknown in ["", "127.0.0.1", "127.0.0.1:81", "0.0.0.0:80", "run/web", "unix:", "we"] {
            let wanted = ["web".to_owned(), unknown.to_owned()];
            let error = switch_proxy_protocol_on(&wanted, &mut all()).unwrap_err().to_string();
            let expected = format!(
                "--proxy-protocol: expected one of the listeners \"web\" (127.0.0.1:80), \"web\" \
                 ([::1]:80), \"other\" (unix:/run/web), unix:@web, found {unknown:?}\n\nhint: "
            );
            assert!(error.starts_with(&expected), "{error}");
        }
    }

    #[test]
    fn a_field_of_full_length_is_a_path_a_name_or_nothing() {
        let field = |text: &[u8]| {
            let mut field = [0; 108];
            field[..text.len()].copy_from_slice(text);
            Address::unix_field(&field)
        };
        assert_eq!(field(b""), Address::UnixUnnamed);
        assert_eq!(field(b"/run/web"), Address::UnixPath("/run/web".into()));
        assert_eq!(field(b"/run/web\0rest"), Address::UnixPath("/run/web".into()));
        assert_eq!(field(b"\0a\0b"), Address::UnixAbstract(b"a\0b".to_vec()));
        assert_eq!(field(&[b'x'; 108]), Address::UnixPath("x".repeat(108).into()));
    }
}
