//! How long the stages of calls take, what is counted, and the text in which Prometheus reads it.
//!
//! ```text
//! Stages       one call: the time of each of its stages          (stages)
//!    |  each stage, when it ends
//!    v
//! StageTimes   one target: a histogram for each stage            (stages)     Router   counts, histograms
//!    |                                                                           |
//!    |      Counters   what is counted by labels, with a cap     (counters)      |
//!    v         v                                                                 v
//!    text      all of it, one row for each set of labels         (exposition, by the table in families)
//! ```
//!
//! Counting takes no lock but for a label that is new, and a scrape copies counters one by one: a reading that is taken
//! while calls end may be off by those. Nothing in here knows a clock; times come in, in nanoseconds of any monotonic one.

mod counters;
mod exposition;
mod families;
mod stages;

pub use counters::{Counters, MOST_SERIES, OVERFLOW, UnknownFamily};
pub use exposition::{Gauge, text};
pub use families::{FAMILIES, Family, Kind};
pub use stages::{Stage, StageTimes, Stages};
