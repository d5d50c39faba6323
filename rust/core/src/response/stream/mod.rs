//! A reply as it comes in: fields begin, grow and end while the rest is still on its way.
//!
//! Bytes may be cut anywhere, inside a marker or a character too: what may still become a marker, and white
//! space that may turn out to be the last, is held back until it is sure. So the events do not depend on the
//! cuts, but for how the text of a field is shared out among its deltas, and at which points a value that is no
//! text is emitted while it grows.
//!
//! The last piece of a field is marked as such. What the events cannot know is how the reply as a whole is
//! read: the bindings compare, when it is over, and report every field that was read otherwise.

mod chat;
mod json;
mod partial;
mod xml;

pub(crate) use partial::partial;
pub use xml::{xml_elements, xml_text};

use crate::header::{COMPLETED, closed, is_emphasis};
use crate::prompt::Layout;
use crate::response::tolerant::chat::Brackets;
use crate::text::{is_space, splitlines};

/// Something that a reply says, as soon as it is sure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A field begins.
    Start {
        /// Its place among the outputs.
        field: usize,
    },
    /// The text of a field goes on.
    Text {
        /// Its place among the outputs.
        field: usize,
        /// What came since the last piece; in the last one it may be empty.
        text: String,
        /// Whether it is the last piece.
        is_last: bool,
    },
    /// The value of a field that is no text has grown.
    Value {
        /// Its place among the outputs.
        field: usize,
        /// All that has come of it so far.
        text: String,
        /// Whether that is the whole of it.
        is_last: bool,
    },
    /// A field has ended.
    End {
        /// Its place among the outputs.
        field: usize,
        /// Whether the reply itself ended it; if not, it only broke off.
        complete: bool,
    },
}

/// A value that grows is emitted again when it has grown by this part of itself, so that the work over a whole
/// reply stays in proportion to its length.
const STEP: usize = 32;

/// Reads one reply.
#[derive(Debug)]
pub struct ReplyStream {
    scanner: Scanner,
    fields: Fields,
    /// The bytes of a character that has not come whole.
    tail: Vec<u8>,
}

#[derive(Debug)]
enum Scanner {
    Chat(chat::Scanner),
    Json(json::Scanner),
    Xml(xml::Scanner),
}

impl ReplyStream {
    /// A stream for the fields of these names; those marked are text. `tolerant` says whether the whole reply may
    /// be read with tolerance: in chat a decorated marker counts then, and what follows another field's marker
    /// inside a line, or in XML inside a field that is not closed, is held back until it is sure whose it is. If not,
    /// an indented marker leaves its last characters in the value, as in DSPy.
    #[must_use]
    pub fn new(layout: Layout, names: &[(&str, bool)], tolerant: bool) -> Self {
        let scanner = match layout {
            Layout::Chat => Scanner::Chat(chat::Scanner::new(tolerant)),
            Layout::Json => Scanner::Json(json::Scanner::default()),
            Layout::Xml => Scanner::Xml(xml::Scanner::new(tolerant)),
        };
        Self {
            scanner,
            fields: Fields::new(names, layout),
            tail: Vec::new(),
        }
    }

    /// The next bytes of the reply. A byte that is no UTF-8 counts as U+FFFD.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut all = std::mem::take(&mut self.tail);
        all.extend_from_slice(bytes);
        let mut rest = all.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.push(text);
                    break;
                }
                Err(error) => {
                    let (good, bad) = rest.split_at(error.valid_up_to());
                    self.push(std::str::from_utf8(good).unwrap_or_default());
                    let Some(len) = error.error_len() else {
                        self.tail = bad.to_vec();
                        break;
                    };
                    self.push("\u{fffd}");
                    rest = &bad[len..];
                }
            }
        }
        self.fields.flush()
    }

    /// The reply is over.
    pub fn finish(&mut self) -> Vec<Event> {
        if !std::mem::take(&mut self.tail).is_empty() {
            self.push("\u{fffd}");
        }
        match &mut self.scanner {
            Scanner::Chat(scanner) => scanner.finish(&mut self.fields),
            Scanner::Xml(scanner) => scanner.give_up(&mut self.fields),
            Scanner::Json(scanner) => scanner.finish(&mut self.fields),
        }
        self.fields.end(false);
        self.fields.flush()
    }

    fn push(&mut self, text: &str) {
        for c in text.chars() {
            match &mut self.scanner {
                Scanner::Chat(scanner) => scanner.push(c, &mut self.fields),
                Scanner::Json(scanner) => scanner.push(c, &mut self.fields),
                Scanner::Xml(scanner) => scanner.push(c, &mut self.fields),
            }
        }
    }
}

/// The fields of a reply, and the one that is being read.
#[derive(Debug)]
struct Fields {
    known: Vec<Known>,
    open: Option<usize>,
    /// What has come of the open field and not been emitted yet; all that has come, where it is no text.
    text: String,
    /// White space that is the field's only if more follows.
    buffered: String,
    /// Whether anything but white space has come of the open field.
    begun: bool,
    /// How much there is in `text` that was not emitted.
    pending: usize,
    /// What is open in the value of the open field, where that is followed: a value of Chat that is no text.
    brackets: Option<Brackets>,
    /// The emphasis before the field's marker that is still open, as it is closed, and how often the text has it.
    closing: String,
    count: usize,
    /// The markers inside the open field that may be those of other fields, and what came from the first on.
    ambiguous: Vec<Ambiguous>,
    undecided: String,
    /// Whether what comes is no text of the field, but something that its text will be made of.
    skip: bool,
    /// Whether every line break that Python knows becomes `\n`, as in chat, or only the carriage returns.
    all_breaks: bool,
    events: Vec<Event>,
}

#[derive(Debug)]
struct Known {
    name: Box<str>,
    is_text: bool,
    seen: bool,
    /// Whether its marker has stood where it may only be a mention of it.
    mentioned: bool,
}

/// A marker that may be one, or only a mention of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ambiguous {
    Field(usize),
    /// The end of the reply, which is none if the line goes on.
    InLine,
    Completed,
}

impl Fields {
    fn new(names: &[(&str, bool)], layout: Layout) -> Self {
        let known = |&(name, is_text): &(&str, bool)| Known {
            name: name.into(),
            is_text,
            seen: false,
            mentioned: false,
        };
        Self {
            known: names.iter().map(known).collect(),
            open: None,
            text: String::new(),
            buffered: String::new(),
            begun: false,
            pending: 0,
            brackets: None,
            closing: String::new(),
            count: 0,
            ambiguous: Vec::new(),
            undecided: String::new(),
            skip: false,
            all_breaks: layout == Layout::Chat,
            events: Vec::new(),
        }
    }

    /// Begin the field of this name, the first time that it comes.
    fn start(&mut self, name: &str) {
        let at = self.place(name);
        if let Some(at) = at {
            self.settle(|marker| marker == Ambiguous::Field(at));
        }
        self.end(true);
        if let Some(at) = at.filter(|at| !self.known[*at].seen) {
            self.known[at].seen = true;
            self.open = Some(at);
            self.brackets = (self.all_breaks && !self.known[at].is_text).then(Brackets::default);
            self.events.push(Event::Start { field: at });
        }
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.known.iter().position(|known| &*known.name == name)
    }

    fn is_text(&self) -> bool {
        self.open.is_some_and(|at| self.known[at].is_text)
    }

    fn knows(&self, name: &str) -> bool {
        self.place(name).is_some()
    }

    /// A marker comes where it may only be a mention of it: what it begins is emitted when that is sure.
    fn mention(&mut self, name: &str) {
        let marker = match self.place(name) {
            Some(at) if self.known[at].seen => return,
            Some(at) if std::mem::replace(&mut self.known[at].mentioned, true) => {
                self.settle(|marker| marker == Ambiguous::Field(at));
                return;
            }
            Some(at) => Ambiguous::Field(at),
            None if name == COMPLETED => Ambiguous::InLine,
            None => return,
        };
        if self.open.is_some() && (self.is_text() || self.brackets.is_none_or(Brackets::are_closed))
        {
            self.ambiguous.push(marker);
        }
    }

    /// These markers were mentions.
    fn settle(&mut self, is_mention: impl Fn(Ambiguous) -> bool) {
        self.ambiguous.retain(|marker| !is_mention(*marker));
        if self.ambiguous.is_empty() {
            std::mem::take(&mut self.undecided)
                .chars()
                .for_each(|c| self.surely(c));
        }
    }

    /// All that has come is the open field's.
    fn be_sure(&mut self) {
        self.settle(|_| true);
    }

    /// The line goes on with text.
    fn line_goes_on(&mut self) {
        if self.ambiguous.contains(&Ambiguous::InLine) {
            self.settle(|marker| marker == Ambiguous::InLine);
        }
    }

    fn line_is_over(&mut self) {
        for marker in &mut self.ambiguous {
            if *marker == Ambiguous::InLine {
                *marker = Ambiguous::Completed;
            }
        }
    }

    /// Emphasis is open that the end of the text, which now begins, may close.
    fn close_with(&mut self, closing: String) {
        self.closing = closing;
    }

    /// The text of the open field is not what comes, and nobody knows it before the reply is read.
    fn skip(&mut self) {
        self.skip = true;
    }

    /// A character of a value that counts as it is.
    fn exactly(&mut self, c: char) {
        if self.open.is_some() && !self.skip {
            self.text.push(c);
            self.pending += c.len_utf8();
        }
    }

    /// So many of them.
    fn exactly_all(&mut self, text: &str) {
        if self.open.is_some() && !self.skip {
            self.text.push_str(text);
            self.pending += text.len();
        }
    }

    /// A character of a value that is stripped, its line breaks being `\n`.
    fn stripped(&mut self, c: char) {
        if self.open.is_none() {
            return;
        }
        if let Some(brackets) = &mut self.brackets {
            brackets.push(c);
        }
        if self.ambiguous.is_empty() {
            self.surely(c);
        } else {
            self.undecided.push(c);
        }
    }

    fn surely(&mut self, c: char) {
        if is_space(c) {
            if self.begun {
                self.buffered.push(c);
            }
            return;
        }
        self.begun = true;
        if !self.closing.is_empty() && is_emphasis(c) {
            self.buffered.push(c);
            return;
        }
        if !self.buffered.is_empty() {
            let buffered = std::mem::take(&mut self.buffered);
            self.release(&buffered);
        }
        self.exactly(c);
    }

    /// What was held back belongs to the text.
    fn release(&mut self, buffered: &str) {
        let before = self.text.len();
        if self.all_breaks {
            if !self.closing.is_empty() {
                self.count += buffered.matches(&self.closing).count();
            }
            // One more character, so that a break at the end keeps the line that it opens.
            let lines = buffered.to_owned() + "|";
            let joined = splitlines(&lines).collect::<Vec<_>>().join("\n");
            self.text.push_str(&joined[..joined.len() - 1]);
        } else {
            let lines = buffered.replace("\r\n", "\n").replace('\r', "\n");
            self.text.push_str(&lines);
        }
        self.pending += self.text.len() - before;
    }

    /// White space that came last belongs to no value: the line that it ends is stripped.
    fn strip_line(&mut self) {
        let text = if self.ambiguous.is_empty() {
            &mut self.buffered
        } else {
            &mut self.undecided
        };
        text.truncate(text.trim_end_matches(is_space).len());
    }

    /// The open field ends, by the reply's own word or because there is no more. White space that was held back
    /// was its last; what may be another field's is not emitted as its text.
    fn end(&mut self, complete: bool) {
        if let Some(at) = self.open {
            if !self.closing.is_empty() {
                let buffered = std::mem::take(&mut self.buffered);
                let buffered = buffered.trim_end_matches(is_space);
                let count = self.count + buffered.matches(&self.closing).count();
                self.release(closed(buffered, &self.closing, count));
            }
            self.open = None;
            let text = std::mem::take(&mut self.text);
            self.events.push(if self.known[at].is_text {
                Event::Text {
                    field: at,
                    text,
                    is_last: true,
                }
            } else {
                Event::Value {
                    field: at,
                    text,
                    is_last: true,
                }
            });
            self.events.push(Event::End {
                field: at,
                complete,
            });
        }
        self.text.clear();
        self.buffered.clear();
        self.brackets = None;
        self.closing.clear();
        self.count = 0;
        self.ambiguous.clear();
        self.undecided.clear();
        self.begun = false;
        self.skip = false;
        self.pending = 0;
    }

    fn emit(&mut self) {
        let Some(at) = self.open else { return };
        if self.pending == 0 {
            return;
        }
        if self.known[at].is_text {
            self.events.push(Event::Text {
                field: at,
                text: std::mem::take(&mut self.text),
                is_last: false,
            });
        } else if self.pending * STEP >= self.text.len() {
            self.events.push(Event::Value {
                field: at,
                text: self.text.clone(),
                is_last: false,
            });
        } else {
            return;
        }
        self.pending = 0;
    }

    fn flush(&mut self) -> Vec<Event> {
        self.emit();
        std::mem::take(&mut self.events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[(&str, bool)] = &[("a", true), ("n", false)];

    fn start(field: usize) -> Event {
        Event::Start { field }
    }

    fn text_of(field: usize, text: &str, is_last: bool) -> Event {
        let text = text.to_owned();
        Event::Text {
            field,
            text,
            is_last,
        }
    }

    fn value_of(field: usize, text: &str, is_last: bool) -> Event {
        let text = text.to_owned();
        Event::Value {
            field,
            text,
            is_last,
        }
    }

    fn end(field: usize, complete: bool) -> Event {
        Event::End { field, complete }
    }

    /// The events, with the pieces of each value put together.
    fn emitted(layout: Layout, reply: &str, size: usize, tolerant: bool) -> Vec<Event> {
        let mut stream = ReplyStream::new(layout, NAMES, tolerant);
        let mut all: Vec<Event> = Vec::new();
        let pieces: Vec<&[u8]> = reply.as_bytes().chunks(size).collect();
        let events = pieces
            .into_iter()
            .flat_map(|piece| stream.feed(piece))
            .collect::<Vec<_>>();
        for event in events.into_iter().chain(stream.finish()) {
            match (all.last_mut(), &event) {
                (
                    Some(Event::Text {
                        text: before,
                        is_last: last,
                        ..
                    }),
                    Event::Text {
                        text: more,
                        is_last,
                        ..
                    },
                ) => {
                    assert!(!*last, "nothing comes behind the last piece");
                    before.push_str(more);
                    *last = *is_last;
                }
                (
                    Some(Event::Value {
                        text: before,
                        is_last: last,
                        ..
                    }),
                    Event::Value {
                        text: now, is_last, ..
                    },
                ) => {
                    assert!(!*last, "nothing comes behind the last piece");
                    before.clone_from(now);
                    *last = *is_last;
                }
                _ => all.push(event),
            }
        }
        all
    }

    fn both(text: &str, value: &str) -> Vec<Event> {
        vec![
            start(0),
            text_of(0, text, true),
            end(0, true),
            start(1),
            value_of(1, value, true),
            end(1, true),
        ]
    }

    #[test]
    fn events_do_not_depend_on_the_cuts() {
        let cases = [
            (
                Layout::Chat,
                "Hm.\n[[ ## a ## ]]\n\n Pa ris\r\n[[ x é“ \n\n[[ ## n ## ]] \n[1,\n2]\n\n[[ ## completed ## ]]\n",
                both("Pa ris\n[[ x é“", "[1,\n2]"),
            ),
            (
                Layout::Json,
                "Here: {\"a\": \"P\\u00e9\\n\\ud83d\\ude00\\\"“ \", \"x\": {\"a\": 1}, \"n\": [1, \"}\"]} and more",
                both("Pé\n😀\"“ ", "[1, \"}\"]"),
            ),
            (
                Layout::Xml,
                "So: <a>\n 1 &lt; 2 &amp; R & D < <!-- > -->3é<![CDATA[ <x>&amp;]]>\n</a><b><n>no</n></b>\n<n><item>1</item></n>",
                both("1 < 2 & R & D < 3é <x>&amp;", "<item>1</item>"),
            ),
            (
                Layout::Chat,
                "[[ ## a ## ]] first  \n second\n[[ ## n ## ]] 1\n[[ ## completed ## ]]",
                both("first\n second", "1"),
            ),
            (
                Layout::Xml,
                "<b/></c><a>1\u{85}2\r\n3\r4</a></a><n><k/>5</n>",
                both("1\u{85}2\n3\n4", "<k/>5"),
            ),
        ];
        for (layout, reply, expected) in cases {
            for size in 1..=reply.len() {
                for tolerant in [false, true] {
                    assert_eq!(
                        emitted(layout, reply, size, tolerant),
                        expected,
                        "{layout:?} in pieces of {size}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_comma_in_json_is_the_texts_if_the_quote_behind_it_closes_the_text() {
        let one = |text, complete| vec![start(0), text_of(0, text, true), end(0, complete)];
        let cases = [
            (r#"{"a": "Pa, ris, ", "n": 3}"#, both("Pa, ris, ", "3")),
            (r#"{"a": "Paris, "}"#, one("Paris, ", true)),
            (r#"{"a": "Paris, " "#, one("Paris, ", true)),
            (r#"{"a": "Paris, "n": 3}"#, one("Paris", true)),
            (r#"{"a": "Paris , n": 3}"#, one("Paris , n", true)),
            (r#"{"a": "Paris, "#, one("Paris", false)),
        ];
        for (reply, expected) in cases {
            for size in 1..=reply.len() {
                let emitted = emitted(Layout::Json, reply, size, false);
                assert_eq!(emitted, expected, "{reply} in pieces of {size}");
            }
        }
    }

    #[test]
    fn a_decorated_header_counts_where_tolerance_reads_it() {
        let cases = [
            "**[[ ## a ## ]]** Pa\nris\n**[[ ## n ## ]]**: 3\n**[[ ## completed ## ]]**",
            "# [[ ## a ## ]] #\nPa\nris\n## [[ ## n ## ]]\n3\n[[ ## completed ## ]]",
            " 1. [[ ## a ## ]]\n Pa\nris\n2) **[[ ## n ## ]]**\n3\n- [[ ## completed ## ]]",
            "> `[[ ## a ## ]]`\nPa\nris\n_[[ ## n ## ]]_\n3\n[[ ## completed ## ]]",
        ];
        for reply in cases {
            for size in 1..=reply.len() {
                assert_eq!(
                    emitted(Layout::Chat, reply, size, true),
                    both("Pa\nris", "3"),
                    "{reply} in pieces of {size}"
                );
            }
        }
    }

    #[test]
    fn what_only_looks_like_a_decorated_header_is_text() {
        let text = "- one\n1. two\n**bold**\n# [[ ## x ## ]]\n---\n3. ** [[ ## a ## ]]\n12";
        let reply = format!("[[ ## a ## ]]\n{text}");
        for size in 1..=reply.len() {
            let expected = vec![start(0), text_of(0, text, true), end(0, false)];
            assert_eq!(emitted(Layout::Chat, &reply, size, true), expected);
        }
    }

    #[test]
    fn text_is_emitted_as_soon_as_it_is_sure() {
        for tolerant in [false, true] {
            let mut stream = ReplyStream::new(Layout::Chat, NAMES, tolerant);
            let piece = |text: &str| [text_of(0, text, false)];
            assert_eq!(stream.feed(b"[[ ## a #"), []);
            assert_eq!(
                stream.feed(b"# ]]\nPar"),
                [start(0), text_of(0, "Par", false)]
            );
            assert_eq!(stream.feed(b"is \n"), piece("is"));
            assert_eq!(stream.feed(b"[["), []);
            assert_eq!(stream.feed(b"x"), piece(" \n[[x"));
            let end = [text_of(0, "", true), end(0, false)];
            assert_eq!(stream.finish(), end);
        }
    }

    #[test]
    fn an_element_without_content_begins_and_ends() {
        let mut stream = ReplyStream::new(Layout::Xml, NAMES, false);
        let empty = text_of(0, "", true);
        assert_eq!(stream.feed(b"<a/>"), [start(0), empty, end(0, true)]);
        assert_eq!(stream.finish(), []);
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        let mut stream = ReplyStream::new(Layout::Chat, NAMES, false);
        stream.feed(b"[[ ## a ## ]]\n");
        assert_eq!(
            stream.feed(b"\xffx\xe2\x82"),
            [text_of(0, "\u{fffd}x", false)]
        );
        assert_eq!(
            stream.finish(),
            [text_of(0, "\u{fffd}", true), end(0, false)]
        );
    }

    #[test]
    fn an_indented_header_leaks_where_dspy_lets_it() {
        let mut stream = ReplyStream::new(Layout::Chat, NAMES, false);
        assert_eq!(
            stream.feed(b"  [[ ## a ## ]]"),
            [start(0), text_of(0, "]]", false)]
        );
        let mut stream = ReplyStream::new(Layout::Chat, NAMES, true);
        assert_eq!(stream.feed(b"  [[ ## a ## ]]"), [start(0)]);
    }

    #[test]
    fn a_value_that_grows_is_emitted_in_steps() {
        let mut stream = ReplyStream::new(Layout::Chat, NAMES, false);
        stream.feed(b"[[ ## n ## ]]\n[");
        let emitted = (0..10_000)
            .filter(|_| !stream.feed(b"1,").is_empty())
            .count();
        assert!((64..400).contains(&emitted), "{emitted}");
    }
}
