//! `_core.Dialect`: the core's table of what differs between DSPy's versions, for the Python side.

use dspex_core::dialect::Dialect as CoreDialect;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// One version of DSPy, as far as it differs from the others.
#[pyclass(frozen, eq, module = "dspex._core")]
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Dialect(pub(crate) &'static CoreDialect);

#[pymethods]
#[allow(clippy::trivially_copy_pass_by_ref)] // Python gives references only
impl Dialect {
    #[new]
    fn new(name: &str) -> PyResult<Self> {
        named(Some(name)).map(Self)
    }

    #[getter]
    fn name(&self) -> &'static str {
        self.0.name
    }

    #[getter]
    fn noted_types(&self) -> bool {
        self.0.noted_types
    }

    #[getter]
    fn parts_become_text(&self) -> bool {
        self.0.parts_become_text
    }

    #[getter]
    fn converts_choices(&self) -> bool {
        self.0.converts_choices
    }

    #[getter]
    fn any_error_refuses(&self) -> bool {
        self.0.any_error_refuses
    }
}

/// The dialect of this name, or the newest.
pub(crate) fn named(name: Option<&str>) -> PyResult<&'static CoreDialect> {
    let Some(name) = name else {
        return Ok(CoreDialect::newest());
    };
    CoreDialect::named(name)
        .ok_or_else(|| PyValueError::new_err(format!("no such dialect: {name}")))
}

/// The names of all dialects, the oldest first.
#[pyfunction]
pub(crate) fn dialects() -> Vec<&'static str> {
    CoreDialect::all()
        .iter()
        .map(|dialect| dialect.name)
        .collect()
}
