//! One field as Python sees it, and as Python describes it.

use dspex_core::signature::{self as core, FieldDefault, FieldKind};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use super::{Compiled, annotation, compiled};
use crate::words::{Choice, Word};

/// A field of a signature.
#[pyclass(frozen, module = "dspex._core")]
pub(crate) struct Field {
    compiled: Py<Compiled>,
    index: usize,
}

impl Field {
    pub(crate) fn new(compiled: Py<Compiled>, index: usize) -> Self {
        Self { compiled, index }
    }

    fn core(&self) -> &core::Field {
        &self.compiled.get().core.fields()[self.index]
    }
}

#[pymethods]
impl Field {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.compiled)
    }

    /// The name, a Python identifier.
    #[getter]
    pub(crate) fn name(&self) -> &str {
        &self.core().name
    }

    /// `"input"` or `"output"`.
    #[getter]
    fn kind(&self) -> &'static str {
        self.core().kind.name()
    }

    /// The type, as an annotation.
    #[getter]
    fn annotation<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.compiled.get().annotation(py, self.index)
    }

    /// The type's name as prompts show it.
    #[getter]
    fn type_name(&self) -> String {
        self.core().ty.display_name()
    }

    /// The type as the text of a signature writes it.
    #[getter]
    fn _type_source(&self) -> String {
        let mut out = String::new();
        self.core().ty.write_source(&mut out);
        out
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

    /// Whether a value may be missing: there is a default, or None is a value of the type.
    #[getter]
    fn optional(&self) -> bool {
        self.core().is_optional()
    }

    /// Whether there is a default.
    #[getter]
    fn has_default(&self) -> bool {
        self.core().default != FieldDefault::Required
    }

    /// A fresh copy of the default, or what its factory makes; None where there is neither.
    fn get_default<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.compiled.get().default_value(py, self.index)
    }

    /// What the class signature said beyond all this, or None.
    #[getter]
    fn _details<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.compiled.get().details(py, self.index).cloned()
    }

    /// Whether DSPy marks the field as typed or not.
    #[getter]
    fn _marked(&self) -> bool {
        self.core().marked
    }

    /// Whether description and prefix are the default ones.
    #[getter]
    fn _is_plain(&self) -> (bool, bool) {
        (self.core().desc.is_none(), self.core().prefix.is_none())
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

impl Choice for FieldKind {
    const WHAT: &str = "kind of field";
    const WORDS: &[(&str, Self)] = &[("input", Self::Input), ("output", Self::Output)];
}

impl Choice for FieldDefault {
    const WHAT: &str = "kind of default";
    const WORDS: &[(&str, Self)] = &[
        ("required", Self::Required),
        ("value", Self::Value),
        ("factory", Self::Factory),
    ];
}

/// A field as `dspex.signature._fields` describes it, one attribute of its `FieldSpec` each.
#[derive(FromPyObject)]
pub(crate) struct FieldSpec<'py> {
    name: String,
    kind: Word<FieldKind>,
    annotation: Bound<'py, PyAny>,
    typed: bool,
    marked: bool,
    desc: Option<String>,
    prefix: Option<String>,
    constraints: Option<String>,
    default: Word<FieldDefault>,
    details: Option<Bound<'py, PyAny>>,
}

impl FieldSpec<'_> {
    /// The core's field; what Rust does not know of it joins `objects`.
    pub(super) fn lower(self, objects: &mut Vec<Py<PyAny>>) -> PyResult<core::Field> {
        let mut field = core::Field::new(
            self.name.as_str(),
            self.kind.0,
            Some(annotation::from_python(&self.annotation, objects)?),
        );
        field.typed = self.typed;
        field.marked = self.marked;
        if let Some(desc) = &self.desc {
            field.set_desc(desc);
        }
        if let Some(prefix) = &self.prefix {
            field.set_prefix(prefix);
        }
        field.constraints = self.constraints.as_deref().map(Into::into);
        field.default = self.default.0;
        field.external = self
            .details
            .as_ref()
            .map(|details| compiled::intern(objects, details));
        Ok(field)
    }
}
