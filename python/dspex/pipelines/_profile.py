"""`Profile`: where the time of a run went, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

from dspex.pipelines._paths import static

__all__ = ["Profile", "ProfileRow"]


class ProfileRow(NamedTuple):
    """One step of the plan, over all times that it was run.

    Attributes:
        path: Its path, with `[]` in the place of numbers: `map[]/answer`.
        runs: How often it was run.
        microseconds: How long that took together.
        mean: How long it took each time.
        longest: How long it took at most.
        share: Its part of the time of all steps that have no steps inside.
    """

    path: str
    runs: int
    microseconds: float
    mean: float
    longest: float
    share: float


class Profile:
    """The steps of one run with their times; `print` it for a table.

    A step with steps inside, such as a `map`, has their time too, and no share.

    Attributes:
        rows: The steps, those that took longest first.
    """

    __slots__ = ("rows",)

    def __init__(self, rows: Sequence[ProfileRow]) -> None:
        self.rows = tuple(rows)

    @classmethod
    def of(cls, steps: Sequence[tuple[str, str, float]]) -> Self:
        """Of the steps of a run: path, status and seconds of each."""
        times: dict[str, list[float]] = {}
        for path, _, seconds in steps:
            times.setdefault(static(path), []).append(seconds * 1e6)
        outer = {above for path in times for above in _above(path)}
        whole = sum(sum(each) for path, each in times.items() if path not in outer)
        rows = [
            ProfileRow(
                path,
                len(each),
                sum(each),
                sum(each) / len(each),
                max(each),
                0.0 if path in outer or not whole else sum(each) / whole,
            )
            for path, each in times.items()
        ]
        return cls(sorted(rows, key=lambda row: -row.microseconds))

    def __str__(self) -> str:
        width = max([4, *(len(row.path) for row in self.rows)])
        lines = [f"{'step':{width}}  {'runs':>6}  {'us':>12}  {'mean us':>12}  {'longest us':>12}  share"]
        for row in self.rows:
            share = f"{row.share:5.1%}" if row.share else "    -"
            lines.append(
                f"{row.path:{width}}  {row.runs:6}  {row.microseconds:12,.1f}  {row.mean:12,.1f}  "
                f"{row.longest:12,.1f}  {share}"
            )
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Profile({len(self.rows)} steps)"


def _above(path: str) -> list[str]:
    """The paths of the steps that this one is in."""
    parts = path.split("/")
    found = []
    for count in range(1, len(parts)):
        above = "/".join(parts[:count])
        found += [above, above.removesuffix("[]")]
    return found
