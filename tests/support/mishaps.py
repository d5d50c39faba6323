"""Exceptions where a worker is started: every function on the way can be made to raise, once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from types import ModuleType
from typing import Any

import pytest

from dspex.pool import _deaths as deaths
from dspex.pool import _last_words as last_words
from dspex.pool import _scheduler as scheduler
from dspex.pool import _supervisor as supervisor
from dspex.pool import _tasks as tasks
from dspex.pool import _worker as worker
from dspex.pool._backends import forkserver as forkserver
from dspex.pool._backends import process
from dspex.protocol import channel

MODULES: tuple[ModuleType, ...] = (
    process,
    forkserver,
    worker,
    last_words,
    supervisor,
    deaths,
    tasks,
    scheduler,
    channel,
)

# name, in which every part of the pool's life may use it
Step = tuple[Any, str]


def steps() -> Iterator[tuple[str, Step]]:
    """Every function and method that the modules define, by a name such as `forkserver._Link.fork`."""
    for module in MODULES:
        short = module.__name__.rpartition(".")[2]
        for name, thing in vars(module).items():
            if getattr(thing, "__module__", "") != module.__name__:
                continue
            if inspect.isfunction(thing):
                yield f"{short}.{name}", (module, name)
            elif inspect.isclass(thing):
                for method, function in vars(thing).items():
                    plain = function.__func__ if isinstance(function, classmethod) else function
                    if inspect.isfunction(plain) and method not in {"__init__", "__repr__"}:
                        yield f"{short}.{name}.{method}", (thing, method)


class Mishap:
    """Makes one function raise at its next call, and only there.

    Attributes:
        happened: Whether it has been called since.
    """

    def __init__(self, patch: pytest.MonkeyPatch, step: Step, error: BaseException) -> None:
        self.happened = False
        owner, name = step
        plain = inspect.getattr_static(owner, name)
        as_class_method = isinstance(plain, classmethod)
        function: Callable[..., Any] = plain.__func__ if as_class_method else plain

        @wraps(function)
        def fail(*args: Any, **kwargs: Any) -> Any:
            if self.happened:
                return function(*args, **kwargs)
            self.happened = True
            raise error

        @wraps(function)
        async def fail_later(*args: Any, **kwargs: Any) -> Any:
            return await fail(*args, **kwargs)

        broken = fail_later if inspect.iscoroutinefunction(function) else fail
        patch.setattr(owner, name, classmethod(broken) if as_class_method else broken)
        for module in MODULES:  # where it was imported by its name
            if owner in MODULES and module is not owner and vars(module).get(name) is function:
                patch.setattr(module, name, broken)
