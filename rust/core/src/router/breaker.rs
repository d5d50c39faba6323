//! A circuit breaker: keeps calls away from a target that fails, and tries after a while whether it is back.
//!
//! ```text
//!                 too many of the last calls failed or were slow,
//!                 or, under `at_once`, one failed and asked for time
//!    CLOSED  ------------------------------------------------------>  OPEN
//!      ^                                                            |      ^
//!      | enough probes went well               the open time is over |      | a probe too many failed
//!      |                                                            v      |
//!      +----------------------------------------------------------  HALF-OPEN
//!
//!    any state -- force(Open) --> FORCED OPEN      any state -- force(Closed) --> FORCED CLOSED
//!    any state -- reset() -----> CLOSED, with an empty window
//! ```
//!
//! A call asks [`Breaker::admit`] before it goes to the target, and tells [`Breaker::record`] how it went, with the
//! permit that it got. A permit is of one epoch, which ends with each change of state: a call that began before the
//! breaker opened says nothing about the target that is probed now.
//!
//! What counts as a failure is for the caller to say. A neutral end (the caller left, or made a mistake of its own)
//! counts for nothing; a probe that ends so gives its place back.
//!
//! Time comes in from outside, in nanoseconds of any monotonic clock.

use std::sync::Mutex;
use std::time::Duration;

/// Which calls the rates are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The last so many calls that ended.
    Calls(u32),
    /// Those that ended within this time, to a tenth of it.
    Time(Duration),
}

/// When a breaker opens, and how it closes again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The share of calls in the window, from which on it opens. More than 1 is never.
    pub failure_rate: f64,
    /// The same for calls that took longer than `slow_after`, however they ended.
    pub slow_rate: f64,
    /// From which time on a call is slow.
    pub slow_after: Duration,
    /// Calls that there must have been in the window before rates mean anything.
    pub minimum: u32,
    /// The window.
    pub window: Window,
    /// How long it stays open before it probes.
    pub open_for: Duration,
    /// What that time grows to, doubled with each round of probes that failed.
    pub open_at_most: Duration,
    /// How many calls probe the target.
    pub probes: u32,
    /// Whether a failure for which the target asked not to be called opens it, whatever the rates say.
    pub at_once: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            failure_rate: 0.5,
            slow_rate: 2.0,
            slow_after: Duration::from_secs(60),
            minimum: 20,
            window: Window::Time(Duration::from_secs(30)),
            open_for: Duration::from_secs(5),
            open_at_most: Duration::from_secs(60),
            probes: 3,
            at_once: false,
        }
    }
}

/// What a breaker does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It lets all pass.
    Closed,
    /// It lets none pass until its time is over.
    Open,
    /// It lets some pass, to see how they end.
    HalfOpen,
    /// Somebody opened it; it stays so until it is reset.
    ForcedOpen,
    /// Somebody closed it; it stays so until it is reset.
    ForcedClosed,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Closed,
        Self::Open,
        Self::HalfOpen,
        Self::ForcedOpen,
        Self::ForcedClosed,
    ];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
            Self::ForcedOpen => "forced-open",
            Self::ForcedClosed => "forced-closed",
        }
    }
}

/// How a call ended, as far as the target is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The target did what it is for.
    Success,
    /// It did not.
    Failure,
    /// Nothing can be said about it.
    Neutral,
}

/// Leave to call the target. Each is given back once, by [`Breaker::record`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit {
    epoch: u64,
}

/// Why a call may not go to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// How it is with the breaker.
    pub state: State,
    /// When it may be otherwise; None where nobody knows.
    pub after: Option<Duration>,
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What it was.
    pub from: State,
    /// What it is.
    pub to: State,
}

/// The window's figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls that ended.
    pub calls: u32,
    /// Those that failed.
    pub failures: u32,
    /// Those that were slow.
    pub slow: u32,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.failures += other.failures;
        self.slow += other.slow;
    }

    fn take(&mut self, other: Self) {
        self.calls -= other.calls;
        self.failures -= other.failures;
        self.slow -= other.slow;
    }

    fn reaches(self, settings: &Settings, of: u32) -> bool {
        let share = |count: u32| f64::from(count) / f64::from(of.max(1));
        share(self.failures) >= settings.failure_rate || share(self.slow) >= settings.slow_rate
    }
}

/// How many parts a window of time has.
const PARTS: usize = 10;

/// The calls that the rates are of.
#[derive(Debug)]
enum Seen {
    /// A ring of single calls.
    Calls { ring: Vec<Tally>, next: usize },
    /// Parts of the time, each with the number of the part whose calls it has.
    Time {
        parts: Box<[(u64, Tally); PARTS]>,
        width: u64,
    },
}

impl Seen {
    fn new(window: Window) -> Self {
        match window {
            Window::Calls(count) => Self::Calls {
                ring: vec![Tally::default(); count.max(1) as usize],
                next: 0,
            },
            Window::Time(time) => Self::Time {
                parts: Box::new([(0, Tally::default()); PARTS]),
                width: (nanos(time) / PARTS as u64).max(1),
            },
        }
    }
}

#[derive(Debug)]
struct Inner {
    state: State,
    epoch: u64,
    seen: Seen,
    /// The sum over a ring; a window of time is added up when it is asked for.
    sum: Tally,
    /// When an open breaker starts to probe.
    until: u64,
    /// Rounds of probes in a row that failed.
    rounds: u32,
    /// Probes that are under way or have ended.
    started: u32,
    probed: Tally,
}

/// A circuit breaker; see the top of this file.
#[derive(Debug)]
pub struct Breaker {
    settings: Settings,
    inner: Mutex<Inner>,
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            inner: Mutex::new(Inner {
                state: State::Closed,
                epoch: 0,
                seen: Seen::new(settings.window),
                sum: Tally::default(),
                until: 0,
                rounds: 0,
                started: 0,
                probed: Tally::default(),
            }),
        }
    }

    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether a call may go to the target now, and the change of state that this brought.
    pub fn admit(&self, now: u64) -> (Result<Permit, Refused>, Option<Change>) {
        let mut inner = self.lock();
        let mut change = None;
        if inner.state == State::Open && now >= inner.until {
            change = Some(inner.go(State::HalfOpen));
            inner.started = 0;
            inner.probed = Tally::default();
        }
        let refused = match inner.state {
            State::Closed | State::ForcedClosed => None,
            State::HalfOpen if inner.started < self.settings.probes.max(1) => {
                inner.started += 1;
                None
            }
            State::Open => Some(Some(Duration::from_nanos(inner.until - now))),
            State::HalfOpen | State::ForcedOpen => Some(None),
        };
        let permit = Permit { epoch: inner.epoch };
        let result = refused.map_or(Ok(permit), |after| {
            Err(Refused {
                state: inner.state,
                after,
            })
        });
        (result, change)
    }

    /// Whether [`Breaker::admit`] would let a call pass, without a change of anything.
    #[must_use]
    pub fn admits(&self, now: u64) -> bool {
        let inner = self.lock();
        match inner.state {
            State::Closed | State::ForcedClosed => true,
            State::Open => now >= inner.until,
            State::HalfOpen => inner.started < self.settings.probes.max(1),
            State::ForcedOpen => false,
        }
    }

    /// How a call ended that was let pass, and the change of state that this brought.
    ///
    /// `not_before` is the time for which a target that failed asked not to be called (`Retry-After`): where the breaker is or
    /// becomes open, it stays so at least as long. A later answer can lengthen that time, never shorten it.
    pub fn record(
        &self,
        permit: Permit,
        verdict: Verdict,
        took: Duration,
        not_before: Option<Duration>,
        now: u64,
    ) -> Option<Change> {
        let mut inner = self.lock();
        if let (State::Open, Verdict::Failure, Some(time)) = (inner.state, verdict, not_before) {
            inner.until = inner.until.max(now.saturating_add(nanos(time)));
        }
        if permit.epoch != inner.epoch {
            return None;
        }
        if verdict == Verdict::Neutral {
            if inner.state == State::HalfOpen {
                inner.started -= 1;
            }
            return None;
        }
        let asked = self.settings.at_once && verdict == Verdict::Failure && not_before.is_some();
        let call = Tally {
            calls: 1,
            failures: u32::from(verdict == Verdict::Failure),
            slow: u32::from(took >= self.settings.slow_after),
        };
        match inner.state {
            State::Closed => {
                inner.see(call, now);
                let tally = inner.tally(now);
                if asked
                    || tally.calls >= self.settings.minimum.max(1)
                        && tally.reaches(&self.settings, tally.calls)
                {
                    inner.rounds = 0;
                    return Some(self.open(&mut inner, not_before, now));
                }
                None
            }
            State::HalfOpen => {
                inner.probed.add(call);
                let probes = self.settings.probes.max(1);
                if asked || inner.probed.reaches(&self.settings, probes) {
                    inner.rounds += 1;
                    return Some(self.open(&mut inner, not_before, now));
                }
                (inner.probed.calls == probes).then(|| {
                    inner.rounds = 0;
                    inner.forget(&self.settings);
                    inner.go(State::Closed)
                })
            }
            State::Open | State::ForcedOpen | State::ForcedClosed => None,
        }
    }

    /// Opens or closes it until [`Breaker::reset`].
    pub fn force(&self, open: bool) -> Option<Change> {
        let mut inner = self.lock();
        let to = if open {
            State::ForcedOpen
        } else {
            State::ForcedClosed
        };
        (inner.state != to).then(|| inner.go(to))
    }

    /// Closes it, and forgets all that it has seen.
    pub fn reset(&self) -> Option<Change> {
        let mut inner = self.lock();
        inner.forget(&self.settings);
        inner.rounds = 0;
        (inner.state != State::Closed).then(|| inner.go(State::Closed))
    }

    /// Its state; one whose open time is over is open until somebody asks to be let pass.
    #[must_use]
    pub fn state(&self) -> State {
        self.lock().state
    }

    /// What is in its window now.
    #[must_use]
    pub fn tally(&self, now: u64) -> Tally {
        self.lock().tally(now)
    }

    fn open(&self, inner: &mut Inner, not_before: Option<Duration>, now: u64) -> Change {
        let doubled = nanos(self.settings.open_for).saturating_mul(1 << inner.rounds.min(32));
        let longest = nanos(self.settings.open_at_most.max(self.settings.open_for));
        let time = doubled.min(longest).max(not_before.map_or(0, nanos));
        inner.until = now.saturating_add(time);
        inner.forget(&self.settings);
        inner.go(State::Open)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // Nothing in here panics half way; if it did, the figures would still be figures.
        self.inner
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Inner {
    fn go(&mut self, to: State) -> Change {
        let change = Change {
            from: self.state,
            to,
        };
        self.state = to;
        self.epoch += 1;
        change
    }

    fn forget(&mut self, settings: &Settings) {
        self.seen = Seen::new(settings.window);
        self.sum = Tally::default();
    }

    fn see(&mut self, call: Tally, now: u64) {
        match &mut self.seen {
            Seen::Calls { ring, next } => {
                self.sum.take(ring[*next]);
                self.sum.add(call);
                ring[*next] = call;
                *next = (*next + 1) % ring.len();
            }
            Seen::Time { parts, width } => {
                let number = now / *width;
                #[allow(clippy::cast_possible_truncation)] // less than PARTS
                let part = &mut parts[(number % PARTS as u64) as usize];
                if part.0 != number {
                    *part = (number, Tally::default());
                }
                part.1.add(call);
            }
        }
    }

    fn tally(&self, now: u64) -> Tally {
        match &self.seen {
            Seen::Calls { .. } => self.sum,
            Seen::Time { parts, width } => {
                let number = now / *width;
                let mut sum = Tally::default();
                for (of, tally) in parts.iter() {
                    if number.abs_diff(*of) < PARTS as u64 {
                        sum.add(*tally);
                    }
                }
                sum
            }
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn settings() -> Settings {
        Settings {
            failure_rate: 0.5,
            slow_rate: 0.8,
            slow_after: Duration::from_secs(2),
            minimum: 4,
            window: Window::Calls(6),
            open_for: Duration::from_secs(5),
            open_at_most: Duration::from_secs(15),
            probes: 2,
            at_once: false,
        }
    }

    fn call(breaker: &Breaker, verdict: Verdict, now: u64) -> Option<Change> {
        let permit = breaker.admit(now).0.expect("it is let pass");
        breaker.record(permit, verdict, Duration::ZERO, None, now)
    }

    /// A breaker in a state, which it got into before the second `now`.
    fn breaker_in(state: State) -> Breaker {
        let breaker = Breaker::new(settings());
        match state {
            State::Closed => {}
            State::ForcedOpen => {
                breaker.force(true);
            }
            State::ForcedClosed => {
                breaker.force(false);
            }
            State::Open | State::HalfOpen => {
                for _ in 0..4 {
                    call(&breaker, Verdict::Failure, 0);
                }
            }
        }
        if state == State::HalfOpen {
            let permit = breaker.admit(5 * SECOND).0.unwrap();
            breaker.record(permit, Verdict::Neutral, Duration::ZERO, None, 5 * SECOND);
        }
        assert_eq!(breaker.state(), state);
        breaker
    }

    const STATES: [State; 5] = [
        State::Closed,
        State::Open,
        State::HalfOpen,
        State::ForcedOpen,
        State::ForcedClosed,
    ];

    #[test]
    fn every_event_in_every_state_does_what_the_table_says() {
        use State::{Closed, ForcedClosed, ForcedOpen, HalfOpen, Open};
        type Event = fn(&Breaker);
        let ask: Event = |breaker| {
            let _ = breaker.admit(4 * SECOND);
        };
        let ask_later: Event = |breaker| {
            let _ = breaker.admit(5 * SECOND);
        };
        let fail: Event = |breaker| {
            for _ in 0..4 {
                if let Ok(permit) = breaker.admit(6 * SECOND).0 {
                    breaker.record(permit, Verdict::Failure, Duration::ZERO, None, 6 * SECOND);
                }
            }
        };
        let succeed: Event = |breaker| {
            for _ in 0..4 {
                if let Ok(permit) = breaker.admit(6 * SECOND).0 {
                    breaker.record(permit, Verdict::Success, Duration::ZERO, None, 6 * SECOND);
                }
            }
        };
        let be_neutral: Event = |breaker| {
            for _ in 0..40 {
                if let Ok(permit) = breaker.admit(6 * SECOND).0 {
                    breaker.record(
                        permit,
                        Verdict::Neutral,
                        Duration::from_secs(9),
                        None,
                        6 * SECOND,
                    );
                }
            }
        };
        let be_slow: Event = |breaker| {
            for _ in 0..4 {
                if let Ok(permit) = breaker.admit(6 * SECOND).0 {
                    breaker.record(
                        permit,
                        Verdict::Success,
                        Duration::from_secs(2),
                        None,
                        6 * SECOND,
                    );
                }
            }
        };
        let open: Event = |breaker| {
            let _ = breaker.force(true);
        };
        let close: Event = |breaker| {
            let _ = breaker.force(false);
        };
        let reset: Event = |breaker| {
            let _ = breaker.reset();
        };
        let rows: [(&str, Event, [State; 5]); 9] = [
            (
                "ask before the time is over",
                ask,
                [Closed, Open, HalfOpen, ForcedOpen, ForcedClosed],
            ),
            (
                "ask after it",
                ask_later,
                [Closed, HalfOpen, HalfOpen, ForcedOpen, ForcedClosed],
            ),
            ("fail", fail, [Open, Open, Open, ForcedOpen, ForcedClosed]),
            (
                "succeed",
                succeed,
                [Closed, Closed, Closed, ForcedOpen, ForcedClosed],
            ),
            (
                "end neutrally",
                be_neutral,
                [Closed, HalfOpen, HalfOpen, ForcedOpen, ForcedClosed],
            ),
            (
                "be slow",
                be_slow,
                [Open, Open, Open, ForcedOpen, ForcedClosed],
            ),
            ("force open", open, [ForcedOpen; 5]),
            ("force closed", close, [ForcedClosed; 5]),
            ("reset", reset, [Closed; 5]),
        ];
        for (name, event, expected) in rows {
            for (state, expected) in STATES.into_iter().zip(expected) {
                let breaker = breaker_in(state);
                event(&breaker);
                assert_eq!(breaker.state(), expected, "{name} in {}", state.as_str());
            }
        }
    }

    #[test]
    fn an_open_breaker_says_when_to_come_again_and_a_forced_one_does_not() {
        let refused = |breaker: &Breaker, now| breaker.admit(now).0.unwrap_err();
        let open = breaker_in(State::Open);
        assert_eq!(refused(&open, SECOND).after, Some(Duration::from_secs(4)));
        assert!(!open.admits(SECOND) && open.admits(5 * SECOND));
        assert_eq!(refused(&breaker_in(State::ForcedOpen), SECOND).after, None);
        assert!(!breaker_in(State::ForcedOpen).admits(60 * SECOND));
    }

    #[test]
    fn only_so_many_probes_are_under_way_and_a_neutral_one_gives_its_place_back() {
        let breaker = breaker_in(State::HalfOpen);
        let first = breaker.admit(6 * SECOND).0.unwrap();
        let second = breaker.admit(6 * SECOND).0.unwrap();
        assert_eq!(
            breaker.admit(6 * SECOND).0.unwrap_err().state,
            State::HalfOpen
        );
        assert!(!breaker.admits(6 * SECOND));
        breaker.record(first, Verdict::Neutral, Duration::ZERO, None, 6 * SECOND);
        let third = breaker.admit(6 * SECOND).0.unwrap();
        breaker.record(second, Verdict::Success, Duration::ZERO, None, 6 * SECOND);
        let change = breaker.record(third, Verdict::Success, Duration::ZERO, None, 6 * SECOND);
        assert_eq!(
            change,
            Some(Change {
                from: State::HalfOpen,
                to: State::Closed
            })
        );
        assert_eq!(breaker.tally(6 * SECOND), Tally::default());
    }

    #[test]
    fn a_call_of_an_epoch_that_is_over_changes_nothing() {
        let breaker = Breaker::new(settings());
        let old: Vec<_> = (0..6).map(|_| breaker.admit(0).0.unwrap()).collect();
        for _ in 0..4 {
            call(&breaker, Verdict::Failure, 0);
        }
        let probe = breaker.admit(5 * SECOND).0.unwrap();
        for permit in old {
            assert_eq!(
                breaker.record(permit, Verdict::Failure, Duration::ZERO, None, 5 * SECOND),
                None
            );
        }
        assert_eq!(breaker.state(), State::HalfOpen);
        breaker.record(probe, Verdict::Success, Duration::ZERO, None, 5 * SECOND);
        assert_eq!(
            call(&breaker, Verdict::Success, 5 * SECOND).unwrap().to,
            State::Closed
        );
    }

    #[test]
    fn the_open_time_doubles_with_each_round_that_failed_up_to_its_limit() {
        let breaker = breaker_in(State::Open);
        let mut now = 5 * SECOND;
        for expected in [10, 15, 15] {
            let permit = breaker.admit(now).0.unwrap();
            breaker.record(permit, Verdict::Failure, Duration::ZERO, None, now);
            let after = breaker.admit(now).0.unwrap_err().after.unwrap();
            assert_eq!(after, Duration::from_secs(expected));
            now += expected * SECOND;
        }
        for _ in 0..2 {
            call(&breaker, Verdict::Success, now);
        }
        for _ in 0..4 {
            call(&breaker, Verdict::Failure, now);
        }
        assert_eq!(
            breaker.admit(now).0.unwrap_err().after,
            Some(Duration::from_secs(5))
        );
    }

    #[test]
    fn a_time_that_the_target_asks_for_is_the_least_and_is_lengthened_but_never_shortened() {
        let breaker = Breaker::new(settings());
        let late: Vec<_> = (0..4).map(|_| breaker.admit(0).0.unwrap()).collect();
        for _ in 0..3 {
            call(&breaker, Verdict::Failure, 0);
        }
        let permit = breaker.admit(0).0.unwrap();
        breaker.record(
            permit,
            Verdict::Failure,
            Duration::ZERO,
            Some(Duration::from_secs(30)),
            0,
        );
        let after = |now| breaker.admit(now).0.unwrap_err().after.unwrap().as_secs();
        assert_eq!(after(0), 30);
        for (permit, (asked, expected)) in
            late.into_iter()
                .zip([(10, 29), (60, 60), (0, 60), (61, 61)])
        {
            breaker.record(
                permit,
                Verdict::Failure,
                Duration::ZERO,
                Some(Duration::from_secs(asked)),
                SECOND,
            );
            assert_eq!(after(SECOND), expected);
        }
        let of_others = breaker_in(State::Open);
        let stale = Permit { epoch: 0 };
        of_others.record(
            stale,
            Verdict::Neutral,
            Duration::ZERO,
            Some(Duration::from_secs(600)),
            SECOND,
        );
        assert!(
            of_others.admits(5 * SECOND),
            "what somebody else asks for is not the target's time"
        );
        let huge = breaker_in(State::Open);
        huge.record(
            Permit { epoch: 0 },
            Verdict::Failure,
            Duration::ZERO,
            Some(Duration::MAX),
            SECOND,
        );
        assert!(!huge.admits(u64::MAX - 1));
    }

    #[test]
    fn one_that_opens_at_once_does_so_for_a_failure_that_asks_for_time_and_for_no_other() {
        let asks = |breaker: &Breaker, verdict, after: Option<u64>, now| {
            let permit = breaker.admit(now).0.unwrap();
            let time = after.map(Duration::from_secs);
            breaker.record(permit, verdict, Duration::ZERO, time, now);
            breaker.admit(now).0.err().and_then(|refused| refused.after)
        };
        let breaker = Breaker::new(Settings {
            at_once: true,
            ..settings()
        });
        for _ in 0..3 {
            assert_eq!(asks(&breaker, Verdict::Success, Some(60), 0), None);
            assert_eq!(asks(&breaker, Verdict::Neutral, Some(60), 0), None);
        }
        assert_eq!(asks(&breaker, Verdict::Failure, None, 0), None);
        let seconds = |time| Some(Duration::from_secs(time));
        assert_eq!(asks(&breaker, Verdict::Failure, Some(0), 0), seconds(5));
        let probe = asks(&breaker, Verdict::Failure, Some(0), 5 * SECOND);
        assert_eq!(probe, seconds(10), "twice as long");
        let probe = asks(&breaker, Verdict::Failure, Some(40), 15 * SECOND);
        assert_eq!(probe, seconds(40));
        let patient = Breaker::new(settings());
        assert_eq!(asks(&patient, Verdict::Failure, Some(60), 0), None);
    }

    #[test]
    fn a_rate_above_one_is_never_reached_and_fewer_calls_than_the_minimum_mean_nothing() {
        let never = Breaker::new(Settings {
            failure_rate: 2.0,
            slow_rate: 2.0,
            ..settings()
        });
        for _ in 0..100 {
            call(&never, Verdict::Failure, 0);
        }
        assert_eq!(never.state(), State::Closed);
        let breaker = Breaker::new(settings());
        for _ in 0..3 {
            call(&breaker, Verdict::Failure, 0);
        }
        assert_eq!(breaker.state(), State::Closed);
        call(&breaker, Verdict::Success, 0);
        assert_eq!(breaker.state(), State::Open);
    }

    /// What the breaker is compared with: every call with its time, and the rates counted anew each time.
    fn expected(window: Window, calls: &VecDeque<(u64, Tally)>, now: u64) -> Tally {
        let mut sum = Tally::default();
        match window {
            Window::Calls(count) => {
                for (_, tally) in calls.iter().rev().take(count as usize) {
                    sum.add(*tally);
                }
            }
            Window::Time(time) => {
                let width = nanos(time) / PARTS as u64;
                for (at, tally) in calls {
                    if now / width - at / width < PARTS as u64 {
                        sum.add(*tally);
                    }
                }
            }
        }
        sum
    }

    #[test]
    fn over_generated_histories_it_opens_when_the_rates_of_its_window_say_so_and_only_then() {
        let mut seed = 11_u64;
        let mut random = |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        let mut opened = 0;
        for history in 0..400 {
            let window = if history % 2 == 0 {
                Window::Calls(u32::try_from(1 + random(20)).unwrap())
            } else {
                Window::Time(Duration::from_millis(100 + random(5_000)))
            };
            #[allow(clippy::cast_precision_loss)]
            let rate = (1 + random(10)) as f64 / 10.0;
            let settings = Settings {
                window,
                failure_rate: rate,
                minimum: u32::try_from(1 + random(8)).unwrap(),
                ..settings()
            };
            let breaker = Breaker::new(settings);
            let (mut calls, mut now) = (VecDeque::new(), 0);
            for _ in 0..300 {
                now += random(SECOND / 2);
                let (admitted, change) = breaker.admit(now);
                if change.is_some() {
                    calls.clear();
                }
                let Ok(permit) = admitted else {
                    assert_eq!(breaker.state(), State::Open);
                    continue;
                };
                let failed = random(10) < 1 + history % 7;
                let verdict = [Verdict::Success, Verdict::Failure][usize::from(failed)];
                let probing = breaker.state() == State::HalfOpen;
                breaker.record(permit, verdict, Duration::ZERO, None, now);
                if probing {
                    continue;
                }
                calls.push_back((
                    now,
                    Tally {
                        calls: 1,
                        failures: u32::from(failed),
                        slow: 0,
                    },
                ));
                let tally = expected(window, &calls, now);
                let opens =
                    tally.calls >= settings.minimum && tally.reaches(&settings, tally.calls);
                assert_eq!(
                    breaker.state() == State::Open,
                    opens,
                    "{settings:?} {tally:?}"
                );
                if opens {
                    opened += 1;
                    calls.clear();
                } else {
                    assert_eq!(breaker.tally(now), tally);
                }
            }
        }
        assert!(opened > 300, "{opened}");
    }

    #[test]
    fn from_many_threads_no_more_probes_pass_than_there_may() {
        let breaker = breaker_in(State::Open);
        let passed = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        (0..1_000)
                            .filter(|_| breaker.admit(6 * SECOND).0.is_ok())
                            .count()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum::<usize>()
        });
        assert_eq!(passed, 2);
    }
}
