//! Replies: from the model's text to the values of the output fields.
//!
//! Two steps. A reply is cut into the raw text of each field ([`sections`]), then each text is read as the
//! field's type ([`read_text`]). What is plain is read here; what needs a repair, a coercion or a class of
//! Python's is [`Reading::Deferred`], and the bindings do with it what DSPy does.

mod chat;
mod guess;
mod repair;
pub mod stream;
mod tolerant;
mod value;
mod xml;

pub use chat::{Section, sections};
pub use guess::{Char, Guess, RULES, Refusal, Text, budget, guess};
pub use repair::{Repaired, repair};
pub use tolerant::{Cut, Place, Strict, cut};
pub use value::{Reading, Value, read_json, read_text};
pub use xml::read_xml;
