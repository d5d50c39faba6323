//! Replies: what `Plan.parse` does.

use std::borrow::Cow;

use dspex_core::prompt::Layout;
use dspex_core::response::{
    Reading, Refusal, Repaired, Value, guess, read_json, read_text, read_xml, repair, sections,
};
use dspex_core::signature::Default;
use jiter::JsonValue;
use pyo3::exceptions::{PyException, PyRecursionError, PySyntaxError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyModule, PyString};

use crate::dialect::Dialect;
use crate::errors;
use crate::guard::guarded;
use crate::prompt::Plan;
use crate::value::{code_points_of, guess_to_python, text_of, to_python, units_of};

/// The output fields of `reply`, in the signature's order, and what was done to it before it could be read.
pub(crate) fn read<'py>(
    plan: &Plan,
    reply: &Bound<'py, PyString>,
) -> PyResult<(Bound<'py, PyDict>, Bound<'py, PyList>)> {
    if reply.to_str().is_err() {
        // Halves of surrogate pairs: side by side they are one character, alone U+FFFD.
        let mended = String::from_utf16_lossy(&units_of(reply)?);
        return read_mended(plan, reply.py(), &mended);
    }
    let mut reader = Reader::new(plan, reply);
    let read = reader.strictly();
    if !plan.tolerant {
        read?;
        return Ok((reader.finish()?, PyList::empty(reply.py())));
    }
    match read {
        Ok(()) if !reader.leaked && reader.values.iter().all(Option::is_some) => {
            let done = reader.done(|_| true)?;
            Ok((reader.finish()?, done))
        }
        Err(error) if !errors::is(reply.py(), &error, "ReplyError") => Err(error),
        Err(error) if is_too_costly(reply.py(), &error) => Err(error),
        read => reader.tolerantly(read.err()),
    }
}

/// The same of a reply that had halves of surrogate pairs, which is noted first of all.
pub(crate) fn read_mended<'py>(
    plan: &Plan,
    py: Python<'py>,
    reply: &str,
) -> PyResult<(Bound<'py, PyDict>, Bound<'py, PyList>)> {
    let (fields, repairs) = read(plan, &PyString::new(py, reply))?;
    if plan.tolerant {
        repairs.insert(0, repair_of(py, "", "surrogate", &shown(reply))?)?;
    }
    Ok((fields, repairs))
}

/// The value of one output, of which `raw` is all the text that a reply has; None if it is none of its type.
pub(crate) fn read_one<'py>(
    py: Python<'py>,
    plan: &Plan,
    place: usize,
    raw: &str,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let ty = &plan.signature.get().core.outputs()[place].ty;
    let name = &plan.compiled.outputs()[place].name;
    let reply = match plan.compiled.layout() {
        Layout::Xml => format!("<{name}>{raw}</{name}>"),
        Layout::Chat | Layout::Json => raw.to_owned(),
    };
    let reply = PyString::new(py, &reply);
    let mut reader = Reader::new(plan, &reply);
    let value = match plan.compiled.layout() {
        Layout::Chat => match read_text(raw, ty, plan.compiled.dialect()).value() {
            Some(value) => to_python(py, &value),
            None => reader.in_python(place, &reply),
        },
        Layout::Json => {
            let Ok(json) = JsonValue::parse(raw.as_bytes(), true) else {
                return Ok(None);
            };
            let mut json = json.into();
            match read_json(&mut json, ty, plan.compiled.dialect()).value() {
                Some(value) => to_python(py, &value),
                None => to_python(py, &json).and_then(|json| reader.in_python(place, &json)),
            }
        }
        Layout::Xml => match reader.xml() {
            Ok(()) => return Ok(reader.values[place].take()),
            Err(error) => Err(error),
        },
    };
    match value {
        Ok(value) => Ok(Some(value)),
        Err(error) if errors::is(py, &error, "ReplyError") => Ok(None),
        Err(error) => Err(error),
    }
}

/// What `dspex.adapters.tolerant.read` gives: values, repairs, and a field without a value, with the reason.
type Tolerant<'py> = (
    Bound<'py, PyDict>,
    Bound<'py, PyList>,
    Option<(String, String)>,
);

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

/// The code of the error for a reply whose repair would take too many steps.
const TOO_COSTLY: &str = "reply-too-costly";
const COSTLY: &str = "the broken JSON in the reply would take too many steps to make whole";
const WHERE: &str =
    "look at the reply, and ask again: no ordinary reply comes near the bound in docs/adapters.md";

/// Whether an error says that a repair would take too many steps: then nothing else is tried.
fn is_too_costly(py: Python<'_>, error: &PyErr) -> bool {
    let code = || error.value(py).getattr(intern!(py, "code"))?.eq(TOO_COSTLY);
    errors::is(py, error, "ReplyError") && code().unwrap_or(false)
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
        Err(Refusal::TooCostly) => Err(errors::raise(py, "ReplyError", COSTLY, TOO_COSTLY, WHERE)),
        Err(Refusal::TooDeep) => Err(PyRecursionError::new_err("it is nested too deep")),
        Err(Refusal::Invalid) => Err(PyValueError::new_err("it cannot be made whole")),
    }
}

/// The module that reads what Rust does not.
fn replies(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import(intern!(py, "dspex.adapters.replies"))
}

/// One reply being read.
struct Reader<'a, 'py> {
    plan: &'a Plan,
    reply: &'a Bound<'py, PyString>,
    /// The value of each output, as far as there is one.
    values: Vec<Option<Bound<'py, PyAny>>>,
    /// Whether a part of a header is in a value, as it is in DSPy where a header is indented.
    leaked: bool,
    /// What was done that DSPy does too: for which output, or for the reply as a whole, what, and to which text.
    done: Vec<(Option<usize>, Cow<'static, str>, String)>,
}

/// As much of a text as a repair shows.
fn shown(text: &str) -> String {
    const SHOWN: usize = 80;
    text.chars().take(SHOWN).collect()
}

/// A `dspex.prediction.Repair`.
fn repair_of<'py>(
    py: Python<'py>,
    field: &str,
    code: &str,
    found: &str,
) -> PyResult<Bound<'py, PyAny>> {
    let module = py.import(intern!(py, "dspex.prediction"))?;
    module.call_method1(intern!(py, "Repair"), (field, code, found))
}

/// What is done to broken JSON, by whether it was cut off.
fn code(cut_off: bool) -> &'static str {
    if cut_off { "cut-off" } else { "json" }
}

impl<'a, 'py> Reader<'a, 'py> {
    fn new(plan: &'a Plan, reply: &'a Bound<'py, PyString>) -> Self {
        let values = plan.compiled.outputs().iter().map(|_| None).collect();
        Self {
            plan,
            reply,
            values,
            leaked: false,
            done: Vec::new(),
        }
    }

    /// As DSPy reads it.
    fn strictly(&mut self) -> PyResult<()> {
        match self.plan.compiled.layout() {
            Layout::Chat => self.chat(),
            Layout::Json => self.json(),
            Layout::Xml => self.xml(),
        }
    }

    /// As a person reads it, `refusal` being what DSPy makes of it.
    fn tolerantly(
        mut self,
        refusal: Option<PyErr>,
    ) -> PyResult<(Bound<'py, PyDict>, Bound<'py, PyList>)> {
        let py = self.reply.py();
        let slots = self.plan.compiled.outputs();
        let fields = slots
            .iter()
            .map(|slot| {
                Ok((
                    &*slot.name,
                    self.plan.signature.get().annotation(py, slot.index)?,
                ))
            })
            .collect::<PyResult<Vec<_>>>()?;
        let layout = match self.plan.compiled.layout() {
            Layout::Chat => "chat",
            Layout::Json => "json",
            Layout::Xml => "xml",
        };
        let module = py.import(intern!(py, "dspex.adapters.tolerant"))?;
        let read = module.call_method1(
            intern!(py, "read"),
            (layout, fields, self.reply, self.dialect()),
        );
        let read = read.map_err(|error| self.costly(None, error))?;
        let (values, repairs, problem): Tolerant<'py> = read.extract()?;
        // What was read again brings its own repairs along.
        let kept = refusal.is_none();
        let again = |place: Option<usize>| {
            let name = place.map(|place| &*slots[place].name);
            name.is_none_or(|name| values.contains(name).unwrap_or(false))
        };
        for done in self.done(|place| kept && !again(place))? {
            repairs.append(done)?;
        }
        for (slot, value) in slots.iter().zip(&mut self.values) {
            if let Some(found) = values.get_item(&*slot.name)? {
                *value = Some(found);
            } else if refusal.is_some() {
                *value = None;
            }
        }
        let problem =
            problem.map(|(field, reason)| (self.place(&field).unwrap_or_default(), reason));
        match (refusal, problem) {
            (Some(refusal), Some((place, reason))) => {
                Err(self.no_value(place, &reason, refusal.cause(py).or(Some(refusal))))
            }
            // Nothing more was found than DSPy finds: its error says what is wrong.
            (Some(refusal), None) if values.is_empty() => Err(refusal),
            (None, Some((place, reason))) if !reason.is_empty() && self.is_missing(place) => {
                Err(self.no_value(place, &reason, None))
            }
            _ => Ok((self.finish()?, repairs)),
        }
    }

    fn dialect(&self) -> Dialect {
        Dialect(self.plan.compiled.dialect())
    }

    /// Something was done to a text, which counts where somebody asked.
    fn did(&mut self, place: Option<usize>, code: impl Into<Cow<'static, str>>, text: &str) {
        if self.plan.tolerant {
            self.done.push((place, code.into(), shown(text)));
        }
    }

    /// What was done for the reply as a whole and for some of the outputs, as Python has it.
    fn done(&self, wanted: impl Fn(Option<usize>) -> bool) -> PyResult<Bound<'py, PyList>> {
        let py = self.reply.py();
        let list = PyList::empty(py);
        for (place, code, found) in self.done.iter().filter(|(place, ..)| wanted(*place)) {
            let field = place.map_or("", |place| &*self.plan.compiled.outputs()[place].name);
            list.append(repair_of(py, field, code, found)?)?;
        }
        Ok(list)
    }

    /// The value of an output that was read, or None if Python has to read it.
    fn value_of(
        &mut self,
        place: usize,
        read: Reading<'_>,
        text: &str,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        if let Reading::Repaired(_, cut_off) = read {
            self.did(Some(place), code(cut_off), text);
        }
        let value = read.value();
        value
            .map(|value| to_python(self.reply.py(), &value))
            .transpose()
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.plan
            .compiled
            .outputs()
            .iter()
            .position(|slot| &*slot.name == name)
    }

    fn chat(&mut self) -> PyResult<()> {
        let py = self.reply.py();
        let found = sections(text_of(self.reply)?, |name| self.place(name));
        for section in found {
            self.leaked |= section.indented;
            let read = read_text(
                &section.text,
                &self.plan.signature.get().core.outputs()[section.field].ty,
                self.plan.compiled.dialect(),
            );
            let value = match self.value_of(section.field, read, &section.text)? {
                Some(value) => value,
                None => self.in_python(section.field, PyString::new(py, &section.text).as_any())?,
            };
            self.values[section.field] = Some(value);
        }
        Ok(())
    }

    fn json(&mut self) -> PyResult<()> {
        let reply = text_of(self.reply)?;
        if let Ok(json @ JsonValue::Object(_)) = JsonValue::parse(reply.as_bytes(), true)
            && let Value::Map(entries) = json.into()
        {
            return self.entries(entries);
        }
        match repair(reply) {
            Some(Repaired {
                value: Value::Map(entries),
                cut_off,
            }) => {
                self.did(None, code(cut_off), reply);
                self.entries(entries)
            }
            _ => self.json_in_python(),
        }
    }

    fn entries(&mut self, mut entries: Vec<(Cow<'_, str>, Value<'_>)>) -> PyResult<()> {
        let py = self.reply.py();
        // Of a name that comes twice the last value counts, at the place of the first.
        let mut last: Vec<Option<usize>> = vec![None; self.values.len()];
        let mut places = Vec::new();
        for (at, (name, _)) in entries.iter().enumerate() {
            if let Some(place) = self.place(name) {
                if last[place].is_none() {
                    places.push(place);
                }
                last[place] = Some(at);
            }
        }
        for place in places {
            let Some(at) = last[place] else { continue };
            let json = &mut entries[at].1;
            let ty = &self.plan.signature.get().core.outputs()[place].ty;
            let read = read_json(json, ty, self.plan.compiled.dialect());
            let text = match json {
                Value::Str(text) => &**text,
                _ => "",
            };
            let value = match self.value_of(place, read, text)? {
                Some(value) => value,
                None => self.in_python(place, &to_python(py, json)?)?,
            };
            self.values[place] = Some(value);
        }
        Ok(())
    }

    /// A reply that is not one JSON object: repaired, or searched for one.
    fn json_in_python(&mut self) -> PyResult<()> {
        let py = self.reply.py();
        let read = replies(py)?
            .call_method1(intern!(py, "json_object"), (self.reply,))
            .map_err(|error| self.costly(None, error))?;
        let (object, code): (Bound<'py, PyAny>, Option<String>) = read.extract()?;
        let Ok(object) = object.cast_into::<PyDict>() else {
            return Err(self.error(
                "the reply holds no JSON object",
                "reply-not-json",
                "ask for JSON more plainly, or let the adapter retry",
                None,
            ));
        };
        if let Some(code) = code {
            self.did(None, code, text_of(self.reply)?);
        }
        for (name, value) in object {
            let Some(place) = name
                .cast::<PyString>()
                .ok()
                .and_then(|name| self.place(name.to_str().ok()?))
            else {
                continue;
            };
            self.values[place] = Some(self.in_python(place, &value)?);
        }
        Ok(())
    }

    fn xml(&mut self) -> PyResult<()> {
        let outputs = self.plan.signature.get().core.outputs();
        let Some(values) = read_xml(text_of(self.reply)?, outputs, self.plan.compiled.dialect())
        else {
            return self.xml_in_python();
        };
        for (place, read) in values.into_iter().enumerate() {
            if let Some(read) = read {
                self.values[place] = self.value_of(place, read, text_of(self.reply)?)?;
            }
        }
        Ok(())
    }

    /// A reply that is not plain XML, or whose values take a conversion.
    fn xml_in_python(&mut self) -> PyResult<()> {
        let py = self.reply.py();
        let reader = py
            .import(intern!(py, "dspex.adapters.xml"))?
            .call_method1(intern!(py, "XmlReply"), (self.reply,))
            .map_err(|error| {
                if !error.is_instance_of::<PySyntaxError>(py) {
                    return error;
                }
                let message = format!("the reply is no XML: {}", error.value(py));
                self.error(
                    &message,
                    "reply-not-xml",
                    "the text between tags needs `&amp;` and `&lt;` for `&` and `<`",
                    None,
                )
            })?;
        for place in 0..self.values.len() {
            let slot = &self.plan.compiled.outputs()[place];
            let annotation = self.plan.signature.get().annotation(py, slot.index)?;
            let found = reader.call_method1(
                intern!(py, "read"),
                (&*slot.name, annotation, self.dialect()),
            );
            // The values, none or one, with what was done for each.
            let found: Vec<(Bound<'py, PyAny>, Option<String>)> = found
                .map_err(|error| self.wrong_value(place, error))?
                .extract()?;
            for (value, code) in found {
                self.values[place] = Some(value);
                if let Some(code) = code {
                    self.did(Some(place), code, text_of(self.reply)?);
                }
            }
        }
        Ok(())
    }

    /// The value as DSPy reads it.
    fn in_python(&mut self, place: usize, raw: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = raw.py();
        let annotation = self
            .plan
            .signature
            .get()
            .annotation(py, self.plan.compiled.outputs()[place].index)?;
        let read = replies(py)?
            .call_method1(intern!(py, "read_value"), (raw, annotation, self.dialect()))
            .map_err(|error| self.wrong_value(place, error))?;
        let (value, code): (Bound<'py, PyAny>, Option<String>) = read.extract()?;
        if let Some(code) = code {
            // What `json_repair` makes of an escaped pair is two halves.
            let text = raw.cast::<PyString>().map(PyStringMethods::to_string_lossy);
            self.did(Some(place), code, &text.unwrap_or_default());
        }
        Ok(value)
    }

    /// The error for a value that is none of its type; any other error as it is. Types of DSPy's say so with a
    /// `TypeError` too.
    fn wrong_value(&self, place: usize, error: PyErr) -> PyErr {
        let py = self.reply.py();
        if is_too_costly(py, &error) {
            return self.costly(Some(place), error);
        }
        let refuses = if self.plan.compiled.dialect().any_error_refuses {
            error.is_instance_of::<PyException>(py)
        } else {
            error.is_instance_of::<PyValueError>(py) || error.is_instance_of::<PyTypeError>(py)
        };
        if !refuses {
            return error;
        }
        self.no_value(place, "", Some(error))
    }

    /// An error that says that a repair would take too many steps, as one of this reply; any other as it is.
    fn costly(&self, place: Option<usize>, error: PyErr) -> PyErr {
        if !is_too_costly(self.reply.py(), &error) {
            return error;
        }
        let field = place.map(|place| &*self.plan.compiled.outputs()[place].name);
        self.error(COSTLY, TOO_COSTLY, WHERE, field)
    }

    fn no_value(&self, place: usize, reason: &str, cause: Option<PyErr>) -> PyErr {
        let field = &self.plan.signature.get().core.outputs()[place];
        let mut message = format!(
            "the reply's value for `{}` is no {}",
            field.name,
            field.ty.display_name()
        );
        if !reason.is_empty() {
            message.push_str(": ");
            message.push_str(reason);
        }
        let hint =
            "a wider type, such as `str`, takes any reply; a description can say what is wanted";
        let error = self.error(&message, "reply-field-value", hint, Some(&field.name));
        error.set_cause(self.reply.py(), cause);
        error
    }

    /// Whether an output has no value and must have one.
    fn is_missing(&self, place: usize) -> bool {
        let field = &self.plan.signature.get().core.outputs()[place];
        let may_lack = field.default != Default::Required || field.ty.allows_none();
        self.values[place].is_none() && !may_lack
    }

    /// All values, with what stands in for those the reply may leave out.
    fn finish(self) -> PyResult<Bound<'py, PyDict>> {
        let py = self.reply.py();
        let outputs = PyDict::new(py);
        let mut missing = Vec::new();
        for (place, field) in self.plan.signature.get().core.outputs().iter().enumerate() {
            let slot = &self.plan.compiled.outputs()[place];
            let name = &self.plan.names[slot.index];
            match &self.values[place] {
                Some(value) => outputs.set_item(name, value)?,
                None if field.default != Default::Required => {
                    outputs.set_item(
                        name,
                        self.plan.signature.get().default_value(py, slot.index)?,
                    )?;
                }
                None if field.ty.allows_none() => outputs.set_item(name, py.None())?,
                None => missing.push(format!("`{}`", field.name)),
            }
        }
        if missing.is_empty() {
            return Ok(outputs);
        }
        let message = format!("the reply has no {}", missing.join(", "));
        Err(self.error(
            &message,
            "reply-missing-fields",
            "the model did not keep to the layout it was asked for",
            None,
        ))
    }

    fn error(&self, message: &str, code: &str, hint: &str, field: Option<&str>) -> PyErr {
        let py = self.reply.py();
        let names = self.plan.compiled.outputs().iter().zip(&self.values);
        let read = names
            .filter(|(_, value)| value.is_some())
            .map(|(slot, _)| &*slot.name);
        let details = PyDict::new(py);
        let filled = (|| {
            details.set_item("reply", self.reply)?;
            details.set_item("fields", PyList::new(py, read)?)?;
            details.set_item("field", field)
        })();
        match filled {
            Ok(()) => errors::raise_with(py, "ReplyError", message, code, hint, &details),
            Err(bug) => bug,
        }
    }
}
