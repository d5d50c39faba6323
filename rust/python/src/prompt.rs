//! `_core.Plan`: a signature compiled for one adapter, which renders messages and reads replies.

use std::sync::atomic::{AtomicU64, Ordering};

use dspex_core::dialect::Dialect as CoreDialect;
use dspex_core::prompt::{
    self, Body, ExternalField, Layout, Record, Role, Sink, Slot, Turn, holds_block,
};
use dspex_core::signature::FieldKind;
use dspex_core::text::{JsonStyle, JsonWriter};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};

use crate::dialect::{Dialect, named};
use crate::guard::guarded;
use crate::imports::{
    BLOCKS_OF, DESCRIBE, DESCRIBE_NOTES, JSON_OF, MODULES, TOOL_TURN, TURNS_OF, XML_PATTERN,
};
use crate::markers::Policy;
use crate::response;
use crate::signature::{Compiled, Signature};
use crate::stream::ReplyStream;
use crate::value::{text_of, write, write_json};
use crate::words::{Choice, Word};

impl Choice for Layout {
    const WHAT: &str = "layout";
    const WORDS: &[(&str, Self)] = &[
        ("chat", Self::Chat),
        ("json", Self::Json),
        ("xml", Self::Xml),
    ];
}

/// A signature compiled for one adapter; immutable.
#[pyclass(frozen, module = "dspex._core")]
pub(crate) struct Plan {
    pub(crate) compiled: prompt::Plan,
    pub(crate) signature: Py<Compiled>,
    /// The names of all fields as Python strings, inputs first.
    pub(crate) names: Vec<Py<PyString>>,
    /// Whether replies are read with tolerance.
    pub(crate) tolerant: bool,
    markers: Policy,
    /// How many markers values have held.
    injected: AtomicU64,
    system: Py<PyString>,
}

#[pymethods]
impl Plan {
    /// Compile `signature` for the adapter of this name.
    #[new]
    #[pyo3(
        signature = (
            signature, layout, *, tolerant = false, markers = Word(Policy::Dspy), dialect = None
        ),
        text_signature = "(signature, layout, *, tolerant=False, markers='dspy', dialect=None)"
    )]
    fn new(
        py: Python<'_>,
        signature: &Bound<'_, Signature>,
        layout: Word<Layout>,
        tolerant: bool,
        markers: Word<Policy>,
        dialect: Option<&str>,
    ) -> PyResult<Self> {
        guarded(py, || {
            let dialect = named(dialect)?;
            let (Word(layout), Word(markers)) = (layout, markers);
            let signature = signature.get().0.clone_ref(py);
            let said = signature.get();
            let fields = said.core.fields();
            let external = (0..fields.len())
                .map(|index| {
                    let mut external = if fields[index].ty.is_native() {
                        ExternalField::default()
                    } else {
                        describe(py, said, index, layout)?
                    };
                    if dialect.noted_types {
                        external.types += &describe_notes(py, said, index)?;
                    }
                    Ok(external)
                })
                .collect::<PyResult<Vec<_>>>()?;
            let compiled = prompt::Plan::compile(&said.core, layout, &external, dialect)
                .with_markers(markers.markers());
            let system = PyString::new(py, compiled.system()).unbind();
            let names = fields
                .iter()
                .map(|field| PyString::intern(py, &field.name).unbind())
                .collect();
            Ok(Self {
                compiled,
                signature,
                names,
                tolerant,
                markers,
                injected: AtomicU64::new(0),
                system,
            })
        })
    }

    /// No `__clear__`: the signature was there before the plan, see [`Compiled`].
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.signature)
    }

    /// The messages of a call.
    #[pyo3(signature = (inputs, demos = None, history = None))]
    fn render<'py>(
        &self,
        inputs: &Bound<'py, PyAny>,
        demos: Option<&Bound<'py, PyAny>>,
        history: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        guarded(inputs.py(), || {
            let mut messages = Messages::new(self, inputs.py())?;
            self.write(inputs, demos, history, &mut messages)?;
            Ok(messages.list)
        })
    }

    /// The messages of a call as the JSON of a request's body; as a list where one of them is not a mere text.
    #[pyo3(signature = (inputs, demos = None, history = None))]
    fn body<'py>(
        &self,
        inputs: &Bound<'py, PyAny>,
        demos: Option<&Bound<'py, PyAny>>,
        history: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        guarded(inputs.py(), || {
            let py = inputs.py();
            let mut body = JsonBody {
                plan: self,
                py,
                body: Some(self.compiled.body()),
            };
            self.write(inputs, demos, history, &mut body)?;
            if let Some(body) = body.body {
                return Ok(PyBytes::new(py, body.finish().as_bytes()).into_any());
            }
            let mut messages = Messages::new(self, py)?;
            messages.reported = true;
            self.write(inputs, demos, history, &mut messages)?;
            Ok(messages.list.into_any())
        })
    }

    /// Raise and report what `render` would, and make no messages.
    #[pyo3(signature = (inputs, demos = None, history = None))]
    fn check(
        &self,
        inputs: &Bound<'_, PyAny>,
        demos: Option<&Bound<'_, PyAny>>,
        history: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        guarded(inputs.py(), || {
            let mut values = Checked {
                plan: self,
                py: inputs.py(),
            };
            self.write(inputs, demos, history, &mut values)
        })
    }

    /// The version of DSPy whose prompts these are.
    #[getter]
    fn dialect(&self) -> &'static str {
        self.compiled.dialect().name
    }

    /// Whether a field of the signature holds the turns of a conversation.
    #[getter]
    fn has_history(&self) -> bool {
        self.compiled.history().is_some()
    }

    /// How many field markers the values of all calls have held; not counted with the policy `dspy`.
    #[getter]
    fn injected_markers(&self) -> u64 {
        self.injected.load(Ordering::Relaxed)
    }

    /// The output fields of a reply.
    fn parse<'py>(&self, reply: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyDict>> {
        guarded(reply.py(), || {
            response::read(self, reply).map(|(fields, _)| fields)
        })
    }

    /// A reader for one reply that comes in piece by piece; its events name the predictor and its turn.
    #[pyo3(signature = (predictor=None, turn=0))]
    fn stream(
        this: &Bound<'_, Self>,
        predictor: Option<&Bound<'_, PyString>>,
        turn: u32,
    ) -> PyResult<ReplyStream> {
        let py = this.py();
        let predictor = predictor.unwrap_or(intern!(py, "self"));
        guarded(py, || ReplyStream::new(this, predictor, turn))
    }

    /// The output fields of a reply, and what was done to it before it could be read.
    fn read<'py>(
        &self,
        reply: &Bound<'py, PyString>,
    ) -> PyResult<(Bound<'py, PyDict>, Bound<'py, PyList>)> {
        guarded(reply.py(), || response::read(self, reply))
    }
}

impl Plan {
    /// Writes the messages of a call, but the system's, into `sink`.
    fn write<'py>(
        &self,
        inputs: &Bound<'py, PyAny>,
        demos: Option<&Bound<'py, PyAny>>,
        history: Option<&Bound<'py, PyAny>>,
        sink: &mut impl Sink<Error = PyErr>,
    ) -> PyResult<()> {
        let demos = match demos {
            None => Vec::new(),
            Some(demos) => demos
                .try_iter()?
                .map(|demo| Ok(self.record(demo?)))
                .collect::<PyResult<_>>()?,
        };
        let inputs = self.record(inputs.clone());
        let turns = self.turns(&inputs, history)?;
        self.compiled.render(&inputs, &demos, &turns, sink)
    }

    /// Deals with markers in the value of a field, as the policy says.
    fn report(&self, py: Python<'_>, name: &str, count: usize) -> PyResult<()> {
        self.injected.fetch_add(count as u64, Ordering::Relaxed);
        self.markers.report(py, Some(name), count)
    }

    fn record<'a, 'py>(&'a self, values: Bound<'py, PyAny>) -> PyRecord<'a, 'py> {
        PyRecord {
            names: &self.names,
            dialect: self.compiled.dialect(),
            values,
        }
    }

    /// The turns of the conversation: given, or in the field that the signature has for them.
    fn turns<'a, 'py>(
        &'a self,
        inputs: &PyRecord<'a, 'py>,
        history: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Vec<Turn<PyRecord<'a, 'py>>>> {
        let py = inputs.values.py();
        let messages = match (history, self.compiled.history()) {
            (Some(history), _) => history.clone(),
            (None, None) => return Ok(Vec::new()),
            (None, Some(at)) => match inputs.get(&self.compiled.inputs()[at])? {
                None => return Ok(Vec::new()),
                Some(history) => TURNS_OF.call(py, (history,))?,
            },
        };
        let turn = |message: PyResult<Bound<'py, PyAny>>| {
            let message = message?;
            if !may_hold_tool_calls(&message)? {
                return Ok(Turn {
                    values: self.record(message),
                    tool_results: None,
                });
            }
            let turn = TOOL_TURN.call(py, (message, Dialect(self.compiled.dialect())))?;
            let (values, tool_results) = turn.extract()?;
            Ok(Turn {
                values: self.record(values),
                tool_results,
            })
        };
        messages.try_iter()?.map(turn).collect()
    }
}

/// Whether a turn may hold calls of tools, whose results are a message of their own.
fn may_hold_tool_calls(message: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = message.py();
    let values = message.call_method0(intern!(py, "values"))?;
    for value in values.try_iter()? {
        let value = value?;
        if value.is_exact_instance_of::<PyString>() {
            continue;
        }
        if let Ok(dict) = value.cast::<PyDict>() {
            if dict.contains(intern!(py, "tool_calls"))? {
                return Ok(true);
            }
        } else if is_tool_calls(&value)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a value is a `dspy.ToolCalls`: by its class, as any other may answer to any name, or raise.
fn is_tool_calls(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = value.py();
    // Where DSPy is not loaded there is none.
    let Ok(module) = MODULES
        .get(py)?
        .get_item(intern!(py, "dspy.adapters.types.tool"))
    else {
        return Ok(false);
    };
    value.is_instance(&module.getattr(intern!(py, "ToolCalls"))?)
}

/// What Python says about a field whose type is not Rust's.
fn describe(
    py: Python<'_>,
    signature: &Compiled,
    index: usize,
    layout: Layout,
) -> PyResult<ExternalField> {
    let field = &signature.core.fields()[index];
    let is_output = field.kind == FieldKind::Output;
    let annotation = signature.annotation(py, index)?;
    let said = DESCRIBE.call(py, (&*field.name, is_output, &annotation))?;
    let (note, types, history, tool_calls) = said.extract()?;
    let pattern = if layout == Layout::Xml && is_output {
        XML_PATTERN
            .call(py, (&*field.name, annotation))?
            .extract()?
    } else {
        None
    };
    Ok(ExternalField {
        note,
        types,
        history,
        tool_calls,
        pattern,
    })
}

/// What the types say that stand beside a field's own.
fn describe_notes(py: Python<'_>, signature: &Compiled, index: usize) -> PyResult<String> {
    let Some(details) = signature.details(py, index) else {
        return Ok(String::new());
    };
    let notes = details.getattr(intern!(py, "notes"))?;
    if notes.is_empty()? {
        return Ok(String::new());
    }
    DESCRIBE_NOTES.call(py, (notes,))?.extract()
}

/// Values by name, in a dict or in anything that is like one.
struct PyRecord<'a, 'py> {
    names: &'a [Py<PyString>],
    dialect: &'static CoreDialect,
    values: Bound<'py, PyAny>,
}

impl<'py> Record for PyRecord<'_, 'py> {
    type Error = PyErr;
    type Value = Bound<'py, PyAny>;

    fn get(&self, slot: &Slot) -> PyResult<Option<Bound<'py, PyAny>>> {
        let name = self.names[slot.index].bind(self.values.py());
        if let Ok(dict) = self.values.cast_exact::<PyDict>() {
            dict.get_item(name)
        } else if self.values.contains(name)? {
            self.values.get_item(name).map(Some)
        } else {
            Ok(None)
        }
    }

    fn is_none(value: &Bound<'py, PyAny>) -> bool {
        value.is_none()
    }

    fn write(&self, slot: &Slot, value: &Bound<'py, PyAny>, out: &mut String) -> PyResult<()> {
        write(&slot.name, value, slot.style, self.dialect, out)
    }

    fn write_json(
        &self,
        slots: &[Slot],
        values: &[Option<Bound<'py, PyAny>>],
        missing: Option<&str>,
        out: &mut String,
    ) -> PyResult<()> {
        let start = out.len();
        let mut json = JsonWriter::new(out, JsonStyle::Indented);
        json.open('{');
        for (slot, value) in slots.iter().zip(values) {
            json.key(&slot.name);
            match (value, missing) {
                (Some(value), _) => {
                    if !write_json(value, &mut json)? {
                        out.truncate(start);
                        return self.write_json_in_python(slots, values, missing, out);
                    }
                }
                (None, Some(missing)) => json.string(missing),
                (None, None) => json.null(),
            }
        }
        json.close('}');
        Ok(())
    }
}

impl<'py> PyRecord<'_, 'py> {
    fn write_json_in_python(
        &self,
        slots: &[Slot],
        given: &[Option<Bound<'py, PyAny>>],
        missing: Option<&str>,
        out: &mut String,
    ) -> PyResult<()> {
        let py = self.values.py();
        let outputs = PyDict::new(py);
        for (slot, value) in slots.iter().zip(given) {
            let name = &self.names[slot.index];
            match value {
                Some(value) => outputs.set_item(name, value)?,
                None => outputs.set_item(name, missing)?,
            }
        }
        let text = JSON_OF.call(py, (outputs, Dialect(self.dialect)))?;
        out.push_str(text_of(text.cast()?)?);
        Ok(())
    }
}

/// The list of messages in the making.
struct Messages<'a, 'py> {
    plan: &'a Plan,
    list: Bound<'py, PyList>,
    /// Whether what the values hold has been reported before.
    reported: bool,
}

impl<'a, 'py> Messages<'a, 'py> {
    /// The list with the system message.
    fn new(plan: &'a Plan, py: Python<'py>) -> PyResult<Self> {
        let messages = Self {
            plan,
            list: PyList::empty(py),
            reported: false,
        };
        messages.push(intern!(py, "system"), plan.system.bind(py))?;
        Ok(messages)
    }

    fn push(&self, role: &Bound<'py, PyString>, content: &Bound<'py, impl Sized>) -> PyResult<()> {
        let message = PyDict::new(self.list.py());
        message.set_item(intern!(self.list.py(), "role"), role)?;
        message.set_item(intern!(self.list.py(), "content"), content.as_any())?;
        self.list.append(message)
    }
}

impl Sink for Messages<'_, '_> {
    type Error = PyErr;

    fn injected(&mut self, name: &str, count: usize) -> PyResult<()> {
        if self.reported {
            return Ok(());
        }
        self.plan.report(self.list.py(), name, count)
    }

    fn message(&mut self, role: Role, text: &str) -> PyResult<()> {
        let py = self.list.py();
        match role {
            Role::Assistant => self.push(intern!(py, "assistant"), &PyString::new(py, text)),
            Role::User if holds_block(text) => {
                let blocks = BLOCKS_OF.call(py, (text,))?;
                self.push(intern!(py, "user"), &blocks)
            }
            Role::User => self.push(intern!(py, "user"), &PyString::new(py, text)),
        }
    }
}

/// The body of a request in the making.
struct JsonBody<'a, 'py> {
    plan: &'a Plan,
    py: Python<'py>,
    /// None once there is a message that is not a mere text.
    body: Option<Body>,
}

impl Sink for JsonBody<'_, '_> {
    type Error = PyErr;

    fn injected(&mut self, name: &str, count: usize) -> PyResult<()> {
        self.plan.report(self.py, name, count)
    }

    fn message(&mut self, role: Role, text: &str) -> PyResult<()> {
        if role == Role::User && holds_block(text) {
            self.body = None;
        }
        if let Some(body) = &mut self.body {
            body.message(role, text);
        }
        Ok(())
    }
}

/// Takes what values have to say, and keeps no message.
struct Checked<'a, 'py> {
    plan: &'a Plan,
    py: Python<'py>,
}

impl Sink for Checked<'_, '_> {
    type Error = PyErr;

    fn injected(&mut self, name: &str, count: usize) -> PyResult<()> {
        self.plan.report(self.py, name, count)
    }

    fn message(&mut self, _role: Role, _text: &str) -> PyResult<()> {
        Ok(())
    }
}
