"""An operation as a worker is asked for it, and how its answer is read."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from dspex import dialects
from dspex._core import plain_records
from dspex._release import released
from dspex._settings import of_call
from dspex.errors import DspexError, ReplyError
from dspex.protocol.requests import CustomValues, Message, ModuleAnswer, PredictRequest
from dspex.protocol.signature_form import SignatureForm
from dspex.protocol.values import WireValues, custom_fields, from_wire, not_encodable, values_to_wire
from dspex.runtime._replies import read_reply

if TYPE_CHECKING:
    from dspex._core import Plan
    from dspex.adapters import Adapter
    from dspex.router import Operation
    from dspex.signature import Signature

__all__ = ["AnswerReader", "prepare", "types_of"]


class AnswerReader(NamedTuple):
    """Reads a worker's answer.

    Attributes:
        outputs: The outputs of custom types, with their types.
        plan: Reads them from the replies; None where only DSPy reads those, which then sends wire values.
    """

    outputs: Mapping[str, Any]
    plan: Plan | None

    def rows(self, answer: ModuleAnswer) -> list[dict[str, Any]]:
        """The fields of each completion.

        Raises:
            ReplyError: If an output is not what the reply says to the worker's DSPy alone.
        """
        rows = answer["completions"]
        if not self.outputs:
            return rows
        if self.plan is not None:
            return [read_reply(self.plan, reply)[0] for reply in answer["replies"]]
        for row in rows:
            for name, kind in self.outputs.items():
                if name in row:
                    row[name] = _made_again(name, row[name], kind)
        return rows


def prepare(
    operation: Operation,
    adapter: Adapter,
    dialect: str | None,
    *,
    native_lm: bool = True,
    lm: Mapping[str, Any] | None = None,
    extraction_lm: Mapping[str, Any] | None = None,
) -> tuple[PredictRequest, AnswerReader]:
    """The request for an operation, and what reads its answer.

    Args:
        operation: What is to be run.
        adapter: The call's.
        dialect: The version of DSPy whose prompts the native side writes, or None if it writes none.
        native_lm: Whether the native side can ask the LM too; then both take the same settings.
        lm: Settings of a model of the call's own, over the pool's.
        extraction_lm: Settings of a second model, for an adapter that has one.

    Raises:
        InputError: If a value cannot be written into a prompt, or holds a marker where that is refused.
        WireError: If a value cannot cross and the prompt cannot be laid out here (`not-encodable`).
        ConfigError: If a setting, or a type of the signature, cannot be sent to a worker.
    """
    config = of_call(operation.config, native=native_lm)
    types = types_of(operation.signature)
    form = SignatureForm.of(operation.signature)
    inputs = values_to_wire(operation.inputs, types.inputs)
    examples = [*operation.demos]
    carried = plain_records(examples, types.fields)
    made = [values_to_wire(demo, types.fields) for demo in examples] if carried is None else []
    plan, messages = _laid_out(operation, adapter, dialect, [inputs, *made])
    custom: dict[str, Any] = {}
    if messages is None and (inputs.custom or any(demo.custom for demo in made)):
        of_demos = [demo.custom for demo in made] if carried is None else [[] for _ in carried]
        custom = {"inputs": inputs.custom, "demos": of_demos}
    outputs = types.custom_outputs
    if outputs and plan is None:
        custom["outputs"] = list(outputs)
    demos = carried if carried is not None else [demo.values for demo in made]
    request = PredictRequest(
        signature=form,
        inputs=inputs.values if messages is None else {},
        demos=demos if messages is None else [],
        messages=cast("list[Message] | None", messages),
        custom=CustomValues(**custom) if custom else None,
        raw_outputs=list(outputs) if plan is not None else (),
        config=config,
        lm=lm or {},
        adapter=adapter.layout,
        parsing=adapter.parsing,
        extraction_lm=extraction_lm or {},
        validated=True,
    )
    return request, AnswerReader(outputs, plan)


class Types(NamedTuple):
    """The types of a signature's fields, of its inputs, and of those of its outputs that are custom types."""

    fields: dict[str, Any]
    inputs: dict[str, Any]
    custom_outputs: dict[str, Any]


@released
@lru_cache(maxsize=1024)
def types_of(signature: Signature) -> Types:
    """The types of a signature's fields."""
    fields = {name: field.annotation for name, field in signature.fields.items()}
    outputs = signature.output_fields
    return Types(
        fields,
        {name: fields[name] for name in signature.input_fields},
        {name: kind for name, kind in custom_fields(signature).items() if name in outputs},
    )


def _laid_out(
    operation: Operation, adapter: Adapter, dialect: str | None, wired: list[WireValues]
) -> tuple[Plan | None, list[dict[str, Any]] | None]:
    """The plan that reads what the worker's DSPy reads, and the messages, where that DSPy is to make none.

    It makes none where a value cannot cross to it, or where markers are escaped, which it does not know. All
    other values are looked at here, by the code that does it natively: the log and the refusals are this
    process's.
    """
    left = next(((at, *item) for at, values in enumerate(wired) for item in values.left.items()), None)
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


def _made_again(name: str, wire: Any, kind: Any) -> Any:
    try:
        return from_wire(wire, kind)
    except Exception as error:  # a validator of the user's may raise anything
        raise ReplyError(
            f"the value of `{name}` cannot be made again from what the worker sent: {error}",
            code="reply-field-value",
            hint='use an adapter that reads replies natively: "chat", "json" or "xml"',
            reply="",
            fields=[],
            field=name,
        ) from error
