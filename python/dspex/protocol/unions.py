"""Unions that Python code writes with a bar (PEP 604), on their way to a worker.

DSPy 3.3 calls `int | None` in a class `UnionType[int, NoneType]`. The text of a signature, which is what a
worker gets, has no such unions: DSPy makes each bar in it a `Union`. So the service also sends which unions
of a type are written with a bar, in the order in which unions stand in it, and the worker restores the bars.
A bar inside a `Union` or `Optional` may be lost, because `typing` keeps the first of two equal types that it
saw in the process.
"""

from __future__ import annotations

import functools
import operator
import types
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from dspex.signature import Signature

__all__ = ["pipe_unions_in", "pipe_unions_of", "with_pipe_unions"]


def pipe_unions_of(signature: Signature) -> dict[str, list[bool]]:
    """For each field with a bar in its type, which of its unions have one."""
    found = {name: pipe_unions_in(field.annotation) for name, field in signature.fields.items()}
    return {name: bars for name, bars in found.items() if any(bars)}


def pipe_unions_in(annotation: Any) -> list[bool]:
    """Which unions of a type are written with a bar, in the order in which they stand in it."""
    return list(_bars(annotation))


def _bars(annotation: Any) -> Iterator[bool]:
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        yield origin is types.UnionType
    for arg in get_args(annotation):
        yield from _bars(arg)


def with_pipe_unions(annotation: Any, bars: Sequence[bool]) -> Any:
    """The type with those of its unions that had a bar written with one again."""
    return _with_pipe_unions(annotation, iter(bars))


def _with_pipe_unions(annotation: Any, bars: Iterator[bool]) -> Any:
    origin, args = get_origin(annotation), get_args(annotation)
    if not args or origin is Literal:
        return annotation
    is_union = origin in (Union, types.UnionType)
    has_bar = is_union and next(bars, False)
    inner = tuple(_with_pipe_unions(arg, bars) for arg in args)
    if has_bar:
        return functools.reduce(operator.or_, inner)
    if is_union:
        return Union[inner]  # noqa: UP007 - as it was
    return annotation.copy_with(inner) if hasattr(annotation, "copy_with") else origin[inner]
