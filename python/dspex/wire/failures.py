"""An exception as an error of the tree, for the way to the other side."""

from __future__ import annotations

import traceback

from dspex.errors import DspexError, RemoteError

__all__ = ["remote_error"]


def remote_error(error: BaseException) -> DspexError:
    """The error itself if it is of the tree, else a `RemoteError` with its type and traceback."""
    if isinstance(error, DspexError):
        return error
    return RemoteError(
        f"{type(error).__name__}: {error}",
        type=type(error).__qualname__,
        traceback="".join(traceback.format_exception(error)),
    )
