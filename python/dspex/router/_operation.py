"""One call, as it travels from a module to the target that runs it.

::

    AnyOperation            what every call has: inputs, limits, the model, how prompts and replies look
    ├── Operation           one LM call by a signature: every target runs it
    └── ModuleOperation     a module or program that only real DSPy has: targets with workers run it
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from dspex.adapters import Adapter, Parsing
    from dspex.events import ReplyEvent, Status
    from dspex.lm import LanguageModel
    from dspex.protocol.requests import ModuleRequest
    from dspex.signature import Signature

__all__ = ["AnyOperation", "ModuleOperation", "Operation", "RouteName", "Sink"]

RouteName = str
"""`"native"`, `"python"`, or the name of one target such as `"pool:general"`."""


class Sink(Protocol):
    """Who hears of a call while it runs: the stream of a module.

    Attributes:
        predictor: What the events say of the predictor.
        turn: Which of its calls in the stream it is.
        fields: The output fields to tell of; where there are none, nothing is told.
    """

    predictor: str
    turn: int
    fields: frozenset[str]

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


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyOperation:
    """What to run it on, and within which limits.

    Attributes:
        inputs: Values by name.
        config: Settings for the LM that override its own (`temperature`, `n`, ...).
        route: The caller's override, or None for the router's choice.
        timeout: Seconds for the whole call, or None for the runtime's default.
        idempotent: Whether a worker may run it again when the first is ended for another call's fault.
        adapter: A `dspex.adapters.Adapter` for this call, or None for the runtime's.
        parsing: How the call's replies are read, or None for the adapter's own way.
        lm: The language model to ask, or None for the runtime's.
        sink: Who hears of the reply while it comes, or None.
    """

    inputs: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    route: RouteName | None = None
    timeout: float | None = None
    idempotent: bool = False
    adapter: Adapter | None = None
    parsing: Parsing | None = None
    lm: LanguageModel | None = None
    sink: Sink | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(AnyOperation):
    """The outputs of a signature, by one LM call. Its inputs have been checked against the signature.

    Attributes:
        signature: The fields and instructions of the call.
        demos: Few-shot examples: mappings of input and output fields.
    """

    signature: Signature
    demos: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleOperation(AnyOperation):
    """What a module of DSPy's, or a program that a worker imports, makes of the inputs.

    Attributes:
        module: What the module is made of, as a pool is asked for it; the rest of the request is this call's.
        args: Inputs that are given by position.
        signature: The signature it is made with, or None if it has its own.
        functions: Functions of the service that it may call, by the names that `module` has for them.
    """

    module: ModuleRequest
    args: Sequence[Any] = ()
    signature: Signature | None = None
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
