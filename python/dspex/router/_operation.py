"""`Operation`: one call, as it travels from a module to the target that runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dspex.adapters import Adapter, Parsing
    from dspex.lm import LanguageModel
    from dspex.signature import Signature

__all__ = ["Operation", "RouteName"]

RouteName = str
"""`"native"`, `"python"`, or the name of one target such as `"pool:general"`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What to run, on what, and within which limits.

    Attributes:
        signature: The fields and instructions of the call.
        inputs: Values of the input fields, checked against the signature.
        demos: Few-shot examples: mappings of input and output fields.
        config: Settings for the LM that override its own (`temperature`, `n`, ...).
        route: The caller's override, or None for the router's choice.
        timeout: Seconds for the whole call, or None for the runtime's default.
        idempotent: Whether a worker may run it again when the first is ended for another call's fault.
        adapter: A `dspex.adapters.Adapter` for this call, or None for the runtime's.
        parsing: How the call's replies are read, or None for the adapter's own way.
        lm: The language model to ask, or None for the runtime's.
    """

    signature: Signature
    inputs: Mapping[str, Any]
    demos: Sequence[Mapping[str, Any]] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    route: RouteName | None = None
    timeout: float | None = None
    idempotent: bool = False
    adapter: Adapter | None = None
    parsing: Parsing | None = None
    lm: LanguageModel | None = None
