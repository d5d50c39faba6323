//! Code points, and what Python's `str` says of them.

use crate::text;

/// A code point; half of a surrogate pair is one too.
pub type Char = u32;

/// `str.isspace()`
pub(super) fn is_space(c: Char) -> bool {
    char::from_u32(c).is_some_and(text::is_space)
}

/// `str.isalpha()`
pub(super) fn is_alpha(c: Char) -> bool {
    char::from_u32(c)
        .is_some_and(|c| c.is_ascii_alphabetic() || !c.is_ascii() && text::is_letter(c))
}

/// `str.isalnum()`
pub(super) fn is_alnum(c: Char) -> bool {
    c != u32::from('_') && char::from_u32(c).is_some_and(text::is_word)
}

/// `str.isdigit()`
pub(super) fn is_digit(c: Char) -> bool {
    /// Digits that are no decimals.
    const OTHERS: [(Char, Char); 20] = [
        (0xb2, 0xb3),
        (0xb9, 0xb9),
        (0x1369, 0x1371),
        (0x19da, 0x19da),
        (0x2070, 0x2070),
        (0x2074, 0x2079),
        (0x2080, 0x2089),
        (0x2460, 0x2468),
        (0x2474, 0x247c),
        (0x2488, 0x2490),
        (0x24ea, 0x24ea),
        (0x24f5, 0x24fd),
        (0x24ff, 0x24ff),
        (0x2776, 0x277e),
        (0x2780, 0x2788),
        (0x278a, 0x2792),
        (0x10a40, 0x10a43),
        (0x10e60, 0x10e68),
        (0x11052, 0x1105a),
        (0x1f100, 0x1f10a),
    ];
    if c < 0x80 {
        return (u32::from('0')..=u32::from('9')).contains(&c);
    }
    char::from_u32(c).is_some_and(text::is_decimal)
        || OTHERS
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&c))
}

/// Whether `json_repair` takes it for a quote.
pub(super) fn is_delimiter(c: Char) -> bool {
    matches!(char::from_u32(c), Some('"' | '\'' | '“' | '”'))
}

/// A letter of ASCII in lower case.
pub(super) fn lower(c: Char) -> Option<char> {
    char::from_u32(c).map(|c| c.to_ascii_lowercase())
}
