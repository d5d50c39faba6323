"""`ScriptedLM`: a language model that is a function."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, NoReturn

from dspex.errors import DeadlineExceeded, LMResponseError
from dspex.events import LMDelta, LMToolCallDelta
from dspex.lm._answer import read_message
from dspex.lm._protocol import LMRequest, LMResponse
from dspex.testing._answers import Answer, Answerer, ChatRequest, Said, text_of

__all__ = ["ScriptedLM", "pieces", "reason_of"]


class ScriptedLM:
    """A `LanguageModel` without a network: answers by script, and remembers what it was asked.

    Args:
        answer: Where answers come from; see `Answer`. None reads the prompt and answers out of it.
        model: The name it goes by.
        delay: Seconds each call takes.

    Attributes:
        requests: Every request so far, as the `LMRequest` it was.
    """

    def __init__(self, answer: Answer = None, *, model: str = "scripted", delay: float = 0.0) -> None:
        self.model = model
        self.requests: list[LMRequest] = []
        self._answer = Answerer(answer)
        self._delay = delay

    async def complete(self, request: LMRequest) -> LMResponse:
        """Answer by the script.

        Raises:
            LMRequestError: If the script has no answer.
            DeadlineExceeded: If `request.timeout` ran out.
        """
        started = time.perf_counter()
        return self._response(request, await self._texts(request), started)

    def complete_now(self, request: LMRequest) -> LMResponse | None:
        """Answer without waiting; None where there is a delay, or a function that may take its time."""
        if self._delay or not self._answer.at_once or (request.timeout is not None and request.timeout <= 0):
            return None
        started = time.perf_counter()
        texts = [self._answer.now(each) for each in self._asked(request)]
        return self._response(request, texts, started)

    def _response(self, request: LMRequest, texts: list[Said], started: float) -> LMResponse:
        usage = usage_of(request.messages, texts)
        choices = tuple(read_message(_message(said), _reject) for said in texts)
        return LMResponse(choices, self.model, usage, time.perf_counter() - started)

    def _asked(self, request: LMRequest) -> list[ChatRequest]:
        """What is asked, once for each generation."""
        self.requests.append(request)
        body = {"model": self.model, **request.settings, "messages": request.messages}
        return [ChatRequest(body, choice) for choice in range(request.settings.get("n") or 1)]

    async def stream(self, request: LMRequest) -> AsyncGenerator[LMDelta]:
        """Answer by the script, word by word."""
        texts = await self._texts(request)
        for index, said in enumerate(texts):
            choice = read_message(_message(said), _reject)
            if choice.reasoning:
                yield LMDelta("", index, reasoning=choice.reasoning)
            if choice.refusal:
                yield LMDelta("", index, refusal=choice.refusal)
            for piece in pieces(choice.text):
                yield LMDelta(piece, index)
            for at, call in enumerate(choice.tool_calls):
                first = LMToolCallDelta(at, call.id, call.name)
                yield LMDelta("", index, tool_calls=(first,))
                yield LMDelta("", index, tool_calls=(LMToolCallDelta(at, arguments=call.arguments),))
            yield LMDelta("", index, choice.finish_reason)
        yield LMDelta("", usage=usage_of(request.messages, texts))

    async def aclose(self) -> None:
        """Nothing is held."""

    async def _texts(self, request: LMRequest) -> list[Said]:
        asked = self._asked(request)
        try:
            async with asyncio.timeout(request.timeout) as limit:
                await asyncio.sleep(self._delay)
                return [await self._answer(each) for each in asked]
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise DeadlineExceeded(
                f"the caller's {request.timeout:g} s ran out while waiting for {self.model}",
                retryable=True,
                stage="lm",
                model=self.model,
                timeout=request.timeout,
            ) from error
        finally:
            del limit  # it holds the task and by that the exception: see `Router.dispatch`

    def __repr__(self) -> str:
        return f"ScriptedLM(model={self.model!r}, requests={len(self.requests)})"


def pieces(text: str) -> list[str]:
    """The text cut into words with the space after them, as a model streams it."""
    return re.findall(r"\s*\S+\s?|\s+", text)


def reason_of(said: Said) -> str:
    """Why a generation that says this has ended, as the API has it."""
    return "tool_calls" if isinstance(said, Mapping) and said.get("tool_calls") else "stop"


def _message(said: Said) -> dict[str, Any]:
    message = {"content": said} if isinstance(said, str) else dict(said)
    return {"message": message, "finish_reason": reason_of(said)}


def _reject(what: str, *, code: str | None = None, hint: str = "", said: bytes | str = "") -> NoReturn:
    words = f": {said!r}" if said else ""
    raise LMResponseError(
        f"the script's answer is not a chat completion: {what}{words}", code=code, hint=hint
    )


def usage_of(messages: Any, texts: Sequence[Said]) -> dict[str, int]:
    """A token count as the API reports it. It counts words, which is near enough for a test double."""
    prompt = sum(len(str(message.get("content") or "").split()) for message in messages)
    completion = sum(len(text_of(said).split()) for said in texts)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
