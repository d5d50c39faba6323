"""`dspex config check FILE`: all that is wrong with the configuration of a runtime; `dspex config schema`."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from dspex.errors import ConfigError

__all__ = ["add"]


def add(commands: Any) -> None:
    """Declare the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "config", help="check the configuration of a runtime in a TOML file, or print its schema"
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    check = actions.add_parser("check", help="say all that is wrong with a file")
    check.add_argument("file", metavar="FILE", help="dspex.toml, or a pyproject.toml with [tool.dspex]")
    check.add_argument(
        "--env", action="store_true", help="the environment variables that it names have to be set, too"
    )
    check.add_argument("--json", action="store_true", help="print JSON for programs")
    check.set_defaults(run=run)
    schema = actions.add_parser("schema", help="print its JSON schema, for editors")
    schema.set_defaults(run=print_schema)


def run(arguments: argparse.Namespace) -> int:
    """Print what is wrong with the file.

    Returns:
        0 if nothing is, 1 if something is.

    Raises:
        ConfigError: If it cannot be read or is not TOML.
    """
    from dspex.runtime._config import arguments_of
    from dspex.runtime._config_file import config_of

    config, directory = config_of(arguments.file)
    problems: list[tuple[str, str]] = []
    try:
        arguments_of(config, directory, os.environ if arguments.env else None)
    except ConfigError as error:
        problems = [(path, what) for path, what in error.problems]
    if arguments.json:
        rows = [{"path": path, "problem": what} for path, what in problems]
        print(json.dumps({"file": arguments.file, "problems": rows}, ensure_ascii=False, indent=2))
    elif problems:
        print("\n".join(f"{arguments.file}: {path}: {what}" for path, what in problems))
    else:
        print(f"{arguments.file}: it can be used")
    return 1 if problems else 0


def print_schema(arguments: argparse.Namespace) -> int:
    """Print the JSON schema of a configuration.

    Returns:
        0.
    """
    from dspex.runtime._config_schema import config_schema

    print(json.dumps(config_schema(), ensure_ascii=False, indent=2))
    return 0
