"""Every error dspex raises, as one tree.

::

    DspexError
    ├── ConfigError             a setting, an LM name or a pool specification is wrong
    ├── TextError               a text that dspex reads has a mistake, and a place where it is
    │   ├── SignatureError      the text or the fields of a signature could not be read
    │   └── TemplateError       a template could not be compiled, or not rendered with these values
    ├── InputError              the inputs of a call do not fit the signature
    ├── RouteError              no target can serve the call as it was asked for
    ├── ReplyError              the LM's reply could not be read as the output fields
    ├── LMError
    │   ├── LMAuthError         the key is missing or was refused
    │   ├── LMRequestError      the server says the request is wrong (other 4xx)
    │   ├── LMRateLimitError    429, with the server's retry-after if it gave one
    │   ├── LMServerError       5xx
    │   ├── LMConnectionError   no connection, or it broke
    │   ├── LMTimeoutError      no answer in time
    │   └── LMResponseError     an answer that is not a chat completion
    ├── PoolError
    │   ├── PoolClosedError     the pool is not open
    │   ├── PoolSaturated       the queue is full
    │   ├── WorkerStartError    a worker did not become ready
    │   ├── WorkerDiedError     the worker died while it held the call
    │   └── WireError           bytes on the wire that are not a frame
    ├── DeadlineExceeded        the call's time ran out
    └── RemoteError             the program in the worker raised

Each class has a stable ``code`` for programs, a ``category`` that says who must act, and ``retryable``;
each instance a ``hint`` that says what to do. All of them survive pickling and the wire.

`DialectWarning` stands beside the tree: nothing has gone wrong yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "Category",
    "ConfigError",
    "DeadlineExceeded",
    "DialectWarning",
    "DspexError",
    "InputError",
    "LMAuthError",
    "LMConnectionError",
    "LMError",
    "LMRateLimitError",
    "LMRequestError",
    "LMResponseError",
    "LMServerError",
    "LMTimeoutError",
    "PoolClosedError",
    "PoolError",
    "PoolSaturated",
    "RemoteError",
    "ReplyError",
    "RouteError",
    "SignatureError",
    "TemplateError",
    "TextError",
    "WireError",
    "WorkerDiedError",
    "WorkerStartError",
]

Category = Literal["caller", "transient", "timeout", "resource", "remote", "internal"]
"""Who must act: the caller, nobody (it passes), whoever set the deadline, the operator, the program, us."""


class DspexError(Exception):
    """The root of the tree; catch it to catch everything dspex raises on purpose.

    Args:
        message: What happened, in one sentence.
        code: A stable, kebab-case code, when it is finer than the class's own.
        hint: What to do about it.
        details: Facts for programs, plain values only: they cross the wire and may be logged, so never
            put a secret here. Each is an attribute too, so a name may not be one of an exception's own.
    """

    code: str = "error"
    category: ClassVar[Category] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, code: str | None = None, hint: str = "", **details: Any) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        self.hint = hint
        self.details = details

    def __getattr__(self, name: str) -> Any:
        # Only for names that are not there otherwise. `details` itself is missing while unpickling.
        details: dict[str, Any] = self.__dict__.get("details", {})
        if name in details:
            return details[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]" + (f"\n  hint: {self.hint}" if self.hint else "")

    def __reduce__(self) -> tuple[Any, ...]:
        return (
            _rebuild,
            (type(self), self.to_dict()),
            {"__cause__": self.__cause__, "__notes__": _notes(self)},
        )

    def __setstate__(self, state: dict[str, Any] | None) -> None:
        if not state:
            return
        self.__cause__ = state.get("__cause__")
        for note in state.get("__notes__", ()):
            self.add_note(note)

    def to_dict(self) -> dict[str, Any]:
        """The error as plain data: what crosses the wire and what a log record carries."""
        return {
            "class": type(self).__name__,
            "message": self.message,
            "code": self.code,
            "hint": self.hint,
            "details": dict(self.details),
        }

    @classmethod
    def _make(cls, data: dict[str, Any]) -> Self:
        return cls(data["message"], code=data["code"], hint=data["hint"], **data["details"])


def _notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", ()))


def _rebuild(cls: type[DspexError], data: dict[str, Any]) -> DspexError:
    return cls._make(data)


def from_dict(data: dict[str, Any]) -> DspexError:
    """The error that `DspexError.to_dict` described; an unknown class becomes `RemoteError`.

    Raises:
        KeyError: If `data` is not what `to_dict` writes.
    """
    cls = _classes().get(data["class"])
    if cls is None:
        return RemoteError(data["message"], hint=data["hint"], type=data["class"])
    return cls._make(data)


def _classes() -> dict[str, type[DspexError]]:
    found: dict[str, type[DspexError]] = {}
    waiting: list[type[DspexError]] = [DspexError]
    while waiting:
        cls = waiting.pop()
        found[cls.__name__] = cls
        waiting.extend(cls.__subclasses__())
    return found


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """A question for a hint, with the known name that is nearest to `given`; or nothing."""
    import difflib  # a mistake can wait for it, the import of the package cannot

    near = difflib.get_close_matches(given, list(known), n=1)
    return f"did you mean {near[0]!r}? " if near else ""


class ConfigError(DspexError):
    """A setting is wrong: an unknown name, a value out of range, a key that is not there."""

    code = "config"
    category = "caller"


class TextError(DspexError):
    """A text that dspex reads has a mistake.

    Attributes:
        source: The text that was read.
        span: Where the mistake is, as character offsets `(start, end)` into `source`; None when it has no
            place there.
    """

    code = "text"
    category = "caller"

    @property
    def source(self) -> str:
        """The text that was read."""
        return str(self.details.get("source", ""))

    @property
    def span(self) -> tuple[int, int] | None:
        """Character offsets of the mistake in `source`."""
        span = self.details.get("span")
        return None if span is None else (span[0], span[1])

    def __str__(self) -> str:
        head, _, hint = super().__str__().partition("\n")
        frame = caret_frame(self.source, self.span) if self.span is not None else ""
        return "\n".join(part for part in (head, frame, hint) if part)


class SignatureError(TextError):
    """The text or the fields of a signature could not be read; without a span if it was not made of text."""

    code = "signature"


class TemplateError(TextError):
    """A template could not be compiled, or not rendered with the values it was given."""

    code = "template"


def caret_frame(source: str, span: tuple[int, int]) -> str:
    """The line of `source` that holds the span, with carets under it, indented by two spaces.

    Args:
        source: The whole text.
        span: Character offsets `(start, end)`; an empty span gets one caret.
    """
    start, end = span
    line_start = source.rfind("\n", 0, start) + 1
    line_end = source.find("\n", start)
    line = source[line_start : len(source) if line_end < 0 else line_end]
    carets = "^" * max(1, min(end, line_start + len(line)) - start)
    # Tabs keep their width under themselves, so that the caret stands where the eye expects it.
    margin = "".join("\t" if c == "\t" else " " for c in line[: start - line_start])
    return f"  {line}\n  {margin}{carets}"


class InputError(DspexError):
    """The inputs of a call do not fit the signature: missing, unknown or of the wrong type."""

    code = "input"
    category = "caller"


class RouteError(DspexError):
    """No target can serve the call as it was asked for."""

    code = "route"
    category = "caller"


class ReplyError(DspexError):
    """The LM's reply could not be read as the signature's output fields.

    Attributes:
        reply: The reply, as it came.
        fields: Names of the fields that could be read.
        field: The field whose value is none of its type; None or absent where that is not what is wrong.
    """

    code = "reply"
    category = "remote"

    @classmethod
    def empty(cls) -> Self:
        """The error for a reply without any text."""
        return cls(
            "the model's reply is empty",
            code="reply-empty",
            hint="look at why it stopped: a filter, or `max_tokens` used up before it wrote anything",
            reply="",
            fields=[],
        )


class LMError(DspexError):
    """A call to the language model failed."""

    code = "lm"
    category: ClassVar[Category] = "remote"


class LMAuthError(LMError):
    """The key is missing, or the server refused it (401, 403)."""

    code = "lm-auth"
    category = "caller"


class LMRequestError(LMError):
    """The server says that the request is wrong (4xx other than 401, 403, 408 and 429)."""

    code = "lm-request"
    category = "caller"


class LMRateLimitError(LMError):
    """Too many requests (429); `retry_after` is the server's wish in seconds, or None."""

    code = "lm-rate-limit"
    category = "transient"
    retryable = True


class LMServerError(LMError):
    """The server failed (5xx)."""

    code = "lm-server"
    category = "transient"
    retryable = True


class LMConnectionError(LMError):
    """No connection could be made, or it broke before the answer was whole."""

    code = "lm-connection"
    category = "transient"
    retryable = True


class LMTimeoutError(LMError):
    """The server did not answer in time."""

    code = "lm-timeout"
    category = "timeout"
    retryable = True


class LMResponseError(LMError):
    """The server's answer is not a chat completion: broken JSON, or parts missing."""

    code = "lm-response"
    category = "remote"


class PoolError(DspexError):
    """A pool of workers could not do its part."""

    code = "pool"
    category: ClassVar[Category] = "resource"


class PoolClosedError(PoolError):
    """The pool is not open: not yet, or no longer."""

    code = "pool-closed"
    category = "caller"


class PoolSaturated(PoolError):  # noqa: N818 - the name of a state, as the field writes it
    """The pool's queue is full; nothing of the call has been done."""

    code = "pool-saturated"
    category = "transient"
    retryable = True


class WorkerStartError(PoolError):
    """A worker did not become ready: it exited, or said nothing in time."""

    code = "worker-start"


class WorkerDiedError(PoolError):
    """The worker died while it held the call, which may or may not have had its effect."""

    code = "worker-died"
    category = "transient"
    retryable = True


class WireError(PoolError):
    """Bytes on the wire that are not a frame, or a frame beyond the limits."""

    code = "wire"
    category = "internal"


class DeadlineExceeded(DspexError):  # noqa: N818 - the field's name for it
    """The call's time ran out."""

    code = "deadline-exceeded"
    category = "timeout"
    retryable = True


class RemoteError(DspexError):
    """The program in the worker raised; `type` is the class's name and `traceback` the text from there."""

    code = "remote"
    category = "remote"


class DialectWarning(UserWarning):
    """DSPy is of a version whose prompts dspex does not know, or not of the one whose prompts are written."""
