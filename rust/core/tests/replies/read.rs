//! What the reader decides by itself: what counts, what may be missing, what is told of it.

use dspex_core::prompt::Layout;
use dspex_core::response::{
    Outputs, Parsing, ReadError, Source, Value, read, read_output, read_partial,
};
use dspex_core::signature::{Field, FieldDefault};

use super::host::{Answer, Double, Judgement, Refusal, Shown, plan};
use super::outputs;

type Found = Result<Outputs<Answer>, ReadError<Refusal>>;

fn read_as(layout: Layout, parsing: Parsing, fields: &[Field], reply: Source<'_>) -> Found {
    let mut host = Double::new(fields, Judgement::Refuse);
    read(plan(layout, fields, parsing), reply, &mut host)
}

/// The values, those that are left out as `-`, and each repair as `field code: text`; or code and message of the error.
fn show(fields: &[Field], found: Found) -> String {
    match found {
        Ok(found) => {
            let values = found.values.iter().map(|value| match value {
                Some(value) => Shown(value).to_string(),
                None => "-".to_owned(),
            });
            let repairs = found.repairs.iter().map(|repair| {
                let field = repair.output.map_or("", |at| &*fields[at].name);
                format!("{field} {}: {}", repair.code.name(), repair.text)
            });
            let lines = [values.collect::<Vec<_>>().join(", ")].into_iter();
            lines.chain(repairs).collect::<Vec<_>>().join("\n")
        }
        Err(error) => format!("{}: {}", error.kind.code(), error.kind.message(fields)),
    }
}

fn tolerant(layout: Layout, signature: &str, reply: &str) -> String {
    let fields = outputs(signature);
    let found = read_as(layout, Parsing::Tolerant, &fields, Source::Text(reply));
    show(&fields, found)
}

fn strict(layout: Layout, signature: &str, reply: &str) -> String {
    let fields = outputs(signature);
    let found = read_as(layout, Parsing::Strict, &fields, Source::Text(reply));
    show(&fields, found)
}

#[test]
fn of_two_values_the_first_counts_in_chat_and_the_last_in_json() {
    let chat = "[[ ## n ## ]]\n1\n[[ ## n ## ]]\n2";
    assert_eq!(strict(Layout::Chat, "q -> n: int", chat), "1");
    let json = r#"{"n": 1, "a": "x", "n": 2}"#;
    assert_eq!(strict(Layout::Json, "q -> n: int, a", json), "2, x");
}

#[test]
fn a_value_may_be_missing_where_something_stands_in_for_it() {
    let mut fields = outputs("q -> a, b: Optional[str], c: int");
    let reply = Source::Text("[[ ## a ## ]]\nx");
    let lacking = "reply-missing-fields: the reply has no `c`";
    for parsing in [Parsing::Strict, Parsing::Tolerant] {
        let found = read_as(Layout::Chat, parsing, &fields, reply);
        assert_eq!(show(&fields, found), lacking);
    }
    fields[2].default = FieldDefault::Value;
    let found = read_as(Layout::Chat, Parsing::Strict, &fields, reply);
    assert_eq!(show(&fields, found), "x, -, -");
}

#[test]
fn the_error_says_what_had_been_read_and_what_is_wrong() {
    let fields = outputs("q -> a, n: int, b");
    let reply = Source::Text("[[ ## a ## ]]\nx\n[[ ## n ## ]]\nmany\n[[ ## b ## ]]\ny");
    let error = read_as(Layout::Chat, Parsing::Strict, &fields, reply).unwrap_err();
    assert_eq!((error.read, error.kind.output()), (vec![0], Some(1)));
    let error = read_as(Layout::Chat, Parsing::Tolerant, &fields, reply).unwrap_err();
    assert_eq!((error.read, error.kind.output()), (vec![0, 2], Some(1)));
    let no_json = "reply-not-json: the reply holds no JSON object";
    assert_eq!(strict(Layout::Json, "q -> a", "sorry"), no_json);
    let no_xml = "reply-not-xml: the reply is no XML: nobody parses it";
    assert_eq!(strict(Layout::Xml, "q -> a", "<a>1 & 2</a>"), no_xml);
}

#[test]
fn tolerance_lists_what_it_does_in_its_order() {
    let cases = [
        (
            Layout::Chat,
            "q -> a, n: int",
            "**[[ ## a ## ]]** x\n**[[ ## n ## ]]** 1,000 km",
            "x, 1000\na marker-decorated: **[[ ## a ## ]]** x\nn marker-decorated: **[[ ## n ## ]]** 1,000 km\n\
             n number: 1,000 km",
        ),
        (
            Layout::Json,
            "q -> a, c: Literal['yes', 'no']",
            "So: {\"a\": \"x\", \"c\": \"YES.\",}",
            "x, yes\n json: So: {\"a\": \"x\", \"c\": \"YES.\",}\nc case: YES.",
        ),
        (
            Layout::Json,
            "q -> a: list[dict[str, int]], n: int",
            "{\"a\": [{\"k\": 1}, \"n\": 3}",
            "List([Map([(\"k\", Int(1))])]), 3\na json-keys: \"a\":[{\"k\": 1}\na cut-off: [{\"k\": 1}\n\
             n json-keys: \"n\":3",
        ),
        (Layout::Xml, "q -> a", "<a>R & D</a>", "R & D\na xml: R & D"),
        (
            Layout::Chat,
            "q -> l: list[int]",
            "```json\n[1, 2]\n```",
            "List([Int(1), Int(2)])\nl no-marker: ```json\n[1, 2]\n```\nl json: ```json\n[1, 2]\n```",
        ),
        (
            Layout::Chat,
            "q -> l: list[float]",
            "[[ ## l ## ]]\n90%",
            "List([Float(0.9)])\nl one-item: 90%\nl number: 90%",
        ),
        (
            Layout::Chat,
            "q -> c: Optional[Literal[1, 2]]",
            "[[ ## c ## ]]\n**2**",
            "2\nc decoration: **2**",
        ),
    ];
    for (layout, signature, reply, expected) in cases {
        assert_eq!(tolerant(layout, signature, reply), expected, "{reply}");
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_not_read() {
    let cases = [
        (
            "q -> n: int",
            "3 or 4",
            "int: '3 or 4' may be one number or several",
        ),
        (
            "q -> n: int",
            "5 million",
            "int: '5 million' may be 5 or a multiple of it",
        ),
        (
            "q -> t: bool",
            "yes and no",
            "bool: 'yes and no' may be True or False",
        ),
        (
            "q -> l: list[str]",
            "red, green",
            "list[str]: 'red, green' may be one item or several",
        ),
        (
            "q -> l: list[int]",
            "[1x",
            "list[int]: it is cut off in its first item",
        ),
    ];
    for (signature, value, problem) in cases {
        let name = &outputs(signature)[0].name;
        let reply = format!("[[ ## {name} ## ]]\n{value}");
        let expected = format!("reply-field-value: the reply's value for `{name}` is no {problem}");
        assert_eq!(tolerant(Layout::Chat, signature, &reply), expected);
    }
}

#[test]
fn halves_of_surrogate_pairs_are_told_first() {
    let fields = outputs("q -> a");
    let reply = Source::Mended("**[[ ## a ## ]]** \u{fffd}");
    let found = read_as(Layout::Chat, Parsing::Tolerant, &fields, reply).unwrap();
    let codes = found.repairs.iter().map(|repair| repair.code.name());
    assert_eq!(codes.collect::<Vec<_>>(), ["surrogate", "marker-decorated"]);
    let found = read_as(
        Layout::Chat,
        Parsing::Strict,
        &fields,
        Source::Mended("[[ ## a ## ]]"),
    );
    assert_eq!(found.unwrap().repairs, []);
}

#[test]
fn one_output_is_read_like_all_of_them_and_refused_without_an_error() {
    let fields = outputs("q -> n: int, d: dict[str, int]");
    let one = |layout, output, raw| {
        let mut host = Double::new(&fields, Judgement::Refuse);
        read_output(
            plan(layout, &fields, Parsing::Tolerant),
            output,
            raw,
            &mut host,
        )
        .unwrap()
    };
    let number = Some(Answer::Known(Value::Int(3)));
    for (layout, raw) in [
        (Layout::Chat, "3"),
        (Layout::Json, "3"),
        (Layout::Xml, "\n3\n"),
    ] {
        assert_eq!(one(layout, 0, raw), number);
        assert_eq!(one(layout, 0, "three"), None);
    }
    let map = Answer::Known(Value::Map(vec![("k".into(), Value::Int(3))]));
    assert_eq!(one(Layout::Xml, 1, "<k>3</k>"), Some(map));
}

#[test]
fn what_grows_is_shown_where_it_may_be() {
    let fields = outputs("q -> n: int, l: list[int]");
    let partial = |layout, output, raw| {
        let mut host = Double::new(&fields, Judgement::Refuse);
        read_partial(
            plan(layout, &fields, Parsing::Strict),
            output,
            raw,
            &mut host,
        )
        .unwrap()
    };
    assert_eq!(partial(Layout::Chat, 0, "12"), None);
    let list = Answer::Known(Value::List(vec![Value::Int(1)]));
    assert_eq!(partial(Layout::Json, 1, "[1, 2"), Some(list));
    assert_eq!(partial(Layout::Xml, 1, "[1, 2"), None);
}
