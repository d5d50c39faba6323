"""`dspy.Predict` for inputs of any name.

DSPy hands inputs on as keyword arguments, in which it looks for its own first: a field `config` or `demos`
would be taken for a setting and lost, `lm` or `signature` used, `self` refused. So the inputs go in DSPy's
settings, whole, and as arguments only those whose names are free: callbacks see these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import dspy

__all__ = ["CALL", "Call", "Predict"]

CALL: Final = "dspex_predict_call"
"""The setting of DSPy that holds the running call."""

_TAKEN: Final = frozenset(
    {"config", "demos", "fn", "instance", "lm", "new_signature", "prediction", "self", "signature"}
)


class Call(NamedTuple):
    """What a predictor is called with.

    Attributes:
        inputs: Values by field.
        config: Settings of the LM.
        demos: Examples, or None for the predictor's own.
        validated: Whether somebody has looked at the inputs. DSPy warns of those that are missing or of
            another type, unless that has been done.
    """

    inputs: Mapping[str, Any]
    config: Mapping[str, Any]
    demos: list[Any] | None
    validated: bool

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments to call a `Predict` with, in a context that has the call in its settings."""
        return {name: value for name, value in self.inputs.items() if name not in _TAKEN}


class Predict(dspy.Predict):  # type: ignore[misc]  # DSPy has no type hints
    """DSPy's own predictor, but for where it finds its inputs."""

    def _forward_preprocess(self, **free: Any) -> Any:
        call: Call = dspy.settings[CALL]
        looked_at = {} if call.validated else free
        signature = self.signature
        for name in self.signature.input_fields:
            if call.validated or name in _TAKEN:
                signature = signature.delete(name)
        options = {} if call.demos is None else {"demos": call.demos}
        lm, config, _, demos, inputs = super()._forward_preprocess(
            signature=signature, config=dict(call.config), **options, **looked_at
        )
        return lm, config, self.signature, demos, {**inputs, **call.inputs}

    # The names before the slash are no names of keywords: an input may have one of them.
    def _forward_postprocess(self, completions: Any, signature: Any, /, **_inputs: Any) -> Any:
        return super()._forward_postprocess(completions, signature)
