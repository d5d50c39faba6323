"""A session's history: turns, each a mapping of a call's inputs and outputs, as DSPy's `History` has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from dspex.errors import ConfigError

if TYPE_CHECKING:
    from dspex.sessions._session import Session

__all__ = ["History", "field_of", "turn_of"]


class History(Sequence[dict[str, Any]]):
    """The turns of a session, the oldest first; those that are staged come last.

    A module whose signature has an input of type `dspy.History` gets them, and each of its calls adds one.

    Args:
        session: Whose history it is.
    """

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def append(self, turn: Mapping[str, Any]) -> None:
        """Stage a turn: it is committed as what is assigned to the state is.

        Args:
            turn: Values by the names of fields: `{"question": ..., "answer": ...}`.

        Raises:
            SessionError: If it cannot be kept.
            ConfigError: If it is no mapping of names (`bad-session`).
        """
        if not isinstance(turn, Mapping) or not all(isinstance(name, str) for name in turn):
            raise ConfigError("a turn is a mapping of names of fields to values", code="bad-session")
        data = self._session._values.dump(dict(turn), "a turn", self._session.id)
        self._session._staged.turns.append(data)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """All turns, as `dspy.History(messages=...)` takes them."""
        return list(self)

    def __len__(self) -> int:
        return len(self._session._turns) + len(self._session._staged.turns)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        load = self._session._values.load
        for turn in [turn.value for turn in self._session._turns] + self._session._staged.turns:
            yield load(turn)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        turns = [turn.value for turn in self._session._turns] + self._session._staged.turns
        load = self._session._values.load
        return [load(turn) for turn in turns[index]] if isinstance(index, slice) else load(turns[index])

    def __repr__(self) -> str:
        return f"<History of {self._session.id!r}: {len(self)} turns>"


def field_of(target: Any) -> tuple[str, type[Any]] | None:
    """The input of a module or pipeline that is a history, and its type; None if it has none."""
    inputs = getattr(getattr(target, "signature", None), "input_fields", None)
    if isinstance(inputs, Mapping):
        types = {name: getattr(field, "annotation", None) for name, field in inputs.items()}
    else:
        taken = getattr(getattr(target, "plan", None), "inputs", None) or {}
        types = {name: getattr(takes, "kind", None) for name, takes in taken.items()}
    for name, kind in types.items():
        if isinstance(kind, type) and kind.__name__ == "History" and hasattr(kind, "model_fields"):
            return name, kind
    return None


def turn_of(inputs: Mapping[str, Any], result: Any, history: str) -> dict[str, Any] | None:
    """The turn that a call makes; None if it answered with nothing that has names."""
    keys = getattr(result, "keys", None)
    if not callable(keys):
        return None
    given = {name: value for name, value in inputs.items() if name != history}
    return {**given, **{name: result[name] for name in keys()}}
