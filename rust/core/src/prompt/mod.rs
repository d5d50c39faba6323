//! Prompts: a signature compiled once into constant text and slots, rendered many times.
//!
//! The text is DSPy's, byte for byte. A [`Plan`] lays down all that does not depend on a call when it is
//! compiled; rendering writes values between those pieces and never looks at the signature again.
//!
//! Values stay on the caller's side: a [`Record`] is asked to write a value into the text, so that nothing
//! is converted or copied on the way.

mod body;
pub(crate) mod markers;
mod plan;
mod quote;
mod render;
mod system;
mod xml;

pub use body::Body;
pub use markers::{BLOCK_END, BLOCK_START, Markers, holds_block};
pub use plan::{ExternalField, Layout, Plan, Slot, Style};
pub use quote::push_quotes;
pub use render::{Record, Role, Sink, Turn};
pub use xml::{Element, push_escaped};
