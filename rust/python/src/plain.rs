//! Values that the wire carries as they are.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::guard::guarded;

/// How deep a value may nest that is looked through here.
const MAX_DEPTH: usize = 64;

/// The values of these fields, where all of them are texts, numbers, constants, and lists, tuples and dicts of such,
/// and none is of a class of its own. None where there are others, which `dspex.protocol.values` looks at.
#[pyfunction]
#[pyo3(signature = (values, fields, /))]
pub(crate) fn plain_fields<'py>(
    values: &Bound<'py, PyAny>,
    fields: &Bound<'py, PyDict>,
) -> PyResult<Option<Bound<'py, PyDict>>> {
    guarded(values.py(), || pick(values, fields))
}

/// The same of each of several records, or None. A call has one for each of its examples.
#[pyfunction]
#[pyo3(signature = (records, fields, /))]
pub(crate) fn plain_records<'py>(
    records: &Bound<'py, PyList>,
    fields: &Bound<'py, PyDict>,
) -> PyResult<Option<Bound<'py, PyList>>> {
    guarded(records.py(), || {
        let plain = PyList::empty(records.py());
        for record in records {
            match pick(&record, fields)? {
                Some(values) => plain.append(values)?,
                None => return Ok(None),
            }
        }
        Ok(Some(plain))
    })
}

fn pick<'py>(
    values: &Bound<'py, PyAny>,
    fields: &Bound<'py, PyDict>,
) -> PyResult<Option<Bound<'py, PyDict>>> {
    let Ok(values) = values.cast_exact::<PyDict>() else {
        return Ok(None);
    };
    let plain = PyDict::new(values.py());
    for (name, _) in fields {
        let Some(value) = values.get_item(&name)? else {
            continue;
        };
        if !is_plain(&value, 0) {
            return Ok(None);
        }
        plain.set_item(name, value)?;
    }
    Ok(Some(plain))
}

fn is_plain(value: &Bound<'_, PyAny>, depth: usize) -> bool {
    if value.is_exact_instance_of::<PyString>()
        || value.is_none()
        || value.is_exact_instance_of::<PyFloat>()
        || value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyBool>()
    {
        return true;
    }
    if depth == MAX_DEPTH {
        return false;
    }
    if let Ok(list) = value.cast_exact::<PyList>() {
        list.iter().all(|item| is_plain(&item, depth + 1))
    } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
        tuple.iter().all(|item| is_plain(&item, depth + 1))
    } else if let Ok(dict) = value.cast_exact::<PyDict>() {
        dict.iter()
            .all(|(key, value)| is_plain(&key, depth + 1) && is_plain(&value, depth + 1))
    } else {
        false
    }
}
