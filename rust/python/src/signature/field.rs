//! One field as Python sees it.

use std::sync::Arc;

use dspex_core::signature::{self as core, FieldKind};
use pyo3::prelude::*;

use super::Compiled;

/// A field of a signature.
#[pyclass(frozen, module = "dspex._core")]
pub(crate) struct Field {
    compiled: Arc<Compiled>,
    index: usize,
}

impl Field {
    pub(crate) fn new(compiled: Arc<Compiled>, index: usize) -> Self {
        Self { compiled, index }
    }

    fn core(&self) -> &core::Field {
        &self.compiled.core.fields()[self.index]
    }
}

#[pymethods]
impl Field {
    /// The name, a Python identifier.
    #[getter]
    pub(crate) fn name(&self) -> &str {
        &self.core().name
    }

    /// `"input"` or `"output"`.
    #[getter]
    fn kind(&self) -> &'static str {
        match self.core().kind {
            FieldKind::Input => "input",
            FieldKind::Output => "output",
        }
    }

    /// The type, as an annotation.
    #[getter]
    fn annotation<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.compiled.annotation(py, self.index)
    }

    /// The description; `${name}` where none was given.
    #[getter]
    fn desc(&self) -> String {
        self.core().desc().into_owned()
    }

    /// The prefix that saved state keeps; made from the name where none was given.
    #[getter]
    fn prefix(&self) -> String {
        self.core().prefix().into_owned()
    }

    /// The constraints in words, or None.
    #[getter]
    fn constraints(&self) -> Option<&str> {
        self.core().constraints.as_deref()
    }

    /// Whether a type was written.
    #[getter]
    fn typed(&self) -> bool {
        self.core().typed
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let annotation = self.annotation(py)?.repr()?.to_string();
        Ok(format!(
            "<{} field {}: {annotation}>",
            self.kind(),
            self.name()
        ))
    }
}
