//! Replies: what `Plan.parse` and `Plan.read` do.

use dspex_core::response::{
    self as core, Cause, Miss, Parsing, ReadError, ReadErrorKind, ReadPlan, Refusal, Source,
    Wanted, guess, repair,
};
use pyo3::exceptions::{PyRecursionError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString};

use crate::errors;
use crate::guard::guarded;
use crate::host::{PyHost, PyValues, ambiguous, choices_of, mended};
use crate::prompt::Plan;
use crate::value::{code_points_of, guess_to_python, to_python};

/// The output fields of a reply, and what was done to it before it could be read.
pub(crate) type Read<'py> = (Bound<'py, PyDict>, Bound<'py, PyList>);

/// The output fields of `reply`, in the signature's order, and what was done to it before it could be read.
pub(crate) fn read<'py>(plan: &Plan, reply: &Bound<'py, PyString>) -> PyResult<Read<'py>> {
    match reply.to_str() {
        Ok(text) => read_source(plan, reply, Source::Text(text)),
        Err(_) => read_mended(plan, reply.py(), &mended(reply)?),
    }
}

/// The same of a reply that had halves of surrogate pairs.
pub(crate) fn read_mended<'py>(plan: &Plan, py: Python<'py>, reply: &str) -> PyResult<Read<'py>> {
    read_source(plan, &PyString::new(py, reply), Source::Mended(reply))
}

fn read_source<'py>(
    plan: &Plan,
    reply: &Bound<'py, PyString>,
    source: Source<'_>,
) -> PyResult<Read<'py>> {
    let py = reply.py();
    let signature = plan.signature.get();
    let found = core::read(plan.reading(), source, &mut PyHost::new(plan, py))
        .map_err(|error| raised(plan, reply, error))?;
    let outputs = PyDict::new(py);
    for (slot, value) in plan.compiled.outputs().iter().zip(found.values) {
        let value = match value {
            Some(value) => Some(value),
            None => signature.default_value(py, slot.index)?,
        };
        outputs.set_item(&plan.names[slot.index], value)?;
    }
    let repairs = PyList::empty(py);
    for repair in found.repairs {
        let field = repair
            .output
            .map_or("", |at| &*plan.compiled.outputs()[at].name);
        let module = py.import(intern!(py, "dspex.prediction"))?;
        let repair = (field, repair.code.name(), repair.text);
        repairs.append(module.call_method1(intern!(py, "Repair"), repair)?)?;
    }
    Ok((outputs, repairs))
}

/// What is wrong with a reply, as an exception.
fn raised(plan: &Plan, reply: &Bound<'_, PyString>, error: ReadError<PyErr>) -> PyErr {
    let ReadError { kind, read } = error;
    let py = reply.py();
    let kind = match kind {
        ReadErrorKind::Host(error) => return error,
        kind => kind,
    };
    let outputs = plan.signature.get().core.outputs();
    let details = PyDict::new(py);
    let filled = (|| {
        details.set_item("reply", reply)?;
        let read = read.iter().map(|at| &*outputs[*at].name);
        details.set_item("fields", PyList::new(py, read)?)?;
        details.set_item("field", kind.output().map(|at| &*outputs[at].name))
    })();
    if let Err(bug) = filled {
        return bug;
    }
    let message = kind.message(outputs);
    let error = errors::raise_with(
        py,
        "ReplyError",
        &message,
        kind.code(),
        kind.hint(),
        &details,
    );
    if let ReadErrorKind::NoValue { cause, .. } = kind {
        let cause = cause.map(|cause| match cause {
            Cause::Host(error) => error,
            Cause::Read(error) => raised(plan, reply, *error),
        });
        error.set_cause(py, cause);
    }
    error
}

impl Plan {
    /// How replies are read.
    pub(crate) fn reading(&self) -> ReadPlan<'_> {
        ReadPlan {
            layout: self.compiled.layout(),
            outputs: self.signature.get().core.outputs(),
            dialect: self.compiled.dialect(),
            parsing: if self.tolerant {
                Parsing::Tolerant
            } else {
                Parsing::Strict
            },
        }
    }
}

/// A text without its fence and decoration, in the order in which they are taken off.
#[pyfunction]
pub(crate) fn bare_texts(text: &Bound<'_, PyString>) -> PyResult<Vec<String>> {
    guarded(text.py(), || {
        let text = mended(text)?;
        Ok(core::bare(&text).map(|(_, text)| text.to_owned()).collect())
    })
}

/// What a text is in other words: as `bool`, `int` or `float`, or as one of the values that have these names.
#[pyfunction]
pub(crate) fn near_text<'py>(
    text: &Bound<'py, PyString>,
    wanted: &Bound<'py, PyAny>,
) -> PyResult<Option<(&'static str, Bound<'py, PyAny>)>> {
    guarded(text.py(), || {
        let py = text.py();
        let wanted = if wanted.is(py.get_type::<PyBool>()) {
            Wanted::Bool
        } else if wanted.is(py.get_type::<PyInt>()) {
            Wanted::Int
        } else if wanted.is(py.get_type::<PyFloat>()) {
            Wanted::Float
        } else if let Some(choices) = choices_of(wanted)? {
            Wanted::Choice(choices)
        } else {
            return Ok(None);
        };
        let found = core::convert(&mut PyValues(py), &mended(text)?, &wanted);
        match found {
            Ok(found) => Ok(found.map(|(code, value)| (code.name(), value))),
            Err(Miss::Ambiguous(reason)) => {
                Err(PyErr::from_value(ambiguous(py)?.call1((reason,))?))
            }
            Err(Miss::Refused(error)) => error.map_or(Ok(None), Err),
            Err(Miss::Error(error)) => match error.kind {
                ReadErrorKind::Host(error) => Err(error),
                kind => Err(PyValueError::new_err(kind.code())),
            },
        }
    })
}

/// The steps that `json_repair` takes for a text, up to the bound of the core.
#[pyfunction]
pub(crate) fn guess_steps(text: &Bound<'_, PyString>) -> PyResult<u64> {
    Ok(guess(chars_of(text)?).1)
}

fn chars_of(text: &Bound<'_, PyString>) -> PyResult<Vec<u32>> {
    match text.to_str() {
        Ok(text) => Ok(text.chars().map(u32::from).collect()),
        Err(_) => code_points_of(text),
    }
}

/// From the first brace of a text that is closed again to where it is closed.
#[pyfunction]
pub(crate) fn braced(text: &str) -> Option<&str> {
    core::braced(text)
}

/// The list or dict in a text that is JSON broken in one of the usual ways, and whether it was cut off; None for
/// any other text.
#[pyfunction]
pub(crate) fn repair_json<'py>(
    text: &Bound<'py, PyString>,
) -> PyResult<Option<(Bound<'py, PyAny>, bool)>> {
    guarded(text.py(), || {
        // Half of a surrogate pair is Python's to judge.
        let Some(repaired) = text.to_str().ok().and_then(repair) else {
            return Ok(None);
        };
        let value = to_python(text.py(), &repaired.value)?;
        Ok(Some((value, repaired.cut_off)))
    })
}

/// What `json_repair` makes of any other text that is no JSON, and the steps that took.
///
/// A `RecursionError` says that it nests too deep, a `ValueError` that `json_repair` fails, and a `ReplyError`
/// that it would take too many steps.
#[pyfunction]
pub(crate) fn guess_json<'py>(text: &Bound<'py, PyString>) -> PyResult<(Bound<'py, PyAny>, u64)> {
    let py = text.py();
    let (found, steps) = guess(chars_of(text)?);
    match found {
        Ok(value) => Ok((guess_to_python(py, &value)?, steps)),
        Err(Refusal::TooCostly) => {
            let kind = ReadErrorKind::<PyErr>::TooCostly(None);
            let message = kind.message(&[]);
            Err(errors::raise(
                py,
                "ReplyError",
                &message,
                kind.code(),
                kind.hint(),
            ))
        }
        Err(Refusal::TooDeep) => Err(PyRecursionError::new_err("it is nested too deep")),
        Err(Refusal::Invalid) => Err(PyValueError::new_err("it cannot be made whole")),
    }
}
