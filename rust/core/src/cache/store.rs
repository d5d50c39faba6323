//! Values by their keys, bounded in bytes and in time.

use lru::LruCache;

use super::Key;

/// What a value takes besides its own bytes: the key, the entry and its place in the list.
pub const OVERHEAD: u64 = 160;

/// Values by their keys.
#[derive(Debug)]
pub struct Store<V> {
    entries: LruCache<Key, Entry<V>>,
    bytes: u64,
    capacity: u64,
    hits: u64,
    evicted: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    bytes: u64,
    /// The moment from which it is no more.
    ends: Option<u64>,
}

/// What was found under a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a, V> {
    /// A value that is good.
    Hit(&'a V),
    /// A value whose time is over: it has left.
    Expired(V),
    /// Nothing.
    Nothing,
}

/// What a store has, and what it has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Values that were found.
    pub hits: u64,
    /// Values that left because others needed their room.
    pub evicted: u64,
    /// Values now.
    pub len: usize,
    /// Bytes that they take now.
    pub bytes: u64,
}

impl<V> Store<V> {
    /// An empty store that takes so many bytes at most.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self {
            entries: LruCache::unbounded(),
            bytes: 0,
            capacity,
            hits: 0,
            evicted: 0,
        }
    }

    /// The value of a key at this moment.
    pub fn get(&mut self, key: &Key, now: u64) -> Found<'_, V> {
        let is_over = match self.entries.peek(key) {
            None => return Found::Nothing,
            Some(entry) => entry.ends.is_some_and(|ends| ends <= now),
        };
        if is_over {
            return self.remove(key).map_or(Found::Nothing, Found::Expired);
        }
        self.hits += 1;
        self.entries
            .get(key)
            .map_or(Found::Nothing, |entry| Found::Hit(&entry.value))
    }

    /// Keeps a value, until the moment `ends` if there is one, and returns what had to go for it: that of the same key,
    /// those that were longest unused, or the value itself, if it alone takes more than there is room.
    #[must_use]
    pub fn put(&mut self, key: Key, value: V, bytes: u64, ends: Option<u64>) -> Vec<V> {
        let bytes = bytes.saturating_add(OVERHEAD);
        let mut gone: Vec<V> = self.remove(&key).into_iter().collect();
        if bytes > self.capacity {
            gone.push(value);
            return gone;
        }
        while self.bytes > self.capacity - bytes {
            let Some((_, oldest)) = self.entries.pop_lru() else {
                break;
            };
            self.bytes -= oldest.bytes;
            self.evicted += 1;
            gone.push(oldest.value);
        }
        self.bytes += bytes;
        self.entries.put(key, Entry { value, bytes, ends });
        gone
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: &Key) -> Option<V> {
        let entry = self.entries.pop(key)?;
        self.bytes -= entry.bytes;
        Some(entry.value)
    }

    /// Takes all values out; what was counted stays.
    #[must_use]
    pub fn clear(&mut self) -> Vec<V> {
        let entries = std::mem::replace(&mut self.entries, LruCache::unbounded());
        self.bytes = 0;
        entries.into_iter().map(|(_, entry)| entry.value).collect()
    }

    /// What it has, and what it has done.
    #[must_use]
    pub fn info(&self) -> Info {
        Info {
            hits: self.hits,
            evicted: self.evicted,
            len: self.entries.len(),
            bytes: self.bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    fn key(name: u64) -> Key {
        Key::of(&name.to_le_bytes(), b"", None)
    }

    #[test]
    fn the_longest_unused_leave_when_there_is_no_room() {
        let mut store = Store::new(3 * (OVERHEAD + 10));
        for name in 0..3 {
            assert!(store.put(key(name), name, 10, None).is_empty());
        }
        assert_eq!(store.get(&key(0), 0), Found::Hit(&0));
        assert_eq!(store.put(key(3), 3, 10, None), [1]);
        // One that needs the room of two.
        assert_eq!(store.put(key(4), 4, OVERHEAD + 20, None), [2, 0]);
        assert_eq!(store.get(&key(3), 0), Found::Hit(&3));
        let info = store.info();
        assert_eq!((info.len, info.evicted, info.hits), (2, 3, 2));
    }

    #[test]
    fn a_value_leaves_at_the_end_of_its_time_and_not_before() {
        let mut store = Store::new(10_000);
        assert!(store.put(key(0), 'a', 1, Some(100)).is_empty());
        assert_eq!(store.get(&key(0), 99), Found::Hit(&'a'));
        assert_eq!(store.get(&key(0), 100), Found::Expired('a'));
        assert_eq!(store.get(&key(0), 0), Found::Nothing);
        assert_eq!((store.info().len, store.info().bytes), (0, 0));
    }

    #[test]
    fn what_is_larger_than_all_the_room_is_not_kept_and_drives_nothing_out() {
        let mut store = Store::new(1_000);
        assert!(store.put(key(0), 'a', 1, None).is_empty());
        assert_eq!(store.put(key(1), 'b', 1_000, None), ['b']);
        assert_eq!(store.put(key(2), 'c', u64::MAX, None), ['c']);
        assert_eq!(store.get(&key(0), 0), Found::Hit(&'a'));
        assert_eq!(Store::new(0).put(key(0), 'a', 0, None), ['a']);
        // An old value of the key would be a wrong one.
        assert_eq!(store.put(key(0), 'd', 1_000, None), ['a', 'd']);
        assert_eq!(store.get(&key(0), 0), Found::Nothing);
    }

    /// The same as `Store`, as plainly as it can be written.
    struct Plain {
        rows: VecDeque<(u64, u64, Option<u64>, u64)>,
        capacity: u64,
    }

    impl Plain {
        fn get(&mut self, name: u64, now: u64) -> Option<u64> {
            let at = self.rows.iter().position(|row| row.0 == name)?;
            let row = self.rows.remove(at)?;
            if row.2.is_some_and(|ends| ends <= now) {
                return None;
            }
            self.rows.push_back(row);
            Some(row.3)
        }

        fn put(&mut self, name: u64, value: u64, bytes: u64, ends: Option<u64>) {
            self.rows.retain(|row| row.0 != name);
            if bytes + OVERHEAD > self.capacity {
                return;
            }
            while self.bytes() + bytes + OVERHEAD > self.capacity {
                self.rows.pop_front();
            }
            self.rows.push_back((name, bytes, ends, value));
        }

        fn bytes(&self) -> u64 {
            self.rows.iter().map(|row| row.1 + OVERHEAD).sum()
        }
    }

    #[test]
    fn any_sequence_of_calls_comes_to_the_same_as_in_a_plain_list() {
        let mut seed = 7_u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        for capacity in [0, 200, 1_000, 5_000] {
            let mut store = Store::new(capacity);
            let mut plain = Plain {
                rows: VecDeque::new(),
                capacity,
            };
            for now in 0..4_000 {
                let name = random(30);
                match random(8) {
                    0 => {
                        store.remove(&key(name));
                        plain.rows.retain(|row| row.0 != name);
                    }
                    1 if random(200) == 0 => {
                        assert_eq!(store.clear().len(), plain.rows.len());
                        plain.rows.clear();
                    }
                    2..=4 => {
                        let found = match store.get(&key(name), now) {
                            Found::Hit(value) => Some(*value),
                            Found::Expired(_) | Found::Nothing => None,
                        };
                        assert_eq!(found, plain.get(name, now));
                    }
                    _ => {
                        let bytes = random(300);
                        let ends = (random(3) == 0).then(|| now + random(50));
                        let before = plain.rows.len() + 1;
                        let gone = store.put(key(name), now, bytes, ends);
                        plain.put(name, now, bytes, ends);
                        assert_eq!(gone.len(), before - plain.rows.len());
                    }
                }
                let info = store.info();
                assert!(info.bytes <= capacity);
                assert_eq!((info.len, info.bytes), (plain.rows.len(), plain.bytes()));
            }
        }
    }
}
