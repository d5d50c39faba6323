"""Pipelines as data: lists of tuples in Python, tables in TOML and JSON.

A step is a table whose one key of these says its kind; the rest are its options:

=====================  =================================================================================
`native`               the signature of a `Predict`; other keys are settings of its model
`chain_of_thought`     that of a `ChainOfThought`
`python`               the class of a `dspex.remote`, with its `signature`; other keys are its arguments
`program`              the class of a `dspex.program`; other keys are its arguments
`call`                 a function by its import path, in a module that the caller allows
`parallel`             a list of steps, or a table of branches by key; `reduce`, a function as in `call`
`branch`               a condition, with `then` and `otherwise`
`map`                  a step, with `over`, `item`, `concurrency`
`loop`                 a step, with `until`, `at_most`
`chain`                a list of steps
=====================  =================================================================================

A tuple is the same: `("native", "question -> query", {"retry": 3})`, `("branch", condition, then,
otherwise)`. Conditions in data are expressions, never Python; nothing is imported but what `allow=` has.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from dspex import _imports
from dspex._timeouts import shown
from dspex.errors import ConfigError, DspexError, PipelineError, did_you_mean
from dspex.modules import ChainOfThought, Module, Predict, program, remote
from dspex.pipelines import _steps
from dspex.pipelines._steps import Call, Chain, Step, StepOptions, bad_step

__all__ = ["Reader", "read_file", "step_of_form"]

_OPTIONS: Final = frozenset(StepOptions.__annotations__)
_OWN: Final[Mapping[str, tuple[str, ...]]] = {
    "parallel": ("reduce",),
    "branch": ("then", "otherwise"),
    "map": ("over", "item", "concurrency"),
    "loop": ("until", "at_most"),
    "chain": (),
    "call": (),
}
"""The keys of the kinds that have their own and no others."""
_ANY: Final = ("native", "chain_of_thought", "python", "program")
"""The kinds whose other keys are settings or arguments."""
_KINDS: Final = (*_ANY, *_OWN)
_IN_TUPLES: Final[Mapping[str, tuple[str, ...]]] = {"branch": ("then", "otherwise"), "python": ("signature",)}
"""What the further items of a tuple are."""
_ONLY_IN_PYTHON: Final = frozenset(
    {"adapter", "args", "callbacks", "imports", "lm", "runtime", "state", "tools"}
)
"""What data does not say: it would name files, servers or objects."""
_PIPELINE: Final = ("name", "inputs", "outputs", "strict", "on_error", "steps")
"""The keys of a file."""


def step_of_form(form: Sequence[Any]) -> Step:
    """The step that a list or a tuple in Python says.

    Raises:
        PipelineError: If it says none: its place and what is wrong.
    """
    return Reader(None).step(form, "")


def read_file(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The data of a TOML or JSON file, by its ending.

    Raises:
        ConfigError: If it cannot be read (`bad-pipeline-file`).
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
        data = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:  # both kinds of broken text are a ValueError
        raise ConfigError(
            f"{file.name} cannot be read: {error}",
            code="bad-pipeline-file",
            hint="give the path of a TOML file, or of a JSON file that ends in .json",
        ) from error
    if not isinstance(data, Mapping):
        raise ConfigError(
            f"{file.name} holds no table",
            code="bad-pipeline-file",
            hint='write {"steps": [...]}',
        )
    return data


class Reader:
    """Makes steps of data.

    Args:
        allow: Names of modules whose functions and classes may be named, each with those below it; None for
            what a program says itself, which holds functions as they are.
    """

    def __init__(self, allow: Iterable[str] | None) -> None:
        if isinstance(allow, str):
            raise bad_step("allow must be a list of modules, not a text", f"write allow=[{allow!r}]")
        self._allow = None if allow is None else tuple(allow)

    def pipeline(self, data: Mapping[str, Any]) -> tuple[list[Step], dict[str, Any]]:
        """The steps and the options of a whole pipeline.

        Raises:
            PipelineError: If they are none: the place and what is wrong.
        """
        for key in data:
            if key not in _PIPELINE:
                raise bad_step(
                    f"a pipeline has no {key!r}",
                    f"{did_you_mean(str(key), _PIPELINE)}it has {', '.join(_PIPELINE)}",
                )
        steps = data.get("steps")
        if not isinstance(steps, list) or not steps:
            raise bad_step("steps must be a list of tables", 'write [[steps]] and native = "..."')
        inputs = data.get("inputs")
        if inputs is not None and not isinstance(inputs, list):
            raise bad_step(
                f"inputs must be a list of names, not {shown(inputs)}", 'write inputs = ["question"]'
            )
        made = [self.step(each, f"steps[{number}]") for number, each in enumerate(steps)]
        return made, {key: value for key, value in data.items() if key != "steps"}

    def step(self, form: Any, where: str) -> Step:
        """The step that a form says; `where` is its place in the data."""
        try:
            return self._step(form, where)
        except PipelineError as error:
            where = where.removeprefix(".")
            if not where or error.message.startswith(where):
                raise
            raise PipelineError(
                f"{where}: {error.message}", code=error.code, hint=error.hint, step=where
            ) from error
        except DspexError as error:  # a signature that cannot be read, a setting that is none
            if where and not getattr(error, "__notes__", None):
                error.add_note(f"in {where.removeprefix('.')} of the pipeline")
            raise

    def _step(self, form: Any, where: str) -> Step:
        if isinstance(form, tuple) and form and isinstance(form[0], str):
            form = _table(form)
        if isinstance(form, list | tuple):
            return Chain(steps=tuple(self.step(each, f"{where}[{place}]") for place, each in enumerate(form)))
        if isinstance(form, Mapping):
            return self._of_table(form, where)
        if isinstance(form, str):
            hint = f'write {{native = "{form[:40]}"}}'
            raise bad_step(f"a step must be a table or a tuple, not {shown(form)}", hint, where)
        return _steps.step_of(form)

    def _of_table(self, table: Mapping[str, Any], where: str) -> Step:
        kinds = [kind for kind in _KINDS if kind in table]
        if len(kinds) != 1:
            what = "no kind" if not kinds else f"several kinds, {', '.join(kinds)}"
            near = "".join(did_you_mean(str(key), _KINDS) for key in table if not kinds)
            raise bad_step(f"a step has {what}", f"{near}it has one of {', '.join(_KINDS)}", where)
        kind = kinds[0]
        rest = {key: value for key, value in table.items() if key != kind}
        options = {key: rest.pop(key) for key in list(rest) if key in _OPTIONS}
        if kind in _OWN:
            known = (*_OWN[kind], *sorted(_OPTIONS))
            for key in rest:
                if key not in known:
                    near = did_you_mean(str(key), known)
                    raise bad_step(f"{kind} has no {key!r}", f"{near}it has {', '.join(known)}", where)
        elif self._allow is not None:
            for key in rest.keys() & _ONLY_IN_PYTHON:
                raise bad_step(f"{key!r} cannot be said in data", "write this step in Python", where)
        if "fallback" in options:
            given = options["fallback"]
            several = given if isinstance(given, list) else [given]
            options["fallback"] = [self.step(each, f"{where}.fallback") for each in several]
        try:
            made: Step = _MAKERS[kind](self, table[kind], rest, where)
        except TypeError as error:
            raise bad_step(f"{kind} does not take that: {error}", "correct its settings", where) from error
        return made.with_options(options)

    # -- kinds --------------------------------------------------------------------------------------

    def _native(self, signature: Any, rest: dict[str, Any], where: str) -> Step:
        return _of(Predict(signature, **rest))

    def _chain_of_thought(self, signature: Any, rest: dict[str, Any], where: str) -> Step:
        return _of(ChainOfThought(signature, **rest))

    def _python(self, path: Any, rest: dict[str, Any], where: str) -> Step:
        return _of(remote(self._class(path, where), rest.pop("signature", None), **rest))

    def _program(self, path: Any, rest: dict[str, Any], where: str) -> Step:
        return _of(program(self._class(path, where), **rest))

    def _call(self, given: Any, rest: dict[str, Any], where: str) -> Step:
        return Call(target=self._function(given, where))

    def _parallel(self, given: Any, rest: dict[str, Any], where: str) -> Step:
        reduce = rest.get("reduce")
        function = None if reduce is None else self._function(reduce, f"{where}.reduce")
        if isinstance(given, Mapping):
            branches = {key: self.step(each, f"{where}.parallel.{key}") for key, each in given.items()}
            return _steps.parallel(branches, reduce=function)
        if not isinstance(given, list | tuple):
            hint = "write parallel = {docs = {...}}"
            raise bad_step("parallel must be a list or a table of steps", hint, where)
        several = [self.step(each, f"{where}.parallel[{place}]") for place, each in enumerate(given)]
        return _steps.parallel(*several, reduce=function)

    def _branch(self, condition: Any, rest: dict[str, Any], where: str) -> Step:
        if "then" not in rest:
            raise bad_step("a branch needs a step as then", 'write then = {native = "..."}', where)
        then = self.step(rest["then"], f"{where}.then")
        otherwise = rest.get("otherwise")
        return _steps.branch(
            condition, then, None if otherwise is None else self.step(otherwise, f"{where}.otherwise")
        )

    def _map(self, step: Any, rest: dict[str, Any], where: str) -> Step:
        if "over" not in rest:
            raise bad_step("a map needs over, the field that has the items", 'write over = "docs"', where)
        return _steps.map(self.step(step, f"{where}.map"), **rest)

    def _loop(self, step: Any, rest: dict[str, Any], where: str) -> Step:
        for name, example in (("until", '"ok"'), ("at_most", "3")):
            if name not in rest:
                raise bad_step(f"a loop needs {name}", f"write {name} = {example}", where)
        return _steps.loop(self.step(step, f"{where}.loop"), **rest)

    def _chain(self, given: Any, rest: dict[str, Any], where: str) -> Step:
        if not isinstance(given, list | tuple) or not given:
            raise bad_step("a chain must be a list of steps", "write chain = [{...}, {...}]", where)
        return self._step(list(given), f"{where}.chain")

    def _function(self, given: Any, where: str) -> Any:
        """A function; in data, the one at an import path that is allowed."""
        if not isinstance(given, str) and self._allow is None:
            return given
        module, colon, name = given.partition(":") if isinstance(given, str) else ("", "", "")
        if not (colon and module and name.isidentifier() and not name.startswith("_")):
            raise bad_step(f"{shown(given)} is no path of a function", 'write "package.module:name"', where)
        self._check(module, where)
        found = _imports.find(given)
        # What an allowed module has itself imported is not thereby allowed.
        home = getattr(found, "__module__", None)
        self._check(home if isinstance(home, str) else module, where)
        return found

    def _check(self, module: str, where: str, also: tuple[str, ...] = ()) -> None:
        """Refuse a module that may not be imported."""
        allowed = (*(self._allow or ()), *also)
        if not any(module == name or module.startswith(f"{name}.") for name in allowed):
            raise PipelineError(
                f"{module!r} is not among the modules that may be imported for a pipeline",
                code="import-not-allowed",
                hint=f'allow it where the pipeline is read: allow=["{module.partition(".")[0]}"]',
                step=where,
            )

    def _class(self, path: Any, where: str) -> Any:
        """The path of a class that a worker imports."""
        if self._allow is not None:
            self._check(str(path).replace(":", "."), where, ("dspy",))
        return path


_MAKERS: Final[Mapping[str, Callable[[Reader, Any, dict[str, Any], str], Step]]] = {
    kind: getattr(Reader, f"_{kind}") for kind in _KINDS
}


def _of(module: Module) -> Step:
    return Call(target=module)


def _table(form: tuple[Any, ...]) -> dict[str, Any]:
    """A tuple as a table."""
    kind, *rest = form
    if kind not in _KINDS:
        raise bad_step(
            f"a step has no kind {kind!r}", f"{did_you_mean(kind, _KINDS)}it has one of {', '.join(_KINDS)}"
        )
    options = dict(rest.pop()) if len(rest) > 1 and _is_options(kind, rest[-1]) else {}
    if not rest:
        raise bad_step(f"the step ({kind!r},) says nothing else", f'write ("{kind}", ..., {{}})')
    names = (kind, *_IN_TUPLES.get(kind, ()))
    if len(rest) > len(names):
        what = f"a {kind} has {len(names)} parts and options, not {len(rest)}"
        raise bad_step(what, f'write ("{kind}", ..., {{}})')
    return {**dict(zip(names, rest, strict=False)), **options}


def _is_options(kind: str, last: Any) -> bool:
    """Whether the last item of a tuple is options, and not the table of a step."""
    return isinstance(last, Mapping) and not any(name in _KINDS for name in last)
