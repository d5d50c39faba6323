//! What there is to read: the names, meanings and labels of all metrics, in one table.
//!
//! A label that is not in here cannot be had. Values of labels come from small sets (targets, outcomes, states), but for
//! codes of errors, which a program may make up; for these see [`super::Counters`].

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number that only grows.
    Counter,
    /// A number as it is now.
    Gauge,
    /// Durations, in seconds.
    Histogram,
}

/// A metric, with all of its rows.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Its name; the text adds `_total` to that of a counter.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
}

const fn family(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family {
        name,
        help,
        kind,
        labels,
    }
}

/// All of them, in the order of the text.
pub const FAMILIES: [Family; 18] = [
    family(
        "dspex_attempts",
        Kind::Counter,
        &["target", "outcome", "category"],
        "Attempts of calls that ended, by how, and for errors by who must act.",
    ),
    family(
        "dspex_attempt_seconds",
        Kind::Histogram,
        &["target", "outcome"],
        "How long attempts took that were served, and those in which the target failed.",
    ),
    family(
        "dspex_in_flight",
        Kind::Gauge,
        &["target"],
        "Attempts that are under way.",
    ),
    family(
        "dspex_decisions",
        Kind::Counter,
        &["target", "reason"],
        "Choices of a target, by why it was this one.",
    ),
    family(
        "dspex_undecided",
        Kind::Counter,
        &["reason"],
        "Calls for which no target could be chosen.",
    ),
    family(
        "dspex_unable",
        Kind::Counter,
        &["code"],
        "Decisions in which a target could not have served the call, by what it lacks.",
    ),
    family(
        "dspex_breaker_state",
        Kind::Gauge,
        &["target", "state"],
        "1 for the state in which the circuit breaker is, 0 for the others.",
    ),
    family(
        "dspex_stage_seconds",
        Kind::Histogram,
        &["target", "stage"],
        "How long the stages of calls took; those that a worker did came with its answers.",
    ),
    family(
        "dspex_tokens",
        Kind::Counter,
        &["target", "kind"],
        "Tokens as the models' servers counted them, of the calls that were served.",
    ),
    family(
        "dspex_errors",
        Kind::Counter,
        &["target", "code"],
        "Errors of attempts by their codes; no target where none was chosen.",
    ),
    family(
        "dspex_events_dropped",
        Kind::Counter,
        &[],
        "Events that asynchronous handlers were too slow for, in this process.",
    ),
    family(
        "dspex_pool_workers",
        Kind::Gauge,
        &["pool", "state"],
        "Workers by state.",
    ),
    family(
        "dspex_pool_wanted",
        Kind::Gauge,
        &["pool"],
        "Workers that there should be.",
    ),
    family(
        "dspex_pool_waiting",
        Kind::Gauge,
        &["pool"],
        "Calls in the queue.",
    ),
    family(
        "dspex_pool_deaths",
        Kind::Counter,
        &["pool"],
        "Workers that were lost, those that were asked to go not counted.",
    ),
    family(
        "dspex_pool_resident_bytes",
        Kind::Gauge,
        &["pool"],
        "Memory of the workers as their last heartbeats said.",
    ),
    family(
        "dspex_cache_lookups",
        Kind::Counter,
        &["result"],
        "Requests that a response cache was asked for in this process, by where their answers came from.",
    ),
    family(
        "dspex_cache_bytes",
        Kind::Gauge,
        &[],
        "Memory of the response caches of this process.",
    ),
];

/// The family of a name.
#[must_use]
pub(super) fn find(name: &str) -> Option<usize> {
    FAMILIES.iter().position(|family| family.name == name)
}
