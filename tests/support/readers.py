"""Work that reads input which comes in parts."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import dspy

from dspex.errors import DspexError
from dspex.worker.host import call_host


def collect(parts: Any) -> list[Any]:
    return list(parts)


async def collect_async(parts: Any) -> list[Any]:
    return [part async for part in parts]


def sizes(parts: Any) -> list[int]:
    return [len(part) for part in parts]


async def both(left: Any, right: Any) -> list[Any]:
    """One of each by turns, until one ends."""
    taken = []
    async for part in left:
        taken.append((part, await anext(right)))
    return taken


async def double(parts: Any) -> Any:
    async for part in parts:
        yield 2 * part


def double_in_a_thread(parts: Any) -> Any:
    for part in parts:
        yield 2 * part


async def collect_and_catch(parts: Any) -> tuple[list[Any], str]:
    """What came before the error, and the error."""
    taken = []
    try:
        async for part in parts:
            taken.append(part)
    except DspexError as err:
        return taken, f"{type(err).__name__}: {err.message}"
    return taken, ""


def collect_and_catch_in_a_thread(parts: Any) -> tuple[list[Any], str]:
    taken = []
    try:
        for part in parts:
            taken.append(part)
    except DspexError as err:
        return taken, f"{type(err).__name__}: {err.message}"
    return taken, ""


async def first(parts: Any) -> Any:
    return await anext(parts)


async def first_and_close(parts: Any) -> Any:
    """Take one, have enough, say so, and go on only when the service says that it heard."""
    async with parts:
        taken = await anext(parts)
    await call_host("closed")
    return taken, [part async for part in parts]


async def first_and_ask(parts: Any) -> list[Any]:
    """Take one, wait until the service says go, and take the rest."""
    taken = [await anext(parts)]
    await call_host("go")
    return taken + [part async for part in parts]


async def first_and_wait(parts: Any) -> None:
    await anext(parts)
    await call_host("has_one")
    await asyncio.Event().wait()


async def first_and_die(parts: Any) -> None:
    await anext(parts)
    os.kill(os.getpid(), signal.SIGKILL)


class Summary(dspy.Module):
    """A program whose input comes in parts."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = dspy.Predict("text -> answer")

    async def aforward(self, lines: Any) -> dspy.Prediction:
        return await self.answer.acall(text=" ".join([line async for line in lines]))
