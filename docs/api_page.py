"""Write `docs/api.md` out of the docstrings: `python docs/api_page.py`, or `--check` to compare.

The page lists every public name of the packages below with its signature and its first sentence; the
docstrings have the rest, and an editor shows them.
"""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
import itertools
import sys
import textwrap
from pathlib import Path
from types import ModuleType

PAGE = Path(__file__).parent / "api.md"
WIDTH = 110
MOST = 7
"""Arguments that are shown of one name; a pool has over a dozen settings."""
LONGEST = 100
"""Characters of them that are shown."""

PACKAGES = {
    "dspex": "what programs are made of",
    "dspex.adapters": "prompts and replies",
    "dspex.callbacks": "who is told of calls",
    "dspex.dspy": "DSPy's adapters with the Rust core inside, and an engine",
    "dspex.errors": "every error",
    "dspex.events": "what a call sends while it runs",
    "dspex.lm": "the LM client",
    "dspex.metrics": "scores",
    "dspex.pipelines": "steps that are compiled and resumed",
    "dspex.pool": "worker processes",
    "dspex.prediction": "what a call returns",
    "dspex.router": "which target serves a call",
    "dspex.runtime": "what joins the parts",
    "dspex.signature": "what goes in and what comes out",
    "dspex.sessions": "state that lives with a worker and outlives it",
    "dspex.stores": "where runs and sessions are kept",
    "dspex.streaming": "streams of modules",
    "dspex.telemetry": "events and traces",
    "dspex.wire": "values as bytes",
    "dspex.testing": "stand-ins for a model",
    "dspex.testing.stores": "tests of a store",
}


def main() -> int:
    """Write the page, or say whether it is up to date."""
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text)
        return 0
    return 0 if PAGE.exists() and PAGE.read_text() == text else 1


def page() -> str:
    """The whole page."""
    parts = [
        "# Public names\n\nWritten by `python docs/api_page.py` out of the docstrings, which say more: "
        "`help(dspex.Predict)`.\n"
    ]
    for package, idea in PACKAGES.items():
        module = importlib.import_module(package)
        entries = "\n".join(_entry(module, name) for name in module.__all__ if not name.startswith("__"))
        parts.append(f"## `{package}`: {idea}\n\n{entries}\n")
    return "\n".join(parts)


def _entry(module: ModuleType, name: str) -> str:
    value = getattr(module, name)
    first = _documented(value) if inspect.isclass(value) or inspect.isroutine(value) else _noted(module, name)
    if not first:
        raise SystemExit(f"{module.__name__}.{name} has no docstring: every public name says what it is")
    text = textwrap.fill(
        first,
        WIDTH,
        initial_indent="  ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return f"- `{name}{_arguments(value)}`\n{text}"


def _documented(value: object) -> str:
    return _first(getattr(value, "__doc__", "") or "")


def _first(text: str) -> str:
    return inspect.cleandoc(text).partition("\n\n")[0].replace("\n", " ")


def _noted(module: ModuleType, name: str) -> str:
    """The text under an alias or a constant, where Python keeps no docstring."""
    for home in _homes(module, name):
        body = ast.parse(inspect.getsource(home)).body
        for statement, below in itertools.pairwise(body):
            targets = (
                statement.targets
                if isinstance(statement, ast.Assign)
                else [getattr(statement, "target", None)]
            )
            match below:
                case ast.Expr(ast.Constant(str(text))) if any(getattr(t, "id", "") == name for t in targets):
                    return _first(text)
    return ""


def _homes(module: ModuleType, name: str) -> list[ModuleType]:
    prefixes = (f"{module.__name__}.", "dspex._")
    below = [each for key, each in sorted(sys.modules.items()) if key.startswith(prefixes) and each]
    return [module, *(each for each in below if hasattr(each, name))]


def _is_error(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, BaseException)


def _arguments(value: object) -> str:
    """The names of the arguments, optional ones with a question mark."""
    if not (inspect.isclass(value) or inspect.isroutine(value)) or _is_error(value):
        return ""
    if getattr(value, "_is_protocol", False) or isinstance(value, enum.EnumMeta):
        return ""
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return ""
    shown = []
    for each in parameters:
        mark = {each.VAR_POSITIONAL: "*", each.VAR_KEYWORD: "**"}.get(each.kind, "")
        optional = "?" if not mark and each.default is not each.empty else ""
        shown.append(f"{mark}{each.name}{optional}")
    most = MOST
    while len(", ".join(shown[:most])) > LONGEST:
        most -= 1
    return f"({', '.join([*shown[:most], '...'] if len(shown) > most else shown)})"


if __name__ == "__main__":
    sys.exit(main())
