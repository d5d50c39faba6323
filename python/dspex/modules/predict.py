"""`Predict`: one signature, one LM call."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self

from dspex._timeouts import check_seconds
from dspex.adapters import Adapter, AdapterLike, Parsing
from dspex.prediction import Prediction
from dspex.router import Dispatcher, Operation, RouteName, current_dispatcher
from dspex.signature import Signature, SignatureLike, Validation

__all__ = ["Predict"]

_OPTIONS = ("route", "timeout", "demos", "config")


class Predict:
    """Maps inputs to outputs by one LM call, like `dspy.Predict`.

    A call runs on the Rust core or, with `route="python"`, as the real `dspy.Predict` in a worker
    process: same messages, same fields.

    Args:
        signature: What goes in and what comes out: text, a `dspex.Signature`, or anything that
            `Signature.of` takes.
        demos: Few-shot examples, mappings of field names to values.
        runtime: What runs the calls; by default the runtime current at each call.
        validate: What to do about inputs that do not fit the signature: `"strict"` raises, `"warn"` logs a
            warning and goes on as DSPy does, `"off"` does not look.
        adapter: How prompts are laid out and replies read: `"chat"`, `"json"`, `"xml"`, or an adapter of
            dspex's; by default the runtime's. Calls with `"baml"` or `"two_step"` go to a worker.
        parsing: How replies are read: `"tolerant"` or `"dspy"`; by default as the adapter does it.
        **config: Settings for the LM that override its own, as in DSPy (`temperature=0.5`, `n=3`).

    Raises:
        SignatureError: If the signature cannot be read.
        ConfigError: If there is no such adapter, or no such way of reading.

    Example:
        ```python
        qa = dspex.Predict("question, context: list[str] -> answer: str, confidence: float")
        qa(question="Who wrote it?", context=["Ada wrote it."]).answer
        ```
    """

    def __init__(
        self,
        signature: SignatureLike,
        *,
        demos: Sequence[Mapping[str, Any]] = (),
        runtime: Dispatcher | None = None,
        validate: Validation = "strict",
        adapter: AdapterLike | None = None,
        parsing: Parsing | None = None,
        **config: Any,
    ) -> None:
        self.signature = Signature.of(signature)
        self.validate = validate
        self._defaults = self.signature.input_defaults()
        self.demos = list(demos)
        self.config = config
        chosen = Adapter.of("chat" if adapter is None else adapter, parsing)
        self.adapter = None if adapter is None else chosen
        self.parsing = parsing
        self._runtime = runtime
        self._options: dict[str, Any] = {}

    def __call__(self, **inputs: Any) -> Prediction:
        """Run the call and wait for its prediction.

        Args:
            **inputs: A value for each input field. Four more names are options unless the signature has
                an input field of that name (then use `with_options`): `route` (`"native"`, `"python"` or
                a target's name), `timeout` (seconds for the whole call), `demos` and `config` (instead
                of, and on top of, the module's own).

        Raises:
            InputError: If inputs are missing, unknown or of the wrong type, all of them named.
            RouteError: If no target can serve the call as it was asked for.
            LMError: If the LM could not be asked.
            ReplyError: If its reply could not be read.
            PoolError: If the workers could not do their part.
            DeadlineExceeded: If the time ran out.
            ConfigError: If there is no runtime, or this is the thread of a running event loop that the
                call would block: use `acall` there.
        """
        return self._dispatcher().run(self._operation(inputs))

    async def acall(self, **inputs: Any) -> Prediction:
        """The call, awaited; see `__call__` for arguments and errors."""
        return await self._dispatcher().arun(self._operation(inputs))

    def with_options(
        self,
        *,
        route: RouteName | None = None,
        timeout: float | None = None,
        demos: Sequence[Mapping[str, Any]] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> Self:
        """A copy of this module whose calls have these options, whatever the input fields are named.

        Raises:
            ConfigError: If an option is none.
        """
        if timeout is not None:
            timeout = check_seconds(timeout)
        twin = copy.copy(self)
        given = {"route": route, "timeout": timeout, "demos": demos, "config": config}
        twin._options = self._options | {name: value for name, value in given.items() if value is not None}
        return twin

    def _dispatcher(self) -> Dispatcher:
        return self._runtime or current_dispatcher()

    def _operation(self, inputs: dict[str, Any]) -> Operation:
        fields = self.signature.input_fields
        options = dict(self._options)
        for name in _OPTIONS:
            if name in inputs and name not in fields:
                options[name] = inputs.pop(name)
        inputs = {**self._defaults, **inputs}
        self.signature.validate_inputs(inputs, self.validate)
        timeout = options.get("timeout")
        if timeout is not None:
            timeout = check_seconds(timeout)
        demos = options.get("demos")
        return Operation(
            signature=self.signature,
            inputs=inputs,
            demos=self.demos if demos is None else list(demos),
            config={**self.config, **(options.get("config") or {})},
            route=options.get("route"),
            timeout=timeout,
            adapter=self.adapter,
            parsing=self.parsing,
        )

    def __repr__(self) -> str:
        return f"Predict({self.signature.text!r})"
