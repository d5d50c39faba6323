//! `Reader`: the answers that come over one connection, one after the other.

use super::body::Framing;
use super::{Fault, Head, MAX_HEAD};

/// How far an answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Its head is not whole.
    Head,
    /// Its head is there, its body is not whole.
    Body,
    /// It is whole.
    Done,
}

enum State {
    Head,
    Body(Framing),
    Done,
    Failed(Fault),
}

/// Reads one answer after the other.
pub struct Reader {
    state: State,
    /// What there is of a head that is not whole.
    start: Vec<u8>,
    head: Head,
    body: Vec<u8>,
    /// Bytes of the body that may still come.
    room: usize,
    /// Empty lines before the head, which old servers send; they are bounded too.
    skipped: usize,
    /// Whether something came behind the answer, which nobody asked for.
    surplus: bool,
}

impl Default for Reader {
    /// A reader whose connection has carried nothing yet, and is as good as after an answer.
    fn default() -> Self {
        Self {
            state: State::Done,
            start: Vec::new(),
            head: Head {
                keeps_alive: true,
                ..Head::default()
            },
            body: Vec::new(),
            room: usize::MAX,
            skipped: 0,
            surplus: false,
        }
    }
}

impl Reader {
    /// Gets ready for the next answer, whose body may have `room` bytes.
    pub fn begin(&mut self, room: usize) {
        self.state = State::Head;
        self.start.clear();
        self.body = Vec::new();
        self.room = room;
        self.skipped = 0;
    }

    /// Takes the next bytes of the connection.
    ///
    /// # Errors
    ///
    /// If what came is no answer. It stays so, whatever comes after.
    pub fn feed(&mut self, data: &[u8]) -> Result<Progress, Fault> {
        self.advance(data)
            .inspect_err(|&fault| self.state = State::Failed(fault))
    }

    /// The connection has ended: whether the answer is whole by that.
    ///
    /// # Errors
    ///
    /// If it is not.
    pub fn end(&mut self) -> Result<(), Fault> {
        match &self.state {
            State::Done => Ok(()),
            State::Body(Framing::UntilEnd) => {
                self.state = State::Done;
                Ok(())
            }
            State::Failed(fault) => Err(*fault),
            State::Head | State::Body(_) => Err(Fault::Cut),
        }
    }

    /// The head of the answer, once it is there.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// What has come of the body since it was last taken.
    pub fn take_body(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.body)
    }

    /// Bytes of the body that have not been taken.
    #[must_use]
    pub fn held(&self) -> usize {
        self.body.len()
    }

    /// Whether anything of an answer has come.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        !matches!(self.state, State::Head) || !self.start.is_empty() || self.skipped > 0
    }

    /// Whether the connection is good for another request: the answer is whole, the server keeps it, nothing followed.
    #[must_use]
    pub fn is_reusable(&self) -> bool {
        matches!(self.state, State::Done) && self.head.keeps_alive && !self.surplus
    }

    fn advance(&mut self, mut data: &[u8]) -> Result<Progress, Fault> {
        loop {
            match &mut self.state {
                State::Head => {
                    let Some(rest) = self.feed_head(data)? else {
                        return Ok(Progress::Head);
                    };
                    data = rest;
                }
                State::Body(framing) => {
                    let before = self.body.len();
                    let (used, whole) = framing.feed(data, &mut self.body, self.room)?;
                    self.room -= self.body.len() - before;
                    if !whole {
                        return Ok(Progress::Body);
                    }
                    data = &data[used..];
                    self.state = State::Done;
                }
                State::Done => {
                    self.surplus |= !data.is_empty();
                    return Ok(Progress::Done);
                }
                State::Failed(fault) => return Err(*fault),
            }
        }
    }

    /// Reads on in the head. Gives what follows it; None where it is not whole yet.
    fn feed_head<'a>(&mut self, mut data: &'a [u8]) -> Result<Option<&'a [u8]>, Fault> {
        if self.start.is_empty() {
            let blank = data
                .iter()
                .take_while(|&&byte| matches!(byte, b'\r' | b'\n'))
                .count();
            self.skipped += blank;
            data = &data[blank..];
            if let Some(end) = end_of_head(data, 0) {
                self.take_head(&data[..end])?;
                return Ok(Some(&data[end..]));
            }
        }
        // What is there has been searched, but the end may lie across the seam.
        let before = self.start.len();
        self.start.extend_from_slice(data);
        let Some(end) = end_of_head(&self.start, before.saturating_sub(3)) else {
            return if self.start.len() + self.skipped > MAX_HEAD {
                Err(Fault::NotHttp("its head is too long"))
            } else if is_http(&self.start) {
                Ok(None)
            } else {
                Err(Fault::NotHttp("its first line is no status"))
            };
        };
        let start = std::mem::take(&mut self.start);
        self.take_head(&start[..end])?;
        Ok(Some(&data[end - before..]))
    }

    fn take_head(&mut self, raw: &[u8]) -> Result<(), Fault> {
        if raw.len() + self.skipped > MAX_HEAD {
            return Err(Fault::NotHttp("its head is too long"));
        }
        let (head, framing) = Head::read(raw)?;
        self.state = match (head.status, framing) {
            // A server may send any number of these before the answer: each counts as what it is long.
            (100..200, _) if head.status != 101 => {
                self.skipped += raw.len();
                State::Head
            }
            (101, _) => {
                return Err(Fault::NotHttp(
                    "it switches to a protocol that was not asked for",
                ));
            }
            (_, Framing::Length(0)) => State::Done,
            (_, framing) => State::Body(framing),
        };
        self.head = head;
        Ok(())
    }
}

/// The place behind the empty line that ends a head, looked for from `from` on.
fn end_of_head(data: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(found) = memchr::memchr(b'\n', &data[at..]) {
        let next = at + found + 1;
        match &data[next..] {
            [b'\n', ..] => return Some(next + 1),
            [b'\r', b'\n', ..] => return Some(next + 2),
            _ => at = next,
        }
    }
    None
}

/// Whether what has come may be the beginning of an answer.
fn is_http(start: &[u8]) -> bool {
    let shared = start.len().min(5);
    start[..shared] == b"HTTP/"[..shared]
}

#[cfg(test)]
mod tests {
    use super::{Fault, MAX_HEAD, Progress, Reader};

    fn read(raw: &[u8], piece: usize) -> (Result<Progress, Fault>, Reader, Vec<u8>) {
        let mut reader = Reader::default();
        reader.begin(1 << 20);
        let mut last = Ok(Progress::Head);
        for data in raw.chunks(piece.max(1)) {
            last = reader.feed(data);
        }
        let body = reader.take_body();
        (last, reader, body)
    }

    const WHOLE: [(&str, &str); 7] = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello"),
        ("\r\n\nHTTP/1.1 200 OK\nContent-Length: 2, 2\n\nhi", "hi"),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 200\r\ncontent-length:1\r\n\r\nx",
            "x",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n4;a=b\r\nwiki\r\nA\r\npedia in\r\n\r\n0\r\nX: y\r\n\r\n",
            "wikipedia in\r\n",
        ),
        ("HTTP/1.1 204 No Content\r\n\r\n", ""),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
            "",
        ),
    ];

    #[test]
    fn an_answer_is_the_same_however_it_is_cut() {
        for (raw, body) in WHOLE {
            for piece in 1..=raw.len() {
                let (last, reader, came) = read(raw.as_bytes(), piece);
                assert_eq!(last, Ok(Progress::Done), "{raw:?} in pieces of {piece}");
                assert_eq!(came, body.as_bytes(), "{raw:?} in pieces of {piece}");
                assert!(reader.is_reusable());
            }
        }
    }

    #[test]
    fn a_connection_is_kept_only_where_both_sides_say_so() {
        for (raw, kept) in [
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\n\r\n",
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: foo, CLOSE\r\n\r\n",
                false,
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nmore", false),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                false,
            ),
        ] {
            let (last, reader, _) = read(raw.as_bytes(), raw.len());
            assert_eq!(last, Ok(Progress::Done), "{raw:?}");
            assert_eq!(reader.is_reusable(), kept, "{raw:?}");
        }
    }

    #[test]
    fn a_body_without_a_length_ends_with_the_connection() {
        let (last, mut reader, body) = read(b"HTTP/1.1 200 OK\r\n\r\nhello", 3);
        assert_eq!((last, body.as_slice()), (Ok(Progress::Body), &b"hello"[..]));
        assert_eq!(reader.end(), Ok(()));
        assert!(!reader.is_reusable());
    }

    #[test]
    fn an_answer_that_is_cut_says_so() {
        for (raw, _) in WHOLE {
            for end in 0..raw.len() {
                let (last, mut reader, _) = read(&raw.as_bytes()[..end], 7);
                if last != Ok(Progress::Done) {
                    assert_eq!(reader.end(), Err(Fault::Cut), "{:?}", &raw[..end]);
                }
            }
        }
    }

    #[test]
    fn what_is_no_http_is_refused_at_once_and_for_good() {
        for raw in [
            "SSH-2.0-OpenSSH_9.2\r\n",
            "<html>",
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nbad field\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: 1\r\n folded\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n;a\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n11111111111111111\r\nabc\r\n",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        ] {
            for piece in [1, 2, 5, raw.len()] {
                let (last, mut reader, _) = read(raw.as_bytes(), piece);
                assert!(matches!(last, Err(Fault::NotHttp(_))), "{raw:?}: {last:?}");
                assert_eq!(reader.feed(b"HTTP/1.1 200 OK\r\n\r\n").err(), last.err());
                assert_eq!(reader.end().err(), last.err());
            }
        }
    }

    #[test]
    fn everything_is_bounded() {
        let endless = [
            "HTTP/1.1 200 OK\r\n".to_owned() + &"A: b\r\n".repeat(MAX_HEAD / 6),
            "HTTP/1.1 200 OK\r\nA: ".to_owned() + &"b".repeat(MAX_HEAD),
            "HTTP/1.1 200 OK\r\n".to_owned() + &"A: b\r\n".repeat(200) + "\r\n",
            "\r\n".repeat(MAX_HEAD) + "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n".repeat(MAX_HEAD / 20) + "HTTP/1.1 204 No\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;".to_owned()
                + &"a".repeat(5000),
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n".to_owned()
                + &"A: b\r\n".repeat(MAX_HEAD),
        ];
        for raw in endless {
            for piece in [1000, raw.len()] {
                let (last, ..) = read(raw.as_bytes(), piece);
                assert!(
                    matches!(last, Err(Fault::NotHttp(_))),
                    "{:?}: {last:?}",
                    &raw[..60]
                );
            }
        }
        for raw in [
            "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world",
            "HTTP/1.1 200 OK\r\n\r\nhello world",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n",
        ] {
            for piece in 1..raw.len() {
                let mut reader = Reader::default();
                reader.begin(10);
                let last = raw
                    .as_bytes()
                    .chunks(piece)
                    .map(|data| reader.feed(data))
                    .last();
                assert_eq!(
                    last,
                    Some(Err(Fault::TooLong)),
                    "{raw:?} in pieces of {piece}"
                );
            }
        }
    }

    #[test]
    fn a_reader_serves_one_answer_after_the_other() {
        let mut reader = Reader::default();
        for _ in 0..3 {
            for (raw, body) in WHOLE {
                reader.begin(100);
                assert!(!reader.has_begun());
                assert_eq!(reader.feed(raw.as_bytes()), Ok(Progress::Done));
                assert_eq!(reader.take_body(), body.as_bytes());
            }
        }
    }
}
