//! The options of `granian_uring.config` that the core reads, by their native names.

use granian_uring::config::Config;
use granian_uring::proxy::{self, Format, TrustError, Trusted};
use pyo3::prelude::*;

/// The keyword arguments of `Worker`: see `Worker.__new__` in the stub file.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
#[allow(clippy::struct_excessive_bools, reason = "one for each switch")]
pub struct WorkerOptions {
    backpressure: usize,
    max_connections: usize,
    default_headers: bool,
    report_refusals: bool,
    proxy_headers: bool,
    proxy_headers_format: String,
    proxy_trusted: Vec<String>,
    proxy_rewrite_host: bool,
    proxy_prefix: bool,
    proxy_strip_untrusted: bool,
}

impl WorkerOptions {
    pub fn into_config(self) -> Result<Config, TrustError> {
        let defaults = Config::default();
        let proxy = proxy::Options {
            trusted: Trusted::parse(&self.proxy_trusted)?,
            headers: self.proxy_headers.then_some(match self.proxy_headers_format.as_str() {
                "forwarded" => Format::Forwarded,
                _ => Format::XForwarded,
            }),
            rewrite_host: self.proxy_rewrite_host,
            prefix: self.proxy_prefix,
            strip_untrusted: self.proxy_strip_untrusted,
        };
        Ok(Config {
            proxy,
            backpressure: self.backpressure,
            max_connections: self.max_connections,
            date_header: self.default_headers,
            server_header: defaults.server_header.filter(|_| self.default_headers),
            report_refusals: self.report_refusals,
            ..defaults
        })
    }
}
