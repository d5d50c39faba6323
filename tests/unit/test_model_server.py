"""The local model server: what it serves, records and breaks; and the command that runs it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dspex import LM, errors
from dspex.lm import LMRequest
from dspex.testing import ChatRequest, Cut, Delay, HttpError, ModelServer, ScriptedLM, Stall

MESSAGES = [{"role": "user", "content": "what is 2 + 2?"}]


async def ask(url: str, **settings: Any) -> str:
    async with LM("openai/m", api_base=url) as lm:
        return (await lm.complete(LMRequest(MESSAGES, settings))).texts[0]


async def slowly(request: ChatRequest) -> str:
    await asyncio.sleep(0)
    return f"{request.model} {request.settings} {request.prompt} {request.choice}"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("four", "four"),
        ({"3 + 3": "six", "2 + 2": "four"}, "four"),
        (["four", "never"], "four"),
        (lambda request: request.prompt.upper(), "WHAT IS 2 + 2?"),
        (slowly, "m {'seed': 1} what is 2 + 2? 0"),
        (None, "what is 2 + 2?"),
    ],
)
async def test_it_answers_by_whatever_it_is_given(answer: Any, expected: str) -> None:
    with ModelServer(answer) as server:
        assert await ask(server.api_base, seed=1) == expected
    lm = ScriptedLM(answer, model="m")
    assert (await lm.complete(LMRequest(MESSAGES, {"seed": 1}))).texts == (expected,)


async def test_inside_async_with_it_runs_in_the_callers_loop() -> None:
    threads: list[int] = []

    async def answer(_: ChatRequest) -> str:
        threads.append(threading.get_ident())
        return "four"

    async with ModelServer(answer) as server:
        assert await ask(server.api_base) == "four"
    assert threads == [threading.get_ident()]


async def test_a_table_without_the_key_and_a_list_that_ran_out_say_so() -> None:
    no_key = pytest.raises(errors.LMRequestError, match="no key of the answer table")
    with ModelServer({"x": "y"}) as server, no_key:
        await ask(server.api_base)
    with ModelServer(["only one"]) as server:
        await ask(server.api_base)
        with pytest.raises(errors.LMRequestError, match="all 1 answers of the list are used up"):
            await ask(server.api_base)


async def test_what_the_answering_function_raises_is_the_answer() -> None:
    def fail(request: ChatRequest) -> str:
        if request.settings:
            raise errors.LMRateLimitError("slow down", status=429, retry_after=4)
        raise KeyError("oops")

    with ModelServer(fail) as server:
        with pytest.raises(errors.LMServerError, match=r"KeyError: 'oops'"):
            await ask(server.api_base)
        with pytest.raises(errors.LMRateLimitError, match="slow down") as caught:
            await ask(server.api_base, seed=1)
    assert caught.value.retry_after == 4.0


async def test_every_request_is_on_record_with_its_time_and_fault() -> None:
    with ModelServer("four", delay=0.02, faults=[None, Delay(0.05), HttpError(500), Cut()]) as server:
        await ask(server.api_base)
        await ask(server.api_base)
        for error in (errors.LMServerError, errors.LMConnectionError):
            with pytest.raises(error):
                await ask(server.api_base)
        plain, late, failed, cut = server.requests
    assert json.loads(plain.raw) == plain.body == {"model": "m", "messages": MESSAGES}
    assert plain.messages == MESSAGES
    assert plain.path == "/v1/chat/completions"
    assert (plain.status, late.status, failed.status, cut.status) == (200, 200, 500, None)
    assert late.fault == Delay(0.05)
    assert plain.seconds is not None
    assert late.seconds is not None
    assert plain.seconds >= 0.02
    assert late.seconds >= 0.07
    assert plain.received <= late.received <= failed.received <= cut.received


async def test_the_time_of_an_answer_is_in_its_header() -> None:
    with ModelServer("four", delay=0.01) as server:
        async with aiohttp.ClientSession() as session:
            body = {"model": "m", "messages": MESSAGES}
            async with session.post(f"{server.api_base}/chat/completions", json=body) as answer:
                name, _, duration = answer.headers["Server-Timing"].partition(";dur=")
    assert name == "dspex"
    assert float(duration) >= 10.0


async def test_models_are_listed() -> None:
    with ModelServer(models=["a", "b"]) as server:
        async with aiohttp.ClientSession() as session, session.get(f"{server.api_base}/models") as answer:
            assert [model["id"] for model in (await answer.json())["data"]] == ["a", "b"]


@pytest.mark.parametrize(
    "body", [b"no", b"[]", b"{}", b'{"model": "m"}', b'{"model": "m", "messages": [1]}', b'{"n": 0}']
)
async def test_a_wrong_request_is_a_400(body: bytes) -> None:
    with ModelServer("four") as server:
        post = aiohttp.request("POST", f"{server.api_base}/chat/completions", data=body)
        async with post as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]["message"]


async def test_usage_of_a_stream_comes_only_when_asked_for() -> None:
    with ModelServer("two words") as server:
        async with aiohttp.ClientSession() as session:
            for options in ({}, {"stream_options": {"include_usage": True}}):
                body = {"model": "m", "messages": MESSAGES, "stream": True, **options}
                async with session.post(f"{server.api_base}/chat/completions", json=body) as answer:
                    events = (await answer.text()).split("\n\n")
                assert events[-2:] == ["data: [DONE]", ""]
                usage = [json.loads(event[6:]).get("usage") for event in events[:-2]]
                assert [u["completion_tokens"] for u in usage if u] == ([2] if options else [])


def test_it_leaves_no_thread_and_can_start_again() -> None:
    before = threading.active_count()
    server = ModelServer("four", faults=[Stall()])
    for _ in range(2):
        with server:
            assert server.api_base.startswith("http://127.0.0.1:")
        assert threading.active_count() == before
        with pytest.raises(RuntimeError, match="not running"):
            _ = server.api_base


async def test_it_stops_while_a_client_is_kept_waiting() -> None:
    with ModelServer("four", faults=[Stall()]) as server:
        call = asyncio.create_task(ask(server.api_base))
        while not server.requests:
            await asyncio.sleep(0)
    with pytest.raises(errors.LMConnectionError):
        await call


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_while_it_is_written_to_is_nothing_to_log(
    stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    client = socket.socket()

    def leave(_: ChatRequest) -> str:
        # With a reset, and before the loop can tell the handler: its first write meets it.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        return "four"

    async with ModelServer(leave) as server:
        before = asyncio.all_tasks()
        host, port = server.api_base.removeprefix("http://").removesuffix("/v1").split(":")
        client.connect((host, int(port)))
        body = json.dumps({"model": "m", "messages": MESSAGES, "stream": stream}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n"
        client.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        while not server.requests or asyncio.all_tasks() - before:  # the connection's, until it is over
            await asyncio.sleep(0.001)

    assert [record.getMessage() for record in caplog.records if record.name.startswith("aiohttp")] == []


def test_a_taken_port_is_an_os_error_and_leaves_no_thread() -> None:
    before = threading.active_count()
    with ModelServer() as server:
        port = int(server.api_base.split(":")[2].split("/")[0])
        with pytest.raises(OSError, match="address already in use"), ModelServer(port=port):
            pass
    assert threading.active_count() == before


async def test_a_scripted_model_remembers_and_streams() -> None:
    lm = ScriptedLM("two  words\nand more ")
    request = LMRequest(MESSAGES, {"n": 2})
    deltas = [delta async for delta in lm.stream(request)]
    assert "".join(d.text for d in deltas if d.index == 1) == "two  words\nand more "
    assert [d.index for d in deltas if d.finish_reason == "stop"] == [0, 1]
    assert lm.requests == [request]
    with pytest.raises(errors.DeadlineExceeded):
        await ScriptedLM("x", delay=30).complete(LMRequest(MESSAGES, timeout=0.01))


# --- the command ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_command_serves_until_it_is_stopped(number: int, tmp_path: Path) -> None:
    table = tmp_path / "answers.json"
    table.write_text('{"2 + 2": "four"}')
    command = [sys.executable, "-m", "dspex.testing", "--answers", str(table), "--faults", "500,ok"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            url = process.stdout.readline().strip()
            with pytest.raises(errors.LMServerError):
                await ask(url)
            assert await ask(url) == "four"
            process.send_signal(number)
            assert process.wait(timeout=20) == 0
            assert process.stderr.read() == ""
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("arguments", "status", "mentions"),
    [
        (["--faults", "nope"], 2, "no such fault: 'nope'"),
        (["--answers", os.devnull], 2, "--answers"),
        (["--answers", "/nonexistent"], 2, "No such file"),
        (["--host", "203.0.113.1"], 1, "cannot listen on 203.0.113.1:0"),
    ],
)
def test_the_command_says_what_is_wrong(arguments: list[str], status: int, mentions: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "dspex.testing", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == status
    assert mentions in done.stderr
    assert "Traceback" not in done.stderr
