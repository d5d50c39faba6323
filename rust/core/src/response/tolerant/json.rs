//! The texts between the fields' own keys, of a reply that is no JSON.

use std::fmt::Write as _;

use super::{Candidate, Strict};
use crate::response::read::{Host, HostJson, Kind, Reader, Repair, RepairCode, Step, Values};
use crate::response::strict;
use crate::response::value::Value;
use crate::text::{is_space, is_word, strip, strip_start};

impl<H: Host> Reader<'_, H> {
    /// Candidates for the outputs that DSPy does not read, and for one that DSPy reads together with another that must
    /// be there.
    pub(super) fn json_parts(
        &mut self,
        strict: &[Strict],
    ) -> Step<Vec<Vec<Candidate<H::Value>>>, H> {
        let mut candidates: Vec<_> = strict.iter().map(|_| Vec::new()).collect();
        let whole: Vec<Repair> = self
            .repairs
            .iter()
            .filter(|repair| repair.output.is_none())
            .cloned()
            .collect();
        for (output, raw) in std::mem::take(&mut self.refused) {
            candidates[output].push(Candidate::raw(raw, whole.clone()));
        }
        if self.is_json()? {
            return Ok(candidates);
        }
        let plan = self.plan;
        let names: Vec<&str> = plan.outputs.iter().map(|field| &*field.name).collect();
        let parts = between_keys(self.reply, &names);
        let mut before: Option<&Part<'_>> = None;
        for part in &parts {
            // Whether the text of this field went into the value that DSPy read for the one before.
            let swallowed = match before.map(|part| &self.values[part.output]) {
                Some(Some(value)) => {
                    let value = value.clone();
                    self.host
                        .values()
                        .display(&value)?
                        .contains(names[part.output])
                }
                _ => false,
            };
            if match strict[part.output] {
                Strict::Refused | Strict::Missing => true,
                Strict::Absent => !swallowed,
                Strict::Read => false,
            } {
                let found = self.candidate(part)?;
                candidates[part.output].extend(found);
            }
            if swallowed
                && strict[part.output] == Strict::Missing
                && let Some(before) = before
            {
                let found = self.candidate(before)?;
                candidates[before.output].extend(found);
            }
            before = Some(part);
        }
        Ok(candidates)
    }

    /// Whether the whole reply is JSON.
    fn is_json(&mut self) -> Step<bool, H> {
        if strict::parse(self.reply).is_some() {
            return Ok(true);
        }
        Ok(matches!(
            self.host.parse_json(self.reply)?,
            HostJson::Value(_)
        ))
    }

    fn candidate(&mut self, part: &Part<'_>) -> Step<Option<Candidate<H::Value>>, H> {
        let (raw, text) = match part.text {
            Text::Unknown => return Ok(None),
            Text::Bare(text) => (
                self.host.values().make(&Value::Str(text.into()))?,
                text.to_owned(),
            ),
            Text::Quoted(inside) => self.unescaped(inside)?,
        };
        let shown = format!("{}{text}", part.key);
        let repair = Repair::new(Some(part.output), RepairCode::JsonKeys, &shown);
        Ok(Some(Candidate::raw(raw, vec![repair])))
    }

    /// The text of a string whose quotes may not be escaped.
    fn unescaped(&mut self, inside: &str) -> Step<(H::Value, String), H> {
        if let Some(json) = quoted(inside) {
            if let Some(Value::Str(text)) = strict::parse(&json) {
                let text = text.into_owned();
                return Ok((self.host.values().make(&Value::Str((&*text).into()))?, text));
            }
            if let HostJson::Value(value) = self.host.parse_json(&json)?
                && let Kind::Text(text) = self.host.values().kind(&value)?
            {
                return Ok((value, text));
            }
        }
        let value = self.host.values().make(&Value::Str(inside.into()))?;
        Ok((value, inside.to_owned()))
    }
}

/// What stands behind the key of a field, up to that of another or the end.
#[derive(Debug, PartialEq, Eq)]
struct Part<'a> {
    output: usize,
    /// The key, its quotes and the colon.
    key: &'a str,
    text: Text<'a>,
}

#[derive(Debug, PartialEq, Eq)]
enum Text<'a> {
    Bare(&'a str),
    /// Between quotes.
    Quoted(&'a str),
    /// Nobody knows where it ends.
    Unknown,
}

/// The parts of a reply, in their order; none if a key is there more than once.
fn between_keys<'a>(reply: &'a str, names: &[&str]) -> Vec<Part<'a>> {
    let mut keys: Vec<(usize, usize, usize)> = Vec::new();
    for (output, name) in names.iter().enumerate() {
        for quote in ['"', '\''] {
            let key = format!("{quote}{name}{quote}");
            for (start, _) in reply.match_indices(&key) {
                let behind = &reply[start + key.len()..];
                let colon = strip_start(behind);
                if colon.starts_with(':') {
                    keys.push((start, reply.len() - colon.len() + 1, output));
                }
            }
        }
    }
    keys.sort_unstable();
    let mut seen = vec![false; names.len()];
    for (.., output) in &keys {
        if std::mem::replace(&mut seen[*output], true) {
            return Vec::new();
        }
    }
    let nexts = keys.iter().skip(1).map(|(start, ..)| Some(*start));
    let nexts = nexts.chain([None]);
    keys.iter()
        .zip(nexts)
        .map(|(&(start, end, output), next)| Part {
            output,
            key: &reply[start..end],
            text: text_of(&reply[end..next.unwrap_or(reply.len())], next.is_none()),
        })
        .collect()
}

/// The text of a value, of all that stands between its key and the next; or between the last key and the end.
fn text_of(between: &str, is_last: bool) -> Text<'_> {
    let without = |text: &'_ str, suffix: &str| -> usize {
        text.strip_suffix(suffix)
            .unwrap_or(text)
            .trim_end_matches(is_space)
            .len()
    };
    let mut text = strip(between);
    if is_last {
        text = &text[..without(text, "```")];
        text = &text[..without(text, "}")];
    }
    text = &text[..without(text, ",")];
    let Some(inside) = text.strip_prefix('"') else {
        return Text::Bare(text);
    };
    match inside.strip_suffix('"') {
        Some(inside) if !holds_other_key(inside) => Text::Quoted(inside),
        _ => Text::Unknown,
    }
}

/// Whether there is what looks like the end of a text and another key: then nobody knows where the text ends.
fn holds_other_key(text: &str) -> bool {
    /// What a key and the space around it may be long.
    const MOST: usize = 99;
    const MOST_SPACES: usize = 9;
    fn skip(text: &str, most: usize, is: impl Fn(char) -> bool) -> &str {
        let end = text.char_indices().take(most).find(|&(_, c)| !is(c));
        let end = end.map_or_else(
            || {
                text.char_indices()
                    .nth(most)
                    .map_or(text.len(), |(at, _)| at)
            },
            |(at, _)| at,
        );
        &text[end..]
    }
    let quote =
        |text: &'_ str| text.len() - text.strip_prefix(['"', '\'']).map_or(text.len(), str::len);
    let is_key = |behind: &str| {
        let rest = skip(behind, MOST_SPACES, |c| c == ' ');
        let Some(rest) = rest.strip_prefix(',') else {
            return false;
        };
        let rest = skip(rest, MOST, is_space);
        let rest = &rest[quote(rest)..];
        if !rest.starts_with(is_word) {
            return false;
        }
        let rest = skip(skip(rest, 1, is_word), MOST, |c| {
            is_word(c) || matches!(c, ' ' | '-')
        });
        let rest = &rest[quote(rest)..];
        skip(rest, MOST_SPACES, |c| c == ' ').starts_with(':')
    };
    text.match_indices(['"', '\''])
        .any(|(at, _)| is_key(&text[at + 1..]))
}

/// A text between quotes as a string of JSON, with its own quotes escaped where they are not; None if it cannot be one.
fn quoted(text: &str) -> Option<String> {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    let (mut before, mut escaped) = (' ', false);
    for c in text.chars() {
        match c {
            '"' if before != '\\' => json.push_str("\\\""),
            // A line break may stand in it as it is, but not behind a backslash.
            '\0'..='\x1f' if escaped => return None,
            '\0'..='\x1f' => {
                let _ = write!(json, "\\u{:04x}", u32::from(c));
            }
            c => json.push(c),
        }
        escaped = c == '\\' && !escaped;
        before = c;
    }
    json.push('"');
    Some(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts<'a>(reply: &'a str, names: &[&str]) -> Vec<Text<'a>> {
        let parts = between_keys(reply, names);
        parts.into_iter().map(|part| part.text).collect()
    }

    #[test]
    fn a_text_stands_between_its_key_and_the_next() {
        let found = texts(
            "{\"a\": \"he said \"no\"\", 'n' : [1, 2]}\n```",
            &["a", "n"],
        );
        assert_eq!(
            found,
            [Text::Quoted("he said \"no\""), Text::Bare("[1, 2]")]
        );
        assert_eq!(texts("{\"a\": 1, \"a\": 2}", &["a"]), []);
        assert_eq!(texts("{\"a\": \"x", &["a"]), [Text::Unknown]);
        assert_eq!(
            texts("{\"a\": \"x\", \"b\": \"y\"}", &["a"]),
            [Text::Unknown]
        );
    }

    #[test]
    fn quotes_inside_are_escaped_where_they_are_not() {
        assert_eq!(
            quoted("a \"b\" \\\"c\\\"\n").as_deref(),
            Some(r#""a \"b\" \"c\"\u000a""#)
        );
        assert_eq!(quoted("a\\\n"), None);
    }
}
