//! `dspex.Signature`: the compiled signature of the core, with the Python objects that belong to it.

// PyO3 hands arguments over by value.
#![allow(clippy::needless_pass_by_value)]

mod annotation;
mod check;
mod compiled;
mod field;
mod read;
mod resolve;
mod text;

use std::ops::Range;

use dspex_core::signature::{self as core, FieldState, Instructions};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMappingProxy, PyString};

pub(crate) use annotation::type_source;
pub(crate) use compiled::Compiled;
pub(crate) use field::Field;
pub(crate) use read::{cache_clear, cache_info, cache_release, cache_resize, limits, set_limits};

use crate::errors;
use crate::guard::guarded;
use crate::imports::READ_MAPPING;
use field::FieldSpec;
use text::Text;

/// A signature: immutable, hashed and compared by what it says.
#[pyclass(frozen, subclass, module = "dspex._core")]
pub(crate) struct Signature(pub(crate) Py<Compiled>);

impl Signature {
    fn compiled(&self) -> &Compiled {
        self.0.get()
    }

    /// A signature over the same objects.
    fn with(&self, py: Python<'_>, core: core::Signature) -> Compiled {
        Compiled::new(py, core, &self.compiled().objects)
    }

    fn mapping<'py>(
        &self,
        py: Python<'py>,
        range: Range<usize>,
    ) -> PyResult<Bound<'py, PyMappingProxy>> {
        let fields = PyDict::new(py);
        for index in range {
            let field = Field::new(self.0.clone_ref(py), index);
            fields.set_item(&self.compiled().names(py)[index], Bound::new(py, field)?)?;
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
        instructions: Option<Text>,
        types: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let py = fields.py();
        let text = match fields.cast::<PyString>() {
            Ok(text) => Some(text.to_str().map_err(|_| text::lone_surrogate(py))?),
            Err(_) => None,
        };
        // Most signatures are there already, and they are asked for the most.
        if let (Some(text), None, None) = (text, &instructions, types)
            && let Some(compiled) = read::known(py, text, text.len())
        {
            return Ok(Self(compiled));
        }
        guarded(py, || {
            if let Some(text) = text {
                return read::read(py, text, instructions.as_deref(), types).map(Self);
            }
            if let Ok(compiled) = fields.cast::<Compiled>() {
                return Ok(Self(compiled.clone().unbind()));
            }
            let specs = READ_MAPPING.call(py, (fields,))?.extract()?;
            Py::new(py, build(specs, instructions, false, py)?).map(Self)
        })
    }

    /// All fields by name: inputs, then outputs.
    #[getter]
    fn fields<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyMappingProxy>> {
        self.mapping(py, 0..self.compiled().core.fields().len())
    }

    /// The input fields by name.
    #[getter]
    fn input_fields<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyMappingProxy>> {
        self.mapping(py, 0..self.compiled().core.inputs().len())
    }

    /// The output fields by name.
    #[getter]
    fn output_fields<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyMappingProxy>> {
        self.mapping(
            py,
            self.compiled().core.inputs().len()..self.compiled().core.fields().len(),
        )
    }

    /// What the program is asked to do.
    #[getter]
    fn instructions(&self) -> &str {
        self.compiled().core.instructions()
    }

    /// The names alone: `"question, context -> answer"`.
    #[getter]
    fn signature(&self) -> String {
        self.compiled().core.names()
    }

    /// The fields with their types, as text that reads back to the same fields.
    #[getter]
    fn text(&self) -> String {
        self.compiled().core.text()
    }

    /// Whether the text says everything about the fields, and whether the instructions are the default ones.
    #[getter]
    fn _is_plain(&self) -> (bool, bool) {
        (
            self.compiled().core.is_textual(),
            self.compiled().core.has_default_instructions(),
        )
    }

    fn _with_instructions(&self, py: Python<'_>, instructions: Text) -> Compiled {
        self.with(py, self.compiled().core.with_instructions(&instructions))
    }

    fn _append_instructions(&self, py: Python<'_>, instructions: Text) -> Compiled {
        self.with(py, self.compiled().core.append_instructions(&instructions))
    }

    fn _insert(&self, py: Python<'_>, index: isize, field: FieldSpec<'_>) -> PyResult<Compiled> {
        guarded(py, || {
            let mut objects = self.objects(py);
            let field = field.lower(&mut objects)?;
            let core = self.compiled().core.insert(index, field);
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
            Ok(Compiled::new(py, core, &objects))
        })
    }

    fn _replace(&self, py: Python<'_>, field: FieldSpec<'_>) -> PyResult<Compiled> {
        guarded(py, || {
            let mut objects = self.objects(py);
            let field = field.lower(&mut objects)?;
            Ok(Compiled::new(
                py,
                self.compiled().core.replace(&field),
                &objects,
            ))
        })
    }

    fn _delete(&self, py: Python<'_>, name: Text) -> Compiled {
        self.with(py, self.compiled().core.delete(&name))
    }

    fn _with_state(
        &self,
        py: Python<'_>,
        instructions: Text,
        fields: Vec<(Text, Text)>,
    ) -> Compiled {
        let states: Vec<_> = fields
            .into_iter()
            .map(|(prefix, desc)| FieldState {
                prefix: prefix.to_string(),
                desc: desc.to_string(),
            })
            .collect();
        self.with(py, self.compiled().core.with_state(&instructions, &states))
    }

    /// Whether names, instructions and the core's part of the fields are the same for DSPy's `equals`.
    fn _dspy_equals(&self, other: &Self) -> bool {
        let (a, b) = (&self.compiled().core, &other.compiled().core);
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
        guarded(values.py(), || {
            check::check(self.compiled(), outputs, values, none_passes, constraints)
        })
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> PyResult<bool> {
        guarded(other.py(), || {
            let Ok(signature) = other.cast::<Self>() else {
                return Ok(false);
            };
            let compiled = &signature.get().0;
            Ok(self.0.is(compiled) || self.compiled().equals(other.py(), compiled.get())?)
        })
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<u64> {
        guarded(py, || self.compiled().hash(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0)
    }
}

impl Signature {
    fn objects(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        self.compiled()
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
    instructions: Option<Text>,
    exact: bool,
    py: Python<'_>,
) -> PyResult<Compiled> {
    guarded(py, || {
        let mut objects = Vec::new();
        let fields = fields
            .into_iter()
            .map(|field| field.lower(&mut objects))
            .collect::<PyResult<_>>()?;
        let instructions = match instructions.as_deref() {
            None => Instructions::Default,
            Some(text) if exact => Instructions::Exact(text),
            Some(text) => Instructions::Given(text),
        };
        let core = core::Signature::new(fields, &instructions);
        Ok(Compiled::new(py, core, &objects))
    })
}
