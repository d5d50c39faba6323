"""Errors about a worker that did not start, or that died, with its exit and the last lines of its output."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from dspex.errors import DspexError, WorkerDiedError, WorkerStartError
from dspex.pool._backends.process import how_it_ended
from dspex.protocol.secrets import redacted, secrets_in

if TYPE_CHECKING:
    from dspex.pool._backends.base import Handle, Launcher
    from dspex.pool._spec import PoolSpec

__all__ = ["LastWords", "attempt", "report"]

T = TypeVar("T")


class LastWords:
    """Makes the errors of one pool's workers. No secret of their LM or environment is in them.

    Args:
        spec: The pool's settings.
        lm: The settings of the workers' LM.
        launcher: What starts them.
    """

    def __init__(self, spec: PoolSpec, lm: Mapping[str, Any], launcher: Launcher) -> None:
        self._spec = spec
        self._secrets = (*secrets_in(lm), *secrets_in(spec.env))
        self._launcher = launcher

    def output(self, process: Handle | None) -> str:
        """The last lines a worker wrote."""
        return self._redacted(
            (attempt("to read its output", lambda: process.tail()) if process else None) or ""
        )

    def death(self, process: Handle | None, reason: str) -> WorkerDiedError:
        """The error of a worker that is gone.

        Args:
            process: Its process, None if it never had one.
            reason: Why it was to go.
        """
        if process is None:
            return WorkerDiedError(f"the worker never ran: {reason}", reason=reason)
        code = _exit_code(process)
        how, name = how_it_ended(code)
        output = self.output(process)
        return WorkerDiedError(
            f"the worker (pid {process.pid}) {how}: {reason}" + _with_output(output),
            hint="the call may or may not have had its effect",
            pid=process.pid,
            exit_status=code,
            signal=name,
            reason=reason,
            output=output,
        )

    def start_error(
        self, err: BaseException, process: Handle | None, *, overdue: bool = False
    ) -> WorkerStartError:
        """The error for those who wait for a worker whose start ended with `err`.

        Args:
            err: What the start ended with.
            process: The worker's process, if it came to that.
            overdue: Whether the time for a start has run out.
        """
        match err:
            case TimeoutError() if overdue:
                what = f"it did not say READY within {self._spec.timeouts.start:g} s"
                return self._start_error("start-timeout", what, process)
            case OSError():
                program = "command" if self._spec.command else "interpreter"
                return self._start_error("start-failed", f"the {program} cannot be started: {err}", process)
            case WorkerDiedError():
                return self._start_error("start-exit", err.message.partition("\n")[0], process)
            case WorkerStartError() if process is not None:  # the worker's own words
                return err
            case DspexError():
                return self._start_error(err.code, err.message, process, err.hint)
        error = self._start_error("start-failed", f"{type(err).__name__}: {err}", process)
        error.__cause__ = err
        return error

    def _start_error(self, code: str, what: str, process: Handle | None, hint: str = "") -> WorkerStartError:
        output = self.output(process) or self._redacted(
            attempt("to read the output of its launcher", lambda: self._launcher.output()) or ""
        )
        return WorkerStartError(
            f"a worker of pool {self._spec.name!r} did not start: {what}" + _with_output(output),
            code=code,
            hint=hint or "`dspex doctor` looks for the cause",
            reason=what,
            output=output,
        )

    def _redacted(self, text: str) -> str:
        redacted_text: str = redacted(text, self._secrets)
        return redacted_text


def _with_output(output: str) -> str:
    return f"\nits last output:\n{output}" if output else ""


def _exit_code(process: Handle) -> int | None:
    exited = process.exited
    known = exited.done() and not exited.cancelled() and exited.exception() is None
    return exited.result() if known else None


def attempt(what: str, step: Callable[[], T]) -> T | None:
    """Take a step that the following ones must not depend on; what it raises goes to the loop's handler.

    Args:
        what: The step in words.
        step: It. A look-up on a backend's object belongs inside: it may raise too.
    """
    try:
        return step()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as err:  # noqa: BLE001 - code of a backend may raise anything
        report(f"dspex: of a worker, {what} failed", err)
        return None


def report(message: str, error: BaseException | None) -> None:
    """Tell the loop's handler of what nobody waits for."""
    asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
