"""What a batch was asked for: its options, ours and those of DSPy's that mean the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypedDict

from dspex._timeouts import check_seconds, shown
from dspex.errors import ConfigError, did_you_mean

__all__ = ["CONCURRENCY", "BatchOptions", "Plan"]

CONCURRENCY: Final = 64
"""Rows under way at once, unless a batch says otherwise: what one process does without effort, and what few
servers refuse."""

Progress = bool | Callable[[int, int | None], Any] | None


class BatchOptions(TypedDict, total=False):
    """What every batch can be told, beside its rows and how many run at once.

    Attributes:
        errors: `"return"`, the default, puts a row's error in the row's place; `"raise"` ends the batch with
            the first.
        max_errors: End the batch when so many rows have failed.
        timeout: Seconds for the whole batch.
        progress: Whether to show a bar on stderr, or a function that is called after each row with the rows
            done and the rows there are (None where nobody knows). By default a bar on
            terminals, rich's where that is installed.
        provide_traceback: Log each error with its traceback, on `dspex.modules`.
        num_threads: DSPy's name for how many run at once.
        disable_progress_bar: DSPy's name for `progress=False`.
        straggler_limit: DSPy's; refused, as dspex runs no row twice.
    """

    errors: Literal["return", "raise"]
    max_errors: int | None
    timeout: float | None
    progress: Progress
    provide_traceback: bool | None
    num_threads: int | None
    disable_progress_bar: bool
    straggler_limit: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The options of a batch, checked; see `BatchOptions`."""

    concurrency: int = CONCURRENCY
    raises: bool = False
    max_errors: int | None = None
    timeout: float | None = None
    progress: Progress = None
    tracebacks: bool = False

    @classmethod
    def of(cls, concurrency: int | None, options: Mapping[str, Any]) -> Plan:
        """Read the options.

        Raises:
            ConfigError: If there is none of a name (`unknown-setting`) or a value makes no sense
                (`bad-batch`, `bad-timeout`).
        """
        known = BatchOptions.__annotations__
        for name in options:
            if name not in known:
                raise ConfigError(
                    f"a batch has no option {name!r}",
                    code="unknown-setting",
                    hint=did_you_mean(name, known).strip() or f"it has {', '.join(known)}",
                )
        if options.get("straggler_limit") is not None:
            raise ConfigError(
                "a batch has no straggler_limit: dspex asks no model twice in silence",
                code="bad-batch",
                hint="leave it out, and bound each row: program.with_options(timeout=...).batch(rows)",
            )
        threads = options.get("num_threads")
        if concurrency is not None and threads is not None:
            raise _bad("give concurrency= or num_threads=, which is DSPy's name for it, not both")
        at_once = concurrency if threads is None else threads
        errors = options.get("errors", "return")
        if errors not in ("return", "raise"):
            raise _bad(f'errors must be "return" or "raise", not {shown(errors)}')
        progress = options.get("progress")
        if not (progress is None or isinstance(progress, bool) or callable(progress)):
            raise _bad(f"progress must be True, False or a function, not {shown(progress)}")
        if options.get("disable_progress_bar") and progress is None:
            progress = False
        timeout, most = options.get("timeout"), options.get("max_errors")
        return cls(
            concurrency=CONCURRENCY if at_once is None else _count("concurrency", at_once),
            raises=errors == "raise",
            max_errors=None if most is None else _count("max_errors", most),
            timeout=None if timeout is None else check_seconds(timeout),
            progress=progress,
            tracebacks=bool(options.get("provide_traceback")),
        )


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _bad(f"{name} must be a whole number from 1, not {shown(value)}")
    return value


def _bad(message: str) -> ConfigError:
    return ConfigError(message, code="bad-batch", hint="docs/modules.md lists the options of a batch")
