//! `EventReader`: server-sent events, cut out of bytes that come in any pieces.
//!
//! Source: WHATWG HTML, section 9.2.6. A line ends with `\n`, `\r\n` or `\r`; an event with an empty line. Of the fields only
//! `data` counts: what the API's servers put into the others stands in the data too.

use memchr::memchr2;

/// An event is longer than was allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overlong;

/// Cuts a stream into the data of its events.
pub struct EventReader {
    limit: usize,
    /// What there is of the line that is not whole yet.
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    /// Whether the byte before was a `\r` that ended a line: a `\n` that follows belongs to it.
    after_return: bool,
    at_start: bool,
}

impl EventReader {
    /// A reader of events whose data may have `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            data: Vec::new(),
            has_data: false,
            after_return: false,
            at_start: true,
        }
    }

    /// Gives the data of each event that `piece` completes to `event`.
    ///
    /// # Errors
    ///
    /// If an event is too long.
    pub fn feed(&mut self, piece: &[u8], mut event: impl FnMut(&[u8])) -> Result<(), Overlong> {
        let mut rest = piece;
        if self.after_return && !rest.is_empty() {
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            self.after_return = false;
        }
        while let Some(end) = memchr2(b'\n', b'\r', rest) {
            let (line, behind) = (&rest[..end], &rest[end + 1..]);
            if rest[end] == b'\r' {
                self.after_return = behind.is_empty();
                rest = behind.strip_prefix(b"\n").unwrap_or(behind);
            } else {
                rest = behind;
            }
            if self.line.is_empty() {
                self.take_line(line, &mut event)?;
            } else {
                let mut whole = std::mem::take(&mut self.line);
                whole.extend_from_slice(line);
                self.take_line(&whole, &mut event)?;
                whole.clear();
                self.line = whole;
            }
        }
        if rest.len() + self.line.len() + self.data.len() > self.limit {
            return Err(Overlong);
        }
        self.line.extend_from_slice(rest);
        Ok(())
    }

    fn take_line(&mut self, line: &[u8], event: &mut impl FnMut(&[u8])) -> Result<(), Overlong> {
        let line = if std::mem::take(&mut self.at_start) {
            line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)
        } else {
            line
        };
        if line.is_empty() {
            if std::mem::take(&mut self.has_data) {
                event(&self.data);
                self.data.clear();
            }
            return Ok(());
        }
        let value = match line.strip_prefix(b"data") {
            Some(b"") => b"",
            Some([b':', b' ', value @ ..] | [b':', value @ ..]) => value,
            _ => return Ok(()),
        };
        if self.data.len() + value.len() > self.limit {
            return Err(Overlong);
        }
        if self.has_data {
            self.data.push(b'\n');
        }
        self.has_data = true;
        self.data.extend_from_slice(value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{EventReader, Overlong};

    fn read(stream: &[u8], piece: usize) -> Result<Vec<String>, Overlong> {
        let mut events = Vec::new();
        let mut reader = EventReader::new(1000);
        for part in stream.chunks(piece) {
            reader.feed(part, |data| {
                events.push(String::from_utf8_lossy(data).into_owned());
            })?;
        }
        Ok(events)
    }

    #[test]
    fn events_are_the_same_however_the_stream_is_cut() {
        let stream = "\u{feff}data: a\n\n: comment\ndata:b\ndata: c\r\n\r\nevent: x\rdata\r\rid: 3\n\ndata:  d\n\ndatum: e\n\ndata: cut";
        for piece in 1..=stream.len() {
            let events = read(stream.as_bytes(), piece).expect("short enough");
            assert_eq!(events, ["a", "b\nc", "", " d"], "in pieces of {piece}");
        }
    }

    #[test]
    fn an_event_is_bounded_with_and_without_an_end() {
        for stream in [
            "data: ".to_owned() + &"x".repeat(1000),
            "x".repeat(1001),
            "data: x\n".repeat(600),
            "data: ".to_owned() + &"x".repeat(1001) + "\n\n",
        ] {
            for piece in [1, 100, stream.len()] {
                assert_eq!(
                    read(stream.as_bytes(), piece),
                    Err(Overlong),
                    "{:?}",
                    &stream[..9]
                );
            }
        }
    }
}
