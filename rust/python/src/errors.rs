//! The one place that knows the names of the exception classes in `dspex.errors`.

use dspex_core::signature::Span;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// The exception `dspex.errors.<class>(message, code=, hint=)`, ready to raise.
pub(crate) fn raise(py: Python<'_>, class: &str, message: &str, code: &str, hint: &str) -> PyErr {
    raise_with(py, class, message, code, hint, &PyDict::new(py))
}

/// Like [`raise`], with details: each item of `details` becomes a keyword argument.
pub(crate) fn raise_with(
    py: Python<'_>,
    class: &str,
    message: &str,
    code: &str,
    hint: &str,
    details: &Bound<'_, PyDict>,
) -> PyErr {
    let build = || -> PyResult<PyErr> {
        details.set_item("code", code)?;
        details.set_item("hint", hint)?;
        let error = py
            .import("dspex.errors")?
            .getattr(class)?
            .call((message,), Some(details))?;
        Ok(PyErr::from_value(error))
    };
    // A failure to build the error is a bug of ours, and is itself the best report of it.
    build().unwrap_or_else(|bug| bug)
}

/// Like [`raise`], for a mistake in a text. Spans become character offsets here and nowhere else.
pub(crate) fn raise_at(
    py: Python<'_>,
    class: &str,
    message: &str,
    code: &str,
    hint: &str,
    source: &str,
    span: Option<Span>,
) -> PyErr {
    let build = || {
        let details = PyDict::new(py);
        details.set_item("source", source)?;
        if let Some(span) = span {
            let start = source[..span.start].chars().count();
            let length = source[span.start..span.end].chars().count();
            details.set_item("span", (start, start + length))?;
        }
        PyResult::Ok(raise_with(py, class, message, code, hint, &details))
    };
    build().unwrap_or_else(|bug| bug)
}

/// Whether `error` is of this class of `dspex.errors`.
pub(crate) fn is(py: Python<'_>, error: &PyErr, class: &str) -> bool {
    let class = py
        .import("dspex.errors")
        .and_then(|module| module.getattr(class));
    class.is_ok_and(|class| error.is_instance(py, &class))
}
