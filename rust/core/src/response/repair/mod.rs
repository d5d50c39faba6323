//! JSON that models break in the usual ways, made whole.
//!
//! DSPy asks `json_repair`, a parser with a rule for every mistake and a look ahead through the text for many of
//! them. Here the mistakes are read whose repair does not depend on guesses, and read as `json_repair` reads them:
//! text or a fence around the value, comments, single quotes, line breaks in strings, Python's names of constants,
//! keys without quotes, commas too many or too few, brackets that are closed by the wrong one or not at all, an
//! end that is cut off. Wherever `json_repair` would look further than this does, nothing is given, and it is
//! asked itself.
//!
//! ```text
//! around   what stands before and behind the value, comments        Gap
//! mod      brackets, commas and colons: which token may come next    Parser
//! string   where a string ends, and what is in it                    Text
//! scalar   numbers and words
//! ```

mod around;
mod scalar;
mod string;

use std::borrow::Cow;

use self::around::{Found, skip_blank, skip_prose};
use self::string::Context;
use super::read::RepairCode;
use super::strict;
use super::value::Value;
use crate::text::is_space;

/// What stands open may nest this deep; `json_repair` has a limit of its own.
const MAX_DEPTH: usize = 64;

/// Of an object with more entries than this nobody looks for one that comes twice.
const MAX_SEARCHED: usize = 64;

/// A value that was broken.
#[derive(Clone, Debug, PartialEq)]
pub struct Repaired<'a> {
    /// The list or the object.
    pub value: Value<'a>,
    /// Whether the text ended before the value did.
    pub cut_off: bool,
}

impl Repaired<'_> {
    /// What was done to the text.
    #[must_use]
    pub fn code(&self) -> RepairCode {
        if self.cut_off {
            RepairCode::CutOff
        } else {
            RepairCode::Json
        }
    }
}

/// The value that `json_repair` makes of `text`, if it is a list or an object broken in one of the ways above.
///
/// ```
/// use dspex_core::response::{Value, repair};
///
/// let found = repair("So: [1, True, // and\n 'so on',").unwrap();
/// let so_on = Value::Str("so on".into());
/// assert_eq!(found.value, Value::List(vec![Value::Int(1), Value::Bool(true), so_on]));
/// assert!(found.cut_off);
/// assert_eq!(repair("[one or two]] or [three]"), None);
/// ```
#[must_use]
pub fn repair(text: &str) -> Option<Repaired<'_>> {
    let Found::Value(start) = skip_prose(text, 0) else {
        return None;
    };
    let mut parser = Parser::new(text, start);
    let whole = parser.run();
    let end = parser.at;
    if whole.is_none() || parser.dropped {
        // Behind other text, or before it, `json_repair` takes a value that is strict JSON as it is.
        if let Some((value, length)) = strict::parse_prefix(&text[start..]) {
            let end = start + length;
            let is_alone = start == 0 && text[end..].trim_start_matches(is_space).starts_with(',');
            if !is_alone {
                return is_prose(text, end).then_some(Repaired {
                    value,
                    cut_off: false,
                });
            }
        }
    }
    let whole = whole?;
    // Behind an object and a comma, `json_repair` looks for more entries of it.
    if let Value::Map(_) = whole.value
        && let Some(more) = text[end..].trim_start_matches(is_space).strip_prefix(',')
        && more
            .trim_start_matches(is_space)
            .starts_with(['"', '\'', '“', '”'])
    {
        return None;
    }
    is_prose(text, end).then_some(whole)
}

/// Whether nothing behind `at` opens another value.
fn is_prose(text: &str, at: usize) -> bool {
    matches!(skip_prose(text, at), Found::Nothing)
}

/// A list or an object that is being read.
enum Open<'a> {
    List(Vec<Value<'a>>),
    Object {
        entries: Vec<(Cow<'a, str>, Value<'a>)>,
        key: Cow<'a, str>,
    },
}

/// What came last in the innermost bracket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Opening,
    Comma,
    Key,
    Colon,
    Value,
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    open: Vec<Open<'a>>,
    last: Last,
    /// Where the last value ended.
    value_end: usize,
    /// Where the last bracket was opened.
    opened: usize,
    /// Whether a string was stripped, or something empty left out, that strict JSON keeps.
    dropped: bool,
    /// How many lists and objects are among those that are open.
    lists: usize,
    objects: usize,
}

/// What a step of the parser gives: nothing yet, or the value of it all at its end.
type Step<'a> = Option<Option<Value<'a>>>;

impl<'a> Parser<'a> {
    fn new(text: &'a str, start: usize) -> Self {
        Self {
            text,
            at: start,
            open: Vec::new(),
            last: Last::Opening,
            value_end: start,
            opened: start,
            dropped: false,
            lists: 0,
            objects: 0,
        }
    }

    fn run(&mut self) -> Option<Repaired<'a>> {
        self.push()?;
        loop {
            self.at = skip_blank(self.text, self.at, self.lists > 0, self.in_object_value());
            let Some(&c) = self.text.as_bytes().get(self.at) else {
                let value = self.close_all()?;
                return Some(Repaired {
                    value,
                    cut_off: true,
                });
            };
            let step = match self.open.last()? {
                Open::List(_) => self.in_list(c)?,
                Open::Object { .. } => self.in_object(c)?,
            };
            if let Some(value) = step {
                return Some(Repaired {
                    value,
                    cut_off: false,
                });
            }
        }
    }

    /// Whether what comes next stands in the value of an object's entry, however deep.
    fn in_object_value(&self) -> bool {
        let inner = matches!(self.open.last(), Some(Open::Object { .. }));
        self.objects > usize::from(inner && self.last != Last::Colon)
    }

    fn in_list(&mut self, c: u8) -> Step<'a> {
        match c {
            b',' => {
                self.at += 1;
                self.last = Last::Comma;
                Some(None)
            }
            // A brace closes a list too.
            b']' | b'}' => {
                self.at += 1;
                self.close()
            }
            _ => self.value(c, Context::List),
        }
    }

    fn in_object(&mut self, c: u8) -> Step<'a> {
        match (self.last, c) {
            (Last::Key, b':') => {
                self.at += 1;
                self.last = Last::Colon;
                Some(None)
            }
            // An entry without a value has an empty text.
            (Last::Colon, b',' | b'}') => self.put(Value::Str("".into()), self.at),
            (Last::Colon, _) => self.value(c, Context::Value),
            (Last::Key, _) => None,
            (_, b',') => {
                // A comma alone is no object, whatever it is.
                let Some(Open::Object { entries, .. }) = self.open.last() else {
                    return None;
                };
                if entries.is_empty() {
                    return None;
                }
                self.at += 1;
                self.last = Last::Comma;
                Some(None)
            }
            (_, b'}') => {
                if self.is_commented() {
                    return None;
                }
                self.at += 1;
                self.close()
            }
            // The bracket of a list further out closes the object, if it follows at once.
            (_, b']')
                if self.lists > 0
                    && self.last != Last::Opening
                    && matches!(&self.text[self.value_end..self.at], "" | ",") =>
            {
                self.close()
            }
            _ => self.key(c),
        }
    }

    /// Whether there is a comment and nothing else in the innermost bracket: what that is, takes a guess.
    fn is_commented(&self) -> bool {
        self.last == Last::Opening && self.text[self.opened..self.at].contains(['#', '/'])
    }

    fn key(&mut self, c: u8) -> Step<'a> {
        // Without a comma the last value has to end before something that is no quote.
        if self.last == Last::Value && self.value_end == self.at {
            return None;
        }
        let quoted = matches!(c, b'"' | b'\'');
        let after_comma = self.text[..self.at]
            .trim_end_matches(is_space)
            .ends_with(',');
        let key = if quoted {
            let text = string::read(self, Context::Key)?;
            self.at = text.end;
            text.value
        } else {
            let key = scalar::key(&self.text[self.at..])?;
            self.at += key.len();
            key.into()
        };
        let in_list = matches!(self.open.iter().nth_back(1), Some(Open::List(_)));
        let colon = self.text[self.at..]
            .trim_start_matches(is_space)
            .starts_with(':');
        let Some(Open::Object { entries, key: slot }) = self.open.last_mut() else {
            return None;
        };
        // In a list, an entry that comes twice may begin the next object.
        if in_list && !(quoted && after_comma && colon) {
            let again = entries.iter().any(|(known, _)| *known == key);
            if again || entries.len() > MAX_SEARCHED {
                return None;
            }
        }
        *slot = key;
        self.last = Last::Key;
        Some(None)
    }

    /// A value, which may come here.
    fn value(&mut self, c: u8, context: Context) -> Step<'a> {
        match c {
            b'{' | b'[' => {
                self.push()?;
                Some(None)
            }
            b'"' | b'\'' => {
                let text = string::read(self, context)?;
                self.dropped |= text.stripped;
                self.put(Value::Str(text.value), text.end)
            }
            _ => {
                let (value, len) = scalar::value(&self.text[self.at..], context)?;
                self.put(value, self.at + len)
            }
        }
    }

    /// Open a bracket.
    fn push(&mut self) -> Option<()> {
        if self.open.len() == MAX_DEPTH {
            return None;
        }
        if self.text.as_bytes()[self.at] == b'[' {
            self.lists += 1;
            self.open.push(Open::List(Vec::new()));
        } else {
            self.objects += 1;
            self.open.push(Open::Object {
                entries: Vec::new(),
                key: "".into(),
            });
        }
        self.at += 1;
        self.opened = self.at;
        self.last = Last::Opening;
        Some(())
    }

    /// Take the innermost bracket off.
    fn pop(&mut self) -> Option<Value<'a>> {
        Some(match self.open.pop()? {
            Open::List(items) => {
                self.lists -= 1;
                Value::List(items)
            }
            Open::Object { entries, .. } => {
                self.objects -= 1;
                Value::Map(entries)
            }
        })
    }

    /// The innermost bracket is closed, before `at`.
    fn close(&mut self) -> Step<'a> {
        let value = self.pop()?;
        match self.open.last() {
            None => return Some(Some(value)),
            // A brace too many behind an object in a list.
            Some(Open::List(_))
                if matches!(value, Value::Map(_))
                    && self.text.as_bytes().get(self.at) == Some(&b'}') =>
            {
                self.at += 1;
            }
            Some(_) => {}
        }
        self.put(value, self.at)
    }

    /// A value that ends before `end` joins the innermost bracket.
    fn put(&mut self, value: Value<'a>, end: usize) -> Step<'a> {
        let next = self.text.as_bytes().get(end);
        match self.open.last_mut()? {
            // What is empty is dropped from a list, and what follows with it, but before a comma or the bracket.
            Open::List(_) if is_empty(&value) && !matches!(next, Some(b',' | b']')) => match next {
                None | Some(b' ' | b'\n' | b'\t' | b'\r') => self.dropped = true,
                Some(_) => return None,
            },
            Open::List(items) => items.push(value),
            // A quote at once behind a value is passed over.
            Open::Object { .. } if matches!(next, Some(b'"' | b'\'')) => return None,
            Open::Object { entries, key } => entries.push((std::mem::take(key), value)),
        }
        self.at = end;
        self.value_end = end;
        self.last = Last::Value;
        Some(None)
    }

    /// Close what is open at the end of a text that was cut off.
    fn close_all(&mut self) -> Option<Value<'a>> {
        if let Some(Open::Object { entries, key }) = self.open.last_mut() {
            match self.last {
                // A key without a value is dropped; a key alone is taken for an item of a list.
                Last::Key if entries.is_empty() => return None,
                Last::Opening if self.text[self.opened..].contains(['#', '/']) => return None,
                Last::Colon => entries.push((std::mem::take(key), Value::Str("".into()))),
                _ => {}
            }
        }
        loop {
            let value = self.pop()?;
            match self.open.last_mut() {
                None => return Some(value),
                Some(Open::List(_)) if is_empty(&value) => {}
                Some(Open::List(items)) => items.push(value),
                Some(Open::Object { entries, key }) => entries.push((std::mem::take(key), value)),
            }
        }
    }
}

fn is_empty(value: &Value<'_>) -> bool {
    match value {
        Value::Str(text) => text.is_empty(),
        Value::List(items) => items.is_empty(),
        Value::Map(entries) => entries.is_empty(),
        _ => false,
    }
}
