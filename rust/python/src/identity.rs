//! Comparing what Python holds by what it is, not by what it says of being equal.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::guard::guarded;

/// Whether two tuples hold the same objects. Python's `==` would ask the objects, and a proxy around a function says
/// that it equals the function.
#[pyfunction]
#[pyo3(signature = (one, other, /))]
pub(crate) fn are_same(one: &Bound<'_, PyTuple>, other: &Bound<'_, PyTuple>) -> bool {
    one.len() == other.len()
        && one
            .iter_borrowed()
            .zip(other.iter_borrowed())
            .all(|(one, other)| one.is(&*other))
}

/// All that a prompt or a reading takes from the fields of a `dspy.Signature`, pydantic's `FieldInfo` by name.
#[pyfunction]
#[pyo3(signature = (fields, /))]
pub(crate) fn parts_of<'py>(fields: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyTuple>> {
    guarded(fields.py(), || {
        let mut parts = Vec::new();
        each_part(fields, &mut |part| {
            parts.push(part.clone());
            true
        })?;
        PyTuple::new(fields.py(), parts)
    })
}

/// Whether the fields are made of the same objects as when `parts_of` listed them.
///
/// A drop-in asks twice in each call, as the fields may be changed in place. In Python this takes twice the time: a
/// tuple of some forty objects is made only to be compared.
#[pyfunction]
#[pyo3(signature = (fields, parts, /))]
pub(crate) fn has_parts(fields: &Bound<'_, PyDict>, parts: &Bound<'_, PyTuple>) -> PyResult<bool> {
    guarded(fields.py(), || {
        let mut known = parts.iter_borrowed();
        let all = each_part(fields, &mut |part| {
            known.next().is_some_and(|known| known.is(part))
        })?;
        Ok(all && known.next().is_none())
    })
}

/// Shows each part to `see`, until that says no.
fn each_part<'py>(
    fields: &Bound<'py, PyDict>,
    see: &mut impl FnMut(&Bound<'py, PyAny>) -> bool,
) -> PyResult<bool> {
    let py = fields.py();
    for (name, info) in fields {
        if !see(&name)
            || !see(&info.getattr(intern!(py, "annotation"))?)
            || !see(&info.getattr(intern!(py, "default"))?)
            || !see(&info.getattr(intern!(py, "default_factory"))?)
        {
            return Ok(false);
        }
        let notes = info.getattr(intern!(py, "metadata"))?;
        for note in notes.cast::<PyList>()?.iter() {
            if !see(&note) {
                return Ok(false);
            }
        }
        let extra = info.getattr(intern!(py, "json_schema_extra"))?;
        for (key, value) in extra.cast::<PyDict>()?.iter() {
            if !see(&key) || !see(&value) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
