"""`ChainOfThought`: one LM call that reasons before it answers."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Never, Self

from dspex.adapters import AdapterLike, Parsing
from dspex.modules._arguments import OWN, check_names, stream_fields_of
from dspex.modules._module import Module
from dspex.modules._predict import Predict
from dspex.prediction import Prediction
from dspex.router import Dispatcher, RouteName
from dspex.signature import Signature, SignatureLike, Validation

if TYPE_CHECKING:
    from typing import Unpack

    from pydantic.fields import FieldInfo

    from dspex._request_settings import RequestSettings
    from dspex.lm import LanguageModel

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
            **config,
        )

    def __call__(self, /, *args: Never, **inputs: Any) -> Prediction:
        """Run the call and wait for its prediction; see `Predict.__call__`."""
        return self.predict(*args, **inputs)

    async def acall(self, /, *args: Never, **inputs: Any) -> Prediction:
        """The call, awaited; see `Predict.__call__`."""
        return await self.predict.acall(*args, **inputs)

    def with_options(
        self,
        *,
        route: RouteName | None = None,
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
            route=route, timeout=timeout, demos=demos, config=config, lm=lm, idempotent=idempotent
        )
        return twin

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.predict.signature.text!r})"
