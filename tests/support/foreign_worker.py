"""A worker written from docs/protocol.md alone: the standard library, and nothing of dspex.

It stands for one in another language, so it is run as a program (`python -I -S foreign_worker.py`), reads and
writes JSON itself, and knows of types no more than a list and a text. Its functions are at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import sys
import threading
import time
from typing import Any

HEADER = struct.Struct("!BBBBIQ")
MAGIC, JSON = 0xD5, 2
HELLO, READY, CALL, RESULT, ERROR, CANCEL, STOP = 1, 2, 3, 4, 5, 6, 7
ITEM, CREDIT = 11, 12

connection = socket.socket(fileno=int(os.environ["DSPEX_SOCKET"]))
lifeline = int(os.environ["DSPEX_LIFELINE"])
heartbeat = int(os.environ["DSPEX_HEARTBEAT"])
for number in (connection.fileno(), lifeline, heartbeat):
    os.set_inheritable(number, False)

one_writes = threading.Lock()
calls: dict[int, Call] = {}  # by id: the calls that run
told: dict[str, Any] = {}  # what HELLO said
asked: dict[int, list[Any]] = {}  # by id: host calls that wait for an answer


class FailedError(Exception):
    """What a caller is to get."""

    def __init__(self, message: str, code: str = "remote", kind: str = "RemoteError") -> None:
        super().__init__(message)
        self.body: dict[str, Any] = {"class": kind, "message": message, "code": code, "hint": ""}
        self.body |= {"retryable": None, "details": {}}


class Call:
    """A call that runs."""

    def __init__(self, number: int, codec: int, seconds: float, window: int) -> None:
        self.number, self.codec, self.window = number, codec, window
        self.ends = time.monotonic() + seconds
        self.stopped = threading.Event()
        self.room = threading.Semaphore(window)

    def wait(self, seconds: float) -> None:
        """Sleep, unless the caller goes or the time runs out."""
        if self.stopped.wait(min(seconds, self.ends - time.monotonic())):
            raise FailedError("the caller has gone", "cancelled", "DspexError")
        if time.monotonic() >= self.ends:
            raise FailedError("the time is over", "deadline", "DeadlineExceeded")


def send(kind: int, number: int, value: Any) -> None:
    body = json.dumps(value, allow_nan=False).encode()
    with one_writes:
        connection.sendall(HEADER.pack(MAGIC, kind, JSON, 0, len(body), number) + body)


def receive(size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            os._exit(0)
        data += more
    return data


def live() -> None:
    """Heartbeats, and the end of the lifeline."""
    os.set_blocking(heartbeat, False)
    count = 0
    while True:
        with contextlib.suppress(BlockingIOError):
            os.write(heartbeat, struct.pack("!IQ", count, 0))
        count += 1
        if select.select([lifeline], [], [], 0.5)[0]:
            os._exit(1)


def greet(hello: dict[str, Any]) -> None:
    told.update(hello)
    if hello["protocol"] != 1:
        send(ERROR, 0, FailedError("another protocol", "version-mismatch", "WorkerStartError").body)
        sys.exit(1)
    ready = {"protocol": 1, "codecs": ["json"], "worker": "words 1.0", "operations": ["function"]}
    send(READY, 0, {**ready, **json.loads(os.environ.get("READY", "{}"))})


def run(call: Call, operation: str, payload: Any) -> None:
    try:
        if operation != "function":
            raise FailedError(f"there is no {operation!r}", "unknown-operation", "WireError")
        name = payload["function"]
        if name not in FUNCTIONS:
            raise FailedError(f"there is no {name!r}", "unknown-operation", "WireError")
        result = FUNCTIONS[name](call, *payload.get("args", []), **payload.get("kwargs", {}))
        answer: tuple[int, Any] = RESULT, result
    except FailedError as error:
        answer = ERROR, error.body
    except Exception as error:  # noqa: BLE001 - whatever it was, the caller must hear of it
        answer = ERROR, FailedError(f"{type(error).__name__}: {error}").body
    del calls[call.number]
    send(answer[0], call.number, answer[1])


def serve() -> None:
    threading.Thread(target=live, daemon=True).start()
    while True:
        magic, kind, codec, flags, length, number = HEADER.unpack(receive(HEADER.size))
        body = receive(length)
        if magic != MAGIC or codec != JSON or flags:
            sys.exit("this is no frame of JSON")
        value = json.loads(body)
        if kind == HELLO:
            greet(value)
        elif kind == CALL:
            operation, payload, seconds, window = value[:4]
            call = calls[number] = Call(number, codec, seconds, window)
            threading.Thread(target=run, args=(call, operation, payload), daemon=True).start()
        elif kind == CANCEL and number in calls:
            calls[number].stopped.set()
        elif kind == CREDIT and number in calls:
            for _ in range(value):
                calls[number].room.release()
        elif kind in (RESULT, ERROR) and number in asked:
            asked[number].append((kind, value))
            asked[number][0].set()
        elif kind == STOP:
            os._exit(0)


# --- what it can do ---


def fail(call: Call, text: str) -> None:
    raise ValueError(text)


def count(call: Call, limit: int) -> None:
    """In parts, no more than there is room for."""
    if not call.window:
        raise FailedError("ask for it in parts", "not-a-stream", "ConfigError")
    for number in range(limit):
        while not call.room.acquire(timeout=0.05):
            call.wait(0)
        send(ITEM, call.number, number)


def ask(call: Call, name: str, *args: Any) -> Any:
    """Call a function of the service."""
    number = 2 * call.number
    answered = threading.Event()
    asked[number] = [answered]
    send(CALL, number, [call.number, name, list(args), {}])
    while not answered.wait(0.05):
        call.wait(0)
    kind, value = asked.pop(number)[1]
    if kind == ERROR:
        raise FailedError(value["message"], value["code"], value["class"])
    return value


def garbage(call: Call) -> None:
    with one_writes:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    call.wait(60)


def no_json(call: Call) -> None:
    with one_writes:
        connection.sendall(HEADER.pack(MAGIC, RESULT, JSON, 0, 3, call.number) + b"NaN")
    call.wait(60)


FUNCTIONS: dict[str, Any] = {
    "words:upper": lambda call, text: text.upper(),
    "words:same": lambda call, *args, **kwargs: [list(args), kwargs],
    "words:codec": lambda call: call.codec,
    "words:hello": lambda call: told,
    "words:sleep": lambda call, seconds: call.wait(seconds),
    "words:deaf": lambda call: time.sleep(600),
    "words:die": lambda call: print("farewell", flush=True) or os._exit(3),
    "words:limits": lambda call: [os.getpriority(os.PRIO_PROCESS, 0), sorted(os.sched_getaffinity(0))],
    "words:fail": fail,
    "words:count": count,
    "words:ask": ask,
    "words:garbage": garbage,
    "words:no_json": no_json,
}

if __name__ == "__main__":
    serve()
