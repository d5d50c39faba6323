"""`MultiChainComparison`: one LM call that compares several attempts and answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dspex._timeouts import shown
from dspex.adapters import AdapterLike, Parsing
from dspex.errors import ConfigError, InputError
from dspex.modules._arguments import OWN, check_names
from dspex.modules._module import Module
from dspex.modules._predict import Predict
from dspex.prediction import Prediction
from dspex.router import Dispatcher
from dspex.signature import Signature, SignatureLike, Validation

if TYPE_CHECKING:
    from dspex.lm import LanguageModel

__all__ = ["MultiChainComparison"]


class MultiChainComparison(Module):
    """Compares several attempts at an answer and gives one of its own, like `dspy.MultiChainComparison`.

    The attempts are completions of a module that reasons first, such as those of
    `ChainOfThought(signature, n=3)`. The prediction has a `rationale` before the signature's own outputs. As
    in DSPy it is a module around one predictor, its `predict`.

    Args:
        signature: What goes in and what comes out besides the attempts; as for `Predict`.
        M: How many attempts there are.
        temperature: The LM's setting of that name; without it the LM would repeat the first attempt.
        demos: As for `Predict`. A demo may have a `rationale`.
        lm: As for `Predict`.
        runtime: As for `Predict`.
        validate: As for `Predict`.
        adapter: As for `Predict`.
        parsing: As for `Predict`.
        callbacks: Who hears of the calls of its predictor, as in DSPy. The attribute of that name is for its
            own calls.
        **config: As for `Predict`.

    Raises:
        SignatureError: If the signature cannot be read.
        InputError: If the demos are none.
        ConfigError: If `M` is no count (`bad-attempts`), or another setting is none.

    Example:
        ```python
        attempts = dspex.ChainOfThought("question -> answer", n=3)(question=question).completions
        dspex.MultiChainComparison("question -> answer", M=3)(attempts, question=question).answer
        ```
    """

    def __init__(
        self,
        signature: SignatureLike,
        M: int = 3,  # noqa: N803 - DSPy's name
        temperature: float | None = 0.7,
        *,
        demos: Sequence[Mapping[str, Any]] | None = (),
        lm: str | LanguageModel | None = None,
        runtime: Dispatcher | None = None,
        validate: Validation = "strict",
        adapter: AdapterLike | None = None,
        parsing: Parsing | None = None,
        callbacks: Sequence[Any] | None = None,
        **config: Any,
    ) -> None:
        check_names(config, type(self).__name__, OWN | {"M", "temperature"})
        if isinstance(M, bool) or not isinstance(M, int) or M < 0:
            raise ConfigError(
                f"M must be a count of attempts, not {shown(M)}", code="bad-attempts", hint="write M=3"
            )
        from dspex.signature import InputField, OutputField  # pydantic's, which nothing else needs this early

        self.M = M
        signature = Signature.of(signature)
        *_, self.last_key = signature.output_fields
        for number in range(1, M + 1):
            name = f"reasoning_attempt_{number}"
            signature = signature.append(name, InputField(desc="${reasoning attempt}"))
            signature = signature.with_updated_fields(name, prefix=f"Student Attempt #{number}:")
        signature = signature.prepend("rationale", OutputField(desc="${corrected reasoning}"))
        signature = signature.with_updated_fields(
            "rationale", prefix="Accurate Reasoning: Thank you everyone. Let's now holistically"
        )
        self.predict = Predict(
            signature,
            demos=demos,
            lm=lm,
            runtime=runtime,
            validate=validate,
            adapter=adapter,
            parsing=parsing,
            callbacks=callbacks,
            temperature=temperature,
            **config,
        )

    def forward(self, completions: Iterable[Mapping[str, Any]], **inputs: Any) -> Prediction:
        """Compare the attempts.

        Args:
            completions: The attempts: mappings, each with a `rationale` or a `reasoning` and with the last
                output field, such as `prediction.completions` or a list of predictions.
            **inputs: The signature's inputs, and options, as for `Predict.__call__`.

        Raises:
            InputError: If there are not `M` attempts, or one lacks a field (`bad-completions`).
            DspexError: What else `Predict.__call__` raises.
        """
        return self.predict(**self._inputs(completions, inputs))

    async def aforward(self, completions: Iterable[Mapping[str, Any]], **inputs: Any) -> Prediction:
        """The awaitable twin of `forward`."""
        return await self.predict.acall(**self._inputs(completions, inputs))

    def _runs_on(self) -> Dispatcher | None:
        return self.predict._runs_on()

    def _inputs(self, completions: Iterable[Mapping[str, Any]], inputs: dict[str, Any]) -> dict[str, Any]:
        attempts = [self._attempt(number, each) for number, each in enumerate(completions, 1)]
        if len(attempts) != self.M:
            raise InputError(
                f"there are {len(attempts)} attempts to compare, and M is {self.M}",
                code="bad-completions",
                hint=f"give {self.M} completions, or make the module with M={len(attempts)}",
            )
        return {f"reasoning_attempt_{number}": text for number, text in enumerate(attempts, 1)} | inputs

    def _attempt(self, number: int, completion: Any) -> str:
        rationale = completion.get("rationale", completion.get("reasoning"))
        if not isinstance(rationale, str) or self.last_key not in completion.keys():  # noqa: SIM118
            missing = self.last_key if isinstance(rationale, str) else "rationale or reasoning"
            raise InputError(
                f"attempt {number} has no {missing}",
                code="bad-completions",
                hint="make the attempts with dspex.ChainOfThought, whose completions have both",
            )
        answer = _first_line(str(completion[self.last_key]))
        return f"«I'm trying to {_first_line(rationale)} I'm not sure but my prediction is {answer}»"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.predict.signature.text!r})"


def _first_line(text: str) -> str:
    return text.strip().split("\n")[0].strip()
