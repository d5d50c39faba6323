"""How a signature crosses to a worker: its text, and what its text does not say.

The service makes a `SignatureForm` of a signature (`SignatureForm.of`), the worker makes DSPy's class of it
(`SignatureForm.to_dspy`). The text is read by the core, so that no text makes a worker import a module; the
types that it names are well known, or imported from where `types` says: the types that the caller's own
signature uses, never a name out of data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from dspex._imports import find, unimportable
from dspex._release import released
from dspex.errors import ConfigError, DspexError, SignatureError
from dspex.protocol.unions import pipe_unions_of, with_pipe_unions
from dspex.protocol.values import classes_in, from_wire, to_wire
from dspex.signature import Signature
from dspex.signature._names import only_given

if TYPE_CHECKING:
    import dspy

    from dspex.signature import Field, SignatureLike

__all__ = ["SignatureForm"]

_KNOWN_ROOTS: Final = frozenset(
    {"builtins", "collections", "datetime", "decimal", "dspy", "enum", "fractions", "pathlib", "pydantic"}
    | {"types", "typing", "typing_extensions", "uuid"}
)
"""Modules whose types a signature's text names by itself."""


@dataclass(frozen=True, slots=True)
class SignatureForm:
    """A signature in the form in which it crosses to a worker.

    Attributes:
        text: Fields and types, such as `"question, context: list[str] -> answer: str"`.
        instructions: None for DSPy's default.
        fields: What the prompt says of a field beyond its name and type: `desc` and `constraints`.
        types: Where the types that the text names, and that are not well known, are imported from.
        unions: Of each field with a union in its type, which of its unions are written with a bar.
        defaults: What stands in for an output that a reply lacks, as wire values.
    """

    text: str
    instructions: str | None = None
    fields: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    unions: Mapping[str, Sequence[bool]] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, source: SignatureLike | SignatureForm) -> SignatureForm:
        """The form of a signature.

        Args:
            source: Anything `Signature.of` takes. A text is read where the work is done: its mistakes are
                errors of the call.

        Raises:
            SignatureError: If it stands for no signature.
            ConfigError: If a worker cannot import one of its types (`type-not-importable`), or two of them
                share a name (`type-name`).
        """
        if isinstance(source, SignatureForm):
            return source
        if isinstance(source, str):
            return cls(source)
        form, defaults = _form_of(source if type(source) is Signature else Signature.of(source))
        if not defaults:
            return form
        # A default may be new in each call.
        return replace(form, defaults={output.name: to_wire(output.get_default()) for output in defaults})

    def read(self) -> Signature:
        """The signature that the text, its types and its instructions say.

        Raises:
            SignatureError: If the text cannot be read.
            ConfigError: If a type cannot be imported.
        """
        types = {name: find(path) for name, path in self.types.items()}
        with only_given():
            return Signature(self.text, self.instructions or None, types=types)

    def to_dspy(self) -> type[dspy.Signature]:
        """DSPy's class for the signature. Imports DSPy.

        Raises:
            SignatureError: If the text cannot be read, or the settings of a field do not fit.
            ConfigError: If a type cannot be imported.
        """
        ours = self.read()
        for name, texts in self.fields.items():
            ours = ours.with_updated_fields(name, **texts)
        for part, by_field in (("unions", self.unions), ("defaults", self.defaults)):
            for name in by_field:
                if name not in ours.fields:
                    raise SignatureError(
                        f"there is no field {name!r}, of which $.signature.{part} speaks",
                        code="no-such-field",
                        hint=f"the fields are: {', '.join(ours.fields)}",
                    )
        made = ours.to_dspy()
        try:
            for name, bars in self.unions.items():
                made = made.with_updated_fields(
                    name, type_=with_pipe_unions(made.fields[name].annotation, bars)
                )
            for name, default in self.defaults.items():
                made = made.with_updated_fields(name)  # a copy, which is ours to change
                made.fields[name].default = from_wire(default, made.fields[name].annotation)
        except DspexError:
            raise
        except Exception as error:
            raise SignatureError(
                f"the signature cannot be made: {error}", code="signature-refused-by-dspy", source=ours.text
            ) from error
        if self.instructions is not None:
            # DSPy takes the empty text for none at all; set afterwards it stays.
            made.instructions = self.instructions
        return made


@released
@lru_cache(maxsize=1024)
def _form_of(signature: Signature) -> tuple[SignatureForm, list[Field]]:
    """The form without defaults, and the outputs that have one."""
    form = SignatureForm(
        signature.text,
        signature.instructions,
        {name: texts for name, given in signature.fields.items() if (texts := _texts(given))},
        _paths(signature),
        pipe_unions_of(signature),
    )
    return form, [output for output in signature.output_fields.values() if output.has_default]


def _texts(given: Field) -> dict[str, str]:
    texts = {} if given.desc == f"${{{given.name}}}" else {"desc": given.desc}
    return texts if given.constraints is None else {**texts, "constraints": given.constraints}


def _paths(signature: Signature) -> dict[str, str]:
    """Where a worker imports the signature's types from, by their names in its text."""
    paths: dict[str, str] = {}
    for name, given in signature.fields.items():
        for cls in classes_in(given.annotation):
            if cls.__module__.split(".")[0] in _KNOWN_ROOTS:
                continue
            path = _path(name, cls)
            if paths.setdefault(cls.__name__, path) != path:
                raise ConfigError(
                    f"two types of the signature are called {cls.__name__}: {paths[cls.__name__]} and {path}",
                    code="type-name",
                    hint="rename one of them; the text of a signature cannot tell them apart",
                )
    return paths


def _path(name: str, cls: type) -> str:
    problem = unimportable(cls)
    if problem:
        raise ConfigError(
            f"the type {cls.__qualname__} of `{name}` {problem}, so a worker cannot import it",
            code="type-not-importable",
            hint='define it at the top of a module that both can import, or call with route="native"',
        )
    return f"{cls.__module__}:{cls.__qualname__}"
