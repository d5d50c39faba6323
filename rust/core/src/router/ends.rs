//! What is counted of a target for those who read: who must act on its errors, why it was chosen, and tokens.
//!
//! Nothing here is looked at by the decision.

use std::sync::atomic::{AtomicU64, Ordering};

use super::target::{Outcome, Target};
use super::{Reason, RouteError, Router};

/// Who must act on an error: the words of `dspex.errors`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// Whoever made the call.
    Caller,
    /// Whoever set the service up.
    Operator,
    /// Nobody; it passes.
    Transient,
    /// Whoever set the time limit.
    Timeout,
    /// The operator, who may have given too little.
    Resource,
    /// The model, or the program that was run.
    Remote,
    /// The authors of dspex.
    Internal,
}

impl Category {
    const COUNT: usize = 7;

    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Caller,
        Self::Operator,
        Self::Transient,
        Self::Timeout,
        Self::Resource,
        Self::Remote,
        Self::Internal,
    ];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Operator => "operator",
            Self::Transient => "transient",
            Self::Timeout => "timeout",
            Self::Resource => "resource",
            Self::Remote => "remote",
            Self::Internal => "internal",
        }
    }
}

/// A counter for each bit of what operations need.
#[derive(Debug)]
pub(super) struct Lacked([AtomicU64; 64]);

impl Default for Lacked {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

/// The counters of one target.
#[derive(Debug, Default)]
pub(super) struct Ends {
    failed: [AtomicU64; Category::COUNT],
    refused: [AtomicU64; Category::COUNT],
    reasons: [AtomicU64; Reason::ALL.len()],
    tokens: [AtomicU64; 2],
}

impl Target {
    /// Counts whose turn it is after an error; [`Router::record`] has counted its outcome.
    pub fn blame(&self, outcome: Outcome, category: Category) {
        if let Some(counters) = self.blamed(outcome) {
            counters[category as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts the tokens of a call: those of its messages, and those of its replies.
    pub fn add_tokens(&self, input: u64, output: u64) {
        for (counter, count) in self.ends.tokens.iter().zip([input, output]) {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// The tokens of all calls, of messages and of replies.
    #[must_use]
    pub fn tokens(&self) -> [u64; 2] {
        [0, 1].map(|at| self.ends.tokens[at].load(Ordering::Relaxed))
    }

    /// How many calls came here for this reason.
    #[must_use]
    pub fn chosen(&self, reason: Reason) -> u64 {
        self.ends.reasons[reason as usize].load(Ordering::Relaxed)
    }

    /// How many attempts ended how, with the category of errors; None for those that nobody was blamed for.
    #[must_use]
    pub fn ends(&self) -> Vec<(Outcome, Option<Category>, u64)> {
        let mut found = Vec::with_capacity(Outcome::ALL.len() + 2 * Category::COUNT);
        for outcome in Outcome::ALL {
            // Read before the sum: what ends meanwhile counts as unexplained, never as less than nothing.
            let blamed = self.blamed(outcome).map(|counters| {
                Category::ALL.map(|of| (of, counters[of as usize].load(Ordering::Relaxed)))
            });
            let mut rest = self.outcome(outcome);
            for (category, count) in blamed.into_iter().flatten() {
                rest = rest.saturating_sub(count);
                found.push((outcome, Some(category), count));
            }
            found.push((outcome, None, rest));
        }
        found
    }

    pub(super) fn count_choice(&self, reason: Reason) {
        self.ends.reasons[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn blamed(&self, outcome: Outcome) -> Option<&[AtomicU64; Category::COUNT]> {
        match outcome {
            Outcome::Failed => Some(&self.ends.failed),
            Outcome::Refused => Some(&self.ends.refused),
            Outcome::Served | Outcome::Cancelled => None,
        }
    }
}

impl RouteError {
    /// The words for the kinds, in the order of [`Router::undecided`].
    pub const WORDS: [&'static str; 5] = [
        "unknown-route",
        "native-unable",
        "no-target",
        "targets-failing",
        "targets-full",
    ];
}

impl Router {
    /// Counts a call for which no target could be chosen, by one of [`RouteError::WORDS`].
    pub fn count_undecided(&self, word: &str) {
        if let Some(place) = RouteError::WORDS.iter().position(|known| *known == word) {
            self.undecided[place].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts what targets lacked that a call needed, each bit by itself.
    pub fn count_lacking(&self, mut bits: u64) {
        while bits != 0 {
            self.lacked.0[bits.trailing_zeros() as usize].fetch_add(1, Ordering::Relaxed);
            bits &= bits - 1;
        }
    }

    /// How many calls needed what a target lacked, by the number of the bit.
    #[must_use]
    pub fn lacked(&self) -> [u64; 64] {
        std::array::from_fn(|at| self.lacked.0[at].load(Ordering::Relaxed))
    }

    /// How many of those there were, by [`RouteError::WORDS`].
    #[must_use]
    pub fn undecided(&self) -> [u64; 5] {
        std::array::from_fn(|at| self.undecided[at].load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::{Options, Side, Wish};

    #[test]
    fn the_ends_of_a_target_add_up_to_its_outcomes() {
        let router = Router::default();
        router
            .add("native", Side::Native, &Options::default())
            .unwrap();
        let calls = [
            (Outcome::Served, None),
            (Outcome::Failed, Some(Category::Internal)),
            (Outcome::Refused, Some(Category::Caller)),
            (Outcome::Refused, Some(Category::Remote)),
            (Outcome::Refused, None),
            (Outcome::Cancelled, Some(Category::Internal)),
        ];
        let mut decision = router.decide(&Wish::default(), 0).unwrap();
        for (place, (outcome, category)) in calls.into_iter().enumerate() {
            if place > 0 {
                decision = router.decide(&Wish::default(), 0).unwrap();
            }
            router.record(
                &decision.ticket,
                outcome,
                std::time::Duration::ZERO,
                None,
                0,
            );
            if let Some(category) = category {
                decision.ticket.target().blame(outcome, category);
            }
        }
        let target = decision.ticket.target();
        let found: Vec<_> = target.ends().into_iter().filter(|end| end.2 > 0).collect();
        assert_eq!(
            found,
            [
                (Outcome::Served, None, 1),
                (Outcome::Failed, Some(Category::Internal), 1),
                (Outcome::Refused, Some(Category::Caller), 1),
                (Outcome::Refused, Some(Category::Remote), 1),
                (Outcome::Refused, None, 1),
                (Outcome::Cancelled, None, 1),
            ]
        );
        assert_eq!(target.chosen(Reason::Preferred), 6);
        assert_eq!(target.chosen(Reason::Wanted), 0);
    }

    #[test]
    fn the_places_of_words_and_counters_are_the_numbers_of_what_they_are_of() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
        for (place, category) in Category::ALL.into_iter().enumerate() {
            assert_eq!(category as usize, place);
        }
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, place);
        }
        let router = Router::default();
        router.count_undecided("targets-full");
        router.count_undecided("of-my-own");
        assert_eq!(router.undecided(), [0, 0, 0, 0, 1]);
        router.count_lacking(1 | 1 << 5 | 1 << 63);
        router.count_lacking(1 << 5);
        let found = router.lacked();
        assert_eq!((found[0], found[5], found[63]), (1, 2, 1));
        assert_eq!(found.iter().sum::<u64>(), 4);
    }
}
