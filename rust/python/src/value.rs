//! Python values as text, and values of replies as Python's.
//!
//! Only exact built-in types are written here. A subclass may print itself as it likes, and pydantic may know
//! better: such a value, and whatever holds it, goes to `dspex._engine.values`, which does as DSPy does.

use dspex_core::dialect::Dialect as CoreDialect;
use dspex_core::prompt::{Element, Style, push_escaped, push_quotes};
use dspex_core::response::{Guess, Value};
use dspex_core::text::{JsonStyle, JsonWriter, push_float};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::dialect::Dialect;
use crate::errors;
use crate::imports::{PLAIN, QUOTED, TEXT_OF};

/// Deeper nesting than this goes to Python, which knows its own limit and finds circles.
const MAX_DEPTH: usize = 64;

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

/// The text of a Python string as UTF-16, where half of a surrogate pair is like any other unit.
pub(crate) fn units_of(text: &Bound<'_, PyString>) -> PyResult<Vec<u16>> {
    let encoded =
        text.call_method1(intern!(text.py(), "encode"), ("utf-16-le", "surrogatepass"))?;
    let bytes = encoded.cast::<PyBytes>()?.as_bytes().chunks_exact(2);
    Ok(bytes
        .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
        .collect())
}

/// The code points of a Python string, halves of surrogate pairs among them.
pub(crate) fn code_points_of(text: &Bound<'_, PyString>) -> PyResult<Vec<u32>> {
    let encoded =
        text.call_method1(intern!(text.py(), "encode"), ("utf-32-le", "surrogatepass"))?;
    let bytes = encoded.cast::<PyBytes>()?.as_bytes().chunks_exact(4);
    Ok(bytes
        .map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]]))
        .collect())
}

/// The Python string of code points.
fn string_of<'py>(py: Python<'py>, text: &[u32]) -> PyResult<Bound<'py, PyAny>> {
    let whole: Option<String> = text.iter().map(|&c| char::from_u32(c)).collect();
    if let Some(text) = whole {
        return Ok(PyString::new(py, &text).into_any());
    }
    let bytes: Vec<u8> = text.iter().flat_map(|c| c.to_le_bytes()).collect();
    PyBytes::new(py, &bytes).call_method1(intern!(py, "decode"), ("utf-32-le", "surrogatepass"))
}

/// A guess as Python has it.
pub(crate) fn guess_to_python<'py>(py: Python<'py>, value: &Guess) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Guess::None => py.None().into_bound(py),
        Guess::Bool(value) => PyBool::new(py, *value).to_owned().into_any(),
        Guess::Int(value) => value.into_pyobject(py)?.into_any(),
        Guess::Long(digits) => py.get_type::<PyInt>().call1((digits,))?,
        Guess::Float(value) => PyFloat::new(py, *value).into_any(),
        Guess::Str(text) => string_of(py, text)?,
        Guess::List(items) => {
            let items = items.iter().map(|item| guess_to_python(py, item));
            PyList::new(py, items.collect::<PyResult<Vec<_>>>()?)?.into_any()
        }
        Guess::Map(entries) => {
            let dict = PyDict::new(py);
            for (key, value) in entries {
                dict.set_item(string_of(py, key)?, guess_to_python(py, value)?)?;
            }
            dict.into_any()
        }
    })
}

/// Append the value of the field of this name to a message.
pub(crate) fn write(
    name: &str,
    value: &Bound<'_, PyAny>,
    style: Style,
    dialect: &'static CoreDialect,
    out: &mut String,
) -> PyResult<()> {
    match style {
        Style::Text => write_text(value, dialect, out),
        Style::TextOrList => match value.cast::<PyList>() {
            Ok(list) => write_quotes(list, out),
            Err(_) => write_text(value, dialect, out),
        },
        Style::XmlText => {
            let mut text = String::new();
            write(name, value, Style::TextOrList, dialect, &mut text)?;
            push_escaped(out, &text);
            Ok(())
        }
        Style::XmlTree => write_field_element(name, value, dialect, out),
    }
}

/// A field that takes nested elements: one for each part of a list or a mapping, text for anything else.
fn write_field_element(
    name: &str,
    value: &Bound<'_, PyAny>,
    dialect: &'static CoreDialect,
    out: &mut String,
) -> PyResult<()> {
    let py = value.py();
    let element = Element::new(name);
    let start = out.len();
    if is_container(value) && write_element(element, value, Scalars::Known, 0, out)? {
        return Ok(());
    }
    out.truncate(start);
    if !value.is_exact_instance_of::<PyString>() {
        // A value of Python's own, such as a model, may be made of lists and mappings; pydantic takes it apart.
        let simple = PLAIN.call(py, (value, Dialect(dialect)))?;
        if is_container(&simple) {
            write_element(element, &simple, Scalars::Any, 0, out)?;
            return Ok(());
        }
    }
    element.open(out);
    out.push('\n');
    write_text(value, dialect, out)?;
    out.push('\n');
    element.close(out);
    Ok(())
}

fn is_container(value: &Bound<'_, PyAny>) -> bool {
    value.is_exact_instance_of::<PyList>()
        || value.is_exact_instance_of::<PyDict>()
        || value.is_exact_instance_of::<PyTuple>()
}

/// Which values between tags may be written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scalars {
    /// Those that Rust knows.
    Known,
    /// Any, by its `str()`: pydantic has made them plain.
    Any,
}

/// Write a value as an element; false, with part of it written, where it is not Rust's.
fn write_element(
    element: Element<'_>,
    value: &Bound<'_, PyAny>,
    scalars: Scalars,
    depth: usize,
    out: &mut String,
) -> PyResult<bool> {
    if scalars == Scalars::Known && depth >= MAX_DEPTH {
        return Ok(false);
    }
    let items: Option<Vec<Bound<'_, PyAny>>> = if let Ok(list) = value.cast_exact::<PyList>() {
        Some(list.iter().collect())
    } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
        Some(tuple.iter().collect())
    } else {
        None
    };
    if let Some(items) = items {
        if items.is_empty() {
            element.empty(out);
            return Ok(true);
        }
        element.open(out);
        for item in &items {
            if !write_element(Element::new("item"), item, scalars, depth + 1, out)? {
                return Ok(false);
            }
        }
    } else if let Ok(dict) = value.cast_exact::<PyDict>() {
        element.open(out);
        let mut kinds = KeyKinds::default();
        for (key, value) in dict {
            if kinds.differ(&key) {
                return Ok(false);
            }
            let number;
            let name = if let Ok(key) = key.cast_exact::<PyString>() {
                text_of(key)?
            } else if key.is_exact_instance_of::<PyInt>()
                && let Ok(key) = key.extract::<i64>()
            {
                number = key.to_string();
                &number
            } else {
                return Ok(false);
            };
            if !write_element(Element::entry(name), &value, scalars, depth + 1, out)? {
                return Ok(false);
            }
        }
    } else if value.is_none()
        || value
            .cast_exact::<PyFloat>()
            .is_ok_and(|value| !value.value().is_finite())
    {
        element.empty(out);
        return Ok(true);
    } else {
        element.open(out);
        if let Ok(text) = value.cast_exact::<PyString>() {
            push_escaped(out, text_of(text)?);
        } else if !push_scalar(value, out) {
            if scalars == Scalars::Known {
                return Ok(false);
            }
            push_escaped(out, text_of(&value.str()?)?);
        }
    }
    element.close(out);
    Ok(true)
}

pub(crate) fn write_text(
    value: &Bound<'_, PyAny>,
    dialect: &'static CoreDialect,
    out: &mut String,
) -> PyResult<()> {
    if let Ok(text) = value.cast_exact::<PyString>() {
        out.push_str(text_of(text)?);
        return Ok(());
    }
    let start = out.len();
    if push_scalar(value, out)
        || write_container(value, &mut JsonWriter::new(out, JsonStyle::Line))?
    {
        return Ok(());
    }
    out.truncate(start);
    let text = TEXT_OF.call(value.py(), (value, Dialect(dialect)))?;
    out.push_str(text_of(text.cast()?)?);
    Ok(())
}

/// Append `str(value)`; false, with nothing written, where it is not one of Python's own numbers or constants.
fn push_scalar(value: &Bound<'_, PyAny>, out: &mut String) -> bool {
    if value.is_none() {
        out.push_str("None");
    } else if let Ok(value) = value.cast_exact::<PyBool>() {
        out.push_str(if value.is_true() { "True" } else { "False" });
    } else if let Ok(value) = value.cast_exact::<PyFloat>() {
        push_float(out, value.value());
    } else if value.is_exact_instance_of::<PyInt>()
        && let Ok(number) = value.extract::<i64>()
    {
        out.push_str(&number.to_string());
    } else {
        return false;
    }
    true
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
        let text = QUOTED.call(list.py(), (list,))?;
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
        json.raw(&number.to_string());
    } else {
        return write_container(value, json);
    }
    Ok(true)
}

/// Whether a dict has keys of several kinds: then two of them may be one text, as `1` and `"1"` are, and which one
/// stays is pydantic's to say.
#[derive(Default)]
struct KeyKinds(Option<bool>);

impl KeyKinds {
    fn differ(&mut self, key: &Bound<'_, PyAny>) -> bool {
        let is_text = key.is_exact_instance_of::<PyString>();
        *self.0.get_or_insert(is_text) != is_text
    }
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
        let mut kinds = KeyKinds::default();
        for (key, value) in dict {
            if kinds.differ(&key) {
                return Ok(false);
            }
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

/// A reply's value as Python's.
pub(crate) fn to_python<'py>(py: Python<'py>, value: &Value<'_>) -> PyResult<Bound<'py, PyAny>> {
    Keys(Vec::new()).convert(py, value)
}

/// The keys of mappings that came last: those of the rows of a table are the same in each, and a key that is
/// there already need neither be made nor hashed again.
struct Keys<'a, 'py>(Vec<(&'a str, Bound<'py, PyString>)>);

impl<'a, 'py> Keys<'a, 'py> {
    const KEPT: usize = 16;

    fn convert(&mut self, py: Python<'py>, value: &'a Value<'_>) -> PyResult<Bound<'py, PyAny>> {
        Ok(match value {
            Value::None => py.None().into_bound(py),
            Value::Bool(value) => PyBool::new(py, *value).to_owned().into_any(),
            Value::Int(value) => value.into_pyobject(py)?.into_any(),
            Value::Float(value) => PyFloat::new(py, *value).into_any(),
            Value::Str(text) => PyString::new(py, text).into_any(),
            Value::List(items) => {
                let items = items.iter().map(|item| self.convert(py, item));
                PyList::new(py, items.collect::<PyResult<Vec<_>>>()?)?.into_any()
            }
            Value::Map(entries) => {
                let dict = PyDict::new(py);
                for (at, (key, value)) in entries.iter().enumerate() {
                    let value = self.convert(py, value)?;
                    dict.set_item(self.key(py, key, at), value)?;
                }
                dict.into_any()
            }
        })
    }

    /// The key of an entry at a place: as a rule the one at that place in the mapping before.
    fn key(&mut self, py: Python<'py>, key: &'a str, at: usize) -> &Bound<'py, PyString> {
        let at = at.min(Self::KEPT);
        if self.0.get(at).is_none_or(|(known, _)| *known != key) {
            let at = at.min(self.0.len());
            self.0.truncate(at);
            self.0.push((key, PyString::new(py, key)));
            return &self.0[at].1;
        }
        &self.0[at].1
    }
}
