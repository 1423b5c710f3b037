//! `granian_uring._native`: the core as Python sees it.
//!
//! The path of a request: `selector` (a turn of the server inside asyncio's `select`; on loops that
//! wait elsewhere `guest`) ->
//! `worker` (dispatch, in asyncio's ready phase) -> `scope` or `rsgi::scope` -> the application ->
//! `asgi`, `websocket` or `rsgi` (what it calls) -> `exchange` -> the server's output. `sockets` is what happens
//! before all that.
//!
//! Everything exported is listed here, and described in `granian_uring/_native.pyi`.

#![allow(unreachable_pub, reason = "a cdylib exports nothing to Rust; `pub` means its modules")]

mod access_log;
mod asgi;
mod awaitable;
mod callbacks;
mod config;
mod direct;
mod errors;
mod exchange;
mod files;
mod guest;
mod ready_files;
mod rsgi;
mod runtime;
mod scope;
mod selector;
mod sockets;
mod thread_bound;
mod waker;
mod websocket;
mod worker;
mod wsgi;

use pyo3::prelude::*;

/// The compiled part of granian-uring.
#[pymodule]
mod _native {
    /// The version of the package: what its metadata has, without the time to look there.
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_export]
    use super::access_log::{AccessLines, AccessLog};
    #[pymodule_export]
    use super::asgi::AsgiExchange;
    #[pymodule_export]
    use super::callbacks::{Callbacks, Handle};
    #[pymodule_export]
    use super::config::Trusted;
    #[pymodule_export]
    use super::direct::Direct;
    #[pymodule_export]
    use super::exchange::Exchange;
    #[pymodule_export]
    use super::ready_files::ReadyFiles;
    #[pymodule_export]
    use super::rsgi::{FileResponse, Headers, HttpProtocol, Scope, StreamTransport};
    #[pymodule_export]
    use super::rsgi::{WebsocketMessage, WebsocketProtocol, WebsocketTransport};
    #[pymodule_export]
    use super::runtime::RuntimeChoice;
    #[pymodule_export]
    use super::sockets::{Activation, Listeners, Notifier, open_listeners};
    #[pymodule_export]
    use super::sockets::{take_activation, take_notifier};
    #[pymodule_export]
    use super::waker::Waker;
    #[pymodule_export]
    use super::websocket::AsgiWebSocket;
    #[pymodule_export]
    use super::worker::Worker;
    #[pymodule_export]
    use super::wsgi::{Input, StartResponse};
}
