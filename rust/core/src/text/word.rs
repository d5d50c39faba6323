//! `\w` of Python's `re`, and `str.isidentifier`.

use unicode_properties::GeneralCategory;

use super::unicode::{category, is_xid_continue, is_xid_start};

/// Whether `c` matches `\w`: a letter, a number or `_`; unlike Rust's `is_alphanumeric`, no combining mark.
#[must_use]
pub fn is_word(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphanumeric() || c == '_';
    }
    is_letter(c) || is_number(c)
}

/// `c.isalpha()`
#[must_use]
pub fn is_letter(c: char) -> bool {
    use GeneralCategory as Is;
    matches!(
        category(c),
        Is::UppercaseLetter
            | Is::LowercaseLetter
            | Is::TitlecaseLetter
            | Is::ModifierLetter
            | Is::OtherLetter
    )
}

fn is_number(c: char) -> bool {
    use GeneralCategory as Is;
    matches!(
        category(c),
        Is::DecimalNumber | Is::LetterNumber | Is::OtherNumber
    )
}

/// Whether `c` matches `\d`: a digit that numbers are written with, in any script; `²` is none.
#[must_use]
pub fn is_decimal(c: char) -> bool {
    c.is_ascii_digit() || !c.is_ascii() && category(c) == GeneralCategory::DecimalNumber
}

/// The value of a digit that numbers are written with, in any script.
///
/// Unicode has the ten digits of a script one behind the other, and only other tens beside them.
#[must_use]
pub fn decimal_value(c: char) -> Option<u8> {
    if !is_decimal(c) {
        return None;
    }
    let before = (1..u32::from(c))
        .map_while(|distance| char::from_u32(u32::from(c) - distance))
        .take_while(|before| is_decimal(*before));
    u8::try_from(before.count() % 10).ok()
}

/// The length in bytes of the longest match of `\w*` at the start of `text`.
#[must_use]
pub fn word_len(text: &str) -> usize {
    // Most words are ASCII, and a byte is cheaper than a character.
    let bytes = text.as_bytes();
    let is_ascii_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let len = bytes
        .iter()
        .position(|byte| !is_ascii_word(byte))
        .unwrap_or(bytes.len());
    if bytes.get(len).is_none_or(u8::is_ascii) {
        return len;
    }
    let rest = text[len..].find(|c| !is_word(c));
    rest.map_or(text.len(), |rest| len + rest)
}

/// `text.isidentifier()`.
#[must_use]
pub fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c == '_' || is_xid_start(c)) && chars.all(is_xid_continue)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_letters_numbers_and_underscores() {
        for c in ['a', 'Z', '0', '_', 'é', 'ſ', '中', '٣', '½', 'Ⅷ', '²'] {
            assert!(is_word(c), "{c}");
        }
        for c in [' ', '-', '.', '\u{301}', '\u{93e}', 'Ⓐ', '“', '‿', '😀'] {
            assert!(!is_word(c), "{c}");
        }
        assert_eq!(decimal_value('7'), Some(7));
        assert_eq!(decimal_value('٣'), Some(3));
        assert_eq!(decimal_value('\u{1d7ff}'), Some(9));
        assert_eq!(decimal_value('²'), None);
        assert_eq!(word_len("naïve_1 x"), "naïve_1".len());
        assert_eq!(word_len(""), 0);
    }
}
