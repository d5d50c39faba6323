from __future__ import annotations

import asyncio
import contextvars
import logging
import re
from contextlib import nullcontext
from typing import Any, Literal

import pytest

from dspex import Prediction
from dspex._core import Router as CoreRouter
from dspex.errors import (
    ConfigError,
    DeadlineExceeded,
    DspexError,
    InputError,
    LMAuthError,
    LMConnectionError,
    LMRateLimitError,
    LMServerError,
    LMTimeoutError,
    PoolSaturated,
    RemoteError,
    ReplyError,
    RouteError,
    TargetsUnavailable,
    WireError,
    WorkerDiedError,
    WorkerStartError,
)
from dspex.protocol.requests import ModuleRequest
from dspex.router import (
    AnyOperation,
    Breaker,
    ModuleOperation,
    Operation,
    OptimizeOperation,
    Retry,
    Router,
    _call,
    current_dispatcher,
    forget,
    set_default,
    use,
)
from dspex.signature import Signature
from dspex.testing import no_waiting

SIGNATURE = Signature("question -> answer")


class Echo:
    """A target that answers with its own name, once it is let."""

    def __init__(self, name: str, side: Literal["native", "python"]) -> None:
        self.name = name
        self.side = side
        self.go = asyncio.Event()
        self.go.set()
        self.error: Exception | None = None
        self.refusal: DspexError | None = None

    def unable(self, operation: AnyOperation) -> DspexError | None:
        return self.refusal

    async def run(self, operation: AnyOperation, timeout: float) -> Prediction:
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return Prediction.from_completions([{"answer": self.name}])


@pytest.fixture
def targets() -> list[Echo]:
    return [Echo("native", "native"), Echo("pool:general", "python"), Echo("pool:optimizer", "python")]


def operation(**options: Any) -> Operation:
    return Operation(signature=SIGNATURE, inputs={"question": "q"}, **options)


@pytest.mark.parametrize(
    ("options", "answered"),
    [
        ({}, "native"),
        ({"route": "python"}, "pool:general"),
        ({"route": "pool:optimizer"}, "pool:optimizer"),
        ({"route": "native"}, "native"),
    ],
)
async def test_a_call_goes_where_it_was_sent_and_says_so(targets: Any, options: Any, answered: Any) -> None:
    prediction = await Router(targets).dispatch(operation(**options), 1.0)

    assert prediction.answer == prediction.route == answered


async def test_a_call_that_the_native_side_cannot_run_goes_to_a_pool(targets: Any) -> None:
    targets[0].refusal = RouteError("only a worker has it", code="adapter-needs-dspy")
    prediction = await Router(targets).dispatch(operation(), 1.0)

    assert prediction.route == "pool:general"
    assert prediction.route_reason == "only a worker has it"


@pytest.mark.parametrize(
    ("route", "code", "mentions"),
    [
        ("rust", "unknown-route", 'there is no route "rust"'),
        ("native", "adapter-needs-dspy", "only a worker has it"),
    ],
)
async def test_a_route_that_cannot_be_taken_is_refused(
    targets: Any, route: Any, code: str, mentions: str
) -> None:
    targets[0].refusal = RouteError("only a worker has it", code="adapter-needs-dspy")
    router = Router(targets)

    with pytest.raises(RouteError, match=mentions) as caught:
        await router.dispatch(operation(route=route), 1.0)

    assert caught.value.code == code
    assert all(sum(row[1:5]) == 0 for row in router.counts()), "a refused call counts nowhere"


async def test_a_side_without_targets_names_those_there_are(targets: Any) -> None:
    with pytest.raises(RouteError, match="this runtime's targets are: native") as caught:
        await Router(targets[:1]).dispatch(operation(route="python"), 1.0)

    assert caught.value.code == "no-target"


async def test_every_way_a_call_can_end_is_counted(targets: Any) -> None:
    router = Router(targets)
    native = targets[0]
    await router.dispatch(operation(), 1.0)

    native.error = LMServerError("500")
    with pytest.raises(LMServerError):
        await router.dispatch(operation(), 1.0)

    native.go.clear()
    call = asyncio.create_task(router.dispatch(operation(), 60.0))
    await asyncio.sleep(0)
    assert router.counts()[0] == ("native", 1, 1, 1, 0, "closed")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    assert router.counts()[0] == ("native", 0, 1, 1, 1, "closed")


async def test_a_target_that_does_not_stop_by_itself_is_ended(
    targets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_call, "BACKSTOP_SECONDS", 0.0)
    targets[0].go.clear()
    router = Router(targets)

    with pytest.raises(DeadlineExceeded, match=r"native gave no answer within 0\.01 s") as caught:
        await router.dispatch(operation(), 0.01)

    assert caught.value.stage == "native"
    assert router.counts()[0].failed == 1


async def test_a_target_s_own_timeout_error_is_not_taken_for_the_deadline(targets: Any) -> None:
    targets[0].error = TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await Router(targets).dispatch(operation(), 1.0)


class Anybody:
    usable = True

    def run(self, operation: AnyOperation) -> Prediction:
        raise AssertionError

    async def arun(self, operation: AnyOperation) -> Prediction:
        raise AssertionError


def test_without_a_runtime_there_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match="no runtime") as caught:
        current_dispatcher()
    assert caught.value.code == "no-runtime"


def test_the_innermost_scope_is_current_and_the_first_serves_other_contexts() -> None:
    outer, inner = Anybody(), Anybody()
    elsewhere = contextvars.Context()

    with use(outer):
        with use(inner):
            assert current_dispatcher() is inner
            assert elsewhere.run(current_dispatcher) is outer
        assert current_dispatcher() is outer
    with pytest.raises(ConfigError):
        current_dispatcher()


def test_a_scope_left_in_another_context_is_still_left() -> None:
    scope = use(Anybody())
    contextvars.Context().run(scope.__enter__)

    scope.__exit__(None, None, None)

    with pytest.raises(ConfigError):
        current_dispatcher()


def test_a_default_serves_where_nothing_was_entered() -> None:
    default, entered = Anybody(), Anybody()
    set_default(default)
    try:
        assert current_dispatcher() is default
        with use(entered):
            assert current_dispatcher() is entered
        assert current_dispatcher() is default
    finally:
        forget(default)


# -- another target, and the breaker ----------------------------------------------------------------


def died(**more: Any) -> WorkerDiedError:
    return WorkerDiedError("the worker died", **more)


ELSEWHERE: list[tuple[Exception, dict[str, Any], bool]] = [
    (PoolSaturated("full"), {}, True),
    (WorkerStartError("it does not start"), {}, True),
    (died(), {}, False),
    (died(), {"idempotent": True}, True),
    (WireError("junk"), {"idempotent": True}, True),
    (PoolSaturated("full"), {"route": "pool:general"}, False),
    (PoolSaturated("full"), {"route": "python"}, False),
    (LMServerError("500"), {"idempotent": True}, False),
    (ReplyError("unreadable"), {"idempotent": True}, False),
    (InputError("wrong"), {"idempotent": True}, False),
    (DeadlineExceeded("late", timeout=1.0, stage="worker"), {"idempotent": True}, False),
    (RemoteError("the program raised"), {"idempotent": True}, False),
    (ZeroDivisionError("a bug"), {"idempotent": True}, False),
]


@pytest.mark.parametrize(
    ("error", "options", "goes_on"), ELSEWHERE, ids=lambda value: getattr(type(value), "__name__", None)
)
async def test_another_target_tries_where_nothing_was_done_or_may_be_done_twice(
    targets: Any, error: Exception, options: Any, goes_on: bool
) -> None:
    targets[1].error = error
    router = Router(targets, strategy="prefer-python")
    if goes_on:
        prediction = await router.dispatch(operation(**options), 1.0)
        assert (prediction.route, prediction.route_reason) == (
            "pool:optimizer",
            f"pool:general: {getattr(error, 'message', '')}",
        )
    else:
        with pytest.raises(type(error)) as caught:
            await router.dispatch(operation(**options), 1.0)
        assert caught.value is error
    assert all(row.in_flight == 0 for row in router.counts())


class Listener:
    """Somebody who may have heard a part of the answer, and has or has not."""

    fields = frozenset({"answer"})

    def __init__(self, *, told: bool = True) -> None:
        self.told = told


def program(**options: Any) -> ModuleOperation:
    return ModuleOperation(module=ModuleRequest(inputs={}), inputs={"question": "q"}, **options)


async def test_what_a_listener_has_heard_is_not_begun_again(targets: Any) -> None:
    targets[1].error = died()
    router = Router(targets, strategy="prefer-python", retry=Retry())
    for make in (operation, program):
        with pytest.raises(WorkerDiedError):
            await router.dispatch(make(idempotent=True, sink=Listener()), 1.0)
        unheard = make(idempotent=True, sink=Listener(told=False))
        assert (await router.dispatch(unheard, 1.0)).route == "pool:optimizer"


async def test_where_all_fail_the_last_error_tells_of_those_before_it(targets: Any) -> None:
    for number, target in enumerate(targets):
        target.error = PoolSaturated(f"full {number}")
    router = Router(targets, strategy="prefer-python")
    with pytest.raises(PoolSaturated, match="full 0") as caught:
        await router.dispatch(operation(), 1.0)
    assert caught.value.__notes__ == [
        "before that, pool:general: PoolSaturated: full 1",
        "before that, pool:optimizer: PoolSaturated: full 2",
    ]
    assert [row.failed for row in router.counts()] == [1, 1, 1]


FRAGILE = Breaker(minimum=2, window_calls=4, probes=1, open_for=5)


async def test_a_pool_whose_workers_die_is_left_alone_and_tried_again(
    targets: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="dspex.router")
    targets[1].error = died()
    now = [100.0]
    router = Router(targets, strategy="prefer-python", breaker=FRAGILE, clock=lambda: now[0])
    for _ in range(2):
        with pytest.raises(WorkerDiedError):
            await router.dispatch(operation(), 1.0)
    assert [row.state for row in router.counts()] == ["closed", "open", "closed"]
    now[0] += 4.9
    assert (await router.dispatch(operation(), 1.0)).route == "pool:optimizer"

    now[0] += 0.1
    with pytest.raises(WorkerDiedError):  # the probe
        await router.dispatch(operation(), 1.0)
    now[0] += 9.9  # twice as long
    assert (await router.dispatch(operation(), 1.0)).route == "pool:optimizer"

    targets[1].error = None
    now[0] += 0.1
    assert [(await router.dispatch(operation(), 1.0)).route for _ in range(2)] == ["pool:general"] * 2
    told = [record.getMessage().removeprefix("the breaker of pool:general is ") for record in caplog.records]
    assert told == [
        "open; it was closed",
        "half-open; it was open",
        "open; it was half-open",
        "half-open; it was open",
        "closed; it was half-open",
    ]


async def test_where_only_what_fails_could_serve_the_call_is_refused_at_once(targets: Any) -> None:
    targets[1].error = died()
    slow = Breaker(minimum=1, probes=1, open_for=30)
    router = Router(targets[:2], strategy="prefer-python", breaker=slow)
    with pytest.raises(WorkerDiedError):
        await router.dispatch(operation(route="python"), 1.0)
    with pytest.raises(TargetsUnavailable) as caught:
        await router.dispatch(operation(route="python"), 1.0)
    assert (caught.value.code, caught.value.retryable) == ("targets-failing", True)
    assert caught.value.retry_after is not None
    assert 29 < caught.value.retry_after <= 30
    assert caught.value.to_public_dict()["details"]["retry_after"] == caught.value.retry_after
    assert (await router.dispatch(operation(), 1.0)).route == "native"


async def test_an_operation_goes_to_the_target_that_it_prefers_unless_that_is_left_alone(
    targets: Any,
) -> None:
    targets[0].refusal = RouteError("only a worker has it", code="module-needs-dspy")
    request: Any = None
    work = OptimizeOperation(inputs={}, request=request)
    router = Router(targets, breaker=Breaker(minimum=1, probes=1, open_for=30))
    assert (await router.dispatch(work, 1.0)).route == "pool:optimizer"
    elsewhere = OptimizeOperation(inputs={}, request=request, route="python")
    assert (await router.dispatch(elsewhere, 1.0)).route == "pool:general"
    assert (await Router(targets[:2]).dispatch(work, 1.0)).route == "pool:general"

    targets[2].error = died()
    with pytest.raises(WorkerDiedError):
        await router.dispatch(work, 1.0)
    assert router.counts()[2].state == "open"
    assert (await router.dispatch(work, 1.0)).route == "pool:general"


async def test_errors_of_models_and_callers_never_open_a_breaker(targets: Any) -> None:
    router = Router(targets[1:2], breaker=FRAGILE)
    for error in (LMServerError("500"), ReplyError("junk"), InputError("wrong"), PoolSaturated("full")) * 5:
        targets[1].error = error
        with pytest.raises(type(error)):
            await router.dispatch(operation(), 1.0)
    assert router.counts()[0].state == "closed"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"failure_rate": 0}, "failure_rate of a breaker must be a share above 0"),
        ({"failure_rate": True}, "must be a share"),
        ({"slow_rate": 1.5}, "slow_rate"),
        ({"minimum": 0}, "minimum of a breaker must be a count"),
        ({"probes": 1.0}, "probes"),
        ({"window_calls": 10**9}, "a count from 1 to 100,000"),
        ({"window": -1}, "-1"),
        ({"open_for": "5"}, "5"),
    ],
)
def test_a_breaker_s_settings_are_looked_at(settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Breaker(**settings)


# -- the same call again ----------------------------------------------------------------------------


class Failing(Echo):
    """A target that raises these errors, one after the other, before it answers."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__("native", "native")
        self.errors = list(errors)
        self.calls = 0

    async def run(self, operation: AnyOperation, timeout: float) -> Prediction:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return await super().run(operation, timeout)


SLOW_DOWN = LMRateLimitError("slow down", status=429)

AGAIN: list[tuple[Exception, dict[str, Any], bool]] = [
    (SLOW_DOWN, {}, True),
    (LMServerError("no room", status=503), {}, True),
    (LMServerError("no room", status=529), {}, True),
    (PoolSaturated("full"), {"route": "native"}, True),
    (SLOW_DOWN, {"sink": Listener(told=False)}, True),
    (SLOW_DOWN, {"sink": Listener()}, False),
    (LMServerError("oops", status=500), {}, False),
    (LMServerError("oops", status=500), {"idempotent": True}, True),
    (LMConnectionError("it broke"), {}, False),
    (LMConnectionError("it broke"), {"idempotent": True}, True),
    (LMConnectionError("it broke"), {"idempotent": True, "sink": Listener()}, False),
    (LMConnectionError("it broke"), {"idempotent": True, "sink": Listener(told=False)}, True),
    (LMTimeoutError("late"), {"idempotent": True}, True),
    (died(), {"idempotent": True}, True),
    (died(), {}, False),
    (LMAuthError("no key"), {"idempotent": True}, False),
    (ReplyError("junk"), {"idempotent": True}, False),
    (InputError("wrong"), {"idempotent": True}, False),
    (DeadlineExceeded("late", timeout=1.0, stage="lm"), {"idempotent": True}, False),
    (ZeroDivisionError("a bug"), {"idempotent": True}, False),
]


@pytest.mark.parametrize(
    ("error", "options", "again"), AGAIN, ids=lambda value: getattr(type(value), "__name__", None)
)
async def test_a_call_is_made_again_where_nothing_was_done_or_may_be_done_twice(
    error: Exception, options: Any, again: bool
) -> None:
    target = Failing(error)
    router = Router([target], retry=Retry())
    with no_waiting() as waited:
        if again:
            prediction = await router.dispatch(operation(**options), 5.0)
            assert (prediction.route, prediction.route_reason) == ("native", "")
            assert [(each.target, each.error) for each in prediction.attempts] == [
                ("native", error),
                ("native", None),
            ]
        else:
            with pytest.raises(type(error)) as caught:
                await router.dispatch(operation(**options), 5.0)
            assert caught.value is error
    assert target.calls == 1 + again == 1 + len(waited)
    with pytest.raises(type(error)):  # nothing is made again unless somebody says so
        await Router([Failing(error)]).dispatch(operation(**options), 5.0)


@pytest.mark.parametrize("kind", [ModuleOperation, OptimizeOperation])
@pytest.mark.parametrize(
    ("error", "idempotent", "again"),
    [
        (SLOW_DOWN, False, False),
        (LMServerError("no room", status=503), False, False),
        (SLOW_DOWN, True, True),
        (WorkerStartError("it did not start"), False, True),
    ],
)
async def test_what_may_have_asked_a_model_before_is_not_done_again_for_an_error_of_the_model_s(
    kind: Any, error: Exception, idempotent: bool, again: bool
) -> None:
    work = {"module" if kind is ModuleOperation else "request": None}
    target = Failing(error)
    router = Router([target], retry=Retry())
    with no_waiting(), nullcontext() if again else pytest.raises(type(error)):
        await router.dispatch(kind(inputs={}, idempotent=idempotent, **work), 5.0)
    assert target.calls == 1 + again


async def test_the_waits_double_are_by_chance_and_are_at_least_what_the_server_asks_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("random.random", lambda: 0.5)
    retry = Retry(attempts=6, first_wait=1, longest_wait=6, per_second=100)
    errors = [LMRateLimitError("no", retry_after=after) for after in (None, None, None, None, 9)]
    with no_waiting() as waited:
        await Router([Failing(*errors)], retry=retry).dispatch(operation(), 60.0)
    assert waited == [0.5, 1.0, 2.0, 3.0, 9]


async def test_no_wait_goes_beyond_the_call_s_time() -> None:
    target = Failing(LMRateLimitError("no", retry_after=30))
    with no_waiting() as waited, pytest.raises(LMRateLimitError):
        await Router([target], retry=Retry()).dispatch(operation(), 5.0)
    assert (waited, target.calls) == ([], 1)


async def test_when_all_attempts_have_failed_the_last_error_tells_of_them() -> None:
    target = Failing(*(LMRateLimitError(f"no {number}") for number in range(9)))
    with no_waiting(), pytest.raises(LMRateLimitError, match="no 2") as caught:
        await Router([target], retry=Retry(attempts=3)).dispatch(operation(), 5.0)
    assert caught.value.__notes__ == [
        "before that, native: LMRateLimitError: no 0",
        "before that, native: LMRateLimitError: no 1",
    ]


async def test_an_outage_is_not_multiplied() -> None:
    target = Failing(*(LMRateLimitError("no") for _ in range(2_000)))
    router = Router([target], retry=Retry(attempts=5, share=0.1, per_second=1))
    with no_waiting():
        for _ in range(500):
            with pytest.raises(LMRateLimitError):
                await router.dispatch(operation(), 5.0)
    assert 540 <= target.calls <= 500 + 50 + 10 + 2


async def test_a_call_that_is_cancelled_while_it_waits_ends_at_once() -> None:
    target = Failing(LMRateLimitError("no", retry_after=30))
    call = asyncio.create_task(Router([target], retry=Retry()).dispatch(operation(), 60.0))
    while not target.calls:
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_full_pool_sends_the_call_elsewhere_before_it_waits(targets: Any) -> None:
    for target in targets[1:]:
        target.error = PoolSaturated("full")
    router = Router(targets[1:], retry=Retry(attempts=3))
    with no_waiting() as waited, pytest.raises(PoolSaturated):
        await router.dispatch(operation(), 5.0)
    assert (len(waited), [row.failed for row in router.counts()]) == (2, [3, 3])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attempts": 0}, "attempts of a retry must be a count from 1 to 20"),
        ({"attempts": True}, "attempts"),
        ({"first_wait": -1}, "-1"),
        ({"longest_wait": "8"}, "8"),
        ({"share": -0.1}, "share of a retry must be a number"),
        ({"per_second": float("nan")}, "per_second"),
    ],
)
def test_a_retry_s_settings_are_looked_at(settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Retry(**settings)


async def test_when_all_are_left_alone_by_then_the_error_is_what_the_last_one_raised(targets: Any) -> None:
    targets[1].error = WorkerStartError("it does not start")
    router = Router(targets[1:2], breaker=Breaker(minimum=1), retry=Retry())
    with no_waiting(), pytest.raises(WorkerStartError):
        await router.dispatch(operation(), 60.0)
    assert router.counts()[0].state == "open"


# -- the core's router, as Python calls it ------------------------------------------------------------


def test_what_a_model_asks_for_does_not_lengthen_the_time_of_a_pool() -> None:
    core = CoreRouter(clock=lambda: 0.0)
    core.add("a", "python", breaker=FRAGILE.as_values())
    late, *failing = [core.decide() for _ in range(3)]
    for ticket in failing:
        core.record(ticket, "failed")
    core.record(late, "refused", 600.0)
    with pytest.raises(TargetsUnavailable) as caught:
        core.decide()
    assert caught.value.retry_after == 5


def test_the_core_s_router_can_be_opened_and_closed_by_hand_and_loses_targets() -> None:
    now = [0.0]
    core = CoreRouter("prefer-native", clock=lambda: now[0], seed=1)
    first = core.add("a", "python", breaker=Breaker().as_values(), limit=1)
    second = core.add("b", "python", weight=0.0)
    assert core.force(second, "open") is None
    assert core.force(first, "open") == ("a", "closed", "forced-open")
    assert core.decide().name == "b"
    assert core.force(first, "auto") == ("a", "forced-open", "closed")
    assert core.force(first, "closed") == ("a", "closed", "forced-closed")
    with pytest.raises(ValueError, match="ajar"):
        core.force(first, "ajar")
    ticket = core.decide()
    assert (ticket.name, ticket.reason, core.decide().reason) == ("a", "preferred", "full")
    now[0] += 2.0
    assert core.quantiles(first, [0.5]) is None
    core.record(ticket, "served")
    (half,) = core.quantiles(first, [0.5]) or [0.0]
    assert 2.0 <= half <= 2.0 * 33 / 32
    assert core.quantiles(first, [0.5], failed=True) is None
    assert core.decide(strategy="weighted").name == "a"
    core.remove(first)
    with pytest.raises(IndexError):
        core.remove(first)
    assert [row[1] for row in core.counts()] == ["b"]
    with pytest.raises(ConfigError) as caught:
        core.add("b", "native")
    assert caught.value.code == "target-name"
    while len(core.counts()) < 64:
        core.add(f"{len(core.counts())}", "python")
    with pytest.raises(ConfigError) as caught:
        core.add("one more", "python")
    assert caught.value.code == "too-many-targets"
