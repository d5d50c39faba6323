//! A host without Python: it makes the core's own values, and judges only what needs no judgement.

use std::fmt;

use dspex_core::dialect::Dialect;
use dspex_core::prompt::Layout;
use dspex_core::response::{
    Choices, Coerced, Element, Entries, Guess, Host, HostError, HostJson, Kind, Mended, Parsing,
    ReadPlan, Reading, Target, Value, Values, read_text,
};
use dspex_core::signature::Field;
use dspex_core::types::{Constant, Type};

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Known(Value<'static>),
    /// What only Python can say.
    Deferred,
}

/// What it does with a text that is no plain value of its type, where Python would ask pydantic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// Leaves open what it is.
    Defer,
    /// Takes it for none.
    Refuse,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal;

pub(crate) struct Made;

impl Values for Made {
    type Value = Answer;
    type Error = Refusal;

    fn make(&mut self, value: &Value<'_>) -> Result<Answer, Refusal> {
        Ok(Answer::Known(value.clone().into_owned()))
    }

    fn make_guess(&mut self, value: &Guess) -> Result<Answer, Refusal> {
        Ok(Answer::Known(guessed(value)))
    }

    fn make_list(&mut self, item: Answer) -> Result<Answer, Refusal> {
        Ok(match item {
            Answer::Known(item) => Answer::Known(Value::List(vec![item])),
            Answer::Deferred => Answer::Deferred,
        })
    }

    fn kind(&mut self, value: &Answer) -> Result<Kind, Refusal> {
        Ok(match value {
            Answer::Known(Value::None) => Kind::None,
            Answer::Known(Value::Str(text)) => Kind::Text(text.to_string()),
            Answer::Known(Value::List(_)) => Kind::List,
            _ => Kind::Other,
        })
    }

    fn display(&mut self, value: &Answer) -> Result<String, Refusal> {
        Ok(Shown(value).to_string())
    }

    fn repr(&mut self, value: &Answer) -> Result<String, Refusal> {
        Ok(match value {
            Answer::Known(Value::Str(text)) => format!("'{text}'"),
            value => Shown(value).to_string(),
        })
    }
}

fn guessed(value: &Guess) -> Value<'static> {
    let text = |text: &[u32]| -> String {
        let chars = text.iter().map(|c| char::from_u32(*c));
        chars.map(|c| c.unwrap_or('\u{fffd}')).collect()
    };
    match value {
        Guess::None => Value::None,
        Guess::Bool(value) => Value::Bool(*value),
        Guess::Int(value) => Value::Int(*value),
        Guess::Long(digits) => Value::Str(digits.clone().into()),
        Guess::Float(value) => Value::Float(*value),
        Guess::Str(chars) => Value::Str(text(chars).into()),
        Guess::List(items) => Value::List(items.iter().map(guessed).collect()),
        Guess::Map(entries) => {
            let entries = entries.iter();
            Value::Map(
                entries
                    .map(|(key, item)| (text(key).into(), guessed(item)))
                    .collect(),
            )
        }
    }
}

/// A value as a text shows it.
pub(crate) struct Shown<'a>(pub(crate) &'a Answer);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Answer::Known(Value::Str(text)) => f.write_str(text),
            Answer::Known(Value::Int(value)) => write!(f, "{value}"),
            Answer::Known(Value::Bool(true)) => f.write_str("True"),
            Answer::Known(Value::Bool(false)) => f.write_str("False"),
            Answer::Known(value) => write!(f, "{value:?}"),
            Answer::Deferred => f.write_str("?"),
        }
    }
}

/// The host of a reader of these outputs.
pub(crate) struct Double<'a> {
    outputs: &'a [Field],
    judgement: Judgement,
    values: Made,
    /// Whether it was asked for what only Python knows.
    pub(crate) was_asked: bool,
}

impl<'a> Double<'a> {
    pub(crate) fn new(outputs: &'a [Field], judgement: Judgement) -> Self {
        Self {
            outputs,
            judgement,
            values: Made,
            was_asked: false,
        }
    }

    fn type_of(&self, target: Target) -> &'a Type {
        let mut ty = &self.outputs[target.output].ty;
        for _ in 0..target.items {
            if let Type::List(item, _) = only(ty) {
                ty = item;
            }
        }
        ty
    }

    fn judge<T>(&mut self, deferred: T) -> Result<T, HostError<Refusal>> {
        self.was_asked = true;
        match self.judgement {
            Judgement::Defer => Ok(deferred),
            Judgement::Refuse => Err(HostError::Refused(Refusal)),
        }
    }
}

/// The one type of a union that is not None.
fn only(ty: &Type) -> &Type {
    ty.as_optional().unwrap_or(ty)
}

impl Host for Double<'_> {
    type Value = Answer;
    type Error = Refusal;
    type Values = Made;
    type Xml = ();

    fn values(&mut self) -> &mut Made {
        &mut self.values
    }

    fn coerce(
        &mut self,
        target: Target,
        raw: &Answer,
    ) -> Result<Coerced<Answer>, HostError<Refusal>> {
        if let Answer::Known(Value::Str(text)) = raw {
            match read_text(text, self.type_of(target), Dialect::newest()).into_owned() {
                Reading::Value(value) => return Ok((Answer::Known(value), None)),
                Reading::Repaired(value, code) => return Ok((Answer::Known(value), Some(code))),
                Reading::Deferred => {}
            }
        }
        self.judge((Answer::Deferred, None))
    }

    fn mend(
        &mut self,
        _: Target,
        _: &Answer,
        _: &Refusal,
    ) -> Result<Option<Mended<Answer>>, HostError<Refusal>> {
        Ok(None)
    }

    fn choices(&mut self, target: Target) -> Result<Option<Choices<Answer>>, Refusal> {
        let Type::Literal(constants) = only(self.type_of(target)) else {
            return Ok(None);
        };
        let (mut values, mut names) = (Vec::new(), Vec::new());
        for constant in constants {
            let mut name = String::new();
            constant.write_str(&mut name);
            values.push(Answer::Known(match constant {
                Constant::Int(digits) => Value::Int(digits.parse().unwrap_or_default()),
                Constant::Bool(value) => Value::Bool(*value),
                _ => Value::Str(name.clone().into()),
            }));
            names.push((name, values.len() - 1));
        }
        Ok(Some(Choices { values, names }))
    }

    fn is_text(&mut self, _: usize) -> Result<bool, Refusal> {
        Ok(false)
    }

    fn partial_json(&mut self, _: usize, _: Answer) -> Result<Option<Answer>, Refusal> {
        Ok(None)
    }

    fn partial_xml(&mut self, _: usize, _: &str) -> Result<Option<Answer>, Refusal> {
        Ok(None)
    }

    fn parse_json(&mut self, _: &str) -> Result<HostJson<Answer>, Refusal> {
        Ok(HostJson::Invalid)
    }

    fn entries(&mut self, _: &Answer) -> Result<Option<Entries<Answer>>, Refusal> {
        Ok(None)
    }

    fn parse_xml(&mut self, _: &str) -> Result<Result<(), String>, Refusal> {
        self.was_asked = true;
        Ok(Err("nobody parses it".into()))
    }

    fn read_xml(
        &mut self,
        (): &(),
        _: usize,
    ) -> Result<Option<Coerced<Answer>>, HostError<Refusal>> {
        Ok(None)
    }

    fn nested_xml(&mut self, (): &(), _: usize, _: &[usize]) -> Result<(), Refusal> {
        Ok(())
    }

    fn element(&mut self, (): &(), _: usize) -> Result<Option<Element>, Refusal> {
        Ok(None)
    }

    fn tree(&mut self, (): &(), _: usize) -> Result<Option<Answer>, Refusal> {
        Ok(None)
    }
}

/// How replies of these outputs are read.
pub(crate) fn plan(layout: Layout, outputs: &[Field], parsing: Parsing) -> ReadPlan<'_> {
    ReadPlan {
        layout,
        outputs,
        dialect: Dialect::newest(),
        parsing,
    }
}
