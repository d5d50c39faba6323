"""`Pipeline`: a compiled plan behind the call of a module."""

from __future__ import annotations

import asyncio
import copy
import itertools
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, cast

from dspex import _callbacks
from dspex._portal import refuse_blocking, wait
from dspex._timeouts import shown
from dspex.errors import ConfigError, InputError, did_you_mean
from dspex.modules import Module, _scope
from dspex.modules._batch import Calls, begin_there, inputs_of
from dspex.pipelines._compile import compile_plan
from dspex.pipelines._faces import Face
from dspex.pipelines._fingerprints import fingerprints_of
from dspex.pipelines._paths import nodes_at
from dspex.pipelines._plan import Inner, Leaf, Plan
from dspex.pipelines._result import DONE, RunResult, Status
from dspex.pipelines._row import Row, stages_of
from dspex.pipelines._run import FAILED, UNSET, Run, run_block
from dspex.pipelines._run_options import OPTIONS, Durability, OnError, checked_options
from dspex.pipelines._steps import Step, bad_step, mapped, step_of
from dspex.router import Dispatcher, dispatcher_here

if TYPE_CHECKING:
    from dspex.events import PipelineEvent
    from dspex.modules import AsyncModuleStream, ModuleStream
    from dspex.modules._listening import Listener
    from dspex.pipelines._explain import Explanation
    from dspex.pipelines._profile import Profile
    from dspex.pipelines._run import Teller
    from dspex.stores import RunStore

__all__ = ["Pipeline", "pipeline"]

MAX_RESUMES = 10


_names = itertools.count()
_prefix = os.urandom(6).hex()


def new_name() -> str:
    """A name for a run that is not kept: no other of this process, or of one that it forks, has it."""
    return f"{_prefix}{next(_names):08x}"


def _after_fork_in_child() -> None:
    global _prefix
    _prefix = os.urandom(6).hex()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


class Pipeline(Module):
    """Steps, compiled to a plan that is checked before it runs. `dspex.pipeline` makes one.

    It is a module: it can be called, awaited, streamed, run over many rows, evaluated and optimised as any
    other, and be a step of another pipeline.

    Attributes:
        name: What it is called, in stores and as a step.
        plan: What runs.
        steps: The modules of its steps by their paths, as optimizers and states know them.
    """

    def __init__(
        self,
        steps: Sequence[Any],
        *,
        inputs: Mapping[str, Any] | Sequence[str] | None = None,
        outputs: str | Sequence[str] | None = None,
        name: str = "pipeline",
        strict: bool = False,
        on_error: OnError = "fail",
        store: RunStore | None = None,
        durability: Durability = "sync",
        lease: float | None = None,
        callbacks: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(callbacks)
        if not steps:
            raise bad_step("a pipeline needs at least one step", "write dspex.pipeline(step, ...)")
        if not isinstance(name, str) or not name or set(name) & set("/[]"):
            raise bad_step(
                f"the name of a pipeline must be a text without '/', not {shown(name)}", 'write name="qa"'
            )
        self.name = name
        self._given: tuple[Step, ...] = tuple(step_of(each) for each in steps)
        self._settings = _Settings(_types_of(inputs), _names_of(outputs), strict)
        self._run_options = checked_options(
            {
                "on_error": on_error,
                "store": store,
                "durability": durability,
                "lease": lease,
                "run_id": None,
                "restart": False,
                "resumes": False,
            }
        )
        self._compile()
        for warning in self.plan.warnings:
            _warn(warning)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, allow: Iterable[str] = (), **options: Any) -> Self:
        """A pipeline that data says; docs/pipelines.md has its form.

        Args:
            config: `steps`, a list of tables, and `name`, `inputs`, `outputs`, `strict`, `on_error`.
            allow: Names of modules whose functions it may name, each with those below it.
            **options: What `dspex.pipeline` takes besides, such as `store`.

        Raises:
            PipelineError: If it says none: the place in the data, and what is wrong there.
        """
        from dspex.pipelines._forms import Reader  # most pipelines are written in Python

        steps, given = Reader(allow).pipeline(config)
        return cls(steps, **{**given, **options})

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, allow: Iterable[str] = (), **options: Any) -> Self:
        """A pipeline that a TOML file says, or a JSON file that ends in `.json`; see `from_config`.

        Raises:
            ConfigError: If the file cannot be read (`bad-pipeline-file`).
            PipelineError: As from `from_config`.
        """
        from dspex.pipelines._forms import read_file

        return cls.from_config(read_file(path), allow=allow, **options)

    def to_config(self) -> dict[str, Any]:
        """The data that says this pipeline, in plain values, for TOML, JSON and `from_config`.

        Stores, leases and callbacks are not in it: give them to `from_config` again, and `allow=` the modules
        of its functions.

        Raises:
            PipelineError: If a step cannot be said in data, as a lambda or one with demos cannot
                (`not-as-data`): the step, by its place or its path.
        """
        from dspex.pipelines._written import written  # most pipelines are written in Python

        return written(self, on_error=self._run_options.on_error)

    def _compile(self) -> None:
        inputs, outputs, strict = self._settings
        self.plan: Plan = compile_plan(self._given, inputs=inputs, outputs=outputs, strict=strict)
        nodes = list(nodes_at(self.plan.block))
        self.steps: dict[str, Module] = {
            path: node.does.target
            for node, path in nodes
            if isinstance(node.does, Leaf) and isinstance(node.does.target, Module)
        }
        ours = all(type(module).__module__.startswith("dspex.") for module in self.steps.values())
        self._only_modules = ours and all(
            isinstance(node.does, Inner) or path in self.steps for node, path in nodes
        )
        self._stages = stages_of(self.plan.block) if self._only_modules else ()
        self._fingerprints: dict[str, str] | None = None
        self._last: Sequence[tuple[str, Status, float]] = ()

    @property
    def face(self) -> Face:
        """What it takes and gives as a step of another pipeline."""
        return Face(self.name, "module", self.plan.inputs, self.plan.outputs, is_module=True)

    @property
    def own_options(self) -> tuple[str, ...]:
        """The names of options that it has, and that a step of another pipeline could not keep to."""
        run = self._run_options
        own = [*self._options]
        own += [
            name for name, is_set in (("store", run.store), ("on_error", run.on_error != "fail")) if is_set
        ]
        return (*own, *(["callbacks"] if self._own_callbacks else []))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What looked wrong when it was compiled, and is no error."""
        return self.plan.warnings

    def _input_names(self) -> list[str]:
        return list(self.plan.inputs)

    # -- one run ------------------------------------------------------------------------------------

    def run(self, /, **inputs: Any) -> RunResult:
        """Run it and wait for what it gives; see `arun`.

        Raises:
            ConfigError: Also if the call would block an event loop that runs on this thread
                (`blocking-in-loop`).
        """
        outcome: RunResult = self(**inputs)
        return outcome

    async def arun(self, /, **inputs: Any) -> RunResult:
        """Run it.

        Args:
            **inputs: A value for each input. Six more names are options unless there is an input of that
                name (then use `with_options`): `run_id`, `store`, `durability`, `lease`, `on_error`, and
                `restart`, for streams.

        Returns:
            The outputs, as a prediction, and how each step ended.

        Raises:
            InputError: If inputs are missing or unknown.
            Exception: What the first failing step raised, as itself. It has `step`, the path of that step,
                `completed`, the paths of those that had ended well, `errors`, what else failed, by path, and
                `run_id`.
            DeadlineExceeded: If the time of the whole ran out (`with_options(timeout=...)`).
            StoreError: If the run, or a finished step, could not be kept.
        """
        outcome: RunResult = await self.acall(**inputs)
        return outcome

    async def aforward(self, /, **inputs: Any) -> RunResult:
        """One run, as `arun`."""
        options, teller = self._run_options, self._teller()
        if inputs.keys() != self.plan.inputs.keys():
            given = {
                name: inputs.pop(name) for name in OPTIONS if name in inputs and name not in self.plan.inputs
            }
            if given:
                options = options.over(given)
        self._check_inputs(inputs)
        run_id = options.run_id or (new_name() if options.store is None else os.urandom(8).hex())
        continues = options.on_error == "continue"
        if options.store is None:
            run = Run(run_id, continues=continues, teller=teller)
            return await self.go(run, inputs)
        from dspex.pipelines import _durable  # most runs are not kept

        return await _durable.begin(self, run_id, inputs, options, teller)

    def _teller(self) -> Teller | None:
        """Who hears of this run, if it is the one that is streamed."""
        scope = _scope.current_scope()
        if scope is None or scope.listener is None:
            return None
        from dspex.pipelines._stream import StepTeller

        listener = scope.listener
        if not isinstance(listener, StepTeller) or listener.pipeline is not self:
            return None  # it is a part of a module that is streamed, which knows the modules in it
        task = asyncio.current_task()
        if task is not None:
            listener.attach(task)
        return listener

    def _check_inputs(self, inputs: Mapping[str, Any]) -> None:
        wanted = self.plan.inputs
        if inputs.keys() == wanted.keys():  # as nearly always
            return
        missing = [name for name, takes in wanted.items() if takes.required and name not in inputs]
        unknown = [name for name in inputs if name not in wanted]
        if not (missing or unknown):
            return
        problems = [(name, "is missing") for name in missing] + [
            (name, "is none of its inputs") for name in unknown
        ]
        raise InputError(
            f"{self.name}: " + "; ".join(f"{name} {what}" for name, what in problems),
            code="unknown-input" if unknown else "missing-input",
            hint=(did_you_mean(unknown[0], wanted) if unknown else "")
            + f"it takes: {', '.join(wanted) or 'nothing'}",
            problems=problems,
        )

    async def go(self, run: Run, inputs: Mapping[str, Any]) -> RunResult:
        """Run the plan."""
        try:
            outputs = await run_block(run, self.plan.block, inputs, "")
        except BaseException as error:
            self.has_failed(run, error)
            raise
        self.has_run(run.steps)
        there = {name: value for name, value in outputs.items() if value is not FAILED and value is not UNSET}
        seconds = perf_counter() - run.begun
        return RunResult.of_run(there, run.run_id, run.usage, run.steps, run.failures, seconds)

    def has_run(self, steps: Sequence[tuple[str, Status, float]]) -> None:
        """A run has ended, with these steps, which `profile` shows."""
        self._last = steps

    def has_failed(self, run: Run, error: BaseException | None) -> None:
        """A run has ended without a result, and its error is told where."""
        self.has_run(run.steps)
        if isinstance(error, Exception):
            _tell(error, run)

    # -- durable runs -------------------------------------------------------------------------------

    def _row_calls(self) -> Calls:
        """With a store and a `run_id`, each row is a run of its own, which a second batch goes on with."""
        options = self._run_options
        if options.store is None or options.run_id is None:
            if self._only_modules:
                # Nothing of the user's runs in a row's context, so that a row needs no task of its own.
                begin = self._begin_row if self._may_begin_rows() else None
                return Calls(lambda row, _: self.acall(**inputs_of(row)), self._runs_on, begin)
            return super()._row_calls()

        def run(row: Any, number: int) -> asyncio.Task[RunResult]:
            twin = copy.copy(self)
            twin._run_options = options._replace(run_id=f"{options.run_id}[{number}]", resumes=True)
            return asyncio.create_task(twin.arun(**inputs_of(row)))

        return Calls(run, self._runs_on)

    def _may_begin_rows(self) -> bool:
        kind, options = type(self), self._run_options
        return (
            bool(self._stages)
            and not self._options
            and options.store is None
            and options.on_error == "fail"
            and kind.acall is Module.acall
            and kind.aforward is Pipeline.aforward
        )

    def _begin_row(self, row: Any) -> Row | None:
        """Begin a run for a batch, which asks and finishes it; None where it is to be awaited whole."""
        inputs, scope = inputs_of(row), _scope.current_scope()
        if (
            inputs.keys() != self.plan.inputs.keys()  # it is wrong, or has options among them
            or (scope is not None and scope.listener is not None)
            or (_callbacks.given and self._heard_by())
        ):
            return None
        return Row(self, self._stages, self._run_options.run_id or new_name(), inputs)

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """What each step is, by its path: by these a run knows the pipeline that began it."""
        if self._fingerprints is None:
            self._fingerprints = fingerprints_of(self.plan)
        return self._fingerprints

    async def aresume(
        self,
        run_id: str,
        *,
        from_step: str | None = None,
        store: RunStore | None = None,
        max_resumes: int | None = MAX_RESUMES,
        take_over: bool = False,
    ) -> RunResult:
        """Go on with a run that failed, was cancelled, or whose process died.

        Steps that have finished do not run again: what they gave comes from the store. A run that is done
        gives what it gave. Its time-out, if it has one, is a new one.

        Args:
            run_id: The run.
            from_step: The path of a step from which on all is run again: that step, and whatever waits for
                it. Use it after a bug in the step was mended.
            store: Where the run is kept; by default the pipeline's store.
            max_resumes: How often a run may be resumed before it has failed for good; None for ever.
            take_over: Whether to become the owner although another's lease lasts, whose writes are refused
                from then on.

        Raises:
            RunNotFound: If the store has no such run.
            RunBusy: If another owner has it.
            TooManyResumes: If it has been resumed as often as it may be.
            PipelineChanged: If the steps are not those that began it.
            PipelineError: If there is no such step (`no-such-step`).
            Exception: As from `arun`.
        """
        from dspex.pipelines import _durable  # most runs are not kept

        options = self._run_options if store is None else self._run_options.over({"store": store})
        outcome: RunResult = await self._within_options(
            lambda: _durable.resume(
                self, run_id, options, from_step=from_step, max_resumes=max_resumes, take_over=take_over
            )
        )
        return outcome

    def resume(
        self,
        run_id: str,
        *,
        from_step: str | None = None,
        store: RunStore | None = None,
        max_resumes: int | None = MAX_RESUMES,
        take_over: bool = False,
    ) -> RunResult:
        """The blocking twin of `aresume`."""
        return self._blocking(
            self.aresume(
                run_id, from_step=from_step, store=store, max_resumes=max_resumes, take_over=take_over
            ),
            "await aresume(...)",
        )

    # -- how it is called ---------------------------------------------------------------------------

    def _unheard(self, args: tuple[Any, ...], inputs: dict[str, Any]) -> Any:
        return self._blocking(self._unheard_awaited(args, inputs), "await arun(...)")

    def _blocking(self, running: Coroutine[Any, Any, RunResult], instead: str) -> RunResult:
        """Run it on the loop of the runtime of this context, or, where there is none, on one of its own."""
        try:
            refuse_blocking(0, f"`{instead}`")
        except ConfigError:
            running.close()
            raise
        portal, future = begin_there(self._runs_on(), lambda: running, "dspex-pipeline")
        try:
            outcome: RunResult = wait(future, None, _runtime_closed)
            return outcome
        finally:
            del future  # it holds the exception, which holds this frame
            if portal is not None:
                portal.close()

    def _runs_on(self) -> Dispatcher | None:
        for _, predictor in self.named_predictors():
            if predictor._runtime is not None:
                own: Dispatcher = predictor._runtime
                return own
        return dispatcher_here()

    def _entered(self) -> AbstractContextManager[_scope.Scope]:
        options = {name: value for name, value in self._options.items() if name != "stream_fields"}
        return _scope.enter(**options)

    def with_options(self, **options: Any) -> Self:
        """A copy of this pipeline whose runs have these options.

        Args:
            **options: `timeout`, seconds for a whole run; `route`, `strategy`, `idempotent` and
                `stream_fields` as for any module; `store`, `durability`, `lease`, `on_error`, `run_id`;
                `restart`, by which a streamed step that has told something may be tried again, after a
                `StepRestarted`.

        Raises:
            ConfigError: If an option is none.
        """
        own = {name: options.pop(name) for name in OPTIONS if name in options}
        twin = super().with_options(**options)
        twin._run_options = self._run_options.over(own)
        return twin

    def stream(self, /, *args: Any, **inputs: Any) -> ModuleStream[PipelineEvent]:
        """A run as an iterator: an event for every step that begins and ends, and what its model writes.

        The run begins with the first step of the iterator, in a thread.

        Args:
            *args: None; a pipeline takes its inputs by name.
            **inputs: As for `arun`. `with_options(stream_fields=...)` says of which fields events come, those
                of one step as `"answer.text"`; `with_options(restart=True)`, that a step that has told
                something may be tried again.

        Raises:
            ConfigError: If no step gives a field of those (`bad-stream`).
        """
        return cast("ModuleStream[PipelineEvent]", super().stream(*args, **inputs))

    def astream(self, /, *args: Any, **inputs: Any) -> AsyncModuleStream[PipelineEvent]:
        """The asynchronous twin of `stream`."""
        return cast("AsyncModuleStream[PipelineEvent]", super().astream(*args, **inputs))

    def _listener(self, fields: Sequence[str] | None) -> Listener:
        from dspex.pipelines._stream import StepTeller  # most runs are not streamed

        return StepTeller(self, fields, restart=self._run_options.restart)

    # -- what it is ---------------------------------------------------------------------------------

    def explain(self, format: Literal["plain", "tree"] = "plain") -> Explanation:  # noqa: A002 - as Polars has it
        """What runs when, with which fields, and why; see `dspex.pipelines.Explanation`."""
        from dspex.pipelines._explain import explain

        return explain(self, format)

    def to_mermaid(self) -> str:
        """A drawing of the plan in Mermaid's language, made here: nothing is sent anywhere."""
        from dspex.pipelines._mermaid import drawing

        return drawing(self.plan)

    def profile(self) -> Profile:
        """Where the time of the last run went, step by step.

        Raises:
            ConfigError: If there has been none (`no-run`).
        """
        from dspex.pipelines._profile import Profile

        if not self._last:
            raise ConfigError(f"{self.name} has not run yet", code="no-run", hint="call run, then profile")
        return Profile.of(self._last)

    def map_named_predictors(self, change: Callable[[Any], Any]) -> Self:
        """Put in the place of each predictor what `change` makes of it.

        Returns:
            This pipeline.
        """
        before = dict(self.steps)
        super().map_named_predictors(change)
        others = {id(before[path]): module for path, module in self.steps.items()}
        self._given = self._remade(lambda target: others.get(id(target), target))._given
        self._compile()
        return self

    def _remade(self, change: Callable[[Any], Any]) -> Self:
        """A copy with `change` of each module and function in it, those in pipelines inside too."""
        twin = copy.copy(self)
        twin._given = tuple(
            mapped(
                each,
                lambda target: target._remade(change) if isinstance(target, Pipeline) else change(target),
            )
            for each in self._given
        )
        twin._compile()
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = self._remade(
            lambda target: copy.deepcopy(target, memo) if isinstance(target, Module) else target
        )
        memo[id(self)] = twin
        return twin

    def __repr__(self) -> str:
        takes, gives = ", ".join(self.plan.inputs), ", ".join(self.plan.outputs)
        return f"<Pipeline {self.name!r}: {takes} -> {gives}, {sum(1 for _ in self.plan.nodes())} steps>"


class _Settings(NamedTuple):
    """What a pipeline is compiled with."""

    inputs: Mapping[str, Any] | None
    outputs: tuple[str, ...] | None
    strict: bool


def _types_of(inputs: Any) -> dict[str, Any] | None:
    if inputs is None:
        return None
    if isinstance(inputs, Mapping):
        return dict(inputs)
    if isinstance(inputs, str) or not all(isinstance(name, str) for name in inputs):
        raise bad_step(
            "inputs of a pipeline must be names", 'write inputs=["question"] or inputs={"question": str}'
        )
    return dict.fromkeys(inputs, Any)


def _names_of(outputs: Any) -> tuple[str, ...] | None:
    if outputs is None:
        return None
    names = (outputs,) if isinstance(outputs, str) else tuple(outputs)
    if not names or not all(isinstance(name, str) for name in names):
        raise bad_step("outputs of a pipeline must be names", 'write outputs=["answer"]')
    return names


def _tell(error: Exception, run: Run) -> None:
    """Say on an error where in the run it was raised, and what else there was."""
    failed = [path for path, each in run.failures.items() if each is error]
    others = {path: each for path, each in run.failures.items() if each is not error}
    facts = {
        "step": failed[0] if failed else getattr(error, "step", ""),
        "completed": tuple(path for path, status, _ in run.steps if status in DONE),
        "errors": others,
        "run_id": run.run_id,
    }
    for name, value in facts.items():
        try:
            setattr(error, name, value)
        except (AttributeError, TypeError):  # a class with slots, or with a property of the name
            continue


def _warn(text: str) -> None:
    import warnings

    from dspex.pipelines._warning import PipelineWarning

    warnings.warn(text, PipelineWarning, stacklevel=4)


def pipeline(*steps: Any, **options: Any) -> Pipeline:
    """Compile steps to a `Pipeline`.

    Args:
        *steps: Modules, functions, pipelines, what `step`, `parallel`, `branch`, `map` and `loop` give,
            compositions of those by `|` and `&`; or one list of the same. A function takes fields by the
            names of its parameters; one that is not `async` runs in a thread.
        **options: `inputs`, what it takes: names, or names with types; by default what the first step takes.
            `outputs`, what it gives; by default what the last step gives. `name`. `strict=True`, by which
            what would be a warning is an error. `on_error="continue"`, by which a failing step ends only
            what depends on it. `store`, `durability` and `lease` for durable runs. `callbacks`.

    Raises:
        PipelineError: If the steps do not fit together; its code says how, and its `step` where.

    Example:
        ```python
        qa = dspex.pipeline(
            dspex.Predict("question -> query"),
            dspex.parallel(docs=search, facts=dspex.Predict("query -> facts: list[str]")),
            dspex.ChainOfThought("question, docs: list[str], facts: list[str] -> answer"),
        )
        qa.run(question="Who wrote it?").answer
        ```
    """
    several: Sequence[Any] = steps
    if len(steps) == 1 and isinstance(steps[0], list):
        several = steps[0]
    return Pipeline(several, **options)


def _runtime_closed() -> ConfigError:
    return ConfigError(
        "the runtime of the run was closed", code="runtime-closed", hint="keep it open while one runs"
    )
