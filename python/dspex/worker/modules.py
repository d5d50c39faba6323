"""The operation `module`: any DSPy module, the user's own programs included; `predict` is its simplest case.

The payload::

    {"class":        "dspy.ChainOfThought",       # or "my_app.rag:RAG"; left out: "dspy.Predict"
     "signature":    "question, context: list[str] -> answer: str",   # what DSPy's parser reads
     "types":        {"Point": "my_app.types:Point"},                 # names in it that DSPy does not know
     "bars":         {"answer": [true]},          # which unions of a field's type are written with a bar
     "instructions": "..." or None,               # None: DSPy's default
     "fields":       {"answer": {"desc": "one word"}},                # over what the text gave
     "defaults":     {"tags": []},                # what stands in for an output that a reply lacks
     "args":         {"max_iters": 5},            # more for the class's constructor
     "imports":      {"reward_fn": "my_app.score:short"},             # more, what a path names, or several
     "tools":        [{"function": "my_app.tools:search"},            # in the worker,
                      {"callback": "ask", "desc": "...", "args": {...}}],   # or in the service (`reverse`)
     "state":        {...} or "rag.json",         # what `Module.dump_state` gave, or `Module.save` wrote
     "inputs":       {...},
     "demos":        [{...}], "config": {"temperature": 0.7, "n": 3}, # for a predictor
     "adapter":      "chat" | "json" | "xml" | "baml" | "two_step",
     "extraction_lm": {...},                      # for the second step; left out: the call's own LM
     "parsing":      "tolerant" | "dspy",          # left out: DSPy's adapter as it is (`adapters`)
     "markers":      "escape",                    # any other policy is the service's business
     "typed":        {"inputs": ["place"], "demos": [[]], "outputs": ["point"]},   # whose values are of
                                                  # types that the wire does not carry (`adapters.plain`)
     "lm":           {...}}                       # over the pool's LM settings

and the answer::

    {"completions": [{"answer": "..."}], "usage": {...}, "timings": {"lm": seconds, "worker": seconds},
     "repairs": [("answer", "case", "YES")]}       # where there was any

`worker` is the whole time of the operation, the LM's included; `usage` is what the server counted, summed
over the call's LM requests. A module is made once per content and shared by the calls in flight, as DSPy's
own modules allow; a program that keeps something of a call on `self` needs a pool with `max_inflight=1`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

import dspy

from dspex.adapters.bars import with_bars
from dspex.adapters.plain import to_plain, unpack
from dspex.errors import ConfigError, InputError, SignatureError
from dspex.signature import Signature
from dspex.wire import MessagePack
from dspex.worker import adapters
from dspex.worker.feeds import feeds_of
from dspex.worker.functions import find, in_thread
from dspex.worker.lm import LMWatch, Models
from dspex.worker.payloads import MODULE, check
from dspex.worker.reverse import RUNNING, SETTING, call_back

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
    typed_outputs: tuple[str, ...]

    def answer(self, result: Any, usage: Any) -> dict[str, Any]:
        """What is sent back for what the module gave, and for what DSPy's tracker counted."""
        rows = _rows(result)
        for row in rows:
            row |= {name: to_plain(row[name]) for name in self.typed_outputs if name in row}
        answer = {"completions": rows, "usage": _sum(usage.get_total_tokens())}
        adapter = self.settings["adapter"]
        if isinstance(adapter, adapters.Reading) and adapter.repairs:
            answer["repairs"] = [tuple(repair) for repair in adapter.repairs]
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
        self._made: OrderedDict[bytes, dspy.Module] = OrderedDict()
        self._codec = MessagePack()

    async def answer(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Serve one call; see the module's docstring for what goes in and out.

        Raises:
            SignatureError: If DSPy cannot read the signature.
            ConfigError: If the payload is wrong, the adapter or the class unknown, or there is no LM.
        """
        with self.ready(payload) as run, dspy.context(**run.settings), dspy.track_usage() as usage:
            if hasattr(run.module, "aforward"):
                result = await run.module.acall(**run.inputs)
            else:
                result = await in_thread(self._threads, functools.partial(run.module, **run.inputs))
        return run.answer(result, usage)

    @contextlib.contextmanager
    def ready(self, payload: Mapping[str, Any]) -> Iterator[Run]:
        """What a payload asks for, made ready; raises what `answer` does. Its LM is lent for as long."""
        started = time.perf_counter()
        check(payload, MODULE, "inputs")
        module = self._module(payload)
        watch = LMWatch()
        inputs = dict(payload["inputs"])
        typed = payload.get("typed") or {}
        if isinstance(module, dspy.Predict):
            demos = list(payload.get("demos") or ())
            if typed:
                inputs = _made_again(inputs, typed["inputs"], module.signature)
                names = zip(demos, typed["demos"], strict=True)
                demos = [_made_again(demo, of, module.signature) for demo, of in names]
            inputs = {"config": payload.get("config") or {}, **inputs}
            if payload.get("demos") is not None:  # else those of its saved state, if it has one
                inputs.setdefault("demos", demos)
        if "feeds" in payload:
            inputs.update(feeds_of(payload))
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
            }
            yield Run(module, inputs, settings, watch, started, tuple(typed.get("outputs", ())))

    def _lend(self, lent: contextlib.ExitStack, override: Mapping[str, Any] | None) -> dspy.LM:
        """An LM, until the stack is unwound."""
        lm = self._models.get(override)
        lent.callback(self._models.give_back, lm)
        return lm

    def _module(self, payload: Mapping[str, Any]) -> dspy.Module:
        content = [payload.get(name) for name in _CONTENT]
        if isinstance(payload.get("state"), str):
            content.append(_version(payload["state"]))
        key = self._codec.encode(content)
        module = self._made.get(key)
        if module is not None:
            self._made.move_to_end(key)
            return module
        module = self._make(payload)
        self._made[key] = module
        if len(self._made) > _MAX_MODULES:
            self._made.popitem(last=False)
        return module

    def _make(self, payload: Mapping[str, Any]) -> dspy.Module:
        path = payload.get("class") or "dspy.Predict"
        cls = find(path if ":" in path else path.replace(".", ":", 1))
        if not (isinstance(cls, type) and issubclass(cls, dspy.Module)):
            raise ConfigError(f"{path!r} is not a DSPy module", code="not-a-module")
        given: list[Any] = []
        if payload.get("signature") is not None:
            given.append(_signature(payload))
        more = dict(payload.get("args") or {})
        for name, found in (payload.get("imports") or {}).items():
            more[name] = find(found) if isinstance(found, str) else [find(path) for path in found]
        if payload.get("tools") is not None:
            more["tools"] = [_tool(tool) for tool in payload["tools"]]
        try:
            module = cls(*given, **more)
            state = payload.get("state")
            if isinstance(state, str):
                module.load(state)
            elif state is not None:
                module.load_state(state)
        except SignatureError:
            raise
        except (TypeError, ValueError, KeyError) as err:
            raise ConfigError(
                f"{path} refuses what it was made with: {type(err).__name__}: {err}", code="bad-module"
            ) from err
        return module


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


def _signature(payload: Mapping[str, Any]) -> type[dspy.Signature]:
    text = payload["signature"]
    # Names that DSPy does not know: types of the caller's own signature, found by the paths that it gave.
    types = {name: find(path) for name, path in (payload.get("types") or {}).items()}
    try:
        if types:
            signature = Signature(text, payload.get("instructions"), types=types).to_dspy()
        else:
            signature = dspy.Signature(text, payload.get("instructions"))
        for name, bars in (payload.get("bars") or {}).items():
            bare = signature.fields[name].annotation
            signature = signature.with_updated_fields(name, type_=with_bars(bare, bars))
        for name, given in (payload.get("fields") or {}).items():
            signature = signature.with_updated_fields(name, **given)
        for name, plain in (payload.get("defaults") or {}).items():
            signature = signature.with_updated_fields(name)  # a copy, which is ours to change
            field = signature.fields[name]
            field.default = unpack(plain, field.annotation)
    except SignatureError:
        raise
    except (ValueError, TypeError, SyntaxError, KeyError) as err:
        raise SignatureError(
            f"DSPy cannot read the signature: {err}", code="signature-refused-by-dspy", source=text
        ) from err
    return signature


def _made_again(values: Mapping[str, Any], names: Sequence[str], signature: Any) -> dict[str, Any]:
    """Values with those of these names as their fields' types."""
    try:
        return {**values, **{name: unpack(values[name], signature.fields[name].annotation) for name in names}}
    except ValueError as error:
        raise InputError(f"a value is not of its field's type: {error}", code="input-type") from error


def _tool(given: Mapping[str, Any]) -> dspy.Tool:
    if "callback" in given:
        return _callback_tool(given)
    return dspy.Tool(find(given["function"]), name=given.get("name"), desc=given.get("desc"))


def _callback_tool(given: Mapping[str, Any]) -> dspy.Tool:
    """A tool of a DSPy module that is a function of the service.

    Args:
        given: `callback`, the function's name; `desc`; `args`, a JSON schema for each argument.
    """
    name = given["callback"]

    async def call(**kwargs: Any) -> Any:
        return await call_back(name, **kwargs)

    args = dict(given.get("args") or {})
    # The arguments come from an LM as JSON and go on as JSON; their types are the function's own business.
    return dspy.Tool(
        call,
        name=given.get("name") or name,
        desc=given.get("desc"),
        args=args,
        arg_types=dict.fromkeys(args, Any),
    )


def _rows(result: Any) -> list[dict[str, Any]]:
    if not isinstance(result, dspy.Prediction):
        raise ConfigError(
            f"the module answered with a {type(result).__name__}, not a dspy.Prediction",
            code="not-a-prediction",
        )
    if result.completions is None:
        return [dict(result)]
    columns: dict[str, list[Any]] = dict(result.completions.items())
    count = max(map(len, columns.values()), default=0)
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
