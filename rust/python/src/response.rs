//! Replies: what `Plan.parse` does.

use std::borrow::Cow;

use dspex_core::prompt::Layout;
use dspex_core::response::{
    Reading, Refusal, Repaired, Strict, Value, cut, guess, read_json, read_text, read_xml, repair,
    sections, stream,
};
use dspex_core::signature::FieldDefault;
use dspex_core::types::Type;
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
    if let Err(error) = read {
        let is_refusal = errors::is(reply.py(), &error, "ReplyError");
        if !is_refusal || is_too_costly(reply.py(), &error) {
            return Err(error);
        }
        reader.refusal.get_or_insert(error);
    }
    if reader.values.iter().all(Option::is_some) {
        let repairs = reader.repairs(|_| true)?;
        return Ok((reader.finish()?, repairs));
    }
    reader.tolerantly()
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

/// The elements at the top of a reply that need not be XML: the name of each, and what is inside.
#[pyfunction]
pub(crate) fn xml_elements<'a>(py: Python<'_>, reply: &'a str) -> PyResult<Vec<(String, &'a str)>> {
    guarded(py, || {
        let elements = stream::xml_elements(reply).into_iter();
        Ok(elements
            .map(|(name, start, end)| (name, &reply[start..end]))
            .collect())
    })
}

/// The text between the tags of a field of text, in a reply that is no XML.
#[pyfunction]
pub(crate) fn xml_text(py: Python<'_>, inside: &str) -> PyResult<String> {
    guarded(py, || Ok(stream::xml_text(inside)))
}

/// What may be the value of a field: texts or values, each with the repairs that it takes.
type Candidates<'py> = Vec<(Bound<'py, PyAny>, Vec<Bound<'py, PyAny>>)>;

impl Plan {
    /// Whether an output is told as text, of which nothing else can come.
    pub(crate) fn is_text(&self, py: Python<'_>, place: usize) -> PyResult<bool> {
        let ty = &self.signature.get().core.outputs()[place].ty;
        match ty {
            Type::Str => Ok(true),
            // An optional text is as good as a text.
            Type::Union { .. } => Ok(ty.as_optional() == Some(&Type::Str)),
            Type::External(_) => {
                let index = self.compiled.outputs()[place].index;
                let annotation = self.signature.get().annotation(py, index)?;
                py.import(intern!(py, "dspex._engine.custom_types"))?
                    .call_method1(intern!(py, "is_text"), (annotation,))?
                    .extract()
            }
            _ => Ok(false),
        }
    }
}

/// What `dspex._engine.tolerant.read_field` gives: the values, none or one, the repairs, and why there is none.
type Found<'py> = (
    Vec<Bound<'py, PyAny>>,
    Vec<Bound<'py, PyAny>>,
    Option<String>,
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

/// The module that finds what may be the values of fields that DSPy does not read.
fn tolerant(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import(intern!(py, "dspex._engine.tolerant"))
}

/// The module that reads what Rust does not.
fn replies(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import(intern!(py, "dspex._engine.replies"))
}

/// One reply being read.
struct Reader<'a, 'py> {
    plan: &'a Plan,
    reply: &'a Bound<'py, PyString>,
    /// The value of each output, as far as there is one.
    values: Vec<Option<Bound<'py, PyAny>>>,
    /// With tolerance: the outputs that have no value of their type, each with its text or JSON, and the first
    /// reason why.
    refused: Vec<(usize, Bound<'py, PyAny>)>,
    refusal: Option<PyErr>,
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

/// What Python raises for a text that could be read in two ways.
fn ambiguous<'py>(py: Python<'py>, reason: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import(intern!(py, "dspex._engine.near_misses"))?
        .call_method1(intern!(py, "AmbiguousError"), (reason,))
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
            refused: Vec::new(),
            refusal: None,
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

    /// As a person reads it: what DSPy reads stays as it is, the rest has its chances.
    fn tolerantly(mut self) -> PyResult<(Bound<'py, PyDict>, Bound<'py, PyList>)> {
        let py = self.reply.py();
        let slots = self.plan.compiled.outputs();
        let strict: Vec<Strict> = (0..slots.len()).map(|place| self.strict(place)).collect();
        let mut candidates = self.candidates(&strict)?;
        let is_bare = slots.len() == 1
            && candidates[0].is_empty()
            && strict[0] != Strict::Read
            && self.refused.is_empty();
        if is_bare {
            candidates[0] = tolerant(py)?
                .call_method1(
                    intern!(py, "bare"),
                    (self.layout(), &*slots[0].name, self.reply),
                )?
                .extract()?;
        }
        let again: Vec<bool> = candidates.iter().map(|some| !some.is_empty()).collect();
        // The object that was repaired counts where a value of it does.
        let whole = (0..slots.len()).any(|place| strict[place] == Strict::Read && !again[place]);
        let repairs = self.repairs(|place| {
            place.map_or(whole, |place| {
                strict[place] == Strict::Read && !again[place]
            })
        })?;
        let mut problem = None;
        let mut any = false;
        for (place, candidates) in candidates.into_iter().enumerate() {
            if candidates.is_empty() {
                continue;
            }
            let annotation = self
                .plan
                .signature
                .get()
                .annotation(py, slots[place].index)?;
            let (mut values, done, reason): Found<'py> = tolerant(py)?
                .call_method1(
                    intern!(py, "read_field"),
                    (&*slots[place].name, candidates, annotation, self.dialect()),
                )
                .map_err(|error| self.costly(Some(place), error))?
                .extract()?;
            for repair in done {
                if !repairs.contains(&repair)? {
                    repairs.append(repair)?;
                }
            }
            self.values[place] = values.pop();
            any |= self.values[place].is_some();
            // A bare text that is no answer is no field's, unless it could be two answers.
            let reason = reason.filter(|reason| !is_bare || !reason.is_empty());
            if strict[place] != Strict::Absent && problem.is_none() {
                problem = reason.map(|reason| (place, reason));
            }
        }
        match (problem, self.refusal.take()) {
            (Some((place, reason)), refusal)
                if refusal.is_some() || strict[place] != Strict::Missing || !reason.is_empty() =>
            {
                let cause = refusal.map(|refusal| refusal.cause(py).unwrap_or(refusal));
                Err(self.no_value(place, &reason, cause))
            }
            // Nothing more was found than DSPy finds: its error says what is wrong.
            (None, Some(refusal)) if !any => Err(refusal),
            _ => Ok((self.finish()?, repairs)),
        }
    }

    /// What DSPy makes of an output.
    fn strict(&self, place: usize) -> Strict {
        if self.values[place].is_some() {
            Strict::Read
        } else if self.refused.iter().any(|(refused, _)| *refused == place) {
            Strict::Refused
        } else if self.is_missing(place) {
            Strict::Missing
        } else {
            Strict::Absent
        }
    }

    /// What may be the values of the outputs that DSPy does not read, and of those that it reads together with one
    /// that must be there.
    fn candidates(&self, strict: &[Strict]) -> PyResult<Vec<Candidates<'py>>> {
        let py = self.reply.py();
        let slots = self.plan.compiled.outputs();
        let mut candidates: Vec<Candidates<'py>> = slots.iter().map(|_| Vec::new()).collect();
        if self.plan.compiled.layout() == Layout::Chat {
            let fields: Vec<(Strict, bool)> = strict
                .iter()
                .enumerate()
                .map(|(place, strict)| Ok((*strict, self.plan.is_text(py, place)?)))
                .collect::<PyResult<_>>()?;
            for cut in cut(text_of(self.reply)?, &fields, |name| self.place(name)) {
                let name = &slots[cut.field].name;
                let done = cut
                    .place
                    .repair()
                    .map(|code| repair_of(py, name, code, &shown(&cut.line)));
                let text = match cut.text {
                    Ok(text) => PyString::new(py, &text).into_any(),
                    Err(count) => ambiguous(
                        py,
                        &format!("its marker stands in {count} lines, and begins none of them"),
                    )?,
                };
                candidates[cut.field].push((text, done.into_iter().collect::<PyResult<_>>()?));
            }
            return Ok(candidates);
        }
        let states = strict.iter().map(|strict| match strict {
            Strict::Read => "read",
            Strict::Refused => "refused",
            Strict::Absent => "absent",
            Strict::Missing => "missing",
        });
        let fields = slots
            .iter()
            .zip(states)
            .map(|(slot, state)| {
                let annotation = self.plan.signature.get().annotation(py, slot.index)?;
                Ok((&*slot.name, annotation, state))
            })
            .collect::<PyResult<Vec<_>>>()?;
        let found = if self.plan.compiled.layout() == Layout::Json {
            let values = PyDict::new(py);
            for (slot, value) in slots.iter().zip(&self.values) {
                if let Some(value) = value {
                    values.set_item(&*slot.name, value)?;
                }
            }
            let whole = self.repairs(|place| place.is_none())?;
            for (place, raw) in &self.refused {
                candidates[*place].push((raw.clone(), whole.iter().collect()));
            }
            tolerant(py)?.call_method1(intern!(py, "json_parts"), (self.reply, fields, values))
        } else {
            tolerant(py)?.call_method1(
                intern!(py, "xml_parts"),
                (self.reply, fields, self.dialect()),
            )
        };
        let found = found.map_err(|error| self.costly(None, error))?;
        let found = found.cast_into::<PyDict>()?;
        for (candidates, slot) in candidates.iter_mut().zip(slots) {
            if let Some(more) = found.get_item(&*slot.name)? {
                candidates.extend(more.extract::<Candidates<'py>>()?);
            }
        }
        Ok(candidates)
    }

    fn layout(&self) -> &'static str {
        match self.plan.compiled.layout() {
            Layout::Chat => "chat",
            Layout::Json => "json",
            Layout::Xml => "xml",
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
    fn repairs(&self, wanted: impl Fn(Option<usize>) -> bool) -> PyResult<Bound<'py, PyList>> {
        let py = self.reply.py();
        let list = PyList::empty(py);
        for (place, code, found) in self.done.iter().filter(|(place, ..)| wanted(*place)) {
            let field = place.map_or("", |place| &*self.plan.compiled.outputs()[place].name);
            list.append(repair_of(py, field, code, found)?)?;
        }
        Ok(list)
    }

    /// The value of an output, if it has one. With tolerance one that has none is kept for later, and the others
    /// are read as if it had.
    fn set(
        &mut self,
        place: usize,
        raw: &Bound<'py, PyAny>,
        value: PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        match value {
            Ok(value) => self.values[place] = Some(value),
            Err(error)
                if self.plan.tolerant
                    && errors::is(self.reply.py(), &error, "ReplyError")
                    && !is_too_costly(self.reply.py(), &error) =>
            {
                self.refused.push((place, raw.clone()));
                self.refusal.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
        Ok(())
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
            if section.indented && self.plan.tolerant {
                // A part of the marker is in the text.
                let text = PyString::new(py, &section.text).into_any();
                self.refused.push((section.field, text));
                continue;
            }
            let read = read_text(
                &section.text,
                &self.plan.signature.get().core.outputs()[section.field].ty,
                self.plan.compiled.dialect(),
            );
            if let Some(value) = self.value_of(section.field, read, &section.text)? {
                self.values[section.field] = Some(value);
            } else {
                let text = PyString::new(py, &section.text).into_any();
                let value = self.in_python(section.field, &text);
                self.set(section.field, &text, value)?;
            }
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
            if let Some(value) = self.value_of(place, read, text)? {
                self.values[place] = Some(value);
            } else {
                let json = to_python(py, json)?;
                let value = self.in_python(place, &json);
                self.set(place, &json, value)?;
            }
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
            let read = self.in_python(place, &value);
            self.set(place, &value, read)?;
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
            .import(intern!(py, "dspex._engine.xml"))?
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
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    let refused = Err(self.wrong_value(place, error));
                    self.set(place, self.reply.as_any(), refused)?;
                    continue;
                }
            };
            // The values, none or one, with what was done for each.
            let found: Vec<(Bound<'py, PyAny>, Option<String>)> = found.extract()?;
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
        let may_lack = field.default != FieldDefault::Required || field.ty.allows_none();
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
                None if field.default != FieldDefault::Required => {
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
