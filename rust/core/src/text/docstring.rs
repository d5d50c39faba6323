//! `inspect.cleandoc` and `textwrap.dedent`.

use super::lines::strip_start;

/// `inspect.cleandoc(text)`: tabs become spaces to columns of eight, the first line loses its indentation,
/// the others what they have in common, and blank lines go from both ends.
#[must_use]
pub fn cleandoc(text: &str) -> String {
    let expanded = expand_tabs(text);
    let mut lines: Vec<&str> = expanded.split('\n').collect();
    let indent = |line: &&str| {
        let content = strip_start(line);
        (!content.is_empty()).then(|| line.chars().count() - content.chars().count())
    };
    let margin = lines[1..].iter().filter_map(indent).min();
    lines[0] = strip_start(lines[0]);
    if let Some(margin) = margin {
        for line in &mut lines[1..] {
            *line = after_chars(line, margin);
        }
    }
    let start = lines
        .iter()
        .position(|line| !line.is_empty())
        .unwrap_or(lines.len());
    let end = lines
        .iter()
        .rposition(|line| !line.is_empty())
        .map_or(start, |at| at + 1);
    lines[start..end].join("\n")
}

/// `textwrap.dedent(text)`: the spaces and tabs that all lines begin with go away, and lines of nothing else
/// become empty.
#[must_use]
pub fn dedent(text: &str) -> String {
    let lines: Vec<&str> = text
        .split('\n')
        .map(|line| {
            if line.trim_matches([' ', '\t']).is_empty() {
                ""
            } else {
                line
            }
        })
        .collect();
    let margin = lines
        .iter()
        .filter(|line| !line.is_empty())
        .map(|line| &line[..line.len() - line.trim_start_matches([' ', '\t']).len()])
        .reduce(common_prefix)
        .unwrap_or_default();
    let cut: Vec<&str> = lines
        .iter()
        .map(|line| line.strip_prefix(margin).unwrap_or(line))
        .collect();
    cut.join("\n")
}

fn expand_tabs(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut column = 0;
    for c in text.chars() {
        match c {
            '\t' => {
                let width = 8 - column % 8;
                out.extend(std::iter::repeat_n(' ', width));
                column += width;
            }
            '\n' | '\r' => {
                out.push(c);
                column = 0;
            }
            _ => {
                out.push(c);
                column += 1;
            }
        }
    }
    out
}

fn after_chars(line: &str, count: usize) -> &str {
    line.char_indices()
        .nth(count)
        .map_or("", |(at, _)| &line[at..])
}

/// The longest common beginning of two runs of spaces and tabs.
fn common_prefix<'a>(a: &'a str, b: &'a str) -> &'a str {
    let len = a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count();
    &a[..len]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleandoc_removes_the_common_margin() {
        assert_eq!(
            cleandoc("  First.\n\n    Second\n      third\n    "),
            "First.\n\nSecond\n  third"
        );
        assert_eq!(cleandoc("\n\tA\n\t  B\n"), "A\n  B");
        assert_eq!(cleandoc("   "), "");
        assert_eq!(cleandoc(""), "");
        assert_eq!(cleandoc("a\tb\r\tc"), "a       b\r        c");
    }

    #[test]
    fn cleandoc_keeps_blank_lines_that_hold_spaces_at_the_end() {
        // The margin is cut from them, what is left stays: Python drops only lines that are then empty.
        assert_eq!(cleandoc("a\n  b\n     "), "a\nb\n   ");
    }

    #[test]
    fn dedent_empties_blank_lines_and_cuts_what_all_share() {
        assert_eq!(dedent("  a\n   b\n \t \n  c"), "a\n b\n\nc");
        assert_eq!(dedent("\ta\n b"), "\ta\n b");
        assert_eq!(dedent(" \ta\n \tb"), "a\nb");
        assert_eq!(dedent("a\n  b"), "a\n  b");
        assert_eq!(dedent("   "), "");
    }
}
