"""Arrays and scalars of numpy, which is imported when one arrives.

An array arrives read-only, over the memory that it came in: `array.copy()` may be written to.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from dspex.wire._blob import Blob

if TYPE_CHECKING:
    from dspex.wire._classes import Classes

__all__ = ["array_from_plain", "array_to_plain", "scalar_from_plain", "scalar_to_plain"]


def array_to_plain(value: Any, _: Classes) -> list[Any]:
    """Its type, shape, order and bytes.

    Raises:
        TypeError: If its items are objects.
    """
    dtype = value.dtype
    if dtype.hasobject:
        raise TypeError(f"an array of {dtype} holds objects, which numpy could only pickle")
    flags, order = value.flags, "C"
    if flags.c_contiguous:
        flat = value
    elif flags.f_contiguous:
        flat, order = value.T, "F"  # whose bytes lie in the order of C
    else:
        flat = sys.modules["numpy"].ascontiguousarray(value)
    # As bytes: the buffer protocol has no word for dates, texts and half of the records.
    data = memoryview(flat.reshape(-1).view("u1")) if value.size else memoryview(b"")
    return [_describe(dtype), list(value.shape), order, Blob(data)]


def array_from_plain(plain: Any, _: Classes) -> Any:
    """See `array_to_plain`."""
    import numpy as np

    described, shape, order, data = plain
    dtype = _dtype(np, described)
    if order not in ("C", "F"):
        raise ValueError(f"no array has the order {order!r}")
    shape = tuple(map(int, shape))
    if memoryview(data).nbytes == 0:
        made = np.empty(0, dtype).reshape(shape, order=order)
    else:
        made = np.frombuffer(data, dtype=dtype).reshape(shape, order=order)
    made.flags.writeable = False
    return made


def scalar_to_plain(value: Any, _: Classes) -> list[Any]:
    """Its type and bytes.

    Raises:
        TypeError: If it is an object.
    """
    if value.dtype.hasobject:
        raise TypeError(f"a scalar of {value.dtype} holds objects, which numpy could only pickle")
    return [_describe(value.dtype), value.tobytes()]


def scalar_from_plain(plain: Any, _: Classes) -> Any:
    """See `scalar_to_plain`."""
    import numpy as np

    described, data = plain
    (made,) = np.frombuffer(data, dtype=_dtype(np, described))
    return made


def _describe(dtype: Any) -> Any:
    """The type in words: a text, or for records a list of their fields."""
    return dtype.str if dtype.names is None else [list(field) for field in dtype.descr]


def _dtype(np: Any, described: Any) -> Any:
    made = np.dtype(described if isinstance(described, str) else [_field(field) for field in described])
    if made.hasobject:
        raise ValueError(f"an array of {made} would hold objects")
    return made


def _field(field: Any) -> tuple[Any, ...]:
    name, kind, *shape = field
    kind = kind if isinstance(kind, str) else [_field(part) for part in kind]
    return (tuple(name) if isinstance(name, list) else name, kind, *(tuple(item) for item in shape))
