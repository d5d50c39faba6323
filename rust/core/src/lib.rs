//! The engine of dspex: signatures, prompts, replies and routing, free of the interpreter.
//!
//! It neither links nor calls Python, so it is built, tested and fuzzed by itself. Its semantics are Python's all the
//! same: it writes values as `str` and `json.dumps` do, and types as pydantic describes them. What only the interpreter
//! can say or hold, such as a class of the caller's, is *external*: a number in a table that the caller keeps, and a
//! trait that the caller implements.
//!
//! Data flows one way. `signature` reads text into a typed, immutable value; `prompt` compiles that
//! value into a plan and renders messages; `response` reads the reply back into fields; `router`
//! says which target serves a call. The crate `dspex-python` binds all of it to the interpreter and
//! adds nothing of its own.

#![forbid(unsafe_code)]

pub mod cache;
pub mod dialect;
mod header;
pub mod http;
pub mod metrics;
pub mod prompt;
pub mod response;
pub mod router;
pub mod signature;
pub mod telemetry;
pub mod template;
pub mod text;
pub mod types;
