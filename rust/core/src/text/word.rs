//! `\w` of Python's `re`, and `str.isidentifier`.

use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory as _};

/// Whether `c` matches `\w`: a letter, a number or `_`; unlike Rust's `is_alphanumeric`, no combining mark.
#[must_use]
pub fn is_word(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphanumeric() || c == '_';
    }
    matches!(
        c.general_category_group(),
        GeneralCategoryGroup::Letter | GeneralCategoryGroup::Number
    )
}

/// Whether `c` matches `\d`: a digit that numbers are written with, in any script; `²` is none.
#[must_use]
pub fn is_decimal(c: char) -> bool {
    c.is_ascii_digit() || !c.is_ascii() && c.general_category() == GeneralCategory::DecimalNumber
}

/// The length in bytes of the longest match of `\w*` at the start of `text`.
#[must_use]
pub fn word_len(text: &str) -> usize {
    text.find(|c| !is_word(c)).unwrap_or(text.len())
}

/// `text.isidentifier()`.
#[must_use]
pub fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars
        .next()
        .is_some_and(|c| c == '_' || unicode_ident::is_xid_start(c))
        && chars.all(unicode_ident::is_xid_continue)
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
        assert_eq!(word_len("naïve_1 x"), "naïve_1".len());
        assert_eq!(word_len(""), 0);
    }
}
