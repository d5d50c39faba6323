"""The hand-shake: what a service tells a worker or a forkserver first, and what that answers.

::

    service -> worker    HELLO  Handshake.to_wire     versions, settings, and the key of the LM
    worker -> service    READY  Greeting.to_wire      versions: calls may come
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dspex import __version__
from dspex.errors import WireError, WorkerStartError
from dspex.protocol import records
from dspex.protocol.frames import PROTOCOL

__all__ = ["Greeting", "Handshake", "ProcessLimits"]

_VERSIONS: Final[dict[str, Any]] = {"protocol": PROTOCOL, "dspex": __version__}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessLimits:
    """What the kernel holds a worker to.

    Attributes:
        memory: Bytes of private writable memory; None for no limit.
        nice: How far its priority is lowered.
        cpus: The processors it may run on; empty for all.
    """

    memory: int | None = None
    nice: int = 0
    cpus: Sequence[int] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """What a worker gets before its first call; a forkserver gets the same, without the LM.

    Attributes:
        max_inflight: Calls it has at once, at most.
        limits: What the kernel is to hold it to.
        preload: Modules to import.
        classes: Modules whose classes values may be of.
        path: Entries of `sys.path` that its interpreter may lack.
        lm: Settings of the pool's LM, its key among them; empty for none.
    """

    max_inflight: int
    limits: ProcessLimits = field(default_factory=ProcessLimits)
    preload: Sequence[str] = ()
    classes: Sequence[str] = ()
    path: Sequence[str] = ()
    lm: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def to_wire(self) -> dict[str, Any]:
        """What crosses."""
        return {**_VERSIONS, **records.to_wire(self)}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Handshake:
        """The hand-shake that has arrived.

        Raises:
            WorkerStartError: If the service is not of this version (`version-mismatch`).
            ConfigError: If something is wrong with it (`bad-payload`).
        """
        settings = dict(wire)
        theirs = {name: settings.pop(name, None) for name in _VERSIONS}
        if theirs != _VERSIONS:
            raise WorkerStartError(
                f"the service has {theirs}, the worker's interpreter has {_VERSIONS}",
                code="version-mismatch",
                hint="install the same dspex in the interpreter of the pool",
            )
        return records.read(cls, settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """What a worker, or a forkserver, is: it says so once calls may come.

    Attributes:
        python: The version of its interpreter.
        dspy: The version of its DSPy.
        dspex: That of its dspex.
    """

    python: str
    dspy: str
    dspex: str = __version__

    @classmethod
    def of_this_process(cls) -> Greeting:
        """That of this process. Imports DSPy."""
        import dspy

        python = ".".join(map(str, sys.version_info[:3]))
        return cls(python=python, dspy=str(dspy.__version__))

    def to_wire(self) -> dict[str, Any]:
        """What crosses."""
        return {"protocol": PROTOCOL, "python": self.python, "dspy": self.dspy, "dspex": self.dspex}

    @classmethod
    def from_wire(cls, wire: Any) -> Greeting:
        """The greeting that has arrived.

        Raises:
            WireError: If it is none, or of another protocol (`bad-frame`).
        """
        if not (isinstance(wire, dict) and wire.keys() >= {"protocol", "python", "dspy", "dspex"}):
            raise WireError("a greeting without versions", code="bad-frame")
        if wire["protocol"] != PROTOCOL:
            raise WireError(
                f"the worker speaks protocol {wire['protocol']}, not {PROTOCOL}", code="bad-frame"
            )
        return cls(python=str(wire["python"]), dspy=str(wire["dspy"]), dspex=str(wire["dspex"]))
