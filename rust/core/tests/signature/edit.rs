//! Operations and saved state.

use dspex_core::signature::{BadIndex, Field, FieldKind, FieldState};
use dspex_core::types::Type;

use super::good;

fn input(name: &str) -> Field {
    Field::new(name, FieldKind::Input, Some(Type::Int))
}

#[test]
fn a_field_is_inserted_among_those_of_its_kind() {
    let signature = good("a, b -> c");
    let cases = [
        (0, "x, a, b"),
        (1, "a, x, b"),
        (2, "a, b, x"),
        (-1, "a, b, x"),
        (-3, "x, a, b"),
    ];
    for (index, expected) in cases {
        assert_eq!(
            signature.insert(index, input("x")).unwrap().names(),
            format!("{expected} -> c")
        );
    }
    let output = Field::new("x", FieldKind::Output, None);
    assert_eq!(signature.insert(0, output).unwrap().names(), "a, b -> x, c");
}

#[test]
fn an_index_out_of_range_is_refused() {
    let signature = good("a, b -> c");
    for index in [3, -4, isize::MAX, isize::MIN] {
        let error = signature.insert(index, input("x")).unwrap_err();
        assert_eq!(
            error,
            BadIndex {
                index,
                kind: FieldKind::Input,
                len: 2
            }
        );
    }
    let error = signature
        .insert(5, Field::new("x", FieldKind::Output, None))
        .unwrap_err();
    let error: Box<dyn std::error::Error> = Box::new(error);
    assert_eq!(
        error.to_string(),
        "there is no place 5 among the output fields, only -2 to 1"
    );
}

#[test]
fn a_field_that_is_there_gives_way() {
    let signature = good("a, b -> c");
    let appended = signature.insert(-1, input("a")).unwrap();
    assert_eq!(appended.names(), "a, b -> c");
    assert_eq!(appended.inputs()[0].ty, Type::Int);
}

#[test]
fn instructions_stay_when_fields_change() {
    let signature = good("a, b -> c");
    let text = signature.instructions();
    assert_eq!(signature.delete("b").instructions(), text);
    assert_eq!(signature.delete("b").names(), "a -> c");
    assert_eq!(signature.delete("nobody"), signature);
    assert_eq!(signature.replace(&input("b")).inputs()[1].ty, Type::Int);
    assert_eq!(
        signature
            .with_instructions("Go.")
            .append_instructions("On.")
            .instructions(),
        "Go.\n\nOn."
    );
    assert_eq!(
        signature.with_instructions("Go.").with_instructions(""),
        signature
    );
}

#[test]
fn saved_state_is_matched_by_position() {
    let signature = good("a -> b, c");
    let mut states = signature.field_states();
    assert_eq!(
        states[0],
        FieldState {
            prefix: "A:".into(),
            desc: "${a}".into()
        }
    );
    assert_eq!(
        signature.with_state(signature.instructions(), &states),
        signature
    );

    states[1].desc = "the b".into();
    states[1].prefix = "Bee:".into();
    states.truncate(2);
    let changed = signature.with_state("", &states);
    assert_eq!(changed.instructions(), "");
    assert_eq!(changed.outputs()[0].desc(), "the b");
    assert_eq!(changed.outputs()[0].prefix(), "Bee:");
    assert!(!changed.is_textual());
    assert_eq!(
        changed.with_state(signature.instructions(), &signature.field_states()),
        signature
    );
}

#[test]
fn dspys_equality_looks_at_marks_and_not_at_types() {
    let field = |source: &str| good(source).inputs()[0].clone();
    assert!(field("a: int -> b").dspy_equals(&field("a: str -> b")));
    assert!(!field("a -> b").dspy_equals(&field("a: str -> b")));
    let mut unmarked = field("a: int -> b");
    unmarked.marked = false;
    assert!(!unmarked.dspy_equals(&field("a: int -> b")));
    let mut described = field("a -> b");
    described.set_desc("${a}");
    assert!(described.dspy_equals(&field("a -> b")));
}

#[test]
fn equal_signatures_hash_alike() {
    use std::collections::HashSet;

    let signatures = HashSet::from([good("a -> b"), good("a->b: str"), good("a -> b: int")]);
    assert_eq!(signatures.len(), 2);
}
