//! Where a body ends: by its length, by its chunks, or with the connection.

use super::{Fault, MAX_HEAD};

/// Bytes of the line before a chunk: its size, and extensions that nobody uses.
const MAX_LINE: usize = 4096;

/// How a body is framed, and how far its reading has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    Chunked(Chunks),
    UntilEnd,
}

/// The place in a body of chunks, with what there is of the line that is not whole yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunks {
    part: Part,
    line: Vec<u8>,
    trailers: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Size,
    Data(u64),
    AfterData,
    Trailer,
}

impl Framing {
    pub(super) fn chunked() -> Self {
        Self::Chunked(Chunks {
            part: Part::Size,
            line: Vec::new(),
            trailers: 0,
        })
    }

    /// Puts what `data` has of the body into `out`, up to `room` bytes. Says how much of `data` belongs to the answer, and
    /// whether the body is whole.
    pub(super) fn feed(
        &mut self,
        data: &[u8],
        out: &mut Vec<u8>,
        room: usize,
    ) -> Result<(usize, bool), Fault> {
        match self {
            Self::Length(left) => {
                let here = take(data, *left);
                push(out, here, room)?;
                *left -= here.len() as u64;
                Ok((here.len(), *left == 0))
            }
            Self::Chunked(chunks) => chunks.feed(data, out, room),
            Self::UntilEnd => {
                push(out, data, room)?;
                Ok((data.len(), false))
            }
        }
    }
}

impl Chunks {
    fn feed(
        &mut self,
        data: &[u8],
        out: &mut Vec<u8>,
        room: usize,
    ) -> Result<(usize, bool), Fault> {
        let before = out.len();
        let mut at = 0;
        while at < data.len() {
            match self.part {
                Part::Data(left) => {
                    let here = take(&data[at..], left);
                    push(out, here, room.saturating_sub(out.len() - before))?;
                    at += here.len();
                    self.part = match left - here.len() as u64 {
                        0 => Part::AfterData,
                        rest => Part::Data(rest),
                    };
                }
                Part::Size | Part::AfterData | Part::Trailer => {
                    let Some(length) = self.take_line(&data[at..])? else {
                        return Ok((data.len(), false));
                    };
                    at += length;
                    if self.line_is_last()? {
                        return Ok((at, true));
                    }
                    self.line.clear();
                }
            }
        }
        Ok((at, false))
    }

    /// Adds to the line up to its end. Says how much of `data` it took; None where the end has not come.
    fn take_line(&mut self, data: &[u8]) -> Result<Option<usize>, Fault> {
        let end = memchr::memchr(b'\n', data);
        let here = end.map_or(data.len(), |end| end + 1);
        self.line.extend_from_slice(&data[..here]);
        if self.part == Part::Trailer {
            self.trailers += here;
        }
        if self.line.len() > MAX_LINE || self.trailers > MAX_HEAD {
            return Err(Fault::NotHttp("a line between its chunks is too long"));
        }
        Ok(end.map(|_| here))
    }

    /// Goes on behind a line that is whole; whether it was the last of the answer.
    fn line_is_last(&mut self) -> Result<bool, Fault> {
        match self.part {
            // The parser takes a line without any digit for a size of nought, and by that for the end.
            Part::Size if !self.line[0].is_ascii_hexdigit() => {
                return Err(Fault::NotHttp("a chunk has no size"));
            }
            Part::Size => match httparse::parse_chunk_size(&self.line) {
                Ok(httparse::Status::Complete((_, 0))) => self.part = Part::Trailer,
                Ok(httparse::Status::Complete((_, size))) => self.part = Part::Data(size),
                _ => return Err(Fault::NotHttp("a chunk has no size")),
            },
            Part::AfterData if self.line == b"\r\n" => self.part = Part::Size,
            Part::AfterData => return Err(Fault::NotHttp("a chunk is longer than its size")),
            Part::Trailer => return Ok(self.line == b"\r\n"),
            Part::Data(_) => {}
        }
        Ok(false)
    }
}

fn take(data: &[u8], most: u64) -> &[u8] {
    usize::try_from(most).map_or(data, |most| &data[..most.min(data.len())])
}

fn push(out: &mut Vec<u8>, data: &[u8], room: usize) -> Result<(), Fault> {
    if data.len() > room {
        return Err(Fault::TooLong);
    }
    out.extend_from_slice(data);
    Ok(())
}
