//! Strict JSON, read straight into values.

use std::borrow::Cow;

use jiter::{Jiter, Peek};

use super::value::Value;

/// How deep lists and objects with something in them may stand in each other, as for `jiter`'s own values.
const MAX_DEPTH: usize = 200;

/// The value of a text that is JSON, with `NaN` and `Infinity` as Python writes them; None for any other text.
///
/// Texts and names are borrowed where nothing in them is escaped. Reading into `jiter`'s tree first, and making values
/// of that, took a quarter longer for rows.
pub(super) fn parse(text: &str) -> Option<Value<'_>> {
    let mut parser = Parser::new(text);
    let value = parser.next()?;
    parser.jiter.finish().ok()?;
    Some(value)
}

/// The value with which a text begins, and where it ends.
pub(super) fn parse_prefix(text: &str) -> Option<(Value<'_>, usize)> {
    let mut parser = Parser::new(text);
    let value = parser.next()?;
    Some((value, parser.jiter.current_index()))
}

struct Parser<'a> {
    jiter: Jiter<'a>,
    text: &'a str,
    depth: usize,
    /// The items of all lists that are open, those of the innermost last: each list is allocated once, at its size.
    items: Vec<Value<'a>>,
    /// The same, of objects.
    entries: Vec<(Cow<'a, str>, Value<'a>)>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            jiter: Jiter::new(text.as_bytes()).with_allow_inf_nan(),
            text,
            depth: 0,
            items: Vec::new(),
            entries: Vec::new(),
        }
    }

    fn next(&mut self) -> Option<Value<'a>> {
        let peek = self.jiter.peek().ok()?;
        self.value(peek)
    }

    fn value(&mut self, peek: Peek) -> Option<Value<'a>> {
        match peek {
            Peek::Array => self.list(),
            Peek::Object => self.map(),
            _ => Some(self.jiter.known_value(peek).ok()?.into()),
        }
    }

    fn list(&mut self) -> Option<Value<'a>> {
        let first = self.items.len();
        let mut next = self.jiter.known_array().ok()?;
        self.enter(next.is_some())?;
        while let Some(peek) = next {
            let item = self.value(peek)?;
            self.items.push(item);
            next = self.jiter.array_step().ok()?;
        }
        self.depth -= 1;
        Some(Value::List(self.items.drain(first..).collect()))
    }

    fn map(&mut self) -> Option<Value<'a>> {
        let first = self.entries.len();
        let text = self.text;
        let lent = |name: &str| lend(text, name);
        let mut next = self.jiter.known_object().ok()?.map(lent);
        self.enter(next.is_some())?;
        while let Some(name) = next {
            let value = self.next()?;
            self.entries.push((name, value));
            next = self.jiter.next_key().ok()?.map(lent);
        }
        self.depth -= 1;
        Some(Value::Map(self.entries.drain(first..).collect()))
    }

    /// Go into a list or an object; None if that is too deep. An empty one is as good as a number.
    fn enter(&mut self, is_filled: bool) -> Option<()> {
        self.depth += 1;
        (self.depth <= MAX_DEPTH || !is_filled).then_some(())
    }
}

/// `name` as a part of `text` if it stands there; a copy if it stands elsewhere, having been escaped.
fn lend<'a>(text: &'a str, name: &str) -> Cow<'a, str> {
    let start = name.as_ptr().addr().wrapping_sub(text.as_ptr().addr());
    let end = start.wrapping_add(name.len());
    match text.get(start..end) {
        Some(part) if start < text.len() => Cow::Borrowed(part),
        _ => Cow::Owned(name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use jiter::JsonValue;

    use super::*;

    /// What `jiter` makes of the text by its own tree.
    fn by_tree(text: &str) -> Option<Value<'_>> {
        JsonValue::parse(text.as_bytes(), true)
            .ok()
            .map(Value::from)
    }

    fn same(text: &str) {
        // NaN is not equal to itself.
        assert_eq!(
            format!("{:?}", parse(text)),
            format!("{:?}", by_tree(text)),
            "{text}"
        );
    }

    #[test]
    fn values_are_those_of_the_tree() {
        for text in [
            "",
            " ",
            "1",
            "-0",
            "1.5e3",
            "1e999",
            "9223372036854775807",
            "9223372036854775808",
            "-",
            "01",
            "NaN",
            "Infinity",
            "-Infinity",
            "nan",
            "true",
            "tru",
            "null",
            "\"a\"",
            "\"a",
            "\"\\u00e9\"",
            "\"\\ud83d\"",
            "\"\\ud83d\\ude00\"",
            "\"\t\"",
            "[]",
            "[ ]",
            "[1,]",
            "[,]",
            "[1 2]",
            "[1]2",
            "[1] ",
            "{}",
            "{\"a\":1}",
            "{\"a\":1,}",
            "{\"\":0}",
            "{\"\":{\"\":[]}}",
            "{\"a\":1,\"a\":2}",
            "{\"\\n\":1,\"b\":[{\"c\":\"\\t\"}]}",
            "{a:1}",
            "{\"a\" 1}",
            "{\"a\":}",
            "{1:2}",
            "[[1,[2,{\"x\":[3]}],4],{\"y\":{}}]",
            "{\"a\":[NaN,-Infinity]}",
            "\u{feff}1",
            "[\"é\",\"日本\",\"\u{1f600}\"]",
            "{\"é\":\"\\\"\"}",
        ] {
            same(text);
            for cut in (0..text.len()).filter(|&cut| text.is_char_boundary(cut)) {
                same(&text[..cut]);
                same(&text[cut..]);
            }
        }
    }

    #[test]
    fn the_depth_is_that_of_the_tree() {
        for depth in 195..206 {
            for (open, inner, close) in [
                ("[", "", "]"),
                ("[", "1", "]"),
                ("{\"a\":", "1", "}"),
                ("[[],", "{}", "]"),
            ] {
                same(&format!(
                    "{}{inner}{}",
                    open.repeat(depth),
                    close.repeat(depth)
                ));
            }
        }
    }

    #[test]
    fn what_is_not_escaped_is_borrowed() {
        let Some(Value::Map(entries)) = parse("{\"a\":\"b\",\"\\u0063\":1}") else {
            panic!("it is an object");
        };
        let [(a, Value::Str(b)), (c, _)] = &entries[..] else {
            panic!("it has two entries");
        };
        assert!(matches!(a, Cow::Borrowed("a")) && matches!(b, Cow::Borrowed("b")));
        assert!(matches!(c, Cow::Owned(c) if c == "c"));
    }

    #[test]
    fn a_prefix_ends_where_its_value_does() {
        assert_eq!(
            parse_prefix("[1] and"),
            Some((Value::List(vec![Value::Int(1)]), 3))
        );
        assert_eq!(parse_prefix("[1"), None);
    }
}
