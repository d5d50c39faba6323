//! A core signature and the Python objects that belong to it.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::OnceLock;

use dspex_core::signature::{Default, Signature};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyString;

use super::annotation;

/// Immutable, and shared by every Python object that shows it.
pub(crate) struct Compiled {
    pub(crate) core: Signature,
    /// What opaque types and the host's part of fields point at, by index: in the order of the fields, no
    /// object twice. So equal signatures have equal tables.
    pub(crate) objects: Vec<Py<PyAny>>,
    // What follows is made when first asked for: most signatures are never asked.
    hash: OnceLock<u64>,
    annotations: Vec<PyOnceLock<Py<PyAny>>>,
    names: PyOnceLock<Vec<Py<PyString>>>,
    adapters: PyOnceLock<Vec<PyOnceLock<Py<PyAny>>>>,
}

impl Compiled {
    pub(crate) fn new(py: Python<'_>, core: Signature, objects: &[Py<PyAny>]) -> Self {
        let mut used: Vec<Py<PyAny>> = Vec::new();
        let core = if objects.is_empty() {
            core
        } else {
            core.renumber(&mut |index| intern(&mut used, objects[index as usize].bind(py)))
        };
        let annotations = core.fields().iter().map(|_| PyOnceLock::new()).collect();
        Self {
            hash: OnceLock::new(),
            core,
            objects: used,
            annotations,
            names: PyOnceLock::new(),
            adapters: PyOnceLock::new(),
        }
    }

    /// Equal signatures have equal ones.
    pub(crate) fn hash(&self) -> u64 {
        *self.hash.get_or_init(|| {
            let mut hasher = DefaultHasher::new();
            self.core.hash(&mut hasher);
            hasher.finish()
        })
    }

    /// The annotation of a field as a Python object.
    pub(crate) fn annotation<'py>(
        &self,
        py: Python<'py>,
        index: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let build = || {
            let ty = &self.core.fields()[index].ty;
            annotation::to_python(py, ty, &self.objects).map(Bound::unbind)
        };
        let cell = &self.annotations[index];
        cell.get_or_try_init(py, build)
            .map(|value| value.bind(py).clone())
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

    /// What pydantic checks values against: the opaque type at `slot` of the objects, or behind them the
    /// whole field. `build` makes it the first time.
    pub(crate) fn adapter<'py>(
        &self,
        py: Python<'py>,
        slot: usize,
        build: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<&Bound<'py, PyAny>> {
        let slots = self.adapters.get_or_init(py, || {
            (0..self.objects.len() + self.core.fields().len())
                .map(|_| PyOnceLock::new())
                .collect()
        });
        let adapter = slots[slot].get_or_try_init(py, || build().map(Bound::unbind))?;
        Ok(adapter.bind(py))
    }

    /// What Python keeps of a field beyond the core's part.
    pub(crate) fn details<'py>(&self, py: Python<'py>, index: usize) -> Option<&Bound<'py, PyAny>> {
        let host = self.core.fields()[index].host?;
        Some(self.objects[host as usize].bind(py))
    }

    /// What stands in for a missing value: a fresh copy of the default, what the factory makes, or None.
    pub(crate) fn default_value<'py>(
        &self,
        py: Python<'py>,
        index: usize,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.details(py, index) {
            Some(details) if self.core.fields()[index].default != Default::Required => {
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
            if !a.is(b) && !a.bind(py).eq(b)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
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
