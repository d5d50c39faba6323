"""What a `forward` does with the parts of its module, found out by running it with unknown values.

The parts are replaced by recorders, the inputs by `Unknown` objects. A recorder notes the call and returns an
unknown prediction; an unknown hands out fields and may be passed on, alone or in lists and dicts. Whatever
would need its value (a condition, a loop, an operation, a format string) raises an error that names the line,
because the flow that is recorded would be that of one value only.

What Python does not let an object see is found in other ways: a `forward` that asks `is None` is refused by
its byte code; an input with a default is also left out once, and the flow has to be the same; an error of
ours that `forward` caught is raised again.
"""

from __future__ import annotations

import asyncio
import copy
import dis
import inspect
import traceback
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from dspex._threads import start_in_thread
from dspex.compiled._document import (
    AnswerValue,
    ConstantValue,
    Expression,
    FlowPart,
    InputPart,
    InputValue,
    ListValue,
    NamedValues,
    StepPart,
)
from dspex.compiled._flow import signature_of
from dspex.compiled._types import cannot_export
from dspex.errors import ConfigError
from dspex.modules import Module
from dspex.modules._state import SAMPLING
from dspex.prediction import Prediction

__all__ = ["flow_of"]

_SECONDS: Final = 30.0
"""For an `aforward` whose parts answer at once; one that waits for something else is given up then."""

_HINT: Final = (
    "a compiled program only passes values on; save the state of this one (program.save) and load it into "
    "the class, or leave the rest of the work to the caller"
)


def flow_of(at: str, module: Module) -> FlowPart:
    """The flow of a module's `forward`, or of its `aforward`.

    Raises:
        ConfigError: If it does more than pass values on (`program-export`).
    """
    found = [name for name in ("forward", "aforward") if hasattr(module, name)]
    if not found:
        raise cannot_export(at, "it has neither forward nor aforward", "define one")
    flows = [_followed(at, module, name) for name in found]
    if len(flows) == 2 and flows[0] != flows[1]:
        raise cannot_export(at, "its forward and its aforward do different things", _HINT)
    return flows[0]


def _followed(at: str, module: Module, method: str) -> FlowPart:
    function = getattr(module, method)
    _check_code(f"{at}.{method}", function)
    inputs = _inputs(f"{at}.{method}", function)
    flow = _traced(at, module, method, inputs, None)
    for each in inputs:
        if each.default is None:
            continue
        without = _traced(at, module, method, inputs, each.name)
        if without != _filled(flow, each.name, each.default):
            raise cannot_export(
                f"{at}.{method}", f"it does other things when {each.name!r} is left out", _HINT
            )
    return flow


def _check_code(at: str, function: Any) -> None:
    waiting = [getattr(inspect.unwrap(function), "__code__", None)]
    while waiting:
        code = waiting.pop()
        if code is None:
            continue
        waiting += [each for each in code.co_consts if inspect.iscode(each)]  # functions inside it
        for each in dis.get_instructions(code):
            if each.opname == "IS_OP" or each.opname.endswith("_NONE"):
                raise cannot_export(at, f"it asks what a value is ({_line(code, each)})", _HINT)


def _line(code: Any, instruction: dis.Instruction) -> str:
    positions = instruction.positions
    number = None if positions is None else positions.lineno
    return f"{Path(code.co_filename).name}:{number or code.co_firstlineno}"


def _inputs(at: str, function: Any) -> list[InputPart]:
    inputs = []
    for name, each in inspect.signature(function).parameters.items():
        if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
            raise cannot_export(at, f"it takes *{name}, which names no inputs", "name its inputs")
        default = None if each.default is each.empty else _Record(at).expression(each.default)
        inputs.append(InputPart(name=name, default=default))
    return inputs


# -- recording --------------------------------------------------------------------------------------


class _Record:
    """What one run of a `forward` did.

    Attributes:
        at: The method, for errors.
        steps: The calls so far.
        problem: The first thing that cannot be exported; a `forward` may catch what is raised.
    """

    def __init__(self, at: str) -> None:
        self.at = at
        self.steps: list[StepPart] = []
        self.problem: ConfigError | None = None

    def refuse(self, why: str) -> ConfigError:
        problem = cannot_export(self.at, why, _HINT)
        self.problem = self.problem or problem
        return problem

    def expression(self, value: Any) -> Expression:
        """How a value comes about."""
        kind = type(value)
        if kind is Unknown:
            source: Expression = object.__getattribute__(value, "_source")
            return source
        if kind is Prediction or (kind.__name__ == "Prediction" and kind.__module__.startswith("dspy.")):
            return NamedValues(kind="prediction", items=self._named(dict(value.items())))
        if isinstance(value, list | tuple) and kind in (list, tuple) and not _is_constant(value):
            items = [self.expression(each) for each in value]
            return ListValue(kind="tuple" if kind is tuple else "list", items=items)
        if kind is dict and not _is_constant(value):
            return NamedValues(kind="dict", items=self._named(value))
        return self.constant(value)

    def _named(self, values: Mapping[Any, Any]) -> dict[str, Expression]:
        if not all(isinstance(name, str) for name in values):
            raise self.refuse("a key of a dict is no text")
        return {name: self.expression(value) for name, value in values.items()}

    def constant(self, value: Any) -> ConstantValue:
        try:
            return _constant(self.at, value)
        except ConfigError as error:
            self.problem = self.problem or error
            raise


def _is_constant(value: Any) -> bool:
    if type(value) in (list, tuple):
        return type(value) is list and all(map(_is_constant, value))
    if type(value) is dict:
        return all(type(key) is str and _is_constant(item) for key, item in value.items())
    return value is None or type(value) in (str, bool, int, float)


def _constant(at: str, value: Any) -> ConstantValue:
    if not _is_constant(value):
        raise cannot_export(at, f"an object of type {type(value).__name__} is no data", _HINT)
    return ConstantValue(kind="constant", value=copy.deepcopy(value))


def _traced(at: str, module: Module, method: str, inputs: list[InputPart], left_out: str | None) -> FlowPart:
    record = _Record(f"{at}.{method}")
    twin = copy.copy(module)
    for name, value in vars(module).items():
        twin.__dict__[name] = _recorded(record, [name], value)
    given = {
        each.name: Unknown(record, InputValue(kind="input", name=each.name))
        for each in inputs
        if each.name != left_out
    }
    function: Callable[..., Any] = getattr(twin, method)
    try:
        if inspect.iscoroutinefunction(function):
            answer = start_in_thread(lambda: asyncio.run(_in_time(function(**given)))).result()
        else:
            answer = function(**given)
        output = record.expression(answer)
    except Exception as error:  # whatever a user's code raises when it meets an unknown
        if record.problem is not None:
            raise record.problem from None
        if isinstance(error, ConfigError) and error.code == "program-export":
            raise
        raise cannot_export(record.at, f"{type(error).__name__}: {error} ({_where(error)})", _HINT) from error
    if record.problem is not None:  # forward has caught it
        raise record.problem
    return FlowPart(inputs=inputs, steps=record.steps, output=output)


async def _in_time(running: Coroutine[Any, Any, Any]) -> Any:
    async with asyncio.timeout(_SECONDS):
        return await running


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames[-3:]))


def _recorded(record: _Record, way: list[str | int], value: Any) -> Any:
    """The value with every module in it replaced by a recorder."""
    if isinstance(value, Module):
        return _Recorder(record, way, value)
    if type(value) in (list, tuple):
        return type(value)(_recorded(record, [*way, place], item) for place, item in enumerate(value))
    if type(value) is dict:
        return {key: _recorded(record, [*way, key], item) for key, item in value.items()}
    return value


class _Recorder:
    """Stands for a module, and notes how it is called."""

    def __init__(self, record: _Record, way: list[str | int], module: Module) -> None:
        self._record = record
        self._way = way
        self._module = module

    def __call__(self, *args: Any, **inputs: Any) -> Any:
        return self._noted(args, inputs)

    async def acall(self, *args: Any, **inputs: Any) -> Any:
        """Note a call that is awaited."""
        return self._noted(args, inputs)

    def _noted(self, args: tuple[Any, ...], inputs: dict[str, Any]) -> Any:
        record = self._record
        _check_options(record, self._module, inputs)
        step = StepPart(
            call=self._way,
            args=[record.expression(value) for value in args],
            inputs={name: record.expression(value) for name, value in inputs.items()},
        )
        record.steps.append(step)
        return Unknown(record, AnswerValue(kind="answer", step=len(record.steps) - 1))

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        if callable(value) and not isinstance(value, Module):
            raise self._record.refuse(f"it uses .{name} of a module, and only calls are data")
        return _recorded(self._record, [*self._way, name], value)


def _check_options(record: _Record, module: Module, inputs: Mapping[str, Any]) -> None:
    """Refuse options of a call that belong to the service: a model, a route, settings that may be secrets."""
    signature = signature_of(module)
    if signature is None:
        return
    options = {name: value for name, value in inputs.items() if name not in signature.input_fields}
    for name in ("lm", "route", "timeout", "signature"):
        if name in options:
            raise record.refuse(f"it gives a call {name}=..., which is no part of a compiled program")
    if "config" in options and not (type(options["config"]) is dict and options["config"].keys() <= SAMPLING):
        raise record.refuse("it gives a call config=... with more than how a model samples")


class Unknown:
    """A value that is only known when the program runs: an input, a prediction, or a field of one."""

    __slots__ = ("_record", "_source")

    def __init__(self, record: _Record, source: Expression) -> None:
        object.__setattr__(self, "_record", record)
        object.__setattr__(self, "_source", source)

    def __getattribute__(self, name: str) -> Any:
        record, source = _inside(self)
        # `isinstance` asks for the class of what is no instance; an answer would decide a condition.
        if name == "__class__":
            raise record.refuse("it asks for the type of a value")
        if isinstance(source, AnswerValue) and source.field is None and source.part == "prediction":
            if name == "completions":
                return Unknown(record, source.model_copy(update={"part": "completions"}))
            if not name.startswith("_") and name not in _OF_PREDICTIONS:
                return Unknown(record, source.model_copy(update={"field": name}))
        raise record.refuse(f"it uses .{name} of {_named(source)}")

    def __getitem__(self, key: Any) -> Any:
        record, source = _inside(self)
        whole = isinstance(source, AnswerValue) and source.field is None and source.part == "prediction"
        if whole and isinstance(key, str):
            return Unknown(record, source.model_copy(update={"field": key}))
        raise record.refuse(f"it takes a part of {_named(source)}")


_OF_PREDICTIONS: Final = frozenset(
    {"attempts", "repairs", "route", "route_reason", "timings", "usage", "items", "keys", "values", "get"}
    | {"to_dict", "toDict", "get_lm_usage", "set_lm_usage", "from_completions", "with_inputs", "copy"}
)
"""What a prediction has that is none of its fields."""


def _inside(unknown: Unknown) -> tuple[_Record, Any]:
    return object.__getattribute__(unknown, "_record"), object.__getattribute__(unknown, "_source")


def _named(source: Any) -> str:
    if isinstance(source, InputValue):
        return f"the input {source.name!r}"
    field = getattr(source, "field", None)
    return "a prediction" if field is None else f"the field {field!r} of a prediction"


def _refusing(name: str) -> Callable[..., NoReturn]:
    def refuse(self: Unknown, *_args: Any, **_named_args: Any) -> NoReturn:
        record, source = _inside(self)
        raise record.refuse(f"it needs the value of {_named(source)} ({name})")

    return refuse


_OPERATIONS: Final = """
abs add and bool bytes call complex contains delitem divmod enter eq exit float floordiv format ge
gt hash iadd iand ifloordiv ilshift imatmul imod imul index int invert ior ipow irshift isub iter
itruediv ixor le len lshift lt matmul mod mul ne neg next or pos pow radd rand rdivmod repr reversed
rfloordiv rlshift rmatmul rmod rmul ror round rpow rrshift rshift rsub rtruediv rxor setitem setattr
str sub truediv xor aiter await aenter aexit
"""

for _operation in _OPERATIONS.split():
    setattr(Unknown, f"__{_operation}__", _refusing(f"__{_operation}__"))


def _filled(flow: FlowPart, name: str, default: Expression) -> FlowPart:
    """The flow with the default in the place of an input."""

    def fill(what: Expression) -> Expression:
        if isinstance(what, InputValue):
            return default if what.name == name else what
        if isinstance(what, ListValue):
            items = [fill(each) for each in what.items]
            plain = [each.value for each in items if isinstance(each, ConstantValue)]
            if what.kind == "list" and len(plain) == len(items):
                return ConstantValue(kind="constant", value=plain)
            return ListValue(kind=what.kind, items=items)
        if isinstance(what, NamedValues):
            named = {key: fill(each) for key, each in what.items.items()}
            values = {key: each.value for key, each in named.items() if isinstance(each, ConstantValue)}
            if what.kind == "dict" and len(values) == len(named):
                return ConstantValue(kind="constant", value=values)
            return NamedValues(kind=what.kind, items=named)
        return what

    steps = [
        StepPart(
            call=step.call,
            args=[fill(each) for each in step.args],
            inputs={key: fill(each) for key, each in step.inputs.items()},
        )
        for step in flow.steps
    ]
    return FlowPart(inputs=flow.inputs, steps=steps, output=fill(flow.output))
