"""`Program`: a module that does with its parts what data says, in the place of a `forward` in Python.

The data is straight: a list of calls, each with its inputs, and what the program returns. An input of a call
is an input of the program, a field of an earlier answer, a constant, or a list or dict of these. There are no
conditions, no loops and no operations on values, so nothing in a file can do more than ask the language model
in some order.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dspex.compiled._document import (
    AnswerValue,
    ConstantValue,
    Expression,
    FlowPart,
    InputValue,
    ListValue,
    StepPart,
)
from dspex.errors import InputError
from dspex.modules import ChainOfThought, Module, MultiChainComparison, Predict
from dspex.prediction import Prediction

if TYPE_CHECKING:
    from dspex.signature import Signature

__all__ = ["Program", "flow_problems", "signature_of"]


class Program(Module):
    """A program that was exported, without its class.

    Its parts are attributes under their names, so that paths, state and streams are as those of the program
    that was exported. It is made by `dspex.load`.
    """

    def __init__(self, name: str, parts: dict[str, Any], flow: FlowPart) -> None:
        for key, part in parts.items():
            setattr(self, key, part)
        self._name = name
        self._flow = flow

    @property
    def input_types(self) -> dict[str, Any]:
        """The inputs with the types of the fields that they are first handed to; `Any` where that is none."""
        types: dict[str, Any] = {each.name: Any for each in self._flow.inputs}
        for step in reversed(self._flow.steps):
            signature = signature_of(self._part(step))
            for name, value in step.inputs.items():
                if isinstance(value, InputValue) and signature is not None and name in signature.fields:
                    types[value.name] = signature.fields[name].annotation
        return types

    def forward(self, /, *args: Any, **inputs: Any) -> Any:
        """Call the parts in their order.

        Args:
            *args: Inputs without their names, as a `forward` in Python takes them.
            **inputs: Inputs by name.

        Raises:
            InputError: If inputs are missing or unknown (`input`).
            DspexError: Whatever a call of a part raised.
        """
        values = _Values(self._given(args, inputs), [])
        for step in self._flow.steps:
            values.answers.append(self._part(step)(*values.all(step.args), **values.named(step.inputs)))
        return values.of(self._flow.output)

    async def aforward(self, /, *args: Any, **inputs: Any) -> Any:
        """The awaitable twin of `forward`."""
        values = _Values(self._given(args, inputs), [])
        for step in self._flow.steps:
            call = self._part(step).acall(*values.all(step.args), **values.named(step.inputs))
            values.answers.append(await call)
        return values.of(self._flow.output)

    def _part(self, step: StepPart) -> Any:
        name, *keys = step.call
        part = getattr(self, str(name))
        for key in keys:
            part = getattr(part, str(key)) if isinstance(part, Module) else part[key]
        return part

    def _given(self, args: Sequence[Any], inputs: dict[str, Any]) -> dict[str, Any]:
        known = {each.name: each for each in self._flow.inputs}
        problems = [(name, "it is not an input of the program") for name in inputs if name not in known]
        if len(args) > len(known):
            problems.append(("", f"{len(args)} inputs came without names, and there are {len(known)}"))
        given = dict(zip(known, args, strict=False))
        problems += [(name, "it was given twice") for name in inputs if name in given]
        given |= inputs
        for each in self._flow.inputs:
            if each.name in given:
                continue
            if each.default is None:
                problems.append((each.name, "it is missing"))
            else:
                given[each.name] = _Values({}, []).of(each.default)
        if problems:
            raise InputError(
                f"the inputs do not fit {self._name}:\n"
                + "\n".join(f"  {name}: {text}" if name else f"  {text}" for name, text in problems),
                hint=f"the inputs are: {', '.join(known)}",
                problems=problems,
            )
        return given

    def __repr__(self) -> str:
        return f"<{self._name}>\n{super().__repr__()}"


class _Values(NamedTuple):
    """What a run has so far."""

    inputs: dict[str, Any]
    answers: list[Any]

    def all(self, expressions: list[Expression]) -> list[Any]:
        return [self.of(each) for each in expressions]

    def named(self, expressions: dict[str, Expression]) -> dict[str, Any]:
        return {name: self.of(each) for name, each in expressions.items()}

    def of(self, what: Expression) -> Any:
        if isinstance(what, InputValue):
            return self.inputs[what.name]
        if isinstance(what, AnswerValue):
            answer = self.answers[what.step]
            if what.field is not None:
                return answer[what.field]
            return answer.completions if what.part == "completions" else answer
        if isinstance(what, ConstantValue):
            return copy.deepcopy(what.value)
        if isinstance(what, ListValue):
            items = self.all(what.items)
            return tuple(items) if what.kind == "tuple" else items
        fields = self.named(what.items)
        return Prediction(fields) if what.kind == "prediction" else fields


def flow_problems(flow: FlowPart) -> list[str]:
    """What is wrong in a flow by itself: a name that is no input, an answer of a later step."""
    names = Counter(each.name for each in flow.inputs)
    problems = [f"inputs: {name!r} stands twice" for name, count in names.items() if count > 1]
    for each in flow.inputs:
        if each.default is not None:  # made of constants alone
            problems += _unknown(each.default, f"inputs.{each.name}", {}, 0)
    for place, step in enumerate(flow.steps):
        for value in (*step.args, *step.inputs.values()):
            problems += _unknown(value, f"steps[{place}]", names, place)
    problems += _unknown(flow.output, "output", names, len(flow.steps))
    return problems


def _unknown(what: Expression, at: str, names: Mapping[str, int], steps: int) -> Iterator[str]:
    """What an expression speaks of and has not: only these inputs, and the answers of so many steps."""
    if isinstance(what, InputValue):
        if what.name not in names:
            yield f"{at}: there is no input {what.name!r}"
    elif isinstance(what, AnswerValue):
        if what.step >= steps:
            yield f"{at}: step {what.step} has not been run by then"
    elif not isinstance(what, ConstantValue):
        inside = what.items if isinstance(what, ListValue) else what.items.values()
        for each in inside:
            yield from _unknown(each, at, names, steps)


def signature_of(module: Any) -> Signature | None:
    """The signature of a module that is, or is around, a predictor."""
    inner = module.predict if isinstance(module, ChainOfThought | MultiChainComparison) else module
    return inner.signature if isinstance(inner, Predict) else None
