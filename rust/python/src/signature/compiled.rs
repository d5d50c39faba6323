//! A core signature and the Python objects that stand behind its opaque types.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use dspex_core::signature::Signature;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use super::annotation;

/// Immutable, and shared by every Python object that shows it.
pub(crate) struct Compiled {
    pub(crate) core: Signature,
    pub(crate) hash: u64,
    /// What `Type::Python` points at, by index.
    objects: Vec<Py<PyAny>>,
    /// Made when first asked for: most signatures are never asked.
    annotations: Vec<PyOnceLock<Py<PyAny>>>,
}

impl Compiled {
    pub(crate) fn new(core: Signature, objects: Vec<Py<PyAny>>) -> Self {
        let mut hasher = DefaultHasher::new();
        core.hash(&mut hasher);
        let annotations = core.fields().iter().map(|_| PyOnceLock::new()).collect();
        Self {
            hash: hasher.finish(),
            core,
            objects,
            annotations,
        }
    }

    /// The annotation of a field as a Python object.
    pub(crate) fn annotation<'py>(
        &self,
        py: Python<'py>,
        index: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let cell = &self.annotations[index];
        let build = || {
            annotation::to_python(py, &self.core.fields()[index].ty, &self.objects)
                .map(Bound::unbind)
        };
        cell.get_or_try_init(py, build)
            .map(|value| value.bind(py).clone())
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
