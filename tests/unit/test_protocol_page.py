"""docs/protocol.md says what the code does: its tables and examples are held against it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

from dspex.errors import RemoteError
from dspex.pool._backends.process import _NAMES
from dspex.protocol.errors import read_error
from dspex.protocol.frames import MAX_FRAME, PROTOCOL, Kind
from dspex.protocol.handshake import Greeting, Handshake
from dspex.protocol.heartbeat import BEAT
from dspex.wire._json import _WORDS, Json
from dspex.wire._kinds import BY_NAME

PAGE: Final = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
EXAMPLES: Final = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]


def rows(after: str) -> list[list[str]]:
    """The rows of the table below a heading."""
    section = PAGE.partition(f"\n## {after}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_of_types_has_every_type() -> None:
    named = [name for row in rows("JSON")[2:] for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(named) == sorted({*BY_NAME, *_WORDS})


def test_the_table_of_kinds_has_the_numbers_of_the_frames() -> None:
    told = {row[1]: int(row[0]) for row in rows("Frames") if row[0].isdigit() and row[1].isupper()}
    others = {int(number) for number in re.findall(r"^(\d.*) are for dspex", PAGE, re.MULTILINE)[0].replace(
        " and", ",").split(",")}  # fmt: skip
    assert told == {kind.name: int(kind) for kind in Kind if int(kind) not in others}
    assert {*told.values(), *others} == {int(kind) for kind in Kind}


def test_the_numbers_of_the_page_are_those_of_the_code() -> None:
    assert f"The version of all of this is {PROTOCOL}." in PAGE
    assert f"at most {MAX_FRAME:,}" in PAGE
    assert f"Write {BEAT.size} bytes to" in PAGE
    assert [row[0].strip("`") for row in rows("What a worker finds")[2:]] == list(_NAMES)


def test_the_examples_are_read_as_what_they_are() -> None:
    hello, ready, error, value = EXAMPLES
    assert hello.keys() <= {*Handshake(max_inflight=1).to_wire(), "limits", "lm"}
    assert Greeting.from_wire(ready) == Greeting(
        worker="words 1.0", codecs=("json",), operations=("function",)
    )
    assert type(read_error(error)) is RemoteError
    said: Any = Json().decode(json.dumps(value).encode())
    assert said["point"] == (1, 2.0)
    assert said["when"].year == 2026
