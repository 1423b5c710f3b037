//! Errors of the core as Python exceptions, each mapped once.

use std::fmt::Display;
use std::io;

use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError, PySystemExit};
use pyo3::prelude::*;
use pyo3::types::PyType;

use granian_uring::server::SendError;

/// What an operator can repair, as `granian_uring.errors.OperatorError`: the core writes such an
/// error as a message, an empty line, and a hint.
pub fn operator_error(py: Python<'_>, error: &impl Display) -> PyErr {
    let text = error.to_string();
    let (message, hint) = text.split_once("\n\nhint: ").unwrap_or((&text, ""));
    match exception_type(py, "granian_uring.errors", "OperatorError") {
        Ok(class) => match class.call1((message, hint)) {
            Ok(instance) => PyErr::from_value(instance),
            Err(error) => error,
        },
        Err(error) => error,
    }
}

/// Whether whoever raised it wants the process to end: it is passed on, not reported.
pub fn is_wish(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PySystemExit>(py) || error.is_instance_of::<PyKeyboardInterrupt>(py)
}

/// Why ASGI's `send` failed. A peer that is gone is an `OSError`, as ASGI 2.4 wants.
pub fn asgi_refusal(py: Python<'_>, error: SendError) -> PyErr {
    match error {
        SendError::Gone => match exception_type(py, "granian_uring.errors", "ClientDisconnected") {
            Ok(class) => PyErr::from_type(class, (libc::EPIPE, "the client has disconnected")),
            Err(error) => error,
        },
        SendError::Response(error) => PyRuntimeError::new_err(error.to_string()),
        SendError::Accept(error) => PyRuntimeError::new_err(error.to_string()),
        SendError::Message(error) => PyRuntimeError::new_err(error.to_string()),
    }
}

/// Why an RSGI answer was not taken.
pub fn rsgi_refusal(py: Python<'_>, error: SendError) -> PyErr {
    match error {
        SendError::Gone => protocol_closed(py),
        SendError::Response(error) => protocol_error(py, &error),
        SendError::Accept(error) => protocol_error(py, &error),
        SendError::Message(error) => protocol_error(py, &error),
    }
}

/// RSGI's `ProtocolError`: the application breaks the protocol.
pub fn protocol_error(py: Python<'_>, error: &impl Display) -> PyErr {
    match exception_type(py, "granian_uring.errors", "ProtocolError") {
        Ok(class) => PyErr::from_type(class, (error.to_string(),)),
        Err(error) => error,
    }
}

/// RSGI's `ProtocolClosed`: there is nobody to read from or to send to.
pub fn protocol_closed(py: Python<'_>) -> PyErr {
    match exception_type(py, "granian_uring.errors", "ProtocolClosed") {
        Ok(class) => {
            PyErr::from_type(class, ("the client has disconnected, or its request is over",))
        }
        Err(error) => error,
    }
}

fn exception_type<'py>(py: Python<'py>, module: &str, name: &str) -> PyResult<Bound<'py, PyType>> {
    Ok(py.import(module)?.getattr(name)?.cast_into::<PyType>()?)
}

/// The arguments of the `OSError` that Python itself would raise, whose class follows from the number.
pub fn os_error_arguments(number: i32) -> (i32, String) {
    let text = io::Error::from_raw_os_error(number).to_string();
    (number, text.split(" (os error").next().unwrap_or_default().to_owned())
}
