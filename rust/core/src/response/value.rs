//! A value from its text.
//!
//! DSPy asks `json_repair`, then `ast.literal_eval`, then pydantic in its lax mode. Where the text is strict
//! JSON of just the field's type all three come to the same, and that is what is read here. Nothing is
//! guessed: whatever is not plainly so is left to Python.

use std::borrow::Cow;

use jiter::JsonValue;

use super::repair::repair;
use crate::dialect::Dialect;
use crate::text::strip;
use crate::types::{Args, Constant, Container, Type};

/// A value of a reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// `None`
    None,
    /// `True` or `False`
    Bool(bool),
    /// An integer of 64 bits; larger ones are left to Python.
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
    /// Only Python can say what the value is, or that there is none.
    Python,
}

impl<'a> From<Option<Value<'a>>> for Reading<'a> {
    fn from(value: Option<Value<'a>>) -> Self {
        value.map_or(Self::Python, Self::Value)
    }
}

/// Read the text of a field as its type.
#[must_use]
pub fn read_text<'a>(text: &'a str, ty: &Type, dialect: &Dialect) -> Reading<'a> {
    match ty {
        Type::Str => Reading::Value(Value::Str(text.into())),
        Type::Literal(choices) => read_choice(text, ty, choices, dialect).into(),
        // Text is a `str` already, so it is kept as it is: `"null"` too.
        Type::Union { members, .. }
            if members.contains(&Type::Str) && members.contains(&Type::None) =>
        {
            if members.len() == 2 {
                Reading::Value(Value::Str(text.into()))
            } else {
                Reading::Python
            }
        }
        Type::Python(_) => Reading::Python,
        _ => read_literal(text, ty).into(),
    }
}

/// Read a value that is JSON already, as in the JSON layout, as its type.
#[must_use]
pub fn read_json<'a>(json: &'a JsonValue<'a>, ty: &Type, dialect: &Dialect) -> Reading<'a> {
    match (json, ty) {
        (JsonValue::Str(text), _) => read_text(text, ty, dialect),
        // Anything else in a field of text is Python's `str()` of it.
        (_, Type::Str) => Reading::Python,
        _ => conform(json, ty).into(),
    }
}

/// A `Literal`: the text is one of the choices, as it is or without what stands around it.
fn read_choice<'a>(
    text: &'a str,
    ty: &Type,
    choices: &[Constant],
    dialect: &Dialect,
) -> Option<Value<'a>> {
    let chosen = |text: &str| choices.iter().any(|choice| is_text(choice, text));
    if chosen(text) {
        return Some(Value::Str(text.into()));
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
        return Some(Value::Str(inner.into()));
    }
    if dialect.converts_choices {
        read_literal(inner, ty)
    } else {
        None
    }
}

/// Strict JSON, JSON that is broken in a usual way, or one of Python's three names for a constant.
fn read_literal<'a>(text: &'a str, ty: &Type) -> Option<Value<'a>> {
    match text {
        // These are no JSON; `json_repair` gives them up and `ast.literal_eval` reads them.
        "True" => return conform(&JsonValue::Bool(true), ty),
        "False" => return conform(&JsonValue::Bool(false), ty),
        "None" => return conform(&JsonValue::Null, ty),
        _ => {}
    }
    if let Ok(json) = JsonValue::parse(text.as_bytes(), true) {
        return conform(&json, ty);
    }
    conform(&repair(text)?.value, ty)
}

/// `json` as a value of `ty`, if pydantic would have nothing to convert.
fn conform<'a>(json: &JsonValue<'a>, ty: &Type) -> Option<Value<'a>> {
    match (ty, json) {
        (Type::Any, json) => Some(Value::from(json)),
        (Type::Str, JsonValue::Str(text)) => Some(Value::Str(text.clone())),
        (Type::Int, JsonValue::Int(value)) => Some(Value::Int(*value)),
        (Type::Float, JsonValue::Float(value)) => Some(Value::Float(*value)),
        // Up to here every integer is a float exactly.
        #[allow(clippy::cast_precision_loss)]
        (Type::Float, JsonValue::Int(value)) if value.unsigned_abs() <= 1 << 53 => {
            Some(Value::Float(*value as f64))
        }
        (Type::Bool, JsonValue::Bool(value)) => Some(Value::Bool(*value)),
        (Type::None, JsonValue::Null) => Some(Value::None),
        (
            Type::Generic {
                container: Container::List,
                args,
                ..
            },
            JsonValue::Array(items),
        ) => {
            let item = match args {
                Args::Bare => &Type::Any,
                Args::Of(types) => types.first()?,
                Args::Variadic(_) => return None,
            };
            items
                .iter()
                .map(|json| conform(json, item))
                .collect::<Option<_>>()
                .map(Value::List)
        }
        (
            Type::Generic {
                container: Container::Dict,
                args,
                ..
            },
            JsonValue::Object(entries),
        ) => {
            let value = match args {
                Args::Bare => &Type::Any,
                Args::Of(types) => match &**types {
                    [Type::Str | Type::Any, value] => value,
                    _ => return None,
                },
                Args::Variadic(_) => return None,
            };
            let entries = entries
                .iter()
                .map(|(key, json)| Some((key.clone(), conform(json, value)?)));
            entries.collect::<Option<_>>().map(Value::Map)
        }
        (Type::Literal(choices), JsonValue::Str(text)) => choices
            .iter()
            .any(|choice| is_text(choice, text))
            .then(|| Value::Str(text.clone())),
        (Type::Literal(choices), JsonValue::Int(value)) => {
            let digits = value.to_string();
            let known = choices
                .iter()
                .any(|choice| matches!(choice, Constant::Int(s) if **s == *digits));
            // `True == 1` for Python, and pydantic looks closer than that.
            let sure = !choices
                .iter()
                .any(|choice| matches!(choice, Constant::Bool(_)));
            (known && sure).then_some(Value::Int(*value))
        }
        (Type::Union { members, .. }, json) => match &**members {
            [Type::None, _] | [_, Type::None] if matches!(json, JsonValue::Null) => {
                Some(Value::None)
            }
            [Type::None, ty] | [ty, Type::None] => conform(json, ty),
            _ => None,
        },
        _ => None,
    }
}

fn is_text(choice: &Constant, text: &str) -> bool {
    matches!(choice, Constant::Str(s) if **s == *text)
}

impl<'a> From<&JsonValue<'a>> for Value<'a> {
    /// The value as it is, of no type in particular.
    fn from(json: &JsonValue<'a>) -> Self {
        match json {
            JsonValue::Null => Self::None,
            JsonValue::Bool(value) => Self::Bool(*value),
            JsonValue::Int(value) => Self::Int(*value),
            JsonValue::Float(value) => Self::Float(*value),
            JsonValue::Str(text) => Self::Str(text.clone()),
            JsonValue::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            JsonValue::Object(entries) => Self::Map(
                entries
                    .iter()
                    .map(|(key, json)| (key.clone(), Self::from(json)))
                    .collect(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Spelling;

    fn list(of: Type) -> Type {
        Type::Generic {
            container: Container::List,
            spelling: Spelling::Builtin,
            args: Args::Of([of].into()),
        }
    }

    fn optional(of: Type) -> Type {
        Type::Union {
            members: [of, Type::None].into(),
            spelling: crate::types::UnionSpelling::Typing,
        }
    }

    fn value(text: &str, ty: &Type) -> Option<Value<'static>> {
        match read_text(
            Box::leak(text.to_owned().into_boxed_str()),
            ty,
            Dialect::newest(),
        ) {
            Reading::Value(value) => Some(value),
            Reading::Python => None,
        }
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
    fn what_needs_a_conversion_is_left_to_python() {
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
            ("['a']", &words),
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
        assert_eq!(read("3.3"), Reading::Python);
        assert_eq!(read("3.4"), Reading::Value(Value::Int(2)));
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
