//! The types of fields: what Rust knows about them, and what a prompt says of them.
//!
//! A [`Type`] is the value of a Python annotation. The types of everyday signatures are spelled out;
//! everything else (pydantic models, enums, `datetime`) is [`Type::External`], an object that only the
//! bindings hold and that carries here its name alone.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::mem;
use std::slice;

mod constant;
mod name;
mod note;
mod schema;
mod source;

pub use constant::{Constant, Real};
pub use note::Note;

/// The value of an annotation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
    /// A container without brackets: `list`, `typing.Dict`
    Bare(Container, Spelling),
    /// `list[T]`
    List(Box<Type>, Spelling),
    /// `set[T]`
    Set(Box<Type>, Spelling),
    /// `frozenset[T]`
    FrozenSet(Box<Type>, Spelling),
    /// `dict[K, V]`
    Dict(Box<[Type; 2]>, Spelling),
    /// `tuple[A, B]`, one type per place; `tuple[()]` has none
    Tuple(Box<[Type]>, Spelling),
    /// `tuple[T, ...]`
    VariadicTuple(Box<Type>, Spelling),
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
    External(External),
}

/// The containers whose arguments Rust looks into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Container {
    /// `list`
    List,
    /// `tuple`
    Tuple,
    /// `dict`
    Dict,
    /// `set`
    Set,
    /// `frozenset`
    FrozenSet,
}

impl Container {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::List,
        Self::Tuple,
        Self::Dict,
        Self::Set,
        Self::FrozenSet,
    ];

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

/// How a container was written: equal in meaning, different in `repr`.
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

/// A type or a constant that only the interpreter has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct External {
    /// Where its object is in the table that the caller keeps beside the signature.
    pub index: u32,
    /// Its name as a prompt shows it.
    pub name: Box<str>,
    /// The same where unions with bars have a name of their own, if that makes a difference.
    pub pipe_name: Option<Box<str>>,
    /// Its name as the text of a signature would have it.
    pub source: Box<str>,
}

impl Type {
    /// Whether Rust knows all of the type: no part of it is external.
    #[must_use]
    pub fn is_native(&self) -> bool {
        match self {
            Self::External(_) => false,
            Self::Literal(values) => !values
                .iter()
                .any(|value| matches!(value, Constant::External(_))),
            _ => self.parts().iter().all(Self::is_native),
        }
    }

    /// Gives every external part of the type, in the order of writing, a new index.
    pub fn renumber(&mut self, renumber: &mut dyn FnMut(u32) -> u32) {
        match self {
            Self::External(external) => external.index = renumber(external.index),
            Self::Literal(values) => {
                for value in values {
                    if let Constant::External(external) = value {
                        external.index = renumber(external.index);
                    }
                }
            }
            _ => {
                let parts = self.parts_mut().iter_mut();
                parts.for_each(|ty| ty.renumber(renumber));
            }
        }
    }

    /// The types that this one is made of, in the order of writing: arguments of a container, members of a union.
    #[must_use]
    pub fn parts(&self) -> &[Self] {
        match self {
            Self::List(item, _)
            | Self::Set(item, _)
            | Self::FrozenSet(item, _)
            | Self::VariadicTuple(item, _) => slice::from_ref(item),
            Self::Dict(entry, _) => &**entry,
            Self::Tuple(types, _) | Self::Union { members: types, .. } => types,
            _ => &[],
        }
    }

    fn parts_mut(&mut self) -> &mut [Self] {
        match self {
            Self::List(item, _)
            | Self::Set(item, _)
            | Self::FrozenSet(item, _)
            | Self::VariadicTuple(item, _) => slice::from_mut(item),
            Self::Dict(entry, _) => &mut **entry,
            Self::Tuple(types, _) | Self::Union { members: types, .. } => types,
            _ => &mut [],
        }
    }

    /// The container that this is, with or without arguments, and how it was written.
    #[must_use]
    pub fn container(&self) -> Option<(Container, Spelling)> {
        Some(match self {
            Self::Bare(container, spelling) => (*container, *spelling),
            Self::List(_, spelling) => (Container::List, *spelling),
            Self::Set(_, spelling) => (Container::Set, *spelling),
            Self::FrozenSet(_, spelling) => (Container::FrozenSet, *spelling),
            Self::Dict(_, spelling) => (Container::Dict, *spelling),
            Self::Tuple(_, spelling) | Self::VariadicTuple(_, spelling) => {
                (Container::Tuple, *spelling)
            }
            _ => return None,
        })
    }

    /// A container with these arguments, each of which `read` makes a type of. None, with nothing read, where the
    /// container takes another number of them.
    pub fn generic<T, E>(
        container: Container,
        spelling: Spelling,
        args: &[T],
        mut read: impl FnMut(&T) -> Result<Self, E>,
    ) -> Result<Option<Self>, E> {
        Ok(Some(match (container, args) {
            (Container::List, [item]) => Self::List(Box::new(read(item)?), spelling),
            (Container::Set, [item]) => Self::Set(Box::new(read(item)?), spelling),
            (Container::FrozenSet, [item]) => Self::FrozenSet(Box::new(read(item)?), spelling),
            (Container::Dict, [key, value]) => {
                Self::Dict(Box::new([read(key)?, read(value)?]), spelling)
            }
            (Container::Tuple, types) => {
                Self::Tuple(types.iter().map(read).collect::<Result<_, E>>()?, spelling)
            }
            _ => return Ok(None),
        }))
    }

    /// The `T` of `T | None` and `Optional[T]`; None for any other type, a union of more among them.
    #[must_use]
    pub fn as_optional(&self) -> Option<&Self> {
        match self {
            Self::Union { members, .. } => match &**members {
                [Self::None, inner] | [inner, Self::None] => Some(inner),
                _ => None,
            },
            _ => None,
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
            (a, b) if a.parts().is_empty() => a == b,
            (a, b) => {
                mem::discriminant(a) == mem::discriminant(b)
                    && a.container() == b.container()
                    && a.parts()
                        .iter()
                        .map(Meaning)
                        .eq(b.parts().iter().map(Meaning))
            }
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
            other if other.parts().is_empty() => other.hash(state),
            other => {
                other.container().hash(state);
                let parts = other.parts();
                parts.len().hash(state);
                for part in parts {
                    Meaning(part).hash(state);
                }
            }
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

/// So many constants are compared faster than they are hashed, and so many types looked at.
const FEW: usize = 16;

/// Takes out the constants that stand further ahead too.
pub(crate) fn distinct_constants(mut values: Vec<Constant>) -> Vec<Constant> {
    if values.len() <= FEW {
        let mut known = Vec::with_capacity(values.len());
        for value in values {
            if !known.contains(&value) {
                known.push(value);
            }
        }
        return known;
    }
    let firsts = firsts(values.iter());
    keep(&mut values, firsts);
    values
}

/// Takes out the types that stand further ahead too.
pub(crate) fn distinct_types(mut types: Vec<Type>) -> Vec<Type> {
    // Types of different kinds are different ones. Those of one kind may hold as much as the text has room for, and
    // comparing each with each would take its square.
    let kinds = |types: &[Type], kind| types.iter().any(|ty| mem::discriminant(ty) == kind);
    let are_distinct = types.len() <= FEW
        && (1..types.len()).all(|at| !kinds(&types[..at], mem::discriminant(&types[at])));
    if are_distinct {
        return types;
    }
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
