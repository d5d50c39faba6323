//! What a right text means.

use std::fs;

use dspex_core::signature::{Code, NativeOnly, Resolver, SignatureError, unknown};
use dspex_core::signature::{
    Field, FieldDefault, FieldKind, Instructions, Limits, Signature, ast, infer_prefix, is_native,
    lower, parse, union,
};
use dspex_core::types::{Constant, External, Type, UnionSpelling};

use super::{corpus, good, read};

fn outputs(source: &str) -> Vec<Type> {
    good(source)
        .outputs()
        .iter()
        .map(|field| field.ty.clone())
        .collect()
}

#[test]
fn text_reads_back_to_the_same_signature() {
    let mut native = 0;
    for ty in fs::read_to_string(corpus("types.txt")).unwrap().lines() {
        let source = format!("plain, given: {ty} -> made: {ty}, other");
        // The rest of the corpus names types that only Python knows.
        if let Ok(signature) = read(&source, &Limits::default()) {
            assert_eq!(good(&signature.text()), signature, "{source}");
            native += 1;
        }
    }
    assert!(native > 45, "most of the corpus is Rust's own");
}

#[test]
fn sides_may_be_empty() {
    assert_eq!(good("->").text(), "->");
    assert_eq!(good("a ->").text(), "a ->");
    assert_eq!(good("-> b").text(), "-> b");
    assert_eq!(
        good("->").instructions(),
        "Given the fields , produce the fields ."
    );
    assert_eq!(good("a, b -> c").names(), "a, b -> c");
}

#[test]
fn blanks_comments_joined_lines_and_trailing_commas_do_not_matter() {
    let plain = good("a: list[int], b -> c");
    assert_eq!(
        good("\n a :list[ int ,],\t# the list\r\n b \\\n,->\x0cc,"),
        plain
    );
    assert_eq!(good("a: (list)[int], b->c"), plain);
    assert_eq!(good("a: \\\r\n list[int], b->c"), plain);
}

#[test]
fn a_name_given_twice_keeps_its_place_and_the_last_type() {
    let signature = good("a: int, b, a: float -> c: str, c: bool");
    assert_eq!(signature.names(), "a, b -> c");
    assert_eq!(signature.inputs()[0].ty, Type::Float);
    assert_eq!(signature.outputs()[0].ty, Type::Bool);
}

#[test]
fn names_are_normalised_before_they_are_compared() {
    assert_eq!(good("\u{fb01}n -> b").inputs()[0].name, "fin".into());
    assert_eq!(
        read("ﬁ -> fi", &Limits::default()).unwrap_err().code,
        Code::DuplicateField
    );
    // Python would take a keyword in wide letters for a name.
    for source in ["ｃｌａｓｓ -> b", "a -> aˢ", "Ｎone -> b"] {
        assert_eq!(
            read(source, &Limits::default()).unwrap_err().code,
            Code::KeywordName
        );
    }
}

#[test]
fn defaults_are_read_and_dropped() {
    let signature =
        good("a: int = -5, b = [1, (2, 3), {}], c = {'x': {1, 2,}, 'y': [],} -> d = +1.5");
    assert_eq!(signature.names(), "a, b, c -> d");
    assert!(
        signature
            .fields()
            .iter()
            .all(|field| field.default == FieldDefault::Required)
    );
}

#[test]
fn none_is_str_alone_and_itself_inside() {
    let types =
        outputs("-> a: None, b: list[None], c: List[None], d: Optional[None], e: int | None");
    assert_eq!(types[0], Type::Str);
    assert_eq!(types[1].display_name(), "list[None]");
    assert_eq!(types[2].display_name(), "list[NoneType]");
    assert_eq!(types[3], Type::None);
    assert!(types[4].allows_none());
}

#[test]
fn unions_are_flat_and_hold_nothing_twice() {
    let types = outputs(
        "-> a: int | (str | int), b: Union[Literal['x', 'y'], Literal['y', 'x']], \
         c: list[int | str] | list[str | int], d: tuple[int, ...] | tuple[int, ...] | list",
    );
    assert_eq!(types[0].display_name(), "Union[int, str]");
    assert_eq!(types[1].display_name(), "Literal['x', 'y']");
    assert_eq!(types[2].display_name(), "list[Union[int, str]]");
    assert_eq!(types[3].display_name(), "Union[tuple[int, Ellipsis], list]");
}

#[test]
fn literals_hold_every_kind_of_constant_once() {
    let source = r#"-> a: Literal['x' "y", 1, True, None, b'\x00z', 1.5, 2j, 1, 0x1F, 0o17, 0b11, 1_000, 00]"#;
    let [Type::Literal(values)] = &*outputs(source) else {
        panic!("one literal")
    };
    let mut text = String::new();
    for value in values {
        value.write_source(&mut text);
        text.push(' ');
    }
    assert_eq!(text, r"'xy' 1 True None b'\x00z' 1.5 2j 31 15 3 1000 0 ");
    assert!(values.contains(&Constant::Bool(true)) && values.contains(&Constant::Int("1".into())));
}

#[test]
fn strings_are_read_as_python_reads_them() {
    let cases = [
        (
            r"'\a\b\f\n\r\t\v\\\'\x41\u00e9\U0001F600\101\q'",
            "\x07\x08\x0c\n\r\t\x0b\\'A\u{e9}\u{1f600}A\\q",
        ),
        (r"r'\n\''", r"\n\'"),
        ("'''a\r\nb\rc\"'''", "a\nb\nc\""),
        ("'a\\\nb\\\r\nc\\\rd'", "abcd"),
        ("r'''a\\\nb\\\rc'''", "a\\\nb\\\nc"),
        ("\"\"\"\"\"\" ''", ""),
        ("u'\\0'", "\0"),
    ];
    for (source, expected) in cases {
        let types = outputs(&format!("-> a: Literal[{source}]"));
        assert_eq!(
            types,
            [Type::Literal([Constant::Str(expected.into())].into())],
            "{source}"
        );
    }
}

#[test]
fn bytes_are_read_as_python_reads_them() {
    let cases: [(&str, &[u8]); 3] = [
        (r"b'\x41\777\q'", b"A\xff\\q"),
        (r"Rb'\x'", br"\x"),
        (r#"b'it''s "'"#, b"its \""),
    ];
    for (source, expected) in cases {
        let source = source.replace("''", "' b'");
        let types = outputs(&format!("-> a: Literal[{source}]"));
        assert_eq!(
            types,
            [Type::Literal([Constant::Bytes(expected.into())].into())],
            "{source}"
        );
    }
}

#[test]
fn numbers_are_read_as_python_reads_them() {
    let cases = [
        (
            "0xFFFFFFFFFFFFFFFFFFFFFFFFF",
            "1267650600228229401496703205375",
        ),
        ("0x_0", "0"),
        ("1_0.0_1e-3", "0.01001"),
        (".5", "0.5"),
        ("5.", "5.0"),
        ("1e+2", "100.0"),
        ("1E5j", "100000j"),
        ("0777.5", "777.5"),
        ("1e400", "inf"),
    ];
    for (source, expected) in cases {
        let types = outputs(&format!("-> a: Literal[{source}]"));
        assert_eq!(types[0].display_name(), format!("Literal[{expected}]"));
        assert_eq!(outputs(&format!("-> a: {}", text_of(&types[0]))), types);
    }
    let long = format!("-> a: Literal[{}]", "9".repeat(4_301));
    assert_eq!(
        read(&long, &Limits::default()).unwrap_err().code,
        Code::InvalidNumber
    );
    let long = format!("-> a: Literal[0x{}]", "f".repeat(4_301));
    assert_eq!(
        read(&long, &Limits::default()).unwrap_err().code,
        Code::InvalidNumber
    );
}

fn text_of(ty: &Type) -> String {
    let mut out = String::new();
    ty.write_source(&mut out);
    out
}

#[test]
fn quoted_types_are_types() {
    let types =
        outputs("-> a: list['dict[str, \"int\"]'], b: Optional['float'], c: list['in' 't']");
    assert_eq!(types[0].display_name(), "list[dict[str, int]]");
    assert_eq!(types[1].display_name(), "Union[float, NoneType]");
    assert_eq!(types[2].display_name(), "list[int]");
    // A mistake in joined strings has the whole of them as its place.
    let error = read("a: list['in' 'x'] -> b", &Limits::default()).unwrap_err();
    assert_eq!((error.span.start, error.span.end), (8, 16));
}

#[test]
fn notes_of_annotated_that_mean_nothing_go_away() {
    let types = outputs(
        "-> a: Annotated[int, 'x'], b: typing.Annotated[Annotated['str', 1], 2], c: Annotated[None, 3]",
    );
    assert_eq!(types, [Type::Int, Type::Str, Type::None]);
    for source in [
        "-> a: Annotated[int, Field(gt=1)]",
        "-> a: Annotated[Annotated[int, Field(gt=1)], 2]",
    ] {
        assert_eq!(
            read(source, &Limits::default()).unwrap_err().code,
            Code::Expression
        );
    }
}

#[test]
fn typing_can_be_spelled_out() {
    let types = outputs(
        "-> a: typing.List[typing.Any], b: typing.Union[int, None], c: typing.Literal['x'], d: typing.Text",
    );
    let names: Vec<_> = types.iter().map(Type::display_name).collect();
    assert_eq!(
        names,
        ["list[Any]", "Union[int, NoneType]", "Literal['x']", "str"]
    );
    for source in [
        "-> a: typing.List",
        "-> a: typing.Sequence[int]",
        "-> a: typing.int",
        "-> a: typing.Union",
    ] {
        assert!(read(source, &Limits::default()).is_err(), "{source}");
    }
}

#[test]
fn only_inputs_tell_a_type_left_out_from_str() {
    assert_ne!(good("a -> b"), good("a: str -> b"));
    assert_eq!(good("a -> b"), good("a -> b: str"));
}

#[test]
fn prefixes_are_words() {
    let cases = [
        ("camelCaseText", "Camel Case Text"),
        ("HTMLParser", "HTML Parser"),
        ("iOS", "I OS"),
        ("A1B2", "A 1 B 2"),
        ("a_", "A "),
        ("b__c", "B  C"),
        ("\u{1c6}a", "\u{1c5}a"),
        ("\u{df}x", "Ssx"),
        ("\u{3a3}\u{3b1}\u{3c2}", "\u{3a3}\u{3b1}\u{3c2}"),
        ("\u{540d}", "\u{540d}"),
        ("\u{1c5}a", "\u{1c5}a"),
        ("A\u{1c5}", "A\u{1c6}"),
        ("x\u{663}y", "X \u{663} Y"),
    ];
    for (name, expected) in cases {
        assert_eq!(infer_prefix(name), expected);
    }
}

#[test]
fn limits_of_zero_let_plain_names_pass() {
    let limits = Limits {
        depth: 0,
        ..Limits::default()
    };
    assert!(read("a: int | str -> b: float", &limits).is_ok());
    assert_eq!(
        read("a: list[int] -> b", &limits).unwrap_err().code,
        Code::TooDeep
    );
}

#[test]
fn a_long_chain_is_refused_before_it_is_deep() {
    for source in [
        format!("a: {}int{} -> b", "(".repeat(5_000), ")".repeat(5_000)),
        format!("a: x{} -> b", ".y".repeat(5_000)),
        format!("a: list{} -> b", "[int]".repeat(5_000)),
        format!("a = {}{} -> b", "[".repeat(5_000), "]".repeat(5_000)),
    ] {
        assert_eq!(
            read(&source, &Limits::default()).unwrap_err().code,
            Code::TooDeep
        );
    }
    assert_eq!(
        outputs(&format!("-> a: int{}", " | int".repeat(5_000))),
        [Type::Int]
    );
}

#[test]
fn default_instructions_are_told_from_others() {
    let ast = parse("a -> b", &Limits::default()).unwrap();
    let make =
        |instructions| lower("a -> b", &ast, &instructions, &Limits::default(), &mut Host).unwrap();
    assert!(make(Instructions::Default).has_default_instructions());
    assert!(make(Instructions::Given("")).has_default_instructions());
    assert_eq!(
        make(Instructions::Given("\n  Do\n  it.\n")).instructions(),
        "Do\nit."
    );
    assert_eq!(make(Instructions::Exact("")).instructions(), "");
    assert!(!make(Instructions::Exact("")).has_default_instructions());
}

/// A host that knows `Thing`, gives `int` another meaning and wraps what `Annotated` says.
struct Host;

impl Resolver for Host {
    fn shadows(&self, name: &str) -> bool {
        name == "int"
    }

    fn resolve(&mut self, expr: &ast::Expr<'_>) -> Result<Type, SignatureError> {
        match &expr.kind {
            ast::ExprKind::Name(name) if name == "int" || name == "Thing" => Ok(thing(7)),
            ast::ExprKind::Subscript(base, _) => self.resolve(base),
            _ => Err(unknown(expr)),
        }
    }

    fn annotated(
        &mut self,
        name: &str,
        kind: FieldKind,
        _: &ast::Expr<'_>,
    ) -> Result<Field, SignatureError> {
        let mut field = Field::new(name, kind, Some(Type::Bool));
        field.external = Some(3);
        Ok(field)
    }

    fn finish(&mut self, _: &ast::Expr<'_>, ty: Type) -> Result<Type, SignatureError> {
        Ok(ty)
    }
}

fn thing(index: u32) -> Type {
    Type::External(External {
        index,
        name: "Thing".into(),
        pipe_name: None,
        source: "my.Thing".into(),
    })
}

#[test]
fn the_host_gives_meaning_to_what_rust_does_not_know() {
    let source = "a: list[Thing], b: int, c: Thing[str], d: Annotated[str, Field(x=Thing)] -> e: Literal[Color.RED]";
    let ast = parse(source, &Limits::default()).unwrap();
    let lowered = lower(
        source,
        &ast,
        &Instructions::Default,
        &Limits::default(),
        &mut Host,
    );
    assert_eq!(lowered.unwrap_err().code, Code::UnknownName);

    let source = source.replace("Literal[Color.RED]", "tuple[Thing, ...] | None");
    let ast = parse(&source, &Limits::default()).unwrap();
    let signature = lower(
        &source,
        &ast,
        &Instructions::Default,
        &Limits::default(),
        &mut Host,
    )
    .unwrap();
    assert_eq!(
        signature.text(),
        "a: list[my.Thing], b: my.Thing, c: my.Thing, d: bool -> e: Optional[tuple[my.Thing, ...]]"
    );
    assert!(!signature.is_textual());
    let mut seen = Vec::new();
    let renumbered = signature.renumber(&mut |index| {
        seen.push(index);
        0
    });
    assert_eq!(seen, [7, 7, 7, 3, 7]);
    assert_eq!(renumbered.inputs()[3].external, Some(0));
}

#[test]
fn native_names_are_those_that_rust_reads() {
    assert!(
        ["int", "List", "Literal", "typing", "bytearray"]
            .iter()
            .all(|name| is_native(name))
    );
    assert!(!is_native("Sequence"));
}

#[test]
fn a_union_of_one_is_that_one() {
    assert_eq!(union(vec![Type::Int]), Type::Int);
    let pipe = Type::Union {
        members: [Type::Int, Type::None].into(),
        spelling: UnionSpelling::Pipe,
    };
    assert_eq!(text_of(&pipe), "int | None");
    assert_eq!(
        union(vec![pipe, Type::Str]).display_name(),
        "Union[int, NoneType, str]"
    );
}

#[test]
fn a_field_is_found_by_its_name() {
    let signature: Signature = good("a -> b: int");
    assert_eq!(signature.field("b").unwrap().ty, Type::Int);
    assert_eq!(signature.field("c"), None);
    assert!(good("-> a: int | None").outputs()[0].is_optional());
    assert!(!signature.outputs()[0].is_optional());
}

#[test]
fn rust_alone_knows_no_more_than_its_own_names() {
    let source = "a: Sequence[int], b: list[int][str], c: x.y, e: (int, str)[int] -> d";
    let ast = parse(source, &Limits::default()).unwrap();
    let [sequence, nested, attribute, tuple] = &*ast.inputs else {
        panic!("four fields")
    };
    let code = |field: &ast::Parameter<'_>| unknown(field.annotation.as_ref().unwrap()).code;
    assert_eq!(
        [code(sequence), code(nested), code(attribute)],
        [Code::UnknownName; 3]
    );
    assert_eq!(code(tuple), Code::NotAType);
    let expr = sequence.annotation.as_ref().unwrap();
    assert_eq!(NativeOnly.finish(expr, Type::Any).unwrap(), Type::Any);
    assert!(read("a: list[int][str] -> b", &Limits::default()).is_err());
}
