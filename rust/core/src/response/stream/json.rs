//! The entries of the first JSON object in a reply, character by character.

use super::Fields;
use crate::text::is_space;

/// Follows one object; what is not JSON ends the following, and the reply as a whole decides.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    state: State,
    /// The key that is being read.
    key: String,
    escape: Escape,
    /// Commas and white space that came last in a text. Where its closing quote was left out, `"Paris, "b": 1`, the
    /// quote of the next key closes it, and they are not the text's.
    held: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before the object.
    #[default]
    Before,
    /// Where a key begins.
    Entry,
    /// In a key.
    Key,
    /// Behind a key.
    Colon,
    /// Where a value begins.
    Value,
    /// In a string that is the text of a field.
    Text,
    /// Behind a text that ended in a comma: what comes says whether its own quote closed it.
    Closed,
    /// In any other value: how many brackets are open, and whether it is in a string, and there escaped.
    Raw {
        depth: u32,
        string: bool,
        escaped: bool,
    },
    /// Behind a value.
    After,
    /// Behind the object, or lost.
    Over,
}

/// An escape in a string, as far as it has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// A backslash.
    Begun,
    /// `\u` and so many digits.
    Unicode { digits: u8, code: u32 },
}

impl Scanner {
    pub(super) fn push(&mut self, c: char, fields: &mut Fields) {
        self.state = match self.state {
            State::Before if c == '{' => State::Entry,
            State::Before => State::Before,
            State::Entry | State::Colon | State::Value | State::Closed | State::After
                if c.is_ascii_whitespace() =>
            {
                self.state
            }
            State::Entry if c == '"' => {
                self.key.clear();
                State::Key
            }
            State::Key => match self.unescape(c) {
                Some(Piece::Char(c)) => {
                    self.key.push(c);
                    State::Key
                }
                Some(Piece::End) => State::Colon,
                None => State::Key,
            },
            State::Colon if c == ':' => State::Value,
            State::Value => self.begin(c, fields),
            State::Text => match self.unescape(c) {
                Some(Piece::Char(c)) => {
                    if c == ',' || is_space(c) {
                        self.held.push(c);
                    } else {
                        if !self.held.is_empty() {
                            self.release(fields);
                        }
                        fields.exactly(c);
                    }
                    State::Text
                }
                Some(Piece::End) if self.held.contains(',') => State::Closed,
                Some(Piece::End) => {
                    self.release(fields);
                    fields.end(true);
                    State::After
                }
                None => State::Text,
            },
            State::Closed => {
                if matches!(c, ',' | '}' | ']' | '"') {
                    self.release(fields);
                }
                self.held.clear();
                fields.end(true);
                if c == ',' { State::Entry } else { State::Over }
            }
            State::Raw {
                depth,
                string,
                escaped,
            } => raw(c, depth, string, escaped, fields),
            State::After if c == ',' => State::Entry,
            _ => State::Over,
        };
    }

    /// The reply is over.
    pub(super) fn finish(&mut self, fields: &mut Fields) {
        if self.state == State::Closed {
            self.release(fields);
            fields.end(true);
        }
        self.state = State::Over;
    }

    fn release(&mut self, fields: &mut Fields) {
        fields.exactly_all(&self.held);
        self.held.clear();
    }

    fn begin(&mut self, c: char, fields: &mut Fields) -> State {
        fields.start(&self.key);
        if c == '"' && fields.is_text() {
            State::Text
        } else {
            if fields.is_text() {
                fields.skip(); // Python's `str()` of what comes
            }
            raw(c, 0, false, false, fields)
        }
    }

    /// What the next character of a string stands for, once that is sure.
    fn unescape(&mut self, c: char) -> Option<Piece> {
        match self.escape {
            Escape::None if c == '"' => Some(Piece::End),
            Escape::None if c == '\\' => {
                self.escape = Escape::Begun;
                None
            }
            Escape::None => Some(Piece::Char(c)),
            Escape::Begun if c == 'u' => {
                self.escape = Escape::Unicode { digits: 0, code: 0 };
                None
            }
            Escape::Begun => {
                self.escape = Escape::None;
                Some(Piece::Char(match c {
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    c => c,
                }))
            }
            // The second half of a pair comes as an escape of its own, and joins the first.
            Escape::Unicode { digits, code }
                if digits % 4 == 0 && digits > 0 && matches!(c, '\\' | 'u') =>
            {
                self.escape = Escape::Unicode { digits, code };
                None
            }
            Escape::Unicode { digits, code } => {
                let (digits, code) = (digits + 1, code << 4 | c.to_digit(16).unwrap_or_default());
                self.escape = Escape::Unicode { digits, code };
                let found = match digits {
                    4 if (0xd800..0xdc00).contains(&code) => return None,
                    4 => code,
                    8 => 0x10000 + ((code >> 16 & 0x3ff) << 10) + (code & 0x3ff),
                    _ => return None,
                };
                self.escape = Escape::None;
                Some(Piece::Char(
                    char::from_u32(found).unwrap_or(char::REPLACEMENT_CHARACTER),
                ))
            }
        }
    }
}

enum Piece {
    Char(char),
    End,
}

/// The next character of a value that is no text.
fn raw(c: char, depth: u32, string: bool, escaped: bool, fields: &mut Fields) -> State {
    let (depth, string, escaped) = match (string, c) {
        (true, _) if escaped => (depth, true, false),
        (true, '\\') => (depth, true, true),
        (true, '"') => (depth, false, false),
        (true, _) | (false, '"') => (depth, true, false),
        (false, '[' | '{') => (depth + 1, false, false),
        (false, ']' | '}' | ',') if depth == 0 => {
            fields.end(true);
            return if c == ',' { State::Entry } else { State::Over };
        }
        (false, ']' | '}') => (depth - 1, false, false),
        (false, _) => (depth, false, false),
    };
    fields.exactly(c);
    State::Raw {
        depth,
        string,
        escaped,
    }
}
