"""The modifiers of a step, in their one order from outside in: cache, fallback, retry, timeout.

::

    cache      an outcome for equal inputs is given again; only what ended well is kept
    fallback   where all attempts have failed, the next step tries, with the same fields around it
    retry      attempts, with the waits of `dspex.router.Retry`, within the run's time
    timeout    seconds for each attempt; a module hands it down to its model and its worker

What is tried again: an error of dspex's that says it is `retryable`, and any exception of a function's own,
as its author asked for that. A mistake of the caller's (`category == "caller"`) is neither tried again nor
stood in for, nor is anything once the run's time is over.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from dspex._timeouts import without_frames
from dspex.errors import DeadlineExceeded, DspexError, StoreError
from dspex.modules import _scope
from dspex.pipelines._plan import Leaf, Node
from dspex.pipelines._result import Status
from dspex.pipelines._run import Run, kept, take_inputs
from dspex.router import Retry

__all__ = ["modified"]


async def modified(
    run: Run, node: Node, inputs: Mapping[str, Any], slots: Sequence[Any], prefix: str, path: str
) -> tuple[Status, Mapping[str, Any]]:
    """Run a node with what wraps it."""
    assert node.modifiers is not None  # noqa: S101 - asked before
    cache = node.modifiers.cache
    if cache is None:
        return await _with_fallback(run, node, inputs, slots, prefix, path)
    key = cache.key(node, inputs)
    found = cache.get(key)
    if found is not None:
        if run.journal is not None and run.journal.found(path, node, inputs) is None:
            await run.journal.keep(path, node, inputs, found, 0.0)
        return "cached", found
    status, outputs = await _with_fallback(run, node, inputs, slots, prefix, path)
    cache.put(key, outputs, path)
    return status, outputs


async def _with_fallback(
    run: Run, node: Node, inputs: Mapping[str, Any], slots: Sequence[Any], prefix: str, path: str
) -> tuple[Status, Mapping[str, Any]]:
    assert node.modifiers is not None  # noqa: S101 - asked before
    stand_ins = node.modifiers.fallback
    if not stand_ins:
        return await _with_retry(run, node, inputs, path)
    found = _stood_in(run, node, slots, prefix)
    if found is not None:
        return "resumed", found
    try:
        return await _with_retry(run, node, inputs, path)
    except Exception as error:
        if not _may_stand_in(error):
            raise
        last = error
    names = [name for name, _ in node.gives]
    for stand_in in stand_ins:
        where = prefix + stand_in.name
        if run.teller is not None and not run.teller.restarts(path):
            break
        try:
            status, outputs = await _stand_in(run, stand_in, slots, prefix, where)
        except Exception as error:  # noqa: BLE001 - the first one's is raised where all have failed
            if not _may_stand_in(error):
                last = error
                break
            run.failures.setdefault(where, error)
            continue
        run.made_good(path)
        return status, _as(outputs, stand_in, node, names)
    try:
        raise last
    finally:
        del last  # it holds this frame


async def _stand_in(
    run: Run, stand_in: Node, slots: Sequence[Any], prefix: str, where: str
) -> tuple[Status, Mapping[str, Any]]:
    inputs = take_inputs(stand_in, slots, where)
    if stand_in.modifiers is not None:
        return await modified(run, stand_in, inputs, slots, prefix, where)
    return await kept(run, stand_in, inputs, where, 1)


def _stood_in(run: Run, node: Node, slots: Sequence[Any], prefix: str) -> Mapping[str, Any] | None:
    """What a step gave that stood in for this one before the run was resumed: then this one has failed."""
    assert node.modifiers is not None  # noqa: S101 - asked before
    if run.journal is None:
        return None
    names = [name for name, _ in node.gives]
    for stand_in in node.modifiers.fallback:
        if isinstance(stand_in.does, Leaf):
            where = prefix + stand_in.name
            found = run.journal.found(where, stand_in, take_inputs(stand_in, slots, where))
            if found is not None:
                return _as(found, stand_in, node, names)
    return None


def _as(outputs: Mapping[str, Any], stand_in: Node, node: Node, names: Sequence[str]) -> Mapping[str, Any]:
    """What a step gave that stood in for `node`, by the names of that."""
    slots = dict(node.gives)
    by_slot = {slot: outputs[name] for name, slot in stand_in.gives}
    return {name: by_slot.get(slots[name]) for name in names}


async def _with_retry(
    run: Run, node: Node, inputs: Mapping[str, Any], path: str
) -> tuple[Status, Mapping[str, Any]]:
    assert node.modifiers is not None  # noqa: S101 - asked before
    retry, timeout = node.modifiers.retry, node.modifiers.timeout
    attempt = 1
    while True:
        try:
            if timeout is None:
                outcome = await kept(run, node, inputs, path, attempt)
            else:
                outcome = await _with_timeout(run, node, inputs, path, attempt, timeout)
        except Exception as error:
            if retry is None or attempt >= retry.attempts or not _may_be_tried_again(error):
                raise
            if run.teller is not None and not run.teller.restarts(path):
                raise
            seconds = _wait(retry, attempt, error)
            if seconds is None:
                raise
        else:
            if attempt > 1:
                run.made_good(path)
            return outcome
        await asyncio.sleep(seconds)
        attempt += 1


def _wait(retry: Retry, failures: int, error: Exception) -> float | None:
    """Seconds until the next attempt; None where the run's time does not allow it."""
    seconds = retry.wait(failures, getattr(error, "retry_after", None), random.random())  # noqa: S311
    scope = _scope.current_scope()
    if scope is not None and scope.deadline is not None and time.monotonic() + seconds >= scope.deadline:
        return None
    return seconds


async def _with_timeout(
    run: Run, node: Node, inputs: Mapping[str, Any], path: str, attempt: int, seconds: float
) -> tuple[Status, Mapping[str, Any]]:
    with _scope.enter(timeout=seconds) as scope:
        if isinstance(node.does, Leaf) and node.does.face.how == "module":
            return await kept(run, node, inputs, path, attempt)  # it keeps to the scope's time itself
        limit = asyncio.timeout(scope.left(seconds))
        try:
            async with limit:
                return await kept(run, node, inputs, path, attempt)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise DeadlineExceeded(
                f"{path} took longer than its {seconds:g} s",
                code="step-timeout",
                hint="give the step more time with timeout=, or let it try again with retry=",
                timeout=seconds,
                stage="step",
            ) from without_frames(error)
        finally:
            del limit  # it holds the task, and by that the exception


def _time_is_over() -> bool:
    scope = _scope.current_scope()
    return scope is not None and scope.deadline is not None and time.monotonic() >= scope.deadline


def _may_be_tried_again(error: Exception) -> bool:
    if _time_is_over() or _is_of_the_run(error):
        return False
    if isinstance(error, DeadlineExceeded):
        return True  # of the attempt: the run's own time is not over
    return error.retryable if isinstance(error, DspexError) else True


def _may_stand_in(error: Exception) -> bool:
    of_caller = getattr(error, "category", "") == "caller"
    return not (of_caller or _is_of_the_run(error) or _time_is_over())


def _is_of_the_run(error: Exception) -> bool:
    """Whether the step itself has ended well, and could not be kept."""
    return isinstance(error, StoreError) or getattr(error, "code", "") == "not-encodable"
