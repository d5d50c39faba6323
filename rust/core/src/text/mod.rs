//! Text as Python sees it.
//!
//! DSPy builds its prompts with `str.strip`, `str.splitlines`, `repr` and `json.dumps`. Rust's namesakes
//! differ from them in corners that show in a prompt's bytes, so this module has Python's.

mod casefold;
mod docstring;
mod float;
mod json;
mod lines;
pub(crate) mod unicode;
mod word;

pub use casefold::casefold;
pub use docstring::{cleandoc, dedent};
pub use float::push_float;
pub use json::{JsonStyle, JsonWriter, push_json_string};
pub use lines::{has_exotic_breaks, is_break, is_space, splitlines, strip, strip_start};
pub use unicode::set_known;
pub use word::{decimal_value, is_decimal, is_identifier, is_letter, is_word, word_len};
