//! `_core.ReplyStream`: a reply that is read as it comes in.

use dspex_core::response::stream::{self, Event};
use dspex_core::response::{read_output, read_partial};
use pyo3::exceptions::PyTypeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyModule, PyString};

use crate::errors;
use crate::guard::guarded;
use crate::host::PyHost;
use crate::prompt::Plan;
use crate::response;
use crate::value::units_of;

/// What has been emitted of a field.
enum Emitted {
    Nothing,
    /// The deltas of its text, together.
    Text(String),
    /// Its value, or as much as there was of it.
    Value(Py<PyAny>, bool),
}

/// The output fields of a reply, and what was done to it before it could be read.
type Read<T, U> = (T, U);

/// Reads one reply; to be fed by one thread at a time.
#[pyclass(module = "dspex._core")]
pub(crate) struct ReplyStream {
    plan: Py<Plan>,
    stream: stream::ReplyStream,
    /// What the events say of where the reply is from: the predictor's path, and which of its turns.
    predictor: Py<PyString>,
    turn: u32,
    /// All that has come.
    bytes: Vec<u8>,
    /// The first half of a surrogate pair, whose second half the next text may begin with.
    half: Option<u16>,
    /// Whether halves came.
    mended: bool,
    emitted: Vec<Emitted>,
    /// The whole reply, once it is over and could be read.
    read: Option<Read<Py<PyDict>, Py<PyList>>>,
}

impl ReplyStream {
    pub(crate) fn new(
        plan: &Bound<'_, Plan>,
        predictor: &Bound<'_, PyString>,
        turn: u32,
    ) -> PyResult<Self> {
        let py = plan.py();
        let this = plan.get();
        let (reading, mut host) = (this.reading(), PyHost::new(this, py));
        let fields = reading.outputs.iter().enumerate();
        let names = fields
            .map(|(output, field)| Ok((&*field.name, reading.is_text(output, &mut host)?)))
            .collect::<PyResult<Vec<(&str, bool)>>>()?;
        let stream = stream::ReplyStream::new(this.compiled.layout(), &names, this.tolerant);
        Ok(Self {
            plan: plan.clone().unbind(),
            stream,
            predictor: predictor.clone().unbind(),
            turn,
            bytes: Vec::new(),
            half: None,
            mended: false,
            emitted: names.iter().map(|_| Emitted::Nothing).collect(),
            read: None,
        })
    }

    fn emit<'py>(&mut self, py: Python<'py>, events: Vec<Event>) -> PyResult<Bound<'py, PyList>> {
        let module = events_module(py)?;
        let list = PyList::empty(py);
        let from = (self.predictor.clone_ref(py), self.turn);
        let from = (&from.0, from.1);
        for event in events {
            let plan = self.plan.bind(py).get();
            let name = |at: usize| &plan.names[plan.compiled.outputs()[at].index];
            match event {
                Event::Start { field: at } => {
                    let start = (name(at), from.0, from.1);
                    list.append(module.call_method1(intern!(py, "FieldStart"), start)?)?;
                }
                Event::Text {
                    field: at,
                    text,
                    is_last,
                } => {
                    let delta = (name(at), &text, is_last, from.0, from.1);
                    list.append(module.call_method1(intern!(py, "TextDelta"), delta)?)?;
                    match &mut self.emitted[at] {
                        Emitted::Text(emitted) => emitted.push_str(&text),
                        emitted => *emitted = Emitted::Text(text),
                    }
                }
                Event::Value {
                    field: at,
                    text,
                    is_last,
                } => {
                    let (reading, mut host) = (plan.reading(), PyHost::new(plan, py));
                    let value = if is_last {
                        read_output(reading, at, &text, &mut host)?
                    } else {
                        read_partial(reading, at, &text, &mut host)?
                    };
                    let Some(value) = value else { continue };
                    if let Emitted::Value(emitted, false) = &self.emitted[at]
                        && !is_last
                        && emitted.bind(py).eq(&value)?
                    {
                        continue;
                    }
                    let part = (name(at), &value, is_last, from.0, from.1);
                    list.append(module.call_method1(intern!(py, "PartialValue"), part)?)?;
                    self.emitted[at] = Emitted::Value(value.unbind(), is_last);
                }
                Event::End {
                    field: at,
                    complete,
                } => {
                    let end = (name(at), complete, from.0, from.1);
                    list.append(module.call_method1(intern!(py, "FieldEnd"), end)?)?;
                }
            }
        }
        Ok(list)
    }

    /// Correct the fields of which the reply as a whole gives another value than was emitted.
    fn correct<'py>(&self, fields: &Bound<'py, PyDict>, list: &Bound<'py, PyList>) -> PyResult<()> {
        let py = list.py();
        let plan = self.plan.get();
        for (slot, emitted) in plan.compiled.outputs().iter().zip(&self.emitted) {
            let name = &plan.names[slot.index];
            let Some(value) = fields.get_item(name)? else {
                continue;
            };
            let same = match emitted {
                Emitted::Nothing | Emitted::Value(_, false) => false,
                // Not only a `str`: of some types of DSPy's the text is all there is.
                Emitted::Text(text) => !value.is_none() && value.str()?.as_any().eq(text)?,
                Emitted::Value(emitted, true) => {
                    let emitted = emitted.bind(py);
                    emitted.get_type().is(value.get_type()) && emitted.eq(&value)?
                }
            };
            if !same {
                let correction = (name, value, &self.predictor, self.turn);
                list.append(
                    events_module(py)?.call_method1(intern!(py, "Correction"), correction)?,
                )?;
            }
        }
        Ok(())
    }

    fn read_all<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<Read<Bound<'py, PyDict>, Bound<'py, PyList>>> {
        let reply = String::from_utf8_lossy(&self.bytes);
        let plan = self.plan.get();
        if self.mended {
            response::read_mended(plan, py, &reply)
        } else {
            response::read(plan, &PyString::new(py, &reply))
        }
    }
}

fn events_module(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import(intern!(py, "dspex.events"))
}

/// What has come.
impl ReplyStream {
    fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.bytes.extend_from_slice(bytes);
        self.stream.feed(bytes)
    }

    /// The half that was held back has no other.
    fn push_half(&mut self) -> Vec<Event> {
        match self.half.take() {
            Some(_) => self.push("\u{fffd}".as_bytes()),
            None => Vec::new(),
        }
    }

    /// A text with halves in it or before it. One that comes last is held back.
    fn push_units(&mut self, text: &Bound<'_, PyString>) -> PyResult<Vec<Event>> {
        self.mended = true;
        let mut units: Vec<u16> = self.half.take().into_iter().collect();
        units.extend(units_of(text)?);
        self.half = units.pop_if(|unit| (0xd800..0xdc00).contains(unit));
        Ok(self.push(String::from_utf16_lossy(&units).as_bytes()))
    }
}

#[pymethods]
impl ReplyStream {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.plan)?;
        for emitted in &self.emitted {
            if let Emitted::Value(value, _) = emitted {
                visit.call(value)?;
            }
        }
        if let Some((fields, repairs)) = &self.read {
            visit.call(fields)?;
            visit.call(repairs)?;
        }
        Ok(())
    }

    /// Values came later than the stream, and a validator may have put the stream into one.
    fn __clear__(&mut self) {
        for emitted in &mut self.emitted {
            *emitted = Emitted::Nothing;
        }
        self.read = None;
    }

    /// What the next piece of the reply says, as bytes cut anywhere or as text.
    fn feed<'py>(&mut self, piece: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        guarded(piece.py(), || {
            let events = if let Ok(bytes) = piece.cast::<PyBytes>() {
                let mut events = self.push_half();
                events.extend(self.push(bytes.as_bytes()));
                events
            } else if let Ok(text) = piece.cast::<PyString>() {
                match text.to_str() {
                    Ok(text) if self.half.is_none() => self.push(text.as_bytes()),
                    _ => self.push_units(text)?,
                }
            } else {
                return Err(PyTypeError::new_err("a piece of a reply is bytes or text"));
            };
            self.emit(piece.py(), events)
        })
    }

    /// What was still held back, and what was emitted otherwise than the whole reply is read; the reply is over.
    fn finish<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        guarded(py, || {
            let mut events = self.push_half();
            events.extend(self.stream.finish());
            let list = self.emit(py, events)?;
            if self.read.is_none() {
                match self.read_all(py) {
                    Ok((fields, repairs)) => {
                        self.correct(&fields, &list)?;
                        self.read = Some((fields.unbind(), repairs.unbind()));
                    }
                    // What cannot be read has no values to be compared with; `read` says why.
                    Err(error) if errors::is(py, &error, "ReplyError") => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(list)
        })
    }

    /// The output fields of all that has come, and what was done before it could be read: `Plan.read` of it.
    fn read<'py>(&self, py: Python<'py>) -> PyResult<Read<Bound<'py, PyDict>, Bound<'py, PyList>>> {
        guarded(py, || match &self.read {
            Some((fields, repairs)) => Ok((
                fields.bind(py).copy()?,
                repairs.bind(py).get_slice(0, usize::MAX),
            )),
            None => self.read_all(py),
        })
    }
}
