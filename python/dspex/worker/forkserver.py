"""A process that has DSPy imported and warmed, and forks workers in milliseconds.

It is single-threaded and runs no event loop: a fork copies one thread only, and a lock that another one
held stays locked for ever. Whatever would start a thread is refused before the first fork, by name. It
serves one pool, over one socket::

    service -> forkserver   HELLO settings          FORK + the worker's descriptors, four or five
    forkserver -> service   READY | ERROR           FORKED pid | ERROR        EXITED [pid, status]

A forked worker does not depend on it: the lifeline is tied to the service, and a worker whose forkserver has
died works on.

What a worker costs is the pages it writes to: about 2,900 of 18,000 once it has answered a first call, a
third of them only because a reference was counted up and down again. Of eight workers with a call each, the
summed PSS was 130.2 MiB before the type cache was cleared (`_warm`), and 127.8 with it, on a machine where no
other Python shares the libraries. Tried and taken out: a rehearsal over real HTTP (3 MiB more: the same pages
are written, and more are resident), 30 rehearsals, not 10 (1 MiB more), a rehearsal through the worker's
own modules (nothing), moving the code that a call runs into pages of its own (1 MiB more: its names and
constants stay where they were), filling the holes in the allocator's pools (nothing: there are few, since
nothing is collected here).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import importlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from dspex.errors import WorkerStartError
from dspex.protocol.frames import FrameReader, Kind, encode_frame
from dspex.protocol.handshake import Greeting, Handshake
from dspex.protocol.process_group import kill_group
from dspex.wire._msgpack import MessagePack
from dspex.worker.parent_watch import Descriptors, kill_on_hangup, watch_parent
from dspex.worker.startup import import_preload, prepare_interpreter, start_error

__all__ = ["run"]

_REHEARSALS: Final = 10

_LEAVING: Final = 0.5
"""Seconds in which a thread that has ended leaves the kernel's list."""

_GATEWAYS: Final = ("OPENAI_API_BASE", "OPENAI_BASE_URL")

_LATE_IMPORTS: Final = ("dspy.clients.costs", "dspy._vendor.lm15.cloud.hosts")
"""What DSPy imports in the middle of a first call over HTTP, which a forkserver cannot make."""


def run(control: int, lifeline: int, *, service: int) -> NoReturn:
    """Serve FORK requests until the service sends STOP or goes away.

    Args:
        control: The socket's number.
        lifeline: The pipe whose end of file means that the service is gone.
        service: The service's process id.
    """
    for number in (control, lifeline):
        os.set_inheritable(number, False)
    kill_on_hangup(lifeline)
    Forkserver(socket.socket(fileno=control), service).serve()
    os._exit(0)


class Forkserver:
    """The loop of the forkserver: one descriptor for requests, one for children that end."""

    def __init__(self, control: socket.socket, service: int) -> None:
        self._control = control
        self._service = service
        self._reader = FrameReader()
        self._codec = MessagePack()
        self._wakeup, self._wakeup_in = os.pipe()
        os.set_blocking(self._wakeup_in, False)

    def serve(self) -> None:
        """Run until STOP or the end of the socket."""
        signal.signal(
            signal.SIGCHLD, lambda *_: None
        )  # a handler there must be, for the wake-up to be written
        signal.set_wakeup_fd(self._wakeup_in)
        while True:
            readable, _, _ = select.select([self._control.fileno(), self._wakeup], [], [])
            if self._wakeup in readable:
                os.read(self._wakeup, 4096)
                self._reap()
            if self._control.fileno() in readable:
                # The service waits for the answer to one request before it sends the next, so the
                # descriptors that arrive belong to the one frame that arrives.
                data, numbers, _, _ = socket.recv_fds(self._control, 65536, 8)
                if not data:
                    return
                for kind, call_id, body, _ in self._reader.feed(data):
                    if kind == Kind.STOP:
                        return
                    self._take(kind, call_id, body, numbers)

    def _take(self, kind: int, number: int, body: memoryview, descriptors: list[int]) -> None:
        try:
            if kind == Kind.HELLO:
                self._warm(Handshake.from_wire(self._codec.decode(body)))
                self._send(Kind.READY, number, Greeting.of_this_process().to_wire())
            elif kind == Kind.FORK:
                self._send(Kind.FORKED, number, self._fork(descriptors))
        except Exception as err:  # noqa: BLE001 - whatever it was, the service must hear of it
            self._send(Kind.ERROR, number, start_error(err).to_dict())

    def _send(self, kind: Kind, call_id: int, value: Any) -> None:
        self._control.sendall(encode_frame(kind, call_id, self._codec.encode(value)))

    # --- warming ---

    def _warm(self, handshake: Handshake) -> None:
        # A collection leaves holes in pages, which workers would fill, each in a copy of its own.
        gc.disable()
        prepare_interpreter(handshake)
        import dspex.worker.server

        _check_threads("dspex.worker")
        import dspex.worker.operations.table  # noqa: F401 - imports DSPy, for the workers

        _check_threads("dspy")
        for module in handshake.preload:
            import_preload(module)
            _check_threads(module)
        if sys.version_info < (3, 12):
            # The interpreter remembers which attributes of types were looked up, and holds their names. What
            # it holds from the imports, a worker would let go of one by one, all over the memory.
            sys._clear_type_cache()
        _rehearse()
        _check_threads("a first dspy.Predict")
        _give_back_memory()
        # What is alive now stays alive in every worker; a collector that visited it would copy its pages.
        gc.freeze()

    # --- forking ---

    def _fork(self, numbers: list[int]) -> int:
        sock, lifeline, heartbeat, output, *memory = numbers
        sys.stdout.flush()
        sys.stderr.flush()  # or every worker would say again what is still in the buffers
        pid = os.fork()
        if pid == 0:
            try:
                self._become_worker(Descriptors(sock, lifeline, heartbeat, *memory), output)
            finally:
                os._exit(1)  # never return into the forkserver's loop
        with contextlib.suppress(OSError):  # it may have ended
            # As it does itself, whichever comes first: once its id is known, its group can be killed.
            os.setpgid(pid, pid)
        for number in numbers:
            os.close(number)
        return pid

    def _become_worker(self, descriptors: Descriptors, output: int) -> None:
        gc.enable()
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._control.close()
        for number in (self._wakeup, self._wakeup_in):
            os.close(number)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        watch_parent(descriptors, service=self._service)
        from dspex.worker.server import serve

        try:
            serve(descriptors)
        except BaseException:  # noqa: BLE001 - the last word of a process that ends
            sys.excepthook(*sys.exc_info())

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                kill_group(ended.si_pid)
                pid, status = os.waitpid(ended.si_pid, 0)
                self._send(Kind.EXITED, 0, [pid, os.waitstatus_to_exitcode(status)])


def _give_back_memory() -> None:
    """Let the system have what the imports have freed, or every worker has it: 3 MiB each (glibc only)."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _rehearse() -> None:
    """Some predictions from end to end, on an LM that is not there, so that no worker pays for the first.

    They go the way of a worker's own: what that imports or makes at its first call is shared by all workers.
    A plain `dspy.Predict` left out what reads signatures, 2 MiB and 4 ms of each worker.

    Several, because the interpreter rewrites code that has run a few times: what it rewrites here stays
    shared, what it rewrites in a worker is a copy of the page.
    """
    import dspy
    from dspy.utils.dummies import DummyLM

    from dspex.protocol.requests import PredictRequest
    from dspex.worker.operations.lm import Models
    from dspex.worker.operations.modules import Modules

    class Rehearsed(Models):
        """The LMs of a worker, each of which is the one that is not there."""

        def get(self, override: Mapping[str, Any] | None = None) -> dspy.LM:
            return lm

        def give_back(self, lm: dspy.LM) -> None:
            pass

    lm = DummyLM([{"answer": "yes", "score": "0.5"}] * _REHEARSALS)
    modules = Modules(Rehearsed(None))

    async def predict() -> None:
        with dspy.context(disable_history=True):
            for number in range(_REHEARSALS):
                # A signature of its own each time: a worker's first one is new too.
                signature = f"question, context{number}: list[str] -> answer: str, score: float"
                inputs = {"question": "is it warm?", f"context{number}": ["yes"]}
                await modules.answer(PredictRequest.from_wire(PredictRequest.of(signature, inputs).to_wire()))

    asyncio.run(predict())  # it joins the threads it started
    # DSPy asks its catalogue of models before a model's first call, 16 MB that all workers can share. With
    # a gateway's address in the environment it would ask litellm, which most workers never need: see `lm`.
    gateways = {name: os.environ.pop(name) for name in _GATEWAYS if name in os.environ}
    _ = dspy.LM("openai/gpt-4o-mini", api_key="none", cache=False).supported_params
    os.environ.update(gateways)
    for module in _LATE_IMPORTS:
        with contextlib.suppress(
            ImportError
        ):  # another version of DSPy: its workers import later, that is all
            importlib.import_module(module)


def _check_threads(cause: str) -> None:
    """Refuse to go on with more than one thread.

    Raises:
        WorkerStartError: If there are others; `cause` is to blame.
    """
    # A thread that was joined has done with Python, but the kernel may list it for a moment still.
    patience = time.monotonic() + _LEAVING
    while (count := _count_threads()) > 1 and time.monotonic() < patience:
        time.sleep(0.001)
    if count > 1:
        raise WorkerStartError(
            f"importing {cause} left {count - 1} thread(s) running: a process that has them cannot be forked",
            code="forkserver-not-single-threaded",
            hint="set start='spawn', or find the setting that keeps the module from starting threads",
            module=cause,
            threads=count - 1,
        )


def _count_threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return threading.active_count()
