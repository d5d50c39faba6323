"""Pipelines: steps that are compiled before they run, and resumed after a crash.

::

    pipeline(...)                                    compiles steps to a `Pipeline`
    step, parallel, branch, map, loop, a | b, a & b  say what the steps are

See docs/pipelines.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex._lazy import names_of

if TYPE_CHECKING:
    from dspex.pipelines._cache import StepCache
    from dspex.pipelines._explain import Explanation
    from dspex.pipelines._pipeline import Pipeline, pipeline
    from dspex.pipelines._profile import Profile
    from dspex.pipelines._result import RunResult, Status, StepContext, StepRun
    from dspex.pipelines._steps import Step, StepOptions, branch, loop, map, parallel, step  # noqa: A004
    from dspex.pipelines._warning import PipelineWarning

_HOMES = {
    "Explanation": "_explain",
    "Pipeline": "_pipeline",
    "PipelineWarning": "_warning",
    "Profile": "_profile",
    "RunResult": "_result",
    "Status": "_result",
    "Step": "_steps",
    "StepCache": "_cache",
    "StepContext": "_result",
    "StepOptions": "_steps",
    "StepRun": "_result",
    "branch": "_steps",
    "loop": "_steps",
    "map": "_steps",
    "parallel": "_steps",
    "pipeline": "_pipeline",
    "step": "_steps",
}

__all__ = [
    "Explanation",
    "Pipeline",
    "PipelineWarning",
    "Profile",
    "RunResult",
    "Status",
    "Step",
    "StepCache",
    "StepContext",
    "StepOptions",
    "StepRun",
    "branch",
    "loop",
    "map",
    "parallel",
    "pipeline",
    "step",
]

if not TYPE_CHECKING:  # or a type checker would take every name for one that is there
    __getattr__ = names_of(__name__, {name: f"{__name__}.{home}" for name, home in _HOMES.items()})


def __dir__() -> list[str]:
    return sorted(__all__)
