//! The label that DSPy infers from a field's name.

use unicode_properties::GeneralCategory;

use crate::text::unicode::category;

/// Words for people out of an identifier: `camelCaseText` is `Camel Case Text`, `HTMLParser` is `HTML Parser`.
///
/// Four rewriting passes and a capitalisation, in DSPy's order. They work on the characters of an
/// identifier, where a "letter" is ASCII and a "digit" is any decimal digit of Unicode.
///
/// ```
/// use dspex_core::signature::infer_prefix;
///
/// assert_eq!(infer_prefix("text2number"), "Text 2 Number");
/// assert_eq!(infer_prefix("b__c"), "B  C");
/// ```
#[must_use]
pub fn infer_prefix(name: &str) -> String {
    let mut chars: Vec<char> = name.chars().collect();
    chars = split_before_words(&chars);
    chars = split_pairs(
        &chars,
        |a| a.is_ascii_lowercase() || a.is_ascii_digit(),
        |b| b.is_ascii_uppercase(),
    );
    chars = split_pairs(&chars, |a| a.is_ascii_alphabetic(), is_decimal_digit);
    chars = split_pairs(&chars, is_decimal_digit, |b| b.is_ascii_alphabetic());

    let mut out = String::with_capacity(name.len() + 8);
    for (i, word) in chars.split(|&c| c == '_').enumerate() {
        if i > 0 {
            out.push(' ');
        }
        write_capitalized(&mut out, word);
    }
    out
}

/// `(.)([A-Z][a-z]+)` with an underscore between: the first character before each capitalised word.
fn split_before_words(chars: &[char]) -> Vec<char> {
    let mut out = Vec::with_capacity(chars.len() + 4);
    let mut i = 0;
    while i < chars.len() {
        let capital = chars.get(i + 1).is_some_and(char::is_ascii_uppercase);
        let lower = if capital {
            let rest = chars[i + 2..].iter();
            rest.take_while(|c| c.is_ascii_lowercase()).count()
        } else {
            0
        };
        if lower > 0 && chars[i] != '\n' {
            out.push(chars[i]);
            out.push('_');
            out.extend(&chars[i + 1..i + 2 + lower]);
            i += 2 + lower;
        } else {
            out.push(chars[i]);
            i += 1;
        }
    }
    out
}

/// `(first)(second)` with an underscore between, left to right, no character used twice.
fn split_pairs(
    chars: &[char],
    first: impl Fn(char) -> bool,
    second: impl Fn(char) -> bool,
) -> Vec<char> {
    let mut out = Vec::with_capacity(chars.len() + 4);
    let mut i = 0;
    while i < chars.len() {
        out.push(chars[i]);
        if first(chars[i]) && chars.get(i + 1).is_some_and(|&c| second(c)) {
            out.push('_');
            out.push(chars[i + 1]);
            i += 1;
        }
        i += 1;
    }
    out
}

/// Python's `\d`.
fn is_decimal_digit(c: char) -> bool {
    c.is_ascii_digit() || (!c.is_ascii() && category(c) == GeneralCategory::DecimalNumber)
}

/// Appends the word as it is if it is an acronym, else with `str.capitalize`.
fn write_capitalized(out: &mut String, word: &[char]) {
    let cased = |c: &char| c.is_uppercase() || c.is_lowercase() || is_titlecase(*c);
    let acronym = word.iter().any(|c| c.is_uppercase())
        && word.iter().filter(|c| cased(c)).all(|c| c.is_uppercase());
    if acronym {
        out.extend(word);
        return;
    }
    let Some((&first, _)) = word.split_first() else {
        return;
    };
    // Lowercase the whole word, so that a final sigma sees its neighbours, then replace the head.
    let lower = word.iter().collect::<String>().to_lowercase();
    let head: usize = first.to_lowercase().map(char::len_utf8).sum();
    write_titlecase(out, first);
    out.push_str(&lower[head..]);
}

fn is_titlecase(c: char) -> bool {
    category(c) == GeneralCategory::TitlecaseLetter
}

/// Appends a character as `str.title` has it. That is its uppercase, of which only the first character stays large
/// where there are several; what follows no rule is listed, and all of Unicode is compared with Python in
/// `tests/parity/test_prefixes.py`.
fn write_titlecase(out: &mut String, c: char) {
    let single = match c {
        // Letters with a form of their own for the head of a word.
        'Ǆ'..='ǆ' => 'ǅ',
        'Ǉ'..='ǉ' => 'ǈ',
        'Ǌ'..='ǌ' => 'ǋ',
        'Ǳ'..='ǳ' => 'ǲ',
        '\u{1f80}'..='\u{1faf}' => char::from_u32(u32::from(c) | 8).unwrap_or(c),
        '\u{1fb3}' => '\u{1fbc}',
        '\u{1fc3}' => '\u{1fcc}',
        '\u{1ff3}' => '\u{1ffc}',
        // These are large already; and Georgian words have no large head.
        '\u{1fbc}' | '\u{1fcc}' | '\u{1ffc}' | 'ა'..='ჺ' | 'ჽ'..='ჿ' => c,
        _ => {
            let mut upper = c.to_uppercase();
            out.extend(upper.next());
            for rest in upper {
                match rest {
                    // The iota beneath a letter stays there.
                    'Ι' => out.push('\u{345}'),
                    // Its head is an apostrophe, which is never large.
                    'N' if c == 'ŉ' => out.push(rest),
                    _ => out.extend(rest.to_lowercase()),
                }
            }
            return;
        }
    };
    out.push(single);
}
