//! A value from its text.
//!
//! DSPy asks `json_repair`, then `ast.literal_eval`, then pydantic in its lax mode. Where the text is strict
//! JSON of just the field's type all three come to the same, and that is what is read here. Nothing is
//! guessed: whatever is not plainly so is left to the host.

use std::borrow::Cow;
use std::sync::Arc;

use jiter::JsonValue;

use super::read::RepairCode;
use super::repair::repair;
use super::strict;
use crate::dialect::Dialect;
use crate::text::strip;
use crate::types::{Constant, Container, Type};

/// A value of a reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// `None`
    None,
    /// `True` or `False`
    Bool(bool),
    /// An integer of 64 bits; larger ones are left to the host.
    Int(i64),
    /// A float.
    Float(f64),
    /// A string.
    Str(Cow<'a, str>),
    /// A list.
    List(Vec<Value<'a>>),
    /// A dict; of a key that comes twice the last value counts.
    Map(Vec<(Cow<'a, str>, Value<'a>)>),
}

impl Value<'_> {
    /// The value with texts of its own.
    #[must_use]
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Value::None => Value::None,
            Value::Bool(value) => Value::Bool(value),
            Value::Int(value) => Value::Int(value),
            Value::Float(value) => Value::Float(value),
            Value::Str(text) => Value::Str(Cow::Owned(text.into_owned())),
            Value::List(items) => Value::List(items.into_iter().map(Value::into_owned).collect()),
            Value::Map(entries) => {
                let entries = entries.into_iter();
                Value::Map(
                    entries
                        .map(|(key, value)| (key.into_owned().into(), value.into_owned()))
                        .collect(),
                )
            }
        }
    }
}

/// What became of a text.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading<'a> {
    /// The value that DSPy gives.
    Value(Value<'a>),
    /// The same, of JSON that was broken, with what was done to it.
    Repaired(Value<'a>, RepairCode),
    /// Only the host can say what the value is, or that there is none.
    Deferred,
}

impl<'a> Reading<'a> {
    /// The value, if the host is not needed for it.
    #[must_use]
    pub fn value(self) -> Option<Value<'a>> {
        match self {
            Self::Value(value) | Self::Repaired(value, _) => Some(value),
            Self::Deferred => None,
        }
    }

    /// The reading with texts of its own.
    #[must_use]
    pub fn into_owned(self) -> Reading<'static> {
        match self {
            Self::Value(value) => Reading::Value(value.into_owned()),
            Self::Repaired(value, code) => Reading::Repaired(value.into_owned(), code),
            Self::Deferred => Reading::Deferred,
        }
    }
}

/// Read the text of a field as its type.
#[must_use]
pub fn read_text<'a>(text: &'a str, ty: &Type, dialect: &Dialect) -> Reading<'a> {
    match ty {
        Type::Str => Reading::Value(Value::Str(text.into())),
        Type::Literal(choices) => read_choice(text, ty, choices, dialect),
        // Text is a `str` already, so it is kept as it is: `"null"` too.
        Type::Union { .. } => match ty.as_optional() {
            Some(Type::Str) => Reading::Value(Value::Str(text.into())),
            Some(_) => read_literal(text, ty),
            None => Reading::Deferred,
        },
        Type::External(_) => Reading::Deferred,
        _ => read_literal(text, ty),
    }
}

/// Read a value that is JSON already, as in the JSON layout, as its type. It is taken unless only the host can
/// say what it is; whole numbers may be floats by then, where nothing but a float fits.
#[must_use]
pub fn read_json<'a>(json: &mut Value<'a>, ty: &Type, dialect: &Dialect) -> Reading<'a> {
    match (&mut *json, ty) {
        (Value::Str(Cow::Borrowed(text)), _) => read_text(text, ty, dialect),
        (Value::Str(text), Type::Str) => Reading::Value(Value::Str(std::mem::take(text))),
        (Value::Str(text), _) => read_text(text, ty, dialect).into_owned(),
        // Anything else in a field of text is Python's `str()` of it.
        (_, Type::Str) => Reading::Deferred,
        (value, ty) => {
            if conform(value, ty) {
                Reading::Value(std::mem::replace(value, Value::None))
            } else {
                Reading::Deferred
            }
        }
    }
}

/// A `Literal`: the text is one of the choices, as it is or without what stands around it.
fn read_choice<'a>(
    text: &'a str,
    ty: &Type,
    choices: &[Constant],
    dialect: &Dialect,
) -> Reading<'a> {
    let chosen = |text: &str| choices.iter().any(|choice| is_text(choice, text));
    if chosen(text) {
        return Reading::Value(Value::Str(text.into()));
    }
    let mut inner = strip(text);
    if let Some(rest) = inner
        .strip_prefix("Literal[")
        .or_else(|| inner.strip_prefix("str["))
        && let Some(rest) = rest.strip_suffix(']')
    {
        inner = rest;
    }
    let unquoted = |quote| {
        inner
            .strip_prefix(quote)
            .and_then(|rest: &str| rest.strip_suffix(quote))
    };
    inner = unquoted('"').or_else(|| unquoted('\'')).unwrap_or(inner);
    if chosen(inner) {
        return Reading::Value(Value::Str(inner.into()));
    }
    if dialect.converts_choices {
        read_literal(inner, ty)
    } else {
        Reading::Deferred
    }
}

/// Strict JSON, JSON that is broken in a usual way, or one of Python's three names for a constant.
fn read_literal<'a>(text: &'a str, ty: &Type) -> Reading<'a> {
    let mut value = match text {
        // These are no JSON; `json_repair` gives them up and `ast.literal_eval` reads them.
        "True" => Value::Bool(true),
        "False" => Value::Bool(false),
        "None" => Value::None,
        _ => {
            if let Some(json) = strict::parse(text) {
                json
            } else {
                let Some(mut found) = repair(text) else {
                    return Reading::Deferred;
                };
                return if conform(&mut found.value, ty) {
                    {
                        let code = found.code();
                        Reading::Repaired(found.value, code)
                    }
                } else {
                    Reading::Deferred
                };
            }
        }
    };
    if conform(&mut value, ty) {
        Reading::Value(value)
    } else {
        Reading::Deferred
    }
}

/// Whether a value is one of `ty`, with no more to convert than whole numbers to floats.
fn conform(value: &mut Value<'_>, ty: &Type) -> bool {
    match (ty, value) {
        (Type::Any, _)
        | (Type::Str, Value::Str(_))
        | (Type::Int, Value::Int(_))
        | (Type::Float, Value::Float(_))
        | (Type::Bool, Value::Bool(_))
        | (Type::None, Value::None)
        | (Type::Bare(Container::List, _), Value::List(_))
        | (Type::Bare(Container::Dict, _), Value::Map(_)) => true,
        // Up to here every integer is a float exactly.
        #[allow(clippy::cast_precision_loss)]
        (Type::Float, value @ Value::Int(_)) => {
            if let Value::Int(whole) = *value
                && whole.unsigned_abs() <= 1 << 53
            {
                *value = Value::Float(whole as f64);
                return true;
            }
            false
        }
        (Type::List(item, _), Value::List(items)) => {
            items.iter_mut().all(|value| conform(value, item))
        }
        (Type::Dict(entry, _), Value::Map(entries)) => match &**entry {
            [Type::Str | Type::Any, value] => {
                entries.iter_mut().all(|(_, entry)| conform(entry, value))
            }
            _ => false,
        },
        (Type::Literal(choices), Value::Str(text)) => {
            choices.iter().any(|choice| is_text(choice, text))
        }
        (Type::Literal(choices), Value::Int(value)) => {
            let digits = value.to_string();
            let known = choices
                .iter()
                .any(|choice| matches!(choice, Constant::Int(s) if **s == *digits));
            // `True == 1` for Python, and pydantic looks closer than that.
            let sure = !choices
                .iter()
                .any(|choice| matches!(choice, Constant::Bool(_)));
            known && sure
        }
        (Type::Union { .. }, value) => ty
            .as_optional()
            .is_some_and(|ty| *value == Value::None || conform(value, ty)),
        _ => false,
    }
}

fn is_text(choice: &Constant, text: &str) -> bool {
    matches!(choice, Constant::Str(s) if **s == *text)
}

impl<'a> From<JsonValue<'a>> for Value<'a> {
    /// The value as it is, of no type in particular. Nothing is copied.
    fn from(json: JsonValue<'a>) -> Self {
        match json {
            JsonValue::Null => Self::None,
            JsonValue::Bool(value) => Self::Bool(value),
            JsonValue::Int(value) => Self::Int(value),
            JsonValue::Float(value) => Self::Float(value),
            JsonValue::Str(text) => Self::Str(text),
            JsonValue::Array(items) => {
                let items = Arc::unwrap_or_clone(items).into_iter();
                Self::List(items.map(Self::from).collect())
            }
            JsonValue::Object(entries) => {
                let entries = Arc::unwrap_or_clone(entries).into_iter();
                Self::Map(entries.map(|(key, json)| (key, json.into())).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Spelling;

    fn list(of: Type) -> Type {
        Type::List(Box::new(of), Spelling::Builtin)
    }

    fn optional(of: Type) -> Type {
        Type::Union {
            members: [of, Type::None].into(),
            spelling: crate::types::UnionSpelling::Typing,
        }
    }

    fn value(text: &str, ty: &Type) -> Option<Value<'static>> {
        read_text(text, ty, Dialect::newest()).into_owned().value()
    }

    #[test]
    fn plain_json_of_the_type_is_read() {
        assert_eq!(value("42", &Type::Int), Some(Value::Int(42)));
        assert_eq!(value("42", &Type::Float), Some(Value::Float(42.0)));
        assert_eq!(value("true", &Type::Bool), Some(Value::Bool(true)));
        assert_eq!(value("False", &Type::Bool), Some(Value::Bool(false)));
        assert_eq!(
            value("[1, 2]", &list(Type::Int)),
            Some(Value::List(vec![Value::Int(1), Value::Int(2)]))
        );
        assert_eq!(value("null", &optional(Type::Int)), Some(Value::None));
        assert_eq!(value("None", &optional(Type::Int)), Some(Value::None));
    }

    #[test]
    fn text_stays_text() {
        assert_eq!(
            value("\"quoted\"", &Type::Str),
            Some(Value::Str("\"quoted\"".into()))
        );
        assert_eq!(
            value("null", &optional(Type::Str)),
            Some(Value::Str("null".into()))
        );
    }

    #[test]
    fn what_needs_a_conversion_is_deferred() {
        let (int, flag, words) = (Type::Int, Type::Bool, list(Type::Str));
        let cases = [
            ("42.0", &int),
            ("\"42\"", &int),
            ("true", &int),
            ("1_000", &int),
            ("99999999999999999999", &int),
            ("yes", &flag),
            ("1", &flag),
            ("[1, 2]", &words),
            ("['it's']", &words),
            ("a, b", &words),
        ];
        for (text, ty) in cases {
            assert_eq!(value(text, ty), None, "{text}");
        }
    }

    #[test]
    fn a_choice_that_is_no_text_is_converted_where_the_dialect_does() {
        let ty = Type::Literal([Constant::Int("2".into())].into());
        let read = |name| read_text("2", &ty, Dialect::named(name).unwrap());
        assert_eq!(read("3.3"), Reading::Deferred);
        assert_eq!(read("3.4"), Reading::Value(Value::Int(2)));
    }

    #[test]
    fn broken_json_of_the_type_is_repaired() {
        let read = |text| read_text(text, &list(Type::Int), Dialect::newest());
        let whole = || Value::List(vec![Value::Int(1)]);
        assert_eq!(read("[1]"), Reading::Value(whole()));
        assert_eq!(read("[1,]"), Reading::Repaired(whole(), RepairCode::Json));
        assert_eq!(read("[1"), Reading::Repaired(whole(), RepairCode::CutOff));
        assert_eq!(read("['1']"), Reading::Deferred);
        assert_eq!(read("[1] or [2]"), Reading::Deferred);
    }

    #[test]
    fn a_choice_is_found_behind_quotes() {
        let ty = Type::Literal([Constant::Str("yes".into()), Constant::Int("2".into())].into());
        for text in [
            "yes",
            " yes ",
            "'yes'",
            "\"yes\"",
            "Literal[yes]",
            "str['yes']",
        ] {
            assert_eq!(value(text, &ty), Some(Value::Str("yes".into())), "{text}");
        }
        assert_eq!(value("2", &ty), Some(Value::Int(2)));
        for text in ["Yes", "`yes`", "yes.", "''yes''", "3"] {
            assert_eq!(value(text, &ty), None, "{text}");
        }
    }
}
