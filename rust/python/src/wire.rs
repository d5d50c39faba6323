//! Long lists as columns and back, and the look that finds them: what `dspex.wire` asks for.
//!
//! Each takes a list only if all of its items are of one exact type, so that the list comes out as it went in; the
//! answer for any other is `None`, and the caller writes it item by item.

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyFloat, PyList, PyString, PyTuple};

/// Floats as eight bytes each, the lowest first; None if an item is something else.
#[pyfunction]
pub(crate) fn pack_floats<'py>(items: &Bound<'py, PyList>) -> Option<Bound<'py, PyBytes>> {
    let mut data = Vec::with_capacity(items.len() * 8);
    for item in items {
        data.extend_from_slice(&item.cast_exact::<PyFloat>().ok()?.value().to_le_bytes());
    }
    Some(PyBytes::new(items.py(), &data))
}

/// The floats that [`pack_floats`] wrote.
///
/// # Errors
/// `ValueError` if the bytes are no whole number of them.
#[pyfunction]
pub(crate) fn unpack_floats<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
    let py = data.py();
    let bytes = PyBuffer::<u8>::get(data)?.to_vec(py)?;
    let (numbers, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(PyValueError::new_err(format!(
            "{} bytes are no column of eight bytes each",
            bytes.len()
        )));
    }
    PyList::new(py, numbers.iter().map(|bytes| f64::from_le_bytes(*bytes)))
}

/// The keys of dicts that all have the same ones in the same order, and the list of values for each key.
///
/// None if an item is no dict, has other keys, or keys that are not text.
#[pyfunction]
pub(crate) fn columns_of<'py>(
    rows: &Bound<'py, PyList>,
) -> Option<(Bound<'py, PyList>, Vec<Bound<'py, PyList>>)> {
    let py = rows.py();
    let first = rows.get_item(0).ok()?;
    let first = first.cast_exact::<PyDict>().ok()?;
    let keys: Vec<_> = first.keys().iter().collect();
    if keys.is_empty() || keys.iter().any(|key| key.cast_exact::<PyString>().is_err()) {
        return None;
    }
    let mut columns: Vec<Vec<Bound<'py, PyAny>>> = keys
        .iter()
        .map(|_| Vec::with_capacity(rows.len()))
        .collect();
    for row in rows {
        let row = row.cast_exact::<PyDict>().ok()?;
        if row.len() != keys.len() {
            return None;
        }
        for ((key, value), (expected, column)) in row.iter().zip(keys.iter().zip(&mut columns)) {
            // Nearly always one object: a program's literal, or what a reader of JSON shares.
            if !(key.is(expected)
                || key.is_exact_instance_of::<PyString>() && key.eq(expected).ok()?)
            {
                return None;
            }
            column.push(value);
        }
    }
    let columns = columns
        .into_iter()
        .map(|column| PyList::new(py, column))
        .collect::<PyResult<_>>();
    Some((PyList::new(py, keys).ok()?, columns.ok()?))
}

/// The dicts that [`columns_of`] took apart.
///
/// # Errors
/// `ValueError` if the columns do not fit the keys or each other.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // PyO3 gives lists as values
pub(crate) fn rows_of<'py>(
    keys: Vec<Bound<'py, PyString>>,
    columns: Vec<Bound<'py, PyList>>,
) -> PyResult<Bound<'py, PyList>> {
    let (Some(key), Some(first)) = (keys.first(), columns.first()) else {
        return Err(PyValueError::new_err("rows without a column"));
    };
    let (py, count) = (key.py(), first.len());
    if keys.len() != columns.len() || columns.iter().any(|column| column.len() != count) {
        return Err(PyValueError::new_err("columns that do not fit each other"));
    }
    let rows = PyList::empty(py);
    for index in 0..count {
        let row = PyDict::new(py);
        for (key, column) in keys.iter().zip(&columns) {
            row.set_item(key, column.get_item(index)?)?;
        }
        if row.len() != keys.len() {
            return Err(PyValueError::new_err("a key that comes twice"));
        }
        rows.append(row)?;
    }
    Ok(rows)
}

/// Whether a value has something in it that may be worth a column or a part of its own.
///
/// It looks at no more than [`NODES`] values and [`LEVELS`] levels, and of a long list at the first item alone, so that
/// it costs next to nothing for an ordinary value and little for any. It never calls into Python.
#[pyfunction]
pub(crate) fn has_large(value: &Bound<'_, PyAny>, floats: usize, rows: usize, size: usize) -> bool {
    let mut left = NODES;
    Large { floats, rows, size }.is_in(value, LEVELS, &mut left)
}

const NODES: usize = 256;
const LEVELS: usize = 8;

/// From how many items, or bytes, a value is worth it.
struct Large {
    floats: usize,
    rows: usize,
    size: usize,
}

impl Large {
    fn is_in(&self, value: &Bound<'_, PyAny>, levels: usize, left: &mut usize) -> bool {
        if levels == 0 {
            return false;
        }
        *left = left.saturating_sub(1);
        if let Ok(list) = value.cast_exact::<PyList>() {
            self.is_list(list) || self.is_among(list.iter(), levels, left)
        } else if let Ok(dict) = value.cast_exact::<PyDict>() {
            self.is_among(dict.iter().map(|(_, item)| item), levels, left)
        } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            self.is_among(tuple.iter(), levels, left)
        } else if let Ok(data) = value.cast_exact::<PyBytes>() {
            data.as_bytes().len() >= self.size
        } else {
            false
        }
    }

    fn is_among<'py>(
        &self,
        items: impl Iterator<Item = Bound<'py, PyAny>>,
        levels: usize,
        left: &mut usize,
    ) -> bool {
        for item in items {
            if *left == 0 {
                return false;
            }
            if self.is_in(&item, levels - 1, left) {
                return true;
            }
        }
        false
    }

    fn is_list(&self, list: &Bound<'_, PyList>) -> bool {
        let count = list.len();
        if count < self.floats && count < self.rows {
            return false;
        }
        list.get_item(0).is_ok_and(|first| {
            count >= self.floats && first.is_exact_instance_of::<PyFloat>()
                || count >= self.rows && first.is_exact_instance_of::<PyDict>()
        })
    }
}
