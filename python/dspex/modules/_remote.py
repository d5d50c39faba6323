"""`remote` and `program`: any module of DSPy's, and the user's own programs, behind the call of a module.

::

    dspex.remote("dspy.ReAct", ...)  --parts, looked at once-->  RemoteModule
    module(question=...)  --ModuleOperation-->  Runtime, Router  -->  a target with workers
                                                                          |  made once per content, kept
    tools, reward_fn, ...   <--calls back, while the call lasts--    the real class, in a worker
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from dspex import _callbacks
from dspex._needs import MODULE, of_model
from dspex.adapters import Adapter, AdapterLike, Parsing
from dspex.errors import ConfigError, DspexError
from dspex.modules._arguments import OwnModel, check_runtime, lm_of, mapping_of, options_of
from dspex.modules._module import Module
from dspex.modules._scope import in_scope
from dspex.modules._tree import RemoteNode
from dspex.prediction import PlainResult
from dspex.router import Dispatcher, ModuleOperation, RouteName, Strategy, current_dispatcher, dispatcher_here
from dspex.signature import Signature, SignatureLike

if TYPE_CHECKING:
    import os

    from dspex.lm import LanguageModel
    from dspex.modules._remote_parts import RemoteParts

__all__ = ["RemoteModule", "program", "remote"]

_OPTIONS = ("route", "strategy", "timeout", "config", "lm")


class RemoteModule(OwnModel, RemoteNode, Module):
    """A module that real DSPy runs in a worker; `remote` and `program` make it.

    Each call is one call of the module in a worker of the runtime's pool, which makes the module once and
    keeps it. The runtime's language model, adapter and way of reading hold there too.
    """

    def __init__(
        self,
        parts: RemoteParts,
        *,
        runtime: Dispatcher | None = None,
        lm: str | LanguageModel | None = None,
        adapter: AdapterLike | None = None,
        parsing: Parsing | None = None,
        callbacks: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(callbacks)
        self.remote_parts = parts
        chosen = Adapter.of("chat" if adapter is None else adapter, parsing)
        self._adapter = None if adapter is None else chosen
        self._parsing = parsing
        check_runtime(runtime)
        self._runtime = runtime
        self._lm = lm_of(lm)
        self._origin: RemoteModule | None = None

    @property
    def signature(self) -> Signature | None:
        """The signature that the module is made with; None if it has its own."""
        return self.remote_parts.signature

    def __call__(self, /, *args: Any, **inputs: Any) -> Any:
        """Run the module in a worker and wait for what it gives.

        Args:
            *args: What the module takes by position: the query of a retriever.
            **inputs: What it takes by name. Where it is made with a signature, `route`, `timeout`, `config`
                and `lm` are options as in a `Predict`, unless an input has the name; else they are inputs
                too, and options are given by `with_options`.

        Returns:
            A `dspex.Prediction` where the module gives one, else what it gives: a retriever's list of
            passages. Examples of DSPy's are dicts.

        Raises:
            InputError: If inputs are missing, or the module takes no such inputs.
            RouteError: If the runtime has no pool (`module-needs-dspy`).
            ConfigError: If a worker cannot import the class, or the class refuses its arguments or state.
            LMError: If the LM could not be asked.
            ReplyError: If a reply could not be read.
            RemoteError: If the module raised something else; `type` and `traceback` say what and where.
            PoolError: If the workers could not do their part.
            DeadlineExceeded: If the time ran out.
        """
        if _callbacks.given and (heard_by := self._heard_by()):
            return self._heard(heard_by, args, inputs)
        return self._unheard(args, inputs)

    def _unheard(self, args: tuple[Any, ...], inputs: dict[str, Any]) -> Any:
        operation = self._operation(inputs, args)
        try:
            return _result(self._dispatcher().run(operation))
        except DspexError:
            if operation.sink is not None:
                operation.sink.check()  # a call that was cancelled for a reader that left says so
            raise

    async def acall(self, /, *args: Any, **inputs: Any) -> Any:
        """The call, awaited; see `__call__` for arguments and errors."""
        if _callbacks.given and (heard_by := self._heard_by()):
            return await self._heard_awaited(heard_by, args, inputs)
        return await self._unheard_awaited(args, inputs)

    async def _unheard_awaited(self, args: tuple[Any, ...], inputs: dict[str, Any]) -> Any:
        return _result(await self._dispatcher().arun(self._operation(inputs, args)))

    def with_options(
        self,
        *,
        route: RouteName | None = None,
        strategy: Strategy | None = None,
        timeout: float | None = None,
        idempotent: bool | None = None,
        config: Mapping[str, Any] | None = None,
        lm: str | LanguageModel | None = None,
        stream_fields: Sequence[str] | None = None,
    ) -> Self:
        """A copy of this module whose calls have these options.

        Args:
            route: `"python"`, or a pool's name such as `"pool:optimizer"`.
            strategy: In which order targets are considered, in the place of the runtime's.
            timeout: Seconds for the whole call.
            idempotent: Whether a worker may run the call again; see `Predict.with_options`.
            config: Settings for the LM over its own, for all predictors in the module.
            lm: Instead of the runtime's.
            stream_fields: The output fields whose events its streams have, `"answer"` of every predictor in
                the module, `"draft.answer"` of the one with that path; None for all. The worker refuses a
                field that no predictor has (`bad-stream`).

        Raises:
            ConfigError: If an option is none.
        """
        twin = copy.copy(self)
        given = options_of(
            route=route,
            strategy=strategy,
            timeout=timeout,
            idempotent=idempotent,
            config=config,
            lm=lm,
            stream_fields=stream_fields,
        )
        twin._options = {**self._options, **given}
        twin._origin = self.origin
        return twin

    @property
    def origin(self) -> RemoteModule:
        """The module that `with_options` has made this one of, else itself: streams know it by that."""
        return self._origin or self

    def set_lm(self, lm: str | LanguageModel | None) -> None:
        """Let the module ask this language model; None for the runtime's."""
        self.lm = lm

    def get_lm(self) -> LanguageModel | None:
        """The language model of the module; None for the runtime's."""
        return self._lm

    # -- what an optimizer finds out ----------------------------------------------------------------

    def dump_state(self) -> dict[str, Any]:
        """The state that the module has been given: by `state=`, `load`, or an optimizer.

        Raises:
            ConfigError: If it has been given none (`program-state`), or its file cannot be read.
        """
        from dspex.modules._state import read_state

        state = self.remote_parts.request.state
        if state is None:
            raise ConfigError(
                f"{self.remote_parts.request.module} has been given no state, and its worker keeps its own",
                code="program-state",
                hint="optimise it, dspex.optimizer(...).compile(program, ...), or make it with "
                'state="rag.json"',
            )
        return read_state(state) if isinstance(state, str) else copy.deepcopy(dict(state))

    def load_state(self, state: Mapping[str, Any], *, lm: bool = False) -> Self:
        """Take over what `dump_state` gave, here or in DSPy; a worker looks whether it fits the class.

        Args:
            state: The state.
            lm: Whether predictors get the language models that the state names, each with key and address
                from the worker's environment.

        Returns:
            This module.

        Raises:
            ConfigError: If it is no state (`program-state`).
        """
        from dspex.modules._state import of_remote

        request = replace(self.remote_parts.request, state=of_remote(state, lm=lm))
        self.remote_parts = self.remote_parts._replace(request=request)
        return self

    def save(self, path: str | os.PathLike[str], save_program: bool = False) -> None:
        """Write the state to a JSON file; see `dump_state` and `Module.save`."""
        from dspex.modules._state import no_pickle, write_state

        if save_program:
            raise no_pickle("a program that is saved as a whole")
        write_state(self.dump_state(), path)

    def load(self, path: str | os.PathLike[str], allow_pickle: bool = False, *, lm: bool = False) -> Self:
        """Take over what `save` wrote, here or in DSPy; see `load_state` and `Module.load`."""
        from dspex.modules._state import read_state

        return self.load_state(read_state(path), lm=lm)

    def _dispatcher(self) -> Dispatcher:
        return self._runtime or current_dispatcher()

    def _runs_on(self) -> Dispatcher | None:
        return self._runtime or dispatcher_here()

    def operation(self, /, *args: Any, **inputs: Any) -> ModuleOperation:
        """What a call with these inputs and options would have a runtime do; see `Runtime.explain`."""
        return self._operation(inputs, args)

    def _operation(self, inputs: Mapping[str, Any], args: Sequence[Any] = ()) -> ModuleOperation:
        parts, options, given = self.remote_parts, dict(self._options), dict(inputs)
        if parts.signature is not None:
            for name in _OPTIONS:
                if name in given and name not in parts.signature.input_fields:
                    options[name] = given.pop(name)
        lm = options.get("lm")
        timeout, route, idempotent, settings, listener, strategy = in_scope(options)
        own = self._lm if lm is None else lm_of(lm)
        return ModuleOperation(
            inputs=given,
            args=args,
            module=parts.request,
            signature=parts.signature,
            functions=parts.functions,
            config={**settings, **mapping_of(options.get("config"))},
            route=route,
            timeout=timeout,
            idempotent=idempotent,
            adapter=self._adapter,
            parsing=self._parsing,
            lm=own,
            sink=None if listener is None else listener.sink_of_remote(self),
            strategy=strategy,
            needs=MODULE if own is None else MODULE | of_model(own),
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # What it is made of does not change, and a function's own state is nobody's to copy.
        twin = memo[id(self)] = copy.copy(self)
        twin._origin = None
        return twin

    def __repr__(self) -> str:
        # The values of arguments may be secrets: an address with a key in it.
        request, signature = self.remote_parts.request, self.remote_parts.signature
        shown = [repr(request.module)]
        if signature is not None:
            shown.append(repr(signature.text))
        if request.tools:
            names = (tool.name or tool.function for tool in request.tools)
            shown.append(f"tools=[{', '.join(map(str, names))}]")
        given = (request.args, request.imports, request.functions, request.modules)
        shown += [f"{name}=..." for part in given for name in part]
        if request.state is not None:
            shown.append("state=...")
        return f"{type(self).__name__}({', '.join(shown)})"


def remote(
    module: str | type[Any],
    signature: SignatureLike | None = None,
    /,
    *,
    tools: Sequence[Callable[..., Any] | str | Any] | None = None,
    imports: Mapping[str, Any] | None = None,
    state: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    args: Mapping[str, Any] | None = None,
    runtime: Dispatcher | None = None,
    lm: str | LanguageModel | None = None,
    adapter: AdapterLike | None = None,
    parsing: Parsing | None = None,
    callbacks: Sequence[Any] | None = None,
    **arguments: Any,
) -> RemoteModule:
    """Any module or retriever of DSPy's, run by real DSPy in a worker, behind the call of a dspex module.

    Args:
        module: The class or its path, `"dspy.ReAct"`. It is a part of your program: never take it from a
            client.
        signature: Anything `Signature.of` takes, for a class that is made with one.
        tools: Functions that the module's LM may call: functions of this process, sync or async, with typed
            arguments and a docstring; or, as texts, paths of functions that the worker imports. The former
            run here, while the call waits.
        imports: Arguments of the class by import paths, for what is no plain value:
            `{"interpreter_factory": "dspy:LocalInterpreter"}`.
        state: What `dump_state` gave, or the path of the JSON file that `save` wrote. A file is read again
            when it has changed.
        args: Arguments of the class whose names are taken above.
        runtime: What runs the calls; by default the runtime current at each call.
        lm: The language model to ask, as for `Runtime`; by default the runtime's.
        adapter: How prompts are laid out and replies read; by default the runtime's.
        parsing: How replies are read; by default as the adapter does it.
        callbacks: Who hears of the module's calls, here in the service; see `dspex.callbacks.BaseCallback`.
        **arguments: Arguments of the class: plain values; functions of this process, such as a `reward_fn`,
            whose calls come back here; classes; and other remote modules.

    Raises:
        SignatureError: If the signature cannot be read.
        ConfigError: If a worker could not make the module of these: an argument cannot cross
            (`module-argument`), a tool has no types (`bad-tool`), a path is none (`bad-import-path`), or
            the state is no JSON (`bad-state`).

    Example:
        ```python
        def search(query: str) -> list[str]:
            \"\"\"Passages about a query.\"\"\"
            return index.find(query)

        agent = dspex.remote("dspy.ReAct", "question -> answer", tools=[search], max_iters=5)
        agent(question="Who wrote it?").answer
        ```
    """
    from dspex.modules._remote_parts import parts_of  # with what pools need, which most programs do without

    parts = parts_of(
        module,
        None if signature is None else Signature.of(signature),
        {**(args or {}), **arguments},
        tools=tools,
        imports=imports,
        state=state,
    )
    return RemoteModule(parts, runtime=runtime, lm=lm, adapter=adapter, parsing=parsing, callbacks=callbacks)


def program(
    path: str | type[Any],
    /,
    *,
    state: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    **more: Any,
) -> RemoteModule:
    """A DSPy program of your own, run in a worker, behind the call of a dspex module.

    It may be sync (`forward`) or async (`aforward`).

    Args:
        path: The class or its path, `"my_app.rag:RAG"`.
        state: As for `remote`: what the program was optimised to.
        **more: Arguments of the class, and the other arguments of `remote`.

    Raises:
        ConfigError: As for `remote`.

    Example:
        ```python
        rag = dspex.program("my_app.rag:RAG", state="rag.json")
        rag(question="Who wrote it?").answer
        ```
    """
    return remote(path, state=state, **more)


def _result(prediction: Any) -> Any:
    return prediction["value"] if isinstance(prediction, PlainResult) else prediction
