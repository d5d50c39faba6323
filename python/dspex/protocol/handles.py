"""What a service asks of a session's objects in a worker, both ends of its wire form here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NotRequired, Self, TypedDict

from dspex.errors import ConfigError
from dspex.protocol.records import read, to_wire

__all__ = ["HandleAnswer", "HandleRequest"]


class HandleAnswer(TypedDict):
    """What an object answered.

    Attributes:
        value: What its method returned, or the attribute that was read; None for anything else.
        state: Its state afterwards, if that was asked for.
    """

    value: Any
    state: NotRequired[Any]


@dataclass(frozen=True, slots=True)
class HandleRequest:
    """Make, call, read or drop an object of a session; or drop all that a session has in the worker.

    The object's class is named by its path, whose module is on the pool's allow-list (`PoolSpec.classes`):
    the path may have come from a store.

    Attributes:
        do: What is wanted: `"end"` drops all objects of the session.
        session: The session's name.
        handle: The object's name in the session.
        target: The path of what makes it, `"package.module:name"`: a class, or a function that returns it.
        args: Arguments by position, of what makes it or of its method.
        kwargs: Arguments by name.
        member: The method that is called, or the attribute that is read.
        state: What its `load_state` gets once it is made; None for nothing.
        dumps: Whether the answer has what its `dump_state` gives afterwards.
    """

    operation: ClassVar[str] = "handle"
    idempotent: ClassVar[bool] = False

    do: Literal["make", "call", "get", "drop", "end"]
    session: str
    handle: str = ""
    target: str = ""
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    member: str = ""
    state: Any = None
    dumps: bool = False

    def to_wire(self) -> dict[str, Any]:
        """See `Request.to_wire`."""
        return to_wire(self)

    @classmethod
    def from_wire(cls, wire: Any) -> Self:
        """The request that has arrived.

        Raises:
            ConfigError: If something is wrong with it (`bad-payload`).
        """
        return read(cls, wire)

    def with_input_streams(self, names: Sequence[str]) -> Self:
        """Refuse: an object's methods take whole values."""
        raise ConfigError("an object of a session takes no input streams", code="bad-input-stream")
