"""`Engine` and `AsyncEngine`: `dspy.LM` over dspex's client.

::

    dspy.LM  -- cache, retries, n, history, callbacks: DSPy's, as ever
      | Request
      v
    Engine, AsyncEngine  -- one attempt
      |                     Engine: on the thread that all of them share (`_engine_thread.py`)
      |                     AsyncEngine: on the caller's event loop
      v
    Calls (`_engine_calls.py`)  -- connections, limits, groups: those of the dspex.LM that it was given

States of an engine: open, and closed for good. It borrows the LM that it is given, which several engines, and
runtimes beside them, may share; one that it has made of a name is its own, and is closed with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self

from dspex._event_queue import END, EventQueue
from dspex._forks import OwnerProcess
from dspex._timeouts import shown
from dspex.dspy._engine_calls import Calls
from dspex.dspy._engine_can import Can, can_of
from dspex.dspy._engine_errors import to_lm15
from dspex.dspy._engine_lm15 import lm15
from dspex.dspy._engine_thread import Lease
from dspex.errors import ConfigError, DspexError
from dspex.lm import LM, language_model
from dspex.lm._saved import lm_of, state_of
from dspex.protocol.secrets import redacted, secrets_in

if TYPE_CHECKING:
    from dspex.lm import LanguageModel

__all__ = ["AsyncEngine", "Engine"]

CLOSE_SECONDS: Final = 5.0
"""How long the end of a stream that is given up early is waited for."""

_engines: weakref.WeakSet[_Either] = weakref.WeakSet()


class _Own:
    """An LM that engines have made for themselves.

    Attributes:
        lm: It.
        engines: Those that are open.
    """

    def __init__(self, lm: LanguageModel, engines: int = 1) -> None:
        self.lm = lm
        self.engines = engines


_loaded: weakref.WeakValueDictionary[str, _Own] = weakref.WeakValueDictionary()


def _own_of(state: Any) -> _Own:
    """The LM of a saved engine. Engines that were saved alike share one, as the two of a `dspy.LM` did."""
    key = json.dumps(state, sort_keys=True, default=repr)
    own = _loaded.get(key)
    if own is None or own.engines == 0:
        own = _loaded[key] = _Own(lm_of(state), 0)
    return own


class _Either:
    """What both engines are.

    Args:
        lm: Who is asked: a model's name, an LM, a group, or any language model.
        api: What the server is asked by; None for what the LM is asked by.
        function_calling: Whether the model takes native calls of tools.
        reasoning: Whether it reasons.
        response_schema: Whether it keeps to a JSON schema.
        settings: What `dspex.LM` takes, where `lm` is a name.
    """

    _method: ClassVar[str]

    def __init__(
        self,
        lm: str | LanguageModel,
        *,
        api: Literal["chat", "responses"] | None = None,
        function_calling: bool | None = None,
        reasoning: bool | None = None,
        response_schema: bool | None = None,
        **settings: Any,
    ) -> None:
        if api not in ("chat", "responses", None):
            raise _bad(f"api must be 'chat' or 'responses', not {shown(api)}")
        if settings and not isinstance(lm, str):
            raise _bad(f"{', '.join(sorted(settings))}: settings go into the LM that the engine is given")
        said = {
            "function_calling": function_calling,
            "reasoning": reasoning,
            "response_schema": response_schema,
        }
        for name, value in said.items():
            if not (value is None or isinstance(value, bool)):
                raise _bad(f"{name} must be True, False or None, not {shown(value)}")
        self._own: _Own | None = None
        if isinstance(lm, str):
            self._own = _Own(LM(lm, **settings))
        self._lm: LanguageModel = language_model(lm) if self._own is None else self._own.lm
        if api is None:
            api = self._lm.model_type if isinstance(self._lm, LM) else "chat"
        self._api = api
        self._said = {name: value for name, value in said.items() if value is not None}
        self._calls = Calls(self._lm, self._api)
        self._closed = False
        self._lease = Lease()
        self._process = OwnerProcess()
        _engines.add(self)

    @property
    def lm(self) -> LanguageModel:
        """Who is asked."""
        return self._lm

    @property
    def supports_function_calling(self) -> bool:
        """Whether the model takes native calls of tools; DSPy's adapters look here."""
        return self._can.function_calling

    @property
    def supports_reasoning(self) -> bool:
        """Whether the model reasons."""
        return self._can.reasoning

    @property
    def supports_response_schema(self) -> bool:
        """Whether the model keeps to a JSON schema."""
        return self._can.response_schema

    @property
    def supported_params(self) -> frozenset[str]:
        """The settings that the model takes, by the names they have in DSPy."""
        return self._can.params

    @cached_property
    def _can(self) -> Can:
        return can_of(self._lm, self._api, self._said)

    def dump_state(self) -> dict[str, Any]:
        """What DSPy saves of the engine with a program: no key, nor anything of its kind.

        Raises:
            ConfigError: If the language model cannot be saved (`lm-unsaved`).
        """
        return {"lm": state_of(self._lm), "api": self._api, **self._said}

    @classmethod
    def load_state(cls, state: Mapping[str, Any]) -> Self:
        """The engine that `dump_state` has saved; its LM reads the key from the environment.

        Raises:
            ConfigError: If it is none.
        """
        if not isinstance(state, Mapping) or "lm" not in state:
            raise ConfigError("this is no saved engine: it has no lm", code="lm-state")
        own = _own_of(state["lm"])
        made = cls(own.lm, **{name: value for name, value in state.items() if name != "lm"})
        made._own = own
        own.engines += 1
        return made

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self._lm, self._api, self._said)

    def __repr__(self) -> str:
        more = {"api": self._api} if self._api != "chat" else {}
        shown_too = "".join(f", {name}={value!r}" for name, value in {**more, **self._said}.items())
        lm = redacted(repr(self._lm), secrets_in(getattr(self._lm, "settings", {})))
        return f"{type(self).__name__}({lm}{shown_too})"

    def _closes_lm(self) -> bool:
        """Close the engine; whether its LM is to be closed with it."""
        own, self._own, self._closed = self._own, None, True
        if own is None:
            return False
        own.engines -= 1
        return own.engines == 0

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise lm15.ConfigurationError(f"the {type(self).__name__} is closed")

    def _after_fork(self) -> None:
        self._calls.after_fork()
        self._lease.after_fork()
        self._process = OwnerProcess()


class Engine(_Either):
    """Makes the calls of a `dspy.LM` over the connections of a `dspex.LM`.

    `dspy.LM` keeps its cache, retries, history and callbacks; connections, limits, time-outs and, with a
    group, the choice of a deployment are dspex's. What is sent and how the answer is read is what DSPy's own
    engine does. It serves many threads at once; its calls run on one thread that all engines share. For
    `acall` and `streamify` give the `dspy.LM` an `AsyncEngine` too.

    The LM names the server, the key and the limits; the model that is asked for is that of the `dspy.LM`,
    and with a group that of the deployment. Settings of the LM (`temperature`, ...) count where the call has
    none.

    Args:
        lm: Who is asked: a model's name (`"openai/<name>"`), a `dspex.LM`, a group (`dspex.LM.group`), or any
            object with the methods of `dspex.lm.LanguageModel`. Several engines may share one.
        api: `"chat"` for chat completions; `"responses"` for OpenAI's Responses, beside
            `dspy.LM(model_type="responses")`. By default the `model_type` of the LM.
        function_calling: Whether the model takes native calls of tools. By default what DSPy's catalogue
            says of the model, which knows the large providers' and nothing of your own. So for the others.
        reasoning: Whether it reasons.
        response_schema: Whether it keeps to a JSON schema; without it `dspy.JSONAdapter` asks for none.
        **settings: What `dspex.LM` takes (`api_base`, `api_key`, `limits`, `timeout`, ...), where `lm` is a
            name.

    Raises:
        ConfigError: If a setting is wrong.

    Example:
        ```python
        lm = dspex.LM("openai/gpt-4o-mini", limits=dspex.lm.RateLimit(concurrency=8))
        dspy.configure(
            lm=dspy.LM(
                "openai/gpt-4o-mini",
                engine=dspex.dspy.Engine(lm),
                async_engine=dspex.dspy.AsyncEngine(lm),
            )
        )
        ```
    """

    def complete(self, request: Any) -> Any:
        """The `dspy.lm15.Response` to a `dspy.lm15.Request`: one attempt.

        Raises:
            LM15Error: Of `dspy.lm15`, if there is none; its cause is dspex's error.
        """
        self._refuse_if_closed()
        try:
            return self._lease.run(self._calls.complete(request))
        except (ConnectionError, ConfigError) as error:
            raise _of_the_thread(error) from error

    def stream(self, request: Any) -> Iterator[Any]:
        """The events of the response: one start first, one end last. Close the generator to give up early.

        Raises:
            LM15Error: As `complete`; where the answer breaks off, after the events before it.
        """
        self._refuse_if_closed()
        queue, over = EventQueue(), threading.Event()
        portal = self._lease.portal
        if portal.thread_id == threading.get_ident():
            raise lm15.ConfigurationError("a blocking stream here would wait for its own event loop")
        task = asyncio.run_coroutine_threadsafe(self._feed(request, queue, over), portal.loop)
        try:
            while (event := queue.take_blocking()) is not END and event is not None:
                yield event
                if self._process.is_elsewhere:
                    raise lm15.TransportError("the process was forked in the middle of a stream")
        finally:
            queue.close()
            task.cancel()
            if threading.get_ident() != portal.thread_id:  # a collection may close it anywhere
                over.wait(CLOSE_SECONDS)
            del task

    async def _feed(self, request: Any, queue: EventQueue, over: threading.Event) -> None:
        failure: BaseException | None = None
        try:
            async with aclosing(self._calls.stream(request)) as events:
                async for event in events:
                    if not queue.put_now((event,)):
                        await queue.put((event,))
        except asyncio.CancelledError:
            failure = lm15.TransportError("the engine was closed during the stream")
        except Exception as error:  # noqa: BLE001 - it is raised where the stream is read
            failure = error
        finally:
            if failure is None:
                queue.end(END)
            else:
                queue.end(error=failure)
            del failure
            over.set()

    def close(self) -> None:
        """Close the engine, when its calls have ended. Its thread ends with the last one that is open.

        The connections of an LM that it was given stay its owner's.
        """
        if self._closes_lm() and self._lease.in_use:
            with contextlib.suppress(ConnectionError, ConfigError):
                self._lease.run(self._lm.aclose())
        self._lease.close(self._calls.asked)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AsyncEngine(_Either):
    """`Engine` for `acall`, `streamify` and all that is async: it makes its calls on the caller's event loop.

    Arguments are those of `Engine`. Give both the same LM, and they share its limits and its deployments:
    `dspy.LM(..., engine=Engine(lm), async_engine=AsyncEngine(lm))`.
    """

    async def complete(self, request: Any) -> Any:
        """The `dspy.lm15.Response` to a `dspy.lm15.Request`: one attempt.

        Raises:
            LM15Error: Of `dspy.lm15`, if there is none; its cause is dspex's error.
        """
        self._refuse_if_closed()
        return await self._calls.complete(request)

    async def stream(self, request: Any) -> AsyncIterator[Any]:
        """The events of the response: one start first, one end last. Close the generator to give up early.

        Raises:
            LM15Error: As `complete`; where the answer breaks off, after the events before it.
        """
        self._refuse_if_closed()
        async with aclosing(self._calls.stream(request)) as events:
            async for event in events:
                yield event

    async def aclose(self) -> None:
        """Close the engine, when its calls have ended. An LM that it was given stays its owner's."""
        if self._closes_lm():
            await self._lm.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()


for _engine in (Engine, AsyncEngine):
    _engine.__module__ = "dspex.dspy"  # where users find it, and saved programs too


def _rebuild(cls: type[Any], lm: LanguageModel, api: str, said: dict[str, bool]) -> Any:
    return cls(lm, api=api, **said)


def _of_the_thread(error: Exception) -> Exception:
    """DSPy's error for what went wrong between the caller and the engine's thread."""
    if isinstance(error, DspexError):
        return to_lm15(error, None)
    made: Exception = lm15.TransportError(str(error))
    return made


def _bad(what: str) -> ConfigError:
    return ConfigError(what, code="engine-setting", hint="see dspex.dspy.Engine")


def _after_fork_in_child() -> None:
    for engine in list(_engines):
        engine._after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
