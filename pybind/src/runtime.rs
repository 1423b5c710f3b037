//! The runtime that an operator asks for.

use granian_uring::proactor::runtime::{Choice, Refusal, Runtime};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors::operator_error;

/// See the stub file.
#[pyclass(frozen, module = "granian_uring._native")]
pub struct RuntimeChoice(Choice);

#[pymethods]
impl RuntimeChoice {
    #[new]
    fn new(py: Python<'_>, word: &str) -> PyResult<Self> {
        let wish = word.parse().map_err(PyValueError::new_err::<String>)?;
        Choice::new(wish).map(Self).map_err(|refusal| operator_error(py, &refusal))
    }
}

impl RuntimeChoice {
    /// The runtime, for the calling thread, and what there is to log about it: `(level, text)`.
    pub fn open(&self, py: Python<'_>) -> PyResult<(Runtime, Vec<(&'static str, String)>)> {
        let (runtime, refusal) = self.0.open().map_err(|error| operator_error(py, &error))?;
        let notices = refusal.iter().map(|refusal| ("warning", fallback(&runtime, refusal)));
        let notices = notices.collect();
        Ok((runtime, notices))
    }
}

fn fallback(runtime: &Runtime, refusal: &Refusal) -> String {
    let Refusal { problem, hint } = refusal;
    format!("serving on {}, without io_uring: {problem}; hint: {hint}", runtime.kind().name())
}
