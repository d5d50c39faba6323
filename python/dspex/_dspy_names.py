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
    'it works in a worker: `dspex.optimizer("dspy.{0}", metric=...).compile(program, trainset=...)`, '
    "see docs/compiled_programs.md"
)
_WITH_DSPY: Final = (
    "it is DSPy's own, `dspy.{0}`; `dspex.from_dspy(compiled)` is the native program, and "
    "`program.load(path)` reads what was saved: see docs/compiled_programs.md"
)
_TYPE: Final = "signatures of dspex take the type of DSPy itself: `import dspy`, then `dspy.{0}`"
_RUNTIME: Final = (
    "settings belong to a runtime: `with dspex.Runtime(lm=..., adapter=...):`, or dspex.configure(...)"
)
_ASYNC: Final = "a module of dspex is both: `qa(...)` and `await qa.acall(...)`"
_CACHE: Final = 'dspex.LM(..., cache="memory") or cache="disk" keeps answers: see dspex.lm.Cache'
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
            "AvatarOptimizer", "BootstrapFewShot", "BootstrapFewShotWithOptuna",
            "BootstrapFewShotWithRandomSearch", "BootstrapRS", "COPRO", "GEPA", "InferRules",
            "LabeledFewShot", "MIPROv2", "SIMBA",
        ),
        _OPTIMIZER,
    ),
    **dict.fromkeys(("BetterTogether", "BootstrapFinetune", "Ensemble", "KNNFewShot"), _WITH_DSPY),
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
    "BaseCallback": "it is dspex.callbacks.BaseCallback; DSPy's own will do too",
    "BaseLM": "an LM of your own has the methods of dspex.lm.LanguageModel",
    "DSPyError": "everything that dspex raises is a dspex.DspexError",
    "Evaluate": "any module evaluates itself: `program.evaluate(devset, metric)`, see docs/evaluation.md",
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
