"""One of three servers goes wrong under load: no caller sees it, it is left alone, and it comes back.

`python -m tests.load.deployments` does the same for longer, at a rate.
"""

from __future__ import annotations

from contextlib import aclosing

import pytest
from tests.support.deployments import BREAKER, WRONGS, servers

from dspex.errors import LMConnectionError
from dspex.lm import LMRequest
from dspex.testing import Cut

CALLS = 90
AT_ONCE = 10
PROBES = 8
"""More than there are in the time that the calls take, on a slow machine too."""


ROWS = [
    *((name, "weighted") for name in WRONGS),
    ("refuses without Retry-After", "ordered"),
    ("is slow", "ordered"),
    ("refuses without Retry-After", "fastest"),
]


@pytest.mark.parametrize(("name", "strategy"), ROWS)
@pytest.mark.timeout(120)
async def test_no_caller_sees_a_server_that_goes_wrong_which_is_left_alone_and_comes_back(
    name: str, strategy: str
) -> None:
    wrong = WRONGS[name]
    async with servers(strategy) as found:
        report = await found.run(wrong, CALLS, AT_ONCE)
        counts = found.group.counts()
        saw = [len(server.requests) for server in found.three]

    assert not report.errors
    assert report.answered >= 2 * CALLS + 5
    # What is under way when it is left alone, the failures that its rate needs, and the probes.
    needed = 0 if wrong.at_once else BREAKER.window_calls or 0
    assert report.to_first[1] <= needed + AT_ONCE + PROBES
    assert report.to_first[2] >= 5
    assert [row.served + row.failed + row.refused + row.cancelled for row in counts] == saw
    assert [row.in_flight for row in counts] == [0, 0, 0]
    if strategy != "fastest":  # which may have taken it for the slowest, and left it alone for that
        assert counts[0].failed >= 1
    assert [row.failed for row in counts[1:]] == [0, 0]
    assert counts[0].state == "closed"


async def test_a_stream_that_is_cut_after_its_first_piece_is_the_caller_s_and_counts() -> None:
    async with servers("ordered") as found:
        found.three[0].faults.push(Cut("middle"))
        pieces = []

        async def read() -> None:
            request = LMRequest([{"role": "user", "content": "say it"}], timeout=30.0)
            async with aclosing(found.group.stream(request)) as deltas:
                async for delta in deltas:
                    pieces.append(delta.text)

        with pytest.raises(LMConnectionError) as caught:
            await read()
        assert caught.value.code == "lm-cut"
        assert "".join(pieces)
        assert found.group.counts()[0].failed == 1
        pieces.clear()
        await read()
        assert "".join(pieces) == "it is said"
