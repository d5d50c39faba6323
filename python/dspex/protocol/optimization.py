"""What a service asks of a worker that optimises a program, and how the calls of its metric cross.

::

    the service                                        a worker
    OptimizeRequest                           -->      optimizer.compile(program, trainset=..., ...)
    metric(example, prediction, trace)        <--      each of the optimizer's calls, its arguments packed
    True, 0.5, Prediction(score=..., ...)     -->      what it gave, packed
    progress(score)                           <--      each candidate that has been evaluated
    the state that was found, the usage       <--      the answer

An example goes over once, with the request. A call of the metric names it by its number among the rows, so
that the metric gets the very object that the service was given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Self

from dspex.errors import ConfigError
from dspex.prediction import Prediction
from dspex.protocol.records import read, to_wire
from dspex.protocol.requests import ModuleRequest

__all__ = [
    "PROGRESS",
    "TEACHER",
    "ExampleRow",
    "OptimizeRequest",
    "pack_argument",
    "pack_result",
    "unpack_argument",
    "unpack_result",
]

PROGRESS: Final = "progress"
"""The name of the function of the service that hears of each evaluation's score."""

TEACHER: Final = "teacher"
"""Among the models of a request, that of the teacher; the others are named for arguments of the optimizer."""

_ROW, _FIELDS, _TRACE, _VALUE = "row", "fields", "trace", "value"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleRow:
    """One example: the values of its fields, and which of them are inputs."""

    values: Mapping[str, Any]
    inputs: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizeRequest:
    """Optimise a program.

    Attributes:
        program: What the program is made of; its LM, adapter and parsing are those of the whole work.
        optimizer: What the optimizer is made of.
        teacher: What the teacher is made of, where there is one.
        trainset: The examples to learn from.
        valset: Those to judge candidates by; None leaves that to the optimizer.
        arguments: More arguments for its `compile`.
        custom: The fields of examples that are of custom types by the program's signature; they cross as
            wire values.
        models: Settings of LMs, each over the pool's: for the teacher, and for arguments of the optimizer,
            `"prompt_model"`, or a part of one, `"teacher_settings.lm"`.
    """

    operation: ClassVar[str] = "optimize"
    idempotent: ClassVar[bool] = False

    program: ModuleRequest
    optimizer: ModuleRequest
    trainset: Sequence[ExampleRow]
    valset: Sequence[ExampleRow] | None = None
    teacher: ModuleRequest | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    custom: Sequence[str] = ()
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """The request that has arrived.

        Raises:
            ConfigError: If something is wrong with it (`bad-payload`).
        """
        return read(cls, wire)

    def to_wire(self) -> dict[str, Any]:
        """See `Request.to_wire`."""
        wire = to_wire(self)
        for name in ("program", "optimizer", "teacher"):
            if name in wire:
                wire[name] = getattr(self, name).to_wire()
        return wire

    def with_input_streams(self, names: Sequence[str]) -> Self:
        """Refuse: examples are there as a whole."""
        raise ConfigError(
            "an optimizer has no arguments that could be input streams", code="bad-input-stream"
        )


def pack_argument(
    value: Any, number_of: Callable[[Any], int | None], plain: Callable[[Any], Any]
) -> list[Any]:
    """An argument of a metric, in a worker.

    Args:
        value: It.
        number_of: Gives the number of an example among the rows; None for what is none of them.
        plain: Makes a value one that the wire carries.
    """
    number = number_of(value)
    if number is not None:
        return [_ROW, number]
    if hasattr(value, "toDict"):
        return [_FIELDS, plain(value)]
    if isinstance(value, list) and all(map(_is_step, value)):
        return [
            _TRACE,
            [[getattr(of, "dspex_path", ""), plain(given), plain(gave)] for of, given, gave in value],
        ]
    return [_VALUE, plain(value)]


def _is_step(value: Any) -> bool:
    """Whether a value is what DSPy keeps of a predictor's call: the predictor, its inputs, its prediction."""
    return isinstance(value, tuple) and len(value) == 3 and hasattr(value[2], "toDict")


def unpack_argument(
    packed: Sequence[Any], rows: Sequence[Any], made_again: Callable[[dict[str, Any]], dict[str, Any]]
) -> Any:
    """The argument for the metric, in the service.

    Args:
        packed: What has crossed.
        rows: The examples, training ones first.
        made_again: Makes fields of what crossed for them, where their types are known.
    """
    kind, content = packed
    if kind == _ROW:
        return rows[content]
    if kind == _FIELDS:
        return Prediction(made_again(content))
    if kind == _TRACE:
        return [(path, given, Prediction(gave)) for path, given, gave in content]
    return content


def pack_result(value: Any) -> list[Any]:
    """What a metric gave, in the service: a number, or a prediction with a score and more."""
    to_dict = getattr(value, "toDict", None)
    if to_dict is not None:
        return [_FIELDS, {name: _as_plain(part) for name, part in to_dict().items()}]
    return [_VALUE, _as_plain(value)]


def _as_plain(value: Any) -> Any:
    """A number of numpy's as Python's; anything else as it is."""
    tolist = getattr(value, "tolist", None)
    return value if tolist is None else tolist()


def unpack_result(packed: Sequence[Any], prediction: Callable[..., Any]) -> Any:
    """What the metric gave, in a worker, with DSPy's class for a prediction."""
    kind, content = packed
    return prediction(**content) if kind == _FIELDS else content
