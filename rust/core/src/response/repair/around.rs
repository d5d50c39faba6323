//! What stands around a value and between its parts: white space, comments, prose.

use crate::text::is_space;

/// What comes first in a text that is no value's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A list or an object, there.
    Value(usize),
    Nothing,
    /// A bracket or a quote that may open one.
    Ambiguous,
}

/// The first value in `text` from `at` on. Prose is passed over, and so are comments with what is in them.
pub(super) fn skip_prose(text: &str, at: usize) -> Found {
    if at == 0
        && text
            .trim_start_matches(is_space)
            .starts_with(['"', '\'', '“', '”'])
    {
        return Found::Ambiguous;
    }
    let mut at = at;
    while let Some(found) = text[at..].find(['{', '[', '(', '#', '/']) {
        at += found;
        match text.as_bytes()[at] {
            b'{' | b'[' => return Found::Value(at),
            // In the middle of a line it belongs to the prose.
            b'(' => {
                let is_end = |c| matches!(c, '\n' | '\r');
                let before = text[..at].trim_end_matches(|c| is_space(c) && !is_end(c));
                if before.is_empty() || before.ends_with(is_end) {
                    return Found::Ambiguous;
                }
                at += 1;
            }
            _ => at = comment_end(text, at, &['\n', '\r']).unwrap_or(at + 1),
        }
    }
    Found::Nothing
}

/// Where white space and comments from `at` on end. In a list, and in the value of an object's entry, the
/// brackets that close those end a comment of `#` too.
pub(super) fn skip_blank(text: &str, mut at: usize, in_list: bool, in_value: bool) -> usize {
    loop {
        match text.as_bytes().get(at) {
            Some(b' ' | b'\n' | b'\t' | b'\r') => at += 1,
            Some(b'#' | b'/') => {
                let ends: &[char] = match (in_list, in_value) {
                    (true, true) => &['\n', '\r', ']', '}'],
                    (true, false) => &['\n', '\r', ']'],
                    (false, true) => &['\n', '\r', '}'],
                    (false, false) => &['\n', '\r'],
                };
                let Some(end) = comment_end(text, at, ends) else {
                    return at;
                };
                at = end;
            }
            Some(b' '..=b'~') | None => return at,
            Some(_) => {
                let rest = text[at..].trim_start_matches(is_space);
                if rest.len() == text.len() - at {
                    return at;
                }
                at = text.len() - rest.len();
            }
        }
    }
}

/// Where the comment at `at` ends, one of `#` before one of `ends`; None for a lone slash.
pub(super) fn comment_end(text: &str, at: usize, ends: &[char]) -> Option<usize> {
    let rest = &text[at..];
    let len = if rest.starts_with('#') {
        rest.find(ends)
    } else if rest.starts_with("//") {
        rest.find(['\n', '\r'])
    } else if rest.starts_with("/*") {
        // The asterisk that opens it may close it too.
        rest[1..].find("*/").map(|len| len + 3)
    } else {
        return None;
    };
    Some(len.map_or(text.len(), |len| at + len))
}
