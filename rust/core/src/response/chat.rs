//! A reply in the layout of chat: `[[ ## name ## ]]` above each value.

use std::borrow::Cow;

use crate::header;
use crate::text::{has_exotic_breaks, is_space, splitlines, strip, strip_start};

/// The text that a reply has for one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section<'a> {
    /// The field, as `wanted` numbered it.
    pub field: usize,
    /// The text, stripped.
    pub text: Cow<'a, str>,
    /// Whether the header was indented: the text then begins with the end of the header, as in DSPy.
    pub indented: bool,
}

/// The sections of `reply` in their order there; of several for the same field the first.
///
/// `wanted` numbers the fields by name; sections of other names are passed over. All line breaks that Python
/// knows become `\n`.
///
/// ```
/// use dspex_core::response::sections;
///
/// let found = sections("[[ ## a ## ]]\nyes\n\n[[ ## completed ## ]]", |name| (name == "a").then_some(0));
/// assert_eq!(found[0].text, "yes");
/// ```
pub fn sections(reply: &str, wanted: impl Fn(&str) -> Option<usize>) -> Vec<Section<'_>> {
    if has_exotic_breaks(reply) {
        let lines: Vec<&str> = splitlines(reply).collect();
        let plain = lines.join("\n");
        cut(&plain, wanted)
            .into_iter()
            .map(|found| Section {
                text: Cow::Owned(found.text.into_owned()),
                ..found
            })
            .collect()
    } else {
        cut(reply, wanted)
    }
}

/// `sections` of a text whose only line break is `\n`.
fn cut(reply: &str, wanted: impl Fn(&str) -> Option<usize>) -> Vec<Section<'_>> {
    let mut found: Vec<Section<'_>> = Vec::new();
    let mut open: Option<(usize, Header<'_>, usize)> = None;
    let mut at = 0;
    while at < reply.len() {
        let end = memchr::memchr(b'\n', &reply.as_bytes()[at..]);
        let end = end.map_or(reply.len(), |len| at + len);
        if let Some(header) = header(&reply[at..end]) {
            close(&mut found, reply, open.as_ref(), at);
            open = wanted(header.name)
                .filter(|field| found.iter().all(|section| section.field != *field))
                .map(|field| (field, header, end));
        }
        at = end + 1;
    }
    close(&mut found, reply, open.as_ref(), reply.len());
    found
}

/// End the section that is open: its field, its header, and where the lines below it begin; they run to `end`.
fn close<'a>(
    found: &mut Vec<Section<'a>>,
    reply: &'a str,
    open: Option<&(usize, Header<'a>, usize)>,
    end: usize,
) {
    let Some(&(field, Header { rest, indented, .. }, below)) = open else {
        return;
    };
    let below = reply[below..end].trim_end_matches(is_space);
    let text = if rest.is_empty() {
        Cow::Borrowed(strip_start(below))
    } else if below.is_empty() {
        Cow::Borrowed(rest)
    } else {
        Cow::Owned([rest, below].concat())
    };
    found.push(Section {
        field,
        text,
        indented,
    });
}

/// A line that begins with a header.
struct Header<'a> {
    name: &'a str,
    /// The text behind it.
    rest: &'a str,
    indented: bool,
}

/// The header that `line` begins with.
///
/// DSPy finds the header in the stripped line but cuts the line itself: each character of indentation
/// leaves one of the header's last in the value. A value is only equal if that is kept.
fn header(line: &str) -> Option<Header<'_>> {
    let content = strip_start(line);
    let (name, len) = header::at_start(content)?;
    let indent = line[..line.len() - content.len()].chars().count();
    let mut cut = line.len() - content.len() + len;
    for c in line[..cut].chars().rev().take(indent) {
        cut -= c.len_utf8();
    }
    Some(Header {
        name,
        rest: strip(&line[cut..]),
        indented: indent > 0,
    })
}

#[cfg(test)]
mod tests {
    use super::sections;

    fn read(reply: &str) -> Vec<(usize, String)> {
        let wanted = |name: &str| ["a", "naïve"].iter().position(|n| *n == name);
        sections(reply, wanted)
            .into_iter()
            .map(|s| (s.field, s.text.into_owned()))
            .collect()
    }

    fn one(text: &str) -> Vec<(usize, String)> {
        vec![(0, text.into())]
    }

    #[test]
    fn text_below_a_header_is_stripped() {
        assert_eq!(
            read("x\n[[ ## a ## ]]\n\n one\n two \n\n[[ ## completed ## ]]\n"),
            one("one\n two")
        );
        assert_eq!(read("[[ ## a ## ]]"), one(""));
        assert_eq!(read(""), []);
    }

    #[test]
    fn text_behind_a_header_counts() {
        assert_eq!(read("[[ ## a ## ]]  one \n  two"), one("one\n  two"));
        assert_eq!(read("[[ ## a ## ]] one"), one("one"));
    }

    #[test]
    fn the_first_section_of_a_name_wins_and_others_are_passed_over() {
        assert_eq!(
            read("[[ ## a ## ]]\n1\n[[ ## b ## ]]\n2\n[[ ## a ## ]]\n3"),
            one("1")
        );
        assert_eq!(
            read("[[ ## naïve ## ]]\n1\n[[ ## a ## ]]\n2"),
            [(1, "1".to_owned()), (0, "2".to_owned())]
        );
    }

    #[test]
    fn indentation_leaks_the_end_of_the_header_as_in_dspy() {
        assert_eq!(read("  [[ ## a ## ]]  \n  Paris"), one("]]\n  Paris"));
        assert_eq!(read("\u{3000}[[ ## a ## ]] x"), one("] x"));
    }

    #[test]
    fn only_an_exact_header_counts() {
        for reply in [
            "**[[ ## a ## ]]**\nx",
            "[[ ##  a ## ]]\nx",
            "[[## a ##]]\nx",
            "so [[ ## a ## ]]\nx",
        ] {
            assert_eq!(read(reply), [], "{reply}");
        }
    }

    #[test]
    fn every_line_break_of_python_becomes_a_new_line() {
        assert_eq!(
            read("[[ ## a ## ]]\r\none\u{2028}two\x0bthree\r"),
            one("one\ntwo\nthree")
        );
    }
}
