"""Templates from Python: what values become, what goes wrong and where, and that nothing runs away."""

from __future__ import annotations

import collections
import copy
import datetime
import decimal
import enum
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dspex
from dspex import Template, errors


class Mood(enum.Enum):
    CALM = "calm"


class Person(pydantic.BaseModel):
    name: str
    born: int | None = None
    _secret: str = pydantic.PrivateAttr("s3cret")


@dataclass
class Point:
    x: int
    y: float


VALUES = [
    "plain <b>&</b> {{ x }}",
    "",
    None,
    True,
    5,
    -(2**63) - 1,
    2**200,
    5.0,
    1e20,
    1e-7,
    float("nan"),
    [],
    {},
    (),
    ["a", 1, None, float("nan"), [True, {"k": 'q"\n'}]],
    ("a", (1, 2)),
    {"a": [1], "é": None, 3: "three"},
    {1, 2},
    b"bytes",
    datetime.date(2020, 1, 2),
    datetime.timedelta(seconds=5),
    decimal.Decimal("1.10"),
    Mood.CALM,
    Person(name="Ada"),
    [Person(name="Ada", born=1815), datetime.date(2020, 1, 2)],
    {"p": Person(name="Ada"), "d": decimal.Decimal("1.5")},
    Point(1, 2.0),
    collections.OrderedDict(a=1),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:40])
def test_a_value_is_written_as_dspy_writes_it(value: Any) -> None:
    from dspy.adapters.utils import format_field_value
    from pydantic.fields import FieldInfo

    expected = format_field_value(FieldInfo(annotation=dict), value)
    assert Template("{{ x }}").render(x=value) == expected
    assert Template("{{ x | text }}").render({"x": value}) == expected


@pytest.mark.parametrize("texts", [[], ["one"], ["a", "b\nc"], ["«q»", "d"], ["é"] * 11], ids=repr)
def test_numbered_is_dspys_list_in_a_text_field(texts: list[str]) -> None:
    from dspy.adapters.utils import format_field_value
    from pydantic.fields import FieldInfo

    assert Template("{{ x | numbered }}").render(x=texts) == format_field_value(
        FieldInfo(annotation=str), texts
    )


def test_a_prompt_of_dspys_can_be_written_as_a_template() -> None:
    import dspy

    source = """
{%- for demo in demos %}{{ 'question'|marker }}
{{ demo.question }}

{{ 'answer'|marker }}
{{ demo.answer }}

{% endfor -%}
{{ 'question'|marker }}
{{ question }}

{{ 'passages'|marker }}
{{ passages|numbered }}

Respond with the corresponding output fields, starting with the field `{{ 'answer'|marker }}`, and then \
ending with the marker for `{{ 'completed'|marker }}`."""
    given = {"question": "Who?", "passages": ["one", "two\nlines"]}
    messages = dspy.ChatAdapter().format(dspy.Signature("question, passages -> answer"), [], given)
    assert Template(source).render(given, demos=[]) == messages[-1]["content"]
    with_demo = Template(source).render(given, demos=[{"question": "Q", "answer": "A"}])
    assert with_demo.startswith(
        "[[ ## question ## ]]\nQ\n\n[[ ## answer ## ]]\nA\n\n[[ ## question ## ]]\nWho?"
    )


def test_entries_of_lists_dicts_and_models_are_reached() -> None:
    source = (
        "{{ m.name }} {{ m['born'] }} {{ d.a[1] }} {{ d[3] }} {{ t[-1] }} {{ t|length }} {{ d.get('z', 7) }}"
    )
    values = {"m": Person(name="Ada", born=1815), "d": {"a": [1, 2], 3: "x"}, "t": ("p", "q")}
    assert Template(source).render(values) == "Ada 1815 2 x q 2 7"
    loops = "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }}{% endfor %}"
    assert Template(loops).render(d={"a": 1, "b": 2}) == "a=1;b=2;ab"
    assert Template("{{ d.keys() }}{{ d.values() }}").render(d={"a": 1}) == '["a"][1]'


def test_what_is_not_used_is_not_touched() -> None:
    class Untouchable(dict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            raise AssertionError(key)

        def __iter__(self) -> Iterator[str]:
            raise AssertionError

    values = {"used": 1, "unused": Untouchable(a=1), "nested": {"used": 2, "unused": Untouchable()}}
    assert Template("{{ used }}{{ nested.used }}").render(values) == "12"


@pytest.mark.parametrize("hostile", ["{{ secret }}", "{% if x %}", "{#", "{{ x }}", "[[ ## answer ## ]]"])
def test_a_value_is_never_read_as_a_template(hostile: str) -> None:
    template = Template("<{{ x }}|{{ y.z }}|{{ [x] }}>")
    rendered = template.render(x=hostile, y={"z": hostile}, secret="s3cret")
    assert rendered == f'<{hostile}|{hostile}|["{hostile}"]>'


@pytest.mark.parametrize(
    "source",
    [
        "{{ x.__class__ }}",
        "{{ x['__class__'] }}",
        "{{ x._secret }}",
        "{{ x.model_dump() }}",
        "{{ x.model_fields }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ f.__globals__ }}",
        "{{ f() }}",
        "{{ x|attr('__class__') }}",
        "{{ self }}",
        "{{ debug() }}",
        "{{ cycler }}",
        "{{ lipsum() }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{{ (1).__class__ }}",
    ],
)
def test_a_template_reaches_nothing_but_the_data(source: str) -> None:
    with pytest.raises(errors.TemplateError):
        Template(source).render(x=Person(name="Ada"), f=print)


MISTAKES = [
    ("a{{ missing }}b", "template-undefined", "missing"),
    ("é\n{{ x.nope }}", "template-undefined", "x.nope"),
    ("{{ x|nope }}", "template-unknown-name", "nope"),
    ("{{ 1 + 'a' }}", "template-operation", "1 + 'a'"),
    ("{% if %}", "template-syntax", "%}"),
    ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "template-fuel", None),
    ("{{ 'x' * 1000000000000 }}", "template-fuel", None),
    ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "template-depth", None),
    ("{% for a in range(9000) %}{{ 'x' * 1000 }}{% endfor %}", "template-output", None),
    ("x" * (2**20 + 1), "template-source-too-long", None),
    ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "template-syntax", None),
    *((f"{{{{ 1 {link * 100_000}", "template-syntax", None) for link in ("-", "|upper", ".a", "+1", "~1")),
    ("{% if x %}" + "{% elif x %}" * 80_000 + "{% endif %}", "template-syntax", None),
    *(
        (
            "{% set n = namespace(x=['a']) %}{% for _ in range(64) %}{% set n.x = [n.x, n.x] %}{% endfor %}"
            + f"{{{{ n.x{written} }}}}",
            "template-value",
            None,
        )
        for written in ("", "|json", "|string", "|text|length", "|numbered")
    ),
]


@pytest.mark.parametrize(("source", "code", "place"), MISTAKES, ids=lambda value: str(value)[:30])
def test_a_mistake_has_a_code_and_a_place(source: str, code: str, place: str | None) -> None:
    with pytest.raises(errors.TemplateError) as caught:
        Template(source).render(x={})
    error = caught.value
    assert error.code == code
    assert error.source == source
    if place is not None:
        assert error.span is not None
        assert source[slice(*error.span)] == place
        assert "^" * len(place) in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))


def test_an_error_does_not_show_the_values() -> None:
    for source in (
        "{{ a.nope }}",
        "{{ a + 1 }}",
        "{{ a() }}",
        "{{ a|int }}",
        "{{ a.b.c }}",
        "{{ [a]|numbered|int }}",
    ):
        with pytest.raises(errors.TemplateError) as caught:
            Template(source).render(a="s3cret")
        assert "s3cret" not in str(caught.value)
        assert "s3cret" not in repr(caught.value.to_dict())


def test_what_a_value_raises_reaches_the_caller_untouched() -> None:
    class Broken:
        def __str__(self) -> str:
            raise ZeroDivisionError("mine")

    raised = Broken()
    for source in ("{{ x }}", "{{ x|default('d') }}", "{{ y[0] }}", "{% for a in y %}{{ a }}{% endfor %}"):
        with pytest.raises(ZeroDivisionError, match="mine"):
            Template(source).render(x=raised, y=[raised])
    with pytest.raises(errors.InputError, match="surrogate"):
        Template("{{ x }}").render(x="\ud800")
    assert Template("{{ x }}").render(x=1) == "1"


def test_a_value_may_render_a_template_itself() -> None:
    class Nested:
        def __str__(self) -> str:
            with pytest.raises(errors.TemplateError):
                Template("{{ nope }}").render()
            return Template("<{{ y }}>").render(y=1)

    assert Template("{{ x }}{{ x }}").render(x=Nested()) == "<1><1>"


def test_a_list_that_holds_itself_comes_to_an_end() -> None:
    circle: list[Any] = []
    circle.append(circle)
    for source in ("{{ x }}", "{{ x|join }}", "{{ x|string }}", "{{ x ~ '' }}", "{{ x|lower }}"):
        assert Template(source).render(x=circle) in ("[[...]]", "[[[...]]]"), source
    assert Template("{{ x == y }}").render(x=circle, y=circle) == "True"


def test_values_are_equal_that_python_finds_equal() -> None:
    same = Template("{{ x == y }} {{ y in [x] }} {{ x != y }}").render
    assert same(x=[1, {"a": [True]}], y=[1, {"a": [1.0]}]) == "True True False"
    assert same(x=[1, {"a": 2}], y=[1, {"a": 3}]) == "False False True"
    one: list[Any] = []
    other: list[Any] = []
    for _ in range(50_000):
        one, other = [one], [other]
    with pytest.raises(RecursionError):
        same(x=one, y=other)


def test_parts_of_a_value_are_written_alike_wherever_they_become_text() -> None:
    value = {"a": [None, True, 1.0]}
    for source in ("{{ x }}", "{{ x ~ '' }}", "{{ [x]|join }}", "{{ x|string }}", "{{ x|json }}"):
        assert Template(source).render(x=value) == '{"a": [null, true, 1.0]}'


@pytest.mark.parametrize(
    ("limit", "source", "code"),
    [
        ({"fuel": 10}, "{% for a in range(50) %}{{ a }}{% endfor %}", "template-fuel"),
        ({"max_output": 10}, "{{ 'x' * 11 }}", "template-output"),
        ({"max_depth": 10}, "{% macro m(n) %}{{ m(n) }}{% endmacro %}{{ m(1) }}", "template-depth"),
    ],
)
def test_each_limit_does_what_it_says(limit: dict[str, Any], source: str, code: str) -> None:
    with pytest.raises(errors.TemplateError) as caught:
        Template(source, **limit).render()
    assert caught.value.code == code
    (name,) = limit
    for wrong in (0, -1, True, 1.5, 2**63, "9"):
        with pytest.raises(errors.ConfigError, match=name):
            Template("x", **{name: wrong})  # type: ignore[arg-type]


def test_a_template_knows_its_variables_and_fits_a_signature_or_not() -> None:
    template = Template(
        "{% for d in demos %}{{ d.q }}{% endfor %}{% set a = question %}{{ a }}{{ range(2) }}"
    )
    assert template.variables == ("demos", "question")
    signature = dspex.Signature("question, context: list[str] -> answer")
    assert template.validate(signature) == ("context",)
    assert template.validate("question -> answer") == ()
    with pytest.raises(errors.TemplateError, match="does not give: demos") as caught:
        template.validate(signature, extra=())
    assert caught.value.unknown == ["demos"]
    with pytest.raises(errors.TemplateError, match="its inputs are: query"):
        template.validate("query -> answer")


JINJA = [
    "a\n",
    "a\n\n",
    "{% if x %}\n{{ x }}\n{% else %}no{% endif %}\n",
    "  {%- set a = 1 -%}  {{ a }}  {#- comment -#}  b",
    "{% for i in xs %}{{ loop.index }}/{{ loop.length }}{% if not loop.last %}, {% endif %}{% endfor %}",
    "{% for i in [] %}x{% else %}none{% endfor %}",
    "{% for a, b in [[1, 2], [3, 4]] %}{{ a + b }};{% endfor %}",
    "{{ xs|join('-') }} {{ xs|length }} {{ xs|first }}{{ xs|last }} {{ xs|sort|join }}{{ xs|reverse|join }}",
    "{{ x|upper }} {{ x|lower }} {{ x|trim }} {{ x|title }} {{ x|replace('a', 'b') }} {{ x|default('d') }}",
    "{{ y is defined }} {{ y|default('d') }} {{ x is string }} {{ 3 is odd }} {{ 'a' in xs }}",
    "{{ 1 // 2 }} {{ 7 % 3 }} {{ 2 ** 3 }} {{ 3 / 2 }} {{ 'a' ~ 1 }} {{ 1 < 2 and not false }}",
    "{{ 'x' if d.k == 1 else 'y' }} {{ d['k'] }} {{ d.k }}",
    "{% raw %}{{ not a variable }}{% endraw %}",
    "{% macro m(a, b='z') %}<{{ a }}{{ b }}>{% endmacro %}{{ m(1) }}{{ m('x', b=2) }}",
    "{{ x[1:] }} {{ xs[0] }} {{ xs[-1] }} {{ 'abc'[::-1] }}",
    "{% set ns = namespace(n=0) %}{% for i in xs %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "{% for k, v in d|dictsort %}{{ k }}={{ v }};{% endfor %}{% filter upper %}abc{% endfilter %}",
    "{{ 'line\none'|indent(2) }} {{ range(3)|list|join }} {% with z = 5 %}{{ z }}{% endwith %}",
]


@pytest.mark.parametrize("source", JINJA)
def test_jinjas_language_means_what_it_means_in_jinja2(source: str) -> None:
    import jinja2

    values = {"x": "banana split", "xs": ["c", "a", "b"], "d": {"k": 1, "a": "z"}}
    assert Template(source).render(values) == jinja2.Template(source).render(values)


FRAGMENTS = """
{{ }} {% %} {# #} {%- -%} {{- -}} for in if elif else endif endfor set macro endmacro call m() x y loop
loop.index x.a x[0] x[y] | ~ + * ** // % == ( ) [ ] { } , : . 'a' " 1 2.5 99999999999999999999 -1 none true
range(9) é |join |upper |numbered |json |marker |items |sort |default('') |batch(2) |length [[ raw endraw
recursive namespace() is defined odd not x|attr('a') self super()
"""
VALUES_OF_ANY_KIND = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab{}%", max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=500)
@given(
    st.lists(st.sampled_from(FRAGMENTS.split()) | st.text(max_size=3), max_size=25),
    VALUES_OF_ANY_KIND,
    VALUES_OF_ANY_KIND,
)
def test_any_template_with_any_values_gives_a_text_or_one_error(parts: list[str], x: Any, y: Any) -> None:
    try:
        rendered = Template(" ".join(parts), fuel=20_000, max_output=10_000).render(x=x, y=y)
    except (errors.TemplateError, errors.InputError):
        return
    assert len(rendered.encode()) <= 10_000


def test_a_template_is_a_value_and_compiled_once() -> None:
    template = Template("{{ x }}")
    assert template == Template("{{ x }}") == pickle.loads(pickle.dumps(template)) == copy.deepcopy(template)
    assert hash(template) == hash(Template("{{ x }}"))
    assert template != Template("{{ x }}", fuel=7)
    assert template != "{{ x }}"
    assert template._compiled is Template("{{ x }}")._compiled
    assert repr(Template("y" * 99)) == f"Template('{'y' * 57}...')"
    assert template.source == "{{ x }}"
