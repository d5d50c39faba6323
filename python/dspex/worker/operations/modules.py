"""The operation `module`: any DSPy module, the user's own programs included; `predict` is its simplest case.

The payload::

    {"class":        "dspy.ChainOfThought",       # or "my_app.rag:RAG"; left out: "dspy.Predict"
     "signature":    "question, context: list[str] -> answer: str",   # read by the core (`signatures`)
     "types":        {"Point": "my_app.types:Point"},                 # names in it that are not well known
     "bars":         {"answer": [true]},          # which unions of a field's type are written with a bar
     "instructions": "..." or None,               # None: DSPy's default
     "fields":       {"answer": {"desc": "one word"}},                # over what the text gave
     "defaults":     {"tags": []},                # what stands in for an output that a reply lacks
     "args":         {"max_iters": 5},            # more for the class's constructor
     "imports":      {"reward_fn": "my_app.score:short"},             # more, what a path names, or several
     "tools":        [{"function": "my_app.tools:search"},            # in the worker,
                      {"callback": "ask", "desc": "...", "args": {...}}],   # or in the service (`reverse`)
     "state":        {...} or "rag.json",         # what `Module.dump_state` gave, or `Module.save` wrote
     "inputs":       {...},                        # with a signature: a value for each of its inputs
     "validated":    true,                         # the caller has checked the inputs, missing ones too
     "messages":     [{"role": ..., "content": ...}],   # the prompt, where the caller has laid it out
     "demos":        [{...}], "config": {"temperature": 0.7, "n": 3}, # for a predictor
     "adapter":      "chat" | "json" | "xml" | "baml" | "two_step",
     "extraction_lm": {...},                      # for the second step; left out: the call's own LM
     "parsing":      "tolerant" | "dspy",          # left out: DSPy's adapter as it is (`adapters`)
     "typed":        {"inputs": ["place"], "demos": [[]], "outputs": ["point"]},   # whose values are of
                                                  # types that the wire does not carry (`adapters.plain`)
     "replies":      ["point"],                   # outputs that the caller reads from the replies itself
     "lm":           {...}}                       # over the pool's LM settings

and the answer::

    {"completions": [{"answer": "..."}], "usage": {...}, "timings": {"lm": seconds, "worker": seconds},
     "repairs": [("answer", "case", "YES")],       # where there was any
     "replies": ["..."]}                           # one for each completion, if they were asked for

`worker` is the whole time of the operation, the LM's included; `usage` is what the server counted, summed
over the call's LM requests. A module is made once per content and shared by the calls in flight, as DSPy's
own modules allow; a program that keeps something of a call on `self` needs a pool with `max_inflight=1`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
import types
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, Union, get_args, get_origin

import dspy

from dspex._engine.plain import to_plain, unpack
from dspex.errors import ConfigError, DspexError, InputError
from dspex.protocol.codec import MessagePack
from dspex.worker.host import RUNNING, SETTING, call_host
from dspex.worker.input_streams import input_streams_of
from dspex.worker.operations import adapters
from dspex.worker.operations.functions import find, in_thread, refuse_arguments
from dspex.worker.operations.lm import LMWatch, Models
from dspex.worker.operations.payloads import MODULE, check, refusal
from dspex.worker.operations.predict import CALL, Call, Predict
from dspex.worker.operations.signatures import read, signature_of

__all__ = ["Modules", "Run"]

_MAX_MODULES: Final = 1024
"""Modules kept: a signature costs DSPy about a millisecond, a service has few, and memory is bounded."""

_CONTENT: Final = (
    "class",
    "signature",
    "types",
    "bars",
    "instructions",
    "fields",
    "defaults",
    "args",
    "imports",
    "tools",
    "state",
)
"""What makes a module; the rest of a payload is the call's."""


class Run(NamedTuple):
    """A module about to be called: with what, and in which `dspy.context`."""

    module: dspy.Module
    inputs: dict[str, Any]
    settings: dict[str, Any]
    watch: LMWatch
    started: float
    typed_outputs: Sequence[str]
    read_outputs: Sequence[str]

    def answer(self, result: Any, usage: Any) -> dict[str, Any]:
        """What is sent back for what the module gave, and for what DSPy's tracker counted."""
        adapter = self.settings["adapter"]
        replies = adapter.replies if isinstance(adapter, adapters.CallAdapter) else []
        rows = _rows(result, len(replies) or 1)
        for row in rows:
            row |= {name: to_plain(row[name]) for name in self.typed_outputs if name in row}
            for name in self.read_outputs:
                row.pop(name, None)
        answer = {"completions": rows, "usage": _sum(usage.get_total_tokens())}
        if isinstance(adapter, adapters.CallAdapter) and adapter.repairs:
            answer["repairs"] = [tuple(repair) for repair in adapter.repairs]
        if self.read_outputs:
            answer["replies"] = replies
        return {**answer, "timings": {"lm": self.watch.seconds, "worker": time.perf_counter() - self.started}}


class Modules:
    """DSPy modules by their content.

    Args:
        models: The worker's LMs.
        threads: Where modules run that have no async form.
    """

    def __init__(self, models: Models, threads: ThreadPoolExecutor) -> None:
        self._models = models
        self._threads = threads
        self._made: OrderedDict[bytes, _Made] = OrderedDict()
        self._codec = MessagePack()

    async def answer(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Serve one call; see the module's docstring for what goes in and out.

        Raises:
            SignatureError: If the signature cannot be read.
            InputError: If inputs are missing, or are none that the module takes.
            ConfigError: If the payload is wrong, the adapter or the class unknown, or there is no LM.
        """
        with self.ready(payload) as run, dspy.context(**run.settings), dspy.track_usage() as usage:
            try:
                if hasattr(run.module, "aforward"):
                    result = await run.module.acall(**run.inputs)
                else:
                    result = await in_thread(self._threads, functools.partial(run.module, **run.inputs))
            except TypeError as error:
                forward = getattr(run.module, "aforward", None) or getattr(run.module, "forward", None)
                refuse_arguments(forward, (), run.inputs, "$.inputs", error)
                raise
        return run.answer(result, usage)

    @contextlib.contextmanager
    def ready(self, payload: Mapping[str, Any]) -> Iterator[Run]:
        """What a payload asks for, made ready; raises what `answer` does. Its LM is lent for as long."""
        started = time.perf_counter()
        check(payload, MODULE)
        module, required = self._module(payload)
        if not payload.get("validated"):
            _refuse_missing(payload, required)
        watch = LMWatch()
        inputs = dict(payload["inputs"])
        typed = payload.get("typed") or {}
        call = None
        if isinstance(module, dspy.Predict):
            demos = None if payload.get("demos") is None else list(payload["demos"])
            if typed:
                inputs = _made_again(inputs, typed.get("inputs") or (), module.signature, "$.inputs")
                for i, names in enumerate(typed.get("demos") or ()):
                    if demos is None or i >= len(demos):
                        raise refusal(f"$.typed.demos[{i}]", "speaks of no example")
                    demos[i] = _made_again(demos[i], names, module.signature, f"$.demos[{i}]")
            config, validated = payload.get("config") or {}, bool(payload.get("validated"))
            if isinstance(module, Predict):
                call = Call(inputs, config, demos, validated)
                inputs = call.arguments()
            else:  # a class of the user's
                inputs = {"config": config, **inputs}
                if demos is not None:  # else those of its saved state, if it has one
                    inputs.setdefault("demos", demos)
        if "input_streams" in payload:
            inputs.update(input_streams_of(payload))
        with contextlib.ExitStack() as lent:
            adapter = adapters.make(
                payload, lambda: self._lend(lent, payload.get("extraction_lm") or payload.get("lm"))
            )
            settings = {
                "lm": self._lend(lent, payload.get("lm")),
                "adapter": adapter,
                "callbacks": [*dspy.settings.callbacks, watch],
                # Modules made of others look at what those did; for one predictor nobody does.
                "trace": None if isinstance(module, dspy.Predict) else [],
                SETTING: RUNNING.get(None),
                CALL: call,
            }
            outputs = typed.get("outputs") or ()
            yield Run(module, inputs, settings, watch, started, outputs, payload.get("replies") or ())

    def _lend(self, lent: contextlib.ExitStack, override: Mapping[str, Any] | None) -> dspy.LM:
        """An LM, until the stack is unwound."""
        lm = self._models.get(override)
        lent.callback(self._models.give_back, lm)
        return lm

    def _module(self, payload: Mapping[str, Any]) -> _Made:
        content = [payload.get(name) for name in _CONTENT]
        if isinstance(payload.get("state"), str):
            content.append(_version(payload["state"]))
        key = self._codec.encode(content)
        made = self._made.get(key)
        if made is not None:
            self._made.move_to_end(key)
            return made
        made = self._made[key] = self._make(payload)
        if len(self._made) > _MAX_MODULES:
            self._made.popitem(last=False)
        return made

    def _make(self, payload: Mapping[str, Any]) -> _Made:
        path = payload.get("class") or "dspy.Predict"
        cls = find(path if ":" in path else path.replace(".", ":", 1))
        if not (isinstance(cls, type) and issubclass(cls, dspy.Module)):
            raise ConfigError(f"{path!r} is not a DSPy module", code="not-a-module")
        cls = Predict if cls is dspy.Predict else cls
        of_dspy = cls.__module__.partition(".")[0] in ("dspy", "dspex")
        signature = None if payload.get("signature") is None else signature_of(payload)
        more = dict(payload.get("args") or {})
        if of_dspy and isinstance(more.get("signature"), str):
            # DSPy's parser imports what a text names. What a program of the user's own reads is its business.
            signature = more["signature"] = read(more["signature"], {"types": payload.get("types")}).to_dspy()
        for name, found in (payload.get("imports") or {}).items():
            more[name] = find(found) if isinstance(found, str) else [find(path) for path in found]
        if payload.get("tools") is not None:
            more["tools"] = [_tool(tool) for tool in payload["tools"]]
        try:
            module = cls(**more) if signature is None or "signature" in more else cls(signature, **more)
            state = payload.get("state")
            if isinstance(state, str):
                module.load(state)
            elif state is not None:
                module.load_state(state)
        except DspexError:
            raise
        except Exception as err:
            raise ConfigError(
                f"{path} refuses what it was made with: {type(err).__name__}: {err}", code="bad-module"
            ) from err
        if isinstance(module, dspy.Predict):
            signature = module.signature
        # A program of the user's own may find for itself what its signature asks for.
        return _Made(module, _required(signature) if of_dspy and signature is not None else ())


def _version(path: str) -> list[int]:
    """What changes when a file of saved state does.

    Raises:
        ConfigError: If it is none that can be loaded: DSPy would unpickle other files than JSON.
    """
    if not path.endswith(".json"):
        raise ConfigError(
            f"saved state is read from a .json file, not from {path!r}",
            code="bad-state",
            hint='save it with `program.save("program.json")`',
        )
    try:
        found = os.stat(path)
    except OSError as err:
        raise ConfigError(f"saved state cannot be read: {err}", code="bad-state") from err
    return [found.st_mtime_ns, found.st_size, found.st_ino]


class _Made(NamedTuple):
    """A module, and the inputs without which it is not called."""

    module: dspy.Module
    required: tuple[str, ...]


def _refuse_missing(payload: Mapping[str, Any], required: Sequence[str]) -> None:
    """See to it that a call gives what the module's signature asks for, before a model is asked.

    Raises:
        InputError: If an input is missing.
    """
    given = {*payload["inputs"], *(payload.get("input_streams") or ())}
    missing = [name for name in required if name not in given]
    if missing:
        raise InputError(
            f"the inputs do not fit the signature: {', '.join(f'`{name}` is missing' for name in missing)}",
            hint=f"give $.inputs a value for each of: {', '.join(required)}",
            problems=[(name, "missing") for name in missing],
        )


def _required(signature: Any) -> tuple[str, ...]:
    """The inputs that DSPy says are missing where they are."""
    fields = signature.input_fields.items()
    return tuple(name for name, info in fields if info.is_required() and not _allows_none(info.annotation))


def _allows_none(annotation: Any) -> bool:
    args = get_args(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        return any(map(_allows_none, args))
    return annotation in (None, type(None))


def _made_again(values: Mapping[str, Any], names: Sequence[str], signature: Any, at: str) -> dict[str, Any]:
    """Values with those of these names as their fields' types."""
    made = dict(values)
    for name in names:
        if name not in values or name not in signature.fields:
            raise refusal(at, f"has no value {name!r} for a field of that name")
        try:
            made[name] = unpack(values[name], signature.fields[name].annotation)
        except Exception as error:  # a validator of the user's may raise anything
            raise InputError(
                f"{at}.{name} is not of its field's type: {error}",
                code="input-type",
            ) from error
    return made


def _tool(given: Mapping[str, Any]) -> dspy.Tool:
    if "callback" in given:
        return _host_tool(given)
    return dspy.Tool(find(given["function"]), name=given.get("name"), desc=given.get("desc"))


def _host_tool(given: Mapping[str, Any]) -> dspy.Tool:
    """A tool of a DSPy module that is a function of the service.

    Args:
        given: `callback`, the function's name; `desc`; `args`, a JSON schema for each argument.
    """
    name = given["callback"]

    async def call(**kwargs: Any) -> Any:
        return await call_host(name, **kwargs)

    args = dict(given.get("args") or {})
    # The arguments come from an LM as JSON and go on as JSON; their types are the function's own business.
    return dspy.Tool(
        call,
        name=given.get("name") or name,
        desc=given.get("desc"),
        args=args,
        arg_types=dict.fromkeys(args, Any),
    )


def _rows(result: Any, completions: int) -> list[dict[str, Any]]:
    """The fields of each completion; of one without outputs DSPy keeps nothing, so that they are counted."""
    if not isinstance(result, dspy.Prediction):
        raise ConfigError(
            f"the module answered with a {type(result).__name__}, not a dspy.Prediction",
            code="not-a-prediction",
        )
    if result.completions is None:
        return [dict(result)]
    columns: dict[str, list[Any]] = dict(result.completions.items())
    count = max(map(len, columns.values()), default=completions)
    return [{name: values[i] for name, values in columns.items()} for i in range(count)]


def _sum(by_model: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Tokens over all models of a call. What is no count is kept from the first model that has it."""
    total: dict[str, Any] = {}
    for tokens in by_model.values():
        for name, count in tokens.items():
            if isinstance(count, int | float) and isinstance(total.get(name), int | float):
                total[name] += count
            elif count is not None:
                total.setdefault(name, count)
    return total
