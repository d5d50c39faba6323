"""How a call is made, whatever it asks for: for how long, for whom, and what of the service it may use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypedDict

from dspex._settings import check_idempotent
from dspex.errors import ConfigError

if TYPE_CHECKING:
    from dspex.pool._input_streams import Source
    from dspex.pool._places import Place
    from dspex.pool._profiles import Profile
    from dspex.telemetry._trace import Trace

__all__ = ["DEFAULT_OPTIONS", "CallKeywords", "CallOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """How a call is made.

    Attributes:
        timeout: Seconds from now until the answer, waiting in the queue included; or a profile:
            `"interactive"` (30 s), `"batch"` (600 s), `"optimizer"` (a day); None for the pool's
            `timeouts.call`.
        idempotent: Whether the call may be run again when its worker is ended for another call's fault. None
            is False for all requests but an `EchoRequest`. One whose own work ends the worker is not run
            again; its `WorkerDiedError` is then `retryable`. A stream is until its first part has come, a
            call with input streams never.
        session: Whose call it is: sessions take turns in the queue.
        host_functions: Functions of this process, by name, that the work may call while the call lasts: sync
            ones run in a thread, async ones on the pool's loop, both in a copy of the caller's context. A
            call that such a function makes to a pool does not wait for a place and has no more time than
            this one.
        input_streams: Input that comes in parts: async iterators, iterators (each step in a thread) or lists,
            by the name of the argument under which the work finds an iterator over the same parts. They are
            drawn no faster than the work reads, and closed when it has enough or is over.
        trace: The trace the call belongs to: a W3C `traceparent`, or a mapping with it; None for the one of
            `dspex.telemetry.use_trace`. The work finds it by `dspex.telemetry.current_trace`.
        codec: By which codec it is written, and its answer too: one that the pool's workers read; None for
            the pool's.
        place: Where a session's calls go; see `Pool.place`. Its name is that of the session too.
        pinned: Which worker of that session the call needs, by `place.number`; 0 for whichever it lives on.
    """

    timeout: float | Profile | None = None
    idempotent: bool | None = None
    session: str = ""
    host_functions: Mapping[str, Callable[..., Any]] | None = None
    input_streams: Mapping[str, Source] | None = None
    trace: str | Trace | None = None
    codec: str | None = None
    place: Place | None = None
    pinned: int = 0

    def check(self) -> None:
        """See to it that what the queue and a worker look up can be looked up.

        What cannot be would come to light among others' calls.

        Raises:
            ConfigError: If something is not of its kind (`bad-call`).
        """
        if not isinstance(self.session, str):
            raise ConfigError(f"a session is a text: session={self.session!r}", code="bad-call")
        if self.idempotent is not None:
            check_idempotent(self.idempotent)
        if self.codec is not None and not isinstance(self.codec, str):
            raise ConfigError(f"a codec is named by a text: codec={self.codec!r}", code="bad-call")
        functions = self.host_functions
        if functions and not (isinstance(functions, Mapping) and all(map(callable, functions.values()))):
            raise ConfigError("host functions are functions by their names", code="bad-call")


class CallKeywords(TypedDict, total=False):
    """The options of a call as keyword arguments; see `CallOptions`."""

    timeout: float | Profile | None
    idempotent: bool | None
    session: str
    host_functions: Mapping[str, Callable[..., Any]] | None
    input_streams: Mapping[str, Source] | None
    trace: str | Trace | None
    codec: str | None
    place: Place | None
    pinned: int


DEFAULT_OPTIONS: Final = CallOptions()
