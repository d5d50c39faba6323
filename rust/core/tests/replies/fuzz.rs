//! Any reply, in any pieces: no panic, no hang, no more memory than the reply is worth; and what is emitted while
//! it comes in is what it says when it is whole.

use std::fs;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use dspex_core::prompt::Layout;
use dspex_core::response::stream::{Event, ReplyStream, xml_elements, xml_text};
use dspex_core::response::{Parsing, Source, Value, budget, guess, read};
use dspex_core::signature::{Field, FieldDefault};
use jiter::JsonValue;

use super::fuzzing::{Random, run};
use super::host::{Answer, Double, Judgement, plan};
use super::{corpus, outputs, texts};

/// Outputs of which the first must be there.
static OUTPUTS: LazyLock<Vec<Field>> = LazyLock::new(|| {
    let mut fields = outputs(
        "q -> a, b: Optional[str], n: int, f: float, t: bool, c: Literal['yes', 'no'], l: list[str], \
         d: dict[str, list[int]], o: Optional[list[float]], x: Any",
    );
    for field in &mut fields[1..] {
        field.default = FieldDefault::Value;
    }
    fields
});
/// The same, of which none must be there.
static OPTIONAL: LazyLock<Vec<Field>> = LazyLock::new(|| {
    let mut fields = OUTPUTS.clone();
    fields[0].default = FieldDefault::Value;
    fields
});
const TEXTS: [&str; 2] = ["a", "b"];
const LAYOUTS: [Layout; 3] = [Layout::Chat, Layout::Json, Layout::Xml];

/// Whether a reply is one JSON object that has no field twice: of others the stream knows less than the whole.
fn is_plain_json(reply: &str) -> bool {
    let Ok(JsonValue::Object(entries)) = JsonValue::parse(reply.as_bytes(), true) else {
        return false;
    };
    let count = |field: &Field| {
        entries
            .iter()
            .filter(|(name, _)| *name == *field.name)
            .count()
    };
    OUTPUTS.iter().all(|field| count(field) < 2)
}

/// The texts of the text fields, as a reply that is whole has them; None where only Python can read it.
fn whole(
    layout: Layout,
    outputs: &[Field],
    parsing: Parsing,
    reply: &str,
) -> Option<Vec<(usize, String)>> {
    if layout == Layout::Json && !is_plain_json(reply) {
        return None;
    }
    let mut host = Double::new(outputs, Judgement::Defer);
    let found = read(
        plan(layout, outputs, parsing),
        Source::Text(reply),
        &mut host,
    )
    .ok()?;
    let mut texts = Vec::new();
    for (at, value) in found.values.into_iter().enumerate() {
        match value {
            _ if !TEXTS.contains(&&*OUTPUTS[at].name) => {}
            Some(Answer::Known(Value::Str(text))) => texts.push((at, text.into_owned())),
            // An element without a text.
            Some(Answer::Known(Value::None)) => texts.push((at, String::new())),
            Some(_) => return None,
            None => {}
        }
    }
    Some(texts)
}

/// What reading a reply must not break: any parsing, and a host that refuses all it is asked for.
fn survive(layout: Layout, reply: &str) {
    for parsing in [Parsing::Strict, Parsing::Tolerant] {
        for judgement in [Judgement::Defer, Judgement::Refuse] {
            let mut host = Double::new(&OUTPUTS, judgement);
            let _ = read(
                plan(layout, &OUTPUTS, parsing),
                Source::Text(reply),
                &mut host,
            );
        }
    }
    if layout == Layout::Json {
        let chars: Vec<u32> = reply.chars().map(u32::from).collect();
        let most = budget(chars.len());
        assert!(guess(chars).1 <= most);
    }
}

/// All events of a reply in pieces, the texts of a field put together, and of its values the last.
fn emitted<'a>(
    layout: Layout,
    tolerant: bool,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<Event>, String> {
    let names: Vec<(&str, bool)> = OUTPUTS
        .iter()
        .map(|field| (&*field.name, TEXTS.contains(&&*field.name)))
        .collect();
    let mut stream = ReplyStream::new(layout, &names, tolerant);
    let mut all: Vec<Event> = Vec::new();
    let mut add = |events: Vec<Event>| {
        for event in events {
            match (all.last_mut(), &event) {
                (
                    Some(Event::Text {
                        field,
                        text,
                        is_last,
                    }),
                    Event::Text {
                        field: now,
                        text: more,
                        is_last: ends,
                    },
                ) if field == now && !*is_last => {
                    text.push_str(more);
                    *is_last = *ends;
                }
                (
                    Some(Event::Value {
                        field,
                        text,
                        is_last,
                    }),
                    Event::Value {
                        field: now,
                        text: more,
                        is_last: ends,
                    },
                ) if field == now && !*is_last => {
                    text.clone_from(more);
                    *is_last = *ends;
                }
                _ => all.push(event),
            }
        }
    };
    let mut fed = 0;
    for piece in pieces {
        fed += piece.len();
        add(stream.feed(piece));
    }
    add(stream.finish());
    let size: usize = all
        .iter()
        .map(|event| match event {
            Event::Text { text, .. } | Event::Value { text, .. } => text.len(),
            Event::Start { .. } | Event::End { .. } => 0,
        })
        .sum();
    // A byte that is no UTF-8 counts as three.
    if size > 3 * fed || all.len() > 4 * OUTPUTS.len() {
        return Err(format!(
            "{size} bytes in {} events come of {fed}",
            all.len()
        ));
    }
    Ok(all)
}

/// What is emitted of a text must be the beginning of what tolerance reads in the end, where DSPy finds none: another
/// marker that DSPy finds counts, wherever it stands.
fn begins(events: &[Event], reply: &str, strict: Option<&[(usize, String)]>) -> Result<(), String> {
    let is_strict = |at: usize| strict.is_none_or(|found| found.iter().any(|(of, _)| *of == at));
    for outputs in [&*OUTPUTS, &*OPTIONAL] {
        let texts = whole(Layout::Chat, outputs, Parsing::Tolerant, reply);
        for (at, text) in texts
            .into_iter()
            .flatten()
            .filter(|(at, _)| !is_strict(*at))
        {
            let emitted = events.iter().find_map(|event| match event {
                Event::Text {
                    field,
                    text,
                    is_last: true,
                } if *field == at => Some(&**text),
                _ => None,
            });
            if !text.starts_with(emitted.unwrap_or_default()) {
                return Err(format!("emits {emitted:?} of what is {text:?}"));
            }
        }
    }
    Ok(())
}

fn check(reply: &str) -> Result<(), String> {
    let bytes = reply.as_bytes();
    let mut random = Random::new(bytes.len() as u64);
    for layout in LAYOUTS {
        survive(layout, reply);
        let expected = whole(layout, &OPTIONAL, Parsing::Strict, reply);
        for tolerant in [false, true] {
            let at_once = emitted(layout, tolerant, std::iter::once(bytes))?;
            let mut rest = bytes;
            let cuts = std::iter::from_fn(|| {
                let (piece, after) = rest.split_at(rest.len().min(1 + random.below(7)));
                rest = after;
                (!piece.is_empty()).then_some(piece)
            });
            let in_pieces = emitted(layout, tolerant, cuts)?;
            if at_once != in_pieces {
                return Err(format!(
                    "{layout:?} emits {at_once:?} at once and {in_pieces:?} in pieces"
                ));
            }
            if tolerant && layout == Layout::Chat {
                begins(&at_once, reply, expected.as_deref())?;
                continue;
            }
            for (at, text) in expected.iter().flatten() {
                let texts = at_once.iter().filter_map(|event| match event {
                    Event::Text {
                        field,
                        text,
                        is_last: true,
                    } if field == at => Some(&**text),
                    _ => None,
                });
                let texts = texts.collect::<String>();
                let ended = at_once.contains(&Event::Start { field: *at })
                    && at_once
                        .iter()
                        .any(|event| matches!(event, Event::End { field, .. } if field == at));
                if texts != *text || !ended {
                    return Err(format!(
                        "{layout:?} emits {texts:?} of `{}`, which is {text:?}",
                        OUTPUTS[*at].name
                    ));
                }
            }
        }
    }
    Ok(())
}

const PIECES: &[&str] = &[
    "[[ ## a ## ]]\n",
    "[[ ## n ## ]]",
    "**",
    "# ",
    "1. ",
    "[[ ## completed ## ]]",
    "  [[ ## b ## ]] ",
    "[[ ## ",
    " ## ]]",
    "[[",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "'",
    "\\",
    "\\\"",
    "\\u00e9",
    "\\ud83d",
    "\\ude00",
    ",",
    ":",
    "\"a\": \"",
    "\"l\": [",
    "\"d\": {\"k\": [1]}",
    "{\"a\": \"x\", ",
    "```json\n",
    "```",
    "//",
    "/*",
    "*/",
    "#",
    "(",
    "True",
    "null",
    "-1e5",
    "NaN",
    "<a>",
    "</a>",
    "<l><item>",
    "</item></l>",
    "<b/>",
    "<entry key=\"k\">",
    "&amp;",
    "&#x41;",
    "&",
    "<",
    ">",
    "<!--",
    "-->",
    "<![CDATA[",
    "]]>",
    "<?x?>",
    "\r\n",
    "\u{2028}",
    "\u{85}",
    "\u{1f}",
    "\u{a0}",
    "\0",
    "é",
    "😀",
    "\n\n",
    " ",
];

/// Whole replies in every layout, and values in each.
fn seeds() -> Vec<String> {
    let mut seeds = vec![
        "[[ ## a ## ]]\nsome text\n\n[[ ## n ## ]]\n3\n\n[[ ## l ## ]]\n[\"x\", \"y\"]\n\n[[ ## completed ## ]]".to_owned(),
        r#"{"a": "some \"text\"\n", "n": 3, "l": ["x", "y"], "d": {"k": [1, 2]}, "x": null}"#.to_owned(),
        "<a>\nsome &lt;text\n</a>\n<n>3</n>\n<l><item>x</item><item>y</item></l>\n<d><k>1</k></d>".to_owned(),
    ];
    for part in ["values.json", "typed.json", "broken_json.json"] {
        for text in texts(part) {
            seeds.push(format!("[[ ## l ## ]]\n{text}\n\n[[ ## a ## ]]\n{text}"));
            seeds.push(format!("{{\"x\": {text}, \"a\": \"{text}\"}}"));
            seeds.push(format!("<d>{text}</d>\n<a>\n{text}\n</a>"));
        }
    }
    // Lines, because half of a surrogate pair in one is more than this parser takes.
    let replies = fs::read_to_string(corpus("replies.json")).unwrap();
    for line in replies.lines() {
        if let Ok(JsonValue::Object(row)) =
            JsonValue::parse(line.trim_end_matches(',').as_bytes(), false)
            && let Some((_, JsonValue::Str(reply))) = row.iter().find(|(key, _)| key == "reply")
        {
            seeds.push(reply.to_string());
        }
    }
    seeds
}

#[test]
fn no_reply_breaks_the_readers() {
    run(&corpus("fuzz"), seeds(), PIECES, check, None);
}

/// Replies that make work for a reader that looks twice at what it has seen: a start, and what follows it again
/// and again.
const HOSTILE: &[(&str, &str)] = &[
    ("", "[[ ## a ## ]]\n"),
    ("", "[[ ## a ## ]]"),
    ("[[ ## ", "a"),
    ("", "[[ ## "),
    ("", "["),
    ("[[ ## a ## ]]\n", " "),
    ("[[ ## a ## ]]\n", "\n "),
    ("[[ ## a ## ]]\n", "- "),
    ("[[ ## a ## ]]\n", "1"),
    ("**[[ ## a ## ]]**", "x"),
    ("", "**[[ ## a ## ]]**\n"),
    ("", "**[[ ## a ## ]]**"),
    ("  ", "[[ ## a ## ]] "),
    ("[[ ## a ## ]] ", "[[ ## b ## ]] "),
    ("[[ ## a ## ]] ", "[[ ## completed ## ]] "),
    ("[[ ## a ## ]] [[ ## b ## ]] ", "x "),
    ("[[ ## a ## ]]\n", "[[ ## a"),
    ("[[ ## a ## ]]\n", "**"),
    ("**[[ ## a ## ]]\n", "**x"),
    ("**[[ ## l ## ]]\n[", "\n**[[ ## n ## ]]"),
    ("[[ ## a ## ]]\n", "\n1. "),
    ("[[ ## l ## ]]\n", "["),
    ("[[ ## l ## ]]\n", "[\"a, "),
    ("[[ ## l ## ]]\n[\"", "a, "),
    ("[[ ## l ## ]]\n", "\r"),
    ("{\"x\": ", "["),
    ("{\"x\": ", "{\"a\":"),
    ("{\"x\": [", "[],"),
    ("{\"a\": \"", "x, "),
    ("{\"a\": '", "x, "),
    ("{\"a\": \"", "\\"),
    ("{\"a\": \"", "\\u0041"),
    ("{", "\"a\": 1, "),
    ("{", "'a': 'x, y', "),
    ("{", "a: 1, "),
    ("{\"d\": {", "'k': {x}, "),
    ("{\"a\": ", "\"x\" "),
    ("{\"a\": ", "// x\n"),
    ("{\"a\": ", "/*"),
    ("", "/*"),
    ("", "# {\n"),
    ("", "("),
    ("", "{"),
    ("", "}"),
    ("```json\n", "{}"),
    ("", "<a>"),
    ("", "</a>"),
    ("", "<"),
    ("<", "a"),
    ("<a>", "&"),
    ("<a>&", "a"),
    ("<a>&#", "1"),
    ("<d>", "<k>"),
    ("<l>", "<item>1</item>"),
    ("<d>", "<k>1</k>"),
    ("<a", " b=\"\""),
    ("<a>", "<!--"),
    ("<a>", "]]>"),
    ("<a>", "<![CDATA["),
    ("<a>", "<b>"),
    ("", "<a>x</a> & "),
];

/// Replies that make work in other ways: of this size in some sense.
fn made(size: usize) -> Vec<String> {
    let nested: String = "<k>".repeat(size / 8) + &"</z>".repeat(size / 8);
    let many = (0..size / 12).map(|i| format!("\"k{i}\": {i}, "));
    let many = many.collect::<Vec<_>>().concat();
    let tags = (0..size / 12).map(|i| format!("<k{i}>1</k{i}>"));
    let tags = tags.collect::<Vec<_>>().concat();
    let attributes = (0..size / 12).map(|i| format!(" k{i}=''"));
    let attributes = attributes.collect::<Vec<_>>().concat();
    let repeated = HOSTILE
        .iter()
        .map(|(start, again)| format!("{start}{}", again.repeat(size / again.len())));
    repeated
        .chain([
            nested,
            format!("{{\"d\": {{{many}}}}}"),
            format!("{{\"d\": {{{}}}}}", many.replace('"', "'")),
            format!("{{\"d\": {{{}", many.replace('"', "")),
            format!("<d>{tags}</d>"),
            format!("<a{attributes}>x</a>"),
        ])
        .collect()
}

/// The processor time of this thread, which others on the machine do not lengthen; where the system does not tell
/// it, the time that has passed since `start`.
fn spent(start: Instant) -> Duration {
    let told = fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = told.and_then(|told| told.split(' ').next()?.parse().ok());
    nanoseconds.map_or_else(|| start.elapsed(), Duration::from_nanos)
}

/// What a reply costs, the least of a few times: whole and in pieces, in every layout.
fn cost(reply: &str) -> Duration {
    let start = Instant::now();
    let once = || {
        let before = spent(start);
        for layout in LAYOUTS {
            survive(layout, reply);
            for tolerant in [false, true] {
                emitted(layout, tolerant, reply.as_bytes().chunks(40)).unwrap();
            }
        }
        let _ = (xml_elements(reply), xml_text(reply));
        spent(start).saturating_sub(before)
    };
    (0..3).map(|_| once()).min().unwrap_or_default()
}

/// What grows with the square costs 256 times as much for sixteen times the size. The clock counts in milliseconds.
#[test]
fn hostile_replies_take_no_more_than_they_are_worth() {
    const SIZE: usize = 10_000;
    let mut costly = Vec::new();
    for (small, large) in made(SIZE).into_iter().zip(made(16 * SIZE)) {
        let is_linear = || cost(&large) < 64 * cost(&small).max(Duration::from_millis(4));
        if !(0..2).any(|_| is_linear()) {
            costly.push(small.chars().take(20).collect::<String>());
        }
    }
    assert_eq!(costly, [""; 0]);
}
