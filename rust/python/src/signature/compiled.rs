//! A core signature and the Python objects that belong to it.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::OnceLock;

use dspex_core::signature::{FieldDefault, Signature};
use pyo3::exceptions::PyException;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyType};

use super::annotation;

/// Immutable, and shared by every Python object that shows it: one object of Python's with one owner in the
/// collector's eyes, so that a class and the signature it keeps over itself are collected together.
#[pyclass(frozen, module = "dspex._core")]
pub(crate) struct Compiled {
    pub(crate) core: Signature,
    /// What external types and the external parts of fields point at, by index: in the order of the fields, no
    /// object twice. So equal signatures have equal tables.
    pub(crate) objects: Vec<Py<PyAny>>,
    // What follows is made when first asked for: most signatures are never asked. Cells of `std`, because the
    // collector looks into them where it is not allowed to ask for the interpreter.
    hash: OnceLock<u64>,
    annotations: Vec<OnceLock<Py<PyAny>>>,
    names: PyOnceLock<Vec<Py<PyString>>>,
    adapters: OnceLock<Vec<OnceLock<Py<PyAny>>>>,
}

#[pymethods]
impl Compiled {
    /// There is no `__clear__`: whatever this refers to was there first, so a circle goes through something else
    /// that can be changed, and that one breaks it.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        for object in &self.objects {
            visit.call(object)?;
        }
        let adapters = self.adapters.get().into_iter().flatten();
        for cell in self.annotations.iter().chain(adapters) {
            visit.call(cell.get())?;
        }
        Ok(())
    }
}

impl Compiled {
    pub(crate) fn new(py: Python<'_>, core: Signature, objects: &[Py<PyAny>]) -> Self {
        let mut used: Vec<Py<PyAny>> = Vec::new();
        let core = if objects.is_empty() {
            core
        } else {
            core.renumber(&mut |index| intern(&mut used, objects[index as usize].bind(py)))
        };
        Self {
            hash: OnceLock::new(),
            annotations: cells(core.fields().len()),
            core,
            objects: used,
            names: PyOnceLock::new(),
            adapters: OnceLock::new(),
        }
    }

    /// Equal signatures have equal ones, and those over different classes different ones, as a rule.
    pub(crate) fn hash(&self, py: Python<'_>) -> PyResult<u64> {
        if let Some(hash) = self.hash.get() {
            return Ok(*hash);
        }
        let mut hasher = DefaultHasher::new();
        self.core.hash(&mut hasher);
        for object in &self.objects {
            hash_of(object.bind(py))?.hash(&mut hasher);
        }
        Ok(*self.hash.get_or_init(|| hasher.finish()))
    }

    /// The annotation of a field as a Python object.
    pub(crate) fn annotation<'py>(
        &self,
        py: Python<'py>,
        index: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let annotation = fill(py, &self.annotations[index], || {
            annotation::to_python(py, &self.core.fields()[index].ty, &self.objects)
        });
        annotation.cloned()
    }

    /// The names of the fields as Python strings.
    pub(crate) fn names(&self, py: Python<'_>) -> &[Py<PyString>] {
        self.names.get_or_init(py, || {
            let fields = self.core.fields().iter();
            fields
                .map(|field| PyString::intern(py, &field.name).unbind())
                .collect()
        })
    }

    /// What pydantic checks values against: the external type at `slot` of the objects, or behind them the
    /// whole field. `build` makes it the first time.
    pub(crate) fn adapter<'py>(
        &self,
        py: Python<'py>,
        slot: usize,
        build: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<&Bound<'py, PyAny>> {
        let count = self.objects.len() + self.core.fields().len();
        let slots = self.adapters.get_or_init(|| cells(count));
        fill(py, &slots[slot], build)
    }

    /// What Python keeps of a field beyond the core's part.
    pub(crate) fn details<'py>(&self, py: Python<'py>, index: usize) -> Option<&Bound<'py, PyAny>> {
        let details = self.core.fields()[index].external?;
        Some(self.objects[details as usize].bind(py))
    }

    /// What stands in for a missing value: a fresh copy of the default, what the factory makes, or None.
    pub(crate) fn default_value<'py>(
        &self,
        py: Python<'py>,
        index: usize,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.details(py, index) {
            Some(details) if self.core.fields()[index].default != FieldDefault::Required => {
                details.call_method0("get_default").map(Some)
            }
            _ => Ok(None),
        }
    }

    pub(crate) fn equals(&self, py: Python<'_>, other: &Self) -> PyResult<bool> {
        if self.core != other.core || self.objects.len() != other.objects.len() {
            return Ok(false);
        }
        for (a, b) in self.objects.iter().zip(&other.objects) {
            if !a.is(b) && (is_class(a.bind(py)) || !a.bind(py).eq(b)?) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A class is itself and no other, whatever its metaclass says of `==`.
fn is_class(object: &Bound<'_, PyAny>) -> bool {
    object.is_instance_of::<PyType>()
}

/// A class by its identity, anything else by its own hash; zero for what has none.
fn hash_of(object: &Bound<'_, PyAny>) -> PyResult<isize> {
    if is_class(object) {
        return Ok(object.as_ptr().addr().cast_signed());
    }
    match object.hash() {
        Err(error) if error.is_instance_of::<PyException>(object.py()) => Ok(0),
        hash => hash,
    }
}

fn cells<T>(count: usize) -> Vec<OnceLock<T>> {
    (0..count).map(|_| OnceLock::new()).collect()
}

/// What is in the cell. No lock is held while `build` runs Python: of two threads that build, the first counts.
fn fill<'a, 'py>(
    py: Python<'py>,
    cell: &'a OnceLock<Py<PyAny>>,
    build: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<&'a Bound<'py, PyAny>> {
    if let Some(known) = cell.get() {
        return Ok(known.bind(py));
    }
    let made = build()?.unbind();
    Ok(cell.get_or_init(|| made).bind(py))
}

/// The index of the object in the table, which it joins if it is new.
pub(super) fn intern(objects: &mut Vec<Py<PyAny>>, object: &Bound<'_, PyAny>) -> u32 {
    let known = objects.iter().position(|known| known.is(object));
    let index = known.unwrap_or_else(|| {
        objects.push(object.clone().unbind());
        objects.len() - 1
    });
    u32::try_from(index).expect("a signature within its limits has fewer objects")
}
