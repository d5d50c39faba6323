//! The name of a type as DSPy's prompts show it.

use super::{Args, Constant, Spelling, Type, UnionSpelling};
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
            Self::Generic {
                container,
                spelling,
                args,
            } => {
                out.push_str(container.name());
                match args {
                    Args::Bare if *spelling == Spelling::Builtin => {}
                    // `typing.List` has an origin but no arguments, and DSPy writes both.
                    Args::Bare => out.push_str("[]"),
                    Args::Of(types) => write_names(out, types, dialect),
                    Args::Variadic(item) => {
                        out.push('[');
                        item.write_display_name(out, dialect);
                        out.push_str(", Ellipsis]");
                    }
                }
            }
            Self::Union { members, spelling } => {
                let apart = dialect.names_pipes && *spelling == UnionSpelling::Pipe;
                out.push_str(if apart { "UnionType" } else { "Union" });
                write_names(out, members, dialect);
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
            Self::Python(opaque) => out.push_str(match &opaque.pipe_name {
                Some(name) if dialect.names_pipes => name,
                _ => &opaque.name,
            }),
        }
    }
}

fn write_names(out: &mut String, types: &[Type], dialect: &Dialect) {
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
