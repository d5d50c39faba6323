//! The constants of a `Literal`, written as Python and as JSON write them.

use std::fmt::Write as _;
use std::hash::{Hash, Hasher};

use super::Opaque;

/// One value of a `Literal`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
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
    Python(Opaque),
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
            Self::Float(value) => write_float(out, value.0),
            Self::Imaginary(value) => {
                let start = out.len();
                write_float(out, value.0);
                if out[start..].ends_with(".0") {
                    out.truncate(out.len() - 2);
                }
                out.push('j');
            }
            Self::Str(text) => out.push_str(text),
            Self::Bytes(bytes) => write_bytes_repr(out, bytes),
            Self::Python(opaque) => out.push_str(&opaque.name),
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
            Self::Str(text) => write_json_string(out, text),
            Self::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => write_json_string(out, text),
                Err(_) => return false,
            },
            Self::Python(_) => return false,
        }
        true
    }
}

/// Python's `repr(float)`: the shortest digits that read back, an exponent from 1e16 and below 1e-4.
fn write_float(out: &mut String, value: f64) {
    if value.is_nan() {
        out.push_str("nan");
        return;
    }
    if value.is_infinite() {
        out.push_str(if value < 0.0 { "-inf" } else { "inf" });
        return;
    }
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent
            .strip_prefix('-')
            .map_or(('+', exponent), |rest| ('-', rest));
        let _ = write!(out, "{digits}e{sign}{exponent:0>2}");
    } else {
        let _ = write!(out, "{value:?}");
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

/// A JSON string with only what must be escaped escaped.
fn write_json_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
