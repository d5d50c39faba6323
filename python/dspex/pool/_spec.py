"""`PoolSpec`: all settings of a pool, those that belong together in a group, checked when they are made."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self, TypedDict, Unpack

from dspex._timeouts import shown
from dspex.pool._rules import (
    Choice,
    Environment,
    Flag,
    ListOf,
    Seconds,
    Settings,
    Text,
    WholeNumber,
    checked,
    in_group,
)
from dspex.protocol.heartbeat import BEAT_INTERVAL
from dspex.wire._codec import names

__all__ = ["Limits", "PoolSpec", "Recycling", "Restart", "Scaling", "Timeouts"]

_SECONDS: Final = Seconds()
_COUNT: Final = WholeNumber(1)


def _cpus_not_here(cpus: tuple[int, ...]) -> str:
    if cpus and hasattr(os, "sched_getaffinity"):
        here = os.sched_getaffinity(0)
        if not here.issuperset(cpus):
            return f"the processors here are {sorted(here)}"
    return ""


def _not_executable(path: str) -> str:
    return "" if os.path.isfile(path) and os.access(path, os.X_OK) else f"no executable file at {path}"


def _no_command(words: tuple[str, ...]) -> str:
    return "" if not words or shutil.which(words[0]) else f"no executable file at {words[0]}"


def _no_codec(name: str) -> str:
    known = ("auto", "msgpack", "json", *names())
    return "" if name in known else f"one of {', '.join(map(repr, known))}"


def _no_module_name(name: str) -> str:
    return "" if all(map(str.isidentifier, name.split("."))) else f"{shown(name)} is no module's name"


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeouts(Settings):
    """How long a pool waits for what; all in seconds.

    Attributes:
        call: What a call has that names no time-out of its own.
        start: What a worker has to say READY, DSPy's import included.
        stop: How long each rung of the ladder (ask, TERM, KILL) waits before the next.
        cancel: What a cancelled or overdue call has to stop, before its worker is ended.
        heartbeat: How long a worker may send no heartbeat before it counts as hung and is ended. They come
            every half second.
    """

    _group = "timeouts"

    call: float = checked(120.0, _SECONDS)
    start: float = checked(30.0, _SECONDS)
    stop: float = checked(5.0, _SECONDS)
    cancel: float = checked(2.0, _SECONDS)
    heartbeat: float = checked(15.0, Seconds(above=BEAT_INTERVAL))

    class _Changes(TypedDict, total=False):
        call: float
        start: float
        stop: float
        cancel: float
        heartbeat: float

    def replace(self, /, **changes: Unpack[_Changes]) -> Self:
        """Other timeouts with these changed, checked as new ones are; raises `ConfigError`."""
        return self._changed(changes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits(Settings):
    """What the system lets a worker have.

    Attributes:
        memory: Bytes of private memory; an allocation beyond fails in the work, as `MemoryError`. None for no
            limit.
        nice: What is added to a worker's niceness, from 0 to 19.
        cpus: The processors a worker may run on (Linux); none given means all.
    """

    _group = "limits"

    memory: int | None = checked(None, WholeNumber(64 * 2**20), optional=True)
    nice: int = checked(0, WholeNumber(0, 19))
    cpus: Sequence[int] = checked((), ListOf(WholeNumber(0), _cpus_not_here))

    class _Changes(TypedDict, total=False):
        memory: int | None
        nice: int
        cpus: Sequence[int]

    def replace(self, /, **changes: Unpack[_Changes]) -> Self:
        """Other limits with these changed, checked as new ones are; raises `ConfigError`."""
        return self._changed(changes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recycling(Settings):
    """When a worker has served its time; None is never. The new one is ready before the old one drains.

    Attributes:
        age: Seconds since its start.
        requests: Calls it has answered.
        memory: Resident bytes, the worker's own; looked at with each heartbeat.
    """

    _group = "recycling"

    age: float | None = checked(None, _SECONDS, optional=True)
    requests: int | None = checked(None, _COUNT, optional=True)
    memory: int | None = checked(None, _COUNT, optional=True)

    class _Changes(TypedDict, total=False):
        age: float | None
        requests: int | None
        memory: int | None

    def replace(self, /, **changes: Unpack[_Changes]) -> Self:
        """Another rule with these changed, checked as a new one is; raises `ConfigError`."""
        return self._changed(changes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Restart(Settings):
    """How many deaths of workers a pool makes good, and how fast.

    Attributes:
        max: Deaths made good within `window`; with one more, the pool gives up until that has passed.
        window: Seconds for which a death is remembered.
        first_delay: Seconds before a restart after a worker that never answered anything; doubles each time.
        max_delay: Seconds no restart waits longer than.
    """

    _group = "restart"

    max: int = checked(10, WholeNumber(0, 1_000_000))
    window: float = checked(60.0, _SECONDS)
    first_delay: float = checked(0.05, _SECONDS)
    max_delay: float = checked(5.0, _SECONDS)

    class _Changes(TypedDict, total=False):
        max: int
        window: float
        first_delay: float
        max_delay: float

    def replace(self, /, **changes: Unpack[_Changes]) -> Self:
        """Another policy with these changed, checked as a new one is; raises `ConfigError`."""
        return self._changed(changes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaling(Settings):
    """How fast a pool grows from `workers` to `max_workers`, and shrinks again; in seconds.

    Attributes:
        up_after: How long a call waits for a place before another worker is started.
        down_after: How long a worker beyond `workers` has nothing to do before it goes.
    """

    _group = "scaling"

    up_after: float = checked(0.1, _SECONDS)
    down_after: float = checked(60.0, _SECONDS)

    class _Changes(TypedDict, total=False):
        up_after: float
        down_after: float

    def replace(self, /, **changes: Unpack[_Changes]) -> Self:
        """Another pace with these changed, checked as a new one is; raises `ConfigError`."""
        return self._changed(changes)


class _SpecChanges(TypedDict, total=False):
    name: str
    workers: int
    max_workers: int | None
    max_inflight: int
    queue: int
    start: Literal["auto", "forkserver", "spawn"]
    python: str | None
    command: Sequence[str]
    codec: str
    env: Mapping[str, str]
    preload: Sequence[str]
    classes: Sequence[str]
    compression: Literal["auto", "off", "lz4", "zstd"]
    pickle: bool
    timeouts: Timeouts
    limits: Limits
    recycling: Recycling
    restart: Restart
    scaling: Scaling


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class PoolSpec(Settings):
    """What a pool is made of. Immutable; `spec.replace(workers=4)` makes another.

    Attributes:
        name: The pool's name: `prediction.route` says `pool:<name>`. Letters, digits, `-` and `_`.
        workers: Processes kept, and started at the beginning.
        max_workers: Processes there may be when calls wait; None for no more than `workers`.
        max_inflight: Calls one worker serves at once; each waits for its LM most of the time.
        queue: Calls that may wait for a free place; the next one gets `PoolSaturated`.
        start: How a worker comes into being: `forkserver` forks it in milliseconds from a process that has
            DSPy imported, `spawn` starts an interpreter for each; `auto` is `forkserver` on Linux unless
            `python` is set.
        python: The interpreter of the workers; None for this one. It needs dspex installed.
        command: A program of any language that serves as the worker, and its arguments; see docs/protocol.md.
            None given means dspex's own.
        codec: How bodies are written: `auto` is the best that both ends have, `msgpack` or `json` that one
            alone, and so is one that `dspex.wire.register` has added.
        env: Environment variables set in the workers, over the service's own. `CUDA_VISIBLE_DEVICES` is how a
            pool is given its GPUs.
        preload: Modules imported by a worker before it is READY.
        classes: Modules whose enums, dataclasses, models and named tuples may cross as what they are, each
            with the modules below it; DSPy's always may.
        compression: How large bytes are packed on their way: `auto` packs them with LZ4 for workers on other
            machines and not on this one, where shared memory is quicker. It needs pyarrow on both sides.
        pickle: Whether values that no codec has a word for cross by pickle. A worker can then run code in the
            service by what it answers; the pool's status, its log and `dspex doctor` say that it is on.
        timeouts: How long the pool waits for calls, starts, stops, cancelled calls and heartbeats.
        limits: Memory, niceness and processors of a worker.
        recycling: After what age, calls or memory a worker is replaced.
        restart: How many deaths of workers are made good, and how fast.
        scaling: How fast the pool grows to `max_workers` and shrinks again.

    Raises:
        ConfigError: If a setting is unknown or wrong; it names the setting and what is allowed.
    """

    name: str = checked("general", Text.matching("[A-Za-z0-9][A-Za-z0-9_-]*"))
    workers: int = checked(2, WholeNumber(1, 1024))
    max_workers: int | None = checked(None, WholeNumber(1, 1024), optional=True)
    max_inflight: int = checked(100, WholeNumber(1, 10_000))
    queue: int = checked(10_000, WholeNumber(0))
    start: Literal["auto", "forkserver", "spawn"] = checked("auto", Choice(("auto", "forkserver", "spawn")))
    python: str | None = checked(None, Text(_not_executable), optional=True)
    command: Sequence[str] = checked((), ListOf(Text(), _no_command))
    codec: str = checked("auto", Text(_no_codec, "a codec's name"))
    env: Mapping[str, str] = field(
        default_factory=dict, hash=False, metadata={"rule": Environment(), "optional": False}
    )
    preload: Sequence[str] = checked((), ListOf(Text(_no_module_name, "a module's name")))
    classes: Sequence[str] = checked((), ListOf(Text(_no_module_name, "a module's name")))
    compression: Literal["auto", "off", "lz4", "zstd"] = checked(
        "auto", Choice(("auto", "off", "lz4", "zstd"))
    )
    pickle: bool = checked(False, Flag())
    timeouts: Timeouts = in_group(Timeouts)
    limits: Limits = in_group(Limits)
    recycling: Recycling = in_group(Recycling)
    restart: Restart = in_group(Restart)
    scaling: Scaling = in_group(Scaling)

    def replace(self, /, **changes: Unpack[_SpecChanges]) -> Self:
        """Another spec with these settings changed, checked as a new one is.

        A group is replaced whole: `spec.replace(timeouts=spec.timeouts.replace(call=5))` keeps the rest.

        Raises:
            ConfigError: If a setting is unknown or wrong, or does not go with the others.
        """
        return self._changed(changes)

    @classmethod
    def general(cls, /, **settings: Unpack[_SpecChanges]) -> Self:
        """For cheap calls that wait for an LM: many at once on few processes."""
        return cls().replace(**settings)

    @classmethod
    def optimizer(cls, /, **settings: Unpack[_SpecChanges]) -> Self:
        """For long jobs: few at once, a day of time, replaced now and then so that memory comes back."""
        spec = cls(
            name="optimizer",
            workers=1,
            max_inflight=4,
            timeouts=Timeouts(call=86_400.0, cancel=30.0),
            recycling=Recycling(requests=100),
            limits=Limits(nice=5),
        )
        return spec.replace(**settings)

    @classmethod
    def neural(cls, /, **settings: Unpack[_SpecChanges]) -> Self:
        """For heavy models: one process, started slowly and fresh, since GPU libraries cannot be forked."""
        timeouts = Timeouts(call=600.0, start=300.0)
        spec = cls(name="neural", workers=1, max_inflight=8, start="spawn", timeouts=timeouts)
        return spec.replace(**settings)

    @classmethod
    def load(cls, path: str | os.PathLike[str], name: str) -> PoolSpec:
        """The settings in the table `[pool.<name>]` of a TOML file; see `dspex.pool.load_pools`.

        Raises:
            ConfigError: If there is no such table, or anything in the file's pools is wrong.
        """
        from dspex.pool._toml import load_pool

        return load_pool(path, name)

    @classmethod
    def _together(cls, values: Mapping[str, Any]) -> tuple[str, str] | None:
        """A setting that does not go with another, and why."""
        most, workers = values.get("max_workers"), values.get("workers", 1)
        if most is not None and most < workers:
            return "max_workers", f"it is less than workers={workers}"
        if values.get("command"):
            for name, usual in (("python", None), ("preload", ()), ("start", "auto")):
                if values.get(name, usual) != usual:
                    return name, "it is for dspex's own workers, and command starts others"
        return None

    @classmethod
    def _place(cls, given: Mapping[str, Any]) -> str:
        """Where these settings stand: a pool of this name."""
        name = given.get("name")
        return f"pool.{name if name and isinstance(name, str) else 'general'}"

    def __repr__(self) -> str:
        # The environment often holds secrets: its names are enough.
        shown = {name: getattr(self, name) for name in self.settings()}
        shown["env"] = dict.fromkeys(self.env, "***")
        return f"PoolSpec({', '.join(f'{name}={value!r}' for name, value in shown.items())})"
