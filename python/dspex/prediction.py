"""`Prediction`: what a module returns, the same whichever side answered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self, overload

from dspex._scores import Scored

__all__ = ["Completions", "PlainResult", "Prediction", "Repair"]


class Repair(NamedTuple):
    """One thing that was done to a reply before it could be read.

    Attributes:
        field: The output field it was done for; empty if it was done to the reply as a whole.
        code: What was done; the table in `docs/adapters.md` lists the codes.
        found: The text as the reply had it, cut to 80 characters.
    """

    field: str
    code: str
    found: str


class Completions(Sequence[Mapping[str, Any]]):
    """The generations of one call, in the order the LM gave them.

    `completions[i]` is the i-th generation as a mapping; `completions.answer` and `completions["answer"]` are
    the list of that field's values over all generations, as in DSPy. `in` takes a field's name or a
    generation; `items()` gives each field with its list.

    Attributes:
        signature: The signature they answer, where that is known.
    """

    __slots__ = ("_rows", "signature")

    def __init__(self, rows: Sequence[Mapping[str, Any]], signature: Any = None) -> None:
        self._rows = tuple(dict(row) for row in rows)
        self.signature = signature

    @overload
    def __getitem__(self, index: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Mapping[str, Any]]: ...
    @overload
    def __getitem__(self, index: str) -> list[Any]: ...
    def __getitem__(self, index: int | slice | str) -> Any:
        if isinstance(index, str):
            if not self._has(index):
                raise KeyError(index)
            return [row.get(index) for row in self._rows]
        return self._rows[index]

    def __contains__(self, value: object) -> bool:
        if isinstance(value, str):
            return self._has(value)
        return value in self._rows

    def _has(self, name: str) -> bool:
        return any(name in row for row in self._rows)

    def items(self) -> Iterable[tuple[str, list[Any]]]:
        """Each field with its values over all generations."""
        names = dict.fromkeys(name for row in self._rows for name in row)
        return {name: self[name] for name in names}.items()

    def __len__(self) -> int:
        return len(self._rows)

    def __getattr__(self, name: str) -> list[Any]:
        if name.startswith("_") or not self._has(name):
            raise AttributeError(f"no completion has a field {name!r}")
        return self[name]

    def __eq__(self, other: object) -> bool:
        return self._rows == other._rows if isinstance(other, Completions) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # values may be lists

    def __repr__(self) -> str:
        return f"Completions({list(self._rows)!r})"


class Prediction(Scored):
    """The output fields of one call, by attribute (`p.answer`) and by key (`p["answer"]`).

    A program of one's own returns one that it makes: `dspex.Prediction(answer=..., context=...)`.

    One with a field `score` stands for that number, as in DSPy: `float(p)`, `p < q`, `sum(predictions)`.

    Two predictions are equal when their fields are; how they were made (route, timings, usage) is not
    compared. A field whose name is one of the attributes below is reached by key.

    Attributes:
        attempts: How many workers the call was given to: more than 1 where it was declared idempotent and
            the first was ended for another call's fault. Always 1 on the native side.
        completions: All generations; the prediction's own fields are the first one's.
        route: Which target answered: `"native"` or `"pool:<name>"`.
        route_reason: Why the native side could not answer, where it could not; empty otherwise.
        usage: Tokens as the server counted them, by its own names, empty where it gave none.
        timings: Seconds spent, by stage: `render`, `lm`, `parse`, `total` on the native side; `worker`,
            `lm`, `total` where a worker answered.
        repairs: What was done to the replies before they could be read, those of all generations in their
            order; empty where DSPy would have read them too, and with `parsing="dspy"`.
    """

    __slots__ = ("_fields", "attempts", "completions", "repairs", "route", "route_reason", "timings", "usage")

    def __init__(self, fields: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        self._fill([{**(fields or {}), **more}], None)

    @classmethod
    def from_completions(
        cls,
        completions: Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]],
        signature: Any = None,
        *,
        route: str = "",
        usage: Mapping[str, Any] | None = None,
        timings: Mapping[str, float] | None = None,
        repairs: Sequence[Repair] = (),
        attempts: int = 1,
    ) -> Self:
        """The prediction that several generations make; its fields are the first one's.

        Args:
            completions: The fields of each generation, or, as DSPy has it too, the values of each field.
            signature: The signature they answer.
            route: For this and the others see the attributes of the class.
            usage: Tokens.
            timings: Seconds by stage.
            repairs: What was done to the replies.
            attempts: How many workers the call was given to.

        Raises:
            ValueError: If there is no generation, or one field has more values than another.
        """
        if isinstance(completions, Mapping):
            columns = completions.values()
            completions = [dict(zip(completions, row, strict=True)) for row in zip(*columns, strict=True)]
        if not completions:
            raise ValueError("a prediction needs at least one completion")
        prediction = cls.__new__(cls)
        prediction._fill(completions, signature, route, usage, timings, repairs, attempts)
        return prediction

    def _fill(
        self,
        rows: Sequence[Mapping[str, Any]],
        signature: Any,
        route: str = "",
        usage: Mapping[str, Any] | None = None,
        timings: Mapping[str, float] | None = None,
        repairs: Sequence[Repair] = (),
        attempts: int = 1,
    ) -> None:
        self._fields = dict(rows[0])
        self.completions = Completions(rows, signature)
        self.route = route
        self.route_reason = ""
        self.usage = dict(usage or {})
        self.timings = dict(timings or {})
        self.repairs = list(repairs)
        self.attempts = attempts

    def __getitem__(self, name: str) -> Any:
        return self._fields[name]

    def __getattr__(self, name: str) -> Any:
        if name in Prediction.__slots__:  # only while unpickling, before the slots are filled
            raise AttributeError(name)
        try:
            return self._fields[name]
        except KeyError:
            known = ", ".join(self._fields)
            raise AttributeError(f"the prediction has no field {name!r}; it has: {known}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __eq__(self, other: object) -> bool:
        return self._fields == other._fields if isinstance(other, Prediction) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # values may be lists

    def to_dict(self) -> dict[str, Any]:
        """The output fields as a plain dict."""
        return dict(self._fields)

    toDict = to_dict  # noqa: N815 - DSPy's name for it

    def get_lm_usage(self) -> dict[str, Any]:
        """DSPy's name for `usage`; there are no counts by model in it, as one call asks one."""
        return self.usage

    def set_lm_usage(self, usage: Mapping[str, Any]) -> None:
        """DSPy's way to say what a program used as a whole."""
        self.usage = dict(usage)

    def __repr__(self) -> str:
        fields = ",\n    ".join(f"{name}={value!r}" for name, value in self._fields.items())
        return f"Prediction(\n    {fields}\n)"


class PlainResult(Prediction):
    """What a module gave that is no prediction, on its way to the caller: its only field is `value`."""

    __slots__ = ()
