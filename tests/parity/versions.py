"""What the tests must know of the installed DSPy, beyond what the dialects say.

The dialects' table has what dspex does otherwise; here is what only DSPy does otherwise.
"""

from __future__ import annotations

from typing import Final

import dspy
from dspy.utils.exceptions import AdapterParseError

NEWER_THAN_33: Final = tuple(map(int, dspy.__version__.split(".")[:2])) > (3, 3)

# Up to 3.3 the JSON adapter lets the error of a value through as it was raised.
REFUSALS: Final[tuple[type[Exception], ...]] = (
    (AdapterParseError,) if NEWER_THAN_33 else (AdapterParseError, ValueError)
)
"""The errors by which DSPy's adapters say that a reply cannot be read."""
