//! Answers of language models that are kept in memory.
//!
//! ```text
//! absent --put--> kept --get--> kept, and the latest used
//!                   |
//!                   +--its time is over (found by `get`), it is forgotten, or others need its room--> absent
//! ```
//!
//! Bounded in bytes, with a time to live for each value. Time is the caller's: nanoseconds of a clock that does not run
//! backwards. What leaves is handed back, so that the caller can drop it where it holds no lock.
//!
//! The list of what was used last is that of the crate `lru`, which the cache of signatures has too. `quick_cache` keeps
//! what is asked for often through a scan of things that are asked for once, and has shards for many threads; but it knows
//! no time to live, and all calls here hold the interpreter, so that there is never a second thread. `moka` has weights
//! and times to live, by a clock of its own and with tables and queues that it tidies up at moments of its own: its bound
//! holds only after that, and a test cannot say when it is. A scan is a matter of the disk behind this, which has the room.

mod key;
mod store;

pub use key::Key;
pub use store::{Found, Info, OVERHEAD, Store};
