"""The default backend as a test holds it: its forkserver, its workers, and starts that wait for a sign."""

from __future__ import annotations

import asyncio

from dspex.pool import Handle, Launcher, LocalProcesses, PoolSpec
from dspex.pool._backends.forkserver import ForkserverLauncher


class Processes(LocalProcesses):
    """The processes of this machine, for one pool."""

    def __init__(self) -> None:
        super().__init__()
        self.starts = asyncio.Event()
        """Workers start while it is set, as it is at first."""
        self.starts.set()
        self.handles: list[Handle] = []
        """Of the workers that were started, in order."""
        self._launcher: Launcher

    def launcher(self, spec: PoolSpec) -> Launcher:
        self._launcher = super().launcher(spec)
        return _Watched(self._launcher, self)

    @property
    def forkserver(self) -> int | None:
        """The process id of the forkserver, None while there is none."""
        return self._launcher.pid if isinstance(self._launcher, ForkserverLauncher) else None


class _Watched:
    def __init__(self, launcher: Launcher, here: Processes) -> None:
        self._launcher = launcher
        self._here = here

    async def launch(self) -> Handle:
        await self._here.starts.wait()
        handle = await self._launcher.launch()
        self._here.handles.append(handle)
        return handle

    def output(self) -> str:
        return self._launcher.output()

    async def aclose(self) -> None:
        await self._launcher.aclose()
