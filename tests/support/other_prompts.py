"""Imported by a worker: its DSPy writes other messages than it is known for."""

from __future__ import annotations

from typing import Any

import dspy

_format = dspy.ChatAdapter.format_user_message_content


def _other(*args: Any, **kwargs: Any) -> Any:
    return _format(*args, **kwargs).replace("Respond with", "Answer with")


dspy.ChatAdapter.format_user_message_content = _other
