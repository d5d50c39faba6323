//! Texts that come from Python.

use std::ops::Deref;

use pyo3::Borrowed;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::PyString;

use crate::errors;

/// A text that a signature takes: any `str` without halves of surrogate pairs, which no prompt can hold.
pub(crate) struct Text(PyBackedStr);

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'py> FromPyObject<'_, 'py> for Text {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let text = object.cast::<PyString>()?.to_owned();
        // The only texts that have no UTF-8.
        PyBackedStr::try_from(text)
            .map(Self)
            .map_err(|_| lone_surrogate(object.py()))
    }
}

/// The error for a text that holds half of a surrogate pair.
pub(super) fn lone_surrogate(py: Python<'_>) -> PyErr {
    errors::raise(
        py,
        "SignatureError",
        "a text holds half of a surrogate pair, which is not a character",
        "lone-surrogate",
        "decode the text before it comes here, or repair it with `text.encode(\"utf-8\", \"replace\").decode()`",
    )
}
