"""Streams out of a worker: what the LM writes, field by field, while it writes it."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import dspy
import pytest
from tests.support import programs
from tests.support.pools import QUICK, Chat, OpenPool
from tests.support.processes import until

from dspex import Prediction, errors
from dspex.events import Event, FieldEnd, FieldStart, Status, TextDelta
from dspex.pool import ModuleRequest, Pool, PredictRequest, Request, StreamedFields
from dspex.testing import ChatRequest, Cut, Stall

PROGRAMS = "tests.support.programs:"
TEXT = "Rayleigh scattering makes short waves turn aside, so that the sky is blue [mostly] by day."


async def collect(pool: Pool, request: Request) -> list[Event]:
    return [event async for event in pool.stream(request)]


def chunks(events: list[Event]) -> list[tuple[str, str, str, bool]]:
    deltas = [event for event in events if isinstance(event, TextDelta)]
    return [(delta.predictor, delta.field, delta.text, delta.is_last_chunk) for delta in deltas]


def prediction(events: list[Event]) -> Prediction:
    assert isinstance(events[-1], Prediction)
    assert not any(isinstance(event, Prediction) for event in events[:-1])
    return events[-1]


def rows(events: list[Event]) -> list[dict[str, Any]]:
    return [dict(row) for row in prediction(events).completions]


def fields(layout: str, **values: str) -> str:
    if layout == "json":
        return "{" + ", ".join(f'"{name}": "{value}"' for name, value in values.items()) + "}"
    if layout == "xml":
        return "\n\n".join(f"<{name}>\n{value}\n</{name}>" for name, value in values.items())
    return "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in {**values, "completed": ""}.items())


ADAPTERS = {"chat": dspy.ChatAdapter, "json": dspy.JSONAdapter, "xml": dspy.XMLAdapter}

# the class, what makes it here, what it streams
ASK = "question -> answer"
ASK_WHY = "question -> reasoning, answer"
MODULES: list[tuple[str, Any, dict[str, Any]]] = [
    ("dspy.Predict", lambda: dspy.Predict(ASK_WHY), {"signature": ASK_WHY}),
    ("dspy.ChainOfThought", lambda: dspy.ChainOfThought(ASK), {"signature": ASK}),
    (PROGRAMS + "TwoSteps", programs.TwoSteps, {}),
]


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("parsing", [None, "tolerant"])
@pytest.mark.parametrize(("name", "make", "more"), MODULES, ids=[row[0] for row in MODULES])
async def test_the_texts_are_those_that_dspy_s_listeners_hear(
    open_pool: OpenPool, chat: Chat, name: str, make: Any, more: dict[str, Any], adapter: Any, parsing: Any
) -> None:
    def reply(request: ChatRequest) -> str:
        names = ("draft",) if "draft" in str(request.messages[0]) and "tone" not in request.prompt else (
            ("reasoning", "answer") if "reasoning" in str(request.messages[0]) else ("answer",)
        )  # fmt: skip
        return fields(adapter, **dict.fromkeys(names, TEXT))

    chat.reply = reply
    pool = await open_pool(lm=chat.lm())
    module = make()
    listeners = [
        dspy.streaming.StreamListener(field, predict=predictor, predict_name=where, allow_reuse=True)
        for where, predictor in module.named_predictors()
        for field in predictor.signature.output_fields
    ]
    request = ModuleRequest.of(name, {"question": "why?"}, adapter=adapter, parsing=parsing, **more)

    parts = await collect(pool, request)
    expected: list[Any] = []
    with dspy.context(lm=dspy.LM(**chat.lm(), cache=False), adapter=ADAPTERS[adapter]()):
        is_async = hasattr(module, "aforward")
        async for part in dspy.streamify(module, stream_listeners=listeners, is_async_program=is_async)(
            question="why?"
        ):
            expected.append(part)

    heard: dict[tuple[str, str], str] = {}
    for chunk in expected[:-1]:
        field = chunk.predict_name, chunk.signature_field_name
        heard[field] = heard.get(field, "") + chunk.chunk
    if adapter == "json":  # of which they give the text as it is written, and a part of what follows
        heard = {field: json.JSONDecoder().raw_decode(text.lstrip())[0] for field, text in heard.items()}
    told: dict[tuple[str, str], str] = {}
    for predictor, name, text, _ in chunks(parts):
        told[predictor, name] = told.get((predictor, name), "") + text
    assert told == heard
    assert set(told.values()) == {TEXT}
    assert len(chunks(parts)) > 3
    assert rows(parts) == [dict(expected[-1])]
    assert prediction(parts).usage["total_tokens"] > 0
    assert prediction(parts).timings["lm"] > 0


async def test_each_field_of_each_reply_begins_and_ends(open_pool: OpenPool, chat: Chat) -> None:
    chat.reply = lambda request: fields(
        "chat", **{"answer" if "[[ ## tone ## ]]" in request.prompt else "draft": TEXT}
    )
    pool = await open_pool(lm=chat.lm())
    events = await collect(pool, ModuleRequest.of(PROGRAMS + "TwoSteps", {"question": "why?"}))

    for predictor, field in (("draft", "draft"), ("polish", "answer")):
        its: list[Any] = [event for event in events if getattr(event, "predictor", None) == predictor]
        assert its[0] == FieldStart(field, predictor)
        assert its[-1] == FieldEnd(field, predictor=predictor)
        assert [event.is_last_chunk for event in its[1:-1]] == [False] * (len(its) - 3) + [True]


async def test_a_chunk_is_here_before_the_lm_has_finished_and_leaving_ends_the_request(
    open_pool: OpenPool, chat: Chat
) -> None:
    chat.reply = lambda _: fields("chat", answer=TEXT)
    chat.server.faults.push(Stall(at="middle"))
    pool = await open_pool(lm=chat.lm())
    request = PredictRequest.of("question -> answer", {"question": "why?"})
    async with aclosing(pool.stream(request)) as parts:
        assert await anext(parts) == FieldStart("answer")
        delta = await anext(parts)
        assert isinstance(delta, TextDelta)
        assert (delta.field, delta.is_last_chunk) == ("answer", False)
        assert TEXT.startswith(delta.text)
        assert chat.server.requests[0].seconds is None

    await until(lambda: pool.status().workers[0].inflight == 0)
    await until(lambda: chat.server.requests[0].seconds is not None)
    assert (await pool.call(request))["completions"] == [{"answer": TEXT}]


async def test_a_caller_who_does_not_take_the_parts_stops_the_reading_of_the_reply(
    open_pool: OpenPool, chat: Chat
) -> None:
    chat.reply = lambda _: fields("chat", answer="word " * 4_000 + "end")
    pool = await open_pool(lm=chat.lm())
    done = asyncio.Event()

    async def lm_is_done() -> None:
        done.set()

    request = ModuleRequest.of(PROGRAMS + "Telling", {"question": "why?"})
    async with aclosing(pool.stream(request, host_functions={"lm_is_done": lm_is_done})) as parts:
        assert isinstance(await anext(parts), FieldStart)
        text = ""
        for _ in range(300):  # turns enough for the worker to read it all, if it did
            await pool.echo(None)
        assert not done.is_set()
        async for part in parts:
            text += part.text if isinstance(part, TextDelta) else ""
    assert done.is_set()
    assert text == "word " * 4_000 + "end"


@pytest.mark.parametrize(
    ("wanted", "fields_seen"),
    [
        (["answer"], {("polish", "answer")}),
        (["draft.draft"], {("draft", "draft")}),
        (None, {("draft", "draft"), ("polish", "answer")}),
        ([], set()),
    ],
)
async def test_the_fields_that_stream_are_chosen(
    open_pool: OpenPool, chat: Chat, wanted: list[str] | None, fields_seen: set[tuple[str, str]]
) -> None:
    chat.reply = lambda request: fields(
        "chat", **{"answer" if "[[ ## tone ## ]]" in request.prompt else "draft": TEXT}
    )
    pool = await open_pool(lm=chat.lm())
    stream = None if wanted is None else StreamedFields(fields=wanted)
    parts = await collect(pool, ModuleRequest.of(PROGRAMS + "TwoSteps", {"question": "why?"}, stream=stream))
    assert {(predictor, field) for predictor, field, _, _ in chunks(parts)} == fields_seen
    assert rows(parts) == [{"answer": TEXT, "draft": TEXT}]


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        (StreamedFields(fields=["colour"]), "no predictor has an output field 'colour'"),
        (StreamedFields(status="tests.support.work:add"), "is not a dspy.streaming.StatusMessageProvider"),
    ],
)
async def test_what_cannot_be_streamed_is_refused(
    open_pool: OpenPool, chat: Chat, stream: StreamedFields, says: str
) -> None:
    pool = await open_pool(lm=chat.lm())
    request = PredictRequest.of("question -> answer", {"question": "?"}, stream=stream)
    with pytest.raises(errors.ConfigError, match=says):
        await collect(pool, request)
    assert chat.bodies == []


async def test_messages_tell_of_progress_and_can_never_block_the_worker(
    open_pool: OpenPool, chat: Chat
) -> None:
    chat.reply = lambda _: fields("chat", answer=TEXT)
    pool = await open_pool(lm=chat.lm())
    request = ModuleRequest.of(PROGRAMS + "ManyTools", {"question": "why?"})

    # A hundred tools, more than any buffer, while nobody takes a part.
    async with aclosing(pool.stream(request)) as parts:
        first = await anext(parts)
        assert await pool.echo(1) == 1
        texts = [first.text] + [event.text async for event in parts if isinstance(event, Status)]
    assert texts[0] == "Calling tool look_up..."
    assert texts[1].startswith("Tool calling finished!")
    assert len(texts) == 200

    stream = StreamedFields(status=PROGRAMS + "Messages", fields=[])
    own = await collect(pool, replace(request, stream=stream))
    said = [e.text for e in own if isinstance(e, Status) and "tool" not in e.text.lower()]
    assert said == ["running Predict", "asking", "answered"]


async def test_streams_side_by_side_do_not_mix(open_pool: OpenPool, chat: Chat) -> None:
    chat.reply = lambda request: fields(
        "chat", answer=f"about {request.prompt.split('number ')[1].split()[0]} and so on"
    )
    pool = await open_pool(lm=chat.lm())

    async def ask(number: int) -> str:
        request = PredictRequest.of("question -> answer", {"question": f"number {number} ?"})
        return "".join(text for _, _, text, _ in chunks(await collect(pool, request)))

    assert await asyncio.gather(*map(ask, range(30))) == [f"about {n} and so on" for n in range(30)]


async def test_a_reply_that_breaks_off_is_an_error_after_its_chunks(open_pool: OpenPool, chat: Chat) -> None:
    chat.reply = lambda _: fields("chat", answer=TEXT)
    chat.server.faults.push(Cut(at="middle"))
    pool = await open_pool(lm=chat.lm())
    request = PredictRequest.of("question -> answer", {"question": "why?"})
    seen: list[Event] = []

    async def take() -> None:
        async for part in pool.stream(request):
            seen.append(part)

    with pytest.raises(errors.LMError):
        await take()
    assert seen[0] == FieldStart("answer")
    assert TEXT.startswith("".join(text for _, _, text, _ in chunks(seen)))
    assert not any(isinstance(event, FieldEnd | Prediction) for event in seen)
    assert rows(await collect(pool, request)) == [{"answer": TEXT}]


async def test_a_stream_of_a_program_without_an_async_form_is_waited_for(
    open_pool: OpenPool, chat: Chat
) -> None:
    chat.reply = lambda _: fields("chat", draft=TEXT)
    chat.server.faults.push(Stall(at="middle"))
    pool = await open_pool(lm=chat.lm(timeout=1), timeouts=QUICK.replace(cancel=20), max_inflight=1)
    request = ModuleRequest.of(PROGRAMS + "TwoSteps", {"question": "why?"})
    (before,) = pool.status().workers
    async with aclosing(pool.stream(request)) as parts:
        await anext(parts)
    # Its thread cannot be stopped: the place is free when the thread has given up, not before.
    await until(lambda: pool.status().workers[0].inflight == 0, seconds=20)
    assert pool.status().workers[0].pid == before.pid
