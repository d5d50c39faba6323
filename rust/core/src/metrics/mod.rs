//! Scores for evaluation loops: whether an answer is the expected one, and how many words it shares with it.
//!
//! Both compare normalised texts, and the normalisation is DSPy's, so that scores measured here and there
//! can stand in one table.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;

use crate::text::unicode::of_known;
use crate::text::{is_space, is_word};

/// Words that say nothing about an answer.
const ARTICLES: [&str; 3] = ["a", "an", "the"];

/// A text as it is compared: decomposed, in lower case, without ASCII punctuation and English articles, one
/// space between words.
///
/// ```
/// use dspex_core::metrics::normalize;
///
/// assert_eq!(normalize("The,  Eiffel\tTower!"), "eiffel tower");
/// assert_eq!(normalize("An A-Team"), "ateam");
/// ```
#[must_use]
pub fn normalize(text: &str) -> String {
    let decomposed = decomposed(text);
    let mut plain = if decomposed.is_ascii() {
        decomposed.to_ascii_lowercase()
    } else {
        of_known(&decomposed, |out, known| {
            out.push_str(&known.to_lowercase());
        })
    };
    plain.retain(|c| !c.is_ascii_punctuation());
    join_words(&without_articles(&plain))
}

/// The text in Unicode's form D. An ASCII character stays as it is and nothing moves across it, so only the
/// runs between them need the tables.
fn decomposed(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    let mut rest = text;
    while !rest.is_empty() {
        let plain = rest.bytes().take_while(u8::is_ascii).count();
        out.push_str(&rest[..plain]);
        rest = &rest[plain..];
        let other = rest.find(|c: char| c.is_ascii()).unwrap_or(rest.len());
        out.push_str(&of_known(&rest[..other], |out, known| {
            out.extend(known.nfd());
        }));
        rest = &rest[other..];
    }
    Cow::Owned(out)
}

/// Whether the answer is one of the references, but for what [`normalize`] takes away.
#[must_use]
pub fn exact_match<T: AsRef<str>>(answer: &str, references: &[T]) -> bool {
    let answer = normalize(answer);
    references
        .iter()
        .any(|reference| normalize(reference.as_ref()) == answer)
}

/// The best F1 of the answer's words against each reference's, from 0 to 1. Without a common word it is 0,
/// also where both are empty.
#[must_use]
pub fn f1<T: AsRef<str>>(answer: &str, references: &[T]) -> f64 {
    let answer = normalize(answer);
    references
        .iter()
        .map(|reference| word_f1(&answer, &normalize(reference.as_ref())))
        .fold(0.0, f64::max)
}

fn word_f1(answer: &str, reference: &str) -> f64 {
    let (answer, reference) = (sorted_words(answer), sorted_words(reference));
    let (mut at, mut same) = (0, 0);
    for word in &reference {
        at += answer[at..]
            .iter()
            .take_while(|&other| other < word)
            .count();
        if answer.get(at) == Some(word) {
            at += 1;
            same += 1;
        }
    }
    if same == 0 {
        return 0.0;
    }
    let precision = ratio(same, answer.len());
    let recall = ratio(same, reference.len());
    (2.0 * precision * recall) / (precision + recall)
}

/// Sorted, two lists of words are compared in one pass; an answer's few words make no map worth its while.
fn sorted_words(normal: &str) -> Vec<&str> {
    let mut words: Vec<&str> = normal.split_terminator(' ').collect();
    words.sort_unstable();
    words
}

#[allow(clippy::cast_precision_loss)] // no text has that many words
fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

/// Each article as a word of its own becomes a space. A combining mark is no part of a word to Python, so an
/// accented "a" loses its letter here as it does there.
fn without_articles(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut word = 0;
    let mut inside = false;
    for (at, c) in text.char_indices() {
        if is_word(c) == inside {
            continue;
        }
        push_word(&mut out, &text[word..at]);
        word = at;
        inside = !inside;
    }
    push_word(&mut out, &text[word..]);
    out
}

fn push_word(out: &mut String, word: &str) {
    if ARTICLES.contains(&word) {
        out.push(' ');
    } else {
        out.push_str(word);
    }
}

fn join_words(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split(is_space).filter(|word| !word.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{exact_match, f1, normalize};

    #[test]
    fn normal_form_is_dspys() {
        let cases = [
            ("", ""),
            ("  The   cat,  sat. ", "cat sat"),
            ("A.B.C. a an the Athena", "abc athena"),
            ("theatre the_a a_n", "theatre thea"),
            ("Ĳsselmeer É", "ĳsselmeer e\u{301}"),
            ("á", "\u{301}"),
            ("ΟΔΟΣ", "οδος"),
            ("x\u{1c}y\u{a0}z", "x y z"),
            ("3.14 – “q”", "314 – “q”"),
        ];
        for (text, normal) in cases {
            assert_eq!(normalize(text), normal, "{text}");
        }
    }

    #[test]
    fn scores_are_dspys() {
        assert!(exact_match(
            "The Eiffel Tower",
            &["Louvre", "eiffel tower!"]
        ));
        assert!(!exact_match("paris", &["Paris, France"]));
        let cases = [
            ("Eiffel Tower is in Paris", "Paris", 1.0 / 3.0),
            ("a b b", "b b c", 0.8),
            ("", "", 0.0),
            ("x", "", 0.0),
            ("same words", "Same, words.", 1.0),
        ];
        for (answer, reference, score) in cases {
            assert!((f1(answer, &[reference]) - score).abs() < 1e-12, "{answer}");
        }
        assert!((f1("a b", &["z", "b"]) - 1.0).abs() < 1e-12);
    }
}
