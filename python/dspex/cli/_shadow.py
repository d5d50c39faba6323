"""`dspex shadow report FILE`: what shadows have written to a file, summed up, and the last differences."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dspex.runtime import ShadowDifference

__all__ = ["add"]


def add(commands: Any) -> None:
    """Declare the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "shadow", help="list where the two sides differed on the same calls"
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    report = actions.add_parser("report", help="what a file of differences holds")
    report.add_argument("file", metavar="FILE", help="the file that dspex.router.Shadow(file=...) names")
    report.add_argument(
        "--last", type=int, default=10, metavar="N", help="how many to show one by one (default: 10)"
    )
    report.add_argument("--signature", metavar="TEXT", help="only those of signatures that have this in them")
    report.add_argument("--json", action="store_true", help="print JSON for programs")
    report.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what the file holds.

    Returns:
        0 if there is no difference in it, 1 if there is one.

    Raises:
        ConfigError: If it cannot be read (`no-shadow-file`).
    """
    from dspex.runtime._shadow_store import read_differences

    found, unread = read_differences(arguments.file)
    if arguments.signature is not None:
        found = [each for each in found if arguments.signature in each.signature]
    last = found[-arguments.last :] if arguments.last > 0 else []
    summary = _summary(found)
    if arguments.json:
        rows = [{"signature": where, "differs": what, "count": count} for where, what, count in summary]
        shown = [json.loads(each.to_line()) for each in last]
        data = {"differences": len(found), "unread": unread, "summary": rows, "last": shown}
        print(json.dumps(data, ensure_ascii=False, indent=2))
        return 1 if found else 0
    print(f"{len(found)} differences" + (f", and {unread} lines that are none" if unread else ""))
    for where, what, count in summary:
        print(f"  {count:6}  {what}  in  {where}")
    for each in last:
        print()
        print("\n".join(_lines(each)))
    return 1 if found else 0


def _summary(found: Sequence[ShadowDifference]) -> list[tuple[str, str, int]]:
    """Signature, what differs, and how often, the most frequent first."""
    counts = Counter((each.signature, what) for each in found for what in _what(each))
    return [(where, what, count) for (where, what), count in counts.most_common()]


def _what(difference: ShadowDifference) -> list[str]:
    parts = [f"field {name}" for name in difference.fields]
    if difference.message is not None:
        parts.insert(0, f"message {difference.message.index} ({difference.message.role or 'none'})")
    if difference.error:
        parts.append(f"error {difference.error}")
    return parts


def _lines(difference: ShadowDifference) -> list[str]:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(difference.time))
    live, other = difference.live, difference.other
    width = max(len(live), len(other))
    lines = [f"{when}  {difference.signature}"]
    lines += [f"  input {name}: {value!r}" for name, value in difference.inputs.items()]
    message = difference.message
    if message is not None:
        place = "" if message.at is None else f", from character {message.at} on"
        ones, twos = message.lengths
        lines.append(
            f"  message {message.index} ({message.role or 'none'}) differs{place}: {ones} and {twos} long"
        )
        if message.texts is not None:
            lines += [
                f"    {live:{width}}  {message.texts.live!r}",
                f"    {other:{width}}  {message.texts.other!r}",
            ]
    for name, pair in difference.fields.items():
        lines += [
            f"  field {name}:",
            f"    {live:{width}}  {pair.live!r}",
            f"    {other:{width}}  {pair.other!r}",
        ]
    if difference.error:
        lines.append(f"  {other} raised {difference.error}")
    return lines
