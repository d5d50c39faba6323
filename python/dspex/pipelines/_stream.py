"""What a pipeline that is streamed tells: its steps, and what they tell themselves.

::

    Pipeline.astream --> AsyncModuleStream, with a `StepTeller` in the Scope of the run
                                                |  listening(path)     for each step
                                                v
                              Listener of the step --its events, in StepEvents--> the one queue --> reader

A stream is an ordinary run that tells what it hears, as that of any module is (`modules/_stream.py`). Reading
slowly slows the run down: a step begins when there is room for the event that says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dspex._event_queue import EventQueue
from dspex.errors import ConfigError, did_you_mean
from dspex.events import StepEnded, StepEvent, StepRestarted, StepStarted
from dspex.modules import Module
from dspex.modules._listening import Listener
from dspex.modules._tree import ModuleNode
from dspex.pipelines._paths import nodes_at
from dspex.pipelines._result import StepRun

if TYPE_CHECKING:
    from dspex.pipelines._pipeline import Pipeline

__all__ = ["StepTeller"]


class StepTeller(Listener):
    """Hears of one run of a pipeline; see `dspex.pipelines._run.Teller`.

    Args:
        pipeline: The pipeline.
        wanted: The fields to tell of, `"answer"` of every step, `"draft.answer"` of the one with that path;
            None for all.
        restart: Whether a step that has told something may be tried again.

    Raises:
        ConfigError: If no step gives such a field (`bad-stream`).
    """

    def __init__(self, pipeline: Pipeline, wanted: Sequence[str] | None, *, restart: bool) -> None:
        super().__init__(ModuleNode(), None)
        self.pipeline = pipeline
        self._fields = None if wanted is None else frozenset(wanted)
        self._restart = restart
        self._told: set[str] = set()
        if wanted is not None:
            _check(pipeline, wanted)

    async def started(self, path: str) -> None:
        """A step begins."""
        await self.queue.put([StepStarted(path)])

    async def ended(self, step: StepRun, outputs: Mapping[str, Any]) -> None:
        """A step has ended well."""
        await self.queue.put([StepEnded(step.path, step.status, step.seconds, dict(outputs))])

    def failed(self, step: StepRun, error: BaseException | None) -> None:
        """A step has ended otherwise. Nothing waits here: the run is on its way out."""
        self.queue.add(
            StepEnded(step.path, step.status, step.seconds, {}, "" if error is None else str(error))
        )

    def listening(self, path: str, target: Any) -> Listener:
        """Hears of what the step tells."""
        module = target if isinstance(target, Module) else ModuleNode()
        return _StepListener(self, path, module)

    def restarts(self, path: str) -> bool:
        """Whether a step may be tried again: it has told nothing, or its reader hears that it restarts."""
        told = {each for each in self._told if each == path or each.startswith((f"{path}/", f"{path}["))}
        if not told:
            return True
        if self._restart:
            self._told -= told
            self.queue.add(StepRestarted(path))
        return self._restart

    def wanted(self, path: str, field: str | None) -> bool:
        """Whether to tell of this field of the step; of what is of no field, always."""
        fields = self._fields
        return fields is None or field is None or field in fields or f"{path}.{field}" in fields

    def told(self, path: str) -> None:
        """The step has told something."""
        self._told.add(path)


class _StepListener(Listener):
    """Hears of one step."""

    def __init__(self, teller: StepTeller, path: str, module: ModuleNode) -> None:
        super().__init__(module, None, _StepQueue(teller, path))
        self._teller = teller

    def attach(self, task: asyncio.Task[Any]) -> None:
        """See `Listener.attach`."""
        self._teller.attach(task)


class _StepQueue(EventQueue):
    """The queue of the run, as one step sees it."""

    def __init__(self, teller: StepTeller, path: str) -> None:
        super().__init__()
        self._teller = teller
        self._path = path
        self._all = teller.queue

    @property
    def ended(self) -> bool:
        """See `EventQueue.ended`."""
        return self._all.ended

    @property
    def closed(self) -> bool:
        """See `EventQueue.closed`."""
        return self._all.closed

    def put_now(self, events: Sequence[Any]) -> bool:
        """See `EventQueue.put_now`."""
        wanted = self._wanted(events)
        return not wanted or self._all.put_now(wanted)

    async def put(self, events: Sequence[Any]) -> None:
        """See `EventQueue.put`."""
        if wanted := self._wanted(events):
            await self._all.put(wanted)

    def add(self, event: Any) -> None:
        """See `EventQueue.add`."""
        for each in self._wanted([event]):
            self._all.add(each)

    def _wanted(self, events: Sequence[Any]) -> list[StepEvent]:
        path, teller = self._path, self._teller
        found = [
            StepEvent(path, event) for event in events if teller.wanted(path, getattr(event, "field", None))
        ]
        if found:
            teller.told(path)
        return found


def _check(pipeline: Pipeline, wanted: Sequence[str]) -> None:
    """Refuse a field that no step gives."""
    paths = {f"{path}.{name}" for node, path in nodes_at(pipeline.plan.block) for name, _ in node.gives}
    there = {*paths, *(path.rpartition(".")[2] for path in paths)}
    for name in wanted:
        if name not in there:
            raise ConfigError(
                f"no step gives a field {name!r}",
                code="bad-stream",
                hint=f"{did_you_mean(name, there)}there are: {', '.join(sorted(paths))}",
            )
