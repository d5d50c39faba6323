"""`Signature`, the public class over the compiled value."""

from __future__ import annotations

from dspex import _core

__all__ = ["Signature"]


class Signature(_core.Signature):
    """What goes in, what comes out, and what is to be done.

    Made of a string, ``Signature("question, context: list[str] -> answer")``; immutable, compared and hashed
    by what it says.

    Args:
        text: Fields on both sides of an arrow, each a name with an optional type.
        instructions: What to do; by default DSPy's sentence made of the names.
        types: What names in the text stand for, before anything else is looked up.

    Raises:
        SignatureError: If the text cannot be read; the error says where.
    """

    __slots__ = ()
