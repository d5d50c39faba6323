//! The compiled form of a signature.

use std::collections::HashSet;

use super::{Body, Markers, body, system, xml};
use crate::dialect::Dialect;
use crate::header;
use crate::signature::{Field, FieldKind, Signature};
use crate::types::{Note, Type};

/// The way in which fields are laid out in messages: DSPy's adapters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `[[ ## name ## ]]` above each value.
    Chat,
    /// Inputs as in chat, outputs as one JSON object.
    Json,
    /// Each value between tags of its name; lists and mappings in outputs as nested elements.
    Xml,
}

/// What only the interpreter can say about a field, because its type is not Rust's. Empty for all other fields.
#[derive(Clone, Debug, Default)]
pub struct ExternalField {
    /// The note beside an output field, from "must" on; empty for none.
    pub note: String,
    /// What follows the description: a line for each type that describes itself.
    pub types: String,
    /// The field holds the turns of a conversation, which become messages of their own.
    pub history: bool,
    /// The field holds calls of tools, which are asked for by example.
    pub tool_calls: bool,
    /// In the XML layout, where values are nested elements: the pattern of these.
    pub pattern: Option<String>,
}

/// How a value is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Lists and mappings as JSON, anything else as Python's `str()`.
    Text,
    /// As `Text`, but a list is a numbered list of quotations: the field's type is `str`.
    TextOrList,
    /// As `TextOrList`, escaped for XML.
    XmlText,
    /// The whole element, with nested ones for a list or a mapping; the slot itself has no tags.
    XmlTree,
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
    /// Whether a block of a custom type may stand in the value because the field's type allows one.
    pub(super) holds_blocks: bool,
    pub(super) open: Box<str>,
    pub(super) close: Box<str>,
}

/// A signature, ready to be rendered.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) layout: Layout,
    pub(super) system: Box<str>,
    /// The system message as an LM's API takes it.
    pub(super) system_json: Box<str>,
    pub(super) inputs: Box<[Slot]>,
    pub(super) outputs: Box<[Slot]>,
    pub(super) requirements: Box<str>,
    pub(super) history: Option<usize>,
    pub(super) markers: Markers,
    /// The names that are tags in a value: those of the fields in the XML layout, none in the others.
    pub(super) tags: HashSet<Box<str>>,
    pub(super) dialect: &'static Dialect,
}

impl Plan {
    /// Compile `signature`; `external` has one entry per field, inputs first.
    #[must_use]
    pub fn compile(
        signature: &Signature,
        layout: Layout,
        external: &[ExternalField],
        dialect: &'static Dialect,
    ) -> Self {
        let (inputs, outputs) = parts(signature, external);
        let system = system::message(layout, &inputs, &outputs, signature.instructions(), dialect);
        let slots = |parts: &[Part<'_>]| parts.iter().map(|part| part.slot(layout)).collect();
        Self {
            layout,
            system_json: body::system(&system),
            system: system.into(),
            requirements: system::requirements(layout, &outputs, dialect).into(),
            history: inputs.iter().position(|part| part.external.history),
            inputs: slots(&inputs),
            outputs: slots(&outputs),
            markers: Markers::default(),
            tags: match layout {
                Layout::Chat | Layout::Json => HashSet::new(),
                Layout::Xml => signature.fields().iter().map(|f| f.name.clone()).collect(),
            },
            dialect,
        }
    }

    /// The same plan with another policy for markers inside values.
    #[must_use]
    pub fn with_markers(self, markers: Markers) -> Self {
        Self { markers, ..self }
    }

    /// The dialect the plan was compiled for.
    #[must_use]
    pub fn dialect(&self) -> &'static Dialect {
        self.dialect
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

    /// A request's body that begins with the system message.
    #[must_use]
    pub fn body(&self) -> Body {
        Body::new(&self.system_json)
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

/// Whether only texts, numbers and constants, and lists and mappings of such, are of the type.
fn is_plain(ty: &Type) -> bool {
    match ty {
        Type::Any | Type::External(_) | Type::Bare(..) => false,
        _ => ty.parts().iter().all(is_plain),
    }
}

/// A field together with what Python says about it.
pub(super) struct Part<'a> {
    pub(super) field: &'a Field,
    pub(super) external: &'a ExternalField,
    index: usize,
}

impl Part<'_> {
    fn slot(&self, layout: Layout) -> Slot {
        let name = &self.field.name;
        let is_text = self.field.ty == Type::Str;
        let is_xml_output = layout == Layout::Xml && self.field.kind == FieldKind::Output;
        let style = match (is_text, is_xml_output) {
            (true, true) => Style::XmlText,
            (true, false) => Style::TextOrList,
            (false, true) if self.pattern().is_some() => Style::XmlTree,
            (false, _) => Style::Text,
        };
        let (open, close) = if style == Style::XmlTree {
            Default::default()
        } else {
            frame(layout, name)
        };
        Slot {
            name: name.clone(),
            index: self.index,
            style,
            holds_blocks: !is_plain(&self.field.ty),
            open: open.into(),
            close: close.into(),
        }
    }

    /// The pattern of the elements of an output, in XML; None where its value is text.
    pub(super) fn pattern(&self) -> Option<String> {
        if self.field.ty.is_native() {
            xml::is_nested(&self.field.ty).then(|| xml::pattern(&self.field.name, &self.field.ty))
        } else {
            self.external.pattern.clone()
        }
    }

    /// The note for the value of an output field.
    pub(super) fn note(&self) -> String {
        match self.field.ty.note() {
            Note::Nothing => String::new(),
            Note::Text(text) => text,
            Note::Deferred => self.external.note.clone(),
        }
    }
}

/// What stands before a value and behind it.
pub(super) fn frame(layout: Layout, name: &str) -> (String, String) {
    match layout {
        Layout::Chat | Layout::Json => (header::marker(name) + "\n", String::new()),
        Layout::Xml => (format!("<{name}>\n"), format!("\n</{name}>")),
    }
}

fn parts<'a>(
    signature: &'a Signature,
    external: &'a [ExternalField],
) -> (Vec<Part<'a>>, Vec<Part<'a>>) {
    let mut all = signature.fields().iter().zip(external).enumerate();
    let part = |(index, (field, external))| Part {
        field,
        external,
        index,
    };
    let inputs = all
        .by_ref()
        .take(signature.inputs().len())
        .map(part)
        .collect();
    (inputs, all.map(part).collect())
}
