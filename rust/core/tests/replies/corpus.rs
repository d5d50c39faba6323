//! Replies are read as the corpus says that DSPy reads them, and tolerance does: all that takes no judgement of
//! Python's.

use std::fs;

use dspex_core::prompt::Layout;
use dspex_core::response::{Parsing, Source, Value, read};
use jiter::JsonValue;

use super::host::{Answer, Double, Judgement, plan};
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

/// What the corpus says of a reply.
#[derive(Debug, PartialEq)]
enum Said {
    Fields(Vec<(String, Answer)>),
    Error(String),
}

fn said(json: &JsonValue<'_>) -> Said {
    match part(json, "fields") {
        Some(JsonValue::Object(fields)) => {
            let fields = fields.iter();
            Said::Fields(
                fields
                    .map(|(name, value)| {
                        let value = Value::from(value.clone()).into_owned();
                        (name.to_string(), Answer::Known(value))
                    })
                    .collect(),
            )
        }
        _ => Said::Error(text(json, "error").to_owned()),
    }
}

/// The field and the code of each repair.
fn repairs(json: &JsonValue<'_>) -> Vec<(String, String)> {
    let Some(JsonValue::Array(repairs)) = part(json, "repairs") else {
        return Vec::new();
    };
    let pair = |repair: &JsonValue<'_>| match repair {
        JsonValue::Array(pair) => match &***pair {
            [JsonValue::Str(field), JsonValue::Str(code)] => (field.to_string(), code.to_string()),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    repairs.iter().map(pair).collect()
}

/// Whether only Python can read a reply as the corpus says: the core must have asked then.
fn only_python_reads(row: &JsonValue<'_>, parsing: Parsing) -> Option<bool> {
    let fields = outputs(&format!("q -> {}", text(row, "outputs")));
    let layout = match text(row, "layout") {
        "chat" => Layout::Chat,
        "json" => Layout::Json,
        _ => Layout::Xml,
    };
    let expected = part(
        row,
        match parsing {
            Parsing::Strict => "dspy",
            Parsing::Tolerant => "tolerant",
        },
    )?;
    let mut host = Double::new(&fields, Judgement::Refuse);
    let reply = Source::Text(text(row, "reply"));
    let (found, done) = match read(plan(layout, &fields, parsing), reply, &mut host) {
        Ok(found) => {
            let name = |at: usize| fields[at].name.to_string();
            let values = found.values.into_iter().enumerate();
            let values =
                values.map(|(at, value)| (name(at), value.unwrap_or(Answer::Known(Value::None))));
            let repairs = found.repairs.into_iter();
            let repairs = repairs.map(|one| {
                (
                    one.output.map_or_else(String::new, name),
                    one.code.name().to_owned(),
                )
            });
            (Said::Fields(values.collect()), repairs.collect())
        }
        Err(error) => (Said::Error(error.kind.code().to_owned()), Vec::new()),
    };
    let same = found == said(expected) && (done == repairs(expected));
    assert!(
        same || host.was_asked,
        "{parsing:?}: {:?} gives {found:?}, {done:?}",
        text(row, "reply")
    );
    Some(!same)
}

#[test]
fn replies_are_read_as_the_corpus_says() {
    // Numbers and texts that only Python has are in lines of their own, which are passed over.
    let file = fs::read_to_string(corpus("replies.json")).unwrap();
    for (parsing, least) in [(Parsing::Strict, 170), (Parsing::Tolerant, 180)] {
        let (mut rows, mut left) = (0, Vec::new());
        for line in file.lines() {
            let Ok(row) = JsonValue::parse(line.trim_end_matches(',').as_bytes(), false) else {
                continue;
            };
            if let Some(only_python) = only_python_reads(&row, parsing) {
                rows += 1;
                if only_python {
                    left.push(format!("{} ({})", text(&row, "name"), text(&row, "layout")));
                }
            }
        }
        assert!(rows > 200 && rows - left.len() >= least, "{left:#?}");
    }
}
