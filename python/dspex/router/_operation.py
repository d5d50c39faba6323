"""One call, as it travels from a module to the target that runs it.

::

    AnyOperation            what every call has: inputs, limits, the model, how prompts and replies look
    ├── Operation           one LM call by a signature: every target runs it
    ├── ModuleOperation     a module or program that only real DSPy has: targets with workers run it
    └── OptimizeOperation   an optimizer's work on a program, for hours: a pool of its own, if there is one
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from dspex.adapters import Adapter, Parsing
    from dspex.events import ReplyEvent, Status
    from dspex.lm import LanguageModel
    from dspex.router._strategy import Strategy
    from dspex.signature import Signature

__all__ = [
    "AnyOperation",
    "ModuleSink",
    "Operation",
    "ReplySink",
    "RouteName",
    "Sink",
]

RouteName = str
"""`"native"`, `"python"`, or the name of one target such as `"pool:general"`."""


class Sink(Protocol):
    """Who hears of a call while it runs: the stream of a module.

    Attributes:
        told: Whether an event of the call has been handed over: then it is not begun again.
    """

    told: bool

    def attach(self, task: asyncio.Task[Any]) -> None:
        """Let the task, which runs the call, be cancelled when the reader of the stream leaves."""
        ...

    async def put(self, events: Sequence[ReplyEvent | Status], deadline: float) -> None:
        """Hand events over, and wait for room first, at most until the loop's time is `deadline`.

        Raises:
            DeadlineExceeded: If there was none.
            CancelledError: If the reader has left.
        """
        ...

    def check(self) -> None:
        """Go no further for a reader that has left.

        Raises:
            CancelledError: If it has.
        """
        ...


class ReplySink(Sink, Protocol):
    """Who hears of one reply.

    Attributes:
        predictor: What the events say of the predictor.
        turn: Which of its calls in the stream it is.
        fields: The output fields to tell of; where there are none, nothing is told.
    """

    predictor: str
    turn: int
    fields: frozenset[str]

    def put_now(self, events: Sequence[ReplyEvent]) -> bool:
        """Tell these events if there is room for them now; False where that has to be waited for by `put`.

        Raises:
            CancelledError: If the reader has left.
        """
        ...


class ModuleSink(Sink, Protocol):
    """Who hears of the replies inside a module, whose events say which of its predictors they are from.

    Attributes:
        fields: The output fields to tell of, `"answer"` or `"draft.answer"`; None for all. Where there are
            none, nothing is told.
        inner: Whether the module is a part of the program that is streamed, and not that program.
    """

    fields: Sequence[str] | None
    inner: bool


@dataclass(slots=True, kw_only=True, eq=False)
class AnyOperation:
    """What to run it on, and within which limits.

    Nobody changes it; a frozen class would take twice the time to make.

    Attributes:
        inputs: Values by name.
        config: Settings for the LM that override its own (`temperature`, `n`, ...).
        route: The caller's override, or None for the router's choice.
        timeout: Seconds for the whole call, or None for the runtime's default.
        idempotent: Whether a worker may run it again when the first is ended for another call's fault.
        adapter: A `dspex.adapters.Adapter` for this call, or None for the runtime's.
        parsing: How the call's replies are read, or None for the adapter's own way.
        lm: The language model to ask, or None for the runtime's.
        sink: Who hears of the call while it runs, or None.
        strategy: In which order targets are considered for this call, or None for the runtime's.
        needs: What the operation, its own adapter and its own model need of a target; see `dspex._needs`.
        prefers: The target that it goes to if there is one of that name and the caller names none.
    """

    prefers: ClassVar[RouteName | None] = None

    inputs: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    route: RouteName | None = None
    timeout: float | None = None
    idempotent: bool = False
    adapter: Adapter | None = None
    parsing: Parsing | None = None
    lm: LanguageModel | None = None
    sink: Sink | None = None
    strategy: Strategy | None = None
    needs: int = 0


@dataclass(slots=True, kw_only=True, eq=False)
class Operation(AnyOperation):
    """The outputs of a signature, by one LM call. Its inputs have been checked against the signature.

    Attributes:
        signature: The fields and instructions of the call.
        demos: Few-shot examples: mappings of input and output fields.
    """

    signature: Signature
    demos: Sequence[Mapping[str, Any]] = ()
    sink: ReplySink | None = None
