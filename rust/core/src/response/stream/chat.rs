//! Headers, character by character.

use super::Fields;
use crate::text::{is_break, is_space, is_word};

/// Finds headers, and gives all other text to the field that is open.
#[derive(Debug)]
pub(super) struct Scanner {
    /// Whether a header counts that is decorated; if not, an indented one leaks as in DSPy.
    tolerant: bool,
    /// Whether a header may still come in this line.
    leads: bool,
    /// How much white space the line began with.
    indent: usize,
    /// What decorates the header that may come, as in `**[[ ## name ## ]]**`: it is text if none comes.
    decoration: String,
    /// What may become a header, and how far it has come.
    header: String,
    progress: Progress,
    /// Whether the line is that of a header: what stands behind the header there is stripped by itself.
    headed: bool,
    /// What decorated the header of this line, and the text behind it, until the line is over.
    behind: Option<(String, String)>,
}

impl Scanner {
    pub(super) fn new(tolerant: bool) -> Self {
        Self {
            tolerant,
            leads: true,
            indent: 0,
            decoration: String::new(),
            header: String::new(),
            progress: Progress::Start(0),
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
        if !self.header.is_empty() {
            match self.progress.with(c) {
                Some(Progress::Whole(len)) if self.counts(len, fields) => {
                    self.header.push(c);
                    fields.start(&self.header[START.len()..START.len() + len]);
                    self.found(fields);
                    return;
                }
                None | Some(Progress::Whole(_)) => self.give_up(fields),
                Some(progress) => {
                    self.header.push(c);
                    self.progress = progress;
                    return;
                }
            }
        }
        if self.leads && c == '[' && is_decoration(&self.decoration) {
            self.header.push(c);
            self.progress = Progress::Start(1);
            return;
        }
        if is_break(c) {
            self.give_up(fields);
            if std::mem::take(&mut self.headed) {
                fields.strip_line();
            }
            (self.leads, self.indent) = (true, 0);
        } else if self.leads {
            if self.decoration.is_empty() && is_space(c) {
                self.indent += 1;
            } else if self.tolerant {
                self.decoration.push(c);
                if self.decoration.len() > LONGEST || !may_be_decoration(&self.decoration) {
                    self.give_up(fields);
                }
                return;
            } else {
                self.leads = false;
            }
        }
        fields.stripped(c);
    }

    pub(super) fn finish(&mut self, fields: &mut Fields) {
        self.line_is_over(fields);
        self.give_up(fields);
    }

    /// Whether a header counts whose name has that length: any, or where it is decorated one of the signature's.
    fn counts(&self, len: usize, fields: &Fields) -> bool {
        let name = &self.header[START.len()..START.len() + len];
        self.decoration.is_empty() || name == "completed" || fields.knows(name)
    }

    /// A header has come.
    fn found(&mut self, fields: &mut Fields) {
        let header = std::mem::take(&mut self.header);
        let decoration = std::mem::take(&mut self.decoration);
        self.leads = false;
        self.headed = true;
        if !decoration.is_empty() {
            self.behind = Some((decoration, String::new()));
        } else if !self.tolerant {
            let leaked = header.chars().count().saturating_sub(self.indent);
            header.chars().skip(leaked).for_each(|c| fields.stripped(c));
        }
    }

    /// The line of a decorated header is over: what is behind it is text, but for what closes the decoration.
    fn line_is_over(&mut self, fields: &mut Fields) {
        if let Some((decoration, line)) = self.behind.take() {
            undecorated(&decoration, &line)
                .chars()
                .for_each(|c| fields.stripped(c));
        }
    }

    /// What might have become a header is text.
    fn give_up(&mut self, fields: &mut Fields) {
        for text in [&mut self.decoration, &mut self.header] {
            let text = std::mem::take(text);
            if !text.is_empty() {
                self.leads = false;
                text.chars().for_each(|c| fields.stripped(c));
            }
        }
    }
}

/// Bytes of decoration that are looked at: more is a line drawn, and would be looked at again and again.
const LONGEST: usize = 32;

/// Whether `text` may still become what [`is_decoration`] takes.
fn may_be_decoration(text: &str) -> bool {
    if text.chars().all(|c| is_space(c) || "#>*_`-".contains(c)) {
        return true;
    }
    let rest = text.trim_start_matches(|c: char| c.is_numeric());
    if rest.len() == text.len() {
        return false;
    }
    let Some(rest) = rest.strip_prefix(['.', ')']) else {
        return rest.is_empty();
    };
    rest.trim_start_matches(is_space)
        .chars()
        .all(|c| "*_`".contains(c))
}

/// Whether `text` decorates what follows it: emphasis, code, a heading, a quotation, a list.
fn is_decoration(text: &str) -> bool {
    may_be_decoration(text) && !text.ends_with(char::is_numeric)
}

/// The text behind a header, without what closes the decoration before the header.
fn undecorated<'a>(decoration: &str, line: &'a str) -> &'a str {
    let mut line = line.trim_matches(is_space);
    if decoration.contains('#') {
        line = line.trim_end_matches('#').trim_end_matches(is_space);
    }
    let before = decoration.trim_end_matches(is_space);
    let emphasis = &before[before.trim_end_matches(['*', '_', '`']).len()..];
    if emphasis.is_empty() {
        return line;
    }
    let closing: String = emphasis.chars().rev().collect();
    let behind = line.strip_prefix(':').unwrap_or(line);
    match behind.strip_prefix(&closing) {
        Some(rest) => {
            let rest = rest.trim_start_matches(is_space);
            let colon = behind.len() == line.len();
            rest.strip_prefix(':').filter(|_| colon).unwrap_or(rest)
        }
        None => line.strip_suffix(&closing).unwrap_or(line),
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
