//! Replies: from the model's text to the values of the output fields.
//!
//! [`read`] does it all: it cuts a reply into the text of each field, reads each text as the field's type, and gives
//! the fields that DSPy would refuse their chances. What is plain is read here; what needs a class of the caller's, or
//! pydantic, is a [`Host`]'s to decide. [`stream`] reads a reply while it comes in.
//!
//! ```text
//! read       the order of the attempts, what refuses, what may be missing      Reader, Host
//! chat       a reply cut at its markers
//! xml        a reply of plain elements
//! value      a text of plain JSON as a type                                    Reading
//! strict     JSON that is whole, straight into values
//! repair     JSON broken in ways whose repair takes no guess
//! guess      JSON broken in any other way, as `json_repair` has it
//! tolerant   where the text of a field may be that DSPy does not find
//! near       which value a text is near to that DSPy refuses
//! stream     a reply as it comes in                                            Event
//! ```

mod chat;
mod guess;
mod near;
mod read;
mod repair;
pub mod stream;
mod strict;
mod tolerant;
mod value;
mod xml;

pub use chat::{Section, sections};
pub use guess::{Char, Guess, RULES, Refusal, Text, budget, guess};
pub use near::{Miss, Wanted, bare, convert};
pub use read::{
    Cause, Choices, Coerced, Element, Entries, Host, HostError, HostJson, Kind, Mended, Outputs,
    Parsing, ReadError, ReadErrorKind, ReadPlan, Repair, RepairCode, Source, TOO_COSTLY, Target,
    Values, braced, read, read_output, read_partial,
};
pub use repair::{Repaired, repair};
pub use tolerant::Strict;
pub use tolerant::chat::{Cut, Place, cut};
pub use value::{Reading, Value, read_json, read_text};
pub use xml::read_xml;
