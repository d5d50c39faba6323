"""The operation `optimize`: an optimizer of DSPy's compiles a program; see `dspex.protocol.optimization`.

::

    made: the program, the optimizer, the examples    what is wrong with them is said before an LM is asked
      v
    optimizer.compile(...) in a thread                the metric calls back to the service; so do scores
      v
    the state of what it gave                         its demos and its signatures' texts

A thread cannot be ended from outside. So when the call is cancelled or its time runs out, the next step of
the work, a question to an LM or a call of the metric, raises `Stopped`, which DSPy does not catch: it counts
ordinary errors and goes on. The worker is then free for the next call.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import inspect
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Self

import dspy
from dspy.utils.usage_tracker import UsageTracker

from dspex._threads import in_thread
from dspex.errors import ConfigError, DspexError, InputError
from dspex.protocol.optimization import (
    PROGRESS,
    TEACHER,
    ExampleRow,
    OptimizeRequest,
    pack_argument,
    unpack_result,
)
from dspex.protocol.requests import HostFunction, ModuleAnswer, ModuleRequest
from dspex.protocol.values import from_wire
from dspex.worker.host import RUNNING, SETTING, call_host_sync
from dspex.worker.operations import adapters
from dspex.worker.operations.host_functions import MAKING, called
from dspex.worker.operations.lm import LMWatch, Models
from dspex.worker.operations.module_cache import arguments_of, class_at, made_of
from dspex.worker.operations.results import plain

__all__ = ["optimize"]

_NEEDS: Final[Mapping[str, str]] = {"MIPROv2": "optuna", "BootstrapFewShotWithOptuna": "optuna"}
"""Optimizers of DSPy's that import what it does not install, when they have asked an LM for long."""

_GIVEN_UP: Final = "Execution cancelled due to errors"
"""How DSPy's message begins when it gives up an evaluation, whatever the errors were."""


class Stopped(BaseException):
    """The call is over, and so is its work."""


async def optimize(models: Models, request: OptimizeRequest) -> ModuleAnswer:
    """Serve one call.

    Raises:
        SignatureError: If a signature cannot be read.
        InputError: If an example does not fit the signature.
        ConfigError: If the program or the optimizer cannot be made, or do not fit together.
    """
    started = time.perf_counter()
    student, signature = _program(request.program)
    teacher = None if request.teacher is None else _program(request.teacher)[0]
    annotations = {name: signature.fields[name].annotation for name in request.custom} if signature else {}
    sets = [_examples(rows, annotations) for rows in (request.trainset, request.valset or ())]
    watch, usage = _Watch(), _Usage()
    with contextlib.ExitStack() as stack:

        def lm(settings: Mapping[str, Any]) -> dspy.LM:
            got = models.get(settings)
            stack.callback(models.give_back, got)
            return got

        asked = request.program
        settings = {
            "lm": lm({**asked.lm, **asked.config}),
            "adapter": _adapter(asked, lambda: lm(asked.extraction_lm or asked.lm)),
            "callbacks": [*dspy.settings.callbacks, watch],
            "trace": [],
            "usage_tracker": usage,
            SETTING: RUNNING.get(None),
        }
        given = {name: lm(settings) for name, settings in request.models.items()}
        if teacher is not None and TEACHER in given:
            teacher.set_lm(given.pop(TEACHER))
        with dspy.context(**settings):
            optimizer = _optimizer(request.optimizer, given, _Rows(sets), watch)
            work = _work(optimizer, student, teacher, sets, request)
            try:
                compiled = await in_thread(work, on_cancel=watch.stop)
            except Exception as error:
                reason = _explained(error, request.optimizer.module, watch)
                if reason is error:
                    raise
                raise reason from error
            finally:
                watch.failure = None  # its frames know the watch
    answer: ModuleAnswer = {
        "completions": [],
        "usage": usage.total(),
        "stages": watch.stages.rows,
        "timings": {"lm": watch.seconds, "worker": time.perf_counter() - started},
        "value": plain(_state(compiled, student, request.optimizer.module)),
    }
    return answer


# --- what it is made of ----------------------------------------------------------------------------


def _program(request: ModuleRequest) -> tuple[Any, Any]:
    """A program of its own, and the signature that it was made with, if it was."""
    made = made_of(request)
    if not isinstance(made.module, dspy.Module) or not hasattr(made.module, "forward"):
        raise ConfigError(
            f"{request.module} has no `forward`, by which optimizers call a program",
            code="optimizer-program",
            hint="define `def forward(self, ...)` beside `aforward`",
        )
    for path, predictor in made.module.named_predictors():
        predictor.dspex_path = path  # copies have it too; a trace of a metric says it
    return made.module, made.signature


def _examples(rows: Iterable[ExampleRow], annotations: Mapping[str, Any]) -> list[dspy.Example]:
    made = []
    for number, row in enumerate(rows):
        values = dict(row.values)
        for name in annotations.keys() & values.keys():
            try:
                values[name] = from_wire(values[name], annotations[name])
            except Exception as error:  # a validator of the user's may raise anything
                raise InputError(
                    f"the value of `{name}` in example {number} is not of its field's type: {error}",
                    code="input-type",
                ) from error
        made.append(dspy.Example(values).with_inputs(*row.inputs))
    return made


class _Rows:
    """The examples by themselves: an optimizer hands on those that it was given, in whatever order."""

    def __init__(self, sets: Iterable[list[dspy.Example]]) -> None:
        self._kept = [example for examples in sets for example in examples]  # or an id may be another's
        self._numbers = {id(example): number for number, example in enumerate(self._kept)}

    def number(self, value: Any) -> int | None:
        """The number of an example; None for what is none of them."""
        return self._numbers.get(id(value))


def _adapter(request: ModuleRequest, extraction: Callable[[], dspy.LM]) -> dspy.Adapter:
    adapter = adapters.make(request, extraction)
    if isinstance(adapter, adapters.CallAdapter):
        # Those of a call are for its answer; this is many calls, and nobody asks.
        adapter.repairs = adapter.replies = _keeps_nothing()
    return adapter


def _keeps_nothing() -> Any:
    """What lets go of all that is put into it."""
    return deque(maxlen=0)


def _optimizer(request: ModuleRequest, models: Mapping[str, dspy.LM], rows: _Rows, watch: _Watch) -> Any:
    """The optimizer, before an LM has been asked for anything.

    Raises:
        ConfigError: If it is none (`not-an-optimizer`), lacks a package (`optimizer-package`), or refuses
            its arguments (`bad-optimizer`).
    """
    path = request.module
    cls = class_at(path)
    if not isinstance(cls, type) or not callable(getattr(cls, "compile", None)):
        raise ConfigError(
            f"{path!r} is not an optimizer",
            code="not-an-optimizer",
            hint='name a class with a `compile`, such as "dspy.BootstrapFewShot"',
        )
    for base in cls.__mro__:
        package = _NEEDS.get(base.__name__) if base.__module__.startswith("dspy.") else None
        if package is not None and importlib.util.find_spec(package) is None:
            raise _lacks(path, package)

    def metric(function: HostFunction) -> Callable[..., Any]:
        return _host_metric(function.host_function, rows, watch)

    more = arguments_of(request, metric)
    for name, lm in models.items():
        argument, dot, part = name.partition(".")
        more[argument] = {**more.get(argument, {}), part: lm} if dot else lm
    making = MAKING.set(path)
    try:
        return cls(**more)
    except DspexError:
        raise
    except Exception as error:
        raise _refusal(path, error) from error
    finally:
        MAKING.reset(making)


def _host_metric(name: str, rows: _Rows, watch: _Watch) -> Callable[..., Any]:
    """A function of the service that an optimizer calls with examples, predictions and traces."""

    def packed(value: Any) -> list[Any]:
        return pack_argument(value, rows.number, plain)

    def metric(*args: Any, **kwargs: Any) -> Any:
        watch.check()
        named = {name: packed(value) for name, value in kwargs.items()}
        try:
            return unpack_result(called(name, [*map(packed, args)], named), dspy.Prediction)
        except Exception as error:
            watch.failure = error
            raise

    return metric


def _work(
    optimizer: Any, student: Any, teacher: Any, sets: list[list[dspy.Example]], request: OptimizeRequest
) -> Callable[[], Any]:
    """The call of the optimizer's `compile`.

    Raises:
        ConfigError: If it takes no such arguments (`bad-optimizer`).
    """
    trainset, valset = sets
    arguments = {**request.arguments, "trainset": trainset}
    if request.valset is not None:
        arguments["valset"] = valset
    if teacher is not None:
        arguments["teacher"] = teacher
    try:
        inspect.signature(optimizer.compile).bind(student, **arguments)
    except TypeError as error:
        raise _refusal(f"{request.optimizer.module}.compile", error) from error
    return functools.partial(optimizer.compile, student, **arguments)


# --- while it runs ---------------------------------------------------------------------------------


class _Watch(LMWatch):
    """Goes along with the work: it ends it, tells of scores, and remembers what went wrong last."""

    def __init__(self) -> None:
        super().__init__()
        self.failure: BaseException | None = None
        self._stop = threading.Event()
        self.stop = self._stop.set

    def check(self) -> None:
        """Go no further when the call is over.

        Raises:
            Stopped: If it is.
        """
        if self._stop.is_set():
            raise Stopped

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """An LM is about to be asked."""
        self.check()
        super().on_lm_start(call_id, instance, inputs)

    def on_module_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """A module has ended; DSPy counts its errors and tells of none."""
        if isinstance(exception, Exception):
            self.failure = exception

    def on_evaluate_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """A candidate has its score."""
        score = getattr(outputs, "score", outputs)
        if exception is None and isinstance(score, int | float):
            with contextlib.suppress(DspexError):  # the call may be over
                call_host_sync(PROGRESS, float(score))


class _Usage(UsageTracker):  # type: ignore[misc]  # DSPy has no type hints
    """Sums up what all threads of an optimizer use: DSPy gives each thread a copy, and asks none for it."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._total: dict[str, Any] = {}

    def add_usage(self, lm: str, usage_entry: dict[str, Any]) -> None:
        """An LM has counted."""
        with self._lock:
            self._total = self._merge_usage_entries(self._total, self._flatten_usage_entry(usage_entry))

    def total(self) -> dict[str, Any]:
        """What all of them have counted."""
        return self._total

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


# --- how it ends -----------------------------------------------------------------------------------


def _state(compiled: Any, student: Any, path: str) -> dict[str, Any]:
    """What the optimizer found out.

    Raises:
        ConfigError: If it gave a program of another kind, of which a state is not all (`optimizer-program`).
    """
    names = [name for name, _ in student.named_parameters()]
    found = isinstance(compiled, dspy.Module) and [name for name, _ in compiled.named_parameters()]
    if found != names or "forward" in vars(compiled):
        raise ConfigError(
            f"what {path} makes of the program is more than demos and instructions",
            code="optimizer-program",
            hint="run it with DSPy itself, in a program that a worker imports",
        )
    state: dict[str, Any] = compiled.dump_state()
    return state


def _explained(error: Exception, path: str, watch: _Watch) -> BaseException:
    """What ended the work, where DSPy's own error does not say it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ModuleNotFoundError) and cause.name and isinstance(error, ImportError):
            return _lacks(path, cause.name.partition(".")[0])
        cause = cause.__cause__ or cause.__context__
    if watch.failure is not None and str(error).startswith(_GIVEN_UP):
        return watch.failure
    return error


def _lacks(path: str, package: str) -> ConfigError:
    return ConfigError(
        f"{path} needs the package {package!r}, which is not installed where the workers run",
        code="optimizer-package",
        hint=f"`pip install {package}` there",
    )


def _refusal(path: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"{path} refuses its arguments: {type(error).__name__}: {error}",
        code="bad-optimizer",
        hint="arguments of the class go to dspex.optimizer(...), those of its compile to compile(...)",
    )
