//! Messages from a plan and values.

use std::fmt::Write as _;

use super::markers::{self, Markers};
use super::plan::{Layout, Plan, Slot, Style, frame};
use crate::header::{self, COMPLETED};
use crate::text::{is_space, strip};

const INCOMPLETE: &str =
    "This is an example of the task, though some input or output fields are not supplied.";
const NOT_SUPPLIED: &str = "Not supplied for this particular example. ";
const TOOL_RESULTS: &str = "tool_call_results";

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The user.
    User,
    /// The model.
    Assistant,
}

/// Whether a record has a value for a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// The field is not there.
    Absent,
    /// The field is there, and is `None`.
    None,
    /// The field has a value.
    Value,
}

/// Values by field: the inputs of a call, an example, a turn of a conversation.
///
/// Fields go by `Slot::index`, their place among all fields of the signature.
pub trait Record {
    /// What can go wrong with a value.
    type Error;

    /// Whether there is a value.
    fn presence(&self, slot: &Slot) -> Result<Presence, Self::Error>;

    /// Append the value, which is there, as `slot.style` says.
    fn write(&self, slot: &Slot, out: &mut String) -> Result<(), Self::Error>;

    /// Append all `slots` as one indented JSON object; where a value is absent, `missing` stands for it, or
    /// `null`.
    fn write_json(
        &self,
        slots: &[Slot],
        missing: Option<&str>,
        out: &mut String,
    ) -> Result<(), Self::Error>;
}

/// Takes the messages, one by one, in order. The system message, `Plan::system`, comes before the first.
pub trait Sink {
    /// What can go wrong with a message.
    type Error;

    /// The value of the field of this name in the message that comes next holds so many markers.
    fn forged(&mut self, name: &str, count: usize) -> Result<(), Self::Error>;

    /// One message.
    fn message(&mut self, role: Role, text: &str) -> Result<(), Self::Error>;
}

/// One turn of a conversation.
#[derive(Debug)]
pub struct Turn<R> {
    /// The values of the turn, inputs and outputs.
    pub values: R,
    /// What the tools that were called gave back, as text.
    pub tool_results: Option<String>,
}

impl Plan {
    /// Render the messages that follow the system message.
    ///
    /// `turns` are the conversation so far; the field that holds it, if the signature has one, is left out of
    /// the turns and of the request. Examples come first: those that lack a field before those that lack none.
    pub fn render<R, S>(
        &self,
        inputs: &R,
        demos: &[R],
        turns: &[Turn<R>],
        sink: &mut S,
    ) -> Result<(), R::Error>
    where
        R: Record,
        S: Sink<Error = R::Error>,
    {
        let mut page = Page {
            plan: self,
            out: String::with_capacity(512),
            sink,
        };
        if !demos.is_empty() {
            let ranks = demos
                .iter()
                .map(|demo| self.rank(demo))
                .collect::<Result<Vec<_>, _>>()?;
            let of = |rank| {
                demos
                    .iter()
                    .zip(&ranks)
                    .filter(move |(_, r)| **r == rank)
                    .map(|(demo, _)| demo)
            };
            for demo in of(Rank::Incomplete) {
                page.user(demo, None, INCOMPLETE, false)?;
                page.send(Role::User)?;
                page.assistant(demo, Some(NOT_SUPPLIED))?;
                page.send(Role::Assistant)?;
            }
            for demo in of(Rank::Complete) {
                page.user(demo, None, "", false)?;
                page.send(Role::User)?;
                page.assistant(demo, None)?;
                page.send(Role::Assistant)?;
            }
        }
        for turn in turns {
            page.turn(turn)?;
        }
        page.user(inputs, self.history, "", true)?;
        page.send_unless_empty(Role::User)
    }

    fn rank<R: Record>(&self, demo: &R) -> Result<Rank, R::Error> {
        let (mut complete, mut has_input, mut has_output) = (true, false, false);
        for (slots, found) in [
            (&self.inputs, &mut has_input),
            (&self.outputs, &mut has_output),
        ] {
            for slot in slots {
                let presence = demo.presence(slot)?;
                complete &= presence == Presence::Value;
                *found |= presence != Presence::Absent;
            }
        }
        Ok(match (complete, has_input && has_output) {
            (true, _) => Rank::Complete,
            (false, true) => Rank::Incomplete,
            (false, false) => Rank::Useless,
        })
    }
}

/// How much of an example is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rank {
    /// Every field has a value.
    Complete,
    /// At least one input and one output are there.
    Incomplete,
    /// It shows nothing, and is left out.
    Useless,
}

/// One message in the making; its buffer serves them all.
struct Page<'a, S> {
    plan: &'a Plan,
    out: String,
    sink: &'a mut S,
}

impl<S: Sink> Page<'_, S> {
    /// The text of a user message: the inputs that are there, but for the one at `skip`.
    fn user<R>(
        &mut self,
        record: &R,
        skip: Option<usize>,
        prefix: &str,
        request: bool,
    ) -> Result<(), R::Error>
    where
        R: Record,
        S: Sink<Error = R::Error>,
    {
        self.out.clear();
        self.out.push_str(prefix);
        for (at, slot) in self.plan.inputs.iter().enumerate() {
            if Some(at) != skip && record.presence(slot)? != Presence::Absent {
                self.section(&slot.open);
                self.value(record, slot)?;
                self.out.push_str(&slot.close);
            }
        }
        if request {
            self.section(&self.plan.requirements);
        }
        Ok(())
    }

    /// The text of an assistant message. An output that is absent reads `missing`, or `None`.
    fn assistant<R>(&mut self, record: &R, missing: Option<&str>) -> Result<(), R::Error>
    where
        R: Record,
        S: Sink<Error = R::Error>,
    {
        self.out.clear();
        if self.plan.layout == Layout::Json {
            record.write_json(&self.plan.outputs, missing, &mut self.out)?;
            return self.look_at_json(record);
        }
        for slot in &self.plan.outputs {
            self.section(&slot.open);
            if record.presence(slot)? != Presence::Absent {
                self.value(record, slot)?;
            } else if slot.style == Style::XmlTree {
                _ = write!(
                    self.out,
                    "<{0}>\n{1}\n</{0}>",
                    slot.name,
                    missing.unwrap_or("None")
                );
            } else {
                self.out.push_str(missing.unwrap_or("None"));
            }
            self.out.push_str(&slot.close);
        }
        if self.plan.layout == Layout::Chat {
            // A header begins the text, so there is white space to take away at its end only.
            self.out.truncate(self.out.trim_end_matches(is_space).len());
            self.out.push_str("\n\n");
            header::push(&mut self.out, COMPLETED);
            self.out.push('\n');
        }
        Ok(())
    }

    fn turn<R>(&mut self, turn: &Turn<R>) -> Result<(), R::Error>
    where
        R: Record,
        S: Sink<Error = R::Error>,
    {
        let mut any_input = false;
        for (at, slot) in self.plan.inputs.iter().enumerate() {
            any_input |=
                Some(at) != self.plan.history && turn.values.presence(slot)? != Presence::Absent;
        }
        let reminder = any_input && self.plan.dialect.turns_end_in_reminder;
        self.user(&turn.values, self.plan.history, "", reminder)?;
        self.send_unless_empty(Role::User)?;
        self.assistant(&turn.values, None)?;
        self.send_unless_empty(Role::Assistant)?;
        if let Some(results) = &turn.tool_results {
            self.out.clear();
            let (open, close) = frame(self.plan.layout, TOOL_RESULTS);
            self.out.push_str(&open);
            let start = self.out.len();
            self.out.push_str(results);
            self.look_at(TOOL_RESULTS, start, true)?;
            self.out.push_str(&close);
            self.send(Role::User)?;
        }
        Ok(())
    }

    /// Write a value that is there, and see to the markers in it.
    fn value<R>(&mut self, record: &R, slot: &Slot) -> Result<(), R::Error>
    where
        R: Record,
        S: Sink<Error = R::Error>,
    {
        let start = self.out.len();
        record.write(slot, &mut self.out)?;
        if matches!(slot.style, Style::XmlText | Style::XmlTree) {
            return Ok(()); // escaped as it was written
        }
        self.look_at(&slot.name, start, slot.holds_blocks)
    }

    /// See to the markers in the value that the text ends in.
    fn look_at(&mut self, name: &str, start: usize, holds_blocks: bool) -> Result<(), S::Error> {
        let found = self.markers(&self.out[start..], holds_blocks);
        if found.is_empty() {
            return Ok(());
        }
        if self.plan.markers == Markers::Escape {
            markers::escape(&mut self.out, start, &found);
        }
        self.sink.forged(name, found.len())
    }

    /// See to the markers in the outputs of a record, which are one JSON object.
    fn look_at_json<R>(&mut self, record: &R) -> Result<(), R::Error>
    where
        R: Record,
        S: Sink<Error = R::Error>,
    {
        let found = self.markers(&self.out, true);
        if found.is_empty() {
            return Ok(());
        }
        if self.plan.markers == Markers::Escape {
            markers::escape(&mut self.out, 0, &found);
        }
        // Whose they are: this is rare enough to write each value once more.
        let mut value = String::new();
        for slot in &self.plan.outputs {
            value.clear();
            if record.presence(slot)? == Presence::Value {
                record.write(slot, &mut value)?;
                let count = self.markers(&value, true).len();
                if count > 0 {
                    self.sink.forged(&slot.name, count)?;
                }
            }
        }
        Ok(())
    }

    /// The markers in a text, if anybody looks for them.
    fn markers(&self, text: &str, holds_blocks: bool) -> Vec<markers::Marker> {
        if self.plan.markers == Markers::AsIs {
            return Vec::new();
        }
        markers::find(self.plan.layout, text, &self.plan.tags, !holds_blocks)
    }

    /// Begin a part of the message, two lines below the one before it.
    fn section(&mut self, start: &str) {
        if !self.out.is_empty() {
            self.out.push_str("\n\n");
        }
        self.out.push_str(start);
    }

    fn send(&mut self, role: Role) -> Result<(), S::Error> {
        match role {
            Role::User => self.sink.message(role, strip(&self.out)),
            // It ends with a marker and a line break that stay.
            Role::Assistant => self.sink.message(role, &self.out),
        }
    }

    fn send_unless_empty(&mut self, role: Role) -> Result<(), S::Error> {
        if strip(&self.out).is_empty() {
            Ok(())
        } else {
            self.send(role)
        }
    }
}
