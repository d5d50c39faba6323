"""The extractive reader: answers a prompt with what stands in it.

No model and no knowledge: it finds the sentence of the inputs that shares most words with the question, and
in it a name or a number that the question does not have. So an answer depends on the inputs and always comes
from there. The same prompt always gets the same reply.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dspex.testing._prompts import MAX_DEPTH, Prompt, message_text, read_prompt, write_reply

__all__ = ["Finding", "message_text", "read_prompt_and_answer"]

_QUESTION = re.compile(r"question|query|ask|problem|claim|topic", re.IGNORECASE)
_SCORE = re.compile(r"confiden|scor|probab|certain|likel", re.IGNORECASE)
_THOUGHT = re.compile(r"reason|rationale|thought|explanation|evidence|why", re.IGNORECASE)
_COUNTS = re.compile(r"\b(?:how|when|year)\b", re.IGNORECASE)
_NAME = re.compile(r"\b[^\W\d_a-z][\w'-]*(?: [^\W\d_a-z][\w'-]*)*\b")
_NUMBER = re.compile(r"\b\d[\d,.]*(?: [a-z]+)?\b")
_MAX_ITEMS = 5


class Finding(NamedTuple):
    """What was found in a text.

    Attributes:
        answer: The words that answer the question.
        sentence: The sentence they stand in.
        confidence: How sure it is, from 0 to 1.
    """

    answer: str
    sentence: str
    confidence: float


def find_in_passages(question: str, passages: Sequence[str]) -> Finding:
    """The sentence that shares most words with the question; in it a name or a number that is not asked."""
    asked = _stems(question)
    sentences = [s.strip() for passage in passages for s in re.split(r"(?<=[.!?])\s+", passage)]
    statements = [sentence for sentence in sentences if not sentence.endswith("?")] or sentences
    sentence = max(statements, key=lambda sentence: len(asked & _stems(sentence)), default="")
    confidence = round(len(asked & _stems(sentence)) / (len(asked) + 1), 2)
    for pattern in (_NUMBER, _NAME) if _COUNTS.search(question) else (_NAME,):
        for words in pattern.findall(sentence):
            answer = re.sub(r"^(?:The|An?|In|It|She|He)\b ?", "", words)
            if answer and answer.lower() not in question.lower():
                return Finding(answer, sentence, confidence)
    return Finding(sentence.rstrip("."), sentence, confidence)


def _stems(text: str) -> set[str]:
    """The longer words of a text by how they begin, so that "rise" meets "rises"."""
    return {word.removesuffix("s")[:5] for word in re.findall(r"\w{3,}", text.lower())}


def read_prompt_and_answer(
    messages: Sequence[Mapping[str, Any]],
    find: Callable[[str, Sequence[str]], Finding] = find_in_passages,
) -> str:
    """Reply to chat messages out of their own text.

    Reads the prompts of DSPy's Chat, JSON and XML adapters and writes the reply in the form they ask for,
    every output field with a value of its type. Any other prompt gets the sentence that answers it best.
    Only what an XML prompt leaves open, the inside of a dict or a model, it cannot fill.

    Args:
        messages: The chat messages.
        find: Finds the answer to a question in the other inputs; by default by the words that they share.
    """
    prompt = read_prompt(messages)
    reading = _read(prompt, find)
    if not prompt.wanted:
        return reading.found.sentence
    return write_reply(
        prompt, {wanted.name: _fill(wanted.name, wanted.schema, reading) for wanted in prompt.wanted}
    )


@dataclass(frozen=True, slots=True)
class _Reading:
    """What was found, and all that was read."""

    found: Finding
    text: str


def _read(prompt: Prompt, find: Callable[[str, Sequence[str]], Finding]) -> _Reading:
    name = _asking(prompt.inputs)
    asked = prompt.inputs.get(name, "")
    question = asked if isinstance(asked, str) else " ".join(asked)
    passages: list[str] = []
    for key, value in prompt.inputs.items():
        if key != name:
            passages += [value] if isinstance(value, str) else value
    passages = passages or [question]
    return _Reading(find(question, passages), "\n".join([*passages, question]))


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
        return reading.found.answer
    if schema.get("enum"):
        return _chosen(schema["enum"], reading)
    if "const" in schema:
        return schema["const"]
    if options := schema.get("anyOf") or schema.get("oneOf"):
        real = [option for option in options if option != {"type": "null"}]
        return _fill(name, real[0], reading, depth + 1) if real else None
    match schema.get("type"):
        case "boolean":
            return reading.found.confidence >= 0.5
        case "number":
            return reading.found.confidence if _SCORE.search(name) else _first_number(reading)
        case "integer":
            return int(_first_number(reading))
        case "array":
            return _items(schema, reading, depth)
        case "object":
            inner = schema.get("properties", {})
            return {key: _fill(key, value, reading, depth + 1) for key, value in inner.items()}
        case "null":
            return None
    return reading.found.sentence if _THOUGHT.search(name) else reading.found.answer


def _chosen(choices: Sequence[Any], reading: _Reading) -> Any:
    """The choice that the inputs mention first; without a mention the first of all."""
    text = reading.text.lower()
    places = [(text.find(str(choice).lower()), choice) for choice in choices]
    mentioned = [place for place in places if place[0] >= 0]
    return min(mentioned, key=lambda place: place[0])[1] if mentioned else choices[0]


def _first_number(reading: _Reading) -> float:
    for text in (reading.found.answer, reading.found.sentence, reading.text):
        number = re.search(r"-?\d[\d,]*(?:\.\d+)?", text)
        if number:
            return float(number[0].replace(",", ""))
    return 0.0


def _items(schema: Mapping[str, Any], reading: _Reading, depth: int) -> list[Any]:
    element = schema.get("items", True)
    answer, sentence, _ = reading.found
    match element if isinstance(element, bool) else element.get("type"):
        case "integer":
            return [int(number) for number in re.findall(r"\b\d{1,15}\b", sentence)[:_MAX_ITEMS]]
        case "number":
            return [float(number) for number in re.findall(r"\b\d+(?:\.\d+)?\b", sentence)[:_MAX_ITEMS]]
        case "string":
            return _NAME.findall(sentence)[:_MAX_ITEMS] or [answer]
    return [_fill("item", element, reading, depth + 1)]
