"""From a pool's settings to what the hand-shake says, and the backend that is this machine."""

from __future__ import annotations

import sys

from dspex.errors import ConfigError
from dspex.pool._backends.base import Launcher
from dspex.pool._backends.command import CommandLauncher
from dspex.pool._backends.forkserver import FORK_SECONDS, ForkserverLauncher
from dspex.pool._backends.process import SpawnLauncher
from dspex.pool._spec import PoolSpec
from dspex.protocol.handshake import CODECS, Handshake, ProcessLimits

__all__ = ["LocalProcesses", "make_handshake"]


def make_handshake(spec: PoolSpec) -> Handshake:
    """The handshake of workers and forkservers, without the LM's settings, which only workers need."""
    return Handshake(
        max_inflight=spec.max_inflight,
        codecs=CODECS if spec.codec == "auto" else (spec.codec,),
        limits=ProcessLimits(memory=spec.limits.memory, nice=spec.limits.nice, cpus=list(spec.limits.cpus)),
        preload=list(spec.preload),
        classes=list(spec.classes),
        pickle=spec.pickle,
        # As multiprocessing does: what the service can import, its workers can. Another interpreter has
        # its own packages.
        path=[entry for entry in sys.path if entry] if spec.python is None and not spec.command else [],
    )


class LocalProcesses:
    """Workers on this machine: forked by a forkserver, or spawned. The backend a pool has by default.

    Args:
        platform: The system, as `sys.platform` names it.
    """

    def __init__(self, platform: str = sys.platform) -> None:
        self._platform = platform

    def describe(self) -> dict[str, str]:
        """See `Backend.describe`."""
        return {"backend": "local", "platform": self._platform}

    def launcher(self, spec: PoolSpec) -> Launcher:
        """See `Backend.launcher`.

        Raises:
            ConfigError: On Windows, and for a forkserver on a system where it is not safe.
        """
        if self._platform == "win32":
            raise ConfigError(
                "worker pools need Unix sockets and signals, which Windows has not",
                code="no-pools-here",
                hint="use route='native', or run the service under WSL",
            )
        if spec.command:
            return CommandLauncher(spec.command, spec.env, make_handshake(spec).limits)
        linux = self._platform == "linux"
        start = spec.start
        if start == "auto":
            start = "forkserver" if linux and spec.python is None else "spawn"
        if start == "forkserver" and not linux:
            raise ConfigError(
                f"pool.{spec.name}.start: the libraries of {self._platform} do not survive being forked",
                code="no-forkserver-here",
                hint="leave start='auto', or set start='spawn'",
            )
        if start == "forkserver":
            # Within the time a start has, so that what hung is named.
            fork_seconds = min(FORK_SECONDS, spec.timeouts.start / 2)
            return ForkserverLauncher(spec.python, spec.env, make_handshake(spec), fork_seconds)
        return SpawnLauncher(spec.python, spec.env)
