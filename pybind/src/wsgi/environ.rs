//! The environ of a request, PEP 3333 "environ Variables".
//!
//! Most of it is the same for all requests of a connection: it is copied from a template that has
//! every key already, and only the values that differ are set. A header whose name has an
//! underscore is dropped: its variable would be that of another header.

#![allow(unsafe_code, reason = "pyo3 has no safe way from Latin-1 to a str")]

use std::sync::{Mutex, PoisonError};

use granian_uring::http1::{RequestHead, Version};
use granian_uring::listener::Address;
use granian_uring::percent;
use granian_uring::proxy::{Forwarded, Scheme};
use granian_uring::server::{Request, RequestId};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use pyo3::{ffi, intern};

use super::input::Input;
use crate::scope::{COMMON_NAMES, LONGEST_COMMON_NAME, method, scheme};

/// What a Unix socket has in the place of a host and a port, which may not be empty.
const UNIX_SERVER: (&str, &str) = ("localhost", "80");

/// Makes environs.
pub struct Environs {
    /// What all requests have in common.
    base: Py<PyDict>,
    /// `SCRIPT_NAME` in bytes.
    prefix: Vec<u8>,
    /// The variables of common headers, by the length of the header's name.
    variables: Vec<Vec<(&'static str, Py<PyString>)>>,
    /// By stream.
    templates: Mutex<Vec<Option<Template>>>,
}

struct Template {
    peer: Address,
    local: Address,
    is_tls: bool,
    environ: Py<PyDict>,
}

impl Environs {
    pub fn new(py: Python<'_>, base: Py<PyDict>) -> PyResult<Self> {
        let mut variables = Vec::new();
        variables.resize_with(LONGEST_COMMON_NAME + 1, Vec::new);
        for name in COMMON_NAMES {
            let variable = PyString::intern(py, &variable(name.as_bytes()));
            variables[name.len()].push((name, variable.unbind()));
        }
        let prefix = base.bind(py).as_any().get_item(intern!(py, "SCRIPT_NAME"))?;
        let prefix = prefix.extract::<String>()?.chars().flat_map(u8::try_from).collect();
        Ok(Self { base, prefix, variables, templates: Mutex::default() })
    }

    /// The environ of `request`, which reads its body from `input` if it has one.
    pub fn environ<'py>(
        &self,
        py: Python<'py>,
        request: &Request,
        id: RequestId,
        input: Option<Py<Input>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let environ = self.template(py, request, id.stream().index())?.into_bound(py).copy()?;
        let head = &request.head;
        if head.version() == Version::Http10 {
            environ.set_item(intern!(py, "SERVER_PROTOCOL"), intern!(py, "HTTP/1.0"))?;
        }
        environ.set_item(intern!(py, "REQUEST_METHOD"), method(py, head.method()))?;
        environ.set_item(intern!(py, "PATH_INFO"), self.path_info(py, head.path())?)?;
        if !head.query().is_empty() {
            environ.set_item(intern!(py, "QUERY_STRING"), latin1(py, head.query())?)?;
        }
        let target = latin1(py, head.target())?;
        environ.set_item(intern!(py, "RAW_URI"), &target)?;
        environ.set_item(intern!(py, "REQUEST_URI"), target)?;
        if let Some(input) = input {
            environ.set_item(intern!(py, "wsgi.input"), input)?;
        }
        self.add_headers(py, &environ, head)?;
        if let Some(forwarded) = &request.forwarded {
            self.set_forwarded(&environ, forwarded)?;
        }
        Ok(environ)
    }

    /// What a trusted proxy told, in place of what the connection has.
    fn set_forwarded(&self, environ: &Bound<'_, PyDict>, forwarded: &Forwarded) -> PyResult<()> {
        let py = environ.py();
        if let Some(peer) = &forwarded.client {
            set_client(environ, peer)?;
        }
        if let Some(told) = forwarded.scheme {
            environ.set_item(intern!(py, "wsgi.url_scheme"), scheme(py, told))?;
        }
        if let Some(server) = &forwarded.server {
            environ.set_item(intern!(py, "SERVER_NAME"), &server.host)?;
            environ.set_item(intern!(py, "SERVER_PORT"), server.port.to_string())?;
        }
        if let Some(outer) = &forwarded.prefix {
            let script_name = [outer.as_bytes(), &self.prefix].concat();
            environ.set_item(intern!(py, "SCRIPT_NAME"), latin1(py, &script_name)?)?;
        }
        Ok(())
    }

    fn add_headers(
        &self,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
        head: &RequestHead,
    ) -> PyResult<()> {
        for (name, value) in head.headers() {
            let known = self.variables.get(name.len()).and_then(|same_length| {
                same_length.iter().find(|(known, _)| known.as_bytes() == name)
            });
            let key = match known {
                Some((_, variable)) => variable.bind(py).clone(),
                None if name.contains(&b'_') => continue,
                None => PyString::new(py, &variable(name)),
            };
            let value = latin1(py, value)?;
            if environ.contains(&key)? {
                // RFC 9110 §5.3, and for cookies RFC 6265 §5.4.
                let first = environ.as_any().get_item(&key)?;
                let between = if name == b"cookie" { "; " } else { "," };
                environ.set_item(key, format!("{first}{between}{value}"))?;
            } else {
                environ.set_item(key, value)?;
            }
        }
        Ok(())
    }

    fn path_info<'py>(&self, py: Python<'py>, raw: &[u8]) -> PyResult<Bound<'py, PyString>> {
        let decoded;
        let path = if raw.contains(&b'%') {
            decoded = percent::decoded(raw);
            &decoded[..]
        } else {
            raw
        };
        // A proxy may have taken the prefix off already.
        let path = match path.strip_prefix(&self.prefix[..]) {
            Some(rest) if matches!(rest.first(), None | Some(b'/')) => rest,
            _ if path == b"*" => b"",
            _ => path,
        };
        latin1(py, path)
    }

    fn template(&self, py: Python<'_>, request: &Request, stream: usize) -> PyResult<Py<PyDict>> {
        {
            let templates = self.templates.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(Some(template)) = templates.get(stream)
                && template.peer == request.peer
                && template.local == request.local
                && template.is_tls == request.tls.is_some()
            {
                return Ok(template.environ.clone_ref(py));
            }
        }
        let environ = self.new_template(py, request)?;
        let template = Template {
            peer: request.peer.clone(),
            local: request.local.clone(),
            is_tls: request.tls.is_some(),
            environ: environ.clone_ref(py),
        };
        let mut templates = self.templates.lock().unwrap_or_else(PoisonError::into_inner);
        if templates.len() <= stream {
            templates.resize_with(stream + 1, || None);
        }
        let before = templates[stream].replace(template);
        drop(templates);
        // Its dict goes here, where the lock is free again.
        drop(before);
        Ok(environ)
    }

    fn new_template(&self, py: Python<'_>, request: &Request) -> PyResult<Py<PyDict>> {
        let environ = self.base.bind(py).copy()?;
        set_client(&environ, &request.peer)?;
        if request.tls.is_some() {
            environ.set_item(intern!(py, "wsgi.url_scheme"), scheme(py, Scheme::Https))?;
        }
        let (name, port) = match &request.local {
            Address::Tcp(address) => (address.ip().to_string(), address.port().to_string()),
            _ => (UNIX_SERVER.0.to_owned(), UNIX_SERVER.1.to_owned()),
        };
        environ.set_item(intern!(py, "SERVER_NAME"), name)?;
        environ.set_item(intern!(py, "SERVER_PORT"), port)?;
        // What nearly every request has, so that most need not set it.
        environ.set_item(intern!(py, "SERVER_PROTOCOL"), intern!(py, "HTTP/1.1"))?;
        environ.set_item(intern!(py, "QUERY_STRING"), "")?;
        for key in ["REQUEST_METHOD", "PATH_INFO", "RAW_URI", "REQUEST_URI"] {
            environ.set_item(PyString::intern(py, key), py.None())?;
        }
        Ok(environ.unbind())
    }
}

/// Who asks. A Unix socket has no address, and applications expect one to be there.
fn set_client(environ: &Bound<'_, PyDict>, peer: &Address) -> PyResult<()> {
    let py = environ.py();
    let (address, port) = match peer {
        Address::Tcp(address) => (address.ip().to_string(), address.port().to_string()),
        _ => (String::new(), String::new()),
    };
    environ.set_item(intern!(py, "REMOTE_ADDR"), address)?;
    environ.set_item(intern!(py, "REMOTE_PORT"), port)
}

/// The variable of a header: `HTTP_` and its name, but for the two that CGI names otherwise.
fn variable(name: &[u8]) -> String {
    match name {
        b"content-type" => "CONTENT_TYPE".to_owned(),
        b"content-length" => "CONTENT_LENGTH".to_owned(),
        _ => {
            let upper = name.iter().map(|byte| match byte {
                b'-' => '_',
                other => char::from(other.to_ascii_uppercase()),
            });
            "HTTP_".chars().chain(upper).collect()
        }
    }
}

/// Bytes as PEP 3333 wants them in a `str`: each a character of the same number.
pub fn latin1<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    let length = ffi::Py_ssize_t::try_from(bytes.len())?;
    // SAFETY: pointer and length are those of `bytes`, which is copied; the result is a new
    // reference to a str, or null with an exception set.
    unsafe {
        let string = ffi::PyUnicode_DecodeLatin1(bytes.as_ptr().cast(), length, std::ptr::null());
        Ok(Bound::from_owned_ptr_or_err(py, string)?.cast_into_unchecked())
    }
}
