//! What can be wrong with a template, and where.

use std::error::Error as _;
use std::fmt;

use minijinja::{Error, ErrorKind};

use crate::signature::Span;

/// Why a template could not be compiled or rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// The kind of mistake.
    pub code: Code,
    /// What is wrong, in one sentence without its place.
    pub message: String,
    /// Where in the source, if that is known.
    pub span: Option<Span>,
}

/// The kinds of mistakes. Their names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The source is not Jinja: `{% if %}`.
    Syntax,
    /// The source is longer than is compiled.
    SourceTooLong,
    /// A filter, test, function or method is not there: `{{ x|nope }}`.
    UnknownName,
    /// A name or an entry has no value: `{{ missing }}`.
    Undefined,
    /// An operation does not fit its values: `{{ 1 + "a" }}`.
    Operation,
    /// The steps are used up.
    OutOfFuel,
    /// The text grew beyond its limit.
    OutputTooLong,
    /// A value that the template made grew beyond its limit: `x + x`, over and over.
    ValueTooLarge,
    /// Macros or loops nest too deep.
    TooDeep,
}

impl Code {
    /// The name that programs see.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Syntax => "template-syntax",
            Self::SourceTooLong => "template-source-too-long",
            Self::UnknownName => "template-unknown-name",
            Self::Undefined => "template-undefined",
            Self::Operation => "template-operation",
            Self::OutOfFuel => "template-fuel",
            Self::OutputTooLong => "template-output",
            Self::ValueTooLarge => "template-value",
            Self::TooDeep => "template-depth",
        }
    }

    /// What to do about a mistake of this kind.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::Syntax => "the syntax is Jinja's; other templates cannot be included",
            Self::SourceTooLong => "give long texts as values, not as part of the template",
            Self::UnknownName => "docs/templates.md lists the filters and tests there are",
            Self::Undefined => "give it a value, or write `{{ name | default('...') }}`",
            Self::Operation => "",
            Self::OutOfFuel => {
                "the template does more than `fuel` allows; raise it if that is meant"
            }
            Self::OutputTooLong | Self::ValueTooLarge => "raise `max_output` if that is meant",
            Self::TooDeep => "raise `max_depth` if that is meant",
        }
    }
}

/// Why there is no text: of the template, or of the values.
#[derive(Debug)]
pub enum Failure<E> {
    /// The template cannot be rendered with these values.
    Template(TemplateError),
    /// A container of the caller's has failed, with this error.
    Container(E),
}

impl<E: fmt::Debug> fmt::Display for Failure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Template(error) => error.fmt(f),
            Self::Container(error) => write!(f, "a value failed: {error:?}"),
        }
    }
}

impl<E: fmt::Debug> std::error::Error for Failure<E> {}

/// Why we end a rendering, carried by the engine's error as its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// A value nests too deep.
    TooDeep,
    /// A value has grown too large.
    TooLarge,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooDeep => "too deep",
            Self::TooLarge => "too large",
        })
    }
}

impl std::error::Error for Cause {}

fn cause(error: &Error) -> Option<Cause> {
    error.source()?.downcast_ref::<Cause>().copied()
}

/// What the engine says of macros and loops that nest too deep. It has no kind of its own for that, and carries no
/// cause; nobody else says just this, and a test renders what makes the engine say it.
const RECURSION: &str = "recursion limit exceeded";

impl TemplateError {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            span: None,
        }
    }

    /// What the engine says, without the values it may have seen.
    pub(super) fn from_engine(error: &Error, source: &str) -> Self {
        let inner = innermost(error);
        let detail = inner.detail().unwrap_or("");
        let code = match inner.kind() {
            ErrorKind::SyntaxError => Code::Syntax,
            ErrorKind::UndefinedError => Code::Undefined,
            ErrorKind::UnknownFilter
            | ErrorKind::UnknownTest
            | ErrorKind::UnknownFunction
            | ErrorKind::UnknownMethod => Code::UnknownName,
            ErrorKind::OutOfFuel => Code::OutOfFuel,
            ErrorKind::WriteFailure => Code::OutputTooLong,
            ErrorKind::InvalidOperation if detail == RECURSION => Code::TooDeep,
            _ => match cause(inner) {
                Some(Cause::TooDeep) => Code::TooDeep,
                Some(Cause::TooLarge) => Code::ValueTooLarge,
                None => Code::Operation,
            },
        };
        let span = inner
            .range()
            .map(|range| whole_characters(source, range.start, range.end));
        let asked = span.map_or("", |span| source.get(span.start..span.end).unwrap_or(""));
        let message = match code {
            Code::Undefined if detail.is_empty() => format!("`{asked}` has no value"),
            _ if detail.is_empty() => inner.kind().to_string(),
            _ => detail.to_owned(),
        };
        Self {
            code,
            message,
            span,
        }
    }
}

/// The span, widened to whole characters: the engine points at the first byte of one it does not expect.
fn whole_characters(source: &str, start: usize, end: usize) -> Span {
    let length = source.len();
    let is_boundary = |at: &usize| source.is_char_boundary(*at);
    let start = (0..=start.min(length)).rev().find(is_boundary).unwrap_or(0);
    let end = (end.clamp(start, length)..=length)
        .find(is_boundary)
        .unwrap_or(length);
    Span { start, end }
}

/// The error that began a chain of them: a macro's failure is wrapped by each call around it.
fn innermost(error: &Error) -> &Error {
    let mut inner = error;
    while let Some(cause) = inner
        .source()
        .and_then(|cause| cause.downcast_ref::<Error>())
    {
        inner = cause;
    }
    inner
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message, self.code.name())
    }
}

impl std::error::Error for TemplateError {}
