//! The options of `granian_uring.config` that the core reads, by their native names.

use std::time::Duration;

use granian_uring::config::{Config, Overload, Timeouts, WebSocket};
use granian_uring::http1::Limits;
use granian_uring::proxy::{self, Format};
use granian_uring::websocket::{Deflate, Settings};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors::operator_error;

/// See the stub file.
#[pyclass(frozen, module = "granian_uring._native")]
pub struct Trusted(proxy::Trusted);

#[pymethods]
impl Trusted {
    #[new]
    #[allow(clippy::needless_pass_by_value, reason = "what comes from Python is made for the call")]
    fn new(py: Python<'_>, peers: Vec<String>) -> PyResult<Self> {
        proxy::Trusted::parse(&peers).map(Self).map_err(|error| operator_error(py, &error))
    }
}

/// The keyword arguments of `Worker`: see `Worker.__new__` in the stub file.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
#[allow(clippy::struct_excessive_bools, reason = "one for each switch")]
pub struct WorkerOptions {
    backpressure: usize,
    max_connections: usize,
    default_headers: bool,
    #[pyo3(from_py_with = overload)]
    overload: Overload,
    #[pyo3(from_py_with = maybe_seconds)]
    request_timeout: Option<Duration>,
    max_body_size: Option<u64>,
    http1_keep_alive: bool,
    http1_pipeline_depth: usize,
    http1_buffer_size: usize,
    http1_max_headers: usize,
    http1_max_target_size: usize,
    http1_max_trailer_size: usize,
    #[pyo3(from_py_with = seconds)]
    http1_first_byte_timeout: Duration,
    http1_header_read_timeout: u64,
    #[pyo3(from_py_with = seconds)]
    http1_keep_alive_timeout: Duration,
    #[pyo3(from_py_with = seconds)]
    http1_body_timeout: Duration,
    http1_body_min_rate: u32,
    #[pyo3(from_py_with = seconds)]
    http1_write_timeout: Duration,
    #[pyo3(from_py_with = seconds)]
    http1_linger_timeout: Duration,
    request_id_header: Option<String>,
    report_refusals: bool,
    ws: bool,
    ws_max_size: usize,
    #[pyo3(from_py_with = positive_seconds)]
    ws_ping_interval: Option<Duration>,
    #[pyo3(from_py_with = positive_seconds)]
    ws_ping_timeout: Option<Duration>,
    #[pyo3(from_py_with = deflate)]
    ws_per_message_deflate: Deflate,
    proxy_headers: bool,
    proxy_headers_format: String,
    proxy_trusted: Py<Trusted>,
    proxy_rewrite_host: bool,
    proxy_prefix: bool,
    proxy_strip_untrusted: bool,
}

impl WorkerOptions {
    pub fn into_config(self) -> Config {
        Config {
            proxy: self.proxy(),
            backpressure: self.backpressure,
            overload: self.overload,
            max_connections: self.max_connections,
            keep_alive: self.http1_keep_alive,
            pipeline_depth: self.http1_pipeline_depth,
            limits: self.limits(),
            timeouts: self.timeouts(),
            websocket: self.websocket(),
            date_header: self.default_headers,
            server_header: Config::default().server_header.filter(|_| self.default_headers),
            request_id_header: self.request_id_header,
            report_refusals: self.report_refusals,
        }
    }

    fn proxy(&self) -> proxy::Options {
        proxy::Options {
            trusted: self.proxy_trusted.get().0.clone(),
            headers: self.proxy_headers.then_some(match self.proxy_headers_format.as_str() {
                "forwarded" => Format::Forwarded,
                _ => Format::XForwarded,
            }),
            rewrite_host: self.proxy_rewrite_host,
            prefix: self.proxy_prefix,
            strip_untrusted: self.proxy_strip_untrusted,
        }
    }

    fn websocket(&self) -> Option<WebSocket> {
        self.ws.then_some(WebSocket {
            settings: Settings {
                max_message_bytes: self.ws_max_size,
                deflate: self.ws_per_message_deflate,
            },
            ping_interval: self.ws_ping_interval,
            ping_timeout: self.ws_ping_timeout,
        })
    }

    fn limits(&self) -> Limits {
        Limits {
            head_bytes: self.http1_buffer_size,
            header_count: self.http1_max_headers,
            target_bytes: self.http1_max_target_size,
            trailer_bytes: self.http1_max_trailer_size,
            body_bytes: self.max_body_size,
            ..Limits::default()
        }
    }

    fn timeouts(&self) -> Timeouts {
        Timeouts {
            first_byte: self.http1_first_byte_timeout,
            head: Duration::from_millis(self.http1_header_read_timeout),
            keep_alive: self.http1_keep_alive_timeout,
            body: self.http1_body_timeout,
            body_min_rate: self.http1_body_min_rate,
            request: self.request_timeout,
            write: self.http1_write_timeout,
            linger: self.http1_linger_timeout,
            ..Timeouts::default()
        }
    }
}

fn overload(value: &Bound<'_, PyAny>) -> PyResult<Overload> {
    match value.extract()? {
        "wait" => Ok(Overload::Wait),
        "refuse" => Ok(Overload::Refuse),
        other => Err(PyValueError::new_err(format!("expected wait or refuse, found {other:?}"))),
    }
}

fn deflate(value: &Bound<'_, PyAny>) -> PyResult<Deflate> {
    match value.extract()? {
        "off" => Ok(Deflate::Off),
        "on" => Ok(Deflate::EachMessage),
        "context" => Ok(Deflate::Context),
        other => {
            Err(PyValueError::new_err(format!("expected off, on or context, found {other:?}")))
        }
    }
}

fn seconds(value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value.extract()?)
        .map_err(|error| PyValueError::new_err(error.to_string()))
}

fn maybe_seconds(value: &Bound<'_, PyAny>) -> PyResult<Option<Duration>> {
    if value.is_none() { Ok(None) } else { seconds(value).map(Some) }
}

/// 0 is none.
fn positive_seconds(value: &Bound<'_, PyAny>) -> PyResult<Option<Duration>> {
    seconds(value).map(|seconds| Some(seconds).filter(|it| !it.is_zero()))
}
