"""What a pool can be asked for: requests, and the shorter ways to make the common ones.

`call`, `stream` and `batch` take a request, and the options of the call as keywords. `run`, `predict`,
`module` and `echo` make the request of their own arguments, and take options from `with_options`::

    await pool.with_options(timeout=5).run(my_app.text.clean, "some text")
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, Unpack, cast, overload

from dspex.protocol.requests import (
    EchoRequest,
    FunctionRequest,
    ModuleAnswer,
    ModuleParts,
    ModuleRequest,
    PredictParts,
    PredictRequest,
    Request,
)

if TYPE_CHECKING:
    from dspex.pool._options import CallKeywords
    from dspex.protocol.signature_form import SignatureForm
    from dspex.signature import SignatureLike

__all__ = ["PoolCalls", "SyncPoolCalls"]

P = ParamSpec("P")
T = TypeVar("T")
Calls = TypeVar("Calls")


class PoolCalls(ABC):
    """The calls of a pool: of a `Pool` itself, or with options of their own (`with_options`).

    All of them are awaited. Those that are no `async def` save a small call a tenth of its time.
    """

    @abstractmethod
    def call(self, request: Request, **options: Unpack[CallKeywords]) -> Coroutine[Any, Any, Any]:
        """Run a request on one of the workers.

        Args:
            request: What is asked for.
            **options: See `CallOptions`.

        Returns:
            What the operation answered. A `ModuleAnswer` has `attempts`, how many workers the call was given
            to, if there was more than one.

        Raises:
            DeadlineExceeded: The time ran out.
            PoolSaturated: The queue is full; nothing was done.
            PoolClosedError: The pool is not open.
            WorkerDiedError: The worker died with the call.
            WorkerStartError: No worker is there and the restart budget is spent.
            WireError: The request cannot be sent.
            ConfigError: An option is wrong.
            DspexError: Whatever the operation raised, in the classes of `dspex.errors`.
        """

    @abstractmethod
    def stream(self, request: Request, **options: Unpack[CallKeywords]) -> AsyncGenerator[Any, None]:
        """Run a request whose answer comes in parts, and yield them as they come.

        Those of a `PredictRequest` and a `ModuleRequest` are `dspex.events`: fields as they are written,
        messages of progress, and at last a `dspex.Prediction`. Those of a `FunctionRequest` are what an async
        generator, or a generator in a thread, yields.

        The worker is never more than a few dozen parts ahead of whoever takes them. Close the generator
        (`contextlib.aclosing`) to stop the work early. It is never run twice once a part has come.

        Args:
            request: A generator function, or a module whose fields are streamed.
            **options: See `CallOptions`; the time is that of the whole.

        Raises:
            DspexError: As for `call`; parts that came before have been yielded.
        """

    @abstractmethod
    async def batch(self, requests: Iterable[Request], **options: Unpack[CallKeywords]) -> list[Any]:
        """Run many requests, as many at once as the pool has places.

        Args:
            requests: They are drawn as places get free.
            **options: See `CallOptions`; the time is that of each call, from when it is begun.

        Returns:
            For each request its answer, or the `DspexError` it failed with, in the order of the requests.

        Raises:
            ConfigError: If an option is wrong, or is `input_streams`, which one call alone can read; none of
                the calls is made.
            PoolClosedError: If the pool is not open; no request has been drawn.
        """

    @overload
    def run(
        self, function: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def run(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def run(self, function: str, /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]: ...

    def run(
        self, function: str | Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Coroutine[Any, Any, Any]:
        """Call a function in a worker: an async one on its loop, any other in a thread.

        Args:
            function: A function at the top of a module that the worker can import, or its path,
                `"package.module:name"`.
            *args: Its arguments by position: values that the wire carries.
            **kwargs: Its arguments by name.

        Raises:
            DspexError: As for `call`; `ConfigError` if a worker cannot import the function.
        """
        return self.call(FunctionRequest.of(function, *args, **kwargs))

    async def predict(
        self,
        signature: SignatureLike | SignatureForm,
        inputs: Mapping[str, Any],
        /,
        **parts: Unpack[PredictParts],
    ) -> ModuleAnswer:
        """Ask the workers' LM for the outputs of a signature, with `dspy.Predict`.

        Args:
            signature: A text, which is read in the worker, or anything else `Signature.of` takes.
            inputs: A value for each of its inputs.
            **parts: See `PredictParts`.

        Raises:
            DspexError: As for `call`.
        """
        return cast(ModuleAnswer, await self.call(PredictRequest.of(signature, inputs, **parts)))

    async def module(
        self, module: str | type[Any], inputs: Mapping[str, Any], /, **parts: Unpack[ModuleParts]
    ) -> ModuleAnswer:
        """Call any DSPy module, your own programs included.

        Args:
            module: Its class, or the path of that: `"dspy.ChainOfThought"`, `"my_app.rag:RAG"`.
            inputs: What it is called with.
            **parts: See `ModuleParts`.

        Raises:
            DspexError: As for `call`.
        """
        return cast(ModuleAnswer, await self.call(ModuleRequest.of(module, inputs, **parts)))

    def echo(self, value: Any, /) -> Coroutine[Any, Any, Any]:
        """Send a value to a worker and back: a round trip to measure.

        Raises:
            DspexError: As for `call`.
        """
        return self.call(EchoRequest(value))

    def with_options(self, **options: Unpack[CallKeywords]) -> PoolCalls:
        """The same calls, with these options where a call does not give its own.

        Args:
            **options: See `CallOptions`.
        """
        return _WithOptions(self, options)


class _Options(Generic[Calls]):
    """Calls, and the options of those that do not give their own."""

    def __init__(self, calls: Calls, options: CallKeywords) -> None:
        self._calls = calls
        self._options = options

    def _merged(self, options: CallKeywords) -> CallKeywords:
        return {**self._options, **options}

    def __repr__(self) -> str:
        return f"{self._calls!r}.with_options({', '.join(self._options)})"


class _WithOptions(_Options[PoolCalls], PoolCalls):
    def call(self, request: Request, **options: Unpack[CallKeywords]) -> Coroutine[Any, Any, Any]:
        return self._calls.call(request, **self._merged(options))

    def stream(self, request: Request, **options: Unpack[CallKeywords]) -> AsyncGenerator[Any, None]:
        return self._calls.stream(request, **self._merged(options))

    async def batch(self, requests: Iterable[Request], **options: Unpack[CallKeywords]) -> list[Any]:
        return await self._calls.batch(requests, **self._merged(options))


class SyncPoolCalls(ABC):
    """The same calls, each of which blocks its thread."""

    @abstractmethod
    def call(self, request: Request, **options: Unpack[CallKeywords]) -> Any:
        """Run a request on one of the workers and wait for its answer; see `Pool.call`.

        Raises:
            ConfigError: Also if an event loop runs on this thread, which the call would stop.
        """

    @abstractmethod
    def stream(self, request: Request, **options: Unpack[CallKeywords]) -> Generator[Any, None, None]:
        """Run a request whose answer comes in parts, and yield them as they come; see `Pool.stream`."""

    @abstractmethod
    def batch(self, requests: Iterable[Request], **options: Unpack[CallKeywords]) -> list[Any]:
        """Run many requests, as many at once as the pool has places; see `Pool.batch`."""

    @overload
    def run(
        self, function: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...

    @overload
    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...

    @overload
    def run(self, function: str, /, *args: Any, **kwargs: Any) -> Any: ...

    def run(self, function: str | Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a function in a worker; see `Pool.run`."""
        return self.call(FunctionRequest.of(function, *args, **kwargs))

    def predict(
        self,
        signature: SignatureLike | SignatureForm,
        inputs: Mapping[str, Any],
        /,
        **parts: Unpack[PredictParts],
    ) -> ModuleAnswer:
        """Ask the workers' LM for the outputs of a signature; see `Pool.predict`."""
        return cast(ModuleAnswer, self.call(PredictRequest.of(signature, inputs, **parts)))

    def module(
        self, module: str | type[Any], inputs: Mapping[str, Any], /, **parts: Unpack[ModuleParts]
    ) -> ModuleAnswer:
        """Call any DSPy module, your own programs included; see `Pool.module`."""
        return cast(ModuleAnswer, self.call(ModuleRequest.of(module, inputs, **parts)))

    def echo(self, value: Any, /) -> Any:
        """Send a value to a worker and back: a round trip to measure."""
        return self.call(EchoRequest(value))

    def with_options(self, **options: Unpack[CallKeywords]) -> SyncPoolCalls:
        """The same calls, with these options where a call does not give its own."""
        return _SyncWithOptions(self, options)


class _SyncWithOptions(_Options[SyncPoolCalls], SyncPoolCalls):
    def call(self, request: Request, **options: Unpack[CallKeywords]) -> Any:
        return self._calls.call(request, **self._merged(options))

    def stream(self, request: Request, **options: Unpack[CallKeywords]) -> Generator[Any, None, None]:
        return self._calls.stream(request, **self._merged(options))

    def batch(self, requests: Iterable[Request], **options: Unpack[CallKeywords]) -> list[Any]:
        return self._calls.batch(requests, **self._merged(options))
