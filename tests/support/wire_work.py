"""What the tests of the wire have a worker do with large values."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dspex.errors import InputError
from dspex.worker.host import call_host

ROWS = 32_768
"""Rows of one batch: 256 KiB, which go by shared memory."""

_kept: list[Any] = []


def keep(value: Any) -> int:
    """Hold on to a value until `let_go`; gives this process's id."""
    _kept.append(value)
    return os.getpid()


def let_go() -> None:
    _kept.clear()


def sums_of_kept() -> list[float]:
    return [float(np.sum(value)) for value in _kept]


def total(value: Any) -> float:
    """The sum of an array, or of those in a list or dict."""
    if isinstance(value, dict):
        value = list(value.values())
    return sum(map(total, value)) if isinstance(value, list) else float(np.sum(value))


def array(count: int, first: int = 0) -> Any:
    return np.arange(first, first + count, dtype="f8")


def batch(number: int) -> Any:
    """The record batch of that number, of which no two are equal."""
    return pa.record_batch({"n": pa.array(np.arange(ROWS) + number * ROWS)})


def batches(count: int) -> Iterator[Any]:
    yield from map(batch, range(count))


async def batches_and_tell(path: str) -> AsyncIterator[Any]:
    """Batches for ever; a file says how many were made."""
    number = 0
    while True:
        Path(path).write_text(str(number))
        yield batch(number)
        number += 1


async def values_and_wait(values: list[Any]) -> AsyncIterator[Any]:
    for value in values:
        yield value
    await asyncio.Event().wait()


async def sums(parts: Any) -> list[float]:
    return [total(part) async for part in parts]


async def back(parts: Any) -> AsyncIterator[Any]:
    async for part in parts:
        yield part


async def ask(name: str, value: Any) -> Any:
    return await call_host(name, value)


async def ask_and_sum(name: str, count: int) -> list[float]:
    """Ask that often, and make a sum of each answer."""
    return [total(await call_host(name, number)) for number in range(count)]


async def ask_and_wait(name: str) -> None:
    await call_host(name)
    await asyncio.Event().wait()


def keep_and_die(value: Any) -> None:
    _kept.append(value)
    os.kill(os.getpid(), signal.SIGKILL)


def fail_with(value: Any) -> None:
    raise InputError("the rows are wrong", problems=[{"rows": value}])


@dataclasses.dataclass
class Held:
    """What may cross, with something that may not."""

    conn: Any


def give_a_connection() -> Any:
    return {"large": array(2**17), "rows": [b"x" * 2**20, {"conn": sqlite3.connect(":memory:")}]}


def give_an_enum() -> Any:
    from tests.support.wire_values import Colour

    return {"large": array(2**17), "rows": [1, Colour.RED]}


def give_too_much(size: int) -> Any:
    return {"large": array(2**17), "text": "x" * size}


def arrays_and_a_connection(count: int) -> Iterator[Any]:
    for number in range(count):
        yield array(2**17, number)
    yield [array(2**17), sqlite3.connect(":memory:")]


def check_and_pid(value: Any, expected: Any) -> tuple[bool, int]:
    from tests.support.wire_same import same

    return same(value, expected), os.getpid()


async def count_parts(parts: Any) -> int:
    return len([part async for part in parts])
