//! Prompts against the corpus in `testdata/prompts`, which says what DSPy makes, and against texts that nobody wrote.

mod corpus;
mod fuzz;
#[path = "../fuzzing/mod.rs"]
mod fuzzing;
mod record;
mod turns;

use std::path::PathBuf;

use dspex_core::signature::{
    Instructions, Limits, NativeOnly, Signature, SignatureError, lower, parse,
};

pub(crate) fn corpus(part: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../testdata/prompts")
        .join(part)
}

/// A signature of types that Rust knows.
fn read(source: &str, instructions: Option<&str>) -> Result<Signature, SignatureError> {
    let limits = Limits {
        length: usize::MAX,
        ..Limits::default()
    };
    let instructions = instructions.map_or(Instructions::Default, Instructions::Given);
    let ast = parse(source, &limits)?;
    lower(source, &ast, &instructions, &limits, &mut NativeOnly)
}
