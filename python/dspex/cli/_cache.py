"""`dspex cache stats` and `dspex cache clear`: the file of answers that processes share."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspex.errors import ConfigError

if TYPE_CHECKING:
    from dspex.lm._cache_disk import Disk

__all__ = ["add"]

CLEAR_SECONDS = 30.0


def add(commands: Any) -> None:
    """Declare the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser("cache", help="look at, or clear, the answers kept")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    stats = actions.add_parser("stats", help="what the file of answers holds")
    stats.add_argument("--json", action="store_true", help="print JSON for programs")
    stats.set_defaults(run=show)
    clear = actions.add_parser("clear", help="forget all answers; a broken file is taken away")
    clear.set_defaults(run=empty)
    for action in (stats, clear):
        action.add_argument(
            "--directory",
            metavar="DIR",
            type=Path,
            help="where the file is, as dspex.lm.Cache(directory=...) says (default: where it is by default)",
        )


def show(arguments: argparse.Namespace) -> int:
    """Print what the file holds.

    Returns:
        0, or 1 if there is a file that cannot be read.
    """
    disk = _disk(arguments)
    found = disk.stats()
    there = disk.path is not None and disk.path.is_file()
    entries, size = (0, 0) if found is None else (found.entries, found.bytes)
    disk.close()
    unreadable = there and found is None
    if arguments.json:
        data = {"path": str(disk.path), "entries": entries, "bytes": size, "readable": not unreadable}
        print(json.dumps(data, ensure_ascii=False, indent=2))
    elif unreadable:
        print(f"{disk.path}: it cannot be read by this version of dspex; `dspex cache clear` takes it away")
    elif not there:
        print(f"{disk.path}: nothing is kept")
    else:
        print(f"{disk.path}: {entries:,} answers, {size / 1e6:,.1f} MB")
    return 1 if unreadable else 0


def empty(arguments: argparse.Namespace) -> int:
    """Forget all answers.

    Returns:
        0.
    """
    disk = _disk(arguments)
    assert disk.path is not None  # noqa: S101 - `_disk` has seen to it
    if not disk.path.is_file():
        print(f"{disk.path}: nothing is kept")
        return 0
    before = disk.stats()
    # Another process may have it open, for which a file that is taken away would go on as it was.
    cleared = before is not None and disk.clear(CLEAR_SECONDS)
    disk.close()
    if cleared and before is not None:
        print(f"{disk.path}: {before.entries:,} answers are forgotten")
        return 0
    try:
        size = disk.remove()
    except OSError as error:
        raise ConfigError(
            f"{disk.path} cannot be taken away: {error}",
            code="bad-cache",
            hint="look at who may write in its directory",
        ) from error
    print(f"{disk.path}: taken away, with {size / 1e6:,.1f} MB that could not be read or emptied")
    return 0


def _disk(arguments: argparse.Namespace) -> Disk:
    from dspex.lm._cache_disk import Disk
    from dspex.lm._cache_file import default_directory

    directory = default_directory() if arguments.directory is None else arguments.directory.absolute()
    if directory is None:
        raise ConfigError(
            "there is no HOME, XDG_CACHE_HOME or DSPEX_CACHE_DIR to say where answers are kept",
            code="bad-cache",
            hint="give --directory DIR",
        )
    return Disk(directory, 2**40)
