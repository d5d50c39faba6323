"""Values and types that lie, grow, shrink and raise while they are looked at: a result or an error.

No `BaseException` and no crash of the process comes out of the core, whatever a caller's own code does.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import pydantic
import pytest
from tests.support.hostile import Maker, awake

import dspex
from dspex import _core
from dspex.errors import DspexError, InputError
from dspex.signature import InputField, OutputField, Signature

SEEDS = range(60)
TEMPLATES = [
    "{{ q }}{{ q ~ a }}",
    "{% for x in q %}{{ x }},{% endfor %}{{ q|length }}",
    "{{ q|sort|join(',') }}",
    "{{ q|tojson }}{{ q.a }}{{ q['a'] }}",
    "{% for k, v in q|items %}{{ k }}={{ v }}{% endfor %}{{ q|dictsort }}",
    "{{ q|unique|list }}{{ q|min }}{{ q|max }}{{ q|sum }}",
    "{{ q == a }}{{ q < a }}{{ q in a }}{{ q|reverse }}{{ q|groupby('a') }}{{ q|sort(attribute='a') }}",
]
REPLIES = [
    '[[ ## a ## ]]\n{"x": 1}\n\n[[ ## b ## ]]\n[1, 2]\n\n[[ ## completed ## ]]',
    '{"a": {"x": 1, "y": "2"}, "b": [1]}',
    "<a><x>1</x></a><b>2</b>",
    "[[ ## a ## ]]\n{'x': 1,,}\n[[ ## b ## ]]\n90%",
]


def attempt(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a call gives; None where it raises what a caller can catch."""
    try:
        return call(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - hostile code raises anything
        if getattr(error, "code", None) == "core-panic":
            pytest.fail(str(error))
        return None


def signatures(make: Maker) -> Iterator[Any]:
    one, two, three = (make.type() for _ in range(3))
    kinds = {"T": one, "U": two, "V": three}
    with awake():
        for text in ("q: T, r: U -> a: list[V], b: dict[str, T]", "q: dict[str, T], r -> a: V, b"):
            yield attempt(Signature, text, types=kinds)
        fields = {
            "q": (one, InputField()),
            "r": InputField(),
            "a": (two, OutputField()),
            "b": (three, OutputField()),
        }
        yield attempt(Signature, fields)
    yield Signature("q, r: list[int] -> a, b: dict[str, int]")


@pytest.mark.parametrize("seed", SEEDS)
def test_checking_hostile_values_ends_in_an_error_at_most(seed: int) -> None:
    make = Maker(seed)
    made = [signature for signature in signatures(make) if signature is not None]
    given = [make.mapping(), make.mapping(), {"q": make.value(), "a": make.value()}]
    given += [{"q": make.shared[0], "r": make.shared[1]}, make.shared[0]]
    with awake():
        for signature in made:
            for show in (hash, repr, Signature.describe, Signature.dump_state, lambda s: s == made[0]):
                attempt(show, signature)
            for values in given:
                for mode in ("strict", "warn"):
                    attempt(signature.validate_inputs, values, mode)
                    attempt(signature.validate_outputs, values, mode)


@pytest.mark.parametrize("seed", SEEDS)
def test_writing_hostile_values_ends_in_an_error_at_most(seed: int) -> None:
    make = Maker(seed)
    made = [signature for signature in signatures(make) if signature is not None]
    inputs, demo, other = (
        make.mapping(),
        make.mapping(),
        {"q": make.value(), "r": make.shared[0], "a": make.value()},
    )
    adapters = [
        dspex.ChatAdapter(markers="dspy", dialect="3.4"),
        dspex.JSONAdapter(markers="escape", dialect="3.4"),
        dspex.XMLAdapter(markers="reject", dialect="3.3"),
    ]
    with awake():
        for signature in made:
            for adapter in adapters:
                attempt(adapter.format, signature, [demo, other], inputs)
                attempt(adapter.format, signature, demo, other)
                plan = attempt(adapter.compile, signature)
                if plan is not None:
                    attempt(plan.render, other, [demo], [inputs, other])


@pytest.mark.parametrize("seed", SEEDS)
def test_reading_with_hostile_types_ends_in_an_error_at_most(seed: int) -> None:
    make = Maker(seed)
    made = [signature for signature in signatures(make) if signature is not None]
    value = make.value()
    with awake():
        for signature in made:
            for adapter in (dspex.ChatAdapter(), dspex.JSONAdapter(), dspex.XMLAdapter(parsing="dspy")):
                plan = attempt(adapter.compile, signature)
                if plan is None:
                    continue
                for reply in (*REPLIES, value):
                    attempt(plan.read, reply)
                    stream = plan.stream()
                    pieces = [reply[at : at + 9] for at in range(0, 60, 9)] if type(reply) is str else [reply]
                    for piece in pieces:
                        attempt(stream.feed, piece)
                    attempt(stream.finish)
                    attempt(stream.read)


@pytest.mark.parametrize("seed", SEEDS)
def test_templates_of_hostile_values_end_in_an_error_at_most(seed: int) -> None:
    make = Maker(seed)
    value, other, mapping = make.value(), make.value(), make.mapping()
    with awake():
        for text in TEMPLATES:
            template = dspex.Template(text)
            attempt(template.render, {"q": value, "a": make.shared[0]})
            attempt(template.render, {"q": make.shared[1], "a": other})
            attempt(template.render, mapping)


@pytest.mark.parametrize("seed", SEEDS)
def test_hostile_arguments_end_in_an_error_at_most(seed: int) -> None:
    make = Maker(seed)
    value, kind = make.value(), make.type()
    base = Signature("a -> b")
    with awake():
        for call in (
            _core.normalize,
            _core.repair_json,
            _core.type_source,
            dspex.Template,
            Signature,
            Signature.of,
        ):
            attempt(call, value)
        for pair in (("a", value), (value, [value])):
            attempt(_core.f1, *pair)
            attempt(_core.exact_match, *pair)
        attempt(Signature, "a -> b", value)
        attempt(Signature, "a: T -> b", types=value)
        attempt(Signature, "a: T -> b", types={"T": value})
        attempt(base.load_state, value)
        attempt(
            base.load_state, {"instructions": value, "fields": [{"prefix": value, "description": value}] * 2}
        )
        attempt(base.append, "c", value, value)
        attempt(base.append, value, InputField(desc=value), kind)
        attempt(base.insert, value, "c", InputField())
        attempt(base.with_updated_fields, "a", value)
        attempt(base.with_updated_fields, "a", desc=value, prefix=value, constraints=value)
        attempt(base.with_instructions, value)
        attempt(base.delete, value)


# --- one by one -------------------------------------------------------------------------------------


def test_a_dict_that_grows_while_it_is_checked_is_checked_as_it_was() -> None:
    seen: dict[str, int] = {}

    def grow(value: int) -> int:
        seen[f"new{len(seen)}"] = 1
        return value

    kind: Any = Annotated[int, pydantic.BeforeValidator(grow)]
    signature = Signature({"q": (dict[str, kind], InputField())})
    seen.update({str(number): number for number in range(20)})
    signature.validate_inputs({"q": seen})
    assert len(seen) == 40

    with pytest.raises(InputError) as caught:
        signature.validate_inputs({"q": seen | {"x": "none"}})
    assert [path for path, _ in caught.value.problems] == ["q['x']"]


def test_a_dict_that_shrinks_while_its_problems_are_told_is_told_as_it_was() -> None:
    class Key(str):
        def __repr__(self) -> str:
            values.clear()
            return "'key'"

    values: dict[str, Any] = {Key(number): "no int" for number in range(20)}
    with pytest.raises(InputError) as caught:
        Signature("q: dict[str, int] -> a").validate_inputs({"q": values})
    assert len(caught.value.problems) == 20


def test_a_list_that_grows_while_its_problems_are_told_comes_to_an_end() -> None:
    items: list[Any] = [1, "x"]

    def grow(value: Any) -> Any:
        items.append("y")
        raise ValueError("no")

    kind: Any = Annotated[int, pydantic.BeforeValidator(grow)]
    with pytest.raises(InputError) as caught:
        Signature({"q": (list[kind], InputField())}).validate_inputs({"q": items})
    assert caught.value.problems


def test_a_set_that_lies_about_its_items_is_asked_itself() -> None:
    class Endless(set):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[Any]:
            while True:
                yield 1

    Signature("q: set[int] -> a").validate_inputs({"q": Endless({1, 2})})
    with pytest.raises(InputError):
        Signature("q: set[int] -> a").validate_inputs({"q": Endless({"x"})})


def test_a_text_that_is_its_own_text_does_not_end_the_process() -> None:
    code = """
import dspex
class Own(str):
    def __str__(self): return self
print(dspex.Template("{{ x }}").render(x=Own("fine")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "fine\n")


@pytest.mark.parametrize("text", ["{{ q ~ 'x' }}", "{{ [q]|join }}", "{{ q|replace('a', 'b') }}", "{{ q }}"])
def test_a_list_that_cannot_be_written_is_an_error_wherever_the_engine_makes_a_text_of_it(text: str) -> None:
    with pytest.raises(InputError) as caught:
        dspex.Template(text).render(q=["\ud800"])
    assert caught.value.code == "lone-surrogate"


def test_types_nested_too_deep_are_refused() -> None:
    kind: Any = int
    for _ in range(100_000):
        kind = list[kind]
    with pytest.raises(DspexError) as caught:
        _core.type_source(kind)
    assert caught.value.code == "too-deep"
    del caught
    while kind is not int:  # from the outside in: CPython's own way of freeing them is recursive
        (kind,) = kind.__args__


def test_a_panic_of_the_core_is_an_error_that_a_service_catches() -> None:
    with pytest.raises(DspexError) as caught:
        _core._panic("a text of the caller's")
    error = caught.value
    assert (error.code, error.category) == ("core-panic", "internal")
    assert "guard.rs" in str(error)
    assert "the caller's" not in str(error)
