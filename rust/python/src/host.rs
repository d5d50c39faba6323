//! Python as the host of the core's reader: what makes its values, coerces them and judges.

use dspex_core::response::{
    self as core, Choices, Coerced, Element, Entries, Guess, Host, HostError, HostJson, Kind,
    Mended, RepairCode, TOO_COSTLY, Target, Values,
};
use pyo3::call::PyCallArgs;
use pyo3::exceptions::{PyException, PyRecursionError, PySyntaxError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyModule, PyString};

use crate::dialect::Dialect;
use crate::errors;
use crate::prompt::Plan;
use crate::value::{guess_to_python, to_python, units_of};

/// Makes Python's values.
pub(crate) struct PyValues<'py>(pub(crate) Python<'py>);

impl<'py> Values for PyValues<'py> {
    type Value = Bound<'py, PyAny>;
    type Error = PyErr;

    fn make(&mut self, value: &core::Value<'_>) -> PyResult<Bound<'py, PyAny>> {
        to_python(self.0, value)
    }

    fn make_guess(&mut self, value: &Guess) -> PyResult<Bound<'py, PyAny>> {
        guess_to_python(self.0, value)
    }

    fn make_list(&mut self, item: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        Ok(PyList::new(self.0, [item])?.into_any())
    }

    fn kind(&mut self, value: &Bound<'py, PyAny>) -> PyResult<Kind> {
        Ok(if value.is_none() {
            Kind::None
        } else if let Ok(text) = value.cast::<PyString>() {
            Kind::Text(match text.to_str() {
                Ok(text) => text.to_owned(),
                Err(_) => mended(text)?,
            })
        } else if value.is_instance_of::<PyList>() {
            Kind::List
        } else {
            Kind::Other
        })
    }

    fn display(&mut self, value: &Bound<'py, PyAny>) -> PyResult<String> {
        mended(&value.str()?)
    }

    fn repr(&mut self, value: &Bound<'py, PyAny>) -> PyResult<String> {
        mended(&value.repr()?)
    }
}

/// Python, as the reader of one plan's replies asks it.
pub(crate) struct PyHost<'a, 'py> {
    plan: &'a Plan,
    py: Python<'py>,
    values: PyValues<'py>,
}

impl<'a, 'py> PyHost<'a, 'py> {
    pub(crate) fn new(plan: &'a Plan, py: Python<'py>) -> Self {
        let values = PyValues(py);
        Self { plan, py, values }
    }
}

impl<'py> PyHost<'_, 'py> {
    fn near_misses(&self) -> PyResult<Bound<'py, PyModule>> {
        self.py
            .import(intern!(self.py, "dspex._engine.near_misses"))
    }

    fn partial(
        &self,
        function: &Bound<'py, PyString>,
        arguments: impl PyCallArgs<'py>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let partial = self.py.import(intern!(self.py, "dspex._engine.partial"))?;
        // The values, none or one.
        let found: Vec<Bound<'py, PyAny>> = partial.call_method1(function, arguments)?.extract()?;
        Ok(found.into_iter().next())
    }

    fn dialect(&self) -> Dialect {
        Dialect(self.plan.compiled.dialect())
    }

    fn name(&self, output: usize) -> &str {
        &self.plan.compiled.outputs()[output].name
    }

    fn annotation(&self, output: usize) -> PyResult<Bound<'py, PyAny>> {
        let index = self.plan.compiled.outputs()[output].index;
        self.plan.signature.get().annotation(self.py, index)
    }

    fn type_of(&self, target: Target) -> PyResult<Bound<'py, PyAny>> {
        let annotation = self.annotation(target.output)?;
        if target.items == 0 {
            return Ok(annotation);
        }
        let arguments = (annotation, target.items);
        self.near_misses()?
            .call_method1(intern!(self.py, "type_of_items"), arguments)
    }

    /// What an exception says about the value that was read. Types of DSPy's say that it is none with a `TypeError`.
    fn judged(&self, error: PyErr) -> HostError<PyErr> {
        let code = || {
            error
                .value(self.py)
                .getattr(intern!(self.py, "code"))?
                .eq(TOO_COSTLY)
        };
        if errors::is(self.py, &error, "ReplyError") && code().unwrap_or(false) {
            HostError::TooCostly
        } else if error.is_instance_of::<PyValueError>(self.py)
            || error.is_instance_of::<PyTypeError>(self.py)
        {
            HostError::Refused(error)
        } else if error.is_instance_of::<PyException>(self.py) {
            HostError::Raised(error)
        } else {
            HostError::Failed(error)
        }
    }
}

/// The repair of this name, which Python names where it does one.
fn repair_code(name: &str) -> PyResult<RepairCode> {
    RepairCode::named(name).ok_or_else(|| PyValueError::new_err(format!("no such repair: {name}")))
}

fn coerced<'py>(read: &Bound<'py, PyAny>) -> PyResult<Coerced<Bound<'py, PyAny>>> {
    let (value, code): (Bound<'py, PyAny>, Option<String>) = read.extract()?;
    Ok((value, code.as_deref().map(repair_code).transpose()?))
}

impl<'py> Host for PyHost<'_, 'py> {
    type Value = Bound<'py, PyAny>;
    type Error = PyErr;
    type Values = PyValues<'py>;
    type Xml = Bound<'py, PyAny>;

    fn values(&mut self) -> &mut PyValues<'py> {
        &mut self.values
    }

    fn coerce(
        &mut self,
        target: Target,
        raw: &Bound<'py, PyAny>,
    ) -> Result<Coerced<Bound<'py, PyAny>>, HostError<PyErr>> {
        let read = || {
            let replies = self.py.import(intern!(self.py, "dspex._engine.replies"))?;
            let arguments = (raw, self.type_of(target)?, self.dialect());
            coerced(&replies.call_method1(intern!(self.py, "read_value"), arguments)?)
        };
        read().map_err(|error| self.judged(error))
    }

    fn mend(
        &mut self,
        target: Target,
        raw: &Bound<'py, PyAny>,
        refusal: &PyErr,
    ) -> Result<Option<Mended<Bound<'py, PyAny>>>, HostError<PyErr>> {
        let mend = || {
            let refusal = refusal.value(self.py);
            let arguments = (raw, self.type_of(target)?, self.dialect(), refusal);
            let found = self
                .near_misses()?
                .call_method1(intern!(self.py, "mended"), arguments)?;
            let found: Option<(Bound<'py, PyAny>, Vec<String>)> = found.extract()?;
            let Some((value, codes)) = found else {
                return Ok(None);
            };
            let codes = codes.iter().map(|code| repair_code(code));
            Ok(Some((value, codes.collect::<PyResult<_>>()?)))
        };
        mend().map_err(|error: PyErr| match ambiguous(self.py) {
            Ok(class) if error.is_instance(self.py, &class) => {
                HostError::Ambiguous(error.value(self.py).to_string())
            }
            Ok(_) => self.judged(error),
            Err(bug) => HostError::Failed(bug),
        })
    }

    fn choices(&mut self, target: Target) -> PyResult<Option<Choices<Bound<'py, PyAny>>>> {
        let annotation = self.type_of(target)?;
        let found = self
            .near_misses()?
            .call_method1(intern!(self.py, "choices"), (annotation,))?;
        choices_of(&found)
    }

    fn is_text(&mut self, output: usize) -> PyResult<bool> {
        let foreign = self
            .py
            .import(intern!(self.py, "dspex._engine.custom_types"))?;
        let annotation = self.annotation(output)?;
        foreign
            .call_method1(intern!(self.py, "is_text"), (annotation,))?
            .extract()
    }

    fn partial_json(
        &mut self,
        output: usize,
        value: Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.partial(
            intern!(self.py, "of_json"),
            (value, self.annotation(output)?),
        )
    }

    fn partial_xml(&mut self, output: usize, inside: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.partial(
            intern!(self.py, "of_xml"),
            (inside, self.annotation(output)?),
        )
    }

    fn parse_json(&mut self, text: &str) -> PyResult<HostJson<Bound<'py, PyAny>>> {
        let json = self.py.import(intern!(self.py, "json"))?;
        match json.call_method1(intern!(self.py, "loads"), (text,)) {
            Ok(value) => Ok(HostJson::Value(value)),
            Err(error) if error.is_instance_of::<PyValueError>(self.py) => Ok(HostJson::Invalid),
            Err(error) if error.is_instance_of::<PyRecursionError>(self.py) => {
                Ok(HostJson::TooDeep)
            }
            Err(error) => Err(error),
        }
    }

    fn entries(
        &mut self,
        value: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Entries<Bound<'py, PyAny>>>> {
        let Ok(dict) = value.cast::<PyDict>() else {
            return Ok(None);
        };
        let text = |key: Bound<'py, PyAny>| {
            let key = key.cast::<PyString>().ok()?;
            key.to_str().ok().map(str::to_owned)
        };
        let entries = dict
            .iter()
            .filter_map(|(key, value)| Some((text(key)?, value)));
        Ok(Some(entries.collect()))
    }

    fn parse_xml(&mut self, reply: &str) -> PyResult<Result<Bound<'py, PyAny>, String>> {
        let xml = self.py.import(intern!(self.py, "dspex._engine.xml"))?;
        match xml.call_method1(intern!(self.py, "XmlReply"), (reply,)) {
            Ok(reply) => Ok(Ok(reply)),
            Err(error) if error.is_instance_of::<PySyntaxError>(self.py) => {
                Ok(Err(error.value(self.py).to_string()))
            }
            Err(error) => Err(error),
        }
    }

    fn read_xml(
        &mut self,
        xml: &Bound<'py, PyAny>,
        output: usize,
    ) -> Result<Option<Coerced<Bound<'py, PyAny>>>, HostError<PyErr>> {
        let read = || {
            let arguments = (self.name(output), self.annotation(output)?, self.dialect());
            let found = xml.call_method1(intern!(self.py, "read"), arguments)?;
            // The values, none or one.
            let found: Vec<Bound<'py, PyAny>> = found.extract()?;
            found.first().map(coerced).transpose()
        };
        read().map_err(|error| self.judged(error))
    }

    fn nested_xml(
        &mut self,
        xml: &Bound<'py, PyAny>,
        output: usize,
        except: &[usize],
    ) -> PyResult<Bound<'py, PyAny>> {
        let except = except.iter().map(|at| self.name(*at));
        let except = PyList::new(self.py, except.collect::<Vec<_>>())?;
        xml.call_method1(intern!(self.py, "nested"), (self.name(output), except))
    }

    fn element(&mut self, xml: &Bound<'py, PyAny>, output: usize) -> PyResult<Option<Element>> {
        let found = xml.call_method1(intern!(self.py, "element"), (self.name(output),))?;
        let found: Option<(usize, String, bool)> = found.extract()?;
        Ok(found.map(|(count, text, has_children)| Element {
            count,
            text,
            has_children,
        }))
    }

    fn tree(
        &mut self,
        xml: &Bound<'py, PyAny>,
        output: usize,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let arguments = (self.name(output), self.annotation(output)?);
        let tree = xml.call_method1(intern!(self.py, "tree"), arguments)?;
        Ok((!tree.is_none()).then_some(tree))
    }
}

/// What Python raises for a text that could be read in two ways.
pub(crate) fn ambiguous(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    py.import(intern!(py, "dspex._engine.near_misses"))?
        .getattr(intern!(py, "AmbiguousError"))
}

pub(crate) fn choices_of<'py>(
    found: &Bound<'py, PyAny>,
) -> PyResult<Option<Choices<Bound<'py, PyAny>>>> {
    type Found<'py> = Option<(Vec<Bound<'py, PyAny>>, Vec<(String, usize)>)>;
    let found: Found<'py> = found.extract()?;
    Ok(found.map(|(values, names)| Choices { values, names }))
}

/// A text in which halves of surrogate pairs are one character where they are side by side, else U+FFFD.
pub(crate) fn mended(text: &Bound<'_, PyString>) -> PyResult<String> {
    Ok(String::from_utf16_lossy(&units_of(text)?))
}
