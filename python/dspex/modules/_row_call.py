"""`RowCall`: one row of a batch that the batch itself begins, asks and finishes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from dspex.modules._module import Module
    from dspex.router._backstop import Watch

__all__ = ["GOES_ON", "RowCall", "begin_of"]


class _GoesOn:
    """What a row gives that has ended one of its calls, and has begun another."""

    def __repr__(self) -> str:
        return "<goes on>"


GOES_ON: Final = _GoesOn()


class RowCall(Protocol):
    """A row that has been begun; a `dspex.router.Call` is one of a single call."""

    def watched(self, earlier: Watch | None = None) -> Watch | None:
        """A watch for the running task, for `ask`; see `dspex.router.Call.watched`."""
        ...

    def ask(self, watch: Watch | None = None) -> Coroutine[Any, Any, None]:
        """Wait for the answer.

        Raises:
            Exception: With which the row has ended.
        """
        ...

    def finish(self) -> Any:
        """Read the answer: what the row comes to, or `GOES_ON` where it is to be asked again.

        Raises:
            Exception: With which the row has ended.
        """
        ...

    def abandon(self) -> None:
        """Give the row up."""
        ...


def begin_of(module: Module | Callable[..., Any]) -> Callable[[dict[str, Any]], RowCall | None] | None:
    """How a call of this module is begun for a batch; None where it can only be awaited whole."""
    begin: Any = getattr(module, "begin_row", None)
    # A subclass may have an `acall` of its own, for which that does not stand.
    stands_for = getattr(type(module), "_begin_stands_for", None)
    return begin if stands_for is not None and stands_for is getattr(type(module), "acall", None) else None
