//! `json.dumps(value, ensure_ascii=False)`, in one line and with `indent=2`.

use super::push_float;

/// The two ways in which DSPy lays out JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonStyle {
    /// One line, `", "` and `": "` between parts.
    Line,
    /// `indent=2`: one part per line.
    Indented,
}

/// Writes JSON as a walk over a value goes along, so that no tree of it is ever built.
///
/// ```
/// use dspex_core::text::{JsonStyle, JsonWriter};
///
/// let mut out = String::new();
/// let mut json = JsonWriter::new(&mut out, JsonStyle::Line);
/// json.open('{');
/// json.key("tags");
/// json.open('[');
/// json.item();
/// json.string("a\n");
/// json.item();
/// json.float(1e20);
/// json.close(']');
/// json.close('}');
/// assert_eq!(out, r#"{"tags": ["a\n", 1e+20]}"#);
/// ```
#[derive(Debug)]
pub struct JsonWriter<'out> {
    out: &'out mut String,
    style: JsonStyle,
    depth: usize,
    empty: bool,
}

impl<'out> JsonWriter<'out> {
    /// Write at the end of `out`.
    pub fn new(out: &'out mut String, style: JsonStyle) -> Self {
        Self {
            out,
            style,
            depth: 0,
            empty: true,
        }
    }

    /// How many lists and objects are open.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// How many bytes there are so far.
    #[must_use]
    pub fn written(&self) -> usize {
        self.out.len()
    }

    /// Begin a list (`[`) or an object (`{`).
    pub fn open(&mut self, bracket: char) {
        self.out.push(bracket);
        self.depth += 1;
        self.empty = true;
    }

    /// Begin the next element of a list; its value follows.
    pub fn item(&mut self) {
        if !self.empty {
            self.out.push_str(match self.style {
                JsonStyle::Line => ", ",
                JsonStyle::Indented => ",",
            });
        }
        self.empty = false;
        self.new_line();
    }

    /// Begin the next entry of an object; its value follows.
    pub fn key(&mut self, key: &str) {
        self.item();
        self.string(key);
        self.out.push_str(": ");
    }

    /// End what `open` began, with the matching bracket.
    pub fn close(&mut self, bracket: char) {
        self.depth -= 1;
        if !self.empty {
            self.new_line();
        }
        self.out.push(bracket);
        self.empty = false;
    }

    /// `null`.
    pub fn null(&mut self) {
        self.out.push_str("null");
    }

    /// `true` or `false`.
    pub fn bool(&mut self, value: bool) {
        self.out.push_str(if value { "true" } else { "false" });
    }

    /// What is JSON already: a number, or a whole value.
    pub fn raw(&mut self, json: &str) {
        self.out.push_str(json);
    }

    /// A float; what JSON has no number for is `null`, as pydantic has it.
    pub fn float(&mut self, value: f64) {
        if value.is_finite() {
            push_float(self.out, value);
        } else {
            self.null();
        }
    }

    /// A string with its quotes.
    pub fn string(&mut self, text: &str) {
        push_json_string(text, self.out);
    }

    fn new_line(&mut self) {
        if self.style == JsonStyle::Indented {
            self.out.push('\n');
            for _ in 0..self.depth {
                self.out.push_str("  ");
            }
        }
    }
}

/// Append a text as a JSON string with its quotes.
pub fn push_json_string(text: &str, out: &mut String) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = escaped_at(rest.as_bytes()) {
        out.push_str(&rest[..at]);
        push_escape(rest.as_bytes()[at], out);
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out.push('"');
}

fn push_escape(byte: u8, out: &mut String) {
    out.push_str(match byte {
        b'"' => "\\\"",
        b'\\' => "\\\\",
        b'\n' => "\\n",
        b'\r' => "\\r",
        b'\t' => "\\t",
        0x08 => "\\b",
        0x0c => "\\f",
        _ => {
            out.push_str("\\u00");
            out.push(char::from(b'0' + (byte >> 4)));
            out.push(char::from(b"0123456789abcdef"[usize::from(byte & 0xf)]));
            return;
        }
    });
}

/// Where the first byte is that JSON does not have as it is. Eight bytes are looked at as one number: a prompt has few
/// of them, and one by one took three times as long.
fn escaped_at(bytes: &[u8]) -> Option<usize> {
    let mut words = bytes.chunks_exact(8);
    let mut at = 0;
    for word in words.by_ref() {
        let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
        let found = found_in(word);
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let rest = words.remainder();
    let is_escaped = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    rest.iter().position(is_escaped).map(|found| at + found)
}

/// The high bit of each byte that JSON escapes, up to the first of them; those behind it may be wrong.
///
/// A byte less than `n` borrows from its high bit when `n` is taken from it; a byte equal to `c` is zero, so less than
/// one, after an exclusive or with `c`. See <https://graphics.stanford.edu/~seander/bithacks.html#HasLessInWord>.
fn found_in(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let less = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word & HIGH;
    let quotes = word ^ (ONES * u64::from(b'"'));
    let backslashes = word ^ (ONES * u64::from(b'\\'));
    less(word, 0x20) | less(quotes, 1) | less(backslashes, 1)
}

#[cfg(test)]
mod tests {
    use jiter::JsonValue;

    use super::*;

    fn written(style: JsonStyle, write: impl FnOnce(&mut JsonWriter<'_>)) -> String {
        let mut out = String::new();
        write(&mut JsonWriter::new(&mut out, style));
        out
    }

    #[test]
    fn strings_escape_what_python_escapes_and_no_more() {
        let text = "\"\\/\n\r\t\x08\x0c\x00\x1f\x7fé\u{2028}😀";
        let json = written(JsonStyle::Line, |w| w.string(text));
        assert_eq!(
            json,
            "\"\\\"\\\\/\\n\\r\\t\\b\\f\\u0000\\u001f\x7fé\u{2028}😀\""
        );
    }

    #[test]
    fn a_string_is_searched_eight_bytes_at_a_time_and_nothing_is_overlooked() {
        let special = [
            "\"", "\\", "\n", "\x00", "\x1f", "\x20", "\x7f", "\u{80}", "\u{a2}", "\u{dc}",
            "\u{ff}",
        ];
        for one in special {
            for other in special {
                for before in 0..10 {
                    for between in 0..10 {
                        let text =
                            format!("{}{one}{}{other}é", "a".repeat(before), "b".repeat(between));
                        let json = written(JsonStyle::Line, |w| w.string(&text));
                        let read = JsonValue::parse(json.as_bytes(), false);
                        assert_eq!(read.unwrap(), JsonValue::Str(text.into()));
                    }
                }
            }
        }
    }

    #[test]
    fn indented_json_breaks_only_what_is_not_empty() {
        let json = written(JsonStyle::Indented, |w| {
            w.open('{');
            w.key("a");
            w.open('[');
            w.item();
            w.raw("1");
            w.item();
            w.open('{');
            w.close('}');
            w.close(']');
            w.key("b");
            w.open('[');
            w.close(']');
            w.key("c");
            w.null();
            w.close('}');
        });
        assert_eq!(
            json,
            "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": [],\n  \"c\": null\n}"
        );
    }

    #[test]
    fn what_is_no_number_is_null() {
        assert_eq!(written(JsonStyle::Line, |w| w.float(f64::NAN)), "null");
        assert_eq!(written(JsonStyle::Line, |w| w.float(2.0)), "2.0");
        assert_eq!(written(JsonStyle::Line, |w| w.bool(true)), "true");
    }
}
