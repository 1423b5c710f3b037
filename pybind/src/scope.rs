//! The ASGI connection scope of a request, <https://asgi.readthedocs.io>, "HTTP & WebSocket".
//!
//! Most of a scope is the same for all requests of a connection: it is copied from a template that
//! has every key already, and only the values that differ are set. What a proxy tells of a request
//! in its headers is such a value; what a PROXY header told is the connection's.
//!
//! `path` has `root_path` at its front, as ASGI wants it (`SCRIPT_NAME` and `PATH_INFO` of WSGI
//! together), also where a proxy has taken that off; `raw_path` is what was received.

use std::borrow::Cow;

use granian_uring::http1::{RequestHead, Version};
use granian_uring::listener::Address;
use granian_uring::percent;
use granian_uring::proxy::{Forwarded, Scheme};
use granian_uring::server::Request;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

/// Names of headers that most requests have: their bytes objects are made once.
pub const COMMON_NAMES: [&str; 40] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "access-control-request-headers",
    "access-control-request-method",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "dnt",
    "expect",
    "forwarded",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "origin",
    "pragma",
    "priority",
    "range",
    "referer",
    "sec-ch-ua",
    "sec-ch-ua-mobile",
    "sec-ch-ua-platform",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "sec-fetch-user",
    "te",
    "transfer-encoding",
    "upgrade-insecure-requests",
    "user-agent",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-request-id",
];
/// Messages that every client can be answered with, <https://asgi.readthedocs.io>, "Extensions".
/// `http.response.trailers` is offered to clients that take trailers.
const EXTENSIONS: [&str; 3] =
    ["http.response.early_hint", "http.response.pathsend", "http.response.zerocopysend"];
pub const LONGEST_COMMON_NAME: usize = 30;

/// Makes scopes.
pub struct ScopeBuilder {
    /// Empty, or with a slash at its front and none at its end.
    prefix: String,
    root_path: Py<PyString>,
    /// The application's lifespan state; every request gets a copy.
    state: Option<Py<PyDict>>,
    asgi: Py<PyDict>,
    /// What the application may send beyond the core of ASGI.
    extensions: Py<PyDict>,
    /// By length.
    names: Vec<Vec<(&'static str, Py<PyBytes>)>>,
}

/// The template of a connection, and whose it is.
pub struct Template {
    peer: Address,
    local: Address,
    is_tls: bool,
    scope: Py<PyDict>,
}

impl Template {
    /// Whether this is the template of `request`'s connection.
    pub fn fits(&self, request: &Request) -> bool {
        self.peer == request.peer
            && self.local == request.local
            && self.is_tls == request.tls.is_some()
    }

    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        let (peer, local) = (self.peer.clone(), self.local.clone());
        Self { peer, local, is_tls: self.is_tls, scope: self.scope.clone_ref(py) }
    }
}

impl ScopeBuilder {
    pub fn new(py: Python<'_>, root_path: &str, state: Option<Py<PyDict>>) -> PyResult<Self> {
        let asgi = PyDict::new(py);
        asgi.set_item("version", "3.0")?;
        asgi.set_item("spec_version", "2.5")?;
        let extensions = PyDict::new(py);
        for name in EXTENSIONS {
            extensions.set_item(PyString::intern(py, name), PyDict::new(py))?;
        }
        let mut names = Vec::new();
        names.resize_with(LONGEST_COMMON_NAME + 1, Vec::new);
        for name in COMMON_NAMES {
            names[name.len()].push((name, PyBytes::new(py, name.as_bytes()).unbind()));
        }
        let prefix = root_path.to_owned();
        let root_path = PyString::new(py, root_path).unbind();
        let (asgi, extensions) = (asgi.unbind(), extensions.unbind());
        Ok(Self { prefix, root_path, state, asgi, extensions, names })
    }

    /// What all scopes of a connection have in common, and a place for the rest.
    pub fn template(&self, py: Python<'_>, request: &Request) -> PyResult<Template> {
        let scope = PyDict::new(py);
        scope.set_item(intern!(py, "type"), intern!(py, "http"))?;
        let is_tls = request.tls.is_some();
        let connection_scheme = if is_tls { Scheme::Https } else { Scheme::Http };
        scope.set_item(intern!(py, "scheme"), scheme(py, connection_scheme))?;
        scope.set_item(intern!(py, "root_path"), &self.root_path)?;
        scope.set_item(intern!(py, "client"), client(py, &request.peer)?)?;
        scope.set_item(intern!(py, "server"), server(py, &request.local)?)?;
        // What nearly every request has, so that most need not set it.
        scope.set_item(intern!(py, "http_version"), intern!(py, "1.1"))?;
        scope.set_item(intern!(py, "query_string"), PyBytes::new(py, b""))?;
        for key in ["asgi", "extensions", "method", "path", "raw_path", "headers"] {
            scope.set_item(PyString::intern(py, key), py.None())?;
        }
        if self.state.is_some() {
            scope.set_item(intern!(py, "state"), py.None())?;
        }
        let (peer, local) = (request.peer.clone(), request.local.clone());
        Ok(Template { peer, local, is_tls, scope: scope.unbind() })
    }

    /// The scope of this request.
    pub fn scope<'py>(
        &self,
        py: Python<'py>,
        template: &Template,
        request: &Request,
    ) -> PyResult<Bound<'py, PyDict>> {
        let head = &request.head;
        let scope = template.scope.bind(py).copy()?;
        scope.set_item(intern!(py, "asgi"), self.asgi.bind(py).copy()?)?;
        let extensions = self.extensions.bind(py).copy()?;
        if head.accepts_trailers() {
            extensions.set_item(intern!(py, "http.response.trailers"), PyDict::new(py))?;
        }
        scope.set_item(intern!(py, "extensions"), extensions)?;
        if head.version() == Version::Http10 {
            scope.set_item(intern!(py, "http_version"), intern!(py, "1.0"))?;
        }
        scope.set_item(intern!(py, "method"), method(py, head.method()))?;
        scope.set_item(intern!(py, "path"), self.path(py, request))?;
        scope.set_item(intern!(py, "raw_path"), PyBytes::new(py, head.path()))?;
        if !head.query().is_empty() {
            scope.set_item(intern!(py, "query_string"), PyBytes::new(py, head.query()))?;
        }
        scope.set_item(intern!(py, "headers"), self.headers(py, head)?)?;
        if let Some(state) = &self.state {
            scope.set_item(intern!(py, "state"), state.bind(py).copy()?)?;
        }
        if let Some(forwarded) = &request.forwarded {
            self.set_forwarded(&scope, forwarded)?;
        }
        if let Some(subprotocols) = &request.subprotocols {
            Self::set_websocket(&scope, request, subprotocols)?;
        }
        Ok(scope)
    }

    /// A WebSocket handshake, which offers `subprotocols`, in place of a request like any other.
    fn set_websocket(
        scope: &Bound<'_, PyDict>,
        request: &Request,
        subprotocols: &[String],
    ) -> PyResult<()> {
        let py = scope.py();
        scope.set_item(intern!(py, "type"), intern!(py, "websocket"))?;
        scope.del_item(intern!(py, "method"))?;
        let scheme = match request.scheme() {
            Scheme::Http => intern!(py, "ws"),
            Scheme::Https => intern!(py, "wss"),
        };
        scope.set_item(intern!(py, "scheme"), scheme)?;
        scope.set_item(intern!(py, "subprotocols"), subprotocols)?;
        let extensions = PyDict::new(py);
        extensions.set_item(intern!(py, "websocket.http.response"), PyDict::new(py))?;
        scope.set_item(intern!(py, "extensions"), extensions)
    }

    /// What a trusted proxy told, in place of what the connection has.
    fn set_forwarded(&self, scope: &Bound<'_, PyDict>, forwarded: &Forwarded) -> PyResult<()> {
        let py = scope.py();
        if let Some(peer) = &forwarded.client {
            scope.set_item(intern!(py, "client"), client(py, peer)?)?;
        }
        if let Some(told) = forwarded.scheme {
            scope.set_item(intern!(py, "scheme"), scheme(py, told))?;
        }
        if let Some(server) = &forwarded.server {
            scope.set_item(intern!(py, "server"), (&server.host, server.port))?;
        }
        if let Some(outer) = &forwarded.prefix {
            let root_path = format!("{outer}{}", self.prefix);
            scope.set_item(intern!(py, "root_path"), root_path)?;
        }
        Ok(())
    }

    /// `path`: what was asked for, below `root_path`.
    fn path<'py>(&self, py: Python<'py>, request: &Request) -> Bound<'py, PyString> {
        let received = decoded(request.head.path());
        let outer = request.forwarded.as_ref().and_then(|it| it.prefix.as_deref()).unwrap_or("");
        if (self.prefix.is_empty() && outer.is_empty()) || !received.starts_with('/') {
            return PyString::new(py, &received);
        }
        let inner = if is_below(&received, &self.prefix) { "" } else { &self.prefix };
        PyString::new(py, &[outer, inner, &received].concat())
    }

    fn headers<'py>(&self, py: Python<'py>, head: &RequestHead) -> PyResult<Bound<'py, PyList>> {
        let pairs = head
            .headers()
            .map(|(name, value)| PyTuple::new(py, [self.name(py, name), PyBytes::new(py, value)]));
        PyList::new(py, pairs.collect::<PyResult<Vec<_>>>()?)
    }

    fn name<'py>(&self, py: Python<'py>, name: &[u8]) -> Bound<'py, PyBytes> {
        let known = self
            .names
            .get(name.len())
            .and_then(|same_length| same_length.iter().find(|(known, _)| known.as_bytes() == name));
        match known {
            Some((_, object)) => object.bind(py).clone(),
            None => PyBytes::new(py, name),
        }
    }
}

/// `http` or `https`.
pub fn scheme(py: Python<'_>, scheme: Scheme) -> &Bound<'_, PyString> {
    match scheme {
        Scheme::Http => intern!(py, "http"),
        Scheme::Https => intern!(py, "https"),
    }
}

/// Whether `path` is `prefix`, or begins with its segments.
fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `client`: address and port, or nothing for a Unix socket.
fn client<'py>(py: Python<'py>, peer: &Address) -> PyResult<Option<Bound<'py, PyTuple>>> {
    match peer {
        Address::Tcp(address) => {
            (address.ip().to_string(), address.port()).into_pyobject(py).map(Some)
        }
        Address::UnixPath(_) | Address::UnixAbstract(_) | Address::UnixUnnamed => Ok(None),
    }
}

/// `server`: address and port, or the path of a Unix socket (an abstract one as `@name`) and None.
fn server<'py>(py: Python<'py>, local: &Address) -> PyResult<Option<Bound<'py, PyTuple>>> {
    let name = match local {
        Address::Tcp(address) => {
            return (address.ip().to_string(), address.port()).into_pyobject(py).map(Some);
        }
        Address::UnixPath(path) => path.to_string_lossy().into_owned(),
        Address::UnixAbstract(name) => format!("@{}", String::from_utf8_lossy(name)),
        Address::UnixUnnamed => return Ok(None),
    };
    (name, py.None()).into_pyobject(py).map(Some)
}

/// The method, as the object that all requests with it share.
pub fn method<'py>(py: Python<'py>, method: &str) -> Bound<'py, PyString> {
    match method {
        "GET" => intern!(py, "GET").clone(),
        "POST" => intern!(py, "POST").clone(),
        "PUT" => intern!(py, "PUT").clone(),
        "PATCH" => intern!(py, "PATCH").clone(),
        "DELETE" => intern!(py, "DELETE").clone(),
        "HEAD" => intern!(py, "HEAD").clone(),
        "OPTIONS" => intern!(py, "OPTIONS").clone(),
        other => PyString::new(py, other),
    }
}

/// Percent-decoded, then UTF-8; what is neither is replaced, as `urllib.parse.unquote` does.
pub fn decoded(raw: &[u8]) -> Cow<'_, str> {
    if raw.contains(&b'%') {
        Cow::Owned(String::from_utf8_lossy(&percent::decoded(raw)).into_owned())
    } else {
        String::from_utf8_lossy(raw)
    }
}
