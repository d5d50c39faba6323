"""Eight times as much text or data from outside costs some eight times as much, not sixty-four.

Each row is one entry point and one shape of text. What is measured is the processor time of this thread, at
sizes that take long enough to be told apart from the noise, and the best of several turns.
"""

from __future__ import annotations

import gc
import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex import ChatAdapter, JSONAdapter, Signature, Template, XMLAdapter, errors, metrics
from dspex.compiled._document import sealed

Work = Callable[[], object]
Rows = dict[str, Callable[[int], Work]]

ENOUGH = 0.001
"""Seconds of the smaller size: below, the clock and the caches decide."""
LARGE = 1 << 15
"""What takes less for so much is cheap enough; beyond it a cache miss costs more than a step."""
GROWTH = 8
MOST = 28
"""How many times longer the larger size may take: more than GROWTH times, as caches hold less of it.
Quadratic work takes 64 times as long."""
TURNS = 3


def seconds(work: Work) -> float:
    """The least processor time that the work takes."""

    def once() -> float:
        before = time.thread_time()
        work()
        return time.thread_time() - before

    collects = gc.isenabled()
    gc.disable()  # it goes over all that the process holds, other tests' things included
    try:
        return min(once() for _ in range(TURNS))
    finally:
        if collects:
            gc.enable()


def check(make: Callable[[int], Work]) -> None:
    """The work for GROWTH times a size takes at most MOST times as long."""
    size = 256
    while (small := seconds(make(size))) < ENOUGH:
        size *= 2
        if size > LARGE:
            return  # so much in so little time: there is nothing to bound
    large = seconds(make(size * GROWTH))
    if large > MOST * small:  # once more, before somebody is blamed for what else the machine had to do
        small, large = seconds(make(size)), seconds(make(size * GROWTH))
    assert large <= MOST * small, f"size {size}: {small:.4f} s, {GROWTH} times that: {large:.4f} s"


# --- signatures ------------------------------------------------------------------------------------------


@pytest.fixture
def no_limits() -> Iterator[None]:
    before = Signature.limits()
    Signature.set_limits(length=1 << 30, depth=64, fields=1 << 20)
    yield
    Signature.set_limits(**before._asdict())
    Signature.cache_clear()


_fresh = itertools.count()


def read(text: str) -> Work:
    """Read a text, or refuse it; each time anew."""

    def work() -> object:
        try:
            return Signature(f"{text} # {next(_fresh)}\n")
        except errors.SignatureError as error:
            return str(error)

    return work


def numbered(n: int, form: str, sep: str = ", ") -> str:
    return sep.join(form.format(i) for i in range(n // 8))


SIGNATURES: Rows = {
    "inputs": lambda n: read(numbered(n, "f{}") + " -> a"),
    "outputs": lambda n: read("a -> " + numbered(n, "f{}")),
    "typed fields": lambda n: read(numbered(n, "f{}: list[int]") + " -> a: dict[str, int]"),
    "one field over and over": lambda n: read(", ".join(["a"] * (n // 2)) + " -> b"),
    "a name on both sides": lambda n: read(numbered(n, "f{}") + f" -> f{n // 8 - 1}"),
    "a literal of texts": lambda n: read("q -> a: Literal[" + numbered(n, "'v{}'") + "]"),
    "a literal of numbers": lambda n: read("q -> a: Literal[" + numbered(n, "{}") + "]"),
    "a literal of literals": lambda n: read("q -> a: Literal[" + numbered(n, "Literal['v{}']") + "]"),
    "a literal of one value": lambda n: read("q -> a: Literal[" + "'v', " * (n // 4) + "'w']"),
    "a union": lambda n: read("q -> a: Union[" + numbered(n, "Literal[{}]") + "]"),
    "bars": lambda n: read("q -> a: " + numbered(n, "tuple[Literal[{}]]", " | ")),
    "a union of unions": lambda n: read("q -> a: Union[" + numbered(n, "Union[int, Literal[{}]]") + "]"),
    "a tuple": lambda n: read("q -> a: tuple[" + "int, " * n + "str]"),
    "brackets without an end": lambda n: read("q -> a: " + "list[" * n),
    "brackets that close nothing": lambda n: read("q -> a" + "]" * n),
    "parentheses": lambda n: read("q -> a: " + "(" * n),
    "dots": lambda n: read("q -> a" + ".a" * n),
    "a long name": lambda n: read("q -> " + "a" * n),
    "a long name in capitals": lambda n: read("q -> " + "aB" * n),
    "a long name of digits and letters": lambda n: read("q -> a" + "1b_" * n),
    "a long name that changes in NFKC": lambda n: read("q -> " + "ﬁ" * n),
    "a name with many marks": lambda n: read("q -> a" + "\u0301\u0323" * n),
    "an unknown name": lambda n: read("q -> a: " + "é" * n),
    "strings side by side": lambda n: read("q -> a: Literal[" + "'a' " * n + "]"),
    "a string without an end": lambda n: read("q -> a: Literal['" + "a" * n),
    "escapes": lambda n: read(r"q -> a: Literal['" + r"\x41" * n + "']"),
    "a string in many lines": lambda n: read("q -> a: Literal['''" + "a\n" * n + "''']"),
    "bytes": lambda n: read("q -> a: Literal[b'" + r"\x00" * n + "']"),
    "quoted types": lambda n: read("q -> a: tuple[" + "'int', " * n + "]"),
    "a long number": lambda n: read("q -> a: Literal[0x" + "f" * (n % 4096) + "]"),
    "comments": lambda n: read("q, " + "# c\n" * n + " -> a"),
    "joined lines": lambda n: read("q " + "\\\n" * n + " -> a"),
    "blanks": lambda n: read("q" + " " * n + "-> a"),
    "arrows": lambda n: read("->" * n),
    "defaults": lambda n: read(numbered(n, "f{}: int = 1") + " -> a"),
    "a default of lists": lambda n: read("q = [" + "[], " * n + "] -> a"),
    "notes": lambda n: read("q -> a: Annotated[int, " + "'x', " * n + "]"),
    "constraints": lambda n: read("q -> a: Annotated[int, " + "Field(gt=1), " * (n // 64) + "]"),
}


@pytest.mark.usefixtures("no_limits")
@pytest.mark.parametrize("shape", SIGNATURES)
def test_reading_a_signature(shape: str) -> None:
    check(SIGNATURES[shape])


def _class(n: int) -> Any:
    return dspex.Signature(numbered(n, "f{}: int") + " -> a")


def _instructions(text: str) -> Work:
    signature = Signature("q -> a")
    return lambda: signature.with_instructions(text)


SIGNATURE_WORK: Rows = {
    "instructions in lines": lambda n: _instructions("  line\n" * n),
    "instructions of blank lines": lambda n: _instructions(" \n" * n),
    "instructions of tabs": lambda n: _instructions("\t" * n),
    "instructions indented ever deeper": lambda n: _instructions(
        "\n".join(" " * (i % 64) + "x" for i in range(n))
    ),
    "a description": lambda n: lambda: Signature("q -> a").with_updated_fields("a", desc="d\n" * n),
    "one more field": lambda n: (lambda s: lambda: s.append("b", dspex.OutputField()))(_class(n)),
    "one field less": lambda n: (lambda s: lambda: s.delete("f1"))(_class(n)),
    "the text": lambda n: (lambda s: lambda: (str(s), repr(s)))(_class(n)),
    "comparing": lambda n: (lambda a, b: lambda: (a == b, hash(a)))(_class(n), _class(n)),
    "the fields": lambda n: (lambda s: lambda: dict(s.fields))(_class(n)),
    "the state": lambda n: (lambda s: lambda: s.load_state(s.dump_state()))(_class(n)),
    "inputs that fit": lambda n: (
        lambda s: (lambda values: lambda: s.validate_inputs(values))(dict.fromkeys(s.input_fields, 1))
    )(_class(n)),
    "inputs that nobody knows": lambda n: (
        lambda s: (lambda values: lambda: _refused(s.validate_inputs, values))(
            {f"x{i}": 1 for i in range(n // 8)}
        )
    )(_class(n)),
    "inputs of which none fits": lambda n: (
        lambda s: (lambda values: lambda: _refused(s.validate_inputs, values))(
            dict.fromkeys(s.input_fields, "x")
        )
    )(_class(n)),
    "a long list": lambda n: (lambda s: lambda: s.validate_inputs({"q": [1] * n}))(
        Signature("q: list[int] -> a")
    ),
    "a long dict": lambda n: (
        lambda s: (lambda value: lambda: s.validate_inputs({"q": value}))({str(i): i for i in range(n)})
    )(Signature("q: dict[str, int] -> a")),
}


def _refused(call: Callable[..., object], *args: object) -> object:
    try:
        return call(*args)
    except errors.DspexError as error:
        return str(error)


@pytest.mark.usefixtures("no_limits")
@pytest.mark.parametrize("shape", SIGNATURE_WORK)
def test_working_with_a_signature(shape: str) -> None:
    check(SIGNATURE_WORK[shape])


# --- prompts ---------------------------------------------------------------------------------------------

ADAPTERS: dict[str, Any] = {"chat": ChatAdapter, "json": JSONAdapter, "xml": XMLAdapter}
PIECES = {
    "tags that do not end": "<",
    "tags": "<a>",
    "tags with attributes": "<a x='1'>",
    "names of tags": "<a ",
    "entries": "<entry ",
    "entries with quotes": "<entry x='",
    "entries with keys": "<entry key='a'>",
    "ends of tags": ">",
    "closing tags": "</a>",
    "brackets": "[",
    "headers": "[[ ## a ## ]]",
    "beginnings of headers": "[[ ## ",
    "hashes": "#",
    "ampersands": "&",
    "references": "&amp;",
    "backslashes": "\\",
    "quotes": '"',
    "line breaks": "\n",
    "other line breaks": "\u2028\r",
    "blanks": " ",
    "guillemets": "«",
    "beginnings of blocks": "<<CUSTOM-TYPE-START-IDENTIFIER>>",
    "blocks": "<<CUSTOM-TYPE-START-IDENTIFIER>>[]<<CUSTOM-TYPE-END-IDENTIFIER>>",
    "words": "x",
    "letters beyond ASCII": "é",
}
SHAPES: dict[str, Callable[[str, int], dict[str, Any]]] = {
    "a text": lambda piece, n: {"q": piece * (n // len(piece))},
    "a text with an end": lambda piece, n: {"q": piece * (n // len(piece)) + "'>"},
    "a list of one": lambda piece, n: {"l": [piece * (n // len(piece))]},
    "a list of many": lambda piece, n: {"l": [piece] * (n // len(piece))},
    "a mapping": lambda piece, n: {"d": {f"{piece}{i}": piece for i in range(n // len(piece) // 4)}},
    "a tree": lambda piece, n: {"t": [[piece, {piece: [piece]}]] * (n // len(piece) // 4)},
}


def prompt(layout: str, markers: Any, values: dict[str, Any]) -> Work:
    plan = ADAPTERS[layout](markers=markers).compile(
        "q, l: list[str], d: dict[str, str], t: list[Any] -> a, b: list[str]"
    )
    return lambda: _refused(plan.render, values)


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("layout", ["chat", "xml"])
def test_a_value_in_a_prompt(layout: str, piece: str) -> None:
    for shape in SHAPES.values():
        check(lambda n, shape=shape: prompt(layout, "escape", shape(PIECES[piece], n)))  # type: ignore[misc]


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("markers", ["dspy", "warn", "reject"])
def test_a_value_under_each_policy(markers: Any, piece: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("ERROR")
    check(lambda n: prompt("xml", markers, SHAPES["a text"](PIECES[piece], n)))


def _values(n: int, value: str) -> dict[str, str]:
    return {f"f{i}": value for i in range(n // 8)}


def _plan(layout: str, n: int, outputs: bool = False) -> Any:
    fields = numbered(n, "f{}")
    adapter = ADAPTERS[layout](markers="escape")
    return adapter.compile(Signature(f"q -> {fields}" if outputs else f"{fields} -> a"))


def _compiled(layout: str, text: Callable[[int], str]) -> Callable[[int], Work]:
    def make(n: int) -> Work:
        def work() -> object:
            signature = Signature(f"{text(n)} # {next(_fresh)}\n")
            return ADAPTERS[layout]().compile(signature)

        return work

    return make


def _prompts(layout: str) -> Rows:
    injected = {"chat": "[[ ## a ## ]]", "json": "[[ ## a ## ]]", "xml": "<a>"}[layout]
    return {
        "many inputs": lambda n: (lambda plan: lambda: plan.render(_values(n, injected)))(_plan(layout, n)),
        "an example of many outputs": lambda n: (
            lambda plan: lambda: plan.render({"q": "x"}, [{"q": "x", **_values(n, injected)}])
        )(_plan(layout, n, outputs=True)),
        "half an example of many outputs": lambda n: (
            lambda plan: lambda: plan.render({"q": "x"}, [{"q": "x", "f1": injected}])
        )(_plan(layout, n, outputs=True)),
        "many examples": lambda n: (
            lambda plan: lambda: plan.render({"q": "x"}, [{"q": injected, "a": injected}] * (n // 8))
        )(ADAPTERS[layout](markers="escape").compile("q -> a")),
        "many turns": lambda n: (
            lambda plan: (
                lambda: plan.render(
                    {"q": "x"}, history=[{"q": injected, "a": injected, "x": injected}] * (n // 8)
                )
            )
        )(ADAPTERS[layout](markers="escape").compile("q -> a")),
        "compiling many inputs": _compiled(layout, lambda n: numbered(n, "f{}") + " -> a"),
        "compiling many outputs": _compiled(layout, lambda n: "q -> " + numbered(n, "f{}: list[int]")),
        "compiling a literal": _compiled(
            layout, lambda n: f"q -> a: Literal[{numbered(n, 'v{}')}]".replace("v", "1")
        ),
        "compiling a union": _compiled(layout, lambda n: f"q -> a: Union[{numbered(n, 'Literal[{}]')}]"),
    }


@pytest.mark.usefixtures("no_limits")
@pytest.mark.parametrize("shape", _prompts("chat"))
@pytest.mark.parametrize("layout", ADAPTERS)
def test_a_prompt(layout: str, shape: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("ERROR")
    check(_prompts(layout)[shape])


# --- replies ---------------------------------------------------------------------------------------------

REPLIES: dict[str, list[tuple[str, str]]] = {
    "chat": [
        *[("", "[[ ## "), ("", "[[ ## a"), ("", "**[[ ## a ## ]]**"), ("", "**[[ ## a ## ]]**\n"), ("", " ")],
        *[
            ("[[ ## a ## ]] ", "[[ ## b ## ]] "),
            ("[[ ## a ## ]] [[ ## b ## ]]", " x"),
            ("  ", "[[ ## a ## ]] "),
        ],
        *[("[[ ## a ## ]] ", "[[ ## completed ## ]] "), ("[[ ## a ## ]]\n", "[[ ## completed ## ]]\n")],
        *[
            ("[[ ## a ## ]]\n", piece)
            for piece in ("**", "**\n", "\\", '"', "'", "{", "]", "\r", "1. ", "\n - ")
        ],
        *[("**[[ ## a ## ]]\n", "** x"), ("**[[ ## a ## ]]\n", "* *\n"), ("", "```\n"), ("", "\u2028")],
    ],
    "json": [
        *[('{"a": "', piece) for piece in ("x", "\\", '\\"', "', 'n': ", '", ')],
        *[("", '"a": '), ('{"a": "x"', "```"), ('{"a": "x"', " "), ('{"a": "x", ', '"n": 1, '), ("", "x")],
    ],
    "xml": [
        *[("", piece) for piece in ("<", "<a", "<a>", "</a>", "<a>x</a>", "<b>x</b> & ", "<x><a>", "x")],
        *[
            ("<a>", piece)
            for piece in ("<b>", "</b>", "]]>", "<![CDATA[", "<!--", "&", "&amp;", "\r\n", '"', ">")
        ],
    ],
}
ENDS = {
    "chat": ["", "\n[[ ## n ## ]] 5 km", "\n**[[ ## n ## ]]** 5 km"],
    "json": ["", '", "n": "5 km"}'],
    "xml": ["", "</a><n>5 km</n>", " & </a><n>5 km</n>"],
}


def reply(layout: str, text: str, size: int | None) -> Work:
    """Read a reply whole, or in pieces of a size."""
    plan = ADAPTERS[layout]().compile("q -> a, b: Optional[str], n: int")

    def in_pieces() -> None:
        stream = plan.stream()
        for at in range(0, len(text), size or len(text)):
            stream.feed(text[at : at + (size or len(text))])
        stream.finish()

    return (lambda: _refused(plan.parse, text)) if size is None else in_pieces


@pytest.mark.parametrize("size", [None, 40])
@pytest.mark.parametrize("layout", REPLIES)
def test_a_reply(layout: str, size: int | None) -> None:
    for start, piece in REPLIES[layout]:
        for end in ENDS[layout]:

            def make(n: int, start: str = start, piece: str = piece, end: str = end) -> Work:
                return reply(layout, start + piece * (n // len(piece)) + end, size)

            check(make)


NEAR: dict[str, tuple[str, Callable[[int], str]]] = {
    "quotes in quotes": ("Literal['yes', 'no']", lambda n: "\"'" * n + "x" + "'\"" * n),
    "emphasis in emphasis": ("Literal['yes', 'no']", lambda n: "** " * n + "x" + " **" * n),
    "stops": ("bool", lambda n: "x" + "." * n),
    "a fence": ("bool", lambda n: "```" + "\n```" * n + "x"),
    "items that are none": ("list[int]", lambda n: "[" + '"5 km", ' * n + "1]"),
    "entries that are none": ("dict[str, int]", lambda n: "{" + numbered(8 * n, '"k{}": "5 km"') + "}"),
    "digits": ("int", lambda n: "1,234" * n + "x"),
    "a list that is cut off": ("list[int]", lambda n: "[" + "1, " * n),
}


@pytest.mark.parametrize("shape", NEAR)
def test_a_value_that_is_nearly_one_of_its_type(shape: str) -> None:
    kind, text = NEAR[shape]
    plan = ChatAdapter().compile(f"q -> a: {kind}")
    check(lambda n: lambda: _refused(plan.parse, f"[[ ## a ## ]]\n{text(n // 4)}"))


@pytest.mark.parametrize("name", ["k{}", "xmlns:k{}"])
def test_an_element_with_many_attributes(name: str) -> None:
    plan = XMLAdapter().compile("q -> a")
    check(lambda n: lambda: _refused(plan.parse, f"<a {numbered(8 * n, name + '=' + repr(''), ' ')}>x</a>"))


# --- templates and metrics -------------------------------------------------------------------------------


def template(source: str, **values: Any) -> Work:
    def work() -> object:
        return _refused(Template(source, markers="escape", fuel=2**40, max_output=2**40).render, values)

    return work


TEMPLATES: Rows = {
    "a value": lambda n: template("{{ x }}", x="[[ ## a ## ]]" * n),
    "beginnings of markers": lambda n: template("{{ x }}", x="[[ ## " * n),
    "a list": lambda n: template("{{ x }}", x=["<\\\n"] * n),
    "a loop": lambda n: template("{% for a in x %}{{ a }}{% endfor %}", x=["a"] * n),
    "a loop over a mapping": lambda n: template(
        "{% for k, v in x.items() %}{{ k }}{{ v }}{% endfor %}", x={str(i): i for i in range(n)}
    ),
    "a numbered list": lambda n: template("{{ x | numbered }}", x=["a\nb"] * n),
    "filters": lambda n: template("{{ x | upper | replace('A', 'b') | trim | length }}", x="a\n" * n),
    "a join": lambda n: template("{{ x | join(', ') }}", x=["a"] * n),
    "text": lambda n: template("x\n" * (n % (1 << 19))),
}


@pytest.mark.parametrize("shape", TEMPLATES)
def test_rendering_a_template(shape: str) -> None:
    check(TEMPLATES[shape])


SOURCES: dict[str, str] = {
    "text": "x",
    "braces": "{",
    "tags": "{{ x }}",
    "tags without an end": "{{ ",
    "comments": "{# x #}",
    "comments without an end": "{#",
    "raw": "{% raw %}",
    "raw blocks": "{% raw %}x{% endraw %}",
    "names": "{{ x1 }}",
    "quotes": "{{ '",
    "line breaks": "\n",
    "blocks": "{% if x %}y{% endif %}",
    "assignments": "{% set x = 1 %}",
    "macros": "{% macro m() %}{% endmacro %}",
}


@pytest.mark.parametrize("shape", SOURCES)
def test_compiling_a_template(shape: str) -> None:
    piece = SOURCES[shape]

    def make(n: int) -> Work:
        def work() -> object:
            source = f"{{# {next(_fresh)} #}}" + piece * (min(n, 1 << 17) // len(piece))
            return _refused(Template, source)

        return work

    check(make)


METRICS: Rows = {
    "words": lambda n: lambda: metrics.f1("a b " * n, "b c " * n),
    "different words": lambda n: lambda: metrics.f1(numbered(n, "w{}"), numbered(n, "x{}")),
    "marks": lambda n: lambda: metrics.exact_match("a\u0301\u0323" * n, "b"),
    "punctuation": lambda n: lambda: metrics.normalize("-. " * n),
}


@pytest.mark.parametrize("shape", METRICS)
def test_a_metric(shape: str) -> None:
    check(METRICS[shape])


# --- compiled programs -----------------------------------------------------------------------------------


def program(folder: Path, **more: Any) -> Work:
    """Load a file with more in it than was exported, or refuse it."""
    whole = folder / "whole.dspex.json"
    dspex.export(dspex.Predict("q -> a"), whole)
    content = json.loads(whole.read_text())
    rest = {key: value for key, value in content.items() if key not in ("format", "version", "hash")}
    path = folder / "more.dspex.json"
    path.write_text(sealed({**rest, **more}))

    def work() -> object:
        try:
            return dspex.load(path)
        except errors.ConfigError as error:
            return error

    return work


def flow(inputs: int, steps: int) -> dict[str, Any]:
    """A program with so many inputs, and steps that no module is there for."""
    value = {"kind": "input", "name": "i0"}
    return {
        "module": "Program",
        "name": "P",
        "parts": {},
        "flow": {
            "inputs": [{"name": f"i{number}"} for number in range(inputs)],
            "steps": [{"call": ["x"], "inputs": {"q": value}} for _ in range(steps)],
            "output": value,
        },
    }


def model_of(fields: int) -> dict[str, Any]:
    members = [{"name": f"f{number}", "type": f"E{number}"} for number in range(fields)]
    return {"kind": "model", "fields": members}


def types(count: int) -> dict[str, Any]:
    made = {f"E{number}": {"kind": "enum", "members": {"A": 1}} for number in range(count)}
    return {**made, "M": model_of(count)}


COMPILED: dict[str, Callable[[int], dict[str, Any]]] = {
    "many inputs": lambda n: {"program": flow(n, 1)},
    "many steps": lambda n: {"program": flow(1, n)},
    "many types that nobody uses": lambda n: {"types": types(n)},
    "a deep list": lambda n: {"types": [[[0]] * n]},
    "no form at all": lambda n: {"program": [0] * n},
}


@pytest.mark.parametrize("shape", COMPILED)
def test_a_compiled_program_is_loaded_or_refused_in_proportion_to_its_file(
    shape: str, tmp_path: Path
) -> None:
    check(lambda n: program(tmp_path, **COMPILED[shape](n)))
