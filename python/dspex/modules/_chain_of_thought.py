"""`ChainOfThought`: one LM call that reasons before it answers."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Never, Self

from dspex import _callbacks
from dspex.adapters import AdapterLike, Parsing
from dspex.modules._arguments import OWN, check_names, stream_fields_of
from dspex.modules._module import Module
from dspex.modules._predict import Predict
from dspex.prediction import Prediction
from dspex.router import Dispatcher, Operation, RouteName, Strategy
from dspex.signature import Signature, SignatureLike, Validation

if TYPE_CHECKING:
    from typing import Unpack

    from pydantic.fields import FieldInfo

    from dspex._request_settings import RequestSettings
    from dspex.lm import LanguageModel
    from dspex.router import Call

__all__ = ["ChainOfThought"]


class ChainOfThought(Module):
    """A `Predict` whose first output is `reasoning`, like `dspy.ChainOfThought`.

    The LM writes down its reasons before it answers, and its answer follows from them. As in DSPy it is a
    module around one predictor, its `predict`, which has the whole signature, the demos and the LM.

    Args:
        signature: What goes in and what comes out besides `reasoning`; as for `Predict`.
        rationale_field: The field of the reasoning, `dspex.OutputField(...)` or DSPy's; by default one whose
            description is `${reasoning}`.
        rationale_field_type: Its type; only without a `rationale_field`, which has its own.
        demos: As for `Predict`. A demo may have a `reasoning`.
        lm: As for `Predict`.
        runtime: As for `Predict`.
        validate: As for `Predict`.
        adapter: As for `Predict`.
        parsing: As for `Predict`.
        callbacks: Who hears of the calls of its predictor, as in DSPy. The attribute of that name is for its
            own calls.
        **config: As for `Predict`.

    Raises:
        SignatureError: If the signature or the field cannot be read.
        InputError: If the demos are none.
        ConfigError: If there is no such adapter, no such way of reading, or a setting is a slip.

    Example:
        ```python
        qa = dspex.ChainOfThought("question -> answer")
        prediction = qa(question="Who wrote it?")
        prediction.reasoning, prediction.answer
        ```
    """

    def __init__(
        self,
        signature: SignatureLike,
        rationale_field: FieldInfo | Any = None,
        rationale_field_type: Any = str,
        *,
        demos: Sequence[Mapping[str, Any]] | None = (),
        lm: str | LanguageModel | None = None,
        runtime: Dispatcher | None = None,
        validate: Validation = "strict",
        adapter: AdapterLike | None = None,
        parsing: Parsing | None = None,
        callbacks: Sequence[Any] | None = None,
        **config: Unpack[RequestSettings],
    ) -> None:
        check_names(config, type(self).__name__, OWN | {"rationale_field", "rationale_field_type"})
        if rationale_field is None:
            from dspex.signature import OutputField  # pydantic's, which nothing else needs this early

            rationale_field = OutputField(desc="${reasoning}")
        else:
            rationale_field_type = getattr(rationale_field, "annotation", None)
        self.predict = Predict(
            Signature.of(signature).prepend("reasoning", rationale_field, rationale_field_type),
            demos=demos,
            lm=lm,
            runtime=runtime,
            validate=validate,
            adapter=adapter,
            parsing=parsing,
            callbacks=callbacks,
            **config,
        )

    def __call__(self, /, *args: Never, **inputs: Any) -> Prediction:
        """Run the call and wait for its prediction; see `Predict.__call__`."""
        if _callbacks.given and (heard_by := self._heard_by()):
            return self._heard(heard_by, args, inputs)  # type: ignore[no-any-return]
        return self.predict(*args, **inputs)

    async def acall(self, /, *args: Never, **inputs: Any) -> Prediction:
        """The call, awaited; see `Predict.__call__`."""
        if _callbacks.given and (heard_by := self._heard_by()):
            return await self._heard_awaited(heard_by, args, inputs)  # type: ignore[no-any-return]
        return await self.predict.acall(*args, **inputs)

    _begin_stands_for = acall

    def begin_row(self, inputs: dict[str, Any]) -> Call | None:
        """Begin the call for a batch; see `Predict.begin_row`."""
        return None if _callbacks.given and self._heard_by() else self.predict.begin_row(inputs)

    def operation(self, /, **inputs: Any) -> Operation:
        """What a call would have a runtime do; see `Predict.operation`."""
        return self.predict.operation(**inputs)

    def _unheard(self, args: tuple[Any, ...], inputs: dict[str, Any]) -> Prediction:
        return self.predict(*args, **inputs)

    async def _unheard_awaited(self, args: tuple[Any, ...], inputs: dict[str, Any]) -> Prediction:
        return await self.predict.acall(*args, **inputs)

    def _runs_on(self) -> Dispatcher | None:
        return self.predict._runs_on()

    def _input_names(self) -> Iterable[str] | None:
        return self.predict._input_names()

    def with_options(
        self,
        *,
        route: RouteName | None = None,
        strategy: Strategy | None = None,
        timeout: float | None = None,
        demos: Sequence[Mapping[str, Any]] | None = None,
        config: Mapping[str, Any] | None = None,
        lm: str | LanguageModel | None = None,
        idempotent: bool | None = None,
        stream_fields: Sequence[str] | None = None,
    ) -> Self:
        """A copy of this module whose calls have these options; see `Predict.with_options`."""
        twin = copy.copy(self)
        if stream_fields is not None:
            twin._options = {**self._options, "stream_fields": stream_fields_of(stream_fields)}
        twin.predict = self.predict.with_options(
            route=route,
            strategy=strategy,
            timeout=timeout,
            demos=demos,
            config=config,
            lm=lm,
            idempotent=idempotent,
        )
        return twin

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.predict.signature.text!r})"
