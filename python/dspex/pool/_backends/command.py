"""Starts a program of any language as a worker; docs/protocol.md says what it finds and what it does."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence

from dspex.errors import WorkerStartError
from dspex.pool._backends.process import Process, SpawnLauncher
from dspex.protocol.handshake import ProcessLimits

__all__ = ["CommandLauncher"]


class CommandLauncher:
    """Starts each worker by a command.

    Args:
        command: The program and its arguments.
        env: Variables set over this process's environment.
        limits: What the kernel is to hold it to. It is not asked to do so itself, as dspex's own workers are.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], limits: ProcessLimits) -> None:
        self._spawn = SpawnLauncher(None, env, command)
        self._limits = limits

    async def launch(self) -> Process:
        """See `Launcher.launch`."""
        process = await self._spawn.launch()
        try:
            with contextlib.suppress(ProcessLookupError):  # it has ended, which is heard of
                _hold(process.pid, self._limits)
        except BaseException:
            process.kill()
            process.release()
            raise
        return process

    def output(self) -> str:
        """See `Launcher.output`."""
        return self._spawn.output()

    async def aclose(self) -> None:
        """See `Launcher.aclose`."""
        await self._spawn.aclose()


def _hold(pid: int, limits: ProcessLimits) -> None:
    """Have the kernel hold a process to limits, where it does so for others.

    Raises:
        ProcessLookupError: If the process has ended.
        WorkerStartError: If the system refuses.
    """
    import resource  # there is none on Windows, where this can be imported all the same

    try:
        if limits.nice:
            os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid) + limits.nice)
        if limits.cpus and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(pid, limits.cpus)
        if limits.memory is not None and hasattr(resource, "prlimit"):
            resource.prlimit(pid, resource.RLIMIT_DATA, (limits.memory, limits.memory))
    except ProcessLookupError:
        raise
    except (OSError, ValueError) as err:
        raise WorkerStartError(f"the system refuses the limits {limits}: {err}", code="bad-limit") from err
