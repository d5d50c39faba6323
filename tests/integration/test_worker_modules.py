"""Other modules than Predict, the user's own programs, and calls from a worker back to the service."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from typing import Any

import dspy
import pytest
from tests.support import programs
from tests.support.pools import Chat, OpenPool
from tests.support.processes import until
from tests.support.programs import TwoSteps

from dspex import errors
from dspex.pool import ModuleRequest, PredictRequest, Tool, describe_tool
from dspex.protocol.requests import ParsingName
from dspex.testing import ChatRequest

PROGRAMS = "tests.support.programs:"


def fields(**values: Any) -> str:
    return "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in {**values, "completed": ""}.items())


async def test_chain_of_thought_reasons_and_sends_what_dspy_sends(open_pool: OpenPool, chat: Chat) -> None:
    chat.reply = lambda _: fields(reasoning="it scatters", answer="blue")
    pool = await open_pool(lm=chat.lm())
    answer = await pool.module("dspy.ChainOfThought", {"question": "sky?"}, signature="question -> answer")
    lm = dspy.LM(**chat.lm(), cache=False)
    with dspy.context(lm=lm, adapter=dspy.ChatAdapter()):
        expected = await dspy.ChainOfThought("question -> answer").acall(question="sky?")

    assert answer["completions"] == [dict(expected)] == [{"reasoning": "it scatters", "answer": "blue"}]
    assert chat.bodies[0] == chat.bodies[1]


def react_replies(tool: str, **args: Any) -> Any:
    """An LM that uses `tool` once, then finishes, then answers with what it saw."""

    def reply(request: ChatRequest) -> str:
        prompt = request.prompt
        if "next_tool_name" not in str(request.messages[0]["content"]):
            observed = (
                prompt.split("[[ ## observation_0 ## ]]")[1].split("[[")[0]
                if "observation_0" in prompt
                else ""
            )
            return fields(reasoning="seen", answer=observed.strip() or prompt)
        if "observation_0" in prompt:
            return fields(next_thought="enough", next_tool_name="finish", next_tool_args="{}")
        return fields(next_thought="look", next_tool_name=tool, next_tool_args=str(args).replace("'", '"'))

    return reply


async def test_react_uses_a_tool_in_the_worker(open_pool: OpenPool, chat: Chat) -> None:
    chat.reply = react_replies("look_up", city="Berlin")
    pool = await open_pool(lm=chat.lm())
    answer = await pool.module(
        "dspy.ReAct",
        {"question": "weather in Berlin?"},
        signature="question -> answer",
        tools=[Tool(function=PROGRAMS + "look_up")],
    )
    (row,) = answer["completions"]
    assert row["trajectory"]["observation_0"] == "rain in Berlin"
    assert row["trajectory"]["tool_name_1"] == "finish"


@pytest.mark.parametrize("fails", [False, True], ids=["answers", "fails"])
async def test_react_uses_a_tool_in_the_service(open_pool: OpenPool, chat: Chat, fails: bool) -> None:
    asked: list[tuple[str, int]] = []

    async def look_up(city: str, days: int) -> str:
        """The weather in a city."""
        asked.append((city, days))
        if fails:
            raise LookupError("no such city")
        return f"sun in {city}"

    chat.reply = react_replies("look_up", city="Rome", days=2)
    pool = await open_pool(lm=chat.lm())

    answer = await pool.call(
        ModuleRequest.of(
            "dspy.ReAct",
            {"question": "weather in Rome?"},
            signature="question -> answer",
            tools=[describe_tool(look_up)],
        ),
        host_functions={"look_up": look_up},
    )

    (row,) = answer["completions"]
    assert asked == [("Rome", 2)]
    observation = row["trajectory"]["observation_0"]
    assert ("no such city" in observation) if fails else (observation == "sun in Rome")
    system = chat.bodies[0]["messages"][0]["content"]
    assert "look_up" in system
    assert "The weather in a city." in system
    assert "'type': 'integer'" in system


async def test_a_users_program_runs_with_its_saved_state(open_pool: OpenPool, chat: Chat) -> None:
    program = TwoSteps()
    program.draft.demos = [{"question": "grass?", "draft": "green, I think"}]
    chat.reply = lambda request: fields(draft="a draft") if "draft" in str(request.messages[-1]) and (
        "[[ ## tone ## ]]" not in request.prompt
    ) else fields(answer="polished")  # fmt: skip
    pool = await open_pool(lm=chat.lm())

    answer = await pool.module(
        PROGRAMS + "TwoSteps", {"question": "sky?"}, args={"tone": "formal"}, state=program.dump_state()
    )

    assert answer["completions"] == [{"answer": "polished", "draft": "a draft"}]
    assert "green, I think" in str(chat.bodies[0]["messages"])
    assert "formal" in str(chat.bodies[1]["messages"])
    assert answer["usage"]["total_tokens"] > 0


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"module": "dspy.NoSuchThing"}, errors.ConfigError, "NoSuchThing"),
        ({"module": "os.path"}, errors.ConfigError, "not a DSPy module"),
        ({"module": "tests.support.programs:look_up"}, errors.ConfigError, "not a DSPy module"),
        ({"module": "nothing"}, errors.ConfigError, "is not a path"),
        ({"module": PROGRAMS + "TwoSteps", "args": {"colour": 1}}, errors.ConfigError, "colour"),
        ({"module": PROGRAMS + "TwoSteps", "state": {}}, errors.ConfigError, "refuses what it was made with"),
    ],
)
async def test_a_module_that_cannot_be_used_gets_one_clear_error(
    open_pool: OpenPool, chat: Chat, change: dict[str, Any], error: type[Exception], says: str
) -> None:
    pool = await open_pool(lm=chat.lm())
    with pytest.raises(error, match=says):
        await pool.call(ModuleRequest(inputs={}, **change))


async def test_what_is_no_prediction_is_a_value(open_pool: OpenPool, chat: Chat) -> None:
    pool = await open_pool(lm=chat.lm())
    request = ModuleRequest(inputs={}, module=PROGRAMS + "NoPrediction")
    answer = await pool.call(request)
    assert (answer["completions"], answer["value"]) == ([], "just text")


async def test_a_stream_that_ends_without_a_prediction_says_so(open_pool: OpenPool, chat: Chat) -> None:
    pool = await open_pool(lm=chat.lm())
    for module in ("NoPrediction", "Gives"):
        args = {"kind": "nothing"} if module == "Gives" else {}
        with pytest.raises(errors.ConfigError, match="gives none") as refused:
            await anext(pool.stream(ModuleRequest(inputs={}, module=PROGRAMS + module, args=args)))
        assert refused.value.code == "not-a-prediction"


async def test_a_call_back_may_be_sync_or_async_and_comes_from_work_of_both_kinds(
    open_pool: OpenPool,
) -> None:
    pool = await open_pool(workers=1)

    async def double(value: Any) -> Any:
        await asyncio.sleep(0)
        return (value, value)

    host_functions: dict[str, Any] = {"double": double, "pid": os.getpid}
    assert await pool.with_options(host_functions=host_functions).run(programs.ask_back, "double", {1}) == (
        {1},
        {1},
    )
    assert await pool.with_options(host_functions=host_functions).run(programs.ask_back, "pid") == os.getpid()
    assert await pool.with_options(host_functions=host_functions).run(
        programs.ask_back_from_a_thread, "double", "x"
    ) == (
        "x",
        "x",
    )
    assert await pool.with_options(host_functions=host_functions).run(
        programs.ask_back_many, "double", 300
    ) == [(i, i) for i in range(300)]


async def test_an_error_of_a_call_back_crosses_both_ways(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=1)

    def fail() -> None:
        raise ZeroDivisionError("the metric has no cases")

    def refuse() -> None:
        raise errors.InputError("no such customer", code="no-customer", field="customer", count=7)

    with pytest.raises(errors.RemoteError, match="the metric has no cases") as raised:
        await pool.with_options(host_functions={"fail": fail}).run(programs.ask_back, "fail")
    assert raised.value.type == "ZeroDivisionError"
    assert "in fail" in raised.value.traceback
    with pytest.raises(errors.InputError) as refused:
        await pool.with_options(host_functions={"refuse": refuse}).run(
            programs.ask_back_from_a_thread, "refuse"
        )
    assert (refused.value.code, refused.value.field, refused.value.count) == ("no-customer", "customer", 7)


async def test_a_call_back_that_was_not_given_is_refused_by_name(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=1)
    with pytest.raises(errors.ConfigError, match="'secret'") as raised:
        await pool.with_options(host_functions={"open": print}).run(programs.ask_back, "secret")
    assert "open" in raised.value.hint


async def test_calls_nested_in_call_backs_cannot_deadlock_a_full_pool(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=1, max_inflight=1)

    async def deeper(depth: int) -> int:
        if depth == 0:
            return 0
        kind = "ask_back" if depth % 2 else "ask_back_from_a_thread"
        asking = pool.with_options(host_functions={"deeper": deeper})
        below: int = await asking.run(PROGRAMS + kind, "deeper", depth - 1)
        return 1 + below

    assert (
        await pool.with_options(host_functions={"deeper": deeper}, timeout=30).run(
            programs.ask_back, "deeper", 6
        )
        == 6
    )


async def test_what_a_call_back_runs_ends_with_its_call(open_pool: OpenPool) -> None:
    pool = await open_pool(workers=1)
    begun: list[str] = []
    ended: list[str] = []

    async def wait(name: str) -> None:
        begun.append(name)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    host_functions: dict[str, Any] = {"wait": wait}
    with pytest.raises(errors.DeadlineExceeded):
        await pool.with_options(host_functions=host_functions, timeout=0.3).run(
            programs.ask_back, "wait", "deadline"
        )
    await until(lambda: ended == ["deadline"])

    call = asyncio.ensure_future(
        pool.with_options(host_functions=host_functions).run(programs.ask_back, "wait", "cancelled")
    )
    await until(lambda: pool.status().workers[0].inflight == 1)
    call.cancel()
    await asyncio.wait([call])
    killed = asyncio.ensure_future(
        pool.with_options(host_functions=host_functions).run(programs.ask_back, "wait", "killed")
    )
    await until(lambda: "killed" in begun)
    pid = pool.status().workers[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(errors.WorkerDiedError):
        await killed
    await until(lambda: "killed" in ended)


def test_a_tool_without_types_is_refused() -> None:
    def search(query) -> str:  # type: ignore[no-untyped-def]
        return str(query)

    with pytest.raises(errors.ConfigError, match="'query'"):
        describe_tool(search)


@pytest.mark.parametrize("parsing", [None, "tolerant"])
async def test_a_reply_that_dspy_reads_for_minutes_ends_with_its_call(
    open_pool: OpenPool, chat: Chat, parsing: ParsingName | None
) -> None:
    """DSPy's own adapter has no bound but the deadline of the call; the drop-in has that of the core."""
    garbage = "[[ ## answer ## ]]\n<![CDATA[" + '{"answer": ' * 8_000
    chat.reply = lambda _: garbage
    pool = await open_pool(workers=1, lm=chat.lm())
    request = PredictRequest.of("q -> answer: dict[str, int]", {"q": "?"})
    if parsing:
        with pytest.raises(errors.ReplyError) as refused:
            await pool.call(replace(request, parsing=parsing), timeout=60)
        assert refused.value.code == "reply-too-costly"
    else:
        with pytest.raises(errors.DeadlineExceeded):
            await pool.call(request, timeout=2)
    chat.reply = lambda _: fields(answer='{"a": 1}')
    # A call that does not stop is ended with its worker, and others there are made again if they may be.
    answer = await pool.call(request, timeout=60, idempotent=True)
    assert answer["completions"] == [{"answer": {"a": 1}}]
