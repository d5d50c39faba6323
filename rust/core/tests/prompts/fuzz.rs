//! Texts that nobody wrote: as values, as templates, and as types.

use std::fs;

use dspex_core::dialect::Dialect;
use dspex_core::prompt::{ExternalField, Layout, Markers, Plan};
use dspex_core::template::{Limits, NoContainer, Template, data};
use jiter::JsonValue;

use super::fuzzing::run;
use super::record::{JsonRecord, Messages, render};
use super::{corpus, read};

const LAYOUTS: [Layout; 3] = [Layout::Chat, Layout::Json, Layout::Xml];

/// Each layout's prompt for `q -> a, b`, with this text as the value of the input or of the first output.
fn prompt(layout: Layout, markers: Markers, field: &str, text: &str) -> Messages {
    let signature = read("q -> a, b", None).unwrap();
    let external = vec![ExternalField::default(); 3];
    let plan =
        Plan::compile(&signature, layout, &external, Dialect::newest()).with_markers(markers);
    let record = |value: &str| {
        let mut entries = [("q", "x"), ("a", "y"), ("b", "z")];
        for (name, kept) in &mut entries {
            if *name == field {
                *kept = value;
            }
        }
        let entries = entries.map(|(name, value)| {
            let value = JsonValue::Str(value.to_owned().into());
            (name.into(), value)
        });
        JsonRecord(JsonValue::Object(
            entries.into_iter().collect::<Vec<_>>().into(),
        ))
    };
    match field {
        "q" => render(&plan, &record(text), &[], &[]),
        _ => render(&plan, &record("x"), &[record(text)], &[]),
    }
}

/// A text that was escaped holds no marker: as a value once more it is written as it is.
fn markers(text: &str) -> Result<(), String> {
    // White space at the ends of a message is no part of it, and XML escapes what is in an output.
    let text = format!("({text})");
    for layout in LAYOUTS {
        let whole = |messages: &Messages| {
            let texts = messages.messages.iter().map(|(_, text)| text.as_str());
            texts.collect::<Vec<_>>().join("\n")
        };
        for field in ["q", "a"] {
            let plain = prompt(layout, Markers::AsIs, field, &text);
            let reported = prompt(layout, Markers::Report, field, &text);
            if whole(&plain) != whole(&reported) {
                return Err(format!("{layout:?}: a report changes the text"));
            }
            let escaped = prompt(layout, Markers::Escape, field, &text);
            if escaped.injected != reported.injected {
                return Err(format!("{layout:?}: {:?}", escaped.injected));
            }
            if reported.injected.is_empty() && whole(&plain) != whole(&escaped) {
                return Err(format!("{layout:?}: what is no marker is escaped"));
            }
        }
        let around = whole(&prompt(layout, Markers::Escape, "q", "(\0)"));
        let (before, behind) = around.split_once("(\0)").unwrap();
        let escaped = whole(&prompt(layout, Markers::Escape, "q", &text));
        let value = escaped
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(behind))
            .ok_or("the prompt around the value has changed")?;
        let again = prompt(layout, Markers::Escape, "q", value);
        if !again.injected.is_empty() || whole(&again) != escaped {
            return Err(format!("{layout:?}: {value:?} holds a marker still"));
        }
    }
    Ok(())
}

fn write(text: &str) {
    for layout in LAYOUTS {
        prompt(layout, Markers::Escape, "q", text);
        prompt(layout, Markers::Escape, "a", text);
    }
}

const MARKERS: &[&str] = &[
    "[[ ## a ## ]]",
    "[[ ## ",
    " ## ]]",
    "[[ # # a ## ]]",
    "[",
    "]",
    "##",
    "<a>",
    "</a>",
    "<q ",
    "<b/>",
    "<entry key='a'>",
    "<entry ",
    " key=",
    "\"",
    "'",
    "<",
    ">",
    "/",
    "&lt;",
    "<<CUSTOM-TYPE-START-IDENTIFIER>>",
    "<<CUSTOM-TYPE-END-IDENTIFIER>>",
    "<< CUSTOM",
    "\n",
    " ",
    "é",
    "completed",
    "\\",
    "{",
    "}",
];

#[test]
fn no_value_passes_for_a_marker_once_it_is_escaped() {
    let mut seeds: Vec<String> = MARKERS.iter().map(|&piece| piece.to_owned()).collect();
    for entry in fs::read_dir(corpus("")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let text = fs::read_to_string(path).unwrap();
            seeds.extend(
                text.split("\n===== ")
                    .map(|part| part.chars().take(600).collect()),
            );
        }
    }
    run(&corpus("fuzz"), seeds, MARKERS, markers, Some(write));
}

/// Small limits, so that a text that works hard ends soon.
const LIMITS: Limits = Limits {
    fuel: 20_000,
    output: 20_000,
    depth: 50,
};

fn values(x: &str) -> data::Value {
    let list = data::Value::from(vec![data::Value::from(x), data::Value::from(1.5)]);
    data::Value::from_pairs([
        ("x", data::Value::from(x)),
        ("n", data::Value::from(7)),
        ("xs", list.clone()),
        ("d", data::Value::from_pairs([("a", list)])),
    ])
}

/// As a template a text compiles or does not, and comes to its end; as a value it is what it was.
fn template(text: &str) -> Result<(), String> {
    let known = Template::<NoContainer>::compile("{{ x }}", LIMITS, Markers::AsIs).unwrap();
    let rendered = known.render(values(text)).map(|rendered| rendered.text);
    if text.len() <= LIMITS.output && rendered.as_deref().ok() != Some(text) {
        return Err(format!("as a value it became {rendered:?}"));
    }
    match Template::<NoContainer>::compile(text, LIMITS, Markers::Escape) {
        Ok(template) => {
            if let Ok(rendered) = template.render(values("[[ ## a ## ]]"))
                && rendered.text.len() > LIMITS.output
            {
                return Err(format!("it grew to {} bytes", rendered.text.len()));
            }
            Ok(())
        }
        Err(error) => match error.span {
            Some(span) if text.get(span.start..span.end).is_none() => {
                Err(format!("the span {span:?} is not within the text"))
            }
            _ => Ok(()),
        },
    }
}

fn compile(text: &str) {
    _ = Template::<NoContainer>::compile(text, LIMITS, Markers::AsIs);
}

const TEMPLATES: &[&str] = &[
    "{{ ",
    " }}",
    "{% ",
    " %}",
    "{# ",
    " #}",
    "{{ x }}",
    "{%- ",
    " -%}",
    "if x",
    "else",
    "elif n",
    "endif",
    "for y in xs",
    "endfor",
    "set z = x",
    "set z",
    "endset",
    "macro m(a, b=1)",
    "m(1)",
    "endmacro",
    "call m()",
    "endcall",
    "raw",
    "endraw",
    "filter upper",
    "endfilter",
    "with a = n",
    "endwith",
    "do n",
    "loop.index",
    "loop(xs)",
    "recursive",
    "namespace(a=1)",
    "x",
    "xs",
    "d.a",
    "d['a']",
    "[0]",
    "[1:2]",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    "'a'",
    "\"b\"",
    "1",
    "1.5e3",
    "None",
    "true",
    "+",
    "-",
    "*",
    "**",
    "/",
    "//",
    "%",
    "~",
    "|",
    "|upper",
    "|join(',')",
    "|json",
    "|numbered",
    "|marker",
    "|safe",
    "|sort",
    "|groupby('a')",
    "|map('upper')",
    "|list",
    "|sum",
    "|replace('a', x)",
    "|format(x)",
    "|batch(2)",
    "|default(1)",
    " is ",
    "defined",
    " in ",
    " not ",
    " and ",
    " or ",
    "==",
    "<",
    ".a",
    ".items()",
    ", ",
    ":",
    "range(99)",
    "dict(a=1)",
    "\n",
    "é",
    "\\",
    "include 'x'",
    "extends 'x'",
    "block b",
    "endblock",
    "[[ ## a ## ]]",
];

#[test]
fn no_template_breaks_the_engine_or_compiles_for_longer_than_it_is() {
    let seeds = [
        "Hi {{ x }}{% for y in xs %}, {{ y }}{% endfor %}!",
        "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(x) }}{{ m(n + 1) }}",
        "{% set z = [x, n, {'a': xs}] %}{{ z | json }}{{ z[2].a | join(' ~ ') }}",
        "{% if n > 3 and x is defined %}{{ x | upper }}{% elif d.a %}no{% else %}{{ 'b' ~ n }}{% endif %}",
        "{# note #}{% raw %}{{ x }}{% endraw %}{{ 'answer' | marker }}",
        "{% for k, v in d.items() recursive %}{{ loop.index }}{{ k }}{{ v | numbered }}{% endfor %}",
        "{% set ns = namespace(x='') %}{% for i in range(20) %}{% set ns.x = ns.x ~ i %}{% endfor %}{{ ns.x }}",
    ];
    let seeds = seeds.map(str::to_owned).to_vec();
    run(&corpus("fuzz"), seeds, TEMPLATES, template, Some(compile));
}

/// A type has a schema that is JSON, and a source that reads back to it.
fn schema(text: &str) -> Result<(), String> {
    let Ok(signature) = read(&format!("q -> a: {text}"), None) else {
        return Ok(());
    };
    for field in signature.outputs() {
        if let Some(schema) = field.ty.json_schema() {
            // The parser has integers of 64 bits, and Python any.
            let digits = schema.split(|c: char| !c.is_ascii_digit());
            let has_long = digits.map(str::len).any(|length| length > 18);
            if let Err(error) = JsonValue::parse(schema.as_bytes(), false)
                && !has_long
            {
                return Err(format!("{schema} is no JSON: {error}"));
            }
        }
        let mut source = String::from("q -> a: ");
        field.ty.write_source(&mut source);
        let again = read(&source, None).map_err(|error| format!("{source}: {error}"))?;
        if !again.outputs()[0].ty.equals(&field.ty) {
            return Err(format!("{source} reads back as another type"));
        }
    }
    Ok(())
}

fn compile_types(text: &str) {
    if let Ok(signature) = read(&format!("q -> a: {text}"), None) {
        let external = vec![ExternalField::default(); signature.fields().len()];
        for layout in LAYOUTS {
            _ = Plan::compile(&signature, layout, &external, Dialect::newest());
        }
    }
}

const TYPES: &[&str] = &[
    "[",
    "]",
    ", ",
    "|",
    " | None",
    "int",
    "str",
    "float",
    "bool",
    "bytes",
    "complex",
    "Any",
    "None",
    "list[",
    "List[",
    "dict[str, ",
    "dict[int, ",
    "set[",
    "frozenset[",
    "tuple[",
    ", ...]",
    "tuple[()]",
    "Optional[",
    "Union[",
    "Literal[",
    "'a'",
    "\"it's\"",
    "b'\\xff'",
    "1",
    "-1",
    "1.5",
    "1e999",
    "2j",
    "True",
    "'\\u2028'",
    "'->'",
    "typing.",
];

#[test]
fn no_type_has_a_schema_that_is_not_json() {
    let path = corpus("../signature/types.txt");
    let seeds = fs::read_to_string(path).unwrap();
    let seeds = seeds.lines().map(str::to_owned).collect();
    run(&corpus("fuzz"), seeds, TYPES, schema, Some(compile_types));
}
