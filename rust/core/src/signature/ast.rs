//! The tree of a signature's text, before any name in it means something.

use std::borrow::Cow;

use super::error::Span;
use crate::types::Constant;

/// A field as it was written.
#[derive(Clone, Debug)]
pub struct Parameter<'a> {
    /// The name, in NFKC.
    pub name: Cow<'a, str>,
    /// Where the name is.
    pub span: Span,
    /// The type behind the colon.
    pub annotation: Option<Expr<'a>>,
}

/// A type expression.
#[derive(Clone, Debug)]
pub struct Expr<'a> {
    /// What it is.
    pub kind: ExprKind<'a>,
    /// Where it is, brackets included.
    pub span: Span,
}

/// The expressions that can be types, or parts of types.
#[derive(Clone, Debug)]
pub enum ExprKind<'a> {
    /// `int`
    Name(Cow<'a, str>),
    /// `datetime.date`
    Attribute(Box<Expr<'a>>, Cow<'a, str>),
    /// `list[int]`, `dict[str, int]`
    Subscript(Box<Expr<'a>>, Vec<Expr<'a>>),
    /// `int | str | None`
    Union(Vec<Expr<'a>>),
    /// `(int, str)`, never directly inside a subscript's brackets
    Tuple(Vec<Expr<'a>>),
    /// `'a'`, `1`, `None`
    Constant(Constant),
    /// `...`
    Ellipsis,
    /// `Field(gt=0)`: the names and values of the arguments.
    Field(Vec<(Cow<'a, str>, Expr<'a>)>),
}
