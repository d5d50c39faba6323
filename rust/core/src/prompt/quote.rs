//! Lists of texts, as DSPy quotes them.

/// Append one text between guillemets; a text of several lines, or with guillemets of its own, becomes an
/// indented block.
fn push_quote(out: &mut String, text: &str) {
    if !text.contains(['\n', '«', '»']) {
        out.push('«');
        out.push_str(text);
        out.push('»');
        return;
    }
    out.push_str("«««\n    ");
    for (at, line) in text.split('\n').enumerate() {
        if at > 0 {
            out.push_str("\n    ");
        }
        out.push_str(line);
    }
    out.push_str("\n»»»");
}

/// Append `texts`: numbered where there are several, `N/A` where there is none.
///
/// ```
/// use dspex_core::prompt::push_quotes;
///
/// let mut out = String::new();
/// push_quotes(&mut out, &["one", "two\nlines"]);
/// assert_eq!(out, "[1] «one»\n[2] «««\n    two\n    lines\n»»»");
/// ```
pub fn push_quotes<T: AsRef<str>>(out: &mut String, texts: &[T]) {
    use std::fmt::Write as _;

    match texts {
        [] => out.push_str("N/A"),
        [only] => push_quote(out, only.as_ref()),
        _ => {
            for (at, text) in texts.iter().enumerate() {
                if at > 0 {
                    out.push('\n');
                }
                _ = write!(out, "[{}] ", at + 1);
                push_quote(out, text.as_ref());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::push_quotes;

    #[test]
    fn short_lists_have_no_numbers() {
        let text = |texts: &[&str]| {
            let mut out = String::new();
            push_quotes(&mut out, texts);
            out
        };
        assert_eq!(text(&[]), "N/A");
        assert_eq!(text(&["one"]), "«one»");
        assert_eq!(text(&["«a»"]), "«««\n    «a»\n»»»");
        assert_eq!(text(&["", "\n"]), "[1] «»\n[2] «««\n    \n    \n»»»");
    }
}
