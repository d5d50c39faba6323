"""`Signature`, the public class over the compiled value, and the metaclass of class signatures."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeAlias

from dspex import _core
from dspex._release import before_full_collection
from dspex.errors import InputError, ReplyError, SignatureError

if TYPE_CHECKING:
    import dspy

    from dspex.signature._typed import of_both, value
else:

    def of_both(method: Any) -> Any:
        """What only a type checker reads; see `dspex.signature._typed`."""
        return method


__all__ = ["CacheInfo", "Limits", "Signature", "SignatureLike", "SignatureMeta", "Validation"]

Validation = Literal["strict", "warn", "off"]
"""What to do about values that do not fit: raise, log a warning as DSPy does, or not look at them."""

_log = logging.getLogger("dspex.signature")


class CacheInfo(NamedTuple):
    """What the cache of string signatures did so far."""

    hits: int
    """Signatures that had been read before."""
    misses: int
    """Signatures that had to be read."""
    size: int
    """Signatures held now."""
    capacity: int
    """Signatures held at most."""


class Limits(NamedTuple):
    """How much text a signature may be."""

    length: int
    """Bytes of UTF-8."""
    depth: int
    """Nested brackets, dots and quoted types; at zero only plain names pass."""
    fields: int
    """Fields on both sides together."""


class _Delegate:
    """An attribute of a signature as an attribute of a class signature.

    A data descriptor, or else Python would prefer the unbound method that the class inherits.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, cls: Any, _meta: Any = None) -> Any:
        value = cls.__dict__.get("_value")
        if value is not None:
            return getattr(value, self.name)
        home = next(base for base in cls.__mro__ if self.name in base.__dict__)
        return home.__dict__[self.name].__get__(None, cls)

    def __set__(self, cls: Any, value: Any) -> None:
        raise AttributeError(f"a signature is immutable; make a new one instead of setting {self.name!r}")


class SignatureMeta(type):
    """Makes `class QA(dspex.Signature)` stand for the signature that its body describes.

    The class has the attributes and operations of the value: `QA.fields`, `QA.with_instructions(...)`.
    """

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> SignatureMeta:
        """Read the body, unless it is that of `Signature` itself."""
        if not any(isinstance(base, SignatureMeta) for base in bases):
            return super().__new__(mcs, name, bases, namespace)
        from dspex.signature._classes import read_class

        value, declared = read_class(name, bases, namespace)
        kept = {key: item for key, item in namespace.items() if key not in value.fields}
        own = {"__slots__": (), "_value": value, "_declared": declared, "__new__": _refuse}
        return super().__new__(mcs, name, bases, {**kept, **own})

    def __repr__(cls) -> str:
        value = cls.__dict__.get("_value")
        return super().__repr__() if value is None else f"<signature {cls.__qualname__}: {value.text}>"


def _refuse(cls: type, *_args: Any, **_kwargs: Any) -> Any:
    raise SignatureError(
        f"the signature {cls.__name__} is used as it is, not called",
        code="class-call",
        hint="pass the class itself: dspex.Predict(QA)",
    )


class Signature(_core.Signature, metaclass=SignatureMeta):
    """What goes in, what comes out, and what is to be done.

    Made of a string, ``Signature("question, context: list[str] -> answer")``, of a dict of fields, or as a
    class with a docstring. Immutable; compared and hashed by its contents. A string that was read before
    comes from a cache.

    Args:
        fields: Fields on both sides of an arrow, each a name with an optional type; or a dict of names to
            `InputField`, `OutputField`, or a pair of type and field.
        instructions: What to do; by default, and for the empty text, DSPy's sentence made of the names.
        types: What names in the text stand for, before anything else is looked up.

    Raises:
        SignatureError: If the text or the fields cannot be read; for text the error says where.
    """

    __slots__ = ()

    if TYPE_CHECKING:
        # What class signatures have as well. A field may be called `text`, of any type.
        fields: value[Mapping[str, _core.Field]]
        input_fields: value[Mapping[str, _core.Field]]
        output_fields: value[Mapping[str, _core.Field]]
        instructions: value[str]
        signature: value[str]
        text: Any

    @classmethod
    def of(
        cls, source: Any, instructions: str | None = None, *, types: dict[str, Any] | None = None
    ) -> Signature:
        """The signature that something stands for.

        Args:
            source: A signature, a string, a dict of fields, or a class: one of `dspex.Signature` or of
                `dspy.Signature`.
            instructions: Instructions instead of those of the source.
            types: As for `Signature`; only a string has a use for it.

        Raises:
            SignatureError: If it stands for none.
        """
        if isinstance(source, str | dict):
            return Signature(source, instructions, types=types)
        if isinstance(source, SignatureMeta):
            source = source.__dict__.get("_value", source)
        if isinstance(source, Signature):
            made = source
        else:
            from dspex.signature._convert import from_dspy

            made = from_dspy(source)
        return made if instructions is None else made.with_instructions(instructions)

    @of_both
    def to_dspy(self) -> type[dspy.Signature]:
        """The real DSPy class with the same fields and instructions; imports DSPy."""
        from dspex.signature._convert import to_dspy

        return to_dspy(self)

    @of_both
    def input_defaults(self) -> dict[str, Any]:
        """The inputs that may be left out of a call, with the values that stand in.

        As in DSPy, a `default_factory` makes an input optional but is not called.
        """
        details = {name: field._details for name, field in self.input_fields.items() if field.optional}
        return {
            name: found.settings["default"]
            for name, found in details.items()
            if found is not None and "default" in found.settings
        }

    # --- operations: all return a new signature ---------------------------------------------------------

    @of_both
    def with_instructions(self, instructions: str) -> Signature:
        """The same fields with other instructions; the empty text stands for the default."""
        return Signature(self._with_instructions(instructions))

    @of_both
    def append_instructions(self, instructions: str) -> Signature:
        """The same fields with a paragraph behind the instructions."""
        return Signature(self._append_instructions(instructions))

    @of_both
    def insert(self, index: int, name: str, field: Any, type_: Any = None) -> Signature:
        """With a field among those of its kind.

        Args:
            index: The place among the inputs or the outputs; negative counts from the end, -1 appends.
            name: The name. If the signature has it already, the old field gives way.
            field: An `InputField`, an `OutputField`, or a field of another signature.
            type_: The type; by default the field's own, or `str`.

        Raises:
            SignatureError: If the index, the name or the field is wrong.
        """
        from dspex.signature._fields import read_field

        return Signature(self._insert(index, read_field(name, field, type_)))

    @of_both
    def append(self, name: str, field: Any, type_: Any = None) -> Signature:
        """With a field behind those of its kind; see `insert`."""
        return self.insert(-1, name, field, type_)

    @of_both
    def prepend(self, name: str, field: Any, type_: Any = None) -> Signature:
        """With a field before those of its kind; see `insert`."""
        return self.insert(0, name, field, type_)

    @of_both
    def delete(self, name: str) -> Signature:
        """Without the field of this name, if there is one."""
        return Signature(self._delete(name))

    @of_both
    def with_updated_fields(self, /, name: str, type_: Any = None, **texts: Any) -> Signature:
        """With another type or other texts for one field.

        Args:
            name: The field.
            type_: The new type; by default it stays.
            texts: `desc`, `prefix`, `constraints` and any other key that DSPy keeps beside a field.

        Raises:
            SignatureError: If there is no such field, or the type cannot be used.
        """
        from dspex.signature._fields import update_field

        field = self.fields.get(name)
        if field is None:
            raise SignatureError(
                f"there is no field {name!r}",
                code="no-such-field",
                hint=f"the fields are: {', '.join(self.fields)}",
            )
        return Signature(self._replace(update_field(field, type_, texts)))

    @of_both
    def equals(self, other: Any) -> bool:
        """Whether they are equal as in DSPy's `equals`, which compares names, kinds and texts but no types.

        Use `==` to compare types too.
        """
        if isinstance(other, SignatureMeta):
            other = other.__dict__.get("_value")
        if not isinstance(other, Signature) or not self._dspy_equals(other):
            return False
        return all(_extra(field) == _extra(other.fields[name]) for name, field in self.fields.items())

    @of_both
    def dump_state(self) -> dict[str, Any]:
        """What DSPy saves of a signature: instructions, and prefix and description of every field."""
        fields = [{"prefix": field.prefix, "description": field.desc} for field in self.fields.values()]
        return {"instructions": self.instructions, "fields": fields}

    @of_both
    def load_state(self, state: Mapping[str, Any]) -> Signature:
        """With what `dump_state` saved, here or in DSPy; fields are matched by position.

        Raises:
            SignatureError: If the state is not of that form.
        """
        try:
            texts = [(saved["prefix"], saved["description"]) for saved in state["fields"]]
            return Signature(self._with_state(state["instructions"], texts))
        except (KeyError, TypeError) as error:
            raise SignatureError(
                f"the saved state cannot be read: {error}",
                code="bad-state",
                hint='it has "instructions" and "fields", each of these with "prefix" and "description"',
            ) from error

    # --- values ------------------------------------------------------------------------------------------

    @of_both
    def validate_inputs(
        self, values: dict[str, Any], mode: Validation = "strict", *, constraints: bool = True
    ) -> None:
        """Check the inputs of a call. Nothing is converted.

        An input without a type takes anything, as in DSPy. `warn` also takes None for any type.

        Args:
            values: Inputs by name.
            mode: `strict` raises, `warn` logs a warning, `off` does nothing.
            constraints: Whether `gt=`, `max_length=` and the like are enforced.

        Raises:
            InputError: In strict mode, if anything is missing, unknown or of the wrong type: one error that
                names everything; `problems` has pairs of path and message.
        """
        if mode == "off":
            return
        problems = self._check(False, values, none_passes=mode == "warn", constraints=constraints)
        if problems is not None:
            text = _report("inputs", problems)
            if mode == "strict":
                raise InputError(text, hint=f"the signature is: {self.text}", problems=problems)
            _log.warning("%s", text)

    @of_both
    def validate_outputs(
        self, values: dict[str, Any], mode: Validation = "strict", *, constraints: bool = True
    ) -> None:
        """Check the outputs of a call, like `validate_inputs`.

        Raises:
            ReplyError: In strict mode, if anything is missing, unknown or of the wrong type.
        """
        if mode == "off":
            return
        problems = self._check(True, values, none_passes=mode == "warn", constraints=constraints)
        if problems is not None:
            text = _report("outputs", problems)
            if mode == "strict":
                raise ReplyError(
                    text, code="reply-type", hint=f"the signature is: {self.text}", problems=problems
                )
            _log.warning("%s", text)

    @of_both
    def input_schema(self) -> dict[str, Any]:
        """The JSON schema of an object that holds the inputs."""
        from dspex.signature._schema import object_schema

        return object_schema("Inputs", self.input_fields.values())

    @of_both
    def output_schema(self) -> dict[str, Any]:
        """The JSON schema of an object that holds the outputs."""
        from dspex.signature._schema import object_schema

        return object_schema("Outputs", self.output_fields.values())

    @of_both
    def describe(self) -> dict[str, Any]:
        """The signature as plain data, for tools."""
        return {
            "signature": self.signature,
            "text": self.text,
            "instructions": self.instructions,
            "inputs": [_describe(field) for field in self.input_fields.values()],
            "outputs": [_describe(field) for field in self.output_fields.values()],
        }

    # --- the cache of strings ----------------------------------------------------------------------------

    @staticmethod
    def cache_info() -> CacheInfo:
        """Counts of the cache that string signatures come from; all threads share it."""
        return CacheInfo(*_core.signature_cache_info())

    @staticmethod
    def cache_resize(capacity: int) -> None:
        """Hold at most this many string signatures; 1,000 by default, 0 turns the cache off."""
        _core.signature_cache_resize(capacity)

    @staticmethod
    def cache_clear() -> None:
        """Forget all string signatures and set the counts to zero."""
        _core.signature_cache_clear()

    @staticmethod
    def limits() -> Limits:
        """How much text a signature may be; all threads share it."""
        return Limits(*_core.signature_limits())

    @staticmethod
    def set_limits(
        *, length: int | None = None, depth: int | None = None, fields: int | None = None
    ) -> Limits:
        """Change how much text a signature may be, and return the limits from now on.

        Signatures that are in the cache stay there.

        Args:
            length: Bytes of UTF-8, by default 65,536.
            depth: Nested brackets, dots and quoted types, by default 64.
            fields: Fields on both sides together, by default 1,024.
        """
        old = Signature.limits()
        given = (length, depth, fields)
        _core.signature_set_limits(
            *(was if new is None else new for was, new in zip(old, given, strict=True))
        )
        return Signature.limits()

    # --- Python's own ------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        textual, default = self._is_plain
        if textual:
            fields, rest = repr(self.text), ""
        else:
            from dspex.signature._fields import source, updates

            items = ", ".join(f"{name!r}: {source(field)}" for name, field in self.fields.items())
            fields = f"{{{items}}}"
            changed = {name: updates(field) for name, field in self.fields.items()}
            rest = "".join(
                f".with_updated_fields({name!r}, **{more!r})" for name, more in changed.items() if more
            )
        return f"Signature({fields}{'' if default else f', {self.instructions!r}'}){rest}"

    def __reduce__(self) -> tuple[Any, ...]:
        from dspex.signature._fields import describe_field

        return _restore, ([tuple(describe_field(field)) for field in self.fields.values()], self.instructions)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: Any) -> Self:
        return self


SignatureLike: TypeAlias = str | dict[str, Any] | Signature | type
"""What `Signature.of` takes."""


def _restore(fields: Iterable[tuple[Any, ...]], instructions: str) -> Signature:
    from dspex.signature._fields import FieldSpec

    return Signature(_core.build([FieldSpec(*field) for field in fields], instructions, exact=True))


def _extra(field: _core.Field) -> dict[str, Any]:
    return {} if field._details is None else field._details.extra


def _report(what: str, problems: list[tuple[str, str]]) -> str:
    lines = "".join(f"\n  {path}: {message}" for path, message in problems)
    return f"the {what} do not fit the signature:{lines}"


def _describe(field: _core.Field) -> dict[str, Any]:
    return {
        "name": field.name,
        "type": field.type_name,
        "typed": field.typed,
        "optional": field.optional,
        "desc": field.desc,
        "prefix": field.prefix,
        "constraints": field.constraints,
    }


for _name in (*vars(_core.Signature), *vars(Signature)):
    if not _name.startswith("_") and not isinstance(vars(Signature).get(_name), staticmethod | classmethod):
        setattr(SignatureMeta, _name, _Delegate(_name))

# Those over classes of the caller's, that is.
before_full_collection(_core.signature_cache_release)
