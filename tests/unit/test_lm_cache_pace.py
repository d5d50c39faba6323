"""When an event loop looks into the file of answers by itself: a table of looks, without clocks or files."""

from __future__ import annotations

import pytest

from dspex.lm._cache_pace import AWAY_SECONDS, SLOW_SECONDS, Pace

QUICK = SLOW_SECONDS / 10
SLOW = SLOW_SECONDS * 1.1


@pytest.mark.parametrize(
    ("looks", "by_itself"),
    [
        ([], False),
        ([(QUICK, 0.0)], True),
        ([(SLOW_SECONDS, 0.0)], True),
        ([(SLOW, 0.0)], False),
        ([(QUICK, 0.0), (SLOW, 1.0)], False),
        ([(SLOW, 1.0), (QUICK, 1.0 + AWAY_SECONDS / 2)], False),
        ([(SLOW, 1.0), (QUICK, 1.0 + AWAY_SECONDS)], True),
        ([(SLOW, 1.0), (SLOW, 1.0 + AWAY_SECONDS), (QUICK, 1.0 + AWAY_SECONDS * 1.5)], False),
        ([(QUICK, 0.0)] * 100 + [(SLOW, 9.0)] + [(QUICK, 9.0 + AWAY_SECONDS)], True),
    ],
)
def test_a_loop_looks_by_itself_while_looks_are_quick(
    looks: list[tuple[float, float]], by_itself: bool
) -> None:
    pace = Pace()
    for seconds, now in looks:
        pace.took(seconds, now)
    assert pace.is_quick is by_itself


def test_a_loop_that_could_not_look_leaves_it_to_a_thread_for_a_while() -> None:
    pace = Pace()
    pace.took(QUICK, 0.0)
    pace.failed(1.0)
    assert not pace.is_quick
    pace.took(QUICK, 1.0 + AWAY_SECONDS / 2)
    assert not pace.is_quick
    pace.took(QUICK, 1.0 + AWAY_SECONDS)
    assert pace.is_quick
