//! Counters by labels whose values nobody can list beforehand.
//!
//! A family has at most [`MOST_SERIES`] sets of labels; what would be one more is counted under [`OVERFLOW`], so that a
//! program that makes up codes without end fills neither this memory nor that of who reads it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use super::families::{self, FAMILIES};

/// How many sets of labels a family has.
pub const MOST_SERIES: usize = 200;

/// The value of every label of what is counted beyond that.
pub const OVERFLOW: &str = "_overflow";

/// The most characters that the value of a label has.
const LONGEST: usize = 100;

type Series = BTreeMap<Vec<String>, u64>;

/// A name that is no family's, or labels that are not the family's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownFamily(
    /// The name.
    pub String,
);

impl fmt::Display for UnknownFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no metric {:?} with such labels", self.0)
    }
}

impl std::error::Error for UnknownFamily {}

/// Counts by labels, for calls that failed: each takes a lock.
#[derive(Debug)]
pub struct Counters {
    families: Mutex<[Series; FAMILIES.len()]>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            families: Mutex::new(std::array::from_fn(|_| Series::new())),
        }
    }
}

impl Counters {
    /// Adds to the counter of these labels.
    pub fn add(&self, name: &str, labels: &[&str], amount: u64) -> Result<(), UnknownFamily> {
        let found = families::find(name).filter(|at| FAMILIES[*at].labels.len() == labels.len());
        let at = found.ok_or_else(|| UnknownFamily(name.to_owned()))?;
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        let series = &mut families[at];
        let mut key: Vec<String> = labels.iter().map(|value| cut(value)).collect();
        if series.len() >= MOST_SERIES && !series.contains_key(&key) {
            key = vec![OVERFLOW.to_owned(); labels.len()];
        }
        *series.entry(key).or_default() += amount;
        Ok(())
    }

    /// The counters of a family as they are now, by their labels.
    #[must_use]
    pub(super) fn of(&self, family: usize) -> Series {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)[family].clone()
    }
}

fn cut(value: &str) -> String {
    value.chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_keeps_its_series_and_counts_the_others_together() {
        let counters = Counters::default();
        for code in 0..MOST_SERIES * 3 {
            counters
                .add("dspex_errors", &["native", &code.to_string()], 1)
                .unwrap();
        }
        counters.add("dspex_errors", &["native", "0"], 5).unwrap();
        let found = counters.of(families::find("dspex_errors").unwrap());
        assert_eq!(found.len(), MOST_SERIES + 1);
        assert_eq!(found[&vec!["native".to_owned(), "0".to_owned()]], 6);
        let rest = (MOST_SERIES * 2) as u64;
        assert_eq!(found[&vec![OVERFLOW.to_owned(); 2]], rest);
        assert_eq!(found.values().sum::<u64>(), (MOST_SERIES * 3) as u64 + 5);
    }

    #[test]
    fn a_value_is_cut_and_what_is_in_no_table_is_refused() {
        let counters = Counters::default();
        let long = "é".repeat(1_000);
        counters.add("dspex_errors", &["x", &long], 1).unwrap();
        let found = counters.of(families::find("dspex_errors").unwrap());
        assert_eq!(found.keys().next().unwrap()[1].chars().count(), LONGEST);
        for (name, labels) in [("dspex_nothing", &["x"][..]), ("dspex_errors", &["x"][..])] {
            assert_eq!(
                counters.add(name, labels, 1),
                Err(UnknownFamily(name.to_owned()))
            );
        }
    }
}
