"""Every error dspex raises, as one tree.

::

    DspexError
    ├── ConfigError             a setting, an LM name or a pool specification is wrong
    ├── TextError               a text that dspex reads has a mistake, and a place where it is
    │   ├── SignatureError      the text or the fields of a signature could not be read; a ValueError too
    │   └── TemplateError       a template could not be compiled, or not rendered with these values
    ├── InputError              the inputs of a call do not fit the signature
    ├── RouteError              no target can serve the call as it was asked for
    ├── TargetsUnavailable      what could serve the call is failing or full
    ├── ReplyError              the LM's reply could not be read as the output fields
    ├── LMError
    │   ├── LMAuthError         the key is missing or was refused
    │   ├── LMRequestError      the server refused the request (other 4xx)
    │   ├── LMRateLimitError    429, with the server's retry-after if it gave one
    │   ├── LMServerError       5xx
    │   ├── LMUnavailable       no deployment of a group takes calls
    │   ├── LMConnectionError   no connection, or it broke
    │   ├── LMTimeoutError      no answer in time
    │   └── LMResponseError     an answer that is not a chat completion
    ├── PoolError
    │   ├── PoolClosedError     the pool is not open
    │   ├── PoolSaturated       the queue is full
    │   ├── WorkerStartError    a worker did not become ready
    │   ├── WorkerDiedError     the worker died while it held the call
    │   └── WireError           bytes on the wire that are not a frame
    ├── PipelineError           the steps of a pipeline do not fit together
    ├── PipelineChanged         a run was begun by a pipeline with other steps
    ├── StoreError              what is to be kept could not be
    │   ├── RunBusy             another owner has the run
    │   ├── RunNotFound         there is no such run
    │   ├── RunExists           there is one of that name already
    │   ├── LeaseLost           somebody else has taken the run over
    │   └── TooManyResumes      it has been resumed as often as it may be
    ├── SessionError            a session could not be used
    │   ├── SessionBusy         another host has it, or too many of its calls wait
    │   ├── SessionNotFound     there is no such session, or its time is over
    │   ├── SessionExists       there is one of that name already
    │   ├── SessionMoved        another host has taken it over
    │   ├── SessionQuotaExceeded  the pool or the user has as many as it may have
    │   ├── StateConflict       somebody else wrote the value meanwhile
    │   └── HandleLost          an object in the session's worker is gone
    ├── BatchError              so many rows of a batch failed that it stopped
    ├── DeadlineExceeded        the call's time ran out
    └── RemoteError             the program in the worker raised

Each error has a stable ``code`` for programs, a ``category`` that says who must act, ``retryable``, the
``http_status`` that a service may answer with, and a ``hint`` that says what to do; ``earlier`` has the
attempts of the call before the one that raised it, in their order. What else a class knows,
its fields, are attributes that it declares; a field that was not given has its default. All errors survive
pickling and the wire.

`DialectWarning` stands beside the tree: nothing has gone wrong yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dspex.prediction import Attempt

__all__ = [
    "BatchError",
    "Category",
    "ConfigError",
    "DeadlineExceeded",
    "DialectWarning",
    "DspexError",
    "HandleLost",
    "InputError",
    "LMAuthError",
    "LMConnectionError",
    "LMError",
    "LMRateLimitError",
    "LMRequestError",
    "LMResponseError",
    "LMServerError",
    "LMTimeoutError",
    "LMUnavailable",
    "LeaseLost",
    "PipelineChanged",
    "PipelineError",
    "PoolClosedError",
    "PoolError",
    "PoolSaturated",
    "RemoteError",
    "ReplyError",
    "RouteError",
    "RunBusy",
    "RunExists",
    "RunNotFound",
    "SessionBusy",
    "SessionError",
    "SessionExists",
    "SessionMoved",
    "SessionNotFound",
    "SessionQuotaExceeded",
    "SignatureError",
    "StateConflict",
    "StoreError",
    "TargetsUnavailable",
    "TemplateError",
    "TextError",
    "TooManyResumes",
    "WireError",
    "WorkerDiedError",
    "WorkerStartError",
]

Category = Literal["caller", "operator", "transient", "timeout", "resource", "remote", "internal"]
"""Who must act.

- `caller`: whoever made the call: its inputs, its texts or its options are wrong, others would do.
- `operator`: whoever set the service up: a setting, a key, a pool or the way the runtime is used is wrong,
  and no other inputs would help.
- `transient`: nobody, it passes.
- `timeout`: whoever set the time limit, if it is too short.
- `resource`: the operator, who may have given too little: a pool has no worker.
- `remote`: the model or the program that was run; what it did cannot be used.
- `internal`: the authors of dspex.
"""


class DspexError(Exception):
    """The root of the tree; catch it to catch everything dspex raises on purpose.

    A subclass declares what else it knows as annotated attributes with defaults, its fields::

        class QuotaError(DspexError):
            tenant: str = ""

    Fields hold plain values only: they cross the wire and may be logged, so never put a secret there.

    Args:
        message: What happened, in one sentence.
        code: A stable, kebab-case code, when it is finer than the class's own.
        hint: What to do about it.
        retryable: Whether the same call may be made again, where this error knows better than its class.
        fields: Values of declared fields.

    Raises:
        TypeError: If the class declares no field of that name, which is a mistake of whoever raises.
    """

    code: str = "error"
    earlier: Sequence[Attempt] = ()
    category: Category = "internal"
    retryable: bool = False
    http_status: int = 500
    public_message: ClassVar[str] = "The service failed."
    """What `to_public_dict` gives in place of the message."""

    _fields: ClassVar[tuple[str, ...]] = ()

    _stages: Sequence[Any] = ()
    """What a worker had done before it raised it, for telemetry; it stays in this process."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Fields alone: what every error has, and what is the class's and not an instance's, are none.
        own = [
            name
            for name, kind in getattr(cls, "__annotations__", {}).items()
            if name not in DspexError.__annotations__ and "ClassVar" not in str(kind)
        ]
        bare = [name for name in own if not hasattr(cls, name)]
        if bare:
            raise TypeError(f"{cls.__name__} declares fields without a default: {', '.join(bare)}")
        cls._fields = tuple(dict.fromkeys((*cls._fields, *own)))

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str = "",
        retryable: bool | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code
        if self.code in _BY_CODE:
            self.category, self.http_status = _BY_CODE[self.code]
            # What somebody must change first will not be otherwise the next time.
            self.retryable = self.retryable and self.category not in ("caller", "operator")
        if retryable is not None:
            self.retryable = retryable
        for name, value in fields.items():
            if name not in self._fields:
                known = ", ".join(self._fields) or "none"
                raise TypeError(f"{type(self).__name__} declares no field {name!r}; it has: {known}")
            setattr(self, name, value)
        self._unknown: dict[str, Any] = {}

    @property
    def details(self) -> dict[str, Any]:
        """The fields that were given, by name; with those that only a worker of another version knows."""
        given = self.__dict__
        return {name: given[name] for name in self._fields if name in given} | self._unknown

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]" + (f"\n  hint: {self.hint}" if self.hint else "")

    def __reduce__(self) -> tuple[Any, ...]:
        return (
            _rebuild,
            (type(self), self.to_dict()),
            {"__cause__": self.__cause__, "__notes__": _notes(self), "earlier": self.earlier},
        )

    def __setstate__(self, state: dict[str, Any] | None) -> None:
        if not state:
            return
        self.__cause__ = state.get("__cause__")
        if state.get("earlier"):
            self.earlier = state["earlier"]
        for note in state.get("__notes__", ()):
            self.add_note(note)

    def to_dict(self) -> dict[str, Any]:
        """The error as plain data: what crosses the wire and what a log record carries."""
        return {
            "class": type(self).__name__,
            "message": self.message,
            "code": self.code,
            "hint": self.hint,
            "retryable": self.retryable,
            "details": self.details,
        }

    def to_public_dict(self) -> dict[str, Any]:
        """What a client of the service may be shown: plain data that holds nothing of the service's own.

        The message is a fixed sentence for the code or the class, and of the fields only those are there that
        are the client's own or say when to come again. An address, a path, a process, the words of a model's
        server, a reply, a remote traceback or a worker's output are never part of it.

        Returns:
            `class`, `code`, `category`, `message`, `retryable`, `details`.
        """
        from dspex import error_codes

        bases = (base for base in type(self).__mro__ if issubclass(base, DspexError))
        cls = next(base for base in bases if base.__module__ == __name__)
        row = error_codes.find(self.code)
        return {
            "class": cls.__name__,
            "code": cls.code if row is None else row.code,
            "category": self.category,
            "message": row.cause if row is not None and self.category == "caller" else self.public_message,
            "retryable": self.retryable,
            "details": self._public_details(),
        }

    def _public_details(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_other(
        cls,
        error: DspexError,
        *,
        message: str | None = None,
        code: str | None = None,
        hint: str | None = None,
        **fields: Any,
    ) -> Self:
        """An error of this class with the message, code and hint of `error`, and the fields that both have.

        Args:
            error: The other.
            message: Another message.
            code: Another code.
            hint: Another hint.
            fields: Fields besides, or in the place of the other's.
        """
        shared = {name: value for name, value in error.details.items() if name in cls._fields}
        return cls(
            error.message if message is None else message,
            code=error.code if code is None else code,
            hint=error.hint if hint is None else hint,
            **(shared | fields),
        )

    @classmethod
    def _make(cls, data: dict[str, Any]) -> Self:
        details = dict(data["details"])
        known = {name: details.pop(name) for name in cls._fields if name in details}
        made = cls(
            data["message"],
            code=data["code"],
            hint=data["hint"],
            retryable=_flag(data.get("retryable")),
            **known,
        )
        made._unknown = details
        return made


def _notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", ()))


def _rebuild(cls: type[DspexError], data: dict[str, Any]) -> DspexError:
    return cls._make(data)


def from_dict(data: dict[str, Any]) -> DspexError:
    """The error that `DspexError.to_dict` described, also in another version of dspex.

    A class that is not known here becomes `RemoteError`; a field that is not stays among the `details`.

    Raises:
        KeyError, TypeError: If `data` is not what `to_dict` writes.
    """
    cls = _find_class(data["class"])
    if cls is not None:
        try:
            return cls._make(data)
        except Exception:  # a subclass from elsewhere may be made in another way
            if cls.__module__ == __name__:
                raise
    made = RemoteError(
        data["message"], hint=data["hint"], retryable=_flag(data.get("retryable")), type=data["class"]
    )
    made._unknown = {name: value for name, value in data["details"].items() if name not in made._fields}
    return made


def _find_class(name: str) -> type[DspexError] | None:
    """The class of this name: of this module, or else one that somebody derived from those."""
    found: type[DspexError] | None = None
    waiting: list[type[DspexError]] = [DspexError]
    while waiting:
        cls = waiting.pop()
        if cls.__name__ == name and (found is None or cls.__module__ == __name__):
            found = cls
        waiting.extend(cls.__subclasses__())
    return found


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def did_you_mean(given: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """A question for a hint, with the known name that is nearest to `given`; or nothing.

    Args:
        given: The name that is not known.
        known: Those that are.
        cutoff: How like the two must be, from 0 to 1.
    """
    import difflib  # a mistake can wait for it, the import of the package cannot

    near = difflib.get_close_matches(given, list(known), n=1, cutoff=cutoff)
    return f"did you mean {near[0]!r}? " if near else ""


class ConfigError(DspexError):
    """A setting is wrong, or what is set up is used in a way it cannot be.

    Attributes:
        path: The setting's path, such as `pool.reports.workers`; empty if there is none to name.
        file: The file it stands in; empty if it came from no file.
        place: Where in a call's payload it is, such as `$.tools[0]`; empty if it is in none.
        problems: Pairs of path and message, one for each setting that is wrong, where several are looked at.
    """

    code = "config"
    category = "operator"
    public_message = "The service is not set up as it should be."
    path: str = ""
    file: str = ""
    place: str = ""
    problems: Sequence[tuple[str, str]] = ()


class TextError(DspexError):
    """A text that dspex reads has a mistake.

    Attributes:
        source: The text that was read.
        span: Where the mistake is, as character offsets `(start, end)` into `source`; None when it has no
            place there.
    """

    code = "text"
    category = "caller"
    http_status = 422
    public_message = "A text that the service was given cannot be read."
    source: str = ""
    span: tuple[int, int] | None = None

    def __str__(self) -> str:
        head, _, hint = super().__str__().partition("\n")
        frame = caret_frame(self.source, self.span) if self.span is not None else ""
        return "\n".join(part for part in (head, frame, hint) if part)

    @classmethod
    def _make(cls, data: dict[str, Any]) -> Self:
        made = super()._make(data)
        # The wire has lists, and may hold anything: what is no place must not break `str(error)`.
        match made.span:
            case (int(start), int(end)) if isinstance(made.source, str):
                made.span = start, end
            case _:
                made.span = None
        return made


class SignatureError(TextError, ValueError):
    """The text or the fields of a signature could not be read; without a span if it was not made of text.

    It is a `ValueError` as well, which is what DSPy raises for most of them.
    """

    code = "signature"
    public_message = "A signature that the service was given cannot be read."


class TemplateError(TextError):
    """A template could not be compiled, or not rendered with the values it was given.

    Attributes:
        unknown: Names that the template uses and that no input has.
    """

    code = "template"
    public_message = "A template that the service was given cannot be used."
    unknown: Sequence[str] = ()


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
    """The inputs of a call do not fit the signature: missing, unknown or of the wrong type.

    Attributes:
        problems: Pairs of path and message, one for each thing that is wrong.
        field: The field it is about; None when it is about none or many.
        count: How many field markers the value holds, if that is what is wrong.
    """

    code = "input"
    category = "caller"
    http_status = 422
    public_message = "The inputs do not fit."
    problems: Sequence[tuple[str, str]] = ()
    field: str | None = None
    count: int = 0

    def _public_details(self) -> dict[str, Any]:
        # The paths alone: a message may be a validator's of the service's own.
        names = [str(path) for path, _ in self.problems]
        return {"fields": names or [self.field]} if names or self.field else {}


class RouteError(DspexError):
    """No target can serve the call as it was asked for.

    Attributes:
        adapter: The adapter that cannot run on the route, by its name in settings; empty if it is not why.
    """

    code = "route"
    category = "caller"
    http_status = 422
    public_message = "The service cannot run the call in the way it was asked to."
    adapter: str = ""


class TargetsUnavailable(DspexError):  # noqa: N818 - the name of a state, as the field writes it
    """Every target that could serve the call is failing or full; nothing of the call has been done.

    Attributes:
        retry_after: Seconds after which one of them is tried again; None where nobody knows.
    """

    code = "targets-failing"
    category = "transient"
    retryable = True
    http_status = 503
    public_message = "The service cannot run the call at the moment; try again later."
    retry_after: float | None = None

    def _public_details(self) -> dict[str, Any]:
        return {} if self.retry_after is None else {"retry_after": self.retry_after}


class ReplyError(DspexError):
    """The LM's reply could not be read as the signature's output fields.

    Attributes:
        reply: The reply, as it came; empty if there was none.
        fields: Names of the fields that could be read.
        field: The field whose value is none of its type; None where that is not what is wrong.
        problems: Pairs of path and message, where all outputs were checked at once.
    """

    code = "reply"
    category = "remote"
    http_status = 502
    public_message = "The model's reply could not be used."
    reply: str = ""
    fields: Sequence[str] = ()
    field: str | None = None
    problems: Sequence[tuple[str, str]] = ()

    @classmethod
    def raised(cls, error: Exception, reply: str) -> Self:
        """The error for a reply in whose reading code of the caller's raised: a type's validator, mostly."""
        return cls(
            f"the reply could not be read: {type(error).__name__}: {error}",
            code="reply-field-value",
            hint="a validator refuses a value by raising ValueError",
            reply=reply,
            fields=[],
        )

    @classmethod
    def empty(cls, why: str = "") -> Self:
        """The error for a reply without any text.

        Args:
            why: The reason, where it is known.
        """
        return cls(
            "the model's reply is empty" + (f": {why}" if why else ""),
            code="reply-empty",
            hint="look at why it stopped: a filter, or `max_tokens` used up before it wrote anything",
            reply="",
            fields=[],
        )


class LMError(DspexError):
    """A call to the language model failed.

    Attributes:
        model: The model's name; empty if it is not known.
        api_base: The server's address; empty if it is not known.
        status: The HTTP status of the answer; None if there was none.
        server_message: The server's own words, without secrets and cut to a few hundred characters.
        retry_after: Seconds after which the server wants to be asked again; None if it did not say.
        timeout: The time limit in seconds that was exceeded; None if none was.
        type: Name of the exception class that a worker's LM raised; empty for an LM of dspex's own.
    """

    code = "lm"
    category: Category = "remote"
    http_status = 502
    public_message = "The language model could not be asked."
    model: str = ""
    api_base: str = ""
    status: int | None = None
    server_message: str = ""
    retry_after: float | None = None
    timeout: float | None = None
    type: str = ""


class LMAuthError(LMError):
    """The key is missing, or the server refused it (401, 403).

    Attributes:
        variable: The environment variable that the key is looked for in; empty if it is not known.
    """

    code = "lm-auth"
    category = "operator"
    http_status = 500
    public_message = "The service is not set up as it should be."
    variable: str = ""


class LMRequestError(LMError):
    """The server refused the request (4xx other than 401, 403, 408 and 429).

    Mostly a model or a setting that the server does not know, which the operator must change; a prompt that
    is too long is the caller's (`lm-context-length`).
    """

    code = "lm-request"
    category = "operator"
    http_status = 500
    public_message = "The language model refused the request."


class LMRateLimitError(LMError):
    """Too many requests (429); `retry_after` is the server's wish in seconds, or None."""

    code = "lm-rate-limit"
    category = "transient"
    http_status = 429
    retryable = True
    public_message = "Too many requests; try again later."

    def _public_details(self) -> dict[str, Any]:
        return {} if self.retry_after is None else {"retry_after": self.retry_after}


class LMServerError(LMError):
    """The server failed (5xx)."""

    code = "lm-server"
    category = "transient"
    retryable = True


class LMUnavailable(LMError):  # noqa: N818 - the name of a state, as `TargetsUnavailable`
    """Every deployment of a group is left alone or full; `retry_after` says for how long, if it is known.

    The call may have been sent to some of them, all of which said that they have no room for it.
    """

    code = "lm-unavailable"
    category = "transient"
    http_status = 503
    retryable = True
    public_message = "The language model takes no calls at the moment; try again later."

    def _public_details(self) -> dict[str, Any]:
        return {} if self.retry_after is None else {"retry_after": self.retry_after}


class LMConnectionError(LMError):
    """No connection could be made, or it broke before the answer was whole."""

    code = "lm-connection"
    category = "transient"
    retryable = True


class LMTimeoutError(LMError):
    """The server did not answer in time.

    Attributes:
        stage: What was waited for: `"connect"`, `"first-byte"`, `"first-text"`, `"chunk"` (the next piece of
            a stream) or `"total"`; empty if it is not known.
    """

    code = "lm-timeout"
    category = "timeout"
    http_status = 504
    retryable = True
    public_message = "The language model did not answer in time."
    stage: str = ""


class LMResponseError(LMError):
    """The server's answer is not a chat completion: broken JSON, or parts missing."""

    code = "lm-response"
    public_message = "The language model's answer could not be used."


class PoolError(DspexError):
    """A pool of workers could not do its part."""

    code = "pool"
    category: Category = "resource"
    http_status = 503
    public_message = "The service cannot take the call now."


class PoolClosedError(PoolError):
    """The pool is not open: not yet, no longer, or not here."""

    code = "pool-closed"
    category = "operator"


class PoolSaturated(PoolError):  # noqa: N818 - the name of a state, as the field writes it
    """The pool's queue is full; nothing of the call has been done."""

    code = "pool-saturated"
    category = "transient"
    retryable = True
    public_message = "Too many calls wait already; try again later."


class WorkerStartError(PoolError):
    """A worker did not become ready: it exited, or did not report in time.

    Attributes:
        pid: The process, if there was one.
        exit_status: Its exit status; negative for a signal; None if it has not exited or it is not known.
        signal: The signal's name, if one ended it.
        reason: Why it ended, in words.
        output: The last lines of what it wrote.
        module: The module whose import left threads running; empty if that is not why.
        threads: How many it left.
    """

    code = "worker-start"
    pid: int | None = None
    exit_status: int | None = None
    signal: str | None = None
    reason: str = ""
    output: str = ""
    module: str = ""
    threads: int = 0


class WorkerDiedError(PoolError):
    """The worker died while it held the call, which may or may not have had its effect.

    It is `retryable` where the pool knows that the call may run twice, because it was declared idempotent.

    Attributes:
        pid: The process.
        exit_status: Its exit status; negative for a signal; None if it is not known.
        signal: The signal's name, if one ended it.
        reason: Why it ended, in words.
        output: The last lines of what it wrote.
    """

    code = "worker-died"
    category = "transient"
    http_status = 502
    public_message = "The call was lost; it may or may not have had its effect."
    pid: int | None = None
    exit_status: int | None = None
    signal: str | None = None
    reason: str = ""
    output: str = ""


class WireError(PoolError):
    """Bytes on the wire that are not a frame, a frame beyond the limits, or a value that cannot cross.

    Attributes:
        place: Where in the payload the value is; empty if that is not what is wrong.
        length: Bytes of a frame that is too large.
        limit: Bytes that a frame may have.
    """

    code = "wire"
    category = "internal"
    http_status = 500
    public_message = "The service failed."
    place: str = ""
    length: int | None = None
    limit: int | None = None


class DeadlineExceeded(DspexError):  # noqa: N818 - the field's name for it
    """The call's time ran out, and it may or may not have had its effect.

    It is `retryable` where nothing of the call had been done (it waited in a queue, or its pool started),
    where it was declared idempotent, and where all that was late was the LM's answer.

    Attributes:
        timeout: The limit in seconds; None if it is not known where it ran out.
        stage: What was waited for: `lm`, `queue`, `worker`, `warmup`, `pool-start`, `loop`, `program`,
            `batch`, the `reader` of a stream, or the name of a target.
        op: The pool's operation; empty outside a pool.
        model: The model that was asked; empty if none was.
    """

    code = "deadline-exceeded"
    category = "timeout"
    http_status = 504
    public_message = "The call's time ran out."
    timeout: float | None = None
    stage: str = ""
    op: str = ""
    model: str = ""


class BatchError(DspexError):
    """So many rows of a batch failed that it stopped; the first of their errors is the cause.

    Attributes:
        done: Rows that had been run, the failed ones among them.
        failed: Rows that had failed.
        first: The first of those: the row's number and its error, as text.
    """

    code = "too-many-errors"
    category = "remote"
    http_status = 502
    public_message = "The program that the service runs failed."
    done: int = 0
    failed: int = 0
    first: Sequence[str] = ()


class RemoteError(DspexError):
    """The program in the worker raised.

    Attributes:
        type: The class's name.
        traceback: The text of the traceback from there; empty if it did not come with one.
    """

    code = "remote"
    category = "remote"
    http_status = 502
    public_message = "The program that the service runs failed."
    type: str = ""
    traceback: str = ""


class PipelineError(DspexError):
    """The steps of a pipeline do not fit together, or one of them gave something else than it was to give.

    Attributes:
        step: The path of the step that it is about; empty where it is about none.
        offered: The names of the fields that there would have been.
    """

    code = "pipeline"
    category = "operator"
    public_message = "The service is not set up as it should be."
    step: str = ""
    offered: Sequence[str] = ()


class PipelineChanged(DspexError):  # noqa: N818 - what has happened, as the field writes it
    """A run was to be resumed by a pipeline that is not the one that began it.

    Attributes:
        added: Paths of steps that the run does not know.
        removed: Paths of steps that the pipeline no longer has.
        changed: Paths of steps that do something else now.
    """

    code = "pipeline-changed"
    category = "operator"
    public_message = "The work was begun by another version of the service."
    added: Sequence[str] = ()
    removed: Sequence[str] = ()
    changed: Sequence[str] = ()


class StoreError(DspexError):
    """What is to be kept could not be written or read.

    Attributes:
        run_id: The run that it is about; empty where it is about none.
    """

    code = "store"
    category: Category = "resource"
    http_status = 503
    public_message = "The service cannot keep its work at the moment."
    run_id: str = ""


class RunBusy(StoreError):  # noqa: N818 - as `PipelineChanged`; so below
    """Another owner has the run.

    Attributes:
        seconds: How long its lease lasts, if it is not renewed.
        owner: Who has it.
    """

    code = "run-busy"
    category = "transient"
    retryable = True
    public_message = "The work is being done elsewhere."
    seconds: float = 0.0
    owner: str = ""


class RunNotFound(StoreError):  # noqa: N818
    """The store has no such run."""

    code = "run-not-found"
    category = "caller"
    http_status = 404


class RunExists(StoreError):  # noqa: N818
    """The store has a run of this name already."""

    code = "run-exists"
    category = "caller"
    http_status = 409


class LeaseLost(StoreError):  # noqa: N818
    """Somebody else has taken the run over meanwhile; nothing more of this owner is written."""

    code = "lease-lost"
    category = "transient"


class TooManyResumes(StoreError):  # noqa: N818
    """The run has been resumed as often as it may be: it ends its process each time, or seems to.

    Attributes:
        resumes: How often it was resumed.
    """

    code = "too-many-resumes"
    category = "operator"
    http_status = 500
    resumes: int = 0


class SessionError(DspexError):
    """A session could not be used.

    Attributes:
        session_id: The session.
    """

    code = "session"
    category: Category = "caller"
    http_status = 409
    public_message = "The conversation cannot go on as asked."
    session_id: str = ""


class SessionBusy(SessionError):  # noqa: N818 - as `PipelineChanged`; so below
    """Another host has the session, or too many of its calls wait.

    Attributes:
        seconds: How long that host's lease lasts, if it is not renewed; 0 where none is meant.
        owner: Which host has it; empty where none is meant.
    """

    code = "session-busy"
    category = "transient"
    http_status = 503
    retryable = True
    public_message = "The conversation is busy. Please try again."
    seconds: float = 0.0
    owner: str = ""


class SessionNotFound(SessionError):  # noqa: N818
    """There is no such session, or its time is over."""

    code = "session-not-found"
    http_status = 404
    public_message = "The conversation has ended."


class SessionExists(SessionError):  # noqa: N818
    """There is a session of this name already."""

    code = "session-exists"


class SessionMoved(SessionError):  # noqa: N818
    """Another host has taken the session over; nothing more of this one is written."""

    code = "session-moved"
    category = "transient"
    http_status = 503


class SessionQuotaExceeded(SessionError):  # noqa: N818
    """The pool or the user has as many sessions as it may have.

    Attributes:
        quota: Whose quota: `"pool"` or `"user"`.
        most: How many it may have.
    """

    code = "session-quota"
    http_status = 429
    public_message = "There are too many conversations at the moment."
    quota: str = ""
    most: int = 0


class StateConflict(SessionError):  # noqa: N818
    """A value of the session's state was written by somebody else meanwhile.

    Attributes:
        key: Under which it is.
        expected: The version that it should have had; 0 for none.
        version: The version that it has; 0 if it is not there.
    """

    code = "state-conflict"
    retryable = True
    key: str = ""
    expected: int = 0
    version: int = 0


class HandleLost(SessionError):  # noqa: N818
    """An object in the session's worker is gone, and is not to be made anew by itself.

    Attributes:
        handle: Its name.
    """

    code = "handle-lost"
    category = "resource"
    http_status = 503
    handle: str = ""


_BY_CODE: Final[Mapping[str, tuple[Category, int]]] = {
    # Who must act, and the HTTP status, where a code differs from its class in that.
    "cancelled": ("transient", 503),
    # A configuration that is part of one call, which another call need not share.
    **dict.fromkeys(
        (
            "bad-batch",
            "bad-call",
            "bad-input-stream",
            "bad-import-path",
            "bad-module",
            "bad-optimizer",
            "bad-payload",
            "bad-state",
            "bad-stream",
            "bad-target",
            "bad-timeout",
            "bad-tool",
            "bad-trace",
            "diff-file",
            "no-host-call",
            "no-such-code",
            "not-a-module",
            "not-a-prediction",
            "not-a-stream",
            "not-an-optimizer",
            "not-encodable",
            "optimizer-program",
            "unknown-operation",
        ),
        ("caller", 422),
    ),
    "frame-too-large": ("caller", 413),
    "lm-context-length": ("caller", 422),
    "lm-request-too-large": ("caller", 413),
    # Waiting does not help against these.
    "lm-certificate": ("operator", 500),
    "bad-limit": ("operator", 500),
    "version-mismatch": ("operator", 500),
    "forkserver-not-single-threaded": ("operator", 500),
    "pool-other-loop": ("operator", 500),
    "pool-forked": ("operator", 500),
    "no-target": ("operator", 500),
    "store-too-large": ("caller", 413),
    "store-bad-name": ("caller", 400),
    "store-unreachable": ("transient", 503),
    "store-newer-schema": ("operator", 500),
    "store-not-ours": ("operator", 500),
    "store-readonly": ("operator", 500),
    "step-outputs": ("remote", 502),
    "step-inputs": ("remote", 502),
}


class DialectWarning(UserWarning):
    """DSPy is of a version whose prompts dspex does not know, or not of the one whose prompts are written."""
