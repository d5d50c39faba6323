"""The runtime with a scripted LM: homes, crossings, closing, and what a call may ask for."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import dspex
from dspex.errors import ConfigError, DeadlineExceeded, InputError, LMServerError, ReplyError, RouteError
from dspex.signature import InputField, OutputField
from dspex.testing import ScriptedLM

ANSWER = "[[ ## answer ## ]]\nAda\n\n[[ ## completed ## ]]\n"


@pytest.fixture
def qa() -> dspex.Predict:
    return dspex.Predict("question -> answer")


class Held:
    """An answering function that waits until it is let go, and says when it has been asked."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.go = asyncio.Event()

    async def __call__(self, request: object) -> str:
        self.asked.set()
        await self.go.wait()
        return ANSWER


def test_a_module_finds_the_runtime_it_is_called_in(qa: Any) -> None:
    with dspex.Runtime(ScriptedLM(ANSWER)) as runtime:
        prediction = qa(question="Who?")

    assert (prediction.answer, prediction.route) == ("Ada", "native")
    assert runtime.counts()[0] == ("native", 0, 1, 0, 0, "closed")
    assert prediction.usage["total_tokens"] > 0


async def test_the_async_twin_runs_in_the_caller_s_loop(qa: Any) -> None:
    async with dspex.Runtime(ScriptedLM(ANSWER)):
        prediction = await qa.acall(question="Who?")

    assert prediction.answer == "Ada"


async def test_many_calls_share_a_runtime(qa: Any) -> None:
    lm = ScriptedLM(ANSWER)
    async with dspex.Runtime(lm) as runtime:
        answers = await asyncio.gather(*(qa.acall(question=str(i)) for i in range(50)))

    assert [prediction.answer for prediction in answers] == ["Ada"] * 50
    assert runtime.counts()[0].served == 50


def test_timings_name_the_stages_and_add_up(qa: Any) -> None:
    with dspex.Runtime(ScriptedLM(ANSWER, delay=0.01)):
        timings = qa(question="Who?").timings

    assert set(timings) == {"render", "lm", "parse", "total"}
    assert timings["lm"] >= 0.01
    assert timings["total"] == pytest.approx(timings["render"] + timings["lm"] + timings["parse"])


async def test_a_blocking_call_from_another_thread_reaches_an_async_runtime(qa: Any) -> None:
    async with dspex.Runtime(ScriptedLM(ANSWER)):
        prediction = await asyncio.to_thread(qa, question="Who?")

    assert prediction.answer == "Ada"


def test_an_awaited_call_from_another_loop_reaches_the_runtime(qa: Any) -> None:
    with dspex.Runtime(ScriptedLM(ANSWER)) as runtime:
        bound = dspex.Predict("question -> answer", runtime=runtime)
        prediction = asyncio.run(bound.acall(question="Who?"))

    assert prediction.answer == "Ada"


async def test_a_blocking_call_is_refused_on_any_event_loop_s_thread_whoever_owns_the_runtime(
    qa: Any,
) -> None:
    lm = ScriptedLM(ANSWER)
    runtime = dspex.Runtime(lm).open()
    for blocking, instead in (
        (lambda: qa(question="Who?"), "await acall(...)"),
        (runtime.warmup, "await awarmup()"),
        (runtime.pools, "await apools()"),
        (runtime.close, "await aclose()"),
        (dspex.Runtime(lm).__enter__, "async with"),
        (dspex.SyncPool().start, "async with dspex.Pool(...)"),
    ):
        with pytest.raises(ConfigError, match="stop the event loop") as caught:
            blocking()
        assert caught.value.code == "blocking-in-loop"
        assert instead in caught.value.hint

    assert lm.requests == [], "refused before anything was sent"
    assert (await qa.acall(question="Who?")).answer == "Ada"
    assert await runtime.apools() == {}
    await runtime.aclose()


@pytest.mark.usefixtures("unconfigured")
async def test_configuring_on_a_loop_is_refused_only_where_it_would_wait(qa: Any) -> None:
    first = dspex.configure(ScriptedLM(ANSWER))
    with pytest.raises(ConfigError) as caught:
        dspex.configure(ScriptedLM("[[ ## answer ## ]]\nsecond"))
    assert (await qa.acall(question="Who?")).answer == "Ada", "the first stays in place"
    await asyncio.to_thread(dspex.configure, ScriptedLM("[[ ## answer ## ]]\nsecond"))

    assert caught.value.code == "blocking-in-loop"
    assert (await qa.acall(question="Who?")).answer == "second"
    assert "closed" in repr(first)
    await asyncio.to_thread(dspex.configure, ScriptedLM(ANSWER))


async def test_a_blocking_call_in_the_runtime_s_own_loop_is_refused_not_hung(qa: Any) -> None:
    async with dspex.Runtime(ScriptedLM(ANSWER)) as runtime:
        with pytest.raises(ConfigError, match=r"await acall\(\.\.\.\)") as caught:
            qa(question="Who?")
        with pytest.raises(ConfigError, match=r"await awarmup\(\)"):
            runtime.warmup()

    assert caught.value.code == "blocking-in-loop"


def test_a_runtime_opens_once_and_serves_only_while_open(qa: Any) -> None:
    runtime = dspex.Runtime(ScriptedLM(ANSWER))
    bound = dspex.Predict("question -> answer", runtime=runtime)
    with pytest.raises(ConfigError, match="not open"):
        bound(question="Who?")
    with runtime:
        bound(question="Who?")
    runtime.close()

    with pytest.raises(ConfigError) as closed:
        bound(question="Who?")
    with pytest.raises(ConfigError) as reopened:
        runtime.open()
    assert (closed.value.code, reopened.value.code) == ("runtime-closed", "runtime-reopened")


def answering(text: str) -> ScriptedLM:
    return ScriptedLM(ANSWER.replace("Ada", text))


def test_open_makes_a_runtime_current_for_every_thread_until_it_closes(qa: Any) -> None:
    runtime = dspex.Runtime(ScriptedLM(ANSWER)).open()
    answers = [qa(question="Who?").answer]
    thread = threading.Thread(target=lambda: answers.append(qa(question="Who?").answer))
    thread.start()
    thread.join(10)
    runtime.close()

    assert answers == ["Ada", "Ada"]
    with pytest.raises(ConfigError) as caught:
        qa(question="Who?")
    assert caught.value.code == "no-runtime"


@pytest.mark.usefixtures("unconfigured")
def test_what_opens_later_takes_no_other_s_calls_away_and_takes_over_from_it(qa: Any) -> None:
    first = dspex.Runtime(answering("first")).open()
    second = dspex.Runtime(answering("second")).open()
    answers = [qa(question="Who?").answer]
    with dspex.Runtime(answering("block")):
        answers.append(qa(question="Who?").answer)
    configured = dspex.configure(answering("configured"))
    answers.append(qa(question="Who?").answer)
    configured.close()
    first.close()
    answers.append(qa(question="Who?").answer)
    second.close()

    assert answers == ["first", "block", "configured", "second"]


def test_a_runtime_whose_loop_ended_unclosed_is_in_nobody_s_way(qa: Any) -> None:
    left = asyncio.run(dspex.Runtime(answering("left")).aopen())
    with dspex.Runtime(ScriptedLM(ANSWER)):
        answers: list[str] = []
        thread = threading.Thread(target=lambda: answers.append(qa(question="Who?").answer))
        thread.start()
        thread.join(10)
    asyncio.run(left.aclose())

    assert answers == ["Ada"]


@pytest.mark.parametrize("name", ["lm", "adapter", "timeout", "dialect", "adaptor"])
def test_a_setting_that_would_be_ignored_cannot_be_set(name: Any) -> None:
    runtime = dspex.Runtime(ScriptedLM(ANSWER), timeout=7, adapter="json", dialect="3.3")
    with pytest.raises(AttributeError, match="fixed when it is made"):
        setattr(runtime, name, "x")

    assert (runtime.timeout, runtime.adapter.layout, runtime.dialect) == (7.0, "json", "3.3")


def test_closing_ends_the_calls_in_flight_with_a_clear_error(qa: Any) -> None:
    held = Held()
    caught: list[ConfigError] = []

    def call(runtime: dspex.Runtime) -> None:
        try:
            dspex.Predict("question -> answer", runtime=runtime)(question="Who?")
        except ConfigError as error:
            caught.append(error)

    with dspex.Runtime(ScriptedLM(held)) as runtime:
        thread = threading.Thread(target=call, args=(runtime,))
        thread.start()
        assert held.asked.wait(10)
    thread.join(10)

    assert [error.code for error in caught] == ["runtime-closed"]


async def test_closing_under_an_awaited_call_raises_there_and_spares_its_task(qa: Any) -> None:
    held = Held()
    runtime = await dspex.Runtime(ScriptedLM(held)).aopen()
    bound = dspex.Predict("question -> answer", runtime=runtime)

    async def caller() -> str:
        try:
            await bound.acall(question="Who?")
        except ConfigError as error:
            return error.code
        return "no error"

    task = asyncio.create_task(caller())
    while not held.asked.is_set():
        await asyncio.sleep(0)
    await runtime.aclose()

    assert await task == "runtime-closed"


async def test_a_cancelled_caller_ends_its_call(qa: Any) -> None:
    held = Held()
    async with dspex.Runtime(ScriptedLM(held)) as runtime:
        task = asyncio.create_task(qa.acall(question="Who?"))
        while not held.asked.is_set():
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert runtime.counts()[0] == ("native", 0, 0, 0, 1, "closed")


async def test_the_call_s_own_timeout_ends_it_and_says_where(qa: Any) -> None:
    async with dspex.Runtime(ScriptedLM(Held())) as runtime:
        with pytest.raises(DeadlineExceeded) as caught:
            await qa.acall(question="Who?", timeout=0.01)
        assert caught.value.stage == "lm"
        assert runtime.counts()[0].failed == 1


def test_errors_of_the_lm_and_of_its_reply_reach_the_caller_typed(qa: Any) -> None:
    def fail(request: object) -> str:
        raise LMServerError("out of order")

    with dspex.Runtime(ScriptedLM(fail)), pytest.raises(LMServerError, match="out of order"):
        qa(question="Who?")
    with dspex.Runtime(ScriptedLM("no markers here")) as runtime, pytest.raises(ReplyError) as caught:
        dspex.Predict("question -> answer, score: int")(question="Who?")

    assert caught.value.reply == "no markers here"
    assert runtime.counts()[0].failed == 1, "one call, and no second one behind the caller's back"


def test_replies_are_read_with_tolerance_unless_dspys_letter_is_asked_for(qa: Any) -> None:
    with dspex.Runtime(ScriptedLM("no markers here")):
        prediction = qa(question="Who?")
        strict = dspex.Predict("question -> answer", parsing="dspy")
        with pytest.raises(ReplyError):
            strict(question="Who?")
    with dspex.Runtime(ScriptedLM("no markers here"), parsing="dspy"), pytest.raises(ReplyError):
        qa(question="Who?")

    assert prediction.answer == "no markers here"
    assert [(repair.field, repair.code) for repair in prediction.repairs] == [("answer", "no-marker")]


def test_a_runtime_or_a_module_says_which_adapter_is_used(qa: Any) -> None:
    lm = ScriptedLM('{"answer": "Ada"}')
    with dspex.Runtime(lm, adapter="json"):
        assert qa(question="Who?").answer == "Ada"
    with dspex.Runtime(lm):
        assert dspex.Predict("question -> answer", adapter=dspex.JSONAdapter())(question="Who?").repairs == []

    assert ["JSON object" in request.messages[-1]["content"] for request in lm.requests] == [True, True]


class Mine(dspex.ChatAdapter):
    """A subclass, which no worker knows."""


@pytest.mark.parametrize("adapter", ["yaml", 7, Mine()])
def test_an_adapter_that_is_not_known_is_refused_at_once(adapter: Any) -> None:
    no_way: Any = "strict"
    with pytest.raises(ConfigError) as runtime:
        dspex.Runtime(ScriptedLM(ANSWER), adapter=adapter)
    with pytest.raises(ConfigError) as module:
        dspex.Predict("question -> answer", adapter=adapter)
    with pytest.raises(ConfigError) as parsing:
        dspex.Predict("question -> answer", parsing=no_way)

    assert [error.value.code for error in (runtime, module, parsing)] == ["adapter", "adapter", "parsing"]


@pytest.mark.parametrize(
    ("inputs", "problems"),
    [
        ({}, ["question", "count"]),
        ({"question": "q", "count": "many", "colour": "red"}, ["count", "colour"]),
    ],
)
def test_inputs_that_do_not_fit_are_all_named_before_anything_is_sent(inputs: Any, problems: Any) -> None:
    lm = ScriptedLM(ANSWER)
    with dspex.Runtime(lm), pytest.raises(InputError) as caught:
        dspex.Predict("question: str, count: int -> answer")(**inputs)

    assert [path for path, _ in caught.value.problems] == problems
    assert lm.requests == []


def test_validation_can_warn_as_dspy_does_or_be_off(caplog: pytest.LogCaptureFixture) -> None:
    lm = ScriptedLM(ANSWER)
    with dspex.Runtime(lm):
        dspex.Predict("count: int -> answer", validate="warn")(count="many")
        assert "count: expected int" in caplog.text
        caplog.clear()
        dspex.Predict("count: int -> answer", validate="off")(count="many")

    assert caplog.text == ""
    assert len(lm.requests) == 2


class WithDefault(dspex.Signature):
    """Answer."""

    question: str = InputField()
    style: str = InputField(default="brief", max_length=10)
    answer: str = OutputField(desc="one word")


def test_an_input_that_is_left_out_takes_its_default() -> None:
    lm = ScriptedLM(ANSWER)
    with dspex.Runtime(lm):
        dspex.Predict(WithDefault)(question="Who?")

    assert "[[ ## style ## ]]\nbrief" in lm.requests[0].messages[-1]["content"]


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
def test_a_timeout_that_is_no_time_is_refused(qa: Any, timeout: Any) -> None:
    with dspex.Runtime(ScriptedLM(ANSWER)), pytest.raises(ConfigError, match="number of seconds above 0"):
        qa(question="Who?", timeout=timeout)


def test_an_input_field_named_like_an_option_is_an_input() -> None:
    lm = ScriptedLM(ANSWER)
    module = dspex.Predict("route, timeout -> answer")

    with dspex.Runtime(lm):
        module.with_options(route="native", timeout=5.0)(route="A81", timeout="late")

    assert "[[ ## route ## ]]\nA81" in lm.requests[0].messages[-1]["content"]


def test_options_on_a_copy_leave_the_module_as_it_was(qa: Any) -> None:
    lm = ScriptedLM(ANSWER)
    warm = qa.with_options(config={"temperature": 0.9}, demos=[{"question": "q", "answer": "a"}])

    with dspex.Runtime(lm):
        warm(question="Who?")
        qa(question="Who?")

    assert [request.settings for request in lm.requests] == [{"temperature": 0.9}, {}]
    assert [len(request.messages) for request in lm.requests] == [4, 2]


@pytest.mark.parametrize(
    ("config", "sent"),
    [
        ({"n": 2}, {"n": 2, "temperature": 0.7}),
        ({"n": 2, "temperature": 0.1}, {"n": 2, "temperature": 0.7}),
        ({"n": 2, "temperature": 1.0}, {"n": 2, "temperature": 1.0}),
        ({"temperature": 0.1}, {"temperature": 0.1}),
    ],
)
def test_several_generations_are_sampled_as_dspy_samples_them(config: Any, sent: Any) -> None:
    lm = ScriptedLM(ANSWER)
    with dspex.Runtime(lm):
        prediction = dspex.Predict("question -> answer", **config)(question="Who?")

    assert lm.requests[0].settings == sent
    assert prediction.completions.answer == ["Ada"] * config.get("n", 1)


@pytest.fixture
def unconfigured() -> Iterator[None]:
    yield
    from dspex.runtime import _default

    if _default._configured is not None:
        _default._configured.close()


@pytest.mark.usefixtures("unconfigured")
def test_configure_serves_every_thread_and_is_replaced_whole(qa: Any) -> None:
    first = dspex.configure(ScriptedLM(ANSWER.replace("Ada", "first")))
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(qa(question="Who?").answer))
    thread.start()
    thread.join(10)

    dspex.configure(ScriptedLM(ANSWER.replace("Ada", "second")))

    assert [*answers, qa(question="Who?").answer] == ["first", "second"]
    with pytest.raises(ConfigError, match="not open"):
        dspex.Predict("question -> answer", runtime=first)(question="Who?")
    with pytest.raises(ConfigError, match="repeat lm="):
        dspex.configure(timeout=5)
    assert qa(question="Who?").answer == "second", "a configuration that is refused changes nothing"


@pytest.mark.usefixtures("unconfigured")
def test_a_configured_runtime_that_was_closed_is_current_no_more(qa: Any) -> None:
    dspex.configure(ScriptedLM(ANSWER)).close()

    with pytest.raises(ConfigError) as caught:
        qa(question="Who?")
    assert caught.value.code == "no-runtime"


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"lm": None}, "no-lm"),
        ({"lm": "gpt"}, "lm-model"),
        ({"lm": ScriptedLM(), "timeout": 0}, "bad-timeout"),
        ({"lm": ScriptedLM(), "pools": 2}, "lm-not-for-workers"),
        ({"lm": "openai/x", "pools": [dspex.PoolSpec(), dspex.PoolSpec()]}, "pool-name"),
        ({"lm": "openai/x", "pools": -1}, "bad-pool-setting"),
        ({"lm": "openai/x", "pools": True}, "bad-pools"),
        ({"lm": "openai/x", "pools": 2.0}, "bad-pools"),
        ({"lm": "openai/x", "pools": [1]}, "bad-pools"),
        ({"lm": "openai/x", "pools": dspex.PoolSpec}, "bad-pools"),
        ({"lm": ScriptedLM(), "pools": "4"}, "bad-pools"),
        ({"lm": object()}, "bad-lm"),
        ({"lm": 7}, "bad-lm"),
        ({"lm": dspex.LM}, "bad-lm"),
    ],
)
def test_a_wrong_setting_is_refused_when_the_runtime_is_made(settings: Any, code: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        dspex.Runtime(**settings)
    assert caught.value.code == code
    assert caught.value.hint


def test_pools_as_text_or_as_a_mapping_are_told_how_to_be_written() -> None:
    text: Any = "4"
    mapping: Any = {"workers": 4, "env": {"KEY": "very-secret"}}
    with pytest.raises(ConfigError, match="write pools=4, a number"):
        dspex.Runtime("openai/x", pools=text)
    with pytest.raises(ConfigError, match=r"PoolSpec\(workers=\.\.\., env=\.\.\.\)") as caught:
        dspex.Runtime("openai/x", pools=mapping)

    assert "very-secret" not in str(caught.value)


def test_an_lm_of_dspy_s_is_refused_with_the_equivalent_and_without_its_key() -> None:
    dspy = pytest.importorskip("dspy", reason="it is about an object of DSPy's")
    theirs = dspy.LM(
        "openai/gpt-4o", api_base="http://x/v1", api_key="sk-very-secret", temperature=0.5, max_tokens=99
    )
    with pytest.raises(ConfigError) as caught:
        dspex.Runtime(theirs)

    assert caught.value.code == "lm-of-dspy"
    written = caught.value.hint.removeprefix("write ").partition(", the key")[0]
    assert eval(written, {"dspex": dspex}) == dspex.LM(
        "openai/gpt-4o", api_base="http://x/v1", temperature=0.5, max_tokens=99
    )
    assert "secret" not in str(caught.value)

    with pytest.raises(ConfigError, match="dspy") as caught:
        dspex.Runtime(dspy.LM("openai/gpt-4o", model_type="responses"))
    assert "dspex.LM('openai/gpt-4o', model_type='responses')" in caught.value.hint


def test_a_model_that_only_dspy_speaks_to_needs_a_pool() -> None:
    with pytest.raises(RouteError) as caught:
        dspex.Runtime("gemini/flash-x", pools=0)
    assert caught.value.code == "lm-needs-dspy"


@pytest.mark.parametrize(
    ("arguments", "mentions"),
    [
        ({"adaptor": "json"}, "did you mean 'adapter'"),
        ({"demo": []}, "did you mean 'demos'"),
        ({"time_out": 5}, "did you mean 'timeout'"),
        ({"temprature": 0.5}, "did you mean 'temperature'"),
        ({"maxTokens": 5}, "did you mean 'max_tokens'"),
        ({"timeout": 5}, "with_options"),
        ({"route": "python"}, "with_options"),
        ({"config": {"n": 2}}, "Predict(..., temperature=0.5)"),
        ({"callback": []}, "did you mean 'callbacks'"),
        ({"runtime": object()}, "runtime=dspex.Runtime"),
        ({"runtime": dspex.Runtime}, "runtime=dspex.Runtime"),
    ],
)
def test_an_argument_that_is_another_s_or_a_slip_is_refused_with_what_to_write(
    arguments: Any, mentions: Any
) -> None:
    with pytest.raises(ConfigError) as caught:
        dspex.Predict("question -> answer", **arguments)
    assert caught.value.code in ("unknown-setting", "bad-runtime")
    assert mentions in caught.value.hint


def test_a_setting_that_nobody_knows_goes_to_the_server_as_in_dspy(qa: Any) -> None:
    lm = ScriptedLM(ANSWER)
    with dspex.Runtime(lm):
        theirs: dict[str, Any] = {"min_p": 0.3, "mirostat": 1}
        dspex.Predict("question -> answer", **theirs)(question="Who?", config={"preset": "x"})
        with pytest.raises(ConfigError, match="did you mean 'temperature'"):
            qa(question="Who?", config={"temprature": 1})
        with pytest.raises(ConfigError, match="must map names"):
            qa(question="Who?", config="hot")

    assert [request.settings for request in lm.requests] == [{"min_p": 0.3, "mirostat": 1, "preset": "x"}]


class Example:
    """What DSPy's examples have: keys and items, but nothing of a `Mapping`."""

    def __init__(self, **fields: str) -> None:
        self.fields = fields

    def keys(self) -> Any:
        return self.fields.keys()

    def __getitem__(self, name: str) -> str:
        return self.fields[name]

    def __contains__(self, name: str) -> bool:
        return name in self.fields


GOOD = {"question": "q", "answer": "a"}


@pytest.mark.parametrize(
    "demos",
    [
        "x",
        b"x",
        5,
        GOOD,
        Example(**GOOD),
        [1],
        ["ab"],
        [None],
        [("question", "q")],
        [{1: 2}],
        [GOOD, 7],
        [dict],
    ],
)
def test_demos_that_are_none_are_refused_wherever_they_are_given(qa: Any, demos: Any) -> None:
    lm = ScriptedLM(ANSWER)
    with dspex.Runtime(lm):
        for give in (
            lambda: dspex.Predict("question -> answer", demos=demos),
            lambda: setattr(dspex.Predict("question -> answer"), "demos", demos),
            lambda: qa.with_options(demos=demos),
            lambda: qa(question="Who?", demos=demos),
        ):
            with pytest.raises(InputError, match="demos") as caught:
                give()
            assert caught.value.code == "bad-demos"
    assert lm.requests == []


@pytest.mark.parametrize("demos", [[GOOD], (GOOD,), [Example(**GOOD)], iter([GOOD])])
def test_demos_are_mappings_or_what_makes_one(demos: Any) -> None:
    lm = ScriptedLM(ANSWER)
    with dspex.Runtime(lm):
        dspex.Predict("question -> answer", demos=demos)(question="Who?")
        dspex.Predict("question -> answer", demos=None)(question="Who?", demos=None)

    assert [len(request.messages) for request in lm.requests] == [4, 2]


async def test_inputs_without_their_names_are_one_clear_error(qa: Any) -> None:
    with pytest.raises(InputError, match=r"write question=\.\.\.") as caught:
        qa("Who?")
    with pytest.raises(InputError):
        await qa.acall("Who?")
    assert caught.value.code == "positional-inputs"


def test_a_module_s_adapter_may_be_set_and_is_checked_then(qa: Any) -> None:
    lm = ScriptedLM('{"answer": "Ada"}')
    qa.adapter = "json"
    with pytest.raises(ConfigError):
        qa.adapter = "yaml"
    with dspex.Runtime(lm):
        assert qa(question="Who?").repairs == []


async def test_an_async_runtime_is_closed_where_it_lives() -> None:
    runtime = await dspex.Runtime(ScriptedLM(ANSWER)).aopen()
    with pytest.raises(ConfigError, match="aclose"):
        runtime.close()
    await runtime.aclose()
    await runtime.aclose()


async def test_a_threaded_runtime_may_be_closed_from_a_loop() -> None:
    runtime = dspex.Runtime(ScriptedLM(ANSWER)).open()
    await runtime.aclose()
    assert "closed" in repr(runtime)


IN_A_FORK = """
import os
import dspex
from dspex.testing import ScriptedLM

with dspex.Runtime(ScriptedLM("parent")):
    qa = dspex.Predict("question -> answer")
    if os.fork() == 0:
        try:
            qa(question="Who?")
        except dspex.errors.ConfigError as err:
            print(err.code, flush=True)
        os._exit(0)
    os.wait()
    print(qa(question="Who?").answer)
"""


def test_a_forked_child_is_told_to_open_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_A_FORK], capture_output=True, text=True, timeout=25, check=False
    )
    assert done.stdout.split() == ["runtime-forked", "parent"], done.stderr


AFTER_A_FORK = """
import os, sys
import dspex
from dspex.testing import ScriptedLM

dspex.configure(ScriptedLM("parent"))
before = dspex.Runtime(ScriptedLM("opened")).open()
qa = dspex.Predict("question -> answer")
assert qa(question="Who?").answer == "parent"
child = os.fork()
if child == 0:
    before.close()
    own = dspex.Runtime(ScriptedLM("own")).open()
    print(qa(question="Who?").answer, flush=True)
    dspex.configure(ScriptedLM("configured"))
    print(qa(question="Who?").answer, flush=True)
    sys.exit(0)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), qa(question="Who?").answer)
"""


def test_after_a_fork_what_the_parent_opened_is_in_nobody_s_way_and_closing_it_waits_for_nothing() -> None:
    """Nobody runs the loops there: a child that waited for one would hang, here until the time-out."""
    done = subprocess.run(
        [sys.executable, "-c", AFTER_A_FORK], capture_output=True, text=True, timeout=25, check=False
    )
    assert done.stdout.split() == ["own", "configured", "0", "parent"], done.stderr


def test_no_thread_outlives_its_runtime(qa: Any) -> None:
    with dspex.Runtime(ScriptedLM(ANSWER)):
        qa(question="Who?")
    assert not [thread for thread in threading.enumerate() if thread.name == "dspex-runtime"]
