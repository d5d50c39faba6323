//! JSON that is broken, as `testdata/replies/broken_json.json` has it: the Python tests hold the same values
//! against `json_repair`.

use std::fs;

use dspex_core::response::repair;
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
