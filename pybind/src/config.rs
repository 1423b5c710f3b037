//! The options of `granian_uring.config` that the core reads, by their native names.

use granian_uring::config::Config;
use pyo3::prelude::*;

/// The keyword arguments of `Worker`: see `Worker.__new__` in the stub file.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct WorkerOptions {
    backpressure: usize,
    max_connections: usize,
    default_headers: bool,
    request_id_header: Option<String>,
    report_refusals: bool,
}

impl WorkerOptions {
    pub fn into_config(self) -> Config {
        let defaults = Config::default();
        Config {
            backpressure: self.backpressure,
            max_connections: self.max_connections,
            date_header: self.default_headers,
            server_header: defaults.server_header.filter(|_| self.default_headers),
            request_id_header: self.request_id_header,
            report_refusals: self.report_refusals,
            ..defaults
        }
    }
}
