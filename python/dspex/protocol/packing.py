"""Packing: parts of frames made smaller, for links where that pays.

Between processes of one machine it never does: a socket carries more bytes in a second than LZ4 packs, and
shared memory carries none. So it is off there, and on for workers of other machines. pyarrow has the packers;
without it nothing is packed.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from dspex.errors import WireError

__all__ = ["FLOOR", "PACKINGS", "Packing", "available", "packing_of_number"]

FLOOR: Final = 64 * 1024
"""Bytes from which a part is packed."""

_SAMPLE: Final = 64 * 1024
"""Bytes that are packed to see whether all are worth it."""

_PAYS: Final = 0.8
"""The share that packing has to leave at most."""


class Packing(NamedTuple):
    """One way to make parts smaller.

    Attributes:
        number: In a body's row.
        name: In settings.
        codec: In pyarrow.
    """

    number: int
    name: str
    codec: str

    def pack(self, data: Any) -> bytes | None:
        """The packed bytes; None if a sample of them says that it does not pay."""
        import pyarrow as pa

        # From the middle: the beginning is often a header, which is like nothing that follows.
        view = memoryview(data)
        middle = max(0, len(view) // 2 - _SAMPLE // 2)
        sample = view[middle : middle + _SAMPLE]
        if len(pa.compress(sample, codec=self.codec)) > len(sample) * _PAYS:
            return None
        # As bytes: a buffer that was made smaller says that it has its old length.
        packed: bytes = pa.compress(view, codec=self.codec, asbytes=True)
        return packed if len(packed) <= len(view) * _PAYS else None

    def unpack(self, view: memoryview, size: int) -> bytes:
        """What was packed, of exactly that size.

        Raises:
            WireError: If it is none (`bad-frame`).
        """
        try:
            import pyarrow as pa

            made: bytes = pa.decompress(view, decompressed_size=size, codec=self.codec, asbytes=True)
        except (ImportError, OSError, ValueError) as err:  # an `ArrowException` is one of these
            raise WireError(f"a part is not packed as it says: {err}", code="bad-frame") from err
        if len(made) != size:
            raise WireError("a part is not as large as it says", code="bad-frame")
        return made


PACKINGS: Final = {
    packing.name: packing for packing in (Packing(1, "lz4", "lz4_raw"), Packing(2, "zstd", "zstd"))
}
_BY_NUMBER: Final = {packing.number: packing for packing in PACKINGS.values()}


def packing_of_number(number: int) -> Packing | None:
    """The packing that a row names; None if there is none."""
    return _BY_NUMBER.get(number)


def available() -> bool:
    """Whether this process can pack; it imports nothing."""
    from importlib.util import find_spec

    return find_spec("pyarrow") is not None
