"""`Predict`: one signature, one LM call."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Never, Self

from dspex import _callbacks
from dspex._needs import of_adapter, of_model
from dspex.adapters import Adapter, AdapterLike, Parsing
from dspex.errors import DspexError
from dspex.modules._arguments import (
    OWN,
    OwnModel,
    check_names,
    check_runtime,
    lm_of,
    mapping_of,
    options_of,
    positional,
    rows_of,
)
from dspex.modules._module import Module
from dspex.modules._scope import in_scope, says_nothing
from dspex.modules._tree import PredictorNode
from dspex.prediction import Prediction
from dspex.router import Dispatcher, Operation, RouteName, Strategy, current_dispatcher, dispatcher_here
from dspex.signature import Signature, SignatureLike, Validation

if TYPE_CHECKING:
    from typing import Unpack

    from dspex._request_settings import RequestSettings
    from dspex.lm import LanguageModel
    from dspex.router import Call

__all__ = ["Predict"]

_OPTIONS = ("route", "strategy", "timeout", "demos", "config", "lm")

_SHARED = ("_runtime", "_lm", "_known_model", "_adapter", "_options", "_origin", "_signature")
"""What copies share: values, and what owns connections."""


class Predict(OwnModel, Module, PredictorNode):
    """Maps inputs to outputs by one LM call, like `dspy.Predict`.

    A call runs on the Rust core or, with `route="python"`, as the real `dspy.Predict` in a worker
    process: same messages, same fields.

    Args:
        signature: What goes in and what comes out: text, a `dspex.Signature`, or anything that
            `Signature.of` takes.
        callbacks: Who hears of this module's calls; see `dspex.callbacks.BaseCallback`.
        demos: Few-shot examples: mappings of field names to values, or examples of DSPy's.
        lm: The language model to ask, as for `Runtime`; by default the runtime's.
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
        ConfigError: If there is no such language model, no such adapter, no such way of reading, or a setting
            is a slip.

    Example:
        ```python
        qa = dspex.Predict("question, context: list[str] -> answer: str, confidence: float")
        qa(question="Who wrote it?", context=["Ada wrote it."]).answer
        ```
    """

    def __init__(
        self,
        signature: SignatureLike,
        callbacks: Sequence[Any] | None = None,
        *,
        demos: Sequence[Mapping[str, Any]] | None = (),
        lm: str | LanguageModel | None = None,
        runtime: Dispatcher | None = None,
        validate: Validation = "strict",
        adapter: AdapterLike | None = None,
        parsing: Parsing | None = None,
        **config: Unpack[RequestSettings],
    ) -> None:
        Module.__init__(self, callbacks)
        self._take(Signature.of(signature))
        self._origin: Predict | None = None
        self.validate = validate
        self._demos = rows_of(demos)
        check_names(config, type(self).__name__, OWN)
        self.config: dict[str, Any] = {**config}
        chosen = Adapter.of("chat" if adapter is None else adapter, parsing)
        self._adapter = None if adapter is None else chosen
        self._adapter_needs = 0 if adapter is None else of_adapter(chosen)
        self.parsing = parsing
        check_runtime(runtime)
        self._runtime = runtime
        self._lm = lm_of(lm)
        self._known_model: tuple[Any, int] = (None, 0)

    @property
    def signature(self) -> Signature:
        """What goes in and what comes out."""
        return self._signature

    @signature.setter
    def signature(self, signature: SignatureLike) -> None:
        self._take(Signature.of(signature))

    def _take(self, signature: Signature) -> None:
        self._signature = signature
        self._defaults = signature.input_defaults()
        self._names = frozenset(signature.input_fields)

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
        self._adapter_needs = 0 if self._adapter is None else of_adapter(self._adapter)

    def __call__(self, /, *args: Never, **inputs: Any) -> Prediction:
        """Run the call and wait for its prediction.

        Args:
            *args: None: inputs are given by name.
            **inputs: A value for each input field. Seven more names are options unless the signature has
                an input field of that name (then use `with_options`): `route` (`"native"`, `"python"` or
                a target's name), `strategy` (the order of targets), `timeout` (seconds for the whole call),
                `demos`, `lm` and `signature` (instead of the module's own), and `config` (on top of the
                module's own). As in DSPy, `prediction={"type": "content", ...}` is a setting of the LM.

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
        if _callbacks.given and (heard_by := self._heard_by()):
            return self._heard(heard_by, args, inputs)  # type: ignore[no-any-return]
        return self._unheard(args, inputs)

    def _unheard(self, args: tuple[Any, ...], inputs: dict[str, Any]) -> Prediction:
        operation = self._operation(inputs)
        if operation.sink is None:
            return self._dispatcher().run(operation)
        try:
            return self._dispatcher().run(operation)
        except DspexError:
            operation.sink.check()  # a call that was cancelled for a reader that left says so
            raise

    async def acall(self, /, *args: Never, **inputs: Any) -> Prediction:
        """The call, awaited; see `__call__` for arguments and errors."""
        if args:
            raise positional(args, self.signature.input_fields)
        if _callbacks.given and (heard_by := self._heard_by()):
            return await self._heard_awaited(heard_by, args, inputs)  # type: ignore[no-any-return]
        return await self._dispatcher().arun(self._operation(inputs))

    _begin_stands_for = acall

    def begin_row(self, inputs: dict[str, Any]) -> Call | None:
        """Begin the call for a batch, which asks and finishes it; None where it is to be awaited whole."""
        begin = getattr(self._dispatcher(), "begin", None)
        if begin is None or (_callbacks.given and self._heard_by()):
            return None
        call: Call | None = begin(self._operation(inputs))
        return call

    async def _unheard_awaited(self, args: tuple[Any, ...], inputs: dict[str, Any]) -> Prediction:
        return await self._dispatcher().arun(self._operation(inputs))

    def with_options(
        self,
        *,
        route: RouteName | None = None,
        strategy: Strategy | None = None,
        timeout: float | None = None,
        demos: Sequence[Mapping[str, Any]] | None = None,
        config: Mapping[str, Any] | None = None,
        lm: str | LanguageModel | None = None,
        idempotent: bool | None = None,
        stream_fields: Sequence[str] | None = None,
    ) -> Self:
        """A copy of this module whose calls have these options, whatever the input fields are named.

        Args:
            route: `"native"`, `"python"` or a target's name.
            strategy: In which order targets are considered, in the place of the runtime's.
            timeout: Seconds for the whole call.
            demos: Instead of the module's own.
            config: On top of the module's own.
            lm: Instead of the module's own.
            idempotent: Whether a worker may ask the LM again when the worker that was at it is ended for
                another call's fault. False unless given: nothing is asked twice in silence.
                `prediction.attempts` lists them.
            stream_fields: The output fields whose events its streams have; None for all.

        Raises:
            InputError: If the demos are none.
            ConfigError: If another option is none.
        """
        twin = copy.copy(self)
        given = options_of(
            route=route,
            strategy=strategy,
            timeout=timeout,
            demos=demos,
            config=config,
            lm=lm,
            idempotent=idempotent,
            stream_fields=stream_fields,
        )
        twin._options = {**self._options, **given}
        twin._origin = self.origin
        return twin

    @property
    def origin(self) -> Predict:
        """The predictor that `with_options` has made this one of, else itself: streams know it by that."""
        return self._origin or self

    def update_config(self, **config: Unpack[RequestSettings]) -> None:
        """Set settings for the LM of every call, beside those that are set already; as `**config` above.

        Raises:
            ConfigError: If one is a slip.
        """
        check_names(config, type(self).__name__, OWN)
        self.config = {**self.config, **config}

    def get_config(self) -> dict[str, Any]:
        """The settings for the LM of every call."""
        return self.config

    def reset(self) -> None:
        """Forget the demos and the language model, as `dspy.Predict.reset` does."""
        self._demos = []
        self._lm = None

    def _dispatcher(self) -> Dispatcher:
        return self._runtime or current_dispatcher()

    def _runs_on(self) -> Dispatcher | None:
        return self._runtime or dispatcher_here()

    def operation(self, /, **inputs: Any) -> Operation:
        """What a call with these inputs and options would have a runtime do; see `Runtime.explain`.

        Raises:
            InputError: As the call.
        """
        return self._operation(inputs)

    def _operation(self, inputs: dict[str, Any]) -> Operation:
        signature, defaults, options = self._signature, self._defaults, self._options
        predicted: dict[str, Any] | None = None
        own = inputs.keys() <= self._names
        if own and not options and self._lm is None and says_nothing():  # as most calls are made
            if defaults:
                inputs = {**defaults, **inputs}
            signature.validate_inputs(inputs, self.validate)
            return Operation(
                signature=signature,
                inputs=inputs,
                demos=self._demos,
                config=self.config,
                adapter=self._adapter,
                parsing=self.parsing,
                needs=self._adapter_needs,
            )
        if not own:  # options are among them, or what validation will name
            options = dict(options)
            if "signature" in inputs and "signature" not in self._names:
                signature = Signature.of(inputs.pop("signature"))
                defaults = signature.input_defaults()
            fields = signature.input_fields
            for name in _OPTIONS:
                if name in inputs and name not in fields:
                    options[name] = inputs.pop(name)
            if (
                "prediction" in inputs
                and "prediction" not in fields
                and _is_predicted_output(inputs["prediction"])
            ):
                predicted = {"prediction": inputs.pop("prediction")}
        config: dict[str, Any] = self.config
        if (given := options.get("config")) is not None:
            config = {**config, **mapping_of(given)}
        if predicted is not None:
            config = {**config, **predicted}
        inputs = {**defaults, **inputs}
        signature.validate_inputs(inputs, self.validate)
        timeout, route, idempotent, settings, listener, strategy = in_scope(options)
        if settings:
            config = {**settings, **config}
        sink = None if listener is None else listener.sink_of(self, signature)
        demos = options.get("demos")
        lm = lm_of(options["lm"]) if options.get("lm") is not None else self._lm
        needs = self._adapter_needs
        if lm is not None:
            if lm is not self._known_model[0]:
                self._known_model = lm, of_model(lm)
            needs |= self._known_model[1]
        return Operation(
            signature=signature,
            inputs=inputs,
            demos=self._demos if demos is None else rows_of(demos),
            config=config,
            route=route,
            timeout=timeout,
            idempotent=idempotent,
            adapter=self._adapter,
            parsing=self.parsing,
            lm=lm,
            sink=sink,
            strategy=strategy,
            needs=needs,
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = copy.copy(self)
        twin._origin = None
        memo[id(self)] = twin
        for name, value in vars(self).items():
            if name not in _SHARED:
                setattr(twin, name, copy.deepcopy(value, memo))
        return twin

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._signature.text!r})"


def _is_predicted_output(value: Any) -> bool:
    """Whether a value is OpenAI's form of a predicted output, which DSPy hands to the LM."""
    return isinstance(value, dict) and value.get("type") == "content" and "content" in value
