//! Replies that a person can read and DSPy refuses.
//!
//! What DSPy read stays as it is. For each other output this finds the texts that may be its value, by the layout;
//! `near` says which value such a text has. Everything that is done is listed, and what could be read in two ways is
//! not read at all.
//!
//! ```text
//! mod    which fields have a chance, and in which order
//! chat   markers that are decorated or stand inside lines             Cut
//! json   the texts between the fields' own keys
//! xml    elements inside others, and what stands between tags
//! ```

pub(super) mod chat;
mod json;
mod xml;

use self::chat::cut;
use super::near::Miss;
use super::read::{
    Cause, Host, Kind, Outputs, ReadErrorKind, Reader, Repair, RepairCode, Step, Target, Values,
};
use super::value::Value;
use crate::prompt::Layout;
use crate::text::{strip, word_len};

/// What strict reading made of an output field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strict {
    /// It has its value.
    Read,
    /// It has its text, and the text is no value, or begins with a part of its marker.
    Refused,
    /// It has nothing, and need not.
    Absent,
    /// It has nothing, and must.
    Missing,
}

/// What may be the value of a field, and what was done to find it.
struct Candidate<V> {
    what: Found<V>,
    repairs: Vec<Repair>,
}

enum Found<V> {
    /// A text or JSON, to be read as the type.
    Raw(V),
    /// The value that DSPy gives where it sees the field, read from that text.
    Value(V, Option<RepairCode>, String),
    /// Nobody can say which of several texts it is.
    Ambiguous(String),
}

impl<V> Candidate<V> {
    fn raw(value: V, repairs: Vec<Repair>) -> Self {
        let what = Found::Raw(value);
        Self { what, repairs }
    }

    fn ambiguous(reason: String) -> Self {
        let what = Found::Ambiguous(reason);
        Self {
            what,
            repairs: Vec::new(),
        }
    }
}

/// The value of a field, or why there is none as far as there is more to say than that it is none of its type.
enum Outcome<V> {
    Value(V, Vec<Repair>),
    Refused(String),
}

impl<H: Host> Reader<'_, H> {
    /// Give the outputs that DSPy does not read their chances.
    pub(super) fn tolerantly(mut self) -> Step<Outputs<H::Value>, H> {
        let strict: Vec<Strict> = (0..self.values.len()).map(|at| self.strict(at)).collect();
        let mut candidates = self.candidates(&strict)?;
        let mut is_bare = false;
        if let ([Strict::Absent | Strict::Missing], [only]) = (&*strict, &mut *candidates)
            && only.is_empty()
        {
            is_bare = true;
            only.extend(self.bare()?);
        }
        let mut repairs = self.repairs_of_read(&strict, &candidates);
        let mut problem = None;
        let mut any = false;
        for (output, candidates) in candidates.into_iter().enumerate() {
            if candidates.is_empty() {
                continue;
            }
            match self.first_of(output, candidates)? {
                Outcome::Value(value, done) => {
                    for repair in done {
                        if !repairs.contains(&repair) {
                            repairs.push(repair);
                        }
                    }
                    self.values[output] = Some(value);
                    any = true;
                }
                Outcome::Refused(reason) => {
                    self.values[output] = None;
                    // A bare text that is no answer is no field's, unless it could be two answers.
                    let counts = !is_bare || !reason.is_empty();
                    if strict[output] != Strict::Absent && problem.is_none() && counts {
                        problem = Some((output, reason));
                    }
                }
            }
        }
        match (problem, self.refusal.take()) {
            (Some((output, reason)), refusal)
                if refusal.is_some() || strict[output] != Strict::Missing || !reason.is_empty() =>
            {
                let cause = refusal.map(|refusal| match refusal.kind {
                    ReadErrorKind::NoValue {
                        cause: Some(cause), ..
                    } => cause,
                    _ => Cause::Read(Box::new(refusal)),
                });
                Err(self.error(ReadErrorKind::NoValue {
                    output,
                    reason,
                    cause,
                }))
            }
            // Nothing more was found than DSPy finds: its error says what is wrong.
            (None, Some(refusal)) if !any => Err(refusal),
            _ => self.finish(repairs),
        }
    }

    /// What DSPy makes of an output.
    fn strict(&self, output: usize) -> Strict {
        if self.values[output].is_some() {
            Strict::Read
        } else if self.refused.iter().any(|(refused, _)| *refused == output) {
            Strict::Refused
        } else if self.is_missing(output) {
            Strict::Missing
        } else {
            Strict::Absent
        }
    }

    /// What was done for the values of DSPy's that stay. The object that was repaired counts where one of it does.
    fn repairs_of_read(
        &mut self,
        strict: &[Strict],
        candidates: &[Vec<Candidate<H::Value>>],
    ) -> Vec<Repair> {
        let stays = |at: usize| strict[at] == Strict::Read && candidates[at].is_empty();
        let any = (0..strict.len()).any(stays);
        let mut repairs = std::mem::take(&mut self.repairs);
        repairs.retain(|repair| repair.output.map_or(any, stays));
        repairs
    }

    /// What may be the values of the outputs that DSPy does not read, and of those that it reads together with one
    /// that must be there.
    fn candidates(&mut self, strict: &[Strict]) -> Step<Vec<Vec<Candidate<H::Value>>>, H> {
        match self.plan.layout {
            Layout::Chat => self.chat_parts(strict),
            Layout::Json => self.json_parts(strict),
            Layout::Xml => self.xml_parts(strict),
        }
    }

    fn chat_parts(&mut self, strict: &[Strict]) -> Step<Vec<Vec<Candidate<H::Value>>>, H> {
        let plan = self.plan;
        let mut candidates: Vec<_> = strict.iter().map(|_| Vec::new()).collect();
        let mut fields = Vec::with_capacity(strict.len());
        for (output, strict) in strict.iter().enumerate() {
            fields.push((*strict, plan.is_text(output, self.host)?));
        }
        for cut in cut(self.reply, &fields, |name| plan.place(name)) {
            let repair = cut
                .place
                .repair()
                .map(|code| Repair::new(Some(cut.field), code, &cut.line));
            candidates[cut.field].push(match cut.text {
                Ok(text) => {
                    let text = self.host.values().make(&Value::Str(text.into()))?;
                    Candidate::raw(text, repair.into_iter().collect())
                }
                Err(count) => Candidate::ambiguous(format!(
                    "its marker stands in {count} lines, and begins none of them"
                )),
            });
        }
        Ok(candidates)
    }

    /// A reply without a trace of the layout, which is the value of the only field. With a trace of it, it is a broken
    /// reply, not a bare answer.
    fn bare(&mut self) -> Step<Option<Candidate<H::Value>>, H> {
        let has_trace = match self.plan.layout {
            Layout::Chat => self.reply.contains("[[ ##"),
            Layout::Json => self.reply.contains('{'),
            Layout::Xml => has_tag(self.reply),
        };
        let text = strip(self.reply);
        if has_trace || text.is_empty() {
            return Ok(None);
        }
        let repair = Repair::new(Some(0), RepairCode::NoMarker, text);
        let text = self.host.values().make(&Value::Str(text.into()))?;
        Ok(Some(Candidate::raw(text, vec![repair])))
    }

    /// The value of a field, of its candidates the first that has one.
    fn first_of(
        &mut self,
        output: usize,
        candidates: Vec<Candidate<H::Value>>,
    ) -> Step<Outcome<H::Value>, H> {
        let target = Target { output, items: 0 };
        let ty = &self.plan.outputs[output].ty;
        let mut reason = String::new();
        for Candidate { what, mut repairs } in candidates {
            let raw = match what {
                Found::Raw(raw) => raw,
                Found::Value(value, code, text) => {
                    repairs.extend(code.map(|code| Repair::new(Some(output), code, &text)));
                    return Ok(Outcome::Value(value, repairs));
                }
                Found::Ambiguous(why) => {
                    first_reason(&mut reason, why);
                    continue;
                }
            };
            match self.near_value(target, ty, &raw) {
                Ok((value, codes)) => {
                    if !codes.is_empty() {
                        let text = match self.host.values().kind(&raw)? {
                            Kind::Text(text) => text,
                            _ => self.host.values().display(&raw)?,
                        };
                        let done = codes.into_iter();
                        repairs.extend(done.map(|code| Repair::new(Some(output), code, &text)));
                    }
                    return Ok(Outcome::Value(value, repairs));
                }
                Err(Miss::Refused(_)) => {}
                Err(Miss::Ambiguous(why)) => first_reason(&mut reason, why),
                Err(Miss::Error(error)) => return Err(error),
            }
        }
        Ok(Outcome::Refused(reason))
    }
}

fn first_reason(reason: &mut String, why: String) {
    if reason.is_empty() {
        *reason = why;
    }
}

/// Whether there is a tag, with nothing in it but a name.
fn has_tag(text: &str) -> bool {
    text.match_indices('<').any(|(at, _)| {
        let inside = &text[at + 1..];
        let inside = inside.strip_prefix('/').unwrap_or(inside);
        let name = word_len(inside);
        name > 0 && inside[name..].starts_with('>')
    })
}
