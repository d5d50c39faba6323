"""`Predict`: one signature, one LM call."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Never, Self

from dspex._settings import check_idempotent
from dspex._timeouts import check_seconds
from dspex.adapters import Adapter, AdapterLike, Parsing
from dspex.modules._arguments import OWN, check_names, check_runtime, mapping_of, positional, rows_of
from dspex.prediction import Prediction
from dspex.router import Dispatcher, Operation, RouteName, current_dispatcher
from dspex.signature import Signature, SignatureLike, Validation

if TYPE_CHECKING:
    from typing import Unpack

    from dspex._request_settings import RequestSettings

__all__ = ["Predict"]

_OPTIONS = ("route", "timeout", "demos", "config")


class Predict:
    """Maps inputs to outputs by one LM call, like `dspy.Predict`.

    A call runs on the Rust core or, with `route="python"`, as the real `dspy.Predict` in a worker
    process: same messages, same fields.

    Args:
        signature: What goes in and what comes out: text, a `dspex.Signature`, or anything that
            `Signature.of` takes.
        demos: Few-shot examples: mappings of field names to values, or examples of DSPy's.
        runtime: What runs the calls; by default the runtime current at each call.
        validate: What to do about inputs that do not fit the signature: `"strict"` raises, `"warn"` logs a
            warning and goes on as DSPy does, `"off"` does not look.
        adapter: How prompts are laid out and replies read: `"chat"`, `"json"`, `"xml"`, or an adapter of
            dspex's; by default the runtime's. Calls with `"baml"` or `"two_step"` go to a worker.
        parsing: How replies are read: `"tolerant"` or `"dspy"`; by default as the adapter does it.
        **config: Settings for the LM that override its own, as in DSPy (`temperature=0.5`, `n=3`); see
            `dspex.lm.RequestSettings`. A name that nearly is one of the above or of those is refused; others
            go to the server.

    Raises:
        SignatureError: If the signature cannot be read.
        InputError: If the demos are none.
        ConfigError: If there is no such adapter, no such way of reading, or a setting is a slip.

    Example:
        ```python
        qa = dspex.Predict("question, context: list[str] -> answer: str, confidence: float")
        qa(question="Who wrote it?", context=["Ada wrote it."]).answer
        ```
    """

    _own: ClassVar[frozenset[str]] = OWN

    def __init__(
        self,
        signature: SignatureLike,
        *,
        demos: Sequence[Mapping[str, Any]] | None = (),
        runtime: Dispatcher | None = None,
        validate: Validation = "strict",
        adapter: AdapterLike | None = None,
        parsing: Parsing | None = None,
        **config: Unpack[RequestSettings],
    ) -> None:
        self.signature = Signature.of(signature)
        self.validate = validate
        self._defaults = self.signature.input_defaults()
        self._demos = rows_of(demos)
        check_names(config, type(self).__name__, self._own)
        self.config = config
        chosen = Adapter.of("chat" if adapter is None else adapter, parsing)
        self._adapter = None if adapter is None else chosen
        self.parsing = parsing
        check_runtime(runtime)
        self._runtime = runtime
        self._options: dict[str, Any] = {}

    @property
    def demos(self) -> list[Mapping[str, Any]]:
        """The few-shot examples of every call."""
        return self._demos

    @demos.setter
    def demos(self, demos: Sequence[Mapping[str, Any]] | None) -> None:
        self._demos = rows_of(demos)

    @property
    def adapter(self) -> Adapter | None:
        """The adapter of every call; None for the runtime's."""
        return self._adapter

    @adapter.setter
    def adapter(self, adapter: AdapterLike | None) -> None:
        self._adapter = None if adapter is None else Adapter.of(adapter)

    def __call__(self, /, *args: Never, **inputs: Any) -> Prediction:
        """Run the call and wait for its prediction.

        Args:
            *args: None: inputs are given by name.
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
        if args:
            raise positional(args, self.signature.input_fields)
        return self._dispatcher().run(self._operation(inputs))

    async def acall(self, /, *args: Never, **inputs: Any) -> Prediction:
        """The call, awaited; see `__call__` for arguments and errors."""
        if args:
            raise positional(args, self.signature.input_fields)
        return await self._dispatcher().arun(self._operation(inputs))

    def with_options(
        self,
        *,
        route: RouteName | None = None,
        timeout: float | None = None,
        demos: Sequence[Mapping[str, Any]] | None = None,
        config: Mapping[str, Any] | None = None,
        idempotent: bool | None = None,
    ) -> Self:
        """A copy of this module whose calls have these options, whatever the input fields are named.

        Args:
            route: `"native"`, `"python"` or a target's name.
            timeout: Seconds for the whole call.
            demos: Instead of the module's own.
            config: On top of the module's own.
            idempotent: Whether a worker may ask the LM again when the worker that was at it is ended for
                another call's fault. False unless given: nothing is asked twice in silence.
                `prediction.attempts` counts.

        Raises:
            InputError: If the demos are none.
            ConfigError: If another option is none.
        """
        twin = copy.copy(self)
        twin._options = self._options | {
            name: value
            for name, value in (
                ("route", route),
                ("timeout", None if timeout is None else check_seconds(timeout)),
                ("demos", None if demos is None else rows_of(demos)),
                ("config", None if config is None else mapping_of(config)),
                ("idempotent", None if idempotent is None else check_idempotent(idempotent)),
            )
            if value is not None
        }
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
        demos, config = options.get("demos"), options.get("config")
        return Operation(
            signature=self.signature,
            inputs=inputs,
            demos=self._demos if demos is None else rows_of(demos),
            config=self.config if config is None else {**self.config, **mapping_of(config)},
            route=options.get("route"),
            timeout=timeout,
            idempotent=options.get("idempotent", False),
            adapter=self._adapter,
            parsing=self.parsing,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.signature.text!r})"
