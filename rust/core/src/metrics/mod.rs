//! Scores for evaluation loops: whether an answer is the expected one, and how many words it shares with it.
//!
//! Both compare normalised texts, and the normalisation is DSPy's, so that scores measured here and there
//! can stand in one table.

use std::borrow::Cow;
use std::collections::HashMap;

use unicode_normalization::UnicodeNormalization;

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
    let decomposed = if text.is_ascii() {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.nfd().collect())
    };
    let mut plain = decomposed.to_lowercase();
    plain.retain(|c| !c.is_ascii_punctuation());
    join_words(&without_articles(&plain))
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
    let mut left: HashMap<&str, usize> = HashMap::new();
    let mut given = 0_u32;
    for word in answer.split_terminator(' ') {
        *left.entry(word).or_default() += 1;
        given += 1;
    }
    let (mut wanted, mut same) = (0_u32, 0_u32);
    for word in reference.split_terminator(' ') {
        wanted += 1;
        if let Some(count) = left.get_mut(word).filter(|count| **count > 0) {
            *count -= 1;
            same += 1;
        }
    }
    if same == 0 {
        return 0.0;
    }
    let precision = f64::from(same) / f64::from(given);
    let recall = f64::from(same) / f64::from(wanted);
    (2.0 * precision * recall) / (precision + recall)
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
