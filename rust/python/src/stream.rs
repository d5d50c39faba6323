//! `_core.ReplyStream`: a reply that is read as it comes in.

use dspex_core::prompt::Layout;
use dspex_core::response::Value;
use dspex_core::response::stream::{self, Event};
use dspex_core::types::Type;
use jiter::{JsonValue, PartialMode};
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyModule, PyString};

use crate::prompt::Plan;
use crate::response;
use crate::value::{text_of, to_python};

/// Reads one reply; to be fed by one thread at a time.
#[pyclass(module = "dspex._core")]
pub(crate) struct ReplyStream {
    plan: Py<Plan>,
    stream: stream::ReplyStream,
    /// All that has come.
    bytes: Vec<u8>,
}

impl ReplyStream {
    pub(crate) fn new(plan: &Bound<'_, Plan>) -> Self {
        let this = plan.get();
        let outputs = this.signature.core.outputs();
        // An optional text is as good as a text: nothing else can come of it.
        let is_text = |ty: &Type| match ty {
            Type::Str => true,
            Type::Union { members, .. } => {
                members.len() == 2 && members.contains(&Type::Str) && members.contains(&Type::None)
            }
            _ => false,
        };
        let names: Vec<(&str, bool)> = outputs
            .iter()
            .map(|field| (&*field.name, is_text(&field.ty)))
            .collect();
        let stream = stream::ReplyStream::new(this.compiled.layout(), &names, !this.tolerant);
        Self {
            plan: plan.clone().unbind(),
            stream,
            bytes: Vec::new(),
        }
    }

    fn told<'py>(&self, py: Python<'py>, events: Vec<Event>) -> PyResult<Bound<'py, PyList>> {
        let module = py.import(intern!(py, "dspex.adapters.events"))?;
        let told = PyList::empty(py);
        for event in events {
            if let Some(event) = self.tell(&module, &event)? {
                told.append(event)?;
            }
        }
        Ok(told)
    }

    fn tell<'py>(
        &self,
        module: &Bound<'py, PyModule>,
        event: &Event,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = module.py();
        let plan = self.plan.get();
        let name = |at: usize| &plan.names[plan.compiled.outputs()[at].index];
        let event = match event {
            Event::Start(at) => module.call_method1(intern!(py, "FieldStart"), (name(*at),))?,
            Event::Text(at, text) => {
                module.call_method1(intern!(py, "TextDelta"), (name(*at), text))?
            }
            Event::End(at) => module.call_method1(intern!(py, "FieldEnd"), (name(*at),))?,
            Event::Value(at, text) => {
                let grows = !matches!(
                    plan.signature.core.outputs()[*at].ty,
                    Type::Int | Type::Float | Type::Bool | Type::None | Type::Literal(_)
                );
                if plan.compiled.layout() == Layout::Xml || !grows || !text.starts_with(['[', '{'])
                {
                    return Ok(None);
                }
                let part = JsonValue::parse_with_config(
                    text.as_bytes(),
                    true,
                    PartialMode::TrailingStrings,
                );
                let Ok(part) = part else { return Ok(None) };
                let value = to_python(py, &Value::from(&part))?;
                module.call_method1(intern!(py, "PartialValue"), (name(*at), value))?
            }
        };
        Ok(Some(event))
    }
}

#[pymethods]
impl ReplyStream {
    /// What the next piece of the reply says, as bytes cut anywhere or as text.
    fn feed<'py>(&mut self, piece: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        let bytes = if let Ok(bytes) = piece.cast::<PyBytes>() {
            bytes.as_bytes()
        } else if let Ok(text) = piece.cast::<PyString>() {
            text_of(text)?.as_bytes()
        } else {
            return Err(PyTypeError::new_err("a piece of a reply is bytes or text"));
        };
        self.bytes.extend_from_slice(bytes);
        let events = self.stream.feed(bytes);
        self.told(piece.py(), events)
    }

    /// What was still held back; the reply is over.
    fn finish<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let events = self.stream.finish();
        self.told(py, events)
    }

    /// The output fields of all that has come, and what was done before it could be read: `Plan.read` of it.
    fn read<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyDict>, Bound<'py, PyList>)> {
        let reply = PyString::new(py, &String::from_utf8_lossy(&self.bytes));
        response::read(self.plan.get(), &reply)
    }
}
