"""What a run is run with, beside its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from dspex._timeouts import check_seconds, shown
from dspex.errors import ConfigError

if TYPE_CHECKING:
    from dspex.stores import RunStore

__all__ = ["OPTIONS", "Durability", "OnError", "RunOptions", "checked_options"]

OnError = Literal["fail", "continue"]
"""What becomes of a run in which a step fails."""

Durability = Literal["sync", "async", "exit"]
"""When the row of a finished step is written: before the run goes on, soon after, or when the run ends."""

OPTIONS: Final[tuple[str, ...]] = ("store", "durability", "on_error", "run_id", "lease", "restart")
"""The names by which they are given."""


class RunOptions(NamedTuple):
    """What a run is run with."""

    on_error: OnError = "fail"
    store: RunStore | None = None
    durability: Durability = "sync"
    lease: float | None = None
    run_id: str | None = None
    restart: bool = False
    resumes: bool = False

    def over(self, given: Mapping[str, Any]) -> RunOptions:
        return checked_options({**self._asdict(), **given}) if given else self


def checked_options(given: Mapping[str, Any]) -> RunOptions:
    if given["on_error"] not in ("fail", "continue"):
        raise _bad_option(f'on_error must be "fail" or "continue", not {shown(given["on_error"])}')
    if given["durability"] not in ("sync", "async", "exit"):
        raise _bad_option(f'durability must be "sync", "async" or "exit", not {shown(given["durability"])}')
    if given["store"] is not None and not hasattr(given["store"], "record_steps"):
        raise _bad_option(f"store must be a store of runs, not {shown(given['store'])}")
    run_id = given["run_id"]
    if run_id is not None and (not isinstance(run_id, str) or not run_id):
        raise _bad_option(f"run_id must be a text, not {shown(run_id)}")
    if not isinstance(given["restart"], bool):
        raise _bad_option(f"restart must be True or False, not {shown(given['restart'])}")
    if given["lease"] is not None:
        check_seconds(given["lease"], "lease")
    return RunOptions(**given)


def _bad_option(message: str) -> ConfigError:
    return ConfigError(message, code="bad-run-option", hint="docs/pipelines.md has the options of a run")
