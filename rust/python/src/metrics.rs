//! `_core.normalize`, `_core.exact_match` and `_core.f1`: the scores of the core.

use dspex_core::metrics;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::guard::guarded;
use crate::value::text_of;

/// A text as the scores compare it.
#[pyfunction]
pub(crate) fn normalize(text: &Bound<'_, PyString>) -> PyResult<String> {
    guarded(text.py(), || Ok(metrics::normalize(text_of(text)?)))
}

/// Whether the answer is one of the references.
#[pyfunction]
pub(crate) fn exact_match(
    answer: &Bound<'_, PyString>,
    references: &Bound<'_, PyAny>,
) -> PyResult<bool> {
    guarded(answer.py(), || {
        let references = strings(references)?;
        Ok(metrics::exact_match(text_of(answer)?, &texts(&references)?))
    })
}

/// The best F1 of words against the references.
#[pyfunction]
pub(crate) fn f1(answer: &Bound<'_, PyString>, references: &Bound<'_, PyAny>) -> PyResult<f64> {
    guarded(answer.py(), || {
        let references = strings(references)?;
        Ok(metrics::f1(text_of(answer)?, &texts(&references)?))
    })
}

fn strings<'py>(references: &Bound<'py, PyAny>) -> PyResult<Vec<Bound<'py, PyString>>> {
    references
        .try_iter()?
        .map(|reference| Ok(reference?.cast_into::<PyString>()?))
        .collect()
}

fn texts<'a>(references: &'a [Bound<'_, PyString>]) -> PyResult<Vec<&'a str>> {
    references.iter().map(text_of).collect()
}
