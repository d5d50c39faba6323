//! Python values as text, and values of replies as Python's.
//!
//! Only exact built-in types are written here. A subclass may print itself as it likes, and pydantic may know
//! better: such a value, and whatever holds it, goes to `dspex.adapters.values`, which does as DSPy does.

use dspex_core::prompt::{Style, push_quotes};
use dspex_core::response::Value;
use dspex_core::text::{JsonStyle, JsonWriter, push_float};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyModule, PyString, PyTuple};

use crate::errors;

/// Deeper nesting than this goes to Python, which knows its own limit and finds circles.
const MAX_DEPTH: usize = 64;

/// The module that writes the values that Rust does not know.
pub(crate) fn values(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import(intern!(py, "dspex.adapters.values"))
}

/// The text of a Python string.
pub(crate) fn text_of<'a>(text: &'a Bound<'_, PyString>) -> PyResult<&'a str> {
    text.to_str().map_err(|error| {
        errors::raise(
            text.py(),
            "InputError",
            "a text holds half of a surrogate pair, which no model can be sent",
            "lone-surrogate",
            &format!("repair it before the call, for example with `text.encode(\"utf-8\", \"replace\").decode()` ({error})"),
        )
    })
}

/// Append a field's value to a message.
pub(crate) fn write(value: &Bound<'_, PyAny>, style: Style, out: &mut String) -> PyResult<()> {
    if let Ok(text) = value.cast_exact::<PyString>() {
        out.push_str(text_of(text)?);
        return Ok(());
    }
    if style == Style::TextOrList
        && let Ok(list) = value.cast::<PyList>()
    {
        return write_quotes(list, out);
    }
    if value.is_none() {
        out.push_str("None");
        return Ok(());
    }
    if let Ok(value) = value.cast_exact::<PyBool>() {
        out.push_str(if value.is_true() { "True" } else { "False" });
        return Ok(());
    }
    if let Ok(value) = value.cast_exact::<PyFloat>() {
        push_float(out, value.value());
        return Ok(());
    }
    let start = out.len();
    let written = if value.is_exact_instance_of::<PyInt>() {
        push_int(value, out)
    } else {
        write_container(value, &mut JsonWriter::new(out, JsonStyle::Line))?
    };
    if !written {
        out.truncate(start);
        let text = values(value.py())?.call_method1(intern!(value.py(), "text_of"), (value,))?;
        out.push_str(text_of(text.cast()?)?);
    }
    Ok(())
}

fn write_quotes(list: &Bound<'_, PyList>, out: &mut String) -> PyResult<()> {
    let items: Vec<Bound<'_, PyAny>> = list.iter().collect();
    let texts: Result<Vec<_>, _> = items
        .iter()
        .map(|item| item.cast_exact::<PyString>())
        .collect();
    if let Ok(texts) = texts {
        let texts = texts
            .into_iter()
            .map(text_of)
            .collect::<PyResult<Vec<_>>>()?;
        push_quotes(out, &texts);
    } else {
        let text = values(list.py())?.call_method1(intern!(list.py(), "quoted"), (list,))?;
        out.push_str(text_of(text.cast()?)?);
    }
    Ok(())
}

/// Write any value as JSON; false, with part of it written, where it is not Rust's.
pub(crate) fn write_json(value: &Bound<'_, PyAny>, json: &mut JsonWriter<'_>) -> PyResult<bool> {
    if let Ok(text) = value.cast_exact::<PyString>() {
        json.string(text_of(text)?);
    } else if value.is_none() {
        json.null();
    } else if let Ok(value) = value.cast_exact::<PyBool>() {
        json.bool(value.is_true());
    } else if let Ok(value) = value.cast_exact::<PyFloat>() {
        json.float(value.value());
    } else if value.is_exact_instance_of::<PyInt>() {
        let Ok(number) = value.extract::<i64>() else {
            return Ok(false);
        };
        json.number(&number.to_string());
    } else {
        return write_container(value, json);
    }
    Ok(true)
}

fn write_container(value: &Bound<'_, PyAny>, json: &mut JsonWriter<'_>) -> PyResult<bool> {
    if json.depth() >= MAX_DEPTH {
        return Ok(false);
    }
    if let Ok(list) = value.cast_exact::<PyList>() {
        write_items(list.iter(), json)
    } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
        write_items(tuple.iter(), json)
    } else if let Ok(dict) = value.cast_exact::<PyDict>() {
        json.open('{');
        for (key, value) in dict {
            if let Ok(key) = key.cast_exact::<PyString>() {
                json.key(text_of(key)?);
            } else if key.is_exact_instance_of::<PyInt>()
                && let Ok(key) = key.extract::<i64>()
            {
                json.key(&key.to_string());
            } else {
                return Ok(false);
            }
            if !write_json(&value, json)? {
                return Ok(false);
            }
        }
        json.close('}');
        Ok(true)
    } else {
        Ok(false)
    }
}

fn write_items<'py>(
    items: impl Iterator<Item = Bound<'py, PyAny>>,
    json: &mut JsonWriter<'_>,
) -> PyResult<bool> {
    json.open('[');
    for item in items {
        json.item();
        if !write_json(&item, json)? {
            return Ok(false);
        }
    }
    json.close(']');
    Ok(true)
}

fn push_int(value: &Bound<'_, PyAny>, out: &mut String) -> bool {
    match value.extract::<i64>() {
        Ok(number) => {
            out.push_str(&number.to_string());
            true
        }
        Err(_) => false,
    }
}

/// A reply's value as Python's.
pub(crate) fn to_python<'py>(py: Python<'py>, value: &Value<'_>) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::None => py.None().into_bound(py),
        Value::Bool(value) => PyBool::new(py, *value).to_owned().into_any(),
        Value::Int(value) => value.into_pyobject(py)?.into_any(),
        Value::Float(value) => PyFloat::new(py, *value).into_any(),
        Value::Str(text) => PyString::new(py, text).into_any(),
        Value::List(items) => {
            let list = PyList::empty(py);
            for item in items {
                list.append(to_python(py, item)?)?;
            }
            list.into_any()
        }
        Value::Map(entries) => {
            let dict = PyDict::new(py);
            for (key, value) in entries {
                dict.set_item(key.as_ref(), to_python(py, value)?)?;
            }
            dict.into_any()
        }
    })
}
