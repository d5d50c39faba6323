"""Serve DSPy programs: the same prompts from a Rust core, and real DSPy in supervised workers.

Names load on first use, so that `import dspex` costs next to nothing and pulls in neither DSPy, pyarrow
nor pydantic.
"""

from __future__ import annotations

import sys
from importlib import import_module

from dspex._core import __version__

TYPE_CHECKING = False  # what type checkers take for true, without the import of `typing`
if TYPE_CHECKING:
    from dspex import adapters as adapters
    from dspex import callbacks as callbacks
    from dspex import compiled as compiled
    from dspex import dspy as dspy
    from dspex import errors as errors
    from dspex import lm as lm
    from dspex import metrics as metrics
    from dspex import pipelines as pipelines
    from dspex import pool as pool
    from dspex import sessions as sessions
    from dspex import signature as signature
    from dspex import stores as stores
    from dspex import streaming as streaming
    from dspex import telemetry as telemetry
    from dspex import testing as testing
    from dspex import wire as wire
    from dspex.adapters import BAMLAdapter, ChatAdapter, JSONAdapter, TwoStepAdapter, XMLAdapter
    from dspex.compiled import export, load
    from dspex.errors import DspexError
    from dspex.lm import LM
    from dspex.modules import (
        BestOfN,
        ChainOfThought,
        EvaluatedRow,
        Evaluation,
        Module,
        MultiChainComparison,
        Parallel,
        Predict,
        ReActV2,
        RemoteModule,
        RemoteOptimizer,
        from_dspy,
        majority,
        optimizer,
        program,
        remote,
    )
    from dspex.pipelines import Pipeline, branch, loop, map, parallel, pipeline, step  # noqa: A004
    from dspex.pool import Pool, PoolSpec, SyncPool
    from dspex.prediction import Completions, Prediction
    from dspex.runtime import Runtime, configure
    from dspex.signature import InputField, OutputField, Signature
    from dspex.template import Template

__all__ = [
    "LM",
    "BAMLAdapter",
    "BestOfN",
    "ChainOfThought",
    "ChatAdapter",
    "Completions",
    "DspexError",
    "EvaluatedRow",
    "Evaluation",
    "InputField",
    "JSONAdapter",
    "Module",
    "MultiChainComparison",
    "OutputField",
    "Parallel",
    "Pipeline",
    "Pool",
    "PoolSpec",
    "Predict",
    "Prediction",
    "ReActV2",
    "RemoteModule",
    "RemoteOptimizer",
    "Runtime",
    "Signature",
    "SyncPool",
    "Template",
    "TwoStepAdapter",
    "XMLAdapter",
    "__version__",
    "branch",
    "configure",
    "export",
    "from_dspy",
    "load",
    "loop",
    "majority",
    "map",
    "optimizer",
    "parallel",
    "pipeline",
    "program",
    "remote",
    "step",
]

_HOME = {
    "BAMLAdapter": "dspex.adapters",
    "BestOfN": "dspex.modules",
    "ChainOfThought": "dspex.modules",
    "ChatAdapter": "dspex.adapters",
    "Completions": "dspex.prediction",
    "DspexError": "dspex.errors",
    "EvaluatedRow": "dspex.modules",
    "Evaluation": "dspex.modules",
    "InputField": "dspex.signature",
    "JSONAdapter": "dspex.adapters",
    "LM": "dspex.lm",
    "Module": "dspex.modules",
    "MultiChainComparison": "dspex.modules",
    "OutputField": "dspex.signature",
    "Parallel": "dspex.modules",
    "Pipeline": "dspex.pipelines",
    "Pool": "dspex.pool",
    "PoolSpec": "dspex.pool",
    "Predict": "dspex.modules",
    "Prediction": "dspex.prediction",
    "ReActV2": "dspex.modules",
    "RemoteModule": "dspex.modules",
    "RemoteOptimizer": "dspex.modules",
    "Runtime": "dspex.runtime",
    "Signature": "dspex.signature",
    "SyncPool": "dspex.pool",
    "Template": "dspex.template",
    "TwoStepAdapter": "dspex.adapters",
    "XMLAdapter": "dspex.adapters",
    "branch": "dspex.pipelines",
    "configure": "dspex.runtime",
    "export": "dspex.compiled",
    "from_dspy": "dspex.modules",
    "load": "dspex.compiled",
    "loop": "dspex.pipelines",
    "majority": "dspex.modules",
    "map": "dspex.pipelines",
    "optimizer": "dspex.modules",
    "parallel": "dspex.pipelines",
    "pipeline": "dspex.pipelines",
    "program": "dspex.modules",
    "remote": "dspex.modules",
    "step": "dspex.pipelines",
}
"""Where each lazily loaded public name lives; the imports above say the same to type checkers."""

_PACKAGES = frozenset(
    {
        "adapters",
        "callbacks",
        "compiled",
        "dspy",
        "errors",
        "lm",
        "metrics",
        "pipelines",
        "pool",
        "sessions",
        "signature",
        "stores",
        "streaming",
        "telemetry",
        "testing",
        "wire",
    }
)
"""What may be written behind `dspex.` without an import of its own."""

if not TYPE_CHECKING:  # or a type checker would take every name for one that is there

    def __getattr__(name: str) -> object:
        home = _HOME.get(name)
        if home is not None:
            value = getattr(import_module(home), name)
        elif name in _PACKAGES:
            value = import_module(f"dspex.{name}")
        else:
            raise _missing(name)
        globals()[name] = value
        return value


def _missing(name: str) -> AttributeError | ImportError:
    """The error for a name that is not there, with what to use instead."""
    text = f"module 'dspex' has no attribute {name!r}"
    if name.startswith("_"):  # what tools look for; nobody reads the answer
        return AttributeError(text)
    in_an_import = sys._getframe(2).f_code.co_name == "_handle_fromlist"
    if in_an_import and _is_submodule(name):  # which is imported next, without a word
        return AttributeError(text)
    from dspex._dspy_names import advice

    instead = advice(name, (*__all__, *_PACKAGES))
    if instead and in_an_import:
        # `from dspex import name` makes an ImportError without these words of an AttributeError.
        return ImportError(f"cannot import name {name!r} from 'dspex': {instead}", name="dspex")
    return AttributeError(f"{text}: {instead}" if instead else text)


def _is_submodule(name: str) -> bool:
    from importlib.machinery import PathFinder

    return PathFinder.find_spec(f"dspex.{name}", __path__) is not None


def __dir__() -> list[str]:
    return sorted(__all__)
