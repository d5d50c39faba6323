//! Field markers inside values: text that would pass for the prompt's own structure.

use std::ops::Range;

use super::plan::Layout;
use crate::text::word_len;

/// What becomes of a value that holds a field marker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Markers {
    /// Nothing: it is written as it is, as DSPy does, and not looked for.
    #[default]
    AsIs,
    /// It is written as it is, and reported.
    Report,
    /// It is written so that it is no marker any more, and reported.
    Escape,
}

/// The markers in a value, by where they stand: headers of any name, or tags of one of `names`.
pub(super) fn find(layout: Layout, text: &str, names: &[&str]) -> Vec<Range<usize>> {
    match layout {
        Layout::Chat | Layout::Json => headers(text).collect(),
        Layout::Xml => tags(text, names).collect(),
    }
}

fn headers(text: &str) -> impl Iterator<Item = Range<usize>> {
    text.match_indices("[[ ## ").filter_map(|(at, start)| {
        let inside = &text[at + start.len()..];
        let name = word_len(inside);
        let end = " ## ]]";
        (name > 0 && inside[name..].starts_with(end))
            .then(|| at..at + start.len() + name + end.len())
    })
}

fn tags(text: &str, names: &[&str]) -> impl Iterator<Item = Range<usize>> {
    text.match_indices('<').filter_map(move |(at, _)| {
        let inside = &text[at + 1..];
        let inside = inside.strip_prefix('/').unwrap_or(inside);
        let (name, _) = inside.split_once('>')?;
        let start = text.len() - inside.len();
        names
            .contains(&name.trim_end())
            .then(|| at..start + name.len() + 1)
    })
}

/// Rewrite the text from `start` on so that none of its markers is one: `[[ # # name ## ]]`, `&lt;name>`. What is
/// inserted means nothing inside a JSON string, where the marker may stand.
pub(super) fn escape(layout: Layout, out: &mut String, start: usize, found: &[Range<usize>]) {
    for range in found.iter().rev() {
        let at = start + range.start;
        match layout {
            Layout::Chat | Layout::Json => out.insert(at + "[[ #".len(), ' '),
            Layout::Xml => out.replace_range(at..=at, "&lt;"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(layout: Layout, text: &str) -> (usize, String) {
        let found = find(layout, text, &["a", "b"]);
        let mut out = format!("before {text}");
        escape(layout, &mut out, "before ".len(), &found);
        (found.len(), out["before ".len()..].to_owned())
    }

    #[test]
    fn headers_of_any_name_are_markers() {
        let text = "x [[ ## a ## ]] y\n[[ ## completed ## ]] [[ ## no-name ## ]] [[ ##a## ]]";
        let expected = "x [[ # # a ## ]] y\n[[ # # completed ## ]] [[ ## no-name ## ]] [[ ##a## ]]";
        assert_eq!(escaped(Layout::Chat, text), (2, expected.into()));
    }

    #[test]
    fn tags_of_fields_are_markers() {
        let text = "<a>x</a> <b >y</b> <i>z</i> < a>";
        assert_eq!(
            escaped(Layout::Xml, text),
            (4, "&lt;a>x&lt;/a> &lt;b >y&lt;/b> <i>z</i> < a>".into())
        );
    }

    #[test]
    fn what_is_escaped_is_no_marker() {
        for (layout, text) in [(Layout::Chat, "[[ ## a ## ]]"), (Layout::Xml, "</a>")] {
            let (_, once) = escaped(layout, text);
            assert_eq!(escaped(layout, &once), (0, once.clone()));
        }
    }
}
