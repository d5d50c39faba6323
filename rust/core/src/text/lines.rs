//! `str.strip` and `str.splitlines`.

/// Whether Python's `str.strip()` takes `c` away: Unicode white space and the four ASCII separators.
#[must_use]
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// `text.strip()`.
#[must_use]
pub fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `text.lstrip()`.
#[must_use]
pub fn strip_start(text: &str) -> &str {
    text.trim_start_matches(is_space)
}

/// Whether `c` ends a line for Python.
#[must_use]
pub fn is_break(c: char) -> bool {
    matches!(
        c,
        '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

/// Whether `text` holds a line break other than `\n`.
#[must_use]
pub fn has_exotic_breaks(text: &str) -> bool {
    // Every such break starts with one of these bytes, and ordinary prose has few of them: the loop over
    // bytes decides nearly always, and vectorises.
    let suspicious = text
        .bytes()
        .any(|b| matches!(b, 0x0b..=0x0d | 0x1c..=0x1e | 0xc2 | 0xe2));
    suspicious && text.chars().any(|c| c != '\n' && is_break(c))
}

/// `text.splitlines()`: the lines without their breaks; `\r\n` is one break, and a break at the very end
/// opens no further line.
pub fn splitlines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some((at, found)) = rest.char_indices().find(|&(_, c)| is_break(c)) else {
            return Some(std::mem::take(&mut rest));
        };
        let line = &rest[..at];
        rest = &rest[at + found.len_utf8()..];
        if found == '\r' {
            rest = rest.strip_prefix('\n').unwrap_or(rest);
        }
        Some(line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_break_of_python_splits() {
        let breaks = [
            "\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\u{85}", "\u{2028}",
            "\u{2029}",
        ];
        for sep in breaks {
            let text = format!("a{sep}b");
            assert_eq!(splitlines(&text).collect::<Vec<_>>(), ["a", "b"], "{sep:?}");
            assert_eq!(has_exotic_breaks(&text), sep != "\n", "{sep:?}");
        }
        assert!(!has_exotic_breaks("é “quoted” \x1f\t"));
    }

    #[test]
    fn a_break_at_the_end_opens_no_line() {
        let lines = |text| splitlines(text).collect::<Vec<_>>();
        assert_eq!(lines(""), Vec::<&str>::new());
        assert_eq!(lines("\n"), [""]);
        assert_eq!(lines("a\n\nb\n"), ["a", "", "b"]);
        assert_eq!(lines("\r\n\r"), ["", ""]);
        assert_eq!(lines("a\n\rb"), ["a", "", "b"]);
    }

    #[test]
    fn strip_takes_the_ascii_separators_too() {
        assert_eq!(strip("\x1f\u{a0}\u{3000} a b \x1c\n"), "a b");
        assert_eq!(strip("\u{200b}a"), "\u{200b}a");
        assert_eq!(strip_start("\x1d a "), "a ");
    }
}
