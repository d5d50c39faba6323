//! Signatures: named, typed inputs and outputs, and the instructions between them.
//!
//! Text becomes a value in three steps: [`parse`] makes a tree of it, [`lower`] gives every name in the tree
//! its meaning, and the [`Signature`] that comes out is immutable. Operations make new ones.

pub mod ast;
mod cache;
mod cursor;
mod edit;
mod error;
mod field;
mod lexer;
mod limits;
mod literal;
mod lower;
mod parser;
mod prefix;
mod source;
mod state;
mod suggest;

pub use cache::{Cache, CacheInfo, MEANINGS};
pub use edit::BadIndex;
pub use error::{Code, SignatureError, Span};
pub use field::{Field, FieldDefault, FieldKind};
pub use limits::Limits;
pub use lower::{NativeOnly, Resolver, is_native, lower, plain, union, unknown};
pub use parser::{Ast, parse};
pub use prefix::infer_prefix;
pub use state::FieldState;
pub use suggest::suggestion;

use crate::text::cleandoc;

/// Where the instructions of a new signature come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instructions<'a> {
    /// The sentence that DSPy makes of the names.
    Default,
    /// A text as somebody wrote it, to be cleaned like a docstring; the empty one stands for the default.
    Given(&'a str),
    /// A text that is clean already, or empty on purpose.
    Exact(&'a str),
}

/// What goes in, what comes out, and what is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Signature {
    /// Inputs first, then outputs, each in the order they were declared.
    fields: Box<[Field]>,
    input_count: usize,
    instructions: Box<str>,
}

impl Signature {
    /// A signature of these fields and these instructions.
    ///
    /// Names are taken as distinct: whoever has text or other people's fields to check does so first.
    #[must_use]
    pub fn new(mut fields: Vec<Field>, instructions: &Instructions<'_>) -> Self {
        // Stable, and nothing to do in the common case, where inputs already come first.
        fields.sort_by_key(|field| field.kind);
        let input_count = fields.partition_point(|field| field.kind == FieldKind::Input);
        let instructions = match instructions {
            Instructions::Given("") | Instructions::Default => {
                default_instructions(&fields, input_count)
            }
            Instructions::Given(text) => cleandoc(text),
            Instructions::Exact(text) => (*text).to_owned(),
        };
        Self {
            fields: fields.into(),
            input_count,
            instructions: instructions.into(),
        }
    }

    /// All fields: inputs, then outputs.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The input fields, in order.
    #[must_use]
    pub fn inputs(&self) -> &[Field] {
        &self.fields[..self.input_count]
    }

    /// The output fields, in order.
    #[must_use]
    pub fn outputs(&self) -> &[Field] {
        &self.fields[self.input_count..]
    }

    /// The field of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| &*field.name == name)
    }

    /// The names alone, as in `question, context -> answer`.
    #[must_use]
    pub fn names(&self) -> String {
        let join = |fields: &[Field]| {
            fields
                .iter()
                .map(|field| &*field.name)
                .collect::<Vec<_>>()
                .join(", ")
        };
        format!("{} -> {}", join(self.inputs()), join(self.outputs()))
    }

    /// What the program is asked to do.
    #[must_use]
    pub fn instructions(&self) -> &str {
        &self.instructions
    }
}

fn default_instructions(fields: &[Field], input_count: usize) -> String {
    let mut out = String::with_capacity(48 + 20 * fields.len());
    out.push_str("Given the fields ");
    write_names(&mut out, &fields[..input_count]);
    out.push_str(", produce the fields ");
    write_names(&mut out, &fields[input_count..]);
    out.push('.');
    out
}

fn write_names(out: &mut String, fields: &[Field]) {
    for (i, field) in fields.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        out.push('`');
        out.push_str(&field.name);
        out.push('`');
    }
}
