//! A reply as it comes in: fields begin, grow and end while the rest is still on its way.
//!
//! Bytes may be cut anywhere, inside a marker or a character too: what may still become a marker, and white
//! space that may turn out to be the last, is held back until it is sure. So the events do not depend on the
//! cuts, but for how the text of a field is shared out among its deltas.

mod chat;
mod json;
mod xml;

use crate::prompt::Layout;
use crate::text::{is_space, splitlines};

/// Something that a reply says, as soon as it is sure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A field begins.
    Start(usize),
    /// The text of a field goes on.
    Text(usize, String),
    /// All that has come so far of the value of a field that is no text.
    Value(usize, String),
    /// A field has ended.
    End(usize),
}

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
    /// A stream for the fields of these names; those marked are text. `leaks` is for an indented header in
    /// chat: whether its last characters are in the value, as in DSPy.
    #[must_use]
    pub fn new(layout: Layout, names: &[(&str, bool)], leaks: bool) -> Self {
        let scanner = match layout {
            Layout::Chat => Scanner::Chat(chat::Scanner::new(leaks)),
            Layout::Json => Scanner::Json(json::Scanner::default()),
            Layout::Xml => Scanner::Xml(xml::Scanner::default()),
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
            Scanner::Json(_) | Scanner::Xml(_) => {}
        }
        self.fields.end();
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
    /// What has come of the open field and not been told yet; all that has come, where it is no text.
    text: String,
    /// White space that is the field's only if more follows.
    held: String,
    /// Whether anything but white space has come of the open field.
    begun: bool,
    /// Whether there is more in `text` than was told.
    news: bool,
    /// Whether every line break that Python knows becomes `\n`, as in chat, or only the carriage returns.
    all_breaks: bool,
    events: Vec<Event>,
}

#[derive(Debug)]
struct Known {
    name: Box<str>,
    is_text: bool,
    seen: bool,
}

impl Fields {
    fn new(names: &[(&str, bool)], layout: Layout) -> Self {
        let known = |&(name, is_text): &(&str, bool)| Known {
            name: name.into(),
            is_text,
            seen: false,
        };
        Self {
            known: names.iter().map(known).collect(),
            open: None,
            text: String::new(),
            held: String::new(),
            begun: false,
            news: false,
            all_breaks: layout == Layout::Chat,
            events: Vec::new(),
        }
    }

    /// Begin the field of this name, the first time that it comes.
    fn start(&mut self, name: &str) {
        self.end();
        if let Some(at) = self
            .known
            .iter()
            .position(|known| &*known.name == name && !known.seen)
        {
            self.known[at].seen = true;
            self.open = Some(at);
            self.events.push(Event::Start(at));
        }
    }

    fn is_text(&self) -> bool {
        self.open.is_some_and(|at| self.known[at].is_text)
    }

    /// A character of a value that counts as it is.
    fn exactly(&mut self, c: char) {
        if self.open.is_some() {
            self.text.push(c);
            self.news = true;
        }
    }

    /// A character of a value that is stripped, its line breaks being `\n`.
    fn stripped(&mut self, c: char) {
        if self.open.is_none() {
            return;
        }
        if is_space(c) {
            if self.begun {
                self.held.push(c);
            }
            return;
        }
        self.begun = true;
        if !self.held.is_empty() {
            let held = std::mem::take(&mut self.held);
            if self.all_breaks {
                // One more character, so that a break at the end keeps the line that it opens.
                let lines = held + "|";
                let joined = splitlines(&lines).collect::<Vec<_>>().join("\n");
                self.text.push_str(&joined[..joined.len() - 1]);
            } else {
                let lines = held.replace("\r\n", "\n").replace('\r', "\n");
                self.text.push_str(&lines);
            }
        }
        self.exactly(c);
    }

    /// White space that came last belongs to no value: the line that it ends is stripped.
    fn strip_line(&mut self) {
        self.held.clear();
    }

    /// The open field ends; white space that was held back was its last.
    fn end(&mut self) {
        self.tell();
        if let Some(at) = self.open.take() {
            self.events.push(Event::End(at));
        }
        self.text.clear();
        self.held.clear();
        self.begun = false;
    }

    fn tell(&mut self) {
        if let Some(at) = self.open
            && std::mem::take(&mut self.news)
        {
            self.events.push(if self.known[at].is_text {
                Event::Text(at, std::mem::take(&mut self.text))
            } else {
                Event::Value(at, self.text.clone())
            });
        }
    }

    fn flush(&mut self) -> Vec<Event> {
        self.tell();
        std::mem::take(&mut self.events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[(&str, bool)] = &[("a", true), ("n", false)];

    /// The events, with the pieces of each value put together.
    fn told(layout: Layout, reply: &str, size: usize) -> Vec<Event> {
        let mut stream = ReplyStream::new(layout, NAMES, true);
        let mut all: Vec<Event> = Vec::new();
        let pieces: Vec<&[u8]> = reply.as_bytes().chunks(size).collect();
        let events = pieces
            .into_iter()
            .flat_map(|piece| stream.feed(piece))
            .collect::<Vec<_>>();
        for event in events.into_iter().chain(stream.finish()) {
            match (all.last_mut(), &event) {
                (Some(Event::Text(_, before)), Event::Text(_, more)) => before.push_str(more),
                (Some(Event::Value(_, before)), Event::Value(_, now)) => before.clone_from(now),
                _ => all.push(event),
            }
        }
        all
    }

    fn both(text: &str, value: &str) -> Vec<Event> {
        vec![
            Event::Start(0),
            Event::Text(0, text.into()),
            Event::End(0),
            Event::Start(1),
            Event::Value(1, value.into()),
            Event::End(1),
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
                "So: <a>\n 1 &lt; 2 &amp; 3é \n</a><b><n>no</n></b>\n<n><item>1</item></n>",
                both("1 < 2 & 3é", "<item>1</item>"),
            ),
            (
                Layout::Chat,
                "[[ ## a ## ]] first  \n second\n[[ ## n ## ]] 1",
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
                assert_eq!(
                    told(layout, reply, size),
                    expected,
                    "{layout:?} in pieces of {size}"
                );
            }
        }
    }

    #[test]
    fn text_is_told_as_soon_as_it_is_sure() {
        let mut stream = ReplyStream::new(Layout::Chat, NAMES, true);
        assert_eq!(stream.feed(b"[[ ## a #"), []);
        assert_eq!(
            stream.feed(b"# ]]\nPar"),
            [Event::Start(0), Event::Text(0, "Par".into())]
        );
        assert_eq!(stream.feed(b"is \n"), [Event::Text(0, "is".into())]);
        assert_eq!(stream.feed(b"[["), []);
        assert_eq!(stream.feed(b"x"), [Event::Text(0, " \n[[x".into())]);
        assert_eq!(stream.finish(), [Event::End(0)]);
    }

    #[test]
    fn an_element_without_content_begins_and_ends() {
        let mut stream = ReplyStream::new(Layout::Xml, NAMES, true);
        assert_eq!(stream.feed(b"<a/>"), [Event::Start(0), Event::End(0)]);
        assert_eq!(stream.finish(), []);
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        let mut stream = ReplyStream::new(Layout::Chat, NAMES, true);
        stream.feed(b"[[ ## a ## ]]\n");
        assert_eq!(
            stream.feed(b"\xffx\xe2\x82"),
            [Event::Text(0, "\u{fffd}x".into())]
        );
        assert_eq!(
            stream.finish(),
            [Event::Text(0, "\u{fffd}".into()), Event::End(0)]
        );
    }

    #[test]
    fn an_indented_header_leaks_where_dspy_lets_it() {
        let mut stream = ReplyStream::new(Layout::Chat, NAMES, true);
        assert_eq!(
            stream.feed(b"  [[ ## a ## ]]"),
            [Event::Start(0), Event::Text(0, "]]".into())]
        );
        let mut stream = ReplyStream::new(Layout::Chat, NAMES, false);
        assert_eq!(stream.feed(b"  [[ ## a ## ]]"), [Event::Start(0)]);
    }
}
