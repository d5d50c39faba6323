//! Where a string ends, and what is in it.
//!
//! The first quote of its kind ends a string for sure if what stands behind it is what stands behind a string:
//! that is the common case, and quick. `json_repair` looks closer where there are escapes or line breaks in it or
//! the quotes are single, and each question that it asks is asked here too; any answer but "it goes on" and "it
//! ends here" leaves the text to `json_repair`.

use std::borrow::Cow;

use super::Parser;
use super::around::comment_end;
use crate::text::{is_space, is_word};

/// What a string is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Context {
    Key,
    Value,
    List,
}

/// A string that was read.
pub(super) struct Text<'a> {
    pub(super) value: Cow<'a, str>,
    /// Where what follows begins.
    pub(super) end: usize,
    /// Whether its end was stripped although it has a quote there.
    pub(super) stripped: bool,
}

/// The string whose quote stands at the parser's place.
pub(super) fn read<'a>(parser: &Parser<'a>, context: Context) -> Option<Text<'a>> {
    let (text, start) = (parser.text, parser.at + 1);
    if text.as_bytes()[parser.at] == b'"'
        && let Some(len) = text[start..].find(['"', '\\', '\n', '\r'])
        && text.as_bytes()[start + len] == b'"'
    {
        let end = start + len + 1;
        let next = text[end..].trim_start_matches(is_space).bytes().next();
        let sure = match context {
            Context::Key => next == Some(b':'),
            Context::Value => matches!(next, None | Some(b',' | b'}')),
            Context::List => matches!(next, None | Some(b',' | b']')),
        };
        if sure {
            return Some(Text {
                value: text[start..end - 1].into(),
                end,
                stripped: false,
            });
        }
    }
    StringParser {
        text,
        quote: char::from(text.as_bytes()[parser.at]),
        context,
        in_list: parser.lists > 0,
        in_value: parser.in_object_value(),
        at: start,
        plain: start,
        value: String::new(),
        braces: 0,
        bracket: false,
        next_quote: 0,
        commas: Commas::Unknown,
    }
    .run()
}

/// A string that needs a closer look.
struct StringParser<'a> {
    text: &'a str,
    quote: char,
    context: Context,
    in_list: bool,
    in_value: bool,
    at: usize,
    /// From here on the text has not joined `value` yet.
    plain: usize,
    value: String,
    /// How many braces are open in the string.
    braces: usize,
    /// Whether a square bracket is.
    bracket: bool,
    /// The next quote of the string's kind, as far as somebody looked for it.
    next_quote: usize,
    commas: Commas,
}

/// What is known of commas in the value of an entry: whether one may end it depends on what comes behind.
#[derive(Clone, Copy)]
enum Commas {
    Unknown,
    /// Those before this place, where something comes that may open a key and does not, are part of the string.
    Kept(usize),
    /// All are: nothing of that kind comes.
    AllKept,
}

impl<'a> StringParser<'a> {
    fn run(mut self) -> Option<Text<'a>> {
        let rest = &self.text[self.at..];
        if rest.starts_with('`') {
            return None;
        }
        if let Some(after) = rest.strip_prefix(self.quote) {
            let sure = match self.context {
                Context::Key => false,
                Context::Value => after.starts_with([',', '}']),
                Context::List => after.starts_with([',', ']']),
            };
            return sure.then(|| Text {
                value: "".into(),
                end: self.at + 1,
                stripped: false,
            });
        }
        loop {
            let Some(c) = self.text[self.at..].chars().next() else {
                return Some(self.cut_off());
            };
            if c == self.quote {
                return self.ends(self.at + 1).then(|| self.text_to(self.at + 1));
            }
            match (c, self.context) {
                ('\\', _) => {
                    self.escape()?;
                    continue;
                }
                ('„', _) | (':', Context::Key) => return None,
                (',', Context::Value) => {
                    self.at = self.after_comma()?;
                    continue;
                }
                ('}', Context::Value) if self.braces == 0 || self.escaped(self.quote) => {
                    return None;
                }
                ('{', Context::Value) if self.escaped('\\') => return None,
                ('{', Context::Value)
                    if is_key(self.text[self.at + 1..].trim_start_matches(is_space)) =>
                {
                    self.at = self.inner_value(self.at)?;
                    continue;
                }
                ('{', _) => self.braces += 1,
                ('}', _) => self.braces = self.braces.saturating_sub(1),
                ('[', _) => self.bracket = true,
                (']', _) => {
                    // In a list it ends the string if no quote comes any more.
                    if self.in_list && self.next_quote <= self.at {
                        self.next_quote = find(self.text, self.at, &[self.quote])?;
                    }
                    self.bracket = false;
                }
                _ => {}
            }
            self.at += c.len_utf8();
        }
    }

    /// Where what looks like an object or a list inside the string ends; it belongs to the string as it is.
    /// Brackets in it have to look like values too.
    fn inner_value(&mut self, start: usize) -> Option<usize> {
        let mut closing = Vec::new();
        for (at, c) in self.text[start..].char_indices() {
            let (before, after) = self.text[start..].split_at(at);
            match c {
                '{' if at == 0 => closing.push('}'),
                '[' => {
                    let opens = before.trim_end_matches(is_space).ends_with([',', ':', '[']);
                    let next = after[1..].trim_start_matches(is_space).chars().next()?;
                    let sure = opens && (next.is_ascii_digit() || matches!(next, '-' | ']' | '['));
                    if at > 0 && !sure {
                        return None;
                    }
                    closing.push(']');
                }
                '{' | '(' | ')' | '"' | '\'' | '“' | '”' | '„' | '\\' => return None,
                ']' | '}' => {
                    if closing.pop() != Some(c) {
                        return None;
                    }
                    self.bracket &= c != ']';
                    if closing.is_empty() {
                        return Some(start + at + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// Whether this character came just before, as an escape: `json_repair` then looks at a brace with other eyes.
    fn escaped(&self, c: char) -> bool {
        self.plain == self.at && self.value.ends_with(c)
    }

    /// What the backslash and the next characters stand for joins the string.
    fn escape(&mut self) -> Option<()> {
        self.value.push_str(&self.text[self.plain..self.at]);
        let rest = &self.text[self.at + 1..];
        let c = rest.chars().next()?;
        let len = match c {
            't' | 'n' | 'r' | 'b' => {
                self.value.push(match c {
                    't' => '\t',
                    'n' => '\n',
                    'r' => '\r',
                    _ => '\u{8}',
                });
                2
            }
            '"' | '\'' => {
                self.value.push(c);
                2
            }
            '\\' => {
                let run = 1 + rest.len() - rest.trim_start_matches('\\').len();
                if run % 2 == 1 || self.text[self.at + run..].starts_with(self.quote) {
                    return None;
                }
                (0..run / 2).for_each(|_| self.value.push('\\'));
                run
            }
            'u' => {
                let digits = rest.get(1..5)?;
                if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return None;
                }
                let found = char::from_u32(u32::from_str_radix(digits, 16).ok()?)?;
                if matches!(found, '{' | '}' | '[' | ']' | '\\') {
                    return None;
                }
                self.value.push(found);
                6
            }
            _ => return None,
        };
        self.at += len;
        self.plain = self.at;
        Some(())
    }

    /// Where to go on behind a comma that is a part of the value, and not followed by the next entry.
    fn after_comma(&mut self) -> Option<usize> {
        let rest = self.text[self.at + 1..].trim_start_matches(is_space);
        let next = self.text.len() - rest.len();
        let c = rest.chars().next()?;
        let on = Some(self.at + 1);
        match c {
            '}' | '`' => return None,
            '{' | '[' => return self.inner_value(next),
            '"' | '\'' | '“' | '”' => {
                return if self.is_key_quote(next, c) { None } else { on };
            }
            _ if is_key(rest) => return None,
            _ => {}
        }
        match self.commas {
            Commas::AllKept => return on,
            Commas::Kept(until) if next <= until => return on,
            _ => {}
        }
        let Some(special) = find(self.text, next, &['"', '\'', '“', '”', '{', '[']) else {
            self.commas = Commas::AllKept;
            return on;
        };
        let found = self.text[special..].chars().next()?;
        if !matches!(found, '{' | '[') && self.is_key_quote(special, found) {
            return None;
        }
        self.commas = Commas::Kept(special);
        on
    }

    /// Whether the quote at `at`, with the next of its kind, encloses a key.
    fn is_key_quote(&self, at: usize, quote: char) -> bool {
        find(self.text, at + quote.len_utf8(), &[quote]).is_some_and(|end| {
            self.text[end + quote.len_utf8()..]
                .trim_start_matches(is_space)
                .starts_with(':')
        })
    }

    /// Whether the string ends with a quote before `end`.
    fn ends(&self, end: usize) -> bool {
        // In what looks like a set of characters a quote is one of them.
        if self.bracket && self.context == Context::Value {
            return false;
        }
        let mut rest = self.text[end..].trim_start_matches(is_space);
        let mut commented = false;
        loop {
            let at = self.text.len() - rest.len();
            let Some(after) = comment_end(self.text, at, &['\n', '\r']) else {
                break;
            };
            let marks = [self.quote, ']', '}', ',', ':'];
            if self.context == Context::Key || self.text[at..after].contains(marks) {
                return false;
            }
            commented = true;
            rest = self.text[after..].trim_start_matches(is_space);
        }
        let Some(next) = rest.chars().next() else {
            return true;
        };
        match self.context {
            Context::Key => next == ':',
            Context::List => match next {
                ',' | ']' => true,
                '}' => self.in_value,
                _ => next == self.quote && !commented,
            },
            Context::Value => match next {
                '}' => true,
                ']' => self.in_list,
                // The next quote may end the string just as well.
                ',' if !commented => {
                    let after = find(self.text, self.text.len() - rest.len() + 1, &[self.quote]);
                    after.is_none_or(|at| {
                        !self.text[at + 1..]
                            .trim_start_matches(is_space)
                            .starts_with([',', '}'])
                    })
                }
                _ => {
                    next == self.quote
                        && !commented
                        && !rest[1..].trim_start_matches(is_space).starts_with(',')
                }
            },
        }
    }

    /// The string without the quote that ends before `end`.
    fn text_to(&mut self, end: usize) -> Text<'a> {
        let mut value = self.value_to(end - 1);
        // After a line break the end of a string is stripped.
        let stripped = value.ends_with('\n');
        if stripped {
            value = strip_end(value);
        }
        Text {
            value,
            end,
            stripped,
        }
    }

    /// The string that the text ends in.
    fn cut_off(&mut self) -> Text<'a> {
        let end = self.text.len();
        let value = strip_end(self.value_to(end));
        Text {
            value,
            end,
            stripped: false,
        }
    }

    fn value_to(&mut self, end: usize) -> Cow<'a, str> {
        if self.value.is_empty() {
            return self.text[self.plain..end].into();
        }
        self.value.push_str(&self.text[self.plain..end]);
        std::mem::take(&mut self.value).into()
    }
}

fn strip_end(value: Cow<'_, str>) -> Cow<'_, str> {
    match value {
        Cow::Borrowed(text) => text.trim_end_matches(is_space).into(),
        Cow::Owned(text) => text.trim_end_matches(is_space).to_owned().into(),
    }
}

/// Whether `text` begins with a word and a colon.
fn is_key(text: &str) -> bool {
    let rest = text.trim_start_matches(|c| is_word(c) || c == '-');
    rest.len() < text.len() && rest.trim_start_matches(is_space).starts_with(':')
}

/// The first of `marks` from `at` on that has no backslash before it, or an even number of them.
fn find(text: &str, mut at: usize, marks: &[char]) -> Option<usize> {
    loop {
        at += text[at..].find(|c| c == '\\' || marks.contains(&c))?;
        let run = text[at..].len() - text[at..].trim_start_matches('\\').len();
        at += run;
        let c = text[at..].chars().next()?;
        if run.is_multiple_of(2) && marks.contains(&c) {
            return Some(at);
        }
        if run > 0 {
            at += c.len_utf8();
        }
    }
}
