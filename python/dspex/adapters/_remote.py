"""Adapters that only real DSPy has: a call with one runs in a worker, and the native route refuses it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from dspex.adapters._adapter import Adapter, Parsing
from dspex.errors import ConfigError, RouteError

if TYPE_CHECKING:
    from dspex.lm import LM

__all__ = ["WORKER_ADAPTERS", "BAMLAdapter", "TwoStepAdapter", "WorkerAdapter"]


class WorkerAdapter(Adapter):
    """What those adapters share: a name that a worker knows, and a refusal for everything else."""

    def refusal(self) -> RouteError:
        """The one reason why nothing of this adapter is native."""
        return RouteError(
            f"{type(self).__name__} is real DSPy's alone and cannot run natively",
            code="adapter-needs-dspy",
            hint='a worker serves it: leave out route="native" and give the runtime a pool; '
            'natively there are "chat", "json" and "xml"',
            adapter=self.layout,
        )

    def compile(self, signature: Any, dialect: str | None = None) -> NoReturn:
        """Refuse: there is no plan.

        Raises:
            RouteError: Always (`adapter-needs-dspy`); so do `format`, `parse`, `read` and `stream`.
        """
        raise self.refusal()


class BAMLAdapter(WorkerAdapter):
    """`dspy.adapters.baml_adapter.BAMLAdapter`: types in BAML's short form, replies as JSON.

    Args:
        parsing: How replies are read; as in `JSONAdapter`.
    """

    layout = "baml"

    def __init__(self, *, parsing: Parsing = "tolerant") -> None:
        super().__init__(parsing=parsing, markers="dspy")

    def with_parsing(self, parsing: Parsing) -> Self:
        """The same adapter with another way of reading replies."""
        return type(self)(parsing=parsing)


class TwoStepAdapter(WorkerAdapter):
    """`dspy.TwoStepAdapter`: one model answers freely, another finds the fields in that answer.

    Args:
        extraction_lm: The model that finds the fields, `"openai/<name>"` or a `dspex.LM`; by default the one
            that answers. DSPy reads its reply, with no repairs.

    Raises:
        ConfigError: If it is no such model.
    """

    layout = "two_step"

    def __init__(self, extraction_lm: str | LM | None = None) -> None:
        super().__init__(parsing="dspy", markers="dspy")
        if isinstance(extraction_lm, str):
            from dspex.lm import LM

            extraction_lm = LM(extraction_lm)
        if extraction_lm is not None and not hasattr(extraction_lm, "settings_for_worker"):
            raise ConfigError(
                f"a worker cannot be given a {type(extraction_lm).__name__}",
                code="lm-not-for-workers",
                hint='give "openai/<name>" or a dspex.LM',
            )
        self.extraction_lm = extraction_lm

    def __repr__(self) -> str:
        return f"TwoStepAdapter({self.extraction_lm!r})"

    def with_parsing(self, parsing: Parsing) -> Self:
        """This adapter, unchanged: DSPy reads what the second model answers, so `parsing` has no effect."""
        return self


WORKER_ADAPTERS: Final[Mapping[str, type[WorkerAdapter]]] = {"baml": BAMLAdapter, "two_step": TwoStepAdapter}
"""Those adapters by the names that settings have for them."""
