"""Whether what one step gives fits what another takes, as far as their types say."""

from __future__ import annotations

import types
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, get_args, get_origin

__all__ = ["UNKNOWN", "Record", "fits", "item_of", "list_of", "name_of", "union_of"]

UNKNOWN: Final[Any] = Any
"""The type of what nobody has declared."""


class Record(NamedTuple):
    """The type of a record: what a branch gives under its key that has several fields."""

    fields: Mapping[str, Any]


_LISTS: Final = (list, tuple, set, frozenset, Sequence, Collection, Iterable)
_WIDER: Final[Mapping[Any, tuple[Any, ...]]] = {bool: (int, float), int: (float,)}


def fits(given: Any, taken: Any) -> bool | None:
    """Whether a value of the type `given` may go where `taken` is declared; None where nobody can know.

    It may where every value of the one is a value of the other. That is judged by what both declare, so a
    union fits only if each of its types does, and of lists and mappings the types of their items count.
    """
    given, taken = _bare(given), _bare(taken)
    if taken in (Any, object, UNKNOWN) or given == taken:
        return True
    if given in (Any, object):
        return None
    if isinstance(given, Record):
        return taken in (dict, Mapping) or get_origin(taken) in (dict, Mapping)
    if get_origin(given) in (Union, types.UnionType):
        return _all(fits(each, taken) for each in get_args(given))
    if get_origin(taken) in (Union, types.UnionType):
        return _any(fits(given, each) for each in get_args(taken))
    if get_origin(given) is Literal:
        if get_origin(taken) is Literal:
            return set(get_args(given)) <= set(get_args(taken))
        return _all(fits(type(each), taken) for each in get_args(given))
    if get_origin(taken) is Literal:
        return False
    return _classes_fit(given, taken)


def _classes_fit(given: Any, taken: Any) -> bool | None:
    above, below = get_origin(taken) or taken, get_origin(given) or given
    if not isinstance(above, type) or not isinstance(below, type):
        return None  # a type variable, a protocol, or a name that is not there yet
    if not (issubclass(below, above) or above in _WIDER.get(below, ())):
        return False
    mine, theirs = get_args(given), get_args(taken)
    if not theirs:
        return True
    if not mine:
        return None
    if below is tuple and mine[-1] is Ellipsis:
        mine = mine[:1]
    if above is not tuple and below is tuple:
        return _all(fits(each, theirs[0]) for each in mine)
    if above is tuple and theirs[-1] is Ellipsis:
        return _all(fits(each, theirs[0]) for each in mine)
    if len(mine) != len(theirs):
        return None if issubclass(below, Mapping) else False
    return _all(fits(one, other) for one, other in zip(mine, theirs, strict=True))


def _all(answers: Iterable[bool | None]) -> bool | None:
    found = list(answers)
    return False if False in found else None if None in found else True


def _any(answers: Iterable[bool | None]) -> bool | None:
    found = list(answers)
    return True if True in found else None if None in found else False


def _bare(kind: Any) -> Any:
    if get_origin(kind) is Annotated:
        return _bare(get_args(kind)[0])
    return type(None) if kind is None else kind


def item_of(kind: Any) -> tuple[Any, bool]:
    """The type of the items of a list, and whether it can be one: text and numbers have none."""
    kind = _bare(kind)
    if kind in (Any, object):
        return UNKNOWN, True
    if isinstance(kind, Record):
        return UNKNOWN, False
    if get_origin(kind) in (Union, types.UnionType):
        items = [item_of(each) for each in get_args(kind)]
        return union_of([each for each, _ in items]), all(is_list for _, is_list in items)
    cls = get_origin(kind) or kind
    if not isinstance(cls, type) or issubclass(cls, str | bytes | Mapping):
        return UNKNOWN, not isinstance(cls, type)
    if not issubclass(cls, Iterable):
        return UNKNOWN, False
    arguments = [each for each in get_args(kind) if each is not Ellipsis]
    return (union_of(arguments) if arguments and cls in _LISTS else UNKNOWN), True


def list_of(kind: Any) -> Any:
    """The type of a list of such values."""
    if isinstance(kind, Record):
        kind = dict
    return list if kind is UNKNOWN else types.GenericAlias(list, (kind,))


def union_of(kinds: Sequence[Any]) -> Any:
    """The type of a value that has one of these types."""
    if any(kind is UNKNOWN for kind in kinds):
        return UNKNOWN
    made = kinds[0]
    for kind in kinds[1:]:
        if isinstance(kind, Record) or isinstance(made, Record):
            return dict
        if kind != made:
            made = Union[made, kind]  # noqa: UP007 - `|` does not take every form of a type
    return made


def name_of(kind: Any) -> str:
    """The type as its author wrote it, for messages."""
    if kind is UNKNOWN:
        return "of an unknown type"
    if isinstance(kind, Record):
        return f"a record of {', '.join(kind.fields)}"
    if isinstance(kind, type) and get_origin(kind) is None:
        return kind.__name__
    return str(kind).replace("typing.", "").replace("NoneType", "None")
