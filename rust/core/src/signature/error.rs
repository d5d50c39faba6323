//! What can be wrong with the text of a signature.

use std::fmt;

/// A range of bytes in the text that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// One past the last byte; equal to `start` for a place between two characters.
    pub end: usize,
}

impl Span {
    /// From the start of this span to the end of another.
    #[must_use]
    pub fn to(self, other: Self) -> Self {
        Self {
            start: self.start,
            end: other.end,
        }
    }
}

/// Why a text is not a signature, and where it stops being one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureError {
    /// The kind of mistake.
    pub code: Code,
    /// What is wrong, in one sentence without its place.
    pub message: String,
    /// What to do about it.
    pub hint: String,
    /// Where.
    pub span: Span,
}

impl SignatureError {
    /// An error of this kind at this place, with the hint that its code always has.
    #[must_use]
    pub fn new(code: Code, span: Span, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: code.hint().to_owned(),
            span,
        }
    }
}

impl SignatureError {
    /// With a hint that begins with what was probably meant.
    #[must_use]
    pub fn suggest(mut self, meant: &str) -> Self {
        self.hint = format!("did you mean '{meant}'? otherwise {}", self.code.hint());
        self
    }
}

impl fmt::Display for SignatureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message, self.code.name())
    }
}

impl std::error::Error for SignatureError {}

macro_rules! codes {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal, $hint:literal;)+) => {
        /// The kinds of mistakes. Their names are stable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])+ $variant,)+
        }

        impl Code {
            /// All of them, so that tests can ask for a case of each.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name that programs see.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What to do about a mistake of this kind.
            #[must_use]
            pub fn hint(self) -> &'static str {
                match self {
                    $(Self::$variant => $hint,)+
                }
            }
        }
    };
}

codes! {
    /// `question` without `->`.
    MissingArrow = "missing-arrow", "put '->' between the inputs and the outputs: 'question -> answer'";
    /// `a -> b -> c`
    ManyArrows = "many-arrows", "a signature is one step: inputs, one '->', outputs";
    /// `a: Literal['x->y'] -> b`
    ArrowInString = "arrow-in-string", "DSPy splits the text at '->' before it looks for quotes; use a class signature, or pass the type in types=";
    /// `a -> b: int]`, `a b -> c`, `a -> b: `
    Syntax = "syntax", "write 'name' or 'name: type', separated by commas";
    /// `a: list[int -> b`
    UnclosedBracket = "unclosed-bracket", "close the bracket on the same side of the arrow";
    /// `a: Literal['x -> b`
    UnterminatedString = "unterminated-string", "close the quotes; only triple quotes span lines";
    /// `Literal['\x1']`, `Literal['\N{BULLET}']`, `Literal['\ud800']`
    InvalidEscape = "invalid-escape", "write the character itself, or a raw string";
    /// `Literal[0123]`, `Literal[1_]`
    InvalidNumber = "invalid-number", "write numbers as Python does";
    /// `a # comment -> b`
    CommentAtEnd = "comment-at-end", "end the comment with a line break before the arrow or the end, or leave it out";
    /// `class -> b`
    KeywordName = "keyword-name", "choose a name that is not a keyword of Python";
    /// `fields -> b`
    ReservedName = "reserved-name", "DSPy's signature class has an attribute of that name; choose another";
    /// `_a -> b`
    UnderscoreName = "underscore-name", "drop the underscore; pydantic keeps such names for private attributes";
    /// `a -> a`
    DuplicateField = "duplicate-field", "give the input and the output different names";
    /// `a = 1, b -> c`
    DefaultOrder = "default-order", "put fields with a default behind those without";
    /// `*a -> b`
    ParameterMarker = "parameter-marker", "fields are plain names; DSPy would drop what these markers hold";
    /// `a: Nope -> b`
    UnknownName = "unknown-name", "pass the type as types={'Name': Name}, or define it where the signature is made";
    /// `a: datetime.nope -> b`
    UnknownAttribute = "unknown-attribute", "check the spelling, or pass the type in types=";
    /// `a: 5 -> b`, `a: list[3] -> b`
    NotAType = "not-a-type", "a field's type is a class or a type of typing";
    /// `a: dict[str] -> b`, `a: int[str] -> b`
    TypeArguments = "type-arguments", "list[T], set[T], dict[K, V], tuple[A, B], tuple[T, ...], Optional[T], Union[A, B], Literal['a', 1]";
    /// `a: Literal[int] -> b`
    LiteralValue = "literal-value", "a Literal holds strings, numbers, True, False, None, bytes or members of an enum";
    /// `a: [int] -> b`, `a: int & str -> b`, `a: f() -> b`
    Expression = "expression", "types are names, names with [...], and types joined by '|'; use a class signature for anything else";
    /// `a: int = f(x) -> b`
    DefaultValue = "default-value", "a default in a string is a plain value, and DSPy drops it anyway; use a class signature";
    /// A type that pydantic, and so DSPy, has no schema for.
    UnsupportedType = "unsupported-type", "use a type that pydantic can validate";
    /// More characters than the limit.
    TooLong = "too-long", "raise the limit if the signature is meant to be that long";
    /// Brackets nested deeper than the limit.
    TooDeep = "too-deep", "raise the limit if the type is meant to be that deep";
    /// More fields than the limit.
    TooManyFields = "too-many-fields", "raise the limit if the signature is meant to have that many";
}
