//! The compiled form of a signature.

use super::system;
use crate::signature::{Field, Signature};
use crate::types::{Note, Type};

/// The way in which fields are laid out in messages: DSPy's adapters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `[[ ## name ## ]]` above each value.
    Chat,
    /// Inputs as in chat, outputs as one JSON object.
    Json,
}

/// What only Python can say about a field, because its type is not Rust's. Empty for all other fields.
#[derive(Clone, Debug, Default)]
pub struct Foreign {
    /// The note beside an output field, from "must" on; empty for none.
    pub note: String,
    /// What follows the description: a line for each type that describes itself.
    pub types: String,
    /// The field holds the turns of a conversation, which become messages of their own.
    pub history: bool,
    /// The field holds calls of tools, which are asked for by example.
    pub tool_calls: bool,
}

/// How a value is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Lists and mappings as JSON, anything else as Python's `str()`.
    Text,
    /// As `Text`, but a list is a numbered list of quotations: the field's type is `str`.
    TextOrList,
}

/// A place for the value of one field.
#[derive(Clone, Debug)]
pub struct Slot {
    /// The field's name.
    pub name: Box<str>,
    /// The field's place among all fields, inputs first.
    pub index: usize,
    /// How the value is written.
    pub style: Style,
    pub(super) open: Box<str>,
}

/// A signature, ready to be rendered.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) layout: Layout,
    pub(super) system: Box<str>,
    pub(super) inputs: Box<[Slot]>,
    pub(super) outputs: Box<[Slot]>,
    pub(super) requirements: Box<str>,
    pub(super) history: Option<usize>,
}

impl Plan {
    /// Compile `signature`; `foreign` has one entry per field, inputs first.
    #[must_use]
    pub fn compile(signature: &Signature, layout: Layout, foreign: &[Foreign]) -> Self {
        let (inputs, outputs) = parts(signature, foreign);
        let slots = |parts: &[Part<'_>]| parts.iter().map(Part::slot).collect();
        Self {
            layout,
            system: system::message(layout, &inputs, &outputs, signature.instructions()).into(),
            requirements: system::requirements(layout, &outputs).into(),
            history: inputs.iter().position(|part| part.foreign.history),
            inputs: slots(&inputs),
            outputs: slots(&outputs),
        }
    }

    /// The layout the plan was compiled for.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The system message, the same for every call.
    #[must_use]
    pub fn system(&self) -> &str {
        &self.system
    }

    /// The places for inputs.
    #[must_use]
    pub fn inputs(&self) -> &[Slot] {
        &self.inputs
    }

    /// The places for outputs.
    #[must_use]
    pub fn outputs(&self) -> &[Slot] {
        &self.outputs
    }

    /// The place, among the inputs, of the field that holds the turns of a conversation.
    #[must_use]
    pub fn history(&self) -> Option<usize> {
        self.history
    }
}

/// A field together with what Python says about it.
pub(super) struct Part<'a> {
    pub(super) field: &'a Field,
    pub(super) foreign: &'a Foreign,
    index: usize,
}

impl Part<'_> {
    fn slot(&self) -> Slot {
        Slot {
            name: self.field.name.clone(),
            index: self.index,
            style: if self.field.ty == Type::Str {
                Style::TextOrList
            } else {
                Style::Text
            },
            open: header(&self.field.name).into(),
        }
    }

    /// The note for the value of an output field.
    pub(super) fn note(&self) -> String {
        match self.field.ty.note() {
            Note::Nothing => String::new(),
            Note::Text(text) => text,
            Note::Python => self.foreign.note.clone(),
        }
    }
}

/// The line above a value, in chat.
pub(super) fn header(name: &str) -> String {
    format!("[[ ## {name} ## ]]\n")
}

fn parts<'a>(signature: &'a Signature, foreign: &'a [Foreign]) -> (Vec<Part<'a>>, Vec<Part<'a>>) {
    let mut all = signature.fields().iter().zip(foreign).enumerate();
    let part = |(index, (field, foreign))| Part {
        field,
        foreign,
        index,
    };
    let inputs = all
        .by_ref()
        .take(signature.inputs().len())
        .map(part)
        .collect();
    (inputs, all.map(part).collect())
}
