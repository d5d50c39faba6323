//! What the reader asks of the side that holds the values.

use super::RepairCode;
use crate::response::{Guess, Value};

/// Makes values and says what they are.
pub trait Values {
    /// A value as that side has it.
    type Value: Clone;
    /// What goes wrong there.
    type Error;

    /// The value, made.
    fn make(&mut self, value: &Value<'_>) -> Result<Self::Value, Self::Error>;

    /// The same of a guess, which may hold longer numbers and halves of surrogate pairs.
    fn make_guess(&mut self, value: &Guess) -> Result<Self::Value, Self::Error>;

    /// A list with this value in it and no other.
    fn make_list(&mut self, item: Self::Value) -> Result<Self::Value, Self::Error>;

    /// What kind of value it is.
    fn kind(&mut self, value: &Self::Value) -> Result<Kind, Self::Error>;

    /// The value as Python's `str()` shows it.
    fn display(&mut self, value: &Self::Value) -> Result<String, Self::Error>;

    /// The value as Python's `repr()` shows it.
    fn repr(&mut self, value: &Self::Value) -> Result<String, Self::Error>;
}

/// What is asked of a value whose type does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `None`
    None,
    /// A text. Halves of surrogate pairs are one character where they are side by side, else U+FFFD.
    Text(String),
    /// A list.
    List,
    /// Anything else.
    Other,
}

/// What only the side can do that knows the caller's classes, and pydantic.
pub trait Host {
    /// A value as that side has it.
    type Value: Clone;
    /// What goes wrong there.
    type Error;
    /// What makes its values.
    type Values: Values<Value = Self::Value, Error = Self::Error>;
    /// A reply that its parser took for XML.
    type Xml;

    /// What makes the values.
    fn values(&mut self) -> &mut Self::Values;

    /// Read a text or JSON as a type, as DSPy does, with the repair that a text takes. The core has not read it:
    /// it is no plain value of its type.
    fn coerce(
        &mut self,
        target: Target,
        raw: &Self::Value,
    ) -> Result<Coerced<Self::Value>, HostError<Self::Error>>;

    /// Read a value that `coerce` refused for what stands inside it, with every refused part near to its type
    /// converted; None if that is not all that is wrong.
    fn mend(
        &mut self,
        target: Target,
        raw: &Self::Value,
        refusal: &Self::Error,
    ) -> Result<Option<Mended<Self::Value>>, HostError<Self::Error>>;

    /// The choices that a `Literal` or a type of the caller's consists of; None if it does not.
    fn choices(&mut self, target: Target) -> Result<Option<Choices<Self::Value>>, Self::Error>;

    /// Whether what a model writes for an output of the caller's own type is its text, as it stands.
    fn is_text(&mut self, output: usize) -> Result<bool, Self::Error>;

    /// What may be shown of a value that ends in a text which is still growing, in a place whose type only the host
    /// knows; None if nothing may.
    fn partial_json(
        &mut self,
        output: usize,
        value: Self::Value,
    ) -> Result<Option<Self::Value>, Self::Error>;

    /// What may be shown of a value of which `inside` is the beginning of its element's inside; None if nothing may.
    fn partial_xml(
        &mut self,
        output: usize,
        inside: &str,
    ) -> Result<Option<Self::Value>, Self::Error>;

    /// What a text is that the core's parser does not take for JSON.
    fn parse_json(&mut self, text: &str) -> Result<HostJson<Self::Value>, Self::Error>;

    /// The entries of a value, if it is a mapping; keys that are no text may be left out.
    fn entries(&mut self, value: &Self::Value)
    -> Result<Option<Entries<Self::Value>>, Self::Error>;

    /// A reply, parsed; or what is wrong with it as XML.
    fn parse_xml(&mut self, reply: &str) -> Result<Result<Self::Xml, String>, Self::Error>;

    /// Read the elements of an output as DSPy does, with the repair that their text takes; None if there is none.
    fn read_xml(
        &mut self,
        xml: &Self::Xml,
        output: usize,
    ) -> Result<Option<Coerced<Self::Value>>, HostError<Self::Error>>;

    /// The elements of an output that stand anywhere inside elements at the top, but for those of `except`.
    fn nested_xml(
        &mut self,
        xml: &Self::Xml,
        output: usize,
        except: &[usize],
    ) -> Result<Self::Xml, Self::Error>;

    /// The elements of an output; None if there is none.
    fn element(&mut self, xml: &Self::Xml, output: usize) -> Result<Option<Element>, Self::Error>;

    /// What the elements of an output say before it is converted, if that is a list or a mapping.
    fn tree(&mut self, xml: &Self::Xml, output: usize) -> Result<Option<Self::Value>, Self::Error>;
}

/// A value, with the repair that its text took.
pub type Coerced<V> = (V, Option<RepairCode>);

/// A value, with the repairs that it took.
pub type Mended<V> = (V, Vec<RepairCode>);

/// The entries of a mapping.
pub type Entries<V> = Vec<(String, V)>;

/// The type that a text is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The output whose type it is.
    pub output: usize,
    /// Of how many lists, one inside the other, it is the type of the items.
    pub items: usize,
}

/// Why a host gives no value.
#[derive(Debug)]
pub enum HostError<E> {
    /// What was read is no value of the type.
    Refused(E),
    /// Code of the caller's raised an error that does not say so. With some versions of DSPy it does.
    Raised(E),
    /// What was read could be two values.
    Ambiguous(String),
    /// It would take too many steps.
    TooCostly,
    /// Anything else, which is not the reader's.
    Failed(E),
}

/// What a host's parser of JSON says of a text.
#[derive(Debug)]
pub enum HostJson<V> {
    /// It is JSON.
    Value(V),
    /// It is none.
    Invalid,
    /// Nobody can say, because it nests too deep.
    TooDeep,
}

/// Values that a text may name.
#[derive(Debug)]
pub struct Choices<V> {
    /// Each value.
    pub values: Vec<V>,
    /// Their names, each with the place of its value. A value may have several.
    pub names: Vec<(String, usize)>,
}

/// The elements of one name.
#[derive(Debug)]
pub struct Element {
    /// How many there are.
    pub count: usize,
    /// The text of the first, with the tags inside.
    pub text: String,
    /// Whether the first has elements inside.
    pub has_children: bool,
}
