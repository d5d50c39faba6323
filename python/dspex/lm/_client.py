"""`LM`: the client for servers that speak OpenAI's chat completions."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, Self

from dspex import _lm_failures as failures
from dspex._settings import check_names, check_spelling
from dspex._timeouts import check_seconds, without_frames
from dspex.errors import ConfigError, DeadlineExceeded, RouteError
from dspex.events import LMDelta
from dspex.lm import _body as wire
from dspex.lm._address import COMPATIBLE_PREFIXES, Address
from dspex.lm._protocol import LMRequest, LMResponse
from dspex.lm._sessions import Sessions, client_errors

if TYPE_CHECKING:
    from typing import Unpack

    import aiohttp

    from dspex._request_settings import RequestSettings

__all__ = ["LM"]

_ARGUMENTS = ("api_base", "api_key", "connect_timeout", "max_response_bytes", "model", "timeout")

TIMEOUT = 120.0
"""Seconds for a whole answer; a long generation takes a minute, a hung server must not take ten."""
CONNECT_TIMEOUT = 10.0
MAX_RESPONSE_BYTES = 16 * 1024 * 1024
"""Far beyond any real completion, and still harmless to hold."""


class LM:
    """A model behind an OpenAI-compatible server.

    A value: it never changes, compares by what it was made of, and may be shared by threads and event
    loops. Connections are kept open and reused, one set for each event loop, until `aclose`. The key is
    read when it is needed, shown nowhere, and not part of a pickle: an unpickled LM reads it from the
    environment.

    Args:
        model: `"openai/<name>"`, as in DSPy. With `api_base`, another prefix under which DSPy speaks the same
            protocol (`hosted_vllm`, `ollama`, `openrouter`, ...) will do. Every other provider of DSPy's
            (`"anthropic/<name>"`, `"azure/<name>"`, `"bedrock/<name>"`) is called by a runtime's workers;
            the LM itself then answers no call (`refusal`).
        api_base: The server's address up to and including `/v1`. Else `OPENAI_API_BASE` or
            `OPENAI_BASE_URL`, else OpenAI's.
        api_key: The key. Else `<PREFIX>_API_KEY`, so `OPENAI_API_KEY`. A server on this machine needs none.
        timeout: Seconds for a whole answer, or in a stream for each piece of it. A caller's shorter
            `LMRequest.timeout` wins.
        connect_timeout: Seconds of it to get a connection.
        max_response_bytes: The largest answer to read.
        **settings: What goes into each request (`temperature`, `max_tokens`, `seed`, ...; see
            `RequestSettings`) unless the request says otherwise. `extra_body` is merged into the request as
            it is.

    Raises:
        ConfigError: If an argument cannot be right.
    """

    takes_json: Final = True
    """Whether it wants the messages of a request as JSON where it can have them so; see `LMRequest`."""

    def __init__(
        self,
        model: str,
        *,
        api_base: str | None = None,
        api_key: str | None = None,
        timeout: float = TIMEOUT,
        connect_timeout: float = CONNECT_TIMEOUT,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
        **settings: Unpack[RequestSettings],
    ) -> None:
        self._address = Address.of(model, api_base)
        check_names(settings, native=self._address.spoken)
        check_spelling(settings, _ARGUMENTS, "LM")
        if isinstance(max_response_bytes, bool) or not (
            isinstance(max_response_bytes, int) and max_response_bytes > 0
        ):
            raise ConfigError(
                f"max_response_bytes must be a whole number above 0, not {max_response_bytes!r}",
                code="lm-setting",
            )
        self._api_key = api_key
        self._timeout = check_seconds(timeout)
        self._connect_timeout = check_seconds(connect_timeout, "connect_timeout")
        self._max_response_bytes = max_response_bytes
        self._settings = dict(settings)
        self._sessions = Sessions()

    @property
    def model(self) -> str:
        """The model with its prefix, as given."""
        return self._address.model

    @property
    def api_base(self) -> str:
        """The server's address; empty where only DSPy knows it."""
        return self._address.base

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of each request; a copy."""
        return dict(self._settings)

    @property
    def timeout(self) -> float:
        """Seconds for a whole answer."""
        return self._timeout

    def with_settings(self, **settings: Unpack[RequestSettings]) -> LM:
        """The same model with these settings on top of its own; a value of None takes one away."""
        kept = {key: value for key, value in self._arguments().items() if key not in settings}
        added: dict[str, Any] = {key: value for key, value in settings.items() if value is not None}
        return LM(**kept, **added, api_key=self._api_key)

    def refusal(self) -> RouteError | None:
        """Why this process cannot ask the model, and only DSPy in a worker can; None where it can."""
        if self._address.spoken:
            return None
        prefix, name = self._address.prefix, self._address.name
        if prefix in COMPATIBLE_PREFIXES:
            hint = f"pass api_base=, the address up to and including /v1, for {prefix} to be asked natively; "
        else:
            hint = f"if its server speaks OpenAI's chat completions, write 'openai/{name}' with api_base=; "
        return RouteError(
            f"{self._address.model}: only DSPy speaks to {prefix!r}, and it does so in a worker",
            code="lm-needs-dspy",
            hint=hint + 'else give the runtime a pool, and leave out route="native"',
        )

    def settings_for_worker(self) -> dict[str, Any]:
        """Keyword arguments with which a worker builds the equivalent `dspy.LM`.

        Neither side caches or retries on its own: that is the business of whoever calls.

        The dict **holds the key in clear**; it is meant for the private socket to a worker and for nothing
        else.

        Raises:
            LMAuthError: If there is no key for a server that needs one.
        """
        settings = {
            **self._settings,
            "model": self._address.model,
            "timeout": self._timeout,
            "cache": False,
            "num_retries": 0,
        }
        key = self._address.key(self._api_key)
        if self._address.spoken:
            key = key or "none"  # DSPy insists on one where the server does not
        # A provider that only DSPy speaks to has its own ways to an address and a key where none is given.
        return settings | {
            name: value for name, value in (("api_base", self._address.base), ("api_key", key)) if value
        }

    async def complete(self, request: LMRequest) -> LMResponse:
        """Ask the server and wait for the whole answer.

        Raises:
            LMError: The subclass says what went wrong; see `dspex.errors`.
            DeadlineExceeded: If `request.timeout` ran out.
            ConfigError: If a message or a setting is nothing JSON can carry.
            RouteError: If only DSPy speaks to the provider (`lm-needs-dspy`).
        """
        self._check_spoken()
        body, wanted = wire.encode(
            self._address.name, self._address.prefix, request.messages, self._merged(request)
        )
        limits = self._limits(request)
        started = time.perf_counter()
        async with self._watch(limits), await self._post(body) as answer:
            raw = await self._read(answer)
        if answer.status != 200:
            raise self._refused(answer, raw)
        choices, model, usage = wire.decode(raw, wanted, self._reject)
        return LMResponse(choices, model or self._address.name, usage, time.perf_counter() - started)

    async def stream(self, request: LMRequest) -> AsyncGenerator[LMDelta]:
        """Ask the server and yield the answer as it comes.

        Each wait for a next piece is bounded by the LM's `timeout`, the whole by `request.timeout`. To give
        up early close the generator (`contextlib.aclosing`); its connection is closed with it.

        Raises:
            LMError: Before the first piece or between two; a stream that just stops is `LMConnectionError`.
            DeadlineExceeded: If `request.timeout` ran out.
            RouteError: If only DSPy speaks to the provider (`lm-needs-dspy`).
        """
        self._check_spoken()
        body, wanted = wire.encode(
            self._address.name, self._address.prefix, request.messages, self._merged(request), stream=True
        )
        limits = self._limits(request)
        async with self._watch(limits):
            answer = await self._post(body)
        async with answer:
            if answer.status != 200:
                async with self._watch(limits):
                    raw = await self._read(answer)
                raise self._refused(answer, raw)
            if answer.content_type != "text/event-stream":
                self._reject(f"the stream came as {answer.content_type!r}, not as text/event-stream")
            events = wire.EventReader(self._max_response_bytes, self._reject)
            unfinished, missing = set(range(wanted)), set(range(wanted))
            empty = True
            while True:
                # A limit that spanned the yield below would interrupt the consumer's code, not ours.
                async with self._watch(limits):
                    chunk = await answer.content.readany()
                if not chunk:
                    break
                for event in events.feed(chunk):
                    if event == "[DONE]":
                        if empty:
                            self._reject("the stream ended without a choice", code="lm-no-choices")
                        if missing:
                            wire.reject_few(wanted, wanted - len(missing), self._reject)
                        return
                    for delta in wire.decode_chunk(event, self._reject, self._failed_midway):
                        if delta.finish_reason is not None:
                            unfinished.discard(delta.index)
                        if not delta.usage:
                            empty = False
                            missing.discard(delta.index)
                        yield delta
            # Some servers leave the [DONE] out; a generation without its reason to end was cut off.
            if unfinished:
                address = self._address
                raise failures.from_failure(failures.CUT_STREAM, base=address.base, model=address.model)

    async def aclose(self) -> None:
        """Close the connections of every event loop. The LM stays usable: a later call opens new ones."""
        await self._sessions.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LM):
            return NotImplemented
        return self._api_key == other._api_key and self._arguments() == other._arguments()

    def __hash__(self) -> int:
        return hash((self._address.model, self._address.base))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        secret = self._secret_settings()
        return _rebuild, ({name: value for name, value in self._arguments().items() if name not in secret},)

    def __repr__(self) -> str:
        shown = {key: value for key, value in self._arguments().items() if key != "model"}
        if self._api_key is not None:
            shown["api_key"] = "***"
        shown |= dict.fromkeys(self._secret_settings(), "***")
        return f"LM({self._address.model!r}, {', '.join(f'{key}={value!r}' for key, value in shown.items())})"

    # --- inner workings -------------------------------------------------------------------------------

    def _secret_settings(self) -> set[str]:
        """Names of settings of another provider that are a key's like, such as `aws_secret_access_key`.

        Where they are not given, the provider's client reads them from the environment.
        """
        if self._address.spoken:
            return set()
        from dspex.protocol.secrets import secrets_in

        return {name for name, value in self._settings.items() if secrets_in({name: value})}

    def _check_spoken(self) -> None:
        if not self._address.spoken:
            refusal = self.refusal()
            assert refusal is not None  # noqa: S101 - that is what it says of such an address
            raise refusal

    def _arguments(self) -> dict[str, Any]:
        """Everything the LM was made of but the key."""
        return {
            "model": self._address.model,
            "api_base": self._address.base or None,
            "timeout": self._timeout,
            "connect_timeout": self._connect_timeout,
            "max_response_bytes": self._max_response_bytes,
            **self._settings,
        }

    def _merged(self, request: LMRequest) -> dict[str, Any]:
        if not request.settings:
            return self._settings
        check_names(request.settings)
        return {**self._settings, **request.settings}

    def _limits(self, request: LMRequest) -> _Limits:
        left = request.timeout
        if left is None:
            return _Limits(None, None)
        if isinstance(left, (int, float)) and left <= 0:  # a deadline that has passed, not a bad setting
            self._out_of_time(left)
        left = check_seconds(left)
        return _Limits(left, asyncio.get_running_loop().time() + left)

    @asynccontextmanager
    async def _watch(self, limits: _Limits) -> AsyncGenerator[None]:
        """Bound what is awaited inside, and turn every failure of it into one of our errors.

        The caller's limit and the LM's are two scopes, so that whose time ran out is known, not guessed.
        """
        budget, own = asyncio.timeout_at(limits.deadline), asyncio.timeout(self._timeout)
        try:
            async with budget, own:
                yield
        except client_errors() as error:
            cause = _plain(without_frames(error))
            if budget.expired():
                self._out_of_time(limits.left, cause)
            ours = failures.from_exception(error, base=self._address.base, model=self._address.model)
            if isinstance(error, TimeoutError):
                ours.timeout = self._timeout
            try:
                raise ours from cause
            finally:
                del ours, cause
        finally:
            del budget, own  # they hold the task and by that the exception: see `Router.dispatch`

    async def _post(self, body: bytes) -> aiohttp.ClientResponse:
        headers = {"Content-Type": "application/json"}
        if key := self._address.key(self._api_key):
            headers["Authorization"] = f"Bearer {key}"
        session = await self._sessions.get()
        import aiohttp  # it is there now

        return await session.post(
            f"{self._address.base}/chat/completions",
            data=body,
            headers=headers,
            # The whole is bounded by `_watch`; the HTTP client only knows what a connection costs.
            timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_timeout),
            allow_redirects=False,
            proxy=self._address.proxy,
        )

    def _out_of_time(self, left: float | None, cause: BaseException | None = None) -> NoReturn:
        raise DeadlineExceeded(
            f"the caller's {left:g} s ran out while waiting for {self._address.model}",
            hint="give the call more time, or ask for fewer tokens",
            retryable=True,
            stage="lm",
            model=self._address.model,
            timeout=left,
        ) from cause

    async def _read(self, answer: aiohttp.ClientResponse) -> bytes:
        """The whole body. The limit counts what was unpacked, so that no small body grows without end."""
        parts: list[bytes] = []
        size = 0
        async for part in answer.content.iter_any():
            size += len(part)
            if size > self._max_response_bytes:
                self._reject(
                    f"it is longer than {self._max_response_bytes} bytes", code="lm-response-too-large"
                )
            parts.append(part)
        return b"".join(parts)

    def _refused(self, answer: aiohttp.ClientResponse, raw: bytes) -> Exception:
        return failures.from_status(
            answer.status,
            raw,
            answer.headers,
            base=self._address.base,
            model=self._address.model,
            variable=self._address.variable,
            secret=self._address.key(self._api_key),
        )

    def _failed_midway(self, event: Mapping[str, Any]) -> NoReturn:
        """A server that fails after it began to stream can only say so in an event."""
        error = event["error"]
        status = error.get("code") if isinstance(error, dict) else None
        raise failures.from_status(
            status if isinstance(status, int) and 400 <= status < 600 else 500,
            json.dumps(event).encode(),
            {},
            base=self._address.base,
            model=self._address.model,
            variable=self._address.variable,
            secret=self._address.key(self._api_key),
        )

    def _reject(self, what: str, *, code: str | None = None, hint: str = "") -> NoReturn:
        address = self._address
        raise failures.from_rejected(what, code, base=address.base, model=address.model, hint=hint)


class _Limits(NamedTuple):
    """The caller's limit: the seconds given, and the loop's time at which they end; None without one."""

    left: float | None
    deadline: float | None


def _rebuild(arguments: dict[str, Any]) -> LM:
    return LM(**arguments)


def _plain(error: BaseException) -> OSError:
    """The cause to keep: its name and words without the request it holds, which has the key in a header.

    What aiohttp raises does not survive pickling either, and our errors must.
    """
    return OSError(f"{type(error).__name__}: {error}")
