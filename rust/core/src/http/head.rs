//! The head of an answer: status, fields, and what they say about the body.

use super::body::Framing;
use super::{Fault, MAX_FIELDS};

/// What stands before the body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// Names in lower case with their values, which are Latin-1, as they came.
    pub fields: Vec<(String, String)>,
    /// Whether another request may follow on the connection.
    pub keeps_alive: bool,
}

impl Head {
    /// Reads a head that ends with its empty line, and how the body that follows is framed.
    pub(super) fn read(raw: &[u8]) -> Result<(Self, Framing), Fault> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut answer = httparse::Response::new(&mut fields);
        match answer.parse(raw) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(Fault::NotHttp("its head is incomplete")),
            Err(httparse::Error::TooManyHeaders) => {
                return Err(Fault::NotHttp("its head has too many fields"));
            }
            Err(httparse::Error::Version) => {
                return Err(Fault::NotHttp("it is not HTTP/1.0 or 1.1"));
            }
            Err(_) => return Err(Fault::NotHttp("its head is malformed")),
        }
        let status = answer.code.unwrap_or(0);
        let mut seen = Seen::default();
        let mut kept = Vec::with_capacity(answer.headers.len());
        for field in answer.headers.iter() {
            seen.take(field)?;
            let value: String = field.value.iter().map(|&byte| char::from(byte)).collect();
            kept.push((field.name.to_ascii_lowercase(), value));
        }
        let framing = seen.framing(status);
        let wish = seen.wish.unwrap_or(if answer.version == Some(1) {
            Wish::Keep
        } else {
            Wish::Close
        });
        // Two framings at once are what smuggled requests are made of; this answer is read, and no other after it.
        let doubtful = seen.chunked && seen.length.is_some();
        let head = Self {
            status,
            fields: kept,
            keeps_alive: wish == Wish::Keep && framing != Framing::UntilEnd && !doubtful,
        };
        Ok((head, framing))
    }
}

/// What is to become of the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    Keep,
    Close,
}

/// What the fields say about the body and the connection.
#[derive(Default)]
struct Seen {
    length: Option<u64>,
    chunked: bool,
    wish: Option<Wish>,
}

impl Seen {
    fn take(&mut self, field: &httparse::Header<'_>) -> Result<(), Fault> {
        if field.name.eq_ignore_ascii_case("content-length") {
            for part in field.value.split(|&byte| byte == b',') {
                let length =
                    digits(part).ok_or(Fault::NotHttp("its Content-Length is no number"))?;
                if self.length.is_some_and(|other| other != length) {
                    return Err(Fault::NotHttp("it has two lengths"));
                }
                self.length = Some(length);
            }
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            for coding in field.value.split(|&byte| byte == b',') {
                let coding = coding.trim_ascii();
                if self.chunked {
                    return Err(Fault::NotHttp("its chunks are not the last coding"));
                }
                if coding.eq_ignore_ascii_case(b"chunked") {
                    self.chunked = true;
                } else if !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity") {
                    return Err(Fault::NotHttp(
                        "its transfer coding is none that was asked for",
                    ));
                }
            }
        } else if field.name.eq_ignore_ascii_case("connection") {
            for option in field.value.split(|&byte| byte == b',') {
                let option = option.trim_ascii();
                if option.eq_ignore_ascii_case(b"close") {
                    self.wish = Some(Wish::Close);
                } else if option.eq_ignore_ascii_case(b"keep-alive") {
                    self.wish = self.wish.or(Some(Wish::Keep));
                }
            }
        }
        Ok(())
    }

    fn framing(&self, status: u16) -> Framing {
        if matches!(status, 100..200 | 204 | 304) {
            Framing::Length(0)
        } else if self.chunked {
            Framing::chunked()
        } else {
            self.length.map_or(Framing::UntilEnd, Framing::Length)
        }
    }
}

/// A count as HTTP writes it: digits and nothing else, not even a sign.
fn digits(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii();
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}
