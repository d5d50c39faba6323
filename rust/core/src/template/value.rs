//! How values are written: as DSPy writes them into a prompt.

use std::borrow::Cow;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::bounds::{MAX_NESTING, too_deep};
use super::container::{Container, External};
use super::unwritable;
use crate::prompt::push_quotes;
use crate::text::{JsonStyle, JsonWriter, push_float};

/// A value as text of at most `most` bytes: strings as they are, lists and maps as JSON, all else as Python's
/// `str` has it.
///
/// The limit is for what a template makes: of a list that holds another twice, and so on some forty times, the
/// text would have no end.
pub(super) fn text<C: Container>(value: &Value, most: usize) -> Result<Cow<'_, str>, Error> {
    if let Some(text) = value.as_str() {
        return Ok(Cow::Borrowed(text));
    }
    Ok(match value.kind() {
        ValueKind::Undefined => return Err(ErrorKind::UndefinedError.into()),
        ValueKind::None => "None".into(),
        ValueKind::Bool => if value.is_true() { "True" } else { "False" }.into(),
        ValueKind::Number => number(value).into(),
        ValueKind::Bytes => String::from_utf8_lossy(value.as_bytes().unwrap_or_default())
            .into_owned()
            .into(),
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => json::<C>(value, most)?.into(),
        _ => return Err(unwritable("this is nothing that can be written")),
    })
}

/// A value as one line of JSON of at most `most` bytes, as `json.dumps(value, ensure_ascii=False)` has it.
pub(super) fn json<C: Container>(value: &Value, most: usize) -> Result<String, Error> {
    if let Some(external) = value.downcast_object_ref::<External<C>>() {
        return external_json(external);
    }
    let mut out = String::new();
    write_json::<C>(&mut JsonWriter::new(&mut out, JsonStyle::Line), value, most)?;
    Ok(out)
}

fn external_json<C: Container>(external: &External<C>) -> Result<String, Error> {
    external
        .json()
        .ok_or_else(|| unwritable("a value cannot be written as JSON"))
}

fn write_json<C: Container>(
    json: &mut JsonWriter<'_>,
    value: &Value,
    most: usize,
) -> Result<(), Error> {
    if json.written() > most {
        return Err(too_long(most));
    }
    if let Some(external) = value.downcast_object_ref::<External<C>>() {
        json.raw(&external_json(external)?);
        return Ok(());
    }
    if json.depth() > MAX_NESTING {
        return Err(too_deep());
    }
    if let Some(text) = value.as_str() {
        json.string(text);
        return Ok(());
    }
    match value.kind() {
        ValueKind::None => json.null(),
        ValueKind::Bool => json.bool(value.is_true()),
        ValueKind::Number => match float(value) {
            Some(float) => json.float(float),
            None => json.raw(&number(value)),
        },
        ValueKind::Seq | ValueKind::Iterable => {
            json.open('[');
            for item in value.try_iter()? {
                json.item();
                write_json::<C>(json, &item, most)?;
            }
            json.close(']');
        }
        ValueKind::Map => {
            json.open('{');
            for key in value.try_iter()? {
                json.key(&text::<C>(&key, most)?);
                write_json::<C>(json, &value.get_item(&key)?, most)?;
            }
            json.close('}');
        }
        _ => json.string(&text::<C>(value, most)?),
    }
    Ok(())
}

/// A list of texts as DSPy writes it into a text field: numbered quotations of at most `most` bytes.
pub(super) fn numbered<C: Container>(value: &Value, most: usize) -> Result<String, Error> {
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Err(unwritable("only a list can be numbered"));
    }
    let mut texts: Vec<String> = Vec::new();
    let mut written = 0;
    for item in value.try_iter()? {
        let item = text::<C>(&item, most)?.into_owned();
        written += item.len() + 1; // an empty one has its number
        if written > most {
            return Err(too_long(most));
        }
        texts.push(item);
    }
    let mut out = String::new();
    push_quotes(&mut out, &texts);
    Ok(out)
}

/// The error of a text that has reached its limit.
fn too_long(most: usize) -> Error {
    Error::new(
        ErrorKind::WriteFailure,
        format!("the text grew beyond {most} bytes"),
    )
}

/// The value as a float, if it is one and not an integer.
fn float(value: &Value) -> Option<f64> {
    if value.is_integer() {
        return None;
    }
    f64::try_from(value.clone()).ok()
}

/// The value as an integer, if it is one of a usual size.
pub(super) fn integer(value: &Value) -> Option<i64> {
    if value.is_integer() {
        value.as_i64()
    } else {
        None
    }
}

/// `str(value)` of a number.
fn number(value: &Value) -> String {
    let mut out = String::new();
    match float(value) {
        Some(float) => push_float(&mut out, float),
        None => match integer(value) {
            Some(number) => out.push_str(itoa::Buffer::new().format(number)),
            None => out = value.to_string(),
        },
    }
    out
}
