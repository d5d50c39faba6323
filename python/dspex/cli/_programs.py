"""What a command line names that can be called: one table of what a target may be.

::

    "question -> answer"      a signature: a `dspex.Predict` of it
    rag.dspex.json            a compiled program, as `dspex export` writes it
    my_app.rag:RAG            what is imported there:
                                a module of dspex (an object, or a class that is made without arguments)
                                a class of dspex.Signature or dspy.Signature, or the text of one
                                a class of dspy.Module: a `dspex.program`, which a worker runs
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from dspex.cli._targets import imported, is_path
from dspex.errors import ConfigError, SignatureError

if TYPE_CHECKING:
    from dspex.modules import Module
    from dspex.signature import Signature

T = TypeVar("T")

__all__ = ["input_fields", "native_at", "program_at", "signature_of"]


def program_at(target: str, *, state: str | None = None) -> Module:
    """The module that a target names.

    Args:
        target: See this module's docstring.
        state: The file that `save` of the program wrote, here or in DSPy.

    Raises:
        ConfigError: If it names nothing (`bad-target`), or the state is another program's.
        SignatureError: If it is a text, and no signature.
    """
    import dspex

    if target.endswith(".dspex.json"):
        compiled = dspex.load(target)
        return compiled if state is None else compiled.load(state)
    found = imported(target) if is_path(target) else target
    dspy_module = getattr(sys.modules.get("dspy"), "Module", None)
    if dspy_module is not None and isinstance(found, type) and issubclass(found, dspy_module):
        return dspex.program(target, state=state)
    program = _module_of(target, found, dspy_module)
    return program if state is None else program.deepcopy().load(state)


def native_at(target: str, *, state: str | None = None) -> Module:
    """The module that a target names, made native where it is a program of DSPy's.

    Args:
        target: As for `program_at`; also an object of a class of dspy.Module.
        state: As for `program_at`.

    Raises:
        ConfigError: As `program_at`, or if the program has no native twin (`not-native`).
    """
    import dspex

    found = imported(target) if is_path(target) else target
    theirs = getattr(sys.modules.get("dspy"), "Module", None)
    if theirs is None or not (
        isinstance(found, theirs) or (isinstance(found, type) and issubclass(found, theirs))
    ):
        return program_at(target, state=state)
    program = dspex.from_dspy(_made(target, found) if isinstance(found, type) else found)
    return program if state is None else program.load(state)


def _module_of(target: str, found: Any, dspy_module: type[Any] | None) -> Module:
    """A module of dspex, for what was found."""
    import dspex

    if isinstance(found, dspex.Module):
        return found
    if isinstance(found, type) and issubclass(found, dspex.Module):
        return _made(target, found)
    if dspy_module is not None and isinstance(found, dspy_module):
        raise ConfigError(
            f"{target!r} is an object of DSPy's, and a worker makes its own",
            code="bad-target",
            hint=f"name its class, and what it was optimised to: --state {type(found).__name__}.json",
        )
    try:
        return dspex.Predict(found)
    except SignatureError:
        if isinstance(found, str):
            raise
        raise ConfigError(
            f"{target!r} is a {type(found).__name__}, and nothing that can be called with inputs",
            code="bad-target",
            hint="name a dspex.Module, a class of dspy.Module, or a signature",
        ) from None


def _made(target: str, cls: type[T]) -> T:
    try:
        return cls()
    except TypeError as error:
        raise ConfigError(
            f"{target!r} is not made without arguments: {error}",
            code="bad-target",
            hint="name an object of the class that a module of yours makes",
        ) from error


def signature_of(program: Module) -> Signature | None:
    """The signature of a module that has one."""
    inner = getattr(program, "predict", program)
    found: Signature | None = getattr(inner, "signature", None)
    return found


def input_fields(target: str, program: Module) -> Mapping[str, Any]:
    """The inputs of a module with their types; `Any` where nobody says.

    Raises:
        ConfigError: If it takes its inputs in a way that names none.
    """
    from dspex.compiled import Program

    if isinstance(program, Program):
        return program.input_types
    signature = signature_of(program)
    if signature is not None:
        return {name: field.annotation for name, field in signature.input_fields.items()}
    called = program if not hasattr(program, "remote_parts") else imported(target)
    forward = getattr(called, "aforward", None) or getattr(called, "forward", None)
    parameters = {} if forward is None else dict(inspect.signature(forward).parameters)
    if isinstance(called, type):
        parameters.pop(next(iter(parameters), ""), None)  # self
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    fields = {name: Any for name, each in parameters.items() if each.kind in named}
    if not fields:
        raise ConfigError(
            f"{target!r} does not say what its inputs are",
            code="bad-target",
            hint="give them: --input question='Who wrote it?'",
        )
    return fields
