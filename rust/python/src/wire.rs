//! Long lists as columns of bytes and back: what `dspex.wire` asks for when a list is worth it.
//!
//! Each takes a list only if all of its items are of one exact type, so that the list comes out as it went in; the
//! answer for any other is `None`, and the caller writes it item by item.

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyFloat, PyInt, PyList, PyString};

/// Floats as eight bytes each, the lowest first; None if an item is something else.
#[pyfunction]
pub(crate) fn pack_floats<'py>(items: &Bound<'py, PyList>) -> Option<Bound<'py, PyBytes>> {
    pack(items, |item| {
        Some(item.cast_exact::<PyFloat>().ok()?.value().to_le_bytes())
    })
}

/// Integers of 64 bits as eight bytes each, the lowest first; None if an item is something else, a bool for one.
#[pyfunction]
pub(crate) fn pack_ints<'py>(items: &Bound<'py, PyList>) -> Option<Bound<'py, PyBytes>> {
    pack(items, |item| {
        let number: i64 = item.cast_exact::<PyInt>().ok()?.extract().ok()?;
        Some(number.to_le_bytes())
    })
}

fn pack<'py>(
    items: &Bound<'py, PyList>,
    bytes: impl Fn(&Bound<'py, PyAny>) -> Option<[u8; 8]>,
) -> Option<Bound<'py, PyBytes>> {
    let mut data = Vec::with_capacity(items.len() * 8);
    for item in items {
        data.extend_from_slice(&bytes(&item)?);
    }
    Some(PyBytes::new(items.py(), &data))
}

/// The floats that [`pack_floats`] wrote.
///
/// # Errors
/// `ValueError` if the bytes are no whole number of them.
#[pyfunction]
pub(crate) fn unpack_floats<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
    unpack(data, f64::from_le_bytes)
}

/// The integers that [`pack_ints`] wrote.
///
/// # Errors
/// `ValueError` if the bytes are no whole number of them.
#[pyfunction]
pub(crate) fn unpack_ints<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
    unpack(data, i64::from_le_bytes)
}

fn unpack<'py, T: IntoPyObject<'py>>(
    data: &Bound<'py, PyAny>,
    number: impl Fn([u8; 8]) -> T,
) -> PyResult<Bound<'py, PyList>> {
    let py = data.py();
    let bytes = PyBuffer::<u8>::get(data)?.to_vec(py)?;
    let (numbers, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(PyValueError::new_err(format!(
            "{} bytes are no column of eight bytes each",
            bytes.len()
        )));
    }
    PyList::new(py, numbers.iter().map(|bytes| number(*bytes)))
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
