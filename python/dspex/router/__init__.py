"""The way of a call: an operation, the targets that can run it, and the choice between them.

::

    module  --Operation-->  Dispatcher (a Runtime)  --decide-->  Target.run  -->  Prediction

This package knows no pool and no LM: `dspex.runtime` makes those and registers them as targets.
"""

from dspex._lazy import names_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dspex._breaker import Breaker
    from dspex._waiting import waiting
    from dspex.router._call import Call
    from dspex.router._failures import ErrorCount, ErrorExample, Report
    from dspex.router._hedge import Hedge
    from dspex.router._limits import GivenLimits, Limits
    from dspex.router._operation import (
        AnyOperation,
        ModuleSink,
        Operation,
        ReplySink,
        RouteName,
        Sink,
    )
    from dspex.router._retry import Retry
    from dspex.router._router import Explanation, Router, Standing, TargetCounts
    from dspex.router._scope import (
        Dispatcher,
        current_dispatcher,
        dispatcher_here,
        forget,
        offer,
        set_default,
        use,
    )
    from dspex.router._shadow import Shadow
    from dspex.router._strategy import (
        BreakerState,
        Candidate,
        OrderOfTargets,
        Strategy,
        checked_order,
        checked_strategy,
    )
    from dspex.router._target import Side, SteppedTarget, Steps, Target
    from dspex.router._worker_operations import ModuleOperation, OptimizeOperation

__all__ = [
    "AnyOperation",
    "Breaker",
    "BreakerState",
    "Call",
    "Candidate",
    "Dispatcher",
    "ErrorCount",
    "ErrorExample",
    "Explanation",
    "GivenLimits",
    "Hedge",
    "Limits",
    "ModuleOperation",
    "ModuleSink",
    "Operation",
    "OptimizeOperation",
    "OrderOfTargets",
    "ReplySink",
    "Report",
    "Retry",
    "RouteName",
    "Router",
    "Shadow",
    "Side",
    "Sink",
    "Standing",
    "SteppedTarget",
    "Steps",
    "Strategy",
    "Target",
    "TargetCounts",
    "checked_order",
    "checked_strategy",
    "current_dispatcher",
    "dispatcher_here",
    "forget",
    "offer",
    "set_default",
    "use",
    "waiting",
]

_HOMES = {
    "AnyOperation": "dspex.router._operation",
    "Breaker": "dspex._breaker",
    "BreakerState": "dspex.router._strategy",
    "Call": "dspex.router._call",
    "Candidate": "dspex.router._strategy",
    "Dispatcher": "dspex.router._scope",
    "ErrorCount": "dspex.router._failures",
    "ErrorExample": "dspex.router._failures",
    "Explanation": "dspex.router._router",
    "GivenLimits": "dspex.router._limits",
    "Hedge": "dspex.router._hedge",
    "Limits": "dspex.router._limits",
    "ModuleOperation": "dspex.router._worker_operations",
    "ModuleSink": "dspex.router._operation",
    "Operation": "dspex.router._operation",
    "OptimizeOperation": "dspex.router._worker_operations",
    "OrderOfTargets": "dspex.router._strategy",
    "ReplySink": "dspex.router._operation",
    "Report": "dspex.router._failures",
    "Retry": "dspex.router._retry",
    "RouteName": "dspex.router._operation",
    "Router": "dspex.router._router",
    "Shadow": "dspex.router._shadow",
    "Side": "dspex.router._target",
    "Sink": "dspex.router._operation",
    "Standing": "dspex.router._router",
    "SteppedTarget": "dspex.router._target",
    "Steps": "dspex.router._target",
    "Strategy": "dspex.router._strategy",
    "Target": "dspex.router._target",
    "TargetCounts": "dspex.router._router",
    "checked_order": "dspex.router._strategy",
    "checked_strategy": "dspex.router._strategy",
    "current_dispatcher": "dspex.router._scope",
    "dispatcher_here": "dspex.router._scope",
    "forget": "dspex.router._scope",
    "offer": "dspex.router._scope",
    "set_default": "dspex.router._scope",
    "use": "dspex.router._scope",
    "waiting": "dspex._waiting",
}

if not TYPE_CHECKING:  # or a type checker would take every name for one that is there
    __getattr__ = names_of(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
