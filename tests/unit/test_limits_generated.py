"""Any history of calls that come, end, fail and leave: never too many at once, nobody overtaken or lost."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.support.generated import fewer
from tests.support.sides import Gate, operation

from dspex.errors import LMServerError, TargetsUnavailable
from dspex.router import Limits, Router

ROUTES = (None, "native", "pool:p")
QUEUE = 4

actions = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.sampled_from(ROUTES)),
        st.tuples(st.just("end"), st.integers(0, 5)),
        st.tuples(st.just("fail"), st.integers(0, 5)),
        st.tuples(st.just("leave"), st.integers(0, 20)),
    ),
    max_size=40,
)


class History:
    """A router with limits, and what has become of each call."""

    def __init__(self, native: int, pool: int) -> None:
        self.most = {"native": native, "pool:p": pool}
        self.targets = {"native": Gate(), "pool:p": Gate("pool:p", "python")}
        limits = {name: Limits(in_flight=most, wait=60, queue=QUEUE) for name, most in self.most.items()}
        self.router = Router(list(self.targets.values()), limits=limits)
        self.calls: list[asyncio.Task[Any]] = []
        self.routes: list[Any] = []

    async def settle(self) -> None:
        for _ in range(30):
            await asyncio.sleep(0)
        self.check()

    def check(self) -> None:
        rows = {row.name: row for row in self.router.counts()}
        for name, target in self.targets.items():
            under_way = [call for call in target.calls if not call.done()]
            assert len(under_way) == rows[name].in_flight <= self.most[name]
            for route in ROUTES:  # those of one queue come in their order
                came = [number for number in target.came if self.routes[number] == route]
                assert came == sorted(came)
        waiting = [
            number
            for number, call in enumerate(self.calls)
            if not call.done() and not any(number in target.came for target in self.targets.values())
        ]
        assert len(waiting) <= QUEUE
        for number in waiting:  # nobody waits where there is room
            may = [self.routes[number]] if self.routes[number] else list(self.targets)
            assert all(rows[name].in_flight == self.most[name] for name in may)

    async def do(self, action: str, what: Any) -> None:
        if action == "come":
            number = len(self.calls)
            self.routes.append(what)
            call = operation(inputs={"question": number}, route=what)
            self.calls.append(asyncio.create_task(self.router.dispatch(call, 60.0)))
        elif action == "leave":
            if what < len(self.calls):
                self.calls[what].cancel()
        else:
            under_way = [call for each in self.targets.values() for call in each.calls if not call.done()]
            if what < len(under_way):
                if action == "end":
                    under_way[what].set_result("blue")
                else:
                    under_way[what].set_exception(LMServerError("down"))
        await self.settle()

    async def end(self) -> None:
        """Let all that are left answer."""
        while not all(call.done() for call in self.calls):
            await self.do("end", 0)
        results = await asyncio.gather(*self.calls, return_exceptions=True)
        answered = sum(not isinstance(each, BaseException) for each in results)
        failed = sum(isinstance(each, LMServerError) for each in results)
        full = sum(isinstance(each, TargetsUnavailable) for each in results)
        left = sum(isinstance(each, asyncio.CancelledError) for each in results)
        assert answered + failed + full + left == len(results)
        rows = self.router.counts()
        assert [row.in_flight for row in rows] == [0, 0]
        assert (sum(row.served for row in rows), sum(row.failed for row in rows)) == (answered, failed)


@fewer(5)
@given(native=st.integers(1, 3), pool=st.integers(1, 3), history=actions)
def test_whatever_happens_there_are_never_too_many_and_nobody_is_overtaken_or_lost(
    native: int, pool: int, history: list[tuple[str, Any]]
) -> None:
    async def run() -> None:
        made = History(native, pool)
        for action, what in history:
            await made.do(action, what)
        await made.end()

    asyncio.run(run())
