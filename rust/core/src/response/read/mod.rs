//! A reply read as the output fields of a signature.
//!
//! [`read`] makes three attempts. First it reads as DSPy reads ([`sections`], [`read_text`], [`read_json`],
//! [`read_xml`]), making broken JSON whole where DSPy does ([`repair`], [`guess`]). With [`Parsing::Tolerant`] it then
//! looks for the text of each field that DSPy does not read (`tolerant`), and last for the value that such a text is
//! near to (`near`). What DSPy read stays as it is; what could be read in two ways is not read at all.
//!
//! Values stay on the caller's side: a [`Host`] makes them, and is asked for what takes a class of the caller's or
//! pydantic to decide.
//!
//! ```text
//! mod       the order of the attempts; strict reading of each layout
//! json      the object in a reply of JSON
//! host      what is asked of the caller's side                         Host
//! repairs   what was done to the reply                                 RepairCode
//! error     why it cannot be read                                      ReadError
//! ```

mod error;
mod host;
mod json;
mod repairs;

pub use self::error::{Cause, ReadError, ReadErrorKind, TOO_COSTLY};
pub use self::host::{
    Choices, Coerced, Element, Entries, Host, HostError, HostJson, Kind, Mended, Target, Values,
};
pub use self::json::braced;
pub(crate) use self::repairs::SHOWN;
pub use self::repairs::{Repair, RepairCode};

use super::chat::sections;
use super::stream::partial;
use super::strict;
use super::value::{Reading, Value, read_json, read_text};
use super::xml::read_xml;
use crate::dialect::Dialect;
use crate::prompt::Layout;
use crate::signature::{Field, FieldDefault};
use crate::types::Type;

/// How closely a reply must keep to its layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsing {
    /// As DSPy reads it, its quirks included.
    Strict,
    /// As a person would read it.
    Tolerant,
}

/// How the replies of a signature are read.
#[derive(Clone, Copy, Debug)]
pub struct ReadPlan<'a> {
    /// The layout that was asked for.
    pub layout: Layout,
    /// The fields that are looked for.
    pub outputs: &'a [Field],
    /// Whose reading comes first.
    pub dialect: &'static Dialect,
    /// How closely the layout must be kept to.
    pub parsing: Parsing,
}

impl ReadPlan<'_> {
    /// The place of the output of this name.
    pub(in crate::response) fn place(&self, name: &str) -> Option<usize> {
        self.outputs.iter().position(|field| *field.name == *name)
    }

    /// Whether an output is read as text, of which nothing else can come.
    pub fn is_text<H: Host>(&self, output: usize, host: &mut H) -> Result<bool, H::Error> {
        let ty = &self.outputs[output].ty;
        match ty {
            Type::Str => Ok(true),
            // An optional text is as good as a text.
            Type::Union { .. } => Ok(ty.as_optional() == Some(&Type::Str)),
            Type::External(_) => host.is_text(output),
            _ => Ok(false),
        }
    }

    fn is_tolerant(&self) -> bool {
        self.parsing == Parsing::Tolerant
    }
}

/// A reply as it came.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// It is text.
    Text(&'a str),
    /// It had halves of surrogate pairs, which are put together or replaced here.
    Mended(&'a str),
}

/// What was read.
#[derive(Debug)]
pub struct Outputs<V> {
    /// The value of each output; None where the reply has none and need not: the field's default counts then, or else
    /// `None`.
    pub values: Vec<Option<V>>,
    /// What was done to the reply before it could be read. Strict reading does not say.
    pub repairs: Vec<Repair>,
}

/// Read a reply.
pub fn read<H: Host>(
    plan: ReadPlan<'_>,
    reply: Source<'_>,
    host: &mut H,
) -> Result<Outputs<H::Value>, ReadError<H::Error>> {
    let (Source::Text(text) | Source::Mended(text)) = reply;
    let mut outputs = Reader::new(plan, text, host).read()?;
    if plan.is_tolerant() && matches!(reply, Source::Mended(_)) {
        let mended = Repair::new(None, RepairCode::Surrogate, text);
        outputs.repairs.insert(0, mended);
    }
    Ok(outputs)
}

/// Read one output, of which `raw` is all the text that a reply has, as DSPy does; None if it is no value of its type.
pub fn read_output<H: Host>(
    plan: ReadPlan<'_>,
    output: usize,
    raw: &str,
    host: &mut H,
) -> Result<Option<H::Value>, H::Error> {
    let name = &plan.outputs[output].name;
    let element = match plan.layout {
        Layout::Xml => format!("<{name}>{raw}</{name}>"),
        Layout::Chat | Layout::Json => String::new(),
    };
    let read = match plan.layout {
        Layout::Chat => Reader::new(plan, raw, host).text(output, raw).map(Some),
        Layout::Json => match strict::parse(raw) {
            Some(mut json) => Reader::new(plan, raw, host)
                .json_value(output, &mut json)
                .map(Some),
            None => Ok(None),
        },
        Layout::Xml => {
            let mut reader = Reader::new(plan, &element, host);
            reader.xml().map(|()| reader.values[output].take())
        }
    };
    match read {
        Ok(value) => Ok(value),
        Err(ReadError {
            kind: ReadErrorKind::Host(error),
            ..
        }) => Err(error),
        Err(_) => Ok(None),
    }
}

/// What may be shown of an output of which `raw` has come so far; None as long as nothing is sure. Of two values shown
/// one after the other the first is a beginning of the second.
pub fn read_partial<H: Host>(
    plan: ReadPlan<'_>,
    output: usize,
    raw: &str,
    host: &mut H,
) -> Result<Option<H::Value>, H::Error> {
    let ty = &plan.outputs[output].ty;
    match (ty, plan.layout) {
        (Type::Int | Type::Float | Type::Bool | Type::None | Type::Literal(_), _) => Ok(None),
        (_, Layout::Xml) if raw.starts_with('<') => host.partial_xml(output, raw),
        (_, Layout::Xml) => Ok(None),
        (_, Layout::Chat | Layout::Json) => {
            let Some(part) = partial(raw, ty) else {
                return Ok(None);
            };
            let value = host.values().make(&part.value)?;
            if part.is_external {
                host.partial_json(output, value)
            } else {
                Ok(Some(value))
            }
        }
    }
}

/// What a step of the reader gives.
pub(super) type Step<T, H> = Result<T, ReadError<<H as Host>::Error>>;

/// One reply being read.
pub(super) struct Reader<'a, H: Host> {
    pub(super) plan: ReadPlan<'a>,
    pub(super) reply: &'a str,
    pub(super) host: &'a mut H,
    /// The value of each output, as far as there is one.
    pub(super) values: Vec<Option<H::Value>>,
    /// With tolerance: the outputs that have no value of their type, each with its text or JSON, and the first reason
    /// why.
    pub(super) refused: Vec<(usize, H::Value)>,
    pub(super) refusal: Option<ReadError<H::Error>>,
    /// With tolerance: what was done that DSPy does too.
    pub(super) repairs: Vec<Repair>,
}

impl<'a, H: Host> Reader<'a, H> {
    fn new(plan: ReadPlan<'a>, reply: &'a str, host: &'a mut H) -> Self {
        Self {
            plan,
            reply,
            host,
            values: plan.outputs.iter().map(|_| None).collect(),
            refused: Vec::new(),
            refusal: None,
            repairs: Vec::new(),
        }
    }

    fn read(mut self) -> Step<Outputs<H::Value>, H> {
        let strictly = match self.plan.layout {
            Layout::Chat => self.chat(),
            Layout::Json => self.json(),
            Layout::Xml => self.xml(),
        };
        if let Err(error) = strictly {
            if !self.plan.is_tolerant() || !error.kind.is_refusal() {
                return Err(error);
            }
            self.refusal.get_or_insert(error);
        }
        if !self.plan.is_tolerant() || self.values.iter().all(Option::is_some) {
            let repairs = std::mem::take(&mut self.repairs);
            return self.finish(repairs);
        }
        self.tolerantly()
    }

    /// Headers and texts.
    fn chat(&mut self) -> Step<(), H> {
        let plan = self.plan;
        for section in sections(self.reply, |name| plan.place(name)) {
            if section.indented && plan.is_tolerant() {
                // A part of the marker is in the text.
                let text = self.host.values().make(&Value::Str(section.text))?;
                self.refused.push((section.field, text));
                continue;
            }
            let read = self.text(section.field, &section.text);
            self.set(section.field, read, |host| {
                host.values().make(&Value::Str(section.text))
            })?;
        }
        Ok(())
    }

    /// The value of an output, from its text.
    fn text(&mut self, output: usize, text: &str) -> Step<H::Value, H> {
        let ty = &self.plan.outputs[output].ty;
        if let Some(value) = self.made(output, read_text(text, ty, self.plan.dialect), text)? {
            return Ok(value);
        }
        let raw = self.host.values().make(&Value::Str(text.into()))?;
        self.coerced(output, &raw)
    }

    /// The value of an output, from JSON, which is taken unless the host has to read it.
    fn json_value(&mut self, output: usize, json: &mut Value<'_>) -> Step<H::Value, H> {
        let ty = &self.plan.outputs[output].ty;
        let read = read_json(json, ty, self.plan.dialect);
        let text = match json {
            Value::Str(text) => &**text,
            _ => "",
        };
        if let Some(value) = self.made(output, read, text)? {
            return Ok(value);
        }
        let raw = self.host.values().make(json)?;
        self.coerced(output, &raw)
    }

    /// Elements.
    fn xml(&mut self) -> Step<(), H> {
        let Some(values) = read_xml(self.reply, self.plan.outputs, self.plan.dialect) else {
            return self.xml_of_host();
        };
        for (output, read) in values.into_iter().enumerate() {
            if let Some(read) = read {
                self.values[output] = self.made(output, read, self.reply)?;
            }
        }
        Ok(())
    }

    /// A reply that is not plain XML, or whose values take a conversion.
    fn xml_of_host(&mut self) -> Step<(), H> {
        let xml = match self.host.parse_xml(self.reply)? {
            Ok(xml) => xml,
            Err(problem) => return Err(self.error(ReadErrorKind::NotXml(problem))),
        };
        for output in 0..self.values.len() {
            match self.host.read_xml(&xml, output) {
                Ok(None) => {}
                Ok(Some((value, code))) => {
                    self.values[output] = Some(value);
                    if let Some(code) = code {
                        self.repaired(Some(output), code, self.reply);
                    }
                }
                Err(error) => {
                    let (refused, reply) = (self.refused_by(output, error), self.reply);
                    self.set(output, Err(refused), |host| {
                        host.values().make(&Value::Str(reply.into()))
                    })?;
                }
            }
        }
        Ok(())
    }

    /// The value that the core read, if it did.
    fn made(&mut self, output: usize, read: Reading<'_>, text: &str) -> Step<Option<H::Value>, H> {
        if let Reading::Repaired(_, code) = read {
            self.repaired(Some(output), code, text);
        }
        match read.value() {
            Some(value) => Ok(Some(self.host.values().make(&value)?)),
            None => Ok(None),
        }
    }

    /// The value as only the host can read it.
    fn coerced(&mut self, output: usize, raw: &H::Value) -> Step<H::Value, H> {
        let (value, code) = self
            .host
            .coerce(Target { output, items: 0 }, raw)
            .map_err(|error| self.refused_by(output, error))?;
        if let Some(code) = code {
            let text = match self.host.values().kind(raw)? {
                Kind::Text(text) => text,
                _ => String::new(),
            };
            self.repaired(Some(output), code, &text);
        }
        Ok(value)
    }

    /// The value of an output, if it has one. With tolerance one that has none is kept for later, and the others are
    /// read as if it had.
    fn set(
        &mut self,
        output: usize,
        read: Step<H::Value, H>,
        raw: impl FnOnce(&mut H) -> Result<H::Value, H::Error>,
    ) -> Step<(), H> {
        match read {
            Ok(value) => self.values[output] = Some(value),
            Err(error) if self.plan.is_tolerant() && error.kind.is_refusal() => {
                let raw = raw(self.host)?;
                self.refused.push((output, raw));
                self.refusal.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Something was done to a text, which counts where somebody asked.
    fn repaired(&mut self, output: Option<usize>, code: RepairCode, text: &str) {
        if self.plan.is_tolerant() {
            self.repairs.push(Repair::new(output, code, text));
        }
    }

    /// The values, if those are there that must be.
    pub(super) fn finish(self, repairs: Vec<Repair>) -> Step<Outputs<H::Value>, H> {
        let missing: Vec<usize> = (0..self.values.len())
            .filter(|at| self.is_missing(*at))
            .collect();
        if !missing.is_empty() {
            return Err(self.error(ReadErrorKind::Missing(missing)));
        }
        Ok(Outputs {
            values: self.values,
            repairs,
        })
    }

    /// Whether an output has no value and must have one.
    pub(super) fn is_missing(&self, output: usize) -> bool {
        let field = &self.plan.outputs[output];
        let may_lack = field.default != FieldDefault::Required || field.ty.allows_none();
        self.values[output].is_none() && !may_lack
    }

    pub(super) fn error(&self, kind: ReadErrorKind<H::Error>) -> ReadError<H::Error> {
        let values = self.values.iter().enumerate();
        let read = values.filter(|(_, value)| value.is_some());
        ReadError {
            kind,
            read: read.map(|(output, _)| output).collect(),
        }
    }

    /// The error for an output of which the host gives no value.
    pub(super) fn refused_by(
        &self,
        output: usize,
        error: HostError<H::Error>,
    ) -> ReadError<H::Error> {
        let (reason, cause) = match error {
            HostError::Refused(error) => (String::new(), Some(Cause::Host(error))),
            HostError::Raised(error) if self.plan.dialect.any_error_refuses => {
                (String::new(), Some(Cause::Host(error)))
            }
            HostError::Ambiguous(reason) => (reason, None),
            HostError::Raised(error) | HostError::Failed(error) => {
                return self.error(ReadErrorKind::Host(error));
            }
            HostError::TooCostly => return self.error(ReadErrorKind::TooCostly(Some(output))),
        };
        self.error(ReadErrorKind::NoValue {
            output,
            reason,
            cause,
        })
    }
}
