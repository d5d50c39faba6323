"""The Rust core. Private: users meet the modules of `dspex` instead."""

from collections.abc import Sequence
from typing import final

__version__: str
_debug_build: bool

@final
class Router:
    def __new__(cls, targets: Sequence[tuple[str, str]]) -> Router: ...
    def decide(self, wanted: str | None = None, native_able: bool = True) -> int: ...
    def record(self, index: int, outcome: str) -> None: ...
    def counts(self) -> list[tuple[str, int, int, int, int]]: ...
