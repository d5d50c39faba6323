"""The calls that only targets with workers run; a service that has none does without this module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from dspex._needs import MODULE
from dspex.router._operation import AnyOperation, RouteName

if TYPE_CHECKING:
    from dspex.lm import LanguageModel
    from dspex.protocol.optimization import OptimizeRequest
    from dspex.protocol.requests import ModuleRequest
    from dspex.router._operation import ModuleSink
    from dspex.signature import Signature

__all__ = ["ModuleOperation", "OptimizeOperation"]


@dataclass(slots=True, kw_only=True, eq=False)
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
    sink: ModuleSink | None = None
    needs: int = MODULE


@dataclass(slots=True, kw_only=True, eq=False)
class OptimizeOperation(AnyOperation):
    """What an optimizer of DSPy's makes of a program. It has no inputs; its prediction has the state.

    Attributes:
        request: The program, the optimizer and the examples, as a pool is asked for the work.
        functions: Functions of the service that it calls, the metric among them.
        models: Language models of its own, by the names that the request has for them.
    """

    prefers: ClassVar[RouteName | None] = "pool:optimizer"

    request: OptimizeRequest
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    models: Mapping[str, LanguageModel] = field(default_factory=dict)
    needs: int = MODULE
