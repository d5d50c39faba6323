//! The cache: bounded, counted, and several values to a text.

use dspex_core::signature::{Cache, CacheInfo, MEANINGS};

use super::fuzzing::Random;

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

/// The cache as one would write it without a thought for speed: texts from the one longest unused to the latest used,
/// each with its values in the same order.
struct Model {
    texts: Vec<(String, Vec<u32>)>,
    info: CacheInfo,
}

impl Model {
    fn touch(&mut self, text: &str) -> Option<&mut Vec<u32>> {
        let at = self.texts.iter().position(|(known, _)| known == text)?;
        self.texts[at..].rotate_left(1);
        Some(&mut self.texts.last_mut()?.1)
    }

    fn get(&mut self, text: &str, pick: impl Fn(u32) -> bool) -> Option<u32> {
        let values = self.touch(text)?;
        let at = values.iter().rposition(|&value| pick(value))?;
        values[at..].rotate_left(1);
        let found = values.last().copied();
        self.info.hits += 1;
        found
    }

    fn insert(&mut self, text: &str, value: u32) -> Vec<u32> {
        self.info.misses += 1;
        if self.info.capacity == 0 {
            return vec![value];
        }
        let mut gone = Vec::new();
        if let Some(values) = self.touch(text) {
            if values.len() == MEANINGS {
                gone.push(values.remove(0));
            }
            values.push(value);
        } else {
            self.texts.push((text.to_owned(), vec![value]));
        }
        gone.extend(self.shrink());
        gone
    }

    fn shrink(&mut self) -> Vec<u32> {
        let mut gone = Vec::new();
        while self.values().len() > self.info.capacity {
            // A text goes as a whole, but the last one value by value.
            if let [(_, values)] = &mut *self.texts
                && values.len() > 1
            {
                gone.push(values.remove(0));
            } else {
                gone.append(&mut self.texts.remove(0).1);
            }
        }
        gone
    }

    fn retain(&mut self, keep: impl Fn(u32) -> bool) -> Vec<u32> {
        let gone = self.values().into_iter().filter(|&value| !keep(value));
        let gone = gone.collect();
        for (_, values) in &mut self.texts {
            values.retain(|&value| keep(value));
        }
        self.texts.retain(|(_, values)| !values.is_empty());
        gone
    }

    fn values(&self) -> Vec<u32> {
        let values = self.texts.iter().flat_map(|(_, values)| values);
        values.copied().collect()
    }
}

fn sorted(mut values: Vec<u32>) -> Vec<u32> {
    values.sort_unstable();
    values
}

#[test]
fn whatever_is_done_to_it_it_is_what_the_model_is() {
    let texts = ["a", "b", "c", "d", "e"];
    for seed in 1..200 {
        let mut random = Random::new(seed);
        let capacity = random.below(14);
        let mut cache = Cache::new(capacity);
        let info = CacheInfo {
            hits: 0,
            misses: 0,
            len: 0,
            capacity,
        };
        let mut model = Model {
            texts: Vec::new(),
            info,
        };
        for value in 0..300 {
            let text = texts[random.below(texts.len())];
            let modulus = 1 + u32::try_from(random.below(4)).unwrap();
            let pick = |value: u32| value.is_multiple_of(modulus);
            match random.below(40) {
                0..=17 => assert_eq!(cache.insert(text, value), model.insert(text, value)),
                18..=35 => assert_eq!(
                    cache.get(text, |&value| pick(value).then_some(value)),
                    model.get(text, pick)
                ),
                36 => {
                    model.info.capacity = random.below(14);
                    assert_eq!(cache.resize(model.info.capacity), model.shrink());
                }
                37 => assert_eq!(
                    sorted(cache.retain(|&value| pick(value))),
                    sorted(model.retain(pick))
                ),
                38 if random.below(4) == 0 => {
                    assert_eq!(sorted(cache.clear()), sorted(model.values()));
                    model.texts.clear();
                    (model.info.hits, model.info.misses) = (0, 0);
                }
                _ => {}
            }
            model.info.len = model.values().len();
            assert_eq!(cache.info(), model.info, "seed {seed}");
            for text in texts {
                let known = model.texts.iter().find(|(known, _)| known == text);
                let known = known.map_or(&[][..], |(_, values)| values);
                assert_eq!(cache.peek(text), known, "seed {seed}");
            }
        }
    }
}
