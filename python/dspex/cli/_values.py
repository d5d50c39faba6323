"""Inputs as a command line has them, and what is printed of an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from dspex.errors import InputError

__all__ = ["as_json", "read_input", "read_inputs"]


def read_inputs(given: Sequence[str], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of `--input NAME=TEXT` and `--input NAME:=JSON`.

    Args:
        given: The arguments.
        fields: The types of the inputs, as far as they are known.

    Raises:
        InputError: If one has no name, or is no JSON where it has to be.
    """
    inputs: dict[str, Any] = {}
    for each in given:
        name, equals, text = each.partition("=")
        if not equals or not name.rstrip(":"):
            raise InputError(f"--input {each!r} has no name", hint="write --input question='Who wrote it?'")
        annotation = Any if name.endswith(":") else fields.get(name, str)
        inputs[name.removesuffix(":")] = read_input(name.removesuffix(":"), text, annotation)
    return inputs


def read_input(name: str, text: str, annotation: Any) -> Any:
    """The value of an input: a text as it is where that is its type, else JSON, as the type has it.

    Raises:
        InputError: If it is none.
    """
    if annotation is str:
        return text
    try:
        value = json.loads(text)
    except ValueError as error:
        if _takes_text(annotation):
            return text
        raise InputError(
            f"`{name}` is no JSON: {error}",
            hint=f"write {name}='[1, 2]', or \"...\" around a text",
            problems=[(name, "it is no JSON")],
        ) from error
    return value if annotation is Any else _of_type(name, value, annotation)


def _takes_text(annotation: Any) -> bool:
    """Whether a text that is no JSON may be meant as it is: a choice, a date, a union with a text."""
    from dspex._engine.type_adapters import adapter_of

    schema = adapter_of(annotation).json_schema()
    return any(
        part.get("type") == "string" or "enum" in part or "const" in part
        for part in (schema, *schema.get("anyOf", ()))
    )


def _of_type(name: str, value: Any, annotation: Any) -> Any:
    from pydantic import ValidationError

    from dspex._engine.type_adapters import adapter_of

    try:
        return adapter_of(annotation).validate_python(value)
    except ValidationError as error:
        raise InputError(
            f"`{name}` does not fit its type: {error.errors()[0]['msg']}",
            code="input-type",
            problems=[(name, error.errors()[0]["msg"])],
        ) from error


def as_json(answer: Any, *, in_one_line: bool = False) -> str:
    """An answer for programs: a prediction with how it came about, or what a module gave instead."""
    from pydantic_core import to_jsonable_python

    from dspex.prediction import Prediction

    if isinstance(answer, Prediction):
        answer = {
            "prediction": answer.to_dict(),
            "route": answer.route,
            "usage": answer.usage,
            "timings": answer.timings,
            "repairs": [repair._asdict() for repair in answer.repairs],
        }
    else:
        answer = {"result": answer}
    plain = to_jsonable_python(answer, fallback=str, inf_nan_mode="strings", serialize_unknown=True)
    return json.dumps(plain, ensure_ascii=False, indent=None if in_one_line else 2)
