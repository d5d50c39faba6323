"""`BestOfN`: a module run several times, and the best of what it gave.

::

    attempt 0, 1, ... N-1:  module(inputs)  -->  reward_fn(inputs, prediction)
                            the first with reward >= threshold ends it
                            one that raises is a failure; more than `fail_count` of them end it too

All that one call knows lives in that call, so one object serves any number at once.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from dspex._portal import run_alone
from dspex._threads import in_thread
from dspex._timeouts import shown
from dspex.errors import ConfigError
from dspex.modules import _scope
from dspex.modules._module import Module
from dspex.router import Dispatcher, current_dispatcher

__all__ = ["BestOfN"]

_log = logging.getLogger("dspex.modules")

TEMPERATURE = 1.0
"""Of every attempt, as in DSPy: the same question should not get the same answer."""


class BestOfN(Module):
    """Runs a module up to `N` times and returns the prediction with the highest reward, like `dspy.BestOfN`.

    Each attempt has the LM's settings `temperature=1.0` and a `rollout_id` of its own, unless a predictor
    inside has its own. The first prediction whose reward reaches the threshold is returned at once.

    Args:
        module: What to run: any module or program.
        N: How many attempts, at most.
        reward_fn: Is given the inputs as a dict and the prediction, and returns a number. It may be async;
            one that is not runs in a thread where the call is awaited.
        threshold: The reward that is good enough.
        fail_count: How many attempts may raise before the call raises what the last of them did; by default
            all but the last. Each that may is logged as a warning.

    Raises:
        ConfigError: If the module cannot be called, or a number is none (`bad-attempts`).

    Example:
        ```python
        qa = dspex.ChainOfThought("question -> answer")
        short = dspex.BestOfN(qa, N=3, reward_fn=lambda inputs, made: len(made.answer) < 20, threshold=1)
        short(question="What is the capital of Belgium?").answer
        ```
    """

    def __init__(
        self,
        module: Module,
        N: int,  # noqa: N803 - DSPy's name
        reward_fn: Callable[[dict[str, Any], Any], float | Awaitable[float]],
        threshold: float,
        fail_count: int | None = None,
    ) -> None:
        what = _wrong(module, reward_fn)
        if what:
            raise ConfigError(
                what, code="bad-attempts", hint="write BestOfN(module, N=3, reward_fn=f, threshold=1.0)"
            )
        _check_count("N", N, 1)
        if fail_count is not None:
            _check_count("fail_count", fail_count, 0)
        self.module = module
        self.N = N
        # A module that judges is none of this module's own.
        self.reward_fn = reward_fn.__call__ if isinstance(reward_fn, Module) else reward_fn
        self.threshold = threshold
        self.fail_count = N if fail_count is None else fail_count

    def forward(self, **inputs: Any) -> Any:
        """Run the module as often as it takes.

        Raises:
            Exception: What an attempt raised, where more than `fail_count` have, or all.
        """
        best = _Best(self)
        for number in range(self.N):
            try:
                with best.attempt(number):
                    made = self.module(**inputs)
                reward = self.reward_fn(inputs, made)
                if inspect.isawaitable(reward):
                    reward = run_alone(_awaited(reward))
                if best.take(made, reward):
                    break
            except Exception as error:  # noqa: BLE001 - whatever a program or a reward raises
                best.failed(number, error)
        return best.made

    async def aforward(self, **inputs: Any) -> Any:
        """The awaitable twin of `forward`."""
        best = _Best(self)
        is_async = inspect.iscoroutinefunction(self.reward_fn)
        for number in range(self.N):
            try:
                with best.attempt(number):
                    made = await self.module.acall(**inputs)
                judge = partial(self.reward_fn, inputs, made)
                reward: Any = judge() if is_async else await in_thread(judge)
                if inspect.isawaitable(reward):
                    reward = await reward
                if best.take(made, reward):
                    break
            except Exception as error:  # noqa: BLE001 - as in `forward`
                best.failed(number, error)
        return best.made

    def _runs_on(self) -> Dispatcher | None:
        return self.module._runs_on()

    def _input_names(self) -> Iterable[str] | None:
        return self.module._input_names()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.module!r}, N={self.N})"


@dataclass(slots=True)
class _Best:
    """What one call knows: the best prediction so far, and how many attempts have failed."""

    of: BestOfN
    made: Any = None
    reward: float = -float("inf")
    failures: int = 0
    first_rollout: int = field(init=False)

    def __post_init__(self) -> None:
        self.first_rollout = _rollout_of(self.of.module)

    def attempt(self, number: int) -> AbstractContextManager[Any]:
        """The settings of an attempt, for all calls inside it."""
        settings = {"rollout_id": self.first_rollout + number, "temperature": TEMPERATURE}
        return _scope.enter(settings=settings)

    def take(self, made: Any, reward: Any) -> bool:
        """Keep a prediction if it is the best; whether it is good enough."""
        if reward > self.reward:
            self.made, self.reward = made, reward
        return bool(reward >= self.of.threshold)

    def failed(self, number: int, error: Exception) -> None:
        """Count a failure.

        Raises:
            Exception: The attempt's error, if no more may fail, or none has not.
        """
        self.failures += 1
        if self.failures > self.of.fail_count or self.failures == self.of.N:
            raise error
        _log.warning("BestOfN: attempt %d of %d failed: %s", number + 1, self.of.N, error)


def _wrong(module: Any, reward_fn: Any) -> str:
    if not isinstance(module, Module):
        return f"module must be a dspex module, not {shown(module)}"
    return "" if callable(reward_fn) else f"reward_fn must be a function, not {shown(reward_fn)}"


def _check_count(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(
            f"{name} must be a whole number from {least}, not {shown(value)}",
            code="bad-attempts",
            hint=f"write {name}={least or 1}",
        )


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value


def _rollout_of(module: Module) -> int:
    """The rollout at which the attempts begin: that of the model which would answer, or 0."""
    scope = _scope.current_scope()
    outer = None if scope is None else scope.settings.get("rollout_id")
    try:
        lm = module.get_lm() or getattr(current_dispatcher(), "lm", None)
    except ConfigError:  # they have several, or there is no runtime, which the first call says better
        lm = None
    own = getattr(lm, "settings", {}).get("rollout_id")
    found = own if outer is None else outer
    return found if isinstance(found, int) else 0
