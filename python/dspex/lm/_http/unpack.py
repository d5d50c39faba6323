"""Bodies that a server packed. What comes out is bounded, whatever a small body claims to hold."""

from __future__ import annotations

from dspex import _lm_failures as failures
from dspex.lm._http.transport import TransportError

__all__ = ["ACCEPTED", "Unpacker", "is_packed"]

ACCEPTED = "gzip, deflate"

_STEP = 256 * 1024


def is_packed(encoding: str | None) -> bool:
    """Whether a body with this `Content-Encoding` has to be unpacked."""
    return bool(encoding) and encoding != "identity"


class Unpacker:
    """Unpacks one body, in the pieces in which it comes.

    Args:
        encoding: The `Content-Encoding`.
        most: Bytes that may come out.
        each: Whether that is meant for each piece, as in a stream whose parts are bounded as they are read.

    Raises:
        TransportError: If the encoding was not asked for.
    """

    def __init__(self, encoding: str, most: int, *, each: bool = False) -> None:
        if encoding.lower() not in ("gzip", "x-gzip", "deflate"):
            raise TransportError(failures.NOT_HTTP, f"its Content-Encoding is {encoding[:50]!r}")
        import zlib

        self._zlib = zlib
        self._most = most
        self._each = each
        self._made = 0
        self._unpacking = zlib.decompressobj(wbits=47)  # gzip and zlib, whichever it is
        self._raw_too = encoding.lower() == "deflate"
        self._started = False

    def feed(self, data: bytes) -> bytes:
        """What comes out of the next piece.

        Raises:
            TransportError: If it is broken, or too much comes out.
        """
        out = []
        if self._each:
            self._made = 0
        while data:
            if self._unpacking.eof:  # gzip may have several members, one after the other
                self._unpacking = self._zlib.decompressobj(wbits=31)
            try:
                part = self._unpacking.decompress(data, _STEP)
            except self._zlib.error as error:
                if self._raw_too and not self._started:
                    # What some servers call deflate is the stream without zlib's frame.
                    self._unpacking, self._raw_too = self._zlib.decompressobj(wbits=-15), False
                    continue
                raise TransportError(failures.NOT_HTTP, f"its body cannot be unpacked: {error}") from None
            self._started = True
            self._made += len(part)
            if self._made > self._most:
                raise TransportError(failures.TOO_LARGE)
            out.append(part)
            data = self._unpacking.unconsumed_tail or self._unpacking.unused_data
        return b"".join(out)

    def end(self) -> None:
        """The body has ended.

        Raises:
            TransportError: If it is not whole.
        """
        if self._started and not self._unpacking.eof:
            raise TransportError(failures.CUT_MIDWAY)
