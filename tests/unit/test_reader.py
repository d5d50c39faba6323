"""The extractive reader: it reads DSPy's prompts and answers out of them; the demo's, mostly rightly."""

from __future__ import annotations

import enum
import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspex.testing import Finding, read_prompt_and_answer
from dspex.testing._prompts import read_prompt
from dspex.testing._reader import find_in_passages

ROOT = Path(__file__).parents[2]
QUESTIONS = [json.loads(line) for line in (ROOT / "testdata/demo/questions.jsonl").read_text().splitlines()]
FINDERS = [find_in_passages, runpy.run_path(str(ROOT / "docs/examples/reader.py"))["find"]]
PASSAGE = "Ada Lovelace was born in London in 1815. She wrote 3 notes. Charles Babbage designed the engine."


class Mood(enum.Enum):
    CALM = "calm"
    LOUD = "loud"


class Person(pydantic.BaseModel):
    name: str
    born: int
    tags: list[str] = []


def adapters() -> list[Any]:
    import dspy

    return [dspy.ChatAdapter(), dspy.JSONAdapter(), dspy.XMLAdapter()]


@pytest.fixture(params=range(3), ids=["chat", "json", "xml"])
def adapter(request: pytest.FixtureRequest) -> Any:
    return adapters()[request.param]


@pytest.fixture(params=FINDERS, ids=["by words", "of the demo"])
def find(request: pytest.FixtureRequest) -> Any:
    return request.param


def answered(
    adapter: Any,
    signature: Any,
    inputs: dict[str, Any],
    demos: list[Any] | None = None,
    find: Callable[..., Finding] = find_in_passages,
) -> Any:
    messages = adapter.format(signature, demos or [], inputs)
    return adapter.parse(signature, read_prompt_and_answer(messages, find))


def demo_signature() -> Any:
    import dspy

    return dspy.Signature("question, context: list[str] -> answer: str, confidence: float")


def test_the_demo_has_fifty_questions_or_more_and_every_answer_is_in_its_context() -> None:
    assert len(QUESTIONS) >= 50
    assert len({row["question"] for row in QUESTIONS}) == len(QUESTIONS)
    for row in QUESTIONS:
        assert 2 <= len(row["context"]) <= 4
        assert row["answer"].lower() in " ".join(row["context"]).lower()


def test_most_of_the_demo_is_answered_rightly(adapter: Any) -> None:
    right = 0
    for row in QUESTIONS:
        given = {"question": row["question"], "context": row["context"]}
        answer = answered(adapter, demo_signature(), given, find=FINDERS[1])
        right += answer["answer"].lower() == row["answer"].lower()
    assert right / len(QUESTIONS) > 0.9


def test_answers_come_out_of_the_prompt(adapter: Any, find: Any) -> None:
    for row in QUESTIONS:
        given = {"question": row["question"], "context": row["context"]}
        answer = answered(adapter, demo_signature(), given, find=find)
        assert answer["answer"] in " ".join(row["context"])
        assert 0 < answer["confidence"] < 1


def test_another_context_gets_another_answer(adapter: Any, find: Any) -> None:
    question = "Who designed the engine?"
    for name in ("Charles Babbage", "Grace Hopper", "Konrad Zuse"):
        given = {"question": question, "context": [f"{name} designed the engine.", "The sky is blue."]}
        assert answered(adapter, demo_signature(), given, find=find)["answer"] == name


def test_the_same_prompt_gets_the_same_reply(adapter: Any) -> None:
    row = QUESTIONS[0]
    messages = adapter.format(demo_signature(), [], {"question": row["question"], "context": row["context"]})
    assert len({read_prompt_and_answer(messages) for _ in range(5)}) == 1


def test_demos_are_not_mistaken_for_the_task(adapter: Any) -> None:
    demo = {
        "question": "Who sang?",
        "context": ["Bob Marley sang."],
        "answer": "Bob Marley",
        "confidence": 1.0,
    }
    given = {"question": "Who designed the engine?", "context": [PASSAGE]}
    assert answered(adapter, demo_signature(), given, [demo])["answer"] == "Charles Babbage"


NESTED: list[tuple[Any, Any]] = [
    (dict[str, int], lambda value: value == {}),
    (Person, lambda value: value.name in PASSAGE and str(value.born) in PASSAGE),
    (list[Person], lambda value: len(value) == 1),
]
KINDS: list[tuple[Any, Any]] = [
    (str, lambda value: value in PASSAGE),
    (int, lambda value: str(value) in PASSAGE),
    (float, lambda value: isinstance(value, float)),
    (bool, lambda value: isinstance(value, bool)),
    (Literal["Paris", "London"], lambda value: value == "London"),
    (Mood, lambda value: value in Mood),
    (list[str], lambda value: value and all(item in PASSAGE for item in value)),
    (list[int], lambda value: all(str(item) in PASSAGE for item in value)),
    (int | None, lambda value: str(value) in PASSAGE),
]


@pytest.mark.parametrize(
    ("form", "kind", "check"),
    # DSPy's XML prompt does not say what stands inside a dict or a model, so nobody could fill it.
    [
        pytest.param(form, kind, check, id=f"{form}-{kind}")
        for form in range(3)
        for kind, check in (KINDS if form == 2 else KINDS + NESTED)
    ],
)
def test_every_type_of_output_gets_a_value_that_dspy_accepts(form: int, kind: Any, check: Any) -> None:
    import dspy

    adapter = adapters()[form]

    signature = dspy.Signature(
        {"passage": (str, dspy.InputField()), "question": (str, dspy.InputField())}
        | {"reasoning": (str, dspy.OutputField()), "result": (kind, dspy.OutputField())},
        "Answer.",
    )
    given = {"passage": PASSAGE, "question": "Where was Ada Lovelace born?"}
    reply = answered(adapter, signature, given)
    assert check(reply["result"])
    assert reply["reasoning"] == "Ada Lovelace was born in London in 1815."


@pytest.mark.parametrize("messages", [[], [{"role": "user"}], [{"role": "user", "content": []}]])
def test_an_empty_prompt_gets_an_empty_reply(messages: list[Any]) -> None:
    assert read_prompt_and_answer(messages) == ""


def test_a_plain_prompt_gets_a_sentence_of_itself() -> None:
    content = [{"type": "text", "text": f"{PASSAGE} Who designed the engine?"}, {"type": "image_url"}]
    assert (
        read_prompt_and_answer([{"role": "user", "content": content}])
        in PASSAGE + " Who designed the engine?"
    )


LISTING = """Your output fields are:
1. `answer` (str):
2. `kind` (Literal['a', 'b']):
3. `data` (Any):
All interactions will be structured in the following way
"""
NOTES = [
    "a single int value",
    "must exactly match (no extra characters) one of: a; b",
    "must be one of: ",
    *(
        f"must adhere to the JSON schema: {schema}"
        for schema in (
            '{"type": "array", "items": {}}',
            '{"$ref": "#/$defs/A", "$defs": {"A": {"properties": {"b": {"$ref": "#/$defs/A"}}}}}',
            '{"enum": []}',
            '{"anyOf": [{"type": ["string", "null"]}]}',
            '{"type": "object", "properties": {"a": {"type": "integer"}, "b": true}}',
            '{"type": "array", "items": false}',
            '{"type": "object", "properties": 7',
        )
    ),
]
DEMANDS = [
    "Respond with a JSON object",
    "Respond with the corresponding output fields, starting with the field `[[ ## answer ## ]]`",
    "Respond with the corresponding output fields wrapped in XML tags `<answer>`",
    "Respond",
]
LINES = [
    "[[ ## answer ## ]]",
    "[[ ## question ## ]]",
    "<context>",
    "</context>",
    '["a", 1, null]',
    "[1] «x»",
    "Who wrote 3 plays in 1601? William Shakespeare wrote them in London.",
]


@settings(max_examples=500)
@given(
    st.lists(st.sampled_from(NOTES), max_size=4),
    st.lists(st.sampled_from(LINES) | st.text(max_size=20), max_size=8),
    st.sampled_from(DEMANDS),
)
def test_any_prompt_gets_a_reply(notes: list[str], lines: list[str], demand: str) -> None:
    fields = ["answer", "kind", "data", "data"]
    shown = [
        f"{{{field}}}        # note: the value you produce {note}"
        for field, note in zip(fields, notes, strict=False)
    ]
    messages = [
        {"role": "system", "content": LISTING + "\n".join(shown)},
        {"role": "user", "content": "\n".join([*lines, demand])},
    ]
    assert isinstance(read_prompt_and_answer(messages), str)


def test_a_list_in_a_text_field_is_read_as_a_list() -> None:
    import dspy

    signature = dspy.Signature("passages: str, question -> answer")
    given = {"passages": ["one «x»", "two\nlines"], "question": "q?"}
    messages = dspy.ChatAdapter().format(signature, [], given)
    assert read_prompt(messages).inputs["question"] == "q?"
    assert len(read_prompt(messages).inputs["passages"]) == 2
