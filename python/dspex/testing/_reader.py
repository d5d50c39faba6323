"""The extractive reader: answers a prompt with what stands in it.

No model and no knowledge: it finds the sentence of the inputs that shares most with the question, and in it
the words that a question of this kind asks for. So it is often right where the answer is written in the
context, and its answers always come from there. The same prompt always gets the same reply.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dspex.testing._evidence import best_sentence, names_in, span_for
from dspex.testing._prompts import MAX_DEPTH, Prompt, message_text, read_prompt, write_reply

__all__ = ["message_text", "read_prompt_and_answer"]

_QUESTION = re.compile(r"question|query|ask|problem|claim|topic", re.IGNORECASE)
_SCORE = re.compile(r"confiden|scor|probab|certain|likel", re.IGNORECASE)
_THOUGHT = re.compile(r"reason|rationale|thought|explanation|evidence|why", re.IGNORECASE)
_MAX_ITEMS = 5


def read_prompt_and_answer(messages: Sequence[Mapping[str, Any]]) -> str:
    """Reply to chat messages out of their own text.

    Reads the prompts of DSPy's Chat, JSON and XML adapters and writes the reply in the form they ask for,
    every output field with a value of its type. Any other prompt gets the sentence that answers it best.
    Only what an XML prompt leaves open, the inside of a dict or a model, it cannot fill.
    """
    prompt = read_prompt(messages)
    reading = _read(prompt)
    if not prompt.wanted:
        return reading.sentence
    return write_reply(
        prompt, {wanted.name: _fill(wanted.name, wanted.schema, reading) for wanted in prompt.wanted}
    )


@dataclass(frozen=True, slots=True)
class _Reading:
    """What the reader found: the telling sentence, the answer in it, how sure it is, and all it read."""

    question: str
    sentence: str
    answer: str
    confidence: float
    text: str


def _read(prompt: Prompt) -> _Reading:
    name = _asking(prompt.inputs)
    asked = prompt.inputs.get(name, "")
    question = asked if isinstance(asked, str) else " ".join(asked)
    passages: list[str] = []
    for key, value in prompt.inputs.items():
        if key != name:
            passages += [value] if isinstance(value, str) else value
    passages = passages or [question]
    sentence, confidence = best_sentence(question, passages)
    return _Reading(
        question, sentence, span_for(question, sentence), confidence, "\n".join([*passages, question])
    )


def _asking(inputs: Mapping[str, str | list[str]]) -> str:
    """The field that asks: by its name, else the one that ends as a question does, else the last."""
    names = list(inputs)
    for name in names:
        if _QUESTION.search(name):
            return name
    for name in names:
        value = inputs[name]
        if isinstance(value, str) and value.rstrip().endswith("?"):
            return name
    return names[-1] if names else ""


# --- which value ----------------------------------------------------------------------------------------


def _fill(name: str, schema: Mapping[str, Any] | bool, reading: _Reading, depth: int = 0) -> Any:
    """A value of the schema, taken from what was read."""
    if depth > MAX_DEPTH:
        return None
    if isinstance(schema, bool):  # JSON Schema's way of saying "anything"
        return reading.answer
    if schema.get("enum"):
        return _chosen(schema["enum"], reading)
    if "const" in schema:
        return schema["const"]
    if options := schema.get("anyOf") or schema.get("oneOf"):
        real = [option for option in options if option != {"type": "null"}]
        return _fill(name, real[0], reading, depth + 1) if real else None
    match schema.get("type"):
        case "boolean":
            return reading.confidence >= 0.5
        case "number":
            return reading.confidence if _SCORE.search(name) else _first_number(reading)
        case "integer":
            return int(_first_number(reading))
        case "array":
            return _items(schema, reading, depth)
        case "object":
            inner = schema.get("properties", {})
            return {key: _fill(key, value, reading, depth + 1) for key, value in inner.items()}
        case "null":
            return None
    return reading.sentence if _THOUGHT.search(name) else reading.answer


def _chosen(choices: Sequence[Any], reading: _Reading) -> Any:
    """The choice that the inputs mention first; without a mention the first of all."""
    text = reading.text.lower()
    places = [(text.find(str(choice).lower()), choice) for choice in choices]
    mentioned = [place for place in places if place[0] >= 0]
    return min(mentioned, key=lambda place: place[0])[1] if mentioned else choices[0]


def _first_number(reading: _Reading) -> float:
    for text in (reading.answer, reading.sentence, reading.text):
        number = re.search(r"-?\d[\d,]*(?:\.\d+)?", text)
        if number:
            return float(number[0].replace(",", ""))
    return 0.0


def _items(schema: Mapping[str, Any], reading: _Reading, depth: int) -> list[Any]:
    element = schema.get("items", True)
    match element if isinstance(element, bool) else element.get("type"):
        case "integer":
            return [int(number) for number in re.findall(r"\b\d{1,15}\b", reading.sentence)[:_MAX_ITEMS]]
        case "number":
            return [
                float(number) for number in re.findall(r"\b\d+(?:\.\d+)?\b", reading.sentence)[:_MAX_ITEMS]
            ]
        case "string":
            return names_in(reading.sentence)[:_MAX_ITEMS] or [reading.answer]
    return [_fill("item", element, reading, depth + 1)]
