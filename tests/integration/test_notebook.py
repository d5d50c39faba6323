"""Blocking calls in a notebook: a real Jupyter kernel, whose cells run on the thread of its event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import Empty

import pytest
from jupyter_client.manager import KernelManager

Cell = Callable[[str], str]

SETUP = """
import asyncio, dspex
from dspex.errors import ConfigError
from dspex.testing import ScriptedLM
lm = ScriptedLM("[[ ## answer ## ]]\\nAda\\n\\n[[ ## completed ## ]]")
qa = dspex.Predict("question -> answer")
assert asyncio.get_running_loop().is_running()
"""


@pytest.fixture(scope="module")
def kernel() -> Iterator[Cell]:
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    client = manager.client()
    client.start_channels()

    def cell(source: str) -> str:
        """Run a cell and give what it printed.

        Raises:
            AssertionError: With the traceback, if it raised.
        """
        number = client.execute(source)
        printed = []
        while True:
            try:
                message = client.get_iopub_msg(timeout=30)
            except Empty:
                raise AssertionError(f"the cell did not end: {source}") from None
            if message["parent_header"].get("msg_id") != number:
                continue
            content = message["content"]
            if message["msg_type"] == "stream":
                printed.append(content["text"])
            elif message["msg_type"] == "error":
                raise AssertionError("\n".join(content["traceback"]))
            elif message["msg_type"] == "status" and content["execution_state"] == "idle":
                return "".join(printed)

    try:
        client.wait_for_ready(timeout=30)
        cell(SETUP)
        yield cell
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_a_cell_calls_and_closes_as_a_script_does(kernel: Cell) -> None:
    assert kernel("with dspex.Runtime(lm):\n    print(qa(question='Who?').answer)") == "Ada\n"
    kernel("runtime = dspex.configure(lm)")
    assert kernel("print(qa(question='Who?').answer, runtime.pools())") == "Ada {}\n"
    kernel("runtime = dspex.configure(lm)")
    assert kernel("print((await qa.acall(question='Who?')).answer)") == "Ada\n"
    kernel("runtime.warmup(); runtime.close()")


def test_a_cell_that_would_wait_for_the_kernel_s_own_loop_is_told_so(kernel: Cell) -> None:
    printed = kernel(
        "async with dspex.Runtime(lm):\n"
        "    print((await qa.acall(question='Who?')).answer)\n"
        "    try:\n        qa(question='Who?')\n"
        "    except ConfigError as error:\n        print(error.code, error.hint)"
    )
    assert printed.startswith("Ada\nblocking-in-loop ")
    assert "open it by `with`" in printed


def test_a_loop_beside_the_kernel_s_is_not_stopped(kernel: Cell) -> None:
    kernel("runtime = dspex.configure(lm)")
    printed = kernel(
        "import threading\n"
        "async def handler():\n"
        "    try:\n        qa(question='Who?')\n"
        "    except ConfigError as error:\n        return error.code\n"
        "found = []\n"
        "thread = threading.Thread(target=lambda: found.append(asyncio.run(handler())))\n"
        "thread.start(); thread.join(); print(found)"
    )
    kernel("runtime.close()")
    assert printed == "['blocking-in-loop']\n"
