//! A number with separators, or with a unit behind it.

use std::collections::HashSet;

use crate::text::{casefold, decimal_value, is_decimal, is_space, is_word};

/// A number as it was read.
#[derive(Debug, PartialEq)]
pub(super) enum Number {
    Int(i64),
    /// More digits than that has room for.
    Long(String),
    Float(f64),
}

/// What a text says about a number.
#[derive(Debug, PartialEq)]
pub(super) enum Scaled {
    Number(Number),
    /// It is none.
    Nothing,
    /// There are several numbers in it.
    Several,
    /// A word behind the number, which is this one as it stands, may change it.
    Multiple(String),
}

/// Python refuses to read an integer of more digits than this.
const MAX_DIGITS: usize = 4300;

/// Words that may change the number before them; a unit does not.
const SCALES: &str = " k m b g t mn bn tn mln bln trln mil mio mrd tsd lakh lakhs crore crores dozen dozens hundred \
    hundreds thousand thousands million millions milliard milliards billion billions trillion trillions quadrillion \
    quadrillions half halves third thirds quarter quarters tenth tenths hundredth hundredths thousandth thousandths \
    percent percentage pct permille ppm ppb bp bps pp point points ";

/// The number that a text is, as a float or an integer.
pub(super) fn read(text: &str, is_float: bool) -> Scaled {
    let Some((digits, unit)) = split(text) else {
        return if numbers(text).len() > 1 {
            Scaled::Several
        } else {
            Scaled::Nothing
        };
    };
    let written: String = digits.chars().filter(|c| *c != ',').collect();
    let number: String = written
        .chars()
        .map(|c| decimal_value(c).map_or(c, |value| char::from(b'0' + value)))
        .collect();
    let is_percent = unit == "%";
    if is_percent && is_float {
        let value: f64 = number.parse().unwrap_or_default();
        return Scaled::Number(Number::Float(value / 100.0));
    }
    let word = casefold(unit.split('/').next().unwrap_or_default());
    if is_percent || !word.is_empty() && SCALES.contains(&format!(" {word} ")) {
        return Scaled::Multiple(written);
    }
    if is_float {
        return number.parse().map_or(Scaled::Nothing, |value| {
            Scaled::Number(Number::Float(value))
        });
    }
    if number.contains('.') {
        return Scaled::Nothing;
    }
    match number.parse() {
        Ok(value) => Scaled::Number(Number::Int(value)),
        Err(_) if number.trim_start_matches(['+', '-']).len() > MAX_DIGITS => Scaled::Nothing,
        Err(_) => Scaled::Number(Number::Long(number)),
    }
}

/// A number and the unit behind it, which may be empty, if a text is that and nothing else.
fn split(text: &str) -> Option<(&str, &str)> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mut rest = skip_digits(unsigned)?;
    let first = unsigned[..unsigned.len() - rest.len()].chars().count();
    // Groups of three digits, if there is a comma at all.
    while let Some(group) = rest.strip_prefix(',') {
        rest = skip_digits(group)?;
        let size = group[..group.len() - rest.len()].chars().count();
        if first > 3 || size != 3 {
            return None;
        }
    }
    if let Some(fraction) = rest.strip_prefix('.') {
        rest = skip_digits(fraction)?;
    }
    let unit = rest.trim_start_matches(is_space);
    is_unit(unit).then(|| (&text[..text.len() - rest.len()], unit))
}

/// What stands behind the digits that `text` begins with; None if it begins with none.
fn skip_digits(text: &str) -> Option<&str> {
    let rest = text.trim_start_matches(is_decimal);
    (rest.len() < text.len()).then_some(rest)
}

fn is_unit(text: &str) -> bool {
    if matches!(text, "" | "%" | "°" | "°C" | "°F" | "€" | "$" | "£") {
        return true;
    }
    let is_word = |part: &str| !part.is_empty() && part.chars().all(is_letter);
    match text.split_once('/') {
        Some((unit, per)) => is_word(unit) && is_word(per),
        None => is_word(text),
    }
}

fn is_letter(c: char) -> bool {
    is_word(c) && !is_decimal(c) && c != '_'
}

/// The different numbers in a text, without signs and separators.
fn numbers(text: &str) -> HashSet<&str> {
    let mut found = HashSet::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_decimal) {
        let number = &rest[start..];
        let mut behind = number.trim_start_matches(is_decimal);
        if let Some(fraction) = behind.strip_prefix('.')
            && let Some(more) = skip_digits(fraction)
        {
            behind = more;
        }
        found.insert(&number[..number.len() - behind.len()]);
        rest = behind;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_with_its_unit() {
        let int = |value| Scaled::Number(Number::Int(value));
        let float = |value| Scaled::Number(Number::Float(value));
        assert_eq!(read("1,234,567", false), int(1_234_567));
        assert_eq!(read("+42 km/h", false), int(42));
        assert_eq!(read("-٣", false), int(-3));
        assert_eq!(read("20 °C", true), float(20.0));
        assert_eq!(read("12.5%", true), float(0.125));
        assert_eq!(read("1,234.5 €", true), float(1234.5));
        let long = "9".repeat(30);
        assert_eq!(
            read(&long, false),
            Scaled::Number(Number::Long(long.clone()))
        );
        assert_eq!(read(&"9".repeat(5000), false), Scaled::Nothing);
    }

    #[test]
    fn what_may_be_another_number_is_none() {
        assert_eq!(read("5 million", false), Scaled::Multiple("5".into()));
        assert_eq!(read("1,000 K", false), Scaled::Multiple("1000".into()));
        assert_eq!(read("5 %", false), Scaled::Multiple("5".into()));
        for text in ["3 or 4", "1,23", "12345,678", "1_000"] {
            assert_eq!(read(text, false), Scaled::Several, "{text}");
        }
        for text in ["3 of 3", "4.", ".5", "", "five"] {
            assert_eq!(read(text, false), Scaled::Nothing, "{text}");
        }
        assert_eq!(read("4.5", false), Scaled::Nothing);
    }
}
