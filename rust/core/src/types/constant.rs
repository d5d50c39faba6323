//! The constants of a `Literal`, written as Python and as JSON write them.

use std::fmt::Write as _;
use std::hash::{Hash, Hasher};

use super::External;
use crate::text::{JsonStyle, JsonWriter, push_float};

/// One value of a `Literal`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Constant {
    /// `None`
    None,
    /// `True` or `False`
    Bool(bool),
    /// An integer of any size, in decimal.
    Int(Box<str>),
    /// A float.
    Float(Real),
    /// An imaginary number, by its factor: `1.5j`.
    Imaginary(Real),
    /// A string.
    Str(Box<str>),
    /// Bytes.
    Bytes(Box<[u8]>),
    /// Any other object, such as a member of an enum.
    External(External),
}

/// A float that compares and hashes by its bits, so that it can be part of a key.
#[derive(Clone, Copy, Debug)]
pub struct Real(pub f64);

impl PartialEq for Real {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Real {}

impl Hash for Real {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

impl Constant {
    /// Appends Python's `str()` of the value: what a prompt lists as a choice.
    pub fn write_str(&self, out: &mut String) {
        match self {
            Self::None => out.push_str("None"),
            Self::Bool(true) => out.push_str("True"),
            Self::Bool(false) => out.push_str("False"),
            Self::Int(digits) => out.push_str(digits),
            Self::Float(value) => push_float(out, value.0),
            Self::Imaginary(value) => {
                let start = out.len();
                push_float(out, value.0);
                if out[start..].ends_with(".0") {
                    out.truncate(out.len() - 2);
                }
                out.push('j');
            }
            Self::Str(text) => out.push_str(text),
            Self::Bytes(bytes) => write_bytes_repr(out, bytes),
            Self::External(external) => out.push_str(&external.name),
        }
    }

    /// Appends Python's `repr()` of the value, written so that a signature's text can hold it: without `->`.
    pub fn write_source(&self, out: &mut String) {
        match self {
            Self::Str(text) => write_str_repr(out, text),
            Self::Bytes(bytes) => {
                let mut repr = String::new();
                write_bytes_repr(&mut repr, bytes);
                out.push_str(&repr.replace("->", "-\\x3e"));
            }
            Self::External(external) => out.push_str(&external.source),
            // There is no word for infinity, but a number too large to be another.
            Self::Float(value) if value.0.is_infinite() => out.push_str("1e999"),
            Self::Imaginary(value) if value.0.is_infinite() => out.push_str("1e999j"),
            other => other.write_str(out),
        }
    }

    /// Appends the value as `json.dumps(..., ensure_ascii=False)` writes it after pydantic made it plain.
    ///
    /// Returns false, having written nothing, where only Python can say: an object of its own, bytes that
    /// are not UTF-8, a float that JSON has no number for.
    pub(super) fn write_json(&self, out: &mut String) -> bool {
        match self {
            Self::None => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Float(value) if !value.0.is_finite() => return false,
            Self::Int(_) | Self::Float(_) => self.write_str(out),
            Self::Imaginary(_) => {
                out.push('"');
                self.write_str(out);
                out.push('"');
            }
            Self::Str(text) => JsonWriter::new(out, JsonStyle::Line).string(text),
            Self::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => JsonWriter::new(out, JsonStyle::Line).string(text),
                Err(_) => return false,
            },
            Self::External(_) => return false,
        }
        true
    }
}

/// Python's `repr(bytes)`.
fn write_bytes_repr(out: &mut String, bytes: &[u8]) {
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') {
        '"'
    } else {
        '\''
    };
    out.push('b');
    out.push(quote);
    for &byte in bytes {
        match byte {
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            b' '..=b'~' => {
                if char::from(byte) == quote {
                    out.push('\\');
                }
                out.push(char::from(byte));
            }
            _ => {
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
    out.push(quote);
}

/// A string in quotes as Python could read it: printable ASCII as it is, but for `->`, and everything else
/// that is a letter or a number.
fn write_str_repr(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    let mut last = ' ';
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '>' if last == '-' => out.push_str("\\x3e"),
            c if c == quote || c == '\\' => {
                out.push('\\');
                out.push(c);
            }
            ' '..='~' => out.push(c),
            c if c.is_alphanumeric() => out.push(c),
            c => {
                let code = u32::from(c);
                let _ = match code {
                    0..=0xff => write!(out, "\\x{code:02x}"),
                    0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
        last = c;
    }
    out.push(quote);
}
