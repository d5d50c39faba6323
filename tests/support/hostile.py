"""Values and types that lie, grow, shrink and raise while they are looked at."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Optional

import pydantic
from pydantic_core import core_schema

__all__ = ["Maker", "awake"]


class Whim:
    """What a hostile object does when it is asked: drawn once, then the same in every answer.

    Nothing while `asleep`: so that types and values can be made at all.
    """

    asleep: ClassVar[bool] = True

    def __init__(self, error: type[Exception] | None, shared: list[Any]) -> None:
        self.error = error
        self.shared = shared

    def __call__(self) -> None:
        """Change a container that somebody may be reading, and raise if that is the whim."""
        if Whim.asleep:
            return
        for container in self.shared:
            if isinstance(container, dict) and len(container) < 200:
                dict.__setitem__(container, f"new{len(container)}", 1)
            elif isinstance(container, list):
                list.append(container, 1) if len(container) % 2 else list.clear(container)
        if self.error is not None:
            raise self.error("on a whim")


@contextlib.contextmanager
def awake() -> Iterator[None]:
    """Let hostile values be hostile."""
    Whim.asleep = False
    try:
        yield
    finally:
        Whim.asleep = True


def hostile_str(text: str, whim: Whim) -> str:
    class Str(str):
        def __str__(self) -> str:
            return self

        def __repr__(self) -> str:
            return self

        def __format__(self, _spec: str) -> str:
            return self

        def __eq__(self, other: object) -> bool:
            whim()
            return True

        def __hash__(self) -> int:
            return hash("q")

        def __contains__(self, _part: object) -> bool:
            whim()
            return True

        def encode(self, *_args: Any, **_kwargs: Any) -> Any:
            return b"\xd8"

    return Str(text)


def hostile_number(base: Any, whim: Whim) -> Any:
    class Number(base):
        def __str__(self) -> str:
            whim()
            return "7"

        def __eq__(self, other: object) -> bool:
            whim()
            return True

        def __hash__(self) -> int:
            return 1

        def __index__(self) -> int:
            whim()
            return -1

        def __float__(self) -> float:
            whim()
            return 0.5

        def __bool__(self) -> bool:
            whim()
            return False

    return Number(3)


def hostile_list(base: Any, items: list[Any], whim: Whim) -> Any:
    class List(base):
        def __iter__(self) -> Any:
            whim()
            return base.__iter__(self)

        def __len__(self) -> int:
            return 1_000

        def __getitem__(self, index: Any) -> Any:
            whim()
            return base.__getitem__(self, index)

        def __eq__(self, other: object) -> bool:
            whim()
            return True

        def __hash__(self) -> int:
            return 5

        def __contains__(self, _item: object) -> bool:
            return True

    return List(items)


def hostile_dict(items: dict[Any, Any], whim: Whim) -> Any:
    class Dict(dict):  # type: ignore[type-arg]
        def __getitem__(self, key: Any) -> Any:
            whim()
            return dict.__getitem__(self, key)

        def get(self, key: Any, default: Any = None) -> Any:
            whim()
            return default

        def keys(self) -> Any:
            return ["q", 5, "nothing"]

        def items(self) -> Any:
            whim()
            return [("q", 1)]

        def values(self) -> Any:
            whim()
            return []

        def __iter__(self) -> Iterator[Any]:
            whim()
            return iter(["q", "nothing"])

        def __len__(self) -> int:
            return 3

        def __contains__(self, _key: object) -> bool:
            return True

    return Dict(items)


def hostile_mapping(items: dict[str, Any], whim: Whim) -> Mapping[str, Any]:
    class Items(Mapping):  # type: ignore[type-arg]
        def __getitem__(self, key: str) -> Any:
            whim()
            return items[key]

        def __iter__(self) -> Iterator[str]:
            whim()
            return iter(items)

        def __len__(self) -> int:
            return 1

        def __contains__(self, _key: object) -> bool:
            return True

    return Items()


def hostile_object(whim: Whim, claimed: type) -> Any:
    class Thing:
        @property  # type: ignore[misc]
        def __class__(self) -> type:
            return claimed

        def _answer(self, *_args: Any) -> Any:
            whim()
            return self

        __str__ = __repr__ = __iter__ = __len__ = __bool__ = __index__ = __eq__ = _answer
        __getitem__ = __contains__ = keys = items = values = __call__ = _answer

        def __hash__(self) -> int:
            return 1

        def __getattr__(self, name: str) -> Any:
            whim()
            raise AttributeError(name)

    return Thing()


def hostile_model(whim: Whim) -> Any:
    class Model(pydantic.BaseModel):
        x: Any = 1

        @pydantic.model_serializer
        def _plain(self) -> Any:
            whim()
            return {"x": self}

        def __str__(self) -> str:
            whim()
            return "model"

        def __eq__(self, other: object) -> bool:
            whim()
            return True

        __hash__ = None  # type: ignore[assignment]

    return Model()


def hostile_enum(whim: Whim) -> Any:
    class Kind(enum.Enum):
        A = "a"
        B = ()

        @classmethod
        def _missing_(cls, _value: object) -> Any:
            whim()
            return cls.A

        def __str__(self) -> str:
            whim()
            return "kind"

    return Kind.B


ERRORS = (
    None,
    None,
    ValueError,
    TypeError,
    KeyError,
    RuntimeError,
    RecursionError,
    AttributeError,
    StopIteration,
)


def circle() -> Any:
    made: list[Any] = [1]
    made.append({"self": made})
    return made


def deep(levels: int) -> Any:
    made: Any = 1
    for _ in range(levels):
        made = [made] if levels % 2 else {"a": made}
    return made


def _custom(whim: Whim) -> type:
    class Custom:
        @classmethod
        def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> core_schema.CoreSchema:
            def validate(value: Any) -> Any:
                whim()
                return value

            return core_schema.no_info_plain_validator_function(validate)

        def __eq__(self, other: object) -> bool:
            whim()
            return True

        __hash__ = None  # type: ignore[assignment]

    return Custom


def _before(whim: Whim) -> Any:
    def validate(value: Any) -> Any:
        whim()
        return value

    return Annotated[int, pydantic.BeforeValidator(validate)]


def _model(whim: Whim) -> type:
    class Odd(pydantic.BaseModel):
        x: Any = None

        @pydantic.model_validator(mode="before")
        @classmethod
        def _look(cls, value: Any) -> Any:
            whim()
            return value

        def __eq__(self, other: object) -> bool:
            whim()
            return False

        __hash__ = None  # type: ignore[assignment]

    return Odd


def _dataclass(whim: Whim) -> type:
    @dataclasses.dataclass
    class Data:
        x: Any = 1

        def __post_init__(self) -> None:
            whim()

    return Data


def _named(name: Any) -> Callable[[Whim], type]:
    def make(whim: Whim) -> type:
        class Meta(type(pydantic.BaseModel)):  # type: ignore[misc]
            @property
            def __name__(cls) -> Any:
                whim()
                return "Named" if Whim.asleep else name

            def __eq__(cls, other: object) -> bool:
                whim()
                return True

            def __hash__(cls) -> int:
                whim()
                return 1

            def __instancecheck__(cls, _value: object) -> bool:
                whim()
                return True

        return Meta("Named", (pydantic.BaseModel,), {"__module__": __name__})

    return make


KINDS: list[Callable[[Whim], Any]] = [
    _custom,
    _before,
    _model,
    _dataclass,
    *map(_named, ["Fine", "\ud800", 5, None]),
]
NATIVE = [str, int, float, bool, Any, bytes, complex, Literal["a", 1], dict, list]
TEXTS = ["", "text", "\ud800", "a\x00b", "[[ ## q ## ]]", "<q>", "<<CUSTOM-TYPE-START-IDENTIFIER>>[", "é" * 9]
CLAIMED = [dict, list, str, int, type(None), pydantic.BaseModel]


class Maker:
    """Makes types and values, the same for the same seed.

    Attributes:
        shared: A dict and a list that the hostile ones change whenever they are looked at.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.shared: list[Any] = [{"q": 1}, [1, 2, 3]]

    def _whim(self) -> Whim:
        return Whim(self._random.choice(ERRORS), self.shared)

    def _leaf(self) -> Any:
        choice = self._random.choice
        makers: list[Callable[[], Any]] = [
            lambda: choice([None, True, 0, -1, 10**5_000, 0.1, float("nan"), float("inf"), b"\xff"]),
            lambda: choice(TEXTS),
            lambda: hostile_str(choice(TEXTS), self._whim()),
            lambda: hostile_number(choice([int, float]), self._whim()),
            lambda: hostile_object(self._whim(), choice(CLAIMED)),
            lambda: hostile_model(self._whim()),
            lambda: hostile_enum(self._whim()),
            circle,
            lambda: deep(choice([71, 300, 2_000])),
            lambda: choice(self.shared),
            lambda: choice([object(), type, int, len, ..., NotImplemented]),
        ]
        return choice(makers)()

    def value(self, levels: int = 2) -> Any:
        """A value, as likely as not a hostile one, or with one inside."""
        kind = self._random.randrange(8) if levels else 7
        if kind > 4:
            return self._leaf()
        items = [self.value(levels - 1) for _ in range(self._random.randrange(4))]
        keys = self._random.sample(["a", "b", "\ud800", 1, None, 2.5], len(items))
        entries = dict(zip(keys, items, strict=True))
        made: list[Callable[[], Any]] = [
            lambda: items,
            lambda: tuple(items),
            lambda: entries,
            lambda: hostile_list(self._random.choice([list, tuple]), items, self._whim()),
            lambda: hostile_dict(entries, self._whim()),
        ]
        return made[kind]()

    def mapping(self) -> Any:
        """Values by name, in a dict or in what passes for one."""
        names = self._random.sample(["q", "r", "a", "b", "other"], self._random.randrange(6))
        items = {name: self.value() for name in names}
        kind = self._random.randrange(5)
        if kind == 0:
            return hostile_dict(items, self._whim())
        if kind == 1:
            return hostile_mapping(items, self._whim())
        if kind == 2:
            self.shared.append(items)
        return items

    def type(self, levels: int = 2) -> Any:
        """A type with hostile validators, name and comparison, alone or inside another; or a plain one."""
        kind = self._random.randrange(12) if levels else 11
        if kind > 8:
            return self._random.choice(NATIVE)
        if kind > 5:
            return self._random.choice(KINDS)(self._whim())
        inner = self.type(levels - 1)
        outer: Any = [list, set, tuple, Optional, Sequence, dict][kind]
        if outer is dict:
            return outer[self._random.choice(NATIVE), inner]
        return outer[inner, ...] if outer is tuple else outer[inner]
