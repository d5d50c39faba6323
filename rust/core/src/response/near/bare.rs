//! A text without what models put around a value.

use crate::response::read::RepairCode;
use crate::text::{is_decimal, is_word, strip};

/// The text without the fence around it, and without what decorates it, each if there is any.
pub fn bare(text: &str) -> impl Iterator<Item = (RepairCode, &str)> {
    let fenced = inside_fence(strip(text)).map(strip);
    let text = fenced.unwrap_or(text);
    let inside = undecorated(text);
    let decorated = (inside.len() < text.len()).then_some((RepairCode::Decoration, inside));
    let fenced = fenced.map(|text| (RepairCode::Fence, text));
    fenced.into_iter().chain(decorated)
}

/// What is between the lines of a fence.
fn inside_fence(text: &str) -> Option<&str> {
    let behind = text.strip_prefix("```")?;
    let language = behind.find(['\n', '`']).unwrap_or(behind.len());
    let inside = &behind[language..];
    let inside = inside.strip_prefix('\n').unwrap_or(inside);
    let inside = inside.strip_suffix("```")?;
    Some(inside.strip_suffix('\n').unwrap_or(inside))
}

/// The text without emphasis, quotes, the full stop of a sentence, and white space around all that.
fn undecorated(text: &str) -> &str {
    let mut inside = strip(text);
    loop {
        let before = inside.len();
        for mark in ["**", "__", "`", "\"", "'", "*", "_"] {
            if inside.len() > 2 * mark.len()
                && let Some(rest) = inside.strip_prefix(mark)
                && let Some(rest) = rest.strip_suffix(mark)
            {
                inside = strip(rest);
            }
        }
        // A full stop ends a sentence, not a number.
        if let Some(rest) = inside.strip_suffix(['.', '!'])
            && rest.ends_with(is_letter)
        {
            inside = rest;
        }
        if let Some(rest) = inside.strip_suffix('.')
            && rest.ends_with(is_decimal)
        {
            inside = rest;
        }
        if inside.len() == before {
            return inside;
        }
    }
}

fn is_letter(c: char) -> bool {
    is_word(c) && !is_decimal(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<&str> {
        bare(text).map(|(_, text)| text).collect()
    }

    #[test]
    fn fences_and_decoration_are_taken_off() {
        assert_eq!(texts("yes"), [""; 0]);
        assert_eq!(texts("```json\n[1]\n```"), ["[1]"]);
        assert_eq!(texts(" ```\n**yes**\n``` "), ["**yes**", "yes"]);
        assert_eq!(texts("```yes```"), [""]);
        for text in ["**yes**", "\"yes\"", "'yes.'", "yes!", "_`yes`_", " yes\n"] {
            assert_eq!(texts(text), ["yes"], "{text}");
        }
        assert_eq!(texts("42."), ["42"]);
        assert_eq!(texts("4.5"), [""; 0]);
        assert_eq!(texts("**"), [""; 0]);
    }
}
