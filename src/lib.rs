//! The core of granian-uring: a server for Linux on `io_uring` that knows no Python.
//!
//! The path of a request: [`listener`] -> [`proactor`] -> [`server`] -> [`http1`] -> the
//! application, and back the same way. `docs/architecture.md` has the picture.

pub mod access_log;
pub mod activation;
pub mod config;
pub mod http1;
pub mod listener;
pub mod notify;
pub mod percent;
pub mod proactor;
pub mod proxy;
pub mod server;
pub mod websocket;
