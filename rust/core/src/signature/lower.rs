//! A tree to types: every name gets its meaning, and what makes no sense is refused.

use std::collections::HashMap;

use super::ast::{Expr, ExprKind, Parameter};
use super::error::{Code, SignatureError, Span};
use super::field::{Field, FieldKind};
use super::limits::Limits;
use super::parser::{Ast, parse_type};
use super::suggest::suggestion;
use super::{Instructions, Signature};
use crate::types::{
    Constant, Container, Spelling, Type, UnionSpelling, distinct_constants, distinct_types,
};

type Result<T> = std::result::Result<T, SignatureError>;

/// Gives meaning to what is external.
pub trait Resolver {
    /// Whether a name that Rust knows means something else here.
    fn shadows(&self, name: &str) -> bool;

    /// The type that an expression stands for, when Rust does not know the name at its head.
    fn resolve(&mut self, expr: &Expr<'_>) -> Result<Type>;

    /// A field whose type is `Annotated` with notes that mean something, such as `Field(gt=0)`.
    fn annotated(&mut self, name: &str, kind: FieldKind, expr: &Expr<'_>) -> Result<Field>;

    /// The type of a whole field that is not all Rust's, as the caller would have it, or why it cannot be one.
    fn finish(&mut self, expr: &Expr<'_>, ty: Type) -> Result<Type>;
}

/// Knows nothing but what Rust knows.
#[derive(Clone, Copy, Debug, Default)]
pub struct NativeOnly;

impl Resolver for NativeOnly {
    fn shadows(&self, _name: &str) -> bool {
        false
    }

    fn resolve(&mut self, expr: &Expr<'_>) -> Result<Type> {
        Err(unknown(expr))
    }

    fn annotated(&mut self, _name: &str, _kind: FieldKind, expr: &Expr<'_>) -> Result<Field> {
        let message = "only Python can say what these notes mean";
        Err(SignatureError::new(Code::Expression, expr.span, message))
    }

    fn finish(&mut self, _expr: &Expr<'_>, ty: Type) -> Result<Type> {
        Ok(ty)
    }
}

/// The error for an expression whose head nobody knows.
#[must_use]
pub fn unknown(expr: &Expr<'_>) -> SignatureError {
    let mut head = expr;
    while let ExprKind::Attribute(base, _) | ExprKind::Subscript(base, _) = &head.kind {
        head = base;
    }
    let ExprKind::Name(name) = &head.kind else {
        return not_a_type(head.span);
    };
    let message = format!("the name '{name}' is not known");
    let error = SignatureError::new(Code::UnknownName, head.span, message);
    match suggestion(name) {
        Some(meant) => error.suggest(meant),
        None => error,
    }
}

/// Names that DSPy's metaclass reads while it makes the class, and pydantic's own.
const RESERVED: &[&str] = &[
    "fields",
    "input_fields",
    "instructions",
    "model_config",
    "output_fields",
    "signature",
];

/// Gives every name its meaning.
pub fn lower(
    source: &str,
    ast: &Ast<'_>,
    instructions: &Instructions<'_>,
    limits: &Limits,
    resolver: &mut dyn Resolver,
) -> Result<Signature> {
    let mut lowering = Lowering {
        source,
        limits,
        resolver,
        quoted: 0,
    };
    let mut fields = Vec::with_capacity(ast.inputs.len() + ast.outputs.len());
    let none = Names::default();
    let names = lowering.side(&mut fields, &ast.inputs, FieldKind::Input, &none)?;
    lowering.side(&mut fields, &ast.outputs, FieldKind::Output, &names)?;
    Ok(Signature::new(fields, instructions))
}

/// Names in the order they were met, each of them once.
#[derive(Default)]
struct Names<'a> {
    names: Vec<&'a str>,
    /// The places of all names, once there are more than a few.
    places: HashMap<&'a str, usize>,
}

impl<'a> Names<'a> {
    /// So many are compared faster than one is hashed.
    const FEW: usize = 16;

    fn place(&self, name: &str) -> Option<usize> {
        if self.names.len() <= Self::FEW {
            self.names.iter().position(|known| *known == name)
        } else {
            self.places.get(name).copied()
        }
    }

    fn push(&mut self, name: &'a str) {
        self.names.push(name);
        let place = self.names.len() - 1;
        if place > Self::FEW {
            self.places.insert(name, place);
        } else if place == Self::FEW {
            let places = self.names.iter().enumerate();
            self.places
                .extend(places.map(|(place, name)| (*name, place)));
        }
    }
}

struct Lowering<'s, 'r> {
    source: &'s str,
    limits: &'s Limits,
    resolver: &'r mut dyn Resolver,
    /// How many quotes the type at hand is inside of.
    quoted: usize,
}

impl Lowering<'_, '_> {
    /// Adds the fields of one side, none of which may have one of the names in `taken`. A name given twice keeps its
    /// first place and its last type, as in a Python dict.
    fn side<'a>(
        &mut self,
        fields: &mut Vec<Field>,
        parameters: &'a [Parameter<'_>],
        kind: FieldKind,
        taken: &Names<'_>,
    ) -> Result<Names<'a>> {
        let first = fields.len();
        let mut names = Names::default();
        for parameter in parameters {
            let name: &str = &parameter.name;
            if taken.place(name).is_some() {
                let message = format!("'{name}' names an input and an output");
                return Err(SignatureError::new(
                    Code::DuplicateField,
                    parameter.span,
                    message,
                ));
            }
            let field = self.field(parameter, kind)?;
            if let Some(place) = names.place(name) {
                fields[first + place] = field;
            } else {
                names.push(name);
                fields.push(field);
            }
        }
        Ok(names)
    }

    fn field(&mut self, parameter: &Parameter<'_>, kind: FieldKind) -> Result<Field> {
        let name: &str = &parameter.name;
        if name.starts_with('_') {
            let message = format!("'{name}' starts with an underscore");
            return Err(SignatureError::new(
                Code::UnderscoreName,
                parameter.span,
                message,
            ));
        }
        if RESERVED.contains(&name) {
            let message = format!("'{name}' cannot name a field");
            return Err(SignatureError::new(
                Code::ReservedName,
                parameter.span,
                message,
            ));
        }
        Ok(match &parameter.annotation {
            None => Field::new(name, kind, None),
            Some(expr) if self.has_meaning(expr) => self.resolver.annotated(name, kind, expr)?,
            Some(expr) => match self.annotation(expr)? {
                ty if ty.is_native() => Field::new(name, kind, Some(ty)),
                ty => Field::new(name, kind, Some(self.resolver.finish(expr, ty)?)),
            },
        })
    }

    /// The type of a field. DSPy reads a bare `None` as `str`, and a bare alias of typing as no type.
    fn annotation(&mut self, expr: &Expr<'_>) -> Result<Type> {
        match &expr.kind {
            ExprKind::Constant(Constant::None) => Ok(Type::Str),
            ExprKind::Constant(_)
            | ExprKind::Ellipsis
            | ExprKind::Tuple(_)
            | ExprKind::Field(_) => Err(not_a_type(expr.span)),
            ExprKind::Subscript(base, args) if self.is_name(base, "Annotated") => {
                self.annotated(expr, args)
            }
            _ => match self.ty(expr)? {
                Type::Bare(container, Spelling::Typing) => {
                    let message = format!("'{}' needs its arguments here", container.typing_name());
                    Err(SignatureError::new(Code::TypeArguments, expr.span, message))
                }
                ty => Ok(ty),
            },
        }
    }

    /// Whether this is `Annotated` with a note that is more than a plain value.
    fn has_meaning(&self, expr: &Expr<'_>) -> bool {
        match &expr.kind {
            ExprKind::Subscript(base, args) if self.is_name(base, "Annotated") => {
                let (ty, notes) = args.split_at(args.len().min(1));
                let plain = |note: &Expr<'_>| matches!(note.kind, ExprKind::Constant(_));
                !notes.iter().all(plain) || ty.iter().any(|ty| self.has_meaning(ty))
            }
            _ => false,
        }
    }

    /// `Annotated[T, notes]`: pydantic keeps the type and drops notes that are plain values.
    fn annotated(&mut self, expr: &Expr<'_>, args: &[Expr<'_>]) -> Result<Type> {
        match args {
            [ty, _, ..] => match &ty.kind {
                ExprKind::Subscript(base, args) if self.is_name(base, "Annotated") => {
                    self.annotated(ty, args)
                }
                _ => self.ty(ty),
            },
            _ => Err(wrong_arguments(
                expr.span,
                "Annotated takes a type and at least one note",
            )),
        }
    }

    fn is_name(&self, expr: &Expr<'_>, wanted: &str) -> bool {
        match &expr.kind {
            ExprKind::Name(name) => name == wanted && !self.resolver.shadows(name),
            ExprKind::Attribute(base, name) => name == wanted && self.is_typing(base),
            _ => false,
        }
    }

    fn is_typing(&self, expr: &Expr<'_>) -> bool {
        matches!(&expr.kind, ExprKind::Name(name) if name == "typing" && !self.resolver.shadows(name))
    }

    /// A type inside another, where `None` is itself.
    fn ty(&mut self, expr: &Expr<'_>) -> Result<Type> {
        match &expr.kind {
            ExprKind::Name(name) if !self.resolver.shadows(name) => match plain(name) {
                Some(ty) => Ok(ty),
                None => self.special_or_unknown(name, expr),
            },
            ExprKind::Attribute(base, name) if self.is_typing(base) && is_typing_name(name) => {
                match plain(name) {
                    Some(ty) => Ok(ty),
                    None => self.special_or_unknown(name, expr),
                }
            }
            ExprKind::Name(_) | ExprKind::Attribute(..) => self.resolver.resolve(expr),
            ExprKind::Subscript(base, args) => self.subscript(expr, base, args),
            ExprKind::Union(members) => {
                let members = members
                    .iter()
                    .map(|member| self.ty(member))
                    .collect::<Result<_>>()?;
                Ok(union(members))
            }
            ExprKind::Constant(Constant::None) => Ok(Type::None),
            ExprKind::Constant(Constant::Str(text)) => self.forward_reference(expr, text),
            ExprKind::Constant(_)
            | ExprKind::Ellipsis
            | ExprKind::Tuple(_)
            | ExprKind::Field(_) => Err(not_a_type(expr.span)),
        }
    }

    fn special_or_unknown(&mut self, name: &str, expr: &Expr<'_>) -> Result<Type> {
        match name {
            "Optional" | "Union" | "Literal" | "Annotated" => Err(wrong_arguments(
                expr.span,
                &format!("'{name}' needs its arguments"),
            )),
            "bytearray" => Err(SignatureError::new(
                Code::UnsupportedType,
                expr.span,
                "pydantic, and so DSPy, cannot validate a bytearray",
            )),
            _ => self.resolver.resolve(expr),
        }
    }

    fn subscript(&mut self, expr: &Expr<'_>, base: &Expr<'_>, args: &[Expr<'_>]) -> Result<Type> {
        let name = match &base.kind {
            ExprKind::Name(name) if !self.resolver.shadows(name) => name,
            ExprKind::Attribute(module, name) if self.is_typing(module) && is_typing_name(name) => {
                name
            }
            _ => return self.resolver.resolve(expr),
        };
        match &**name {
            "Literal" => self.literal(expr, args),
            "Optional" => match args {
                [only] => Ok(union(vec![self.ty(only)?, Type::None])),
                _ => Err(wrong_arguments(
                    expr.span,
                    "Optional takes exactly one type",
                )),
            },
            "Union" if args.is_empty() => {
                Err(wrong_arguments(expr.span, "Union takes at least one type"))
            }
            "Union" => Ok(union(
                args.iter().map(|arg| self.ty(arg)).collect::<Result<_>>()?,
            )),
            _ => match plain(name) {
                Some(Type::Bare(container, spelling)) => {
                    self.generic(expr, container, spelling, args)
                }
                Some(_) => Err(wrong_arguments(
                    expr.span,
                    &format!("'{name}' takes no arguments"),
                )),
                // `Sequence[int]`, `Type[P]`, `Annotated` inside another type: Python puts them together.
                None => self.resolver.resolve(expr),
            },
        }
    }

    fn generic(
        &mut self,
        expr: &Expr<'_>,
        container: Container,
        spelling: Spelling,
        args: &[Expr<'_>],
    ) -> Result<Type> {
        if let (Container::Tuple, [item, rest]) = (container, args)
            && matches!(rest.kind, ExprKind::Ellipsis)
        {
            let item = self.argument(item, spelling)?;
            return Ok(Type::VariadicTuple(Box::new(item), spelling));
        }
        let read = |arg: &Expr<'_>| self.argument(arg, spelling);
        Type::generic(container, spelling, args, read)?.ok_or_else(|| {
            let wanted = if container == Container::Dict {
                "two types"
            } else {
                "one type"
            };
            let message = format!("'{}' takes {wanted}, not {}", container.name(), args.len());
            wrong_arguments(expr.span, &message)
        })
    }

    /// `typing` makes `NoneType` of `None`, the builtins take it as it is.
    fn argument(&mut self, expr: &Expr<'_>, spelling: Spelling) -> Result<Type> {
        match &expr.kind {
            ExprKind::Constant(Constant::None) if spelling == Spelling::Builtin => {
                Ok(Type::NoneValue)
            }
            _ => self.ty(expr),
        }
    }

    fn literal(&mut self, expr: &Expr<'_>, args: &[Expr<'_>]) -> Result<Type> {
        let mut values: Vec<Constant> = Vec::with_capacity(args.len());
        for arg in args {
            match &arg.kind {
                ExprKind::Constant(value) => values.push(value.clone()),
                ExprKind::Subscript(base, _) if self.is_name(base, "Literal") => {
                    if let Type::Literal(inner) = self.ty(arg)? {
                        values.extend(inner);
                    }
                }
                // Literal[Color.RED]: Python knows the object, and typing checks it.
                ExprKind::Attribute(..) => return self.resolver.resolve(expr),
                _ => {
                    return Err(SignatureError::new(
                        Code::LiteralValue,
                        arg.span,
                        "this is not a literal value",
                    ));
                }
            }
        }
        if values.is_empty() {
            return Err(wrong_arguments(
                expr.span,
                "Literal takes at least one value",
            ));
        }
        Ok(Type::Literal(distinct_constants(values).into()))
    }

    /// A type in quotes, read by the same rules as one without.
    fn forward_reference(&mut self, expr: &Expr<'_>, text: &str) -> Result<Type> {
        if self.quoted >= self.limits.depth {
            let message = "the type is quoted deeper than the levels allowed";
            return Err(SignatureError::new(Code::TooDeep, expr.span, message));
        }
        // A mistake inside is shown where it is when the quotes hold their text as it stands.
        let inside = self
            .source
            .get(expr.span.start + 1..expr.span.end.saturating_sub(1));
        let exact = self.quoted == 0 && inside == Some(text);
        let (source, part) = if exact {
            (
                self.source,
                Span {
                    start: expr.span.start + 1,
                    end: expr.span.end - 1,
                },
            )
        } else {
            (
                text,
                Span {
                    start: 0,
                    end: text.len(),
                },
            )
        };
        self.quoted += 1;
        let ty = parse_type(source, part, self.limits).and_then(|inner| self.ty(&inner));
        self.quoted -= 1;
        ty.map_err(|mut error| {
            if !exact {
                error.span = expr.span;
            }
            error
        })
    }
}

/// Whether a name means something to Rust, alone or with arguments.
#[must_use]
pub fn is_native(name: &str) -> bool {
    plain(name).is_some()
        || matches!(
            name,
            "Optional" | "Union" | "Literal" | "Annotated" | "typing" | "bytearray"
        )
}

/// The type that a name alone stands for, if Rust knows it.
#[must_use]
pub fn plain(name: &str) -> Option<Type> {
    let (container, spelling) = match name {
        "str" | "Text" => return Some(Type::Str),
        "int" => return Some(Type::Int),
        "float" => return Some(Type::Float),
        "bool" => return Some(Type::Bool),
        "complex" => return Some(Type::Complex),
        "bytes" => return Some(Type::Bytes),
        "NoneType" => return Some(Type::None),
        "Any" => return Some(Type::Any),
        "list" => (Container::List, Spelling::Builtin),
        "tuple" => (Container::Tuple, Spelling::Builtin),
        "dict" => (Container::Dict, Spelling::Builtin),
        "set" => (Container::Set, Spelling::Builtin),
        "frozenset" => (Container::FrozenSet, Spelling::Builtin),
        "List" => (Container::List, Spelling::Typing),
        "Tuple" => (Container::Tuple, Spelling::Typing),
        "Dict" => (Container::Dict, Spelling::Typing),
        "Set" => (Container::Set, Spelling::Typing),
        "FrozenSet" => (Container::FrozenSet, Spelling::Typing),
        _ => return None,
    };
    Some(Type::Bare(container, spelling))
}

/// Names behind `typing.` that Rust knows; `typing.int` is none.
fn is_typing_name(name: &str) -> bool {
    matches!(
        name,
        "Text"
            | "Any"
            | "List"
            | "Tuple"
            | "Dict"
            | "Set"
            | "FrozenSet"
            | "Optional"
            | "Union"
            | "Literal"
            | "Annotated"
    )
}

/// `typing.Union` of these: flat, nothing twice, and a union of one is that one.
#[must_use]
pub fn union(members: Vec<Type>) -> Type {
    let mut flat: Vec<Type> = Vec::with_capacity(members.len());
    for member in members {
        match member {
            Type::Union { members, .. } => flat.extend(members),
            other => flat.push(other),
        }
    }
    flat = distinct_types(flat);
    match flat.pop() {
        Some(only) if flat.is_empty() => only,
        last => {
            flat.extend(last);
            Type::Union {
                members: flat.into(),
                spelling: UnionSpelling::Typing,
            }
        }
    }
}

fn not_a_type(span: Span) -> SignatureError {
    SignatureError::new(Code::NotAType, span, "this is not a type")
}

fn wrong_arguments(span: Span, message: &str) -> SignatureError {
    SignatureError::new(Code::TypeArguments, span, message)
}
