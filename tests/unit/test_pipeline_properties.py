"""Random plans beside a naive interpreter, and runs that are cancelled at each of their awaits."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dspex
from dspex.pipelines import Pipeline, PipelineWarning
from dspex.pipelines._steps import Branch, Call, Chain, Loop, Map, Parallel, Step, step_of
from dspex.stores import Memory

NAMES = "abcd"
pytestmark = pytest.mark.filterwarnings("ignore::dspex.pipelines._warning.PipelineWarning")


def function(takes: str, gives: str, add: int, yields: bool) -> Step:
    """A step that gives a number made of those that it takes."""
    names = ", ".join(sorted(set(takes)))
    namespace: dict[str, Any] = {"asyncio": asyncio}
    wait = "    await asyncio.sleep(0)\n" if yields else ""
    total = " + ".join(sorted(set(takes)))
    source = f"async def step({', '.join(f'{name}: int' for name in names.split(', '))}) -> int:\n"
    exec(f"{source}{wait}    return ({total}) * 3 % 101 + {add}", namespace)
    return dspex.step(namespace["step"], outputs=gives)


@st.composite
def leaves(draw: st.DrawFn) -> Step:
    takes = draw(st.text(NAMES, min_size=1, max_size=3))
    step = function(takes, draw(st.sampled_from(NAMES)), draw(st.integers(0, 9)), draw(st.booleans()))
    return step.with_options({"pure": draw(st.booleans())})


def nested(steps: st.SearchStrategy[Step]) -> st.SearchStrategy[Step]:
    """Steps with steps inside. A branch gives what was there before; a loop's condition is of its field."""
    chains = st.lists(steps, min_size=1, max_size=3).map(lambda parts: Chain(steps=tuple(parts)))
    return st.one_of(
        chains,
        st.builds(
            lambda one, other, name: dspex.parallel(
                {"e": one, "f": other}, reduce=_joined(name)
            ).with_options({"outputs": name}),
            leaves(),
            leaves(),
            st.sampled_from(NAMES),
        ),
        st.builds(
            lambda then, otherwise, name, least: dspex.branch(f"{name} > {least}", then, otherwise),
            steps,
            st.none() | steps,
            st.sampled_from(NAMES),
            st.integers(0, 100),
        ),
        st.builds(
            lambda step, name, least, rounds: dspex.loop(step, until=f"{name} > {least}", at_most=rounds),
            steps,
            st.sampled_from(NAMES),
            st.integers(0, 100),
            st.integers(1, 3),
        ),
    )


def _joined(name: str) -> Callable[..., Any]:
    async def joined(e: int, f: int) -> int:
        return (7 * e + f) % 97

    return joined


plans = st.lists(st.recursive(leaves(), nested, max_leaves=8), min_size=1, max_size=4)
START = {"a": 1, "b": 20, "c": 50, "d": 99}


async def interpreted(step: Step, fields: dict[str, Any]) -> dict[str, Any]:
    """What the step gives, one thing after the other: no plan, no slots, no tasks."""
    if isinstance(step, Call):
        names = step.target.__code__.co_varnames[: step.target.__code__.co_argcount]
        value = await step.target(**{name: fields[name] for name in names})
        assert step.options.outputs is not None
        return {step.options.outputs[0]: value}
    if isinstance(step, Chain):
        made: dict[str, Any] = {}
        for each in step.steps:
            made.update(await interpreted(each, {**fields, **made}))
        return made
    if isinstance(step, Parallel):
        outcomes = {
            key: next(iter((await interpreted(each, fields)).values())) for key, each in step.branches if key
        }
        assert step.reduce is not None
        assert step.options.outputs is not None
        return {step.options.outputs[0]: await step.reduce(**outcomes)}
    if isinstance(step, Branch):
        assert not isinstance(step.condition, bool)
        chosen = step.then if await _holds(step.condition, fields) else step.otherwise
        return {} if chosen is None else await interpreted(chosen, fields)
    assert isinstance(step, Loop)
    made = {}
    for _ in range(step.at_most):
        made.update(await interpreted(step.step, {**fields, **made}))
        if await _holds(step.until, {**fields, **made}):
            break
    return made


async def _holds(condition: Any, fields: Mapping[str, Any]) -> bool:
    return bool(await condition.holds({name: fields[name] for name in condition.names}))


def compiled(steps: list[Step]) -> Pipeline:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PipelineWarning)
        return Pipeline(steps, inputs=dict.fromkeys(NAMES, int), outputs=list(NAMES))


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=150)
@given(steps=plans)
def test_a_plan_gives_what_a_naive_interpreter_gives_and_every_step_ends_once(steps: list[Step]) -> None:
    async def both() -> None:
        expected = dict(START)
        for step in steps:
            expected.update(await interpreted(step, expected))
        result = await compiled(steps).arun(**START)
        assert dict(result) == expected
        paths = [step.path for step in result.steps]
        assert len(paths) == len(set(paths))
        assert {step.status for step in result.steps} == {"ok"}

    asyncio.run(both())


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=60)
@given(steps=plans, stops=st.integers(1, 5))
def test_a_durable_run_that_fails_after_any_rows_is_resumed_to_the_same(
    steps: list[Step], stops: int
) -> None:
    class Stopping(Memory):
        left = stops

        async def record_steps(self, lease: Any, rows: Any) -> None:
            await super().record_steps(lease, rows)
            self.left -= 1
            if not self.left:
                self.left = stops
                raise ConnectionError("after the row")

    async def both() -> None:
        pipeline = compiled(steps)
        expected = dict(await pipeline.arun(**START))
        durable = pipeline.with_options(store=Stopping())
        try:
            result = await durable.arun(**START, run_id="r")
        except ConnectionError:
            while True:
                try:
                    result = await durable.aresume("r", max_resumes=None)
                except ConnectionError:
                    continue
                break
        assert dict(result) == expected

    asyncio.run(both())


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=40)
@given(steps=plans)
def test_a_run_that_is_cancelled_at_any_await_leaves_no_task_and_no_owner(steps: list[Step]) -> None:
    async def cancelled_after(turns: int) -> bool:
        store = Memory()
        running = asyncio.create_task(compiled(steps).arun(**START, run_id="r", store=store))
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        ended = await asyncio.gather(running, return_exceptions=True)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        info = await store.run("r")
        if info is not None:
            assert info.owner is None
        if isinstance(ended[0], asyncio.CancelledError):
            if info is not None:
                expected = dict(await compiled(steps).arun(**START))
                assert dict(await compiled(steps).aresume("r", store=store)) == expected
            return True
        return False

    turns = 0
    while asyncio.run(cancelled_after(turns)):
        turns += 1
        assert turns < 500


def test_a_map_is_what_a_loop_over_its_items_is() -> None:
    step = function("ab", "c", 3, yields=True)

    async def both() -> None:
        items = list(range(30))
        over = dspex.map(step, over="items", item="a", concurrency=7)
        pipeline = Pipeline([over], inputs={"items": list[int], "b": int})
        expected = [(await interpreted(step_of(step), {"a": item, "b": 5}))["c"] for item in items]
        assert (await pipeline.arun(items=items, b=5)).c == expected
        assert isinstance(over, Map)

    asyncio.run(both())
