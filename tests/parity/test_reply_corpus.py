"""The corpus of replies says what DSPy makes of each, and what tolerance does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest
from tests.parity.test_adapters import outcome

import dspex
from dspex.errors import ReplyError

CORPUS = json.loads((Path(__file__).parents[2] / "testdata/replies/replies.json").read_text())
NAMES = {"chat": "ChatAdapter", "json": "JSONAdapter", "xml": "XMLAdapter"}
ids = [f"{row['kind']}-{row['name']}-{row['layout']}" for row in CORPUS]


def expected(row: dict[str, Any]) -> tuple[str, Any]:
    known = row["dspy"]
    return ("refused", None) if "error" in known else ("value", repr(known["fields"]))


def said(read: Callable[[], dict[str, Any]]) -> str:
    """What is read, or the code of the error, as the corpus has it."""
    try:
        return repr(read())
    except ReplyError as error:
        return repr({"error": error.code})


@pytest.mark.parametrize("row", CORPUS, ids=ids)
def test_dspy_reads_it_as_the_corpus_says(row: dict[str, Any]) -> None:
    theirs, source = getattr(dspy, NAMES[row["layout"]])(), f"q -> {row['outputs']}"
    # What it raises depends on the adapter and the version; that it does is what counts.
    assert outcome(lambda: theirs.parse(dspy.Signature(source), row["reply"]), Exception) == expected(row)


@pytest.mark.parametrize("row", CORPUS, ids=ids)
def test_the_letter_reads_it_as_dspy_does(row: dict[str, Any]) -> None:
    ours, source = getattr(dspex, NAMES[row["layout"]])(parsing="dspy"), f"q -> {row['outputs']}"
    assert said(lambda: {"fields": ours.parse(source, row["reply"])}) == repr(row["dspy"])


@pytest.mark.parametrize("row", CORPUS, ids=ids)
def test_tolerance_reads_it_as_the_corpus_says(row: dict[str, Any]) -> None:
    ours, source = getattr(dspex, NAMES[row["layout"]])(), f"q -> {row['outputs']}"

    def read() -> dict[str, Any]:
        fields, repairs = ours.read(source, row["reply"])
        return {"fields": fields, "repairs": [[repair.field, repair.code] for repair in repairs]}

    assert said(read) == repr(row["tolerant"])


def test_every_kind_of_reply_is_in_the_corpus_in_every_layout() -> None:
    kinds = {(row["kind"], row["layout"]) for row in CORPUS}
    assert kinds == {(k, la) for k in ("well-formed", "near miss", "doubtful", "hostile") for la in NAMES}
