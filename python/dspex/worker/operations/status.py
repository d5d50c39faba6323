"""Messages of progress in a streamed answer: a tool is called, a model was asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dspy.streaming import StatusMessageProvider
from dspy.streaming.messages import StatusStreamingCallback

from dspex._imports import find
from dspex.errors import ConfigError

__all__ = ["Messages", "provider_at"]


class Messages(StatusStreamingCallback):  # type: ignore[misc]  # DSPy has no type hints
    """Sends the messages of a provider on.

    Args:
        provider: Words them.
        send: Takes one, from any thread. It cannot wait: DSPy calls its callbacks on the loop too.
    """

    def __init__(self, provider: StatusMessageProvider, send: Callable[[str], None]) -> None:
        super().__init__(provider)
        self._put = send

    def _send(self, text: str | None) -> None:
        if text:
            self._put(str(text))

    def on_tool_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """A tool is called."""
        if instance.name != "finish":
            self._send(self.status_message_provider.tool_start_status_message(instance, inputs))

    def on_tool_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """A tool has answered."""
        if outputs != "Completed.":
            self._send(self.status_message_provider.tool_end_status_message(outputs))

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """An LM is asked."""
        self._send(self.status_message_provider.lm_start_status_message(instance, inputs))

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """An LM has answered."""
        self._send(self.status_message_provider.lm_end_status_message(outputs))

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """A module is called."""
        self._send(self.status_message_provider.module_start_status_message(instance, inputs))

    def on_module_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """A module has answered."""
        self._send(self.status_message_provider.module_end_status_message(outputs))


def provider_at(path: str | None) -> StatusMessageProvider:
    """The provider of messages that a path names; DSPy's own for None.

    Raises:
        ConfigError: If it is none (`bad-stream`), or nothing is there.
    """
    if path is None:
        return StatusMessageProvider()
    provider = find(path)
    provider = provider() if isinstance(provider, type) else provider
    if not isinstance(provider, StatusMessageProvider):
        raise ConfigError(f"{path!r} is not a dspy.streaming.StatusMessageProvider", code="bad-stream")
    return provider
