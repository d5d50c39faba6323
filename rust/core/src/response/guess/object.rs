//! Objects, their keys, and what looks like an object and is none.

use super::chars::{is_delimiter, is_space};
use super::{Char, Context, Guess, Object, Parser, Refusal, Result, Text};

/// What an object without entries is.
enum Empty {
    Object,
    /// An object whose quotes are escaped; it is read again without the escapes.
    Escaped(Text),
    Array,
}

impl Parser {
    pub(super) fn parse_object(&mut self) -> Result<Guess> {
        self.nested(2, Self::parse_object_here)
    }

    fn parse_object_here(&mut self) -> Result<Guess> {
        let mut object = Object::default();
        let start = self.index;
        let is_object_value = self.is_in(Context::Value);
        loop {
            self.step(1)?;
            self.skip_whitespace_and_comments()?;
            if self.char().is_none() || self.is(self.index, '}') {
                break;
            }
            if self.is(self.index, ',') {
                self.index += 1;
                continue;
            }
            if self.is(self.index, ':') {
                self.index += 1;
            }
            let (key, rollback) = self.parse_object_key(&mut object)?;
            if self.is_within(Context::Array)
                && !is_object_value
                && object.contains(&key)
                && self.should_split_duplicate_object(rollback)?
            {
                // What comes twice begins the next object.
                let length = self.text.len();
                self.step(length / 4)?;
                self.text.insert(rollback.min(length), u32::from('{'));
                self.index = rollback;
                return self.object_read(object, start);
            }
            self.skip_whitespace_and_comments()?;
            if self.char().is_none() || self.is(self.index, '}') {
                continue;
            }
            self.index += 1;
            let value = self.parse_object_value()?;
            object.insert(key, value);
            if self.is_any(self.index, &[',', '\'', '"']) {
                self.index += 1;
            }
            if self.is(self.index, ']') && self.is_within(Context::Array) {
                self.index -= 1;
                break;
            }
        }
        self.index += 1;
        self.object_read(object, start)
    }

    fn object_read(&mut self, object: Object, start: usize) -> Result<Guess> {
        if let Some(value) = self.repair_empty_object_result(&object, start)? {
            return Ok(value);
        }
        self.complete_object_parse(object)
    }

    fn parse_object_key(&mut self, object: &mut Object) -> Result<(Text, usize)> {
        self.nested(1, |parser| {
            let mut key = Text::new();
            let mut rollback = parser.index;
            parser.enter(Context::Key);
            while parser.char().is_some() {
                parser.step(1)?;
                rollback = parser.index;
                if parser.is(parser.index, '[')
                    && key.is_empty()
                    && parser.merge_object_array_continuation(object)?
                {
                    continue;
                }
                // Where a fence with JSON in it stands for a key, `json_repair` fails.
                let Guess::Str(text) = parser.parse_string()? else {
                    return Err(Refusal::Invalid);
                };
                key = text;
                if key.is_empty() {
                    parser.skip_whitespace_and_comments()?;
                }
                if !key.is_empty() || parser.is_any(parser.index, &[':', '}']) {
                    break;
                }
            }
            parser.leave();
            Ok((key, rollback))
        })
    }

    /// A list where a key should be goes on with the list of the entry before.
    fn merge_object_array_continuation(&mut self, object: &mut Object) -> Result<bool> {
        match object.entries.last() {
            Some((key, Guess::List(_))) if !key.is_empty() => {}
            _ => return Ok(false),
        }
        self.index += 1;
        let mut more = self.nested(1, |parser| parser.parse_array(']'))?;
        let Some((_, Guess::List(items))) = object.entries.last_mut() else {
            return Ok(false);
        };
        self.step(items.len())?;
        let mut lengths = items.iter().filter_map(|item| match item {
            Guess::List(row) => Some(row.len()),
            _ => None,
        });
        let row = match lengths.next() {
            Some(first) if first > 0 && lengths.all(|length| length == first) => first,
            _ => 0,
        };
        let is_row = |item: &Guess| matches!(item, Guess::List(_));
        if row > 0 {
            let rows = items.iter().rposition(is_row).map_or(0, |at| at + 1);
            let mut tail = items.split_off(rows);
            if tail.len().is_multiple_of(row) {
                while !tail.is_empty() {
                    let after = tail.split_off(row);
                    items.push(Guess::List(tail));
                    tail = after;
                }
            } else {
                items.append(&mut tail);
            }
            if !more.is_empty() {
                if more.iter().all(is_row) {
                    items.append(&mut more);
                } else {
                    items.push(Guess::List(more));
                }
            }
        } else {
            match more.as_mut_slice() {
                [Guess::List(only)] => items.append(only),
                _ => items.append(&mut more),
            }
        }
        self.skip_whitespace_and_comments()?;
        if self.is(self.index, ',') {
            self.index += 1;
        }
        self.skip_whitespace_and_comments()?;
        Ok(true)
    }

    fn should_split_duplicate_object(&mut self, rollback: usize) -> Result<bool> {
        let mut before = rollback;
        while before > 0 && self.at(before - 1).is_some_and(is_space) {
            self.step(1)?;
            before -= 1;
        }
        let after_comma = self.before(before) == Some(u32::from(','));
        let quoted = self.at(rollback).is_some_and(is_delimiter);
        let next = self.scroll_whitespaces(self.index)?;
        Ok(!(quoted && after_comma && self.is(next, ':')))
    }

    fn parse_object_value(&mut self) -> Result<Guess> {
        self.nested(1, |parser| {
            parser.enter(Context::Value);
            parser.skip_whitespace_and_comments()?;
            let value = if parser.is_any(parser.index, &[',', '}']) {
                Guess::empty()
            } else {
                parser.parse_json()?
            };
            parser.leave();
            Ok(value)
        })
    }

    fn repair_empty_object_result(
        &mut self,
        object: &Object,
        start: usize,
    ) -> Result<Option<Guess>> {
        if !object.is_empty() || self.index.saturating_sub(start) <= 2 {
            return Ok(None);
        }
        let closed = self.before(self.index) == Some(u32::from('}'));
        let body = self.slice(start, self.index - 1).to_vec();
        self.step(body.len() / 4)?;
        if closed && self.without_comments(&body)?.iter().all(|&c| is_space(c)) {
            return Ok(None);
        }
        match self.classify_empty_object_repair(start)? {
            Empty::Object => Ok(None),
            Empty::Escaped(normalized) => {
                let length = self.text.len();
                self.step(length / 4)?;
                let end = (self.index + 1).min(length);
                self.text.splice(start.saturating_sub(1)..end, normalized);
                self.index = start;
                self.enter(Context::Key);
                let value = self.nested(1, Self::parse_object)?;
                self.leave();
                self.deferred.push(Context::Key);
                Ok(Some(value))
            }
            Empty::Array => {
                self.index = start;
                self.enter(Context::Key);
                let items = self.nested(1, |parser| parser.parse_array(']'))?;
                self.leave();
                self.deferred.push(Context::Key);
                Ok(Some(Guess::List(items)))
            }
        }
    }

    fn classify_empty_object_repair(&mut self, start: usize) -> Result<Empty> {
        let attempted = self.slice(start.saturating_sub(1), self.index + 1).to_vec();
        self.step(2 * attempted.len())?;
        let body = attempted.get(1..).unwrap_or_default();
        let body = match body.split_last() {
            Some((&last, rest)) if last == u32::from('}') => rest,
            _ => body,
        };
        let body = trim_start(body);
        if body.is_empty() {
            return Ok(Empty::Object);
        }
        for quote in ['"', '\''] {
            let quote = u32::from(quote);
            let opening = [u32::from('\\'), quote];
            let closing = [u32::from('\\'), quote, u32::from(':')];
            if body.starts_with(&opening) && body.windows(3).any(|part| part == closing) {
                return Ok(Empty::Escaped(without_escaped_quotes(&attempted)));
            }
        }
        let body = self.without_comments(body)?;
        let body = trim_start(&body);
        if body.is_empty() {
            return Ok(Empty::Object);
        }
        let mut quote = None;
        let mut escaped = false;
        for &c in body {
            if c == u32::from('\\') {
                escaped = !escaped;
                continue;
            }
            if let Some(open) = quote {
                if c == open && !escaped {
                    quote = None;
                }
            } else if is_delimiter(c) && !escaped {
                quote = Some(c);
            } else if c == u32::from(':') && !escaped {
                return Ok(Empty::Object);
            }
            escaped = false;
        }
        Ok(Empty::Array)
    }

    /// `_strip_comments_for_empty_object_classification`
    fn without_comments(&mut self, body: &[Char]) -> Result<Text> {
        self.step(4 * body.len())?;
        let is = |index: usize, c: char| body.get(index) == Some(&u32::from(c));
        let mut rest = Text::with_capacity(body.len());
        let mut quote = None;
        let mut escaped = false;
        let mut index = 0;
        while let Some(&c) = body.get(index) {
            if c == u32::from('\\') {
                escaped = !escaped;
                rest.push(c);
                index += 1;
                continue;
            }
            let was_escaped = std::mem::take(&mut escaped);
            if let Some(open) = quote {
                rest.push(c);
                if c == open && !was_escaped {
                    quote = None;
                }
                index += 1;
            } else if is_delimiter(c) && !was_escaped {
                quote = Some(c);
                rest.push(c);
                index += 1;
            } else if is(index, '#') || (is(index, '/') && is(index + 1, '/')) {
                index += 1;
                while index < body.len() && !is(index, '\n') && !is(index, '\r') {
                    index += 1;
                }
            } else if is(index, '/') && is(index + 1, '*') {
                index += 2;
                while index + 1 < body.len() && !(is(index, '*') && is(index + 1, '/')) {
                    index += 1;
                }
                index = (index + 2).min(body.len());
            } else {
                rest.push(c);
                index += 1;
            }
        }
        Ok(rest)
    }

    fn complete_object_parse(&mut self, mut object: Object) -> Result<Guess> {
        if !self.context.is_empty() {
            let outside = !self.is_in(Context::Key) && !self.is_in(Context::Value);
            if self.is(self.index, '}') && outside {
                self.index += 1;
            }
            return Ok(Guess::Map(object.entries));
        }
        self.index = self.scroll_whitespaces(self.index)?;
        if self.is(self.index, ',') {
            self.index = self.scroll_whitespaces(self.index + 1)?;
            if self.char().is_some_and(is_delimiter)
                && let Guess::Map(more) = self.nested(1, Self::parse_object)?
            {
                self.step(more.len())?;
                for (key, value) in more {
                    object.insert(key, value);
                }
            }
        }
        Ok(Guess::Map(object.entries))
    }
}

fn trim_start(text: &[Char]) -> &[Char] {
    let start = text.iter().position(|&c| !is_space(c));
    &text[start.unwrap_or(text.len())..]
}

/// `\"` as `"`, then `\'` as `'`.
fn without_escaped_quotes(text: &[Char]) -> Text {
    ['"', '\''].iter().fold(text.to_vec(), |text, &quote| {
        let mut rest = Text::with_capacity(text.len());
        let mut index = 0;
        while let Some(&c) = text.get(index) {
            if c == u32::from('\\') && text.get(index + 1) == Some(&u32::from(quote)) {
                index += 1;
            }
            rest.push(text[index]);
            index += 1;
        }
        rest
    })
}
