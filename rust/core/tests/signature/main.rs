//! Signatures against the corpus in `testdata/signature`, and what the corpus cannot say.

mod cache;
mod edit;
mod errors;
mod fuzz;
#[path = "../fuzzing/mod.rs"]
mod fuzzing;
mod read;

use std::path::PathBuf;

use dspex_core::signature::{
    Instructions, Limits, NativeOnly, Signature, SignatureError, lower, parse,
};

/// Reads a signature of types that Rust knows.
fn read(source: &str, limits: &Limits) -> Result<Signature, SignatureError> {
    let ast = parse(source, limits)?;
    lower(
        source,
        &ast,
        &Instructions::Default,
        limits,
        &mut NativeOnly,
    )
}

/// Reads a signature that is right.
fn good(source: &str) -> Signature {
    read(source, &Limits::default()).unwrap_or_else(|error| panic!("{source:?}: {error}"))
}

fn corpus(part: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../testdata/signature")
        .join(part)
}
