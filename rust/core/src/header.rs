//! The marker that stands above a field's value in chat, `[[ ## name ## ]]`: how it is written, found and followed
//! as it comes in, and what may decorate it.
//!
//! Prompts, whole replies, replies that come in piece by piece and templates all have it from here, so that no two
//! of them can differ about what a marker is.

use crate::text::{is_decimal, is_space, is_word, word_len};

/// What stands before the name.
pub(crate) const OPEN: &str = "[[ ## ";
/// What stands behind it.
pub(crate) const CLOSE: &str = " ## ]]";
/// How much of it comes before the space that [escapes](crate::prompt::Markers::Escape) a marker: `[[ #`.
pub(crate) const ESCAPE_AT: usize = OPEN.len() - "# ".len();
/// The name that ends a reply.
pub(crate) const COMPLETED: &str = "completed";

/// The marker of a field.
pub(crate) fn marker(name: &str) -> String {
    let mut out = String::with_capacity(OPEN.len() + name.len() + CLOSE.len());
    push(&mut out, name);
    out
}

/// Append the marker of a field.
pub(crate) fn push(out: &mut String, name: &str) {
    out.push_str(OPEN);
    out.push_str(name);
    out.push_str(CLOSE);
}

/// The name in the marker that `text` begins with, and the marker's length.
pub(crate) fn at_start(text: &str) -> Option<(&str, usize)> {
    let inside = text.strip_prefix(OPEN)?;
    let name = &inside[..word_len(inside)];
    let is_marker = !name.is_empty() && inside[name.len()..].starts_with(CLOSE);
    is_marker.then_some((name, OPEN.len() + name.len() + CLOSE.len()))
}

/// Where the markers in a text stand, each with its name.
pub(crate) fn find(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.match_indices(OPEN)
        .filter_map(|(at, _)| at_start(&text[at..]).map(|(name, _)| (at, name)))
}

/// How much of a marker has come; each character is looked at once, however long the name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// This many characters of what stands before the name.
    Open(usize),
    /// The name, as long as that in bytes.
    Name(usize),
    /// A name of that length, and this many characters of what stands behind it.
    Close(usize, usize),
    /// All of it, with a name of that length.
    Whole(usize),
}

impl Progress {
    /// What it is with one more character; None where that cannot be.
    pub(crate) fn with(self, c: char) -> Option<Self> {
        let next = |text: &str, at: usize| text[at..].starts_with(c).then_some(at + 1);
        match self {
            Self::Open(at) if at < OPEN.len() => next(OPEN, at).map(Self::Open),
            Self::Open(_) => is_word(c).then_some(Self::Name(c.len_utf8())),
            Self::Name(len) if is_word(c) => Some(Self::Name(len + c.len_utf8())),
            Self::Name(len) => next(CLOSE, 0).map(|at| Self::Close(len, at)),
            Self::Close(len, at) => next(CLOSE, at).map(|at| {
                if at == CLOSE.len() {
                    Self::Whole(len)
                } else {
                    Self::Close(len, at)
                }
            }),
            Self::Whole(_) => None,
        }
    }
}

/// Characters of decoration that a marker may have before it: more is a line drawn, not decoration.
const LONGEST: usize = 32;

/// What stands before a marker in its line, behind any white space that the line begins with: emphasis, code, a
/// heading, a quotation, or the number of a list's item with emphasis behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decoration {
    len: usize,
    form: Form,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Form {
    #[default]
    Empty,
    Marks,
    /// The digits of a number, which is none before the point behind them.
    Digits,
    /// A number with its point, and white space.
    Number,
    /// The emphasis behind a number.
    Emphasis,
}

impl Decoration {
    /// The same with one more character; None where it is no decoration any more.
    pub(crate) fn with(self, c: char) -> Option<Self> {
        let form = match (self.form, c) {
            (Form::Empty | Form::Marks, '#' | '>' | '*' | '_' | '`' | '-') => Form::Marks,
            (Form::Marks | Form::Number, c) if is_space(c) => self.form,
            (Form::Empty | Form::Digits, c) if is_decimal(c) => Form::Digits,
            (Form::Digits, '.' | ')') => Form::Number,
            (Form::Number | Form::Emphasis, c) if is_emphasis(c) => Form::Emphasis,
            _ => return None,
        };
        let len = self.len + 1;
        (len <= LONGEST).then_some(Self { len, form })
    }

    /// Whether a marker may follow.
    pub(crate) fn is_whole(self) -> bool {
        self.form != Form::Digits
    }

    /// Whether `text` decorates what follows it.
    pub(crate) fn is(text: &str) -> bool {
        text.chars()
            .try_fold(Self::default(), Self::with)
            .is_some_and(Self::is_whole)
    }
}

/// Whether emphasis and code are made of `c`.
pub(crate) fn is_emphasis(c: char) -> bool {
    matches!(c, '*' | '_' | '`')
}

/// The part of `line`, which stands behind a marker, that is the field's text: without white space around it, and
/// without what closes the decoration before the marker. With it the emphasis that is still open, as it is closed.
pub(crate) fn behind<'a>(decoration: &str, line: &'a str) -> (&'a str, String) {
    let mut line = line.trim_matches(is_space);
    if decoration.contains('#') {
        line = line.trim_end_matches('#').trim_end_matches(is_space);
    }
    let before = decoration.trim_end_matches(is_space);
    let emphasis = &before[before.trim_end_matches(is_emphasis).len()..];
    if emphasis.is_empty() || emphasis == "*" && before.len() < decoration.len() {
        return (line, String::new()); // the bullet of a list closes nowhere
    }
    let closing: String = emphasis.chars().rev().collect();
    let rest = line.strip_prefix(':').unwrap_or(line);
    if let Some(inner) = rest.strip_prefix(&closing) {
        let inner = inner.trim_start_matches(is_space);
        let colon = rest.len() == line.len();
        let text = inner.strip_prefix(':').filter(|_| colon).unwrap_or(inner);
        return (text.trim_start_matches(is_space), String::new());
    }
    let text = closed(line, &closing, line.matches(&closing).count());
    if text.len() < line.len() {
        (text, String::new())
    } else {
        (line, closing)
    }
}

/// `text` without the emphasis at its end that closes what was opened before the marker. The text itself has it
/// `count` times: an even number of times it opens and closes something inside.
pub(crate) fn closed<'a>(text: &'a str, closing: &str, count: usize) -> &'a str {
    if closing.is_empty() || count.is_multiple_of(2) {
        return text;
    }
    text.strip_suffix(closing)
        .map_or(text, |text| text.trim_end_matches(is_space))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_found_anywhere_and_followed_to_its_end() {
        let text = "x [[[ ## a ## ]] [[ ## b c ## ]] [[ ## naïve ## ]][[ ##  ## ]]";
        let found: Vec<_> = find(text).collect();
        assert_eq!(found, [(3, "a"), (33, "naïve")]);
        assert_eq!(at_start(&marker("n2")), Some(("n2", 14)));
        let whole = marker("é")
            .chars()
            .try_fold(Progress::Open(0), Progress::with);
        assert_eq!(whole, Some(Progress::Whole(2)));
    }

    #[test]
    fn decoration_is_short_and_of_known_forms() {
        for text in [
            "",
            "**",
            "# ",
            "> - ",
            "1. ",
            "12) **",
            "٣. `",
            &"*".repeat(32),
        ] {
            assert!(Decoration::is(text), "{text:?}");
        }
        for text in [
            "1",
            "1 ",
            "²) ",
            "a",
            "**a",
            "3. ** ",
            "\u{200b}",
            &"*".repeat(33),
        ] {
            assert!(!Decoration::is(text), "{text:?}");
        }
    }

    #[test]
    fn what_closes_the_decoration_is_no_text() {
        let cases = [
            ("", " x ", "x", ""),
            ("**", "** x", "x", ""),
            ("**", "**: x", "x", ""),
            ("**", ":** x", "x", ""),
            ("**", " x**", "x", ""),
            ("**", " x", "x", "**"),
            ("**", " x **b**", "x **b**", "**"),
            ("_**", "**_ x", "x", ""),
            ("## ", "x ##", "x", ""),
            ("* ", "*x*", "*x*", ""),
            ("1. **", "**", "", ""),
        ];
        for (decoration, line, text, closing) in cases {
            assert_eq!(
                behind(decoration, line),
                (text, closing.to_owned()),
                "{decoration}{line}"
            );
        }
        assert_eq!(closed("x\ny **", "**", 1), "x\ny");
        assert_eq!(closed("**x**", "**", 2), "**x**");
    }
}
