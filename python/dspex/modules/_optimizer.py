"""`optimizer`: an optimizer of DSPy's that works in a worker, on the service's examples and by its metric.

It stands beside DSPy's own: the class with its arguments first, then `compile` with the program, the examples
and its own arguments. Both may have arguments of one name, as `dspy.MIPROv2` has::

    dspy.MIPROv2(metric=good, auto="light")              .compile(RAG(), trainset=rows)
    dspex.optimizer("dspy.MIPROv2", metric=good, ...)    .compile(dspex.program("my_app:RAG"), trainset=rows)

    compile  --OptimizeOperation-->  Runtime, Router  -->  pool:optimizer, or another target with workers
       ^                                                       |  optimizer.compile(...) in a worker
       |  metric, progress   <--------calls back---------------|
       └─ a copy of the program  <----the state that was found-┘
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from dspex.modules._arguments import check_runtime
from dspex.modules._module import Module
from dspex.router import Dispatcher, RouteName

if TYPE_CHECKING:
    from dspex.lm import LanguageModel
    from dspex.modules._metric_calls import OptimizerProgress
    from dspex.modules._optimizer_job import Job
    from dspex.modules._remote_parts import RemoteParts

__all__ = ["RemoteOptimizer", "optimizer"]

P = TypeVar("P", bound=Module)

DAY_SECONDS = 86_400.0


class RemoteOptimizer:
    """An optimizer that real DSPy runs in a worker; `dspex.optimizer` makes it."""

    def __init__(
        self,
        parts: RemoteParts,
        models: Mapping[str, LanguageModel],
        *,
        runtime: Dispatcher | None = None,
    ) -> None:
        check_runtime(runtime)
        self.remote_parts = parts
        self.models = models
        self.runtime = runtime

    def compile(
        self,
        program: P,
        /,
        *,
        trainset: Iterable[Any],
        valset: Iterable[Any] | None = None,
        teacher: Module | None = None,
        inputs: Iterable[str] | None = None,
        timeout: float | None = None,
        route: RouteName | None = None,
        on_progress: Callable[[OptimizerProgress], Any] | None = None,
        args: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> P:
        """Optimise a program in a worker and wait for the outcome.

        The work goes to the pool `optimizer` if the runtime has one, else to its first pool. The language
        model, the adapter and the way of reading are the program's, or else the runtime's.

        Args:
            program: What to optimise: a `dspex.program(...)`, a `dspex.remote(...)`, or a `Predict` or
                `ChainOfThought`. It stays as it is.
            trainset: The examples to learn from: mappings, or examples of DSPy's.
            valset: Those to judge candidates by, for an optimizer that takes them.
            teacher: A program that shows how it is done, for an optimizer that takes one; it may have a
                language model of its own.
            inputs: The names of the examples' inputs. Needed only where neither the examples of DSPy's nor
                the program's signature say them.
            timeout: Seconds for the whole work; a day unless given.
            route: The pool to work in, `"pool:general"`.
            on_progress: Called with an `OptimizerProgress` after each call of the metric and each evaluation
                of a candidate. It should be quick: it may run on the runtime's event loop.
            args: Arguments of the optimizer's `compile` whose names are taken above.
            **arguments: More of them: plain values.

        Returns:
            A copy of the program with the demos and instructions that were found. `save` writes them.

        Raises:
            InputError: If the examples are none (`bad-trainset`), or do not fit the program's signature.
            ConfigError: If the program is none that DSPy runs (`optimizer-program`); the optimizer cannot be
                imported, refuses its arguments (`bad-optimizer`) or needs a package that is not installed
                (`optimizer-package`).
            RouteError: If the runtime has no pool (`module-needs-dspy`).
            LMError: If the LM could not be asked, as often as the optimizer bears with.
            RemoteError: If the metric failed as often (`metric-failed`); its error is the cause. Or if the
                program or the optimizer raised something else.
            PoolError: If the workers could not do their part.
            DeadlineExceeded: If the time ran out.
        """
        job = self._job(
            program,
            trainset,
            valset,
            teacher,
            inputs,
            timeout,
            route,
            on_progress,
            {**(args or {}), **arguments},
        )
        with job.working():
            found = job.dispatcher.run(job.operation)
        return job.compiled(program, found)

    async def acompile(
        self,
        program: P,
        /,
        *,
        trainset: Iterable[Any],
        valset: Iterable[Any] | None = None,
        teacher: Module | None = None,
        inputs: Iterable[str] | None = None,
        timeout: float | None = None,
        route: RouteName | None = None,
        on_progress: Callable[[OptimizerProgress], Any] | None = None,
        args: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> P:
        """The awaitable twin of `compile`; to cancel it ends the work."""
        job = self._job(
            program,
            trainset,
            valset,
            teacher,
            inputs,
            timeout,
            route,
            on_progress,
            {**(args or {}), **arguments},
        )
        with job.working():
            found = await job.dispatcher.arun(job.operation)
        return job.compiled(program, found)

    def _job(
        self,
        program: Module,
        trainset: Any,
        valset: Any,
        teacher: Any,
        inputs: Any,
        timeout: float | None,
        route: RouteName | None,
        on_progress: Callable[[OptimizerProgress], Any] | None,
        arguments: Mapping[str, Any],
    ) -> Job:
        from dspex.modules._optimizer_job import Job  # with what pools need, which most programs do without

        return Job.of(
            self,
            program,
            trainset=trainset,
            valset=valset,
            teacher=teacher,
            inputs=inputs,
            options={"timeout": DAY_SECONDS if timeout is None else timeout, "route": route},
            on_progress=on_progress,
            arguments=arguments,
        )

    def __repr__(self) -> str:
        # The values of arguments may be secrets.
        request = self.remote_parts.request
        given = (request.args, request.imports, request.functions, request.modules, self.models)
        shown = [repr(request.module), *(f"{name}=..." for part in given for name in part)]
        return f"{type(self).__name__}({', '.join(shown)})"


def optimizer(
    path: str | type[Any],
    /,
    *,
    metric: Callable[..., Any] | None = None,
    imports: Mapping[str, Any] | None = None,
    args: Mapping[str, Any] | None = None,
    runtime: Dispatcher | None = None,
    **arguments: Any,
) -> RemoteOptimizer:
    """An optimizer of DSPy's, run by real DSPy in a worker.

    Args:
        path: The class or its path, `"dspy.BootstrapFewShot"`. It is a part of your program: never take it
            from a client.
        metric: A function of this process, sync or async: `metric(example, prediction, trace=None)`. Each
            call of it comes back here. The example is the one that `compile` was given, a mapping as a
            `dspex.Prediction`; `trace` is None in evaluations, else a list of (path of the predictor, inputs,
            prediction). What it raises is the optimizer's to bear with, as in DSPy.
        imports: Arguments of the class by import paths, for what is no plain value; a metric that the workers
            have runs there: `imports={"metric": "my_app.metrics:good"}`.
        args: Arguments of the class whose names are taken above.
        runtime: What does the work; by default the runtime current at each `compile`.
        **arguments: Arguments of the class, as for `dspex.remote`. A language model is a `dspex.LM`:
            `prompt_model=dspex.LM(...)`, `teacher_settings={"lm": dspex.LM(...)}`.

    Raises:
        ConfigError: If a worker could not make the optimizer of these: an argument cannot cross
            (`module-argument`), or a path is none (`bad-import-path`).

    Example:
        ```python
        def is_right(example, prediction, trace=None):
            return example.answer == prediction.answer

        teleprompter = dspex.optimizer("dspy.BootstrapFewShot", metric=is_right, max_bootstrapped_demos=2)
        compiled = teleprompter.compile(dspex.ChainOfThought("question -> answer"), trainset=rows)
        compiled.save("answer.json")
        ```
    """
    from dspex.modules._optimizer_job import optimizer_parts  # as in `_job`

    given = {**(args or {}), **arguments}
    if metric is not None:
        given["metric"] = metric
    parts, models = optimizer_parts(path, given, imports)
    return RemoteOptimizer(parts, models, runtime=runtime)
