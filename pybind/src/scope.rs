//! The ASGI connection scope of a request, <https://asgi.readthedocs.io>, "HTTP & WebSocket".
//!
//! Most of a scope is the same for all requests of a connection: it is copied from a template that
//! has every key already, and only the values that differ are set.

use granian_uring::http1::{RequestHead, Version};
use granian_uring::listener::Address;
use granian_uring::percent;
use granian_uring::server::Request;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

/// Names of headers that most requests have: their bytes objects are made once.
const COMMON_NAMES: [&str; 40] = [
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
const LONGEST_COMMON_NAME: usize = 30;

/// Makes scopes.
pub struct ScopeBuilder {
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
    scope: Py<PyDict>,
}

impl Template {
    /// Whether this is the template of `request`'s connection.
    pub fn fits(&self, request: &Request) -> bool {
        self.peer == request.peer && self.local == request.local
    }

    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        Self { peer: self.peer.clone(), local: self.local.clone(), scope: self.scope.clone_ref(py) }
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
        let root_path = PyString::new(py, root_path).unbind();
        Ok(Self { root_path, state, asgi: asgi.unbind(), extensions: extensions.unbind(), names })
    }

    /// What all scopes of a connection have in common, and a place for the rest.
    pub fn template(&self, py: Python<'_>, request: &Request) -> PyResult<Template> {
        let scope = PyDict::new(py);
        scope.set_item(intern!(py, "type"), intern!(py, "http"))?;
        scope.set_item(intern!(py, "scheme"), intern!(py, "http"))?;
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
        Ok(Template { peer, local, scope: scope.unbind() })
    }

    /// The scope of a request with this head.
    pub fn scope<'py>(
        &self,
        py: Python<'py>,
        template: &Template,
        head: &RequestHead,
    ) -> PyResult<Bound<'py, PyDict>> {
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
        scope.set_item(intern!(py, "path"), path(py, head.path()))?;
        scope.set_item(intern!(py, "raw_path"), PyBytes::new(py, head.path()))?;
        if !head.query().is_empty() {
            scope.set_item(intern!(py, "query_string"), PyBytes::new(py, head.query()))?;
        }
        scope.set_item(intern!(py, "headers"), self.headers(py, head)?)?;
        if let Some(state) = &self.state {
            scope.set_item(intern!(py, "state"), state.bind(py).copy()?)?;
        }
        Ok(scope)
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

fn method<'py>(py: Python<'py>, method: &str) -> Bound<'py, PyString> {
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

/// `path`: percent-decoded, then UTF-8; what is neither is replaced, as `urllib.parse.unquote` does.
fn path<'py>(py: Python<'py>, raw: &[u8]) -> Bound<'py, PyString> {
    if raw.contains(&b'%') {
        PyString::new(py, &String::from_utf8_lossy(&percent::decoded(raw)))
    } else {
        PyString::new(py, &String::from_utf8_lossy(raw))
    }
}
