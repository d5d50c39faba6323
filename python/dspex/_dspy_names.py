"""What to use for a name that DSPy has and dspex has not. Read only when such a name is asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Final

__all__ = ["advice"]

_WORKER: Final = (
    'it is DSPy\'s, and runs in a worker: `dspex.remote("dspy.{0}", ...)`, see docs/remote_modules.md'
)
_OPTIMIZER: Final = (
    "programs are optimised with DSPy itself, `dspy.{0}`; its demos go into dspex.Predict(demos=...), a "
    'whole saved program into a worker: `dspex.program("my_app.rag:RAG", state="program.json")`'
)
_TYPE: Final = "signatures of dspex take the type of DSPy itself: `import dspy`, then `dspy.{0}`"
_RUNTIME: Final = (
    "settings belong to a runtime: `with dspex.Runtime(lm=..., adapter=...):`, or dspex.configure(...)"
)
_ASYNC: Final = "a module of dspex is both: `qa(...)` and `await qa.acall(...)`"
_CACHE: Final = "dspex caches no replies, on either route"
_USAGE: Final = "each prediction has its own: `prediction.usage`, `prediction.timings`, `prediction.repairs`"

_ADVICE: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        (
            "CodeAct", "ColBERTv2", "Embeddings", "Flex", "KNN", "ProgramOfThought", "RLM", "ReAct",
            "Refine", "Retrieve",
        ),
        _WORKER,
    ),
    **dict.fromkeys(
        (
            "AvatarOptimizer", "BetterTogether", "BootstrapFewShot", "BootstrapFewShotWithOptuna",
            "BootstrapFewShotWithRandomSearch", "BootstrapFinetune", "BootstrapRS", "COPRO", "Ensemble",
            "Evaluate", "GEPA", "InferRules", "KNNFewShot", "LabeledFewShot", "MIPROv2", "SIMBA",
        ),
        _OPTIMIZER,
    ),
    **dict.fromkeys(
        (
            "Audio", "Code", "File", "History", "Image", "Reasoning", "Tool", "ToolCallResults", "ToolCalls",
            "Type",
        ),
        _TYPE,
    ),
    **dict.fromkeys(("context", "settings", "load_settings"), _RUNTIME),
    **dict.fromkeys(("asyncify", "syncify"), _ASYNC),
    **dict.fromkeys(("configure_cache", "cache"), _CACHE),
    **dict.fromkeys(("inspect_history", "track_usage"), _USAGE),
    "Example": 'a demo is a mapping, {{"question": ..., "answer": ...}}, or a dspy.Example as it is',
    "Adapter": "use dspex.ChatAdapter, JSONAdapter or XMLAdapter; under DSPy, those of dspex.dspy",
    "AdapterParseError": "a reply that cannot be read is a dspex.errors.ReplyError",
    "BaseLM": "an LM of your own has the methods of dspex.lm.LanguageModel",
    "DSPyError": "everything that dspex raises is a dspex.DspexError",
    "load": 'a worker loads what was saved: `dspex.program("my_app.rag:RAG", state="program.json")`',
    "streamify": "stream any module: `async for event in program.astream(...)`, see docs/streaming.md",
}  # fmt: skip


def advice(name: str, known: Iterable[str]) -> str:
    """What to use in the place of a name that dspex has not, or nothing.

    Args:
        name: The name.
        known: Those that it has.
    """
    from dspex import errors

    if name in errors.__all__:
        return f"it is dspex.errors.{name}"
    if name in _ADVICE:
        return _ADVICE[name].format(name)
    dspy = sys.modules.get("dspy")  # not imported for it: half a second for a slip is too much
    if not name.startswith("_") and hasattr(dspy, name):
        return f"it is DSPy's: `import dspy`, then `dspy.{name}`"
    return errors.did_you_mean(name, known).strip()
