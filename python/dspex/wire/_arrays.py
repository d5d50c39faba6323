"""Arrays and scalars of numpy, which is imported when one arrives.

An array arrives read-only, over the memory that it came in: `array.copy()` may be written to.
"""

from __future__ import annotations

import functools
import re
import sys
from typing import TYPE_CHECKING, Any, Final

from dspex.wire._blob import Blob

if TYPE_CHECKING:
    from dspex.wire._classes import Classes

__all__ = ["array_from_plain", "array_to_plain", "scalar_from_plain", "scalar_to_plain"]

_SIMPLE: Final = re.compile(r"[<>|=][biufcmMSUV]\d{1,9}(\[\d{0,9}[a-zA-Z]{1,7}\])?")
"""What `dtype.str` gives for a type without fields."""


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
    data = (flat if value.ndim == 1 else flat.reshape(-1)).view("u1").data if value.nbytes else b""
    return [_describe(dtype), list(value.shape), order, Blob(data)]


def array_from_plain(plain: Any, _: Classes) -> Any:
    """See `array_to_plain`."""
    import numpy as np

    described, shape, order, data = plain
    if type(described) is str and len(shape) == 1 and (dtype := _named(described)).itemsize and shape[0]:
        made = np.frombuffer(data, dtype)  # as most are, of few types
        if made.shape[0] != shape[0]:
            raise ValueError(f"an array of {made.shape[0]} items that says to have {shape[0]}")
        if made.flags.writeable:
            made.flags.writeable = False
        return made
    dtype = _dtype(np, described)
    if order not in ("C", "F"):
        raise ValueError(f"no array has the order {order!r}")
    shape = tuple(map(int, shape))
    if dtype.itemsize == 0 and dtype.kind == "V":  # of no bytes, however many there are
        made = np.zeros(shape, dtype, order=order)
    elif memoryview(data).nbytes == 0:
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
    # An empty text says that it has no bytes, and gives some.
    return [_describe(value.dtype), value.tobytes()[: value.dtype.itemsize]]


def scalar_from_plain(plain: Any, _: Classes) -> Any:
    """See `scalar_to_plain`."""
    import numpy as np

    described, data = plain
    dtype = _dtype(np, described)
    if dtype.kind == "U":  # an array would cut it off at NULs that it ends with, and has no empty one
        encoding = "utf-32-be" if dtype.byteorder == ">" else "utf-32-le"
        return np.str_(bytes(memoryview(data)).decode(encoding, "surrogatepass"))
    if dtype.kind == "S":
        return np.bytes_(bytes(memoryview(data)))
    if dtype.itemsize == 0:
        return np.zeros((), dtype)[()]
    (made,) = np.frombuffer(data, dtype=dtype)
    return made


def _describe(dtype: Any) -> Any:
    """The type in words: a text, or a list for an array within a record, or what a record is made of."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return [_describe(base), list(shape)]
    if dtype.names is None:
        return dtype.str
    fields = [dtype.fields[name] for name in dtype.names]
    return {
        "names": list(dtype.names),
        "formats": [_describe(field[0]) for field in fields],
        "offsets": [field[1] for field in fields],
        "titles": [field[2] if len(field) > 2 else None for field in fields],
        "itemsize": dtype.itemsize,
        "aligned": dtype.isalignedstruct,
    }


@functools.lru_cache(64)
def _named(described: str) -> Any:
    import numpy as np

    return _dtype(np, described)


def _dtype(np: Any, described: Any) -> Any:
    made = _made(np, described)
    if made.hasobject:
        raise ValueError(f"an array of {made} would hold objects")
    return made


def _made(np: Any, described: Any) -> Any:
    if isinstance(described, str):
        if not _SIMPLE.fullmatch(described):  # numpy reads more, with a parser of Python's
            raise ValueError(f"no type of numpy is called {described[:60]!r}")
        return np.dtype(described)
    if isinstance(described, list):
        base, shape = described
        return np.dtype((_made(np, base), tuple(map(int, shape))))
    form = dict(described)
    aligned = bool(form.pop("aligned"))
    form["formats"] = [_made(np, part) for part in form["formats"]]
    if not any(title is not None for title in form["titles"]):
        del form["titles"]
    return np.dtype(form, align=aligned)
