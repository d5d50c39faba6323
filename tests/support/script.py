"""A script with a pool and no event loop: says its workers' ids, then ends in the way it is told."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path

from dspex.errors import DspexError, PoolClosedError
from dspex.pool import FunctionRequest, PoolSpec, State, SyncPool


def wait_for(pool: SyncPool, call: FunctionRequest) -> None:
    with contextlib.suppress(PoolClosedError):  # it is, at the script's end
        pool.call(call)


def main(end: str, start: str, file: str) -> None:
    pool = SyncPool(PoolSpec(workers=2, start=start))  # type: ignore[arg-type]
    pool.start()
    while [worker.state for worker in pool.status().workers] != [State.READY, State.READY]:
        pass
    print(*(worker.pid for worker in pool.status().workers), flush=True)
    call = FunctionRequest.of("tests.support.work:wait_and_tell", file)
    if end in ("busy", "exception while busy", "os._exit while busy"):
        threading.Thread(target=wait_for, args=(pool, call), daemon=True).start()
        while not os.path.exists(file):
            pass
    if end == "interrupted":
        try:
            pool.call(call)
        except KeyboardInterrupt:
            while Path(file).read_text() != "cancelled":
                pass
            print("interrupted", pool.echo("still here"), flush=True)
    elif end == "exception" or end == "exception while busy":
        raise LookupError("the script's own mistake")
    elif end == "sys.exit":
        sys.exit(3)
    elif end.startswith("os._exit"):
        os._exit(4)
    elif end == "forked":
        if (child := os.fork()) == 0:
            try:
                pool.echo(None)
            except DspexError as err:
                print(err.code, flush=True)
            sys.exit(0)  # the child's end, atexit and all, is not the pool's
        os.waitpid(child, 0)
        print(pool.echo("still here"), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
