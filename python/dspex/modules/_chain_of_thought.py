"""`ChainOfThought`: one LM call that reasons before it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from dspex.adapters import AdapterLike, Parsing
from dspex.modules._arguments import OWN
from dspex.modules._predict import Predict
from dspex.router import Dispatcher
from dspex.signature import Signature, SignatureLike, Validation

if TYPE_CHECKING:
    from typing import Unpack

    from pydantic.fields import FieldInfo

    from dspex._request_settings import RequestSettings

__all__ = ["ChainOfThought"]


class ChainOfThought(Predict):
    """A `Predict` whose first output is `reasoning`, like `dspy.ChainOfThought`.

    The LM writes down its reasons before it answers, and its answer follows from them.

    Args:
        signature: What goes in and what comes out besides `reasoning`; as for `Predict`.
        rationale_field: The field of the reasoning, `dspex.OutputField(...)` or DSPy's; by default one whose
            description is `${reasoning}`.
        rationale_field_type: Its type; only without a `rationale_field`, which has its own.
        demos: As for `Predict`. A demo may have a `reasoning`.
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

    _own: ClassVar[frozenset[str]] = OWN | {"rationale_field", "rationale_field_type"}

    def __init__(
        self,
        signature: SignatureLike,
        rationale_field: FieldInfo | Any = None,
        rationale_field_type: Any = str,
        *,
        demos: Sequence[Mapping[str, Any]] | None = (),
        runtime: Dispatcher | None = None,
        validate: Validation = "strict",
        adapter: AdapterLike | None = None,
        parsing: Parsing | None = None,
        **config: Unpack[RequestSettings],
    ) -> None:
        if rationale_field is None:
            from dspex.signature import OutputField  # pydantic's, which nothing else needs this early

            rationale_field = OutputField(desc="${reasoning}")
        else:
            rationale_field_type = getattr(rationale_field, "annotation", None)
        super().__init__(
            Signature.of(signature).prepend("reasoning", rationale_field, rationale_field_type),
            demos=demos,
            runtime=runtime,
            validate=validate,
            adapter=adapter,
            parsing=parsing,
            **config,
        )
