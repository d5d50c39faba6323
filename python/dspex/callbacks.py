"""Callbacks: objects that are told when calls begin and end, with the methods of DSPy's.

`Runtime(..., callbacks=[...])` tells of all that runs on it, `Predict(..., callbacks=[...])` of one module.
A callback of DSPy's, `dspy.utils.callback.BaseCallback`, is one as it is; see `docs/modules.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspex._callbacks import active_call_id

__all__ = ["BaseCallback", "active_call_id"]


class BaseCallback:
    """A callback that does nothing; derive from it and write the methods that you want.

    Each pair of methods belongs to one call and has its `call_id`. In a method that hears of a start,
    `active_call_id()` is the id of the call around it. `instance` is what is called: the module, the language
    model, the adapter or the tool. `inputs` are its arguments by name; to put others there changes no call.
    `exception` is what the call raised; `outputs` is None then.

    The methods of modules run where the module is called, those of models and adapters on the runtime's event
    loop. All of them are plain functions, and the call waits for them.

    Example:
        ```python
        class Timer(dspex.callbacks.BaseCallback):
            def __init__(self):
                self.begun = {}

            def on_lm_start(self, call_id, instance, inputs):
                self.begun[call_id] = time.monotonic()

            def on_lm_end(self, call_id, outputs, exception=None):
                print(time.monotonic() - self.begun.pop(call_id))

        dspex.configure(lm="openai/gpt-4o-mini", callbacks=[Timer()])
        ```
    """

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """A module is called, with `inputs["args"]` and `inputs["kwargs"]`."""

    def on_module_end(
        self, call_id: str, outputs: Any | None, exception: BaseException | None = None
    ) -> None:
        """It has returned `outputs`, or raised."""

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """A language model is asked: `inputs["messages"]`, with the settings `inputs["kwargs"]`."""

    def on_lm_end(
        self, call_id: str, outputs: list[Any] | None, exception: BaseException | None = None
    ) -> None:
        """It has answered with the texts of its generations, or could not be asked.

        A generation that is more than its text is a dict, as in DSPy: `text`, `reasoning_content`,
        `tool_calls`, `logprobs`.
        """

    def on_adapter_format_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Messages are laid out of `inputs["signature"]`, `inputs["demos"]` and `inputs["inputs"]`."""

    def on_adapter_format_end(
        self, call_id: str, outputs: list[Any] | None, exception: BaseException | None = None
    ) -> None:
        """The messages are there, or an input could not be written."""

    def on_adapter_parse_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """A reply is read: `inputs["completion"]`, by `inputs["signature"]`."""

    def on_adapter_parse_end(
        self, call_id: str, outputs: Mapping[str, Any] | None, exception: BaseException | None = None
    ) -> None:
        """Its fields are there, or it could not be read."""

    def on_tool_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """An agent calls a tool, with `inputs["kwargs"]`."""

    def on_tool_end(self, call_id: str, outputs: Any | None, exception: BaseException | None = None) -> None:
        """It has returned `outputs`, or raised."""

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """A module is evaluated: `inputs["program"]`, on `inputs["devset"]` by `inputs["metric"]`."""

    def on_evaluate_end(
        self, call_id: str, outputs: Any | None, exception: BaseException | None = None
    ) -> None:
        """It has been, and `outputs` is the `dspex.Evaluation`, or it ended early."""
