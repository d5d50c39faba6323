"""One exchange with an LM's server whose request somebody else writes, and whose answer he reads.

::

    Written  -->  the LM's turn (limits)  -->  its transport  -->  2xx: the reader reads it, within the turn
                                                              -->  else: the LM's error, of which he is told

The connections, limits, times, key and errors are those of the LM; the body and what the answer means are
the reader's. So an engine for another library's programs shares all that with those who call the LM itself.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from dspex._core import EventReader
from dspex.errors import LMError
from dspex.lm._client import LM
from dspex.lm._http.transport import Answer, Post, StreamedAnswer, TransportError
from dspex.lm._server import Server, Times

__all__ = ["Reader", "Reply", "StreamReader", "Written", "aclose_here", "ask", "ask_for_stream"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Written:
    """A request that is written.

    Attributes:
        path: The whole path, beginning with `/`; empty for the LM's own.
        body: The body.
        settings: Those that the LM's limits look at: `user`, `max_tokens`.
        headers: Fields beside those that the LM sends.
    """

    path: str
    body: bytes
    settings: Mapping[str, Any] = field(default_factory=dict)
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it came.

    Attributes:
        status: The HTTP status.
        headers: Its fields, by lower-case name.
        body: The body, unpacked.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class Refused(Protocol):
    """Who is told of an answer that is a refusal."""

    def refused(self, reply: Reply, error: LMError) -> None:
        """The server refused, which is this error of the LM's; it is raised next."""


class Reader(Refused, Protocol[T_co]):
    """Reads whole answers."""

    def read(self, reply: Reply) -> tuple[T_co, Mapping[str, Any]]:
        """What an answer says, and the tokens that it took.

        Raises:
            DspexError: If it says nothing that can be used.
        """


class StreamReader(Refused, Protocol):
    """Reads streams."""

    @property
    def usage(self) -> Mapping[str, Any]:
        """The tokens that the stream has taken, once it has said so."""

    @property
    def has_text(self) -> bool:
        """Whether it has brought text."""


async def ask(lm: LM, written: Written, left: float | None, reader: Reader[T]) -> T:
    """What the reader makes of the answer to a request.

    Args:
        lm: Whose server is asked.
        written: The request.
        left: Seconds that the caller has; None for as long as the LM allows.
        reader: Who reads the answer.

    Raises:
        LMError: If there is no answer, or it is a refusal.
        DeadlineExceeded: If the caller's time ran out.
        DspexError: What the reader raises.
    """
    server = lm._server()
    times = server.times(left)
    with await lm._turn(written.body, 1, written.settings, times) as turn:
        post = await _post(lm, server, written, times, whole=True)
        try:
            answer: Answer = await server.transport.fetch(post)
        except TransportError as error:
            server._failed(error, times)
        reply = Reply(answer.status, answer.headers, answer.body)
        if not 200 <= reply.status < 300:
            raise _refused(server, reply, reader)
        value, turn.usage = reader.read(reply)
    return value


async def ask_for_stream(
    lm: LM, written: Written, left: float | None, reader: StreamReader
) -> AsyncGenerator[str]:
    """The events of the stream that answers a request, each as its data; it may end before its answer does.

    Close the generator to give up early. Raises as `ask` does.
    """
    server = lm._server()
    times = server.times(left)
    with await lm._turn(written.body, 1, written.settings, times) as turn:
        answer = await _open(lm, server, written, times, reader)
        try:
            events = EventReader(server.most)
            while chunk := await server.chunk(answer, times, has_text=reader.has_text):
                found, overlong = events.feed(chunk)
                for event in found:
                    yield event
                    if event == "[DONE]":
                        answer.finish()
                        return
                if overlong:
                    server.reject(
                        f"an event is longer than {server.most} bytes", code="lm-response-too-large"
                    )
            for event in events.feed(b"\n\n")[0]:  # one whose last line was not ended
                yield event
        finally:
            turn.usage = reader.usage
            answer.close()


async def aclose_here(lm: LM) -> None:
    """Close the LM's connections of this event loop, which is about to end."""
    close = getattr(lm._transport, "aclose_here", None)  # a transport of the user's own need not have it
    if close is not None:
        await close()


async def _open(lm: LM, server: Server, written: Written, times: Times, reader: Refused) -> StreamedAnswer:
    post = await _post(lm, server, written, times, whole=False)
    try:
        answer = await server.transport.open(post)
    except TransportError as error:
        server._failed(error, times)
    if 200 <= answer.status < 300:
        return answer
    try:
        reply = Reply(answer.status, answer.headers, await server._rest(answer, times, post.total))
    finally:
        answer.close()
    raise _refused(server, reply, reader)


async def _post(lm: LM, server: Server, written: Written, times: Times, *, whole: bool) -> Post:
    waits = server.waits
    first_byte = math.inf if waits.first_byte is None else times.began + waits.first_byte
    seconds = waits.total if whole or waits.stream is None else min(waits.total, waits.stream)
    total = times.began + seconds
    headers = {**(lm.settings.get("extra_headers") or {}), **dict(written.headers)}
    fields = await server.fields(times, total, headers)
    post = server._post(written.body, fields, times, first_byte, total)
    if written.path and written.path != post.endpoint.path:
        post = replace(post, endpoint=replace(post.endpoint, path=written.path))
    return post


def _refused(server: Server, reply: Reply, reader: Refused) -> LMError:
    error = server._refused(reply.status, reply.body, reply.headers)
    reader.refused(reply, error)
    return error
