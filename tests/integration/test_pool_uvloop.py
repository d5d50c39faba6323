"""A service may run on uvloop, whose transports are not asyncio's."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
import uvloop
from tests.support.processes import children, until

from dspex import errors
from dspex.pool import Pool, PoolSpec, PredictRequest
from dspex.testing import ModelServer


def test_a_pool_serves_survives_and_closes_on_uvloop() -> None:
    before = {child.pid for child in children()}

    async def main() -> None:
        assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
        async with ModelServer("[[ ## answer ## ]]\nblue\n\n[[ ## completed ## ]]") as server:
            lm = {"model": "openai/test", "api_base": server.api_base, "api_key": "none"}
            async with Pool(PoolSpec(workers=1), lm=lm) as pool:
                ask = PredictRequest.of("question -> answer", {"question": "the sky's colour?"})
                answers = await asyncio.gather(*(pool.call(ask) for _ in range(20)))
                assert all(answer["completions"] == [{"answer": "blue"}] for answer in answers)

                large = b"x" * 2**22  # many reads and writes of the transport
                assert await pool.echo(large) == large

                (worker,) = pool.status().workers
                call = asyncio.ensure_future(pool.run("tests.support.work:wait_for_ever"))
                await until(lambda: pool.status().workers[0].inflight == 1)
                assert worker.pid is not None
                os.kill(worker.pid, signal.SIGKILL)
                with pytest.raises(errors.WorkerDiedError, match="SIGKILL"):
                    await call
                assert await pool.echo(5) == 5
        await until(lambda: not [child for child in children() if child.pid not in before])

    uvloop.run(main())
