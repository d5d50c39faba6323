//! XML as DSPy writes it: tags for fields, nested ones for lists and mappings, no white space between them.

use std::borrow::Cow;

use crate::text::is_identifier;
use crate::types::{Container, Spelling, Type};

/// One element, by its tag and, where the name could not be a tag, its `key`.
#[derive(Clone, Copy, Debug)]
pub struct Element<'a> {
    tag: &'a str,
    key: Option<&'a str>,
}

impl<'a> Element<'a> {
    /// An element with a tag alone.
    #[must_use]
    pub fn new(tag: &'a str) -> Self {
        Self { tag, key: None }
    }

    /// The element for an entry of a mapping.
    ///
    /// ```
    /// use dspex_core::prompt::Element;
    ///
    /// let mut out = String::new();
    /// Element::entry("two words").empty(&mut out);
    /// assert_eq!(out, r#"<entry key="two words" />"#);
    /// ```
    #[must_use]
    pub fn entry(name: &'a str) -> Self {
        // Behind its first character a tag may hold dashes and dots, which an identifier may not.
        let rest = name.char_indices().nth(1).map_or("", |(at, _)| &name[at..]);
        let valid = if rest.contains(['-', '.']) {
            is_identifier(
                &[
                    &name[..name.len() - rest.len()],
                    &rest.replace(['-', '.'], "_"),
                ]
                .concat(),
            )
        } else {
            is_identifier(name)
        };
        if valid {
            Self::new(name)
        } else {
            Self {
                tag: "entry",
                key: Some(name),
            }
        }
    }

    /// The opening tag.
    pub fn open(&self, out: &mut String) {
        self.start(out);
        out.push('>');
    }

    /// The closing tag.
    pub fn close(&self, out: &mut String) {
        out.push_str("</");
        out.push_str(self.tag);
        out.push('>');
    }

    /// The element without content.
    pub fn empty(&self, out: &mut String) {
        self.start(out);
        out.push_str(" />");
    }

    fn start(&self, out: &mut String) {
        out.push('<');
        out.push_str(self.tag);
        if let Some(key) = self.key {
            out.push_str(" key=");
            push_attribute(out, key);
        }
    }
}

/// Append text between tags; only what would open a tag or a reference is escaped.
pub fn push_escaped(out: &mut String, text: &str) {
    let mut plain = 0;
    for (at, found) in text.match_indices(['&', '<']) {
        out.push_str(&text[plain..at]);
        out.push_str(if found == "&" { "&amp;" } else { "&lt;" });
        plain = at + 1;
    }
    out.push_str(&text[plain..]);
}

/// A quoted attribute, as `xml.sax.saxutils.quoteattr` quotes it.
fn push_attribute(out: &mut String, text: &str) {
    let quote = if text.contains('"') && !text.contains('\'') {
        '\''
    } else {
        '"'
    };
    out.push(quote);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\n' => out.push_str("&#10;"),
            '\r' => out.push_str("&#13;"),
            '\t' => out.push_str("&#9;"),
            '"' if quote == '"' => out.push_str("&quot;"),
            _ => out.push(c),
        }
    }
    out.push(quote);
}

/// Whether values of the type are nested elements: lists and mappings with their arguments, optional or not.
pub(super) fn is_nested(ty: &Type) -> bool {
    match ty.as_optional().unwrap_or(ty) {
        Type::List(..) | Type::Dict(..) => true,
        Type::Bare(Container::List | Container::Dict, spelling) => *spelling == Spelling::Typing,
        _ => false,
    }
}

/// The elements that a value of the type is made of, as a pattern to follow.
pub(super) fn pattern(tag: &str, ty: &Type) -> String {
    let inner: Cow<'_, str> = match ty {
        Type::Union { members, .. } => match members.iter().find(|member| **member != Type::None) {
            Some(member) => return pattern(tag, member),
            None => "...".into(),
        },
        Type::List(item, _)
        | Type::Set(item, _)
        | Type::FrozenSet(item, _)
        | Type::VariadicTuple(item, _) => pattern("item", item).into(),
        Type::Tuple(..)
        | Type::Bare(
            Container::List | Container::Tuple | Container::Set | Container::FrozenSet,
            _,
        ) => pattern("item", &Type::Any).into(),
        _ => "...".into(),
    };
    format!("<{tag}>{inner}</{tag}>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_tags_become_keys() {
        let written = |name: &str| {
            let mut out = String::new();
            Element::entry(name).empty(&mut out);
            out
        };
        assert_eq!(written("a-b.c"), "<a-b.c />");
        assert_eq!(written("naïve"), "<naïve />");
        assert_eq!(written("-a"), "<entry key=\"-a\" />");
        assert_eq!(written(""), "<entry key=\"\" />");
        assert_eq!(written("1"), "<entry key=\"1\" />");
        assert_eq!(written("a\"<\n"), "<entry key='a\"&lt;&#10;' />");
        assert_eq!(written("\"'&"), "<entry key=\"&quot;'&amp;\" />");
    }

    #[test]
    fn only_what_opens_something_is_escaped() {
        let mut out = String::new();
        push_escaped(&mut out, "a < b && c > d");
        assert_eq!(out, "a &lt; b &amp;&amp; c > d");
    }
}
