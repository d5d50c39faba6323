"""What an evaluation found: the score, every example with its prediction, and what to look at first."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

if TYPE_CHECKING:
    import pyarrow as pa

    from dspex.modules._evaluation_table import EvaluationTable

__all__ = ["EvaluatedRow", "Evaluation"]


class EvaluatedRow(NamedTuple):
    """One example of an evaluation.

    Attributes:
        number: Its place in the devset, from 0.
        example: The example, as it was given.
        prediction: What the program returned; None where it raised.
        score: What the metric gave: a number, a truth value or a prediction with a `score`, all of which
            `float` takes. The `failure_score` where the program or the metric raised.
        error: What they raised, without its traceback; None where neither did.
        seconds: How long the program's call took, its waiting included and the metric left out.
    """

    number: int
    example: Any
    prediction: Any
    score: Any
    error: Exception | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Evaluation:
    """What `evaluate` found. It shows itself as a table of failures in a notebook.

    Attributes:
        score: The mean of the rows' scores as a percentage, rounded to two digits, as `dspy.Evaluate` has it.
        results: Every example, in the order of the devset.
        metric: The metric's name.
        threshold: The score from which on a row is no failure.
    """

    score: float
    results: Sequence[EvaluatedRow]
    metric: str = "metric"
    threshold: float = 1.0

    @property
    def errors(self) -> list[EvaluatedRow]:
        """The rows in which the program or the metric raised."""
        return [row for row in self.results if row.error is not None]

    @property
    def failures(self) -> list[EvaluatedRow]:
        """The rows with an error, or with a score below the threshold."""
        return [
            row for row in self.results if row.error is not None or not float(row.score) >= self.threshold
        ]

    def table(self, rows: Sequence[EvaluatedRow] | None = None, *, limit: int | None = 20) -> EvaluationTable:
        """Rows as a table: `print` writes it as plain text, rich as a table of its own, a notebook as HTML.

        Args:
            rows: Which; the failures unless given. `evaluation.results` is all of them.
            limit: How many are shown at most; None for no limit.
        """
        from dspex.modules._evaluation_table import EvaluationTable  # what only reports need, here and below

        return EvaluationTable.of(self.failures if rows is None else rows, limit)

    def show(self, file: TextIO | None = None, *, limit: int | None = 20) -> None:
        """Write the summary and the table of failures; on a terminal with rich, where that is installed.

        Args:
            file: Where to; standard output unless given.
            limit: How many failures are shown at most; None for no limit.
        """
        from dspex.modules._evaluation_table import show

        show(str(self), self.table(limit=limit), sys.stdout if file is None else file)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write every row to a CSV file in UTF-8, whole or not at all.

        Fields of the example and of the prediction have a column each; where both have a field of one name,
        they are `example_<name>` and `pred_<name>`, as in DSPy's file. What is no text or number is JSON. A
        text that a spreadsheet would run as a formula has an apostrophe in front.

        Raises:
            ConfigError: If it cannot be written (`evaluation-file`).
        """
        from dspex.modules._evaluation_columns import write_csv

        write_csv(self.results, path)

    def to_arrow(self) -> pa.Table:
        """Every row as a table of pyarrow, with the columns of `to_csv`, each of its own type.

        A column whose values have no common type is of JSON texts.

        Raises:
            ConfigError: If pyarrow is not installed: `pip install 'dspex[arrow]'` (`arrow-missing`).
        """
        from dspex.modules._evaluation_columns import arrow_table

        return arrow_table(self.results)

    def __str__(self) -> str:
        rows, failed, wrong = len(self.results), len(self.failures), len(self.errors)
        text = f"{self.metric}: {self.score:.2f} % of {rows} rows, {failed} below {self.threshold:g}"
        return f"{text}, {wrong} of them with an error" if wrong else text

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(score={self.score!r}, results=<{len(self.results)} rows>, "
            f"failures=<{len(self.failures)} rows>)"
        )

    def _repr_html_(self) -> str:
        return f"<p>{escape(str(self))}</p>{self.table()._repr_html_()}"
