//! How long calls took: counts by duration, from which quantiles are read to within a thirty-second part.
//!
//! Durations are counted in microseconds. Below 32 of them each number has a bucket of its own; above, each doubling has
//! 32 buckets of equal width, so that a bucket is never wider than 1/32 of what it counts. This is the layout of HDR
//! histograms (<http://hdrhistogram.org>). Two histograms are merged by adding their counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets in each doubling.
const STEPS: u32 = 32;
/// The bits of a step.
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Doublings there are: up to 2^37 microseconds, 38 hours.
const DOUBLINGS: u32 = 32;
const BUCKETS: usize = STEPS as usize * (DOUBLINGS as usize + 1);

/// Counts of durations; any thread may record while another reads.
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    /// Counts one duration; what is longer than 38 hours counts as that.
    pub fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(micros)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }

    /// Adds the counts of another.
    pub fn merge(&self, other: &Self) {
        for (mine, theirs) in self.buckets.iter().zip(&other.buckets) {
            mine.fetch_add(theirs.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.sum
            .fetch_add(other.sum.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// How many durations have been counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed))
            .sum()
    }

    /// The sum of all durations.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum.load(Ordering::Relaxed))
    }

    /// How many durations there are up to each of these bounds in microseconds, which rise, and beyond the one before;
    /// the last number is of those beyond all. A duration less than 1/32 below a bound may count as beyond it.
    #[must_use]
    pub fn up_to(&self, bounds: &[u64]) -> Vec<u64> {
        let mut counts = vec![0; bounds.len() + 1];
        let mut at = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            while at < bounds.len() && highest_of(bucket) > bounds[at] {
                at += 1;
            }
            counts[at] += count.load(Ordering::Relaxed);
        }
        counts
    }

    /// The durations that these shares of calls did not exceed, in the same order; None of an empty histogram.
    ///
    /// Each is the upper end of its bucket: at most 1/32 more than the duration itself.
    #[must_use]
    pub fn quantiles(&self, shares: &[f64]) -> Option<Vec<Duration>> {
        let counts: Vec<u64> = self
            .buckets
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed))
            .collect();
        let total: u64 = counts.iter().sum();
        if total == 0 {
            return None;
        }
        let at = |share: f64| {
            #[allow(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss
            )]
            let rank = ((share.clamp(0.0, 1.0) * total as f64).ceil() as u64).clamp(1, total);
            let mut seen = 0;
            let found = counts.iter().position(|count| {
                seen += count;
                seen >= rank
            });
            Duration::from_micros(highest_of(found.unwrap_or(BUCKETS - 1)))
        };
        Some(shares.iter().map(|share| at(*share)).collect())
    }
}

fn bucket_of(micros: u64) -> usize {
    if micros < u64::from(STEPS) {
        #[allow(clippy::cast_possible_truncation)] // less than 32
        return micros as usize;
    }
    let doubling = micros.ilog2() - STEP_BITS + 1;
    let step = (micros >> (doubling - 1)) - u64::from(STEPS);
    #[allow(clippy::cast_possible_truncation)] // less than 32 in its doubling
    let bucket = (u64::from(doubling * STEPS) + step) as usize;
    bucket.min(BUCKETS - 1)
}

/// The longest duration that a bucket counts.
fn highest_of(bucket: usize) -> u64 {
    let (doubling, step) = (
        bucket as u64 / u64::from(STEPS),
        bucket as u64 % u64::from(STEPS),
    );
    if doubling == 0 {
        return step;
    }
    ((u64::from(STEPS) + step + 1) << (doubling - 1)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(seed: &mut u64) -> u64 {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        *seed
    }

    #[test]
    fn each_duration_is_in_the_bucket_that_ends_at_it_or_a_little_above() {
        let mut seed = 7;
        let mut all: Vec<u64> = (0..5_000).collect();
        all.extend((0..10_000).map(|_| random(&mut seed) >> (27 + random(&mut seed) % 37)));
        for micros in all {
            let bucket = bucket_of(micros);
            let highest = highest_of(bucket);
            assert!(
                highest >= micros && highest - micros <= micros / 32,
                "{micros}: {highest}"
            );
            assert!(bucket == 0 || highest_of(bucket - 1) < micros, "{micros}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_durations_to_a_thirty_second() {
        let mut seed = 3;
        for count in [1, 2, 7, 100, 3_000] {
            let histogram = Histogram::default();
            let mut all: Vec<u64> = (0..count)
                .map(|_| random(&mut seed) >> (30 + random(&mut seed) % 33))
                .collect();
            for micros in &all {
                histogram.record(Duration::from_micros(*micros));
            }
            all.sort_unstable();
            let shares = [0.0, 0.5, 0.9, 0.99, 0.999, 1.0];
            let found = histogram.quantiles(&shares).unwrap();
            for (share, found) in shares.iter().zip(found) {
                #[allow(
                    clippy::cast_precision_loss,
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss
                )]
                let rank = ((share * count as f64).ceil() as usize).clamp(1, all.len());
                let exact = all[rank - 1];
                let found = u64::try_from(found.as_micros()).unwrap();
                assert!(
                    found >= exact && found - exact <= exact / 32,
                    "{share} of {count}: {found}, {exact}"
                );
            }
            assert_eq!(histogram.count(), count);
            assert_eq!(histogram.sum(), Duration::from_micros(all.iter().sum()));
        }
    }

    #[test]
    fn what_is_too_long_counts_as_the_longest_and_nothing_is_lost() {
        let histogram = Histogram::default();
        histogram.record(Duration::MAX);
        histogram.record(Duration::ZERO);
        assert_eq!(histogram.count(), 2);
        let found = histogram.quantiles(&[0.5, 1.0]).unwrap();
        assert_eq!(found[0], Duration::ZERO);
        assert!(found[1] >= Duration::from_secs(38 * 3600));
        assert!(Histogram::default().quantiles(&[0.5]).is_none());
    }

    #[test]
    fn counts_up_to_bounds_are_those_of_the_durations_to_a_thirty_second() {
        let (mut seed, histogram) = (11, Histogram::default());
        let all: Vec<u64> = (0..3_000).map(|_| random(&mut seed) >> 42).collect();
        for micros in &all {
            histogram.record(Duration::from_micros(*micros));
        }
        let bounds = [0, 1, 100, 1_000, 5_000, 1_000_000, 3_000_000];
        let found = histogram.up_to(&bounds);
        assert_eq!(found.iter().sum::<u64>(), 3_000);
        let mut sum = 0;
        for (bound, count) in bounds.iter().zip(&found) {
            sum += count;
            let up_to = |most: u64| all.iter().filter(|micros| **micros <= most).count() as u64;
            assert!(
                (up_to(bound - bound / 32)..=up_to(*bound)).contains(&sum),
                "{bound}"
            );
        }
    }

    #[test]
    fn merged_histograms_are_one_of_all_durations() {
        let (mut seed, both, one, other) = (
            5,
            Histogram::default(),
            Histogram::default(),
            Histogram::default(),
        );
        for place in 0..1_000 {
            let took = Duration::from_micros(random(&mut seed) >> 40);
            both.record(took);
            if place % 3 == 0 { &one } else { &other }.record(took);
        }
        one.merge(&other);
        let shares = [0.1, 0.5, 0.99];
        assert_eq!(one.quantiles(&shares), both.quantiles(&shares));
        assert_eq!((one.count(), one.sum()), (both.count(), both.sum()));
    }
}
