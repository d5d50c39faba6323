"""The command `dspex`.

Each sub-command is a module of this package with `add(commands)`, which declares its arguments and sets
`run`, a function of the parsed arguments that returns the exit code.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from dspex import __version__
from dspex.cli import _bench as bench
from dspex.cli import _cache as cache
from dspex.cli import _config as config
from dspex.cli import _diff as diff
from dspex.cli import _doctor as doctor
from dspex.cli import _errors as errors
from dspex.cli import _export as export
from dspex.cli import _run as run
from dspex.cli import _sessions as sessions
from dspex.cli import _shadow as shadow
from dspex.cli import _signature as signature
from dspex.errors import DspexError

__all__ = ["main"]

COMMANDS = (run, export, signature, bench, diff, doctor, config, shadow, cache, sessions, errors)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command.

    Args:
        argv: The arguments behind the command's name; by default those of the process.

    Returns:
        The exit code: 0 when all is well, 1 when what was examined is not, 2 when the input was wrong, with
        the reason on standard error.
    """
    parser = argparse.ArgumentParser(prog="dspex", description="Serve DSPy programs: tools for the shell.")
    parser.add_argument("--version", action="version", version=f"dspex {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(commands)
    arguments = parser.parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except DspexError as error:
        print(f"dspex: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read the output has seen enough, as `head` does. What is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code
