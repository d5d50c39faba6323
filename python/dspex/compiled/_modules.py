"""Modules as data, and modules made of that.

Data can say a `Predict`, a `ChainOfThought`, a `MultiChainComparison`, and a `Module` of one's own whose
`forward` passes values from one part to the next. What else runs code of the service (tools, rewards, a class
in a worker) is refused with its reason.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from dspex.adapters import Adapter, ChatAdapter, JSONAdapter, XMLAdapter
from dspex.compiled._document import (
    AdapterPart,
    ChainOfThoughtPart,
    ComparisonPart,
    ItemsPart,
    NamedPart,
    PredictPart,
    ProgramPart,
    refused,
)
from dspex.compiled._flow import Program, flow_problems
from dspex.compiled._forward import flow_of
from dspex.compiled._signatures import part_of, signature_of
from dspex.compiled._types import TypeReader, TypeTable, cannot_export
from dspex.errors import ConfigError, DspexError
from dspex.modules import ChainOfThought, Module, MultiChainComparison, Predict
from dspex.modules._state import SAMPLING, lm_state, plain_rows, sampling_lm

if TYPE_CHECKING:
    from dspex.compiled._document import ModulePart, Parts
    from dspex.signature import Signature

__all__ = ["Reader", "Writer"]

_ADAPTERS: Final[Mapping[str, type[Adapter]]] = {"chat": ChatAdapter, "json": JSONAdapter, "xml": XMLAdapter}


class Writer:
    """Describes the modules of a program.

    Args:
        adapter: That of predictors which have none of their own.
        dialect: The version of DSPy whose prompts the hashes are of.
    """

    def __init__(self, adapter: Adapter, dialect: str) -> None:
        self.types = TypeTable()
        self._adapter = adapter
        self._dialect = dialect
        self._seen: dict[int, str] = {}

    def part(self, at: str, module: Any) -> ModulePart:
        """A module as data.

        Raises:
            ConfigError: If it is none (`program-export`).
        """
        first = self._seen.setdefault(id(module), at)
        if first != at:
            raise cannot_export(
                at, f"it is the module at {first} again", "give each place a module of its own"
            )
        kind = type(module)
        if kind is Predict:
            return self._predict(at, module)
        if kind is ChainOfThought:
            return ChainOfThoughtPart(
                module="ChainOfThought", predict=self._predict(f"{at}.predict", module.predict)
            )
        if kind is MultiChainComparison:
            predict = self._predict(f"{at}.predict", module.predict)
            return ComparisonPart(module="MultiChainComparison", attempts=module.M, predict=predict)
        if kind is Program:
            parts = self._parts(at, module)
            return ProgramPart(module="Program", name=module._name, parts=parts, flow=module._flow)
        if isinstance(module, Module) and not kind.__module__.startswith("dspex."):
            parts = self._parts(at, module)
            return ProgramPart(module="Program", name=kind.__name__, parts=parts, flow=flow_of(at, module))
        why = (
            f"a {kind.__name__} runs code of the service" if isinstance(module, Module) else "it is no module"
        )
        raise cannot_export(at, why, "export the modules inside it, or save the state (program.save)")

    def _parts(self, at: str, module: Module) -> dict[str, Parts]:
        return {
            name: self._tree(f"{at}.{name}", value)
            for name, value in vars(module).items()
            if _has_modules(value)
        }

    def _tree(self, at: str, value: Any) -> Parts:
        if isinstance(value, list | tuple):
            items = [self._tree(f"{at}[{place}]", item) for place, item in enumerate(value)]
            return ItemsPart(module="list", items=items)
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                raise cannot_export(at, "a key of it is no text", "give its modules names")
            named = {key: self._tree(f"{at}[{key!r}]", item) for key, item in value.items()}
            return NamedPart(module="dict", items=named)
        return self.part(at, value)

    def _predict(self, at: str, predictor: Predict) -> PredictPart:
        if type(predictor) is not Predict:
            raise cannot_export(at, f"it is a {type(predictor).__name__}", "use dspex.Predict itself")
        options = predictor._options
        settings = {**predictor.config, **options.get("config", {})}
        if unknown := sorted(settings.keys() - SAMPLING):
            raise cannot_export(
                at,
                f"its settings {', '.join(unknown)} say more than how a model samples",
                "give them to the language model of the service: dspex.LM(..., name=value)",
            )
        adapter = predictor.adapter or self._adapter
        if predictor.parsing is not None:
            adapter = adapter.with_parsing(predictor.parsing)
        demos = plain_rows(at, options.get("demos", predictor.demos))
        return PredictPart(
            module="Predict",
            signature=part_of(at, predictor.signature, self.types),
            demos=demos,
            settings=settings,
            adapter=_adapter_part(at, adapter, self._dialect),
            validation=predictor.validate,
            lm=lm_state(options.get("lm", predictor.lm)),
            prompt=_prompt_hash(at, adapter, self._dialect, predictor.signature, demos),
        )


def _has_modules(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_has_modules, value))
    if isinstance(value, dict):
        return any(map(_has_modules, value.values()))
    return isinstance(value, Module)


def _adapter_part(at: str, adapter: Adapter, dialect: str) -> AdapterPart:
    if adapter.layout not in _ADAPTERS:
        raise cannot_export(
            at, f"its adapter {adapter.layout!r} is DSPy's alone", 'use "chat", "json" or "xml"'
        )
    if adapter.dialect not in (None, dialect):
        raise cannot_export(
            at,
            f"its adapter writes the prompts of {adapter.dialect}",
            f"export with dialect={adapter.dialect!r}",
        )
    return AdapterPart(
        layout=adapter.layout,  # type: ignore[arg-type]
        parsing=adapter.parsing,
        markers=adapter.markers,
        use_native_function_calling=adapter.use_native_function_calling,
        parallel_tool_calls=adapter.parallel_tool_calls,
    )


def _prompt_hash(
    at: str, adapter: Adapter, dialect: str, signature: Signature, demos: list[dict[str, Any]]
) -> str:
    """The hash of the messages of a call whose inputs are their own names in braces."""
    inputs = {name: f"{{{name}}}" for name in signature.input_fields}
    try:
        messages = adapter.compile(signature, dialect).render(inputs, demos)
    except DspexError as error:
        raise cannot_export(at, f"its prompt cannot be written: {error.message}", error.hint or "") from error
    text = json.dumps(messages, ensure_ascii=False, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Reader:
    """Makes the modules that data describes.

    Args:
        source: The file's name, for errors.
        types: Makes its types.
        dialect: The version of DSPy whose prompts it was compiled for.
        lm: Whether predictors get the language models that the data names.
    """

    def __init__(self, source: str, types: TypeReader, dialect: str, *, lm: bool) -> None:
        self._source = source
        self._types = types
        self._dialect = dialect
        self._lm = lm

    def module(self, at: str, part: Parts) -> Any:
        """A module, or a list or dict of modules.

        Raises:
            ConfigError: If the data does not fit together (`program-file`), or would not give the prompts
                that it was exported with (`program-prompts`).
        """
        if isinstance(part, PredictPart):
            return self._predict(at, part)
        if isinstance(part, ChainOfThoughtPart):
            return _around(ChainOfThought, self._predict(f"{at}.predict", part.predict))
        if isinstance(part, ComparisonPart):
            module = _around(MultiChainComparison, self._predict(f"{at}.predict", part.predict))
            module.M = part.attempts
            *_, module.last_key = module.predict.signature.output_fields
            return module
        if isinstance(part, ItemsPart):
            return [self.module(f"{at}.items[{place}]", each) for place, each in enumerate(part.items)]
        if isinstance(part, NamedPart):
            return {key: self.module(f"{at}.items[{key!r}]", each) for key, each in part.items.items()}
        if problems := flow_problems(part.flow):
            raise refused(self._source, [f"{at}.flow.{problem}" for problem in problems])
        parts = {name: self.module(f"{at}.parts.{name}", each) for name, each in part.parts.items()}
        return self._program(at, part, parts)

    def _program(self, at: str, part: ProgramPart, parts: dict[str, Any]) -> Program:
        if taken := sorted(name for name in parts if name.startswith("_") or hasattr(Program, name)):
            raise refused(self._source, [f"{at}: a part cannot be called {name!r}" for name in taken])
        program = Program(part.name, parts, part.flow)
        for place, step in enumerate(part.flow.steps):
            try:
                found = program._part(step)
            except (AttributeError, LookupError, TypeError):
                found = None
            if not isinstance(found, Module):
                way = ".".join(map(str, step.call))
                raise refused(self._source, [f"{at}.flow.steps[{place}]: there is no module {way!r}"])
        return program

    def _predict(self, at: str, part: PredictPart) -> Predict:
        given = part.adapter.model_dump()
        adapter = _ADAPTERS[given.pop("layout")](**given, dialect=self._dialect)
        signature = signature_of(f"{at}.signature", part.signature, self._types, self._source)
        if unknown := sorted(part.settings.keys() - SAMPLING):
            raise refused(
                self._source, [f"{at}.settings: {name} is none that a file may have" for name in unknown]
            )
        try:
            found = _prompt_hash(at, adapter, self._dialect, signature, part.demos)
        except ConfigError as error:
            raise refused(self._source, [error.message]) from error
        if found != part.prompt:
            raise ConfigError(
                f"{self._source}: the prompt of {at} is not the one that the program was compiled with",
                code="program-prompts",
                hint="install the dspex that exported it, or export it anew with this one and evaluate it",
            )
        try:
            return Predict(
                signature,
                demos=part.demos,
                lm=sampling_lm(part.lm) if self._lm and part.lm is not None else None,
                validate=part.validation,
                adapter=adapter,
                **part.settings,  # type: ignore[arg-type]
            )
        except DspexError as error:
            raise refused(self._source, [f"{at}: {error.message}"]) from error


def _around(cls: type[Any], predict: Predict) -> Any:
    """A module around a predictor that has its whole signature already."""
    module: Any = object.__new__(cls)
    module.predict = predict
    return module
