"""What a service asks of a worker: one frozen class per operation, both ends of its wire form here.

A request crosses as its operation's name and the mapping that `to_wire` gives. `from_wire` makes the request
of it again, and checks what has arrived before any work begins (`dspex.protocol.records`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NotRequired, Protocol, Self, TypedDict, Unpack, cast

from dspex._imports import path_of
from dspex.errors import ConfigError
from dspex.protocol.records import one_of, read, to_wire
from dspex.protocol.signature_form import SignatureForm

if TYPE_CHECKING:
    from dspex.signature import SignatureLike

__all__ = [
    "AdapterName",
    "CustomValues",
    "EchoRequest",
    "FunctionRequest",
    "HostFunction",
    "Message",
    "ModuleAnswer",
    "ModuleParts",
    "ModuleRequest",
    "ParsingName",
    "PredictParts",
    "PredictRequest",
    "Request",
    "StreamedFields",
    "Tool",
]

AdapterName = Literal["chat", "json", "xml", "baml", "two_step"]
ParsingName = Literal["tolerant", "dspy"]


class Request(Protocol):
    """What a pool can be asked for.

    Attributes:
        operation: The operation's name.
        idempotent: Whether it may be run again without harm, when the caller does not say.
    """

    operation: ClassVar[str]
    idempotent: ClassVar[bool]

    def to_wire(self) -> Any:
        """What crosses: values that the wire carries (`dspex.wire`)."""
        ...

    def with_input_streams(self, names: Sequence[str]) -> Self:
        """The same request, of which these arguments are iterators over what the service sends.

        Raises:
            ConfigError: If it has no arguments (`bad-input-stream`).
        """
        ...


@dataclass(frozen=True, slots=True)
class EchoRequest:
    """Give back what is given: a round trip to measure."""

    operation: ClassVar[str] = "echo"
    idempotent: ClassVar[bool] = True

    value: Any = None

    def to_wire(self) -> Any:
        """See `Request.to_wire`."""
        return self.value

    def with_input_streams(self, names: Sequence[str]) -> Self:
        """Refuse: an echo has no arguments."""
        raise ConfigError("an echo has no arguments that could be input streams", code="bad-input-stream")


class _WithArguments:
    """What requests share that have arguments, some of which may be input streams."""

    __slots__ = ()

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """The request that has arrived.

        Raises:
            ConfigError: If something is wrong with it (`bad-payload`).
        """
        return read(cls, wire)

    def with_input_streams(self, names: Sequence[str]) -> Self:
        """See `Request.with_input_streams`."""
        changed: Self = replace(cast(Any, self), input_streams=tuple(names))
        return changed


@dataclass(frozen=True, slots=True)
class FunctionRequest(_WithArguments):
    """Call a function, async or not, or a generator function, whose items are the parts of a stream.

    The function's path is written by the service's programmer, as in a setting; it never comes from an LM or
    from a request. An async function runs on the worker's loop, any other in a thread.

    Attributes:
        function: Its path, `"package.module:name"`.
        args: Its arguments by position.
        kwargs: Its arguments by name.
        input_streams: Names of arguments that are iterators over what the service sends; the pool sets it.
    """

    operation: ClassVar[str] = "function"
    idempotent: ClassVar[bool] = False

    function: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    input_streams: Sequence[str] = ()

    @classmethod
    def of(cls, function: str | Callable[..., Any], /, *args: Any, **kwargs: Any) -> FunctionRequest:
        """The request to call a function with these arguments.

        Args:
            function: Its path, or a function at the top of a module that the worker can import.
            *args: Its arguments by position.
            **kwargs: Its arguments by name.

        Raises:
            ConfigError: If a worker cannot import the function (`bad-import-path`).
        """
        return cls(path_of(function), args, kwargs)

    def to_wire(self) -> dict[str, Any]:
        """See `Request.to_wire`."""
        # By hand: functions may be small, and called often.
        wire: dict[str, Any] = {"function": self.function}
        if self.args:
            wire["args"] = list(self.args)
        if self.kwargs:
            wire["kwargs"] = self.kwargs
        if self.input_streams:
            wire["input_streams"] = list(self.input_streams)
        return wire


@one_of("function", "host_function")
@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that a module's LM may call: one that the worker imports, or one of the service.

    Attributes:
        function: The path of the worker's, `"package.module:name"`.
        host_function: The name of the service's, among the call's `host_functions`.
        name: What the LM calls it; None for its own name.
        desc: Its description for the LM; None for its docstring.
        args: A JSON schema for each argument of the service's; the worker's are looked at there.
    """

    function: str | None = None
    host_function: str | None = None
    name: str | None = None
    desc: str | None = None
    args: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFunction:
    """A function of the service as an argument of a module's constructor.

    Attributes:
        host_function: Its name among the call's `host_functions`.
        source: Its source, for modules that show it to an LM; None where nobody knows it.
    """

    host_function: str
    source: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomValues:
    """Fields whose values are of custom types: they cross as wire values, and are made again by their types.

    Attributes:
        inputs: Among the inputs.
        demos: Among the fields of each example.
        outputs: Among the outputs; the answer has their wire values.
    """

    inputs: Sequence[str] = ()
    demos: Sequence[Sequence[str]] = ()
    outputs: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamedFields:
    """What a stream of a module's answer shows.

    Attributes:
        fields: Output fields, by predictor where that is named: `["answer", "draft.answer"]`; None for all.
        status: The path of a `dspy.streaming.StatusMessageProvider`; None for DSPy's own.
        inner: Whether the module is a part of a larger program, in which a field that it does not have may be
            another's, and it need not give a prediction. Else both are refused.
    """

    fields: Sequence[str] | None = None
    status: str | None = None
    inner: bool = False


class Message(TypedDict):
    """One message of a prompt, as an LM's API has it."""

    role: str
    content: str | Sequence[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _ModelRequest(_WithArguments):
    """What `PredictRequest` and `ModuleRequest` share; `pool.predict` documents the parts for users.

    Attributes:
        inputs: With a signature, a value for each of its inputs; else what the module is called with.
        signature: None for a module that has its own.
        demos: Examples for a predictor; None for those of its state, if it has one.
        config: Settings of the LM for this call, such as `temperature` and `n`.
        lm: Settings over those of the pool's LM.
        adapter: Lays out prompts and reads replies; None for `"chat"`.
        extraction_lm: Settings of the second model of `"two_step"`, over the pool's; None for the call's LM.
        parsing: How replies are read; None for DSPy's adapter as it is.
        validated: The caller has checked the inputs, missing ones too.
        messages: The prompt, where the caller has laid it out.
        prompt: `"told"`: the answer has the messages that the model was asked with; `"alone"`: it has nothing
            else, and no model is asked.
        custom: Values of custom types.
        raw_outputs: Outputs that the caller reads from the replies itself; the answer then has `replies`.
        stream: What a stream of the answer shows.
        input_streams: As in `FunctionRequest`.
    """

    idempotent: ClassVar[bool] = False

    inputs: Mapping[str, Any]
    signature: SignatureForm | None = None
    demos: Sequence[Mapping[str, Any]] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    lm: Mapping[str, Any] = field(default_factory=dict)
    adapter: AdapterName | None = None
    extraction_lm: Mapping[str, Any] = field(default_factory=dict)
    parsing: ParsingName | None = None
    validated: bool = False
    messages: Sequence[Message] | None = None
    prompt: Literal["told", "alone"] | None = None
    custom: CustomValues | None = None
    raw_outputs: Sequence[str] = ()
    stream: StreamedFields | None = None
    input_streams: Sequence[str] = ()

    def to_wire(self) -> dict[str, Any]:
        """See `Request.to_wire`."""
        return to_wire(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictRequest(_ModelRequest):
    """Ask an LM for the outputs of a signature, with `dspy.Predict`."""

    operation: ClassVar[str] = "predict"

    signature: SignatureForm

    @classmethod
    def of(
        cls,
        signature: SignatureLike | SignatureForm,
        inputs: Mapping[str, Any],
        /,
        **parts: Unpack[PredictParts],
    ) -> PredictRequest:
        """The request for the outputs of a signature.

        Args:
            signature: Anything `Signature.of` takes. A text is read in the worker.
            inputs: A value for each of its inputs, as the wire carries it.
            **parts: See `PredictParts`.

        Raises:
            SignatureError: If it stands for no signature.
            ConfigError: If a worker cannot import a type of the signature.
        """
        return cls(signature=SignatureForm.of(signature), inputs=inputs, **parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleRequest(_ModelRequest):
    """Call any DSPy module or retriever, the user's own programs included.

    Attributes:
        module: The class, `"dspy.ChainOfThought"` or `"my_app.rag:RAG"`.
        positional: Inputs that are given by position.
        args: Arguments for its constructor.
        imports: Arguments for its constructor that a path names, or several paths.
        functions: Arguments for its constructor that are functions of the service.
        modules: Arguments for its constructor that are modules: what they are made of, no more.
        tools: Its tools.
        state: What `Module.dump_state` gave, or the path of what `Module.save` wrote.
    """

    operation: ClassVar[str] = "module"

    module: str = "dspy.Predict"
    positional: Sequence[Any] = ()
    args: Mapping[str, Any] = field(default_factory=dict)
    imports: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    functions: Mapping[str, HostFunction] = field(default_factory=dict)
    modules: Mapping[str, ModuleRequest] = field(default_factory=dict)
    tools: Sequence[Tool] | None = None
    state: Mapping[str, Any] | str | None = None

    @classmethod
    def of(
        cls, module: str | type[Any], inputs: Mapping[str, Any], /, **parts: Unpack[ModuleParts]
    ) -> ModuleRequest:
        """The request to call a module.

        Args:
            module: Its class, or the path of that: `"dspy.ChainOfThought"`, `"my_app.rag:RAG"`.
            inputs: What it is called with, as the wire carries it.
            **parts: See `ModuleParts`.

        Raises:
            SignatureError: If `signature` stands for no signature.
            ConfigError: If a worker cannot import the class, or a type of the signature.
        """
        signature = parts.pop("signature", None)
        form = None if signature is None else SignatureForm.of(signature)
        given = cast("dict[str, Any]", parts)
        return cls(module=path_of(module), inputs=inputs, signature=form, **given)

    def to_wire(self) -> dict[str, Any]:
        """See `Request.to_wire`."""
        wire = to_wire(self)
        for name in ("functions", "modules"):
            if name in wire:
                wire[name] = {argument: _part_to_wire(part) for argument, part in wire[name].items()}
        return wire


def _part_to_wire(part: HostFunction | ModuleRequest) -> dict[str, Any]:
    return part.to_wire() if isinstance(part, ModuleRequest) else to_wire(part)


class PredictParts(TypedDict, total=False):
    """What may be given with a request for a signature's outputs.

    Attributes:
        demos: Examples: mappings of input and output fields.
        config: Settings of the LM for this call, such as `temperature` and `n`.
        lm: Settings over those of the pool's LM.
        adapter: What lays out prompts and reads replies; `"chat"` if left out.
        extraction_lm: Settings of the second model of `"two_step"`, over the pool's.
        parsing: How replies are read: `"tolerant"`, or `"dspy"`, to the letter; left out, by DSPy's adapter.
        stream: What a stream of the answer shows.
    """

    demos: Sequence[Mapping[str, Any]] | None
    config: Mapping[str, Any]
    lm: Mapping[str, Any]
    adapter: AdapterName | None
    extraction_lm: Mapping[str, Any]
    parsing: ParsingName | None
    stream: StreamedFields | None


class ModuleParts(PredictParts, total=False):
    """What may be given with a request to call a module.

    Attributes:
        signature: Anything `Signature.of` takes, for a module that is made with one.
        positional: Inputs that are given by position.
        args: Arguments for its constructor.
        imports: Arguments for its constructor that a path names, or several paths, such as
            `{"reward_fn": "my_app.score:short"}`.
        functions: Arguments for its constructor that are among the call's `host_functions`.
        modules: Arguments for its constructor that are modules: what they are made of, no more.
        tools: Its tools: `Tool(function="my_app.tools:search")`, or `describe_tool(f)` of the service's.
        state: What `Module.dump_state` gave, or the path of the JSON file that `Module.save` wrote.
    """

    signature: SignatureLike | SignatureForm | None
    positional: Sequence[Any]
    args: Mapping[str, Any]
    imports: Mapping[str, str | Sequence[str]]
    functions: Mapping[str, HostFunction]
    modules: Mapping[str, ModuleRequest]
    tools: Sequence[Tool] | None
    state: Mapping[str, Any] | str | None


class ModuleAnswer(TypedDict):
    """What `predict` and `module` answer.

    Attributes:
        completions: The fields of each completion; none if the module gave no prediction.
        value: What it gave then, as retrievers give lists of passages.
        usage: What the server counted, summed over the call's LM requests.
        timings: Seconds: `lm` in the LM, `worker` in the operation, the LM's included.
        stages: What the worker did, LM by LM: name, end in seconds since the beginning, seconds, count.
        repairs: Field, kind and text of each repair to a reply, if there was any.
        replies: One for each completion, if the caller asked for them (`raw_outputs`).
        messages: Those of the last request to the model, if the caller asked for them (`prompt`).
        attempts: How many workers the call was given to, if there was more than one.
        repeats: For each of them but the last, the seconds that it had the call, and why it was ended.
    """

    completions: list[dict[str, Any]]
    value: NotRequired[Any]
    usage: dict[str, Any]
    timings: dict[str, float]
    stages: NotRequired[list[list[Any]]]
    repairs: NotRequired[list[tuple[str, str, str]]]
    replies: NotRequired[list[str]]
    messages: NotRequired[list[Any]]
    attempts: NotRequired[int]
    repeats: NotRequired[list[tuple[float, str]]]
