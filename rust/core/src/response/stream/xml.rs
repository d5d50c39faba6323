//! The fields' elements at the top of a reply, character by character.

use std::collections::HashMap;

use super::Fields;

/// Follows tags; all inside a field belongs to it.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// The elements that are open, outermost first.
    open: Vec<String>,
    /// How many elements of each name are open, so that a closing tag of no element costs nothing to pass over.
    names: HashMap<String, usize>,
    /// A tag or a reference, from its first character on, as far as it has come.
    pending: String,
}

impl Scanner {
    pub(super) fn push(&mut self, c: char, fields: &mut Fields) {
        match (self.pending.chars().next(), c) {
            (None, '<') => self.pending.push(c),
            (None, '&') if fields.is_text() => self.pending.push(c),
            (None, _) => fields.stripped(c),
            (Some('<'), '>') => {
                self.pending.push(c);
                let tag = std::mem::take(&mut self.pending);
                self.tag(&tag, fields);
            }
            (Some('&'), ';') => {
                self.pending.push(c);
                let reference = std::mem::take(&mut self.pending);
                match meaning(&reference) {
                    Some(c) => fields.stripped(c),
                    None => reference.chars().for_each(|c| fields.stripped(c)),
                }
            }
            (Some('&'), '<' | '&') => {
                std::mem::take(&mut self.pending)
                    .chars()
                    .for_each(|c| fields.stripped(c));
                self.pending.push(c);
            }
            _ => self.pending.push(c),
        }
    }

    fn tag(&mut self, tag: &str, fields: &mut Fields) {
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
                fields.end();
                return;
            }
        } else if !inside.starts_with(['!', '?']) {
            let name = inside
                .split([' ', '\t', '\n', '\r', '/'])
                .next()
                .unwrap_or_default();
            if self.open.is_empty() {
                fields.start(name);
            }
            if inside.ends_with('/') {
                if self.open.is_empty() {
                    fields.end();
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
