//! What happens before a loop runs: take what systemd passed, open listeners, talk to systemd.

use std::mem;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use granian_uring::activation::{self, ActivationError};
use granian_uring::listener::{self, Level, Listener, SocketFile, SocketOptions};
use granian_uring::notify::{self, State};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::errors::operator_error;

/// What systemd passed to this process, or why that cannot be understood. Used once.
#[pyclass(frozen, module = "granian_uring._native")]
pub struct Activation(Mutex<Option<Result<activation::Activation, ActivationError>>>);

#[pymethods]
impl Activation {
    /// Nothing was passed, or not to be asked for.
    #[new]
    fn new() -> Self {
        Self(Mutex::new(Some(Err(ActivationError::Absent(activation::VARIABLES[0])))))
    }
}

/// Read `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES`, and remove them from the C environment
/// (`os.environ` is a copy: the caller removes them there too).
#[pyfunction]
#[allow(unsafe_code, reason = "the environment is a C interface without a lock")]
pub fn take_activation() -> Activation {
    // SAFETY: the caller is `granian_uring.worker`, before it starts any thread; the GIL keeps
    // Python's own users of the environment away.
    Activation(Mutex::new(Some(unsafe { activation::take() })))
}

/// Read and remove `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`, likewise.
#[pyfunction]
#[allow(unsafe_code, reason = "the environment is a C interface without a lock")]
pub fn take_notifier(py: Python<'_>) -> PyResult<Notifier> {
    // SAFETY: as in `take_activation`.
    let (notifier, watchdog) =
        unsafe { notify::take() }.map_err(|error| operator_error(py, &error))?;
    Ok(Notifier { notifier, watchdog })
}

/// Listening sockets. A worker takes them; the socket files that were made for them are removed
/// when it closes, or when this object goes.
#[pyclass(frozen, module = "granian_uring._native")]
pub struct Listeners {
    sockets: Mutex<Vec<Listener>>,
    files: Mutex<Vec<SocketFile>>,
    /// `(level, text)` of what there is to log about how they came to be; the level is a word of
    /// Python's logging.
    #[pyo3(get)]
    notices: Vec<(&'static str, String)>,
    /// Where they listen, as a person writes it.
    #[pyo3(get)]
    addresses: Vec<String>,
}

impl Listeners {
    /// The sockets, once; their files stay with this object.
    pub fn take(&self) -> Vec<Listener> {
        let mut listeners =
            mem::take(&mut *self.sockets.lock().unwrap_or_else(PoisonError::into_inner));
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.extend(listeners.iter_mut().filter_map(|listener| listener.file.take()));
        listeners
    }

    /// Remove the files of sockets on which nobody listens any more.
    pub fn remove_files(&self) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[pymethods]
impl Listeners {
    /// The same sockets once more, for another worker; their files stay with this object.
    fn share(&self) -> PyResult<Self> {
        let mut sockets = Vec::new();
        for listener in &*self.sockets.lock().unwrap_or_else(PoisonError::into_inner) {
            sockets.push(Listener {
                name: listener.name.clone(),
                address: listener.address.clone(),
                fd: listener.fd.try_clone()?,
                inherited: listener.inherited,
                file: None,
                proxy_protocol: listener.proxy_protocol,
            });
        }
        Ok(Self {
            sockets: Mutex::new(sockets),
            files: Mutex::default(),
            notices: Vec::new(),
            addresses: self.addresses.clone(),
        })
    }

    /// Close the sockets that no worker took, and remove the files of all.
    fn close(&self) {
        drop(self.take());
        self.remove_files();
    }
}

/// Open every socket that was asked for.
#[pyfunction]
#[pyo3(signature = (activation, *, fd_from_systemd, fd_names, fds, host, port, uds,
                    uds_permissions, backlog, proxy_protocol))]
#[allow(clippy::too_many_arguments, reason = "one for each option; Python passes them by name")]
pub fn open_listeners(
    py: Python<'_>,
    activation: &Activation,
    fd_from_systemd: bool,
    fd_names: Vec<String>,
    fds: Vec<i32>,
    host: Option<String>,
    port: Option<u16>,
    uds: Option<String>,
    uds_permissions: Option<u32>,
    backlog: u32,
    proxy_protocol: Vec<String>,
) -> PyResult<Listeners> {
    let options = SocketOptions {
        fd_from_systemd,
        fd_names,
        fds,
        host,
        port,
        uds,
        uds_permissions,
        backlog,
        proxy_protocol,
    };
    let passed = activation.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    let passed = passed.ok_or_else(|| PyRuntimeError::new_err("the activation is used once"))?;
    let (listeners, notices) = py
        .detach(|| listener::open(&options, passed))
        .map_err(|error| operator_error(py, &error))?;
    Ok(Listeners {
        addresses: listeners.iter().map(|listener| listener.address.to_string()).collect(),
        sockets: Mutex::new(listeners),
        files: Mutex::new(Vec::new()),
        notices: notices
            .into_iter()
            .map(|notice| (level_word(notice.level), notice.text))
            .collect(),
    })
}

fn level_word(level: Level) -> &'static str {
    match level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warning => "warning",
    }
}

/// The way to the service manager, `sd_notify(3)`. Every message is sent without waiting; a
/// manager that cannot be reached is an `OSError`.
#[pyclass(frozen, module = "granian_uring._native")]
pub struct Notifier {
    notifier: notify::Notifier,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// How often to say that all is well, and the saying of it.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    pub fn send_watchdog(&self) {
        // A full queue means that the manager has news of us already; the next ping is due soon.
        let _ = self.notifier.send(&[State::Watchdog]);
    }
}

#[pymethods]
impl Notifier {
    /// `READY=1`, with a status line.
    fn ready(&self, status: &str) -> PyResult<()> {
        Ok(self.notifier.send(&[State::Ready, State::Status(status)])?)
    }

    /// A status line.
    fn status(&self, status: &str) -> PyResult<()> {
        Ok(self.notifier.send(&[State::Status(status)])?)
    }

    /// `STOPPING=1`, with a status line, and the seconds that stopping may take.
    fn stopping(&self, status: &str, seconds: f64) -> PyResult<()> {
        let extension =
            State::ExtendTimeout(Duration::try_from_secs_f64(seconds).unwrap_or_default());
        Ok(self.notifier.send(&[State::Stopping, State::Status(status), extension])?)
    }

    /// Seconds within which the service manager wants a sign of life; `None` without a watchdog.
    #[getter]
    fn watchdog_seconds(&self) -> Option<f64> {
        self.watchdog.map(|period| period.as_secs_f64())
    }
}
