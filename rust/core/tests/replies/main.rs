//! Replies against the corpus in `testdata/replies`, and against texts that nobody wrote.

mod corpus;
mod fuzz;
#[path = "../fuzzing/mod.rs"]
mod fuzzing;
mod host;
mod read;
mod repair;

use std::fs;
use std::path::PathBuf;

use dspex_core::signature::{Field, Instructions, Limits, NativeOnly, lower, parse};

pub(crate) fn corpus(part: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../testdata/replies")
        .join(part)
}

/// All texts in a JSON file of the corpus: the keys too, which does no harm to a fuzzer.
fn texts(part: &str) -> Vec<String> {
    fn collect(json: &jiter::JsonValue<'_>, found: &mut Vec<String>) {
        match json {
            jiter::JsonValue::Str(text) => found.push(text.to_string()),
            jiter::JsonValue::Array(items) => items.iter().for_each(|item| collect(item, found)),
            jiter::JsonValue::Object(entries) => {
                entries.iter().for_each(|(_, value)| collect(value, found));
            }
            _ => {}
        }
    }
    let bytes = fs::read(corpus(part)).unwrap();
    let mut found = Vec::new();
    collect(&jiter::JsonValue::parse(&bytes, false).unwrap(), &mut found);
    found
}

/// The output fields of a signature of types that Rust knows.
fn outputs(source: &str) -> Vec<Field> {
    let limits = Limits::default();
    let ast = parse(source, &limits).unwrap();
    lower(
        source,
        &ast,
        &Instructions::Default,
        &limits,
        &mut NativeOnly,
    )
    .unwrap()
    .outputs()
    .to_vec()
}
