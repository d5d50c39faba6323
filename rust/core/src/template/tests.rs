//! The engine with our rules around it.

use minijinja::value::Value;

use super::{Code, Container, Entry, Failure, Limits, NoContainer, TemplateError};
use crate::prompt::Markers;

type Template = super::Template<NoContainer>;

fn values(pairs: &[(&str, Value)]) -> Value {
    Value::from_pairs(
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone())),
    )
}

fn of_template(failure: Failure<NoContainer>) -> TemplateError {
    match failure {
        Failure::Template(error) => error,
        Failure::Container(never) => match never {},
    }
}

fn render(source: &str, pairs: &[(&str, Value)]) -> Result<String, TemplateError> {
    Template::compile(source, Limits::default(), Markers::AsIs)?
        .render(values(pairs))
        .map(|rendered| rendered.text)
        .map_err(of_template)
}

fn refused(source: &str, pairs: &[(&str, Value)]) -> (Code, String) {
    let error = render(source, pairs).expect_err(source);
    let at = error.span.map_or("", |span| &source[span.start..span.end]);
    (error.code, at.to_owned())
}

#[test]
fn values_are_written_as_dspy_writes_them() {
    let cases: &[(Value, &str)] = &[
        (Value::from("a <b> & \"c\""), "a <b> & \"c\""),
        (Value::from(()), "None"),
        (Value::from(true), "True"),
        (Value::from(5), "5"),
        (
            Value::from(i128::MAX),
            "170141183460469231731687303715884105727",
        ),
        (Value::from(5.0), "5.0"),
        (Value::from(1e20), "1e+20"),
        (Value::from(f64::NAN), "nan"),
        (
            Value::from(vec![
                Value::from("é\n"),
                Value::from(f64::NAN),
                Value::from(true),
            ]),
            "[\"é\\n\", null, true]",
        ),
        (
            values(&[("a", Value::from(vec![1, 2])), ("b", Value::from(()))]),
            "{\"a\": [1, 2], \"b\": null}",
        ),
        (Value::from(Vec::<i32>::new()), "[]"),
        (Value::from_bytes("é".as_bytes().to_vec()), "é"),
    ];
    for (value, expected) in cases {
        let pairs = [("x", value.clone())];
        assert_eq!(render("{{ x }}", &pairs).unwrap(), *expected);
        assert_eq!(render("{{ x|text }}", &pairs).unwrap(), *expected);
    }
}

#[test]
fn filters_write_what_dspys_prompts_are_made_of() {
    let list = Value::from(vec!["one", "two\nlines", "«q»"]);
    let numbered = "[1] «one»\n[2] «««\n    two\n    lines\n»»»\n[3] «««\n    «q»\n»»»";
    assert_eq!(
        render("{{ x|numbered }}", &[("x", list)]).unwrap(),
        numbered
    );
    assert_eq!(render("{{ ['a']|numbered }}", &[]).unwrap(), "«a»");
    assert_eq!(render("{{ []|numbered }}", &[]).unwrap(), "N/A");
    assert_eq!(
        render("{{ 'answer'|marker }}", &[]).unwrap(),
        "[[ ## answer ## ]]"
    );
    assert_eq!(
        render("{{ 'a\"'|json }}{{ 1|tojson }}", &[]).unwrap(),
        "\"a\\\"\"1"
    );
    assert_eq!(refused("{{ 1|numbered }}", &[]).0, Code::Operation);
}

#[test]
fn a_value_is_never_read_as_a_template() {
    for hostile in [
        "{{ secret }}",
        "{% for x in range(9) %}",
        "{# #}",
        "{{ x }}",
        "[[ ## a ## ]]",
    ] {
        let pairs = [("x", Value::from(hostile)), ("secret", Value::from("s3"))];
        assert_eq!(render("<{{ x }}>", &pairs).unwrap(), format!("<{hostile}>"));
        assert_eq!(
            render("{{ [x] }}", &pairs).unwrap(),
            format!("[\"{hostile}\"]")
        );
    }
}

#[test]
fn names_that_are_asked_for_are_known_before_rendering() {
    let source = "{% set a = b %}{% for x in xs %}{{ x.y }}{{ loop.index }}{% endfor %}{{ a }}{{ range(2) }}{{ d.e }}";
    let template = Template::compile(source, Limits::default(), Markers::AsIs).unwrap();
    assert_eq!(template.variables(), ["b", "d", "xs"]);
}

#[test]
fn a_mistake_has_its_kind_and_its_place() {
    let x = [("x", values(&[("a", Value::from(1))]))];
    let cases = [
        ("a{{ missing }}b", Code::Undefined, "missing"),
        ("{{ x.nope }}", Code::Undefined, "x.nope"),
        ("{% if missing %}{% endif %}", Code::Undefined, "missing"),
        (
            "{% for a in missing %}{% endfor %}",
            Code::Undefined,
            "missing",
        ),
        ("é{{ x|nope }}", Code::UnknownName, "nope"),
        ("{{ x is nope }}", Code::UnknownName, "nope"),
        ("{{ debug() }}", Code::UnknownName, "debug()"),
        ("{{ 1 + 'a' }}", Code::Operation, "1 + 'a'"),
        ("é{{ r½", Code::Syntax, "½"),
    ];
    for (source, code, at) in cases {
        assert_eq!(refused(source, &x), (code, at.to_owned()), "{source}");
    }
    for source in [
        "{% if %}",
        "{{ a",
        "{% include 'x' %}",
        "{% extends 'x' %}",
        "{% import 'x' as y %}",
        "{% nope %}",
    ] {
        assert_eq!(refused(source, &[]).0, Code::Syntax, "{source}");
    }
}

#[test]
fn a_hostile_template_comes_to_an_end() {
    let cases = [
        (
            "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
            Code::OutOfFuel,
        ),
        ("{{ 'x' * 1000000000 }}", Code::OutOfFuel),
        (
            "{% set n = namespace(x='ab') %}{% for a in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
            Code::OutOfFuel,
        ),
        (
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
            Code::TooDeep,
        ),
        (
            "{% for a in range(9000) %}{{ 'x' * 1000 }}{% endfor %}",
            Code::OutputTooLong,
        ),
        ("{{ range(1000000000) }}", Code::Operation),
    ];
    for (source, code) in cases {
        assert_eq!(refused(source, &[]).0, code, "{source}");
    }
    let deep = "{% if true %}".repeat(2000) + &"{% endif %}".repeat(2000);
    assert_eq!(refused(&deep, &[]).0, Code::Syntax);
    let nested = format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000));
    assert_eq!(refused(&nested, &[]).0, Code::Syntax);
    assert_eq!(
        refused(&"x".repeat(super::MAX_SOURCE + 1), &[]).0,
        Code::SourceTooLong
    );
}

#[test]
fn each_limit_does_what_it_says() {
    let source = "{% for a in range(50) %}{{ a }}{% endfor %}";
    let with = |limits| {
        Template::compile(source, limits, Markers::AsIs)
            .unwrap()
            .render(values(&[]))
            .map_err(of_template)
    };
    let limits = Limits::default();
    assert!(with(limits).is_ok());
    assert_eq!(
        with(Limits { fuel: 20, ..limits }).unwrap_err().code,
        Code::OutOfFuel
    );
    assert_eq!(
        with(Limits {
            output: 89,
            ..limits
        })
        .unwrap_err()
        .code,
        Code::OutputTooLong
    );
    assert!(
        with(Limits {
            output: 90,
            ..limits
        })
        .is_ok()
    );
    let nested = "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(5) }}";
    let deep = |depth| {
        Template::compile(nested, Limits { depth, ..limits }, Markers::AsIs)
            .unwrap()
            .render(values(&[]))
            .map_err(of_template)
    };
    assert!(deep(100).is_ok());
    assert_eq!(deep(10).unwrap_err().code, Code::TooDeep);
}

#[test]
fn values_that_hold_markers_are_counted_or_escaped() {
    let source =
        "{{ 'a' | marker }}\n{{ x }}{% for y in ys %} {{ y }}{% endfor %} {{ ys }} {{ x | safe }}";
    let injected = "[[ ## b ## ]]";
    let given = values(&[
        ("x", Value::from(injected)),
        ("ys", Value::from(vec![injected, "no"])),
    ]);
    let with = |markers| {
        Template::compile(source, Limits::default(), markers)
            .unwrap()
            .render(given.clone())
            .unwrap()
    };
    let plain = with(Markers::AsIs);
    let reported = with(Markers::Report);
    assert_eq!((plain.injected, reported.injected), (0, 3));
    assert_eq!(reported.text, plain.text);
    let escaped = with(Markers::Escape);
    assert_eq!(escaped.injected, 3);
    assert_eq!(
        escaped.text,
        "[[ ## a ## ]]\n[[ # # b ## ]] [[ # # b ## ]] no [\"[[ # # b ## ]]\", \"no\"] [[ ## b ## ]]"
    );
}

/// A map of the caller's whose entry `good` is a map like it, and of which all else fails.
#[derive(Debug)]
struct Failing;

impl Container for Failing {
    type Error = &'static str;

    fn is_map(&self) -> bool {
        true
    }

    fn len(&self) -> usize {
        1
    }

    fn entry(&self, name: &str) -> Result<Option<Entry<Self>>, &'static str> {
        match name {
            "good" => Ok(Some(Entry::Container(Self))),
            "missing" => Ok(None),
            _ => Err("entry"),
        }
    }

    fn item(&self, _: usize) -> Result<Option<Entry<Self>>, &'static str> {
        Err("item")
    }

    fn get(&self, _: &Value) -> Result<Option<Entry<Self>>, &'static str> {
        Err("get")
    }

    fn keys(&self) -> Result<Vec<Entry<Self>>, &'static str> {
        Err("keys")
    }

    fn json(&self) -> Result<String, &'static str> {
        Err("json")
    }

    fn is_equal(&self, _: &Self) -> Result<bool, &'static str> {
        Err("is_equal")
    }
}

#[test]
fn a_failed_look_up_ends_the_rendering_with_its_error() {
    for (source, expected) in [
        ("{{ bad }}", "entry"),
        ("{{ bad | default('x') }}", "entry"),
        ("{{ bad is defined }}", "entry"),
        ("{% if bad %}{% endif %}", "entry"),
        ("{% set x = [good.bad] %}", "entry"),
        ("{{ good.get('bad', 1) }}", "entry"),
        ("{{ good[1] }}", "get"),
        ("{% for x in good %}{% endfor %}", "keys"),
        ("{{ good.items() }}", "keys"),
        ("{{ good }}", "json"),
        ("{{ good | upper }}", "json"),
        ("{{ good | upper }}{{ bad }}", "json"),
        ("{{ good == good }}", "is_equal"),
    ] {
        let template =
            super::Template::compile(source, Limits::default(), Markers::AsIs).expect(source);
        match template.render(Entry::Container(Failing)) {
            Err(Failure::Container(error)) => assert_eq!(error, expected, "{source}"),
            other => panic!("{source}: {other:?}"),
        }
    }
    let template =
        super::Template::compile("{{ missing }}", Limits::default(), Markers::AsIs).unwrap();
    let failure = template.render(Entry::Container(Failing)).unwrap_err();
    assert!(matches!(failure, Failure::Template(error) if error.code == Code::Undefined));
}
