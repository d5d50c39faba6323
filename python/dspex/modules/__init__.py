"""Modules: what a service calls. They check the inputs, make an operation and hand it to the runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex._lazy import names_of
from dspex.modules._module import Module
from dspex.modules._predict import Predict

if TYPE_CHECKING:
    from dspex.modules._batch_plan import BatchOptions
    from dspex.modules._best_of_n import BestOfN
    from dspex.modules._chain_of_thought import ChainOfThought
    from dspex.modules._evaluation import EvaluatedRow, Evaluation
    from dspex.modules._from_dspy import from_dspy
    from dspex.modules._majority import majority
    from dspex.modules._metric_calls import OptimizerProgress
    from dspex.modules._multi_chain_comparison import MultiChainComparison
    from dspex.modules._optimizer import RemoteOptimizer, optimizer
    from dspex.modules._parallel import Parallel
    from dspex.modules._react_v2 import ReActV2
    from dspex.modules._remote import RemoteModule, program, remote
    from dspex.modules._stream import AsyncModuleStream, ModuleStream

__all__ = [
    "AsyncModuleStream",
    "BatchOptions",
    "BestOfN",
    "ChainOfThought",
    "EvaluatedRow",
    "Evaluation",
    "Module",
    "ModuleStream",
    "MultiChainComparison",
    "OptimizerProgress",
    "Parallel",
    "Predict",
    "ReActV2",
    "RemoteModule",
    "RemoteOptimizer",
    "from_dspy",
    "majority",
    "optimizer",
    "program",
    "remote",
]

__getattr__ = names_of(
    __name__,
    {
        "AsyncModuleStream": "dspex.modules._stream",
        "BatchOptions": "dspex.modules._batch_plan",
        "BestOfN": "dspex.modules._best_of_n",
        "ChainOfThought": "dspex.modules._chain_of_thought",
        "EvaluatedRow": "dspex.modules._evaluation",
        "Evaluation": "dspex.modules._evaluation",
        "ModuleStream": "dspex.modules._stream",
        "MultiChainComparison": "dspex.modules._multi_chain_comparison",
        "OptimizerProgress": "dspex.modules._metric_calls",
        "Parallel": "dspex.modules._parallel",
        "ReActV2": "dspex.modules._react_v2",
        "RemoteModule": "dspex.modules._remote",
        "RemoteOptimizer": "dspex.modules._optimizer",
        "from_dspy": "dspex.modules._from_dspy",
        "majority": "dspex.modules._majority",
        "optimizer": "dspex.modules._optimizer",
        "program": "dspex.modules._remote",
        "remote": "dspex.modules._remote",
    },
)
