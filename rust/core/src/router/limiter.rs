//! Rate limits of a server: requests and tokens a minute, and calls at once. Calls that have to wait do so in line.
//!
//! ```text
//!   ask --> there is room and nobody waits --> granted --> done
//!    |                                            ^
//!    +----> waits --------- its turn -------------+
//!    |        +--> withdraw
//!    +----> too late: its turn would come after its time
//! ```
//!
//! Requests and tokens each have a *bucket*: it fills at the rate of the limit up to the burst, and each call takes its
//! share out. In any time there are no more than what the bucket holds and what flows in meanwhile. A call that is larger
//! than the bucket waits until it is full, and those behind it until what it took beyond that has flowed in.
//!
//! What a call will take in tokens is an estimate when it is granted and known when it is done. The bucket keeps what was
//! taken since the oldest call that is not done, and reckons anew with the figure that came: its level is always the one
//! that it would have had if the figure had been known from the start. To give back the difference alone would be wrong,
//! since time may have filled the hole by then, and the call after it would take it twice.
//!
//! Turns go round by caller, and among the calls of one caller in the order in which they came. The call whose turn it is
//! is never passed over for a smaller one, so that each is served in the end.
//!
//! Time comes in from outside, in nanoseconds of any monotonic clock.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// What there may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Requests a minute; None for any number.
    pub requests_per_minute: Option<f64>,
    /// Tokens a minute, those of prompts and of answers together; None for any number.
    pub tokens_per_minute: Option<f64>,
    /// Calls at once; None for any number.
    pub concurrency: Option<u64>,
    /// The share of a minute's limit that may go at once after a quiet time.
    pub burst: f64,
}

/// The name of a call, good until it is done or withdrawn.
type Id = u64;

/// Whether a call may go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Asked {
    /// Now.
    Granted(Id),
    /// When it is told, and after so long at the earliest.
    Waits(Id, Duration),
    /// Not in time: its turn would come after so long, at the earliest.
    TooLate(Duration),
}

/// Who may go now, and who is next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Turns {
    /// Calls that have been granted.
    pub granted: Vec<Id>,
    /// The call whose turn is next, and how long it takes at least; None where nobody waits, or nobody but a call that
    /// ends can make room.
    pub next: Option<(Id, Duration)>,
}

/// A call is expected to be answered in so many tokens before any has been.
const FIRST_ANSWER: f64 = 256.0;

/// Of so many answers the mean is learned.
const LEARNED: f64 = 32.0;

/// Bytes of a request's body for each token.
const BYTES_PER_TOKEN: f64 = 4.0;

/// Calls that a bucket reckons with one by one; what is older stays as it was estimated.
const REMEMBERED: usize = 1024;

const MINUTE: f64 = 60e9;

/// What a call took out of a bucket.
#[derive(Debug)]
struct Taken {
    id: Id,
    at: u64,
    amount: f64,
    known: bool,
}

#[derive(Debug)]
struct Bucket {
    /// What flows in, for each nanosecond.
    rate: f64,
    /// What it holds.
    size: f64,
    /// The level at a time; below nought after a call that was larger than the bucket.
    level: f64,
    at: u64,
    /// The same before what is listed here was taken.
    base: (f64, u64),
    taken: VecDeque<Taken>,
}

impl Bucket {
    fn new(per_minute: f64, burst: f64) -> Self {
        let size = (per_minute * burst).max(1.0);
        Self {
            rate: per_minute / MINUTE,
            size,
            level: size,
            at: 0,
            base: (size, 0),
            taken: VecDeque::new(),
        }
    }

    #[allow(clippy::cast_precision_loss)]
    fn filled(&self, (level, at): (f64, u64), now: u64) -> f64 {
        (level + now.saturating_sub(at) as f64 * self.rate).min(self.size)
    }

    /// How long it takes until a call that takes so much may go, after others that take `before`.
    fn wait(&self, amount: f64, before: f64, now: u64) -> Duration {
        let missing = before + amount.min(self.size) - self.filled((self.level, self.at), now);
        if missing <= 1e-9 {
            return Duration::ZERO;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let nanos = (missing / self.rate).ceil() as u64; // what is too much is the most there is
        Duration::from_nanos(nanos)
    }

    fn take(&mut self, id: Id, amount: f64, now: u64) {
        self.level = self.filled((self.level, self.at), now) - amount;
        self.at = self.at.max(now);
        self.taken.push_back(Taken {
            id,
            at: self.at,
            amount,
            known: false,
        });
        while self.taken.len() > REMEMBERED {
            self.forget_first();
        }
    }

    /// What a call has taken is known now; None where it stays as it was estimated.
    fn settle(&mut self, id: Id, amount: Option<f64>) {
        let Some(taken) = self.taken.iter_mut().find(|taken| taken.id == id) else {
            return;
        };
        taken.known = true;
        if let Some(amount) = amount {
            taken.amount = amount;
            let (mut level, mut at) = self.base;
            for taken in &self.taken {
                level = self.filled((level, at), taken.at) - taken.amount;
                at = taken.at;
            }
            (self.level, self.at) = (level, at);
        }
        while self.taken.front().is_some_and(|taken| taken.known) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some(first) = self.taken.pop_front() {
            self.base = (self.filled(self.base, first.at) - first.amount, first.at);
        }
    }
}

#[derive(Debug)]
struct Waiting {
    id: Id,
    tokens: f64,
}

/// The limits of one server, and the calls that wait for their turn; see the top of this file.
#[derive(Debug)]
pub struct Limiter {
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    concurrency: u64,
    in_flight: u64,
    last: Id,
    /// Callers in the order of their turns.
    round: VecDeque<u64>,
    waiting: HashMap<u64, VecDeque<Waiting>>,
    answers: f64,
    mean: f64,
}

impl Limiter {
    /// A limiter with full buckets.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let bucket = |per_minute: f64| Bucket::new(per_minute, settings.burst);
        Self {
            requests: settings.requests_per_minute.map(bucket),
            tokens: settings.tokens_per_minute.map(bucket),
            concurrency: settings.concurrency.unwrap_or(u64::MAX),
            in_flight: 0,
            last: 0,
            round: VecDeque::new(),
            waiting: HashMap::new(),
            answers: 0.0,
            mean: FIRST_ANSWER,
        }
    }

    /// The tokens that a call is expected to take.
    ///
    /// A prompt has a token for four bytes of the body. An answer is as long as the last ones were on average, and no longer
    /// than it may be; before there has been one, it is as long as it may be.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn estimate(&self, bytes: u64, generations: u64, most: Option<u64>) -> f64 {
        let answer = match most {
            Some(most) if self.answers == 0.0 => most as f64,
            Some(most) => self.mean.min(most as f64),
            None => self.mean,
        };
        bytes as f64 / BYTES_PER_TOKEN + answer * generations as f64
    }

    /// Whether a call may go, for which there is at most so much time to wait.
    pub fn ask(&mut self, caller: u64, tokens: f64, most: Option<Duration>, now: u64) -> Asked {
        let wait = self.expected(caller, tokens, None, now);
        if most.is_some_and(|most| wait > most) {
            return Asked::TooLate(wait);
        }
        self.last += 1;
        if self.round.is_empty() && self.may_go(tokens, now).is_some_and(|wait| wait.is_zero()) {
            self.grant(self.last, tokens, now);
            return Asked::Granted(self.last);
        }
        let line = self.waiting.entry(caller).or_default();
        if line.is_empty() {
            self.round.push_back(caller);
        }
        line.push_back(Waiting {
            id: self.last,
            tokens,
        });
        Asked::Waits(self.last, wait)
    }

    /// Grants what may go, in turn.
    pub fn turns(&mut self, now: u64) -> Turns {
        let mut turns = Turns::default();
        while let Some(caller) = self.round.front().copied() {
            let Some(first) = self.waiting.get(&caller).and_then(VecDeque::front) else {
                self.round.pop_front();
                continue;
            };
            let (id, tokens) = (first.id, first.tokens);
            match self.may_go(tokens, now) {
                Some(Duration::ZERO) => {}
                wait => {
                    turns.next = wait.map(|wait| (id, wait));
                    break;
                }
            }
            self.grant(id, tokens, now);
            self.round.pop_front();
            self.leave_line(caller, id);
            if self.waiting.contains_key(&caller) {
                self.round.push_back(caller);
            }
            turns.granted.push(id);
        }
        turns
    }

    /// Grants a call that waits, out of turn.
    pub fn let_pass(&mut self, caller: u64, id: Id, now: u64) {
        if let Some(waiting) = self.leave_line(caller, id) {
            self.grant(id, waiting.tokens, now);
        }
    }

    /// Takes a call out of the line, and says how long its turn would still have taken at least; None where it waits no more.
    pub fn withdraw(&mut self, caller: u64, id: Id, now: u64) -> Option<Duration> {
        let waiting = self.leave_line(caller, id)?;
        Some(self.expected(caller, waiting.tokens, Some(id), now))
    }

    /// A call that was granted is over, and took so many tokens; None where nobody knows.
    pub fn done(&mut self, id: Id, tokens: Option<f64>) {
        self.in_flight -= 1;
        if let Some(bucket) = &mut self.requests {
            bucket.settle(id, None);
        }
        if let Some(bucket) = &mut self.tokens {
            bucket.settle(id, tokens);
        }
    }

    /// A call that was granted was never made.
    pub fn give_back(&mut self, id: Id) {
        self.in_flight -= 1;
        for bucket in [&mut self.requests, &mut self.tokens].into_iter().flatten() {
            bucket.settle(id, Some(0.0));
        }
    }

    /// An answer had so many tokens.
    pub fn learn(&mut self, answer: f64) {
        self.answers = (self.answers + 1.0).min(LEARNED);
        self.mean += (answer - self.mean) / self.answers;
    }

    /// Whether an ordinary call would have to wait.
    #[must_use]
    pub fn is_busy(&self, now: u64) -> bool {
        !self.round.is_empty() || self.may_go(self.mean, now) != Some(Duration::ZERO)
    }

    /// Calls that have been granted and are not done.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Calls that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }

    fn grant(&mut self, id: Id, tokens: f64, now: u64) {
        self.in_flight += 1;
        if let Some(bucket) = &mut self.requests {
            bucket.take(id, 1.0, now);
        }
        if let Some(bucket) = &mut self.tokens {
            bucket.take(id, tokens, now);
        }
    }

    /// How long it takes until a call may go that nobody is before; None where another has to end first.
    fn may_go(&self, tokens: f64, now: u64) -> Option<Duration> {
        (self.in_flight < self.concurrency).then(|| self.wait((1.0, 0.0), (tokens, 0.0), now))
    }

    /// How long the buckets need for a call, after others.
    fn wait(&self, requests: (f64, f64), tokens: (f64, f64), now: u64) -> Duration {
        let of = |bucket: &Option<Bucket>, (amount, before): (f64, f64)| {
            bucket
                .as_ref()
                .map_or(Duration::ZERO, |bucket| bucket.wait(amount, before, now))
        };
        of(&self.requests, requests).max(of(&self.tokens, tokens))
    }

    /// How long it takes at least until the turn of a call, which comes last or where `id` was: the calls before it are those
    /// of its caller, and as many of each other caller's.
    #[allow(clippy::cast_precision_loss)]
    fn expected(&self, caller: u64, tokens: f64, id: Option<Id>, now: u64) -> Duration {
        let mine = self.waiting.get(&caller).map_or(0, |line| {
            id.map_or(line.len(), |id| {
                line.partition_point(|waiting| waiting.id < id)
            })
        });
        let (mut calls, mut sum) = (0_usize, 0.0);
        let mut seen = !self.waiting.contains_key(&caller);
        for other in &self.round {
            // Those whose turn comes before the caller's have one more; a caller without calls comes last.
            let turns = if *other == caller {
                seen = true;
                mine
            } else {
                mine + usize::from(!seen || !self.waiting.contains_key(&caller))
            };
            if let Some(line) = self.waiting.get(other) {
                calls += line.len().min(turns);
                sum += line
                    .iter()
                    .take(turns)
                    .map(|waiting| waiting.tokens)
                    .sum::<f64>();
            }
        }
        self.wait((1.0, calls as f64), (tokens, sum), now)
    }

    fn leave_line(&mut self, caller: u64, id: Id) -> Option<Waiting> {
        let line = self.waiting.get_mut(&caller)?;
        let at = line.binary_search_by_key(&id, |waiting| waiting.id).ok()?;
        let waiting = line.remove(at);
        if line.is_empty() {
            self.waiting.remove(&caller);
            self.round.retain(|other| *other != caller);
        }
        waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn settings() -> Settings {
        Settings {
            requests_per_minute: None,
            tokens_per_minute: None,
            concurrency: None,
            burst: 0.1,
        }
    }

    fn of_requests(per_minute: f64) -> Limiter {
        Limiter::new(&Settings {
            requests_per_minute: Some(per_minute),
            ..settings()
        })
    }

    fn of_tokens(per_minute: f64) -> Limiter {
        Limiter::new(&Settings {
            tokens_per_minute: Some(per_minute),
            ..settings()
        })
    }

    fn granted(asked: Asked) -> Id {
        match asked {
            Asked::Granted(id) => id,
            other => panic!("{other:?}"),
        }
    }

    fn waits(asked: Asked) -> Id {
        match asked {
            Asked::Waits(id, _) => id,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn so_many_go_at_once_and_then_as_many_as_the_limit_says() {
        let mut limiter = of_requests(60.0);
        for _ in 0..6 {
            let id = granted(limiter.ask(0, 0.0, None, 0));
            limiter.done(id, None);
        }
        let one = waits(limiter.ask(0, 0.0, None, 0));
        let other = waits(limiter.ask(0, 0.0, None, 0));
        let next = |turns: &Turns| turns.next;
        assert_eq!(next(&limiter.turns(0)), Some((one, Duration::from_secs(1))));
        assert_eq!(limiter.turns(SECOND - 1_000).granted, []);
        let turns = limiter.turns(SECOND);
        assert_eq!(turns.granted, [one]);
        assert_eq!(turns.next, Some((other, Duration::from_secs(1))));
        assert_eq!(limiter.turns(2 * SECOND).granted, [other]);
        assert_eq!(limiter.in_flight(), 2);
    }

    #[test]
    fn a_call_that_would_wait_longer_than_it_may_is_refused_and_told_when() {
        let mut limiter = of_requests(60.0);
        for _ in 0..6 {
            granted(limiter.ask(0, 0.0, None, 0));
        }
        for _ in 0..3 {
            waits(limiter.ask(0, 0.0, Some(Duration::from_secs(3)), 0));
        }
        let asked = limiter.ask(0, 0.0, Some(Duration::from_secs(3)), 0);
        assert_eq!(asked, Asked::TooLate(Duration::from_secs(4)));
        assert_eq!(limiter.waiting(), 3);
        // Another caller's first call comes after one of each.
        let asked = limiter.ask(1, 0.0, Some(Duration::from_secs(2)), 0);
        waits(asked);
    }

    #[test]
    fn turns_go_round_by_caller() {
        let mut limiter = of_requests(60.0);
        for _ in 0..6 {
            granted(limiter.ask(0, 0.0, None, 0));
        }
        let many: Vec<_> = (0..4)
            .map(|_| waits(limiter.ask(1, 0.0, None, 0)))
            .collect();
        let few: Vec<_> = (0..2)
            .map(|_| waits(limiter.ask(2, 0.0, None, 0)))
            .collect();
        let order: Vec<_> = (1..=6)
            .flat_map(|second| limiter.turns(second * SECOND).granted)
            .collect();
        assert_eq!(order, [many[0], few[0], many[1], few[1], many[2], many[3]]);
    }

    #[test]
    fn calls_at_once_wait_for_one_that_ends() {
        let mut limiter = Limiter::new(&Settings {
            concurrency: Some(1),
            ..settings()
        });
        let first = granted(limiter.ask(0, 0.0, None, 0));
        assert!(limiter.is_busy(0));
        let second = waits(limiter.ask(0, 0.0, Some(Duration::ZERO), 0));
        assert_eq!(limiter.turns(0), Turns::default());
        limiter.done(first, None);
        assert_eq!(limiter.turns(0).granted, [second]);
        limiter.give_back(second);
        assert!(!limiter.is_busy(0));
    }

    #[test]
    fn a_call_that_leaves_the_line_gives_its_turn_to_the_next() {
        let mut limiter = of_requests(60.0);
        for _ in 0..6 {
            granted(limiter.ask(0, 0.0, None, 0));
        }
        let one = waits(limiter.ask(1, 0.0, None, 0));
        let two = waits(limiter.ask(2, 0.0, None, 0));
        assert_eq!(limiter.withdraw(2, two, 0), Some(Duration::from_secs(2)));
        assert_eq!(limiter.withdraw(2, two, 0), None);
        assert_eq!(limiter.withdraw(1, one, 0), Some(Duration::from_secs(1)));
        assert_eq!(limiter.waiting(), 0);
        assert_eq!(limiter.turns(SECOND), Turns::default());
        let three = waits(limiter.ask(1, 0.0, None, 0));
        limiter.let_pass(1, three, 0);
        assert_eq!((limiter.waiting(), limiter.in_flight()), (0, 7));
    }

    #[test]
    fn who_leaves_the_line_and_joins_it_again_has_one_place_in_the_round() {
        let mut limiter = of_requests(60.0);
        for _ in 0..6 {
            granted(limiter.ask(0, 0.0, None, 0));
        }
        for _ in 0..3 {
            let left = waits(limiter.ask(1, 0.0, None, 0));
            limiter.withdraw(1, left, 0);
            assert!(limiter.round.is_empty());
        }
        let hasty: Vec<_> = (0..2)
            .map(|_| waits(limiter.ask(1, 0.0, None, 0)))
            .collect();
        let calm = waits(limiter.ask(2, 0.0, None, 0));
        let order: Vec<_> = (1..=3)
            .flat_map(|second| limiter.turns(second * SECOND).granted)
            .collect();
        assert_eq!(order, [hasty[0], calm, hasty[1]]);
    }

    #[test]
    fn what_was_granted_and_never_made_costs_nothing() {
        let mut limiter = of_requests(60.0);
        for _ in 0..100 {
            let id = granted(limiter.ask(0, 0.0, None, 0));
            limiter.give_back(id);
        }
        assert_eq!(limiter.in_flight(), 0);
    }

    #[test]
    fn tokens_are_corrected_as_if_they_had_been_known_from_the_start() {
        // 600 a minute are 10 a second, and 60 at once.
        let mut limiter = of_tokens(600.0);
        let small = granted(limiter.ask(0, 50.0, None, 0));
        waits(limiter.ask(0, 50.0, None, 0));
        limiter.done(small, Some(10.0));
        assert_eq!(limiter.turns(0).granted.len(), 1, "40 came back");

        let mut limiter = of_tokens(600.0);
        let early = granted(limiter.ask(0, 60.0, None, 0));
        // Time has filled the hole that the estimate made: there is nothing to give back.
        granted(limiter.ask(0, 60.0, None, 6 * SECOND));
        limiter.done(early, Some(0.0));
        waits(limiter.ask(0, 30.0, None, 6 * SECOND));

        let mut limiter = of_tokens(600.0);
        let large = granted(limiter.ask(0, 10.0, None, 0));
        limiter.done(large, Some(160.0));
        let id = waits(limiter.ask(0, 10.0, None, 0));
        assert_eq!(
            limiter.turns(0).next,
            Some((id, Duration::from_secs(11))),
            "100 too many, and 10"
        );
    }

    #[test]
    fn a_call_larger_than_the_bucket_waits_until_it_is_full_and_is_paid_for_after() {
        let mut limiter = of_tokens(600.0);
        granted(limiter.ask(0, 10.0, None, 0));
        let huge = waits(limiter.ask(0, 300.0, None, 0));
        assert_eq!(limiter.turns(SECOND).granted, [huge]);
        let next = waits(limiter.ask(0, 1.0, None, SECOND));
        let (id, wait) = limiter.turns(SECOND).next.unwrap();
        assert_eq!((id, wait.as_millis()), (next, 24_100));
    }

    #[test]
    fn an_answer_is_expected_to_be_as_long_as_the_last_ones_were() {
        let mut limiter = of_tokens(600.0);
        let near = |found: f64, expected: f64| (found - expected).abs() < 1e-6;
        assert!(near(limiter.estimate(400, 1, None), 100.0 + FIRST_ANSWER));
        assert!(near(limiter.estimate(400, 2, Some(1000)), 2100.0));
        for _ in 0..4 {
            limiter.learn(30.0);
        }
        assert!(near(limiter.estimate(400, 2, Some(1000)), 160.0));
        assert!(near(limiter.estimate(400, 1, Some(20)), 120.0));
        for _ in 0..1_000 {
            limiter.learn(90.0);
        }
        assert!(near(limiter.estimate(0, 1, None), 90.0));
    }

    /// Numbers by chance, the same in every run.
    fn chance(mut seed: u64) -> impl FnMut(u64) -> u64 {
        move |below| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        }
    }

    struct Call {
        id: Id,
        caller: u64,
        at: u64,
        estimate: f64,
        actual: f64,
    }

    /// A history: calls of several callers that come, wait, leave, end and are given back, at chance. Gives those that were
    /// made, with the time of their grant, and what is left of the limiter.
    #[allow(clippy::cast_precision_loss, clippy::too_many_lines)]
    fn history(seed: u64, settings: &Settings) -> (Vec<Call>, Limiter) {
        let mut random = chance(seed);
        let mut limiter = Limiter::new(settings);
        let (mut line, mut running, mut made) = (Vec::<Call>::new(), Vec::new(), Vec::new());
        let mut last_of = HashMap::new();
        let mut now = 0;
        let mut start = |call: Call, running: &mut Vec<Call>| {
            let before = last_of.insert(call.caller, call.id);
            assert!(
                before < Some(call.id),
                "calls of one caller keep their order"
            );
            running.push(call);
        };
        for step in 0.. {
            let arriving = step < 300;
            if !arriving && line.is_empty() && running.is_empty() {
                break;
            }
            assert!(step < 100_000, "somebody is never served");
            now += random(SECOND / 4);
            match random(if arriving { 5 } else { 3 }) {
                0 if !running.is_empty() => {
                    let call: Call =
                        running.swap_remove(usize::try_from(random(running.len() as u64)).unwrap());
                    match random(10) {
                        0 => limiter.give_back(call.id),
                        1 => {
                            limiter.done(call.id, None);
                            made.push(Call {
                                actual: call.estimate,
                                ..call
                            });
                        }
                        _ => {
                            limiter.done(call.id, Some(call.actual));
                            made.push(call);
                        }
                    }
                }
                1 if !line.is_empty() && random(8) == 0 => {
                    let call =
                        line.swap_remove(usize::try_from(random(line.len() as u64)).unwrap());
                    assert!(limiter.withdraw(call.caller, call.id, now).is_some());
                }
                0..=2 => {}
                _ => {
                    let estimate = random(200) as f64;
                    let call = Call {
                        id: 0,
                        caller: random(4),
                        at: now,
                        estimate,
                        actual: estimate * random(11) as f64 / 10.0,
                    };
                    match limiter.ask(call.caller, estimate, None, now) {
                        Asked::Granted(id) => {
                            assert!(line.is_empty(), "nobody is passed over");
                            start(Call { id, ..call }, &mut running);
                        }
                        Asked::Waits(id, _) => line.push(Call { id, ..call }),
                        Asked::TooLate(_) => unreachable!(),
                    }
                }
            }
            let turns = limiter.turns(now);
            for id in turns.granted {
                let at = line.iter().position(|call| call.id == id).unwrap();
                start(
                    Call {
                        at: now,
                        ..line.swap_remove(at)
                    },
                    &mut running,
                );
            }
            assert_eq!(limiter.waiting(), line.len());
            assert_eq!(limiter.in_flight(), running.len() as u64);
            assert!(running.len() as u64 <= settings.concurrency.unwrap_or(u64::MAX));
            if let Some((id, wait)) = turns.next {
                assert!(line.iter().any(|call| call.id == id));
                assert!(!wait.is_zero());
            }
        }
        made.sort_by_key(|call| call.at);
        (made, limiter)
    }

    fn generated(random: &mut impl FnMut(u64) -> u64) -> Settings {
        #[allow(clippy::cast_precision_loss)]
        let mut maybe =
            |from: u64, span: u64| (random(3) > 0).then(|| (from + random(span)) as f64);
        Settings {
            requests_per_minute: maybe(60, 600),
            tokens_per_minute: maybe(3_000, 30_000),
            burst: maybe(1, 10).map_or(0.1, |tenths| tenths / 10.0),
            concurrency: (random(2) > 0).then(|| 1 + random(8)),
        }
    }

    #[test]
    #[allow(clippy::cast_precision_loss)]
    fn over_generated_histories_no_time_has_more_than_the_burst_and_what_flows_in() {
        let mut random = chance(23);
        for seed in 1..=300 {
            let settings = generated(&mut random);
            let (made, _) = history(seed, &settings);
            assert!(made.len() > 50);
            let largest = made.iter().map(|call| call.estimate).fold(0.0, f64::max);
            for (first, begin) in made.iter().enumerate() {
                let (mut calls, mut tokens) = (0.0, 0.0);
                for end in &made[first..] {
                    calls += 1.0;
                    tokens += end.actual;
                    let minutes = (end.at - begin.at) as f64 / MINUTE;
                    let most = |limit: f64| limit * (minutes + settings.burst);
                    if let Some(limit) = settings.requests_per_minute {
                        assert!(
                            calls <= most(limit).max(1.0 + limit * minutes) + 1e-3,
                            "{settings:?}"
                        );
                    }
                    if let Some(limit) = settings.tokens_per_minute {
                        assert!(tokens <= most(limit) + largest + 1e-3, "{settings:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn over_generated_histories_everyone_is_served_in_turn_and_nothing_is_left() {
        let mut random = chance(5);
        for seed in 1..=300 {
            let settings = generated(&mut random);
            let (_, limiter) = history(seed, &settings);
            assert_eq!((limiter.in_flight(), limiter.waiting()), (0, 0));
            assert!(limiter.round.is_empty() && limiter.waiting.is_empty());
            for bucket in [&limiter.requests, &limiter.tokens].into_iter().flatten() {
                assert!(bucket.taken.is_empty());
            }
        }
    }

    #[test]
    fn a_caller_waits_for_no_more_than_one_call_of_each_other_between_its_own() {
        let mut random = chance(9);
        for _ in 0..200 {
            let mut limiter = of_requests(60.0);
            for _ in 0..6 {
                granted(limiter.ask(9, 0.0, None, 0));
            }
            let mut callers = HashMap::new();
            let mut left = [0_u64; 4];
            for _ in 0..60 {
                let caller = random(4);
                callers.insert(waits(limiter.ask(caller, 0.0, None, 0)), caller);
                left[usize::try_from(caller).unwrap()] += 1;
            }
            let mut since: [Vec<u64>; 4] = Default::default();
            for second in 1..=60 {
                let granted = limiter.turns(second * SECOND).granted;
                assert_eq!(granted.len(), 1);
                let caller = callers[&granted[0]];
                for (other, seen) in since.iter_mut().enumerate() {
                    if left[other] == 0 {
                        continue;
                    }
                    if other as u64 == caller {
                        seen.clear();
                    } else {
                        assert!(!seen.contains(&caller), "twice while another waits");
                        seen.push(caller);
                    }
                }
                left[usize::try_from(caller).unwrap()] -= 1;
            }
            assert_eq!(left, [0; 4]);
        }
    }

    #[test]
    fn the_time_that_a_call_is_told_is_the_time_of_its_turn() {
        let mut random = chance(31);
        for _ in 0..200 {
            let mut limiter = Limiter::new(&Settings {
                requests_per_minute: Some(60.0),
                tokens_per_minute: Some(6_000.0),
                ..settings()
            });
            granted(limiter.ask(0, 600.0, None, 0));
            let mut last = None;
            for _ in 0..=random(30) {
                #[allow(clippy::cast_precision_loss)]
                let tokens = (1 + random(300)) as f64;
                let wait = limiter.expected(0, tokens, None, 0);
                last = Some((waits(limiter.ask(0, tokens, None, 0)), wait));
            }
            let (id, wait) = last.unwrap();
            let told = u64::try_from(wait.as_nanos()).unwrap();
            let mut now = 0;
            loop {
                let turns = limiter.turns(now);
                if turns.granted.contains(&id) {
                    break;
                }
                now += u64::try_from(turns.next.unwrap().1.as_nanos()).unwrap();
            }
            assert!(now >= told.saturating_sub(1_000), "never earlier");
            assert!(now <= told + 7 * SECOND, "{now} {told}: and not much later");
        }
    }

    #[test]
    fn a_bucket_reckons_with_so_many_calls_and_no_more() {
        let mut limiter = of_tokens(1e9);
        for _ in 0..5_000 {
            granted(limiter.ask(0, 1.0, None, 0));
        }
        assert_eq!(limiter.tokens.as_ref().unwrap().taken.len(), REMEMBERED);
        for id in 1..=5_000 {
            limiter.done(id, Some(0.5));
        }
        assert!(limiter.tokens.as_ref().unwrap().taken.is_empty());
    }
}
