//! Any bytes: no panic, no hang, spans inside the text, and what is read can be written and read again.
//!
//! `cargo test` runs what was found before and a short round of new texts; `make fuzz` sets `FUZZ_SECONDS` for a
//! long one. A text that fails is written to `testdata/signature/fuzz`, where the next run finds it.

use std::env;
use std::fs;
use std::panic::catch_unwind;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dspex_core::signature::Limits;

use super::{corpus, read};

/// A text that takes longer is a hang: the slowest of the corpus takes a few milliseconds.
const HANG: Duration = Duration::from_secs(5);

fn check(source: &str) -> Result<(), String> {
    let start = Instant::now();
    let result = catch_unwind(|| read(source, &Limits::default())).map_err(|_| "a panic")?;
    match result {
        Ok(signature) => {
            let text = signature.text();
            let again = read(
                &text,
                &Limits {
                    length: usize::MAX,
                    ..Limits::default()
                },
            );
            if again.as_ref() != Ok(&signature) {
                return Err(format!("{text:?} reads back as {again:?}"));
            }
        }
        Err(error) => {
            if source.get(error.span.start..error.span.end).is_none() {
                return Err(format!("the span {:?} is not within the text", error.span));
            }
        }
    }
    if start.elapsed() > HANG {
        Err("a hang".into())
    } else {
        Ok(())
    }
}

/// A small generator of numbers, so that a seed is all it takes to see the same texts again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound.max(1) as u64).unwrap_or(0)
    }

    fn of<'a>(&mut self, items: &'a [String]) -> &'a str {
        &items[self.below(items.len())]
    }
}

const PIECES: &[&str] = &[
    "->",
    "-> ",
    ":",
    ",",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    "|",
    "=",
    ".",
    "...",
    "'",
    "\"",
    "'''",
    "\\",
    "\\x",
    "\\u12",
    "#",
    "\n",
    "\r",
    "\0",
    " ",
    "\u{a0}",
    "é",
    "ﬁ",
    "名",
    "\u{1f600}",
    "\u{301}",
    "0x",
    "1_",
    "1e",
    "5j",
    "b'",
    "rb\"",
    "f'",
    "int",
    "list[",
    "dict[str,",
    "tuple[int, ...]",
    "Optional[",
    "Union[",
    "Literal[",
    "Literal['a', 1]",
    "Annotated[int, Field(gt=1)]",
    "typing.",
    "None",
    "class",
    "_",
    "*",
    "/",
    "-1",
    "lambda",
    "Field(",
    "a",
    "b: ",
];

/// All texts of the corpus: the seeds.
fn seeds() -> Vec<String> {
    let mut seeds: Vec<String> = Vec::new();
    for part in ["types.txt", "refused.txt"] {
        let text = fs::read_to_string(corpus(part)).unwrap();
        seeds.extend(text.lines().map(|line| {
            if line.contains("->") {
                line.into()
            } else {
                format!("a: {line} -> b")
            }
        }));
    }
    for part in ["errors", "fuzz"] {
        for entry in fs::read_dir(corpus(part)).unwrap() {
            let bytes = fs::read(entry.unwrap().path()).unwrap();
            seeds.push(
                String::from_utf8_lossy(&bytes)
                    .split("\n---\n")
                    .next()
                    .unwrap_or_default()
                    .into(),
            );
        }
    }
    seeds
}

fn mutate(random: &mut Random, seeds: &[String]) -> String {
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
                let piece = PIECES[random.below(PIECES.len())];
                text.splice(at..at, piece.chars());
            }
        }
    }
    text.into_iter().collect()
}

#[test]
fn no_text_breaks_the_parser() {
    let seeds = seeds();
    for seed in &seeds {
        check(seed).unwrap_or_else(|problem| panic!("{seed:?}: {problem}"));
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
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut count = 0_u64;
    while count < rounds && (!count.is_multiple_of(1_000) || Instant::now() < deadline) {
        let text = mutate(&mut random, &seeds);
        if let Err(problem) = check(&text) {
            let path = corpus("fuzz").join(format!("found-{seed}-{count}.txt"));
            fs::write(&path, &text).unwrap();
            panic!("{text:?}: {problem}; kept in {}", path.display());
        }
        count += 1;
    }
    println!("{count} texts, seed {seed}");
}
