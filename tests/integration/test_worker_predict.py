"""Real DSPy in a real worker, against a chat server on the test's own loop."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import dspy
import pytest
from tests.parity.versions import NEWER_THAN_33
from tests.support.pools import KEY, Chat, OpenPool

from dspex import errors
from dspex.pool import PredictRequest, SignatureForm
from dspex.testing import ChatRequest
from dspex.testing._faults import Cut, Fault, HttpError, MalformedJSON, WrongContentType

ASK = PredictRequest.of("question -> answer", {"question": "the sky's colour?"})


async def test_a_prediction_comes_back_with_its_fields_usage_and_timings(
    open_pool: OpenPool, chat: Chat
) -> None:
    pool = await open_pool(lm=chat.lm())

    answer = await pool.call(ASK)

    assert answer["completions"] == [{"answer": "blue"}]
    tokens = answer["usage"]
    assert tokens["prompt_tokens"] + tokens["completion_tokens"] == tokens["total_tokens"] > 0
    assert 0 < answer["timings"]["lm"] <= answer["timings"]["worker"]


async def test_the_first_prediction_of_a_forked_worker_imports_nothing(
    open_pool: OpenPool, chat: Chat
) -> None:
    pool = await open_pool(start="forkserver", lm=chat.lm())
    before = await pool.run("tests.support.work:loaded_modules")

    await pool.call(ASK)

    late = await pool.run("tests.support.work:loaded_modules") - before
    # LiteLLM, through which DSPy 3.3 asks, imports as it goes.
    assert {name for name in late if NEWER_THAN_33 or name.startswith("dspex")} == set()


CASES: list[tuple[str, PredictRequest, dict[str, Any]]] = [
    ("plain", ASK, {"answer": "blue"}),
    (
        "typed",
        PredictRequest.of(
            "question, context: list[str] -> answer: str, confidence: float",
            {"question": "the sky's colour?", "context": ["It is blue.", "Sometimes."]},
        ),
        {"answer": "blue", "confidence": 0.5},
    ),
    (
        "instructions, descriptions and demos",
        PredictRequest.of(
            SignatureForm(
                "question -> answer: Literal['blue', 'red']",
                "Name a colour.",
                {"answer": {"desc": "a colour"}, "question": {"desc": "what to look at"}},
            ),
            {"question": "sky?"},
            demos=[{"question": "blood?", "answer": "red"}, {"question": "sea?", "answer": "blue"}],
        ),
        {"answer": "blue"},
    ),
]


def reference(request: PredictRequest, url: str) -> dspy.Prediction:
    """The same with DSPy in this process, as a user of DSPy would write it."""
    signature = dspy.Signature(request.signature.text, request.signature.instructions)
    for name, given in request.signature.fields.items():
        signature = signature.with_updated_fields(name, **given)
    lm = dspy.LM("openai/test", api_base=url, api_key="x", cache=False, num_retries=0)
    with dspy.context(lm=lm, adapter=dspy.ChatAdapter(use_json_adapter_fallback=False)):
        return dspy.Predict(signature)(demos=[*(request.demos or ())], **request.inputs)


@pytest.mark.parametrize(("ask", "fields"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
async def test_the_worker_sends_what_dspy_sends_and_reads_what_it_reads(
    open_pool: OpenPool, chat: Chat, ask: PredictRequest, fields: dict[str, Any]
) -> None:
    parts = {**fields, "completed": ""}
    chat.reply = lambda _: "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in parts.items())
    pool = await open_pool(lm=chat.lm())

    answer = await pool.call(ask)
    expected = await asyncio.to_thread(reference, ask, chat.server.api_base)

    assert answer["completions"] == [dict(expected)] == [fields]
    mine, theirs = chat.bodies
    assert mine == theirs


async def test_config_reaches_the_lm_and_every_generation_comes_back(open_pool: OpenPool, chat: Chat) -> None:
    colours = iter(["blue", "grey"])  # DSPy asks once for each generation
    chat.reply = lambda _: f"[[ ## answer ## ]]\n{next(colours)}"
    pool = await open_pool(lm=chat.lm(max_tokens=50))

    answer = await pool.call(replace(ASK, config={"n": 2, "temperature": 0.9}))

    assert sorted(row["answer"] for row in answer["completions"]) == ["blue", "grey"]
    # DSPy 3.3 asks once, and passes the limit on as it was given.
    limit, requests = ("max_completion_tokens", 2) if NEWER_THAN_33 else ("max_tokens", 1)
    assert [(body["temperature"], body[limit]) for body in chat.bodies] == [(0.9, 50)] * requests
    assert answer["usage"]["total_tokens"] > 0


async def test_a_call_may_bring_lm_settings_of_its_own(open_pool: OpenPool, chat: Chat) -> None:
    pool = await open_pool(lm=chat.lm(temperature=0.1))

    await pool.call(replace(ASK, lm={"model": "openai/other", "temperature": 0.8}))
    await pool.call(ASK)

    assert [(r["model"], r["temperature"]) for r in chat.bodies] == [("other", 0.8), ("test", 0.1)]


async def test_a_hundred_calls_are_in_flight_in_one_worker(open_pool: OpenPool, chat: Chat) -> None:
    everybody = asyncio.Barrier(100)

    async def wait_for_the_others(request: ChatRequest) -> str:
        await everybody.wait()  # nobody is answered before all hundred are here
        number = request.prompt.split("number ")[1].split("\n")[0]
        return f"[[ ## answer ## ]]\n{number}"

    chat.reply = wait_for_the_others
    pool = await open_pool(lm=chat.lm(), workers=1, max_inflight=100)

    answers = await asyncio.gather(
        *(pool.call(replace(ASK, inputs={"question": f"number {i}"})) for i in range(100))
    )

    assert [a["completions"][0]["answer"] for a in answers] == [str(i) for i in range(100)]


@pytest.mark.parametrize("adapter", ["json", "xml"])
async def test_the_other_adapters_answer_too(open_pool: OpenPool, chat: Chat, adapter: Any) -> None:
    replies = {"json": '{"answer": "blue"}', "xml": "<answer>\nblue\n</answer>"}
    chat.reply = lambda _: replies[adapter]
    pool = await open_pool(lm=chat.lm())

    answer = await pool.call(replace(ASK, adapter=adapter))

    assert answer["completions"] == [{"answer": "blue"}]


async def test_a_reply_that_cannot_be_read_is_a_reply_error_after_one_lm_call(
    open_pool: OpenPool, chat: Chat
) -> None:
    chat.reply = lambda _: "[[ ## answer ## ]]\nblue"
    pool = await open_pool(lm=chat.lm())

    with pytest.raises(errors.ReplyError) as raised:
        await pool.predict("question -> answer, reason", ASK.inputs)

    assert raised.value.reply == "[[ ## answer ## ]]\nblue"
    assert raised.value.fields == ["answer"]
    assert len(chat.bodies) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, errors.LMRequestError),
        (401, errors.LMAuthError),
        (404, errors.LMRequestError),
        (429, errors.LMRateLimitError),
        (500, errors.LMServerError),
        (503, errors.LMServerError),
    ],
)
async def test_what_the_server_refuses_is_an_lm_error_after_one_attempt(
    open_pool: OpenPool, chat: Chat, status: int, error: type[errors.LMError]
) -> None:
    chat.server.faults.push(HttpError(status, "no, says the server", retry_after=7))
    pool = await open_pool(lm=chat.lm())

    with pytest.raises(error, match="no, says the server") as raised:
        await pool.call(ASK)

    assert raised.value.status == status
    if status == 429:
        assert raised.value.retry_after == 7.0
    assert len(chat.bodies) == 1


async def test_a_server_that_echoes_the_key_does_not_get_it_into_the_error(
    open_pool: OpenPool, chat: Chat
) -> None:
    chat.server.faults.push(HttpError(401, f"bad key {KEY}"))
    pool = await open_pool(lm=chat.lm())

    with pytest.raises(errors.LMAuthError) as raised:
        await pool.call(ASK)

    assert KEY not in repr(raised.value.to_dict())
    assert "***" in str(raised.value)


@pytest.mark.parametrize("fault", [MalformedJSON(), WrongContentType(), Cut()], ids=repr)
async def test_an_answer_that_is_no_chat_completion_is_an_lm_error(
    open_pool: OpenPool, chat: Chat, fault: Fault
) -> None:
    chat.server.faults.push(fault)
    pool = await open_pool(lm=chat.lm())

    with pytest.raises(errors.LMError):
        await pool.call(ASK)


async def test_a_server_that_is_not_there_is_a_connection_error(open_pool: OpenPool, chat: Chat) -> None:
    pool = await open_pool(lm=chat.lm())
    await chat.server.__aexit__()

    with pytest.raises(errors.LMConnectionError):
        await pool.call(ASK)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"signature": SignatureForm("question answer")}, errors.SignatureError, "->"),
        (
            {"signature": SignatureForm("question -> answer: nonsense_type")},
            errors.SignatureError,
            "nonsense_type",
        ),
        (
            {"signature": SignatureForm("q -> a", fields={"nothing": {"desc": "x"}})},
            errors.SignatureError,
            "nothing",
        ),
        ({"adapter": "yaml"}, errors.ConfigError, "chat, json, xml"),
        ({"lm": {"model": None}}, errors.ConfigError, "no language model"),
        pytest.param(
            {"lm": {"num_retries": -1}},
            errors.ConfigError,
            "num_retries",
            marks=pytest.mark.skipif(not NEWER_THAN_33, reason="DSPy 3.3 takes any number of retries"),
        ),
    ],
)
async def test_a_request_that_is_wrong_gets_one_clear_error(
    open_pool: OpenPool, chat: Chat, change: dict[str, Any], error: type[Exception], says: str
) -> None:
    pool = await open_pool(lm=chat.lm())
    with pytest.raises(error, match=says):
        await pool.call(replace(ASK, **change))
    assert chat.bodies == []


async def test_the_key_is_nowhere_but_on_the_wire(open_pool: OpenPool, chat: Chat) -> None:
    pool = await open_pool(lm=chat.lm())

    seen = await pool.run("tests.support.work:command_line_and_environment")

    assert "dspex.worker" in seen
    assert KEY not in seen
    assert KEY not in repr(pool) + repr(pool.spec) + repr(pool.status())


async def test_a_hundred_calls_at_once_each_keep_their_own_settings(open_pool: OpenPool, chat: Chat) -> None:
    everybody = asyncio.Barrier(100)

    async def say_what_you_were_asked(request: ChatRequest) -> str:
        await everybody.wait()
        adapter_is_json = "JSON" in request.messages[0]["content"]
        answer = f"{request.model} {request.settings['temperature']}"
        return f'{{"answer": "{answer}"}}' if adapter_is_json else f"[[ ## answer ## ]]\n{answer}"

    chat.reply = say_what_you_were_asked
    pool = await open_pool(lm=chat.lm(), workers=1, max_inflight=100)

    def request(number: int) -> PredictRequest:
        lm = {"model": f"openai/m{number}", "temperature": number / 100}
        return replace(ASK, lm=lm, adapter="json" if number % 2 else "chat")

    answers = await asyncio.gather(*(pool.call(request(number)) for number in range(100)))

    assert [a["completions"][0]["answer"] for a in answers] == [f"m{n} {n / 100}" for n in range(100)]
