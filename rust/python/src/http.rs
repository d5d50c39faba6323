//! `_core.HttpReader` and `_core.EventReader`: the core's HTTP for a connection that Python holds.

use dspex_core::http::{EventReader as CoreEvents, Fault, Overlong, Progress, Reader, TextDelta};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};

/// Reads the answers of one connection, one after the other.
#[pyclass(module = "dspex._core")]
pub(crate) struct HttpReader {
    core: Reader,
    fault: Option<Fault>,
}

#[pymethods]
impl HttpReader {
    #[new]
    fn new() -> Self {
        Self {
            core: Reader::default(),
            fault: None,
        }
    }

    /// Gets ready for the next answer, whose body may have `room` bytes.
    #[pyo3(signature = (room = None))]
    fn begin(&mut self, room: Option<usize>) {
        self.core.begin(room.unwrap_or(usize::MAX));
        self.fault = None;
    }

    /// Takes the next bytes: 0 while the head is not whole, 1 while the body is not, 2 when the answer is, 3 if it is none.
    fn feed(&mut self, data: &[u8]) -> u8 {
        match self.core.feed(data) {
            Ok(Progress::Head) => 0,
            Ok(Progress::Body) => 1,
            Ok(Progress::Done) => 2,
            Err(fault) => {
                self.fault = Some(fault);
                3
            }
        }
    }

    /// The connection has ended: 2 if the answer is whole, else 3.
    fn end(&mut self) -> u8 {
        match self.core.end() {
            Ok(()) => 2,
            Err(fault) => {
                self.fault = Some(fault);
                3
            }
        }
    }

    /// Why the answer is none: `"malformed"`, `"overlong"` or `"cut"`, and the words for the first.
    #[getter]
    fn fault(&self) -> Option<(&'static str, &'static str)> {
        self.fault.map(|fault| match fault {
            Fault::NotHttp(why) => ("malformed", why),
            Fault::TooLong => ("overlong", ""),
            Fault::Cut => ("cut", ""),
        })
    }

    #[getter]
    fn status(&self) -> u16 {
        self.core.head().status
    }

    /// A field of the head, by its lower-case name; None where it is not there, or several times.
    fn header(&self, name: &str) -> Option<&str> {
        let mut found = self
            .core
            .head()
            .fields
            .iter()
            .filter(|(other, _)| other == name);
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Some(value),
            _ => None,
        }
    }

    /// Bytes of the body that have not been taken.
    #[getter]
    fn held(&self) -> usize {
        self.core.held()
    }

    /// The fields of the head by their lower-case names. What comes several times is joined by commas, as HTTP reads it.
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let fields = PyDict::new(py);
        for (name, value) in &self.core.head().fields {
            let name = PyString::new(py, name);
            match fields.get_item(&name)? {
                None => fields.set_item(name, value)?,
                Some(before) => {
                    let joined = format!("{}, {value}", before.extract::<String>()?);
                    fields.set_item(name, joined)?;
                }
            }
        }
        Ok(fields)
    }

    /// What has come of the body since it was last taken.
    fn take_body<'py>(&mut self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.core.take_body())
    }

    #[getter]
    fn has_begun(&self) -> bool {
        self.core.has_begun()
    }

    #[getter]
    fn is_reusable(&self) -> bool {
        self.core.is_reusable()
    }
}

/// Cuts server-sent events into their data.
#[pyclass(module = "dspex._core")]
pub(crate) struct EventReader {
    core: CoreEvents,
}

#[pymethods]
impl EventReader {
    #[new]
    fn new(limit: usize) -> Self {
        Self {
            core: CoreEvents::new(limit),
        }
    }

    /// The data of the events that `piece` completes, and whether an event was too long after them. What is not UTF-8 in them
    /// is replaced.
    fn feed<'py>(&mut self, py: Python<'py>, piece: &[u8]) -> PyResult<(Bound<'py, PyList>, bool)> {
        let events = PyList::empty(py);
        let mut failed = None;
        let overlong = self.core.feed(piece, |data| {
            let text = String::from_utf8_lossy(data);
            if let Err(error) = events.append(PyString::new(py, &text)) {
                failed.get_or_insert(error);
            }
        });
        match failed {
            Some(error) => Err(error),
            None => Ok((events, overlong == Err(Overlong))),
        }
    }

    /// The same for the events of a chat completion: in the place of those that carry text and nothing else, what they add,
    /// which generation it is and why it ended.
    fn feed_chat<'py>(
        &mut self,
        py: Python<'py>,
        piece: &[u8],
    ) -> PyResult<(Bound<'py, PyList>, bool)> {
        let events = PyList::empty(py);
        let mut failed = None;
        let overlong = self.core.feed(piece, |data| {
            let added = match TextDelta::read(data) {
                Some(delta) => events.append((delta.text, delta.index, delta.finish_reason)),
                None => events.append(PyString::new(py, &String::from_utf8_lossy(data))),
            };
            if let Err(error) = added {
                failed.get_or_insert(error);
            }
        });
        match failed {
            Some(error) => Err(error),
            None => Ok((events, overlong == Err(Overlong))),
        }
    }
}
