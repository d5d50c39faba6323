//! HTTP/1.1 as a client reads it: bytes of a connection in, the answer's head and body out. Nothing here waits or connects.
//!
//! ```text
//!   feed --> head ------> body by length ----+--> done, what follows is kept back
//!              |          body by chunks ----+
//!              +-- 1xx    body until the end of the connection --> done at `end`
//! ```
//!
//! The syntax of the head and of a chunk's size is that of the crate `httparse`; which framing counts is RFC 9112, section 6.3.
//! Everything that comes from the server is bounded, and work is linear in it however it is cut into pieces.

mod body;
mod delta;
mod events;
mod head;
mod reader;

pub use delta::TextDelta;
pub use events::{EventReader, Overlong};
pub use head::Head;
pub use reader::{Progress, Reader};

/// Bytes of an answer's head, and of the trailers behind its chunks.
pub const MAX_HEAD: usize = 64 * 1024;
/// Header fields of an answer.
pub const MAX_FIELDS: usize = 128;

/// Why what came is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not HTTP/1: which part of it.
    NotHttp(&'static str),
    /// The body is longer than was allowed.
    TooLong,
    /// The connection ended before the answer did.
    Cut,
}
