"""`PoolSpec`: all settings of a pool, checked when it is made."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from dspex._timeouts import LONGEST_SECONDS, check_seconds, shown
from dspex.errors import ConfigError, did_you_mean
from dspex.pool._policy import Recycling
from dspex.protocol.heartbeat import BEAT_INTERVAL

__all__ = ["PoolSpec"]

_MOST: Final = 2**63 - 1
"""What the kernel's limits and a deque's length can hold."""


def _seconds(value: Any) -> Any:
    try:
        return check_seconds(value)
    except ConfigError:
        return value  # to be refused with the bounds that the setting's type says


def _system_text(value: Any) -> Any:
    """A text that the system takes: what it would refuse is refused before a worker is started with it."""
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("a NUL character cannot be in it")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("half of a surrogate pair cannot be in it") from None
    return value


def _variable(name: Any) -> Any:
    if name == "":
        raise ValueError("a variable has a name")
    if isinstance(name, str) and "=" in name:
        raise ValueError("'=' cannot be in a variable's name")
    return _system_text(name)


_Seconds = Annotated[float, Field(gt=0, le=LONGEST_SECONDS, allow_inf_nan=False), BeforeValidator(_seconds)]
_SecondsOfBeats = Annotated[
    float, Field(gt=BEAT_INTERVAL, le=LONGEST_SECONDS, allow_inf_nan=False), BeforeValidator(_seconds)
]
_Text = Annotated[str, BeforeValidator(_system_text)]
_Variable = Annotated[str, BeforeValidator(_variable)]
_Count = Annotated[int, Field(ge=1, le=_MOST)]


class PoolSpec(BaseModel):
    """What a pool is made of. Immutable; `spec.replace(workers=4)` makes another.

    Attributes:
        name: The pool's name: `prediction.route` says `pool:<name>`. Letters, digits, `-` and `_`.
        workers: Processes kept, and started at the beginning.
        max_workers: Processes there may be when calls wait; None for no more than `workers`.
        scale_up_wait: Seconds a call waits for a place before another worker is started, up to `max_workers`.
        scale_down_idle: Seconds a worker beyond `workers` has nothing to do before it goes.
        max_inflight: Calls one worker serves at once; each waits for its LM most of the time.
        queue: Calls that may wait for a free place; the next one gets `PoolSaturated`.
        start_timeout: Seconds a worker has to say READY, DSPy's import included.
        stop_timeout: Seconds each rung of the ladder (ask, TERM, KILL) waits before the next.
        call_timeout: Seconds a call has when it names no timeout of its own.
        cancel_grace: Seconds a cancelled or overdue call has to stop, before its worker is ended.
        max_restarts: Deaths of workers the pool makes good within `restart_window` before it gives up.
        restart_window: Seconds for which a death is remembered.
        heartbeat_timeout: Seconds without a heartbeat after which a worker counts as hung and is ended. They
            come every half second.
        start: How a worker comes into being: `forkserver` forks it in milliseconds from a process that has
            DSPy imported, `spawn` starts an interpreter for each; `auto` is `forkserver` on Linux unless
            `python` is set.
        max_age: Seconds after which a worker is replaced, None for never. As with the two below, the new one
            is ready before the old one drains.
        max_requests: Calls after which a worker is replaced.
        max_memory: Resident bytes, the worker's own, at which it is replaced; looked at with each heartbeat.
        memory_limit: Bytes of private memory the kernel lets a worker have; an allocation beyond fails in the
            work, as `MemoryError`. None for no limit.
        nice: What is added to a worker's niceness.
        cpus: The processors a worker may run on (Linux); none given means all.
        python: The interpreter of the workers; None for this one. It needs dspex installed.
        env: Environment variables set in the workers, over the service's own. `CUDA_VISIBLE_DEVICES` is how a
            pool is given its GPUs.
        preload: Modules imported by a worker before it is READY.

    Raises:
        ConfigError: If a setting is unknown or wrong; it names the setting and what is allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")] = "general"
    workers: Annotated[int, Field(ge=1, le=1024)] = 2
    max_workers: Annotated[int, Field(ge=1, le=1024)] | None = None
    scale_up_wait: _Seconds = 0.1
    scale_down_idle: _Seconds = 60.0
    max_inflight: Annotated[int, Field(ge=1, le=10_000)] = 100
    queue: Annotated[int, Field(ge=0, le=_MOST)] = 10_000
    start_timeout: _Seconds = 30.0
    stop_timeout: _Seconds = 5.0
    call_timeout: _Seconds = 120.0
    cancel_grace: _Seconds = 2.0
    max_restarts: Annotated[int, Field(ge=0, le=1_000_000)] = 10
    restart_window: _Seconds = 60.0
    heartbeat_timeout: _SecondsOfBeats = 15.0
    start: Literal["auto", "forkserver", "spawn"] = "auto"
    max_age: _Seconds | None = None
    max_requests: _Count | None = None
    max_memory: _Count | None = None
    memory_limit: Annotated[int, Field(ge=64 * 2**20, le=_MOST)] | None = None
    nice: Annotated[int, Field(ge=0, le=19)] = 0
    cpus: tuple[Annotated[int, Field(ge=0)], ...] = ()
    python: _Text | None = None
    env: dict[_Variable, _Text] = Field(default_factory=dict)
    preload: tuple[_Text, ...] = ()

    def __init__(self, /, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as err:
            raise _config_error(settings, err) from None

    @field_validator("preload", "cpus", mode="before")
    @classmethod
    def _a_list_will_do(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("max_workers")
    @classmethod
    def _max_is_not_less(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and value < info.data.get("workers", 1):
            raise ValueError(f"it is less than workers={info.data['workers']}")
        return value

    @field_validator("cpus")
    @classmethod
    def _cpus_are_there(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if value and hasattr(os, "sched_getaffinity"):
            there = os.sched_getaffinity(0)
            if not there.issuperset(value):
                raise ValueError(f"the processors here are {sorted(there)}")
        return value

    @field_validator("python")
    @classmethod
    def _python_is_there(cls, value: str | None) -> str | None:
        if value is not None and not (os.path.isfile(value) and os.access(value, os.X_OK)):
            raise ValueError(f"no executable file at {value}")
        return value

    @field_validator("preload")
    @classmethod
    def _modules_have_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for module in value:
            if not all(part.isidentifier() for part in module.split(".")):
                raise ValueError(f"{shown(module)} is no module's name")
        return value

    def replace(self, /, **changes: Any) -> Self:
        """Another spec with these settings changed, checked as a new one is.

        Raises:
            ConfigError: If a setting is unknown or wrong, or does not go with the others.
        """
        return type(self)(**{**dict(self), **changes})

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Pydantic's name for `replace(**update)`: the changes are checked, as pydantic's own are not."""
        twin = super().model_copy(deep=deep)
        return twin.replace(**update) if update else twin

    @property
    def recycling(self) -> Recycling:
        """When a worker has served its time."""
        return Recycling(self.max_age, self.max_requests, self.max_memory)

    @classmethod
    def general(cls, /, **settings: Any) -> Self:
        """For cheap calls that wait for an LM: many at once on few processes."""
        return cls(**{"name": "general", **settings})

    @classmethod
    def optimizer(cls, /, **settings: Any) -> Self:
        """For long jobs: few at once, a day of time, replaced now and then so that memory comes back."""
        own = {
            "max_inflight": 4,
            "call_timeout": 86_400.0,
            "cancel_grace": 30.0,
            "max_requests": 100,
            "nice": 5,
        }
        return cls(**{"name": "optimizer", "workers": 1, **own, **settings})

    @classmethod
    def neural(cls, /, **settings: Any) -> Self:
        """For heavy models: one process, started slowly and fresh, since GPU libraries cannot be forked."""
        own = {"max_inflight": 8, "start": "spawn", "start_timeout": 300.0, "call_timeout": 600.0}
        return cls(**{"name": "neural", "workers": 1, **own, **settings})

    @classmethod
    def load(cls, path: str | os.PathLike[str], name: str) -> PoolSpec:
        """The settings in the table `[pool.<name>]` of a TOML file; see `dspex.pool.load_pools`.

        Raises:
            ConfigError: If there is no such table, or anything in the file's pools is wrong.
        """
        from dspex.pool._toml import load_pool

        return load_pool(path, name)

    @classmethod
    def allowed(cls, setting: str) -> str:
        """What `setting` may be, as a sentence."""
        schema = cls.model_json_schema()["properties"][setting]
        options = [option for option in schema.get("anyOf", [schema]) if option["type"] != "null"]
        return f"{setting} is " + " or ".join(map(_describe, options))

    def __repr_args__(self) -> Any:
        # The environment often holds secrets: its names are enough.
        for name, value in super().__repr_args__():
            yield name, (dict.fromkeys(value, "***") if name == "env" else value)


_NOUNS: Final = {
    "integer": "a whole number",
    "number": "a number of seconds",
    "string": "a text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a table of texts",
}


def _describe(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(map(repr, schema["enum"]))
    limits = [
        f"{words} {schema[key]}"
        for key, words in (
            ("minimum", "from"),
            ("exclusiveMinimum", "above"),
            ("maximum", "to"),
            ("pattern", "that matches"),
        )
        if key in schema
    ]
    return " ".join([_NOUNS[schema["type"]], *limits])


_KNOWN: Final = tuple(PoolSpec.model_fields)


_TEXT_FOR: Final[Mapping[str, Callable[[str], str]]] = {
    "integer": lambda text: repr(int(text)) + ", a number and not a text",
    "number": lambda text: f"{check_seconds(float(text)):g}, a number and not a text",
    "boolean": lambda text: {"true": "True", "false": "False"}[text.lower()],
}
"""How a setting is written that was given as a text, by the type it should have."""


def _written(setting: str, given: Any) -> str:
    """The setting as it was probably meant, for the hint; nothing if that is not to be guessed."""
    schema = PoolSpec.model_json_schema()["properties"][setting]
    wanted = schema.get("anyOf", [schema])[0]["type"]
    if setting == "env":  # no part of what was given is shown: it may be a secret
        return 'write env={"NAME": "..."}' if not isinstance(given, dict) else ""
    try:
        if wanted == "array" and isinstance(given, str | int) and not isinstance(given, bool):
            item = int(given) if setting == "cpus" else given
            PoolSpec(**{setting: (item,)})
            return f"write {setting}=({shown(item)},)"
        if wanted == "string" and isinstance(given, os.PathLike):
            return f"write {setting}=str(...)"
        if isinstance(given, str) and wanted in _TEXT_FOR and len(given) < 30:
            return f"write {setting}={_TEXT_FOR[wanted](given)}"
    except (ValueError, KeyError, ConfigError):
        pass
    return ""


def _place(name: str, loc: tuple[int | str, ...]) -> str:
    parts = [name, *map(str, loc)]
    if loc[:1] == ("env",) and len(loc) > 1:
        # What stands behind the sign is a value that was written into the name: a secret, perhaps.
        parts = [name, "env", str(loc[1]).partition("=")[0]]
    path = ".".join(part if len(part) <= 60 else part[:60] + "..." for part in parts)
    return path.replace("\0", "\\0").encode(errors="backslashreplace").decode()


_OTHERS: Final = 5
"""Further mistakes that an error names."""


def _config_error(settings: Mapping[str, Any], err: ValidationError) -> ConfigError:
    problems = err.errors(include_url=False, include_context=False)
    first, *others = problems
    name = settings.get("name")
    # Of a setting whose name is no text, pydantic does not say where it is; there is none like it.
    loc = first["loc"] or tuple(name for name in settings if name not in _KNOWN)[:1]
    unknown = loc[0] not in _KNOWN
    setting = str(loc[0])
    path = _place(f"pool.{name if name and isinstance(name, str) else 'general'}", loc)
    says = first["msg"].removeprefix("Value error, ")
    if unknown:
        message = f"{path}: there is no such setting"
        hint = did_you_mean(setting, _KNOWN) + f"the settings are: {', '.join(_KNOWN)}"
    elif setting == "env":
        # The value may be a secret.
        message, hint = f"{path}: {says[0].lower()}{says[1:]}", "environment variables are text"
    else:
        message = f"{path}: {shown(first['input'])} is refused: {says}"
        hint = PoolSpec.allowed(setting)
    if not unknown and len(loc) == 1 and (written := _written(setting, first["input"])):
        hint = f"{written}; {hint}"
    if others:
        named = [_place("", problem["loc"]).removeprefix(".") for problem in others[:_OTHERS]]
        more = f", and {len(others) - _OTHERS} more" if len(others) > _OTHERS else ""
        hint += f" (also wrong: {', '.join(named)}{more})"
    return ConfigError(message, code="bad-pool-setting", hint=hint, path=path)
