//! The words by which Python names the choices of the core, `layout="chat"`: one table for each choice.

use pyo3::Borrowed;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// A choice of the core that Python names by a word.
pub(crate) trait Choice: Copy + 'static {
    /// What is chosen, for the error.
    const WHAT: &str;
    /// Its words.
    const WORDS: &[(&str, Self)];
}

/// A choice that Python has named.
#[derive(Clone, Copy)]
pub(crate) struct Word<T>(pub(crate) T);

impl<'py, T: Choice> FromPyObject<'_, 'py> for Word<T> {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let word = object.cast::<PyString>()?;
        let word = word.to_str()?;
        let found = T::WORDS.iter().find(|(known, _)| *known == word);
        found.map(|(_, choice)| Self(*choice)).ok_or_else(|| {
            let known: Vec<&str> = T::WORDS.iter().map(|(word, _)| *word).collect();
            let message = format!("no such {}: {word:?}; use {}", T::WHAT, known.join(" or "));
            PyValueError::new_err(message)
        })
    }
}
