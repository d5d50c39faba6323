"""The adapters: one class per layout of messages, all over the same compiled plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, ClassVar, Final, Literal, NamedTuple, NoReturn, Self, get_args

from dspex import dialects
from dspex._callbacks import callbacks_of
from dspex._core import Plan, ReplyStream
from dspex._engine.described import Described
from dspex._engine.markers import Markers, check
from dspex._release import released
from dspex.errors import ConfigError, InputError, RouteError
from dspex.prediction import Repair
from dspex.signature import Signature

__all__ = [
    "Adapter",
    "AdapterLike",
    "ChatAdapter",
    "JSONAdapter",
    "Layout",
    "Markers",
    "Parsing",
    "Reply",
    "XMLAdapter",
]

Layout = Literal["chat", "json", "xml", "baml", "two_step"]
"""How fields are laid out in messages and replies; the last two in workers only."""

Parsing = Literal["tolerant", "dspy"]
"""How replies are read.

`"dspy"` accepts what DSPy accepts, its quirks included; `"tolerant"` also reads replies that nearly fit, and
lists what it did to read them.
"""


class Reply(NamedTuple):
    """A reply that has been read.

    Attributes:
        fields: The output fields, in the signature's order.
        repairs: What was done to the reply before it could be read; empty for a reply that DSPy accepts too.
    """

    fields: dict[str, Any]
    repairs: list[Repair]


class _Kept:
    """A plan, compiled again when a type in its signature describes itself differently."""

    def __init__(self, compile_plan: Callable[[], Plan]) -> None:
        self._compile = compile_plan
        self._renew()

    def _renew(self) -> None:
        with Described() as described:
            self._plan = self._compile()
        self._described = described

    def plan(self) -> Plan:
        if not self._described.still_holds():
            self._renew()
        return self._plan


@released
@lru_cache(maxsize=1024)
def _kept(layout: str, tolerant: bool, markers: Markers, dialect: str, signature: Signature) -> _Kept:
    return _Kept(partial(Plan, signature, layout, tolerant=tolerant, markers=markers, dialect=dialect))


class Adapter:
    """What the three adapters share.

    Args:
        parsing: How replies are read.
        markers: What becomes of values that hold field markers.
        dialect: The version of DSPy whose prompts are written, `"3.3"` or `"3.4"`; by default that of the
            installed DSPy, or the newest where there is none.
        use_native_function_calling: Whether the tools of a signature go into the request, and the calls of
            its answer into the field of the type `dspy.ToolCalls`; else both are text. See `docs/tools.md`.
        parallel_tool_calls: Whether the model is asked for several calls at once; None leaves it to the
            server.
        callbacks: Who hears when a call with this adapter lays out its messages and reads its replies; see
            `dspex.callbacks.BaseCallback`.

    Raises:
        ConfigError: If a setting is not one of those above.
    """

    layout: ClassVar[Layout]

    def __init__(
        self,
        *,
        parsing: Parsing = "tolerant",
        markers: Markers = "warn",
        dialect: str | None = None,
        use_native_function_calling: bool = False,
        parallel_tool_calls: bool | None = None,
        callbacks: Sequence[Any] | None = None,
    ) -> None:
        _check("parsing", parsing, get_args(Parsing))
        check(markers)
        for name, value, allowed in (
            ("use_native_function_calling", use_native_function_calling, (True, False)),
            ("parallel_tool_calls", parallel_tool_calls, (True, False, None)),
        ):
            if not any(value is one for one in allowed):
                raise ConfigError(
                    f"{name}={value!r} is not known",
                    code="adapter",
                    hint=f"use {' or '.join(map(repr, allowed))}",
                )
        self.use_native_function_calling = use_native_function_calling
        self.parallel_tool_calls = parallel_tool_calls
        self._callbacks = callbacks_of(callbacks)
        self.parsing = parsing
        self.markers = markers
        self.dialect = None if dialect is None else dialects.check(dialect)

    @property
    def callbacks(self) -> Sequence[Any]:
        """Who hears of the calls with this adapter."""
        return self._callbacks

    def __repr__(self) -> str:
        more = "" if self.dialect is None else f", dialect={self.dialect!r}"
        if self.use_native_function_calling:
            more += ", use_native_function_calling=True"
        if self.parallel_tool_calls is not None:
            more += f", parallel_tool_calls={self.parallel_tool_calls}"
        return f"{type(self).__name__}(parsing={self.parsing!r}, markers={self.markers!r}{more})"

    @staticmethod
    def of(adapter: AdapterLike, parsing: Parsing | None = None) -> Adapter:
        """The adapter that a setting names.

        Args:
            adapter: An adapter, or the name of a layout.
            parsing: How it is to read replies; by default as it does, or tolerantly.

        Raises:
            ConfigError: If there is no such adapter (`adapter`), or no such way of reading (`parsing`).
        """
        from dspex.adapters._remote import WORKER_ADAPTERS

        classes = {**ADAPTERS, **WORKER_ADAPTERS}
        if isinstance(adapter, Adapter):
            # A subclass would format in one way here and in another in a worker, which has DSPy's.
            known = type(adapter) in classes.values()
            made = adapter
        else:
            known = isinstance(adapter, str) and adapter in classes
            made = classes[adapter]() if known else ChatAdapter()
        if not known:
            raise ConfigError(
                f"adapter={adapter!r} is not known",
                code="adapter",
                hint='use "chat", "json", "xml", "baml", "two_step", or one of dspex\'s adapters',
            )
        return made if parsing is None else made.with_parsing(parsing)

    def with_parsing(self, parsing: Parsing) -> Self:
        """The same adapter with another way of reading replies.

        Raises:
            ConfigError: If there is no such way.
        """
        if parsing == self.parsing:
            return self
        return type(self)(
            parsing=parsing,
            markers=self.markers,
            dialect=self.dialect,
            use_native_function_calling=self.use_native_function_calling,
            parallel_tool_calls=self.parallel_tool_calls,
            callbacks=self._callbacks,
        )

    def __call__(self, /, *args: Any, **settings: Any) -> NoReturn:
        """What DSPy calls first; this is no adapter of DSPy's.

        Raises:
            ConfigError: Always (`adapter-of-dspex`).
        """
        name = type(self).__name__
        theirs = (
            f"dspex.dspy.{name}()" if type(self) in ADAPTERS.values() else "DSPy's own adapter of that name"
        )
        raise ConfigError(
            f"dspex.{name} lays out the prompts of dspex's modules, and DSPy cannot use it",
            code="adapter-of-dspex",
            hint=f"write dspy.configure(adapter={theirs})" if theirs.endswith(")") else f"use {theirs}",
        )

    acall = __call__

    def refusal(self) -> RouteError | None:
        """Why calls with this adapter cannot run natively; None where they can."""
        return None

    def compile(self, signature: Any, dialect: str | None = None) -> Plan:
        """The plan for a signature, compiled once and kept.

        Args:
            signature: A `dspex.Signature`, or anything `Signature.of` takes.
            dialect: The dialect where the adapter has none of its own; by default the installed DSPy's.

        Returns:
            A plan with `render(inputs, demos=(), history=None)` and `parse(reply)`, for the hot path.

        Raises:
            SignatureError: If it is no signature.
            ConfigError: If the installed DSPy is one that dspex does not know (`unknown-dspy`), and the
                adapter has no `dialect=`. So it is for the methods below.
        """
        if not isinstance(signature, Signature):
            signature = Signature.of(signature)
        dialect = self.dialect or dialect or dialects.required()
        return _kept(self.layout, self.parsing == "tolerant", self.markers, dialect, signature).plan()

    def format(
        self, signature: Any, demos: Iterable[Mapping[str, Any]], inputs: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """The messages of a call, as DSPy's adapter of the same name formats them.

        Args:
            signature: A `dspex.Signature`, or anything `Signature.of` takes.
            demos: Examples, each a mapping from field names to values. Those that lack a field come first;
                those that have no input or no output are left out.
            inputs: The inputs by field name. Names that the signature lacks are ignored, fields without a
                value left out.

        Returns:
            Messages with `role` and `content`. The content is text, or a list of blocks if a value is one.

        Raises:
            SignatureError: If it is no signature.
            InputError: If a value cannot be written, or holds a field marker where that is refused.
        """
        return self.compile(signature).render(inputs, demos)

    def parse(self, signature: Any, completion: str) -> dict[str, Any]:
        """The output fields of a reply, in the signature's order.

        Args:
            signature: A `dspex.Signature`, or anything `Signature.of` takes.
            completion: The model's reply.

        Raises:
            SignatureError: If it is no signature.
            ReplyError: If the reply lacks a field (`reply-missing-fields`) or a value is not of its field's
                type (`reply-field-value`); the attributes `reply`, `fields` and `field` say more.
        """
        return self.read(signature, completion).fields

    def read(self, signature: Any, completion: str) -> Reply:
        """Like `parse`, with what was done to the reply before it could be read.

        Args:
            signature: A `dspex.Signature`, or anything `Signature.of` takes.
            completion: The model's reply.

        Raises:
            SignatureError: If it is no signature.
            ReplyError: If the reply lacks a field or a value is not of its field's type.
        """
        if not isinstance(completion, str):
            raise InputError(f"a reply is a str, not {type(completion).__name__}", code="reply-type")
        return Reply(*self.compile(signature).read(completion))

    def stream(self, signature: Any) -> ReplyStream:
        """A reader for one reply that comes in piece by piece.

        Its `feed(piece)` takes bytes, cut anywhere, or text, and gives the events that are sure by now:
        `FieldStart`, `TextDelta`, `PartialValue`, `FieldEnd`, all in `dspex.events`. `finish()`
        gives what was still held back, and `read()` then what `read` gives for the whole reply.

        Args:
            signature: A `dspex.Signature`, or anything `Signature.of` takes.

        Raises:
            SignatureError: If it is no signature.
        """
        return self.compile(signature).stream()


def _check(setting: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        names = " or ".join(map(repr, known))
        raise ConfigError(f"{setting}={value!r} is not known", code=setting, hint=f"use {names}")


class ChatAdapter(Adapter):
    """Fields under headers of the form `[[ ## name ## ]]`: DSPy's default."""

    layout = "chat"


class JSONAdapter(Adapter):
    """Inputs under headers, outputs as one JSON object."""

    layout = "json"


class XMLAdapter(Adapter):
    """Each value between tags of its name; lists and mappings in outputs as nested elements."""

    layout = "xml"


ADAPTERS: Final[Mapping[str, type[Adapter]]] = {
    cls.layout: cls for cls in (ChatAdapter, JSONAdapter, XMLAdapter)
}
"""The adapters by the names of their layouts."""

AdapterLike = Layout | Adapter
"""An adapter, or its name: `"chat"`, `"json"`, `"xml"`, `"baml"`, `"two_step"`."""
