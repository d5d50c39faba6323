"""Serve DSPy programs: the same prompts from a Rust core, and real DSPy in supervised workers.

Names load on first use, so that `import dspex` costs next to nothing and pulls in neither DSPy, pyarrow
nor pydantic.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dspex._core import __version__

if TYPE_CHECKING:
    from dspex.adapters import BAMLAdapter, ChatAdapter, JSONAdapter, TwoStepAdapter, XMLAdapter
    from dspex.errors import DspexError
    from dspex.lm import LM
    from dspex.modules import Predict
    from dspex.pool import Pool, PoolSpec, SyncPool
    from dspex.prediction import Completions, Prediction
    from dspex.runtime import Runtime, configure
    from dspex.signature import InputField, OutputField, Signature
    from dspex.template import Template

__all__ = [
    "LM",
    "BAMLAdapter",
    "ChatAdapter",
    "Completions",
    "DspexError",
    "InputField",
    "JSONAdapter",
    "OutputField",
    "Pool",
    "PoolSpec",
    "Predict",
    "Prediction",
    "Runtime",
    "Signature",
    "SyncPool",
    "Template",
    "TwoStepAdapter",
    "XMLAdapter",
    "__version__",
    "configure",
]

_HOME = {
    "BAMLAdapter": "dspex.adapters",
    "ChatAdapter": "dspex.adapters",
    "Completions": "dspex.prediction",
    "DspexError": "dspex.errors",
    "InputField": "dspex.signature",
    "JSONAdapter": "dspex.adapters",
    "LM": "dspex.lm",
    "OutputField": "dspex.signature",
    "Pool": "dspex.pool",
    "PoolSpec": "dspex.pool",
    "Predict": "dspex.modules",
    "Prediction": "dspex.prediction",
    "Runtime": "dspex.runtime",
    "Signature": "dspex.signature",
    "SyncPool": "dspex.pool",
    "Template": "dspex.template",
    "TwoStepAdapter": "dspex.adapters",
    "XMLAdapter": "dspex.adapters",
    "configure": "dspex.runtime",
}
"""Where each lazily loaded public name lives; the imports above say the same to type checkers."""


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'dspex' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
