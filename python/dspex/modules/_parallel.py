"""`Parallel`: calls of several modules at once, with DSPy's arguments and DSPy's results."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from dspex._threads import in_thread
from dspex.errors import InputError
from dspex.modules import _batch
from dspex.modules._module import Module
from dspex.router import dispatcher_here

__all__ = ["Parallel"]

_log = logging.getLogger("dspex.modules")

NUM_THREADS: Final = 8
"""DSPy's own default, so that a program that moves here asks no more of its server than before."""
MAX_ERRORS: Final = 10
"""DSPy's own default."""


class Parallel:
    """Runs pairs of a module and its inputs, many at once, like `dspy.Parallel`.

    It gives what DSPy's gives: a result for each pair, None where a call failed. `Module.batch` is the other
    way to run many rows, which keeps each row's error in its place.

    Args:
        num_threads: How many run at once; 8 unless given.
        max_errors: How many may fail before all stops; 10 unless given.
        access_examples: Give a module the inputs of a `dspy.Example` by name; else the example itself.
        return_failed_examples: Return the results, the inputs that failed, and their errors.
        provide_traceback: Log each error with its traceback.
        disable_progress_bar: Show no bar. There is one only where stderr is a terminal.
        timeout: Seconds for all together. (DSPy's are those after which it asks a second time.)
        straggler_limit: DSPy's; refused, as dspex runs nothing twice.

    Raises:
        ConfigError: If an option makes no sense (`bad-batch`, `bad-timeout`).

    Example:
        ```python
        qa = dspex.Predict("question -> answer")
        dspex.Parallel(num_threads=3)([(qa, {"question": "Who?"}), (qa, {"question": "Where?"})])
        ```
    """

    def __init__(
        self,
        num_threads: int | None = None,
        max_errors: int | None = None,
        access_examples: bool = True,
        return_failed_examples: bool = False,
        provide_traceback: bool | None = None,
        disable_progress_bar: bool = False,
        timeout: float | None = None,
        straggler_limit: int | None = None,
    ) -> None:
        self.num_threads = NUM_THREADS if num_threads is None else num_threads
        self.max_errors = MAX_ERRORS if max_errors is None else max_errors
        self.access_examples = access_examples
        self.return_failed_examples = return_failed_examples
        self.provide_traceback = provide_traceback
        self.disable_progress_bar = disable_progress_bar
        self.timeout = timeout
        self.straggler_limit = straggler_limit
        self._plan(None)

    def __call__(self, exec_pairs: Sequence[tuple[Any, Any]], num_threads: int | None = None) -> Any:
        """Run the pairs.

        Args:
            exec_pairs: A module and its inputs each: a mapping or a `dspy.Example` by name, a tuple by
                position, for another `Parallel` a list. A function will do for a module.
            num_threads: How many run at once, for this call.

        Returns:
            The results; with `return_failed_examples`, those, the inputs that failed, and their errors.

        Raises:
            BatchError: If `max_errors` have failed.
            ConfigError: If the call would block an event loop that runs on this thread: use `acall` there.
        """
        pairs = list(exec_pairs)
        return self._results(_batch.batch(self._calls(), pairs, self._plan(num_threads)), pairs)

    forward = __call__

    async def acall(self, exec_pairs: Sequence[tuple[Any, Any]], num_threads: int | None = None) -> Any:
        """The call, awaited."""
        pairs = list(exec_pairs)
        return self._results(await _batch.abatch(self._calls(), pairs, self._plan(num_threads)), pairs)

    def _plan(self, num_threads: int | None) -> _batch.Plan:
        options = {
            "max_errors": self.max_errors,
            "timeout": self.timeout,
            "provide_traceback": self.provide_traceback,
            "disable_progress_bar": self.disable_progress_bar,
            "straggler_limit": self.straggler_limit,
        }
        return _batch.Plan.of(self.num_threads if num_threads is None else num_threads, options)

    def _calls(self) -> _batch.Calls:
        return _batch.Calls(self._run, dispatcher_here)

    async def _run(self, pair: Any, _: int) -> Any:
        module, given = pair
        args, inputs = self._arguments(module, given)
        if isinstance(module, Module | Parallel):
            return await module.acall(*args, **inputs)
        return await in_thread(partial(module, *args, **inputs))

    def _arguments(self, module: Any, given: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if hasattr(given, "inputs") and hasattr(given, "with_inputs"):  # an example of DSPy's
            return ((), _batch.inputs_of(given)) if self.access_examples else ((given,), {})
        if isinstance(given, Mapping):
            return (), _batch.inputs_of(given)
        if isinstance(given, list) and isinstance(module, Parallel):
            return (given,), {}
        if isinstance(given, tuple):
            return given, {}
        raise InputError(
            f"the inputs of a module must be a mapping, an example or a tuple, not {type(given).__name__}",
            code="bad-row",
            hint='write (module, {"question": "..."})',
        )

    def _results(self, outcomes: list[Any], pairs: list[Any]) -> Any:
        results, failed, errors = _batch.failed_rows(outcomes, pairs)
        for error in errors:
            _log.error("a call of Parallel failed: %s", error)
        return (results, [given for _, given in failed], errors) if self.return_failed_examples else results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_threads={self.num_threads}, max_errors={self.max_errors})"
