//! A type as the text of a signature writes it.

use super::{Constant, Spelling, Type, UnionSpelling};
use crate::dialect::Dialect;

impl Type {
    /// Appends text that reads back as this type, both here and in DSPy.
    ///
    /// In a string `int | None` makes `typing.Optional[int]`, so a class signature that has the former has the
    /// latter when its text is read again; only prompts of a dialect that names pipes show the difference.
    pub fn write_source(&self, out: &mut String) {
        match self {
            Self::Union {
                members,
                spelling: UnionSpelling::Pipe,
            } => {
                for (i, member) in members.iter().enumerate() {
                    out.push_str(if i > 0 { " | " } else { "" });
                    match member {
                        Self::None => out.push_str("None"),
                        member => member.write_source(out),
                    }
                }
            }
            Self::Union { members, .. } => match &**members {
                [only, Self::None] => {
                    out.push_str("Optional[");
                    only.write_source(out);
                    out.push(']');
                }
                members => {
                    out.push_str("Union");
                    write_list(out, members, Self::write_source);
                }
            },
            Self::Literal(values) => {
                out.push_str("Literal");
                write_list(out, values, Constant::write_source);
            }
            Self::External(external) => out.push_str(&external.source),
            // A bare `None` is `str` for DSPy, and `NoneType` is unknown to it next to a type of the caller's.
            Self::None => out.push_str("Optional[None]"),
            other => match other.container() {
                Some((container, spelling)) => {
                    out.push_str(match spelling {
                        Spelling::Builtin => container.name(),
                        Spelling::Typing => container.typing_name(),
                    });
                    other.write_args(out);
                }
                None => other.write_display_name(out, Dialect::newest()),
            },
        }
    }

    /// What stands behind the name of a container.
    fn write_args(&self, out: &mut String) {
        match self {
            Self::Bare(..) => {}
            Self::VariadicTuple(item, _) => {
                out.push('[');
                item.write_source(out);
                out.push_str(", ...]");
            }
            Self::Tuple(types, _) if types.is_empty() => out.push_str("[()]"),
            other => write_list(out, other.parts(), Self::write_source),
        }
    }
}

fn write_list<T>(out: &mut String, items: &[T], write: impl Fn(&T, &mut String)) {
    out.push('[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        write(item, out);
    }
    out.push(']');
}
