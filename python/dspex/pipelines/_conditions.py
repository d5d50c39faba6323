"""`Condition`: what decides in a branch and ends a loop, a function of fields or an expression."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

from dspex._timeouts import shown
from dspex.errors import PipelineError, TemplateError
from dspex.template import Template

__all__ = ["Condition"]

_BLOCKS: Final = ("{%", "%}", "{{", "}}", "{#", "#}")


class Condition:
    """A function of fields by the names of its parameters, or an expression in the syntax of templates.

    An expression reaches the fields that it names and nothing else: it is the condition of a template's
    `{% if %}`, with the same bounds (see `dspex.Template`), and never Python.

    Attributes:
        text: The expression, or the function's name.
        names: The fields that it takes.
        needed: Those of them that must be there.
        is_constant: Whether it can only come out one way.
    """

    __slots__ = ("_call", "is_constant", "is_expression", "names", "needed", "text")

    def __init__(
        self,
        text: str,
        names: tuple[str, ...],
        needed: tuple[str, ...],
        call: Callable[..., Any],
        *,
        expression: bool,
    ) -> None:
        self.text = text
        self.names = names
        self.needed = needed
        self._call = call
        self.is_expression = expression
        self.is_constant = expression and not names

    @property
    def function(self) -> Callable[..., Any]:
        """What is called."""
        return self._call

    @classmethod
    def of(cls, given: Any) -> Condition:
        """Read a condition.

        Raises:
            PipelineError: If it is none (`bad-condition`).
        """
        if isinstance(given, Condition):
            return given
        if isinstance(given, str):
            return _expression(given)
        if not callable(given):
            raise _bad(f"a condition must be a function or an expression, not {shown(given)}")
        return _function(given)

    async def holds(self, fields: Mapping[str, Any]) -> bool:
        """Whether it holds for these values of its fields.

        Raises:
            Exception: What the function raises, or `TemplateError` where the expression does not fit them.
        """
        outcome = self._call(**fields)
        if inspect.isawaitable(outcome):
            outcome = await outcome
        return bool(outcome)

    def __repr__(self) -> str:
        return f"Condition({self.text!r})"


def _expression(text: str) -> Condition:
    if not text.strip() or any(block in text for block in _BLOCKS):
        raise _bad(f"a condition must be one expression, not {shown(text)}")
    try:
        template = Template(f"{{% if {text} %}}1{{% endif %}}")
    except TemplateError as error:
        raise _bad(f"the condition {text!r} cannot be read: {error.message}") from error
    names = template.variables
    return Condition(text, names, names, lambda **fields: template.render(fields), expression=True)


def _function(function: Callable[..., Any]) -> Condition:
    name = getattr(function, "__name__", type(function).__name__)
    names, needed = [], []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise _bad(f"the condition {name} must take fields by name, and has {parameter}")
        names.append(parameter.name)
        if parameter.default is parameter.empty:
            needed.append(parameter.name)
    text = "a function" if name == "<lambda>" else name
    return Condition(text, tuple(names), tuple(needed), function, expression=False)


def _bad(message: str) -> PipelineError:
    return PipelineError(
        message,
        code="bad-condition",
        hint='write a function such as `lambda confidence: confidence < 0.5`, or "confidence < 0.5"',
    )
