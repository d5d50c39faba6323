//! JSON that is broken, as `testdata/replies/broken_json.json` has it: the Python tests hold the same values
//! against `json_repair`.

use std::fs;

use dspex_core::response::{Guess, Refusal, budget, guess, repair};
use jiter::JsonValue;

use super::corpus;

fn part<'a>(json: &'a JsonValue<'a>, name: &str) -> &'a [JsonValue<'a>] {
    let JsonValue::Object(parts) = json else {
        panic!("an object");
    };
    let found = parts.iter().find(|(known, _)| known == name);
    let Some((_, JsonValue::Array(cases))) = found else {
        panic!("a list");
    };
    cases
}

fn text<'a>(json: &'a JsonValue<'a>) -> &'a str {
    let JsonValue::Str(text) = json else {
        panic!("a text");
    };
    text
}

#[test]
fn the_usual_breaks_are_made_whole_and_what_is_in_doubt_is_left_alone() {
    let bytes = fs::read(corpus("broken_json.json")).unwrap();
    let json = JsonValue::parse(&bytes, false).unwrap();
    for (name, cut_off) in [("whole", false), ("cut_off", true)] {
        for case in part(&json, name) {
            let JsonValue::Array(case) = case else {
                panic!("a pair");
            };
            let (broken, value) = (text(&case[0]), &case[1]);
            let found = repair(broken).unwrap_or_else(|| panic!("{broken}"));
            assert_eq!(found.value, value.clone().into(), "{broken}");
            assert_eq!(found.cut_off, cut_off, "{broken}");
        }
    }
    for case in part(&json, "doubtful") {
        assert_eq!(repair(text(case)), None, "{}", text(case));
    }
}

#[test]
fn what_is_deep_or_long_is_left_alone() {
    assert!(repair(&"[".repeat(64)).is_some());
    assert_eq!(repair(&"[".repeat(65)), None);
    // Nobody looks whether a key without quotes comes twice among so many.
    let entries = |count: usize| {
        let entries = (0..count).map(|i| format!("k{i}: {i}, "));
        format!("[{{{}", entries.collect::<Vec<_>>().concat())
    };
    assert!(repair(&entries(60)).is_some());
    assert_eq!(repair(&entries(70)), None);
    assert!(
        repair(&entries(70)[1..]).is_some(),
        "only in a list does it matter"
    );
}

fn steps_of(text: &str) -> (Result<Guess, Refusal>, u64) {
    guess(text.chars().map(u32::from).collect())
}

#[test]
fn what_is_in_doubt_is_guessed_in_few_steps() {
    let bytes = fs::read(corpus("broken_json.json")).unwrap();
    let json = JsonValue::parse(&bytes, false).unwrap();
    let mut seen = 0;
    for name in ["whole", "cut_off", "doubtful"] {
        for case in part(&json, name) {
            let broken = match case {
                JsonValue::Array(case) => text(&case[0]),
                case => text(case),
            };
            let (found, steps) = steps_of(broken);
            assert!(found.is_ok(), "{broken}");
            // A tenth of what is allowed for each character, and no more than that for a long text.
            assert!(
                steps <= 50 * (20 + broken.chars().count() as u64),
                "{broken}: {steps}"
            );
            seen += 1;
        }
    }
    assert!(seen > 50);
}

#[test]
fn a_text_that_would_take_more_steps_is_refused_after_so_many() {
    let costly = [
        ("", "(\""),
        ("{\"a\": \"", "[\"x"),
        ("[\"", "\"a"),
        ("", "{{1;}"),
        ("<![CDATA[", "{\"answer\": "),
    ];
    for (start, part) in costly {
        let refused = [1_000, 2_000, 4_000, 8_000].map(|count| {
            let text = format!("{start}{}", part.repeat(count));
            let (found, steps) = steps_of(&text);
            assert!(steps <= budget(text.chars().count()), "{part}");
            found == Err(Refusal::TooCostly)
        });
        assert!(refused.contains(&true), "{part} was to be too costly");
    }
}

#[test]
fn what_nests_deeper_than_python_can_is_refused() {
    assert!(steps_of(&"[".repeat(310)).0.is_ok());
    assert_eq!(steps_of(&"[".repeat(330)).0, Err(Refusal::TooDeep));
    assert!(steps_of(&"{\"a\": ".repeat(230)).0.is_ok());
    assert_eq!(steps_of(&"{\"a\": ".repeat(245)).0, Err(Refusal::TooDeep));
}
