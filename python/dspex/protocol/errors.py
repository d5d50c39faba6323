"""Errors on the wire: an exception as an error of the tree, and an ERROR frame's body as one again."""

from __future__ import annotations

import traceback
from typing import Any

from dspex.errors import DspexError, RemoteError, WireError, from_dict

__all__ = ["read_error", "remote_error"]


def remote_error(error: BaseException) -> DspexError:
    """The error itself if it is of the tree, else a `RemoteError` with its type and traceback."""
    if isinstance(error, DspexError):
        return error
    return RemoteError(
        f"{type(error).__name__}: {error}",
        type=type(error).__qualname__,
        traceback="".join(traceback.format_exception(error)),
    )


def read_error(body: Any) -> DspexError:
    """The error in the decoded body of an ERROR frame.

    Raises:
        WireError: If it holds none (`bad-body`).
    """
    try:
        if all(isinstance(body[part], str) for part in ("class", "message", "code", "hint")):
            error = from_dict(body)
            if body.get("stages"):
                error._stages = body["stages"]
            return error
    except (TypeError, LookupError, AttributeError):
        pass
    raise WireError("the body of an ERROR frame is no error", code="bad-body")
