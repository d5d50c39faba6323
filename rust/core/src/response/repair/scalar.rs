//! Numbers, constants and words without quotes.

use super::super::value::Value;
use super::string::Context;
use crate::text::is_space;

/// The key without quotes that `text` begins with.
pub(super) fn key(text: &str) -> Option<&str> {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-')))
        .unwrap_or(text.len());
    let key = &text[..end];
    let sure = key.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text[end..].trim_start_matches(is_space).starts_with(':');
    sure.then_some(key)
}

/// The number, the constant or, in a list, the word that `text` begins with, and its length.
pub(super) fn value(text: &str, context: Context) -> Option<(Value<'_>, usize)> {
    if text.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
        return number(text, context);
    }
    let end = text
        .find(|c: char| !c.is_ascii_alphanumeric())
        .unwrap_or(text.len());
    let constant = match &text[..end] {
        word if word.eq_ignore_ascii_case("true") => Some(Value::Bool(true)),
        word if word.eq_ignore_ascii_case("false") => Some(Value::Bool(false)),
        word if word.eq_ignore_ascii_case("null") || word.eq_ignore_ascii_case("none") => {
            Some(Value::None)
        }
        _ => None,
    };
    let next = text[end..].chars().next();
    if let Some(constant) = constant
        && next.is_none_or(|c| is_space(c) || matches!(c, ',' | ']' | '}'))
    {
        return Some((constant, end));
    }
    if context == Context::List {
        word(text)
    } else {
        None
    }
}

/// A text without quotes, in a list.
fn word(text: &str) -> Option<(Value<'_>, usize)> {
    let end =
        text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, ' ' | '_' | '-' | '.')))?;
    let sure =
        text.starts_with(|c: char| c.is_ascii_alphabetic()) && text[end..].starts_with([',', ']']);
    sure.then(|| (Value::Str(text[..end].trim_end().into()), end))
}

/// A number as JSON has it.
fn number(text: &str, context: Context) -> Option<(Value<'_>, usize)> {
    let bytes = text.as_bytes();
    let digits = |mut at: usize| {
        let from = at;
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        (at > from).then_some(at)
    };
    let first = usize::from(bytes[0] == b'-');
    let mut end = digits(first)?;
    if bytes[first] == b'0' && end > first + 1 {
        return None;
    }
    let mut is_float = false;
    if bytes.get(end) == Some(&b'.') {
        end = digits(end + 1)?;
        is_float = true;
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        end = digits(end + 1 + sign)?;
        is_float = true;
    }
    let mut rest = text[end..].chars();
    let is_over = match rest.next() {
        // In an object `json_repair` takes commas for a part of the number, and what may follow them there.
        Some(',') if context == Context::Value => rest.next().is_none_or(|c| {
            c.is_ascii() && !c.is_ascii_alphanumeric() && !matches!(c, '-' | '.' | '/' | ',' | '_')
        }),
        Some(c) => is_space(c) || matches!(c, ',' | ']' | '}'),
        None => true,
    };
    if !is_over {
        return None;
    }
    let value = if is_float {
        Value::Float(text[..end].parse().ok()?)
    } else {
        Value::Int(text[..end].parse().ok()?)
    };
    Some((value, end))
}
