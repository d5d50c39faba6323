"""What a time-out may be: the same rule and the same error wherever one is given."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

import dspex
from dspex._timeouts import LONGEST_SECONDS, check_seconds
from dspex.errors import ConfigError, DeadlineExceeded
from dspex.lm import LMRequest
from dspex.pool import Timeouts
from dspex.pool._profiles import seconds_of
from dspex.testing import ScriptedLM

NO_TIMES = [
    "5", "soon", b"5", True, False, 0, 0.0, -1, float("nan"), float("inf"), -float("inf"), 10**400, 1e300,
    Decimal(5), datetime.timedelta(seconds=5), [5], (5,), object(), 5j, Fraction(-1, 2),
]  # fmt: skip

QA = dspex.Predict("question -> answer")
LM = dspex.LM("openai/x", api_base="http://127.0.0.1:1/v1", api_key="k")


async def call(value: Any) -> None:
    async with dspex.Runtime(ScriptedLM("Ada")):
        await QA.acall(question="Who?", timeout=value)


async def warmup(value: Any) -> None:
    async with dspex.Runtime(ScriptedLM("Ada")) as runtime:
        await runtime.awarmup(value)


async def configure(value: Any) -> None:
    dspex.configure(ScriptedLM("Ada"), timeout=value).close()


async def runtime(value: Any) -> None:
    dspex.Runtime(ScriptedLM("Ada"), timeout=value)


async def with_options(value: Any) -> None:
    QA.with_options(timeout=value)


async def lm(value: Any) -> None:
    dspex.LM("openai/x", timeout=value)


async def lm_connect(value: Any) -> None:
    dspex.LM("openai/x", connect_timeout=value)


async def pool(value: Any) -> None:
    seconds_of(value)


PLACES: list[Callable[[Any], Any]] = [
    call, warmup, configure, runtime, with_options, lm, lm_connect, pool,
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize("value", NO_TIMES, ids=lambda value: repr(value)[:20])
async def test_what_is_no_time_is_one_error_wherever_it_is_given(place: Any, value: Any) -> None:
    with pytest.raises(ConfigError, match="must be a number of seconds above 0") as caught:
        await place(value)
    assert caught.value.code == "bad-timeout"


@pytest.mark.parametrize("value", ["5", True, float("nan"), float("inf"), [5]], ids=repr)
async def test_a_request_s_own_limit_follows_the_rule_and_one_that_has_passed_is_the_deadline(
    value: Any,
) -> None:
    with pytest.raises(ConfigError) as caught:
        await LM.complete(LMRequest([], timeout=value))
    with pytest.raises(DeadlineExceeded):
        await LM.complete(LMRequest([], timeout=-0.5))
    assert caught.value.code == "bad-timeout"


@pytest.mark.parametrize("value", [1, 0.5, Fraction(1, 2), LONGEST_SECONDS])
def test_a_number_of_seconds_passes_as_a_float(value: Any) -> None:
    assert check_seconds(value) == float(value)
    assert type(check_seconds(value)) is float


def test_nought_is_allowed_where_it_means_at_once() -> None:
    assert check_seconds(0, zero=True) == 0.0
    with pytest.raises(ConfigError, match="from 0"):
        check_seconds(-1, zero=True)


def test_the_hint_shows_how_to_write_it() -> None:
    with pytest.raises(ConfigError, match=r"write timeout=5, a number"):
        check_seconds("5")
    with pytest.raises(ConfigError, match=r"\.total_seconds\(\)"):
        check_seconds(datetime.timedelta(seconds=5))


@pytest.mark.parametrize("name", ["call", "stop", "cancel"])
@pytest.mark.parametrize("value", ["5", True, 0, -1, float("nan"), float("inf"), 1e300], ids=repr)
def test_a_pool_s_settings_keep_the_same_bounds(name: Any, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Timeouts(**{name: value})
    assert caught.value.path == f"timeouts.{name}"
