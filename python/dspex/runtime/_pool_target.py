"""`PoolTarget`: runs operations with real DSPy, in the workers of a pool."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast

from dspex import dialects
from dspex._core import StageTimes
from dspex._session_scope import SESSION
from dspex._timeouts import without_frames
from dspex.adapters import TwoStepAdapter
from dspex.errors import ConfigError, DeadlineExceeded, DspexError, from_dict
from dspex.prediction import Prediction
from dspex.router import AnyOperation, Operation
from dspex.runtime._replies import adapter_of, refusal_of
from dspex.runtime._telemetry import count_work, tell_of_pool
from dspex.runtime._tool_calls import refusal_of_workers

if TYPE_CHECKING:
    from dspex.adapters import Adapter
    from dspex.lm import LanguageModel
    from dspex.pool import Pool, PoolSpec
    from dspex.protocol.optimization import OptimizeRequest
    from dspex.protocol.requests import ModuleRequest, PredictRequest
    from dspex.runtime._pool_request import AnswerReader

__all__ = ["PoolTarget", "Told", "not_for_workers"]

SHORTEST_SECONDS: Final = 0.001
"""What a call is given whose time ran out on the way: enough for the pool to say so in its own words."""


class Told(NamedTuple):
    """What a worker tells of a call.

    Attributes:
        messages: Those that its DSPy wrote.
        prediction: What it answered; None where no model was asked.
    """

    messages: list[Any]
    prediction: Prediction | None


class PoolTarget:
    """Runs the real `dspy.Predict` in a worker of a pool, which starts with the first call.

    Args:
        spec: The pool's settings; None for a pool with nothing but defaults.
        lm_settings: Gives the settings of the workers' LM, key included, when the pool starts.
        adapter: Lays out prompts and reads replies, where a call brings none of its own.
        dialect: The version of DSPy whose prompts the native side writes, or None if it writes none.
        native_lm: Whether the native side can ask the LM too; then both take the same settings.
        lm: The LM, to be asked for its key where a function gives that.
    """

    side: Literal["native", "python"] = "python"

    def __init__(
        self,
        spec: PoolSpec | None,
        lm_settings: Callable[[], Mapping[str, Any]],
        adapter: Adapter,
        dialect: str | None,
        *,
        native_lm: bool = True,
        lm: LanguageModel | None = None,
    ) -> None:
        self._spec = spec
        self._lm = lm
        self.name = f"pool:{spec.name if spec is not None else 'general'}"
        self._lm_settings = lm_settings
        self._adapter = adapter
        self._dialect = dialect
        self._native_lm = native_lm
        self._opening: asyncio.Task[Pool] | None = None
        self.stages = StageTimes()

    @property
    def spec(self) -> PoolSpec:
        """The pool's settings."""
        if self._spec is None:
            from dspex.pool import PoolSpec  # most runtimes have the default pool, and few ever start it

            self._spec = PoolSpec()
        return self._spec

    lacks = ("lm-not-for-workers", "native-tools")

    def unable(self, operation: AnyOperation) -> DspexError | None:
        """Why no worker can run the operation: its model lives here, or it makes native calls of tools."""
        if operation.lm is not None and not hasattr(operation.lm, "settings_for_worker"):
            return not_for_workers(operation.lm, 'leave out route="python", or give the call a dspex.LM')
        return refusal_of_workers(adapter_of(operation, self._adapter))

    async def run(self, operation: AnyOperation, timeout: float) -> Prediction:
        """Run the operation in a worker; see `dspex.router.Target.run`."""
        begun = time.perf_counter()
        request, reader = self._request(operation)
        if sources := self._key_sources(operation):
            from dspex.runtime._pool_keys import with_keys  # few LMs have such a key

            request = await with_keys(request, sources, timeout)
        pool = await self.open(timeout)
        left = timeout - (time.perf_counter() - begun)
        left = max(left, SHORTEST_SECONDS)
        functions = None if isinstance(operation, Operation) else _functions_of(operation)
        stream = None
        if operation.sink is not None:
            from dspex.runtime._pool_stream import stream_of  # as in `_started`

            stream = stream_of(operation, left)
        session = SESSION.get()
        placed: Mapping[str, Any] = {} if session is None else session.options_in(self.name, pool)
        try:
            if stream is None:
                answer = await pool.call(
                    request, timeout=left, idempotent=operation.idempotent, host_functions=functions, **placed
                )
            else:  # an optimizer's work has none
                streamed = cast("PredictRequest | ModuleRequest", request)
                answer = await stream.answer(
                    pool,
                    streamed,
                    timeout=left,
                    idempotent=operation.idempotent,
                    host_functions=functions,
                    **placed,
                )
        except DspexError as error:
            count_work(self.stages, error._stages)
            raise
        count_work(self.stages, answer.get("stages", ()), answer["timings"]["worker"])
        # What a module gives need not be the outputs of the signature that it was made with.
        signature = operation.signature if isinstance(operation, Operation) else None
        rows = reader.rows(answer)
        if stream is not None:
            await stream.finish(rows)
        from dspex.protocol.events import prediction_of  # a service may never ask a worker

        prediction = prediction_of(answer, rows, signature, total=time.perf_counter() - begun)
        if stream is not None and stream.first_text is not None:
            prediction.timings["first_text"] = stream.first_text - begun
        return prediction

    async def told(self, operation: Operation, timeout: float, *, answers: bool) -> Told:
        """The messages that real DSPy writes for a call, and what it answers, if that is wanted.

        Args:
            operation: The call.
            timeout: Seconds that it may take.
            answers: Whether a model is asked.

        Raises:
            DspexError: As `run`.
        """
        begun = time.perf_counter()
        request, reader = self._request(operation)
        if sources := self._key_sources(operation):
            from dspex.runtime._pool_keys import with_keys  # few LMs have such a key

            request = await with_keys(request, sources, timeout)
        asked = replace(cast("PredictRequest", request), prompt="told" if answers else "alone")
        pool = await self.open(timeout)
        left = max(timeout - (time.perf_counter() - begun), SHORTEST_SECONDS)
        answer = await pool.call(asked, timeout=left, idempotent=operation.idempotent)
        messages = answer.get("messages", [])
        if not answers:
            return Told(messages, None)
        from dspex.protocol.events import prediction_of

        return Told(messages, prediction_of(answer, reader.rows(answer), operation.signature))

    def _request(
        self, operation: AnyOperation
    ) -> tuple[PredictRequest | ModuleRequest | OptimizeRequest, AnswerReader]:
        """What the pool is asked for, and what reads its answer."""
        from dspex.router import ModuleOperation, OptimizeOperation  # as in `_started`
        from dspex.runtime._module_request import prepare_module, prepare_optimization
        from dspex.runtime._pool_request import prepare

        adapter = adapter_of(operation, self._adapter)
        refusal = refusal_of_workers(adapter)
        if refusal is not None:
            raise refusal
        native_lm = self._native_lm if operation.lm is None else refusal_of(operation.lm) is None
        lm, second = self._over_the_pool_s(operation.lm), self._second_lm(adapter)
        if isinstance(operation, ModuleOperation):
            return prepare_module(
                operation, adapter, self._dialect, native_lm=native_lm, lm=lm, extraction_lm=second
            )
        if isinstance(operation, OptimizeOperation):
            models = {name: self._over_the_pool_s(model) for name, model in operation.models.items()}
            return prepare_optimization(
                operation, adapter, models, native_lm=native_lm, lm=lm, extraction_lm=second
            )
        assert isinstance(operation, Operation)  # noqa: S101 - there are three kinds
        return prepare(operation, adapter, self._dialect, native_lm=native_lm, lm=lm, extraction_lm=second)

    def _key_sources(self, operation: AnyOperation) -> dict[str, Any]:
        """What has to be asked for the key of each of the call's models; mostly nothing."""
        from dspex.router import OptimizeOperation  # as in `_started`

        adapter = adapter_of(operation, self._adapter)
        models: dict[str, Any] = {"lm": self._lm if operation.lm is None else operation.lm}
        if isinstance(adapter, TwoStepAdapter) and adapter.extraction_lm is not None:
            models["extraction_lm"] = adapter.extraction_lm
        if isinstance(operation, OptimizeOperation):
            models |= operation.models
        sources = {name: getattr(model, "key_for_worker", None) for name, model in models.items()}
        return {name: source for name, source in sources.items() if source is not None}

    def _second_lm(self, adapter: Adapter) -> dict[str, Any]:
        """Settings of the model of a two-step adapter that has its own."""
        return self._over_the_pool_s(adapter.extraction_lm if isinstance(adapter, TwoStepAdapter) else None)

    def _over_the_pool_s(self, lm: Any) -> dict[str, Any]:
        """Settings of a model of the call's own, over the pool's in the worker, of which it wants none.

        Raises:
            ConfigError: If it lives in this process (`lm-not-for-workers`).
        """
        if lm is None:
            return {}
        if not hasattr(lm, "settings_for_worker"):
            raise not_for_workers(lm, 'leave out route="python", or give the call a dspex.LM')
        return {**dict.fromkeys(self._lm_settings()), **lm.settings_for_worker()}

    @property
    def pool(self) -> Pool | None:
        """The pool, once it has started."""
        opening = self._opening
        return opening.result() if opening is not None and opening.done() and not _failed(opening) else None

    async def warm(self) -> None:
        """Start the pool now; the wait is bounded by its own `timeouts.start`."""
        await asyncio.shield(self._start())

    async def aclose(self) -> None:
        """End the pool, also one that is still starting."""
        opening, self._opening = self._opening, None
        if opening is None:
            return
        if not opening.done():
            opening.cancel()
        with suppress(asyncio.CancelledError, DspexError):
            await (await opening).aclose()

    async def open(self, timeout: float) -> Pool:
        """The pool, which is started if it is not running."""
        opening, scope = self._start(), asyncio.timeout(timeout)
        try:
            if opening.done():
                return opening.result()
            async with scope:
                # Others may be waiting for the same start, so a caller that goes away does not end it.
                return await asyncio.shield(opening)
        except DspexError as error:
            # To each caller its own: one that many raise gathers their frames, and the start holds it.
            raise from_dict(error.to_dict()) from None
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise DeadlineExceeded(
                f"the call's {timeout:g} s ran out while {self.name} was starting",
                hint="call `runtime.warmup()` before there is traffic",
                retryable=True,
                timeout=timeout,
                stage="pool-start",
            ) from without_frames(error)
        finally:
            del opening, scope  # they know tasks, which hold their errors, which hold this frame

    def _start(self) -> asyncio.Task[Pool]:
        # A start that failed is forgotten, so that the next call tries again.
        if self._opening is None or (self._opening.done() and _failed(self._opening)):
            self._opening = asyncio.create_task(self._started())
        return self._opening

    async def _started(self) -> Pool:
        from dspex.pool import Pool  # a runtime whose pools never start does without all of that

        pool = Pool(self.spec, lm=self._lm_settings(), on_event=tell_of_pool)
        await pool.start()
        theirs = pool.versions.get("dspy")  # a worker in another language has none
        if theirs is not None and self._dialect is not None and dialects.dialect_of(theirs) != self._dialect:
            dialects.warn_mixed(self.name, theirs, self._dialect)
        return pool


def _functions_of(operation: AnyOperation) -> Mapping[str, Callable[..., Any]] | None:
    """The functions of the service that a call brings."""
    from dspex.router import ModuleOperation, OptimizeOperation  # as in `_started`

    return operation.functions if isinstance(operation, ModuleOperation | OptimizeOperation) else None


def _failed(task: asyncio.Task[Any]) -> bool:
    return task.cancelled() or task.exception() is not None


def not_for_workers(lm: Any, hint: str) -> ConfigError:
    """The error for a language model that no worker can ask."""
    return ConfigError(
        f"{type(lm).__name__} lives in this process and cannot serve workers",
        code="lm-not-for-workers",
        hint=hint,
    )
