//! The stages of a call, and how long each took.

use std::time::Duration;

use crate::router::Histogram;

/// A part of a call's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The messages are written.
    Render,
    /// The language model answers.
    Lm,
    /// The replies are read.
    Parse,
    /// A worker does the work, its language models included.
    Worker,
}

impl Stage {
    /// How many there are.
    pub const COUNT: usize = 4;

    /// All of them, in the order of a call.
    pub const ALL: [Self; Self::COUNT] = [Self::Render, Self::Lm, Self::Parse, Self::Worker];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Render => "render",
            Self::Lm => "lm",
            Self::Parse => "parse",
            Self::Worker => "worker",
        }
    }
}

/// How long the stages of all calls to one target took.
#[derive(Debug, Default)]
pub struct StageTimes {
    stages: [Histogram; Stage::COUNT],
}

impl StageTimes {
    /// Counts a stage that has ended.
    pub fn add(&self, stage: Stage, took: Duration) {
        self.stages[stage as usize].record(took);
    }

    /// The durations of a stage.
    #[must_use]
    pub fn of(&self, stage: Stage) -> &Histogram {
        &self.stages[stage as usize]
    }
}

/// The stages of one call. A stage begins where the one before it ended.
///
/// ```
/// use dspex_core::telemetry::{Stage, Stages};
///
/// let mut stages = Stages::begin(1_000);
/// assert_eq!(stages.mark(Stage::Render, 4_000).as_nanos(), 3_000);
/// stages.mark(Stage::Lm, 9_000);
/// let spent: Vec<_> = stages.spent().map(|(stage, took)| (stage.as_str(), took.as_nanos())).collect();
/// assert_eq!(spent, [("render", 3_000), ("lm", 5_000)]);
/// assert_eq!(stages.total().as_nanos(), 8_000);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Stages {
    last: u64,
    spent: [Option<u64>; Stage::COUNT],
}

impl Stages {
    /// A call that begins now.
    #[must_use]
    pub fn begin(now: u64) -> Self {
        Self {
            last: now,
            spent: [None; Stage::COUNT],
        }
    }

    /// A stage has ended; how long it took. One that ends twice has taken both times.
    pub fn mark(&mut self, stage: Stage, now: u64) -> Duration {
        let took = now.saturating_sub(self.last);
        self.last = self.last.max(now);
        let spent = &mut self.spent[stage as usize];
        *spent = Some(spent.unwrap_or(0) + took);
        Duration::from_nanos(took)
    }

    /// A stage has ended that somebody else has timed; the next one begins now.
    pub fn put(&mut self, stage: Stage, took: Duration, now: u64) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let spent = &mut self.spent[stage as usize];
        *spent = Some(spent.unwrap_or(0).saturating_add(took));
        self.last = self.last.max(now);
    }

    /// The stages that have ended, in the order of a call, with their times.
    pub fn spent(&self) -> impl Iterator<Item = (Stage, Duration)> {
        let of = |stage: Stage| Some((stage, Duration::from_nanos(self.spent[stage as usize]?)));
        Stage::ALL.into_iter().filter_map(of)
    }

    /// The time of all stages that have ended. What was waited for between two of them is no part of it.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.spent().map(|(_, took)| took).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_add_up_to_the_whole_also_where_one_comes_twice_or_the_clock_steps_back() {
        let mut stages = Stages::begin(100);
        for (stage, now) in [
            (Stage::Render, 110),
            (Stage::Lm, 200),
            (Stage::Parse, 150),
            (Stage::Lm, 260),
        ] {
            stages.mark(stage, now);
        }
        let spent: Vec<_> = stages
            .spent()
            .map(|(stage, took)| (stage, took.as_nanos()))
            .collect();
        assert_eq!(
            spent,
            [(Stage::Render, 10), (Stage::Lm, 150), (Stage::Parse, 0)]
        );
        assert_eq!(stages.total().as_nanos(), 160);
        stages.put(Stage::Worker, Duration::from_micros(1), 300);
        assert_eq!(stages.mark(Stage::Parse, 310).as_nanos(), 10);
        assert_eq!(stages.total().as_nanos(), 1_170);
    }

    #[test]
    fn the_words_of_the_stages_are_in_the_order_of_their_numbers() {
        for (place, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, place, "{}", stage.as_str());
        }
    }
}
