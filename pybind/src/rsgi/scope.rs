//! The scope of a request: what was asked, and by whom.
//!
//! Header values are bytes on the wire: what is not ASCII is read as Latin-1, as WSGI does.

use granian_uring::http1::{RequestHead, Version};
use granian_uring::listener::Address;
use granian_uring::proxy::Scheme;
use granian_uring::server::Request;
use pyo3::exceptions::PyKeyError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyList, PyString};

use crate::scope::{decoded, method};

/// See the stub file.
#[pyclass(frozen, name = "RSGIScope", module = "granian_uring._native")]
pub struct Scope {
    request: Request,
}

impl Scope {
    pub fn new(request: Request) -> Self {
        Self { request }
    }

    fn head(&self) -> &RequestHead {
        &self.request.head
    }
}

#[pymethods]
impl Scope {
    #[getter]
    fn proto<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        let is_websocket = self.request.subprotocols.is_some();
        if is_websocket { intern!(py, "ws").clone() } else { intern!(py, "http").clone() }
    }

    #[getter]
    #[allow(clippy::unused_self, reason = "an attribute of the scope, whatever the request")]
    fn rsgi_version<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        intern!(py, "1.6").clone()
    }

    #[getter]
    fn http_version<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        match self.head().version() {
            Version::Http10 => intern!(py, "1").clone(),
            Version::Http11 => intern!(py, "1.1").clone(),
        }
    }

    #[getter]
    fn server(&self) -> String {
        let told = self.request.forwarded.as_ref().and_then(|it| it.server.as_ref());
        match told {
            Some(server) if server.host.contains(':') => {
                format!("[{}]:{}", server.host, server.port)
            }
            Some(server) => format!("{}:{}", server.host, server.port),
            None => written(&self.request.local),
        }
    }

    #[getter]
    fn client(&self) -> String {
        written(self.request.client())
    }

    #[getter]
    fn scheme<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        match self.request.scheme() {
            Scheme::Http => intern!(py, "http").clone(),
            Scheme::Https => intern!(py, "https").clone(),
        }
    }

    #[getter]
    fn method<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        method(py, self.head().method())
    }

    #[getter]
    fn path<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        PyString::new(py, &decoded(self.head().path()))
    }

    #[getter]
    fn query_string<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        text(py, self.head().query())
    }

    /// A pseudo-header of HTTP/2: there is none before that.
    #[getter]
    #[allow(clippy::unused_self, reason = "an attribute of the scope, whatever the request")]
    fn authority(&self) -> Option<String> {
        None
    }

    #[getter]
    fn headers(slf: Py<Self>) -> Headers {
        Headers { scope: slf }
    }
}

/// The headers of a request, as a mapping from names, in whatever case, to the first value of each.
#[pyclass(frozen, mapping, name = "RSGIHeaders", module = "granian_uring._native")]
pub struct Headers {
    scope: Py<Scope>,
}

impl Headers {
    fn pairs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.scope.get().head().headers()
    }

    /// Values of the lines with this name, in their order.
    fn values_of(&self, key: &str) -> impl Iterator<Item = &[u8]> {
        let named = move |(name, value): (_, _)| -> Option<&[u8]> {
            <[u8]>::eq_ignore_ascii_case(name, key.as_bytes()).then_some(value)
        };
        self.pairs().filter_map(named)
    }

    /// Each name once, in the order of the first lines.
    fn names(&self) -> Vec<&[u8]> {
        let mut names = Vec::new();
        for (name, _) in self.pairs() {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

#[pymethods]
impl Headers {
    fn keys<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyString>> {
        self.names().into_iter().map(|name| text(py, name)).collect()
    }

    fn values<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyString>> {
        self.pairs().map(|(_, value)| text(py, value)).collect()
    }

    #[allow(clippy::type_complexity, reason = "a list of pairs")]
    fn items<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyString>, Bound<'py, PyString>)> {
        self.pairs().map(|(name, value)| (text(py, name), text(py, value))).collect()
    }

    #[pyo3(signature = (key, default=None))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        key: &str,
        default: Option<Bound<'py, PyAny>>,
    ) -> Option<Bound<'py, PyAny>> {
        self.values_of(key).next().map(|value| text(py, value).into_any()).or(default)
    }

    fn get_all<'py>(&self, py: Python<'py>, key: &str) -> Vec<Bound<'py, PyString>> {
        self.values_of(key).map(|value| text(py, value)).collect()
    }

    fn __getitem__<'py>(&self, py: Python<'py>, key: &str) -> PyResult<Bound<'py, PyString>> {
        let first = self.values_of(key).next();
        first.map(|value| text(py, value)).ok_or_else(|| PyKeyError::new_err(key.to_owned()))
    }

    fn __contains__(&self, key: &str) -> bool {
        self.values_of(key).next().is_some()
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        PyList::new(py, self.keys(py))?.try_iter()
    }

    fn __len__(&self) -> usize {
        self.names().len()
    }
}

/// `{address}:{port}`, or the path of a Unix socket; the end of one that has no name is empty.
fn written(address: &Address) -> String {
    match address {
        Address::Tcp(address) => address.to_string(),
        Address::UnixPath(path) => path.to_string_lossy().into_owned(),
        Address::UnixAbstract(name) => format!("@{}", String::from_utf8_lossy(name)),
        Address::UnixUnnamed => String::new(),
    }
}

/// Bytes of a head: ASCII nearly always, else Latin-1.
fn text<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyString> {
    match str::from_utf8(bytes) {
        Ok(text) if text.is_ascii() => PyString::new(py, text),
        _ => PyString::new(py, &bytes.iter().map(|&byte| char::from(byte)).collect::<String>()),
    }
}
