"""The table of an evaluation: plain text, rich's, and HTML.

What is shown came from models and data. So no text of theirs is a command to a terminal, rich's markup, or
HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, TextIO

from dspex.errors import ConfigError
from dspex.modules._evaluation_columns import columns_of, text_of

if TYPE_CHECKING:
    from rich.table import Table

    from dspex.modules._evaluation import EvaluatedRow

__all__ = ["EvaluationTable", "show"]

_PLAIN_WIDTH: Final = 40
"""Characters of a cell on a line of plain text."""
_MOST: Final = 400
"""Characters of a cell elsewhere, where it may have several lines."""
_LEFT_OUT: Final = frozenset({"seconds"})


@dataclass(frozen=True, slots=True)
class EvaluationTable:
    """Rows of an evaluation, as texts.

    `str` gives plain text, rich and notebooks take it as it is.

    Attributes:
        names: The columns' names.
        cells: The rows.
        more: How many rows are not among them.
    """

    names: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    more: int = 0

    @classmethod
    def of(cls, rows: Sequence[EvaluatedRow], limit: int | None) -> EvaluationTable:
        """The table of the first of some rows."""
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
            raise ConfigError(
                f"limit must be a whole number from 0, or None, not {limit!r}"[:200],
                code="bad-batch",
                hint="it is how many rows a table shows",
            )
        shown = list(rows if limit is None else rows[:limit])
        columns = {name: values for name, values in columns_of(shown).items() if name not in _LEFT_OUT}
        cells = zip(*([_cell(value) for value in values] for values in columns.values()), strict=True)
        return cls(tuple(map(_printable, columns)), tuple(cells), len(rows) - len(shown))

    def __str__(self) -> str:
        lines = [
            tuple(_cut(" ".join(cell.split()), _PLAIN_WIDTH) for cell in line)
            for line in (self.names, *self.cells)
        ]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        lines.insert(1, tuple("-" * width for width in widths))
        texts = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        ]
        return "\n".join([*texts, *self._rest()])

    def _rest(self) -> list[str]:
        return [f"... and {self.more} more"] if self.more else []

    def __rich__(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table(caption="".join(self._rest()) or None)
        for name in self.names:
            table.add_column(Text(name), overflow="fold")
        for line in self.cells:
            table.add_row(*map(Text, line))
        return table

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(name)}</th>" for name in self.names)
        style = ' style="text-align: left; vertical-align: top; white-space: pre-wrap"'
        body = "".join(
            "<tr>" + "".join(f"<td{style}>{escape(cell)}</td>" for cell in line) + "</tr>"
            for line in self.cells
        )
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return table + "".join(f"<p>{escape(text)}</p>" for text in self._rest())


def show(summary: str, table: EvaluationTable, file: TextIO) -> None:
    """Write a summary and a table, if it has rows: with rich on a terminal where it is installed."""
    print(_printable(summary), file=file)
    if not table.cells and not table.more:
        return
    if file.isatty() and find_spec("rich") is not None:
        from rich.console import Console

        Console(file=file).print(table)
    else:
        print(table, file=file)


def _cell(value: Any) -> str:
    return _cut(_printable(f"{value:.4g}" if isinstance(value, float) else text_of(value)), _MOST)


def _printable(text: str) -> str:
    """The text without what a terminal would obey or be turned round by; lines stay."""
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode("ascii")
        for each in text
    )


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
