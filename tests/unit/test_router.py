from __future__ import annotations

import asyncio
import contextvars
from typing import Any, Literal

import pytest

from dspex import Prediction
from dspex.errors import ConfigError, DeadlineExceeded, DspexError, LMServerError, RouteError
from dspex.router import (
    AnyOperation,
    Operation,
    Router,
    _router,
    current_dispatcher,
    forget,
    set_default,
    use,
)
from dspex.signature import Signature

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
    assert all(sum(row[1:]) == 0 for row in router.counts()), "a refused call counts nowhere"


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
    assert router.counts()[0] == ("native", 1, 1, 1, 0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    assert router.counts()[0] == ("native", 0, 1, 1, 1)


async def test_a_target_that_does_not_stop_by_itself_is_ended(
    targets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_router, "BACKSTOP_SECONDS", 0.0)
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
