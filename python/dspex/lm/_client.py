"""`LM`: the client for servers that speak OpenAI's chat completions or Responses, or Anthropic's messages."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Self

from dspex._breaker import GROUP_BREAKER, Breaker
from dspex._callbacks import callbacks_of
from dspex._core import cache_key
from dspex._settings import MAX_RESPONSE_BYTES, check_headers, check_names, check_spelling
from dspex._timeouts import check_seconds, shown
from dspex.errors import ConfigError, RouteError
from dspex.lm._address import COMPATIBLE_PREFIXES, Address, checked_proxy
from dspex.lm._body import generations
from dspex.lm._codec import ModelType, checked_model_type, codec_of
from dspex.lm._forms import Engine, checked_engine
from dspex.lm._http.native import NativeTransport
from dspex.lm._http.transport import Transport
from dspex.lm._keys import Key, asked, checked_key
from dspex.lm._protocol import LMRequest, LMResponse, TextPiece
from dspex.lm._secrets import masked, secrets_of, without
from dspex.lm._server import Server, Times, Waits

if TYPE_CHECKING:
    from types import ModuleType
    from typing import Unpack

    from dspex._request_settings import RequestSettings
    from dspex.events import LMDelta
    from dspex.lm._cache import Cache
    from dspex.lm._deployment import Deployment
    from dspex.lm._group import GroupStrategy, LMGroup
    from dspex.lm._http.tls import TLS
    from dspex.lm._limiter import Limiter, Turn
    from dspex.lm._protocol import LanguageModel
    from dspex.lm._rate_limit import RateLimit

__all__ = ["LM"]

_ARGUMENTS = (
    "api_base",
    "api_key",
    "cache",
    "callbacks",
    "chunk_timeout",
    "connect_timeout",
    "engine",
    "first_byte_timeout",
    "first_text_timeout",
    "limits",
    "max_response_bytes",
    "model",
    "model_type",
    "proxy",
    "stream_timeout",
    "timeout",
    "tls",
    "transport",
)

TIMEOUT = 120.0
"""Seconds for a whole answer; a long generation takes a minute, a hung server must not take ten."""
CONNECT_TIMEOUT = 10.0


class LM:
    """A model behind an OpenAI-compatible server, or of Anthropic's.

    A value: it never changes, compares by what it was made of, and may be shared by threads and event
    loops. Connections are kept open and reused, one set for each event loop, until `aclose`. The key is
    read when it is needed, shown nowhere, and not part of a pickle: an unpickled LM reads it from the
    environment.

    Args:
        model: `"openai/<name>"`, as in DSPy. With `api_base`, another prefix under which DSPy speaks the same
            protocol (`hosted_vllm`, `ollama`, `openrouter`, ...) will do. `"anthropic/<name>"` is asked in
            Anthropic's own protocol. Every other provider of DSPy's (`"azure/<name>"`, `"bedrock/<name>"`,
            `"gemini/<name>"`) is called by a runtime's workers; the LM itself then answers no call
            (`refusal`).
        model_type: What the server is asked by, as in DSPy: `"chat"`, or `"responses"` for OpenAI's
            Responses, which this process speaks under `openai/`; see `docs/lm.md`.
        api_base: The server's address up to and including `/v1`. Else `OPENAI_API_BASE` or
            `OPENAI_BASE_URL` (`ANTHROPIC_...` for Anthropic), else the provider's own.
        api_key: The key, or a function that gives it for each request, where tokens rotate; it may be
            asynchronous, and has to be where it waits. Else `<PREFIX>_API_KEY`, so `OPENAI_API_KEY`. A server
            on this machine needs none.
        timeout: Seconds for a whole answer; in a stream for its beginning, and for each pause unless
            `chunk_timeout` says otherwise. A caller's shorter `LMRequest.timeout` wins.
        connect_timeout: Seconds of it to get a new connection.
        first_byte_timeout: Seconds of it from the call to the first byte of the answer. By default only
            `timeout` counts; so for the next ones.
        first_text_timeout: In a stream, seconds from the call to the first text.
        chunk_timeout: In a stream, seconds from one piece to the next.
        stream_timeout: Seconds for a whole stream; by default it may take as long as pieces come.
        max_response_bytes: The largest answer to read, after it is unpacked; in a stream the largest event.
        proxy: The proxy on the way to the server, `http://[user:password@]host:port`. Else that of the
            environment (`https_proxy`, `no_proxy`), for servers outside this machine.
        tls: Whom to trust and who we are, a `dspex.lm.TLS`, where the defaults will not do.
        transport: What carries the requests, a `dspex.lm.Transport`; by default a
            `dspex.lm.NativeTransport` of its own. One may serve several LMs.
        callbacks: Who hears of the calls that modules make of it natively; see
            `dspex.callbacks.BaseCallback`. They are not part of a pickle.
        engine: Whose request bodies are sent, as in `dspy.LM(engine=)`. `"auto"`: those of DSPy's own engine
            where that knows all settings, else LiteLLM's; several generations are one request. `"lm15"`:
            those of DSPy's own engine alone, and a request for each generation. `"litellm"`: LiteLLM's.
        limits: How much may be asked of the server, a `dspex.lm.RateLimit`. Calls wait their turn within
            their time; what runs in a worker is not among them. LMs made by `with_settings` share them.
        **settings: What goes into each request (`temperature`, `max_tokens`, `seed`, ...; see
            `RequestSettings`) unless the request says otherwise. `extra_body` is merged into the request as
            it is; `extra_headers` are fields of its head. `cache`, by default `"off"`, says whether answers
            are kept and given again: `"memory"`, `"disk"`, or a `dspex.lm.Cache`; see `docs/caching.md`.

    Raises:
        ConfigError: If an argument cannot be right.
    """

    takes_json: Final = True
    """Whether it wants the messages of a request as JSON where it can have them so; see `LMRequest`."""

    def __init__(
        self,
        model: str,
        *,
        model_type: ModelType = "chat",
        api_base: str | None = None,
        api_key: Key | None = None,
        timeout: float = TIMEOUT,
        connect_timeout: float = CONNECT_TIMEOUT,
        first_byte_timeout: float | None = None,
        first_text_timeout: float | None = None,
        chunk_timeout: float | None = None,
        stream_timeout: float | None = None,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
        callbacks: Sequence[Any] | None = None,
        limits: RateLimit | None = None,
        proxy: str | None = None,
        tls: TLS | None = None,
        transport: Transport | None = None,
        engine: Engine = "auto",
        **settings: Unpack[RequestSettings],
    ) -> None:
        self._model_type: ModelType = checked_model_type(model_type)
        self._address = Address.of(model, api_base, self._model_type)
        self._codec = codec_of(self._address.prefix, self._model_type)
        check_names(settings, native=self._address.spoken)
        check_spelling(settings, _ARGUMENTS, "LM")
        if isinstance(max_response_bytes, bool) or not (
            isinstance(max_response_bytes, int) and max_response_bytes > 0
        ):
            raise ConfigError(
                f"max_response_bytes must be a whole number above 0, not {max_response_bytes!r}",
                code="lm-setting",
            )
        self._api_key = checked_key(api_key)
        self._engine: Engine = checked_engine(engine)
        self._one_by_one = self._engine == "lm15" or not self._codec.HAS_N
        self._callbacks = callbacks_of(callbacks)
        self._waits = Waits(
            check_seconds(timeout),
            check_seconds(connect_timeout, "connect_timeout"),
            *(
                None if seconds is None else check_seconds(seconds, name)
                for name, seconds in (
                    ("first_byte_timeout", first_byte_timeout),
                    ("first_text_timeout", first_text_timeout),
                    ("chunk_timeout", chunk_timeout),
                    ("stream_timeout", stream_timeout),
                )
            ),
        )
        self._max_response_bytes = max_response_bytes
        self._settings = dict(settings)
        check_headers(settings.get("extra_headers"))
        self._proxy = None if proxy is None else checked_proxy(proxy)
        self._tls = tls
        if tls is not None:
            from dspex.lm._http.tls import TLS  # mostly the defaults will do

            _checked(tls, TLS, "tls", "dspex.lm.TLS(ca_file=...)")
        _checked(transport, Transport, "transport", "dspex.lm.NativeTransport()")
        self._transport = NativeTransport() if transport is None else transport
        self._own_transport = transport is None
        self._made: Server | None = None
        self._cache_given = self._settings.pop("cache", None)
        given = self._cache_given
        self._cache = None if given is None or given is False else self._cache_of(given)
        if self._cache is not None and not self._address.spoken:
            raise ConfigError(
                f"answers of {model} come from DSPy in a worker, where none are kept",
                code="bad-cache",
                hint="leave cache= out",
            )
        self._scope = f"{self._codec.PATH} {self._address.base}".encode()
        self._rate_limit = limits
        self._limiter = None if limits is None else _limiter_of(limits, model)

    @staticmethod
    def group(
        deployments: Iterable[str | LanguageModel | Deployment],
        *,
        name: str | None = None,
        strategy: GroupStrategy = "weighted",
        breaker: Breaker | None = GROUP_BREAKER,
        wait: bool = False,
        callbacks: Sequence[Any] | None = None,
    ) -> LMGroup:
        """Several deployments of a model, or several models, as one.

        Args:
            deployments: Names of models, LMs, other language models, or `dspex.lm.Deployment`s.
            name: What errors and logs call the group; by default the model of the first deployment.
            strategy: `"weighted"`: by chance, in proportion to the weights. `"ordered"`: the first that takes
                calls. `"fastest"`: of two by chance the one that is expected to answer sooner.
            breaker: When a deployment that fails is left alone, a `dspex.router.Breaker`; None for never.
            wait: Whether a call waits, within its time, while no deployment takes calls.
            callbacks: Who hears of the calls that modules make of it natively.

        Returns:
            The group, a language model for a runtime or a module; see `dspex.lm.LMGroup`.

        Raises:
            ConfigError: If a setting is wrong (`bad-group`).
            RouteError: If only DSPy speaks to a deployment's provider (`lm-needs-dspy`).

        Example:
            ```python
            lm = dspex.LM.group(["openai/gpt-4o", dspex.LM("openai/gpt-4o", api_base=...)], wait=True)
            ```
        """
        from dspex.lm._group import LMGroup  # most programs have one model

        return LMGroup(
            deployments, name=name, strategy=strategy, breaker=breaker, wait=wait, callbacks=callbacks
        )

    @property
    def model(self) -> str:
        """The model with its prefix, as given."""
        return self._address.model

    @property
    def model_type(self) -> ModelType:
        """What the server is asked by, `"chat"` or `"responses"`."""
        return self._model_type

    @property
    def api_base(self) -> str:
        """The server's address; empty where only DSPy knows it."""
        return self._address.base

    @property
    def callbacks(self) -> Sequence[Any]:
        """Who hears of its calls."""
        return self._callbacks

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of each request; a copy."""
        return dict(self._settings)

    @property
    def timeout(self) -> float:
        """Seconds for a whole answer."""
        return self._waits.total

    @property
    def limits(self) -> RateLimit | None:
        """How much may be asked of the server; None for any number of calls."""
        return self._rate_limit

    @property
    def cache(self) -> Cache | None:
        """Where answers are kept; None where they are not."""
        return self._cache

    def is_busy(self) -> bool:
        """Whether an ordinary call would have to wait for its turn by the LM's `limits`."""
        return self._limiter is not None and self._limiter.is_busy()

    def with_settings(self, **settings: Unpack[RequestSettings]) -> LM:
        """The same model with these settings on top of its own; a value of None takes one away."""
        kept = {key: value for key, value in self._arguments().items() if key not in settings}
        added: dict[str, Any] = {key: value for key, value in settings.items() if value is not None}
        made = LM(**kept, **added, api_key=self._api_key, callbacks=self._callbacks)
        made._limiter = self._limiter
        return made

    def refusal(self, *, chat_only: bool = False) -> RouteError | None:
        """Why this process cannot ask the model, and only DSPy in a worker can; None where it can.

        Args:
            chat_only: Whether it would be asked by chat completions and nothing else.
        """
        if self._address.spoken and not (chat_only and self._address.prefix == "anthropic"):
            return None
        prefix, name = self._address.prefix, self._address.name
        served = f"to {prefix!r}"
        if self._model_type == "responses":
            served = f"Responses with {prefix!r}"
            hint = f"if its server speaks OpenAI's Responses, write 'openai/{name}' with api_base=; "
        elif prefix in COMPATIBLE_PREFIXES:
            hint = f"pass api_base=, the address up to and including /v1, for {prefix} to be asked natively; "
        else:
            hint = f"if its server speaks OpenAI's chat completions, write 'openai/{name}' with api_base=; "
        return RouteError(
            f"{self._address.model}: only DSPy speaks {served}, and it does so in a worker",
            code="lm-needs-dspy",
            hint=hint + 'else give the runtime a pool, and leave out route="native"',
        )

    def settings_for_worker(self) -> dict[str, Any]:
        """Keyword arguments with which a worker builds the equivalent `dspy.LM`.

        Neither side caches or retries on its own: that is the business of whoever calls.

        The dict **holds the key in clear**; it is meant for the private socket to a worker and for nothing
        else. A key that a function gives is not in it: it goes with each call, see `key_for_worker`.

        Raises:
            LMAuthError: If there is no key for a server that needs one.
        """
        settings = {
            **self._settings,
            "model": self._address.model,
            "timeout": self._waits.total,
            "cache": False,
            "num_retries": 0,
        }
        settings |= self._asked_by()
        if self._max_response_bytes != MAX_RESPONSE_BYTES:  # for the worker itself: DSPy has no such setting
            settings["max_response_bytes"] = self._max_response_bytes
        key = None if callable(self._api_key) else self._address.key(self._api_key)
        if self._address.spoken:
            key = key or "none"  # DSPy insists on one where the server does not
        # A provider that only DSPy speaks to has its own ways to an address and a key where none is given.
        return settings | {
            name: value
            for name, value in (("api_base", self._address.base_for_dspy), ("api_key", key))
            if value
        }

    @property
    def key_for_worker(self) -> Callable[[], Awaitable[str]] | None:
        """Asks the function that gives the key for the one to send to a worker now; None if there is none."""
        source = self._api_key
        if source is None or isinstance(source, str):
            return None
        return lambda: asked(source, self._address)

    async def complete(self, request: LMRequest) -> LMResponse:
        """Ask the server and wait for the whole answer.

        Raises:
            LMError: The subclass says what went wrong; see `dspex.errors`.
            DeadlineExceeded: If `request.timeout` ran out.
            ConfigError: If a message or a setting is nothing JSON can carry.
            RouteError: If only DSPy speaks to the provider (`lm-needs-dspy`).
        """
        server = self._server()
        times = server.times(request.timeout)
        settings = self._merged(request)
        if request.settings:
            server.keep_secrets_of(request.settings)
        if self._cache is not None or "cache" in settings:
            cache, settings = self._cache_for(settings)
            if cache is not None:
                response: LMResponse = await self._cached().answer(
                    self, cache, self._key(request, settings), request
                )
                return response
        if self._one_by_one and (count := generations(settings)) > 1:
            from dspex.lm._each import complete_each  # few ask so

            return await complete_each(self, request, count)
        if not self._codec.HAS_STOP and (stops := self._stops().stops_of(settings)):
            cut: LMResponse = await self._stops().complete_cut(self, request, stops, self._server().reject)
            return cut
        body, wanted = self._codec.encode(
            self._address.name, self._address.prefix, request.messages, settings, engine=self._engine
        )
        headers = settings.get("extra_headers")
        if self._limiter is None:
            return await self._ask(body, wanted, times, headers)
        with await self._turn(body, wanted, settings, times) as turn:
            response = await self._ask(body, wanted, times, headers)
            turn.usage = response.usage
        return replace(response, waited=turn.waited) if turn.waited else response

    def complete_now(self, request: LMRequest) -> LMResponse | None:
        """The answer, if it is kept already: nothing is waited for. None where the server is to be asked.

        On disk too, where an event loop has not to wait for that.

        Raises:
            ConfigError: As `complete`.
        """
        if self._cache is None and "cache" not in request.settings:
            return None
        cache, settings = self._cache_for(self._merged(request))
        if cache is None:
            return None
        response: LMResponse | None = self._cached().now(cache, self._key(request, settings))
        return response

    def forget(self, request: LMRequest) -> None:
        """Do not give the answer to this request again, if it is kept: the next call asks the server.

        A call of a module does so with a reply that cannot be read.
        """
        if self._cache is None and "cache" not in request.settings:
            return
        cache, settings = self._cache_for(self._merged(request))
        if cache is not None:
            cache._state.forget(self._key(request, settings))

    async def stream(self, request: LMRequest) -> AsyncGenerator[LMDelta]:
        """Ask the server and yield the answer as it comes.

        To give up early close the generator (`contextlib.aclosing`); its connection is closed with it.

        Raises:
            LMError: Before the first piece or between two; a stream that just stops is `LMConnectionError`.
            DeadlineExceeded: If `request.timeout` ran out.
            RouteError: If only DSPy speaks to the provider (`lm-needs-dspy`).
        """
        from dspex.lm._pieces import deltas_of  # it needs the events, which many programs do not

        async with aclosing(deltas_of(self.stream_pieces(request))) as deltas:
            async for delta in deltas:
                yield delta

    async def stream_pieces(self, request: LMRequest) -> AsyncGenerator[list[LMDelta | TextPiece]]:
        """The stream as it comes over the connection, what came together in one list; see `LanguageModel`.

        Raises what `stream` raises.
        """
        from dspex.lm._pieces import put_wait  # as in `stream`

        server = self._server()
        times = server.times(request.timeout)
        settings = self._merged(request)
        if request.settings:
            server.keep_secrets_of(request.settings)
        if self._cache is not None or "cache" in settings:
            cache, settings = self._cache_for(settings)
            if cache is not None:
                key = self._key(request, settings)
                async with aclosing(self._cached().pieces(self, cache, key, request)) as kept:
                    async for piece in kept:
                        yield piece
                return
        if self._one_by_one and (count := generations(settings)) > 1:
            from dspex.lm._each import pieces_of_each  # as in `complete`

            async with aclosing(pieces_of_each(self, request, count)) as each:
                async for one in each:
                    yield one
            return
        if not self._codec.HAS_STOP and (stops := self._stops().stops_of(settings)):
            async with aclosing(self._stops().pieces_cut(self, request, stops)) as cut:
                async for some in cut:
                    yield some
            return
        name, prefix = self._address.name, self._address.prefix
        body, wanted = self._codec.encode(
            name, prefix, request.messages, settings, stream=True, engine=self._engine
        )
        with await self._turn(body, wanted, settings, times) as turn:
            answer = await server.open(body, times, settings.get("extra_headers"))
            try:
                reader = self._codec.ChunkReader(self._max_response_bytes, wanted, server)
                waited = turn.waited
                while chunk := await server.chunk(answer, times, has_text=reader.has_text):
                    piece = reader.feed(chunk)
                    turn.usage = reader.usage
                    if piece and waited:
                        put_wait(piece, waited)
                        waited = 0.0
                    if piece:
                        yield piece
                    if reader.failure is not None:
                        raise reader.failure
                    if reader.done:
                        answer.finish()
                        return
                reader.end()
            finally:
                answer.close()

    async def warmup(self) -> None:
        """Have a connection to the server ready, so that the first call need not wait for it.

        Raises:
            LMError: If there is none to be had.
            RouteError: If only DSPy speaks to the provider (`lm-needs-dspy`).
        """
        await self._server().warm()

    async def aclose(self) -> None:
        """Close the connections of every event loop. The LM stays usable: a later call opens new ones.

        A transport that it was given is closed by who made it.
        """
        if self._own_transport:
            await self._transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LM):
            return NotImplemented
        mine, theirs = (self._api_key, self._callbacks), (other._api_key, other._callbacks)
        return mine == theirs and self._arguments() == other._arguments()

    def __hash__(self) -> int:
        return hash((self._address.model, self._address.base))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = without(self._arguments())
        arguments.pop("transport", None)  # connections stay where they are
        if self._has_secret_proxy():
            del arguments["proxy"]  # it comes from the environment
        return _rebuild, (arguments,)

    def __repr__(self) -> str:
        shown = {key: value for key, value in self._arguments().items() if key != "model"}
        shown |= masked(self._settings)
        if self._api_key is not None:
            shown["api_key"] = "***"
        if self._has_secret_proxy():
            shown["proxy"] = "***"
        return f"LM({self._address.model!r}, {', '.join(f'{key}={value!r}' for key, value in shown.items())})"

    # --- inner workings -------------------------------------------------------------------------------

    def _has_secret_proxy(self) -> bool:
        """Whether the address of the proxy has a password."""
        return self._proxy is not None and "@" in self._proxy

    def _arguments(self) -> dict[str, Any]:
        """Everything the LM was made of but the key."""
        waits = self._waits
        optional = {
            "first_byte_timeout": waits.first_byte,
            "first_text_timeout": waits.first_text,
            "chunk_timeout": waits.chunk,
            "stream_timeout": waits.stream,
            "limits": self._rate_limit,
            "cache": self._cache_given,
            "proxy": self._proxy,
            "tls": self._tls,
            "transport": None if self._own_transport else self._transport,
        }
        return {
            "model": self._address.model,
            "api_base": self._address.base or None,
            "timeout": waits.total,
            "connect_timeout": waits.connect,
            **{name: value for name, value in optional.items() if value is not None},
            "max_response_bytes": self._max_response_bytes,
            **self._asked_by(),
            **self._settings,
        }

    def _asked_by(self) -> dict[str, Any]:
        """What differs from how a model is usually asked, by the names that DSPy has for it too."""
        asked: dict[str, Any] = {} if self._model_type == "chat" else {"model_type": self._model_type}
        return asked if self._engine == "auto" else {**asked, "engine": self._engine}

    @staticmethod
    def _cached() -> ModuleType:
        from dspex.lm import _cached  # most LMs have no cache

        return _cached

    @staticmethod
    def _stops() -> ModuleType:
        from dspex.lm import _stops  # few ask a server that does not know them

        return _stops

    @staticmethod
    def _cache_of(given: Any, own: Cache | None = None) -> Cache | None:
        from dspex.lm._cache import cache_of  # as above

        return cache_of(given, own)

    def _cache_for(self, settings: dict[str, Any]) -> tuple[Cache | None, dict[str, Any]]:
        """The cache for a call with these settings, and the settings of its request."""
        if "cache" not in settings:
            return self._cache, settings
        settings = dict(settings)
        return self._cache_of(settings.pop("cache"), self._cache), settings

    def _key(self, request: LMRequest, settings: Mapping[str, Any]) -> bytes:
        """What the answer is kept by: server, protocol, body, rollout; whose API key it was is not in it."""
        name, prefix = self._address.name, self._address.prefix
        body, _ = self._codec.encode(name, prefix, request.messages, settings, engine=self._engine)
        if not self._codec.HAS_N:  # the body is the same for any number of them
            body = b"%d %s" % (generations(settings), body)
        if not self._codec.HAS_STOP and (stops := self._stops().stops_of(settings)):  # so for these
            body = repr(stops).encode() + body
        if settings.get("extra_headers"):  # they may change the answer; secrets among them are not in the key
            body += repr(sorted(without({"extra_headers": settings["extra_headers"]}).items())).encode()
        rollout = settings.get("rollout_id")
        return cache_key(self._scope, body, None if rollout is None else str(rollout).encode())

    async def _ask(
        self, body: bytes, wanted: int, times: Times, headers: Mapping[str, str] | None
    ) -> LMResponse:
        server = self._server()
        started = time.perf_counter()
        raw = await server.ask(body, times, headers)
        choices, model, usage, said = self._codec.decode(raw, wanted, server.reject, server.failed_midway)
        seconds = time.perf_counter() - started
        return LMResponse(choices, model or self._address.name, usage, seconds, raw=said)

    async def _turn(self, body: bytes, wanted: int, settings: Mapping[str, Any], times: Times) -> Turn:
        """The call's turn by the LM's own limits, within the caller's time or else the LM's."""
        if self._limiter is None:
            from dspex.lm._limiter import Turn  # as in `_limiter_of`

            return Turn()
        seconds = self._waits.total if times.given is None else times.given
        return await self._limiter.enter(len(body), wanted, settings, seconds)

    def _merged(self, request: LMRequest) -> dict[str, Any]:
        if not request.settings:
            return self._settings
        check_names(request.settings)
        check_headers(request.settings.get("extra_headers"))
        return {**self._settings, **request.settings}

    def _server(self) -> Server:
        """Where requests go.

        Raises:
            RouteError: If only DSPy speaks to the provider.
        """
        if self._made is None:
            if not self._address.spoken:
                refusal = self.refusal()
                assert refusal is not None  # noqa: S101 - that is what it says of such an address
                raise refusal
            self._made = Server(
                self._address,
                self._api_key,
                self._address.endpoint(self._codec.PATH, self._proxy, self._tls),
                self._transport,
                self._waits,
                self._max_response_bytes,
                self._codec,
                secrets_of(self._settings),
            )
        return self._made


def _limiter_of(limits: Any, model: str) -> Limiter:
    from dspex.lm._limiter import Limiter  # most LMs have no limits
    from dspex.lm._rate_limit import RateLimit

    if not isinstance(limits, RateLimit):
        raise ConfigError(
            f"limits must be a RateLimit, not {shown(limits)}",
            code="bad-rate-limit",
            hint="write limits=dspex.lm.RateLimit(requests_per_minute=...)",
        )
    return Limiter(limits, model)


def _rebuild(arguments: dict[str, Any]) -> LM:
    return LM(**arguments)


def _checked(value: Any, kind: type, name: str, example: str) -> Any:
    if value is None or isinstance(value, kind):
        return value
    raise ConfigError(
        f"{name} must be a {kind.__name__}, not {shown(value)}",
        code="lm-setting",
        hint=f"write {name}={example}",
    )
