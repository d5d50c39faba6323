"""`Codec`: requests of DSPy's written for one model of a server, and the server's answers read.

DSPy has a codec of its own for each kind of server (`dspy.lm15`), which its own engine uses. This is that
codec, without its transport: so the bodies are those that DSPy's own engine sends, and an answer means what
it means there. What an LM has among its own settings is added where the request does not say.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit

from dspex.dspy import _engine_lm15 as private
from dspex.dspy._engine_lm15 import lm15
from dspex.lm._exchange import Reply, Written

__all__ = ["Codec", "Draft"]

_ANY_SERVER: Final = "hosted_vllm"
"""The prefix whose codec writes for a server of which DSPy's codecs know nothing: plain chat completions."""

_NOT_THE_KEY: Final = "not-the-key"
"""DSPy's codecs insist on a key, which they write into fields that are not sent: the LM has its own."""

_OF_THE_LM: Final = frozenset(
    {"accept", "authorization", "content-length", "content-type", "host", "user-agent", "x-api-key"}
)
"""Fields that the LM and its transport send, by lower-case name."""

_LENGTHS: Final = frozenset({"max_tokens", "max_completion_tokens", "max_output_tokens"})


class Draft:
    """A request that is written, with what its answer is read by.

    Attributes:
        request: The request, with the model's name for the server.
        written: How it is sent.
        stops_here: Whether the server does not know the request's stop sequences, so that its answer is cut.
    """

    __slots__ = ("adaptations", "request", "stops_here", "written")

    def __init__(self, request: Any, written: Written, adaptations: tuple[Any, ...]) -> None:
        self.request = request
        self.written = written
        self.adaptations = adaptations
        self.stops_here: bool = private.is_cut_here(adaptations)


class Codec:
    """See the module's docstring. It may be used by several threads.

    Args:
        model: The model with its prefix.
        base: The server's address.
        kind: `"chat"` or `"responses"`.
        settings: What goes into each body where the request does not say, by its name there.
    """

    def __init__(self, model: str, base: str, kind: str, settings: Mapping[str, Any]) -> None:
        resolver = private.Routing(lm15.RouterConfig(env={}), model_type=kind)
        try:
            found = resolver.resolve(model)
        except lm15.UnknownModelError:
            found = resolver.resolve(f"{_ANY_SERVER}/{model.partition('/')[2]}")
        config = lm15.RouterConfig(
            env={}, api_keys={found.provider: _NOT_THE_KEY}, base_urls={found.provider: base}
        )
        self._model = found.model
        self._dialect: Any = lm15.LMRouter(config).lm(f"{found.provider}:{found.model}")
        self._settings = dict(settings)

    @property
    def provider(self) -> str:
        """What DSPy calls the kind of server."""
        return str(self._dialect.provider)

    def write(self, request: Any, *, stream: bool) -> Draft:
        """A request as this server gets it.

        Raises:
            LM15Error: If the server cannot be told what it says.
            ValueError: If the contents are none.
        """
        request = replace(request, model=self._model)
        self._refuse_scores(request)
        sent, adaptations = self._dialect._build(request, stream=stream)
        body, config = sent.body, request.config
        if self._settings:
            body = self._completed(body)
        limits = {"user": (config.extensions or {}).get("user"), "max_tokens": config.max_tokens}
        headers = tuple((name, value) for name, value in sent.headers if name.lower() not in _OF_THE_LM)
        return Draft(request, Written(urlsplit(sent.url).path, body, limits, headers), adaptations)

    def read(self, draft: Draft, reply: Reply) -> tuple[Any, Mapping[str, Any]]:
        """The `dspy.lm15.Response` in an answer, and the tokens it took.

        Raises:
            LM15Error: If it is none.
        """
        came = self._came(reply)
        try:
            read = self._dialect.parse_response(draft.request, came)
            response = self._dialect._finish_response(draft.request, read, draft.adaptations)
        except lm15.ProviderError as error:
            private.add_headers(error, came.headers)
            raise
        return response, _counts(response.usage)

    def refusal(self, reply: Reply) -> Exception:
        """The error that an answer tells of whose status is not one of success."""
        error: Exception = self._dialect._http_error(self._came(reply))
        return error

    async def events(self, draft: Draft, datas: AsyncGenerator[str], seen: Seen) -> AsyncGenerator[Any]:
        """The events of a stream: one start first, one end last where it came to its end.

        Args:
            draft: The request.
            datas: The data of the server's own events.
            seen: Is told what comes.

        Raises:
            LM15Error: If one of them is none, or tells of a failure.
        """
        raw = self._raw_events(draft, datas, seen)
        visible = self._dialect._visible(draft.adaptations)
        events: AsyncIterator[Any] = private.acoalesce(raw, model=draft.request.model, adaptations=visible)
        if draft.stops_here:
            events = private.atruncate(events, draft.request.config.stop)
        async with aclosing(events):  # type: ignore[type-var]  # a generator, whatever DSPy says of it
            async for event in events:
                yield event

    async def materialized(self, draft: Draft, events: AsyncGenerator[Any]) -> Any:
        """The response that a stream makes."""
        return await private.amaterialize(events, draft.request)

    # --- inner workings -------------------------------------------------------------------------------

    async def _raw_events(self, draft: Draft, datas: AsyncGenerator[str], seen: Seen) -> AsyncGenerator[Any]:
        async with aclosing(datas):
            async for data in datas:
                for event in self._dialect.parse_stream_events(draft.request, private.Event(None, data)):
                    if event is not None:
                        seen.see(event)
                        yield event

    def _came(self, reply: Reply) -> Any:
        return private.HttpResponse(
            reply.status, "", list(reply.headers.items()), reply.body, provider=self.provider
        )

    def _completed(self, body: bytes) -> bytes:
        said = json.loads(body)
        settings = self._settings
        if not _LENGTHS.isdisjoint(said):
            settings = {name: value for name, value in settings.items() if name not in _LENGTHS}
        return json.dumps({**settings, **said}, ensure_ascii=False, separators=(",", ":")).encode()

    def _refuse_scores(self, request: Any) -> None:
        """Probabilities that a server is asked for in calls of their own, of which this knows nothing."""
        if getattr(request.config, "probabilities", None) is None:
            return
        scores = getattr(self._dialect, "_scores_named_tokens", None)
        if scores is not None and scores(request.model):
            raise lm15.UnsupportedFeatureError(
                f"{self.provider}: dspex's engine does not measure config.probabilities; leave them out",
                provider=self.provider,
                feature="config.probabilities",
            )


class Seen:
    """What has come of a stream.

    Attributes:
        usage: The tokens it has taken, once it has said so.
        has_text: Whether it has brought anything of the answer.
    """

    __slots__ = ("has_text", "usage")

    def __init__(self) -> None:
        self.usage: Mapping[str, Any] = {}
        self.has_text = False

    def see(self, event: Any) -> None:
        """An event has come."""
        if event.type == "delta":
            self.has_text = True
        elif event.type == "end" and event.usage is not None:
            self.usage = _counts(event.usage)


def _counts(usage: Any) -> dict[str, Any]:
    counts = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }
    return {name: value for name, value in counts.items() if value is not None}
