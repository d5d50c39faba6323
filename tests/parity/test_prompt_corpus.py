"""The corpus of prompts says which messages DSPy makes; the tests of the core render the same files.

A file begins with a call, in JSON; its messages follow, of one layout after the other. For a new case,
write the call and let `python -m tests.parity.test_prompt_corpus` fill in what DSPy makes of it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import dspy
import pytest

import dspex

CORPUS = Path(__file__).parents[2] / "testdata/prompts"
CASES = sorted(CORPUS.glob("*.txt"))
ADAPTERS = {"chat": "ChatAdapter", "json": "JSONAdapter", "xml": "XMLAdapter"}
MARK = re.compile(r"^===== (\w+): (\w+)\n", re.MULTILINE)

Messages = list[dict[str, str]]


def read(path: Path) -> tuple[dict[str, Any], dict[str, Messages]]:
    """The call in a file, and its messages in each layout."""
    call, *parts = MARK.split(path.read_bytes().decode())
    messages: dict[str, Messages] = {layout: [] for layout in ADAPTERS}
    for layout, role, content in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        messages[layout].append({"role": role, "content": content.removesuffix("\n")})
    return json.loads(call), messages


def made(package: Any, layout: str, call: dict[str, Any]) -> Messages:
    """The messages of a package's adapter, DSPy's or ours."""
    signature = package.Signature(call["signature"], call.get("instructions"))
    adapter = getattr(package, ADAPTERS[layout])()
    messages: Messages = adapter.format(signature, call.get("demos", []), call["inputs"])
    return messages


@pytest.mark.parametrize("layout", ADAPTERS)
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_the_messages_in_the_corpus_are_dspys(path: Path, layout: str) -> None:
    call, messages = read(path)
    assert messages[layout] == made(dspy, layout, call)


@pytest.mark.parametrize("layout", ADAPTERS)
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_our_adapters_make_the_messages_in_the_corpus(path: Path, layout: str) -> None:
    call, messages = read(path)
    assert made(dspex, layout, call) == messages[layout]


def write(path: Path) -> None:
    """Fill in what DSPy makes of the call in a file."""
    head = MARK.split(path.read_bytes().decode())[0]
    call = json.loads(head)
    parts = [head]
    for layout in ADAPTERS:
        for message in made(dspy, layout, call):
            parts.append(f"===== {layout}: {message['role']}\n{message['content']}\n")
    path.write_bytes("".join(parts).encode())


if __name__ == "__main__":
    for case in CASES:
        write(case)
