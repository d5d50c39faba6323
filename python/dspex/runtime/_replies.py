"""The steps of a call: choose its adapter, ask what refuses, lay out its messages, read a reply."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dspex._core import ReplyStream
from dspex.errors import DspexError, ReplyError
from dspex.lm import Prompt
from dspex.prediction import Repair

if TYPE_CHECKING:
    from dspex._core import Plan
    from dspex.adapters import Adapter
    from dspex.router import AnyOperation, Operation

__all__ = ["adapter_of", "messages_for", "read_reply", "reading", "refusal_of"]


def adapter_of(operation: AnyOperation, default: Adapter) -> Adapter:
    """The adapter of a call: its own or the target's, with the call's way of reading."""
    adapter = operation.adapter or default
    return adapter if operation.parsing is None else adapter.with_parsing(operation.parsing)


def messages_for(lm: Any, plan: Plan, operation: Operation) -> Sequence[Mapping[str, Any]]:
    """The messages of a call: as JSON, of which nobody makes objects, where the LM takes them so."""
    if getattr(lm, "takes_json", False) is not True:
        return plan.render(operation.inputs, operation.demos)
    body = plan.body(operation.inputs, operation.demos)
    return Prompt(body) if isinstance(body, bytes) else body


def read_reply(plan: Plan | ReplyStream, reply: str) -> tuple[dict[str, Any], list[Repair]]:
    """The fields of a reply and what was repaired in it.

    Args:
        plan: What reads it, or has read it already.
        reply: Its text.

    Raises:
        ReplyError: If it cannot be read, whatever a validator of the user's raises.
    """
    try:  # as `reading` does, which takes longer
        return plan.read() if isinstance(plan, ReplyStream) else plan.read(reply)
    except DspexError:
        raise
    except Exception as error:  # DSPy 3.4 lets through what a validator raises
        raise ReplyError.raised(error, reply) from error


@contextmanager
def reading(reply: str) -> Iterator[None]:
    """Let what a validator of the user's raises be a `ReplyError`."""
    try:
        yield
    except DspexError:
        raise
    except Exception as error:  # DSPy 3.4 lets through what a validator raises
        raise ReplyError.raised(error, reply) from error


def refusal_of(part: Any) -> DspexError | None:
    """Why nothing with this LM or adapter can run natively; None where it can, or does not say."""
    refusal = getattr(part, "refusal", None)
    why: DspexError | None = None if refusal is None else refusal()
    return why
