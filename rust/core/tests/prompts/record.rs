//! A record of JSON and a list of messages, as a caller without Python would write them.

use std::convert::Infallible;

use dspex_core::prompt::{Element, Plan, Record, Role, Sink, Slot, Style, Turn};
use dspex_core::prompt::{push_escaped, push_quotes};
use dspex_core::text::{JsonStyle, JsonWriter, push_float};
use jiter::JsonValue;

/// The entries of a JSON object as the values of fields.
pub(crate) struct JsonRecord<'a>(pub(crate) JsonValue<'a>);

impl<'a> Record for JsonRecord<'a> {
    type Error = Infallible;
    type Value = JsonValue<'a>;

    fn get(&self, slot: &Slot) -> Result<Option<JsonValue<'a>>, Infallible> {
        let JsonValue::Object(entries) = &self.0 else {
            panic!("{:?} is no record", self.0)
        };
        let mut values = entries.iter().filter(|(name, _)| **name == *slot.name);
        Ok(values.next_back().map(|(_, value)| value.clone()))
    }

    fn is_none(value: &JsonValue<'a>) -> bool {
        matches!(value, JsonValue::Null)
    }

    fn write(
        &self,
        slot: &Slot,
        value: &JsonValue<'a>,
        out: &mut String,
    ) -> Result<(), Infallible> {
        match slot.style {
            Style::Text => out.push_str(&text(value)),
            Style::TextOrList => out.push_str(&text_or_list(value)),
            Style::XmlText => push_escaped(out, &text_or_list(value)),
            Style::XmlTree if matches!(value, JsonValue::Array(_) | JsonValue::Object(_)) => {
                element(Element::new(&slot.name), value, out);
            }
            Style::XmlTree => {
                Element::new(&slot.name).open(out);
                out.push('\n');
                out.push_str(&text(value));
                out.push('\n');
                Element::new(&slot.name).close(out);
            }
        }
        Ok(())
    }

    fn write_json(
        &self,
        slots: &[Slot],
        values: &[Option<JsonValue<'a>>],
        missing: Option<&str>,
        out: &mut String,
    ) -> Result<(), Infallible> {
        let mut writer = JsonWriter::new(out, JsonStyle::Indented);
        writer.open('{');
        for (slot, value) in slots.iter().zip(values) {
            writer.key(&slot.name);
            match (value, missing) {
                (Some(value), _) => json(value, &mut writer),
                (None, Some(missing)) => writer.string(missing),
                (None, None) => writer.null(),
            }
        }
        writer.close('}');
        Ok(())
    }
}

/// `str(value)`, or JSON for a list or an object.
fn text(value: &JsonValue<'_>) -> String {
    let mut out = String::new();
    match value {
        JsonValue::Str(text) => out.push_str(text),
        JsonValue::Null => out.push_str("None"),
        JsonValue::Bool(value) => out.push_str(if *value { "True" } else { "False" }),
        JsonValue::Float(value) => push_float(&mut out, *value),
        _ => json(value, &mut JsonWriter::new(&mut out, JsonStyle::Line)),
    }
    out
}

fn text_or_list(value: &JsonValue<'_>) -> String {
    let JsonValue::Array(items) = value else {
        return text(value);
    };
    let mut out = String::new();
    let items: Vec<String> = items.iter().map(text).collect();
    push_quotes(&mut out, &items);
    out
}

fn json(value: &JsonValue<'_>, out: &mut JsonWriter<'_>) {
    match value {
        JsonValue::Null => out.null(),
        JsonValue::Bool(value) => out.bool(*value),
        JsonValue::Int(value) => out.raw(&value.to_string()),
        JsonValue::Float(value) => out.float(*value),
        JsonValue::Str(text) => out.string(text),
        JsonValue::Array(items) => {
            out.open('[');
            for item in items.iter() {
                out.item();
                json(item, out);
            }
            out.close(']');
        }
        JsonValue::Object(entries) => {
            out.open('{');
            for (key, value) in entries.iter() {
                out.key(key);
                json(value, out);
            }
            out.close('}');
        }
    }
}

fn element(element: Element<'_>, value: &JsonValue<'_>, out: &mut String) {
    match value {
        JsonValue::Null => return element.empty(out),
        JsonValue::Array(items) if items.is_empty() => return element.empty(out),
        JsonValue::Array(items) => {
            element.open(out);
            for item in items.iter() {
                self::element(Element::new("item"), item, out);
            }
        }
        JsonValue::Object(entries) => {
            element.open(out);
            for (key, value) in entries.iter() {
                self::element(Element::entry(key), value, out);
            }
        }
        _ => {
            element.open(out);
            push_escaped(out, &text(value));
        }
    }
    element.close(out);
}

/// The messages of a call, and the markers that values held.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    pub(crate) messages: Vec<(&'static str, String)>,
    pub(crate) injected: Vec<(String, usize)>,
}

impl Sink for Messages {
    type Error = Infallible;

    fn injected(&mut self, name: &str, count: usize) -> Result<(), Infallible> {
        self.injected.push((name.to_owned(), count));
        Ok(())
    }

    fn message(&mut self, role: Role, text: &str) -> Result<(), Infallible> {
        let role = match role {
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        self.messages.push((role, text.to_owned()));
        Ok(())
    }
}

/// The messages of a call, the system's first.
pub(crate) fn render<'a>(
    plan: &Plan,
    inputs: &JsonRecord<'a>,
    demos: &[JsonRecord<'a>],
    turns: &[Turn<JsonRecord<'a>>],
) -> Messages {
    let mut messages = Messages::default();
    let system = plan.system().to_owned();
    messages.messages.push(("system", system));
    match plan.render(inputs, demos, turns, &mut messages) {
        Ok(()) => messages,
        Err(never) => match never {},
    }
}
