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

/// Values by field: the inputs of a call, an example, a turn of a conversation. Each is asked for once.
///
/// Fields go by `Slot::index`, their place among all fields of the signature.
pub trait Record {
    /// What can go wrong with a value.
    type Error;

    /// A value.
    type Value;

    /// The value of a field, if the field is there.
    fn get(&self, slot: &Slot) -> Result<Option<Self::Value>, Self::Error>;

    /// Whether a value is `None`.
    fn is_none(value: &Self::Value) -> bool;

    /// Append a value as `slot.style` says.
    fn write(&self, slot: &Slot, value: &Self::Value, out: &mut String) -> Result<(), Self::Error>;

    /// Append the `values` of all `slots` as one indented JSON object; where a value is absent, `missing` stands
    /// for it, or `null`.
    fn write_json(
        &self,
        slots: &[Slot],
        values: &[Option<Self::Value>],
        missing: Option<&str>,
        out: &mut String,
    ) -> Result<(), Self::Error>;
}

/// A record, and the values of its fields: inputs, then outputs.
struct Row<'a, R: Record> {
    record: &'a R,
    inputs: &'a [Option<R::Value>],
    outputs: &'a [Option<R::Value>],
}

/// Takes the messages, one by one, in order. The system message, `Plan::system`, comes before the first.
pub trait Sink {
    /// What can go wrong with a message.
    type Error;

    /// The value of the field of this name in the message that comes next holds so many markers.
    fn injected(&mut self, name: &str, count: usize) -> Result<(), Self::Error>;

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
        let mut builder = MessageBuilder {
            plan: self,
            out: String::with_capacity(512),
            sink,
        };
        builder.demos(demos)?;
        for turn in turns {
            builder.turn(turn)?;
        }
        let mut values = Vec::with_capacity(self.inputs.len());
        get_all(inputs, &self.inputs, &mut values)?;
        let row = Row {
            record: inputs,
            inputs: &values,
            outputs: &[],
        };
        builder.user(&row, self.history, "", true)?;
        builder.send_unless_empty(Role::User)
    }

    /// The values of a record's inputs and outputs, at the end of `values`.
    fn get_row<R: Record>(
        &self,
        record: &R,
        values: &mut Vec<Option<R::Value>>,
    ) -> Result<(), R::Error> {
        get_all(record, &self.inputs, values)?;
        get_all(record, &self.outputs, values)
    }

    fn row<'a, R: Record>(&self, record: &'a R, values: &'a [Option<R::Value>]) -> Row<'a, R> {
        let (inputs, outputs) = values.split_at(self.inputs.len());
        Row {
            record,
            inputs,
            outputs,
        }
    }
}

fn get_all<R: Record>(
    record: &R,
    slots: &[Slot],
    values: &mut Vec<Option<R::Value>>,
) -> Result<(), R::Error> {
    for slot in slots {
        values.push(record.get(slot)?);
    }
    Ok(())
}

impl<R: Record> Row<'_, R> {
    fn rank(&self) -> Rank {
        let has = |values: &[Option<R::Value>]| values.iter().any(Option::is_some);
        let mut all = self.inputs.iter().chain(self.outputs);
        if all.all(|value| value.as_ref().is_some_and(|value| !R::is_none(value))) {
            Rank::Complete
        } else if has(self.inputs) && has(self.outputs) {
            Rank::Incomplete
        } else {
            Rank::Useless
        }
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
struct MessageBuilder<'a, S> {
    plan: &'a Plan,
    out: String,
    sink: &'a mut S,
}

impl<S: Sink> MessageBuilder<'_, S> {
    /// The examples: those that lack a field before those that lack none.
    fn demos<R>(&mut self, demos: &[R]) -> Result<(), R::Error>
    where
        R: Record,
        S: Sink<Error = R::Error>,
    {
        if demos.is_empty() {
            return Ok(());
        }
        let plan = self.plan;
        let width = plan.inputs.len() + plan.outputs.len();
        let mut values = Vec::with_capacity(width * demos.len());
        for demo in demos {
            plan.get_row(demo, &mut values)?;
        }
        let rows = demos.iter().enumerate();
        let rows = rows.map(|(at, demo)| plan.row(demo, &values[at * width..][..width]));
        let (complete, others): (Vec<_>, Vec<_>) =
            rows.partition(|row| row.rank() == Rank::Complete);
        for row in others.iter().filter(|row| row.rank() == Rank::Incomplete) {
            self.user(row, None, INCOMPLETE, false)?;
            self.send(Role::User)?;
            self.assistant(row, Some(NOT_SUPPLIED))?;
            self.send(Role::Assistant)?;
        }
        for row in &complete {
            self.user(row, None, "", false)?;
            self.send(Role::User)?;
            self.assistant(row, None)?;
            self.send(Role::Assistant)?;
        }
        Ok(())
    }

    /// The text of a user message: the inputs that are there, but for the one at `skip`.
    fn user<R>(
        &mut self,
        row: &Row<'_, R>,
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
        for (at, (slot, value)) in self.plan.inputs.iter().zip(row.inputs).enumerate() {
            if let Some(value) = value
                && Some(at) != skip
            {
                self.section(&slot.open);
                self.value(row.record, slot, value)?;
                self.out.push_str(&slot.close);
            }
        }
        if request {
            self.section(&self.plan.requirements);
        }
        Ok(())
    }

    /// The text of an assistant message. An output that is absent reads `missing`, or `None`.
    fn assistant<R>(&mut self, row: &Row<'_, R>, missing: Option<&str>) -> Result<(), R::Error>
    where
        R: Record,
        S: Sink<Error = R::Error>,
    {
        self.out.clear();
        if self.plan.layout == Layout::Json {
            let slots = &self.plan.outputs;
            row.record
                .write_json(slots, row.outputs, missing, &mut self.out)?;
            return self.look_at_json(row);
        }
        for (slot, value) in self.plan.outputs.iter().zip(row.outputs) {
            self.section(&slot.open);
            if let Some(value) = value {
                self.value(row.record, slot, value)?;
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
        let plan = self.plan;
        let mut values = Vec::new();
        plan.get_row(&turn.values, &mut values)?;
        let row = plan.row(&turn.values, &values);
        let mut inputs = row.inputs.iter().enumerate();
        let any_input = inputs.any(|(at, value)| value.is_some() && Some(at) != plan.history);
        let reminder = any_input && plan.dialect.turns_end_in_reminder;
        self.user(&row, plan.history, "", reminder)?;
        self.send_unless_empty(Role::User)?;
        self.assistant(&row, None)?;
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

    /// Write a value, and see to the markers in it.
    fn value<R>(&mut self, record: &R, slot: &Slot, value: &R::Value) -> Result<(), R::Error>
    where
        R: Record,
        S: Sink<Error = R::Error>,
    {
        let start = self.out.len();
        record.write(slot, value, &mut self.out)?;
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
        self.sink.injected(name, found.len())
    }

    /// See to the markers in the outputs of a record, which are one JSON object.
    fn look_at_json<R>(&mut self, row: &Row<'_, R>) -> Result<(), R::Error>
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
        let mut text = String::new();
        for (slot, value) in self.plan.outputs.iter().zip(row.outputs) {
            text.clear();
            if let Some(value) = value {
                row.record.write(slot, value, &mut text)?;
                let count = self.markers(&text, true).len();
                if count > 0 {
                    self.sink.injected(&slot.name, count)?;
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
