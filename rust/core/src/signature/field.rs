//! One field of a signature.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};

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

impl FieldKind {
    /// `"input"` or `"output"`.
    #[must_use]
    pub fn name(self) -> &'static str {
        ["input", "output"][self as usize]
    }
}

/// What stands in when a value is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FieldDefault {
    /// Nothing: the value must be there.
    #[default]
    Required,
    /// A value that the bindings hold.
    Value,
    /// A function of no arguments that the bindings hold.
    Factory,
}

/// A name with a type, and what the prompt says about it.
#[derive(Clone, Debug)]
pub struct Field {
    /// A Python identifier in NFKC.
    pub name: Box<str>,
    /// Input or output.
    pub kind: FieldKind,
    /// The type; `str` where none was given.
    pub ty: Type,
    /// Whether a type was written at all.
    pub typed: bool,
    /// Whether DSPy leaves a mark on the field that says if a type was written. Only `equals` looks at it.
    pub marked: bool,
    /// The description; None stands for DSPy's `${name}`, which prompts leave out.
    pub desc: Option<Box<str>>,
    /// The prefix kept in saved state; None stands for the one inferred from the name.
    pub prefix: Option<Box<str>>,
    /// The constraints as a sentence for the prompt.
    pub constraints: Option<Box<str>>,
    /// What stands in for a missing value.
    pub default: FieldDefault,
    /// Where the caller keeps what else there is to the field, in the table of external objects.
    pub external: Option<u32>,
}

impl PartialEq for Field {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Field {}

impl Hash for Field {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
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
            marked: kind == FieldKind::Input,
            desc: None,
            prefix: None,
            constraints: None,
            default: FieldDefault::Required,
            external: None,
        }
    }

    /// What makes two fields the same. Whether a type was written matters for inputs only, where DSPy checks
    /// values against it or not; for outputs it does not even remember.
    fn key(&self) -> impl PartialEq + Hash + '_ {
        let typed = self.kind == FieldKind::Output || self.typed;
        let texts = (&self.desc, &self.prefix, &self.constraints);
        (
            &self.name,
            self.kind,
            &self.ty,
            typed,
            texts,
            self.default,
            self.external,
        )
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

    /// Sets the description; the default one is kept as none at all.
    pub fn set_desc(&mut self, desc: &str) {
        self.desc = None;
        if *self.desc() != *desc {
            self.desc = Some(desc.into());
        }
    }

    /// Sets the prefix; the inferred one is kept as none at all.
    pub fn set_prefix(&mut self, prefix: &str) {
        self.prefix = None;
        if *self.prefix() != *prefix {
            self.prefix = Some(prefix.into());
        }
    }

    /// Whether DSPy's `equals` takes the two for the same, names aside: types do not count, the mark does.
    #[must_use]
    pub fn dspy_equals(&self, other: &Self) -> bool {
        let mark = |field: &Self| field.marked.then_some(field.typed);
        self.kind == other.kind
            && self.desc() == other.desc()
            && self.prefix() == other.prefix()
            && self.constraints == other.constraints
            && mark(self) == mark(other)
    }

    /// Whether a reply may leave the field out: it has a default or takes `None`.
    #[must_use]
    pub fn is_optional(&self) -> bool {
        self.default != FieldDefault::Required || self.ty.allows_none()
    }
}
