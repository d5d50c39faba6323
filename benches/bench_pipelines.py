"""Pipelines beside their peers, in one run: `python benches/bench_pipelines.py`.

LangGraph, pydantic-graph, DBOS on SQLite (whichever of them is installed), a `dspy.Module` and plain asyncio.
What each gives is compared before anything is timed; rounds take turns; figures are medians of rounds, and
what counts is their ratios. Checkpoints are written to files of the same journal mode and `synchronous`, by
chains long enough that each moves its log into the file on the way.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypedDict

import dspex
from dspex.stores import SQLite
from dspex.testing import ScriptedLM

STEPS = 100
ROUNDS = 15
PAYLOAD = "x" * 1_000
CHECKPOINTS = 2_000
CHAINS = 3
ROWS = 10_000
AT_ONCE = 64

Way = Callable[[], Awaitable[Any]]


class State(TypedDict):
    """What LangGraph's nodes share."""

    x: int


def there(name: str) -> bool:
    """Whether a peer is installed."""
    return importlib.util.find_spec(name) is not None


async def noop(x: int) -> int:
    """A step that gives what it takes."""
    return x


async def wait(x: int) -> int:
    """A step that awaits once."""
    await asyncio.sleep(0)
    return x


async def rounds(ways: dict[str, Way], count: int, expected: Any) -> dict[str, float]:
    """Microseconds of each way, divided by `count`: medians of rounds that take turns."""
    for name, way in ways.items():
        assert await way() == expected, name
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            begun = time.perf_counter()
            for _ in range(5):
                await way()
            times[name].append((time.perf_counter() - begun) / 5 / count * 1e6)
    return {name: statistics.median(each) for name, each in times.items()}


def show(title: str, figures: dict[str, float], unit: str, base: str) -> None:
    """One table: figures, and how many times the first they are."""
    print(f"\n{title}")
    for name, value in figures.items():
        print(f"  {name:28} {value:10.2f} {unit}   {value / figures[base]:6.2f} x {base}")


# -- steps in sequence ------------------------------------------------------------------------------


def sequence() -> dict[str, Way]:
    """100 steps that give what they take, one after the other."""
    steps = [dspex.step(noop, outputs="x", name=f"s{number}") for number in range(STEPS)]
    pipeline = dspex.pipeline(*steps)

    async def ours() -> int:
        return int((await pipeline.arun(x=1)).x)

    async def plain() -> int:
        x = 1
        for _ in range(STEPS):
            x = await noop(x)
        return x

    ways: dict[str, Way] = {"dspex": ours, "plain asyncio": plain}
    if there("dspy"):
        import dspy

        class Program(dspy.Module):  # type: ignore[misc,unused-ignore]
            async def aforward(self, x: int) -> int:
                for _ in range(STEPS):
                    x = await noop(x)
                return x

        program = Program()

        async def module() -> int:
            return int(await program.acall(x=1))

        ways["a dspy.Module"] = module
    if there("langgraph"):
        graph = _chain_of_langgraph(STEPS, _give).compile()

        async def langgraph() -> int:
            return int((await graph.ainvoke({"x": 1}, {"recursion_limit": STEPS + 5}))["x"])

        ways["LangGraph"] = langgraph
    if there("pydantic_graph"):
        ways["pydantic-graph"] = _pydantic_graph()
    return ways


async def _give(state: State) -> dict[str, int]:
    return {"x": state["x"]}


def _chain_of_langgraph(count: int, node: Any, schema: Any = State) -> Any:
    from langgraph.graph import END, START, StateGraph

    graph = StateGraph(schema)
    for number in range(count):
        graph.add_node(f"s{number}", node)
    graph.add_edge(START, "s0")
    for number in range(count - 1):
        graph.add_edge(f"s{number}", f"s{number + 1}")
    graph.add_edge(f"s{count - 1}", END)
    return graph


def _pydantic_graph() -> Way:
    from pydantic_graph import GraphBuilder, StepContext

    builder: Any = GraphBuilder(input_type=int, output_type=int)

    def step(number: int) -> Any:
        async def node(ctx: StepContext[None, None, int]) -> int:
            return ctx.inputs

        return builder.step(node, node_id=f"s{number}")

    steps = [step(number) for number in range(STEPS)]
    edges = [builder.edge_from(builder.start_node).to(steps[0])]
    edges += [builder.edge_from(one).to(other) for one, other in itertools.pairwise(steps)]
    edges.append(builder.edge_from(steps[-1]).to(builder.end_node))
    builder.add(*edges)
    graph = builder.build()

    async def run() -> int:
        return int(await graph.run(inputs=1))

    return run


# -- branches side by side --------------------------------------------------------------------------


def fan_out(count: int, function: Any) -> dict[str, Way]:
    """So many branches."""
    branches = {f"b{number}": function for number in range(count)}
    pipeline = dspex.pipeline(dspex.parallel(branches))

    async def ours() -> int:
        return len(await pipeline.arun(x=1))

    async def plain() -> int:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(function(1)) for _ in range(count)]
        return len([task.result() for task in tasks])

    return {"asyncio.TaskGroup": plain, "dspex": ours}


# -- checkpoints ------------------------------------------------------------------------------------


async def checkpoints(directory: Path, synchronous: str) -> dict[str, tuple[float, float]]:
    """Median and 99th percentile of a step of 1 kB that is written, in microseconds: medians of chains."""
    found: dict[str, list[tuple[float, float]]] = {}
    for number in range(CHAINS):
        path = directory / f"{number}-{synchronous}"
        found.setdefault("dspex", []).append(await _ours(path.with_suffix(".ours"), synchronous))
        if there("langgraph.checkpoint.sqlite"):
            figures = await asyncio.to_thread(_langgraph_saver, path.with_suffix(".lg"), synchronous)
            found.setdefault("LangGraph SqliteSaver", []).append(figures)
        if there("langgraph.checkpoint.sqlite.aio"):
            figures = await _langgraph_async_saver(path.with_suffix(".lga"), synchronous)
            found.setdefault("LangGraph AsyncSqliteSaver", []).append(figures)
        if there("dbos"):
            # In a process of its own: it keeps one set of settings a process.
            command = [sys.executable, __file__, "--dbos", str(path.with_suffix(".dbos")), synchronous]
            done = await asyncio.to_thread(
                subprocess.run, command, capture_output=True, text=True, check=True
            )
            middle, high = done.stdout.split()[-2:]
            found.setdefault("DBOS", []).append((float(middle), float(high)))
    return {
        name: (statistics.median(each[0] for each in all_), statistics.median(each[1] for each in all_))
        for name, all_ in found.items()
    }


def _percentiles(times: list[float]) -> tuple[float, float]:
    ordered = sorted(times)
    return statistics.median(ordered) * 1e6, ordered[int(len(ordered) * 0.99)] * 1e6


async def _ours(path: Path, synchronous: Any) -> tuple[float, float]:
    marks: list[float] = []

    async def work(x: int) -> str:
        marks.append(time.perf_counter())
        return PAYLOAD

    steps = [dspex.step(work, outputs=f"y{number}", name=f"s{number}") for number in range(CHECKPOINTS)]
    store = SQLite(path, synchronous=synchronous)
    outputs = [f"y{number}" for number in range(CHECKPOINTS)]
    result = await dspex.pipeline(*steps, store=store, outputs=outputs).arun(x=1, run_id="r")
    assert len(await store.steps("r")) == CHECKPOINTS == len(result)
    await store.close()
    return _percentiles([later - earlier for earlier, later in itertools.pairwise(marks)])


def _langgraph_saver(path: Path, synchronous: str) -> tuple[float, float]:
    from langgraph.checkpoint.sqlite import SqliteSaver

    marks: list[float] = []

    class Payload(TypedDict):
        y: str

    def work(state: Payload) -> dict[str, str]:
        marks.append(time.perf_counter())
        return {"y": PAYLOAD}

    db = sqlite3.connect(path, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA synchronous = {synchronous}")
    graph = _chain_of_langgraph(CHECKPOINTS, work, Payload).compile(checkpointer=SqliteSaver(db))
    config = {"configurable": {"thread_id": "r"}, "recursion_limit": CHECKPOINTS + 5}
    assert graph.invoke({"y": ""}, config, durability="sync")["y"] == PAYLOAD
    db.close()
    return _percentiles([later - earlier for earlier, later in itertools.pairwise(marks)])


async def _langgraph_async_saver(path: Path, synchronous: str) -> tuple[float, float]:
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    marks: list[float] = []

    class Payload(TypedDict):
        y: str

    async def work(state: Payload) -> dict[str, str]:
        marks.append(time.perf_counter())
        return {"y": PAYLOAD}

    async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
        await saver.conn.execute("PRAGMA journal_mode = WAL")
        await saver.conn.execute(f"PRAGMA synchronous = {synchronous}")
        graph = _chain_of_langgraph(CHECKPOINTS, work, Payload).compile(checkpointer=saver)
        config = {"configurable": {"thread_id": "r"}, "recursion_limit": CHECKPOINTS + 5}
        assert (await graph.ainvoke({"y": ""}, config, durability="sync"))["y"] == PAYLOAD
    return _percentiles([later - earlier for earlier, later in itertools.pairwise(marks)])


def dbos(path: str, synchronous: str) -> tuple[float, float]:
    """The same of DBOS, with our settings in every connection that it opens."""
    from dbos import DBOS
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    @event.listens_for(Engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")

    marks: list[float] = []
    DBOS(config={"name": "bench", "system_database_url": f"sqlite:///{path}", "log_level": "ERROR"})

    @DBOS.step()
    def work() -> str:
        marks.append(time.perf_counter())
        return PAYLOAD

    @DBOS.workflow()
    def flow() -> int:
        return sum(len(work()) for _ in range(CHECKPOINTS))

    DBOS.launch()
    try:
        assert flow() == CHECKPOINTS * len(PAYLOAD)
        with contextlib.closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    finally:
        DBOS.destroy()
    return _percentiles([later - earlier for earlier, later in itertools.pairwise(marks)])


# -- many rows --------------------------------------------------------------------------------------


async def many_rows() -> tuple[dict[str, float], float]:
    """Rows a second through two predictors on an instant model; and how the memory grew from half to all."""
    reply = "[[ ## query ## ]]\nq\n\n[[ ## answer ## ]]\na\n\n[[ ## completed ## ]]"
    first, second = dspex.Predict("question -> query"), dspex.Predict("question, query -> answer")
    pipeline = dspex.pipeline(first, second)
    peaks: list[int] = []

    def rows(count: int) -> Any:
        for number in range(count):
            if number == count // 2:
                lm.requests.clear()  # which the scripted model keeps
                tracemalloc.start()
            yield {"question": str(number)}
        if tracemalloc.is_tracing():
            lm.requests.clear()
            peaks.append(tracemalloc.get_traced_memory()[0])
            tracemalloc.stop()

    async def ours() -> int:
        right = 0
        async for _, outcome in pipeline.abatch_as_completed(
            ({"question": str(number)} for number in range(ROWS)), AT_ONCE, progress=False
        ):
            right += outcome.answer == "a"
        return right

    async def by_hand() -> int:
        left, right = iter(range(ROWS)), 0

        async def caller() -> None:
            nonlocal right
            for number in left:
                query = (await first.acall(question=str(number))).query
                answer = (await second.acall(question=str(number), query=query)).answer
                right += answer == "a"

        await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
        return right

    async def tasks() -> int:
        places, right = asyncio.Semaphore(AT_ONCE), 0

        async def one(number: int) -> None:
            nonlocal right
            async with places:
                query = (await first.acall(question=str(number))).query
                answer = (await second.acall(question=str(number), query=query)).answer
                right += answer == "a"

        async with asyncio.TaskGroup() as group:
            for number in range(ROWS):
                group.create_task(one(number))
        return right

    async def passed_on() -> int:
        left, right = iter(range(ROWS)), 0
        outcomes: asyncio.Queue[tuple[int, Any]] = asyncio.Queue(2 * AT_ONCE)

        async def caller() -> None:
            for number in left:
                query = (await first.acall(question=str(number))).query
                outcome = await second.acall(question=str(number), query=query)
                await outcomes.put((number, outcome))

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(caller())
            for _ in range(ROWS):
                _, outcome = await outcomes.get()
                right += outcome.answer == "a"
        return right

    lm = ScriptedLM(lambda _: reply)
    async with dspex.Runtime(lm=lm):
        ways = {
            "by hand": by_hand,
            "by hand, passed on as they end": passed_on,
            "by hand, a task a row": tasks,
            "dspex": ours,
        }
        found: dict[str, list[float]] = {name: [] for name in ways}
        order = deque(ways.items())
        for _ in range(2 * len(ways)):
            order.rotate()  # what one leaves behind in memory is not always the same one's to work in
            for name, way in order:
                lm.requests.clear()
                begun = time.perf_counter()
                assert await way() == ROWS
                found[name].append(ROWS / (time.perf_counter() - begun))
        async for _ in pipeline.abatch_as_completed(rows(ROWS), AT_ONCE, progress=False):
            pass
    return {name: statistics.median(each) for name, each in found.items()}, peaks[0] / 1024


def compile_time() -> float:
    """Milliseconds to compile 50 steps."""
    steps = [dspex.step(noop, outputs="x", name=f"s{number}") for number in range(50)]
    times = []
    for _ in range(21):
        begun = time.perf_counter()
        dspex.pipeline(*steps)
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e3


async def main() -> None:
    """Everything, in one run."""
    figures = await rounds(sequence(), STEPS, 1)
    show(f"{STEPS} steps in sequence, per step", figures, "us", "dspex")
    for function in (noop, wait):
        for count in (10, 100):
            found = await rounds(fan_out(count, function), count, count)
            show(f"{count} branches ({function.__name__}), per branch", found, "us", "asyncio.TaskGroup")
    with tempfile.TemporaryDirectory() as directory:
        for synchronous in ("normal", "full"):
            print(f"\na step that gives 1 kB, kept; WAL, synchronous={synchronous}: p50, p99")
            for name, (middle, high) in (await checkpoints(Path(directory), synchronous)).items():
                print(f"  {name:28} {middle:10.1f} us {high:10.1f} us")
    speed, grown = await many_rows()
    print(
        f"\n{ROWS:,} rows through two steps, rows a second; memory from the half to the end: {grown:,.0f} KiB"
    )
    for name, value in speed.items():
        print(f"  {name:28} {value:10,.0f}   {value / speed['by hand']:.2f} of by hand")
    print(f"\n50 steps compiled: {compile_time():.2f} ms")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--dbos"]:
        print(*dbos(*sys.argv[2:4]))
    else:
        asyncio.run(main())
