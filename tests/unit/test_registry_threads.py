"""The registry while it changes: eight threads decide and record, two add and remove targets."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from tests.support.sides import Gate, operation

from dspex.errors import RouteError
from dspex.router import Breaker, Limits, Router

THREADS = 8
DECISIONS = 1_500


@pytest.mark.parametrize("limits", [None, Limits(in_flight=1_000, wait=1)], ids=["unlimited", "limited"])
@pytest.mark.parametrize("strategy", ["prefer-native", "fastest", "weighted"])
def test_what_each_target_has_counted_is_what_threads_did_there(strategy: Any, limits: Any) -> None:
    stays = [Gate(), Gate("pool:a", "python"), Gate("pool:b", "python")]
    router = Router(stays, strategy=strategy, limits=limits, breaker=Breaker(minimum=100_000))
    ended: Counter[tuple[str, str]] = Counter()
    errors: list[Exception] = []
    lock, over = threading.Lock(), threading.Event()

    def calls(thread: int) -> None:
        mine: Counter[tuple[str, str]] = Counter()
        routes = (None, "python", "pool:b", "native")
        try:
            for number in range(DECISIONS):
                ticket, _ = router.decide(operation(route=routes[number % 4]), 0, 0)
                outcome = ("served", "failed", "refused", "cancelled")[(number + thread) % 4]
                router.record(ticket, outcome, None)
                router.record(ticket, "failed", None)  # what is said first counts
                mine[ticket.name, outcome] += 1
        except Exception as error:  # noqa: BLE001 - it is looked at below
            errors.append(error)
        with lock:
            ended.update(mine)

    def comings_and_goings(name: str) -> None:
        try:
            while not over.is_set():
                router.add(Gate(name, "python"))
                router.remove(name)
        except Exception as error:  # noqa: BLE001 - as above
            errors.append(error)

    callers = [threading.Thread(target=calls, args=(number,)) for number in range(THREADS)]
    others = [threading.Thread(target=comings_and_goings, args=(name,)) for name in ("x", "y")]
    for thread in (*others, *callers):
        thread.start()
    for thread in callers:
        thread.join()
    over.set()
    for thread in others:
        thread.join()

    assert errors == []
    assert sum(ended.values()) == THREADS * DECISIONS
    rows = {row.name: row for row in router.counts()}
    assert set(rows) == {"native", "pool:a", "pool:b"}
    for name, row in rows.items():
        assert (row.in_flight, row.served, row.cancelled) == (
            0,
            ended[name, "served"],
            ended[name, "cancelled"],
        )
        assert row.failed == ended[name, "failed"] + ended[name, "refused"]
    with pytest.raises(RouteError):
        router.decide(operation(route="x"), 0, 0)
