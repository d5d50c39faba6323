"""`dspex bench TARGET`: what a call costs on this machine, natively and with DSPy in process.

::

    check   one call each against a server in this process: same messages, same fields, or nothing is timed
    time    rounds that take turns, against a server that is a process of its own and always says the same
    print   CPU of this process per call, the median of the rounds, and the ratio

The server's answers are found in the prompt, one value of its type for each output field; inputs that are
not given are made up by their types.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dspex.cli._programs import program_at
from dspex.cli._values import read_inputs
from dspex.errors import ConfigError, InputError

if TYPE_CHECKING:
    from dspex.modules import Predict
    from dspex.signature import Signature

__all__ = ["add"]

_ROUNDS: Final = 5
_STOP_SECONDS: Final = 10
_MODEL: Final = "openai/local"

_Call = Callable[[], Awaitable[dict[str, Any]]]


class _Costs(NamedTuple):
    """Milliseconds of CPU per call."""

    native: float
    dspy: float

    @property
    def ratio(self) -> float:
        return self.dspy / self.native if self.native else float("inf")


def add(commands: Any) -> None:
    """Declare the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "bench", help="time a signature natively and with DSPy, on this machine"
    )
    parser.add_argument(
        "target",
        metavar="TARGET",
        help='a signature, as in "question -> answer", or module:attribute: a signature, a dspex.Predict, a '
        "dspex.ChainOfThought",
    )
    parser.add_argument(
        "-i",
        "--input",
        action="append",
        default=[],
        metavar="NAME=TEXT",
        help="an input, or NAME:=JSON; may be repeated. Others are made up",
    )
    parser.add_argument(
        "--calls", type=int, default=100, help="calls of a round (default: %(default)s; there are 5 rounds)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check and time the target.

    Returns:
        0, or 1 if the two do not ask or answer the same.

    Raises:
        ConfigError: If the target has no counterpart in DSPy (`bad-target`).
        InputError: If an input is none, or none can be made up.
    """
    if arguments.calls < 1:
        raise ConfigError("--calls is a count from 1", code="bad-target")
    predict = _predictor(arguments.target)
    signature = predict.signature
    types = {name: field.annotation for name, field in signature.input_fields.items()}
    inputs = {**_made_up(types, arguments.input), **read_inputs(arguments.input, types)}
    return asyncio.run(_bench(predict, inputs, arguments))


def _predictor(target: str) -> Predict:
    import dspex

    program = program_at(target)
    inner = program.predict if isinstance(program, dspex.ChainOfThought) else program
    if not isinstance(inner, dspex.Predict):
        raise ConfigError(
            f"{target!r} is no signature and no predictor, so there is nothing of DSPy's to put beside it",
            code="bad-target",
            hint="name one of its predictors, module:program.answer",
        )
    return inner


async def _bench(predict: Predict, inputs: dict[str, Any], arguments: argparse.Namespace) -> int:
    from dspex.testing import ModelServer

    async with ModelServer() as server, AsyncExitStack() as stack:
        calls = await _both(server.api_base, predict, inputs, stack)
        fields = [await call() for call in calls]
        asked = [request.messages for request in server.requests]
    if asked[0] != asked[1] or fields[0] != fields[1]:
        what = "ask for" if asked[0] != asked[1] else "answer"
        print(f"dspex: native and DSPy do not {what} the same; nothing was timed", file=sys.stderr)
        return 1
    with _server_process(_reply(predict.signature, fields[0])) as base:
        async with AsyncExitStack() as stack:
            costs = await _timed(await _both(base, predict, inputs, stack), arguments.calls)
    _print(predict.signature, inputs, costs, arguments)
    return 0


async def _both(
    base: str, predict: Predict, inputs: Mapping[str, Any], stack: AsyncExitStack
) -> tuple[_Call, _Call]:
    """The call natively and with DSPy, against the server at `base`."""
    import dspy

    import dspex

    runtime = await stack.enter_async_context(
        dspex.Runtime(dspex.LM(_MODEL, api_base=base, api_key="none"), pools=0, parsing="dspy")
    )
    ours = predict.deepcopy()
    ours.lm, ours.adapter, ours._runtime = None, None, runtime
    lm = dspy.LM(_MODEL, api_base=base, api_key="none", cache=False, num_retries=0)
    if hasattr(lm, "aclose"):  # DSPy has it since 3.4
        stack.push_async_callback(lm.aclose)
    adapter = dspy.ChatAdapter(use_json_adapter_fallback=False)
    theirs = dspy.Predict(predict.signature.to_dspy(), **predict.config)
    theirs.demos = [dspy.Example(**demo) for demo in predict.demos]

    async def native() -> dict[str, Any]:
        return (await ours.acall(**inputs)).to_dict()

    async def in_dspy() -> dict[str, Any]:
        with dspy.context(lm=lm, adapter=adapter):
            return dict(await theirs.acall(**inputs))

    return native, in_dspy


async def _timed(calls: tuple[_Call, _Call], count: int) -> _Costs:
    costs: tuple[list[float], list[float]] = ([], [])
    for call in calls:
        await call()  # what only the first call costs: imports, connections
    for _ in range(_ROUNDS):
        for call, taken in zip(calls, costs, strict=True):
            begun = time.process_time()
            for _ in range(count):
                await call()
            taken.append((time.process_time() - begun) / count * 1e3)
    return _Costs(*map(statistics.median, costs))


def _reply(signature: Signature, fields: Mapping[str, Any]) -> str:
    """A reply that says these fields."""
    from pydantic_core import to_jsonable_python

    texts = []
    for name in signature.output_fields:
        value = to_jsonable_python(fields[name])
        texts.append(f"[[ ## {name} ## ]]\n{value if isinstance(value, str) else json.dumps(value)}")
    return "\n\n".join([*texts, "[[ ## completed ## ]]"])


@contextmanager
def _server_process(reply: str) -> Iterator[str]:
    """A model server in a process of its own, whose CPU is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        answers = Path(folder, "answers.json")
        answers.write_text(json.dumps({"": reply}))
        command = [sys.executable, "-m", "dspex.testing", "--answers", str(answers)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own
        try:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _made_up(types: Mapping[str, Any], given: list[str]) -> dict[str, Any]:
    """A value for each input that is not given."""
    from dspex._engine.type_adapters import adapter_of

    names = {each.partition("=")[0].removesuffix(":") for each in given}
    made: dict[str, Any] = {}
    for name, annotation in types.items():
        if name in names:
            continue
        try:
            adapter = adapter_of(annotation)
            schema = adapter.json_schema()
            made[name] = adapter.validate_python(_sample(schema, schema.get("$defs", {})))
        except Exception as error:  # a type of the user's may refuse in its own way
            raise InputError(
                f"no value can be made up for `{name}`",
                hint=f"give one: --input {name}=...",
                problems=[(name, "it is missing")],
            ) from error
    return made


def _sample(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Any:
    """A value of a JSON schema."""
    if "$ref" in schema:
        return _sample(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    for name in ("const", "default"):
        if name in schema:
            return schema[name]
    if schema.get("enum"):
        return schema["enum"][0]
    for name in ("anyOf", "oneOf", "allOf"):
        if name in schema:
            return _sample(schema[name][0], definitions)
    match schema.get("type"):
        case "integer":
            return 7
        case "number":
            return 0.5
        case "boolean":
            return True
        case "array":
            items = schema.get("prefixItems") or [schema.get("items", {})] * 2
            return [_sample(item, definitions) for item in items]
        case "object":
            wanted = schema.get("required", ())
            return {name: _sample(schema["properties"][name], definitions) for name in wanted}
        case "null":
            return None
    return _TEXTS.get(schema.get("format", ""), "The Danube rises in the Black Forest.")


_TEXTS: Final[Mapping[str, str]] = {
    "date": "2024-05-06",
    "date-time": "2024-05-06T07:08:09",
    "duration": "PT5M",
    "time": "07:08:09",
    "uuid": "12345678-1234-5678-1234-567812345678",
}


def _print(
    signature: Signature, inputs: Mapping[str, Any], costs: _Costs, arguments: argparse.Namespace
) -> None:
    if arguments.json:
        figures = {"native_ms": costs.native, "dspy_ms": costs.dspy, "ratio": costs.ratio}
        print(json.dumps({"signature": signature.text, "calls": arguments.calls, **figures}, indent=2))
        return
    print(signature.text)
    print(f"same messages and fields; CPU per call, median of {_ROUNDS} rounds of {arguments.calls} calls:")
    print(f"  native  {costs.native:8.3f} ms")
    print(f"  DSPy    {costs.dspy:8.3f} ms")
    print(f"  ratio   {costs.ratio:8.1f}")
