"""`from_dspy`: a native program of a program of DSPy's that stands in this process.

::

    dspy.Predict, ChainOfThought, MultiChainComparison, BestOfN  -> the native module of that name
    a class of the user's                -> a class with the same methods, on native modules in the place of
    its own any other class of DSPy's            -> refused (`not-native`): a worker runs it, see
    `dspex.program`

The methods are the user's own functions, so `forward` does what it did; what it calls is native. A method
that says `super()` names its class and cannot be moved.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from dspex.errors import ConfigError
from dspex.modules._best_of_n import BestOfN
from dspex.modules._chain_of_thought import ChainOfThought
from dspex.modules._module import Module
from dspex.modules._multi_chain_comparison import MultiChainComparison
from dspex.modules._predict import Predict
from dspex.signature import Signature

__all__ = ["from_dspy"]

_OF_DSPY: Final = frozenset({"callbacks", "history", "_compiled", "stage", "traces", "train"})
"""What DSPy keeps in a module for itself."""


def from_dspy(program: Any) -> Module:
    """The native program that does what a program of DSPy's does, with its demos, instructions and callbacks.

    Language models are not taken over: calls ask the runtime's. The program itself stays as it is, and what
    is no module in it (a list of documents, a client) is shared.

    Args:
        program: An object of `dspy.Predict`, `dspy.ChainOfThought`, `dspy.MultiChainComparison`,
            `dspy.BestOfN`, or of a class of your own derived from `dspy.Module` with such parts.

    Raises:
        ConfigError: If it is no program of DSPy's, or a part of it has no native twin (`not-native`).

    Example:
        ```python
        compiled = dspy.BootstrapFewShot(metric=is_right).compile(RAG(), trainset=examples)
        program = dspex.from_dspy(compiled)
        ```
    """
    dspy: Any = sys.modules.get("dspy")  # whoever has a program of DSPy's has imported it
    if dspy is None or not isinstance(program, dspy.Module):
        raise ConfigError(
            f"an object of type {type(program).__name__} is no program of DSPy's",
            code="not-native",
            hint="give an object whose class is derived from dspy.Module",
        )
    return _Mover(dspy).module(type(program).__name__, program)


class _Mover:
    """Moves one program; a module that stands in two places is moved once."""

    def __init__(self, dspy: Any) -> None:
        self._dspy = dspy
        self._moved: dict[int, Module] = {}
        self._known: Mapping[Any, Callable[[str, Any], Module]] = {
            dspy.Predict: self._predict,
            dspy.ChainOfThought: self._chain_of_thought,
            dspy.MultiChainComparison: self._comparison,
            dspy.BestOfN: self._best_of_n,
        }

    def module(self, at: str, theirs: Any) -> Module:
        if id(theirs) in self._moved:
            return self._moved[id(theirs)]
        kind = type(theirs)
        move = self._known.get(kind)
        if move is None and kind.__module__.split(".")[0] == "dspy":
            raise ConfigError(
                f"{at}: dspy.{kind.__name__} has no native twin",
                code="not-native",
                hint='let a worker run it: dspex.program("my_app.rag:RAG"); see docs/remote_modules.md',
            )
        made = self._moved[id(theirs)] = self._own(at, theirs) if move is None else move(at, theirs)
        made.callbacks = theirs.callbacks
        made._compiled = theirs._compiled
        return made

    def _predict(self, at: str, theirs: Any) -> Predict:
        return Predict(Signature.of(theirs.signature), demos=theirs.demos, **theirs.config)

    def _chain_of_thought(self, at: str, theirs: Any) -> ChainOfThought:
        made = ChainOfThought.__new__(ChainOfThought)
        made.predict = self._inner(f"{at}.predict", theirs.predict)
        return made

    def _comparison(self, at: str, theirs: Any) -> MultiChainComparison:
        made = MultiChainComparison.__new__(MultiChainComparison)
        made.M, made.last_key = theirs.M, theirs.last_key
        made.predict = self._inner(f"{at}.predict", theirs.predict)
        return made

    def _inner(self, at: str, theirs: Any) -> Any:
        return self.module(at, theirs)

    def _best_of_n(self, at: str, theirs: Any) -> BestOfN:
        module = self.module(f"{at}.module", theirs.module)
        return BestOfN(module, theirs.N, theirs.reward_fn, theirs.threshold, theirs.fail_count)

    def _own(self, at: str, theirs: Any) -> Module:
        cls: Any = type(theirs)
        made: Module = _native_class(at, cls, self._dspy.Module)()
        for name, value in vars(theirs).items():
            if name not in _OF_DSPY:
                setattr(made, name, self._value(f"{at}.{name}", value))
        return made

    def _value(self, at: str, value: Any) -> Any:
        if isinstance(value, self._dspy.Module):
            return self.module(at, value)
        moved: Any = value
        if type(value) in (list, tuple):
            moved = [self._value(f"{at}[{place}]", item) for place, item in enumerate(value)]
            if any(new is not old for new, old in zip(moved, value, strict=True)):
                return moved if type(value) is list else tuple(moved)
        elif type(value) is dict:
            moved = {key: self._value(f"{at}[{key!r}]", item) for key, item in value.items()}
            if any(moved[key] is not value[key] for key in value):
                return moved
        return value


def _native_class(at: str, cls: type[Any], base: type[Any]) -> type[Module]:
    """A class of dspex with the methods and class attributes of a user's class, without its `__init__`."""
    body: dict[str, Any] = {}
    for each in reversed(cls.__mro__[: cls.__mro__.index(base)]):
        body |= {name: value for name, value in vars(each).items() if name not in _LEFT}
    for name, value in body.items():
        code = getattr(getattr(value, "__func__", value), "__code__", None)
        if code is not None and "__class__" in code.co_freevars:
            raise ConfigError(
                f"{at}: its method {name} calls super(), which is another class here",
                code="not-native",
                hint="derive the class from dspex.Module, or let a worker run it: dspex.program(...)",
            )
    return type(cls.__name__, (Module,), {**body, "__module__": cls.__module__, "__doc__": cls.__doc__})


_LEFT: Final = frozenset(
    {"__init__", "__dict__", "__weakref__", "__module__", "__doc__", "__getstate__", "__setstate__"}
)
