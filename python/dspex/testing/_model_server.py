"""`ModelServer`: a local server that speaks OpenAI's protocols and Anthropic's, and misbehaves on demand."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web

from dspex._portal import Portal
from dspex.errors import DspexError, LMAuthError, LMError, LMRequestError
from dspex.testing import _messages, _responses
from dspex.testing._answers import Answer, Answerer, ChatRequest, Said, text_of
from dspex.testing._faults import (
    Cut,
    Delay,
    EmptyChoices,
    Fault,
    FaultSchedule,
    HttpError,
    MalformedJSON,
    NullContent,
    SlowDrip,
    Stall,
    WrongContentType,
)
from dspex.testing._scripted import pieces, reason_of, usage_of

__all__ = ["ModelServer", "ReceivedRequest"]

START_WAIT = 10.0
STOP_WAIT = 10.0
MAX_REQUEST_BYTES = 64 * 1024 * 1024
_OTHERS = {"/v1/messages": _messages, "/v1/responses": _responses}
"""The paths of protocols that are not chat completions."""


@dataclass(slots=True)
class ReceivedRequest:
    """One request as the server got it.

    Attributes:
        path: The path asked for.
        raw: The body's bytes.
        body: The body read as JSON; None where it was none.
        headers: By lower-case name; of an authorization only its scheme is kept.
        received: When it came, by `time.monotonic`.
        seconds: How long the server itself took, its delays included; None while it is at it.
        status: The HTTP status it answered with; None while it is at it, or if it broke off.
        fault: The fault that met it.
    """

    path: str
    raw: bytes
    body: Any
    headers: Mapping[str, str]
    received: float
    seconds: float | None = None
    status: int | None = None
    fault: Fault | None = None

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The chat messages; of a request for Responses what they would be."""
        as_chat = self.body if "messages" in self.body else _responses.as_chat(self.body)
        messages: list[dict[str, Any]] = as_chat["messages"]
        return messages


class ModelServer:
    """An OpenAI-compatible server on this machine, for tests and demos; it speaks Anthropic's protocol too.

    Serves `POST /v1/chat/completions`, `POST /v1/responses` and `POST /v1/messages`, whole and streamed, and
    `GET /v1/models`. Any key will do. Use it as ``with ModelServer() as server``, or by `start` and `stop`:
    it runs in a thread of its own then; under ``async with`` it runs in your event loop, and so do async
    answering functions.

    It measures the time it spends itself: each record in `requests` has `seconds`, and each whole answer has
    that figure in the standard `Server-Timing` header, so that a client's own share can be computed.

    Args:
        answer: Where answers come from; see `dspex.testing.Answer`. What an answering function raises becomes
            an answer with status 500, or for an `LMError` with a `status` with that one.
        models: Names for `/v1/models`; the server answers under any name.
        delay: Seconds each answer takes.
        faults: Faults for the first requests, one each; more by ``server.faults.push(...)``.
        host: The address to listen on.
        port: The port; 0 takes a free one.

    Attributes:
        requests: Every chat request so far, in order of arrival.
        faults: What is lined up for the next requests.
    """

    def __init__(
        self,
        answer: Answer = None,
        *,
        models: Sequence[str] = ("extractive-reader",),
        delay: float = 0.0,
        faults: Sequence[Fault | None] = (),
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.requests: list[ReceivedRequest] = []
        self.faults = FaultSchedule()
        self.faults.push(*faults)
        self._answer = Answerer(answer)
        self._models = tuple(models)
        self._delay = delay
        self._host = host
        self._port = port
        self._api_base: str | None = None
        self._runner: web.AppRunner | None = None
        self._stopped: asyncio.Event | None = None
        self._thread: Portal | None = None

    @property
    def api_base(self) -> str:
        """The address for an LM, up to and including `/v1`.

        Raises:
            RuntimeError: If the server is not running.
        """
        if self._api_base is None:
            raise RuntimeError("the server is not running: use it in a with block")
        return self._api_base

    async def __aenter__(self) -> Self:
        if self._runner is not None:
            raise RuntimeError("the server is running already")
        app = web.Application(client_max_size=MAX_REQUEST_BYTES)
        app.router.add_post("/v1/chat/completions", self._chat)
        for path in _OTHERS:
            app.router.add_post(path, self._chat)
        app.router.add_get("/v1/models", self._list_models)
        # A client that gives up cancels its handler, so a stall ends with it; what still runs when the
        # server stops is cut after a moment.
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        self._stopped = asyncio.Event()
        port = runner.addresses[0][1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        self._api_base = f"http://{host}:{port}/v1"
        return self

    async def __aexit__(self, *exc: object) -> None:
        runner, self._runner = self._runner, None
        self._api_base = None
        if self._stopped is not None:
            self._stopped.set()
        if runner is not None:
            await runner.cleanup()

    def start(self) -> Self:
        """Serve from a thread, until `stop`: for a session at a prompt or in a notebook."""
        thread = Portal("dspex-model-server")
        try:
            thread.run(self.__aenter__(), START_WAIT)
        except BaseException:
            thread.close()
            raise
        self._thread = thread
        return self

    def stop(self) -> None:
        """Stop serving. Nothing happens to a server that is not running."""
        thread, self._thread = self._thread, None
        if thread is not None:
            try:
                thread.run(self.__aexit__(), STOP_WAIT)
            finally:
                thread.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"ModelServer({self._api_base or 'not running'}, requests={len(self.requests)})"

    # --- handlers -------------------------------------------------------------------------------------

    async def _list_models(self, _: web.Request) -> web.Response:
        listed = [{"id": name, "object": "model", "created": 0, "owned_by": "dspex"} for name in self._models]
        return web.json_response({"object": "list", "data": listed})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        started = time.monotonic()
        raw = await request.read()
        record = ReceivedRequest(request.path, raw, _json(raw), _safe_headers(request), started)
        record.fault = self.faults.take()
        self.requests.append(record)

        def done(status: int) -> float:
            record.status = status
            record.seconds = time.monotonic() - started
            return record.seconds

        try:
            return await self._serve(request, record, done)
        except ConnectionError:
            # The client left while it was written to, which is its right: nothing to tell anybody.
            return _cut(request)
        finally:
            if record.seconds is None:
                record.seconds = time.monotonic() - started

    async def _serve(
        self, request: web.Request, record: ReceivedRequest, done: Callable[[int], float]
    ) -> web.StreamResponse:
        fault = record.fault
        other = _OTHERS.get(record.path)
        problem = _problem(record.body, "input" if other is _responses else "messages")
        if problem:
            done(400)
            return _error(HttpError(400, problem, "invalid_request"))
        match fault:
            case Stall(at="start"):
                await self._stall()
                return _cut(request)
            case Cut(at="start"):
                return _cut(request)
            case HttpError():
                done(fault.status)
                return _error(fault)
            case WrongContentType():
                done(200)
                return web.Response(text=fault.body, content_type=fault.content_type)
            case Delay():
                await asyncio.sleep(fault.seconds)
        await asyncio.sleep(self._delay)
        try:
            count = record.body.get("n") or 1
            asked = other.as_chat(record.body) if other else record.body
            texts = [await self._answer(ChatRequest(asked, choice)) for choice in range(count)]
        except Exception as error:  # noqa: BLE001 - whatever the user's function raises is an answer too
            refusal = _refusal(error)
            done(refusal.status)
            return _error(refusal)
        if record.body.get("stream"):
            return await self._send_stream(request, record, texts, done)
        return await self._send_whole(request, record, texts, done)

    async def _send_whole(
        self,
        request: web.Request,
        record: ReceivedRequest,
        texts: list[Said],
        done: Callable[[int], float],
    ) -> web.StreamResponse:
        fault = record.fault
        if other := _OTHERS.get(record.path):
            body = other.whole(record.body, texts[0])
            if isinstance(fault, (EmptyChoices, NullContent)):
                body["output" if other is _responses else "content"] = []
        else:
            body = _completion(record.body, texts, fault)
        data = fault.body.encode() if isinstance(fault, MalformedJSON) else json.dumps(body).encode()
        # The account closes when the answer stands; how long the client takes to read it is the client's.
        timing = f"dspex;dur={done(200) * 1000:.3f}"
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Server-Timing": timing})
        response.content_length = len(data)
        await response.prepare(request)
        async for part in self._parts([data[: len(data) // 2], data[len(data) // 2 :]], fault):
            if part is None:
                return _cut(request, response)
            await response.write(part)
        await response.write_eof()
        return response

    async def _send_stream(
        self,
        request: web.Request,
        record: ReceivedRequest,
        texts: list[Said],
        done: Callable[[int], float],
    ) -> web.StreamResponse:
        fault = record.fault
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )
        await response.prepare(request)
        if other := _OTHERS.get(record.path):
            events, end = other.events(record.body, texts[0]), []
        else:
            events, end = [_event(data) for data in _chunks(record.body, texts)], [_event("[DONE]")]
        if isinstance(fault, (EmptyChoices, NullContent)):
            events = []
        if isinstance(fault, MalformedJSON):
            events.insert(len(events) // 2, _event(fault.body))
        async for part in self._parts([*events, *end], fault):
            if part is None:
                return _cut(request, response)
            await response.write(part)
        await response.write_eof()
        done(200)
        return response

    async def _parts(self, parts: list[bytes], fault: Fault | None) -> AsyncIterator[bytes | None]:
        """The parts as the fault lets them through; None where the connection shall break."""
        middle = len(parts) // 2
        for index, part in enumerate(parts):
            if index == middle and isinstance(fault, (Cut, Stall)):
                if isinstance(fault, Stall):
                    await self._stall()
                yield None
                return
            if isinstance(fault, SlowDrip):
                for at in range(0, len(part), fault.size):
                    yield part[at : at + fault.size]
                    await asyncio.sleep(fault.interval)
            else:
                yield part

    async def _stall(self) -> None:
        assert self._stopped is not None  # noqa: S101 - a handler runs only while the server does
        await self._stopped.wait()


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None


def _problem(body: Any, name: str) -> str:
    """What is wrong with a request, as the real API would say; empty if nothing is."""
    if not isinstance(body, dict):
        return "the body is not a JSON object"
    if not isinstance(body.get("model"), str):
        return "you must provide a model parameter"
    messages = body.get(name)
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        return f"{name!r} must be a list of messages"
    count = body.get("n") or 1
    if not isinstance(count, int) or not 1 <= count <= 128:
        return "'n' must be between 1 and 128"
    return ""


def _safe_headers(request: web.Request) -> dict[str, str]:
    headers = {name.lower(): value for name, value in request.headers.items()}
    if "authorization" in headers:
        headers["authorization"] = headers["authorization"].split(" ", 1)[0] + " ***"
    if "x-api-key" in headers:
        headers["x-api-key"] = "***"
    return headers


def _refusal(error: Exception) -> HttpError:
    if isinstance(error, LMError):
        default = 400 if isinstance(error, LMRequestError | LMAuthError) else 502
        return HttpError(error.status or default, error.message, error.code, error.retry_after)
    text = error.message if isinstance(error, DspexError) else f"{type(error).__name__}: {error}"
    return HttpError(500, f"the answering function failed: {text}", "answer-failed")


def _error(fault: HttpError) -> web.Response:
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    error = {"message": fault.message, "type": "error", "param": None, "code": fault.code}
    return web.json_response({"error": error}, status=fault.status, headers=headers)


def _cut(request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    # aiohttp wants a response; on a broken connection it goes nowhere.
    return response or web.Response()


def _completion(body: Mapping[str, Any], texts: list[Said], fault: Fault | None) -> dict[str, Any]:
    choices: list[dict[str, Any]] = [
        {
            "index": index,
            "message": {"role": "assistant", "refusal": None, **_message(said)},
            "logprobs": None,
            "finish_reason": reason_of(said),
        }
        for index, said in enumerate(texts)
    ]
    if isinstance(fault, EmptyChoices):
        choices = []
    if isinstance(fault, NullContent):
        for choice in choices:
            choice["message"].update(content=None, refusal=fault.refusal)
    return {
        "id": "chatcmpl-dspex",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": choices,
        "usage": usage_of(body["messages"], texts),
    }


def _chunks(body: Mapping[str, Any], texts: list[Said]) -> list[str]:
    """The data of a stream's events, the generations side by side as real servers send them."""
    base = {
        "id": "chatcmpl-dspex",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": body["model"],
    }

    def chunk(index: int, delta: dict[str, Any], reason: str | None = None) -> str:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return json.dumps({**base, "choices": [choice]})

    data = [chunk(index, {"role": "assistant", "content": ""}) for index in range(len(texts))]
    columns = [list(_deltas(said)) for said in texts]
    for row in range(max(map(len, columns))):
        data += [chunk(index, column[row]) for index, column in enumerate(columns) if row < len(column)]
    data += [chunk(index, {}, reason_of(said)) for index, said in enumerate(texts)]
    if (body.get("stream_options") or {}).get("include_usage"):
        data.append(json.dumps({**base, "choices": [], "usage": usage_of(body["messages"], texts)}))
    return data


def _message(said: Said) -> dict[str, Any]:
    return {"content": said} if isinstance(said, str) else {"content": None, **said}


def _deltas(said: Said) -> Iterator[dict[str, Any]]:
    """What is said, in the pieces in which real servers send it."""
    message = _message(said)
    for name in ("reasoning_content", "reasoning", "refusal"):
        if message.get(name):
            yield {name: message[name]}
    for piece in pieces(text_of(said)):
        yield {"content": piece}
    for at, call in enumerate(message.get("tool_calls") or ()):
        function = call["function"]
        yield {"tool_calls": [{**call, "index": at, "function": {**function, "arguments": ""}}]}
        for piece in pieces(function["arguments"]):
            yield {"tool_calls": [{"index": at, "function": {"arguments": piece}}]}


def _event(data: str) -> bytes:
    return f"data: {data}\n\n".encode()
