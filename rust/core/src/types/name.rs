//! The name of a type as DSPy's prompts show it.

use std::slice;

use super::{Constant, Spelling, Type, UnionSpelling};
use crate::dialect::Dialect;

impl Type {
    /// The name a prompt of the newest dialect shows: `list[str]`, `Union[int, NoneType]`, `Literal['a', 1]`.
    #[must_use]
    pub fn display_name(&self) -> String {
        let mut out = String::new();
        self.write_display_name(&mut out, Dialect::newest());
        out
    }

    /// Appends the name that a prompt of this dialect shows.
    pub fn write_display_name(&self, out: &mut String, dialect: &Dialect) {
        match self {
            Self::Str => out.push_str("str"),
            Self::Int => out.push_str("int"),
            Self::Float => out.push_str("float"),
            Self::Bool => out.push_str("bool"),
            Self::Complex => out.push_str("complex"),
            Self::Bytes => out.push_str("bytes"),
            Self::None => out.push_str("NoneType"),
            Self::NoneValue => out.push_str("None"),
            Self::Any => out.push_str("Any"),
            Self::Bare(container, spelling) => {
                out.push_str(container.name());
                // `typing.List` has an origin but no arguments, and DSPy writes both.
                if *spelling == Spelling::Typing {
                    out.push_str("[]");
                }
            }
            Self::List(item, _) => write_generic(out, "list", slice::from_ref(item), dialect),
            Self::Set(item, _) => write_generic(out, "set", slice::from_ref(item), dialect),
            Self::FrozenSet(item, _) => {
                write_generic(out, "frozenset", slice::from_ref(item), dialect);
            }
            Self::Dict(entry, _) => write_generic(out, "dict", &**entry, dialect),
            Self::Tuple(types, _) => write_generic(out, "tuple", types, dialect),
            Self::VariadicTuple(item, _) => {
                out.push_str("tuple[");
                item.write_display_name(out, dialect);
                out.push_str(", Ellipsis]");
            }
            Self::Union { members, spelling } => {
                let apart = dialect.names_pipes && *spelling == UnionSpelling::Pipe;
                let name = if apart { "UnionType" } else { "Union" };
                write_generic(out, name, members, dialect);
            }
            Self::Literal(values) => {
                out.push_str("Literal[");
                for (i, value) in values.iter().enumerate() {
                    if i > 0 {
                        out.push_str(", ");
                    }
                    match value {
                        Constant::Str(text) => write_quoted(out, text),
                        other => other.write_str(out),
                    }
                }
                out.push(']');
            }
            Self::External(external) => out.push_str(match &external.pipe_name {
                Some(name) if dialect.names_pipes => name,
                _ => &external.name,
            }),
        }
    }
}

fn write_generic(out: &mut String, name: &str, types: &[Type], dialect: &Dialect) {
    out.push_str(name);
    out.push('[');
    for (i, ty) in types.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        ty.write_display_name(out, dialect);
    }
    out.push(']');
}

/// DSPy's quotes: the kind that the text does not hold; nothing but `'` is ever escaped.
fn write_quoted(out: &mut String, text: &str) {
    match (text.contains('\''), text.contains('"')) {
        (true, false) => {
            out.push('"');
            out.push_str(text);
            out.push('"');
        }
        (true, true) => {
            out.push('\'');
            out.push_str(&text.replace('\'', "\\'"));
            out.push('\'');
        }
        (false, _) => {
            out.push('\'');
            out.push_str(text);
            out.push('\'');
        }
    }
}
