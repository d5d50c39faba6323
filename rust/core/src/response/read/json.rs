//! The object in a reply of JSON, found as DSPy finds it.

use std::borrow::Cow;

use super::{Host, HostJson, ReadErrorKind, Reader, RepairCode, Step, Values};
use crate::response::guess::{Guess, Refusal, guess};
use crate::response::repair::repair;
use crate::response::strict;
use crate::response::value::Value;

/// JSON that was read.
pub(in crate::response) enum Json<'a, V> {
    Plain(Value<'a>),
    Guessed(Guess),
    Made(V),
}

/// The same, with what was done to its text.
type Loaded<'a, V> = (Json<'a, V>, Option<RepairCode>);

impl<H: Host> Reader<'_, H> {
    /// One object, with a value for each output.
    pub(super) fn json(&mut self) -> Step<(), H> {
        let reply = self.reply;
        if let Some(Value::Map(entries)) = strict::parse(reply) {
            return self.entries(entries);
        }
        if let Some(found) = repair(reply) {
            let code = found.code();
            if let Value::Map(entries) = found.value {
                self.repaired(None, code, reply);
                return self.entries(entries);
            }
        }
        self.searched_object()
    }

    fn entries(&mut self, mut entries: Vec<(Cow<'_, str>, Value<'_>)>) -> Step<(), H> {
        // Of a name that comes twice the last value counts, at the place of the first.
        let mut last: Vec<Option<usize>> = vec![None; self.values.len()];
        let mut outputs = Vec::new();
        for (at, (name, _)) in entries.iter().enumerate() {
            if let Some(output) = self.plan.place(name) {
                if last[output].is_none() {
                    outputs.push(output);
                }
                last[output] = Some(at);
            }
        }
        for output in outputs {
            let Some(at) = last[output] else { continue };
            let json = &mut entries[at].1;
            let read = self.json_value(output, json);
            self.set(output, read, |host| host.values().make(json))?;
        }
        Ok(())
    }

    /// The object of a reply that is not one: guessed, or searched for.
    fn searched_object(&mut self) -> Step<(), H> {
        let reply = self.reply;
        let mut found = self.loads(reply)?;
        if !self.is_object(found.as_ref())?
            && found.is_some()
            && let Some(braced) = braced(reply)
        {
            let inside = self.loads(braced)?;
            found = inside.map(|(json, _)| (json, Some(RepairCode::Json)));
        }
        let (entries, code) = match found {
            Some((Json::Plain(Value::Map(entries)), code)) => {
                self.note_object(code);
                return self.entries(entries);
            }
            Some((Json::Guessed(Guess::Map(entries)), code)) => {
                let mut made = Vec::with_capacity(entries.len());
                for (name, value) in entries {
                    let name: Option<String> = name.into_iter().map(char::from_u32).collect();
                    if let Some(name) = name {
                        made.push((name, self.host.values().make_guess(&value)?));
                    }
                }
                (Some(made), code)
            }
            Some((Json::Made(value), code)) => (self.host.entries(&value)?, code),
            _ => (None, None),
        };
        let Some(entries) = entries else {
            return Err(self.error(ReadErrorKind::NotJson));
        };
        self.note_object(code);
        for (name, raw) in entries {
            if let Some(output) = self.plan.place(&name) {
                let read = self.coerced(output, &raw);
                self.set(output, read, |_| Ok(raw))?;
            }
        }
        Ok(())
    }

    fn note_object(&mut self, code: Option<RepairCode>) {
        if let Some(code) = code {
            self.repaired(None, code, self.reply);
        }
    }

    fn is_object(&mut self, found: Option<&Loaded<'_, H::Value>>) -> Step<bool, H> {
        Ok(match found {
            Some((Json::Plain(value), _)) => matches!(value, Value::Map(_)),
            Some((Json::Guessed(value), _)) => matches!(value, Guess::Map(_)),
            Some((Json::Made(value), _)) => self.host.entries(value)?.is_some(),
            None => false,
        })
    }

    /// What DSPy makes of a text that should be JSON, with the repair it takes; None where it fails.
    pub(in crate::response) fn loads<'t>(
        &mut self,
        text: &'t str,
    ) -> Step<Option<Loaded<'t, H::Value>>, H> {
        if let Some(json) = strict::parse(text) {
            return Ok(Some((Json::Plain(json), None)));
        }
        match self.host.parse_json(text)? {
            HostJson::Value(value) => return Ok(Some((Json::Made(value), None))),
            HostJson::TooDeep => return Ok(None),
            HostJson::Invalid => {}
        }
        if let Some(found) = repair(text) {
            let code = found.code();
            return Ok(Some((Json::Plain(found.value), Some(code))));
        }
        match guess(text.chars().map(u32::from).collect()).0 {
            Ok(value) => Ok(Some((Json::Guessed(value), Some(RepairCode::Json)))),
            Err(Refusal::TooCostly) => Err(self.error(ReadErrorKind::TooCostly(None))),
            Err(Refusal::TooDeep | Refusal::Invalid) => Ok(None),
        }
    }

    /// JSON as the host has it.
    pub(in crate::response) fn make_json(&mut self, json: Json<'_, H::Value>) -> Step<H::Value, H> {
        Ok(match json {
            Json::Plain(value) => self.host.values().make(&value)?,
            Json::Guessed(value) => self.host.values().make_guess(&value)?,
            Json::Made(value) => value,
        })
    }
}

/// From the first brace that is closed again to where it is closed.
///
/// DSPy looks for it with a recursive pattern, whose time grows with the square of the braces left open.
///
/// ```
/// use dspex_core::response::braced;
///
/// assert_eq!(braced("{ so: {\"a\": 1} and {\"b\": 2}"), Some("{\"a\": 1}"));
/// ```
#[must_use]
pub fn braced(text: &str) -> Option<&str> {
    let mut opened: Vec<usize> = Vec::new();
    let mut first: Option<(usize, usize)> = None;
    for (at, brace) in text.match_indices(['{', '}']) {
        if brace == "{" {
            opened.push(at);
        } else if let Some(start) = opened.pop() {
            if first.is_none_or(|(known, _)| start < known) {
                first = Some((start, at + 1));
            }
            if opened.is_empty() {
                break;
            }
        }
    }
    first.map(|(start, end)| &text[start..end])
}
