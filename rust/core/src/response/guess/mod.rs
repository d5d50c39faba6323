//! Broken JSON whose repair takes guesses, made whole as `json_repair` makes it.
//!
//! DSPy asks `json_repair`, a parser with a rule for every mistake and a look ahead through the text for many of
//! them. [`repair`](super::repair) reads the breaks that take no guess. This module has the rules for all others:
//! those of `json_repair` [`RULES`], function by function and under the same names, so that a new version of it
//! can be followed line by line; `tests/parity/test_json_repair.py` holds both against each other.
//!
//! Many of the rules look through the whole rest of the text, and some do so at every character, so time grows
//! with the square of the text, or faster. Each turn of a loop therefore takes a step of a budget, which is in
//! proportion to the text ([`budget`]); a text that needs more is [`Refusal::TooCostly`]. The steps are counted, not
//! timed: the same text has the same outcome everywhere.
//!
//! ```text
//! mod        values, lists, numbers, comments, parentheses
//! object     objects, their keys, what looks like none
//! string     where a string ends
//! lookahead  the questions that strings ask about what comes
//! strict     JSON without mistakes, as Python's own parser reads it
//! chars      code points, halves of surrogate pairs among them, and what Python says of them
//! ```

mod chars;
mod lookahead;
mod object;
mod strict;
mod string;

use std::collections::HashMap;

pub use self::chars::Char;
use self::chars::{is_alpha, is_delimiter, is_digit, is_space};

/// The version of `json_repair` whose rules these are.
pub const RULES: &str = "0.64.6";

/// Steps that any text may take.
const LEAST_STEPS: u64 = 1_000_000;

/// Steps that a text may take for each of its characters.
const STEPS_PER_CHAR: u64 = 500;

/// What may stand open at once, in the frames that `json_repair` has for it: three for a list and four for an
/// object. It has a thousand, less those of its caller.
const MAX_FRAMES: usize = 960;

/// A text, in code points. Those of halves of surrogate pairs, which an escape in JSON can stand for and a `str`
/// of Python's can hold, are among them.
pub type Text = Vec<Char>;

/// A value, of anything that Python can hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Guess {
    /// `None`
    None,
    /// `True` or `False`
    Bool(bool),
    /// An integer of 64 bits.
    Int(i64),
    /// The digits of a longer one.
    Long(String),
    /// A float.
    Float(f64),
    /// A string.
    Str(Text),
    /// A list.
    List(Vec<Guess>),
    /// A dict, each key once.
    Map(Vec<(Text, Guess)>),
}

impl Guess {
    fn empty() -> Self {
        Self::Str(Text::new())
    }

    /// Whether Python's `if` takes it.
    fn is_true(&self) -> bool {
        match self {
            Self::None => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Long(_) => true,
            Self::Float(value) => *value != 0.0,
            Self::Str(text) => !text.is_empty(),
            Self::List(items) => !items.is_empty(),
            Self::Map(entries) => !entries.is_empty(),
        }
    }

    /// Whether it is a text, a list or a dict without anything in it.
    fn is_empty(&self) -> bool {
        matches!(self, Self::Str(_) | Self::List(_) | Self::Map(_)) && !self.is_true()
    }

    fn is_container(&self) -> bool {
        matches!(self, Self::List(_) | Self::Map(_))
    }
}

/// Why there is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It would take more steps than the text is allowed.
    TooCostly,
    /// It nests too deep.
    TooDeep,
    /// `json_repair` raises an error of another kind.
    Invalid,
}

type Result<T> = std::result::Result<T, Refusal>;

/// The steps that a text of so many characters may take.
#[must_use]
pub fn budget(chars: usize) -> u64 {
    LEAST_STEPS.saturating_add(STEPS_PER_CHAR.saturating_mul(chars as u64))
}

/// What `json_repair` makes of a text that is no JSON, and the steps it took.
///
/// ```
/// use dspex_core::response::{Guess, Refusal, guess};
///
/// let text = |text: &str| text.chars().map(u32::from).collect::<Vec<_>>();
/// let (found, steps) = guess(text(r#"["so "they" say", 1"#));
/// assert_eq!(found, Ok(Guess::List(vec![Guess::Str(text(r#"so "they" say"#)), Guess::Int(1)])));
/// assert!(steps < 1_000);
/// assert_eq!(guess(text(&"{".repeat(1_000))).0, Err(Refusal::TooDeep));
/// ```
pub fn guess(text: Text) -> (std::result::Result<Guess, Refusal>, u64) {
    let steps = budget(text.len());
    let mut parser = Parser::new(text, steps);
    let found = parser.parse();
    (found, steps - parser.steps)
}

/// What is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Context {
    Key,
    Value,
    Array,
}

/// A dict in the making.
#[derive(Default)]
struct Object {
    entries: Vec<(Text, Guess)>,
    places: HashMap<Text, usize>,
}

impl Object {
    fn insert(&mut self, key: Text, value: Guess) {
        if let Some(&at) = self.places.get(&key) {
            self.entries[at].1 = value;
        } else {
            self.places.insert(key.clone(), self.entries.len());
            self.entries.push((key, value));
        }
    }

    fn contains(&self, key: &Text) -> bool {
        self.places.contains_key(key)
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

struct Parser {
    text: Text,
    /// The character that is looked at; it may lie behind the end.
    index: usize,
    context: Vec<Context>,
    /// How often each is in `context`.
    depth: [usize; 3],
    deferred: Vec<Context>,
    tried_suffix: bool,
    frames: usize,
    /// The steps that are left.
    steps: u64,
}

impl Parser {
    fn new(text: Text, steps: u64) -> Self {
        Self {
            text,
            index: 0,
            context: Vec::new(),
            depth: [0; 3],
            deferred: Vec::new(),
            tried_suffix: false,
            frames: 0,
            steps,
        }
    }

    // --- the budget ---------------------------------------------------------------------------------------

    /// Take steps: one for each turn of a loop.
    fn step(&mut self, count: usize) -> Result<()> {
        let left = self.steps.checked_sub(count as u64);
        self.steps = left.unwrap_or(0);
        left.map(drop).ok_or(Refusal::TooCostly)
    }

    /// Run something that stands on the stack, and on Python's with so many frames.
    fn nested<T>(&mut self, frames: usize, run: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.frames += frames;
        if self.frames > MAX_FRAMES {
            return Err(Refusal::TooDeep);
        }
        let found = run(self);
        self.frames -= frames;
        found
    }

    // --- the text -----------------------------------------------------------------------------------------

    fn at(&self, index: usize) -> Option<Char> {
        self.text.get(index).copied()
    }

    /// `get_char_at()`
    fn char(&self) -> Option<Char> {
        self.at(self.index)
    }

    fn is(&self, index: usize, c: char) -> bool {
        self.at(index) == Some(u32::from(c))
    }

    fn is_any(&self, index: usize, chars: &[char]) -> bool {
        self.at(index)
            .is_some_and(|found| chars.iter().any(|&c| u32::from(c) == found))
    }

    /// The character before one; before the first there is the last, as Python counts.
    fn before(&self, index: usize) -> Option<Char> {
        match index.checked_sub(1) {
            Some(before) => self.at(before),
            None => self.text.last().copied(),
        }
    }

    fn slice(&self, start: usize, end: usize) -> &[Char] {
        let end = end.min(self.text.len());
        &self.text[start.min(end)..end]
    }

    // --- what is around -----------------------------------------------------------------------------------

    fn current(&self) -> Option<Context> {
        self.context.last().copied()
    }

    fn is_in(&self, context: Context) -> bool {
        self.current() == Some(context)
    }

    /// Whether it is in there, however deep.
    fn is_within(&self, context: Context) -> bool {
        self.depth[context as usize] > 0
    }

    fn enter(&mut self, context: Context) {
        self.context.push(context);
        self.depth[context as usize] += 1;
    }

    fn leave(&mut self) {
        if let Some(context) = self.context.pop() {
            self.depth[context as usize] -= 1;
        }
    }

    // --- values -------------------------------------------------------------------------------------------

    fn parse(&mut self) -> Result<Guess> {
        let first = self.parse_json()?;
        if self.index >= self.text.len() {
            return Ok(first);
        }
        let mut found = vec![first];
        while self.index < self.text.len() {
            self.step(1)?;
            self.context.clear();
            self.depth = [0; 3];
            self.deferred.clear();
            let after_comma = self.next_top_level_value_is_comma_separated()?;
            let value = self.parse_json()?;
            if !value.is_true() {
                self.index += 1;
                continue;
            }
            if let Some(last) = found.last() {
                let same = !after_comma && is_same_object(&mut self.steps, last, &value)?;
                if same || !last.is_true() {
                    found.pop();
                }
            }
            found.push(value);
        }
        Ok(if found.len() == 1 {
            found.remove(0)
        } else {
            Guess::List(found)
        })
    }

    fn next_top_level_value_is_comma_separated(&mut self) -> Result<bool> {
        let after = self.scroll_whitespaces(self.index)?;
        if self.is(after, ',') {
            return Ok(true);
        }
        let mut index = self.index;
        while index > 0 && self.at(index - 1).is_some_and(is_space) {
            self.step(1)?;
            index -= 1;
        }
        Ok(index > 0 && self.is(index - 1, ','))
    }

    fn parse_json(&mut self) -> Result<Guess> {
        self.nested(1, Self::parse_json_here)
    }

    fn parse_json_here(&mut self) -> Result<Guess> {
        if !self.deferred.is_empty() {
            let deferred = std::mem::take(&mut self.deferred);
            for &context in &deferred {
                self.enter(context);
            }
            let value = self.parse_json()?;
            for _ in deferred {
                self.leave();
            }
            return Ok(value);
        }
        let mut check_initial_quote = self.index == 0 && self.context.is_empty();
        loop {
            self.step(1)?;
            let Some(c) = self.char() else {
                return Ok(Guess::empty());
            };
            let inside = !self.context.is_empty();
            if (c == u32::from('{') || c == u32::from('['))
                && !inside
                && !self.tried_suffix
                && self.initial_container_has_non_comma_trailing_content()?
            {
                self.tried_suffix = true;
                if let Some((value, end)) = strict::decode(self, self.index)? {
                    self.index = end;
                    return Ok(value);
                }
            }
            match char::from_u32(c) {
                Some('{') => {
                    self.index += 1;
                    return self.parse_object();
                }
                Some('[') => {
                    self.index += 1;
                    return Ok(Guess::List(self.parse_array(']')?));
                }
                Some('(') => {
                    if inside || self.top_level_parenthesized_can_start_value()? {
                        return self.parse_parenthesized();
                    }
                    self.index += 1;
                    continue;
                }
                _ => {}
            }
            if inside && (is_delimiter(c) || is_alpha(c)) {
                return self.parse_string();
            }
            if inside && (is_digit(c) || c == u32::from('-') || c == u32::from('.')) {
                return self.parse_number();
            }
            if c == u32::from('#') || c == u32::from('/') {
                return self.parse_comment();
            }
            if is_delimiter(c) && check_initial_quote {
                check_initial_quote = false;
                if let Some(value) = self.try_parse_missing_opening_object(c)? {
                    return Ok(value);
                }
            }
            self.index += 1;
        }
    }

    fn initial_container_has_non_comma_trailing_content(&mut self) -> Result<bool> {
        if self.index != 0 {
            return Ok(true);
        }
        let mut containers = Vec::new();
        let (mut in_string, mut escaped) = (false, false);
        for index in 0..self.text.len() {
            self.step(1)?;
            let c = char::from_u32(self.text[index]);
            if in_string {
                if escaped {
                    escaped = false;
                } else if c == Some('\\') {
                    escaped = true;
                } else if c == Some('"') {
                    in_string = false;
                }
                continue;
            }
            match c {
                Some('"') => in_string = true,
                Some('{') => containers.push('}'),
                Some('[') => containers.push(']'),
                Some(closing @ ('}' | ']')) => {
                    if containers.pop() != Some(closing) {
                        return Ok(false);
                    }
                    if containers.is_empty() {
                        let after = self.scroll_whitespaces(index + 1)?;
                        return Ok(after < self.text.len() && !self.is(after, ','));
                    }
                }
                _ => {}
            }
        }
        Ok(false)
    }

    fn try_parse_missing_opening_object(&mut self, delimiter: Char) -> Result<Option<Guess>> {
        if self.scroll_whitespaces(0)? != self.index {
            return Ok(None);
        }
        let close = self.skip_to(&[delimiter], self.index + 1)?;
        if self.at(close).is_none() {
            return Ok(None);
        }
        let colon = self.scroll_whitespaces(close + 1)?;
        let mut last = self.text.len();
        while last > 0 && is_space(self.text[last - 1]) {
            self.step(1)?;
            last -= 1;
        }
        if !self.is(colon, ':') || last == 0 || !self.is(last - 1, '}') {
            return Ok(None);
        }
        // One brace before it all must be all that is missing.
        let length = self.text.len();
        self.step(length)?;
        self.text.insert(0, u32::from('{'));
        let found = strict::decode(self, 0);
        let value = match found {
            Ok(Some((value, end))) => {
                let rest = &self.text[end..];
                let blank = |&c: &Char| matches!(char::from_u32(c), Some(' ' | '\t' | '\r' | '\n'));
                rest.iter().all(blank).then_some(value)
            }
            Ok(None) | Err(Refusal::Invalid) => None,
            Err(refusal) => return Err(refusal),
        };
        self.text.remove(0);
        if value.is_some() {
            self.index = self.text.len();
        }
        Ok(value)
    }

    // --- lists --------------------------------------------------------------------------------------------

    fn parse_array(&mut self, closing: char) -> Result<Vec<Guess>> {
        self.nested(2, |parser| parser.parse_array_here(closing))
    }

    fn parse_array_here(&mut self, closing: char) -> Result<Vec<Guess>> {
        let is_object_value = self.is_in(Context::Value);
        let mut closed_before_member = false;
        let mut items: Vec<Guess> = Vec::new();
        self.enter(Context::Array);
        loop {
            self.step(1)?;
            self.skip_whitespace_and_comments()?;
            let Some(c) = self.char() else { break };
            if c == u32::from(closing) || c == u32::from('}') {
                break;
            }
            if c == u32::from(',') {
                self.index += 1;
                continue;
            }
            let value = if is_delimiter(c) {
                // A string and a colon: an object whose brace is missing.
                let end = self.skip_to(&[c], self.index + 1)?;
                let colon = self.scroll_whitespaces(end + 1)?;
                if self.is(colon, ':') {
                    if is_object_value && !items.is_empty() {
                        self.step(items.len())?;
                        if !items.iter().any(Guess::is_container) {
                            closed_before_member = true;
                            break;
                        }
                    }
                    self.parse_object()?
                } else {
                    self.parse_string()?
                }
            } else {
                self.parse_json()?
            };
            if value.is_empty() && !self.is_any(self.index, &[closing, ',']) {
                self.index += 1;
            } else if !(is_dots(&value) && self.before(self.index) == Some(u32::from('.'))) {
                items.push(value);
            }
        }
        self.leave();
        if !closed_before_member {
            self.index += 1;
        }
        Ok(items)
    }

    // --- numbers and comments -----------------------------------------------------------------------------

    fn parse_number(&mut self) -> Result<Guess> {
        let start = self.index;
        let in_list = self.is_in(Context::Array);
        let mut number = String::new();
        while let Some(c) = self.char().and_then(char::from_u32) {
            self.step(1)?;
            let is_part = matches!(c, '0'..='9' | '-' | '.' | 'e' | 'E' | '/' | ',' | '_')
                || (c == '+' && number.ends_with(['e', 'E']));
            if !is_part || (in_list && c == ',') {
                break;
            }
            if c != '_' {
                number.push(c);
            }
            self.index += 1;
        }
        if self.char().is_some_and(is_alpha) {
            self.index = start;
            return self.parse_string();
        }
        if number.ends_with(['+', '-', 'e', 'E', '/', ',']) {
            number.pop();
            self.index -= 1;
        }
        Ok(number_of(number))
    }

    fn parse_comment(&mut self) -> Result<Guess> {
        self.nested(2, |parser| {
            loop {
                parser.step(1)?;
                parser.skip_comment()?;
                if !parser.context.is_empty() {
                    return Ok(Guess::empty());
                }
                parser.index = parser.scroll_whitespaces(parser.index)?;
                if !parser.is_any(parser.index, &['#', '/']) {
                    return parser.parse_json();
                }
            }
        })
    }

    fn skip_comment(&mut self) -> Result<()> {
        let hash = self.is(self.index, '#');
        if hash || (self.is(self.index, '/') && self.is(self.index + 1, '/')) {
            let (list, value, key) = (
                self.is_within(Context::Array),
                self.is_within(Context::Value),
                self.is_within(Context::Key),
            );
            while let Some(c) = self.char() {
                self.step(1)?;
                match char::from_u32(c) {
                    Some('\n' | '\r') => break,
                    Some(']') if hash && list => break,
                    Some('}') if hash && value => break,
                    Some(':') if hash && key => break,
                    _ => self.index += 1,
                }
            }
        } else if self.is(self.index, '/') && self.is(self.index + 1, '*') {
            self.index += 2;
            while self.char().is_some() {
                self.step(1)?;
                self.index += 1;
                // The asterisk that opens it may close it too.
                if self.is(self.index - 1, '/') && self.is(self.index - 2, '*') {
                    break;
                }
            }
        } else if self.is(self.index, '/') {
            self.index += 1;
        }
        Ok(())
    }

    fn skip_whitespace_and_comments(&mut self) -> Result<()> {
        loop {
            self.step(1)?;
            self.index = self.scroll_whitespaces(self.index)?;
            let comment = self.is(self.index, '#')
                || (self.is(self.index, '/') && self.is_any(self.index + 1, &['/', '*']));
            if !comment {
                return Ok(());
            }
            self.skip_comment()?;
        }
    }

    // --- parentheses --------------------------------------------------------------------------------------

    fn parse_parenthesized(&mut self) -> Result<Guess> {
        self.nested(1, |parser| {
            let is_tuple = parser.parenthesized_is_explicit_tuple()?;
            parser.index += 1;
            let mut values = parser.parse_array(')')?;
            Ok(if is_tuple || values.len() != 1 {
                Guess::List(values)
            } else {
                values.remove(0)
            })
        })
    }
}

/// Whether two values have the same shape.
fn is_same_object(steps: &mut u64, one: &Guess, other: &Guess) -> Result<bool> {
    *steps = steps.checked_sub(1).ok_or(Refusal::TooCostly)?;
    Ok(match (one, other) {
        (Guess::None, Guess::None)
        | (Guess::Bool(_), Guess::Bool(_))
        | (Guess::Int(_) | Guess::Long(_), Guess::Int(_) | Guess::Long(_))
        | (Guess::Float(_), Guess::Float(_))
        | (Guess::Str(_), Guess::Str(_)) => true,
        (Guess::List(one), Guess::List(other)) => {
            if one.len() != other.len() {
                return Ok(false);
            }
            for (one, other) in one.iter().zip(other) {
                if !is_same_object(steps, one, other)? {
                    return Ok(false);
                }
            }
            true
        }
        (Guess::Map(one), Guess::Map(other)) => {
            if one.len() != other.len() {
                return Ok(false);
            }
            *steps = steps
                .checked_sub(other.len() as u64)
                .ok_or(Refusal::TooCostly)?;
            let others: HashMap<&Text, &Guess> =
                other.iter().map(|(key, value)| (key, value)).collect();
            for (key, value) in one {
                match others.get(key) {
                    Some(other) if is_same_object(steps, value, other)? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        _ => false,
    })
}

fn is_dots(value: &Guess) -> bool {
    matches!(value, Guess::Str(text) if **text == [u32::from('.'); 3])
}

/// A number from characters that numbers are made of; the text where it is none.
fn number_of(number: String) -> Guess {
    /// Python refuses to read more digits than this.
    const MAX_DIGITS: usize = 4300;
    let digits = number.strip_prefix('-').unwrap_or(&number);
    if number.contains(',') {
    } else if number.contains(['.', 'e', 'E']) {
        if let Ok(value) = number.parse() {
            return Guess::Float(value);
        }
    } else if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        if let Ok(value) = number.parse() {
            return Guess::Int(value);
        }
        if digits.len() <= MAX_DIGITS {
            return Guess::Long(number);
        }
    }
    Guess::Str(number.chars().map(u32::from).collect())
}
