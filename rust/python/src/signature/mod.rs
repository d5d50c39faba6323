//! `dspex.Signature`: the compiled signature of the core, with the Python objects that belong to it.

mod annotation;
mod compiled;
mod field;
mod resolve;

use std::sync::Arc;

use dspex_core::signature::{self as core, Limits};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMappingProxy, PyString};

pub(crate) use compiled::Compiled;
pub(crate) use field::Field;

use crate::errors;
use resolve::NameResolver;

/// A signature: immutable, hashed and compared by what it says.
#[pyclass(frozen, subclass, module = "dspex._core")]
pub(crate) struct Signature(pub(crate) Arc<Compiled>);

#[pymethods]
impl Signature {
    #[new]
    #[pyo3(signature = (text, instructions=None, *, types=None))]
    fn new(
        text: &Bound<'_, PyAny>,
        instructions: Option<&str>,
        types: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let Ok(text) = text.cast::<PyString>() else {
            return Err(PyTypeError::new_err("a signature is made of a string"));
        };
        compile(text, instructions, types).map(|compiled| Self(Arc::new(compiled)))
    }

    /// All fields by name: inputs, then outputs.
    #[getter]
    fn fields<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyMappingProxy>> {
        field_mapping(py, &self.0, 0..self.0.core.fields().len())
    }

    /// The input fields by name.
    #[getter]
    fn input_fields<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyMappingProxy>> {
        field_mapping(py, &self.0, 0..self.0.core.inputs().len())
    }

    /// The output fields by name.
    #[getter]
    fn output_fields<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyMappingProxy>> {
        field_mapping(
            py,
            &self.0,
            self.0.core.inputs().len()..self.0.core.fields().len(),
        )
    }

    /// What the program is asked to do.
    #[getter]
    fn instructions(&self) -> &str {
        self.0.core.instructions()
    }

    /// The names alone: `"question, context -> answer"`.
    #[getter]
    fn signature(&self) -> String {
        self.0.core.names()
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = other.py();
        let Ok(other) = other.cast::<Self>() else {
            return Ok(false);
        };
        let other = &other.get().0;
        Ok(Arc::ptr_eq(&self.0, other) || self.0.equals(py, other)?)
    }

    fn __hash__(&self) -> u64 {
        self.0.hash
    }
}

fn field_mapping<'py>(
    py: Python<'py>,
    compiled: &Arc<Compiled>,
    range: std::ops::Range<usize>,
) -> PyResult<Bound<'py, PyMappingProxy>> {
    let fields = PyDict::new(py);
    for index in range {
        let field = Field::new(Arc::clone(compiled), index);
        let name = PyString::new(py, field.name());
        fields.set_item(name, Bound::new(py, field)?)?;
    }
    Ok(PyMappingProxy::new(py, fields.as_mapping()))
}

fn compile(
    text: &Bound<'_, PyString>,
    instructions: Option<&str>,
    types: Option<&Bound<'_, PyDict>>,
) -> PyResult<Compiled> {
    let py = text.py();
    let source = text.to_str().map_err(|_| {
        let message = "the text holds a lone surrogate, which is not a character";
        errors::raise(
            py,
            "SignatureError",
            message,
            "syntax",
            "decode the text before it comes here",
        )
    })?;
    let limits = Limits::default();
    let mut resolver = NameResolver::new(py, types);
    let lowered = core::parse(source, &limits).and_then(|ast| {
        core::lower(
            source,
            &ast,
            instructions.filter(|text| !text.is_empty()),
            &limits,
            &mut resolver,
        )
    });
    match lowered {
        Ok(core) => Ok(Compiled::new(core, resolver.into_objects())),
        Err(error) => Err(resolver
            .take_error()
            .unwrap_or_else(|| signature_error(py, source, &error))),
    }
}

/// The Python exception for a mistake in the text; spans become character offsets here and nowhere else.
fn signature_error(py: Python<'_>, source: &str, error: &core::SignatureError) -> PyErr {
    let build = || {
        let details = PyDict::new(py);
        details.set_item("source", source)?;
        let start = source[..error.span.start].chars().count();
        let length = source[error.span.start..error.span.end].chars().count();
        details.set_item("span", (start, start + length))?;
        PyResult::Ok(errors::raise_with(
            py,
            "SignatureError",
            &error.message,
            error.code.name(),
            &error.hint,
            &details,
        ))
    };
    build().unwrap_or_else(|bug| bug)
}
