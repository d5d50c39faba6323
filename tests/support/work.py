"""What the tests have a worker do: every way to answer, to wait and to die."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

from dspex.errors import InputError


def add(a: int, b: int) -> int:
    return a + b


def is_loaded(module: str) -> bool:
    return module in sys.modules


def loaded_modules() -> set[str]:
    return set(sys.modules)


def give(value: Any) -> Any:
    return value


def give_unencodable() -> object:
    return {"rows": [1, object()]}


def die_by(number: int) -> None:
    os.kill(os.getpid(), number)
    threading.Event().wait()


async def die_by_async(number: int) -> None:
    os.kill(os.getpid(), number)
    await asyncio.Event().wait()


def crash_in_c() -> None:
    import ctypes

    ctypes.string_at(0)


def leave(status: int) -> None:
    os._exit(status)


def leave_with(value: Any) -> None:
    os._exit(1)


def ask_to_exit() -> None:
    sys.exit(3)


def fail(message: str) -> None:
    raise ValueError(message)


def fail_without_words() -> None:
    class Mute(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise KeyError("text")

    raise Mute


def fail_with_an_object() -> None:
    raise InputError("no such customer", field=object())


def tell(path: str | None) -> None:
    """Leave a file that says the work has begun, if that is asked for."""
    if path is not None:
        with open(path, "w"):
            pass


def block(begun: str | None = None) -> None:
    tell(begun)
    threading.Event().wait()


async def wait_for_ever(begun: str | None = None) -> None:
    tell(begun)
    await asyncio.Event().wait()


async def block_the_loop(begun: str | None = None) -> None:
    tell(begun)
    threading.Event().wait()


async def refuse_to_stop(begun: str | None = None) -> None:
    tell(begun)
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue


def stop_the_process(begun: str | None = None) -> None:
    tell(begun)
    os.kill(os.getpid(), signal.SIGSTOP)


def say(text: str) -> None:
    print(text)
    print(text, file=sys.stderr)


def write_garbage_on_every_socket() -> None:
    write_on_every_socket(b"\x00garbage" * 8)


def write_on_every_socket(data: bytes) -> None:
    import stat

    for number in range(3, 64):
        try:
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                os.write(number, data)
        except OSError:
            continue


def pid() -> int:
    return os.getpid()


def environment(name: str) -> str | None:
    return os.environ.get(name)


def command_line_and_environment() -> str:
    with open("/proc/self/cmdline") as line, open("/proc/self/environ") as environ:
        return line.read() + environ.read()


def hold_the_interpreter() -> None:
    """Block in C without letting go of the interpreter lock: no other thread of the process runs."""
    import ctypes

    ctypes.PyDLL(None).pause()


async def survivor_of(pid: int) -> str:
    """Wait for ever in the process `pid`; answer at once anywhere else."""
    if os.getpid() == pid:
        await asyncio.Event().wait()
    return "ran elsewhere"


def allocate(size: int) -> int:
    return len(bytearray(size))


def keep(size: int) -> int:
    """Hold on to memory for the life of the process."""
    _kept.append(bytearray(os.urandom(1024)) * (size // 1024))
    return os.getpid()


_kept: list[bytearray] = []


def niceness_and_cpus() -> tuple[int, list[int]]:
    return os.nice(0), sorted(os.sched_getaffinity(0))


async def wait_a_moment(number: int) -> int:
    await asyncio.sleep(0.01)
    return number


def say_and_die(text: str) -> None:
    print(text, flush=True)
    os._exit(9)


async def count_async(limit: int) -> Any:
    for number in range(limit):
        yield number


def count(limit: int) -> Any:
    yield from range(limit)


async def count_and_tell(path: str) -> Any:
    """Count for ever, and write down how far it came; say so too when it is closed."""
    number = 0
    try:
        while True:
            with open(path, "w") as file:
                file.write(str(number))
            yield number
            number += 1
    finally:
        with open(path, "a") as file:
            file.write(" closed")


def count_then_fail(limit: int) -> Any:
    yield from range(limit)
    raise ValueError("no more numbers")


def write_to_a_full_disk() -> None:
    with open("/dev/full", "w") as disk:
        disk.write("x")


def start_a_child(how: str) -> int:
    """Start a process that goes on for long; gives its id, or dies at once."""
    import subprocess

    child = subprocess.Popen(["sleep", "60"])
    if how == "die":
        print(child.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return child.pid


async def wait_and_tell(path: str) -> None:
    """Wait for ever; write down that it has begun, and that it was told to stop."""
    with open(path, "w") as file:
        file.write("begun")
    try:
        await asyncio.Event().wait()
    finally:
        with open(path, "w") as file:
            file.write("cancelled")


def stop_iterating() -> None:
    raise StopIteration("no more")


def loaded(module: str) -> bool:
    return module in sys.modules


async def meet(count: int) -> int:
    """Answer when that many threads of the default executor wait for each other, and never with fewer."""
    barrier = threading.Barrier(count)
    met = await asyncio.gather(*(asyncio.to_thread(barrier.wait) for _ in range(count)))
    return len(met)


def descriptors(pid: int | None = None) -> list[str]:
    """What the descriptors of a process are: this one's, or another's."""
    folder = f"/proc/{pid or os.getpid()}/fd"
    found = []
    for number in os.listdir(folder):
        try:
            found.append(os.readlink(f"{folder}/{number}"))
        except FileNotFoundError:  # the one that listed
            continue
    return found


async def kernel_signals() -> tuple[
    int, int
]:  # on the main thread, which is the one that the kernel asks for
    """The signal for the end of the parent, and that for the end of the lifeline; 0 for none."""
    import ctypes
    import fcntl

    at_parents_death = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(at_parents_death))
    armed = [fcntl.fcntl(number, 11) for number in _armed_lifelines()]  # F_GETSIG
    return at_parents_death.value, max(armed, default=0)


def disarm() -> None:
    """Leave a worker with the thread that waits for its lifeline's end: all it has on other systems."""
    import ctypes
    import fcntl

    ctypes.CDLL(None).prctl(1, 0)
    for number in _armed_lifelines():
        fcntl.fcntl(number, fcntl.F_SETFL, fcntl.fcntl(number, fcntl.F_GETFL) & ~os.O_ASYNC)
    for number in _open_descriptors():
        if os.readlink(f"/proc/self/fd/{number}") == "anon_inode:[pidfd]":
            os.dup2(os.eventfd(0), number)  # what the thread selects on never becomes readable


def _armed_lifelines() -> list[int]:
    import fcntl
    import stat

    return [
        number
        for number in _open_descriptors()
        if stat.S_ISFIFO(os.fstat(number).st_mode) and fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ASYNC
    ]


def _open_descriptors() -> list[int]:
    return [number for number in range(3, 256) if os.path.exists(f"/proc/self/fd/{number}")]


async def send_frame(
    kind: int, number: int | None, value: Any, codec: int = 1, times: int = 1, wait: bool = True
) -> None:
    """Say something to the service behind the worker's back; `number` None stands for this very call's."""
    from dspex.protocol.frames import encode_frame
    from dspex.wire._msgpack import MessagePack
    from dspex.worker.host import RUNNING

    body = value if isinstance(value, bytes) else MessagePack().encode(value)
    frame = encode_frame(kind, RUNNING.get() if number is None else number, body, codec)
    for _ in range(times):
        write_on_every_socket(frame)
    if wait:
        await wait_for_ever()


async def send_frame_and_yield(kind: int, value: Any, times: int) -> AsyncIterator[int]:
    yield 0
    await send_frame(kind, None, value, times=times)


async def yield_and_wait() -> AsyncIterator[int]:
    yield 0
    await wait_for_ever()


async def nap(seconds: float) -> None:
    await asyncio.sleep(seconds)


def block_for(seconds: float) -> None:
    time.sleep(seconds)


async def count_to(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def total(parts: AsyncIterator[int]) -> int:
    return sum([part async for part in parts])


async def ask(value: int) -> Any:
    from dspex.worker.host import call_host

    return await call_host("ask", value)
