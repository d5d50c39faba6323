//! `markers="warn"`: what is done about values that hold field markers, in prompts and in templates.

use dspex_core::prompt::Markers;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors;
use crate::imports::REPORT_MARKERS;
use crate::words::Choice;

/// The policies of `dspex._engine.markers`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Nobody looks for markers, as in DSPy.
    Dspy,
    /// They are logged.
    Warn,
    /// They are an error.
    Reject,
    /// They are written so that they are none any more.
    Escape,
}

impl Choice for Policy {
    const WHAT: &str = "policy";
    const WORDS: &[(&str, Self)] = &[
        ("dspy", Self::Dspy),
        ("warn", Self::Warn),
        ("reject", Self::Reject),
        ("escape", Self::Escape),
    ];
}

impl Policy {
    /// The core's part of it.
    pub(crate) fn markers(self) -> Markers {
        match self {
            Self::Dspy => Markers::AsIs,
            Self::Warn | Self::Reject => Markers::Report,
            Self::Escape => Markers::Escape,
        }
    }

    /// Log that a value holds so many markers, or raise: the value of `field`, or one for a template.
    pub(crate) fn report(self, py: Python<'_>, field: Option<&str>, count: usize) -> PyResult<()> {
        match self {
            Self::Dspy | Self::Escape => Ok(()),
            Self::Warn => REPORT_MARKERS.call(py, (field, count)).map(drop),
            Self::Reject => Err(rejected(py, field, count)?),
        }
    }
}

fn rejected(py: Python<'_>, field: Option<&str>, count: usize) -> PyResult<PyErr> {
    let details = PyDict::new(py);
    details.set_item("count", count)?;
    let (whose, who) = match field {
        Some(field) => {
            details.set_item("field", field)?;
            (format!("the value of `{field}`"), "adapter")
        }
        None => ("a value for the template".to_owned(), "template"),
    };
    Ok(errors::raise_with(
        py,
        "InputError",
        &format!("{whose} holds a field marker"),
        "injected-marker",
        &format!("clean the value, or let the {who} do it with markers=\"escape\""),
        &details,
    ))
}
