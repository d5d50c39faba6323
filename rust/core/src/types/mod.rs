//! The types of fields: what Rust knows about them, and what a prompt says of them.
//!
//! A [`Type`] is the value of a Python annotation. The types of everyday signatures are spelled out;
//! everything else (pydantic models, enums, `datetime`) is [`Type::Python`], an object that only the
//! bindings hold and that carries here its name alone.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::mem;

mod constant;
mod name;
mod note;
mod schema;
mod source;

pub use constant::{Constant, Real};
pub use note::Note;

/// The value of an annotation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Type {
    /// `str`
    Str,
    /// `int`
    Int,
    /// `float`
    Float,
    /// `bool`
    Bool,
    /// `complex`
    Complex,
    /// `bytes`
    Bytes,
    /// `NoneType`, and `None` where Python makes it that
    None,
    /// `None` as it stands, between the brackets of a builtin: `list[None]` is not `list[NoneType]`
    NoneValue,
    /// `typing.Any`
    Any,
    /// `list`, `tuple`, `dict`, `set` or `frozenset`, with or without arguments.
    Generic {
        /// Which of the five.
        container: Container,
        /// `list` or `typing.List`: equal in meaning, different in `repr`.
        spelling: Spelling,
        /// What stands between the brackets.
        args: Args,
    },
    /// `Union[A, B]`, `Optional[A]`, `A | B`: at least two members, flat, none twice.
    Union {
        /// The members, in the order they were written.
        members: Box<[Type]>,
        /// `typing.Union` or `types.UnionType`.
        spelling: UnionSpelling,
    },
    /// `Literal['a', 1]`: flat, no value of the same type twice.
    Literal(Box<[Constant]>),
    /// Any other object that can stand in an annotation.
    Python(Opaque),
}

/// The containers whose arguments Rust looks into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Container {
    /// `list[T]`
    List,
    /// `tuple[A, B]`, `tuple[T, ...]`, `tuple[()]`
    Tuple,
    /// `dict[K, V]`
    Dict,
    /// `set[T]`
    Set,
    /// `frozenset[T]`
    FrozenSet,
}

impl Container {
    /// Python's name of the class.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Tuple => "tuple",
            Self::Dict => "dict",
            Self::Set => "set",
            Self::FrozenSet => "frozenset",
        }
    }

    /// The name of its alias in `typing`.
    #[must_use]
    pub fn typing_name(self) -> &'static str {
        match self {
            Self::List => "List",
            Self::Tuple => "Tuple",
            Self::Dict => "Dict",
            Self::Set => "Set",
            Self::FrozenSet => "FrozenSet",
        }
    }
}

/// How a container was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Spelling {
    /// `list`
    Builtin,
    /// `typing.List`
    Typing,
}

/// How a union was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnionSpelling {
    /// `Union[A, B]` and `Optional[A]`; in a string signature `A | B` too.
    Typing,
    /// `A | B` in a class body.
    Pipe,
}

/// The arguments of a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Args {
    /// No brackets at all: `list`.
    Bare,
    /// One type per place: `dict[str, int]`, `tuple[()]`.
    Of(Box<[Type]>),
    /// `tuple[T, ...]`
    Variadic(Box<Type>),
}

/// A type that only Python knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Opaque {
    /// Where its object is in the table of Python objects kept beside the signature.
    pub index: u32,
    /// Its name as a prompt shows it.
    pub name: Box<str>,
    /// The same where unions with bars have a name of their own, if that makes a difference.
    pub pipe_name: Option<Box<str>>,
    /// Its name as the text of a signature would have it.
    pub source: Box<str>,
}

impl Type {
    /// Whether Rust knows all of the type: no part of it is [`Type::Python`], nor a constant only Python has.
    #[must_use]
    pub fn is_native(&self) -> bool {
        match self {
            Self::Python(_) => false,
            Self::Generic { args, .. } => match args {
                Args::Bare => true,
                Args::Of(types) => types.iter().all(Self::is_native),
                Args::Variadic(item) => item.is_native(),
            },
            Self::Union { members, .. } => members.iter().all(Self::is_native),
            Self::Literal(values) => !values
                .iter()
                .any(|value| matches!(value, Constant::Python(_))),
            _ => true,
        }
    }

    /// Gives every opaque part of the type, in the order of writing, a new index.
    pub fn renumber(&mut self, renumber: &mut dyn FnMut(u32) -> u32) {
        match self {
            Self::Python(opaque) => opaque.index = renumber(opaque.index),
            Self::Generic {
                args: Args::Of(types),
                ..
            }
            | Self::Union { members: types, .. } => {
                types.iter_mut().for_each(|ty| ty.renumber(renumber));
            }
            Self::Generic {
                args: Args::Variadic(item),
                ..
            } => item.renumber(renumber),
            Self::Literal(values) => {
                for value in values {
                    if let Constant::Python(opaque) = value {
                        opaque.index = renumber(opaque.index);
                    }
                }
            }
            _ => {}
        }
    }

    /// Whether `None` is a value of the type, as DSPy decides it: `None` itself or a union with it.
    ///
    /// `Any` and `Literal[None]` do not count.
    #[must_use]
    pub fn allows_none(&self) -> bool {
        match self {
            Self::None | Self::NoneValue => true,
            Self::Union { members, .. } => members.iter().any(Self::allows_none),
            _ => false,
        }
    }

    /// Python's `==` between annotations: a literal's values and a union's members have no order.
    #[must_use]
    pub fn equals(&self, other: &Self) -> bool {
        Meaning(self) == Meaning(other)
    }
}

/// A type as Python's `==` and `hash` take it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meaning<'a>(pub(crate) &'a Type);

impl PartialEq for Meaning<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self.0, other.0) {
            (Type::Literal(a), Type::Literal(b)) => are_same(a, b, |value| value),
            (Type::Union { members: a, .. }, Type::Union { members: b, .. }) => {
                are_same(a, b, Meaning)
            }
            (
                Type::Generic {
                    container: a,
                    spelling: a_spelling,
                    args: a_args,
                },
                Type::Generic {
                    container: b,
                    spelling: b_spelling,
                    args: b_args,
                },
            ) => a == b && a_spelling == b_spelling && a_args.equals(b_args),
            (a, b) => a == b,
        }
    }
}

impl Eq for Meaning<'_> {}

impl Hash for Meaning<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        mem::discriminant(self.0).hash(state);
        match self.0 {
            Type::Literal(values) => hash_of_all(values, |value| value).hash(state),
            Type::Union { members, .. } => hash_of_all(members, Meaning).hash(state),
            Type::Generic {
                container,
                spelling,
                args,
            } => {
                (container, spelling).hash(state);
                match args {
                    Args::Bare => 0_usize.hash(state),
                    Args::Of(types) => {
                        types.len().hash(state);
                        types.iter().for_each(|ty| Meaning(ty).hash(state));
                    }
                    Args::Variadic(item) => Meaning(item).hash(state),
                }
            }
            other => other.hash(state),
        }
    }
}

/// Whether two lists without repetitions hold the same, in any order.
fn are_same<'a, T, K: Eq + Hash>(a: &'a [T], b: &'a [T], key: impl Fn(&'a T) -> K) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let known: HashSet<K> = b.iter().map(&key).collect();
    a.iter().all(|one| known.contains(&key(one)))
}

/// A hash that does not depend on the order.
fn hash_of_all<'a, T, K: Hash>(all: &'a [T], key: impl Fn(&'a T) -> K) -> u64 {
    let hash = |one| {
        let mut hasher = DefaultHasher::new();
        key(one).hash(&mut hasher);
        hasher.finish()
    };
    all.iter().map(hash).fold(0, u64::wrapping_add)
}

/// Takes out the constants that stand further ahead too.
pub(crate) fn distinct_constants(mut values: Vec<Constant>) -> Vec<Constant> {
    let firsts = firsts(values.iter());
    keep(&mut values, firsts);
    values
}

/// Takes out the types that stand further ahead too.
pub(crate) fn distinct_types(mut types: Vec<Type>) -> Vec<Type> {
    let firsts = firsts(types.iter().map(Meaning));
    keep(&mut types, firsts);
    types
}

/// For each item, whether it is the first of its kind.
fn firsts<K: Eq + Hash>(keys: impl Iterator<Item = K>) -> Vec<bool> {
    let mut seen = HashSet::new();
    keys.map(|key| seen.insert(key)).collect()
}

fn keep<T>(all: &mut Vec<T>, which: Vec<bool>) {
    let mut which = which.into_iter();
    all.retain(|_| which.next().unwrap_or(true));
}

impl Args {
    fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Of(a), Self::Of(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.equals(b))
            }
            (Self::Variadic(a), Self::Variadic(b)) => a.equals(b),
            _ => self == other,
        }
    }
}
