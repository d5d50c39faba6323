"""Calls that cannot be made: each is one clear error to its caller, and nobody else notices."""

# A table reads best with a row on a line.
# ruff: noqa: E501

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from tests.support.pools import OpenPool

from dspex import errors


class Evil(Mapping[str, Any]):
    """A mapping that looks plain until it is read."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("nobody looks inside")

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("nobody looks inside")

    def __len__(self) -> int:
        return 1


WORK = "tests.support.work:"
MODULE = {"signature": "question -> answer", "inputs": {"question": "?"}}

# name, the operation, its payload, settings of the call, the error's class and code, what it says
BAD: list[tuple[str, Any, Any, dict[str, Any], type[errors.DspexError], str, str]] = [
    ("an operation that is a number", 5, 1, {}, errors.ConfigError, "bad-call", "op=5"),
    ("an operation that is a list", ["x"], 1, {}, errors.ConfigError, "bad-call", "op="),
    ("an unknown operation", "ecko", 1, {}, errors.WireError, "unknown-operation", "there are: echo, function"),
    ("a session that is a list", "echo", 1, {"session": []}, errors.ConfigError, "bad-call", "session="),
    ("call-backs in a list", "echo", 1, {"callbacks": [print]}, errors.ConfigError, "bad-call", "by their names"),
    ("a call-back that is none", "echo", 1, {"callbacks": {"f": 5}}, errors.ConfigError, "bad-call", "functions"),
    ("feeds in a list", "function", {}, {"feeds": [[1]]}, errors.ConfigError, "bad-feed", "by the names"),
    ("a time that is a list", "echo", 1, {"timeout": [1]}, errors.ConfigError, "bad-timeout", "number of seconds"),
    ("a trace that is a number", "echo", 1, {"trace": 5}, errors.ConfigError, "bad-trace", "int"),
    ("a payload that raises", "echo", {"x": [Evil()]}, {}, errors.WireError, "not-encodable", "Evil at $.x[0] "),
    ("a function's payload that is a list", "function", [1], {}, errors.ConfigError, "bad-payload", "type list"),
    ("a function without a name", "function", {}, {}, errors.ConfigError, "bad-payload", "no 'function'"),
    ("arguments that are a number", "function", {"function": "os:getpid", "args": 5}, {}, errors.ConfigError, "bad-payload", "'args'"),
    ("a part with a typo", "function", {"function": "os:getpid", "arg": []}, {}, errors.ConfigError, "bad-payload", "did you mean 'args'"),
    ("a module's payload that is a text", "module", "x -> y", {}, errors.ConfigError, "bad-payload", "type str"),
    ("a module without inputs", "predict", {"signature": "q -> a"}, {}, errors.ConfigError, "bad-payload", "no 'inputs'"),
    ("a signature that is a list", "predict", {**MODULE, "signature": []}, {}, errors.ConfigError, "bad-payload", "'signature'"),
    ("inputs that are a list", "predict", {**MODULE, "inputs": []}, {}, errors.ConfigError, "bad-payload", "'inputs'"),
]  # fmt: skip


async def test_a_call_that_cannot_be_made_says_why_and_costs_nobody_else_anything(
    open_pool: OpenPool,
) -> None:
    pool = await open_pool(workers=1, max_inflight=8)
    witness = asyncio.ensure_future(pool.call("function", {"function": f"{WORK}wait_for_ever"}))
    for name, op, payload, settings, error, code, says in BAD:
        with pytest.raises(error) as caught:
            await pool.call(op, payload, **{"timeout": 20, **settings})
        assert caught.value.code == code, name
        assert says in str(caught.value), f"{name}: {caught.value}"
        assert await pool.call("echo", name, timeout=20) == name
    assert not witness.done()
    assert pool.status().deaths == 0
    witness.cancel()


async def test_a_stream_that_cannot_be_made_says_why(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=1)
    with pytest.raises(errors.ConfigError, match="'inputs'") as caught:
        await anext(pool.stream("module", {"signature": "q -> a"}, timeout=20))
    assert caught.value.code == "bad-payload"


async def test_a_payload_that_raises_in_the_queue_does_not_cost_the_call_before_it_its_answer(
    open_pool: OpenPool,
) -> None:
    """It is encoded when its turn comes, which is when another call has its answer."""
    pool = await open_pool(workers=1, max_inflight=1)
    before = asyncio.ensure_future(
        pool.call("function", {"function": f"{WORK}add", "args": [2, 3]}, timeout=20)
    )
    evil = asyncio.ensure_future(pool.call("echo", Evil(), timeout=20))
    after = asyncio.ensure_future(pool.call("echo", "mine", timeout=20))

    assert await asyncio.gather(before, after) == [5, "mine"]
    with pytest.raises(errors.WireError, match="Evil"):
        await evil
    assert pool.status().deaths == 0


async def test_what_the_iterator_of_a_batch_raises_is_raised(open_pool: OpenPool) -> None:
    def payloads() -> Iterator[int]:
        yield 1
        raise LookupError("no more rows")

    pool = await open_pool(workers=1)
    with pytest.raises(LookupError, match="no more rows"):
        await pool.batch("echo", payloads())
    assert await pool.batch("echo", [1, 2]) == [1, 2]
