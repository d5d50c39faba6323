//! Markers, character by character.

use super::Fields;
use crate::header::{COMPLETED, Decoration, OPEN, Progress, behind};
use crate::response::tolerant::chat::may_end_line;
use crate::text::{is_break, is_space};

/// Finds markers, and gives all other text to the field that is open.
#[derive(Debug)]
pub(super) struct Scanner {
    /// Whether a marker counts that is decorated or stands inside a line; if not, an indented one leaks as in DSPy.
    tolerant: bool,
    /// Whether a marker may still lead this line, and what decorates it: that is text if none comes.
    leads: bool,
    decoration: String,
    form: Decoration,
    /// How much white space the line began with.
    indent: usize,
    /// What may become a marker, and how far it has come.
    marker: String,
    progress: Progress,
    /// Whether the line is that of a marker: what stands behind the marker there is stripped by itself.
    headed: bool,
    /// What decorated the marker of this line, and the text behind it, until the line is over.
    behind: Option<(String, String)>,
}

impl Scanner {
    pub(super) fn new(tolerant: bool) -> Self {
        Self {
            tolerant,
            leads: true,
            decoration: String::new(),
            form: Decoration::default(),
            indent: 0,
            marker: String::new(),
            progress: Progress::Open(0),
            headed: false,
            behind: None,
        }
    }

    pub(super) fn push(&mut self, c: char, fields: &mut Fields) {
        if let Some((_, line)) = &mut self.behind {
            if !is_break(c) {
                line.push(c);
                return;
            }
            self.line_is_over(fields);
        }
        self.step(c, fields);
    }

    pub(super) fn finish(&mut self, fields: &mut Fields) {
        self.line_is_over(fields);
        self.give_up(fields);
    }

    fn step(&mut self, c: char, fields: &mut Fields) {
        if !self.marker.is_empty() {
            match self.progress.with(c) {
                Some(Progress::Whole(len)) => {
                    self.marker.push(c);
                    self.found(len, fields);
                    return;
                }
                Some(progress) => {
                    self.marker.push(c);
                    self.progress = progress;
                    return;
                }
                // The third bracket in a row: a marker may begin with the second.
                None if c == '[' && self.progress == Progress::Open(2) && self.tolerant => {
                    let marker = std::mem::take(&mut self.marker);
                    self.give_up(fields);
                    self.leads = false;
                    Self::text(c, fields);
                    self.marker = marker;
                    return;
                }
                None => self.give_up(fields),
            }
        }
        if c == '[' && (self.tolerant || self.leads) {
            if self.leads && !self.form.is_whole() {
                self.give_up(fields);
            }
            self.marker.push(c);
            self.progress = Progress::Open(1);
            return;
        }
        if is_break(c) {
            self.give_up(fields);
            if std::mem::take(&mut self.headed) {
                fields.strip_line();
            }
            fields.line_is_over();
            (self.leads, self.indent) = (true, 0);
        } else if self.leads {
            if self.decoration.is_empty() && is_space(c) {
                self.indent += 1;
            } else if self.tolerant {
                self.decoration.push(c);
                match self.form.with(c) {
                    Some(form) => self.form = form,
                    None => self.give_up(fields),
                }
                return;
            } else {
                self.leads = false;
            }
        }
        Self::text(c, fields);
    }

    /// A marker has come whole, with a name of that length.
    fn found(&mut self, len: usize, fields: &mut Fields) {
        let name = &self.marker[OPEN.len()..OPEN.len() + len];
        if !self.leads {
            fields.mention(name);
            std::mem::take(&mut self.marker)
                .chars()
                .for_each(|c| fields.stripped(c));
            return;
        }
        if !self.decoration.is_empty() && name != COMPLETED && !fields.knows(name) {
            self.give_up(fields);
            return;
        }
        fields.start(name);
        let marker = std::mem::take(&mut self.marker);
        let decoration = std::mem::take(&mut self.decoration);
        self.form = Decoration::default();
        self.leads = false;
        self.headed = true;
        if !decoration.is_empty() {
            self.behind = Some((decoration, String::new()));
        } else if !self.tolerant {
            let leaked = marker.chars().count().saturating_sub(self.indent);
            marker.chars().skip(leaked).for_each(|c| fields.stripped(c));
        }
    }

    /// The line of a decorated marker is over: what is behind it is text, but for what closes the decoration.
    fn line_is_over(&mut self, fields: &mut Fields) {
        if let Some((decoration, line)) = self.behind.take() {
            let (text, closing) = behind(&decoration, &line);
            fields.close_with(closing);
            text.chars().for_each(|c| self.step(c, fields));
            self.give_up(fields);
        }
    }

    /// What might have become a marker is text.
    fn give_up(&mut self, fields: &mut Fields) {
        self.form = Decoration::default();
        for text in [
            std::mem::take(&mut self.decoration),
            std::mem::take(&mut self.marker),
        ] {
            if !text.is_empty() {
                self.leads = false;
                text.chars().for_each(|c| Self::text(c, fields));
            }
        }
    }

    fn text(c: char, fields: &mut Fields) {
        if !fields.ambiguous.is_empty() && !may_end_line(c) {
            fields.line_goes_on();
        }
        fields.stripped(c);
    }
}
