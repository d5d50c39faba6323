"""What crosses between a service and its workers: frames, and how their bodies are coded.

Both sides import this package and nothing of each other. It knows bytes and plain values; it opens no
socket and imports nothing heavy.
"""

from __future__ import annotations

from dspex.protocol.codec import CODECS, MSGPACK, Codec, MessagePack
from dspex.protocol.errors import read_error, remote_error
from dspex.protocol.frames import (
    HEADER_SIZE,
    MAX_FRAME,
    PROTOCOL,
    Frame,
    FrameReader,
    Kind,
    encode_frame,
)
from dspex.protocol.secrets import redacted, secrets_in

__all__ = [
    "CODECS",
    "HEADER_SIZE",
    "MAX_FRAME",
    "MSGPACK",
    "PROTOCOL",
    "Codec",
    "Frame",
    "FrameReader",
    "Kind",
    "MessagePack",
    "encode_frame",
    "read_error",
    "redacted",
    "remote_error",
    "secrets_in",
]
