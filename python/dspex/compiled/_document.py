"""The form of a compiled program's file: what stands where, and what is refused.

::

    {"format": "dspex-program", "version": 1, "hash": "sha256:...",
     "made_with": {"dspex": "0.1.0", "dspy": "3.4.1"}, "dialect": "3.4",
     "types": {"Person": {"kind": "model", "fields": [...]}},
     "program": {"module": "Program", "name": "RAG",
                 "parts": {"draft": {"module": "ChainOfThought", "predict": {...}}},
                 "flow": {"inputs": [...], "steps": [...], "output": {...}}}}

Reading goes from the outside in, and each step refuses what it cannot vouch for::

    size -> JSON -> depth -> format and version -> form -> hash        (this file)
         -> types -> signatures -> modules -> hashes of the prompts    (`_build`)

The hash is that of the content in the order in which it stands, whatever the white space. It finds what has
been changed by accident or by hand; whoever means to deceive computes a new one, so it is no signature.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from dspex._depth import deeper
from dspex.errors import ConfigError

__all__ = [
    "FORMAT",
    "VERSION",
    "AdapterPart",
    "ChainOfThoughtPart",
    "ComparisonPart",
    "Document",
    "EnumPart",
    "Expression",
    "FieldPart",
    "FlowPart",
    "InputPart",
    "ItemsPart",
    "MemberPart",
    "ModulePart",
    "NamedPart",
    "PredictPart",
    "ProgramPart",
    "RecordPart",
    "SignaturePart",
    "StepPart",
    "TypePart",
    "parse",
    "refused",
    "schema",
    "sealed",
]

FORMAT: Final = "dspex-program"
VERSION: Final = 1

_MOST_BYTES: Final = 64 * 1024 * 1024
_DEPTH: Final = 100
"""How deep a file may nest; a program of programs takes some twelve levels for each."""

_SHOWN: Final = 10

Name = Annotated[str, Field(pattern=r"^[^\W\d]\w*$", max_length=255)]
"""An identifier."""
Hash = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, protected_namespaces=(), defer_build=True
    )


class MemberPart(_Part):
    """A field of a type."""

    name: Name
    type: str = Field(description="The type, as the text of a signature writes it.")
    pipe_unions: list[bool] = Field(
        default=[], description="Which unions in the type are written with a bar."
    )
    required: bool = Field(default=True, description="Whether a typed dict must have it.")
    settings: dict[str, JsonValue] = Field(
        default={}, description="Default, constraints and texts, by their names in pydantic."
    )


class RecordPart(_Part):
    """A type with fields."""

    kind: Literal["model", "dataclass", "typed_dict"]
    doc: str | None = None
    config: dict[str, JsonValue] = Field(default={}, description="Pydantic's configuration of a model.")
    fields: list[MemberPart]


class EnumPart(_Part):
    """An enumeration."""

    kind: Literal["enum"]
    base: Literal["Enum", "IntEnum", "StrEnum", "str", "int"] = "Enum"
    doc: str | None = None
    members: dict[Name, JsonValue]


TypePart = Annotated[RecordPart | EnumPart, Field(discriminator="kind")]


class FieldPart(MemberPart):
    """A field of a signature."""

    kind: Literal["input", "output"]
    type: str = "str"
    typed: bool = Field(
        default=True, description="Whether the program gives it a type; without one it takes anything."
    )
    desc: str | None = None
    prefix: str | None = None
    constraints: str | None = Field(default=None, description="What the prompt says of its constraints.")


class SignaturePart(_Part):
    """What goes into a call and what comes out of it."""

    instructions: str
    fields: list[FieldPart]


class AdapterPart(_Part):
    """How prompts are laid out and replies are read."""

    layout: Literal["chat", "json", "xml"]
    parsing: Literal["tolerant", "dspy"] = "tolerant"
    markers: Literal["dspy", "warn", "escape", "reject"] = "warn"
    use_native_function_calling: bool = False
    parallel_tool_calls: bool | None = None


class PredictPart(_Part):
    """One signature, one call of a language model."""

    module: Literal["Predict"]
    signature: SignaturePart
    demos: list[dict[str, JsonValue]] = []
    settings: dict[str, JsonValue] = Field(default={}, description="How the language model samples.")
    adapter: AdapterPart
    validation: Literal["strict", "warn", "off"] = "strict"
    lm: dict[str, JsonValue] | None = Field(
        default=None, description="The model and how it samples; used if asked for."
    )
    prompt: Hash = Field(description="Of the messages, each input being its own name in braces.")


class ChainOfThoughtPart(_Part):
    """A predictor that reasons first."""

    module: Literal["ChainOfThought"]
    predict: PredictPart


class ComparisonPart(_Part):
    """A predictor that compares attempts."""

    module: Literal["MultiChainComparison"]
    attempts: int = Field(ge=0, le=1000)
    predict: PredictPart


class InputValue(_Part):
    """An input of the program."""

    kind: Literal["input"]
    name: Name


class AnswerValue(_Part):
    """What a step before has answered: its prediction, or one part of that."""

    kind: Literal["answer"]
    step: int = Field(ge=0)
    part: Literal["prediction", "completions"] = "prediction"
    field: Name | None = Field(default=None, description="One field of the prediction.")


class ConstantValue(_Part):
    """A value that stands in the file."""

    kind: Literal["constant"]
    value: JsonValue


class ListValue(_Part):
    """A list or tuple of values."""

    kind: Literal["list", "tuple"]
    items: list[Expression]


class NamedValues(_Part):
    """A dict of values, or a prediction made of them."""

    kind: Literal["dict", "prediction"]
    items: dict[str, Expression]


Expression = Annotated[
    InputValue | AnswerValue | ConstantValue | ListValue | NamedValues, Field(discriminator="kind")
]


class StepPart(_Part):
    """A call of a part."""

    call: list[int | str] = Field(
        min_length=1, description="The way to the part: an attribute, then places and keys."
    )
    args: list[Expression] = []
    inputs: dict[Name, Expression] = {}


class InputPart(_Part):
    """An input of a program; one without a default must be given."""

    name: Name
    default: Expression | None = None


class FlowPart(_Part):
    """What a program does with its parts, in this order."""

    inputs: list[InputPart]
    steps: list[StepPart]
    output: Expression


class ProgramPart(_Part):
    """A module that calls its parts."""

    module: Literal["Program"]
    name: Name
    parts: dict[Name, Parts]
    flow: FlowPart


class ItemsPart(_Part):
    """A list of modules."""

    module: Literal["list"]
    items: list[Parts]


class NamedPart(_Part):
    """Modules by name."""

    module: Literal["dict"]
    items: dict[str, Parts]


ModulePart = Annotated[
    PredictPart | ChainOfThoughtPart | ComparisonPart | ProgramPart, Field(discriminator="module")
]
Parts = Annotated[
    PredictPart | ChainOfThoughtPart | ComparisonPart | ProgramPart | ItemsPart | NamedPart,
    Field(discriminator="module"),
]


class MadeWith(_Part):
    """The versions that the program was exported with."""

    dspex: str
    dspy: str | None = None


class Document(_Part):
    """A compiled program."""

    format: Literal["dspex-program"]
    version: Literal[1]
    hash: Hash = Field(description="Of the content without this key, as compact JSON in its own order.")
    made_with: MadeWith
    dialect: str = Field(description="The version of DSPy whose prompts the program was compiled for.")
    types: dict[Name, TypePart] = {}
    program: ModulePart


# -- reading ----------------------------------------------------------------------------------------


def parse(text: bytes, source: str) -> Document:
    """The document that a file holds.

    Args:
        text: The file's content.
        source: The file's name, for errors.

    Raises:
        ConfigError: If it is no JSON of this form, too large or too deep (`program-file`), of a newer version
            (`program-version`), or not what its hash is of (`program-changed`).
    """
    if len(text) > _MOST_BYTES:
        raise refused(source, [f"it has {len(text)} bytes, and {_MOST_BYTES} are the most"])
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise refused(source, [f"it is no JSON: {error}"]) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise refused(source, [f'it does not say "format": "{FORMAT}"'])
    version = content.get("version")
    if isinstance(version, int) and not isinstance(version, bool) and version > VERSION:
        raise ConfigError(
            f"{source} is of version {version}, and this dspex reads {VERSION}",
            code="program-version",
            hint="install the dspex that wrote it, or a newer one",
        )
    if deeper(content, _DEPTH):
        raise refused(source, [f"it nests deeper than {_DEPTH} levels"])
    try:
        document = Document.model_validate(content)
    except pydantic.ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise refused(source, [f"{_place(each['loc'])}: {each['msg']}" for each in found]) from None
    if _hash_of(content) != document.hash:
        raise ConfigError(
            f"{source} is not what was exported: its content has another hash",
            code="program-changed",
            hint="export the program again; a change by hand belongs into the program that is exported",
        )
    return document


def refused(source: str, problems: list[str]) -> ConfigError:
    """The error for a file that is no compiled program."""
    shown = problems[:_SHOWN] + [f"and {len(problems) - _SHOWN} more"] * (len(problems) > _SHOWN)
    return ConfigError(
        f"{source} cannot be read as a compiled program:\n" + "\n".join(f"  {each:.500}" for each in shown),
        code="program-file",
        hint="it has to be what dspex.export(program, path) wrote",
    )


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _place(loc: tuple[int | str, ...]) -> str:
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part:.80}" for part in loc)


# -- writing ----------------------------------------------------------------------------------------


def sealed(content: Mapping[str, Any]) -> str:
    """The text of a file with this content, which has no hash yet.

    Raises:
        ValueError: If a value has no JSON.
    """
    head = {"format": FORMAT, "version": VERSION}
    whole = {**head, "hash": _hash_of({**head, **content}), **content}
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _hash_of(content: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in content.items() if name != "hash"}
    compact = json.dumps(rest, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(compact.encode("utf-8", "surrogatepass")).hexdigest()


def schema() -> dict[str, Any]:
    """The JSON schema of the files."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Document.model_json_schema()}
