//! What a call to a target is expected to cost: the time that calls took lately, for each call under way there.
//!
//! The time is a moving average that follows a rise at once and forgets it slowly (Finagle's peak EWMA,
//! <https://twitter.github.io/finagle/guide/Clients.html#load-balancing>): a target that gets slow is left alone from
//! its first slow answer on. A target that nobody has called yet is expected to cost nothing, so it is tried.
//!
//! Time comes in from outside, in nanoseconds of any monotonic clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// In this time an old duration loses two thirds of its weight.
const DECAY_NANOS: f64 = 10e9;

/// The expected duration of calls to one target.
#[derive(Debug, Default)]
pub struct Latency {
    /// Nanoseconds, as the bits of a float. Two threads that record at once may lose one of the two, which the next
    /// call makes good.
    average: AtomicU64,
    at: AtomicU64,
}

impl Latency {
    /// A call took so long.
    #[allow(clippy::cast_precision_loss)]
    pub fn record(&self, took: Duration, now: u64) {
        let took = took.as_nanos() as f64;
        let average = f64::from_bits(self.average.load(Ordering::Relaxed));
        let since = now.saturating_sub(self.at.swap(now, Ordering::Relaxed)) as f64;
        let kept = (-since / DECAY_NANOS).exp();
        let next = if took >= average {
            took
        } else {
            average * kept + took * (1.0 - kept)
        };
        self.average.store(next.to_bits(), Ordering::Relaxed);
    }

    /// What the next call is expected to cost, with so many under way.
    ///
    /// What nobody has called for a while is forgotten as well: a target that was slow once, and is left alone since, gets
    /// a call again, which says how it is now.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn cost(&self, in_flight: u64, now: u64) -> f64 {
        let since = now.saturating_sub(self.at.load(Ordering::Relaxed)) as f64;
        let average = f64::from_bits(self.average.load(Ordering::Relaxed));
        average * (-since / DECAY_NANOS).exp() * (in_flight + 1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn near(found: f64, expected: f64) -> bool {
        (found - expected).abs() <= expected * 1e-9
    }

    #[test]
    fn it_follows_a_rise_at_once_and_forgets_it_slowly() {
        let latency = Latency::default();
        assert!(near(latency.cost(5, SECOND), 0.0));
        latency.record(Duration::from_millis(10), SECOND);
        latency.record(Duration::from_secs(2), SECOND);
        assert!(near(latency.cost(0, SECOND), 2e9));
        assert!(near(latency.cost(3, SECOND), 8e9));
        latency.record(Duration::ZERO, 11 * SECOND);
        assert!(near(latency.cost(0, 11 * SECOND), 2e9 * (-1.0_f64).exp()));
        let later = latency.cost(0, 21 * SECOND);
        assert!(near(later, 2e9 * (-2.0_f64).exp()), "without a call, too");
    }
}
