"""Rendering and parsing beside DSPy, in one run: `pytest benches/bench_prompt.py`.

Each case is run on both sides, and both must agree before either is timed. What counts are the ratios
beneath the tables.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import dspy
import pytest

import dspex
import dspex.dspy

pytestmark = pytest.mark.skipif(dspex._core._debug_build, reason="a debug build has no figures worth quoting")

FOUR = "question: str, context: list[str] -> answer: str, confidence: float"
TWELVE = ", ".join(
    f"f{i}: {kind}" for i, kind in enumerate(["str", "list[str]", "dict[str, int]", "float"] * 3)
)
INPUTS = {
    "question": "Who wrote the Iliad?",
    "context": ["Homer wrote the Iliad.", "Virgil wrote the Aeneid."],
}


def demos(count: int) -> list[dict[str, Any]]:
    text = "A sentence of some length, as an example has it. " * 2
    return [
        {"question": f"{i}: {text}", "context": [text, text], "answer": text, "confidence": i / 16}
        for i in range(count)
    ]


def long_values() -> dict[str, Any]:
    """Values of twelve fields, some nested, of 8 kB together."""
    text = "Some words that an answer may be made of. " * 40
    kinds = [text, [text[:200]] * 4, {f"key{i}": i for i in range(30)}, 0.25]
    return {f"f{i}": kinds[i % 4] for i in range(12)}


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


class Case(NamedTuple):
    theirs: Callable[[], Any]
    ours: Callable[[], Any]


def render(name: str, source: str, count: int) -> Case:
    signature, examples = dspy.Signature(source), demos(count)
    theirs, plan = getattr(dspy, name)(), getattr(dspex, name)(parsing="dspy").compile(source)
    return Case(
        lambda: theirs.format(signature, examples, INPUTS),
        lambda: plan.render(INPUTS, examples),
    )


def parse(name: str, source: str, reply: str) -> Case:
    signature = dspy.Signature(source)
    theirs, plan = getattr(dspy, name)(), getattr(dspex, name)(parsing="dspy").compile(source)
    return Case(lambda: theirs.parse(signature, reply), lambda: plan.parse(reply))


def by_hand(count: int) -> Case:
    """The prompt of four fields, as an f-string writes it that was made for just this prompt."""
    plan, examples = dspex.ChatAdapter(parsing="dspy").compile(FOUR), demos(count)
    system, *_, user = (message["content"] for message in plan.render(INPUTS))
    reminder = user.rpartition("\n\n")[2]

    def asked(values: dict[str, Any]) -> str:
        context = json.dumps(values["context"], ensure_ascii=False)
        return f"[[ ## question ## ]]\n{values['question']}\n\n[[ ## context ## ]]\n{context}"

    def write() -> list[dict[str, str]]:
        messages = [{"role": "system", "content": system}]
        for demo in examples:
            messages.append({"role": "user", "content": asked(demo)})
            answered = (
                f"[[ ## answer ## ]]\n{demo['answer']}\n\n"
                f"[[ ## confidence ## ]]\n{demo['confidence']}\n\n[[ ## completed ## ]]\n"
            )
            messages.append({"role": "assistant", "content": answered})
        messages.append({"role": "user", "content": f"{asked(INPUTS)}\n\n{reminder}"})
        return messages

    return Case(write, lambda: plan.render(INPUTS, examples))


SMALL = {
    "ChatAdapter": "[[ ## answer ## ]]\nHomer\n\n[[ ## confidence ## ]]\n0.9\n\n[[ ## completed ## ]]",
    "JSONAdapter": '{"answer": "Homer", "confidence": 0.9}',
    "XMLAdapter": "<answer>\nHomer\n</answer>\n<confidence>\n0.9\n</confidence>",
}
LONG = {
    "ChatAdapter": "".join(
        f"[[ ## {name} ## ]]\n{as_text(value)}\n\n" for name, value in long_values().items()
    ),
    "JSONAdapter": json.dumps(long_values()),
}

ROWS = [{"name": f"Row {i}", "score": i / 8, "tags": ["one", "two", "three"]} for i in range(13)]
MANY_ROWS = json.dumps({"rows": [{"a": i, "b": i + 1, "c": i * 7} for i in range(200)], "note": "x"})
BROKEN = {
    "900 bytes": json.dumps({"rows": ROWS, "note": "cut off"})[:-4],
    "9 kB": "Here it is:\n" + json.dumps({"rows": ROWS * 10, "note": "with a comma"})[:-1] + ",}",
    "900 bytes, single quotes": repr({"rows": ROWS, "note": "as Python prints it"}),
    "9 kB, comments": json.dumps({"rows": ROWS * 8, "note": "x"}).replace(
        '"tags"', '/* one or more */ "tags"'
    ),
}

CASES: dict[str, Callable[[], Case]] = {
    **{
        f"{name} render, 4 fields, {count} demos": lambda name=name, count=count: render(name, FOUR, count)
        for name in ("ChatAdapter", "JSONAdapter")
        for count in (0, 4, 16)
    },
    "XMLAdapter render, 4 fields, 0 demos": lambda: render("XMLAdapter", FOUR, 0),
    **{
        f"f-string render, 4 fields, {count} demos": lambda count=count: by_hand(count)
        for count in (0, 4, 16)
    },
    **{f"{name} parse, small": lambda name=name: parse(name, FOUR, SMALL[name]) for name in SMALL},
    "JSONAdapter parse, 200 rows": lambda: parse(
        "JSONAdapter", "q -> rows: list[dict[str, int]], note", MANY_ROWS
    ),
    **{
        f"JSONAdapter parse, broken, {size}": lambda reply=reply: parse(
            "JSONAdapter", "q -> rows: list[dict[str, Any]], note", reply
        )
        for size, reply in BROKEN.items()
    },
    **{f"{name} parse, 8 kB": lambda name=name: parse(name, f"q -> {TWELVE}", LONG[name]) for name in LONG},
}


@pytest.mark.parametrize("side", ["theirs", "ours"])
@pytest.mark.parametrize("name", CASES)
def test_prompt(benchmark: Any, name: str, side: str) -> None:
    case = CASES[name]()
    assert repr(case.ours()) == repr(case.theirs()), "both sides must agree before they are timed"
    benchmark.extra_info |= {"case": name, "side": side}
    benchmark(getattr(case, side))


class Instant(dspy.BaseLM):
    """A model that answers at once."""

    def __init__(self) -> None:
        from openai.types.chat import ChatCompletion

        super().__init__(model="instant")
        message = {"role": "assistant", "content": SMALL["ChatAdapter"]}
        self._completion = ChatCompletion.model_validate(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": "m",
                "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            }
        )

    def forward(self, prompt: Any = None, messages: Any = None, **settings: Any) -> Any:
        return self._completion


# The old interface for models of one's own is the one that both DSPy 3.3 and 3.4 have.
@pytest.mark.filterwarnings("ignore:Implementing custom LMs:DeprecationWarning")
@pytest.mark.parametrize("side", ["theirs", "ours"])
def test_predict(benchmark: Any, side: str) -> None:
    adapter = {"theirs": dspy.ChatAdapter, "ours": dspex.dspy.ChatAdapter}[side]()
    with dspy.context(lm=Instant(), adapter=adapter):
        predict = dspy.Predict(FOUR)
        assert predict(**INPUTS).answer == "Homer"
        benchmark.extra_info |= {"case": "dspy.Predict on an instant model", "side": side}
        benchmark(lambda: predict(**INPUTS))
