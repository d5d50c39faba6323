//! Conversations, whose fields have types that Rust does not know.

use dspex_core::dialect::Dialect;
use dspex_core::prompt::{ExternalField, Layout, Plan, Turn};
use jiter::JsonValue;

use super::read;
use super::record::{JsonRecord, render};

fn record(json: &'static str) -> JsonRecord<'static> {
    JsonRecord(JsonValue::parse(json.as_bytes(), false).unwrap())
}

fn plan(layout: Layout) -> Plan {
    let signature = read("history: Any, question -> answer", None).unwrap();
    let mut external = vec![ExternalField::default(); 3];
    external[0].history = true;
    external[2].types = " Said by the type.".into();
    Plan::compile(&signature, layout, &external, Dialect::newest())
}

#[test]
fn turns_come_between_examples_and_the_request_which_leaves_the_history_out() {
    let turns = [
        Turn {
            values: record(r#"{"question": "first", "answer": "1"}"#),
            tool_results: None,
        },
        Turn {
            values: record(r#"{"question": "second"}"#),
            tool_results: Some("found".into()),
        },
    ];
    let demos = [record(
        r#"{"history": "none", "question": "example", "answer": "e"}"#,
    )];
    let inputs = record(r#"{"history": "not shown", "question": "last"}"#);
    let plan = plan(Layout::Chat);
    assert_eq!(plan.history(), Some(0));
    let rendered = render(&plan, &inputs, &demos, &turns).messages;
    let roles: Vec<&str> = rendered.iter().map(|(role, _)| *role).collect();
    let example_and_first = ["user", "assistant", "user", "assistant"];
    assert_eq!(roles[0], "system");
    assert_eq!(roles[1..5], example_and_first);
    assert_eq!(roles[5..], ["user", "assistant", "user", "user"]);
    let shown = |at: usize, text: &str| rendered[at].1.contains(text);
    assert!(shown(0, "2. `question` (str)") && shown(0, "(str):  Said by the type."));
    assert!(shown(1, "[[ ## history ## ]]\nnone") && shown(1, "example"));
    assert!(shown(3, "[[ ## question ## ]]\nfirst") && !shown(3, "history"));
    assert!(shown(4, "[[ ## answer ## ]]\n1"));
    assert!(shown(5, "second") && shown(6, "None") && shown(7, "found"));
    assert!(shown(8, "[[ ## question ## ]]\nlast") && !shown(8, "not shown"));
}
