"""A pipeline as data: the way back from `Pipeline.from_config`, for what data can say.

What is written is read once more and compared, step by step and by fingerprint: so a setting that data has no
word for is an error, and is not lost.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dspex.errors import PipelineError
from dspex.modules import ChainOfThought, Module, Predict, RemoteModule
from dspex.pipelines._cache import StepCache
from dspex.pipelines._compile import compile_plan
from dspex.pipelines._conditions import Condition
from dspex.pipelines._fingerprints import fingerprints_of
from dspex.pipelines._forms import Reader
from dspex.pipelines._steps import Branch, Call, Chain, Loop, Map, Options, Parallel, Step
from dspex.router import Retry

if TYPE_CHECKING:
    from dspex.pipelines._pipeline import Pipeline

__all__ = ["written"]

Table = dict[str, Any]


def written(pipeline: Pipeline, *, on_error: str) -> Table:
    """The data that says this pipeline; see `Pipeline.to_config`."""
    inputs, outputs, strict = pipeline._settings
    if inputs is not None and any(kind is not Any for kind in inputs.values()):
        raise _unsaid("the inputs", "have types, and data gives their names alone", "")
    if pipeline._options or pipeline._own_callbacks:
        raise _unsaid(pipeline.name, "has options of its own", "")
    said: Table = {"name": pipeline.name}
    said |= {} if inputs is None else {"inputs": list(inputs)}
    said |= {} if outputs is None else {"outputs": list(outputs)}
    said |= {"strict": True} if strict else {}
    said |= {"on_error": on_error} if on_error != "fail" else {}
    writer = _Writer()
    said["steps"] = [writer.step(step, f"steps[{place}]") for place, step in enumerate(pipeline._given)]
    steps, _ = Reader(writer.modules).pipeline(said)
    again = fingerprints_of(compile_plan(tuple(steps), inputs=inputs, outputs=outputs, strict=strict))
    for path, fingerprint in pipeline.fingerprints.items():
        if again.get(path) != fingerprint:
            raise _unsaid(path, "has settings that data does not say, such as demos or instructions", path)
    return said


class _Writer:
    """Writes steps, and notes the modules that whoever reads them has to allow."""

    def __init__(self) -> None:
        self.modules: set[str] = set()

    def step(self, step: Step, where: str) -> Table:
        """The table of a step; `where` is its place."""
        options = self._options(step.options, where)
        if isinstance(step, Call):
            return {**self._call(step.target, where), **options}
        if isinstance(step, Chain):
            steps = [self.step(each, f"{where}.chain[{place}]") for place, each in enumerate(step.steps)]
            return {"chain": steps, **options}
        if isinstance(step, Parallel):
            return {**self._parallel(step, where), **options}
        if isinstance(step, Branch):
            said = {
                "branch": _condition(step.condition, where),
                "then": self.step(step.then, f"{where}.then"),
            }
            if step.otherwise is not None:
                said["otherwise"] = self.step(step.otherwise, f"{where}.otherwise")
            return {**said, **options}
        if isinstance(step, Map):
            inside = self.step(step.step, f"{where}.map")
            own = {"over": step.over, "item": step.item, "concurrency": step.concurrency}
            return {"map": inside, **own, **options}
        assert isinstance(step, Loop)  # noqa: S101 - the last kind
        until = _condition(step.until, where)
        inside = self.step(step.step, f"{where}.loop")
        return {"loop": inside, "until": until, "at_most": step.at_most, **options}

    def _parallel(self, step: Parallel, where: str) -> Table:
        keys = [key for key, _ in step.branches]
        said: Table
        if None not in keys:
            said = {
                "parallel": {
                    str(key): self.step(each, f"{where}.parallel.{key}") for key, each in step.branches
                }
            }
        elif any(key is not None for key in keys):
            raise _unsaid(where, "has branches with keys and without", where)
        else:
            branches = [each for _, each in step.branches]
            said = {
                "parallel": [
                    self.step(each, f"{where}.parallel[{place}]") for place, each in enumerate(branches)
                ]
            }
        if step.reduce is not None:
            said["reduce"] = self._path(step.reduce, f"{where}.reduce")
        return said

    def _call(self, target: Callable[..., Any], where: str) -> Table:
        if not isinstance(target, Module):
            return {"call": self._path(target, where)}
        if target._options or target._own_callbacks:
            raise _unsaid(where, "has options or callbacks of its own", where)
        if isinstance(target, RemoteModule):
            return self._remote(target, where)
        if type(target) is Predict:
            return {"native": target.signature.text, **_settings(target, where)}
        if type(target) is ChainOfThought:
            signature = target.predict.signature
            asked = signature.delete(next(iter(signature.output_fields)))
            return {"chain_of_thought": asked.text, **_settings(target.predict, where)}
        raise _unsaid(where, f"is a {type(target).__name__}, for which data has no word", where)

    def _remote(self, module: RemoteModule, where: str) -> Table:
        parts = module.remote_parts
        if module._lm is not None or module._runtime is not None:
            raise _unsaid(where, "has a model or a runtime of its own", where)
        path = parts.request.module
        if not path.startswith("dspy."):
            self.modules.add(path.partition(":")[0] if ":" in path else path.rpartition(".")[0])
        if parts.signature is None:
            return {"program": path, **_plain(parts.request.args, where)}
        args = {name: value for name, value in parts.request.args.items() if name != "signature"}
        return {"python": path, "signature": parts.signature.text, **_plain(args, where)}

    def _path(self, function: Callable[..., Any], where: str) -> str:
        module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", "")
        found = getattr(sys.modules.get(module), name, None) if name.isidentifier() else None
        if found is not function or name.startswith("_") or module == "__main__":
            raise _unsaid(where, f"is {name or function!r}, which no import path finds", where)
        self.modules.add(module)
        return f"{module}:{name}"

    def _options(self, options: Options, where: str) -> Table:
        said: Table = {}
        if options.name is not None:
            said["name"] = options.name
        if options.inputs is not None:
            said["inputs"] = dict(options.inputs)
        if options.outputs is not None and options.renames is not None:
            raise _unsaid(where, "has outputs and other names for them", where)
        if options.renames is not None:
            said["outputs"] = dict(options.renames)
        elif options.outputs is not None:
            said["outputs"] = list(options.outputs)
        if options.pure:
            said["pure"] = True
        if options.thread is not None:
            said["thread"] = options.thread
        if options.timeout is not None:
            said["timeout"] = options.timeout
        if options.retry is not None:
            if options.retry != Retry(attempts=options.retry.attempts):
                raise _unsaid(where, "has a Retry of its own, and data gives a count", where)
            said["retry"] = options.retry.attempts
        if options.fallback:
            said["fallback"] = [self.step(each, f"{where}.fallback") for each in options.fallback]
        if options.cache is not None:
            said["cache"] = _cache(options.cache, where)
        return said


def _settings(predictor: Predict, where: str) -> Table:
    if predictor._lm is not None or predictor._runtime is not None or predictor._own_callbacks:
        raise _unsaid(where, "has a model, a runtime or callbacks of its own", where)
    said = _plain(predictor.config, where)
    if predictor.validate != "strict":
        said["validate"] = predictor.validate
    if predictor.parsing is not None:
        said["parsing"] = predictor.parsing
    return said


def _condition(condition: Condition | bool, where: str) -> str | bool:
    if isinstance(condition, bool):
        return condition
    if not condition.is_expression:
        raise _unsaid(where, f"has {condition.text} as its condition, and data has expressions", where)
    return condition.text


def _cache(cache: StepCache, where: str) -> bool | float:
    usual = StepCache(ttl=cache._ttl)
    if cache._max != usual._max:
        raise _unsaid(where, "has a StepCache of its own, and data gives True or seconds", where)
    return True if cache._ttl is None else cache._ttl


def _plain(values: Mapping[str, Any], where: str) -> Table:
    """Values that TOML and JSON have."""
    said = {name: value for name, value in values.items() if value is not None}
    try:
        same = json.loads(json.dumps(said, allow_nan=False)) == said
    except (TypeError, ValueError):
        same = False
    if not same:
        raise _unsaid(where, f"has settings that are no data: {', '.join(said)}", where)
    return said


def _unsaid(what: str, why: str, step: str) -> PipelineError:
    return PipelineError(
        f"{what} {why}",
        code="not-as-data",
        hint="data says functions by import path, conditions as expressions, and plain settings; "
        "keep this step in Python",
        step=step,
    )
