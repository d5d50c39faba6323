//! A reply in the layout of chat that DSPy refuses, cut as a person cuts it.
//!
//! What strict reading gave to a field stays that field's. A marker that is decorated, or stands inside a line,
//! counts for a field that strict reading did not find; and it ends what was not read, or holds what a field that
//! must be there lacks. Streams decide by the same rules as far as they can see: [`Decoration`], [`behind`] and
//! [`Brackets`] serve both.

use std::borrow::Cow;

use super::Strict;
use crate::header::{self, COMPLETED, Decoration, behind, closed, is_emphasis};
use crate::response::read::RepairCode;
use crate::text::{has_exotic_breaks, is_space, splitlines, strip, strip_start};

/// How the marker of a field stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// As it was asked for.
    Plain,
    /// Leading its line, but for what decorates it.
    Decorated,
    /// Inside a line.
    InLine,
}

impl Place {
    /// The repair that it takes to find the field; None where it takes none.
    #[must_use]
    pub fn repair(self) -> Option<RepairCode> {
        match self {
            Self::Plain => None,
            Self::Decorated => Some(RepairCode::MarkerDecorated),
            Self::InLine => Some(RepairCode::MarkerInLine),
        }
    }
}

/// A field of which there is a text now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The field, as `wanted` numbered it.
    pub field: usize,
    /// How its marker stands.
    pub place: Place,
    /// The line of its marker, up to the field's end.
    pub line: String,
    /// The text, stripped; or how often the field is mentioned, where no mention is its marker.
    pub text: Result<String, usize>,
}

/// The fields that strict reading did not read, as far as `reply` has them, and those that it read together with a
/// field that must be there. `fields` says what strict reading made of each, and whether it is text.
///
/// ```
/// use dspex_core::response::{Strict, cut};
///
/// let reply = "[[ ## a ## ]]\nyes\n**[[ ## n ## ]]** 3";
/// let wanted = |name: &str| ["a", "n"].iter().position(|known| *known == name);
/// let found = cut(reply, &[(Strict::Read, true), (Strict::Missing, false)], wanted);
/// assert_eq!(found[0].text.as_deref(), Ok("yes"));
/// assert_eq!(found[1].text.as_deref(), Ok("3"));
/// ```
pub fn cut(
    reply: &str,
    fields: &[(Strict, bool)],
    wanted: impl Fn(&str) -> Option<usize>,
) -> Vec<Cut> {
    let plain = if has_exotic_breaks(reply) {
        Cow::Owned(splitlines(reply).collect::<Vec<_>>().join("\n"))
    } else {
        Cow::Borrowed(reply)
    };
    Cutter::new(&plain, fields, marks(&plain, wanted)).cut()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Field(usize),
    Completed,
    /// A field that the signature lacks, which only a plain marker can name.
    Other,
}

#[derive(Debug)]
struct Mark {
    name: Name,
    place: Place,
    /// Whether strict reading sees it too: nothing but white space stands before it.
    strict: bool,
    /// Where its line begins, where it begins and ends itself, and where its line ends.
    line: usize,
    at: usize,
    after: usize,
    below: usize,
}

/// All markers, of the plain ones those of any name.
fn marks(reply: &str, wanted: impl Fn(&str) -> Option<usize>) -> Vec<Mark> {
    let mut marks = Vec::new();
    let mut line = 0;
    while line < reply.len() {
        let below = reply[line..]
            .find('\n')
            .map_or(reply.len(), |len| line + len);
        let content = below - strip_start(&reply[line..below]).len();
        let mut leads = true;
        for (at, name) in header::find(&reply[content..below]) {
            let decoration = &reply[content..content + at];
            let at = content + at;
            let place = if !std::mem::take(&mut leads) {
                Place::InLine
            } else if decoration.is_empty() && at == line {
                Place::Plain
            } else if Decoration::is(decoration) {
                Place::Decorated
            } else {
                Place::InLine
            };
            let name = match (wanted(name), name) {
                (Some(field), _) => Name::Field(field),
                (None, COMPLETED) => Name::Completed,
                (None, _) if place != Place::InLine && decoration.is_empty() => Name::Other,
                _ => continue,
            };
            let after = at + header::at_start(&reply[at..]).map_or(0, |(_, len)| len);
            marks.push(Mark {
                name,
                place,
                strict: place != Place::InLine && decoration.is_empty(),
                line,
                at,
                after,
                below,
            });
        }
        line = below + 1;
    }
    marks
}

/// A section that is open.
struct Open {
    field: usize,
    /// Whether strict reading read it.
    read: bool,
    place: Place,
    /// Where the line of its marker begins, where its text begins and ends in that line, and where the line ends.
    line: usize,
    start: usize,
    end: usize,
    below: usize,
    /// What closes the emphasis that is still open.
    closing: String,
    brackets: Brackets,
    /// How far the brackets have been followed.
    at: usize,
}

struct Cutter<'a> {
    reply: &'a str,
    fields: &'a [(Strict, bool)],
    marks: Vec<Mark>,
    /// By field: whether a marker of it leads a line, and how many stand inside lines.
    leads: Vec<bool>,
    mentions: Vec<usize>,
    found: Vec<bool>,
    cuts: Vec<Cut>,
}

impl<'a> Cutter<'a> {
    fn new(reply: &'a str, fields: &'a [(Strict, bool)], marks: Vec<Mark>) -> Self {
        let mut leads = vec![false; fields.len()];
        let mut mentions = vec![0; fields.len()];
        for mark in &marks {
            match (mark.name, mark.place) {
                (Name::Field(field), Place::InLine) => mentions[field] += 1,
                (Name::Field(field), _) => leads[field] = true,
                _ => {}
            }
        }
        Self {
            reply,
            fields,
            marks,
            leads,
            mentions,
            found: vec![false; fields.len()],
            cuts: Vec::new(),
        }
    }

    fn cut(mut self) -> Vec<Cut> {
        let mut open: Option<Open> = None;
        for at in 0..self.marks.len() {
            if !self.counts(at, open.as_mut()) {
                continue;
            }
            let mark = &self.marks[at];
            let end = if mark.place == Place::InLine {
                mark.at
            } else {
                mark.line
            };
            let strict = mark.strict;
            self.close(open.take(), end, strict);
            open = self.open(at);
        }
        self.close(open, self.reply.len(), true);
        for (field, &(strict, _)) in self.fields.iter().enumerate() {
            let is_sought = matches!(strict, Strict::Absent | Strict::Missing);
            if is_sought && !self.found[field] && self.mentions[field] > 1 {
                self.cuts.push(Cut {
                    field,
                    place: Place::InLine,
                    line: String::new(),
                    text: Err(self.mentions[field]),
                });
            }
        }
        self.cuts
    }

    /// Whether a marker ends what is open.
    fn counts(&self, at: usize, open: Option<&mut Open>) -> bool {
        let mark = &self.marks[at];
        if mark.strict {
            return true;
        }
        let is_in_line = mark.place == Place::InLine;
        let is_missing = match mark.name {
            Name::Field(field) => {
                let strict = self.fields[field].0;
                let is_sought = matches!(strict, Strict::Absent | Strict::Missing);
                let is_only = !self.leads[field] && self.mentions[field] == 1;
                if is_in_line && !(is_sought && is_only) {
                    return false;
                }
                strict == Strict::Missing && !self.found[field]
            }
            _ if is_in_line && !ends_line(&self.reply[mark.after..mark.below]) => return false,
            _ => false,
        };
        let Some(open) = open else { return true };
        if open.read && !is_missing {
            return false;
        }
        let is_text = self.fields[open.field].1;
        if is_text || !open.read && !is_in_line {
            return true;
        }
        open.follow(self.reply, mark.at);
        // A line of its own is no part of a list that was not closed.
        open.brackets.are_closed() || !is_in_line && !open.brackets.in_string
    }

    /// The section that a marker opens, if it is its field's first.
    fn open(&mut self, at: usize) -> Option<Open> {
        let mark = &self.marks[at];
        let Name::Field(field) = mark.name else {
            return None;
        };
        let strict = self.fields[field].0;
        let is_own = mark.strict == matches!(strict, Strict::Read | Strict::Refused);
        if !is_own || std::mem::replace(&mut self.found[field], true) {
            return None;
        }
        let before = &self.reply[mark.line..mark.at];
        let decoration = match mark.place {
            Place::InLine => &before[before.trim_end_matches(is_emphasis).len()..],
            Place::Plain | Place::Decorated => strip_start(before),
        };
        let line = &self.reply[mark.after..mark.below];
        let (text, closing) = behind(decoration, line);
        let start = mark.after + line.find(text).unwrap_or(line.len());
        Some(Open {
            field,
            read: strict == Strict::Read,
            place: mark.place,
            line: mark.line,
            start,
            end: start + text.len(),
            below: mark.below,
            closing,
            brackets: Brackets::default(),
            at: start,
        })
    }

    /// End a section at `end`, where strict reading ends it too or not.
    fn close(&mut self, open: Option<Open>, end: usize, strict: bool) {
        let Some(open) = open else { return };
        if open.read && strict {
            return;
        }
        let behind = &self.reply[open.start..open.end.min(end).max(open.start)];
        let below = &self.reply[open.below.min(end)..end];
        let text = [behind, below].concat();
        let text = strip(&text);
        let count = match &*open.closing {
            "" => 0,
            closing => text.matches(closing).count(),
        };
        self.cuts.push(Cut {
            field: open.field,
            place: open.place,
            line: self.reply[open.line..open.below.min(end)].to_owned(),
            text: Ok(closed(text, &open.closing, count).to_owned()),
        });
    }
}

impl Open {
    /// Follow the brackets up to `end`.
    fn follow(&mut self, reply: &str, end: usize) {
        for (from, to) in [(self.at, self.end), (self.below, usize::MAX)] {
            let (from, to) = (from.max(self.at), to.min(end));
            if from < to {
                let text = &reply[from..to];
                text.chars().for_each(|c| self.brackets.push(c));
                self.at = to;
            }
        }
    }
}

/// Whether nothing but decoration stands in the rest of a line.
fn ends_line(rest: &str) -> bool {
    rest.chars().all(may_end_line)
}

pub(in crate::response) fn may_end_line(c: char) -> bool {
    is_space(c) || is_emphasis(c) || c == '#'
}

/// Whether a value that is no text is closed, as far as it has come: a marker inside a list, a mapping or a
/// quotation is a part of the value.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::response) struct Brackets {
    depth: u32,
    /// Whether it begins like JSON, once it has begun.
    is_json: Option<bool>,
    in_string: bool,
    escaped: bool,
}

impl Brackets {
    pub(in crate::response) fn push(&mut self, c: char) {
        if self.is_json.is_none() && is_space(c) {
            return;
        }
        if !*self.is_json.get_or_insert(matches!(c, '[' | '{' | '"')) {
            return;
        }
        match c {
            _ if self.in_string => {
                self.in_string = self.escaped || c != '"';
                self.escaped = c == '\\' && !self.escaped;
            }
            '"' => self.in_string = true,
            '[' | '{' => self.depth += 1,
            ']' | '}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }

    /// Whether nothing is open.
    pub(in crate::response) fn are_closed(self) -> bool {
        self.depth == 0 && !self.in_string
    }
}
