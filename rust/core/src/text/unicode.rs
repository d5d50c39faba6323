//! What characters are, as the interpreter beside us knows them.
//!
//! Our tables are those of Unicode 18. An older Python knows fewer characters: to Python 3.11, which has Unicode 14, a
//! letter that came later is nothing, so `isidentifier` and `\w` refuse it. The bindings say once how to ask
//! ([`set_known`]), and only the characters that came after Unicode 14 are asked for. Without an interpreter all are
//! known.

use std::sync::OnceLock;

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory as _};

static KNOWN: OnceLock<fn(char) -> bool> = OnceLock::new();

/// Says how to ask whether the interpreter's Unicode has a character; the first who says it is listened to.
pub fn set_known(known: fn(char) -> bool) {
    let _ = KNOWN.set(known);
}

/// Whether the interpreter's Unicode has a character, for one that ours has.
pub(crate) fn is_known(c: char) -> bool {
    let code = u32::from(c);
    let at = LATER.partition_point(|(_, last)| *last < code);
    let later = LATER.get(at).is_some_and(|(first, _)| *first <= code);
    !later || KNOWN.get().is_none_or(|known| known(c))
}

/// Unicode's category of a character.
pub(crate) fn category(c: char) -> GeneralCategory {
    if is_known(c) {
        c.general_category()
    } else {
        GeneralCategory::Unassigned
    }
}

/// Whether an identifier may begin with a character.
pub(crate) fn is_xid_start(c: char) -> bool {
    c.is_ascii_alphabetic() || !c.is_ascii() && unicode_ident::is_xid_start(c) && is_known(c)
}

/// Whether a character may stand in an identifier.
pub(crate) fn is_xid_continue(c: char) -> bool {
    match c {
        // Unicode 15.1 let these into identifiers; it is the version that brought the second.
        '\u{200c}' | '\u{200d}' | '\u{30fb}' | '\u{ff65}' => is_known('\u{2ffc}'),
        _ if c.is_ascii() => c.is_ascii_alphanumeric() || c == '_',
        _ => unicode_ident::is_xid_continue(c) && is_known(c),
    }
}

/// The text with what a function makes of its characters that are known; others stay as they are.
pub(crate) fn of_known(text: &str, mut push: impl FnMut(&mut String, &str)) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let end = rest.find(|c| !is_known(c)).unwrap_or(rest.len());
        if end == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            push(&mut out, &rest[..end]);
            rest = &rest[end..];
        }
    }
    out
}

/// What Unicode has got since version 14, up to 18: first and last of each range.
#[rustfmt::skip]
const LATER: [(u32, u32); 139] = [
    (0x558, 0x558), (0x58b, 0x58c), (0x5c8, 0x5c9), (0x88f, 0x88f), (0x897, 0x897),
    (0xb53, 0xb54), (0xc5c, 0xc5c), (0xcdc, 0xcdc), (0xcf3, 0xcf3), (0xece, 0xece),
    (0x1acf, 0x1af0), (0x1b4e, 0x1b4f), (0x1b7f, 0x1b7f), (0x1c89, 0x1c8a), (0x208f, 0x208f),
    (0x209d, 0x209f), (0x20c1, 0x20c4), (0x2427, 0x2429), (0x2b96, 0x2b96), (0x2e60, 0x2e63),
    (0x2ffc, 0x2fff), (0x31e4, 0x31e5), (0x31ef, 0x31ef), (0xa7cb, 0xa7cf), (0xa7d2, 0xa7d2),
    (0xa7d4, 0xa7d4), (0xa7da, 0xa7dd), (0xa7e2, 0xa7e2), (0xa7f1, 0xa7f1), (0xab6c, 0xab6d),
    (0xfbc3, 0xfbd2), (0xfd90, 0xfd91), (0xfdc8, 0xfdce), (0x105c0, 0x105f3), (0x107bb, 0x107bf),
    (0x10940, 0x10959), (0x10d40, 0x10d65), (0x10d69, 0x10d85), (0x10d8e, 0x10d8f),
    (0x10ec2, 0x10ec7), (0x10ec9, 0x10eee), (0x10ef0, 0x10eff), (0x1123f, 0x11241),
    (0x11380, 0x11389), (0x1138b, 0x1138b), (0x1138e, 0x1138e), (0x11390, 0x113b5),
    (0x113b7, 0x113c0), (0x113c2, 0x113c2), (0x113c5, 0x113c5), (0x113c7, 0x113ca),
    (0x113cc, 0x113d5), (0x113d7, 0x113d8), (0x113e1, 0x113e2), (0x116d0, 0x116e3),
    (0x11b00, 0x11b0a), (0x11b60, 0x11b67), (0x11bc0, 0x11be1), (0x11bf0, 0x11bf9),
    (0x11db0, 0x11ddb), (0x11de0, 0x11de9), (0x11df0, 0x11df1), (0x11f00, 0x11f10),
    (0x11f12, 0x11f3a), (0x11f3e, 0x11f5a), (0x1246f, 0x1246f), (0x12475, 0x1247f),
    (0x12550, 0x12686), (0x1342f, 0x1342f), (0x13439, 0x13455), (0x13460, 0x143fa),
    (0x16100, 0x16139), (0x16d40, 0x16d79), (0x16ea0, 0x16eb8), (0x16ebb, 0x16ed3),
    (0x16ff2, 0x16ff6), (0x187f8, 0x187ff), (0x18cd6, 0x18cda), (0x18cff, 0x18cff),
    (0x18d09, 0x18d20), (0x18d80, 0x18df2), (0x18e00, 0x19191), (0x191a0, 0x191d2),
    (0x1b123, 0x1b128), (0x1b132, 0x1b132), (0x1b155, 0x1b155), (0x1b168, 0x1b168),
    (0x1cc00, 0x1ccfc), (0x1cd00, 0x1ceb3), (0x1ceba, 0x1ced0), (0x1ced2, 0x1ced4),
    (0x1cedd, 0x1cefd), (0x1d127, 0x1d128), (0x1d1eb, 0x1d1ff), (0x1d250, 0x1d281),
    (0x1d2c0, 0x1d2d3), (0x1d6a6, 0x1d6a6), (0x1db00, 0x1db1c), (0x1df1f, 0x1df81),
    (0x1df90, 0x1df96), (0x1dfcd, 0x1dfff), (0x1e030, 0x1e06d), (0x1e08f, 0x1e08f),
    (0x1e4d0, 0x1e4f9), (0x1e5d0, 0x1e5fa), (0x1e5ff, 0x1e5ff), (0x1e6c0, 0x1e6de),
    (0x1e6e0, 0x1e6f5), (0x1e6fe, 0x1e6ff), (0x1f1ae, 0x1f1ae), (0x1f6d8, 0x1f6d9),
    (0x1f6dc, 0x1f6dc), (0x1f774, 0x1f77f), (0x1f7d9, 0x1f7db), (0x1f7f1, 0x1f7ff),
    (0x1f8b2, 0x1f8bb), (0x1f8c0, 0x1f8c1), (0x1f8d0, 0x1f8d8), (0x1fa54, 0x1fa57),
    (0x1fa75, 0x1fa77), (0x1fa87, 0x1fa8f), (0x1faad, 0x1faaf), (0x1fabb, 0x1fabf),
    (0x1fac6, 0x1fac6), (0x1fac8, 0x1fac8), (0x1facc, 0x1facf), (0x1fada, 0x1fadd),
    (0x1fadf, 0x1fadf), (0x1fae8, 0x1faeb), (0x1faef, 0x1faef), (0x1faf7, 0x1fafa),
    (0x1fbcb, 0x1fbef), (0x1fbfa, 0x1fbfa), (0x2b739, 0x2b73f), (0x2b81e, 0x2b81e),
    (0x2cea2, 0x2cead), (0x2ebf0, 0x2ee5d), (0x31350, 0x33479), (0x3d000, 0x3fc3f),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_has_no_character_that_is_none() {
        assert!(LATER.iter().all(|(first, last)| first <= last));
        assert!(LATER.windows(2).all(|pair| pair[0].1 < pair[1].0));
        for (first, last) in LATER {
            for c in (first..=last).filter_map(char::from_u32) {
                assert_ne!(
                    c.general_category(),
                    GeneralCategory::Unassigned,
                    "{:x}",
                    u32::from(c)
                );
            }
        }
    }

    #[test]
    fn without_an_interpreter_all_characters_are_known() {
        assert!(is_known('\u{3d000}') && is_xid_start('\u{3d000}') && is_xid_continue('\u{30fb}'));
        assert_eq!(
            of_known("a\u{3d000}b", |out, text| out
                .push_str(&text.to_uppercase())),
            "A\u{3d000}B"
        );
    }
}
