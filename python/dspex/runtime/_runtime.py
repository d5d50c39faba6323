"""The runtime: it joins an LM, pools and the router, and owns all of them.

States::

    NEW --open--> OPEN --close--> CLOSED          each step once; a runtime is not reopened

Everything a runtime owns lives on one event loop, its *home*: the caller's under `async with`, that of a
background thread (a portal) under `with` and `open`. A call from the home loop is awaited in place, in the
task of its caller. One from another loop or thread is laid out and read where it is made; what it waits for
in between crosses over and back, and nothing does where the model answers at once. A blocking call on a
thread that runs an event loop, the home or another, would stop that loop and is refused; the cells of a
notebook are the exception.

Failures while opening close what was already open. Closing cancels the calls in flight, stops the pools
(which end their workers), closes the LM's connections and then the portal; each step has its deadline.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import enum
import os
import threading
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar, Unpack

from dspex import dialects
from dspex._callbacks import callbacks_of
from dspex._forks import OwnerProcess
from dspex._needs import of_adapter, of_model
from dspex._portal import CROSSING_SECONDS, Portal, cross, refuse_blocking, wait
from dspex._timeouts import check_seconds, shown
from dspex.adapters import Adapter
from dspex.errors import ConfigError, DeadlineExceeded, DspexError, LMError
from dspex.lm import language_model
from dspex.prediction import Prediction
from dspex.router import (
    AnyOperation,
    Breaker,
    Router,
    checked_strategy,
    forget,
    offer,
    use,
)
from dspex.router._call import runtime_closed
from dspex.runtime._arguments import pool_specs
from dspex.runtime._borrowed import BorrowedModels
from dspex.runtime._native_target import NativeTarget
from dspex.runtime._pool_target import PoolTarget, not_for_workers
from dspex.runtime._replies import refusal_of
from dspex.runtime._reports import RuntimeReports

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from dspex.adapters import AdapterLike, Parsing
    from dspex.lm import LanguageModel
    from dspex.pool import PoolSpec
    from dspex.router import (
        Call,
        Explanation,
        GivenLimits,
        Hedge,
        OrderOfTargets,
        Retry,
        Shadow,
        Strategy,
        Target,
    )
    from dspex.runtime._sessions import RuntimeSessions
    from dspex.runtime._shadow_runs import ShadowRuns
    from dspex.sessions import SessionSettings
    from dspex.sessions._opening import SessionKeywords, SessionOpening
    from dspex.stores import SessionStore

__all__ = ["Runtime"]

T = TypeVar("T")

DEFAULT_BREAKER: Final = Breaker()
DEFAULT_TIMEOUT_SECONDS = 120.0
WARMUP_SECONDS = 60.0
CLOSE_SECONDS = 30.0


class _State(enum.Enum):
    NEW = "new"  # nothing runs yet; settings are checked
    OPEN = "open"  # calls are accepted
    CLOSED = "closed"  # nothing runs any more; calls are refused


class Runtime(RuntimeReports):
    """Runs calls: it owns the LM's connections, the pools of workers and the router between them.

    Use it as a context manager, `async with` in asynchronous code and `with` elsewhere; modules called
    inside find it by themselves. Its settings are fixed when it is made.

    Args:
        lm: The language model: `"openai/<name>"`, a `dspex.LM`, or any object with its protocol. One that
            only DSPy speaks to, such as `"gemini/<name>"`, is called in a worker.
        pools: The pools of DSPy workers: a number of workers, one `PoolSpec` or several. By default one
            pool `general`. A pool starts with the first call it gets, or with `warmup`.
        timeout: Seconds a call may take unless it says otherwise.
        adapter: How prompts are laid out and replies read, on both routes: `"chat"`, `"json"`, `"xml"`, or an
            adapter of dspex's. A module may bring its own. Calls with `"baml"` or `"two_step"`, which only
            real DSPy has, go to a worker.
        parsing: `"tolerant"`, the default, repairs replies that nearly fit and lists that in
            `prediction.repairs`; `"dspy"` accepts what DSPy accepts, to the letter.
        dialect: The version of DSPy whose prompts the native side writes, `"3.3"` or `"3.4"`; by default that
            of the installed DSPy. Where that is one that dspex does not know, calls go to real DSPy in a
            worker, after a `DialectWarning`.
        strategy: Which side a call goes to that both can serve: `"prefer-native"`, `"prefer-python"`,
            `"fastest"` or `"weighted"`, or an object of yours with the method `order` of
            `dspex.router.OrderOfTargets`; see `docs/routing.md`.
        breaker: Keeps calls from a pool whose workers fail; None for none.
        retry: How often a call that failed is made again; by default never. Which calls may be is a table in
            `docs/routing.md`.
        limits: How many calls may be under way at each target, and how long others wait for a place: a
            `dspex.router.Limits` for each, or some by the names of targets.
        hedge: Makes a call that is late a second time, and takes the answer that comes first; a
            `dspex.router.Hedge`. Only calls that were declared idempotent are.
        shadow: Runs the other side too for a share of the calls, and reports where it differs, in
            `shadow_report()`: a `dspex.router.Shadow`, or the share alone, such as 0.01.
        callbacks: Who hears of all calls on this runtime: objects with the methods of DSPy's callbacks, as
            `dspex.callbacks.BaseCallback` has them.
        sessions: Where sessions are kept: a file, a store, or `dspex.sessions.SessionSettings`; see
            `docs/sessions.md` for the default.

    Raises:
        ConfigError: If a setting is wrong.
        RouteError: If only real DSPy has the adapter or speaks to the model, and there is no pool
            (`adapter-needs-dspy`, `lm-needs-dspy`).

    Example:
        ```python
        with dspex.Runtime(lm="openai/gpt-4o-mini") as runtime:
            dspex.Predict("question -> answer")(question="What is a forkserver?")
        ```
    """

    def __init__(
        self,
        lm: str | LanguageModel | None = None,
        *,
        pools: int | PoolSpec | Sequence[PoolSpec] | None = None,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        adapter: AdapterLike = "chat",
        parsing: Parsing | None = None,
        dialect: str | None = None,
        strategy: Strategy | OrderOfTargets = "prefer-native",
        breaker: Breaker | None = DEFAULT_BREAKER,
        retry: Retry | None = None,
        limits: GivenLimits = None,
        hedge: Hedge | None = None,
        shadow: Shadow | float | None = None,
        callbacks: Sequence[Any] | None = None,
        sessions: SessionSettings | SessionStore | str | os.PathLike[str] | None = None,
    ) -> None:
        self._lm = language_model(lm)
        self._keeps_answers = getattr(self._lm, "cache", None) is not None
        self._callbacks = callbacks_of(callbacks)
        self._timeout = check_seconds(timeout)
        self._adapter = Adapter.of(adapter, parsing)
        chosen = dialects.chosen(dialect)
        self._dialect = self._adapter.dialect or chosen
        if self._dialect is None:
            dialects.warn_unknown("calls go to real DSPy in a worker")
        self._pools = _pool_targets(self._lm, pools, self._adapter, self._dialect)
        for part in (self._lm, self._adapter):
            refusal = refusal_of(part)
            if refusal is not None and not self._pools:
                raise refusal
        native = NativeTarget(self._lm, self._adapter, self._dialect, self._callbacks)
        self._native = native
        targets: list[Target] = [native, *self._pools]
        self._router = Router(
            targets,
            strategy=checked_strategy(strategy),
            breaker=breaker,
            retry=retry,
            limits=limits,
            hedge=hedge,
            adapter_needs=of_adapter(self._adapter),
            model_needs=of_model(self._lm),
        )
        self._router.secrets = self._secrets
        self._state = _State.NEW
        self._state_lock = threading.Lock()
        self._home: asyncio.AbstractEventLoop | None = None
        self._home_thread = 0
        self._owner = OwnerProcess()
        self._portal: Portal | None = None
        self._scope = ExitStack()
        self._calls: set[asyncio.Task[Any]] = set()
        self._borrowed = BorrowedModels()
        self._shadow = self._shadow_runs(shadow, native)
        self._sessions: RuntimeSessions | None = None  # from the first on
        self._given_sessions = sessions

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Self:
        """A runtime by the settings in a TOML file, or under `[tool.dspex]` of a `pyproject.toml`.

        Args:
            path: The file. What its sections may have is in `docs/configuration.md`.

        Raises:
            ConfigError: If it cannot be read (`no-settings-file`, `bad-settings-file`), or anything in it is
                wrong (`bad-config`): the error tells all of that, each with its path.
            RouteError: As from the class itself.

        Example:
            ```python
            async with dspex.Runtime.from_toml("dspex.toml"):
                ...
            ```
        """
        from dspex.runtime._config_file import config_of  # most services set theirs up in Python

        config, directory = config_of(path)
        return cls._configured(config, directory, os.fspath(path))

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], *, directory: str | os.PathLike[str] | None = None
    ) -> Self:
        """A runtime by settings that are data, in the form that a TOML file has: see `from_toml`.

        Args:
            config: The sections.
            directory: What paths in it are relative to; by default the working directory.

        Raises:
            ConfigError: If anything in it is wrong (`bad-config`).
            RouteError: As from the class itself.
        """
        from pathlib import Path  # as above

        return cls._configured(config, None if directory is None else Path(directory).absolute())

    @classmethod
    def _configured(cls, config: Mapping[str, Any], directory: Path | None, where: str = "") -> Self:
        from dspex.runtime._config import arguments_of

        return cls(**arguments_of(config, directory, os.environ, where=where))

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):  # targets and plans have been made of the settings
            raise AttributeError(
                f"a Runtime's settings are fixed when it is made, and {name!r} cannot be set: make another, "
                f"or give a module its own, Predict(..., adapter=...) or with_options(timeout=...)"
            )
        super().__setattr__(name, value)

    @property
    def lm(self) -> LanguageModel:
        """The language model."""
        return self._lm

    @property
    def timeout(self) -> float:
        """Seconds a call may take unless it says otherwise."""
        return self._timeout

    @property
    def adapter(self) -> Adapter:
        """How prompts are laid out and replies read, where a module brings no adapter of its own."""
        return self._adapter

    @property
    def dialect(self) -> str | None:
        """The version of DSPy whose prompts the native side writes; None where it writes none."""
        return self._dialect

    @property
    def callbacks(self) -> Sequence[Any]:
        """Who hears of all calls."""
        return self._callbacks

    @property
    def usable(self) -> bool:
        """Whether it can run calls: it is open, its event loop is there, and this is its process."""
        home = self._home
        return (
            self._state is _State.OPEN
            and home is not None
            and not home.is_closed()
            and not self._owner.is_elsewhere
        )

    # -- opening and closing ----------------------------------------------------------------------

    def open(self) -> Self:
        """Open the runtime on a background thread's event loop.

        Modules then find it from every thread, unless another is open already (see `configure`). Close it
        by `close`, or on an event loop by `await aclose()`; else it closes when the process ends. `with`
        opens, makes it the one that the block's own calls use, and closes.

        Raises:
            ConfigError: If it has been open before.
        """
        self._enter_state(_State.NEW, _State.OPEN)
        self._portal = Portal("dspex-runtime")
        self._home = self._portal.loop
        self._home_thread = self._portal.thread_id
        if self._shadow is not None:
            self._shadow.open(self._home)
        _on_threads.add(self)
        offer(self)
        return self

    def close(self) -> None:
        """Close a runtime that `open` or `with` opened. Closing twice is harmless.

        Raises:
            ConfigError: If the runtime was opened by `async with`, or an event loop runs on this thread: use
                `aclose` there.
        """
        if self._owner.is_elsewhere:  # in a fork neither the thread nor the workers are ours
            self._leave()
            return
        if self._state is _State.OPEN and self._portal is None:
            raise ConfigError(
                "this runtime lives on an event loop",
                code="runtime-async",
                hint="close it with `await aclose()`",
            )
        if self._state is _State.OPEN:
            refuse_blocking(self._home_thread, "`await aclose()`")
        if not self._leave() or self._portal is None:
            return
        try:
            self._portal.run(self._shut(), CLOSE_SECONDS)
        finally:
            self._portal.close()

    async def aopen(self) -> Self:
        """Open the runtime on the running event loop; `async with` does this and closes again.

        See `open` for which modules find it.
        """
        self._enter_state(_State.NEW, _State.OPEN)
        self._home = asyncio.get_running_loop()
        self._home_thread = threading.get_ident()
        if self._shadow is not None:
            self._shadow.open(self._home)
        offer(self)
        return self

    async def aclose(self) -> None:
        """Close the runtime, however it was opened. Closing twice is harmless."""
        if self._portal is not None:
            await asyncio.to_thread(self.close)
        elif self._leave():
            await self._shut()

    def __enter__(self) -> Self:
        # Its end would wait for workers, so it is refused before anything is there to end.
        refuse_blocking(0, "`async with`")
        self.open()
        self._scope.enter_context(use(self))
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._scope.close()
        self.close()

    async def __aenter__(self) -> Self:
        await self.aopen()
        self._scope.enter_context(use(self))
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._scope.close()
        await self.aclose()

    # -- calls --------------------------------------------------------------------------------------

    def run(self, operation: AnyOperation) -> Prediction:
        """Run an operation and wait for its prediction; modules call this for you.

        Raises:
            ConfigError: If the runtime is not open, or an event loop runs on this thread.
            DspexError: Whatever the call raised.
        """
        home = self._open_home()
        refuse_blocking(self._home_thread, "`await acall(...)`")
        timeout = self._seconds(operation)
        call = self._router.begin(operation, timeout)
        try:
            if not call.ask_now():
                wait(cross(self._ask(call), home, runtime_closed), timeout + CROSSING_SECONDS, runtime_closed)
        except BaseException:
            call.abandon()  # nothing where it has ended; its way to the loop may have been cut
            raise
        return call.finish()

    async def arun(self, operation: AnyOperation) -> Prediction:
        """The awaitable twin of `run`, from any event loop."""
        home = self._open_home()
        timeout = self._timeout if operation.timeout is None else operation.timeout
        call = self._router.begin(operation, timeout)
        try:
            if asyncio.get_running_loop() is not home:
                if not call.ask_now():
                    await asyncio.wrap_future(cross(self._ask(call), home, runtime_closed))
            elif operation.lm is None and operation.sink is None:
                if not (self._keeps_answers and call.ask_now()):
                    await call.ask()
            else:
                await self._ask(call)
        except BaseException:
            call.abandon()  # as in `run`
            raise
        return call.finish()

    def begin(self, operation: AnyOperation) -> Call | None:
        """Begin an operation for who asks and finishes it by himself, on this runtime's event loop.

        A batch does so: it begins several rows one after the other, and reads several answers. None where the
        operation has to be run as a whole, or this is another event loop.
        """
        if operation.lm is not None or operation.sink is not None:
            return None
        if asyncio._get_running_loop() is not self._home or self._state is not _State.OPEN:
            self._open_home()
            return None
        timeout = self._timeout if operation.timeout is None else operation.timeout
        return self._router.begin(operation, timeout)

    def explain(self, module: Any, /, **inputs: Any) -> Explanation:
        """What would become of a call, and why: where it would go, and how each target stands to it.

        Nothing is rendered, asked or counted.

        Args:
            module: A `Predict` or another module that makes one call, or an operation.
            **inputs: The inputs and options of the call, where a module is given.

        Raises:
            InputError: If the inputs do not fit the signature.
            ConfigError: If what is given makes no call of its own (`bad-call`).
        """
        operation = module if isinstance(module, AnyOperation) else None
        # Of the class: a program may have a module inside of that name, which would be called.
        make = getattr(type(module), "operation", None)
        if operation is None and callable(make):
            found = make(module, **inputs)
            operation = found if isinstance(found, AnyOperation) else None
        if operation is None:
            raise ConfigError(
                f"{shown(module)} makes no single call that could be explained",
                code="bad-call",
                hint="give one of its predictors",
            )
        return self._router.explain(operation)

    def force_breaker(self, name: str, state: Literal["open", "closed", "auto"]) -> None:
        """Open or close the breaker of a target by hand, whatever its calls come to.

        Args:
            name: The target, such as `"pool:general"`.
            state: `"open"` keeps all calls away, `"closed"` lets all pass, `"auto"` lets it decide again.

        Raises:
            ConfigError: If there is no such target (`target-name`), it has no breaker, or there is no such
                state (`bad-routing`).
        """
        self._router.force_breaker(name, state)

    def add_target(
        self,
        target: Target,
        *,
        weight: float = 1.0,
        in_flight: int | None = None,
        breaker: Breaker | None = None,
    ) -> None:
        """Let calls go to a target of your own from now on; see `dspex.router.Target`.

        Args:
            target: The target. It is the last of its side, and `route="<its name>"` asks for it.
            weight: Its part of the calls under `strategy="weighted"`.
            in_flight: How many calls may be under way there; None for any number.
            breaker: Its breaker, in the place of the runtime's.

        Raises:
            ConfigError: If it is none (`bad-routing`), or another has its name (`target-name`).
        """
        self._router.add(target, weight=weight, in_flight=in_flight, breaker=breaker)

    def remove_target(self, name: str) -> Target:
        """Let no more calls go to a target of your own; those under way there go on.

        Raises:
            ConfigError: If there is none of that name, or it is the runtime's own (`target-name`).
        """
        if name == "native" or any(pool.name == name for pool in self._pools):
            raise ConfigError(
                f"{name} is the runtime's own",
                code="target-name",
                hint="leave it out of a strategy of yours, or give calls a route=",
            )
        return self._router.remove(name)

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start a coroutine on the runtime's event loop, from another thread; see `host`.

        Its calls are awaited in place: many of them cost one way to that loop and back, not one each.

        Args:
            coroutine: What to run. It sees the context of the caller.

        Returns:
            The future of its result; to cancel it cancels the coroutine.

        Raises:
            ConfigError: If the runtime is not open, or an event loop runs on this thread.
        """
        try:
            home = self._open_home()
            refuse_blocking(self._home_thread, "`await` in its place")
        except ConfigError:
            coroutine.close()
            raise
        return cross(self.host(coroutine), home, runtime_closed)

    async def host(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await a coroutine on the runtime's event loop as one piece of work, which ends with the runtime.

        What blocks in it blocks the runtime. On another loop it is awaited as it is.

        Raises:
            ConfigError: If the runtime was closed while it ran (`runtime-closed`).
        """
        if asyncio.get_running_loop() is not self._home:
            return await coroutine
        return await self._tracked(asyncio.create_task(coroutine))

    def session(
        self,
        *,
        id: str | None = None,  # noqa: A002 - what everybody calls it
        create: bool = False,
        take_over: bool = False,
        **options: Unpack[SessionKeywords],
    ) -> SessionOpening:
        """A session: `async with runtime.session(...) as s`, `s = await runtime.session(...)`, or `with`.

        Args:
            id: The name of the session that is to be resumed; None for a new one, with a name of its own.
            create: Make a session of this `id` if there is none.
            take_over: Take it over although another host has it, which is told so by `SessionMoved`.
            **options: What a new session may do; see `dspex.sessions.SessionOptions`. One that is resumed has
                those that it was made with.

        Raises:
            ConfigError: If an option is wrong (`bad-session`), or there is no such pool (`no-pool`).
            SessionNotFound: When it is opened: if there is no such session, or its time is over.
            SessionBusy: The same: if another host has it, and is not known to be gone.
            SessionQuotaExceeded: The same: if its pool or user has as many as it may have.

        Example:
            ```python
            async with runtime.session(idle_ttl=1800) as s:
                await s.call(chat, question="What is a forkserver?")
                s.state["user"] = "ada"
                await s.commit()
            ```
        """
        if self._sessions is None:
            from dspex.runtime._sessions import RuntimeSessions, settings_of  # many runtimes have none

            self._sessions = RuntimeSessions(self, settings_of(self._given_sessions), self._pools)
        return self._sessions.opening(id, options, create=create, take_over=take_over)

    def warmup(self, timeout: float = WARMUP_SECONDS) -> None:
        """Start what a first call would start: every pool with its workers, a connection to the LM's server.

        A server that cannot be reached is a warning in the log: it may be there when the first call comes.

        Args:
            timeout: Seconds to wait for all of them.

        Raises:
            WorkerStartError: If a worker does not become ready.
            DeadlineExceeded: If they are not all ready in time; those that are stay so.
        """
        timeout = check_seconds(timeout)
        home = self._open_home()
        refuse_blocking(self._home_thread, "`await awarmup()`")
        wait(cross(self._warm(timeout), home, runtime_closed), timeout + CROSSING_SECONDS, runtime_closed)

    async def awarmup(self, timeout: float = WARMUP_SECONDS) -> None:
        """The awaitable twin of `warmup`."""
        timeout = check_seconds(timeout)
        home = self._open_home()
        if asyncio.get_running_loop() is home:
            await self._warm(timeout)
        else:
            await asyncio.wrap_future(cross(self._warm(timeout), home, runtime_closed))

    def __repr__(self) -> str:
        pools = ", ".join(pool.name.removeprefix("pool:") for pool in self._pools)
        return f"<Runtime {self._state.value} lm={self._lm!r} pools=[{pools}]>"

    # -- inside ---------------------------------------------------------------------------------------

    async def _ask(self, call: Call) -> None:
        """Wait for the answer of a call, at home."""
        lm, sink = call.operation.lm, call.operation.sink
        if lm is not None:
            self._borrowed.take(lm)
        try:
            if sink is None:
                await call.ask()
            else:
                # A task of its own, which the stream's reader may cancel without the caller's.
                task = asyncio.create_task(call.ask())
                sink.attach(task)
                try:
                    await self._tracked(task)
                finally:
                    del task  # it holds the exception, which holds this frame: see `Pool.call`
        finally:
            if lm is not None:
                await self._borrowed.give_back(lm)

    async def _tracked(self, task: asyncio.Task[T]) -> T:
        """What a task comes to, which is ended when the runtime closes."""
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        try:
            return await task
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if self._state is _State.OPEN or (caller is not None and caller.cancelling()):
                raise
            raise runtime_closed() from None
        finally:
            del task  # as in `_call`

    async def _warm(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                await asyncio.gather(self._warm_lm(), *(pool.warm() for pool in self._pools))
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"the pools were not ready within {timeout:g} s",
                hint="allow more time, or look at `pool.status()`",
                retryable=True,
                timeout=timeout,
                stage="warmup",
            ) from error

    async def _warm_lm(self) -> None:
        warmup = getattr(self._lm, "warmup", None)
        if warmup is None or refusal_of(self._lm) is not None:
            return
        try:
            await warmup()
        except LMError as error:
            import logging  # nearly no runtime has anything to say

            logging.getLogger("dspex.runtime").warning("the language model cannot be reached yet: %s", error)

    def _shadow_runs(self, given: Shadow | float | None, native: NativeTarget) -> ShadowRuns | None:
        if given is None:
            return None
        from dspex.router import Shadow

        shadow = given if isinstance(given, Shadow) else Shadow(share=given)
        from dspex.runtime._shadow_runs import ShadowRuns  # few runtimes have one

        def is_failing(name: str) -> bool:
            return any(row.name == name and row.state in ("open", "forced-open") for row in self.counts())

        runs = ShadowRuns(
            shadow,
            native,
            self._pools,
            self._adapter,
            self._dialect,
            is_failing=is_failing,
            borrowed=self._borrowed,
        )
        self._router.answered = runs.offer
        return runs

    async def _shut(self) -> None:
        if self._shadow is not None:
            await self._shadow.aclose()
        ending = list(self._calls)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        if self._sessions is not None:
            await self._sessions.aclose()
        await self._router.backstop.end_all()
        results = await asyncio.gather(
            *(pool.aclose() for pool in self._pools),
            *(lm.aclose() for lm in (self._lm, *self._borrowed.all())),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def _secrets(self) -> tuple[str, ...]:
        from dspex.protocol.secrets import secrets_in

        settings = getattr(self._lm, "settings_for_worker", None)
        return () if settings is None else secrets_in(settings())

    def _seconds(self, operation: AnyOperation) -> float:
        return self._timeout if operation.timeout is None else operation.timeout

    @property
    def _is_open(self) -> bool:
        return self._state is _State.OPEN

    def _open_home(self) -> asyncio.AbstractEventLoop:
        if self._owner.is_elsewhere:
            raise ConfigError(
                "this runtime belongs to the process that opened it",
                code="runtime-forked",
                hint="open a runtime in the child after the fork",
            )
        if self._state is not _State.OPEN or self._home is None or self._home.is_closed():
            raise runtime_closed()
        return self._home

    def _enter_state(self, before: _State, after: _State) -> None:
        with self._state_lock:
            if self._state is not before:
                raise ConfigError(
                    f"this runtime is {self._state.value} and opens only once",
                    code="runtime-reopened",
                    hint="make a new Runtime",
                )
            self._state = after

    def _leave(self) -> bool:
        """Take the step to CLOSED; False if there is nothing to close."""
        with self._state_lock:
            was_open = self._state is _State.OPEN
            self._state = _State.CLOSED
        _on_threads.discard(self)
        forget(self)
        return was_open


_on_threads: Final[set[Runtime]] = set()
"""Those that are open on a thread of their own."""


@atexit.register
def _close_all() -> None:
    """A runtime that is opened in a script ends with it."""
    for runtime in list(_on_threads):
        with suppress(DspexError):
            runtime.close()


def _pool_targets(
    lm: LanguageModel,
    pools: int | PoolSpec | Sequence[PoolSpec] | None,
    adapter: Adapter,
    dialect: str | None,
) -> list[PoolTarget]:
    specs = pool_specs(pools)
    lm_settings = getattr(lm, "settings_for_worker", None)
    if lm_settings is None:
        # An object of this process, such as a scripted model: there is nothing to send to a worker.
        if not pools:
            return []
        raise not_for_workers(lm, "leave out `pools=`, or use a dspex.LM")
    native_lm = refusal_of(lm) is None
    return [PoolTarget(spec, lm_settings, adapter, dialect, native_lm=native_lm, lm=lm) for spec in specs]
