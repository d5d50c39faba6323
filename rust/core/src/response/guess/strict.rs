//! JSON as Python's `JSONDecoder.raw_decode` reads it, halves of surrogate pairs and all.

use super::{Char, Guess, Object, Parser, Refusal, Result, Text, number_of};

/// What may nest; Python's parser has one frame for each.
const MAX_DEPTH: usize = 960;

/// The value at `start` and where it ends, if it is JSON.
pub(super) fn decode(parser: &mut Parser, start: usize) -> Result<Option<(Guess, usize)>> {
    let mut reader = Reader {
        parser,
        at: start,
        depth: 0,
    };
    match reader.value() {
        Ok(value) => Ok(Some((value, reader.at))),
        Err(Wrong::NoJson) => Ok(None),
        Err(Wrong::Refused(refusal)) => Err(refusal),
    }
}

enum Wrong {
    NoJson,
    Refused(Refusal),
}

impl From<Refusal> for Wrong {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

struct Reader<'a> {
    parser: &'a mut Parser,
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    fn char(&self) -> Option<char> {
        self.parser.at(self.at).and_then(char::from_u32)
    }

    fn blank(&mut self) {
        while matches!(self.char(), Some(' ' | '\t' | '\n' | '\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, c: char) -> std::result::Result<(), Wrong> {
        if self.char() != Some(c) {
            return Err(Wrong::NoJson);
        }
        self.at += 1;
        Ok(())
    }

    fn value(&mut self) -> std::result::Result<Guess, Wrong> {
        self.parser.step(1)?;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Refusal::TooDeep.into());
        }
        let value = match self.char() {
            Some('{') => self.object()?,
            Some('[') => self.list()?,
            Some('"') => Guess::Str(self.string()?),
            _ if self.word("-Infinity") => Guess::Float(f64::NEG_INFINITY),
            Some('-' | '0'..='9') => self.number()?,
            _ if self.word("null") => Guess::None,
            _ if self.word("true") => Guess::Bool(true),
            _ if self.word("false") => Guess::Bool(false),
            _ if self.word("NaN") => Guess::Float(f64::NAN),
            _ if self.word("Infinity") => Guess::Float(f64::INFINITY),
            _ => return Err(Wrong::NoJson),
        };
        self.depth -= 1;
        Ok(value)
    }

    fn word(&mut self, word: &str) -> bool {
        let found = self.parser.slice(self.at, self.at + word.len());
        let same = found.iter().copied().eq(word.bytes().map(u32::from));
        if same {
            self.at += word.len();
        }
        same
    }

    fn object(&mut self) -> std::result::Result<Guess, Wrong> {
        let mut object = Object::default();
        self.at += 1;
        self.blank();
        if self.char() == Some('}') {
            self.at += 1;
            return Ok(Guess::Map(object.entries));
        }
        loop {
            if self.char() != Some('"') {
                return Err(Wrong::NoJson);
            }
            let key = self.string()?;
            self.blank();
            self.expect(':')?;
            self.blank();
            let value = self.value()?;
            object.insert(key, value);
            self.blank();
            if self.char() == Some('}') {
                self.at += 1;
                return Ok(Guess::Map(object.entries));
            }
            self.expect(',')?;
            self.blank();
        }
    }

    fn list(&mut self) -> std::result::Result<Guess, Wrong> {
        let mut items = Vec::new();
        self.at += 1;
        self.blank();
        if self.char() == Some(']') {
            self.at += 1;
            return Ok(Guess::List(items));
        }
        loop {
            items.push(self.value()?);
            self.blank();
            if self.char() == Some(']') {
                self.at += 1;
                return Ok(Guess::List(items));
            }
            self.expect(',')?;
            self.blank();
        }
    }

    fn string(&mut self) -> std::result::Result<Text, Wrong> {
        let mut text = Text::new();
        self.at += 1;
        loop {
            self.parser.step(1)?;
            let c = self.parser.at(self.at).ok_or(Wrong::NoJson)?;
            self.at += 1;
            match char::from_u32(c) {
                Some('"') => return Ok(text),
                Some('\\') => {
                    let escape = self.char().ok_or(Wrong::NoJson)?;
                    self.at += 1;
                    let c = match escape {
                        '"' | '\\' | '/' => escape.into(),
                        'b' => 8,
                        'f' => 12,
                        'n' => 10,
                        'r' => 13,
                        't' => 9,
                        'u' => self.escaped()?,
                        _ => return Err(Wrong::NoJson),
                    };
                    text.push(c);
                }
                Some('\0'..='\x1f') => return Err(Wrong::NoJson),
                _ => text.push(c),
            }
        }
    }

    /// The code point of `\uXXXX`, or of two of them that are one character.
    fn escaped(&mut self) -> std::result::Result<Char, Wrong> {
        let high = self.digits(self.at).ok_or(Wrong::NoJson)?;
        self.at += 4;
        if (0xd800..0xdc00).contains(&high)
            && self.char() == Some('\\')
            && self.parser.is(self.at + 1, 'u')
            && let Some(low @ 0xdc00..0xe000) = self.digits(self.at + 2)
        {
            self.at += 6;
            return Ok(0x10000 + ((high - 0xd800) << 10 | (low - 0xdc00)));
        }
        Ok(high)
    }

    fn digits(&self, start: usize) -> Option<Char> {
        let digits = self.parser.slice(start, start + 4);
        if digits.len() < 4 {
            return None;
        }
        digits.iter().try_fold(0, |code, &c| {
            Some(code << 4 | char::from_u32(c)?.to_digit(16)?)
        })
    }

    fn number(&mut self) -> std::result::Result<Guess, Wrong> {
        let start = self.at;
        if self.char() == Some('-') {
            self.at += 1;
        }
        match self.char() {
            Some('0') => self.at += 1,
            Some('1'..='9') => self.decimals(),
            _ => return Err(Wrong::NoJson),
        }
        let mut end = self.at;
        if self.char() == Some('.') {
            self.at += 1;
            let digits = self.at;
            self.decimals();
            if self.at > digits {
                end = self.at;
            }
        }
        self.at = end;
        if matches!(self.char(), Some('e' | 'E')) {
            self.at += 1;
            if matches!(self.char(), Some('+' | '-')) {
                self.at += 1;
            }
            let digits = self.at;
            self.decimals();
            if self.at > digits {
                end = self.at;
            }
        }
        self.at = end;
        let number: String = self
            .parser
            .slice(start, end)
            .iter()
            .filter_map(|&c| char::from_u32(c))
            .collect();
        self.parser.step(number.len())?;
        match number_of(number) {
            // More digits than Python reads: an error of another kind.
            Guess::Str(_) => Err(Refusal::Invalid.into()),
            number => Ok(number),
        }
    }

    fn decimals(&mut self) {
        while matches!(self.char(), Some('0'..='9')) {
            self.at += 1;
        }
    }
}
