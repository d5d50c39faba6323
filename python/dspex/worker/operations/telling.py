"""Adapters that tell the replies they read, while these come."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Mapping
from contextlib import nullcontext
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

import dspy

from dspex._engine.dspy_adapters import CoreAdapter
from dspex._engine.plans import plans_of

if TYPE_CHECKING:
    from dspex._core import Plan
    from dspex.worker.operations.replies import Replies

__all__ = ["telling"]

_LAYOUTS: Final[Mapping[str, str]] = {"chat": "chat", "json": "json", "xml": "xml", "baml": "json"}
"""How the replies of DSPy's own adapters are laid out, by the names that requests have for those."""


class Telling:
    """Mixed into an adapter's class, before it; see `telling`."""

    told: Replies | None = None  # an adapter that a program makes of the class tells nothing by itself
    told_layout: str | None = None

    def __call__(self, lm: Any, lm_kwargs: Any, signature: Any, demos: Any, inputs: Any) -> Any:
        """A call from synchronous code."""
        given = (lm, lm_kwargs, signature, demos, inputs)
        replies = self.told
        if replies is None:
            return super().__call__(*given)  # type: ignore[misc]
        if replies.can_wait(lm):
            return replies.wait(partial(self.acall, *given))
        reply = replies.begin(signature, None)
        rows = super().__call__(*given)  # type: ignore[misc]
        replies.tell(reply.rest(rows[0] if rows else {}))
        return rows

    async def acall(self, lm: Any, lm_kwargs: Any, signature: Any, demos: Any, inputs: Any) -> Any:
        """A call, awaited."""
        given = (lm, lm_kwargs, signature, demos, inputs)
        replies = self.told
        if replies is None:
            return await super().acall(*given)  # type: ignore[misc]
        if asyncio.get_running_loop() is not replies.loop:
            return await replies.on_loop(partial(self.acall, *given))
        with replies.tracked():
            reply = replies.begin(signature, self._plan_of(signature))
            with dspy.context(send_stream=reply) if reply.hears else nullcontext():
                rows = await super().acall(*given)  # type: ignore[misc]
            await replies.put(reply.rest(rows[0] if rows else {}))
        return rows

    def _plan_of(self, signature: Any) -> Plan | None:
        """What reads the replies of a call; None where the core cannot."""
        if isinstance(self, CoreAdapter):
            return self._plan(signature)
        return None if self.told_layout is None else plans_of(self.told_layout, False).get(signature)


def telling(adapter: dspy.Adapter, name: str | None, replies: Replies) -> dspy.Adapter:
    """A twin of an adapter that tells the replies of its calls.

    Args:
        adapter: The adapter of a call.
        name: What the call's request names it.
        replies: Who is told.
    """
    kind: Any = type(adapter)
    cls = _class(kind)
    twin = cls.__new__(cls)
    vars(twin).update(vars(adapter), told=replies, told_layout=_LAYOUTS.get(name or "chat"))
    return twin


@cache
def _class(cls: type[Any]) -> Any:
    made = types.new_class(cls.__name__, (Telling, cls))
    made.__module__ = cls.__module__
    for name in ("format", "parse"):  # DSPy has put callbacks around them, which are there already
        if name in vars(made):
            delattr(made, name)
    return made
