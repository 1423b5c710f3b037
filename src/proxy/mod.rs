//! Behind a proxy: who really asked, for which server, and by which scheme.
//!
//! A proxy tells it in one of two ways. The PROXY protocol is a header before the first byte of a
//! connection ([`protocol`]), and gives the connection other ends; `X-Forwarded-*` and `Forwarded`
//! are headers of each request ([`Forwarded`]). Both are believed only if they come from a peer
//! that the operator trusts ([`Trusted`]): whoever else sends them has made them up.
//!
//! | file | what |
//! |---|---|
//! | `trust` | addresses, networks and Unix sockets of trusted peers |
//! | `forwarded` | what a trusted peer's headers say of one request |
//! | `protocol` | PROXY protocol, versions 1 and 2 |
//!
//! Bytes in, addresses out: there is no socket, clock or thread here, and nothing is logged. The
//! server asks once for each connection and once for each request.

#![forbid(unsafe_code)]

mod forwarded;
pub mod protocol;
mod trust;

use std::fmt;

pub use forwarded::{Format, Forwarded, Options, Server};
pub use protocol::Refusal;
pub use trust::{TrustError, Trusted};

/// How the client speaks to the outermost proxy, or to us: the `scheme` of ASGI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    /// The port that a URL of this scheme means without naming one, RFC 9110 §4.2.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

/// What is known of the TLS between a client and the proxy that ended it. Visible ASCII.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsInfo {
    /// As OpenSSL writes it: `TLSv1.3`.
    pub version: Option<String>,
    /// As OpenSSL writes it: `TLS_AES_128_GCM_SHA256`.
    pub cipher: Option<String>,
}
