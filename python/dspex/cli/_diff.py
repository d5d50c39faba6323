"""`dspex diff`: which prompts change between two versions of DSPy.

A target is what a prompt is made of, and every predictor in it is rendered twice, once in each dialect::

    "question -> answer"           a signature
    my_app.rag:Ask                 a class of dspex.Signature or dspy.Signature
    my_app.rag:program             a dspy.Module or a dspex.Predict: all its predictors, with their examples
    my_app.rag:program=rag.json    the same, with the state that `Module.save` wrote
    rag.json                       what the file alone tells: examples, instructions, names of fields

Inputs are shown as `{name}`; a signature with a field for a conversation gets one turn of it. A module is
imported only because it stands on the command line; nothing that is in a file is.
"""

from __future__ import annotations

import argparse
import copy
import difflib
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dspex.cli._targets import imported
from dspex.dialects import KNOWN
from dspex.errors import ConfigError, DspexError

__all__ = ["add"]

_LAYOUTS = ("chat", "json", "xml")


class _Predictor(NamedTuple):
    """What one prompt is made of."""

    name: str
    signature: Any
    demos: Sequence[Mapping[str, Any]]


def add(commands: Any) -> None:
    """Declare the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "diff",
        help="show which prompts change between two versions of DSPy",
        description="Show which prompts change between two versions of DSPy. "
        "The exit code is 0 if none does, 1 if one does, 2 if a target cannot be read.",
    )
    parser.add_argument(
        "targets",
        nargs="+",
        metavar="TARGET",
        help='a signature ("question -> answer"), module:attribute, a file that Module.save wrote, '
        "or one of the first two with =FILE.json behind it",
    )
    parser.add_argument("--from", dest="old", choices=KNOWN, default=KNOWN[-2], help="the version before")
    parser.add_argument("--to", dest="new", choices=KNOWN, default=KNOWN[-1], help="the version after")
    parser.add_argument(
        "--adapter",
        action="append",
        choices=_LAYOUTS,
        help="whose prompts (default: chat); may be repeated",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the differences as a unified diff.

    Returns:
        0 if no prompt changes, 1 if one does.

    Raises:
        DspexError: If a target cannot be read.
    """
    # All targets are read before anything is printed: half a diff would look like a whole one.
    predictors = [predictor for target in arguments.targets for predictor in _read(target)]
    changed = 0
    for predictor in predictors:
        for layout in dict.fromkeys(arguments.adapter or ["chat"]):
            before, after = (_shown(predictor, layout, name) for name in (arguments.old, arguments.new))
            label = f"{predictor.name} ({layout}, DSPy "
            lines = difflib.unified_diff(
                before, after, f"{label}{arguments.old})", f"{label}{arguments.new})", lineterm=""
            )
            text = "\n".join(lines)
            if text:
                changed += 1
                print(text)
    print(
        f"{changed} of {len(predictors)} prompts change" if changed else "no prompt changes", file=sys.stderr
    )
    return 1 if changed else 0


def _shown(predictor: _Predictor, layout: str, dialect: str) -> list[str]:
    """The messages of a predictor, line by line."""
    from dspex.adapters._adapter import ADAPTERS

    plan = ADAPTERS[layout](dialect=dialect, markers="dspy").compile(predictor.signature)
    fields = predictor.signature.fields
    inputs = {name: f"{{{name}}}" for name, field in fields.items() if field.kind == "input"}
    turn = {name: f"{{{name}}}" for name in fields}
    try:
        messages = plan.render(inputs, predictor.demos, [turn] if plan.has_history else None)
    except DspexError as error:
        error.add_note(f"in {predictor.name}")
        raise
    lines = []
    for message in messages:
        content = message["content"]
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, indent=2)
        lines += [f"[{message['role']}]", *text.splitlines(), ""]
    return lines


# --- targets ---------------------------------------------------------------------------------------------


def _read(target: str) -> list[_Predictor]:
    what, file = target, None
    if target.endswith(".json"):
        what, _, path = target.rpartition("=")
        file = _Saved(Path(path))
    if not what:
        assert file is not None  # noqa: S101 - only a file has nothing before it
        return [_guessed(name, state) for name, state in file.predictors()]
    found = what if "->" in what else imported(what)
    return list(_predictors(what, found, file))


def _predictors(name: str, found: Any, file: _Saved | None) -> Iterator[_Predictor]:
    from dspex.modules import Predict
    from dspex.signature import Signature

    # Whoever has an object of DSPy's has imported DSPy.
    module_class = getattr(sys.modules.get("dspy"), "Module", None)
    if module_class is not None and isinstance(found, module_class):
        if file is not None:
            found = file.loaded(copy.deepcopy(found))
        for path, predictor in found.named_predictors():
            demos = [dict(demo.items()) for demo in predictor.demos]
            shown = name if path == "self" else f"{name}.{path}"
            yield _Predictor(shown, Signature.of(predictor.signature), demos)
        return
    demos = []
    if isinstance(found, Predict):
        found, demos = found.signature, found.demos
    if module_class is not None and isinstance(found, type) and issubclass(found, module_class):
        raise ConfigError(
            f"{name} is a class of modules, not a module",
            code="bad-target",
            hint="name an object: `program = Program()` in the module, and module:program here",
        )
    signature = Signature.of(found)
    if file is not None:
        state = file.only()
        signature, demos = signature.load_state(state["signature"]), state.get("demos") or []
    yield _Predictor(name, signature, demos)


class _Saved:
    """A file that `Module.save` wrote.

    Raises:
        ConfigError: If it is none (`diff-file`).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._state = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise self._wrong(f"cannot be read: {error}") from error
        if not self.predictors():
            raise self._wrong("holds no predictor that DSPy has saved")

    def predictors(self) -> list[tuple[str, dict[str, Any]]]:
        """Their names and states; the file's name for one that was saved alone."""
        state = self._state if isinstance(self._state, dict) else {}
        if isinstance(state.get("signature"), dict):
            return [(str(self._path), state)]
        found = [(name, part) for name, part in state.items() if isinstance(part, dict)]
        return [
            (f"{self._path}:{name}", part) for name, part in found if isinstance(part.get("signature"), dict)
        ]

    def only(self) -> dict[str, Any]:
        """The state of the one predictor there is."""
        found = self.predictors()
        if len(found) > 1:
            names = ", ".join(name for name, _ in found)
            raise self._wrong(f"holds several predictors ({names}), and a signature is one")
        return found[0][1]

    def loaded(self, module: Any) -> Any:
        """The module, with this state."""
        try:
            module.load_state({name: part for name, part in self._state.items() if name != "metadata"})
        except (KeyError, TypeError, ValueError, NotImplementedError) as error:
            raise self._wrong(f"does not fit the program: {type(error).__name__}: {error}") from error
        return module

    def _wrong(self, what: str) -> ConfigError:
        return ConfigError(
            f"{self._path} {what}",
            code="diff-file",
            hint="give a file that Module.save wrote, for the program that stands before it",
        )


_HINT = "name the program or the signature too, as module:attribute=FILE.json,"
_DEFAULT = re.compile(r"Given the fields (.*), produce the fields (.*)\.")


def _guessed(name: str, state: Mapping[str, Any]) -> _Predictor:
    """What a saved state tells of its predictor: no types, and names only where DSPy wrote them."""
    from dspex.signature import InputField, OutputField, Signature

    saved, demos = state["signature"], state.get("demos") or []
    texts = [field.get("description", "") for field in saved.get("fields", ())]
    names = [match[1] if (match := re.fullmatch(r"\$\{(\w+)\}", text)) else None for text in texts]
    split = _DEFAULT.search(saved.get("instructions", ""))
    outputs = set(re.findall(r"`(\w+)`", split[2])) if split else set()
    if not outputs or None in names or not outputs <= set(names):
        raise ConfigError(
            f"{name} does not tell the fields of its signature",
            code="diff-file",
            hint=_HINT.rstrip(","),
        )
    # A field that the instructions do not name is an output: ChainOfThought's reasoning.
    inputs = set(re.findall(r"`(\w+)`", split[1])) if split else set()
    fields = {field: InputField() if field in inputs else OutputField() for field in names}
    print(f"dspex: {name}: a file has no types; {_HINT} to compare with them", file=sys.stderr)
    return _Predictor(name, Signature(fields, saved["instructions"]), demos)
