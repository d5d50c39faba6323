"""`dspex export TARGET -o FILE.dspex.json`: a program as one file, which runs without its class."""

from __future__ import annotations

import argparse
import os
from typing import Any

from dspex.cli._programs import native_at
from dspex.dialects import KNOWN

__all__ = ["add"]


def add(commands: Any) -> None:
    """Declare the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "export", help="write a program to one file, which runs without its class and without DSPy"
    )
    parser.add_argument(
        "target",
        metavar="TARGET",
        help='a signature, as in "question -> answer", or module:attribute: a module of dspex or of DSPy, '
        "or its class",
    )
    parser.add_argument(
        "--state", metavar="FILE.json", help="what `save` wrote of the program, here or in DSPy"
    )
    parser.add_argument("-o", "--output", metavar="FILE.dspex.json", required=True, help="the file to write")
    parser.add_argument(
        "--adapter",
        choices=["chat", "json", "xml"],
        default="chat",
        help="how prompts are laid out; default: chat",
    )
    parser.add_argument(
        "--dialect", choices=KNOWN, help="which DSPy's prompts (default: the installed one's)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the file, and say what is in it.

    Raises:
        ConfigError: If the target is none (`bad-target`), the state is another program's, a part of the
            program is no data (`program-export`), or the file cannot be written (`program-file`).
    """
    import dspex

    program = native_at(arguments.target, state=arguments.state)
    dspex.export(program, arguments.output, adapter=arguments.adapter, dialect=arguments.dialect)
    for path, predictor in program.named_predictors():
        print(f"{path}: {predictor.signature.text} ({len(predictor.demos)} demos)")
    print(f"{arguments.output}: {os.path.getsize(arguments.output):,} bytes")
    return 0
