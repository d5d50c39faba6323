//! `dspex.Signature`: the compiled signature of the core, with the Python objects that belong to it.

mod annotation;
mod check;
mod compiled;
mod field;
mod read;
mod resolve;

use std::ops::Range;
use std::sync::Arc;

use dspex_core::signature::{self as core, FieldState, Instructions};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMappingProxy, PyString};

pub(crate) use annotation::type_source;
pub(crate) use compiled::Compiled;
pub(crate) use field::Field;
pub(crate) use read::{cache_clear, cache_info, cache_resize, limits, set_limits};

use crate::errors;
use field::FieldSpec;

/// A compiled signature on its way into a `Signature`.
#[pyclass(frozen, module = "dspex._core", name = "Compiled")]
pub(crate) struct Handle(Arc<Compiled>);

impl Handle {
    fn new(py: Python<'_>, core: core::Signature, objects: &[Py<PyAny>]) -> Self {
        Self(Arc::new(Compiled::new(py, core, objects)))
    }
}

/// A signature: immutable, hashed and compared by what it says.
#[pyclass(frozen, subclass, module = "dspex._core")]
pub(crate) struct Signature(pub(crate) Arc<Compiled>);

impl Signature {
    /// A signature over the same objects.
    fn with(&self, py: Python<'_>, core: core::Signature) -> Handle {
        Handle::new(py, core, &self.0.objects)
    }

    fn mapping<'py>(
        &self,
        py: Python<'py>,
        range: Range<usize>,
    ) -> PyResult<Bound<'py, PyMappingProxy>> {
        let fields = PyDict::new(py);
        for index in range {
            let field = Field::new(Arc::clone(&self.0), index);
            fields.set_item(&self.0.names(py)[index], Bound::new(py, field)?)?;
        }
        Ok(PyMappingProxy::new(py, fields.as_mapping()))
    }
}

#[pymethods]
impl Signature {
    #[new]
    #[pyo3(signature = (fields, instructions=None, *, types=None))]
    fn new(
        fields: &Bound<'_, PyAny>,
        instructions: Option<&str>,
        types: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        if let Ok(text) = fields.cast::<PyString>() {
            return read::read(text, instructions, types).map(Self);
        }
        if let Ok(handle) = fields.cast::<Handle>() {
            return Ok(Self(Arc::clone(&handle.get().0)));
        }
        let specs = fields
            .py()
            .import("dspex.signature.fields")?
            .getattr("read_mapping")?;
        let handle = build(
            specs.call1((fields,))?.extract()?,
            instructions,
            false,
            fields.py(),
        )?;
        Ok(Self(handle.0))
    }

    /// All fields by name: inputs, then outputs.
    #[getter]
    fn fields<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyMappingProxy>> {
        self.mapping(py, 0..self.0.core.fields().len())
    }

    /// The input fields by name.
    #[getter]
    fn input_fields<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyMappingProxy>> {
        self.mapping(py, 0..self.0.core.inputs().len())
    }

    /// The output fields by name.
    #[getter]
    fn output_fields<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyMappingProxy>> {
        self.mapping(py, self.0.core.inputs().len()..self.0.core.fields().len())
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

    /// The fields with their types, as text that reads back to the same fields.
    #[getter]
    fn text(&self) -> String {
        self.0.core.text()
    }

    /// Whether the text says everything about the fields, and whether the instructions are the default ones.
    #[getter]
    fn _is_plain(&self) -> (bool, bool) {
        (
            self.0.core.is_textual(),
            self.0.core.has_default_instructions(),
        )
    }

    fn _with_instructions(&self, py: Python<'_>, instructions: &str) -> Handle {
        self.with(py, self.0.core.with_instructions(instructions))
    }

    fn _append_instructions(&self, py: Python<'_>, instructions: &str) -> Handle {
        self.with(py, self.0.core.append_instructions(instructions))
    }

    fn _insert(&self, py: Python<'_>, index: isize, field: FieldSpec<'_>) -> PyResult<Handle> {
        let mut objects = self.objects(py);
        let field = field.lower(&mut objects)?;
        let core = self.0.core.insert(index, field);
        let core = core.map_err(|error| {
            let hint =
                "count from the start of the section of the field's kind, or use -1 to append";
            errors::raise(
                py,
                "SignatureError",
                &error.to_string(),
                "field-index",
                hint,
            )
        })?;
        Ok(Handle::new(py, core, &objects))
    }

    fn _replace(&self, py: Python<'_>, field: FieldSpec<'_>) -> PyResult<Handle> {
        let mut objects = self.objects(py);
        let field = field.lower(&mut objects)?;
        Ok(Handle::new(py, self.0.core.replace(&field), &objects))
    }

    fn _delete(&self, py: Python<'_>, name: &str) -> Handle {
        self.with(py, self.0.core.delete(name))
    }

    fn _with_state(
        &self,
        py: Python<'_>,
        instructions: &str,
        fields: Vec<(String, String)>,
    ) -> Handle {
        let states: Vec<_> = fields
            .into_iter()
            .map(|(prefix, desc)| FieldState { prefix, desc })
            .collect();
        self.with(py, self.0.core.with_state(instructions, &states))
    }

    /// Whether names, instructions and the core's part of the fields are the same for DSPy's `equals`.
    fn _dspy_equals(&self, other: &Self) -> bool {
        let (a, b) = (&self.0.core, &other.0.core);
        let same = |field: &core::Field| {
            b.field(&field.name)
                .is_some_and(|other| field.dspy_equals(other))
        };
        a.instructions() == b.instructions()
            && a.fields().len() == b.fields().len()
            && a.fields().iter().all(same)
    }

    /// What does not fit: a path and a message for each, or None.
    #[pyo3(signature = (outputs, values, *, none_passes=false, constraints=true))]
    fn _check(
        &self,
        outputs: bool,
        values: &Bound<'_, PyDict>,
        none_passes: bool,
        constraints: bool,
    ) -> PyResult<Option<Vec<(String, String)>>> {
        check::check(&self.0, outputs, values, none_passes, constraints)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> PyResult<bool> {
        let Ok(signature) = other.cast::<Self>() else {
            return Ok(false);
        };
        let compiled = &signature.get().0;
        Ok(Arc::ptr_eq(&self.0, compiled) || self.0.equals(other.py(), compiled)?)
    }

    fn __hash__(&self) -> u64 {
        self.0.hash()
    }
}

impl Signature {
    fn objects(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        self.0
            .objects
            .iter()
            .map(|object| object.clone_ref(py))
            .collect()
    }
}

/// Makes a compiled signature of described fields; `exact` instructions are neither cleaned nor replaced.
#[pyfunction]
#[pyo3(signature = (fields, instructions=None, exact=false))]
pub(crate) fn build(
    fields: Vec<FieldSpec<'_>>,
    instructions: Option<&str>,
    exact: bool,
    py: Python<'_>,
) -> PyResult<Handle> {
    let mut objects = Vec::new();
    let fields = fields
        .into_iter()
        .map(|field| field.lower(&mut objects))
        .collect::<PyResult<_>>()?;
    let instructions = match instructions {
        None => Instructions::Default,
        Some(text) if exact => Instructions::Exact(text),
        Some(text) => Instructions::Given(text),
    };
    let core = core::Signature::new(fields, &instructions);
    Ok(Handle::new(py, core, &objects))
}
