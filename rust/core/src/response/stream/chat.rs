//! Headers, character by character.

use super::Fields;
use crate::text::{is_break, is_space, is_word};

/// Finds headers, and gives all other text to the field that is open.
#[derive(Debug)]
pub(super) struct Scanner {
    leaks: bool,
    /// Whether only white space has come since the last line break, and how much of it.
    indent: Option<usize>,
    /// What may become a header.
    header: String,
}

impl Scanner {
    pub(super) fn new(leaks: bool) -> Self {
        Self {
            leaks,
            indent: Some(0),
            header: String::new(),
        }
    }

    pub(super) fn push(&mut self, c: char, fields: &mut Fields) {
        if !self.header.is_empty() {
            self.header.push(c);
            match progress(&self.header) {
                Progress::Whole(name) => {
                    fields.start(name);
                    if self.leaks {
                        let indent = self.indent.unwrap_or_default();
                        let leaked = self.header.chars().count().saturating_sub(indent);
                        self.header
                            .chars()
                            .skip(leaked)
                            .for_each(|c| fields.stripped(c));
                    }
                    self.header.clear();
                    self.indent = None;
                    return;
                }
                Progress::Partial => return,
                Progress::None => {
                    self.header.pop();
                    self.give_up(fields);
                }
            }
        }
        if c == '[' && self.indent.is_some() {
            self.header.push(c);
            return;
        }
        if is_break(c) {
            self.indent = Some(0);
        } else if is_space(c) {
            self.indent = self.indent.map(|indent| indent + 1);
        } else {
            self.indent = None;
        }
        fields.stripped(c);
    }

    pub(super) fn finish(&mut self, fields: &mut Fields) {
        self.give_up(fields);
    }

    /// What might have become a header is text.
    fn give_up(&mut self, fields: &mut Fields) {
        let text = std::mem::take(&mut self.header);
        if !text.is_empty() {
            self.indent = None;
            text.chars().for_each(|c| fields.stripped(c));
        }
    }
}

enum Progress<'a> {
    Whole(&'a str),
    Partial,
    None,
}

/// How far `text` is on its way to `[[ ## name ## ]]`.
fn progress(text: &str) -> Progress<'_> {
    const START: &str = "[[ ## ";
    const END: &str = " ## ]]";
    let Some(inside) = text.strip_prefix(START) else {
        return if START.starts_with(text) {
            Progress::Partial
        } else {
            Progress::None
        };
    };
    let name = &inside[..inside.find(|c| !is_word(c)).unwrap_or(inside.len())];
    let end = &inside[name.len()..];
    match (name.is_empty(), end) {
        (true, "") => Progress::Partial,
        (false, END) => Progress::Whole(name),
        (false, _) if END.starts_with(end) => Progress::Partial,
        _ => Progress::None,
    }
}
