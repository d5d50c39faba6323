"""A service on a system without what Windows has not: asks natively, opens a pool, and says what comes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from importlib import import_module

MODULES = (
    *("dspex", "dspex.runtime", "dspex.pool", "dspex.testing", "dspex.modules", "dspex.adapters"),
    "dspex.wire._kinds",
)

for name in MODULES:  # with what they import of others, which ask for the platform themselves
    import_module(name)
asyncio.run(asyncio.sleep(0))
for name in [name for name in sys.modules if name.partition(".")[0] == "dspex" and name != "dspex._core"]:
    del sys.modules[name]

for name in ("fcntl", "resource", "termios", "pwd", "grp"):
    sys.modules[name] = None  # type: ignore[assignment]
for owner, names in {
    os: ("fork", "killpg", "setpgid", "register_at_fork", "pidfd_open", "waitid", "sched_getaffinity"),
    signal: ("SIGKILL", "SIGCHLD", "set_wakeup_fd"),
    socket: ("send_fds", "recv_fds"),
}.items():
    for name in names:
        if hasattr(owner, name):
            delattr(owner, name)
sys.platform = "win32"


async def main() -> None:
    import dspex
    from dspex.errors import ConfigError
    from dspex.testing import ScriptedLM

    predict = dspex.Predict("question -> answer")
    lm = ScriptedLM(["[[ ## answer ## ]]\nblue\n\n[[ ## completed ## ]]"])
    async with dspex.Runtime(lm) as runtime:
        print((await predict.acall(question="sky?")).answer, runtime.pools())
    pool = dspex.Pool(dspex.PoolSpec(workers=1))
    try:
        await pool.start()
    except ConfigError as err:
        print(err.code, "|", err.message, "|", err.hint)
    await pool.aclose()


asyncio.run(main())
