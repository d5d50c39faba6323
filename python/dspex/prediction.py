"""`Prediction`: what a module returns, the same whichever side answered."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self, overload

from dspex._scores import Scored

if TYPE_CHECKING:
    from dspex.errors import DspexError

__all__ = ["Attempt", "Completions", "PlainResult", "Prediction", "Repair"]


class Attempt(NamedTuple):
    """One time that a call was tried.

    Attributes:
        target: Where: `"native"`, `"pool:general"`.
        seconds: How long it took.
        error: What it ended with, without its traceback; None for the one that answered.
    """

    target: str
    seconds: float
    error: DspexError | None


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
        attempts: Each time that the call was tried, in their order, the last being the one that answered.
            There is one, unless another target, another worker or a retry took over.
        route: Which target answered: `"native"` or `"pool:<name>"`.
        route_reason: Why the target that comes first has not answered, where it has not; empty otherwise.
        usage: Tokens as the server counted them, by its own names, empty where it gave none.
        timings: Seconds spent, by stage: `render`, `lm`, `parse`, `total` on the native side; `worker`,
            `lm`, `total` where a worker answered. `limit` is the part of `lm` in which the call waited for
            its turn, by a rate limit or for a deployment; `place` is the wait for a place where a target has
            limits, `hedge` the time after which the call was made a second time, `cache` the part of `lm` in
            which the answer was looked for that a cache gave. Each is there if it was.
    """

    __slots__ = (
        "_attempts",
        "_completions",
        "_fields",
        "_lm",
        "_parse",
        "_render",
        "_repairs",
        "_rows",
        "_signature",
        "_timings",
        "route",
        "route_reason",
        "usage",
    )

    _render: float
    _lm: float
    _parse: float
    _timings: dict[str, float] | None

    def __init__(self, fields: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        self._fill([{**(fields or {}), **more}], None, {}, {}, ())

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
        attempts: Sequence[Attempt] = (),
    ) -> Self:
        """The prediction that several generations make; its fields are the first one's.

        Args:
            completions: The fields of each generation, or, as DSPy has it too, the values of each field.
            signature: The signature they answer.
            route: For this and the others see the attributes of the class.
            usage: Tokens.
            timings: Seconds by stage.
            repairs: What was done to the replies.
            attempts: Each time that the call was tried.

        Raises:
            ValueError: If there is no generation, or one field has more values than another.
        """
        if isinstance(completions, Mapping):
            columns = completions.values()
            completions = [dict(zip(completions, row, strict=True)) for row in zip(*columns, strict=True)]
        if not completions:
            raise ValueError("a prediction needs at least one completion")
        prediction = cls.of_rows(
            [dict(row) for row in completions], signature, dict(usage or {}), dict(timings or {}), repairs
        )
        prediction.route = route
        prediction._attempts = list(attempts) or None
        return prediction

    @classmethod
    def of_rows(
        cls,
        rows: Sequence[dict[str, Any]],
        signature: Any,
        usage: dict[str, Any],
        timings: dict[str, float] | None,
        repairs: Sequence[Repair],
    ) -> Self:
        """`from_completions` of what nobody else has: nothing is copied, nothing is looked at.

        Without timings, `take_stages` says them.
        """
        prediction = cls.__new__(cls)
        prediction._fill(rows, signature, usage, timings, repairs)
        return prediction

    def _fill(
        self,
        rows: Sequence[dict[str, Any]],
        signature: Any,
        usage: dict[str, Any],
        timings: dict[str, float] | None,
        repairs: Sequence[Repair],
    ) -> None:
        # What hardly anybody asks for is made when it is: thousands of predictions of a batch stay small, and
        # the garbage collector has one object of each to look at.
        self._fields = rows[0]
        self._rows = rows if len(rows) > 1 else None
        self._signature = signature
        self._completions: Completions | None = None
        self._repairs: list[Repair] | None = list(repairs) if repairs else None
        self.route = ""
        self.route_reason = ""
        self.usage = usage
        self._timings = timings
        self._attempts: list[Attempt] | None = None

    @property
    def completions(self) -> Completions:
        """All generations; the prediction's own fields are the first one's."""
        if self._completions is None:
            self._completions = Completions(self._rows or (self._fields,), self._signature)
        return self._completions

    @property
    def timings(self) -> dict[str, float]:
        """Seconds by stage; see the class."""
        if self._timings is None:
            stages = {"render": self._render, "lm": self._lm, "parse": self._parse}
            self._timings = {**stages, "total": sum(stages.values())}
        return self._timings

    @property
    def attempts(self) -> list[Attempt]:
        """Each time that the call was tried; see the class."""
        if self._attempts is None:
            self._attempts = [Attempt(self.route, seconds_of(self) or 0.0, None)]
        elif self.route and not all(attempt.target for attempt in self._attempts):
            self._attempts = [
                each if each.target else each._replace(target=self.route) for each in self._attempts
            ]
        return self._attempts

    @attempts.setter
    def attempts(self, attempts: Sequence[Attempt]) -> None:
        self._attempts = list(attempts)

    @property
    def repairs(self) -> list[Repair]:
        """What was done to the replies before they could be read, those of all generations in their order.

        Empty where DSPy would have read them too, and with `parsing="dspy"`.
        """
        if self._repairs is None:
            self._repairs = []
        return self._repairs

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
        """The output fields as a dict, each value as it is."""
        return dict(self._fields)

    def toDict(self) -> dict[str, Any]:  # noqa: N802 - DSPy's name
        """The output fields as plain data, as in DSPy: models of pydantic inside become dicts too."""
        return {name: _plain(value) for name, value in self._fields.items()}

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


# Functions and no methods: an attribute more would hide an output field of its name.


def take_stages(prediction: Prediction, render: float, lm: float, parse: float) -> None:
    """Say what the stages of a native call took, in seconds; a dict of it is made when somebody asks."""
    prediction._render, prediction._lm, prediction._parse = render, lm, parse


def seconds_of(prediction: Prediction) -> float | None:
    """Seconds that the call took, where they were measured: `timings["total"]`."""
    timings = prediction._timings
    if timings is None:
        return prediction._render + prediction._lm + prediction._parse
    return timings.get("total")


def _plain(value: Any) -> Any:
    if hasattr(value, "toDict"):
        return value.toDict()
    models = sys.modules.get("pydantic.main")  # not imported for it: without it there is no model
    if models is not None and isinstance(value, models.BaseModel):
        return value.model_dump()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value
