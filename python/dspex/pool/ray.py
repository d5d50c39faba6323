"""Workers that are Ray actors: the same pool over the machines of a cluster.

::

    RayActors.launcher --> one actor per worker --> its process connects back (`dialled`) and serves

Ray chooses the machine, counts processors and GPUs, and says when an actor is dead; frames go over a
connection of the worker's own, because a call of an actor costs more than all the rest of a small call and
knows neither parts nor cancellation of what already runs. Ray pickles what it carries: here that is the
address, the port and the token of a `ConnectInfo`.

Ray is imported by this module and by nothing else of dspex: `pip install 'dspex[ray]'` where it is wanted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import Any

from dspex.errors import ConfigError, WorkerStartError
from dspex.pool._backends.connect_back import ConnectedWorker, Listener
from dspex.pool._spec import PoolSpec
from dspex.protocol.connect_back import ConnectInfo

__all__ = ["RayActors"]


class RayActors:
    """Runs each worker of a pool in an actor of the Ray cluster this process is connected to.

    Args:
        host: The address of this machine that workers connect to. Unless all of the cluster is here, give the
            one its machines reach. The connection is not encrypted, as Ray's own is not by default.
        **options: Options of the actors, such as `num_cpus`, `num_gpus`, `resources` or `runtime_env`.

    Raises:
        ConfigError: If Ray is not installed (`no-ray`).
    """

    def __init__(self, *, host: str = "127.0.0.1", **options: Any) -> None:
        self._ray = _import_ray()
        self._host = host
        self._options = options

    def __repr__(self) -> str:
        return f"RayActors(host={self._host!r})"

    def describe(self) -> Mapping[str, str]:
        """See `Backend.describe`."""
        return {"backend": "ray", "ray": str(self._ray.__version__), "host": self._host}

    def launcher(self, spec: PoolSpec) -> _Launcher:
        """See `Backend.launcher`.

        Raises:
            ConfigError: If this process is connected to no cluster, or a setting is Ray's to decide.
        """
        if not self._ray.is_initialized():
            raise ConfigError(
                "this process is connected to no Ray cluster", code="no-ray", hint="call ray.init(...) before"
            )
        settings = {"python": spec.python, "command": spec.command, "start": spec.start == "forkserver"}
        setting = next((name for name, given in settings.items() if given), None)
        if setting is not None:
            raise ConfigError(
                f"pool.{spec.name}.{setting}: Ray starts the processes of its actors",
                code="bad-pool-setting",
                hint="leave it out; runtime_env={...} of RayActors chooses the interpreter",
                path=f"pool.{spec.name}.{setting}",
            )
        return _Launcher(self._ray, self._host, self._options, spec)


class _Launcher:
    """Starts actors."""

    def __init__(self, ray: Any, host: str, options: Mapping[str, Any], spec: PoolSpec) -> None:
        self._ray = ray
        self._listener = Listener(host)
        environment = dict(options.get("runtime_env") or {})
        environment["env_vars"] = {**(environment.get("env_vars") or {}), **spec.env}
        own = {"num_cpus": 1, **options, "runtime_env": environment}
        # The pool replaces workers, by its own policy and with its own record of why.
        self._actor = ray.remote(_Host).options(**own, max_restarts=0, max_task_retries=0)

    async def launch(self) -> ConnectedWorker:
        """See `Launcher.launch`."""
        connect_info = self._listener.expect()
        actor = self._actor.remote()
        kill = partial(self._ray.kill, actor)
        where = asyncio.wrap_future(actor.where.remote().future())
        serving = asyncio.wrap_future(actor.serve.remote(*connect_info).future())
        connecting: asyncio.Future[ConnectedWorker] | None = None
        try:
            await asyncio.wait([where, serving], return_when=asyncio.FIRST_COMPLETED)
            if not where.done() or where.exception() is not None:
                raise WorkerStartError(f"the actor did not start: {_why(where if where.done() else serving)}")
            waiting = self._listener.connected(connect_info, where.result(), kill)
            connecting = asyncio.ensure_future(waiting)
            await asyncio.wait([connecting, serving], return_when=asyncio.FIRST_COMPLETED)
            if not connecting.done():
                raise WorkerStartError(f"the actor ended before it connected: {_why(serving)}")
            worker = connecting.result()
        except BaseException:
            kill()
            for waiter in filter(None, [where, serving, connecting]):
                waiter.add_done_callback(_why)
                waiter.cancel()
            self._listener.forget(connect_info)
            raise
        serving.add_done_callback(lambda serving: worker.set_exited(note=_why(serving)))
        return worker

    def output(self) -> str:
        """Actors say for themselves what there is to say."""
        return ""

    async def aclose(self) -> None:
        """See `Launcher.aclose`."""
        await self._listener.aclose()


class _Host:
    """The actor. Its process is the worker's."""

    def where(self) -> str:
        """The machine it runs on."""
        import socket

        return socket.gethostname()

    def serve(self, host: str, port: int, token: bytes) -> None:
        """Be a worker, to the end of the process."""
        # In the actor, which is a worker: the service's process never comes here.
        worker: Any = import_module("dspex.worker.connect_back")
        worker.connect_back(ConnectInfo(host, port, token))


def _why(ended: asyncio.Future[Any]) -> str:
    """What Ray says of the end of an actor, in one line."""
    if ended.cancelled():
        return ""
    error = ended.exception()
    return "" if error is None else " ".join(str(error).split())[:500]


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as err:
        raise ConfigError(
            "the backend of Ray actors needs Ray", code="no-ray", hint="`pip install 'dspex[ray]'`"
        ) from err
    return ray
