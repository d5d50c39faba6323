//! A place in a text that only moves forward. It knows nothing of signatures.

use super::error::Span;

/// Reads a text character by character, and remembers where it is.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    source: &'a str,
    position: usize,
    end: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor over a part of the text; positions count from the start of the whole.
    pub(super) fn new(source: &'a str, part: Span) -> Self {
        Self {
            source,
            position: part.start,
            end: part.end,
        }
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    pub(super) fn rest(&self) -> &'a str {
        &self.source[self.position..self.end]
    }

    pub(super) fn slice(&self, start: usize) -> &'a str {
        &self.source[start..self.position]
    }

    pub(super) fn span_from(&self, start: usize) -> Span {
        Span {
            start,
            end: self.position,
        }
    }

    pub(super) fn peek(&self) -> Option<char> {
        // Most text is ASCII, and a byte is cheaper than a character.
        match self.source.as_bytes()[self.position..self.end].first() {
            Some(&byte) if byte.is_ascii() => Some(char::from(byte)),
            Some(_) => self.rest().chars().next(),
            None => None,
        }
    }

    pub(super) fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.position += c.len_utf8();
        Some(c)
    }

    pub(super) fn eat(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        if found {
            self.position += c.len_utf8();
        }
        found
    }

    pub(super) fn eat_str(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.position += text.len();
        }
        found
    }

    pub(super) fn eat_while(&mut self, accept: impl Fn(char) -> bool) -> &'a str {
        let start = self.position;
        while self.peek().is_some_and(&accept) {
            self.bump();
        }
        self.slice(start)
    }
}
