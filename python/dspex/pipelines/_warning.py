"""`PipelineWarning`: what looks wrong in a pipeline and is no error."""

from __future__ import annotations

__all__ = ["PipelineWarning"]


class PipelineWarning(UserWarning):
    """A field that nothing uses, or a type that nobody knows; `strict=True` makes an error of it."""
