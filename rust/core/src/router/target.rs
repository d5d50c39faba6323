//! One target: what it has done, how it fares, and whether another call may go there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::breaker::{self, Breaker, Change, Permit, Refused, Verdict};
use super::budget::{self, Budget};
use super::ends::Ends;
use super::histogram::Histogram;
use super::latency::Latency;

/// Which kind of target serves a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The Rust core in this process.
    Native,
    /// Real DSPy in a worker process.
    Python,
}

impl Side {
    /// The word by which callers ask for the side.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Python => "python",
        }
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The target gave its answer.
    Served,
    /// The target failed.
    Failed,
    /// It raised an error that says nothing about it: a mistake of the caller's, a model that is down.
    Refused,
    /// The caller went away before there was an answer, which says nothing about the target.
    Cancelled,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Served, Self::Failed, Self::Refused, Self::Cancelled];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
        }
    }

    fn verdict(self) -> Verdict {
        match self {
            Self::Served => Verdict::Success,
            Self::Failed => Verdict::Failure,
            Self::Refused | Self::Cancelled => Verdict::Neutral,
        }
    }
}

/// What a target may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// When it is left alone; None for never.
    pub breaker: Option<breaker::Settings>,
    /// How many calls to it may be made again; None for none.
    pub budget: Option<budget::Settings>,
    /// How many calls may be under way there; None for any number.
    pub limit: Option<u64>,
    /// Its part of the calls where they are shared out by weight.
    pub weight: f64,
    /// What it has not, of what an operation may need.
    pub lacks: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            breaker: None,
            budget: None,
            limit: None,
            weight: 1.0,
            lacks: 0,
        }
    }
}

/// What a target has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that were routed here and have not ended.
    pub in_flight: u64,
    /// Calls that ended with an answer.
    pub served: u64,
    /// Calls in which the target failed.
    pub failed: u64,
    /// Calls that ended with an error of somebody else's.
    pub refused: u64,
    /// Calls whose caller went away.
    pub cancelled: u64,
}

/// Why a target may not be called now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Its breaker is open.
    Breaker(Refused),
    /// As many calls are under way there as may be.
    Full,
}

/// How a target stands to a call that is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The call could go there.
    Ready,
    /// The caller asked for another.
    NotWanted,
    /// It cannot run the operation, for what it lacks of what that needs.
    Unable {
        /// What it lacks; nothing where it has said so itself.
        lacking: u64,
    },
    /// Its breaker is open.
    BreakerOpen,
    /// As many calls are under way there as may be.
    Full,
}

/// A registered target.
#[derive(Debug)]
pub struct Target {
    pub(super) name: String,
    pub(super) number: u64,
    pub(super) side: Side,
    pub(super) weight: f64,
    pub(super) lacks: u64,
    limit: u64,
    breaker: Option<Breaker>,
    budget: Option<Budget>,
    latency: Latency,
    in_flight: AtomicU64,
    outcomes: [AtomicU64; Outcome::ALL.len()],
    served: Histogram,
    failed: Histogram,
    pub(super) ends: Ends,
}

impl Target {
    pub(super) fn new(name: &str, number: u64, side: Side, options: &Options) -> Self {
        Self {
            name: name.to_owned(),
            number,
            side,
            weight: options.weight,
            lacks: options.lacks,
            limit: options.limit.unwrap_or(u64::MAX),
            breaker: options.breaker.map(Breaker::new),
            budget: options.budget.map(Budget::new),
            latency: Latency::default(),
            in_flight: AtomicU64::new(0),
            outcomes: Default::default(),
            served: Histogram::default(),
            failed: Histogram::default(),
            ends: Ends::default(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A number that no other target of the router has or had.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Its breaker, if it has one.
    #[must_use]
    pub fn breaker(&self) -> Option<&Breaker> {
        self.breaker.as_ref()
    }

    /// What pays for calls that are made again, if any may be.
    #[must_use]
    pub fn budget(&self) -> Option<&Budget> {
        self.budget.as_ref()
    }

    /// How long calls took that it answered, and those in which it failed.
    #[must_use]
    pub fn durations(&self) -> [&Histogram; 2] {
        [&self.served, &self.failed]
    }

    /// What it has done so far. Counters are read one by one, so a reading taken while calls end may be off by those.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let of = |outcome: Outcome| self.outcome(outcome);
        Counts {
            in_flight: self.in_flight.load(Ordering::Relaxed),
            served: of(Outcome::Served),
            failed: of(Outcome::Failed),
            refused: of(Outcome::Refused),
            cancelled: of(Outcome::Cancelled),
        }
    }

    pub(super) fn outcome(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize].load(Ordering::Relaxed)
    }

    /// What the next call is expected to cost.
    pub(super) fn cost(&self, now: u64) -> f64 {
        self.latency
            .cost(self.in_flight.load(Ordering::Relaxed), now)
    }

    /// Whether a call may go there now, without a change of anything.
    pub(super) fn is_open_to_calls(&self, now: u64) -> bool {
        self.standing(now) == Standing::Ready
    }

    /// How it stands to a call that could go there.
    pub(super) fn standing(&self, now: u64) -> Standing {
        if self.in_flight.load(Ordering::Relaxed) >= self.limit {
            Standing::Full
        } else if self.breaker.as_ref().is_none_or(|b| b.admits(now)) {
            Standing::Ready
        } else {
            Standing::BreakerOpen
        }
    }

    /// Counts a call as under way there, if it may go.
    pub(super) fn enter(&self, now: u64) -> (Result<Option<Permit>, Closed>, Option<Change>) {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) >= self.limit {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            return (Err(Closed::Full), None);
        }
        let Some(breaker) = &self.breaker else {
            return (Ok(None), None);
        };
        let (admitted, change) = breaker.admit(now);
        if admitted.is_err() {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
        (admitted.map(Some).map_err(Closed::Breaker), change)
    }

    /// Counts how a call ended that was under way there.
    pub(super) fn leave(
        &self,
        permit: Option<Permit>,
        outcome: Outcome,
        took: Duration,
        not_before: Option<Duration>,
        now: u64,
    ) -> Option<Change> {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
        match outcome {
            Outcome::Served => {
                self.served.record(took);
                self.latency.record(took, now);
            }
            Outcome::Failed => {
                self.failed.record(took);
                self.latency.record(took, now);
            }
            Outcome::Refused | Outcome::Cancelled => {}
        }
        let (breaker, permit) = (self.breaker.as_ref()?, permit?);
        breaker.record(permit, outcome.verdict(), took, not_before, now)
    }
}
