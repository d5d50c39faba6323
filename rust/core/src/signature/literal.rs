//! Numbers and strings, as Python writes them.

use std::fmt::Write as _;

use super::cursor::Cursor;
use super::error::{Code, SignatureError, Span};
use super::lexer::is_name_continue;
use crate::types::{Constant, Real};

/// Python refuses to read longer integers, and so do we.
const MAX_DIGITS: usize = 4_300;

/// Whether a word that starts here is the prefix of a string, quotes included.
pub(super) fn string_starts(rest: &str) -> bool {
    let prefix = rest
        .bytes()
        .take_while(u8::is_ascii_alphabetic)
        .take(3)
        .count();
    prefix <= 2
        && matches!(rest.as_bytes().get(prefix), Some(b'\'' | b'"'))
        && is_string_prefix(&rest[..prefix])
}

fn is_string_prefix(text: &str) -> bool {
    ["r", "u", "b", "f", "br", "rb", "fr", "rf"]
        .iter()
        .any(|prefix| text.eq_ignore_ascii_case(prefix))
}

/// Reads a string or bytes, prefix and quotes included.
pub(super) fn string(cursor: &mut Cursor<'_>) -> Result<Constant, SignatureError> {
    let start = cursor.position();
    let prefix = cursor
        .eat_while(|c| c.is_ascii_alphabetic())
        .to_ascii_lowercase();
    if prefix.contains('f') {
        let message = "a string with an f in front is computed, and nothing here is";
        return Err(SignatureError::new(
            Code::Expression,
            cursor.span_from(start),
            message,
        ));
    }
    let raw = prefix.contains('r');
    let quote = if cursor.eat('"') {
        '"'
    } else {
        cursor.bump().unwrap_or('\'')
    };
    let triple = if quote == '"' { "\"\"\"" } else { "'''" };
    let long = cursor.eat_str(&triple[1..]);
    let mut reader = StringReader {
        cursor,
        start,
        long,
        text: Vec::new(),
        is_bytes: prefix.contains('b'),
    };
    loop {
        if long && reader.cursor.eat_str(triple) || !long && reader.cursor.eat(quote) {
            break;
        }
        reader.character(raw)?;
    }
    let StringReader { text, is_bytes, .. } = reader;
    Ok(if is_bytes {
        Constant::Bytes(text.into())
    } else {
        // Only whole characters were pushed.
        Constant::Str(String::from_utf8(text).unwrap_or_default().into())
    })
}

struct StringReader<'c, 'a> {
    cursor: &'c mut Cursor<'a>,
    start: usize,
    long: bool,
    is_bytes: bool,
    text: Vec<u8>,
}

impl StringReader<'_, '_> {
    /// Reads one character or one escape.
    fn character(&mut self, raw: bool) -> Result<(), SignatureError> {
        let at = self.cursor.position();
        match self.cursor.bump() {
            None => Err(self.unterminated()),
            Some('\n' | '\r') if !self.long => Err(self.unterminated()),
            Some('\r') => {
                // Python reads every line break as one `\n`.
                self.cursor.eat('\n');
                self.push('\n');
                Ok(())
            }
            Some('\\') if raw => {
                self.push('\\');
                // A raw string keeps the backslash, and what follows does not end it.
                if self
                    .cursor
                    .peek()
                    .is_some_and(|c| matches!(c, '\'' | '"' | '\\'))
                {
                    let kept = self.cursor.bump().unwrap_or('\\');
                    self.push(kept);
                } else if self.cursor.peek().is_some_and(|c| matches!(c, '\n' | '\r')) {
                    self.line_break();
                    self.push('\n');
                }
                Ok(())
            }
            Some('\\') => self.escape(at),
            Some(c) if self.is_bytes && !c.is_ascii() => Err(SignatureError::new(
                Code::Syntax,
                self.cursor.span_from(at),
                "bytes can only hold ASCII characters and escapes",
            )),
            Some(c) => {
                self.push(c);
                Ok(())
            }
        }
    }

    fn escape(&mut self, at: usize) -> Result<(), SignatureError> {
        let Some(c) = self.cursor.peek() else {
            return Err(self.unterminated());
        };
        if matches!(c, '\n' | '\r') {
            self.line_break();
            return Ok(());
        }
        self.cursor.bump();
        let simple = match c {
            '\\' | '\'' | '"' => c,
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            '0'..='7' => return self.octal(at, c),
            'x' => return self.hexadecimal(at, 2),
            'u' if !self.is_bytes => return self.hexadecimal(at, 4),
            'U' if !self.is_bytes => return self.hexadecimal(at, 8),
            'N' if !self.is_bytes => {
                return Err(self.bad_escape(at, "characters cannot be written by their names"));
            }
            c if self.is_bytes && !c.is_ascii() => {
                return Err(self.bad_escape(at, "bytes can only hold ASCII characters and escapes"));
            }
            c => {
                // Python keeps an unknown escape as it is, with a warning.
                self.push('\\');
                c
            }
        };
        self.push(simple);
        Ok(())
    }

    fn octal(&mut self, at: usize, first: char) -> Result<(), SignatureError> {
        let mut value = first.to_digit(8).unwrap_or_default();
        for _ in 0..2 {
            let Some(digit) = self.cursor.peek().and_then(|c| c.to_digit(8)) else {
                break;
            };
            self.cursor.bump();
            value = value * 8 + digit;
        }
        self.push_code(at, value)
    }

    fn hexadecimal(&mut self, at: usize, digits: usize) -> Result<(), SignatureError> {
        let mut value = 0_u32;
        for _ in 0..digits {
            let Some(digit) = self.cursor.peek().and_then(|c| c.to_digit(16)) else {
                return Err(
                    self.bad_escape(at, &format!("the escape needs {digits} hexadecimal digits"))
                );
            };
            self.cursor.bump();
            value = value.wrapping_mul(16).wrapping_add(digit);
        }
        self.push_code(at, value)
    }

    fn push_code(&mut self, at: usize, value: u32) -> Result<(), SignatureError> {
        if self.is_bytes {
            // Python cuts an octal escape beyond 0o377 to its low byte.
            self.text.push(value.to_le_bytes()[0]);
            return Ok(());
        }
        match char::from_u32(value) {
            Some(c) => {
                self.push(c);
                Ok(())
            }
            None => Err(self.bad_escape(at, "the escape is not a character")),
        }
    }

    fn line_break(&mut self) {
        if self.cursor.eat('\r') {
            self.cursor.eat('\n');
        } else {
            self.cursor.bump();
        }
    }

    fn push(&mut self, c: char) {
        let mut buffer = [0; 4];
        self.text
            .extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
    }

    fn unterminated(&self) -> SignatureError {
        let span = Span {
            start: self.start,
            end: self.cursor.position(),
        };
        SignatureError::new(Code::UnterminatedString, span, "the string has no end")
    }

    fn bad_escape(&self, at: usize, message: &str) -> SignatureError {
        SignatureError::new(Code::InvalidEscape, self.cursor.span_from(at), message)
    }
}

/// Reads a number: an integer of any base, a float, an imaginary number.
pub(super) fn number(cursor: &mut Cursor<'_>) -> Result<Constant, SignatureError> {
    let start = cursor.position();
    let radix = match cursor.rest().as_bytes() {
        [b'0', b'x' | b'X', ..] => 16,
        [b'0', b'o' | b'O', ..] => 8,
        [b'0', b'b' | b'B', ..] => 2,
        _ => 10,
    };
    let constant = if radix == 10 {
        decimal(cursor)
    } else {
        based(cursor, radix)
    };
    if cursor.peek().is_some_and(is_name_continue) {
        cursor.eat_while(is_name_continue);
        return Err(bad_number(cursor, start));
    }
    constant.ok_or_else(|| bad_number(cursor, start))
}

fn bad_number(cursor: &Cursor<'_>, start: usize) -> SignatureError {
    let message = format!("'{}' is not a number", cursor.slice(start));
    SignatureError::new(Code::InvalidNumber, cursor.span_from(start), message)
}

fn based(cursor: &mut Cursor<'_>, radix: u32) -> Option<Constant> {
    cursor.bump();
    cursor.bump();
    let text = cursor.eat_while(|c| c.is_digit(radix) || c == '_');
    // Python takes one underscore right behind the base.
    let digits = clean_digits(text.strip_prefix('_').unwrap_or(text))?;
    Some(Constant::Int(to_decimal(&digits, radix)?.into()))
}

fn decimal(cursor: &mut Cursor<'_>) -> Option<Constant> {
    let is_part = |c: char| c.is_ascii_digit() || c == '_';
    let whole = cursor.eat_while(is_part);
    let mut is_float = false;
    let mut text = if whole.is_empty() {
        String::from("0")
    } else {
        clean_digits(whole)?
    };
    if cursor.eat('.') {
        is_float = true;
        let fraction = cursor.eat_while(is_part);
        text.push('.');
        text.push_str(&if fraction.is_empty() {
            String::from("0")
        } else {
            clean_digits(fraction)?
        });
    }
    if matches!(cursor.peek(), Some('e' | 'E')) {
        is_float = true;
        cursor.bump();
        text.push('e');
        if cursor.eat('-') {
            text.push('-');
        } else {
            cursor.eat('+');
        }
        text.push_str(&clean_digits(cursor.eat_while(is_part))?);
    }
    if cursor.eat('j') || cursor.eat('J') {
        return Some(Constant::Imaginary(Real(text.parse().ok()?)));
    }
    if is_float {
        return Some(Constant::Float(Real(text.parse().ok()?)));
    }
    let digits = text.trim_start_matches('0');
    match digits.len() {
        0 => Some(Constant::Int("0".into())),
        // `007` is no number, `000` is.
        n if n == text.len() && n <= MAX_DIGITS => Some(Constant::Int(text.into())),
        _ => None,
    }
}

/// Digits without their underscores, each of which must stand between two digits.
fn clean_digits(text: &str) -> Option<String> {
    if text.is_empty() || text.starts_with('_') || text.ends_with('_') || text.contains("__") {
        return None;
    }
    Some(text.replace('_', ""))
}

/// The decimal digits of a number of any size, by schoolbook multiplication.
fn to_decimal(digits: &str, radix: u32) -> Option<String> {
    const BASE: u64 = 1_000_000_000;
    let mut limbs = vec![0_u64];
    for digit in digits.chars().filter_map(|c| c.to_digit(radix)) {
        let mut carry = u64::from(digit);
        for limb in &mut limbs {
            let value = *limb * u64::from(radix) + carry;
            *limb = value % BASE;
            carry = value / BASE;
        }
        if carry > 0 {
            limbs.push(carry);
        }
        if limbs.len() > MAX_DIGITS / 9 + 1 {
            return None;
        }
    }
    let (high, low) = limbs.split_last()?;
    let mut text = high.to_string();
    for limb in low.iter().rev() {
        let _ = write!(text, "{limb:09}");
    }
    Some(text)
}
