"""A pool that dies and comes back while calls come in; `make outage` does it at length."""

from __future__ import annotations

import os

from tests.support.outage import POOL, Outage, broken


async def test_a_pool_that_dies_and_comes_back_costs_no_caller_an_error() -> None:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    told = await Outage(pace=200, python=4, enough=30).run(seconds=60)

    assert broken(told) == []
    assert told.killed >= 2
    assert told.counts[1].failed >= 5, "the breaker opens at five calls"
    assert {told.by[phase, "native"] > 0 for phase in ("well", "dying", "back")} == {True}
    assert told.by["back", POOL] >= 30
