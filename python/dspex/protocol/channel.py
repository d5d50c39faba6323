"""Frames over an asyncio transport, as both sides of a worker's socket use it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any, Final, cast

from dspex._core import has_large
from dspex.errors import DspexError, WireError
from dspex.protocol.frames import (
    IN_PARTS,
    JSON,
    MAX_FRAME,
    MSGPACK,
    FrameReader,
    Kind,
    encode_frame,
    encode_head,
)
from dspex.protocol.local_memory import FLOOR, LocalMemory
from dspex.protocol.packing import FLOOR as PACK_FROM
from dspex.protocol.packing import PACKINGS, Packing
from dspex.protocol.parts import Memory, read_parts, write_parts
from dspex.wire._classes import DEFAULT, Classes
from dspex.wire._codec import Codec, make_codecs
from dspex.wire._json import Json
from dspex.wire._msgpack import MessagePack
from dspex.wire._select import DEFAULT as WORTH
from dspex.wire._select import select

__all__ = ["Channel"]

_LARGE: Final = 64 * 1024
"""Bytes of a body that is written by itself: to put it beside others, it would have to be copied."""


class Channel:
    """One end of a connection: cuts what arrives, codes bodies, gathers what leaves.

    What arrives says itself how it is read. What leaves is JSON, as the hand-shake is, until `use` names
    another codec.

    The frames of one turn of the loop leave together in one write at its end, so that a hundred calls do not
    cost a hundred. A lone one can leave at once: there is nothing to gather, and a turn costs a system call.
    Sending the first 8, 16 or 64 KiB of a batch before the turn ends, so that the other side begins earlier,
    gained nothing (111,000, 115,000, 116,000 calls a second; without, 116,000): the worker is the quicker.

    Args:
        loop: Whose transport it writes to.
        classes: The classes that values may be of.
        pickle: See `allow`.
    """

    __slots__ = (
        "_codecs",
        "_floor",
        "_form",
        "_gathered",
        "_loop",
        "_memory",
        "_msgpack",
        "_out",
        "_pack",
        "_packing",
        "_parts",
        "_reader",
        "_transport",
        "_worth",
        "encode",
        "read",
        "room",
        "take",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, classes: Classes = DEFAULT, *, pickle: bool = False
    ) -> None:
        self._loop = loop
        self._form = JSON  # as the hand-shake is, until both know what the other reads
        self._worth = WORTH
        self._floor = 1 << 62  # bytes from which something is a part of its own: never
        self.allow(classes, pickle=pickle)
        self._memory: Memory | None = None
        self._packing: Packing | None = None
        self._reader = reader = FrameReader()
        self.room, self.take = reader.room, reader.take
        self._gathered: list[bytes] = []
        self._transport: asyncio.WriteTransport | None = None

    def allow(self, classes: Classes, *, pickle: bool = False) -> None:
        """Say what values may be of, from now on.

        Args:
            classes: The classes that may be named.
            pickle: Whether whatever else a value has goes by pickle.
        """
        self._msgpack = MessagePack(classes, pickle=pickle)
        self.read = self._msgpack.decode  # `decode` of the form that nearly all frames have
        self._codecs: dict[int, Codec] = {
            MSGPACK: self._msgpack,
            JSON: Json(classes),
            **make_codecs(classes),
        }
        self.encode = self._codecs[self._form].encode
        self._out = MessagePack(classes, pickle=pickle)
        self._pack, self._parts = self._out.leave_out(self._floor)

    def use_parts(self, memory: Memory | None, packing: Packing | None = None, *, floor: int) -> None:
        """Send large bytes apart from now on.

        Args:
            memory: Where to, if there is room; else they go with the frame.
            packing: How they are packed in the frame.
            floor: Bytes from which that is done.
        """
        self._memory, self._packing, self._floor = memory, packing, floor
        self._worth = WORTH._replace(bytes=floor)
        self._pack, self._parts = self._out.leave_out(floor)

    def share_memory(self, sock: socket.socket, *, shares: bool) -> None:
        """Send large bytes by shared memory from now on.

        Args:
            sock: The connection's memory socket. Whoever opened it closes it, after this channel.
            shares: Whether values of `dspex.wire.share` are passed as such; see `LocalMemory`.
        """
        self.use_parts(LocalMemory(self._loop, sock, self._tell, shares=shares), floor=FLOOR)

    def pack(self, name: str) -> None:
        """Send large bytes packed from now on, and by no shared memory.

        Args:
            name: How.
        """
        self.use_parts(None, PACKINGS[name], floor=PACK_FROM)

    def released(self, numbers: Any) -> None:
        """The peer has let go of segments; the body of a RELEASE frame.

        Raises:
            WireError: If it had none of these (`bad-frame`).
        """
        if self._memory is None:
            raise WireError("a RELEASE frame without shared memory", code="bad-frame")
        self._memory.released(numbers)

    def gone(self, numbers: Any) -> None:
        """The peer has ended shared segments; the body of a GONE frame.

        Raises:
            WireError: If it had passed none of these (`bad-frame`).
        """
        if not isinstance(self._memory, LocalMemory):
            raise WireError("a GONE frame without shared memory", code="bad-frame")
        self._memory.gone(numbers)

    def _tell(self, kind: Kind, numbers: list[int]) -> None:
        self.send(kind, 0, numbers)

    def decode(self, body: memoryview, form: int) -> Any:
        """The value of a frame's body.

        Raises:
            WireError: If the body is not of that form (`bad-body`, `bad-frame`).
        """
        if form == IN_PARTS:
            return self._msgpack.decode(*read_parts(body, self._memory))
        codec = self._codecs.get(form)
        if codec is None:
            raise WireError(f"this end reads no frames of the form {form:#x}", code="bad-frame")
        return codec.decode(body)

    def use(self, name: str) -> None:
        """Write with the codec of this name from now on."""
        self._form = self.form_of(name)
        self.encode = self._codecs[self._form].encode

    def attach(self, transport: asyncio.BaseTransport) -> None:
        """Write to `transport` from now on."""
        # A socket's transport is one; uvloop's is so without saying it, so `isinstance` would refuse it.
        self._transport = cast(asyncio.WriteTransport, transport)

    def form_of(self, name: str) -> int:
        """The form of what the codec of this name writes.

        Raises:
            WireError: If there is none here (`bad-frame`).
        """
        for form, codec in self._codecs.items():
            if codec.name == name:
                return form
        raise WireError(f"this end has no codec {name!r}", code="bad-frame")

    def send(
        self, kind: int, call_id: int, value: Any, *, alone: bool = False, form: int | None = None
    ) -> None:
        """Send a frame; nothing happens once the connection is closed.

        Args:
            kind: What the frame is for.
            call_id: Whose it is.
            value: Its body.
            alone: Nothing else is going on, so that there is nothing to wait for.
            form: By which codec it is written; None for the connection's.

        Raises:
            WireError: If the value cannot be encoded, or not in one frame.
        """
        if form is None:
            form = self._form
        body: bytes | bytearray
        if form != MSGPACK:
            body = self._codecs[form].encode(value)
        else:  # written out, for every call of a pool and every answer comes by here
            floats, rows, size = self._worth
            if has_large(value, floats, rows, size):  # `select` asks too, but is a call that most do without
                value = select(value, self._worth)
            try:
                body = self._pack(value)
            except Exception as err:
                self._parts.clear()
                raise self._msgpack.refusal(value, err) from err
            if self._parts:
                body, form = self._in_parts(body), IN_PARTS
        if len(body) > _LARGE:
            self._send_large(kind, call_id, body, form)
            return
        frame = encode_frame(kind, call_id, body, form)
        if self._gathered:
            self._gathered.append(frame)
        elif alone:
            self._write(frame)
        else:
            self._gathered.append(frame)
            self._loop.call_soon(self.flush)

    def _in_parts(self, main: bytes) -> bytes | bytearray:
        parts = self._parts.copy()
        self._parts.clear()
        return write_parts(main, parts, self._memory, self._packing)

    def _send_large(self, kind: int, call_id: int, body: bytes | bytearray, form: int) -> None:
        if len(body) > MAX_FRAME:  # the other side would refuse it, and the connection with it
            raise WireError(
                f"{len(body)} bytes; the limit is {MAX_FRAME}",
                code="frame-too-large",
                hint="send less at once, or a path to where it is",
            )
        head = encode_head(kind, call_id, len(body), form)
        self.flush()
        self._write(head)
        self._write(body)

    def send_error(self, call_id: int, error: DspexError, stages: Sequence[Any] = ()) -> None:
        """Send an error, and the stages of the work before it, if there were any.

        An error that cannot be encoded is replaced by the error about that.
        """
        try:
            body = error.to_dict()
            self.send(Kind.ERROR, call_id, {**body, "stages": stages} if stages else body)
        except WireError as unsendable:  # its details may hold anything
            unsendable.message = (
                f"{type(error).__name__}: {error.message}; of its details, {unsendable.message}"
            )
            self.send(Kind.ERROR, call_id, unsendable.to_dict())

    def finish(self) -> None:
        """Say that nothing more arrives; see `FrameReader.finish`."""
        self._reader.finish()

    def flush(self) -> None:
        """Write what is gathered."""
        if self._gathered:
            try:
                self._write(b"".join(self._gathered))
            except BaseException:
                self.close()  # they are lost: whoever waits for answers to them hears of it by the end
                raise
            finally:
                self._gathered.clear()

    def close(self) -> None:
        """Close the connection at once, whatever has not been sent."""
        if self._transport is not None:
            self._transport.abort()
        if isinstance(self._memory, LocalMemory):
            self._memory.close()

    def _write(self, data: bytes | bytearray) -> None:
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.write(data)
