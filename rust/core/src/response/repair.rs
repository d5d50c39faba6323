//! JSON that models break in the usual ways, made whole.
//!
//! Only breaks whose repair is beyond doubt, because `json_repair`, which DSPy asks, makes the same of them: text
//! around the value, a fence, a comma before a closing bracket, Python's names of constants, an end that is cut
//! off. Everything else is left to `json_repair` itself.

/// What stands open while a text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    List,
    Object,
}

/// What came last, outside of strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// An opening bracket.
    Opening,
    /// A comma, at this place in the output.
    Comma(usize),
    /// A key.
    Key,
    /// A colon.
    Colon,
    /// A whole value.
    Value,
}

/// `text` as strict JSON, if it is broken in one of the ways above.
///
/// ```
/// use dspex_core::response::repair;
///
/// assert_eq!(repair("So: [1, True,"), Some("[1, true]".into()));
/// assert_eq!(repair("{'a': 1}"), None);
/// ```
#[must_use]
pub fn repair(text: &str) -> Option<String> {
    let start = text.find(['{', '['])?;
    let before = &text[..start];
    if !is_prose(before.strip_suffix("```json\n").unwrap_or(before)) {
        return None;
    }
    let mut walk = Walk {
        out: String::with_capacity(text.len() - start + 8),
        open: Vec::new(),
        last: Last::Opening,
    };
    let mut rest = &text[start..];
    loop {
        rest = walk.step(rest)?;
        if walk.open.is_empty() {
            let after = rest.trim_start();
            return is_prose(after.strip_prefix("```").unwrap_or(after)).then_some(walk.out);
        }
        if rest.is_empty() {
            return walk.close_all();
        }
    }
}

/// Whether `json_repair` passes over a text: nothing in it opens a value, a comment or a fence.
fn is_prose(text: &str) -> bool {
    !text.contains(['{', '[', '(', '#', '/', '`', '}', ']', '"', '\''])
}

/// Whether `json_repair` keeps a string as it is: it strips those that end in white space, and stumbles over
/// backslashes and over quotes before what may end a value.
fn is_kept(inside: &str) -> bool {
    let ends_in_space = inside.ends_with(char::is_whitespace)
        || ["\\n", "\\t", "\\r"]
            .iter()
            .any(|space| inside.ends_with(space));
    let stumbles = inside.contains("\\\\")
        || inside.contains("\\\"") && inside.contains(',')
        || inside.contains('\\') && inside.contains([']', '}', ':']);
    !ends_in_space && !stumbles
}

struct Walk {
    out: String,
    open: Vec<Open>,
    last: Last,
}

impl Walk {
    /// Take the next token, and give what is behind it. None for what is no usual break.
    fn step<'a>(&mut self, text: &'a str) -> Option<&'a str> {
        let c = text.chars().next()?;
        match c {
            ' ' | '\t' | '\n' | '\r' => {
                let rest = text.trim_start_matches([' ', '\t', '\n', '\r']);
                self.out.push_str(&text[..text.len() - rest.len()]);
                return Some(rest);
            }
            '{' | '[' => {
                self.value()?;
                self.open
                    .push(if c == '{' { Open::Object } else { Open::List });
                self.last = Last::Opening;
            }
            '}' | ']' => {
                let open = self.open.pop()?;
                // `json_repair` drops what is empty from lists, at times.
                if self.last == Last::Opening && self.open.last() == Some(&Open::List) {
                    return None;
                }
                if (c == '}') != (open == Open::Object) {
                    return None;
                }
                match self.last {
                    Last::Comma(at) => {
                        self.out.remove(at);
                    }
                    Last::Opening | Last::Value => {}
                    Last::Key | Last::Colon => return None,
                }
                self.last = Last::Value;
            }
            ',' => {
                if self.last != Last::Value {
                    return None;
                }
                self.last = Last::Comma(self.out.len());
            }
            ':' => {
                if self.last != Last::Key {
                    return None;
                }
                self.last = Last::Colon;
            }
            '"' => return self.string(text),
            _ => return self.word(text),
        }
        self.out.push(c);
        Some(&text[1..])
    }

    /// Whether a value may come here; it is then the last.
    fn value(&mut self) -> Option<()> {
        let fits = match self.open.last() {
            None => true,
            Some(Open::List) => matches!(self.last, Last::Opening | Last::Comma(_)),
            Some(Open::Object) => self.last == Last::Colon,
        };
        fits.then(|| self.last = Last::Value)
    }

    fn string<'a>(&mut self, text: &'a str) -> Option<&'a str> {
        let is_key = self.open.last() == Some(&Open::Object) && self.last != Last::Colon;
        if is_key {
            if !matches!(self.last, Last::Opening | Last::Comma(_)) {
                return None;
            }
            self.last = Last::Key;
        } else {
            self.value()?;
        }
        let bytes = text.as_bytes();
        let mut at = 1;
        while at < bytes.len() {
            match bytes[at] {
                b'"' => {
                    let inside = &text[1..at];
                    let in_list = self.open.last() == Some(&Open::List);
                    if !is_kept(inside) || (inside.is_empty() && in_list) {
                        return None;
                    }
                    self.out.push_str(&text[..=at]);
                    return Some(&text[at + 1..]);
                }
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        // Cut off inside: what is there is the value.
        let inside = &text[1..];
        let doubtful = ['[', ']', '{', '}', ',', ':', '\'', '`', '\\'];
        if is_key || inside.is_empty() || inside.contains(doubtful) || !is_kept(inside) {
            return None;
        }
        self.out.push_str(text);
        self.out.push('"');
        Some("")
    }

    /// A number or a constant.
    fn word<'a>(&mut self, text: &'a str) -> Option<&'a str> {
        let end = text
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.')))
            .unwrap_or(text.len());
        let word = &text[..end];
        let json = match word {
            "True" => "true",
            "False" => "false",
            "None" => "null",
            "true" | "false" | "null" => word,
            _ if word.bytes().all(|b| b.is_ascii_digit()) => word,
            _ if end < text.len()
                && word.parse::<f64>().is_ok()
                && !word.contains(['n', 'N', 'i', 'I']) =>
            {
                word
            }
            _ => return None,
        };
        self.value()?;
        self.out.push_str(json);
        Some(&text[end..])
    }

    /// Close what is open at the end of a text that was cut off.
    fn close_all(mut self) -> Option<String> {
        match self.last {
            Last::Comma(at) => self.out.truncate(at),
            Last::Value => {}
            Last::Opening | Last::Key | Last::Colon => return None,
        }
        while let Some(open) = self.open.pop() {
            self.out.push(if open == Open::Object { '}' } else { ']' });
        }
        Some(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::repair;

    #[test]
    fn the_usual_breaks_are_made_whole() {
        let cases = [
            ("[1, 2,]", "[1, 2]"),
            ("{\"a\": [1, 2", "{\"a\": [1, 2]}"),
            ("{\"a\": \"cut o", "{\"a\": \"cut o\"}"),
            ("{\"a\": True, \"b\": None}", "{\"a\": true, \"b\": null}"),
            ("Here: [1] then", "[1]"),
            ("```json\n[1]\n```", "[1]"),
        ];
        for (broken, whole) in cases {
            assert_eq!(repair(broken).as_deref(), Some(whole), "{broken}");
        }
    }

    #[test]
    fn what_is_in_doubt_is_left_alone() {
        for text in [
            "",
            "x",
            "{'a': 1}",
            "{a: 1}",
            "[1 2]",
            "{\"a\"",
            "{\"a\":",
            "[1] [2]",
            "[1]]",
            "[01x]",
            "{\"a\" 1}",
        ] {
            assert_eq!(repair(text), None, "{text}");
        }
    }
}
