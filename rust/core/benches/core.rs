//! The core alone, each case named for what it stresses: `make bench-rust`. What the public call takes beyond it, in
//! `benches/` of the repository, is the price of the boundary.
//!
//! Each result is looked at once before it is timed. A figure is the fastest of many short rounds, which on a machine
//! that does other things too is the one that comes again.

#[path = "../tests/prompts/record.rs"]
mod record;

use std::hint::black_box;
use std::time::{Duration, Instant};

use dspex_core::dialect::Dialect;
use dspex_core::prompt::{ExternalField, Layout, Markers, Plan};
use dspex_core::response::{Reading, read_text};
use dspex_core::signature::{Instructions, Limits, NativeOnly, Signature, lower, parse};
use dspex_core::template::{self, NoContainer, Template, data};
use jiter::JsonValue;
use record::{JsonRecord, render};

const FOUR: &str = "question: str, context: list[str] -> answer: str, confidence: float";
const TWELVE: &str = "question: str, b: list[dict[str, int]], c: Optional[Literal['x', 'y', 'z']], \
    d: dict[str, list[tuple[int, str]]], e: int | None, f: set[str] -> g: Literal['a', 'b', 'c'], \
    h: list[list[float]], i: Union[int, str, None], j: tuple[int, ...], k: bool, l: dict[str, dict[str, float]]";
const SENTENCE: &str = "A sentence of some length, as an example has it. ";

const ROUNDS: usize = 200;
const ROUND: Duration = Duration::from_micros(500);

fn time<T>(name: &str, mut run: impl FnMut() -> T) {
    let begun = Instant::now();
    black_box(run());
    let once = begun.elapsed().max(Duration::from_nanos(10));
    let calls = (ROUND.as_nanos() / once.as_nanos()).clamp(1, 10_000);
    let round = || {
        let begun = Instant::now();
        for _ in 0..calls {
            black_box(run());
        }
        begun.elapsed()
    };
    let fastest = std::iter::repeat_with(round).take(ROUNDS).min();
    let nanoseconds = fastest.unwrap_or_default().as_nanos();
    println!("{name:32} {:>9} ns", nanoseconds / calls);
}

fn signature(source: &str) -> Signature {
    let (limits, instructions) = (Limits::default(), Instructions::Default);
    let ast = parse(source, &limits).unwrap();
    lower(source, &ast, &instructions, &limits, &mut NativeOnly).unwrap()
}

fn plan(layout: Layout) -> Plan {
    let external = vec![ExternalField::default(); 4];
    Plan::compile(&signature(FOUR), layout, &external, Dialect::newest())
        .with_markers(Markers::Report)
}

fn json(text: &str) -> JsonValue<'_> {
    JsonValue::parse(text.as_bytes(), false).unwrap()
}

fn main() {
    assert_eq!(signature(TWELVE).fields().len(), 12);
    time("signature_four_fields", || signature(FOUR));
    time("signature_twelve_fields", || signature(TWELVE));
    time("plan_four_fields", || plan(Layout::Chat));

    let text = SENTENCE.repeat(2);
    let demo = format!(
        r#"{{"question": "{text}", "context": ["{text}", "{text}"], "answer": "{text}", "confidence": 0.5}}"#
    );
    let html = format!(
        r#"{{"question": "{}", "context": []}}"#,
        "<p>x [1]</p>".repeat(8_000)
    );
    for (name, layout) in [
        ("chat", Layout::Chat),
        ("json", Layout::Json),
        ("xml", Layout::Xml),
    ] {
        let plan = plan(layout);
        for count in [0, 16] {
            let demos: Vec<_> = (0..count).map(|_| JsonRecord(json(&demo))).collect();
            let inputs = JsonRecord(json(&demo));
            assert_eq!(
                render(&plan, &inputs, &demos, &[]).messages.len(),
                2 + 2 * count
            );
            time(&format!("render_{name}_{count}_demos"), || {
                render(&plan, &inputs, &demos, &[])
            });
        }
        let page = JsonRecord(json(&html));
        assert!(render(&plan, &page, &[], &[]).injected.is_empty());
        time(&format!("render_{name}_html_100_kb"), || {
            render(&plan, &page, &[], &[])
        });
    }

    let table = signature("q -> rows: list[dict[str, Any]]");
    let rows = format!(
        "[{}]",
        [r#"{"name": "a", "score": 0.5, "tags": ["x", "y"]}"#; 200].join(", ")
    );
    let ty = &table.fields()[1].ty;
    assert!(matches!(
        read_text(&rows, ty, Dialect::newest()),
        Reading::Value(_)
    ));
    time("read_table_200_rows", || {
        read_text(&rows, ty, Dialect::newest())
    });

    let source = "{% for item in items %}{{ loop.index }}. {{ item }}\n{% endfor %}{{ name }}";
    let limits = template::Limits::default();
    let compile = || Template::<NoContainer>::compile(source, limits, Markers::AsIs).unwrap();
    let values = data::Value::from_pairs([
        ("items", data::Value::from(vec![SENTENCE; 8])),
        ("name", data::Value::from("x")),
    ]);
    let template = compile();
    assert!(
        template
            .render(values.clone())
            .unwrap()
            .text
            .ends_with("8. A sentence of some length, as an example has it. \nx")
    );
    time("template_compile", compile);
    time("template_loop_of_8", || template.render(values.clone()));
}
