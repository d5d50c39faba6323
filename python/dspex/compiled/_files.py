"""`export` and `load`: from a program to its file, and from the file to a program."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dspex import __version__, dialects
from dspex.adapters import Adapter, AdapterLike
from dspex.compiled._document import MadeWith, parse, sealed
from dspex.compiled._modules import Reader, Writer
from dspex.compiled._types import TypeReader
from dspex.errors import ConfigError
from dspex.modules._state import replacing

if TYPE_CHECKING:
    from dspex.modules import Module

__all__ = ["export", "load"]

_SUFFIX: Final = ".dspex.json"


def export(
    program: Module,
    path: str | os.PathLike[str],
    *,
    adapter: AdapterLike = "chat",
    dialect: str | None = None,
) -> None:
    """Write a program to one file, which `load` runs without its class and without DSPy.

    The file has the module tree, signatures, types, demos, how models sample, the adapter, and a hash of each
    prompt. It has no code, path, address, header or key. It is written whole or not at all, and read once
    before that: what could not be loaded is not written.

    Args:
        program: A `Predict`, `ChainOfThought` or `MultiChainComparison`, or a `Module` of one's own whose
            `forward` passes values between such parts; see `docs/compiled_programs.md`.
        path: Where to; the name ends in `.dspex.json`.
        adapter: That of the predictors which have none of their own.
        dialect: The version of DSPy whose prompts the program was compiled for; by default the installed
            one's.

    Raises:
        ConfigError: If a part of the program is no data (`program-export`), a demo has no JSON
            (`program-state`), or the file cannot be written (`program-file`).

    Example:
        ```python
        dspex.export(RAG().load("rag.json"), "rag.dspex.json")
        ```
    """
    target = _file(path)
    name = dialects.required(dialect)
    writer = Writer(Adapter.of(adapter), name)
    part = writer.part("program", program)
    content: dict[str, Any] = {
        "made_with": MadeWith(dspex=__version__, dspy=dialects.installed()).model_dump(exclude_none=True),
        "dialect": name,
        "types": {key: each.model_dump(mode="json") for key, each in writer.types.parts.items()},
        "program": part.model_dump(mode="json", exclude_defaults=True),
    }
    try:
        text = sealed(content).encode()
        _, types = _made(text, target.name, lm=False)
        writer.types.check(types)
        with replacing(target) as file:
            file.write(text)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the program cannot be written to {target}: {error}",
            code="program-file",
            hint="look at the path, and at the values of the demos",
        ) from error


def load(path: str | os.PathLike[str], *, lm: bool = False) -> Module:
    """The program in a file that `export` wrote.

    Nothing in the file is imported or run, and its classes are made anew. What it was exported with is
    checked
    first: the form, the hash of the content, and that this version writes the same prompts.

    Args:
        path: The file.
        lm: Whether predictors get the language models that the file names, each a `dspex.LM` with key and
            address from the environment. Else calls ask the runtime's.

    Raises:
        ConfigError: If the file is none of this form, too large or too deep (`program-file`), of a newer
            version (`program-version`), has been changed (`program-changed`), or would not give the prompts
            that it was exported with (`program-prompts`).

    Example:
        ```python
        program = dspex.load("rag.dspex.json")
        program(question="Who wrote it?").answer
        ```
    """
    source = _file(path)
    try:
        text = source.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{source} cannot be read: {error.strerror or error}",
            code="program-file",
            hint="look at the path",
        ) from error
    return _made(text, source.name, lm=lm)[0]


def _made(text: bytes, source: str, *, lm: bool) -> tuple[Module, TypeReader]:
    document = parse(text, source)
    dialect = dialects.check(document.dialect)
    types = TypeReader(document.types, source)
    module: Module = Reader(source, types, dialect, lm=lm).module("program", document.program)
    return module, types


def _file(path: str | os.PathLike[str]) -> Path:
    file = Path(path)
    if not file.name.endswith(_SUFFIX):
        hint = f"name it {file.stem}{_SUFFIX}"
        if file.suffix == ".json":
            hint += ", or read what `save` wrote with program.load(path)"
        raise ConfigError(f"{file} does not end in {_SUFFIX}", code="program-file", hint=hint)
    return file
