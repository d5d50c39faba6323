//! Any bytes: no panic, no hang, spans inside the text, and what is read can be written and read again.

use std::fs;

use dspex_core::signature::Limits;

use super::fuzzing::run;
use super::{corpus, read};

fn check(source: &str) -> Result<(), String> {
    match read(source, &Limits::default()) {
        Ok(signature) => {
            let text = signature.text();
            let again = read(
                &text,
                &Limits {
                    length: usize::MAX,
                    ..Limits::default()
                },
            );
            if again.as_ref() != Ok(&signature) {
                return Err(format!("{text:?} reads back as {again:?}"));
            }
        }
        Err(error) => {
            if source.get(error.span.start..error.span.end).is_none() {
                return Err(format!("the span {:?} is not within the text", error.span));
            }
        }
    }
    Ok(())
}

const PIECES: &[&str] = &[
    "->",
    "-> ",
    ":",
    ",",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    "|",
    "=",
    ".",
    "...",
    "'",
    "\"",
    "'''",
    "\\",
    "\\x",
    "\\u12",
    "#",
    "\n",
    "\r",
    "\0",
    " ",
    "\u{a0}",
    "é",
    "ﬁ",
    "名",
    "\u{1f600}",
    "\u{301}",
    "0x",
    "1_",
    "1e",
    "5j",
    "b'",
    "rb\"",
    "f'",
    "int",
    "list[",
    "dict[str,",
    "tuple[int, ...]",
    "Optional[",
    "Union[",
    "Literal[",
    "Literal['a', 1]",
    "Annotated[int, Field(gt=1)]",
    "typing.",
    "None",
    "class",
    "_",
    "*",
    "/",
    "-1",
    "lambda",
    "Field(",
    "a",
    "b: ",
];

/// All texts of the corpus: the seeds.
fn seeds() -> Vec<String> {
    let mut seeds: Vec<String> = Vec::new();
    for part in ["types.txt", "refused.txt"] {
        let text = fs::read_to_string(corpus(part)).unwrap();
        seeds.extend(text.lines().map(|line| {
            if line.contains("->") {
                line.into()
            } else {
                format!("a: {line} -> b")
            }
        }));
    }
    for entry in fs::read_dir(corpus("errors")).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        seeds.push(
            String::from_utf8_lossy(&bytes)
                .split("\n---\n")
                .next()
                .unwrap_or_default()
                .into(),
        );
    }
    seeds
}

fn read_all(source: &str) {
    let limits = Limits {
        length: usize::MAX,
        fields: usize::MAX,
        ..Limits::default()
    };
    _ = read(source, &limits);
}

#[test]
fn no_text_breaks_the_parser_or_costs_more_than_its_length() {
    run(&corpus("fuzz"), seeds(), PIECES, check, Some(read_all));
}
