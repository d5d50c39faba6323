"""DSPy's adapters with the core inside: what the drop-ins and a worker's adapters are made of.

Each is DSPy's own class with two methods replaced, `format` and `parse`. What becomes of a call of them is a
policy: the drop-ins do as DSPy does to the letter (`dspex.dspy`), a worker reads replies as the native route
does (`dspex.worker.operations.adapters`).

The classes keep DSPy's names because its streaming looks adapters up by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import dspy
from dspy.utils.callback import with_callbacks

from dspex._core import Plan
from dspex._engine.plans import plans_of

__all__ = ["CoreAdapter", "function_of", "without_callbacks"]


class CoreAdapter(ABC):
    """Mixed into a class of DSPy's, before it; a class that says its `_layout` is one to use.

    A policy is a subclass that says what `format` and `parse` do: `_messages_of` and `_fields_of`. Both get
    the method that Python would call next, with the callbacks that DSPy puts around it.
    """

    _layout: ClassVar[str]
    """The layout of replies."""
    parsing: Literal["dspy", "tolerant"]
    dialect: str | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "_layout" in cls.__dict__:
            # DSPy puts callbacks around both methods of every class, also around what it inherits with
            # callbacks: `dspy.JSONAdapter.format` reports each call twice, and so does ours.
            for name in ("format", "parse"):
                for _ in range(_callbacks(getattr(cls.theirs(), name)) - _callbacks(getattr(cls, name))):
                    setattr(cls, name, with_callbacks(getattr(cls, name)))

    @classmethod
    def theirs(cls) -> type[dspy.Adapter]:
        """The class of DSPy's that it stands for."""
        return next(base for base in cls.__mro__ if base.__module__.startswith("dspy."))

    def format(self, signature: Any, demos: Any, inputs: Any) -> Any:
        """The messages of a call, as DSPy's class of this name formats them."""
        return self._messages_of(super().format, signature, demos, inputs)  # type: ignore[misc]

    def parse(self, signature: Any, completion: Any) -> Any:
        """The fields of a reply, as DSPy's class of this name reads them, or with tolerance."""
        return self._fields_of(super().parse, signature, completion)  # type: ignore[misc]

    @abstractmethod
    def _messages_of(self, theirs: Any, signature: Any, demos: Any, inputs: Any) -> Any:
        """What `format` answers; `theirs` is DSPy's method."""

    @abstractmethod
    def _fields_of(self, theirs: Any, signature: Any, completion: Any) -> Any:
        """What `parse` answers; `theirs` is DSPy's method."""

    def _plan(self, signature: type[dspy.Signature]) -> Plan | None:
        """The plan for a signature; None where the core cannot serve it."""
        # Found anew each time: an adapter may be copied and pickled, plans may not.
        return plans_of(self._layout, self.parsing == "tolerant", self.dialect).get(signature)


def function_of(method: Any) -> Any:
    """What is behind a method: the same object each time."""
    return getattr(method, "__func__", method)


def without_callbacks(method: Any) -> Any:
    """A method of DSPy's without the callbacks around it: ours has reported the call already."""
    function = getattr(method, "__func__", None)
    if function is None:
        return method
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function.__get__(method.__self__)


def _callbacks(function: Any) -> int:
    """How often callbacks are around a method."""
    count = 0
    while hasattr(function, "__wrapped__"):
        function, count = function.__wrapped__, count + 1
    return count
