"""`dspex run TARGET`: call a program from the shell, once or in turns.

With `--input` it calls once and prints the answer. Without, it asks for each input field on standard error,
reads a line for each from standard input, prints the answer, and asks again until the input ends. In turns a
call that fails is told and the next one is asked for.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from dspex.cli._programs import input_fields, program_at
from dspex.cli._values import as_json, read_input, read_inputs
from dspex.errors import ConfigError, DspexError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex.modules import Module

__all__ = ["add"]


def add(commands: Any) -> None:
    """Declare the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "run", help="call a signature or a program, once or in turns"
    )
    parser.add_argument(
        "target",
        metavar="TARGET",
        help='a signature, as in "question -> answer"; a compiled program, FILE.dspex.json; or '
        "module:attribute: a module of dspex, a class of dspy.Module, or a signature",
    )
    parser.add_argument(
        "-i",
        "--input",
        action="append",
        default=[],
        metavar="NAME=TEXT",
        help="an input, or NAME:=JSON; may be repeated. Without any, each is asked for",
    )
    parser.add_argument("--lm", metavar="PROVIDER/NAME", help="the language model, as in openai/gpt-4o-mini")
    parser.add_argument("--api-base", metavar="URL", help="the address of its server, up to and with /v1")
    parser.add_argument("--route", help="native, python, or the name of a target")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="the time of a call")
    parser.add_argument("--adapter", choices=["chat", "json", "xml"], default="chat", help="default: chat")
    parser.add_argument(
        "--state", metavar="FILE.json", help="what `save` wrote of the program that TARGET names"
    )
    parser.add_argument("--stream", action="store_true", help="print texts while the model writes them")
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Call the program.

    Returns:
        0, or 1 if a call failed in turns.

    Raises:
        ConfigError: If the target is none (`bad-target`), or there is no language model.
        DspexError: Whatever the call raised.
    """
    import dspex
    from dspex.lm import language_model

    program = program_at(arguments.target, state=arguments.state)
    if arguments.route is not None or arguments.timeout is not None:
        program = program.with_options(route=arguments.route, timeout=arguments.timeout)
    if arguments.stream and not hasattr(program, "stream"):
        raise ConfigError(
            f"{type(program).__name__} does not stream", code="not-a-stream", hint="leave out --stream"
        )
    lm = arguments.lm
    if lm is not None and arguments.api_base is not None:
        lm = dspex.LM(lm, api_base=arguments.api_base)
    elif lm is None and arguments.api_base is not None:
        raise ConfigError("--api-base belongs to an LM", code="no-lm", hint="write --lm openai/NAME too")
    pools = dspex.PoolSpec(workers=1) if hasattr(language_model(lm), "settings_for_worker") else 0
    with dspex.Runtime(lm, pools=pools, adapter=arguments.adapter):
        if arguments.input:
            known = input_fields(arguments.target, program) if _typed(program) else {}
            _call(program, read_inputs(arguments.input, known), arguments)
            return 0
        return _in_turns(program, input_fields(arguments.target, program), arguments)


def _typed(program: Module) -> bool:
    from dspex.cli._programs import signature_of

    return signature_of(program) is not None


def _in_turns(program: Module, fields: Mapping[str, Any], arguments: argparse.Namespace) -> int:
    code = 0
    while True:
        inputs: dict[str, Any] = {}
        try:
            for name, annotation in fields.items():
                line = _ask(name)
                if line is None:
                    return code
                # What nobody has given a type is what it looks like.
                inputs[name] = read_input(name, line, str if annotation is Any else annotation)
            _call(program, inputs, arguments)
        except DspexError as error:
            print(f"dspex: {error}", file=sys.stderr)
            code = 1


def _ask(name: str) -> str | None:
    """A line for an input; None where there is no more."""
    print(f"{name}> ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        print(file=sys.stderr)
        return None
    return line.rstrip("\n")


def _call(program: Any, inputs: dict[str, Any], arguments: argparse.Namespace) -> None:
    answer = _streamed(program, inputs) if arguments.stream else program(**inputs)
    if arguments.json:  # one line for each call in turns
        print(as_json(answer, in_one_line=not arguments.input), flush=True)
        return
    _show(answer)


def _streamed(program: Any, inputs: dict[str, Any]) -> Any:
    """The prediction at the end of a stream, whose texts are told on the way, on standard error."""
    from dspex.events import FieldEnd, FieldStart, TextDelta

    answer: Any = None
    for event in program.stream(**inputs):
        if isinstance(event, FieldStart):
            print(f"{event.field}: ", end="", file=sys.stderr, flush=True)
        elif isinstance(event, TextDelta):
            print(event.text, end="", file=sys.stderr, flush=True)
        elif isinstance(event, FieldEnd):
            print(file=sys.stderr, flush=True)
        else:
            answer = event
    return answer


def _show(answer: Any) -> None:
    """Print the fields of a prediction, and on standard error how it came about."""
    from dspex.prediction import Prediction

    if not isinstance(answer, Prediction):
        print(answer, flush=True)
        return
    for name, value in answer.items():
        print(f"{name}: {value}", flush=True)
    seconds, tokens = answer.timings.get("total"), answer.usage.get("total_tokens")
    facts = [answer.route or "no route"]
    facts += [] if seconds is None else [f"{seconds:.2f} s"]
    facts += [] if tokens is None else [f"{tokens} tokens"]
    facts += [f"repaired {repair.field}: {repair.code}" for repair in answer.repairs]
    print(f"({', '.join(facts)})", file=sys.stderr, flush=True)
