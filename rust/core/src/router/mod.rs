//! Which target serves a call, and what became of it.
//!
//! ```text
//! decide(wish, now) -> Decision     which target, why, and leave to call it
//! record(ticket, outcome, ...)      how it went
//! ```
//!
//! A target is *native* (this process renders, asks the LM and reads the reply) or *python* (a worker runs real DSPy).
//! Candidates are looked at in the order of a [`Strategy`]; the first that is able, has room and is not kept away by its
//! breaker is called. Targets may be added and removed at any time: a call that is under way at a target which has been
//! removed is recorded there all the same.
//!
//! The list of targets is read under a lock that nobody holds for longer than it takes to copy a pointer, and each breaker
//! has one of its own; counters are atomics. Nothing in here knows a clock: time comes in, in nanoseconds of any monotonic
//! one, and so does chance.

mod breaker;
mod budget;
mod ends;
mod histogram;
mod latency;
mod limiter;
mod target;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

pub use breaker::{
    Breaker, Change, Permit, Refused, Settings as BreakerSettings, State, Tally, Verdict, Window,
};
pub use budget::{Budget, Settings as BudgetSettings};
pub use ends::Category;
pub use histogram::Histogram;
pub use latency::Latency;
pub use limiter::{Asked, Limiter, Settings as LimiterSettings, Turns};
pub use target::{Closed, Counts, Options, Outcome, Side, Standing, Target};

/// In which order targets are considered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Native ones first, each side in order of registration.
    #[default]
    PreferNative,
    /// Python ones first.
    PreferPython,
    /// The one of two that is expected to answer sooner, the two being chosen by chance.
    Fastest,
    /// By chance, in proportion to their weights.
    Weighted,
}

/// Why the target of a call was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The caller asked for it.
    Wanted,
    /// It comes first.
    Preferred,
    /// It was expected to be the faster of two.
    Fastest,
    /// It was its turn by weight.
    Weighted,
    /// What comes before it cannot run the operation.
    Unable,
    /// What comes before it is kept away by its breaker.
    BreakerOpen,
    /// What comes before it has no room.
    Full,
    /// What comes before it has been tried.
    Tried,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Wanted,
        Self::Preferred,
        Self::Fastest,
        Self::Weighted,
        Self::Unable,
        Self::BreakerOpen,
        Self::Full,
        Self::Tried,
    ];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wanted => "wanted",
            Self::Preferred => "preferred",
            Self::Fastest => "fastest",
            Self::Weighted => "weighted",
            Self::Unable => "unable",
            Self::BreakerOpen => "breaker-open",
            Self::Full => "full",
            Self::Tried => "tried",
        }
    }
}

/// A set of targets, by their slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slots(u64);

impl Slots {
    /// The most targets there may be.
    pub const MOST: usize = 64;

    /// The set with these bits.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The set with one more.
    #[must_use]
    pub fn with(self, slot: usize) -> Self {
        Self(self.0 | 1 << slot)
    }

    /// Whether it has a slot.
    #[must_use]
    pub fn has(self, slot: usize) -> bool {
        self.0 >> slot & 1 == 1
    }
}

/// What is to be decided.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish<'a> {
    /// The caller's override: a side (`native`, `python`) or a target's name.
    pub wanted: Option<&'a str>,
    /// What the operation needs that not every target has: bits whose meaning is the caller's.
    pub needs: u64,
    /// Targets that cannot run the operation.
    pub unable: Slots,
    /// Targets that have been tried for this call.
    pub tried: Slots,
    /// Whether the call is made again after it failed, which a budget has paid for.
    pub again: bool,
    /// The order; None for the router's.
    pub strategy: Option<Strategy>,
    /// Any number, for what is left to chance.
    pub chance: u64,
}

/// Leave to call a target, which is given back by [`Router::record`].
#[derive(Clone, Debug)]
pub struct Ticket {
    target: Arc<Target>,
    slot: usize,
    permit: Option<Permit>,
}

impl Ticket {
    /// The target.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Its slot.
    #[must_use]
    pub fn slot(&self) -> usize {
        self.slot
    }
}

/// A change of the state of a target's breaker.
#[derive(Clone, Debug)]
pub struct Event {
    /// The target.
    pub target: Arc<Target>,
    /// The change.
    pub change: Change,
}

/// A decision.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Leave to call the target.
    pub ticket: Ticket,
    /// Why it is this one.
    pub reason: Reason,
    /// Needs of the operation that other targets lack.
    pub lacking: u64,
    /// The breaker that has begun to probe by it.
    pub event: Option<Event>,
}

/// Why no target was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteError {
    /// The override is neither a side nor a target's name: `route="rust"`.
    UnknownRoute {
        /// What was asked for.
        wanted: String,
    },
    /// The override names targets that cannot run the operation.
    Unable,
    /// No registered target can run the operation: a runtime without pools and an operation for DSPy.
    NoTarget,
    /// All that could run it are kept away by their breakers or full.
    Closed {
        /// Whether one of them has no room; it may have some any moment.
        full: bool,
        /// When the first of the breakers may let a call pass; None where nobody knows.
        after: Option<Duration>,
    },
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownRoute { wanted } => write!(f, "there is no route {wanted:?}"),
            Self::Unable => f.write_str("the target that was asked for cannot run this operation"),
            Self::NoTarget => f.write_str("no target can run this operation"),
            Self::Closed { full: true, .. } => {
                f.write_str("the targets that can run this operation have no room")
            }
            Self::Closed { full: false, .. } => {
                f.write_str("the targets that can run this operation are failing")
            }
        }
    }
}

impl std::error::Error for RouteError {}

/// Why a target could not be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddError {
    /// Another has its name, or a side.
    Taken,
    /// There are 64 already.
    TooMany,
}

type Slot = Option<Arc<Target>>;

/// The registry of targets and the decision between them.
///
/// ```
/// use std::time::Duration;
///
/// use dspex_core::router::{Options, Outcome, Router, Side, Wish};
///
/// let router = Router::default();
/// router.add("native", Side::Native, &Options::default()).unwrap();
/// router.add("pool:general", Side::Python, &Options::default()).unwrap();
///
/// let wish = Wish { wanted: Some("python"), ..Wish::default() };
/// let decision = router.decide(&wish, 0).unwrap();
/// assert_eq!(decision.ticket.target().name(), "pool:general");
/// router.record(&decision.ticket, Outcome::Served, Duration::from_millis(3), None, 3_000_000);
/// assert_eq!(decision.ticket.target().counts().served, 1);
/// ```
#[derive(Debug, Default)]
pub struct Router {
    slots: RwLock<Arc<Vec<Slot>>>,
    added: AtomicU64,
    strategy: Strategy,
    undecided: [AtomicU64; RouteError::WORDS.len()],
    lacked: ends::Lacked,
}

impl Router {
    /// A router with an order of its own.
    #[must_use]
    pub fn new(strategy: Strategy) -> Self {
        Self {
            strategy,
            ..Self::default()
        }
    }

    /// Adds a target, and gives its slot; among equals, the one registered first is preferred.
    pub fn add(&self, name: &str, side: Side, options: &Options) -> Result<usize, AddError> {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let is_taken = |slot: &Slot| slot.as_ref().is_some_and(|target| target.name == name);
        if name == Side::Native.as_str() && side != Side::Native
            || name == Side::Python.as_str()
            || slots.iter().any(is_taken)
        {
            return Err(AddError::Taken);
        }
        let free = slots.iter().position(Option::is_none);
        if free.is_none() && slots.len() == Slots::MOST {
            return Err(AddError::TooMany);
        }
        let number = self.added.fetch_add(1, Ordering::Relaxed);
        let target = Some(Arc::new(Target::new(name, number, side, options)));
        let mut next = Vec::clone(&slots);
        let slot = free.unwrap_or(next.len());
        if free.is_some() {
            next[slot] = target;
        } else {
            next.push(target);
        }
        *slots = Arc::new(next);
        Ok(slot)
    }

    /// Removes a target; calls that are under way there go on. The next one that is added may have its slot.
    pub fn remove(&self, slot: usize) -> Option<Arc<Target>> {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = Vec::clone(&slots);
        let target = next.get_mut(slot)?.take();
        while next.last().is_some_and(Option::is_none) {
            next.pop();
        }
        *slots = Arc::new(next);
        target
    }

    /// Chooses the target of a call and counts it as under way there until [`Router::record`].
    pub fn decide(&self, wish: &Wish<'_>, now: u64) -> Result<Decision, RouteError> {
        let slots = self.slots();
        let mut looked = Looked::default();
        let mut left = Slots::default();
        let mut named = false;
        for (slot, target) in targets(&slots) {
            if wish
                .wanted
                .is_none_or(|wanted| target.side.as_str() == wanted || target.name == wanted)
            {
                named = true;
                let lacking = wish.needs & target.lacks;
                looked.lacking |= lacking;
                if lacking != 0 || wish.unable.has(slot) {
                    looked.unable = true;
                } else {
                    left = left.with(slot);
                }
            }
        }
        if !named {
            return Err(missing(wish.wanted));
        }
        let strategy = wish.strategy.unwrap_or(self.strategy);
        let mut first = None;
        let mut chance = wish.chance;
        while let Some((slot, target)) = next(&slots, left, strategy, &mut chance, now) {
            left = Slots(left.0 & !(1 << slot));
            if wish.tried.has(slot) {
                first.get_or_insert(Reason::Tried);
                continue;
            }
            let (entered, turned) = target.enter(now);
            match entered {
                Ok(permit) => {
                    if let (false, Some(budget)) = (wish.again, target.budget()) {
                        budget.pay(now);
                    }
                    let reason =
                        first.unwrap_or_else(|| looked.reason(wish, strategy, target.side));
                    target.count_choice(reason);
                    let event = turned.map(|change| Event {
                        target: Arc::clone(target),
                        change,
                    });
                    let ticket = Ticket {
                        target: Arc::clone(target),
                        slot,
                        permit,
                    };
                    return Ok(Decision {
                        ticket,
                        reason,
                        lacking: looked.lacking,
                        event,
                    });
                }
                Err(Closed::Full) => {
                    looked.full = true;
                    first.get_or_insert(Reason::Full);
                }
                Err(Closed::Breaker(refused)) => {
                    looked.open = true;
                    looked.after = [looked.after, refused.after].into_iter().flatten().min();
                    first.get_or_insert(Reason::BreakerOpen);
                }
            }
        }
        Err(looked.error(wish))
    }

    /// What [`Router::decide`] would make of each target now, in the order in which it would look at them; nothing changes.
    #[must_use]
    pub fn explain(&self, wish: &Wish<'_>, now: u64) -> Vec<(usize, Arc<Target>, Standing)> {
        let slots = self.slots();
        let mut left = Slots::default();
        let mut passed_over = Vec::new();
        for (slot, target) in targets(&slots) {
            let lacking = wish.needs & target.lacks;
            if wish
                .wanted
                .is_some_and(|wanted| target.side.as_str() != wanted && target.name != wanted)
            {
                passed_over.push((slot, Arc::clone(target), Standing::NotWanted));
            } else if lacking != 0 || wish.unable.has(slot) {
                passed_over.push((slot, Arc::clone(target), Standing::Unable { lacking }));
            } else {
                left = left.with(slot);
            }
        }
        let strategy = wish.strategy.unwrap_or(self.strategy);
        let mut chance = wish.chance;
        let mut found = Vec::new();
        while let Some((slot, target)) = next(&slots, left, strategy, &mut chance, now) {
            left = Slots(left.0 & !(1 << slot));
            found.push((slot, Arc::clone(target), target.standing(now)));
        }
        found.extend(passed_over);
        found
    }

    /// Says how a call ended that [`Router::decide`] sent somewhere.
    ///
    /// `not_before` is the time for which the target asked not to be called; see [`Breaker::record`].
    pub fn record(
        &self,
        ticket: &Ticket,
        outcome: Outcome,
        took: Duration,
        not_before: Option<Duration>,
        now: u64,
    ) -> Option<Event> {
        let change = ticket
            .target
            .leave(ticket.permit, outcome, took, not_before, now)?;
        Some(Event {
            target: Arc::clone(&ticket.target),
            change,
        })
    }

    /// The target in a slot, if there is one.
    #[must_use]
    pub fn target(&self, slot: usize) -> Option<Arc<Target>> {
        self.slots().get(slot).cloned().flatten()
    }

    /// All targets with their slots, in order of registration.
    #[must_use]
    pub fn all(&self) -> Vec<(usize, Arc<Target>)> {
        let mut all: Vec<_> = targets(&self.slots())
            .map(|(slot, target)| (slot, Arc::clone(target)))
            .collect();
        all.sort_by_key(|(_, target)| target.number);
        all
    }

    fn slots(&self) -> Arc<Vec<Slot>> {
        Arc::clone(&self.slots.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What was found on the way to a target.
#[derive(Default)]
struct Looked {
    unable: bool,
    lacking: u64,
    full: bool,
    open: bool,
    after: Option<Duration>,
}

impl Looked {
    /// Why the first candidate was called.
    fn reason(&self, wish: &Wish<'_>, strategy: Strategy, side: Side) -> Reason {
        match strategy {
            _ if wish.wanted.is_some() => Reason::Wanted,
            Strategy::PreferNative if self.unable && side == Side::Python => Reason::Unable,
            Strategy::PreferPython if self.unable && side == Side::Native => Reason::Unable,
            Strategy::PreferNative | Strategy::PreferPython => Reason::Preferred,
            Strategy::Fastest => Reason::Fastest,
            Strategy::Weighted => Reason::Weighted,
        }
    }

    fn error(&self, wish: &Wish<'_>) -> RouteError {
        if self.full || self.open {
            return RouteError::Closed {
                full: self.full,
                after: self.after,
            };
        }
        if self.unable && wish.wanted.is_some() {
            RouteError::Unable
        } else {
            RouteError::NoTarget
        }
    }
}

fn targets(slots: &[Slot]) -> impl Iterator<Item = (usize, &Arc<Target>)> {
    slots
        .iter()
        .enumerate()
        .filter_map(|(slot, target)| Some((slot, target.as_ref()?)))
}

/// The target to consider next, of those that are left.
fn next<'a>(
    slots: &'a [Slot],
    left: Slots,
    strategy: Strategy,
    chance: &mut u64,
    now: u64,
) -> Option<(usize, &'a Arc<Target>)> {
    let candidates = || targets(slots).filter(|(slot, _)| left.has(*slot));
    // A slot may have been another target's before, so the order is that of their numbers.
    let first_of = |side: Side| {
        candidates()
            .filter(|(_, target)| target.side == side)
            .min_by_key(|(_, target)| target.number)
    };
    match strategy {
        Strategy::PreferNative => first_of(Side::Native).or_else(|| first_of(Side::Python)),
        Strategy::PreferPython => first_of(Side::Python).or_else(|| first_of(Side::Native)),
        Strategy::Fastest => {
            let open = || candidates().filter(|(_, target)| target.is_open_to_calls(now));
            let count = open().count();
            if count < 2 {
                return open().next().or_else(|| candidates().next());
            }
            let one = below(chance, count);
            let other = (one + 1 + below(chance, count - 1)) % count;
            let (one, other) = (open().nth(one)?, open().nth(other)?);
            Some(if other.1.cost(now) < one.1.cost(now) {
                other
            } else {
                one
            })
        }
        Strategy::Weighted => {
            let sum: f64 = candidates().map(|(_, target)| target.weight.max(0.0)).sum();
            #[allow(clippy::cast_precision_loss)]
            let mut at = below(chance, 1 << 32) as f64 / (1_u64 << 32) as f64 * sum;
            let mut found = candidates().next();
            for candidate in candidates() {
                if candidate.1.weight > 0.0 {
                    found = Some(candidate);
                    at -= candidate.1.weight;
                    if at < 0.0 {
                        break;
                    }
                }
            }
            found
        }
    }
}

/// A number below another, of what chance there is left.
fn below(chance: &mut u64, count: usize) -> usize {
    // One step of splitmix64, so that one number of the caller's is good for several choices.
    *chance = chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *chance;
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    #[allow(clippy::cast_possible_truncation)] // less than `count`
    let found = (mixed % count.max(1) as u64) as usize;
    found
}

fn missing(wanted: Option<&str>) -> RouteError {
    match wanted {
        Some(wanted) if wanted != Side::Native.as_str() && wanted != Side::Python.as_str() => {
            RouteError::UnknownRoute {
                wanted: wanted.to_owned(),
            }
        }
        _ => RouteError::NoTarget,
    }
}

#[cfg(test)]
mod tests;
