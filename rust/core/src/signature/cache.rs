//! Signatures that were read before.

use lru::LruCache;

/// Values by the text they were made of. One text can have several: the names in it may mean different
/// things in different places, and only the caller can tell which value is meant.
///
/// Bounded by the number of values; the text that was longest unused goes first. So is each text, by
/// [`MEANINGS`]: a program that makes a class for every request must not make each request slower than the last.
/// Values that leave are handed back, so that the caller can drop them where it holds no lock.
#[derive(Debug)]
pub struct Cache<V> {
    entries: LruCache<Box<str>, Vec<V>>,
    len: usize,
    capacity: usize,
    hits: u64,
    misses: u64,
}

/// Values that one text has at most; the one that was longest unused goes first.
pub const MEANINGS: usize = 8;

/// What a cache did so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheInfo {
    /// Lookups that found their value.
    pub hits: u64,
    /// Values that had to be made.
    pub misses: u64,
    /// Values held now.
    pub len: usize,
    /// Values held at most.
    pub capacity: usize,
}

impl<V> Cache<V> {
    /// An empty cache; one of capacity zero stays empty.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            entries: LruCache::unbounded(),
            len: 0,
            capacity,
            hits: 0,
            misses: 0,
        }
    }

    /// What `pick` returns for one of the values of the text, the latest used first; counts a hit.
    pub fn get<T>(&mut self, text: &str, mut pick: impl FnMut(&V) -> Option<T>) -> Option<T> {
        let values = self.entries.get_mut(text)?;
        let (at, found) = values
            .iter()
            .enumerate()
            .rev()
            .find_map(|(at, value)| Some((at, pick(value)?)))?;
        values[at..].rotate_left(1);
        self.hits += 1;
        Some(found)
    }

    /// All values of the text, without counting.
    #[must_use]
    pub fn peek(&self, text: &str) -> &[V] {
        self.entries.peek(text).map_or(&[], Vec::as_slice)
    }

    /// Adds a value that had to be made, counts a miss, and returns the values that had to go for it.
    #[must_use]
    pub fn insert(&mut self, text: &str, value: V) -> Vec<V> {
        self.misses += 1;
        if self.capacity == 0 {
            return vec![value];
        }
        let mut gone = Vec::new();
        match self.entries.get_mut(text) {
            Some(values) => {
                if values.len() >= MEANINGS {
                    gone.push(values.remove(0));
                    self.len -= 1;
                }
                values.push(value);
            }
            None => {
                self.entries.put(text.into(), vec![value]);
            }
        }
        self.len += 1;
        gone.append(&mut self.shrink());
        gone
    }

    /// Changes the bound and returns what does not fit any more.
    #[must_use]
    pub fn resize(&mut self, capacity: usize) -> Vec<V> {
        self.capacity = capacity;
        self.shrink()
    }

    /// Keeps the values that `keep` says, and returns the others.
    #[must_use]
    pub fn retain(&mut self, mut keep: impl FnMut(&V) -> bool) -> Vec<V> {
        let mut gone = Vec::new();
        let mut empty: Vec<Box<str>> = Vec::new();
        for (text, values) in &mut self.entries {
            gone.extend(values.extract_if(.., |value| !keep(value)));
            if values.is_empty() {
                empty.push(text.clone());
            }
        }
        for text in empty {
            self.entries.pop(&text);
        }
        self.len -= gone.len();
        gone
    }

    /// Empties the cache, sets the counts to zero and returns the values.
    #[must_use]
    pub fn clear(&mut self) -> Vec<V> {
        let old = std::mem::replace(self, Self::new(self.capacity));
        old.entries
            .into_iter()
            .flat_map(|(_, values)| values)
            .collect()
    }

    /// The counts.
    #[must_use]
    pub fn info(&self) -> CacheInfo {
        CacheInfo {
            hits: self.hits,
            misses: self.misses,
            len: self.len,
            capacity: self.capacity,
        }
    }

    fn shrink(&mut self) -> Vec<V> {
        let mut gone = Vec::new();
        while self.len > self.capacity
            && let Some((_, oldest)) = self.entries.iter_mut().next_back()
        {
            if oldest.len() > 1 && oldest.len() == self.len {
                // The last text left goes value by value, so that what was just added stays.
                gone.push(oldest.remove(0));
                self.len -= 1;
            } else {
                self.len -= oldest.len();
                gone.append(oldest);
                self.entries.pop_lru();
            }
        }
        gone
    }
}
