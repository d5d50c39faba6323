"""Functions that pipelines in data name."""

from __future__ import annotations

__all__ = ["join", "longer", "merge", "split"]


async def longer(x: str) -> str:
    return x + "!"


def split(x: str) -> list[str]:
    return list(x)


def join(xs: list[str]) -> str:
    return "".join(xs)


async def merge(a: str, b: str) -> str:
    return a + b
