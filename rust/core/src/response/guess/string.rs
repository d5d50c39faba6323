//! Strings: where they end is the question that most guesses are about.

use super::chars::{is_alnum, is_alpha, is_delimiter, is_space, lower};
use super::lookahead::{Comma, Seen, closing_of};
use super::{Char, Context, Guess, Parser, Result, Text};

const BACKSLASH: Char = '\\' as Char;
const LOW_QUOTE: Char = '„' as Char;

/// Stands for the quote that closes what `„` opened.
const LOW_SMART_QUOTE: Char = 0;

/// `StringParseState`
#[allow(clippy::struct_excessive_bools)] // as `json_repair` has it
struct State {
    missing_quotes: bool,
    doubled_quotes: bool,
    left: Char,
    /// The quotes that would end the string and what is quoted in it, the innermost last.
    right: Vec<Char>,
    text: Text,
    unmatched_delimiter: bool,
    pending_inline_container: bool,
    inline_containers: Vec<Char>,
    no_future_delimiter: bool,
    seen: Seen,
    unmatched_opening_braces: usize,
    character_class: Option<usize>,
}

impl State {
    fn outer(&self) -> Char {
        self.right[0]
    }

    fn active(&self) -> Char {
        self.right[self.right.len() - 1]
    }

    fn in_low_quotes(&self) -> bool {
        self.active() == LOW_SMART_QUOTE
    }

    fn ends_with(&self, c: Char) -> bool {
        self.text.last() == Some(&c)
    }

    fn append(&mut self, c: Char) {
        self.text.push(c);
        match char::from_u32(c) {
            Some('{') => self.unmatched_opening_braces += 1,
            Some('}') => {
                self.unmatched_opening_braces = self.unmatched_opening_braces.saturating_sub(1);
            }
            Some('[') => self.character_class = Some(self.text.len()),
            Some(']') => self.character_class = None,
            _ => {}
        }
    }

    fn replace_trailing_backslash(&mut self, c: Char) {
        self.text.pop();
        self.append(c);
    }

    fn strip_end(&mut self) {
        while self.text.last().is_some_and(|&c| is_space(c)) {
            self.text.pop();
        }
    }
}

enum Entry {
    Direct(Guess),
    String(Box<State>),
}

/// What became of a quote that may end a string: it is part of it, and the character that comes; or it is not, and
/// whether the string ends before it.
enum Candidate {
    Kept(Option<Char>),
    Left(Option<Char>, bool),
}

impl Parser {
    pub(super) fn parse_string(&mut self) -> Result<Guess> {
        self.nested(2, |parser| match parser.prepare_string_entry()? {
            Entry::Direct(value) => Ok(value),
            Entry::String(mut state) => {
                let char = parser.scan_string_body(&mut state)?;
                Ok(Guess::Str(parser.finalize_string_result(*state, char)?))
            }
        })
    }

    fn try_parse_simple_quoted_string(&mut self) -> Result<Option<Text>> {
        if !self.is(self.index, '"') {
            return Ok(None);
        }
        let start = self.index + 1;
        let marks = ['"', '\\', '\n', '\r'].map(u32::from);
        let length = self.text[start..].iter().position(|c| marks.contains(c));
        let Some(length) = length else {
            self.step(self.text.len() - start)?;
            return Ok(None);
        };
        self.step(length)?;
        let end = start + length;
        if !self.is(end, '"') {
            return Ok(None);
        }
        let next = self.scroll_whitespaces(end + 1)?;
        let at_end = self.at(next).is_none();
        let sure = match self.current() {
            Some(Context::Key) => self.is(next, ':'),
            Some(Context::Value) => at_end || self.is_any(next, &[',', '}']),
            Some(Context::Array) => at_end || self.is_any(next, &[',', ']']),
            None => at_end,
        };
        if !sure {
            return Ok(None);
        }
        self.index = end + 1;
        Ok(Some(self.text[start..end].to_vec()))
    }

    fn prepare_string_entry(&mut self) -> Result<Entry> {
        if self.is_any(self.index, &['#', '/']) {
            return Ok(Entry::Direct(self.parse_comment()?));
        }
        while self
            .char()
            .is_some_and(|c| !is_delimiter(c) && !is_alnum(c))
        {
            self.step(1)?;
            self.index += 1;
        }
        let Some(c) = self.char() else {
            return Ok(Entry::Direct(Guess::empty()));
        };
        if let Some(text) = self.try_parse_simple_quoted_string()? {
            return Ok(Entry::Direct(Guess::Str(text)));
        }
        let (mut left, mut right) = ('"', '"');
        let mut missing_quotes = false;
        match char::from_u32(c) {
            Some('\'') => (left, right) = ('\'', '\''),
            Some('“') => (left, right) = ('“', '”'),
            _ if is_alnum(c) => {
                if !self.is_in(Context::Key)
                    && let Some(value) = self.parse_boolean_or_null()
                {
                    return Ok(Entry::Direct(value));
                }
                missing_quotes = true;
            }
            _ => {}
        }
        let mut state = Box::new(State {
            missing_quotes,
            doubled_quotes: false,
            left: left.into(),
            right: vec![right.into()],
            text: Text::new(),
            unmatched_delimiter: false,
            pending_inline_container: false,
            inline_containers: Vec::new(),
            no_future_delimiter: false,
            seen: Seen::default(),
            unmatched_opening_braces: 0,
            character_class: None,
        });
        if !missing_quotes {
            self.index += 1;
        }
        if self.is(self.index, '`')
            && let Some(value) = self.parse_json_llm_block()?
        {
            return Ok(Entry::Direct(value));
        }
        if self.char() == Some(state.left)
            && let Some(value) = self.doubled_quote(&mut state)?
        {
            return Ok(Entry::Direct(value));
        }
        Ok(Entry::String(state))
    }

    /// Two quotes at the beginning: a value where they are all there is, none where the string goes on.
    fn doubled_quote(&mut self, state: &mut State) -> Result<Option<Guess>> {
        let (index, right) = (self.index, state.outer());
        let is_over = match self.current() {
            Some(Context::Key) => self.is(index + 1, ':'),
            Some(Context::Value) => self.is_any(index + 1, &[',', '}']),
            Some(Context::Array) => self.is_any(index + 1, &[',', ']']),
            None => false,
        };
        if is_over {
            self.index += 1;
            return Ok(Some(Guess::empty()));
        }
        if self.at(index + 1) == Some(state.left) {
            return Ok(Some(Guess::empty()));
        }
        let close = self.skip_to(&[right], index + 1)?;
        if self.at(close + 1) == Some(right) {
            state.doubled_quotes = true;
            self.index += 1;
            return Ok(None);
        }
        if self.at(close) == Some(right) {
            let outer = self.skip_to(&[right], close + 1)?;
            let after = self.scroll_whitespaces(outer + 1)?;
            if self.is_in(Context::Value)
                && !self.only_whitespace_until(close)?
                && self.at(outer) == Some(right)
                && (self.at(after).is_none() || self.is_any(after, &[',', '}']))
            {
                state.append(state.left);
                state.unmatched_delimiter = true;
                self.index += 1;
                return Ok(None);
            }
        }
        let next = self.scroll_whitespaces(index + 1)?;
        if self.at(next).is_some_and(is_delimiter) || self.is_any(next, &['{', '[']) {
            self.index += 1;
            return Ok(Some(Guess::empty()));
        }
        if !self.is_any(next, &[',', ']', '}']) {
            self.index += 1;
        }
        Ok(None)
    }

    fn parse_boolean_or_null(&mut self) -> Option<Guess> {
        let literals = [
            ("true", Guess::Bool(true)),
            ("false", Guess::Bool(false)),
            ("null", Guess::None),
            ("none", Guess::None),
        ];
        literals.into_iter().find_map(|(literal, value)| {
            let end = self.index + literal.len();
            let found = self.slice(self.index, end).iter().copied().map(lower);
            let is_over = self
                .at(end)
                .is_none_or(|c| is_space(c) || self.is_any(end, &[',', ')', ']', '}']));
            if !is_over || !found.eq(literal.chars().map(Some)) {
                return None;
            }
            self.index = end;
            Some(value)
        })
    }

    fn parse_json_llm_block(&mut self) -> Result<Option<Guess>> {
        let fence = "```json".bytes().map(u32::from);
        if !self
            .slice(self.index, self.index + 7)
            .iter()
            .copied()
            .eq(fence)
        {
            return Ok(None);
        }
        let close = self.skip_to(&[u32::from('`')], self.index + 7)?;
        if self.slice(close, close + 3) != [u32::from('`'); 3] {
            return Ok(None);
        }
        self.index += 7;
        let value = self.nested(1, Self::parse_json)?;
        Ok((value != Guess::Bool(false)).then_some(value))
    }

    fn append_literal(&mut self, state: &mut State, c: Char) -> Option<Char> {
        state.append(c);
        self.index += 1;
        self.char()
    }

    #[allow(clippy::too_many_lines)] // one loop, as `json_repair` has it
    fn scan_string_body(&mut self, state: &mut State) -> Result<Option<Char>> {
        let outer = state.outer();
        let mut char = self.char();
        while let Some(c) = char {
            if c == outer && !state.in_low_quotes() {
                break;
            }
            self.step(1)?;
            let context = self.current();
            let in_value = context == Some(Context::Value);
            if state.missing_quotes {
                let ends = match context {
                    Some(Context::Key) => c == u32::from(':') || is_space(c),
                    Some(Context::Array) => c == u32::from(']') || c == u32::from(','),
                    _ => false,
                };
                if ends {
                    break;
                }
            }
            if c == LOW_QUOTE && !state.ends_with(BACKSLASH) {
                state.right.push(LOW_SMART_QUOTE);
                char = self.append_literal(state, c);
                continue;
            }
            if state.in_low_quotes() && c == u32::from('”') {
                state.right.pop();
                char = self.append_literal(state, c);
                continue;
            }
            if closing_of(c).is_some()
                && !state.ends_with(BACKSLASH)
                && (state.pending_inline_container || self.opens_inline_object(c, in_value)?)
                && let Some(end) = self.skip_inline_container(self.index)?
            {
                state.pending_inline_container = false;
                state.inline_containers.clear();
                self.step(end - self.index)?;
                for index in self.index..end {
                    state.append(self.text[index]);
                }
                self.index = end;
                char = self.char();
                continue;
            }
            if in_value
                && c == u32::from(',')
                && !state.pending_inline_container
                && state.inline_containers.is_empty()
            {
                let comma = if state.no_future_delimiter {
                    Comma::String
                } else {
                    self.classify_object_value_comma(&mut state.seen)?
                };
                match comma {
                    Comma::Member => break,
                    Comma::StringWithoutEnd => state.no_future_delimiter = true,
                    Comma::Container => state.pending_inline_container = true,
                    Comma::String => {}
                }
                char = self.append_literal(state, c);
                continue;
            }
            if keeps_inline_container_char(state, c) {
                char = self.append_literal(state, c);
                continue;
            }
            if in_value && c == u32::from('}') && !state.ends_with(outer) {
                if state.unmatched_opening_braces > 0 {
                    char = self.append_literal(state, c);
                    continue;
                }
                if self.brace_ends_string(state)? {
                    break;
                }
            }
            if c == u32::from(']') && self.is_within(Context::Array) && !state.ends_with(outer) {
                let quote = self.skip_to(&[outer], self.index)?;
                if self.at(quote).is_none() {
                    break;
                }
            }
            if in_value && c == u32::from('}') {
                let next = self.scroll_whitespaces(self.index + 1)?;
                if (next..next + 3).all(|at| self.is(at, '`')) {
                    let (keeps, container) =
                        self.brace_before_code_fence_belongs_to_string(outer, next)?;
                    state.pending_inline_container |= container;
                    if keeps {
                        char = self.append_literal(state, c);
                        continue;
                    }
                    break;
                }
                if self.at(next).is_none() {
                    break;
                }
            }
            char = self.append_literal(state, c);
            if char.is_none() {
                break;
            }
            if state.ends_with(BACKSLASH) && self.normalize_escape_sequence(state, char)? {
                char = self.char();
                continue;
            }
            if char == Some(u32::from(':'))
                && !state.missing_quotes
                && context == Some(Context::Key)
                && self.colon_ends_key(state)?
            {
                break;
            }
            if state.in_low_quotes() && char == Some(u32::from('"')) {
                state.right.pop();
                char = self.append_literal(state, u32::from('"'));
                continue;
            }
            if char != Some(outer) {
                continue;
            }
            if in_value && self.quote_belongs_to_character_class(state)? {
                char = self.append_literal(state, outer);
                continue;
            }
            if !state.text.is_empty() && !state.ends_with(BACKSLASH) {
                match self.handle_right_delimiter_candidate(state)? {
                    Candidate::Kept(next) => char = next,
                    Candidate::Left(next, ends) => {
                        char = next;
                        if ends {
                            break;
                        }
                    }
                }
            }
        }
        Ok(char)
    }

    fn opens_inline_object(&mut self, c: Char, in_value: bool) -> Result<bool> {
        if !in_value || c != u32::from('{') || self.before(self.index) == Some(BACKSLASH) {
            return Ok(false);
        }
        let key = self.scroll_whitespaces(self.index + 1)?;
        self.bare_key_is_followed_by_colon(key)
    }

    /// Whether a brace ends a string in the value of an entry because the quote that should is missing.
    fn brace_ends_string(&mut self, state: &mut State) -> Result<bool> {
        let mut missing = !self.is(self.index + 1, '\\');
        let quote = self.cached_skip_to(&[state.outer()], self.index + 1, &mut state.seen)?;
        if self.at(quote).is_none() {
            let colon = self.skip_to(&[u32::from(':')], self.index + 1)?;
            if self.at(colon).is_some() {
                return Ok(true);
            }
            let next = self.scroll_whitespaces(self.index + 1)?;
            let brace = self.skip_to(&[u32::from('}')], next)?;
            return Ok(missing && brace.saturating_sub(next) <= 1);
        }
        let next = self.scroll_whitespaces(quote + 1)?;
        if self.at(next).is_none() || self.is_any(next, &[',', '}']) {
            missing = false;
        } else {
            let left = self.skip_to(&[state.left], next)?;
            if self.at(left).is_none() {
                missing = false;
            } else {
                let colon = self.scroll_whitespaces(left + 1)?;
                if self.at(colon).is_some() && !self.is(colon, ':') {
                    missing = false;
                }
            }
        }
        Ok(missing)
    }

    fn colon_ends_key(&mut self, state: &State) -> Result<bool> {
        let left = self.skip_to(&[state.left], self.index + 1)?;
        if self.at(left).is_none() {
            return Ok(true);
        }
        let right = self.skip_to(&[state.outer()], left + 1)?;
        if self.at(right).is_none() {
            return Ok(false);
        }
        let after = self.scroll_whitespaces(right + 1)?;
        Ok(self.is_any(after, &[',', '}']))
    }

    fn quote_belongs_to_character_class(&mut self, state: &State) -> Result<bool> {
        let Some(start) = state.character_class else {
            return Ok(false);
        };
        for &c in state.text.get(start..).unwrap_or_default() {
            self.step(1)?;
            if is_space(c) {
                return Ok(false);
            }
        }
        let bracket = self.skip_to(&[u32::from(']')], self.index + 1)?;
        Ok(self.is(bracket, ']'))
    }

    /// Whether an escape was read; what comes then is looked at.
    fn normalize_escape_sequence(&mut self, state: &mut State, char: Option<Char>) -> Result<bool> {
        let Some(c) = char else { return Ok(false) };
        let active = state.active();
        if state.in_low_quotes() && c == u32::from('"') {
            state.replace_trailing_backslash(c);
            state.right.pop();
            self.index += 1;
            return Ok(true);
        }
        if c == BACKSLASH {
            let start = self.index - 1;
            let mut end = self.index + 1;
            while self.is(end, '\\') {
                self.step(1)?;
                end += 1;
            }
            let after = self.scroll_whitespaces(end + 1)?;
            let closes = self.at(end) != Some(active)
                || self.at(after).is_none()
                || self.is_any(after, &[',', ':', '}', ']']);
            if (end - start).is_multiple_of(2) && closes {
                state.text.pop();
                for _ in 0..(end - start) / 2 {
                    state.append(BACKSLASH);
                }
                self.index = end;
                return Ok(true);
            }
        }
        let found = char::from_u32(c);
        if c == active || matches!(found, Some('t' | 'n' | 'r' | 'b' | '\\')) {
            let meant = match found {
                Some('t') => 9,
                Some('n') => 10,
                Some('r') => 13,
                Some('b') => 8,
                _ => c,
            };
            state.replace_trailing_backslash(meant);
            self.index += 1;
            while let Some(c) = self.char()
                && state.ends_with(BACKSLASH)
                && (c == active || c == BACKSLASH)
            {
                self.step(1)?;
                state.replace_trailing_backslash(c);
                self.index += 1;
            }
            return Ok(true);
        }
        if let Some(kind @ ('u' | 'x')) = found {
            let count = if kind == 'u' { 4 } else { 2 };
            let digits = self.slice(self.index + 1, self.index + 1 + count);
            let code = digits.iter().try_fold(0, |code, &c| {
                Some(code << 4 | char::from_u32(c)?.to_digit(16)?)
            });
            if digits.len() == count
                && let Some(code) = code
            {
                state.replace_trailing_backslash(code);
                self.index += 1 + count;
                return Ok(true);
            }
        } else if c == LOW_QUOTE || is_delimiter(c) {
            state.replace_trailing_backslash(c);
            self.index += 1;
            return Ok(true);
        }
        Ok(false)
    }

    fn keep(&mut self, state: &mut State) -> Candidate {
        let outer = state.outer();
        Candidate::Kept(self.append_literal(state, outer))
    }

    #[allow(clippy::too_many_lines)] // one question after the other, as `json_repair` asks them
    fn handle_right_delimiter_candidate(&mut self, state: &mut State) -> Result<Candidate> {
        let outer = state.outer();
        let quote = Some(outer);
        let quotes = [outer, state.left];
        if state.doubled_quotes && self.at(self.index + 1) == quote {
            self.index += 1;
            return Ok(Candidate::Kept(quote));
        }
        if state.missing_quotes && self.is_in(Context::Value) {
            let mut i = self.index + 1;
            while self.at(i).is_some_and(|c| !quotes.contains(&c)) {
                self.step(1)?;
                i += 1;
            }
            if self.at(i).is_some() {
                let colon = self.scroll_whitespaces(i + 1)?;
                if self.is(colon, ':') {
                    self.index -= 1;
                    return Ok(Candidate::Left(self.char(), true));
                }
            }
            return Ok(Candidate::Left(quote, false));
        }
        if state.unmatched_delimiter {
            state.unmatched_delimiter = false;
            return Ok(self.keep(state));
        }
        let (in_key, in_value, in_list) = (
            self.is_within(Context::Key),
            self.is_within(Context::Value),
            self.is_within(Context::Array),
        );
        let mut i = self.index + 1;
        let mut check_comma = self.is_in(Context::Value);
        while let Some(c) = self.at(i)
            && !quotes.contains(&c)
        {
            self.step(1)?;
            check_comma &= !is_alpha(c);
            let stops = match char::from_u32(c) {
                Some(':') => in_key,
                Some('}') => in_key || in_value,
                Some(']') => in_list,
                Some(',') => in_list || check_comma,
                _ => false,
            };
            if stops {
                break;
            }
            i += 1;
        }
        if self.is(i, ',') && self.is_in(Context::Value) {
            let next = self.skip_to(&[outer], i + 1)?;
            let after = self.scroll_whitespaces(next + 1)?;
            if self.is_any(after, &['}', ',']) {
                return Ok(self.keep(state));
            }
        } else if self.at(i) == quote && !self.is(i - 1, '\\') {
            let in_value = self.is_in(Context::Value);
            if self.only_whitespace_until(i)?
                && !(in_value && self.quoted_object_member_follows(i)?)
            {
                return Ok(Candidate::Left(quote, true));
            }
            match self.current() {
                Some(Context::Value) => {
                    if self.quoted_object_member_follows(i)? {
                        return Ok(self.keep(state));
                    }
                    i = self.skip_to(&[outer], i + 1)? + 1;
                    while self.at(i).is_some()
                        && !self.is_any(i, &[':', ',', ']', '}'])
                        && (self.at(i) != quote || self.is(i - 1, '\\'))
                    {
                        self.step(1)?;
                        i += 1;
                    }
                    if !self.is(i, ':') {
                        state.unmatched_delimiter = !state.unmatched_delimiter;
                        return Ok(self.keep(state));
                    }
                }
                Some(Context::Array) => {
                    let ends = [outer, u32::from(']')];
                    loop {
                        i = self.skip_to(&ends, i + 1)?;
                        if self.at(i) != quote {
                            return Ok(Candidate::Left(quote, true));
                        }
                        i = self.skip_to(&ends, i + 1)?;
                        if self.at(i) != quote {
                            break;
                        }
                    }
                    state.unmatched_delimiter = !state.unmatched_delimiter;
                    return Ok(self.keep(state));
                }
                Some(Context::Key) => return Ok(self.keep(state)),
                None => {}
            }
        }
        Ok(Candidate::Left(quote, false))
    }

    fn finalize_string_result(&mut self, mut state: State, char: Option<Char>) -> Result<Text> {
        if state.missing_quotes && self.is_in(Context::Key) && char.is_some_and(is_space) {
            self.index = self.scroll_whitespaces(self.index)?;
            if !self.is_any(self.index, &[':', ',']) {
                return Ok(Text::new());
            }
        }
        if char == Some(state.outer()) {
            self.index += 1;
        } else {
            state.strip_end();
        }
        if state.missing_quotes || state.ends_with(u32::from('\n')) {
            state.strip_end();
        }
        Ok(state.text)
    }
}

/// `update_inline_container_stack`, and whether the character is kept.
fn keeps_inline_container_char(state: &mut State, c: Char) -> bool {
    let stack = &mut state.inline_containers;
    let found = char::from_u32(c);
    if matches!(found, Some('{' | '[')) {
        if state.pending_inline_container {
            stack.push(c);
            state.pending_inline_container = false;
            return false;
        }
        if !stack.is_empty() {
            stack.push(c);
        }
    }
    let opening = match found {
        Some('}') => u32::from('{'),
        Some(']') => u32::from('['),
        _ => return false,
    };
    if stack.last() == Some(&opening) {
        stack.pop();
        return true;
    }
    false
}
