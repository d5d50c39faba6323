//! A choice or a boolean in other words.

use crate::text::{casefold, is_word};

/// The names of True, which is at 0, and of False.
pub(super) const BOOLEANS: [(&str, usize); 4] = [("true", 0), ("false", 1), ("yes", 0), ("no", 1)];

/// The choice that a text says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// This one, but for the case.
    One(usize),
    /// Several are that but for the case, or are named in it.
    Several(Vec<usize>),
    Nothing,
}

/// The choice that a text is but for the case. One that is only named in it does not count, but several tell that the
/// text may be any of them.
pub(super) fn find(text: &str, names: &[(&str, usize)]) -> Said {
    let text = casefold(text);
    let names: Vec<(String, usize)> = names
        .iter()
        .map(|(name, at)| (casefold(name), *at))
        .collect();
    let places = |is: &dyn Fn(&str) -> bool| {
        let mut places: Vec<usize> = Vec::new();
        for (_, at) in names.iter().filter(|(name, _)| is(name)) {
            if !places.contains(at) {
                places.push(*at);
            }
        }
        places
    };
    let exact = places(&|name| name == text);
    if let [only] = *exact {
        return Said::One(only);
    }
    let meant = if exact.is_empty() {
        places(&|name| holds(&text, name))
    } else {
        exact
    };
    if meant.len() > 1 {
        Said::Several(meant)
    } else {
        Said::Nothing
    }
}

/// Whether `word` stands in a text, with no letter or digit beside it.
fn holds(text: &str, word: &str) -> bool {
    let mut before = None;
    let starts = text.char_indices().map(|(at, c)| (at, Some(c)));
    for (at, c) in starts.chain([(text.len(), None)]) {
        if !before.is_some_and(is_word)
            && let Some(behind) = text[at..].strip_prefix(word)
            && !behind.starts_with(is_word)
        {
            return true;
        }
        before = c;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_found_by_its_name_whatever_the_case() {
        let names = [("Yes", 0), ("no", 1), ("no way", 2), ("n/a", 3)];
        for (text, said) in [
            ("YES", Said::One(0)),
            ("yes, of course", Said::Nothing),
            ("No", Said::One(1)),
            ("no way!", Said::Several(vec![1, 2])),
            ("NO WAY", Said::One(2)),
            ("N/A", Said::One(3)),
            ("yes or no", Said::Several(vec![0, 1])),
            ("yesterday, nobody", Said::Nothing),
        ] {
            assert_eq!(find(text, &names), said, "{text}");
        }
        assert_eq!(find("straße", &[("STRASSE", 0)]), Said::One(0));
    }
}
