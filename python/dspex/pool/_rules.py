"""What a setting of a pool may be: one small rule per kind of setting, used wherever a spec is made.

A rule does three things: it checks a value and returns it as it is kept, it says in words what is allowed,
and it guesses how a wrong value was meant. `Settings` is what a frozen dataclass inherits to have its rules
applied, and `checked` joins a field and its rule. There is no pydantic here: its import alone would cost a
service more than all of its pools' settings.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, Self

from dspex._timeouts import LONGEST_SECONDS, check_seconds, shown
from dspex.errors import ConfigError, did_you_mean

__all__ = [
    "Choice",
    "Environment",
    "Flag",
    "Group",
    "ListOf",
    "RefusedError",
    "Rule",
    "Seconds",
    "Settings",
    "Text",
    "WholeNumber",
    "checked",
    "in_group",
    "system_text",
]

MOST: Final = 2**63 - 1
"""What the kernel's limits and a deque's length can hold."""


class RefusedError(ValueError):
    """A rule refuses a value.

    Attributes:
        reason: What is wrong with it; empty where what is allowed says it all.
        at: Where inside the value, if not all of it is meant.
        secret: Whether the value may not be shown.
    """

    def __init__(self, reason: str = "", at: str | None = None, *, secret: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.at = at
        self.secret = secret


class Rule(Protocol):
    """What one setting may be."""

    def check(self, value: Any) -> Any:
        """The value as the spec keeps it; raises `RefusedError` if it is not allowed."""

    def allowed(self) -> str:
        """What is allowed, in words that follow `setting is`."""

    def meant(self, setting: str, value: Any) -> str:
        """What to write instead of a refused value; empty if that is not to be guessed."""


@dataclass(frozen=True, slots=True)
class WholeNumber:
    """An int within bounds; no bool, no float and no text."""

    least: int
    most: int = MOST

    def check(self, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not self.least <= value <= self.most:
            raise RefusedError
        return int(value)

    def allowed(self) -> str:
        return f"a whole number from {self.least} to {self.most}"

    def meant(self, setting: str, value: Any) -> str:
        return _as_number(setting, value, lambda text: self.check(int(text)))


@dataclass(frozen=True, slots=True)
class Seconds:
    """A real number of seconds, kept as a float."""

    above: float = 0.0

    def check(self, value: Any) -> float:
        try:
            seconds = check_seconds(value)
        except ConfigError:
            raise RefusedError from None
        if seconds <= self.above:
            raise RefusedError
        return seconds

    def allowed(self) -> str:
        return f"a number of seconds above {self.above:g} to {LONGEST_SECONDS:.0f}"

    def meant(self, setting: str, value: Any) -> str:
        return _as_number(setting, value, lambda text: f"{self.check(float(text)):g}")


def system_text(value: Any) -> str:
    """A text that the system takes: what it would refuse is refused before a worker is started with it."""
    if not isinstance(value, str):
        raise RefusedError("it is no text")
    if "\0" in value:
        raise RefusedError("a NUL character cannot be in it")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RefusedError("half of a surrogate pair cannot be in it") from None
    return value


@dataclass(frozen=True, slots=True)
class Text:
    """A text without what no system call takes, that passes a further test.

    Attributes:
        test: Says what is wrong with a text; empty if nothing is.
        words: What `test` allows, for people.
    """

    test: Callable[[str], str] = lambda _text: ""
    words: str = "a text"

    @classmethod
    def matching(cls, pattern: str) -> Self:
        """A text that matches a regular expression from its beginning to its end."""
        found = re.compile(pattern).fullmatch
        return cls(lambda text: "" if found(text) else "it does not match", f"a text that matches {pattern}")

    def check(self, value: Any) -> str:
        text = system_text(value)
        if wrong := self.test(text):
            raise RefusedError(wrong)
        return text

    def allowed(self) -> str:
        return self.words

    def meant(self, setting: str, value: Any) -> str:
        return f"write {setting}=str(...)" if isinstance(value, os.PathLike) else ""


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some texts."""

    options: tuple[str, ...]

    def check(self, value: Any) -> str:
        if not isinstance(value, str) or value not in self.options:
            raise RefusedError
        return value

    def allowed(self) -> str:
        return "one of " + ", ".join(map(repr, self.options))

    def meant(self, setting: str, value: Any) -> str:
        return did_you_mean(value, self.options).rstrip() if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True)
class Flag:
    """True or False."""

    def check(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise RefusedError
        return value

    def allowed(self) -> str:
        return "True or False"

    def meant(self, setting: str, value: Any) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list or tuple of what another rule allows, kept as a tuple.

    Attributes:
        item: The rule of each item.
        test: Says what is wrong with all of them together; empty if nothing is.
    """

    item: Rule
    test: Callable[[tuple[Any, ...]], str] = lambda _items: ""

    def check(self, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise RefusedError
        items = tuple(map(self.item.check, value))
        if wrong := self.test(items):
            raise RefusedError(wrong)
        return items

    def allowed(self) -> str:
        return f"a list, each item {self.item.allowed()}"

    def meant(self, setting: str, value: Any) -> str:
        if not isinstance(value, str | int) or isinstance(value, bool):
            return ""
        item = int(value) if isinstance(self.item, WholeNumber) else value
        self.check([item])
        return f"write {setting}=({shown(item)},)"


@dataclass(frozen=True, slots=True)
class Environment:
    """Environment variables by name. What they hold may be secret, so that no error shows a value."""

    def check(self, value: Any) -> dict[str, str]:
        if not isinstance(value, Mapping):
            raise RefusedError("it is no table", secret=True)
        return {self._name(name): self._value(name, text) for name, text in value.items()}

    def _name(self, name: Any) -> str:
        # What stands behind a sign is a value that was written into the name: a secret, perhaps.
        at = name.partition("=")[0] if isinstance(name, str) else shown(name)
        if name == "":
            raise RefusedError("a variable has a name", at, secret=True)
        if isinstance(name, str) and "=" in name:
            raise RefusedError("'=' cannot be in a variable's name", at, secret=True)
        try:
            return system_text(name)
        except RefusedError as err:
            raise RefusedError(err.reason, at, secret=True) from None

    def _value(self, name: str, value: Any) -> str:
        try:
            return system_text(value)
        except RefusedError as err:
            raise RefusedError(err.reason, name, secret=True) from None

    def allowed(self) -> str:
        return "a table of texts: environment variables are text"

    def meant(self, setting: str, value: Any) -> str:
        return "" if isinstance(value, Mapping) else f'write {setting}={{"NAME": "..."}}'


@dataclass(frozen=True, slots=True)
class Group:
    """Settings that belong together, in a class of their own."""

    kind: type[Settings]

    def check(self, value: Any) -> Settings:
        if not isinstance(value, self.kind):
            raise RefusedError
        return value

    def allowed(self) -> str:
        return f"{self.kind.__name__}({', '.join(self.kind.settings())})"

    def meant(self, setting: str, value: Any) -> str:
        if not isinstance(value, Mapping) or not value or not set(value) <= set(self.kind.settings()):
            return ""
        given = ", ".join(f"{name}={shown(value[name])}" for name in value)
        return f"write {setting}={self.kind.__name__}({given})"


def checked(default: Any, rule: Rule, *, optional: bool = False) -> Any:
    """A field of a `Settings` class: its default, its rule, and whether it may be None."""
    return field(default=default, metadata={"rule": rule, "optional": optional})


def in_group(kind: type[Settings]) -> Any:
    """A field that holds a group of settings, by default one with all of the group's defaults."""
    return field(default_factory=kind, metadata={"rule": Group(kind), "optional": False})


@dataclass(frozen=True, slots=True)
class _Problem:
    setting: str
    given: Any
    refused: RefusedError | None
    """None if there is no such setting."""


_OTHERS: Final = 5
"""Further mistakes that an error names."""


class Settings:
    """What the classes of settings share: their fields are checked when they are made, all at once.

    A subclass is a frozen dataclass with keyword-only fields made by `checked`.
    """

    __slots__ = ()

    _group = ""
    """The name under which these settings stand in a spec. It has no type, or it would be a setting."""

    if TYPE_CHECKING:
        __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    if not TYPE_CHECKING:  # or a type checker would take any keyword for one that is allowed

        def __new__(cls, /, **settings: Any) -> Self:
            if not settings.keys() <= cls._fields().keys():
                # The dataclass's own `__init__` would raise a TypeError without a hint.
                _, problems = cls._examined(settings)
                unknown = [_Problem(name, None, None) for name in settings if name not in cls._fields()]
                raise cls._error([*problems, *unknown], settings)
            return super().__new__(cls)

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in self._fields()}
        kept, problems = self._examined(given)
        if problems:
            raise self._error(problems, given)
        for name, value in kept.items():
            if value is not given[name]:
                object.__setattr__(self, name, value)

    @classmethod
    def settings(cls) -> tuple[str, ...]:
        """The names of all settings."""
        return tuple(cls._fields())

    @classmethod
    def allowed(cls, setting: str) -> str:
        """What `setting` may be, as a sentence; a setting of a group is written with a dot."""
        first, _, rest = setting.partition(".")
        rule: Rule = cls._fields()[first].metadata["rule"]
        if rest and isinstance(rule, Group):
            return rule.kind.allowed(rest)
        return f"{first} is {rule.allowed()}"

    @classmethod
    def _together(cls, values: Mapping[str, Any]) -> tuple[str, str] | None:
        """A setting that does not go with another, and why. Called when each by itself is right."""
        return None

    @classmethod
    def _place(cls, given: Mapping[str, Any]) -> str:
        """Where these settings stand, for the path in an error."""
        return cls._group

    def _changed(self, changes: Mapping[str, Any]) -> Self:
        """Other settings with these changed, checked as new ones are; `replace` has their names and types."""
        kept = {name: getattr(self, name) for name in self._fields()}
        return type(self)(**{**kept, **changes})

    @classmethod
    def _fields(cls) -> dict[str, Field[Any]]:
        return cls.__dataclass_fields__

    @classmethod
    def _examined(cls, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[_Problem]]:
        kept: dict[str, Any] = {}
        problems = []
        for name, each in cls._fields().items():
            if name not in given:
                continue
            value = given[name]
            try:
                optional = value is None and each.metadata["optional"]
                kept[name] = None if optional else each.metadata["rule"].check(value)
            except RefusedError as err:
                problems.append(_Problem(name, value, err))
        if not problems and (wrong := cls._together(kept)):
            problems.append(_Problem(wrong[0], given[wrong[0]], RefusedError(wrong[1])))
        return kept, problems

    @classmethod
    def _error(cls, problems: list[_Problem], given: Mapping[str, Any]) -> ConfigError:
        first, *others = problems
        path = _path(cls._place(given), first)
        refused = first.refused
        if refused is None:
            message, hint = f"{path}: there is no such setting", cls._unknown(first.setting)
        else:
            message = f"{path}: " + ("" if refused.secret else f"{shown(first.given)} is refused: ")
            message = (message + refused.reason).removesuffix(": ")
            hint = cls.allowed(first.setting)
            if refused.at is None and (written := cls._meant(first)):
                hint = f"{written}; {hint}"
        if others:
            named = [_path("", problem) for problem in others[:_OTHERS]]
            more = f", and {len(others) - _OTHERS} more" if len(others) > _OTHERS else ""
            hint += f" (also wrong: {', '.join(named)}{more})"
        return ConfigError(message, code="bad-pool-setting", hint=hint, path=path)

    @classmethod
    def _unknown(cls, setting: str) -> str:
        known = cls._fields()
        groups = {
            name: each.metadata["rule"].kind
            for name, each in known.items()
            if isinstance(each.metadata["rule"], Group)
        }
        homes = [
            f"{name}={kind.__name__}({setting}=...)"
            for name, kind in groups.items()
            if setting in kind.settings()
        ]
        if homes:
            return f"write {' or '.join(homes)}; the settings are: {', '.join(known)}"
        return did_you_mean(setting, known) + f"the settings are: {', '.join(known)}"

    @classmethod
    def _meant(cls, problem: _Problem) -> str:
        rule: Rule = cls._fields()[problem.setting].metadata["rule"]
        try:
            return rule.meant(problem.setting, problem.given)
        except (ValueError, ConfigError):  # what was meant is not allowed either
            return ""


def _as_number(setting: str, value: Any, number: Callable[[str], object]) -> str:
    if not isinstance(value, str) or len(value) >= 30:
        return ""
    return f"write {setting}={number(value)}, a number and not a text"


def _path(place: str, problem: _Problem) -> str:
    at = problem.refused.at if problem.refused else None
    parts = [place] * bool(place) + [problem.setting] + [at or ""] * (at is not None)
    path = ".".join(part if len(part) <= 60 else part[:60] + "..." for part in parts)
    return path.replace("\0", "\\0").encode(errors="backslashreplace").decode()
