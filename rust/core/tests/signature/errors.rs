//! Every mistake has a code, a place and a hint: the files in `testdata/signature/errors`.

use std::fs;

use dspex_core::signature::{Code, Limits, SignatureError};

use super::{corpus, read};

/// Texts of which Rust alone says something else: modules, their attributes, and notes with a meaning.
const PYTHON_SAYS: &[&str] = &[
    "uuid",
    "datetime.dat ",
    "Field(nope=[])",
    "Annotated[int, Note]",
];

struct Case {
    file: String,
    limits: Limits,
    source: String,
    expected: String,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for entry in fs::read_dir(corpus("errors")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let (mut source, expected) = text.split_once("\n---\n").unwrap();
        let mut limits = Limits::default();
        if let Some(rest) = source.strip_prefix("limits: ") {
            let (limit, rest) = rest.split_once('\n').unwrap();
            let (name, value) = limit.split_once('=').unwrap();
            let value = value.parse().unwrap();
            match name {
                "length" => limits.length = value,
                "depth" => limits.depth = value,
                "fields" => limits.fields = value,
                _ => panic!("no such limit: {name}"),
            }
            source = rest;
        }
        cases.push(Case {
            file: path.file_name().unwrap().to_string_lossy().into_owned(),
            limits,
            source: source.to_owned(),
            expected: expected.to_owned(),
        });
    }
    assert!(cases.len() > 50, "the corpus is there");
    cases
}

/// The message as Python prints it, the carets counted in characters.
fn render(source: &str, error: &SignatureError) -> String {
    let line_start = source[..error.span.start]
        .rfind('\n')
        .map_or(0, |at| at + 1);
    let line_end = source[error.span.start..]
        .find('\n')
        .map_or(source.len(), |at| error.span.start + at);
    let line = &source[line_start..line_end];
    let margin = " ".repeat(source[line_start..error.span.start].chars().count());
    let width = source[error.span.start..error.span.end.min(line_end)]
        .chars()
        .count()
        .max(1);
    format!(
        "{error}\n  {line}\n  {margin}{}\n  hint: {}\n",
        "^".repeat(width),
        error.hint
    )
}

#[test]
fn a_mistake_is_shown_with_its_place_and_what_to_do() {
    for case in cases() {
        let python = PYTHON_SAYS.iter().any(|part| case.source.contains(part));
        let error = read(&case.source, &case.limits).expect_err(&case.file);
        if !python {
            assert_eq!(render(&case.source, &error), case.expected, "{}", case.file);
        }
    }
}

#[test]
fn every_code_has_a_case() {
    let cases = cases();
    for code in Code::ALL {
        let mark = format!(" [{}]\n", code.name());
        assert!(
            cases.iter().any(|case| case.expected.contains(&mark)),
            "no case shows {code:?}"
        );
    }
}

#[test]
fn an_error_is_an_error_of_the_standard_library() {
    let error: Box<dyn std::error::Error> = Box::new(read("a", &Limits::default()).unwrap_err());
    assert_eq!(error.to_string(), "there is no '->' [missing-arrow]");
}

#[test]
fn what_dspy_refuses_is_refused() {
    for source in fs::read_to_string(corpus("refused.txt")).unwrap().lines() {
        let error = read(source, &Limits::default()).expect_err(source);
        assert!(
            error.span.start <= error.span.end && error.span.end <= source.len(),
            "{source}"
        );
    }
}
