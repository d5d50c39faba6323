"""What a type checker reads about attributes of class signatures and values; there is no such module.

A class signature stands for the value that its body describes: `QA.instructions` is a text and
`QA.with_instructions("...")` a call, where a checker would see a property and a function without its `self`.
"""

from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)
P = ParamSpec("P")
R = TypeVar("R")

class value(Protocol[T_co]):  # noqa: N801 - it stands where `property` would
    """An attribute of the value and of the class."""

    def __get__(self, instance: object, owner: Any = None) -> T_co: ...

class of_both(Generic[P, R]):  # noqa: N801 - a decorator
    """A method of the value and of the class."""

    def __init__(self, method: Callable[Concatenate[Any, P], R]) -> None: ...
    def __get__(self, instance: object, owner: Any = None) -> Callable[P, R]: ...
