//! Mutated texts, thrown at something that must stand all of them.
//!
//! `cargo test` runs what was found before and a short round of new texts; `make fuzz` sets `FUZZ_SECONDS` for a
//! long one. A text that fails is written to the corpus, where the next run finds it.

use std::env;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A text that takes longer is a hang: the slowest of the corpus takes a few milliseconds.
pub(crate) const HANG: Duration = Duration::from_secs(5);

/// A small generator of numbers, so that a seed is all it takes to see the same texts again.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound.max(1) as u64).unwrap_or(0)
    }

    fn of<'a>(&mut self, items: &'a [String]) -> &'a str {
        &items[self.below(items.len())]
    }
}

fn mutate(random: &mut Random, seeds: &[String], pieces: &[&str]) -> String {
    let mut text: Vec<char> = random.of(seeds).chars().collect();
    for _ in 0..=random.below(6) {
        let at = random.below(text.len() + 1);
        match random.below(6) {
            0 => text.truncate(at),
            1 if at < text.len() => drop(text.remove(at)),
            2 => {
                let other: Vec<char> = random.of(seeds).chars().collect();
                let from = random.below(other.len());
                text.splice(at..at, other[from..].iter().copied());
            }
            3 => {
                let end = at + random.below(text.len() - at + 1).min(20);
                let part: Vec<char> = text[at..end].to_vec();
                for _ in 0..random.below(200) {
                    text.splice(at..at, part.iter().copied());
                    if text.len() > 4_000 {
                        break;
                    }
                }
            }
            4 => {
                let code = u32::try_from(random.below(0x3000)).unwrap_or(0);
                text.insert(at, char::from_u32(code).unwrap_or('?'));
            }
            _ => {
                let piece = pieces[random.below(pieces.len())];
                text.splice(at..at, piece.chars());
            }
        }
    }
    text.into_iter().collect()
}

/// What is wrong with a text: what `check` says, a panic, or a hang.
fn problem(text: &str, check: &impl Fn(&str) -> Result<(), String>) -> Result<(), String> {
    let start = Instant::now();
    catch_unwind(AssertUnwindSafe(|| check(text))).map_err(|_| "a panic")??;
    if start.elapsed() > HANG {
        Err("a hang".into())
    } else {
        Ok(())
    }
}

/// How often a part stands in the smaller of two texts, and how many times that in the larger.
const REPEATED: usize = 300;
const GROWTH: usize = 8;
/// How many times longer the larger one may take: quadratic work takes 64 times as long.
const MOST: u32 = 28;
/// What is done in less is not worth measuring, and could not be told from what else the machine does.
const QUICK: Duration = Duration::from_millis(4);

/// Whether work grows with the text and no faster: parts of two texts with a third one between them, many times over.
///
/// No second is asserted, only a ratio, and of the least times of several turns.
fn cost(
    random: &mut Random,
    seeds: &[String],
    pieces: &[&str],
    read: fn(&str),
) -> Result<(), (String, String)> {
    let part = match random.below(3) {
        0 => pieces[random.below(pieces.len())].to_owned(),
        1 => [
            pieces[random.below(pieces.len())],
            pieces[random.below(pieces.len())],
        ]
        .concat(),
        _ => {
            let seed: Vec<char> = random.of(seeds).chars().collect();
            let from = random.below(seed.len());
            let length = 1 + random.below(12);
            seed[from..].iter().take(length).collect()
        }
    };
    // Each with a number of its own, or all the same.
    let number = Some(random.below(part.len() + 1)).filter(|at| part.is_char_boundary(*at));
    let number = number.filter(|_| random.below(2) == 0);
    let around: Vec<char> = random.of(seeds).chars().collect();
    let at = random.below(around.len() + 1);
    let text = |times: usize| -> String {
        let (before, behind) = around.split_at(at);
        let (first, second) = part.split_at(number.unwrap_or(0));
        let numbered = |i| format!("{first}{i}{second}");
        let repeated: String = match number {
            Some(_) => (0..times).map(numbered).collect(),
            None => part.repeat(times),
        };
        before
            .iter()
            .copied()
            .chain(repeated.chars())
            .chain(behind.iter().copied())
            .collect()
    };
    let least = |text: &str, turns: u32| {
        let once = |_| {
            let start = Instant::now();
            read(text);
            start.elapsed()
        };
        (0..turns).map(once).min().unwrap_or_default()
    };
    let (small, large) = (text(REPEATED), text(REPEATED * GROWTH));
    if least(&large, 1) <= QUICK {
        return Ok(());
    }
    for turns in [3, 10, 30] {
        if least(&large, turns) <= QUICK.max(MOST * least(&small, turns)) {
            return Ok(());
        }
    }
    let problem =
        format!("{GROWTH} times as much of {part:?} takes more than {MOST} times as long");
    Err((small, problem))
}

/// Check all seeds, the texts in the directory `found`, and mutations of them. Of `read`, if it is given, the cost is
/// checked too: it must grow no faster than the text.
pub(crate) fn run(
    found: &Path,
    mut seeds: Vec<String>,
    pieces: &[&str],
    check: impl Fn(&str) -> Result<(), String>,
    read: Option<fn(&str)>,
) {
    for entry in fs::read_dir(found).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        seeds.push(String::from_utf8_lossy(&bytes).into());
    }
    for seed in &seeds {
        problem(seed, &check).unwrap_or_else(|problem| panic!("{seed:?}: {problem}"));
    }
    // A fixed seed for tests, so that they say the same every time; a new one for every long run.
    let seconds = env::var("FUZZ_SECONDS")
        .ok()
        .and_then(|text| text.parse::<u64>().ok());
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |time| time.as_secs());
    let seed = env::var("FUZZ_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or(if seconds.is_some() { now } else { 1 });
    let rounds = if seconds.is_some() { u64::MAX } else { 5_000 };
    let deadline = Instant::now() + Duration::from_secs(seconds.unwrap_or(3_600));
    let mut random = Random::new(seed);
    let mut count = 0_u64;
    while count < rounds && (!count.is_multiple_of(1_000) || Instant::now() < deadline) {
        let mut text = mutate(&mut random, &seeds, pieces);
        let mut result = problem(&text, &check);
        if result.is_ok()
            && count.is_multiple_of(10)
            && let Some(read) = read
            && let Err((costly, problem)) = cost(&mut random, &seeds, pieces, read)
        {
            (text, result) = (costly, Err(problem));
        }
        if let Err(problem) = result {
            let path = found.join(format!("found-{seed}-{count}.txt"));
            fs::write(&path, &text).unwrap();
            panic!("{text:?}: {problem}; kept in {}", path.display());
        }
        count += 1;
    }
    println!("{count} texts, seed {seed}");
}
