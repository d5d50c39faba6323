//! The core renders the corpus: the messages that DSPy makes of each call, in every layout and dialect.

use std::fs;

use dspex_core::dialect::Dialect;
use dspex_core::prompt::{ExternalField, Layout, Plan, Role};
use jiter::JsonValue;

use super::record::{JsonRecord, render};
use super::{corpus, read};

fn part<'a>(call: &JsonValue<'a>, name: &str) -> Option<JsonValue<'a>> {
    let JsonValue::Object(entries) = call else {
        panic!("{call:?} is no call")
    };
    let found = entries.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.clone())
}

fn text(call: &JsonValue<'_>, name: &str) -> Option<String> {
    match part(call, name)? {
        JsonValue::Str(text) => Some(text.into_owned()),
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn the_core_renders_the_corpus() {
    let mut count = 0;
    for entry in fs::read_dir(corpus("")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let file = fs::read_to_string(&path).unwrap();
        let mut parts = file.split("\n===== ");
        let call = JsonValue::parse(parts.next().unwrap().as_bytes(), false).unwrap();
        // A message ends before the line break that is in front of the next mark.
        let expected: Vec<(&str, &str, &str)> = parts
            .map(|part| {
                let (head, text) = part.split_once('\n').unwrap();
                let (layout, role) = head.split_once(": ").unwrap();
                (layout, role, text)
            })
            .collect();
        for (name, layout) in [
            ("chat", Layout::Chat),
            ("json", Layout::Json),
            ("xml", Layout::Xml),
        ] {
            let mut expected: Vec<(&str, String)> = expected
                .iter()
                .filter(|(of, _, _)| *of == name)
                .map(|(_, role, text)| (*role, (*text).to_owned()))
                .collect();
            if name == "xml" {
                // The last one in the file ends with its own line break.
                let last = &mut expected.last_mut().unwrap().1;
                assert_eq!(last.pop(), Some('\n'));
            }
            for dialect in Dialect::all() {
                let messages = messages(&call, layout, dialect);
                assert_eq!(messages, expected, "{} as {name}", path.display());
            }
            count += 1;
        }
    }
    assert!(count >= 50, "only {count}");
}

fn messages(
    call: &JsonValue<'_>,
    layout: Layout,
    dialect: &'static Dialect,
) -> Vec<(&'static str, String)> {
    let source = text(call, "signature").unwrap();
    let signature = read(&source, text(call, "instructions").as_deref()).unwrap();
    let external = vec![ExternalField::default(); signature.fields().len()];
    let plan = Plan::compile(&signature, layout, &external, dialect);
    let inputs = JsonRecord(part(call, "inputs").unwrap());
    let demos = match part(call, "demos") {
        Some(JsonValue::Array(demos)) => demos.iter().cloned().map(JsonRecord).collect(),
        _ => Vec::new(),
    };
    let messages = render(&plan, &inputs, &demos, &[]).messages;
    assert_eq!(in_body(&plan, &messages[1..]), messages);
    messages
}

/// What a request's body has of the messages behind the system's.
fn in_body(plan: &Plan, messages: &[(&'static str, String)]) -> Vec<(&'static str, String)> {
    let mut body = plan.body();
    for (role, text) in messages {
        let role = match *role {
            "user" => Role::User,
            "assistant" => Role::Assistant,
            other => panic!("{other}"),
        };
        body.message(role, text);
    }
    let json = body.finish();
    let JsonValue::Array(messages) = JsonValue::parse(json.as_bytes(), false).unwrap() else {
        panic!("{json}")
    };
    let roles = ["system", "user", "assistant"];
    let message = |message: &JsonValue<'_>| {
        let role = text(message, "role").unwrap();
        let role = roles.into_iter().find(|known| *known == role).unwrap();
        (role, text(message, "content").unwrap())
    };
    messages.iter().map(message).collect()
}
