"""The operation `predict`: DSPy's own `Predict` and adapter, on a signature sent as data.

The payload::

    {"signature":    "question, context: list[str] -> answer: str",   # what DSPy's parser reads
     "instructions": "..." or None,                                   # None: DSPy's default
     "fields":       {"answer": {"desc": "one word"}},                # over what the text gave
     "inputs":       {...}, "demos": [{...}], "config": {"temperature": 0.7, "n": 3},
     "adapter":      "chat" | "json" | "xml",
     "lm":           {...}}                                           # over the pool's LM settings

and the answer::

    {"completions": [{"answer": "..."}], "usage": {...}, "timings": {"lm": seconds, "worker": seconds}}

`worker` is the whole time of the operation, the LM's included; `usage` is what the server counted, summed
over the call's LM requests.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

import dspy

from dspex.errors import ConfigError, SignatureError
from dspex.wire import MessagePack
from dspex.worker.lm import LMWatch, Models

__all__ = ["ADAPTERS", "Predictors"]

ADAPTERS: Final[Mapping[str, Callable[[], dspy.Adapter]]] = {
    # dspex never makes a second LM call that nobody asked for, so no fallback from one format to another.
    "chat": lambda: dspy.ChatAdapter(use_json_adapter_fallback=False),
    "json": dspy.JSONAdapter,
    "xml": lambda: dspy.XMLAdapter(use_json_adapter_fallback=False),
}
"""The adapters a payload may name."""

_MAX_PREDICTORS: Final = 1024
"""Modules kept: a signature costs DSPy about a millisecond, a service has few, and memory is bounded."""


class Predictors:
    """`dspy.Predict` modules by the content of their signature."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._made: OrderedDict[bytes, dspy.Predict] = OrderedDict()
        self._adapters: dict[str, dspy.Adapter] = {}
        self._codec = MessagePack()

    async def answer(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Serve one `predict` call; see the module's docstring for what goes in and out.

        Raises:
            SignatureError: If DSPy cannot read the signature.
            ConfigError: If the adapter is unknown or there is no LM.
        """
        started = time.perf_counter()
        module = self._module(payload)
        adapter = self._adapter(payload.get("adapter", "chat"))
        watch = LMWatch()
        lm = self._models.get(payload.get("lm"))
        callbacks = [*dspy.settings.callbacks, watch]
        with (
            dspy.context(lm=lm, adapter=adapter, callbacks=callbacks, trace=None),
            dspy.track_usage() as usage,
        ):
            prediction = await module.acall(
                demos=list(payload.get("demos") or ()),
                config=dict(payload.get("config") or {}),
                **payload["inputs"],
            )
        rows = _rows(prediction)
        tokens: Mapping[str, Any] = next(iter(usage.get_total_tokens().values()), {})
        worker = time.perf_counter() - started
        return {
            "completions": rows,
            "usage": {name: count for name, count in tokens.items() if count is not None},
            "timings": {"lm": watch.seconds, "worker": worker},
        }

    def _module(self, payload: Mapping[str, Any]) -> dspy.Predict:
        text, instructions = payload["signature"], payload.get("instructions")
        fields = payload.get("fields") or {}
        key = self._codec.encode([text, instructions, fields])
        module = self._made.get(key)
        if module is not None:
            self._made.move_to_end(key)
            return module
        try:
            signature = dspy.Signature(text, instructions)
            for name, given in fields.items():
                signature = signature.with_updated_fields(name, **given)
        except (ValueError, TypeError, SyntaxError, KeyError) as err:
            raise SignatureError(
                f"DSPy cannot read the signature: {err}", code="signature-refused-by-dspy", source=text
            ) from err
        module = dspy.Predict(signature)
        self._made[key] = module
        if len(self._made) > _MAX_PREDICTORS:
            self._made.popitem(last=False)
        return module

    def _adapter(self, name: str) -> dspy.Adapter:
        adapter = self._adapters.get(name)
        if adapter is None:
            make = ADAPTERS.get(name)
            if make is None:
                raise ConfigError(
                    f"no adapter is called {name!r}",
                    code="unknown-adapter",
                    hint=f"one of: {', '.join(ADAPTERS)}",
                )
            adapter = self._adapters[name] = make()
        return adapter


def _rows(prediction: dspy.Prediction) -> list[dict[str, Any]]:
    columns: dict[str, list[Any]] = dict(prediction.completions.items())
    count = max(map(len, columns.values()), default=0)
    return [{name: values[i] for name, values in columns.items()} for i in range(count)]
