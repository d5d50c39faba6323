"""A backend whose workers connect back over TCP: the shape of a cluster, on this machine."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Any

from dspex.pool import Handle, PoolSpec
from dspex.pool._backends.connect_back import ConnectedWorker, Listener
from dspex.pool._backends.process import watch_exit


class DialledProcesses:
    """See `dspex.pool.Backend`."""

    def describe(self) -> dict[str, str]:
        return {"backend": "dialled"}

    def launcher(self, spec: PoolSpec) -> DialledLauncher:
        return DialledLauncher(spec)


class DialledLauncher:
    """See `dspex.pool.Launcher`."""

    def __init__(self, spec: PoolSpec) -> None:
        self._spec = spec
        self._listener = Listener()
        self._started: list[asyncio.Future[int]] = []

    async def launch(self) -> Handle:
        connect_info = self._listener.expect()
        command = [
            sys.executable,
            "-m",
            "dspex.worker",
            "connect-back",
            connect_info.host,
            str(connect_info.port),
        ]
        popen = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **self._spec.env},
            process_group=0,
        )
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._started.append(ended)
        watch_exit(popen, lambda code: None if ended.done() else ended.set_result(code))
        assert popen.stdin is not None
        popen.stdin.write(connect_info.token)
        popen.stdin.close()
        connecting = asyncio.ensure_future(self._listener.connected(connect_info, "next door", popen.kill))
        try:
            either: list[asyncio.Future[Any]] = [connecting, ended]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not connecting.done():
                raise OSError(f"it ended with {ended.result()} before it connected")
            worker: ConnectedWorker = await connecting
        finally:
            connecting.cancel()
        ended.add_done_callback(lambda ended: worker.set_exited(ended.result()))
        return worker

    def output(self) -> str:
        return ""

    async def aclose(self) -> None:
        await self._listener.aclose()
        await asyncio.gather(*self._started)  # all of them reaped, those that nobody waited for too
