"""`Server`: where an LM's requests go, how long each wait may take, which error each failure becomes."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from dspex import _lm_failures as failures
from dspex._timeouts import check_seconds
from dspex.errors import DeadlineExceeded, DspexError, LMTimeoutError
from dspex.lm._http.transport import Post, Stage, TransportError, TransportTimeoutError
from dspex.lm._keys import asked
from dspex.lm._secrets import secrets_of

if TYPE_CHECKING:
    from dspex.errors import LMError
    from dspex.lm._address import Address
    from dspex.lm._codec import Codec
    from dspex.lm._http.transport import Endpoint, StreamedAnswer, Transport
    from dspex.lm._keys import Key

__all__ = ["Server", "Times", "Waits"]

KEPT_SECRETS = 64
"""Secrets of earlier calls that are remembered, so that an error of theirs does not show them."""
GLIMPSE = 200
"""Characters of a server's words that an error shows of an answer that cannot be read."""


_AS_IT_IS: Final = (failures.UNREACHABLE, failures.UNKNOWN_HOST)


class Waits(NamedTuple):
    """How long each wait for the server may take, in seconds. None: as long as `total`.

    Attributes:
        total: For a whole answer.
        connect: For a new connection.
        first_byte: From sending the request to the first byte of the answer.
        first_text: In a stream, from sending the request to the first piece of it with text in it.
        chunk: In a stream, from one piece to the next.
        stream: For a whole stream. None: as long as pieces come.
    """

    total: float
    connect: float
    first_byte: float | None = None
    first_text: float | None = None
    chunk: float | None = None
    stream: float | None = None


class Times(NamedTuple):
    """The limits of one call, by the event loop's clock; `inf` where there is none.

    Attributes:
        began: When the call began.
        given: The seconds that the caller has given; None without a limit.
        deadline: When those are over.
    """

    began: float
    given: float | None
    deadline: float


class Server:
    """Asks the server of an address, once for each call.

    Args:
        address: Where the model lives.
        api_key: The key, as given, or the function that gives it.
        endpoint: Where chat completions go.
        transport: What carries the requests.
        waits: How long each wait may take.
        most: Bytes that an answer may have.
        codec: How the provider writes.
        secrets: What else, besides the key, is kept out of errors.
    """

    def __init__(
        self,
        address: Address,
        api_key: Key | None,
        endpoint: Endpoint,
        transport: Transport,
        waits: Waits,
        most: int,
        codec: Codec,
        secrets: tuple[str, ...] = (),
    ) -> None:
        self.address = address
        self.endpoint = endpoint
        self.transport = transport
        self.waits = waits
        self.most = most
        self._source = None if isinstance(api_key, str) or api_key is None else api_key
        self._api_key = None if callable(api_key) else api_key
        self._other_secrets = secrets
        self._own_secrets = len(secrets)
        self._codec = codec
        self._headers: tuple[str | None, tuple[tuple[str, str], ...]] | None = None

    def times(self, left: float | None) -> Times:
        """The limits of a call that begins now, whose caller has so many seconds left.

        Raises:
            DeadlineExceeded: If there are none.
            ConfigError: If that is no number of seconds.
        """
        now = asyncio.get_running_loop().time()
        if left is None:
            return Times(now, None, math.inf)
        if isinstance(left, (int, float)) and left <= 0:  # a deadline that has passed, not a bad setting
            self._out_of_time(left)
        left = check_seconds(left)
        return Times(now, left, now + left)

    async def ask(self, body: bytes, times: Times, headers: Mapping[str, str] | None = None) -> bytes:
        """The body of the answer to a request.

        Args:
            body: The request's.
            times: The limits of the call.
            headers: Fields of its own.

        Raises:
            LMError: If there is none, or its status is not 200.
            DeadlineExceeded: If the caller's time ran out.
        """
        waits = self.waits
        first_byte = math.inf if waits.first_byte is None else times.began + waits.first_byte
        total = times.began + waits.total
        fields = await self.fields(times, total, headers)
        try:
            answer = await self.transport.fetch(self._post(body, fields, times, first_byte, total))
        except TransportError as error:
            self._failed(error, times)
        if answer.status != 200:
            raise self._refused(answer.status, answer.body, answer.headers)
        return answer.body

    async def open(
        self, body: bytes, times: Times, headers: Mapping[str, str] | None = None
    ) -> StreamedAnswer:
        """The stream that answers a request. Raises as `ask` does."""
        waits = self.waits
        first_byte = math.inf if waits.first_byte is None else times.began + waits.first_byte
        total = times.began + min(waits.total, math.inf if waits.stream is None else waits.stream)
        fields = await self.fields(times, total, headers)
        try:
            answer = await self.transport.open(self._post(body, fields, times, first_byte, total))
        except TransportError as error:
            self._failed(error, times)
        try:
            if answer.status != 200:
                raise self._refused(answer.status, await self._rest(answer, times, total), answer.headers)
            kind = answer.headers.get("content-type", "application/octet-stream").partition(";")[0].strip()
            if kind.lower() != "text/event-stream":
                self.reject(f"the stream came as {kind!r}, not as text/event-stream")
        except BaseException:
            answer.close()
            raise
        return answer

    async def chunk(self, answer: StreamedAnswer, times: Times, *, has_text: bool) -> bytes:
        """What has come of a stream; empty at its end. Raises as `ask` does.

        Args:
            answer: The stream.
            times: The limits of the call.
            has_text: Whether it has brought text before.
        """
        until, stage = self._next_wait(times, has_text=has_text)
        try:
            return await answer.chunk(until, stage)
        except TransportError as error:
            self._failed(error, times)

    async def warm(self) -> None:
        """Have a connection ready. Raises as `ask` does."""
        try:
            await self.transport.warm(self.endpoint, self.waits.connect)
        except TransportError as error:
            self._failed(error, self.times(None))

    def reject(
        self, what: str, *, code: str | None = None, hint: str = "", said: bytes | str = ""
    ) -> NoReturn:
        """Raise the error for an answer that came and is not a chat completion.

        Args:
            what: Why it is none.
            code: A finer code.
            hint: What to do, if it is not what the code's failures have in common.
            said: The server's words, of which the beginning is shown, without secrets.
        """
        address = self.address
        if said:
            what = f"{what}: {failures.server_message(said, self.secrets())[0][:GLIMPSE]!r}"
        for secret in self.secrets():
            what = what.replace(secret, "***")
        raise failures.from_rejected(what, code, base=address.base, model=address.model, hint=hint)

    def failed_midway(self, event: Mapping[str, Any], status: int | None = None) -> NoReturn:
        """A server that fails after it has sent its status can only say so in an event, or in its answer.

        Args:
            event: What it says, as OpenAI writes errors.
            status: What the status would have been; by default the error's code, if that is one.
        """
        error = event["error"]
        if status is None:
            status = error.get("code") if isinstance(error, dict) else None
        if not isinstance(status, int) or not 400 <= status < 600:
            status = 500
        raise self._refused(status, json.dumps(event).encode(), {})

    def cut(self) -> LMError:
        """The error for a stream that ended before its answer did."""
        return failures.from_failure(failures.CUT_STREAM, base=self.address.base, model=self.address.model)

    # --- inner workings ---

    def keep_secrets_of(self, settings: Mapping[str, Any]) -> None:
        """Keep the secrets in a call's settings out of errors."""
        self._keep_secret(secrets_of(settings))

    def secrets(self) -> tuple[str, ...]:
        """What no error may show: the key, and what came with calls."""
        key = None if self._source is not None else self.address.key(self._api_key)
        return self._other_secrets if key is None else (key, *self._other_secrets)

    def _post(
        self,
        body: bytes,
        fields: tuple[tuple[str, str], ...],
        times: Times,
        first_byte: float,
        total: float,
    ) -> Post:
        deadline = times.deadline
        return Post(
            self.endpoint,
            fields,
            body,
            self.waits.connect,
            min(first_byte, deadline),
            min(total, deadline),
            self.most,
        )

    def _next_wait(self, times: Times, *, has_text: bool) -> tuple[float, Stage]:
        """Until when the next piece of a stream has to be there, and which of the limits that is."""
        waits = self.waits
        stage: Stage = "chunk"
        until = asyncio.get_running_loop().time() + (waits.total if waits.chunk is None else waits.chunk)
        if waits.first_text is not None and not has_text and times.began + waits.first_text < until:
            until, stage = times.began + waits.first_text, "first-text"
        if waits.stream is not None and times.began + waits.stream < until:
            until, stage = times.began + waits.stream, "total"
        if times.deadline < until:
            until, stage = times.deadline, "total"
        return until, stage

    async def fields(
        self, times: Times, total: float, headers: Mapping[str, str] | None
    ) -> tuple[tuple[str, str], ...]:
        """The fields of a request's head, the key among them.

        Args:
            times: The limits of the call.
            total: When all has to be over.
            headers: Fields of the call's own.

        Raises:
            LMAuthError: If there is no key, or none that can be sent.
            LMTimeoutError: If a function gave it too late.
        """
        fields = self._fields() if self._source is None else await self._with_fresh_key(times, total)
        return self._with_headers(fields, headers) if headers else fields

    async def _with_fresh_key(self, times: Times, total: float) -> tuple[tuple[str, str], ...]:
        """The fields with the key that the function gives now."""
        assert self._source is not None  # noqa: S101 - it is asked only where there is one
        overdue = None
        try:
            key = await asked(self._source, self.address, min(total, times.deadline))
        except TimeoutError as error:
            overdue = OSError(str(error))
        if overdue is not None:
            self._key_overdue(times, overdue)
        self._keep_secret((key,))
        return self._with_key(key)

    def _key_overdue(self, times: Times, cause: OSError) -> NoReturn:
        if asyncio.get_running_loop().time() >= times.deadline:
            self._out_of_time(times.given, cause)
        raise LMTimeoutError(
            f"the function given as api_key= for {self.address.base} gave no key in time",
            code="lm-key-timeout",
            hint="it is called for each request: let it keep the key for as long as it is good",
            model=self.address.model,
            api_base=self.address.base,
            timeout=self.waits.total,
        ) from cause

    def _with_headers(
        self, fields: tuple[tuple[str, str], ...], headers: Mapping[str, str]
    ) -> tuple[tuple[str, str], ...]:
        """The fields, with those of the call in place of ours of the same name."""
        self._keep_secret(secrets_of({"extra_headers": headers}))
        given = {name.lower() for name in headers}
        return (*(field for field in fields if field[0].lower() not in given), *headers.items())

    def _keep_secret(self, secrets: Iterable[str]) -> None:
        """Keep the newest of what came with calls out of errors, which are made after them."""
        known = self._other_secrets
        new = [secret for secret in secrets if secret not in known]
        if new:
            first = known[: self._own_secrets]
            self._other_secrets = (*first, *(*known[self._own_secrets :], *new)[-KEPT_SECRETS:])

    def _fields(self) -> tuple[tuple[str, str], ...]:
        return self._with_key(self.address.key(self._api_key))

    def _with_key(self, key: str | None) -> tuple[tuple[str, str], ...]:
        last = self._headers
        if last is not None and last[0] == key:
            return last[1]
        fields = self._codec.fields(key)
        self._headers = key, fields
        return fields

    async def _rest(self, answer: StreamedAnswer, times: Times, total: float) -> bytes:
        """The body of an answer that is no stream, as far as an error needs it."""
        parts, size = [], 0
        try:
            while size <= self.most and (part := await answer.chunk(min(total, times.deadline), "total")):
                parts.append(part)
                size += len(part)
        except TransportError as error:
            self._failed(error, times)
        return b"".join(parts)

    def _failed(self, error: TransportError, times: Times) -> NoReturn:
        try:
            self._raise(error, times)
        except DspexError as ours:
            # The transport's error may have a client's in its context, which shows the request's header.
            ours.__context__ = ours.__cause__
            raise
        finally:
            del error

    def _raise(self, error: TransportError, times: Times) -> NoReturn:
        address = self.address
        cause = OSError(str(error))  # without the frames of the call, which hold the key
        if isinstance(error, TransportTimeoutError):
            if asyncio.get_running_loop().time() >= times.deadline:
                self._out_of_time(times.given, cause)
            ours = failures.from_failure(error.failure, base=address.base, model=address.model)
            ours.timeout = self._seconds(error.stage)
            if isinstance(ours, LMTimeoutError):
                ours.stage = error.stage
        elif error.failure is failures.TOO_LARGE:
            self.reject(f"it is longer than {self.most} bytes", code="lm-response-too-large")
        else:
            # What is said of a server that is not there differs by the route; the cause has it.
            detail = "" if error.failure in _AS_IT_IS else error.detail
            ours = failures.from_failure(error.failure, base=address.base, model=address.model, detail=detail)
        try:
            raise ours from cause
        finally:
            del ours, cause, error

    def _seconds(self, stage: Stage) -> float:
        waits = self.waits
        found = {
            "connect": waits.connect,
            "first-byte": waits.first_byte,
            "first-text": waits.first_text,
            "chunk": waits.chunk,
        }.get(stage)
        return waits.total if found is None else found

    def _out_of_time(self, left: float | None, cause: BaseException | None = None) -> NoReturn:
        raise DeadlineExceeded(
            f"the caller's {left:g} s ran out while waiting for {self.address.model}",
            hint="give the call more time, or ask for fewer tokens",
            retryable=True,
            stage="lm",
            model=self.address.model,
            timeout=left,
        ) from cause

    def _refused(self, status: int, raw: bytes, headers: Mapping[str, str]) -> LMError:
        return failures.from_status(
            status,
            self._codec.error_body(raw),
            headers,
            base=self.address.base,
            model=self.address.model,
            variable=self.address.variable,
            secrets=self.secrets(),
        )
