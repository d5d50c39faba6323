//! A retry budget: how many calls may be made again, so that an outage is not multiplied.
//!
//! Each call pays a share of a retry into the budget, each retry takes a whole one out. What has been paid in is good for
//! some seconds. A floor per second lets a quiet service retry at all. The rule is that of Finagle's `RetryBudget`
//! (<https://twitter.github.io/finagle/guide/Clients.html#retries>).
//!
//! Time comes in from outside, in nanoseconds of any monotonic clock.

use std::sync::Mutex;
use std::time::Duration;

/// How many parts the time has for which a payment is good.
const PARTS: usize = 10;

/// A retry counts so much; a call pays its share of that.
const WHOLE: u64 = 1_000_000;

/// How much may be made again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Retries for each call, on average.
    pub share: f64,
    /// Retries a second that there are without any calls.
    pub per_second: f64,
    /// How long a call's share is good.
    pub good_for: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            share: 0.1,
            per_second: 1.0,
            good_for: Duration::from_secs(10),
        }
    }
}

#[derive(Debug)]
struct Inner {
    /// What was paid in less what was taken out, by part of the time.
    parts: [(u64, i64); PARTS],
}

/// A retry budget; see the top of this file.
#[derive(Debug)]
pub struct Budget {
    pays: u64,
    floor: u64,
    width: u64,
    inner: Mutex<Inner>,
}

impl Budget {
    /// A budget with nothing but its floor in it.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )]
        let parts_of = |whole: f64| (whole.max(0.0) * WHOLE as f64) as u64;
        Self {
            pays: parts_of(settings.share),
            floor: parts_of(settings.per_second * settings.good_for.as_secs_f64()),
            width: u64::try_from(settings.good_for.as_nanos() / PARTS as u128)
                .unwrap_or(u64::MAX)
                .max(1),
            inner: Mutex::new(Inner {
                parts: [(0, 0); PARTS],
            }),
        }
    }

    /// A call is made for the first time.
    pub fn pay(&self, now: u64) {
        let pays = i64::try_from(self.pays).unwrap_or(i64::MAX);
        self.lock().add(now / self.width, pays);
    }

    /// Whether a call may be made again; if so, the budget has one retry less.
    pub fn take(&self, now: u64) -> bool {
        let number = now / self.width;
        let mut inner = self.lock();
        let has = inner
            .sum(number)
            .saturating_add(i64::try_from(self.floor).unwrap_or(i64::MAX));
        let whole = i64::try_from(WHOLE).unwrap_or(i64::MAX);
        let may = has >= whole;
        if may {
            inner.add(number, -whole);
        }
        may
    }

    /// How many retries there are now.
    #[must_use]
    pub fn left(&self, now: u64) -> u64 {
        let has = self
            .lock()
            .sum(now / self.width)
            .saturating_add(i64::try_from(self.floor).unwrap_or(i64::MAX));
        u64::try_from(has).unwrap_or(0) / WHOLE
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Inner {
    fn add(&mut self, number: u64, amount: i64) {
        #[allow(clippy::cast_possible_truncation)] // less than PARTS
        let part = &mut self.parts[(number % PARTS as u64) as usize];
        if part.0 != number {
            *part = (number, 0);
        }
        part.1 = part.1.saturating_add(amount);
    }

    fn sum(&self, number: u64) -> i64 {
        self.parts
            .iter()
            .filter(|(of, _)| number.abs_diff(*of) < PARTS as u64)
            .map(|(_, amount)| amount)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn budget(share: f64, per_second: f64) -> Budget {
        Budget::new(Settings {
            share,
            per_second,
            good_for: Duration::from_secs(10),
        })
    }

    fn taken(budget: &Budget, now: u64, tries: u32) -> u32 {
        (0..tries).map(|_| u32::from(budget.take(now))).sum()
    }

    #[test]
    fn calls_pay_for_a_share_of_retries_and_no_more() {
        let budget = budget(0.2, 0.0);
        assert!(!budget.take(0));
        for _ in 0..50 {
            budget.pay(0);
        }
        assert_eq!(budget.left(0), 10);
        assert_eq!(taken(&budget, 0, 100), 10);
        assert_eq!(budget.left(0), 0);
    }

    #[test]
    fn a_floor_is_there_without_calls_and_comes_back_with_time() {
        let budget = budget(0.0, 1.0);
        assert_eq!(taken(&budget, 0, 100), 10);
        assert_eq!(taken(&budget, 9 * SECOND, 100), 0);
        assert_eq!(taken(&budget, 10 * SECOND, 100), 10);
    }

    #[test]
    fn what_was_paid_in_is_good_for_its_time() {
        let budget = budget(0.5, 0.0);
        for _ in 0..20 {
            budget.pay(0);
        }
        assert_eq!(budget.left(9 * SECOND), 10);
        assert_eq!(budget.left(10 * SECOND), 0);
        assert!(!budget.take(10 * SECOND));
    }

    #[test]
    fn a_target_that_fails_every_call_gets_a_tenth_more_of_them_for_as_long_as_it_lasts() {
        // 500 calls a second for a minute, all of which would be made again as often as they may.
        let budget = budget(0.1, 1.0);
        let (mut calls, mut retries) = (0_u32, 0_u32);
        for second in 0..60 {
            for call in 0..500_u64 {
                let now = second * SECOND + call * SECOND / 500;
                budget.pay(now);
                calls += 1;
                retries += taken(&budget, now, 3);
            }
        }
        assert!(
            f64::from(retries) <= f64::from(calls) * 0.1 + 60.0 + 10.0,
            "{retries} of {calls}"
        );
        assert!(
            f64::from(retries) >= f64::from(calls) * 0.09,
            "{retries} of {calls}"
        );
    }
}
