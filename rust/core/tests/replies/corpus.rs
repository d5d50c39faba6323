//! What the core reads by itself of the replies in the corpus is what the corpus says that DSPy reads.

use std::fs;

use dspex_core::dialect::Dialect;
use dspex_core::response::{Reading, Value, read_json, read_text, read_xml, repair, sections};
use jiter::JsonValue;

use super::{corpus, outputs};

fn part<'a>(json: &'a JsonValue<'a>, name: &str) -> Option<&'a JsonValue<'a>> {
    let JsonValue::Object(entries) = json else {
        return None;
    };
    let found = entries.iter().find(|(known, _)| known == name)?;
    Some(&found.1)
}

fn text<'a>(json: &'a JsonValue<'a>, name: &str) -> &'a str {
    match part(json, name) {
        Some(JsonValue::Str(text)) => text,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn what_is_read_without_python_is_what_dspy_reads() {
    // Numbers and texts that only Python has are in lines of their own, which are passed over.
    let file = fs::read_to_string(corpus("replies.json")).unwrap();
    let (mut rows, mut native) = (0, 0);
    for line in file.lines() {
        let Ok(row) = JsonValue::parse(line.trim_end_matches(',').as_bytes(), false) else {
            continue;
        };
        let Some(said) = part(&row, "dspy") else {
            continue;
        };
        rows += 1;
        let fields = outputs(&format!("q -> {}", text(&row, "outputs")));
        let reply = text(&row, "reply");
        let dialect = Dialect::newest();
        let place = |name: &str| fields.iter().position(|field| *field.name == *name);
        let mut values: Vec<Option<Value<'static>>> = vec![None; fields.len()];
        match text(&row, "layout") {
            "chat" => {
                for found in sections(reply, place) {
                    let ty = &fields[found.field].ty;
                    values[found.field] = read_text(&found.text, ty, dialect).into_owned().value();
                }
            }
            "json" => {
                let json = JsonValue::parse(reply.as_bytes(), true).map(Value::from);
                let json = json.ok().or_else(|| repair(reply).map(|found| found.value));
                let Some(Value::Map(mut entries)) = json else {
                    continue;
                };
                for (name, value) in &mut entries {
                    if let Some(at) = place(name) {
                        let read = read_json(value, &fields[at].ty, dialect);
                        values[at] = read.into_owned().value();
                    }
                }
            }
            _ => {
                let read = read_xml(reply, &fields, dialect).unwrap_or_default();
                for (at, read) in read.into_iter().enumerate() {
                    values[at] = read.and_then(Reading::value);
                }
            }
        }
        for (field, value) in fields.iter().zip(values) {
            let Some(value) = value else { continue };
            let Some(expected) = part(said, "fields").and_then(|all| part(all, &field.name)) else {
                continue;
            };
            assert_eq!(value, Value::from(expected.clone()), "{reply:?}");
            native += 1;
        }
    }
    assert!(
        rows > 200 && native > 60,
        "{native} values in {rows} replies"
    );
}
