"""`Module`: what all modules share, and the base of programs of one's own."""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from dspex import _callbacks
from dspex._portal import refuse_blocking, run_alone
from dspex._timeouts import without_frames
from dspex.errors import ConfigError
from dspex.modules import _scope
from dspex.modules._arguments import options_of
from dspex.modules._tree import ModuleNode, predictors_of, replace_at, sub_modules_of
from dspex.router import Dispatcher, dispatcher_here

if TYPE_CHECKING:
    from typing import Unpack

    from dspex.lm import LanguageModel
    from dspex.modules._batch import Calls
    from dspex.modules._batch_plan import BatchOptions
    from dspex.modules._evaluation import Evaluation
    from dspex.modules._listening import Listener
    from dspex.modules._predict import Predict
    from dspex.modules._stream import AsyncModuleStream, ModuleStream
    from dspex.router import RouteName, Strategy

__all__ = ["Module"]

T = TypeVar("T")


class Module(ModuleNode):
    """A program of one's own, like `dspy.Module`: plain Python around modules that are its attributes.

    A subclass makes its modules in `__init__` and says in `forward`, in `aforward`, or in both, what they do.
    A program with one of the two has both ways to be called: `acall` runs a `forward` in a thread, and a call
    runs an `aforward` on an event loop of its own.

    Args:
        callbacks: Who hears of its calls; a subclass hands them on by `super().__init__(callbacks)`, or sets
            the attribute of that name. See `dspex.callbacks.BaseCallback`.

    Raises:
        ConfigError: If they are none (`bad-callbacks`).

    Example:
        ```python
        class Answer(dspex.Module):
            def __init__(self):
                self.draft = dspex.ChainOfThought("question -> draft")
                self.polish = dspex.Predict("draft -> answer")

            def forward(self, question):
                return self.polish(draft=self.draft(question=question).draft)
        ```
    """

    if TYPE_CHECKING:
        forward: Callable[..., Any]
        aforward: Callable[..., Any]
    _options: Mapping[str, Any] = {}
    _own_callbacks: _callbacks.Callbacks = _callbacks.NONE

    def __init__(self, callbacks: Sequence[Any] | None = None) -> None:
        if callbacks is not None:
            self.callbacks = callbacks

    @property
    def callbacks(self) -> Sequence[Any]:
        """Who hears of this module's calls, beside the callbacks of its runtime."""
        return self._own_callbacks

    @callbacks.setter
    def callbacks(self, callbacks: Sequence[Any] | None) -> None:
        self._own_callbacks = _callbacks.callbacks_of(callbacks)

    def __call__(self, /, *args: Any, **inputs: Any) -> Any:
        """Run the program and wait for what it returns.

        Args:
            *args: What its `forward` takes by position.
            **inputs: What it takes by name.

        Raises:
            ConfigError: If it has neither `forward` nor `aforward` (`no-forward`), or the call would block an
                event loop that runs on this thread (`blocking-in-loop`): use `acall` there.
            DspexError: Whatever a call in it raised, and `DeadlineExceeded` if the time ran out.
        """
        if _callbacks.given and (heard_by := self._heard_by()) and getattr(self, "forward", None):
            return self._heard(heard_by, args, inputs)
        return self._unheard(args, inputs)

    def _unheard(self, args: tuple[Any, ...], inputs: dict[str, Any]) -> Any:
        forward = getattr(self, "forward", None)
        if forward is None:
            refuse_blocking(0, "`await acall(...)`")
            return run_alone(self.acall(*args, **inputs))
        if not self._options:
            return forward(*args, **inputs)
        with self._entered():
            return forward(*args, **inputs)

    async def acall(self, /, *args: Any, **inputs: Any) -> Any:
        """The call, awaited; see `__call__` for arguments and errors."""
        if _callbacks.given and (heard_by := self._heard_by()):
            return await self._heard_awaited(heard_by, args, inputs)
        return await self._unheard_awaited(args, inputs)

    async def _unheard_awaited(self, args: tuple[Any, ...], inputs: dict[str, Any]) -> Any:
        return await self._within_options(partial(self._run, args, inputs))

    async def _within_options(self, run: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Run what `run` gives, with the options of `with_options` and within their time."""
        if not self._options and _scope.says_nothing():
            return await run()
        with self._entered() as scope:
            running = run()
            left = scope.left(None)
            if left is None:
                return await running
            limit = asyncio.timeout(left)
            try:
                async with limit:
                    return await running
            except TimeoutError as error:
                if not limit.expired():
                    raise
                raise scope.ran_out() from without_frames(error)

    # -- who hears of it --------------------------------------------------------------------------

    def _heard_by(self) -> Sequence[Any]:
        """The callbacks of its runtime, then its own."""
        return (*getattr(self._runs_on(), "callbacks", ()), *self._own_callbacks)

    def _runs_on(self) -> Dispatcher | None:
        return dispatcher_here()

    def _heard(self, heard_by: Sequence[Any], args: tuple[Any, ...], inputs: dict[str, Any]) -> Any:
        with _callbacks.hear(heard_by, "module", self, {"args": args, "kwargs": dict(inputs)}) as told:
            told.outputs = self._unheard(args, inputs)
        return told.outputs

    async def _heard_awaited(
        self, heard_by: Sequence[Any], args: tuple[Any, ...], inputs: dict[str, Any]
    ) -> Any:
        with _callbacks.hear(heard_by, "module", self, {"args": args, "kwargs": dict(inputs)}) as told:
            told.outputs = await self._unheard_awaited(args, inputs)
        return told.outputs

    def stream(self, /, *args: Any, **inputs: Any) -> ModuleStream:
        """The call as an iterator: events of `dspex.events` as the replies come, at last the prediction.

        The call begins with the first step of the iterator, in a thread. Close the stream, or use it by
        `with`, to leave it early; see `dspex.modules.ModuleStream`.

        Args:
            *args: As for a call.
            **inputs: As for a call. `with_options(stream_fields=...)` says of which fields events come.

        Raises:
            ConfigError: If no predictor inside has a field of those (`bad-stream`).

        Example:
            ```python
            for event in dspex.Predict("question -> answer").stream(question="Who wrote it?"):
                match event:
                    case dspex.streaming.TextDelta(field="answer", text=text):
                        print(text, end="", flush=True)
                    case dspex.Prediction():
                        print(event.usage)
            ```
        """
        from dspex.modules._stream import ModuleStream  # most programs never stream

        return ModuleStream(self, args, inputs, self._options.get("stream_fields"))

    def astream(self, /, *args: Any, **inputs: Any) -> AsyncModuleStream:
        """The asynchronous twin of `stream`: `async for event in program.astream(...)`.

        See `stream` for arguments and errors, and `dspex.modules.AsyncModuleStream` for leaving it early.
        """
        from dspex.modules._stream import AsyncModuleStream  # as in `stream`

        return AsyncModuleStream(self, args, inputs, self._options.get("stream_fields"))

    def _listener(self, fields: Sequence[str] | None) -> Listener:
        """What hears of a call that is streamed."""
        from dspex.modules._listening import Listener  # as in `stream`

        return Listener(self, fields)

    def _entered(self) -> AbstractContextManager[_scope.Scope]:
        options = dict(self._options)
        options.pop("stream_fields", None)  # of the stream that is made, not of the calls
        return _scope.enter(**options)

    def _run(self, args: tuple[Any, ...], inputs: dict[str, Any]) -> Coroutine[Any, Any, Any]:
        aforward = getattr(self, "aforward", None)
        if aforward is not None:
            running: Coroutine[Any, Any, Any] = aforward(*args, **inputs)
            return running
        forward = getattr(self, "forward", None)
        if forward is None:
            raise ConfigError(
                f"{type(self).__name__} has neither forward nor aforward",
                code="no-forward",
                hint="define `def forward(self, ...)` or `async def aforward(self, ...)`",
            )
        from dspex._threads import in_thread  # a service that awaits everything does without threads

        return in_thread(partial(forward, *args, **inputs))

    # -- many rows --------------------------------------------------------------------------------

    @overload
    def batch(
        self, rows: Iterable[Any], concurrency: int | None = None, **options: Unpack[BatchOptions]
    ) -> list[Any]: ...

    @overload
    def batch(
        self,
        rows: Iterable[Any],
        concurrency: int | None = None,
        *,
        return_failed_examples: bool,
        **options: Unpack[BatchOptions],
    ) -> Any: ...

    def batch(
        self,
        rows: Iterable[Any],
        concurrency: int | None = None,
        *,
        return_failed_examples: bool = False,
        **options: Unpack[BatchOptions],
    ) -> Any:
        """Call this module for each of many rows, many at once.

        The calls run on the runtime's event loop, which costs no way to it for each; those of a program that
        has only a `forward` run in threads. Rows that are no list or tuple are read on this thread, as they
        are needed.

        Args:
            rows: What to call it with: mappings of inputs, or examples of DSPy's, from any iterable.
            concurrency: How many run at once, at most; 64 unless given.
            return_failed_examples: Give what DSPy gives: the outcomes with None for each failed row, the
                failed rows, and their errors.
            **options: See `dspex.modules.BatchOptions`: `errors`, `max_errors`, `timeout`, `progress`.

        Returns:
            What each call returned, in the order of the rows. In the place of a row that failed stands its
            error.

        Raises:
            ConfigError: If an option is none, there is no runtime, or the batch would block an event loop
                that runs on this thread (`blocking-in-loop`): use `abatch` there.
            BatchError: If `max_errors` rows have failed.
            DeadlineExceeded: If the `timeout` ran out.
            Exception: With `errors="raise"`, what the first failing row raised.
        """
        from dspex.modules import _batch  # here and below: most calls are of one row

        plan = _batch.Plan.of(concurrency, options)
        if not return_failed_examples:
            return _batch.batch(self._row_calls(), rows, plan)
        kept = list(rows)
        return _batch.failed_rows(_batch.batch(self._row_calls(), kept, plan), kept)

    async def abatch(
        self,
        rows: Iterable[Any] | AsyncIterable[Any],
        concurrency: int | None = None,
        **options: Unpack[BatchOptions],
    ) -> list[Any]:
        """The awaitable twin of `batch`; the rows may come from an async iterable.

        Those of a plain one are read on this event loop, so its steps should not block.
        """
        from dspex.modules import _batch

        return await _batch.abatch(self._row_calls(), rows, _batch.Plan.of(concurrency, options))

    def batch_as_completed(
        self, rows: Iterable[Any], concurrency: int | None = None, **options: Unpack[BatchOptions]
    ) -> Generator[tuple[int, Any]]:
        """Call this module for each of many rows, and yield each row's number and outcome when it has ended.

        No more rows run ahead of the loop over it than three times `concurrency`. To leave the loop early
        ends the calls that are under way. Arguments and errors are those of `batch`.

        Example:
            ```python
            for number, outcome in qa.batch_as_completed(rows):
                if isinstance(outcome, Exception): ...
            ```
        """
        from dspex.modules import _batch

        plan = _batch.Plan.of(concurrency, options)
        return _batch.batch_as_completed(self._row_calls(), rows, plan)

    def abatch_as_completed(
        self,
        rows: Iterable[Any] | AsyncIterable[Any],
        concurrency: int | None = None,
        **options: Unpack[BatchOptions],
    ) -> AsyncGenerator[tuple[int, Any]]:
        """The awaitable twin of `batch_as_completed`.

        Close it to leave early: `async with contextlib.aclosing(qa.abatch_as_completed(rows)) as outcomes:`.
        """
        from dspex.modules import _batch

        plan = _batch.Plan.of(concurrency, options)
        return _batch.abatch_as_completed(self._row_calls(), rows, plan)

    # -- against examples -------------------------------------------------------------------------

    def evaluate(
        self,
        devset: Iterable[Any],
        metric: Callable[[Any, Any], Any],
        concurrency: int | None = None,
        *,
        inputs: Iterable[str] | None = None,
        failure_score: float = 0.0,
        threshold: float = 1.0,
        **options: Unpack[BatchOptions],
    ) -> Evaluation:
        """Run this module on examples and have each prediction judged; the score is that of `dspy.Evaluate`.

        The examples run as the rows of a `batch` do, many at once.

        Args:
            devset: The examples: mappings of names to values, or examples of DSPy's, from any iterable.
            metric: Is called as `metric(example, prediction)` and gives a number, a truth value, or a
                prediction with a `score`. A mapping comes to it as a `dspex.Prediction`, an example of DSPy's
                as itself. It may be async, or a program of one's own; any other runs in a thread.
            concurrency: How many examples run at once, at most; 64 unless given.
            inputs: The names of the examples' inputs. Needed only where neither the examples of DSPy's nor
                the module's signature say them.
            failure_score: The score of an example for which the module or the metric raised.
            threshold: The score below which a row is among the `failures`.
            **options: See `dspex.modules.BatchOptions`: `errors`, `max_errors`, `timeout`, `progress`.

        Returns:
            The score, and each example with its prediction, score, error and time.

        Raises:
            InputError: If the examples are none, or nobody knows which fields are inputs (`bad-devset`).
            ConfigError: If the metric is none (`bad-metric`), an option is none, there is no runtime, or the
                call would block an event loop that runs on this thread (`blocking-in-loop`): use `aevaluate`.
            BatchError: If `max_errors` examples have failed.
            DeadlineExceeded: If the `timeout` ran out.
            Exception: With `errors="raise"`, what the first failing example raised.

        Example:
            ```python
            found = qa.evaluate(examples, dspex.metrics.answer_exact_match)
            print(found.score)
            found.show()
            ```
        """
        from dspex.modules import _batch
        from dspex.modules._evaluate import Examination  # here and below: services do not evaluate

        plan = _batch.Plan.of(concurrency, options)
        return Examination(
            module=self, metric=metric, inputs=inputs, failure_score=failure_score, threshold=threshold
        ).run(devset, plan)

    async def aevaluate(
        self,
        devset: Iterable[Any] | AsyncIterable[Any],
        metric: Callable[[Any, Any], Any],
        concurrency: int | None = None,
        *,
        inputs: Iterable[str] | None = None,
        failure_score: float = 0.0,
        threshold: float = 1.0,
        **options: Unpack[BatchOptions],
    ) -> Evaluation:
        """The awaitable twin of `evaluate`; the examples may come from an async iterable.

        To cancel it ends what is under way. A metric in a thread cannot be ended, and is waited for.
        """
        from dspex.modules import _batch
        from dspex.modules._evaluate import Examination

        plan = _batch.Plan.of(concurrency, options)
        return await Examination(
            module=self, metric=metric, inputs=inputs, failure_score=failure_score, threshold=threshold
        ).arun(devset, plan)

    def _input_names(self) -> Iterable[str] | None:
        """The names of its inputs, where a signature says them."""
        return getattr(getattr(self, "signature", None), "input_fields", None)

    # -- options ----------------------------------------------------------------------------------

    def _row_calls(self) -> Calls:
        """How the rows of a batch are run."""
        from dspex.modules._batch import Calls

        return Calls.of(self)

    def with_options(
        self,
        *,
        route: RouteName | None = None,
        strategy: Strategy | None = None,
        timeout: float | None = None,
        idempotent: bool | None = None,
        stream_fields: Sequence[str] | None = None,
    ) -> Self:
        """A copy of this program whose calls have these options; it shares the modules inside.

        Args:
            route: Where the calls inside go, unless they say otherwise: `"native"`, `"python"` or a target's
                name.
            strategy: In which order targets are considered, in the place of the runtime's.
            timeout: Seconds for the whole program. Each call inside has what is left of them.
            idempotent: Whether a worker may run the calls inside again; see `Predict.with_options`.
            stream_fields: The output fields whose events its streams have: `"answer"` of every predictor,
                `"draft.answer"` of the one with that path. None for all, `[]` for none.

        Raises:
            ConfigError: If an option is none.
        """
        twin = copy.copy(self)
        given = options_of(
            route=route,
            strategy=strategy,
            timeout=timeout,
            idempotent=idempotent,
            stream_fields=stream_fields,
        )
        twin._options = {**self._options, **given}
        return twin

    # -- what is inside ---------------------------------------------------------------------------

    def named_predictors(self) -> list[tuple[str, Predict]]:
        """Each predictor inside with its path, as DSPy names them: `("draft.predict", ...)`.

        A path begins with the name of an attribute; of a list or a dict it says the place: `steps[0]`,
        `by_name['short']`. A predictor itself is `"self"`. As in DSPy a module inside that has been optimised
        already, which its `_compiled = True` says, keeps its predictors to itself.
        """
        return predictors_of(self)

    def predictors(self) -> list[Predict]:
        """The predictors inside, in their order."""
        return [predictor for _, predictor in predictors_of(self)]

    def named_parameters(self) -> list[tuple[str, Predict]]:
        """What an optimizer may change: the predictors inside, as `named_predictors` has them."""
        return predictors_of(self)

    def parameters(self) -> list[Predict]:
        """The same without their paths."""
        return self.predictors()

    @overload
    def named_sub_modules(
        self, type_: None = None, skip_compiled: bool = False
    ) -> Iterator[tuple[str, Module]]: ...

    @overload
    def named_sub_modules(self, type_: type[T], skip_compiled: bool = False) -> Iterator[tuple[str, T]]: ...

    def named_sub_modules(
        self, type_: type[Any] | None = None, skip_compiled: bool = False
    ) -> Iterator[tuple[str, Any]]:
        """This module as `"self"`, and each module inside with its path: `"self.draft"`, level by level.

        Args:
            type_: Only what is of this type; it need be no module.
            skip_compiled: Look into no module that has been optimised already.
        """
        return sub_modules_of(self, ModuleNode if type_ is None else type_, frozen=not skip_compiled)

    def map_named_predictors(self, change: Callable[[Predict], Any]) -> Self:
        """Put in the place of each predictor what `change` makes of it.

        Returns:
            This module.
        """
        for _, predictor in self.named_predictors():
            replace_at(self, predictor, change(predictor))
        return self

    def set_lm(self, lm: str | LanguageModel | None) -> None:
        """Let all predictors inside ask this language model; None for the runtime's.

        Raises:
            ConfigError: If it is none.
        """
        for predictor in self.predictors():
            predictor.lm = lm

    def get_lm(self) -> LanguageModel | None:
        """The language model of all predictors inside; None for the runtime's.

        Raises:
            ConfigError: If they have several, or there are no predictors (`several-lms`).
        """
        found = [predictor.lm for predictor in self.predictors()]
        if not found or any(lm is not found[0] and lm != found[0] for lm in found):
            raise ConfigError(
                f"the predictors of {type(self).__name__} have {len(found) and 'several'} language models",
                code="several-lms",
                hint="ask a predictor for its own: program.named_predictors()",
            )
        return found[0]

    # -- what an optimizer finds out ----------------------------------------------------------------

    def dump_state(self) -> dict[str, Any]:
        """The demos and the signature's texts of each predictor inside, as `dspy.Module.dump_state` has it.

        Of a language model of its own there is the model and how it samples, no address and no key.

        Raises:
            ConfigError: If a value of a demo has no JSON (`program-state`).
        """
        from dspex.modules._state import state_of

        return state_of(self.named_predictors())

    def load_state(self, state: Mapping[str, Any], *, lm: bool = False) -> Self:
        """Take over what `dump_state` gave, here or in DSPy.

        Args:
            state: The state. It is checked as a whole first: if a part is wrong, nothing is changed.
            lm: Whether predictors also get the language models that the state names, each a `dspex.LM` with
                key and address from the environment. Else they keep theirs, which DSPy does not.

        Returns:
            This module.

        Raises:
            ConfigError: If it is not the state of this program: other paths, another number of fields, no
                examples (`program-state`).
        """
        from dspex.modules._state import apply_state

        apply_state(self.named_predictors(), state, lm=lm)
        return self

    def save(self, path: str | os.PathLike[str], save_program: bool = False) -> None:
        """Write the state to a JSON file, which `load` here and in DSPy reads.

        The file is written whole or not at all.

        Args:
            path: The file.
            save_program: DSPy's, for a pickle of the whole program; only False is taken.

        Raises:
            ConfigError: If it does not end in `.json`, cannot be written, a value of a demo has no JSON, or a
                pickle is asked for (`program-pickle`).
        """
        from dspex.modules._state import no_pickle, state_of, write_state

        if save_program:
            raise no_pickle("a program that is saved as a whole")
        write_state(state_of(self.named_predictors()), path)

    def load(self, path: str | os.PathLike[str], allow_pickle: bool = False, *, lm: bool = False) -> Self:
        """Take over what `save` wrote, here or in DSPy: `rag = RAG().load("rag.json")`.

        A warning is logged where the file is of a DSPy with other prompts.

        Args:
            path: The JSON file. A pickle is refused, as it would run whatever it holds.
            allow_pickle: DSPy's; a pickle is refused all the same.
            lm: As for `load_state`.

        Returns:
            This module.

        Raises:
            ConfigError: If the file cannot be read (`program-file`, `program-pickle`), or is not that of this
                program (`program-state`); nothing has been changed then.
        """
        from dspex.modules._state import apply_state, read_state

        apply_state(self.named_predictors(), read_state(path), lm=lm)
        return self

    def deepcopy(self) -> Self:
        """A copy with predictors of its own; language models and runtimes are shared.

        An attribute that cannot be copied is shared too, as in DSPy.
        """
        try:
            return copy.deepcopy(self)
        except Exception:  # noqa: BLE001 - whatever a class of the user's raises
            twin = copy.copy(self)
            for name, value in vars(self).items():
                if isinstance(value, Module):
                    setattr(twin, name, value.deepcopy())
                else:
                    with suppress(Exception):
                        setattr(twin, name, copy.deepcopy(value))
            return twin

    def reset_copy(self) -> Self:
        """A copy whose predictors have neither demos nor language models of their own."""
        twin = self.deepcopy()
        for predictor in twin.predictors():
            predictor.reset()
        return twin

    def __repr__(self) -> str:
        return "\n".join(f"{path} = {predictor!r}" for path, predictor in self.named_predictors())
