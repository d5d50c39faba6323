"""One call of DSPy's: from its request to the server of an LM, of one in a group, or to any language model.

::

    Request --> a dspex.LM        --> Codec.write --> limits, connection --> Codec.read --> Response
                an LMGroup        --> its router: which deployment? --> as for that one, and on to the next
                any LanguageModel --> Codec.write, read back as an LMRequest --> its answer, written as a chat
                                      completion and read by the codec

Below this, failures are dspex's own, since a group decides by them what a failure means; with each goes
what it is to DSPy, which is raised at the end (`_engine_errors.py`).
"""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from dspex.dspy import _engine_lm15 as private
from dspex.dspy._engine_chat import answer_of, chunks_of, request_of
from dspex.dspy._engine_codec import Codec, Draft, Seen
from dspex.dspy._engine_errors import no_answer, to_lm15
from dspex.dspy._engine_lm15 import lm15
from dspex.errors import (
    ConfigError,
    DspexError,
    LMAuthError,
    LMConnectionError,
    LMResponseError,
    LMServerError,
    RouteError,
)
from dspex.lm import LM, LMGroup, LMRequest
from dspex.lm._body import generations
from dspex.lm._codec import ModelType, codec_of
from dspex.lm._exchange import Reply, ask, ask_for_stream
from dspex.lm._group_call import GroupCall

if TYPE_CHECKING:
    from dspex.errors import LMError
    from dspex.lm import LanguageModel

__all__ = ["Calls"]

_Ours = TypeVar("_Ours", bound=DspexError)

_MALFORMED: Final = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What DSPy's codec raises at an answer that has another shape than it should."""

_MOST_CODECS: Final = 256
"""Kept for models of one engine; a program with ever new names must not fill the memory."""


class Calls:
    """Makes the calls of one engine. It may be used by several threads and event loops.

    Args:
        lm: Who is asked.
        kind: `"chat"` or `"responses"`: what the server is asked by.
    """

    def __init__(self, lm: LanguageModel, kind: ModelType) -> None:
        self._lm = lm
        self._kind = kind
        # By the id of the LM, which is held here, so that no other gets its number.
        self._codecs: dict[tuple[int, str], tuple[LanguageModel, Codec]] = {}
        self._lock = threading.Lock()
        self._asked: list[LM] = []

    @property
    def asked(self) -> Sequence[LM]:
        """The LMs that were asked."""
        return tuple(self._asked)

    def after_fork(self) -> None:
        """This process is a fork: another thread may have held the lock."""
        self._lock = threading.Lock()

    async def complete(self, request: Any) -> Any:
        """The response to a request.

        Raises:
            LM15Error: If there is none.
            TypeError: If that is no request.
            ValueError: If it says what is not an engine's business.
        """
        private.validate(request)
        call = _Call()
        try:
            return await self._complete(call, self._lm, request, None)
        except DspexError as error:
            raise call.to_lm15(error) from error
        finally:
            call.forget()

    async def stream(self, request: Any) -> AsyncGenerator[Any]:
        """The events of the response to a request.

        Raises:
            LM15Error: If it does not come to its end.
        """
        private.validate(request)
        call = _Call()
        try:
            async with aclosing(self._stream(call, self._lm, request, None)) as events:
                async for event in events:
                    yield event
        except DspexError as error:
            raise call.to_lm15(error) from error
        finally:
            call.forget()

    # --- inner workings -------------------------------------------------------------------------------

    async def _complete(
        self, call: _Call, lm: LanguageModel, request: Any, left: float | None, *, own: bool = False
    ) -> Any:
        """Args: as `_stream`."""
        if isinstance(lm, LMGroup):
            group = GroupCall(lm, LMRequest((), timeout=left))
            while True:
                member, asked = await group.enter()
                try:
                    response = await self._complete(call, member, request, asked.timeout, own=True)
                except BaseException as error:
                    if not group.failed(error):
                        raise
                else:
                    group.served()
                    return response
        codec = self._codec(lm, request, own=own)
        call.provider, call.secrets = codec.provider, partial(_secrets_of, lm)
        draft = _drafted(call, codec, request, stream=False)
        if draft.stops_here:
            async with aclosing(self._stream(call, lm, request, left, own=own)) as events:
                return await codec.materialized(draft, events)
        reader = _Reader(call, codec, draft)
        if isinstance(lm, LM):
            return await ask(lm, draft.written, left, reader)
        response = await lm.complete(request_of(draft.written.body, left))
        return reader.read(Reply(200, {}, answer_of(response, draft.request.model)))[0]

    async def _stream(
        self, call: _Call, lm: LanguageModel, request: Any, left: float | None, *, own: bool = False
    ) -> AsyncGenerator[Any]:
        """The events of a response.

        Args:
            call: The call.
            lm: Who is asked.
            request: What.
            left: Seconds that it may take; None for as long as the LM allows.
            own: Whether the LM is asked for its own model, and not for that of the request.
        """
        if isinstance(lm, LMGroup):
            async with aclosing(self._of_group(call, lm, request, left)) as given:
                async for event in given:
                    yield event
            return
        codec = self._codec(lm, request, own=own)
        call.provider, call.secrets = codec.provider, partial(_secrets_of, lm)
        draft = _drafted(call, codec, request, stream=True)
        reader, ended = _Reader(call, codec, draft), False
        if isinstance(lm, LM):
            datas = ask_for_stream(lm, draft.written, left, reader)
        else:
            datas = chunks_of(lm.stream(request_of(draft.written.body, left)), draft.request.model)
        try:
            async with aclosing(codec.events(draft, datas, reader.seen)) as events:
                async for event in events:
                    if event.type == "error":
                        raise call.broke_off(private.error_of(event, provider=codec.provider))
                    ended = event.type == "end"
                    yield event
        except lm15.LM15Error as error:
            raise call.unusable(error) from None
        except _MALFORMED as error:
            raise call.unusable(no_answer(error, codec.provider)) from error
        if not ended:
            raise call.cut_off(codec.provider)

    async def _of_group(
        self, call: _Call, lm: LMGroup, request: Any, left: float | None
    ) -> AsyncGenerator[Any]:
        group = GroupCall(lm, LMRequest((), timeout=left))
        while True:
            member, asked = await group.enter()
            told = False
            try:
                async with aclosing(self._stream(call, member, request, asked.timeout, own=True)) as events:
                    async for event in events:
                        told = True
                        yield event
            except BaseException as error:
                if not group.failed(error, told=told):
                    raise
            else:
                group.served()
                return

    def _codec(self, lm: LanguageModel, request: Any, *, own: bool) -> Codec:
        """What writes requests for the model of an LM, or of the request.

        Raises:
            ConfigError: If the request is for a model that the LM's server is not known to have.
            RouteError: If only DSPy speaks to the provider.
        """
        model: str = request.model
        if own or "/" not in model:
            of_lm = getattr(lm, "model", None)
            if isinstance(of_lm, str) and "/" in of_lm:
                model = of_lm
        found = self._codecs.get((id(lm), model))
        if found is None:
            with self._lock:
                if len(self._codecs) >= _MOST_CODECS:
                    self._codecs.clear()
                found = self._codecs[id(lm), model] = lm, self._new_codec(lm, model)
                if isinstance(lm, LM) and not any(other is lm for other in self._asked):
                    self._asked.append(lm)
        return found[1]

    def _new_codec(self, lm: LanguageModel, model: str) -> Codec:
        if not isinstance(lm, LM):
            return Codec(_of_any(model), "http://localhost", self._kind, {})
        if (refusal := lm.refusal(chat_only=True)) is not None:  # an engine writes nothing else
            raise refusal
        if model.partition("/")[0] != lm.model.partition("/")[0]:
            raise ConfigError(
                f"the engine asks the server of {lm.model!r}, and the call is for {model!r}",
                code="engine-model",
                hint=f"give dspy.LM(...) a model of {lm.model.partition('/')[0]!r}, or make an engine for it",
            )
        return Codec(model, lm.api_base, self._kind, _defaults(lm, self._kind))


class _Call:
    """What one call knows of its last failure."""

    def __init__(self) -> None:
        self.provider: str | None = None
        self.secrets: Callable[[], Iterable[str]] = tuple
        self._failure: tuple[DspexError, Exception] | None = None

    def _said(self, theirs: Exception) -> str:
        """What DSPy's codec says, which is made fit to be kept and shown."""
        # It keeps an error in the frame that raised it, so that neither would ever go.
        theirs.__traceback__ = theirs.__cause__ = theirs.__context__ = None
        for secret in self.secrets():
            _redact(theirs, secret)
        return str(getattr(theirs, "message", theirs))

    def failed(self, ours: _Ours, theirs: Exception) -> _Ours:
        """A failure, by both names; gives ours, to be raised."""
        self._said(theirs)
        self._failure = ours, theirs
        return ours

    def unusable(self, theirs: Exception) -> LMResponseError:
        """The answer says nothing that DSPy's codec can use."""
        return self.failed(LMResponseError(f"DSPy cannot use the answer: {self._said(theirs)}"), theirs)

    def unwritable(self, theirs: Exception) -> ConfigError:
        """The request says what the server cannot be told."""
        return self.failed(ConfigError(self._said(theirs), code="engine-request"), theirs)

    def broke_off(self, theirs: Exception) -> LMServerError:
        """The server said in the middle of its stream that it has failed."""
        return self.failed(LMServerError(self._said(theirs)), theirs)

    def cut_off(self, provider: str) -> LMConnectionError:
        """The stream ended without its end."""
        what = "the stream ended before its answer did"
        theirs = lm15.StreamAssemblyError(what, provider=provider)
        return self.failed(LMConnectionError(what, code="lm-cut"), theirs)

    def to_lm15(self, ours: DspexError) -> Exception:
        """What is raised for it."""
        if self._failure is None or self._failure[0] is not ours:
            return to_lm15(ours, self.provider)
        theirs = self._failure[1]
        if ours.__context__ is theirs:
            ours.__context__ = None  # ours is about to be its cause, and neither would ever go
        return theirs

    def forget(self) -> None:
        """Let go of the failure: it holds the frames of the call, which hold this."""
        self._failure = None


class _Reader:
    """Reads what answers a request."""

    def __init__(self, call: _Call, codec: Codec, draft: Draft) -> None:
        self._call = call
        self._codec = codec
        self._draft = draft
        self.seen = Seen()

    @property
    def usage(self) -> Mapping[str, Any]:
        """The tokens that a stream has taken."""
        return self.seen.usage

    @property
    def has_text(self) -> bool:
        """Whether a stream has brought anything of the answer."""
        return self.seen.has_text

    def read(self, reply: Reply) -> tuple[Any, Mapping[str, Any]]:
        """What an answer says, and the tokens that it took."""
        try:
            return self._codec.read(self._draft, reply)
        except lm15.LM15Error as error:
            raise self._call.unusable(error) from None
        except _MALFORMED as error:
            raise self._call.unusable(no_answer(error, self._codec.provider)) from error

    def refused(self, reply: Reply, error: LMError) -> None:
        """The server refused."""
        theirs = self._codec.refusal(reply) if reply.status >= 400 else to_lm15(error, self._codec.provider)
        self._call.failed(error, theirs)


def _drafted(call: _Call, codec: Codec, request: Any, *, stream: bool) -> Draft:
    try:
        return codec.write(request, stream=stream)
    except (lm15.LM15Error, TypeError, ValueError, RecursionError) as error:
        raise call.unwritable(error) from None


def _secrets_of(lm: LanguageModel) -> tuple[str, ...]:
    """What its calls carry and no error may show. What is no key is refused where the call is made."""
    try:
        return lm._server().secrets() if isinstance(lm, LM) else ()
    except (LMAuthError, RouteError):
        return ()


def _redact(theirs: Any, key: str) -> None:
    """Take the key out of an error: a server may repeat it in its own words."""
    for name in ("message", "provider_code", "request_id"):
        said = getattr(theirs, name, None)
        if isinstance(said, str) and key in said:
            setattr(theirs, name, said.replace(key, "***"))
    theirs.args = tuple(arg.replace(key, "***") if isinstance(arg, str) else arg for arg in theirs.args)


def _of_any(model: str) -> str:
    return model if "/" in model else f"openai/{model}"


def _defaults(lm: LM, kind: ModelType) -> dict[str, Any]:
    """What the LM's own settings put into a body.

    Raises:
        ConfigError: If they ask for several generations, which DSPy asks for one by one, or for stop
            sequences of a server that does not know them, which only a request may have.
    """
    prefix, _, name = lm.model.partition("/")
    codec, wanted = codec_of(prefix, kind), generations(lm.settings)
    if lm.settings.get("stop") and not codec.HAS_STOP:
        raise ConfigError(
            "the LM of an engine for OpenAI's Responses has no stop=, which the API does not know",
            code="engine-setting",
            hint="give stop= to dspy.LM(...) or to the call",
        )
    if wanted > 1:
        raise ConfigError(
            f"the LM of an engine asks for one generation at a time, not for n={wanted}",
            code="engine-setting",
            hint="give n= to dspy.LM(...) or to the call",
        )
    settings: dict[str, Any] = json.loads(codec.encode(name, prefix, (), lm.settings)[0])
    of_request = ("model", "messages", "input", "stream")
    return {name: value for name, value in settings.items() if name not in of_request}
