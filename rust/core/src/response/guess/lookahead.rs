//! What `json_repair` asks about the text ahead. Places are counted from the beginning of the text.

use super::chars::{Char, is_alnum, is_delimiter, is_digit, is_space, lower};
use super::{Parser, Result};

/// What closes an opening bracket.
pub(super) fn closing_of(c: Char) -> Option<Char> {
    Some(u32::from(match char::from_u32(c)? {
        '[' => ']',
        '{' => '}',
        '(' => ')',
        _ => return None,
    }))
}

/// The quote that closes one.
fn matching_delimiter(c: Char) -> Char {
    if c == u32::from('“') {
        u32::from('”')
    } else {
        c
    }
}

pub(super) const QUOTES: [Char; 4] = ['"' as Char, '\'' as Char, '“' as Char, '”' as Char];

impl Parser {
    /// Where white space from `at` on ends.
    pub(super) fn scroll_whitespaces(&mut self, mut at: usize) -> Result<usize> {
        while self.at(at).is_some_and(is_space) {
            self.step(1)?;
            at += 1;
        }
        Ok(at)
    }

    /// The first of `targets` from `at` on that is not escaped, or the end.
    pub(super) fn skip_to(&mut self, targets: &[Char], at: usize) -> Result<usize> {
        let mut escaped = false;
        let mut found = self.text.len();
        for (i, &c) in self.text.iter().enumerate().skip(at) {
            if c == u32::from('\\') {
                escaped = !escaped;
            } else if !escaped && targets.contains(&c) {
                found = i;
                break;
            } else {
                escaped = false;
            }
        }
        self.step(1 + found.saturating_sub(at))?;
        Ok(found)
    }

    /// Whether there is nothing but white space between what is looked at and `end`.
    pub(super) fn only_whitespace_until(&mut self, end: usize) -> Result<bool> {
        for at in self.index + 1..end {
            self.step(1)?;
            if self.at(at).is_some_and(|c| !is_space(c)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Where a key without quotes at `at` ends.
    fn bare_key_end(&mut self, mut at: usize) -> Result<usize> {
        while self
            .at(at)
            .is_some_and(|c| is_alnum(c) || c == u32::from('_') || c == u32::from('-'))
        {
            self.step(1)?;
            at += 1;
        }
        Ok(at)
    }

    pub(super) fn bare_key_is_followed_by_colon(&mut self, at: usize) -> Result<bool> {
        if !self
            .at(at)
            .is_some_and(|c| is_alnum(c) || c == u32::from('_'))
        {
            return Ok(false);
        }
        let end = self.bare_key_end(at)?;
        let colon = self.scroll_whitespaces(end)?;
        Ok(self.is(colon, ':'))
    }

    fn post_fence_container_starts_next_member(&mut self, end: usize) -> Result<bool> {
        let after = self.scroll_whitespaces(end)?;
        if self.at(after).is_none() || self.is(after, '}') {
            return Ok(true);
        }
        if !self.is(after, ',') {
            return Ok(false);
        }
        let next = self.scroll_comment_prefixed_member_start(after + 1)?;
        if self.at(next).is_none() || self.is(next, '}') {
            return Ok(true);
        }
        self.object_member_starts_at(next)
    }

    fn starts_nested_inline_container(&mut self, at: usize) -> Result<bool> {
        let mut before = at;
        // No further back than to the character that is looked at.
        while before > self.index {
            self.step(1)?;
            before -= 1;
            let Some(c) = self.at(before) else {
                return Ok(true);
            };
            if is_space(c) {
                continue;
            }
            if closing_of(c).is_some() {
                return Ok(true);
            }
            if !self.is_any(before, &[',', ':']) {
                return Ok(false);
            }
            let next = self.scroll_whitespaces(at + 1)?;
            let found = self.at(next);
            let quoted = found.is_some_and(is_delimiter);
            if self.is_any(at, &['[', '(']) {
                let starts = self.is_any(next, &[']', ')', '-', '[', '{', '(', 't', 'f', 'n']);
                return Ok(quoted || starts || found.is_some_and(is_digit));
            }
            if !self.is(at, '{') {
                return Ok(false);
            }
            if quoted || self.is(next, '}') {
                return Ok(true);
            }
            return Ok(self.is(before, ':') && self.bare_key_is_followed_by_colon(next)?);
        }
        Ok(true)
    }

    /// Where the container at `at` ends, if it does.
    pub(super) fn skip_inline_container(&mut self, at: usize) -> Result<Option<usize>> {
        let Some(closing) = self.at(at).and_then(closing_of) else {
            return Ok(Some(at));
        };
        let mut stack = vec![closing];
        let mut i = at + 1;
        loop {
            self.step(1)?;
            let Some(c) = self.at(i) else {
                return Ok(None);
            };
            if is_delimiter(c) {
                let end = matching_delimiter(c);
                i = self.skip_to(&[end], i + 1)?;
                if self.at(i).is_none() {
                    return Ok(None);
                }
            } else if let Some(closing) = closing_of(c)
                && self.starts_nested_inline_container(i)?
            {
                stack.push(closing);
            } else if stack.last() == Some(&c) {
                stack.pop();
                if stack.is_empty() {
                    return Ok(Some(i + 1));
                }
            }
            i += 1;
        }
    }

    fn scroll_comment_prefixed_member_start(&mut self, at: usize) -> Result<usize> {
        let mut at = self.scroll_whitespaces(at)?;
        loop {
            self.step(1)?;
            let line = self.is(at, '/') && self.is(at + 1, '/');
            if line || self.is(at, '#') {
                at += if line { 2 } else { 0 };
                while self.at(at).is_some() && !self.is_any(at, &['\n', '\r']) {
                    self.step(1)?;
                    at += 1;
                }
            } else if self.is(at, '/') && self.is(at + 1, '*') {
                at += 2;
                loop {
                    self.step(1)?;
                    if self.at(at).is_none() {
                        return Ok(at);
                    }
                    if self.is(at, '*') && self.is(at + 1, '/') {
                        at += 2;
                        break;
                    }
                    at += 1;
                }
            } else {
                return Ok(at);
            }
            at = self.scroll_whitespaces(at)?;
        }
    }

    pub(super) fn quoted_object_member_follows(&mut self, quote: usize) -> Result<bool> {
        let comma = self.scroll_whitespaces(quote + 1)?;
        if !self.is(comma, ',') {
            return Ok(false);
        }
        let next = self.scroll_comment_prefixed_member_start(comma + 1)?;
        self.object_member_starts_at(next)
    }

    fn object_member_starts_at(&mut self, at: usize) -> Result<bool> {
        let Some(c) = self.at(at) else {
            return Ok(false);
        };
        if is_delimiter(c) {
            let end = self.skip_to(&[matching_delimiter(c)], at + 1)?;
            if self.at(end).is_none() {
                return Ok(false);
            }
            let colon = self.scroll_whitespaces(end + 1)?;
            return Ok(self.is(colon, ':'));
        }
        self.bare_key_is_followed_by_colon(at)
    }

    /// Whether a brace before the fence at `fence` belongs to the string that ends with `quote`; and whether a
    /// container comes behind the fence that belongs to it too.
    pub(super) fn brace_before_code_fence_belongs_to_string(
        &mut self,
        quote: Char,
        fence: usize,
    ) -> Result<(bool, bool)> {
        let mut from = fence + 3;
        let next = self.scroll_comment_prefixed_member_start(from)?;
        let mut keep = false;
        if self.at(next).and_then(closing_of).is_some()
            && let Some(end) = self.skip_inline_container(next)?
        {
            if self.post_fence_container_starts_next_member(end)? {
                return Ok((false, false));
            }
            keep = true;
            from = end;
        }
        let mut at = self.skip_to(&[quote], from)?;
        while self.at(at) == Some(quote) {
            let after = self.scroll_whitespaces(at + 1)?;
            if self.at(after).is_none() || self.is_any(after, &[',', '}', ']']) {
                return Ok((true, keep));
            }
            at = self.skip_to(&[quote], at + 1)?;
        }
        Ok((false, false))
    }

    // --- commas in the value of an entry ------------------------------------------------------------------

    pub(super) fn classify_object_value_comma(&mut self, seen: &mut Seen) -> Result<Comma> {
        let mut next = self.scroll_whitespaces(self.index + 1)?;
        let Some(c) = self.at(next) else {
            return Ok(Comma::Member);
        };
        if c == u32::from('}') {
            return Ok(Comma::Member);
        }
        if is_delimiter(c) {
            let end = self.skip_to(&[c], next + 1)?;
            return self.member_if_colon(end);
        }
        if c == u32::from('`') {
            let end = self.bare_key_end(next + 1)?;
            let colon = self.scroll_whitespaces(end)?;
            return Ok(if self.is(colon, ':') {
                Comma::Member
            } else {
                Comma::String
            });
        }
        if is_alnum(c) || c == u32::from('_') {
            let end = self.bare_key_end(next)?;
            let colon = self.scroll_whitespaces(end)?;
            if self.is(colon, ':') && self.bare_member_has_recoverable_value(colon + 1, seen)? {
                return Ok(Comma::Member);
            }
        }
        if self.is_any(next, &['{', '[']) {
            return Ok(Comma::Container);
        }
        let [double, single, open, close] = QUOTES;
        next = self.cached_skip_to(
            &[double, single, open, close, '{' as Char, '[' as Char],
            next,
            seen,
        )?;
        let Some(special) = self.at(next) else {
            return Ok(Comma::StringWithoutEnd);
        };
        if self.is_any(next, &['{', '[']) {
            return Ok(Comma::String);
        }
        let end = self.cached_skip_to(&[special], next + 1, seen)?;
        self.member_if_colon(end)
    }

    fn member_if_colon(&mut self, end: usize) -> Result<Comma> {
        if self.at(end).is_none() {
            return Ok(Comma::String);
        }
        let colon = self.scroll_whitespaces(end + 1)?;
        Ok(if self.is(colon, ':') {
            Comma::Member
        } else {
            Comma::String
        })
    }

    fn bare_member_has_recoverable_value(&mut self, at: usize, seen: &mut Seen) -> Result<bool> {
        let start = self.scroll_whitespaces(at)?;
        let found = self.at(start);
        if found.is_some_and(|c| is_delimiter(c) || is_digit(c))
            || self.is_any(start, &['{', '[', '-'])
        {
            return Ok(true);
        }
        for literal in ["true", "false", "null"] {
            let end = start + literal.len();
            let same = self.slice(start, end).iter().copied();
            if same.eq(literal.bytes().map(u32::from))
                && self
                    .at(end)
                    .is_none_or(|c| is_space(c) || self.is_any(end, &[',', '}', ']']))
            {
                return Ok(true);
            }
        }
        let [double, single, open, close] = QUOTES;
        let end = self.cached_skip_to(&[double, single, open, close, '}' as Char], start, seen)?;
        Ok(self.is(end, '}'))
    }

    /// As `skip_to`, with what is known from before: that may differ where a search begins between backslashes.
    pub(super) fn cached_skip_to(
        &mut self,
        targets: &[Char],
        at: usize,
        seen: &mut Seen,
    ) -> Result<usize> {
        let place = seen.0.iter().position(|known| *known.targets == *targets);
        if let Some(known) = place.map(|place| &seen.0[place]) {
            match known.found {
                None if at >= known.start => return Ok(self.text.len()),
                Some(found) if (known.start..=found).contains(&at) => return Ok(found),
                _ => {}
            }
        }
        let found = self.skip_to(targets, at)?;
        let is_escaped = found > 0 && self.is(found - 1, '\\');
        let search = Search {
            targets: targets.into(),
            start: at,
            found: self.at(found).map(|_| found),
        };
        match place {
            _ if search.found.is_some() && is_escaped => {}
            Some(place) => seen.0[place] = search,
            None => seen.0.push(search),
        }
        Ok(found)
    }

    // --- parentheses --------------------------------------------------------------------------------------

    pub(super) fn parenthesized_is_explicit_tuple(&mut self) -> Result<bool> {
        let mut open = Brackets::default();
        let mut seen_content = false;
        for i in self.index + 1..self.text.len() {
            self.step(4)?;
            let c = self.text[i];
            let outside = open.is_outside();
            match open.read(c) {
                Part::Backslash | Part::Quoted => {}
                Part::Quote => seen_content |= outside,
                Part::Other => {
                    if !is_space(c) && !self.is_any(i, &[',', ')']) && outside {
                        seen_content = true;
                    }
                    match char::from_u32(c) {
                        Some(')') if outside => return Ok(!seen_content),
                        Some(')') if open.parentheses > 0 => open.parentheses -= 1,
                        Some(',') if outside => return Ok(true),
                        _ => {}
                    }
                }
            }
        }
        Ok(!seen_content)
    }

    pub(super) fn top_level_parenthesized_can_start_value(&mut self) -> Result<bool> {
        let mut i = self.index;
        while i > 0 {
            self.step(1)?;
            i -= 1;
            if self.is_any(i, &['\n', '\r']) {
                break;
            }
            if !is_space(self.text[i]) {
                return Ok(false);
            }
        }
        let first = self.scroll_whitespaces(self.index + 1)?;
        let Some(c) = self.at(first) else {
            return Ok(false);
        };
        let word: String = self
            .slice(first, first + 5)
            .iter()
            .map(|&c| lower(c).unwrap_or_default())
            .collect();
        let named = ["true", "null", "none"]
            .iter()
            .any(|name| word.starts_with(name));
        let starts = is_delimiter(c)
            || is_digit(c)
            || self.is_any(first, &[')', '{', '[', '(', '-', '.'])
            || named
            || word == "false";
        if !starts {
            return Ok(false);
        }
        let mut open = Brackets::default();
        for i in self.index + 1..self.text.len() {
            self.step(4)?;
            let c = self.text[i];
            let outside = open.is_outside();
            if open.read(c) == Part::Other && self.is(i, ')') {
                if !outside {
                    open.parentheses -= 1;
                    continue;
                }
                for after in i + 1..self.text.len() {
                    self.step(1)?;
                    if self.is_any(after, &['\n', '\r']) {
                        return Ok(true);
                    }
                    if !is_space(self.text[after]) {
                        return Ok(false);
                    }
                }
                return Ok(true);
            }
        }
        Ok(true)
    }
}

/// What searches from within one string have found: for which characters, from where on, and where.
#[derive(Default)]
pub(super) struct Seen(Vec<Search>);

struct Search {
    targets: Box<[Char]>,
    start: usize,
    found: Option<usize>,
}

/// What a comma in the value of an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comma {
    /// The end of the value: another entry follows.
    Member,
    /// A part of it, and a container follows.
    Container,
    /// A part of it.
    String,
    /// A part of it, and so are all others.
    StringWithoutEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Backslash,
    /// A quote that opens.
    Quote,
    /// What stands between quotes, and the quote that closes.
    Quoted,
    Other,
}

/// What stands open on the way through a text. Parentheses that close are the caller's.
#[derive(Default)]
struct Brackets {
    parentheses: i64,
    square: usize,
    braces: usize,
    quote: Option<Char>,
    escaped: bool,
}

impl Brackets {
    fn is_outside(&self) -> bool {
        self.parentheses == 0 && self.square == 0 && self.braces == 0
    }

    fn read(&mut self, c: Char) -> Part {
        if c == u32::from('\\') {
            self.escaped = !self.escaped;
            return Part::Backslash;
        }
        let escaped = std::mem::take(&mut self.escaped);
        if let Some(quote) = self.quote {
            if c == quote && !escaped {
                self.quote = None;
            }
            return Part::Quoted;
        }
        if is_delimiter(c) && !escaped {
            self.quote = Some(c);
            return Part::Quote;
        }
        match char::from_u32(c) {
            Some('(') => self.parentheses += 1,
            Some('[') => self.square += 1,
            Some(']') => self.square = self.square.saturating_sub(1),
            Some('{') => self.braces += 1,
            Some('}') => self.braces = self.braces.saturating_sub(1),
            _ => {}
        }
        Part::Other
    }
}
