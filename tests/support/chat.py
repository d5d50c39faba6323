"""A chat-completions server for tests of the worker side, on the test's own loop."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

COLOURS = "[[ ## answer ## ]]\n{}\n\n[[ ## completed ## ]]"


class ChatServer:
    """Answers with what `reply` makes of the request's body; keeps the bodies."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.reply: Callable[[dict[str, Any]], Any] = lambda body: COLOURS.format("blue")
        self.arrived = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}/v1"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def lm(self, **settings: Any) -> dict[str, Any]:
        return {"model": "openai/test", "api_base": self.url, "api_key": "sk-test-not-a-real-key", **settings}

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        self.arrived.set()
        reply = self.reply(body)
        if inspect.isawaitable(reply):
            reply = await reply
        if isinstance(reply, web.StreamResponse):
            return reply
        texts = [reply] if isinstance(reply, str) else reply
        return web.json_response(
            {
                "id": "chat-1",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [
                    {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
                    for i, text in enumerate(texts)
                ],
                "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
            }
        )


def failure(status: int, message: str, **headers: str) -> web.Response:
    body = json.dumps({"error": {"message": message, "type": "test", "code": "test"}})
    return web.Response(
        status=status,
        text=body,
        content_type="application/json",
        headers={k.replace("_", "-"): v for k, v in headers.items()},
    )
