//! `_core.Template`: a compiled template, rendered from Python values where they are.

use std::cell::RefCell;
use std::num::NonZeroUsize;

use dspex_core::dialect::Dialect as CoreDialect;
use dspex_core::template::data::{Error, ErrorKind, Value, ValueKind};
use dspex_core::template::{self as core, Given, Limits, Source};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::dialect::Dialect;
use crate::errors;
use crate::guard::guarded;
use crate::imports::PLAIN;
use crate::markers::Policy;
use crate::value::{text_of, write_text};
use crate::words::Word;

thread_local! {
    /// What a Python value raised while a template was at work on this thread. The engine unwinds with an
    /// error of its own; the caller gets this one, untouched.
    static RAISED: RefCell<Option<PyErr>> = const { RefCell::new(None) };
}

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
    compiled: core::Template,
    markers: Policy,
    #[pyo3(get)]
    source: Py<PyString>,
}

#[pymethods]
impl Template {
    #[new]
    #[pyo3(signature = (source, *, fuel, max_output, max_depth, markers = Word(Policy::Dspy)))]
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
            let compiled = core::Template::compile_for::<Mine>(text, limits, markers.markers())
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
            // A value that is asked for its text may itself render a template: what was raised stays apart.
            let around = RAISED.take();
            let result = self.compiled.render(Given::value(Mine {
                map: true,
                object: values.clone().into_any().unbind(),
            }));
            if let Some(raised) = RAISED.replace(around) {
                return Err(raised);
            }
            let py = values.py();
            let rendered = result.map_err(|error| raise(self.source.bind(py), &error))?;
            if rendered.forged > 0 {
                self.markers.report(py, None, rendered.forged)?;
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
struct Mine {
    map: bool,
    object: Py<PyAny>,
}

impl Source for Mine {
    fn is_map(&self) -> bool {
        self.map
    }

    fn len(&self) -> usize {
        Python::attach(|py| self.object.bind(py).len().unwrap_or(0))
    }

    fn entry(&self, name: &str) -> Option<Value> {
        Python::attach(|py| {
            let dict = self.object.bind(py).cast::<PyDict>().ok()?;
            found(dict.get_item(key(py, name)))
        })
    }

    fn item(&self, index: usize) -> Option<Value> {
        Python::attach(|py| {
            let object = self.object.bind(py);
            found(match object.cast::<PyList>() {
                Ok(list) => Ok(list.get_item(index).ok()),
                Err(_) => Ok(object.get_item(index).ok()),
            })
        })
    }

    fn get(&self, key: &Value) -> Option<Value> {
        Python::attach(|py| {
            let dict = self.object.bind(py).cast::<PyDict>().ok()?;
            found(dict.get_item(plain_key(py, key)?))
        })
    }

    fn keys(&self) -> Vec<Value> {
        Python::attach(|py| {
            let Ok(dict) = self.object.bind(py).cast::<PyDict>() else {
                return Vec::new();
            };
            let keys: PyResult<Vec<Value>> = dict.keys().iter().map(|key| given(&key)).collect();
            keys.unwrap_or_else(|error| vec![raised(error)])
        })
    }

    fn json(&self) -> Option<String> {
        Python::attach(|py| {
            let mut out = String::new();
            match write_text(self.object.bind(py), CoreDialect::newest(), &mut out) {
                Ok(()) => Some(out),
                Err(error) => {
                    RAISED.set(Some(error));
                    None
                }
            }
        })
    }

    fn is_equal(&self, other: &Self) -> bool {
        Python::attach(|py| {
            let equal = self.object.bind(py).eq(other.object.bind(py));
            equal.unwrap_or_else(|error| {
                RAISED.set(Some(error));
                true
            })
        })
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

/// What a look-up found as the engine's value. What it raised is set aside, and an error stands in its place, at
/// which the engine stops: a name that was not found would be undefined, and rendering would go on.
#[inline]
fn found(entry: PyResult<Option<Bound<'_, PyAny>>>) -> Option<Value> {
    entry
        .and_then(|entry| entry.map(|entry| given(&entry)).transpose())
        .unwrap_or_else(|error| Some(raised(error)))
}

/// What stands for a value that raised something.
fn raised(error: PyErr) -> Value {
    RAISED.set(Some(error));
    Value::from(Error::from(ErrorKind::BadSerialization))
}

/// A Python value as the engine's. Lists and dicts stay where they are; what Rust does not know is made
/// plain as DSPy does it for a prompt, which also gives a model's fields by name.
#[inline]
fn given(value: &Bound<'_, PyAny>) -> PyResult<Value> {
    match known(value) {
        Ok(None) => given_by_python(value),
        Ok(Some(known)) => Ok(known),
        Err(error) => Err(error),
    }
}

#[cold]
fn given_by_python(value: &Bound<'_, PyAny>) -> PyResult<Value> {
    let py = value.py();
    let simple = PLAIN.call(py, (value, Dialect(CoreDialect::newest())))?;
    match known(&simple)? {
        Some(known) => Ok(known),
        // Asked for its text, a value may answer with a str of a class of its own, or with itself.
        None => Ok(Value::from(text_of(&simple.str()?)?)),
    }
}

/// One of Python's own values as the engine's; None for anything else.
#[inline]
fn known(value: &Bound<'_, PyAny>) -> PyResult<Option<Value>> {
    if let Ok(text) = value.cast_exact::<PyString>() {
        return Ok(Some(Value::from(text_of(text)?)));
    }
    if value.is_none() {
        return Ok(Some(Value::from(())));
    }
    if let Ok(value) = value.cast_exact::<PyBool>() {
        return Ok(Some(Value::from(value.is_true())));
    }
    if let Ok(value) = value.cast_exact::<PyFloat>() {
        return Ok(Some(Value::from(value.value())));
    }
    if value.is_exact_instance_of::<PyInt>() {
        return match value.extract::<i64>() {
            Ok(number) => Ok(Some(Value::from(number))),
            // Beyond what the engine can count with, but still to be written.
            Err(_) => Ok(Some(Value::from(text_of(&value.str()?)?))),
        };
    }
    let map = value.is_exact_instance_of::<PyDict>();
    if map || value.is_exact_instance_of::<PyList>() || value.is_exact_instance_of::<PyTuple>() {
        let object = value.clone().unbind();
        return Ok(Some(Given::value(Mine { map, object })));
    }
    Ok(None)
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
