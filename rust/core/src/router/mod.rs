//! Which target serves a call, and what became of it.
//!
//! ```text
//! decide(wanted, able) -> TargetId     one load per target considered, one add
//! record(id, outcome)                  two adds
//! ```
//!
//! Targets are registered while a runtime opens and never change afterwards, so both calls work on
//! shared references and atomics: no lock is held, nothing is allocated. A target is *native* (this
//! process renders, asks the LM and reads the reply) or *python* (a worker runs real DSPy); native is
//! preferred wherever it is able.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// A registered target, valid for the router that gave it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetId(usize);

impl TargetId {
    /// The position in order of registration.
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The target gave its answer.
    Served,
    /// The target, or what it depends on, raised.
    Failed,
    /// The caller went away before there was an answer, which says nothing about the target.
    Cancelled,
}

/// Why no target was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteError {
    /// The override is neither a side nor a target's name: `route="rust"`.
    UnknownRoute {
        /// What was asked for.
        wanted: String,
    },
    /// The override names the native side, and the operation is not one it can run.
    NativeUnable,
    /// No registered target can run the operation: a runtime without pools and an operation for DSPy.
    NoTarget,
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownRoute { wanted } => write!(f, "there is no route {wanted:?}"),
            Self::NativeUnable => f.write_str("the native side cannot run this operation"),
            Self::NoTarget => f.write_str("no target can run this operation"),
        }
    }
}

impl std::error::Error for RouteError {}

/// What a target has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that were routed here and have not ended.
    pub in_flight: u64,
    /// Calls that ended with an answer.
    pub served: u64,
    /// Calls that ended with an error.
    pub failed: u64,
    /// Calls whose caller went away.
    pub cancelled: u64,
}

#[derive(Debug)]
struct Target {
    name: String,
    side: Side,
    routed: AtomicU64,
    served: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicU64,
}

/// The registry of targets and the decision between them.
///
/// ```
/// use dspex_core::router::{Outcome, Router, Side};
///
/// let mut router = Router::default();
/// router.register("native", Side::Native);
/// router.register("pool:general", Side::Python);
///
/// let id = router.decide(Some("python"), true).unwrap();
/// assert_eq!(router.name(id), "pool:general");
/// router.record(id, Outcome::Served);
/// assert_eq!(router.counts(id).served, 1);
/// ```
#[derive(Debug, Default)]
pub struct Router {
    targets: Vec<Target>,
}

impl Router {
    /// Adds a target; among equals, the one registered first is preferred.
    pub fn register(&mut self, name: &str, side: Side) -> TargetId {
        self.targets.push(Target {
            name: name.to_owned(),
            side,
            routed: AtomicU64::new(0),
            served: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
        });
        TargetId(self.targets.len() - 1)
    }

    /// Chooses the target of a call and counts it as in flight there until [`Router::record`].
    ///
    /// `wanted` is the caller's override: a side (`native`, `python`), a target's name, or nothing.
    /// `native_able` says whether the native side can run the operation at all.
    pub fn decide(&self, wanted: Option<&str>, native_able: bool) -> Result<TargetId, RouteError> {
        let able = |target: &Target| native_able || target.side == Side::Python;
        let found = match wanted {
            None => [Side::Native, Side::Python]
                .into_iter()
                .find_map(|side| self.position(|t| t.side == side && able(t)))
                .ok_or(RouteError::NoTarget),
            Some(wanted) => self
                .position(|t| t.side.as_str() == wanted || t.name == wanted)
                .ok_or_else(|| missing(wanted))
                .and_then(|index| {
                    if able(&self.targets[index]) {
                        Ok(index)
                    } else {
                        Err(RouteError::NativeUnable)
                    }
                }),
        };
        let index = found?;
        self.targets[index].routed.fetch_add(1, Ordering::Relaxed);
        Ok(TargetId(index))
    }

    /// Says how a call ended that [`Router::decide`] sent to `id`.
    pub fn record(&self, id: TargetId, outcome: Outcome) {
        let target = &self.targets[id.0];
        let counter = match outcome {
            Outcome::Served => &target.served,
            Outcome::Failed => &target.failed,
            Outcome::Cancelled => &target.cancelled,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// What the target has done so far. Counters are read one by one, so a reading taken while calls
    /// end may be off by those calls.
    #[must_use]
    pub fn counts(&self, id: TargetId) -> Counts {
        let target = &self.targets[id.0];
        let served = target.served.load(Ordering::Relaxed);
        let failed = target.failed.load(Ordering::Relaxed);
        let cancelled = target.cancelled.load(Ordering::Relaxed);
        let routed = target.routed.load(Ordering::Relaxed);
        Counts {
            in_flight: routed.saturating_sub(served + failed + cancelled),
            served,
            failed,
            cancelled,
        }
    }

    /// The target's name.
    #[must_use]
    pub fn name(&self, id: TargetId) -> &str {
        &self.targets[id.0].name
    }

    /// All targets in order of registration.
    pub fn targets(&self) -> impl Iterator<Item = TargetId> + '_ {
        (0..self.targets.len()).map(TargetId)
    }

    /// The target at a position, if there is one.
    #[must_use]
    pub fn target(&self, index: usize) -> Option<TargetId> {
        (index < self.targets.len()).then_some(TargetId(index))
    }

    fn position(&self, accept: impl Fn(&Target) -> bool) -> Option<usize> {
        self.targets.iter().position(accept)
    }
}

fn missing(wanted: &str) -> RouteError {
    if wanted == Side::Native.as_str() || wanted == Side::Python.as_str() {
        RouteError::NoTarget
    } else {
        RouteError::UnknownRoute {
            wanted: wanted.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both() -> Router {
        let mut router = Router::default();
        router.register("pool:general", Side::Python);
        router.register("native", Side::Native);
        router.register("pool:optimizer", Side::Python);
        router
    }

    #[test]
    fn an_override_is_obeyed_and_native_is_preferred_where_able() {
        let router = both();
        for (wanted, native_able, expected) in [
            (None, true, Ok("native")),
            (None, false, Ok("pool:general")),
            (Some("native"), true, Ok("native")),
            (Some("native"), false, Err(RouteError::NativeUnable)),
            (Some("python"), true, Ok("pool:general")),
            (Some("pool:optimizer"), true, Ok("pool:optimizer")),
            (
                Some("rust"),
                true,
                Err(RouteError::UnknownRoute {
                    wanted: "rust".into(),
                }),
            ),
        ] {
            let decided = router.decide(wanted, native_able).map(|id| router.name(id));
            assert_eq!(decided, expected, "{wanted:?}, native able: {native_able}");
        }
    }

    #[test]
    fn a_side_without_a_target_is_no_target() {
        let mut router = Router::default();
        router.register("native", Side::Native);
        assert_eq!(
            router.decide(Some("python"), true),
            Err(RouteError::NoTarget)
        );
        assert_eq!(router.decide(None, false), Err(RouteError::NoTarget));
    }

    #[test]
    fn every_routed_call_is_counted_once_wherever_it_ends() {
        let router = both();
        let ids: Vec<_> = (0..4).map(|_| router.decide(None, true).unwrap()).collect();
        router.record(ids[0], Outcome::Served);
        router.record(ids[1], Outcome::Failed);
        router.record(ids[2], Outcome::Cancelled);
        assert_eq!(
            router.counts(ids[0]),
            Counts {
                in_flight: 1,
                served: 1,
                failed: 1,
                cancelled: 1
            }
        );
        assert_eq!(router.counts(router.target(0).unwrap()), Counts::default());
    }

    #[test]
    fn calls_of_many_threads_are_all_counted_and_none_twice() {
        const THREADS: u64 = 8;
        const CALLS: u64 = 3_000;
        let router = both();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let router = &router;
                scope.spawn(move || {
                    for call in 0..CALLS {
                        let id = router.decide(None, (thread + call) % 2 == 0).unwrap();
                        let outcome = match call % 3 {
                            0 => Outcome::Served,
                            1 => Outcome::Failed,
                            _ => Outcome::Cancelled,
                        };
                        router.record(id, outcome);
                    }
                });
            }
        });
        let counts: Vec<Counts> = router.targets().map(|id| router.counts(id)).collect();
        let sum = |of: fn(&Counts) -> u64| counts.iter().map(of).sum::<u64>();
        assert_eq!(sum(|counts| counts.in_flight), 0);
        for of in [
            |counts: &Counts| counts.served,
            |counts: &Counts| counts.failed,
            |counts: &Counts| counts.cancelled,
        ] {
            assert_eq!(sum(of), THREADS * CALLS / 3);
        }
        assert_eq!(
            counts[0].served + counts[0].failed + counts[0].cancelled,
            THREADS * CALLS / 2
        );
        assert_eq!(counts[2], Counts::default());
    }
}
