"""The two kinds of target: this process, and a pool of DSPy workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from dspex import dialects
from dspex._core import plain_records
from dspex._engine.plain import foreign_of, not_encodable, pack, to_plain, unpack
from dspex._engine.unions import bars_of
from dspex._release import released
from dspex._settings import of_call
from dspex._timeouts import without_frames
from dspex.adapters import TwoStepAdapter
from dspex.errors import DeadlineExceeded, DspexError, LMResponseError, ReplyError, from_dict
from dspex.lm import LMRequest
from dspex.prediction import Prediction, Repair
from dspex.protocol.events import prediction_of

if TYPE_CHECKING:
    from dspex._core import Plan
    from dspex._engine.plain import Packed
    from dspex.adapters import Adapter
    from dspex.lm import LanguageModel
    from dspex.pool import Pool, PoolSpec
    from dspex.router import Operation
    from dspex.signature import Field, Signature

__all__ = ["NativeTarget", "PoolTarget", "refusal_of"]

LOW_TEMPERATURE = 0.15
SAMPLING_TEMPERATURE = 0.7
SHORTEST_SECONDS = 0.001
"""What a call is given whose time ran out on the way: enough for the pool to say so in its own words."""


_WITHOUT_TEXT: Final = frozenset({"lm-no-choices", "lm-no-content", "lm-refusal"})
"""Codes of answers in which there is nothing to read."""


class NativeTarget:
    """Renders the prompt and reads the reply in Rust, and asks the LM from this process.

    Args:
        lm: The language model.
        adapter: Lays out prompts and reads replies, where a call brings none of its own.
        dialect: The version of DSPy whose prompts are written, or None where the installed one is not known.
    """

    name = "native"
    side: Literal["native", "python"] = "native"

    def __init__(self, lm: LanguageModel, adapter: Adapter, dialect: str | None) -> None:
        self._lm = lm
        self._lm_refusal = refusal_of(lm)
        self._adapter = adapter
        self._dialect = dialect

    def unable(self, operation: Operation) -> DspexError | None:
        """Why the operation cannot run here: only DSPy has its model, its adapter, or its prompts."""
        if self._lm_refusal is not None:
            return self._lm_refusal
        adapter = operation.adapter or self._adapter
        if self._dialect is None and adapter.dialect is None:
            return adapter.refusal() or dialects.unknown_dspy()
        return adapter.refusal()

    async def run(self, operation: Operation, timeout: float) -> Prediction:
        """Run the operation here; see `dspex.router.Target.run`."""
        begun = time.perf_counter()
        config = of_call(operation.config)
        plan = _adapter(operation, self._adapter).compile(operation.signature, self._dialect)
        messages = plan.render(operation.inputs, operation.demos)
        rendered = time.perf_counter()
        settings = sampling(config, getattr(self._lm, "settings", {}))
        left = timeout - (rendered - begun)
        try:
            response = await self._lm.complete(LMRequest(messages, settings, left))
        except LMResponseError as error:
            if error.code in _WITHOUT_TEXT:
                # To the caller it is the same as an empty text; a worker could not tell them apart.
                raise ReplyError.empty(error.message.partition("completion: ")[2]) from error
            raise
        answered = time.perf_counter()
        rows: list[Mapping[str, Any]] = []
        repairs: list[Repair] = []
        for text in response.texts:
            if not text:
                raise ReplyError.empty()
            fields, done = _read(plan, text)
            rows.append(fields)
            repairs += done
        parsed = time.perf_counter()
        return Prediction(
            rows,
            usage=response.usage,
            repairs=repairs,
            timings={
                "render": rendered - begun,
                "lm": answered - rendered,
                "parse": parsed - answered,
                "total": parsed - begun,
            },
        )


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

    def unable(self, operation: Operation) -> DspexError | None:
        """None: real DSPy runs everything."""
        return None

    async def run(self, operation: Operation, timeout: float) -> Prediction:
        """Run the operation in a worker; see `dspex.router.Target.run`."""
        begun = time.perf_counter()
        adapter = _adapter(operation, self._adapter)
        request = _Request.of(operation, adapter, self._dialect, native_lm=self._native_lm)
        payload = request.payload
        if isinstance(adapter, TwoStepAdapter) and adapter.extraction_lm is not None:
            # Over the pool's settings in the worker, of which it wants none.
            none = dict.fromkeys(self._lm_settings())
            payload["extraction_lm"] = {**none, **adapter.extraction_lm.settings_for_worker()}
        pool = await self._open(timeout)
        left = timeout - (time.perf_counter() - begun)
        left = max(left, SHORTEST_SECONDS)
        answer = await pool.call("predict", payload, timeout=left, idempotent=operation.idempotent)
        return prediction_of(answer, request.rows(answer), total=time.perf_counter() - begun)

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


def refusal_of(part: Any) -> DspexError | None:
    """Why nothing with this LM or adapter can run natively; None where it can, or does not say."""
    refusal = getattr(part, "refusal", None)
    why: DspexError | None = None if refusal is None else refusal()
    return why


def _failed(task: asyncio.Task[Any]) -> bool:
    return task.cancelled() or task.exception() is not None


def sampling(config: Mapping[str, Any], lm_settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of one LM call, by the rule of `dspy.Predict`.

    Several generations at a temperature of nearly nothing would all be the same, so DSPy raises an unset
    temperature, or one of 0.15 and below, to 0.7 when more than one is asked for.

    Args:
        config: The call's settings.
        lm_settings: The LM's own, which the call's override.
    """
    settings = dict(config)
    temperature = config.get("temperature") or lm_settings.get("temperature")
    generations = config.get("n") or lm_settings.get("n") or lm_settings.get("num_generations") or 1
    if generations > 1 and (temperature is None or temperature <= LOW_TEMPERATURE):
        settings["temperature"] = SAMPLING_TEMPERATURE
    return settings


def _adapter(operation: Operation, default: Adapter) -> Adapter:
    """The adapter of a call: its own or the target's, with the call's way of reading."""
    adapter = operation.adapter or default
    return adapter if operation.parsing is None else adapter.with_parsing(operation.parsing)


class _Request(NamedTuple):
    """A call as a worker is asked for it, and how its answer is read.

    Attributes:
        payload: What the worker gets.
        outputs: The outputs of types that the wire does not carry, with their types.
        reader: Reads them from the replies; None where only DSPy reads those, which then sends plain data.
    """

    payload: dict[str, Any]
    outputs: Mapping[str, Any]
    reader: Plan | None

    @classmethod
    def of(
        cls, operation: Operation, adapter: Adapter, dialect: str | None, *, native_lm: bool = True
    ) -> _Request:
        """The request for an operation.

        Raises:
            InputError: If a value cannot be written into a prompt, or holds a marker where that is refused.
            WireError: If a value cannot cross and the prompt cannot be laid out here (`not-encodable`).
            ConfigError: If a setting, or a type of the signature, is nothing a worker can be told.
        """
        signature = operation.signature
        config = of_call(operation.config, native=native_lm)
        known = _known_of(signature)
        inputs = pack(operation.inputs, known.inputs)
        examples = [*operation.demos]
        carried = plain_records(examples, known.types)
        demos = [pack(demo, known.types) for demo in examples] if carried is None else []
        plan, messages = _laid_out(operation, adapter, dialect, [inputs, *demos])
        payload = _payload(signature, known, adapter)
        payload |= {"config": config, "inputs": {}, "demos": []}
        typed: dict[str, Any] = {}
        if messages is not None:
            payload["messages"] = messages
        else:
            payload["inputs"] = inputs.values
            payload["demos"] = [demo.values for demo in demos] if carried is None else carried
            if inputs.typed or any(demo.typed for demo in demos):
                of_demos = [demo.typed for demo in demos] if carried is None else [[] for _ in carried]
                typed = {"inputs": inputs.typed, "demos": of_demos}
        outputs = known.foreign_outputs
        if outputs and plan is not None:
            payload["replies"] = list(outputs)
        elif outputs:
            typed["outputs"] = list(outputs)
        if typed:
            payload["typed"] = typed
        return cls(payload, outputs, plan)

    def rows(self, answer: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The fields of each completion.

        Raises:
            ReplyError: If an output is not what the reply says to the worker's DSPy alone.
        """
        rows: list[dict[str, Any]] = answer["completions"]
        if not self.outputs:
            return rows
        if self.reader is not None:
            return [_read(self.reader, reply)[0] for reply in answer["replies"]]
        for row in rows:
            for name, kind in self.outputs.items():
                if name in row:
                    row[name] = _unpacked(name, row[name], kind)
        return rows


def _read(plan: Plan, reply: str) -> tuple[dict[str, Any], list[Repair]]:
    try:
        return plan.read(reply)
    except DspexError:
        raise
    except Exception as error:  # DSPy 3.4 lets through what a validator raises
        raise ReplyError.raised(error, reply) from error


def _laid_out(
    operation: Operation, adapter: Adapter, dialect: str | None, packed: list[Packed]
) -> tuple[Plan | None, list[dict[str, Any]] | None]:
    """The plan that reads what the worker's DSPy reads, and the messages, where that DSPy is to make none.

    It makes none where a value cannot cross to it, or where markers are escaped, which it does not know. All
    other values are looked at here, by the code that does it natively: the log and the refusals are this
    process's.
    """
    left = next(((at, *item) for at, values in enumerate(packed) for item in values.left.items()), None)
    if adapter.refusal() is not None:  # of DSPy's alone
        if left is not None:
            raise _not_encodable(operation, *left)
        return None, None
    known = adapter.dialect or dialect
    if known is None:
        # DSPy is one whose prompts nobody knows here; what is refused in a value is the same in all of them.
        if left is not None:
            raise _not_encodable(operation, *left)
        if adapter.markers == "escape":
            raise dialects.unknown_dspy()
        adapter.compile(operation.signature, dialects.KNOWN[-1]).check(operation.inputs, operation.demos)
        return None, None
    plan = adapter.compile(operation.signature, known)
    if left is not None or adapter.markers == "escape":
        return plan, plan.render(operation.inputs, operation.demos)
    plan.check(operation.inputs, operation.demos)
    return plan, None


def _not_encodable(operation: Operation, at: int, name: str, reason: str) -> DspexError:
    values = operation.inputs if at == 0 else operation.demos[at - 1]
    return not_encodable(name, values[name], reason)


def _unpacked(name: str, plain: Any, kind: Any) -> Any:
    try:
        return unpack(plain, kind)
    except Exception as error:  # a validator of the user's may raise anything
        raise ReplyError(
            f"the value of `{name}` cannot be made again from what the worker sent: {error}",
            code="reply-field-value",
            hint='use an adapter that reads replies natively: "chat", "json" or "xml"',
            reply="",
            fields=[],
            field=name,
        ) from error


class _Known(NamedTuple):
    """What each request over a signature needs of it.

    Attributes:
        types: The types of the fields.
        inputs: Those of the inputs.
        foreign_outputs: Those of the outputs whose values the wire does not carry as they are.
        defaults: The outputs that have a default value.
        payload: What a worker is told of the signature, its defaults left out: those may be new in each call.
    """

    types: dict[str, Any]
    inputs: dict[str, Any]
    foreign_outputs: dict[str, Any]
    defaults: list[Field]
    payload: dict[str, Any]


@released
@lru_cache(maxsize=1024)
def _known_of(signature: Signature) -> _Known:
    """See `foreign_of` for errors."""
    foreign = foreign_of(signature)
    fields, outputs = signature.fields, signature.output_fields
    payload: dict[str, Any] = {
        "signature": signature.text,
        "instructions": signature.instructions,
        "fields": {name: texts for name, field in fields.items() if (texts := _texts(field))},
    }
    if foreign.paths:
        payload["types"] = dict(foreign.paths)
    if bars := bars_of(signature):
        payload["bars"] = bars
    types = {name: field.annotation for name, field in fields.items()}
    return _Known(
        types=types,
        inputs={name: types[name] for name in signature.input_fields},
        foreign_outputs={name: kind for name, kind in foreign.fields.items() if name in outputs},
        defaults=[field for field in outputs.values() if field.has_default],
        payload=payload,
    )


def _payload(signature: Signature, known: _Known, adapter: Adapter) -> dict[str, Any]:
    """What a worker is told of the signature and of the adapter."""
    payload: dict[str, Any] = {
        **known.payload,
        "adapter": adapter.layout,
        "parsing": adapter.parsing,
        "validated": True,
    }
    if known.defaults:
        payload["defaults"] = {field.name: to_plain(field.get_default()) for field in known.defaults}
    return payload


def _texts(field: Field) -> dict[str, str]:
    """What the prompt says of a field beyond its name and type."""
    texts = {} if field.desc == f"${{{field.name}}}" else {"desc": field.desc}
    return texts if field.constraints is None else {**texts, "constraints": field.constraints}
