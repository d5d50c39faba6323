//! `str.casefold`.

use super::unicode::is_known;

/// The text without what sets upper and lower case apart.
///
/// Unicode's table of foldings is made of its tables of cases: of a character the lower case of the upper case of the
/// lower case, but for the two that follow.
#[must_use]
pub fn casefold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let mut folded = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if !is_known(c) => folded.push(c),
            // Of Cherokee the upper case came first.
            '\u{13a0}'..='\u{13fd}' | '\u{ab70}'..='\u{abbf}' => folded.extend(c.to_uppercase()),
            // The dotless i is another letter than the one its upper case has.
            'ı' => folded.push(c),
            c => {
                let upper = c.to_lowercase().flat_map(char::to_uppercase);
                folded.extend(upper.flat_map(char::to_lowercase));
            }
        }
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::casefold;

    #[test]
    fn cases_fold_as_in_python() {
        for (text, folded) in [
            ("Yes", "yes"),
            ("Straße", "strasse"),
            ("ΣΊΣΥΦΟΣ ς", "σίσυφοσ σ"),
            ("İ ı", "i\u{307} ı"),
            ("ﬁn", "fin"),
            ("Ꭰꭰ", "ᎠᎠ"),
            ("µ ſ", "μ s"),
        ] {
            assert_eq!(casefold(text), folded);
        }
    }
}
