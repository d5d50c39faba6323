//! The cache: bounded, counted, and several values to a text.

use dspex_core::signature::{Cache, CacheInfo, MEANINGS};

#[test]
fn lookups_are_counted() {
    let mut cache = Cache::new(10);
    assert_eq!(cache.get("a", |&value: &i32| Some(value)), None);
    assert!(cache.insert("a", 1).is_empty());
    assert_eq!(cache.get("a", |&value| Some(value)), Some(1));
    assert_eq!(cache.get("a", |&value| (value > 1).then_some(value)), None);
    assert_eq!(cache.peek("a"), [1]);
    assert!(cache.peek("b").is_empty());
    assert_eq!(
        cache.info(),
        CacheInfo {
            hits: 1,
            misses: 1,
            len: 1,
            capacity: 10
        }
    );
    assert_eq!(cache.clear(), [1]);
    assert_eq!(
        cache.info(),
        CacheInfo {
            hits: 0,
            misses: 0,
            len: 0,
            capacity: 10
        }
    );
}

#[test]
fn the_text_that_was_longest_unused_goes_first() {
    let mut cache = Cache::new(3);
    for (text, value) in [("a", 1), ("b", 2), ("b", 3)] {
        assert!(cache.insert(text, value).is_empty());
    }
    assert_eq!(cache.get("a", |&value| Some(value)), Some(1));
    assert_eq!(cache.insert("c", 4), [2, 3]);
    assert_eq!(cache.info().len, 2);
}

#[test]
fn one_text_with_many_values_keeps_the_latest() {
    let mut cache = Cache::new(2);
    assert!(cache.insert("a", 1).is_empty());
    assert!(cache.insert("a", 2).is_empty());
    assert_eq!(cache.insert("a", 3), [1]);
    assert_eq!(cache.get("a", |&value| Some(value)), Some(3));
    assert_eq!(cache.resize(1), [2]);
    assert_eq!(cache.resize(0), [3]);
}

#[test]
fn a_cache_of_nothing_stays_empty() {
    let mut cache = Cache::new(0);
    assert_eq!(cache.insert("a", 1), [1]);
    assert_eq!(cache.info().len, 0);
}

#[test]
fn a_text_keeps_few_values_and_those_in_use() {
    let mut cache = Cache::new(1_000);
    for value in 0..100 {
        let gone = cache.insert("a", value);
        assert!(gone.len() <= 1);
        assert_eq!(
            cache.get("a", |&value| (value == 0).then_some(())),
            Some(())
        );
        assert!(cache.peek("a").len() <= MEANINGS);
    }
    assert_eq!(cache.info().len, MEANINGS);
    assert_eq!(cache.peek("a").last(), Some(&0));
}

#[test]
fn what_is_not_kept_leaves_together() {
    let mut cache = Cache::new(10);
    for (text, value) in [("a", 1), ("a", 2), ("b", 4), ("c", 3)] {
        assert!(cache.insert(text, value).is_empty());
    }
    let mut gone = cache.retain(|value| value % 2 == 1);
    gone.sort_unstable();
    assert_eq!(gone, [2, 4]);
    assert_eq!(cache.peek("a"), [1]);
    assert!(cache.peek("b").is_empty());
    assert_eq!(cache.info().len, 2);
}
