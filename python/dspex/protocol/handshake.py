"""The hand-shake: what a service tells a worker or a forkserver first, and what that answers.

::

    service -> worker    HELLO  Handshake.to_wire     versions, codecs, settings, and the key of the LM
    worker -> service    READY  Greeting.to_wire      versions, codecs: calls may come

Both frames, and an ERROR in the place of READY, are JSON, whatever follows: so a worker in another language
needs no other codec. From then on both write with the first codec of HELLO that READY has too.
docs/protocol.md says all of it for those who write such a worker.
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
from dspex.protocol.packing import available
from dspex.wire._codec import names

__all__ = ["CODECS", "Greeting", "Handshake", "ProcessLimits", "common_codec"]

CODECS: Final = ("msgpack", "json")
"""The codecs of both ends of dspex, the best first."""

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
        codecs: What the service reads and writes, in the order in which it prefers them.
        max_inflight: Calls it has at once, at most.
        limits: What the kernel is to hold it to.
        preload: Modules to import.
        classes: Modules whose classes values may be of.
        packing: How the worker packs what it sends, if it can; empty for not at all.
        pickle: Whether values that no codec has a word for cross by pickle.
        path: Entries of `sys.path` that its interpreter may lack.
        lm: Settings of the pool's LM, its key among them; empty for none.
    """

    max_inflight: int
    codecs: Sequence[str] = CODECS
    limits: ProcessLimits = field(default_factory=ProcessLimits)
    preload: Sequence[str] = ()
    classes: Sequence[str] = ()
    packing: str = ""
    pickle: bool = False
    path: Sequence[str] = ()
    lm: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def to_wire(self) -> dict[str, Any]:
        """What crosses."""
        return {**_VERSIONS, **records.to_wire(self), "codecs": list(self.codecs)}

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

    A worker of dspex has versions. Any other has none: of it the protocol's number is all that is compared.

    Attributes:
        python: The version of its interpreter.
        dspy: The version of its DSPy.
        dspex: That of its dspex.
        worker: What a worker in another language calls itself.
        codecs: What it reads and writes.
        packs: Whether it can read what is packed.
        operations: What it can be asked for; None for a worker that answers for itself.
    """

    python: str = ""
    dspy: str = ""
    dspex: str = ""
    worker: str = ""
    codecs: Sequence[str] = CODECS[:1]
    packs: bool = False
    operations: Sequence[str] | None = None

    @classmethod
    def of_this_process(cls) -> Greeting:
        """That of this process. Imports DSPy."""
        import dspy

        python = ".".join(map(str, sys.version_info[:3]))
        codecs = (*CODECS, *names())
        return cls(
            python=python, dspy=str(dspy.__version__), dspex=__version__, codecs=codecs, packs=available()
        )

    @property
    def versions(self) -> dict[str, str]:
        """What there is to be told of it."""
        told = {"python": self.python, "dspy": self.dspy, "dspex": self.dspex, "worker": self.worker}
        return {name: said for name, said in told.items() if said}

    def to_wire(self) -> dict[str, Any]:
        """What crosses."""
        return {"protocol": PROTOCOL, **self.versions, "codecs": list(self.codecs), "packs": self.packs}

    @classmethod
    def from_wire(cls, wire: Any) -> Greeting:
        """The greeting that has arrived.

        Raises:
            WireError: If it is none, or of another protocol (`bad-frame`).
        """
        if not (isinstance(wire, dict) and (wire.keys() >= _OF_DSPEX or wire.keys() >= _OF_OTHERS)):
            raise WireError("a greeting without versions", code="bad-frame")
        if wire["protocol"] != PROTOCOL:
            raise WireError(
                f"the worker speaks protocol {wire['protocol']}, not {PROTOCOL}", code="bad-frame"
            )
        versions = {name: str(wire[name]) for name in ("python", "dspy", "dspex", "worker") if name in wire}
        operations = _names(wire["operations"]) if "operations" in wire else None
        return cls(
            **versions,
            codecs=_names(wire.get("codecs", ["msgpack"])),
            packs=wire.get("packs") is True,
            operations=operations,
        )


_OF_DSPEX: Final = frozenset({"protocol", "python", "dspy", "dspex"})
_OF_OTHERS: Final = frozenset({"protocol", "codecs"})


def _names(given: Any) -> tuple[str, ...]:
    if not (isinstance(given, list) and all(isinstance(name, str) for name in given)):
        raise WireError("the codecs and operations of a greeting are lists of names", code="bad-frame")
    return tuple(given)


def common_codec(service: Sequence[str], worker: Sequence[str]) -> str:
    """The codec that both write with once they have shaken hands.

    Args:
        service: What the service has, the best first.
        worker: What the worker has.

    Raises:
        WorkerStartError: If they have none in common (`no-common-codec`).
    """
    for name in service:
        if name in worker:
            return name
    raise WorkerStartError(
        f"the worker reads {', '.join(worker) or 'nothing'}, the service writes {', '.join(service)}",
        code="no-common-codec",
        hint="leave codec='auto', or name one that the worker has",
    )
