//! The fields' elements at the top of a reply, character by character.

use std::collections::HashMap;

use super::{Event, Fields};
use crate::prompt::Layout;

/// Follows tags; all inside a field belongs to it.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// Whether a field may be found inside another one that is not closed.
    tolerant: bool,
    /// The elements that are open, outermost first.
    open: Vec<String>,
    /// How many elements of each name are open, so that a closing tag of no element costs nothing to pass over.
    names: HashMap<String, usize>,
    /// A tag or a reference, from its first character on, as far as it has come.
    pending: String,
    /// How many bytes have come.
    at: usize,
    /// The elements at the top that are closed, if somebody wants them, and the one that is open.
    elements: Option<Vec<Element>>,
    top: Option<(String, usize)>,
}

/// An element at the top of a reply: its name, and where what is inside it begins and ends.
type Element = (String, usize, usize);

impl Scanner {
    pub(super) fn new(tolerant: bool) -> Self {
        Self {
            tolerant,
            ..Self::default()
        }
    }

    pub(super) fn push(&mut self, c: char, fields: &mut Fields) {
        self.at += c.len_utf8();
        self.step(c, fields);
    }

    fn step(&mut self, c: char, fields: &mut Fields) {
        if self.pending.is_empty() {
            if c == '<' || c == '&' && fields.is_text() {
                self.pending.push(c);
            } else {
                fields.stripped(c);
            }
            return;
        }
        if !may_follow(&self.pending, c) {
            // A `<` or `&` that only stands for itself.
            self.give_up(fields);
            self.step(c, fields);
            return;
        }
        self.pending.push(c);
        if is_whole(&self.pending) {
            let whole = std::mem::take(&mut self.pending);
            if whole.starts_with('<') {
                self.tag(&whole, fields);
            } else if let Some(c) = meaning(&whole) {
                fields.stripped(c);
            } else {
                whole.chars().for_each(|c| fields.stripped(c));
            }
        }
    }

    /// What might have become a tag or a reference is text.
    pub(super) fn give_up(&mut self, fields: &mut Fields) {
        std::mem::take(&mut self.pending)
            .chars()
            .for_each(|c| fields.stripped(c));
    }

    /// The element at the top is closed, and what is inside ends at `end`.
    fn close(&mut self, end: usize) {
        if let (Some((name, start)), Some(elements)) = (self.top.take(), &mut self.elements) {
            elements.push((name, start, end));
        }
    }

    /// All that is open belongs to the field.
    fn end(&mut self, fields: &mut Fields) {
        self.give_up(fields);
        fields.be_sure();
        fields.end(false);
    }

    fn tag(&mut self, tag: &str, fields: &mut Fields) {
        if fields.is_text() && (tag.starts_with("<!") || tag.starts_with("<?")) {
            // Comments and their like are no text; what is quoted is.
            let quoted = tag
                .strip_prefix(QUOTE)
                .and_then(|rest| rest.strip_suffix("]]>"));
            quoted
                .unwrap_or_default()
                .chars()
                .for_each(|c| fields.stripped(c));
            return;
        }
        let inside = &tag[1..tag.len() - 1];
        if let Some(name) = inside.strip_prefix('/') {
            let name = name.trim_end();
            // The element that is closed, and any inside that was left open.
            while self.names.get(name).is_some_and(|count| *count > 0) {
                let Some(inner) = self.open.pop() else { break };
                if let Some(count) = self.names.get_mut(&inner) {
                    *count -= 1;
                }
                if inner == name {
                    break;
                }
            }
            if self.open.is_empty() {
                fields.be_sure();
                fields.end(true);
                self.close(self.at - tag.len());
                return;
            }
        } else if !inside.starts_with(['!', '?']) {
            let name = inside
                .split([' ', '\t', '\n', '\r', '/'])
                .next()
                .unwrap_or_default();
            if self.open.is_empty() {
                fields.start(name);
                self.top = Some((name.to_owned(), self.at));
            } else if self.tolerant && fields.is_text() {
                fields.mention(name);
            }
            if inside.ends_with('/') {
                if self.open.is_empty() {
                    fields.end(true);
                    self.close(self.at);
                } else {
                    tag.chars().for_each(|c| fields.stripped(c));
                }
                return;
            }
            self.open.push(name.to_owned());
            *self.names.entry(name.to_owned()).or_default() += 1;
            if self.open.len() == 1 {
                return;
            }
        }
        tag.chars().for_each(|c| fields.stripped(c));
    }
}

/// The elements at the top of a reply that need not be XML, as far as they are closed.
#[must_use]
pub fn xml_elements(reply: &str) -> Vec<(String, usize, usize)> {
    let mut fields = Fields::new(&[], Layout::Xml);
    let mut scanner = Scanner {
        elements: Some(Vec::new()),
        ..Scanner::default()
    };
    reply.chars().for_each(|c| scanner.push(c, &mut fields));
    scanner.elements.unwrap_or_default()
}

/// What stands between the tags of a field of text, in a reply that is no XML: references and quotations are what
/// they stand for, comments nothing, and tags text.
#[must_use]
pub fn xml_text(inside: &str) -> String {
    const NAME: &str = "text";
    let mut fields = Fields::new(&[(NAME, true)], Layout::Xml);
    let mut scanner = Scanner::default();
    fields.start(NAME);
    scanner.open.push(NAME.to_owned());
    inside.chars().for_each(|c| scanner.push(c, &mut fields));
    scanner.end(&mut fields);
    let texts = fields.flush().into_iter().filter_map(|event| match event {
        Event::Text { text, .. } => Some(text),
        _ => None,
    });
    texts.collect()
}

/// What quotes text as it is.
const QUOTE: &str = "<![CDATA[";

/// Whether a tag or reference that has come as far as `pending` may go on with `c`.
fn may_follow(pending: &str, c: char) -> bool {
    if pending.starts_with('&') {
        return c == ';' || c == '#' && pending == "&" || c.is_alphanumeric();
    }
    if pending.starts_with("<!") || pending.starts_with("<?") {
        return true;
    }
    match pending {
        "<" => c.is_alphabetic() || matches!(c, '_' | ':' | '/' | '!' | '?'),
        "</" => c.is_alphabetic() || matches!(c, '_' | ':'),
        _ => c != '<',
    }
}

/// Whether `pending`, which has just grown, is a whole tag, comment, quotation or reference.
fn is_whole(pending: &str) -> bool {
    if pending.starts_with('&') {
        return pending.ends_with(';');
    }
    if pending.starts_with("<!--") {
        pending.len() >= "<!---->".len() && pending.ends_with("-->")
    } else if pending.starts_with(QUOTE) {
        pending.ends_with("]]>")
    } else if pending.starts_with("<?") {
        pending.ends_with("?>")
    } else {
        pending.ends_with('>')
    }
}

/// The character that `&amp;` and its like stand for.
fn meaning(reference: &str) -> Option<char> {
    let inside = reference.strip_prefix('&')?.strip_suffix(';')?;
    match inside {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let code = inside.strip_prefix('#')?;
            let code = match code.strip_prefix('x') {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => code.parse(),
            };
            char::from_u32(code.ok()?)
        }
    }
}
