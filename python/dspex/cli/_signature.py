"""`dspex signature TARGET`: what a signature says, and the prompt it makes."""

from __future__ import annotations

import argparse
import json
from typing import Any

from dspex.cli._targets import imported, is_path
from dspex.dialects import KNOWN

__all__ = ["add"]


def add(commands: Any) -> None:
    """Declare the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "signature", help="show the fields and the prompt of a signature, or where its mistake is"
    )
    parser.add_argument(
        "target",
        metavar="TARGET",
        help='the signature, as in "question, context: list[str] -> answer", or module:attribute: a class of '
        "dspex.Signature or dspy.Signature, or a dspex.Predict",
    )
    parser.add_argument("-i", "--instructions", help="what to do; DSPy's sentence by default")
    parser.add_argument(
        "--adapter", choices=["chat", "json", "xml"], default="chat", help="whose prompt (default: chat)"
    )
    parser.add_argument("--dialect", choices=KNOWN, help="which DSPy's prompt (default: the installed one's)")
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the signature.

    Raises:
        SignatureError: If the text, or what the path leads to, is not a signature.
        ConfigError: If the path leads nowhere (`bad-target`).
    """
    import dspex

    found: Any = imported(arguments.target) if is_path(arguments.target) else arguments.target
    if isinstance(found, dspex.Predict):
        found = found.signature
    signature = dspex.Signature.of(found, arguments.instructions)
    adapter = {"chat": dspex.ChatAdapter, "json": dspex.JSONAdapter, "xml": dspex.XMLAdapter}[
        arguments.adapter
    ](dialect=arguments.dialect)
    messages = adapter.format(signature, [], {name: f"{{{name}}}" for name in signature.input_fields})
    if arguments.json:
        print(json.dumps({**signature.describe(), "messages": messages}, ensure_ascii=False, indent=2))
        return 0
    print(signature.text)
    for side, fields in (("inputs", signature.input_fields), ("outputs", signature.output_fields)):
        print(f"\n{side}:")
        width = max(map(len, fields), default=0)
        for name, field in fields.items():
            print(f"  {name:{width}}  {field.type_name}{' (optional)' if field.optional else ''}")
    print("\ninstructions:")
    print("\n".join(f"  {line}" for line in signature.instructions.splitlines()))
    print(f"\nprompt ({arguments.adapter}):")
    for message in messages:
        print(f"--- {message['role']} ---\n{message['content']}")
    return 0
