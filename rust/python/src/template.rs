//! `_core.Template`: a compiled template, rendered from Python values where they are.

use std::cell::RefCell;
use std::num::NonZeroUsize;

use dspex_core::dialect::Dialect as CoreDialect;
use dspex_core::template::data::{Value, ValueKind};
use dspex_core::template::{self as core, Container, Entry, Failure, Limits};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::dialect::Dialect;
use crate::errors;
use crate::guard::guarded;
use crate::imports::PLAIN;
use crate::markers::Policy;
use crate::value::{text_of, write_text};
use crate::words::Word;

const KEYS_KEPT: usize = 64;

/// A name and its Python string.
type Key = (Box<str>, Py<PyString>);

thread_local! {
    /// The strings of names asked for lately, each in the one slot that its name has.
    static KEYS: RefCell<[Option<Key>; KEYS_KEPT]> = const { RefCell::new([const { None }; KEYS_KEPT]) };
}

/// A compiled template; immutable.
#[pyclass(frozen, module = "dspex._core")]
pub(crate) struct Template {
    compiled: core::Template<PyContainer>,
    markers: Policy,
    #[pyo3(get)]
    source: Py<PyString>,
}

#[pymethods]
impl Template {
    #[new]
    #[pyo3(
        signature = (source, *, fuel, max_output, max_depth, markers = Word(Policy::Dspy)),
        text_signature = "(source, *, fuel, max_output, max_depth, markers='dspy')"
    )]
    fn new(
        source: &Bound<'_, PyString>,
        fuel: u64,
        max_output: NonZeroUsize,
        max_depth: NonZeroUsize,
        markers: Word<Policy>,
    ) -> PyResult<Self> {
        guarded(source.py(), || {
            let limits = Limits {
                fuel,
                output: max_output.get(),
                depth: max_depth.get(),
            };
            let Word(markers) = markers;
            let text = text_of(source)?;
            let compiled = core::Template::compile(text, limits, markers.markers())
                .map_err(|error| raise(source, &error))?;
            Ok(Self {
                compiled,
                markers,
                source: PyString::new(source.py(), text).unbind(),
            })
        })
    }

    /// The names that the template asks for, sorted.
    #[getter]
    fn variables(&self) -> &[String] {
        self.compiled.variables()
    }

    /// Render with the values of this dict.
    fn render(&self, values: &Bound<'_, PyDict>) -> PyResult<String> {
        guarded(values.py(), || {
            let py = values.py();
            let values = PyContainer {
                map: true,
                object: values.clone().into_any().unbind(),
            };
            let rendered = self.compiled.render(Entry::Container(values));
            let rendered = rendered.map_err(|failure| match failure {
                Failure::Template(error) => raise(self.source.bind(py), &error),
                // What a value of the caller's raised reaches the caller untouched.
                Failure::Container(error) => error,
            })?;
            if rendered.injected > 0 {
                self.markers.report(py, None, rendered.injected)?;
            }
            Ok(rendered.text)
        })
    }
}

fn raise(source: &Bound<'_, PyString>, error: &core::TemplateError) -> PyErr {
    let (code, hint) = (error.code.name(), error.code.hint());
    let text = source.to_str().unwrap_or_default();
    errors::raise_at(
        source.py(),
        "TemplateError",
        &error.message,
        code,
        hint,
        text,
        error.span,
    )
}

/// A Python dict, list or tuple.
#[derive(Debug)]
struct PyContainer {
    map: bool,
    object: Py<PyAny>,
}

impl PyContainer {
    /// The object as a dict, if it is one.
    fn dict<'a, 'py>(&'a self, py: Python<'py>) -> Option<&'a Bound<'py, PyDict>> {
        self.object.bind(py).cast().ok()
    }
}

/// What a look-up found.
type Found = PyResult<Option<Entry<PyContainer>>>;

impl Container for PyContainer {
    type Error = PyErr;

    fn is_map(&self) -> bool {
        self.map
    }

    fn len(&self) -> usize {
        Python::attach(|py| self.object.bind(py).len().unwrap_or(0))
    }

    fn entry(&self, name: &str) -> Found {
        Python::attach(|py| match self.dict(py) {
            Some(dict) => found(dict.get_item(key(py, name))?),
            None => Ok(None),
        })
    }

    fn item(&self, index: usize) -> Found {
        Python::attach(|py| {
            let object = self.object.bind(py);
            found(match object.cast::<PyList>() {
                Ok(list) => list.get_item(index).ok(),
                Err(_) => object.get_item(index).ok(),
            })
        })
    }

    fn get(&self, key: &Value) -> Found {
        Python::attach(|py| match (self.dict(py), plain_key(py, key)) {
            (Some(dict), Some(key)) => found(dict.get_item(key)?),
            _ => Ok(None),
        })
    }

    fn keys(&self) -> PyResult<Vec<Entry<Self>>> {
        Python::attach(|py| match self.dict(py) {
            Some(dict) => dict.keys().iter().map(|key| to_entry(&key)).collect(),
            None => Ok(Vec::new()),
        })
    }

    fn json(&self) -> PyResult<String> {
        Python::attach(|py| {
            let mut out = String::new();
            write_text(self.object.bind(py), CoreDialect::newest(), &mut out)?;
            Ok(out)
        })
    }

    fn is_equal(&self, other: &Self) -> PyResult<bool> {
        Python::attach(|py| self.object.bind(py).eq(other.object.bind(py)))
    }
}

/// The Python string for a name. A template asks for the same few names over and over, in loops above all;
/// making and hashing the string anew took a tenth of a rendering.
fn key<'py>(py: Python<'py>, name: &str) -> Bound<'py, PyString> {
    let bytes = name.as_bytes();
    let slot = match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) => {
            (usize::from(first) * 31 + usize::from(last) * 7 + bytes.len()) % KEYS_KEPT
        }
        _ => 0,
    };
    let kept = KEYS.with_borrow(|keys| match &keys[slot] {
        Some((known, string)) if **known == *name => Some(string.bind(py).clone()),
        _ => None,
    });
    kept.unwrap_or_else(|| {
        let string = PyString::intern(py, name);
        let kept = (name.into(), string.clone().unbind());
        KEYS.with_borrow_mut(|keys| keys[slot] = Some(kept));
        string
    })
}

#[inline]
fn found(entry: Option<Bound<'_, PyAny>>) -> Found {
    entry.map(|entry| to_entry(&entry)).transpose()
}

/// A Python value as the engine's. Lists and dicts stay where they are; what Rust does not know is made
/// plain as DSPy does it for a prompt, which also gives a model's fields by name.
#[inline]
fn to_entry(value: &Bound<'_, PyAny>) -> PyResult<Entry<PyContainer>> {
    match known(value) {
        Ok(None) => made_plain(value),
        Ok(Some(known)) => Ok(known),
        Err(error) => Err(error),
    }
}

#[cold]
fn made_plain(value: &Bound<'_, PyAny>) -> PyResult<Entry<PyContainer>> {
    let simple = PLAIN.call(value.py(), (value, Dialect(CoreDialect::newest())))?;
    match known(&simple)? {
        Some(known) => Ok(known),
        // Asked for its text, a value may answer with a str of a class of its own, or with itself.
        None => Ok(Value::from(text_of(&simple.str()?)?).into()),
    }
}

/// One of Python's own values as the engine's; None for anything else.
#[inline]
fn known(value: &Bound<'_, PyAny>) -> PyResult<Option<Entry<PyContainer>>> {
    let known = if let Ok(text) = value.cast_exact::<PyString>() {
        Value::from(text_of(text)?)
    } else if value.is_none() {
        Value::from(())
    } else if let Ok(value) = value.cast_exact::<PyBool>() {
        Value::from(value.is_true())
    } else if let Ok(value) = value.cast_exact::<PyFloat>() {
        Value::from(value.value())
    } else if value.is_exact_instance_of::<PyInt>() {
        match value.extract::<i64>() {
            Ok(number) => Value::from(number),
            // Beyond what the engine can count with, but still to be written.
            Err(_) => Value::from(text_of(&value.str()?)?),
        }
    } else {
        let map = value.is_exact_instance_of::<PyDict>();
        let is_list =
            value.is_exact_instance_of::<PyList>() || value.is_exact_instance_of::<PyTuple>();
        if !map && !is_list {
            return Ok(None);
        }
        let object = value.clone().unbind();
        return Ok(Some(Entry::Container(PyContainer { map, object })));
    };
    Ok(Some(known.into()))
}

/// A key that a template wrote, to look into a dict with.
fn plain_key<'py>(py: Python<'py>, key: &Value) -> Option<Bound<'py, PyAny>> {
    match key.kind() {
        ValueKind::Bool => Some(PyBool::new(py, key.is_true()).to_owned().into_any()),
        ValueKind::Number => Some(key.as_i64()?.into_pyobject(py).ok()?.into_any()),
        ValueKind::None => Some(py.None().into_bound(py)),
        _ => None,
    }
}
