"""`evaluate`: a module run on examples, and each prediction judged by a metric.

It is a batch whose rows are cases::

    devset --> case --> program(**inputs) --> metric(example, prediction) --> the case has both
                        as a batch calls it   a task, or a thread

An async metric is awaited on the loop of the batch, in a task of its own, so that what it sets in its context
is seen by no other. Any other runs in a thread: nobody knows how long it takes. The one exception is the
metric of `dspex.metrics`, which takes microseconds.

The score is DSPy's to the digit: the sum of what the metric gave, in the order of the examples, as a
percentage of their number, rounded to two digits. A case that failed has `failure_score`.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sized,
)
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from dspex import _callbacks, metrics
from dspex._threads import in_thread
from dspex._timeouts import shown
from dspex.errors import ConfigError, InputError
from dspex.modules import _batch
from dspex.modules._evaluation import EvaluatedRow, Evaluation
from dspex.modules._examples import has_fields, input_names, shown_to_metrics
from dspex.modules._module import Module
from dspex.protocol.host_functions import is_async

if TYPE_CHECKING:
    from dspex.modules._batch import Calls, Plan

__all__ = ["Examination"]

_CALL = "program.evaluate(devset, metric)"


class _Case:
    """One example under way, and what has become of it."""

    __slots__ = ("example", "inputs", "prediction", "score", "seconds")

    def __init__(self, example: Any, inputs: dict[str, Any]) -> None:
        self.example = example
        self.inputs = inputs
        self.prediction: Any = None
        self.score: Any = None
        self.seconds = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What `evaluate` was asked for, checked.

    Args:
        module: What is evaluated.
        metric: What judges.
        inputs: The names of the examples' inputs, where the caller gave them.
        failure_score: The score of a case that failed.
        threshold: The score from which on a prediction is good enough.
    """

    module: Module
    metric: Callable[[Any, Any], Any]
    inputs: Iterable[str] | None
    failure_score: float
    threshold: float

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ConfigError: If the metric is none (`bad-metric`), or a number is none (`bad-batch`).
            InputError: If the names of inputs are none (`bad-devset`).
        """
        if not callable(self.metric):
            raise _bad_metric(f"a metric is a function, not {shown(self.metric)}")
        if isinstance(self.metric, Module) and self.metric._input_names() is not None:
            raise _bad_metric(
                f"a metric is called with an example and a prediction, and {type(self.metric).__name__} "
                "takes its inputs by name",
                "call it in a function: async def metric(example, prediction): ...",
            )
        for name in ("failure_score", "threshold"):
            value = getattr(self, name)
            if not isinstance(value, int | float):
                raise ConfigError(
                    f"{name} must be a number, not {shown(value)}",
                    code="bad-batch",
                    hint="docs/evaluation.md lists the options of an evaluation",
                )
        given = self.inputs
        if isinstance(given, str) or not (given is None or isinstance(given, Iterable)):
            raise _bad_devset("inputs must be a list of names", 'write inputs=["question"]')

    def run(self, devset: Iterable[Any], plan: Plan) -> Evaluation:
        """Evaluate, and wait for it; see `Module.evaluate`."""
        with self._heard(devset) as told:
            cases: list[_Case] = []
            read = self._cases(devset, cases)
            outcomes = _batch.batch(self._calls(), _at_hand(devset, read), plan)
            found = told.outputs = self._evaluation(cases, outcomes)
        return found

    async def arun(self, devset: Iterable[Any] | AsyncIterable[Any], plan: Plan) -> Evaluation:
        """Evaluate; see `Module.aevaluate`."""
        with self._heard(devset) as told:
            cases: list[_Case] = []
            rows: Any
            if isinstance(devset, AsyncIterable):
                rows = self._cases_read(devset, cases)
            else:
                rows = _at_hand(devset, self._cases(devset, cases))
            outcomes = await _batch.abatch(self._calls(), rows, plan)
            found = told.outputs = self._evaluation(cases, outcomes)
        return found

    def _heard(self, devset: Any) -> AbstractContextManager[_callbacks.CallResult]:
        heard_by = self.module._heard_by() if _callbacks.given else ()
        if not heard_by:
            return nullcontext(_callbacks.CallResult())
        inputs = {"program": self.module, "devset": devset, "metric": self.metric}
        return _callbacks.hear(heard_by, "evaluate", self.module, inputs)

    # -- the examples -----------------------------------------------------------------------------

    def _cases(self, devset: Any, cases: list[_Case]) -> Iterator[_Case]:
        ways = hasattr(devset, "__iter__") or hasattr(devset, "__getitem__")  # as a data set may have alone
        if isinstance(devset, str | bytes | Mapping) or not ways:
            raise _bad_devset(f"the devset must be a list of examples, not {type(devset).__name__}")
        case_of = self._reader()

        def read() -> Iterator[_Case]:
            for example in devset:
                cases.append(case_of(example, len(cases)))
                yield cases[-1]

        return read()

    async def _cases_read(self, devset: AsyncIterable[Any], cases: list[_Case]) -> AsyncIterator[_Case]:
        case_of = self._reader()
        async for example in devset:
            cases.append(case_of(example, len(cases)))
            yield cases[-1]

    def _reader(self) -> Callable[[Any, int], _Case]:
        given = None if self.inputs is None else [*self.inputs]
        known = self.module._input_names()

        def case_of(example: Any, number: int) -> _Case:
            at = f"devset[{number}]"
            if not has_fields(example):
                raise _bad_devset(f"{at} must map names of fields to values, not be {shown(example)}")
            names = input_names(example, given, known)
            if names is None:
                raise _bad_devset(
                    f"nobody knows which fields of {at} are inputs",
                    'name them: evaluate(..., inputs=["question"]), or example.with_inputs("question")',
                )
            there = set(example.keys())
            # A name that is not there is the program's to say: its input may have a default.
            return _Case(example, {name: example[name] for name in names if name in there})

        return case_of

    # -- one case ---------------------------------------------------------------------------------

    def _calls(self) -> Calls:
        program = self.module._row_calls()
        judge = _judge(self.metric)

        async def run(case: _Case, number: int) -> None:
            began = time.monotonic()
            try:
                case.prediction = await program.run(case.inputs, number)
            finally:
                case.seconds = time.monotonic() - began
            score = await judge(shown_to_metrics(case.example), case.prediction)
            _check_score(score)
            case.score = score

        return _batch.Calls(run, program.dispatcher)

    # -- the outcome ------------------------------------------------------------------------------

    def _evaluation(self, cases: list[_Case], outcomes: list[Any]) -> Evaluation:
        if not outcomes:
            raise _bad_devset("the devset is empty", "a score needs at least one example")
        rows = [
            EvaluatedRow(
                number,
                case.example,
                case.prediction,
                case.score if error is None else self.failure_score,
                error,
                case.seconds,
            )
            for number, (case, error) in enumerate(zip(cases, outcomes, strict=True))
        ]
        return Evaluation(
            score=_percentage([row.score for row in rows]),
            results=rows,
            metric=_name_of(self.metric),
            threshold=self.threshold,
        )


def _at_hand(devset: Any, cases: Iterator[_Case]) -> Iterable[_Case]:
    """The cases of a set whose size is known all at once: what is wrong is said before anything is asked."""
    return list(cases) if isinstance(devset, Sized) else cases


def _judge(metric: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Awaitable[Any]]:
    """What calls the metric from an event loop."""
    awaited: Any = metric.acall if isinstance(metric, Module) else metric if is_async(metric) else None
    if awaited is not None:
        return lambda example, prediction: asyncio.create_task(awaited(example, prediction))
    function = metric.func if isinstance(metric, partial) else metric
    cheap = function is metrics.answer_exact_match

    async def judged(example: Any, prediction: Any) -> Any:
        call = partial(metric, example, prediction)
        score = call() if cheap else await in_thread(call)
        return await score if inspect.isawaitable(score) else score

    return judged


def _check_score(score: Any) -> None:
    """Refuse what DSPy could not add up.

    Raises:
        ConfigError: If it is no number and has none as its `score` (`bad-metric`).
    """
    if isinstance(score, int | float):
        return
    try:
        float(0 + score)
    except (TypeError, ValueError, OverflowError) as error:
        raise _bad_metric(
            f"the metric returned {shown(score)}, which is no score",
            "return a number, a truth value, or a prediction with a field `score`",
        ) from error


def _percentage(scores: list[Any]) -> float:
    try:
        total = sum(scores)
    except TypeError:  # kinds of numbers that Python does not add, such as a Decimal and a float
        total = sum(map(float, scores))
    return float(round(100 * total / len(scores), 2))


def _name_of(metric: Any) -> str:
    """The metric's name, as DSPy shows it."""
    return metric.__name__ if inspect.isfunction(metric) else type(metric).__name__


def _bad_metric(message: str, hint: str = "") -> ConfigError:
    return ConfigError(
        message, code="bad-metric", hint=hint or "write `def metric(example, prediction, trace=None)`"
    )


def _bad_devset(message: str, hint: str = "") -> InputError:
    return InputError(
        message, code="bad-devset", hint=hint or 'write devset=[{"question": "...", "answer": "..."}]'
    )
