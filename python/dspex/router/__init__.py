"""The way of a call: an operation, the targets that can run it, and the choice between them.

::

    module  --Operation-->  Dispatcher (a Runtime)  --decide-->  Target.run  -->  Prediction

This package knows no pool and no LM: `dspex.runtime` makes those and registers them as targets.
"""

from dspex.router._operation import AnyOperation, ModuleOperation, Operation, RouteName, Sink
from dspex.router._router import Router, TargetCounts
from dspex.router._scope import Dispatcher, current_dispatcher, forget, offer, set_default, use
from dspex.router._target import Target

__all__ = [
    "AnyOperation",
    "Dispatcher",
    "ModuleOperation",
    "Operation",
    "RouteName",
    "Router",
    "Sink",
    "Target",
    "TargetCounts",
    "current_dispatcher",
    "forget",
    "offer",
    "set_default",
    "use",
]
