//! Headers, character by character.

use super::Fields;
use crate::text::{is_break, is_space, is_word};

/// Finds headers, and gives all other text to the field that is open.
#[derive(Debug)]
pub(super) struct Scanner {
    leaks: bool,
    /// Whether only white space has come since the last line break, and how much of it.
    indent: Option<usize>,
    /// What may become a header, and how far it has come.
    header: String,
    progress: Progress,
    /// Whether the line is that of a header: what stands behind the header there is stripped by itself.
    headed: bool,
}

impl Scanner {
    pub(super) fn new(leaks: bool) -> Self {
        Self {
            leaks,
            indent: Some(0),
            header: String::new(),
            progress: Progress::Start(0),
            headed: false,
        }
    }

    pub(super) fn push(&mut self, c: char, fields: &mut Fields) {
        if !self.header.is_empty() {
            match self.progress.with(c) {
                Some(Progress::Whole(len)) => {
                    self.header.push(c);
                    fields.start(&self.header[START.len()..START.len() + len]);
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
                    self.headed = true;
                    return;
                }
                Some(progress) => {
                    self.header.push(c);
                    self.progress = progress;
                    return;
                }
                None => self.give_up(fields),
            }
        }
        if c == '[' && self.indent.is_some() {
            self.header.push(c);
            self.progress = Progress::Start(1);
            return;
        }
        if is_break(c) {
            self.indent = Some(0);
            if std::mem::take(&mut self.headed) {
                fields.strip_line();
            }
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

/// How much of `[[ ## name ## ]]` has come; each character is looked at once, however long the name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// This many characters of what stands before the name.
    Start(usize),
    /// The name, as long as that in bytes.
    Name(usize),
    /// A name of that length, and this many characters of what stands behind it.
    End(usize, usize),
    Whole(usize),
}

const START: &str = "[[ ## ";
const END: &str = " ## ]]";

impl Progress {
    /// What it is with one more character; None where that cannot be.
    fn with(self, c: char) -> Option<Self> {
        let next = |text: &str, at: usize| text[at..].starts_with(c).then_some(at + 1);
        match self {
            Self::Start(at) if at < START.len() => next(START, at).map(Self::Start),
            Self::Start(_) => is_word(c).then_some(Self::Name(c.len_utf8())),
            Self::Name(len) if is_word(c) => Some(Self::Name(len + c.len_utf8())),
            Self::Name(len) => next(END, 0).map(|at| Self::End(len, at)),
            Self::End(len, at) => next(END, at).map(|at| {
                if at == END.len() {
                    Self::Whole(len)
                } else {
                    Self::End(len, at)
                }
            }),
            Self::Whole(_) => None,
        }
    }
}
