"""A call of a module, and the work of an optimizer, as a worker is asked for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dspex import dialects
from dspex._settings import of_call
from dspex.prediction import Completions, Prediction
from dspex.protocol.requests import CustomValues, ModuleRequest
from dspex.protocol.values import not_encodable, values_to_wire
from dspex.runtime._pool_request import AnswerReader, types_of

if TYPE_CHECKING:
    from dspex.adapters import Adapter
    from dspex.protocol.optimization import OptimizeRequest
    from dspex.router import ModuleOperation, OptimizeOperation
    from dspex.signature import Signature

__all__ = ["prepare_module", "prepare_optimization"]


def prepare_module(
    operation: ModuleOperation,
    adapter: Adapter,
    dialect: str | None,
    *,
    native_lm: bool = True,
    lm: Mapping[str, Any] | None = None,
    extraction_lm: Mapping[str, Any] | None = None,
) -> tuple[ModuleRequest, AnswerReader]:
    """The request for a module's call, and what reads its answer; for the arguments see `prepare`.

    Values of the signature's custom types cross and are made again there, as in a `Predict`. Other inputs
    are what the wire carries; predictions go as mappings.

    Raises:
        InputError: If an input of the signature holds a marker where that is refused.
        WireError: If a value cannot cross (`not-encodable`).
        ConfigError: If a setting cannot be sent to a worker.
    """
    inputs = {name: _plain(value) for name, value in operation.inputs.items()}
    custom: dict[str, Any] = {}
    outputs: Mapping[str, Any] = {}
    if operation.signature is not None:
        types = types_of(operation.signature)
        given = {name: value for name, value in operation.inputs.items() if name in types.inputs}
        wired = values_to_wire(given, types.inputs)
        for name, reason in wired.left.items():
            raise not_encodable(name, given[name], reason)
        inputs |= wired.values
        outputs = types.custom_outputs
        custom = {"inputs": wired.custom, "outputs": list(outputs)}
        _check_markers(operation.signature, given, adapter, dialect)
    request = replace(
        operation.module,
        inputs=inputs,
        positional=[_plain(value) for value in operation.args],
        custom=CustomValues(**custom) if any(custom.values()) else None,
        config=of_call(operation.config, native=native_lm),
        lm=lm or {},
        adapter=adapter.layout,
        parsing=adapter.parsing,
        extraction_lm=extraction_lm or {},
    )
    return request, AnswerReader(outputs, None)


def prepare_optimization(
    operation: OptimizeOperation,
    adapter: Adapter,
    models: Mapping[str, Mapping[str, Any]],
    *,
    native_lm: bool = True,
    lm: Mapping[str, Any] | None = None,
    extraction_lm: Mapping[str, Any] | None = None,
) -> tuple[OptimizeRequest, AnswerReader]:
    """The request for an optimizer's work; for the arguments see `prepare`.

    Args:
        operation: What is to be done.
        adapter: That of all prompts in it.
        models: Settings of the models of its own, over the pool's.
        native_lm: Whether the native side can ask the LM too.
        lm: Settings of the program's model.
        extraction_lm: Settings of a second model.

    Raises:
        ConfigError: If a setting cannot be sent to a worker.
    """
    program = replace(
        operation.request.program,
        config=of_call(operation.config, native=native_lm),
        lm=lm or {},
        adapter=adapter.layout,
        parsing=adapter.parsing,
        extraction_lm=extraction_lm or {},
    )
    return replace(operation.request, program=program, models=models), AnswerReader({}, None)


def _check_markers(
    signature: Signature, given: Mapping[str, Any], adapter: Adapter, dialect: str | None
) -> None:
    """Look at the inputs by the adapter's policy for markers.

    DSPy's prompts escape nothing: where that is the policy, a value that needs it is refused.
    """
    if adapter.refusal() is not None or adapter.markers == "dspy":
        return
    if adapter.markers == "escape":
        adapter = type(adapter)(parsing=adapter.parsing, markers="reject", dialect=adapter.dialect)
    adapter.compile(signature, adapter.dialect or dialect or dialects.KNOWN[-1]).check(given, ())


def _plain(value: Any) -> Any:
    """A value without predictions and examples, dspex's or DSPy's."""
    if isinstance(value, Completions):
        return [dict(row) for row in value]
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    if isinstance(value, Prediction):
        return value.to_dict()
    to_dict = getattr(value, "toDict", None)
    return value if to_dict is None else to_dict()
