//! Why a reply cannot be read.

use crate::signature::Field;

/// A reply that cannot be read, or a host that fails.
#[derive(Debug)]
pub struct ReadError<E> {
    /// What is wrong.
    pub kind: ReadErrorKind<E>,
    /// The outputs that had a value by then.
    pub read: Vec<usize>,
}

impl<E> From<E> for ReadError<E> {
    fn from(error: E) -> Self {
        Self {
            kind: ReadErrorKind::Host(error),
            read: Vec::new(),
        }
    }
}

/// What is wrong with a reply.
#[derive(Debug)]
pub enum ReadErrorKind<E> {
    /// The outputs that it lacks and must have.
    Missing(Vec<usize>),
    /// It holds no JSON object.
    NotJson,
    /// It is no XML, as the parser says.
    NotXml(String),
    /// What it has for an output is no value of its type.
    NoValue {
        /// The output.
        output: usize,
        /// What else there is to say; may be empty.
        reason: String,
        /// What came before.
        cause: Option<Cause<E>>,
    },
    /// The broken JSON in it, or in its text for an output, would take too many steps to make whole.
    TooCostly(Option<usize>),
    /// The host failed, of which the reply may be innocent.
    Host(E),
}

/// What stands behind an error.
#[derive(Debug)]
pub enum Cause<E> {
    /// The host's own.
    Host(E),
    /// The first that was wrong, before tolerance had its chance.
    Read(Box<ReadError<E>>),
}

impl<E> ReadErrorKind<E> {
    /// What went wrong, for the signature with these outputs; empty for a failure of the host, which speaks for itself.
    #[must_use]
    pub fn message(&self, outputs: &[Field]) -> String {
        match self {
            Self::Missing(missing) => {
                let names = missing.iter().map(|at| format!("`{}`", outputs[*at].name));
                format!("the reply has no {}", names.collect::<Vec<_>>().join(", "))
            }
            Self::NotJson => "the reply holds no JSON object".into(),
            Self::NotXml(problem) => format!("the reply is no XML: {problem}"),
            Self::NoValue { output, reason, .. } => {
                let field = &outputs[*output];
                let ty = field.ty.display_name();
                let mut message = format!("the reply's value for `{}` is no {ty}", field.name);
                if !reason.is_empty() {
                    message.push_str(": ");
                    message.push_str(reason);
                }
                message
            }
            Self::TooCostly(_) => {
                "the broken JSON in the reply would take too many steps to make whole".into()
            }
            Self::Host(_) => String::new(),
        }
    }

    /// Its code, which programs may rely on.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing(_) => "reply-missing-fields",
            Self::NotJson => "reply-not-json",
            Self::NotXml(_) => "reply-not-xml",
            Self::NoValue { .. } => "reply-field-value",
            Self::TooCostly(_) => TOO_COSTLY,
            Self::Host(_) => "",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Missing(_) => "the model did not keep to the layout it was asked for",
            Self::NotJson => "ask for JSON more plainly, or let the adapter retry",
            Self::NotXml(_) => "the text between tags needs `&amp;` and `&lt;` for `&` and `<`",
            Self::NoValue { .. } => {
                "a wider type, such as `str`, takes any reply; a description can say what is wanted"
            }
            Self::TooCostly(_) => {
                "look at the reply, and ask again: no ordinary reply comes near the bound in docs/adapters.md"
            }
            Self::Host(_) => "",
        }
    }

    /// The output that it is about, if it is one.
    #[must_use]
    pub fn output(&self) -> Option<usize> {
        match self {
            Self::NoValue { output, .. } => Some(*output),
            Self::TooCostly(output) => *output,
            _ => None,
        }
    }

    /// Whether the reply says something other than it should; if not, tolerance is no help.
    pub(in crate::response) fn is_refusal(&self) -> bool {
        !matches!(self, Self::TooCostly(_) | Self::Host(_))
    }
}

/// The code of the error for what would take too many steps.
pub const TOO_COSTLY: &str = "reply-too-costly";
