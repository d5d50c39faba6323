//! Field markers inside values: text that would pass for the prompt's own structure.

use std::collections::HashSet;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use memchr::{memchr, memchr2};

use super::plan::Layout;
use crate::header;

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

/// What begins a block of a custom type inside a message: what stands in it becomes an image, a file, and so on.
pub const BLOCK_START: &str = "<<CUSTOM-TYPE-START-IDENTIFIER>>";
/// What ends it.
pub const BLOCK_END: &str = "<<CUSTOM-TYPE-END-IDENTIFIER>>";

/// A marker in a value: where it stands, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    at: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Header,
    Tag,
    Block,
}

/// The markers in a value: headers of any name, or `tags`; and what begins a block, where none of the
/// value's own can stand.
pub(crate) fn find(
    layout: Layout,
    text: &str,
    tags: &HashSet<Box<str>>,
    blocks: bool,
) -> Vec<Marker> {
    match layout {
        Layout::Chat | Layout::Json => headers_and_blocks(text, blocks),
        Layout::Xml => {
            let mut found = tags_in(text, tags);
            if blocks && holds_block(text) {
                found.extend(blocks_in(text));
                found.sort_unstable_by_key(|marker| marker.at);
            }
            found
        }
    }
}

/// The headers in a text.
pub(crate) fn headers_in(text: &str) -> Vec<Marker> {
    headers_and_blocks(text, false)
}

/// Whether a text holds what begins a block of a custom type.
#[must_use]
pub fn holds_block(text: &str) -> bool {
    BLOCK_FINDER.find(text.as_bytes()).is_some()
}

static HEADER_FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(header::OPEN));
static BLOCK_FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(BLOCK_START));

/// How many brackets that begin no marker are looked at one by one. Most values have no bracket, or the few of a list;
/// one pass for their first character finds that out in half the time that a search for each marker takes. A page of
/// HTML has thousands, and there the searches are the faster way.
const BRACKETS: usize = 16;

fn headers_and_blocks(text: &str, blocks: bool) -> Vec<Marker> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let (mut at, mut others) = (0, 0);
    loop {
        let rest = &bytes[at..];
        let next = if blocks {
            memchr2(b'[', b'<', rest)
        } else {
            memchr(b'[', rest)
        };
        let Some(next) = next else {
            return found;
        };
        at += next;
        let kind = if bytes[at] == b'[' {
            header::at_start(&text[at..]).map(|_| Kind::Header)
        } else {
            bytes[at..]
                .starts_with(BLOCK_START.as_bytes())
                .then_some(Kind::Block)
        };
        if let Some(kind) = kind {
            found.push(Marker { at, kind });
        } else if others == BRACKETS {
            break;
        } else {
            others += 1;
        }
        at += 1;
    }
    let headers = HEADER_FINDER.find_iter(&bytes[at..]).map(|next| at + next);
    let headers = headers.filter(|&at| header::at_start(&text[at..]).is_some());
    let first = found.len();
    found.extend(headers.map(|at| Marker {
        at,
        kind: Kind::Header,
    }));
    if blocks {
        let later = blocks_in(&text[at..]);
        found.extend(later.map(|marker| Marker {
            at: at + marker.at,
            ..marker
        }));
        found[first..].sort_unstable_by_key(|marker| marker.at);
    }
    found
}

fn blocks_in(text: &str) -> impl Iterator<Item = Marker> {
    BLOCK_FINDER.find_iter(text.as_bytes()).map(|at| Marker {
        at,
        kind: Kind::Block,
    })
}

/// The tags in a text, opening or closing. Name and attributes are read up to the next `<` at most, which no tag
/// can hold, so that nothing is looked at twice.
fn tags_in(text: &str, tags: &HashSet<Box<str>>) -> Vec<Marker> {
    // What has no end is no tag.
    let Some(last) = memchr::memrchr(b'>', text.as_bytes()) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    // From the end: whether the `<` that comes next is one of a tag matters to what it cuts off.
    let mut next_is_tag = false;
    for at in memchr::memrchr_iter(b'<', &text.as_bytes()[..last]) {
        let inside = &text[at + 1..];
        let inside = inside.strip_prefix('/').unwrap_or(inside);
        // Attributes, and the slash of an element without content, may follow the name.
        let end = inside.find(['>', ' ', '\t', '\n', '\r', '/', '<']);
        next_is_tag = end.is_some_and(|end| {
            let (name, rest) = inside.split_at(end);
            if rest.starts_with('<') {
                return false;
            }
            // Escaped, the next one is no end of this one any more, and its key would be this one's.
            tags.contains(name) || name == ENTRY && has_key(rest).unwrap_or(next_is_tag)
        });
        if next_is_tag {
            let kind = Kind::Tag;
            found.push(Marker { at, kind });
        }
    }
    found.reverse();
    found
}

/// The element that has the name of its field in an attribute, which may be written with character references.
const ENTRY: &str = "entry";

/// Whether a tag, behind its name, has the attribute `key` before it ends; None where a `<` cuts it off.
fn has_key(rest: &str) -> Option<bool> {
    let mut bytes = rest.bytes().enumerate();
    let (mut start, mut found) = (0, false);
    while let Some((at, byte)) = bytes.next() {
        if !matches!(
            byte,
            b'>' | b'<' | b'=' | b' ' | b'\t' | b'\n' | b'\r' | b'"' | b'\''
        ) {
            continue;
        }
        found |= &rest[start..at] == "key";
        match byte {
            b'>' => return Some(found),
            b'<' => return None,
            quote @ (b'"' | b'\'') => {
                // What stands in quotes is no name, and ends no tag.
                let (end, byte) = bytes.find(|(_, byte)| *byte == b'<' || *byte == quote)?;
                if byte == b'<' {
                    return None;
                }
                start = end + 1;
            }
            _ => start = at + 1,
        }
    }
    Some(false)
}

/// Rewrite the text from `start` on so that none of its markers is one: `[[ # # name ## ]]`, `&lt;name>`,
/// `<< CUSTOM-TYPE...`. What is inserted means nothing inside a JSON string, where the marker may stand.
pub(crate) fn escape(out: &mut String, start: usize, found: &[Marker]) {
    let text = out.split_off(start);
    // `&lt;` is three bytes longer than `<`, the others put in one.
    out.reserve(text.len() + 3 * found.len());
    let mut copied = 0;
    for marker in found {
        let (kept, written, skipped) = match marker.kind {
            Kind::Header => (header::ESCAPE_AT, " ", 0),
            Kind::Tag => (0, "&lt;", 1),
            Kind::Block => ("<<".len(), " ", 0),
        };
        out.push_str(&text[copied..marker.at + kept]);
        out.push_str(written);
        copied = marker.at + kept + skipped;
    }
    out.push_str(&text[copied..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags() -> HashSet<Box<str>> {
        ["a".into(), "b".into()].into()
    }

    fn escaped(layout: Layout, text: &str) -> (usize, String) {
        let found = find(layout, text, &tags(), true);
        let mut out = format!("before {text}");
        escape(&mut out, "before ".len(), &found);
        (found.len(), out["before ".len()..].to_owned())
    }

    #[test]
    fn headers_of_any_name_are_markers() {
        let text = "x [[ ## a ## ]] y\n[[ ## completed ## ]] [[ ## no-name ## ]] [[ ##a## ]]";
        let expected = "x [[ # # a ## ]] y\n[[ # # completed ## ]] [[ ## no-name ## ]] [[ ##a## ]]";
        assert_eq!(escaped(Layout::Chat, text), (2, expected.into()));
    }

    #[test]
    fn markers_are_found_behind_any_number_of_brackets() {
        for count in 0..3 * BRACKETS {
            let text = format!(
                "[[ ## a ## ]]{} {BLOCK_START} [[ ## b ## ]]",
                "[<".repeat(count)
            );
            let kinds = |blocks| {
                let found = find(Layout::Chat, &text, &tags(), blocks);
                assert!(found.is_sorted_by_key(|marker| marker.at));
                found.iter().map(|marker| marker.kind).collect::<Vec<_>>()
            };
            assert_eq!(kinds(true), [Kind::Header, Kind::Block, Kind::Header]);
            assert_eq!(kinds(false), [Kind::Header, Kind::Header]);
        }
    }

    #[test]
    fn tags_of_fields_are_markers() {
        let text = "<a>x</a> <b >y</b> <i>z</i> < a>";
        assert_eq!(
            escaped(Layout::Xml, text),
            (4, "&lt;a>x&lt;/a> &lt;b >y&lt;/b> <i>z</i> < a>".into())
        );
        let text = "<a x='1'> <b/> <b />\n<a\n> </a > <b\ty=\"2\"\r> <ab> <a.b> <a-b x=''> <i a=''>\
            <entry key='a'> <entry> <entry\tkey = \"&#98;\">";
        assert_eq!(find(Layout::Xml, text, &tags(), true).len(), 8);
    }

    #[test]
    fn an_entry_is_a_tag_if_it_has_a_key() {
        for (text, count) in [
            ("<entry key='a'>", 1),
            ("<entry x='>' key='a'>", 1),
            ("<entry x=\"'\" key\n= \"a\" />", 1),
            ("<entry>key</entry>", 0),
            ("<entry x='key'>", 0),
            ("<entry monkey='a'>", 0),
            ("<entry key='a'", 0),
            ("<entry key='>", 0),
            ("<entry x=\"key\" <i>", 0),
            ("<entrykey='a'>", 0),
            ("<entry <i key='a'>", 0),
            ("<entry <entry key='a'>", 2),
            ("<entry x=\"<a> \" key=''>", 2),
        ] {
            assert_eq!(
                find(Layout::Xml, text, &tags(), true).len(),
                count,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_escaped_is_no_marker() {
        let block = format!("<a>{BLOCK_START}[]");
        for (layout, text) in [
            (Layout::Chat, "[[ ## a ## ]]"),
            (Layout::Xml, "</a>"),
            (Layout::Chat, &block),
            (Layout::Xml, &block),
        ] {
            let (_, once) = escaped(layout, text);
            assert_eq!(escaped(layout, &once), (0, once.clone()));
        }
    }
}
