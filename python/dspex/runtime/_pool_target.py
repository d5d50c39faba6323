"""`PoolTarget`: runs operations with real DSPy, in the workers of a pool."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal

from dspex import dialects
from dspex._timeouts import without_frames
from dspex.adapters import TwoStepAdapter
from dspex.errors import ConfigError, DeadlineExceeded, DspexError, from_dict
from dspex.prediction import Prediction
from dspex.protocol.events import prediction_of
from dspex.router import AnyOperation, ModuleOperation, Operation
from dspex.runtime._replies import adapter_of, refusal_of
from dspex.runtime._tool_calls import refusal_of_workers

if TYPE_CHECKING:
    from dspex.adapters import Adapter
    from dspex.pool import Pool, PoolSpec
    from dspex.protocol.requests import ModuleRequest, PredictRequest
    from dspex.router import Sink
    from dspex.runtime._pool_request import AnswerReader

__all__ = ["PoolTarget", "not_for_workers"]

SHORTEST_SECONDS: Final = 0.001
"""What a call is given whose time ran out on the way: enough for the pool to say so in its own words."""


class PoolTarget:
    """Runs the real `dspy.Predict` in a worker of a pool, which starts with the first call.

    Args:
        spec: The pool's settings; None for a pool with nothing but defaults.
        lm_settings: Gives the settings of the workers' LM, key included, when the pool starts.
        adapter: Lays out prompts and reads replies, where a call brings none of its own.
        dialect: The version of DSPy whose prompts the native side writes, or None if it writes none.
        native_lm: Whether the native side can ask the LM too; then both take the same settings.
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
    ) -> None:
        self._spec = spec
        self.name = f"pool:{spec.name if spec is not None else 'general'}"
        self._lm_settings = lm_settings
        self._adapter = adapter
        self._dialect = dialect
        self._native_lm = native_lm
        self._opening: asyncio.Task[Pool] | None = None

    @property
    def spec(self) -> PoolSpec:
        """The pool's settings."""
        if self._spec is None:
            from dspex.pool import PoolSpec  # most runtimes have the default pool, and few ever start it

            self._spec = PoolSpec()
        return self._spec

    def unable(self, operation: AnyOperation) -> DspexError | None:
        """None: real DSPy runs everything."""
        return None

    async def run(self, operation: AnyOperation, timeout: float) -> Prediction:
        """Run the operation in a worker; see `dspex.router.Target.run`."""
        begun = time.perf_counter()
        request, reader = self._request(operation)
        pool = await self._open(timeout)
        left = timeout - (time.perf_counter() - begun)
        left = max(left, SHORTEST_SECONDS)
        sink = operation.sink
        if isinstance(operation, Operation) and sink is not None and sink.fields:
            return await self._streamed(operation, request, reader, pool, sink, left, begun)
        functions = operation.functions if isinstance(operation, ModuleOperation) else None
        answer = await pool.call(
            request, timeout=left, idempotent=operation.idempotent, host_functions=functions
        )
        # What a module gives need not be the outputs of the signature that it was made with.
        signature = operation.signature if isinstance(operation, Operation) else None
        rows = reader.rows(answer)
        return prediction_of(answer, rows, signature, total=time.perf_counter() - begun)

    async def _streamed(
        self,
        operation: Operation,
        request: Any,
        reader: AnswerReader,
        pool: Pool,
        sink: Sink,
        left: float,
        begun: float,
    ) -> Prediction:
        """A call whose reply is told while it comes."""
        from dspex.runtime._pool_stream import PoolStream  # as in `_started`

        telling = PoolStream(sink, operation, left)
        answer = await telling.answer(pool, request, adapter_of(operation, self._adapter), left)
        rows = reader.rows(answer)
        await telling.finish(rows[0] if rows else {})
        total = time.perf_counter() - begun
        prediction = prediction_of(answer, rows, operation.signature, total=total)
        if telling.first_text is not None:
            prediction.timings["first_text"] = telling.first_text - begun
        return prediction

    def _request(self, operation: AnyOperation) -> tuple[PredictRequest | ModuleRequest, AnswerReader]:
        """What the pool is asked for, and what reads its answer."""
        from dspex.runtime._module_request import prepare_module  # as in `_started`
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
        assert isinstance(operation, Operation)  # noqa: S101 - there are two kinds
        return prepare(operation, adapter, self._dialect, native_lm=native_lm, lm=lm, extraction_lm=second)

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

    async def _open(self, timeout: float) -> Pool:
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

        pool = Pool(self.spec, lm=self._lm_settings())
        await pool.start()
        theirs = pool.versions["dspy"]
        if self._dialect is not None and dialects.dialect_of(theirs) != self._dialect:
            dialects.warn_mixed(self.name, theirs, self._dialect)
        return pool


def _failed(task: asyncio.Task[Any]) -> bool:
    return task.cancelled() or task.exception() is not None


def not_for_workers(lm: Any, hint: str) -> ConfigError:
    """The error for a language model that no worker can ask."""
    return ConfigError(
        f"{type(lm).__name__} lives in this process and cannot serve workers",
        code="lm-not-for-workers",
        hint=hint,
    )
