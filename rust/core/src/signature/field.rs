//! One field of a signature.

use std::borrow::Cow;

use super::infer_prefix;
use crate::types::Type;

/// Which side of the arrow a field is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FieldKind {
    /// Given by the caller.
    Input,
    /// Produced by the model.
    Output,
}

/// What stands in when a value is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Default {
    /// Nothing: the value must be there.
    #[default]
    Required,
    /// A value that the bindings hold.
    Value,
    /// A function of no arguments that the bindings hold.
    Factory,
}

/// A name with a type, and what the prompt says about it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Field {
    /// A Python identifier in NFKC.
    pub name: Box<str>,
    /// Input or output.
    pub kind: FieldKind,
    /// The type; `str` where none was given.
    pub ty: Type,
    /// Whether a type was written at all.
    pub typed: bool,
    /// The description; None stands for DSPy's `${name}`, which prompts leave out.
    pub desc: Option<Box<str>>,
    /// The prefix kept in saved state; None stands for the one inferred from the name.
    pub prefix: Option<Box<str>>,
    /// The constraints as a sentence for the prompt.
    pub constraints: Option<Box<str>>,
    /// What stands in for a missing value.
    pub default: Default,
}

impl Field {
    /// A field as a string signature makes it: nothing said about it but name, side and type.
    #[must_use]
    pub fn new(name: impl Into<Box<str>>, kind: FieldKind, ty: Option<Type>) -> Self {
        let typed = ty.is_some();
        let ty = ty.unwrap_or(Type::Str);
        Self {
            name: name.into(),
            kind,
            ty,
            typed,
            desc: None,
            prefix: None,
            constraints: None,
            default: Default::Required,
        }
    }

    /// The description, with DSPy's default spelled out.
    #[must_use]
    pub fn desc(&self) -> Cow<'_, str> {
        self.desc
            .as_deref()
            .map_or_else(|| format!("${{{}}}", self.name).into(), Cow::Borrowed)
    }

    /// The prefix, with DSPy's default spelled out.
    #[must_use]
    pub fn prefix(&self) -> Cow<'_, str> {
        self.prefix
            .as_deref()
            .map_or_else(|| (infer_prefix(&self.name) + ":").into(), Cow::Borrowed)
    }

    /// Whether a reply may leave the field out: it has a default or takes `None`.
    #[must_use]
    pub fn is_optional(&self) -> bool {
        self.default != Default::Required || self.ty.allows_none()
    }
}
