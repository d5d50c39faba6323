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
        self.out.push('"');
        let mut plain = 0;
        for (at, byte) in text.bytes().enumerate() {
            let short = match byte {
                b'"' => "\\\"",
                b'\\' => "\\\\",
                b'\n' => "\\n",
                b'\r' => "\\r",
                b'\t' => "\\t",
                0x08 => "\\b",
                0x0c => "\\f",
                0..=0x1f => "",
                _ => continue,
            };
            self.out.push_str(&text[plain..at]);
            plain = at + 1;
            if short.is_empty() {
                self.out.push_str("\\u00");
                self.out.push(char::from(b'0' + (byte >> 4)));
                self.out
                    .push(char::from(b"0123456789abcdef"[usize::from(byte & 0xf)]));
            } else {
                self.out.push_str(short);
            }
        }
        self.out.push_str(&text[plain..]);
        self.out.push('"');
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

#[cfg(test)]
mod tests {
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
