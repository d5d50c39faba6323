"""What a worker can be asked for, by name.

An operation is an async function of the context and of what has arrived, which it reads as its request first
(`dspex.protocol.requests`). It answers with plain values and raises what it likes; `failures` makes an error
of the tree of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import dspy

from dspex.protocol.requests import FunctionRequest, ModuleRequest, PredictRequest
from dspex.wire import Classes
from dspex.worker.operations.functions import call_function
from dspex.worker.operations.lm import Models
from dspex.worker.operations.modules import Modules

if TYPE_CHECKING:
    from dspex.worker.operations.handles import Handles

__all__ = ["INSTANT", "OPERATIONS", "STREAMS", "InstantOperation", "Operation", "WorkerContext"]


class WorkerContext:
    """What the operations of one worker share.

    Args:
        lm: Settings of the pool's LM, or None.
        classes: The modules from which objects may be made by name.
    """

    def __init__(self, lm: Mapping[str, Any] | None, classes: Classes | None = None) -> None:
        if find_spec("dspy.lm15") is not None:  # DSPy 3.3 asks through LiteLLM alone
            from dspex.worker.operations.lm_bounds import bound_replies

            bound_replies()
        self.models = Models(lm)
        self.modules = Modules(self.models)
        self.classes = Classes() if classes is None else classes
        self.handles: Handles | None = None  # once a session has an object here
        # A worker lives long and nobody reads its history: keep none. The disk cache would open dozens of
        # descriptors in every worker and has locks that cross processes.
        dspy.configure(disable_history=True)
        dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)


Operation = Callable[[WorkerContext, Any], Awaitable[Any]]


InstantOperation = Callable[[WorkerContext, Any], Any]


def _echo(context: WorkerContext, payload: Any) -> Any:
    return payload


async def _function(context: WorkerContext, payload: Any) -> Any:
    return await call_function(FunctionRequest.from_wire(payload))


async def _predict(context: WorkerContext, payload: Any) -> Any:
    return await context.modules.answer(PredictRequest.from_wire(payload))


async def _module(context: WorkerContext, payload: Any) -> Any:
    return await context.modules.answer(ModuleRequest.from_wire(payload))


async def _predict_in_parts(context: WorkerContext, payload: Any) -> Any:
    return _parts(context, PredictRequest.from_wire(payload))


async def _module_in_parts(context: WorkerContext, payload: Any) -> Any:
    return _parts(context, ModuleRequest.from_wire(payload))


def _parts(context: WorkerContext, request: PredictRequest | ModuleRequest) -> Any:
    from dspex.worker.operations.streams import parts_of  # a worker nobody streams from does without

    return parts_of(context.modules, request)


async def _optimize(context: WorkerContext, payload: Any) -> Any:
    from dspex.protocol.optimization import OptimizeRequest  # a worker that optimises nothing does without
    from dspex.worker.operations.optimize import optimize

    return await optimize(context.models, OptimizeRequest.from_wire(payload))


async def _handle(context: WorkerContext, payload: Any) -> Any:
    from dspex.protocol.handles import HandleRequest  # a worker without sessions does without
    from dspex.worker.operations.handles import Handles

    if context.handles is None:
        context.handles = Handles(context.classes)
    return await context.handles.answer(HandleRequest.from_wire(payload))


OPERATIONS: Final[Mapping[str, Operation]] = {
    "function": _function,
    "handle": _handle,
    "module": _module,
    "optimize": _optimize,
    "predict": _predict,
}

INSTANT: Final[Mapping[str, InstantOperation]] = {"echo": _echo}
"""Those that neither wait nor take time: they are answered on the spot, without a task."""

STREAMS: Final[Mapping[str, Operation]] = {
    "function": _function,
    "module": _module_in_parts,
    "predict": _predict_in_parts,
}
"""What answers in parts: such an operation gives an async generator."""
