"""`Template`: a text with places for values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from dspex import _core
from dspex._engine.markers import Markers, check
from dspex.errors import ConfigError, TemplateError
from dspex.signature import Signature

__all__ = ["Template"]

FUEL = 1_000_000
"""Enough for some 60 MB of text or a million steps, and used up within a fraction of a second."""
MAX_OUTPUT = 8 * 1024 * 1024
MAX_DEPTH = 100
CACHED = 512
"""Compiled templates kept. Services have tens; one that makes them up must not fill the memory."""


class Template:
    """A prompt template. Immutable; compiled once, and the same source with the same limits only once.

    Values are written as DSPy writes them into a prompt: strings as they are, lists and dicts as JSON,
    everything else as `str` has it. A value is never read as a template. A name without a value is an
    error. A template reaches what it is given and nothing else: no files, no other templates, no
    attributes or methods of objects.

    Args:
        source: The text, in Jinja's syntax.
        fuel: Steps one rendering may take; each is an instruction, or some 64 bytes of text.
        max_output: Bytes that the rendered text may have.
        max_depth: How deep loops, conditions and macros may nest while rendering.
        markers: What becomes of a value that holds a marker of DSPy's, `[[ ## name ## ]]`; the adapters have
            the same policies. What the filter `marker` writes is the template's own.

    Raises:
        TemplateError: If the source is not a template; it says where.
        ConfigError: If a limit is not a positive number, or there is no such policy.

    Example:
        ```python
        prompt = dspex.Template("{{ question }} Look in: {{ context | json }}")
        prompt.render(context=["The Danube ends in the Black Sea."], question="Where does it end?")
        ```
    """

    __slots__ = ("_compiled", "_limits", "_markers")

    def __init__(
        self,
        source: str,
        *,
        fuel: int = FUEL,
        max_output: int = MAX_OUTPUT,
        max_depth: int = MAX_DEPTH,
        markers: Markers = "warn",
    ) -> None:
        limits = {"fuel": fuel, "max_output": max_output, "max_depth": max_depth}
        for name, value in limits.items():
            if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**63:
                raise ConfigError(f"{name} must be a positive int, not {value!r}", code="template-limit")
        check(markers)
        self._limits = limits
        self._markers: Markers = markers
        self._compiled = _compile(source, fuel, max_output, max_depth, markers)

    @property
    def source(self) -> str:
        """The text it was made of."""
        return self._compiled.source

    @property
    def variables(self) -> tuple[str, ...]:
        """The names it asks for, sorted."""
        return tuple(self._compiled.variables)

    def render(self, values: Mapping[str, Any] | None = None, /, **named: Any) -> str:
        """The text with these values in their places.

        Args:
            values: Values by name.
            **named: More of them; they win.

        Raises:
            TemplateError: If a value is missing, an operation does not fit its values, or a limit is reached;
                `code` says which.
            InputError: If a value holds a field marker, with `markers="reject"`.
        """
        if values is None:
            return self._compiled.render(named)
        if named or type(values) is not dict:
            values = {**values, **named}
        return self._compiled.render(values)

    def validate(self, signature: Any, *, extra: Iterable[str] = ("demos",)) -> tuple[str, ...]:
        """Check that the inputs of a signature are enough to render this.

        Args:
            signature: A signature, or anything that `Signature.of` takes.
            extra: Names that will be given besides its input fields.

        Returns:
            The input fields that the template does not use.

        Raises:
            TemplateError: If it asks for more; `unknown` lists the names.
        """
        fields = list(Signature.of(signature).input_fields)
        known = {*fields, *extra}
        unknown = [name for name in self.variables if name not in known]
        if unknown:
            raise TemplateError(
                f"the template asks for what the signature does not give: {', '.join(unknown)}",
                code="template-unknown-variable",
                hint=f"its inputs are: {', '.join(fields)}",
                source=self.source,
                unknown=unknown,
            )
        used = set(self.variables)
        return tuple(name for name in fields if name not in used)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Template):
            return NotImplemented
        return self.__reduce__() == other.__reduce__()

    def __hash__(self) -> int:
        return hash(self.source)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.source, self._limits, self._markers)

    def __repr__(self) -> str:
        source = self.source if len(self.source) <= 60 else self.source[:57] + "..."
        return f"Template({source!r})"


@lru_cache(maxsize=CACHED)
def _compile(source: str, fuel: int, max_output: int, max_depth: int, markers: Markers) -> _core.Template:
    return _core.Template(source, fuel=fuel, max_output=max_output, max_depth=max_depth, markers=markers)


def _rebuild(source: str, limits: dict[str, int], markers: Markers) -> Template:
    return Template(source, markers=markers, **limits)
