"""One piece of work for an optimizer: what it is given, sorted for the way to a worker, and what comes back.

::

    dspex.program, dspex.remote    what it is made of               its state, put into a copy
    Predict, ChainOfThought        DSPy's class of the same name    its state, loaded into a copy
    a program that runs natively   refused: an optimizer calls the program, and DSPy has none of these

Whatever is wrong with the examples is said before anything is sent.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from dspex._settings import of_call
from dspex.adapters import Adapter, Parsing
from dspex.errors import ConfigError, InputError
from dspex.modules._arguments import lm_of, mapping_of
from dspex.modules._chain_of_thought import ChainOfThought
from dspex.modules._examples import has_fields, input_names, shown_to_metrics
from dspex.modules._metric_calls import MetricCalls, OptimizerProgress
from dspex.modules._module import Module
from dspex.modules._predict import Predict
from dspex.modules._remote import RemoteModule
from dspex.modules._remote_parts import ARGUMENT, RemoteParts, check_plain, inside, parts_of
from dspex.modules._scope import in_scope
from dspex.modules._state import of_remote
from dspex.prediction import Prediction
from dspex.protocol.optimization import PROGRESS, TEACHER, ExampleRow, OptimizeRequest
from dspex.protocol.values import custom_fields, from_wire, to_wire
from dspex.router import Dispatcher, OptimizeOperation, current_dispatcher

if TYPE_CHECKING:
    from dspex.lm import LanguageModel
    from dspex.modules._optimizer import RemoteOptimizer
    from dspex.signature import Signature

__all__ = ["Job", "optimizer_parts"]

P = TypeVar("P", bound=Module)

_REASONING = "reasoning"


def optimizer_parts(
    path: Any, arguments: Mapping[str, Any], imports: Any
) -> tuple[RemoteParts, dict[str, LanguageModel]]:
    """What `dspex.optimizer` was given: what the optimizer is made of, and the models among it.

    Raises:
        ConfigError: If a worker could not make it of these.
    """
    models: dict[str, LanguageModel] = {}
    rest: dict[str, Any] = {}
    for name, value in arguments.items():
        if _is_model(value):
            models[name] = value
        elif isinstance(value, Mapping):  # as `teacher_settings` is
            models |= {f"{name}.{key}": item for key, item in value.items() if _is_model(item)}
            rest[name] = {key: item for key, item in value.items() if not _is_model(item)}
        elif name == "metric" and not isinstance(value, RemoteModule):
            rest[name] = _as_function(value)
        else:
            rest[name] = value
    # Whose calls come back is known here; with which examples, when there are some.
    parts = parts_of(
        path, None, rest, tools=None, imports=imports, state=None, calls=lambda function: function
    )
    return parts, models


def _is_model(value: Any) -> bool:
    return callable(getattr(value, "complete", None)) and hasattr(value, "aclose")


def _as_function(metric: Any) -> Any:
    """A metric that is an object, by what calls it."""
    if not callable(metric):
        raise ConfigError(
            f"a metric is a function, not a {type(metric).__name__}",
            code="module-argument",
            hint="write `def metric(example, prediction, trace=None)`",
        )
    return metric if inspect.isroutine(metric) or isinstance(metric, type | partial) else metric.__call__


class _Program(NamedTuple):
    """A program as an optimizer gets it.

    Attributes:
        parts: What a worker makes it of.
        signature: What its inputs and outputs are, where that is known here.
        lm: Its language model; None for the runtime's.
        config: Settings over the model's.
        adapter: Its adapter; None for the runtime's.
        parsing: Its way of reading; None for the adapter's.
        runtime: Its runtime; None for the current one.
    """

    parts: RemoteParts
    signature: Signature | None
    lm: LanguageModel | None
    config: Mapping[str, Any]
    adapter: Adapter | None
    parsing: Parsing | None
    runtime: Dispatcher | None

    @classmethod
    def of(cls, program: Any) -> _Program:
        """A program of the user's.

        Raises:
            ConfigError: If DSPy has none of its kind (`optimizer-program`).
        """
        if isinstance(program, RemoteModule):
            holder: Any = program
            parts, signature, parsing = program.remote_parts, program.signature, program._parsing
        elif type(program) in (Predict, ChainOfThought):
            holder = predictor = program if isinstance(program, Predict) else program.predict
            parts, signature, parsing = _twin(program, predictor), predictor.signature, predictor.parsing
        else:
            raise _not_dspys(type(program).__name__, isinstance(program, Module))
        own = holder._options.get("lm")
        lm = holder._lm if own is None else lm_of(own)
        config = mapping_of(holder._options.get("config"))
        return cls(parts, signature, lm, config, holder._adapter, parsing, holder._runtime)


def _twin(program: Module, predictor: Predict) -> RemoteParts:
    """What a worker makes DSPy's module of the same name of.

    Raises:
        ConfigError: If DSPy's would be another (`optimizer-program`), or a type cannot be imported there.
    """
    signature, kind, imports = predictor.signature, type(program).__name__, {}
    if isinstance(program, ChainOfThought):
        reasoning = signature.output_fields.get(_REASONING)
        if reasoning is None:
            raise _not_dspys(f"{kind} without a reasoning")
        signature = signature.delete(_REASONING)
        if reasoning.annotation is not str:
            imports["rationale_field_type"] = reasoning.annotation
        made = ChainOfThought(signature, rationale_field_type=reasoning.annotation).predict.signature
        # Its texts come with the state, and nothing else may be different.
        if made.load_state(predictor.signature.dump_state()) != predictor.signature:
            raise _not_dspys(f"{kind} whose reasoning is not its first output")
    state = of_remote(program.dump_state(), lm=False)
    config = of_call(predictor.config)
    return parts_of(f"dspy.{kind}", signature, config, tools=None, imports=imports, state=state)


def _not_dspys(kind: str, native: bool = True) -> ConfigError:
    return ConfigError(
        f"an optimizer works on a program that DSPy runs, and a {kind} is none",
        code="optimizer-program",
        hint='name DSPy\'s class, compile(dspex.program("my_app.rag:RAG"), ...), and take over what '
        "was found: NativeRAG().load_state(compiled.dump_state())"
        if native
        else 'give it a dspex.program("my_app.rag:RAG"), a dspex.Predict or a dspex.ChainOfThought',
    )


@dataclass(frozen=True, slots=True)
class Job:
    """The work.

    Attributes:
        operation: For a runtime.
        dispatcher: The runtime.
        metric: Answers its calls back.
    """

    operation: OptimizeOperation
    dispatcher: Dispatcher
    metric: MetricCalls

    @classmethod
    def of(
        cls,
        optimizer: RemoteOptimizer,
        program: Module,
        *,
        trainset: Any,
        valset: Any,
        teacher: Any,
        inputs: Any,
        options: Mapping[str, Any],
        on_progress: Callable[[OptimizerProgress], Any] | None,
        arguments: Mapping[str, Any],
    ) -> Job:
        """What `compile` was given.

        Raises:
            InputError: If the examples are none (`bad-trainset`).
            ConfigError: If something else is wrong.
        """
        check_plain(f"{optimizer.remote_parts.request.module}.compile", arguments)
        student = _Program.of(program)
        signature = student.signature
        examples = _Examples.of(trainset, "trainset", inputs, signature)
        judges = None if valset is None else _Examples.of(valset, "valset", inputs, signature)
        shown = [*examples.shown, *(judges.shown if judges else ())]
        metric = MetricCalls(shown, _made_again(signature), on_progress)
        made, functions = inside("program", student.parts)
        ours, called = inside("optimizer", optimizer.remote_parts)
        for name, function in called.items():
            own = name.startswith(f"optimizer.{ARGUMENT}")  # else that of a module among its arguments
            counted = name == f"optimizer.{ARGUMENT}metric"
            functions[name] = metric.answering(function, counted=counted) if own else function
        functions[PROGRESS] = metric.evaluated
        models = dict(optimizer.models)
        theirs = None
        if teacher is not None:
            shows = _Program.of(teacher)
            theirs, more = inside("teacher", shows.parts)
            functions |= more
            if shows.lm is not None:
                models[TEACHER] = shows.lm
        timeout, route, idempotent, settings, _, strategy = in_scope(options)
        operation = OptimizeOperation(
            inputs={},
            request=OptimizeRequest(
                program=made,
                optimizer=ours,
                teacher=theirs,
                trainset=examples.rows,
                valset=None if judges is None else judges.rows,
                arguments=dict(arguments),
                custom=[] if signature is None else [*custom_fields(signature)],
            ),
            functions=functions,
            models=models,
            config={**settings, **student.config},
            route=route,
            timeout=timeout,
            idempotent=idempotent,
            adapter=student.adapter,
            parsing=student.parsing,
            lm=student.lm,
            strategy=strategy,
        )
        return cls(operation, optimizer.runtime or student.runtime or current_dispatcher(), metric)

    def working(self) -> AbstractContextManager[None]:
        """What is around the work: it makes its errors plain."""
        return self.metric.explaining()

    def compiled(self, program: P, found: Prediction) -> P:
        """A copy of the program with what was found."""
        state = found["value"]
        twin = copy.copy(program) if isinstance(program, RemoteModule) else program.deepcopy()
        twin.load_state(state)
        self.metric.finish(found.usage)
        return twin


def _made_again(signature: Signature | None) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What makes values of a signature's own types of what crossed for them."""
    types = {} if signature is None else custom_fields(signature)

    def made(fields: dict[str, Any]) -> dict[str, Any]:
        return {
            name: from_wire(value, types[name]) if name in types else value for name, value in fields.items()
        }

    return made if types else lambda fields: fields


class _Examples(NamedTuple):
    """A set of examples: as they cross, and as a metric gets them."""

    rows: list[ExampleRow]
    shown: list[Any]

    @classmethod
    def of(cls, given: Any, name: str, inputs: Any, signature: Signature | None) -> _Examples:
        """What `compile` was given as a set.

        Raises:
            InputError: If it is none (`bad-trainset`).
        """
        if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
            raise _bad(f"{name} must be a list of examples, not a {type(given).__name__}")
        if isinstance(inputs, str):
            raise _bad("inputs must be a list of names, not a text", 'write inputs=["question"]')
        rows, shown = [], []
        for place, example in enumerate(given):
            rows.append(_row(example, f"{name}[{place}]", inputs, signature))
            shown.append(shown_to_metrics(example))
        if not rows:
            raise _bad(f"{name} is empty", "an optimizer learns from examples: give it some")
        return cls(rows, shown)


def _row(example: Any, at: str, inputs: Any, signature: Signature | None) -> ExampleRow:
    if not has_fields(example):
        raise _bad(f"{at} must map names of fields to values, not be a {type(example).__name__}")
    values: dict[str, Any] = {}
    for name in example.keys():  # noqa: SIM118 - an example of DSPy's yields no keys by itself
        if not isinstance(name, str):
            raise _bad(f"{at} has a name that is no text: {name!r}")
        try:
            values[name] = to_wire(example[name])
        except Exception as error:  # a serializer of the user's may raise anything
            raise _bad(f"{at}: the value of {name!r} cannot go to a worker: {error}") from error
    names = input_names(example, inputs, None if signature is None else signature.input_fields)
    if names is None:
        raise _bad(
            f"nobody knows which fields of {at} are inputs",
            'name them: compile(..., inputs=["question"]), or example.with_inputs("question")',
        )
    optional = {} if signature is None or inputs is not None else signature.input_defaults()
    missing = [name for name in names if name not in values and name not in optional]
    if missing:
        raise _bad(f"{at} has no {', '.join(map(repr, missing))}, which the program takes")
    return ExampleRow(values=values, inputs=[name for name in values if name in names])


def _bad(message: str, hint: str = "") -> InputError:
    return InputError(
        message, code="bad-trainset", hint=hint or 'write trainset=[{"question": "...", "answer": "..."}]'
    )
