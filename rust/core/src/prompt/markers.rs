//! Field markers inside values: text that would pass for the prompt's own structure.

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

/// What begins a block of a custom type inside a message: what stands in it becomes an image, a file, and so on.
pub(crate) const BLOCK: &str = "<<CUSTOM-TYPE-START-IDENTIFIER>>";

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

/// The markers in a value: headers of any name, or tags of one of `names`; and what begins a block, where none of
/// the value's own can stand.
pub(crate) fn find(layout: Layout, text: &str, names: &[&str], blocks: bool) -> Vec<Marker> {
    let mut found: Vec<Marker> = match layout {
        Layout::Chat | Layout::Json => headers(text).collect(),
        Layout::Xml => tags(text, names).collect(),
    };
    if blocks {
        found.extend(text.match_indices(BLOCK).map(|(at, _)| Marker {
            at,
            kind: Kind::Block,
        }));
        found.sort_unstable_by_key(|marker| marker.at);
    }
    found
}

/// The headers in a text.
pub(crate) fn headers_in(text: &str) -> Vec<Marker> {
    // Most values have no bracket, and one character is looked for faster than six.
    if memchr::memchr(b'[', text.as_bytes()).is_some() {
        headers(text).collect()
    } else {
        Vec::new()
    }
}

fn headers(text: &str) -> impl Iterator<Item = Marker> {
    text.match_indices("[[ ## ").filter_map(|(at, start)| {
        let inside = &text[at + start.len()..];
        let name = word_len(inside);
        (name > 0 && inside[name..].starts_with(" ## ]]")).then_some(Marker {
            at,
            kind: Kind::Header,
        })
    })
}

fn tags(text: &str, names: &[&str]) -> impl Iterator<Item = Marker> {
    text.match_indices('<').filter_map(move |(at, _)| {
        let inside = &text[at + 1..];
        let inside = inside.strip_prefix('/').unwrap_or(inside);
        let (tag, _) = inside.split_once('>')?;
        // Attributes, and the slash of an element without content, may follow the name.
        let name = tag.split([' ', '\t', '\n', '\r', '/']).next()?;
        // In a reply, the key of an entry is the name of its field; it may be written with character references.
        let is_tag = names.contains(&name) || name == "entry" && tag.contains("key");
        is_tag.then_some(Marker {
            at,
            kind: Kind::Tag,
        })
    })
}

/// Rewrite the text from `start` on so that none of its markers is one: `[[ # # name ## ]]`, `&lt;name>`,
/// `<< CUSTOM-TYPE...`. What is inserted means nothing inside a JSON string, where the marker may stand.
pub(crate) fn escape(out: &mut String, start: usize, found: &[Marker]) {
    for marker in found.iter().rev() {
        let at = start + marker.at;
        match marker.kind {
            Kind::Header => out.insert(at + "[[ #".len(), ' '),
            Kind::Tag => out.replace_range(at..=at, "&lt;"),
            Kind::Block => out.insert(at + "<<".len(), ' '),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(layout: Layout, text: &str) -> (usize, String) {
        let found = find(layout, text, &["a", "b"], true);
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
    fn tags_of_fields_are_markers() {
        let text = "<a>x</a> <b >y</b> <i>z</i> < a>";
        assert_eq!(
            escaped(Layout::Xml, text),
            (4, "&lt;a>x&lt;/a> &lt;b >y&lt;/b> <i>z</i> < a>".into())
        );
        let text = "<a x='1'> <b/> <b />\n<a\n> </a > <b\ty=\"2\"\r> <ab> <a.b> <a-b x=''> <i a=''>\
            <entry key='a'> <entry> <entry\tkey = \"&#98;\">";
        assert_eq!(find(Layout::Xml, text, &["a", "b"], true).len(), 8);
    }

    #[test]
    fn what_is_escaped_is_no_marker() {
        let block = format!("<a>{BLOCK}[]");
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
