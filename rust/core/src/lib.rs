//! The engine of dspex: signatures, prompts, replies and routing, without a word of Python.
//!
//! Data flows one way. `signature` reads text into a typed, immutable value; `prompt` compiles that
//! value into a plan and renders messages; `response` reads the reply back into fields; `router`
//! says which target serves a call. The crate `dspex-python` binds all of it to the interpreter and
//! adds nothing of its own.

#![forbid(unsafe_code)]

pub mod dialect;
mod header;
pub mod metrics;
pub mod prompt;
pub mod response;
pub mod router;
pub mod signature;
pub mod template;
pub mod text;
pub mod types;
