//! The value of a field that is no text, while it still grows.
//!
//! Only what is sure is in it: a number, a constant or a choice when it is whole, a text as far as it has come. So
//! of two values emitted one after the other the first is a beginning of the second.

use jiter::{JsonValue, PartialMode};

use crate::response::Value;
use crate::types::Type;

/// How far a value has come.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Partial {
    /// The value so far.
    pub(crate) value: Value<'static>,
    /// Whether a text at its end is still growing, in a place whose type is external.
    pub(crate) is_external: bool,
}

/// The value of type `ty` of which `text` is the beginning, in JSON; None as long as it is no list and no mapping.
pub(crate) fn partial(text: &str, ty: &Type) -> Option<Partial> {
    if !text.starts_with(['[', '{']) {
        return None;
    }
    let (sure, grows) = sure(text);
    let json = JsonValue::parse_with_config(sure.as_bytes(), true, PartialMode::TrailingStrings);
    let value = Value::from(json.ok()?).into_owned();
    if !grows {
        return Some(Partial {
            value,
            is_external: false,
        });
    }
    let mut is_external = false;
    trim(value, ty, &mut is_external).map(|value| Partial { value, is_external })
}

/// `text` without a number or constant at its end that may go on, and whether it ends inside a text that is no key.
fn sure(text: &str) -> (&str, bool) {
    let mut open: Vec<bool> = Vec::new();
    let (mut in_string, mut escaped, mut is_value, mut word) = (false, false, false, None);
    for (at, c) in text.char_indices() {
        if in_string {
            (in_string, escaped) = (escaped || c != '"', c == '\\' && !escaped);
            continue;
        }
        match c {
            '"' => in_string = true,
            '{' | '[' => {
                open.push(c == '{');
                is_value = c == '[';
            }
            '}' | ']' => {
                open.pop();
            }
            ':' => is_value = true,
            ',' => is_value = open.last() == Some(&false),
            _ => {}
        }
        let ends_word = c.is_whitespace() || matches!(c, '"' | '{' | '[' | '}' | ']' | ':' | ',');
        word = if ends_word { None } else { word.or(Some(at)) };
    }
    (&text[..word.unwrap_or(text.len())], in_string && is_value)
}

/// `value` without the text at its end, if one of type `ty` may only be emitted whole.
fn trim<'a>(value: Value<'a>, ty: &Type, is_external: &mut bool) -> Option<Value<'a>> {
    match (value, ty) {
        (value, Type::Union { members, .. }) => {
            if let Some(inner) = ty.as_optional() {
                return trim(value, inner, is_external);
            }
            *is_external |= members.iter().any(|member| !member.is_native());
            Some(value)
        }
        (value, Type::External(_)) => {
            *is_external = true;
            Some(value)
        }
        (Value::Str(text), Type::Str | Type::Any) => Some(Value::Str(text)),
        (Value::Str(_), _) => None,
        (Value::List(mut items), _) => {
            let last = items.pop()?;
            let item = match ty {
                Type::List(item, _)
                | Type::Set(item, _)
                | Type::FrozenSet(item, _)
                | Type::VariadicTuple(item, _) => item,
                Type::Tuple(types, _) => types.get(items.len()).unwrap_or(&Type::Any),
                _ => &Type::Any,
            };
            items.extend(trim(last, item, is_external));
            Some(Value::List(items))
        }
        (Value::Map(mut entries), _) => {
            let (key, last) = entries.pop()?;
            let item = match ty {
                Type::Dict(entry, _) => &entry[1],
                _ => &Type::Any,
            };
            entries.extend(trim(last, item, is_external).map(|value| (key, value)));
            Some(Value::Map(entries))
        }
        (value, _) => Some(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::{Instructions, Limits, NativeOnly, lower, parse};

    fn emitted(text: &str, ty: &str) -> Option<String> {
        let source = format!("q -> a: {ty}");
        let ast = parse(&source, &Limits::default()).expect("a signature");
        let signature = lower(
            &source,
            &ast,
            &Instructions::Default,
            &Limits::default(),
            &mut NativeOnly,
        )
        .expect("native types");
        partial(text, &signature.outputs()[0].ty).map(|found| show(&found.value))
    }

    fn show(value: &Value<'_>) -> String {
        match value {
            Value::List(items) => {
                format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" "))
            }
            Value::Map(entries) => {
                let entries: Vec<_> = entries
                    .iter()
                    .map(|(key, value)| format!("{key}:{}", show(value)))
                    .collect();
                format!("{{{}}}", entries.join(" "))
            }
            Value::Str(text) => format!("{text:?}"),
            Value::Int(value) => value.to_string(),
            value => format!("{value:?}"),
        }
    }

    #[test]
    fn numbers_and_constants_are_emitted_whole_and_texts_as_they_grow() {
        let cases = [
            ("[1, 2", "list[int]", "[1]"),
            ("[1, 2,", "list[int]", "[1 2]"),
            ("[1, 2 ", "list[int]", "[1 2]"),
            ("[tr", "list[bool]", "[]"),
            ("[\"a\", \"b", "list[str]", "[\"a\" \"b\"]"),
            ("[\"yes\", \"n", "list[Literal['yes', 'no']]", "[\"yes\"]"),
            (
                "[\"yes\", \"no\"",
                "list[Literal['yes', 'no']]",
                "[\"yes\" \"no\"]",
            ),
            ("{\"k", "dict[str, str]", "{}"),
            ("{\"k\": \"v", "dict[str, str]", "{k:\"v\"}"),
            ("{\"k\": \"v\", \"l", "dict[str, Literal['v']]", "{k:\"v\"}"),
            ("{\"k\": {\"l\": -1", "dict[str, dict[str, int]]", "{k:{}}"),
            ("[[1], [2, \"x", "list", "[[1] [2 \"x\"]]"),
            ("[1, \"x", "tuple[int, str]", "[1 \"x\"]"),
            ("[1, \"x", "Optional[tuple[int, ...]]", "[1]"),
            ("{\"a\": \"\\\"x, [", "dict", "{a:\"\\\"x, [\"}"),
        ];
        for (text, ty, expected) in cases {
            assert_eq!(
                emitted(text, ty).as_deref(),
                Some(expected),
                "{text} as {ty}"
            );
        }
        assert_eq!(emitted("12", "int"), None);
    }
}
