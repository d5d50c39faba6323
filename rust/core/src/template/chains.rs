//! Expressions so long that reading them would use up the stack.
//!
//! The engine bounds how deep brackets and blocks nest. A chain, `----1` or `x.a.a.a` or `{% elif %}` after
//! `{% elif %}`, it reads without a bound, and what it makes of one nests as deep as the chain is long: some
//! 30,000 links end a process with eight mebibytes of stack, 1,000 a thread with a quarter of one. So chains are
//! counted before the engine sees them. The engine has no bound of its own to set for them.

use crate::signature::Span;

/// How many links there may be in one tag, and how many `elif` in one source.
pub(super) const MAX_OPERATORS: usize = 500;

/// Where the source has a tag with too many links, if it has one.
pub(super) fn too_long(source: &str) -> Option<Span> {
    let mut at = 0;
    let mut alternatives = 0;
    while let Some(start) = next_tag(source, at) {
        if source[start..].starts_with("{#") {
            at = end_of(source, start, "#}");
            continue;
        }
        let tag = Tag::read(source, start);
        alternatives += usize::from(tag.word == "elif");
        if tag.links > MAX_OPERATORS || alternatives > MAX_OPERATORS {
            return Some(Span {
                start,
                end: tag.end,
            });
        }
        at = match tag.word {
            "raw" => end_of(source, tag.end, "endraw"),
            _ => tag.end,
        };
    }
    None
}

/// Where the next tag or comment begins.
fn next_tag(source: &str, from: usize) -> Option<usize> {
    source[from..]
        .match_indices('{')
        .map(|(at, _)| from + at)
        .find(|at| matches!(source.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#')))
}

/// Behind the next `word`, or the end of the source.
fn end_of(source: &str, from: usize, word: &str) -> usize {
    source[from..]
        .find(word)
        .map_or(source.len(), |at| from + at + word.len())
}

/// A tag as far as it matters here.
struct Tag<'a> {
    /// Its first word.
    word: &'a str,
    links: usize,
    end: usize,
}

impl<'a> Tag<'a> {
    fn read(source: &'a str, start: usize) -> Self {
        let bytes = source.as_bytes();
        let mut tag = Tag {
            word: "",
            links: 0,
            end: source.len(),
        };
        // A sign that trims is none that negates, and one link more or less does not matter.
        let (mut at, mut braces) = (start + 2, 0_usize);
        while at < bytes.len() {
            match bytes[at] {
                quote @ (b'"' | b'\'') => at = end_of_string(bytes, at, quote),
                b'{' => braces += 1,
                b'}' if braces > 0 => braces -= 1,
                b'}' | b'%' if bytes.get(at + 1) == Some(&b'}') => {
                    tag.end = at + 2;
                    break;
                }
                b'-' | b'+' | b'*' | b'/' | b'~' | b'|' | b'.' | b'[' | b'(' | b'%' => {
                    tag.links += 1;
                }
                first if first == b'_' || first.is_ascii_alphabetic() => {
                    let rest = &source[at..];
                    let length = rest
                        .find(|c: char| c != '_' && !c.is_ascii_alphanumeric())
                        .unwrap_or(rest.len());
                    let word = &rest[..length];
                    if tag.word.is_empty() {
                        tag.word = word;
                    }
                    let joins = matches!(word, "not" | "and" | "or" | "is" | "if" | "in");
                    tag.links += usize::from(joins);
                    at += length - 1;
                }
                _ => {}
            }
            at += 1;
        }
        tag
    }
}

/// Where the string that begins at `at` has its closing quote, or the source its end.
fn end_of_string(bytes: &[u8], mut at: usize, quote: u8) -> usize {
    loop {
        at += 1;
        match bytes.get(at) {
            Some(b'\\') => at += 1,
            Some(&byte) if byte != quote => {}
            _ => return at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_OPERATORS, too_long};

    #[test]
    fn a_chain_is_found_wherever_it_stands_and_whatever_it_is_made_of() {
        for link in [
            "-",
            "not ",
            ".a",
            "|upper",
            "+1",
            "~1",
            "[0]",
            "()",
            " is x",
            " and x",
            "1 if x else ",
            "**1",
            "%1",
        ] {
            let chain = link.repeat(MAX_OPERATORS + 1);
            for source in [
                format!("{{{{ {chain} }}}}"),
                format!("é {{% set x = {chain} %}}"),
                format!("{{{{ {{'a': {{'b': '}}}}'}}}} {chain} }}}}"),
                format!("{{{{ \"}}}} \\\" \" {chain} }}}}"),
                format!("{{# {{% raw %}} #}}{{{{ {chain}"),
                format!("{{% raw %}} {{{{ x {{% endraw %}}{{{{ {chain} }}}}"),
            ] {
                assert!(too_long(&source).is_some(), "{}", &source[..40]);
            }
            let few = format!("{{{{ {} }}}}", link.repeat(MAX_OPERATORS / 2));
            assert_eq!(too_long(&few.repeat(3)), None, "{link}");
        }
        let alternatives = "{% elif x %}".repeat(MAX_OPERATORS + 1);
        assert!(too_long(&format!("{{% if x %}}{alternatives}{{% endif %}}")).is_some());
    }

    #[test]
    fn what_is_no_expression_is_not_counted() {
        let dots = ".-+ | not ".repeat(MAX_OPERATORS);
        for source in [
            dots.clone(),
            format!("{{# {dots} #}}"),
            format!("{{% raw %}} {{{{ {dots} }}}} {{% endraw %}}"),
            format!("{{{{ '{dots}' }}}} {dots}"),
            format!("{{{{ x }}}} {dots} {{{{"),
        ] {
            assert_eq!(too_long(&source), None, "{}", &source[..20]);
        }
    }
}
