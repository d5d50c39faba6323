"""The codec of chat completions: OpenAI's, and that of the servers that speak as it does.

Requests are written here; `_answer.py` reads whole answers, `_chunks.py` streams.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from dspex._settings import MAX_GENERATIONS
from dspex.errors import ConfigError
from dspex.lm._answer import decode
from dspex.lm._forms import Engine, form_of, limits_of
from dspex.lm._prompt import Prompt

if TYPE_CHECKING:
    from dspex.lm._server import Server
    from dspex.lm._stream_reader import StreamReader

__all__ = [
    "HAS_N",
    "HAS_STOP",
    "PATH",
    "ChunkReader",
    "decode",
    "dump",
    "encode",
    "error_body",
    "fields",
    "generations",
]


PATH: Final = "/chat/completions"
HAS_N: Final = True
HAS_STOP: Final = True


def ChunkReader(limit: int, wanted: int, server: Server) -> StreamReader[Any]:  # noqa: N802 - a class, to users
    """A reader for the body of a stream."""
    from dspex.lm._chunks import ChunkReader  # the first stream needs the events, and many programs have none

    return ChunkReader(limit, wanted, server)


def fields(key: str | None) -> tuple[tuple[str, str], ...]:
    """The fields of a request's head."""
    ours = (("Content-Type", "application/json"),)
    return (*ours, ("Authorization", f"Bearer {key}")) if key else ours


def error_body(raw: bytes) -> bytes:
    """The body of an answer that tells of an error, as it is."""
    return raw


def encode(
    name: str,
    prefix: str,
    messages: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    *,
    stream: bool = False,
    engine: Engine = "auto",
) -> tuple[bytes, int]:
    """The request's body, and how many generations it asks for.

    The body is the one `dspy.LM` sends for the same messages and settings: the same names, the same text; see
    `dspex.lm._forms`.

    Raises:
        ConfigError: If something in it is nothing JSON can carry, or `n` is no count.
    """
    body: dict[str, Any] = {}
    wishes = {key: value for key, value in settings.items() if value is not None}
    wishes.pop("rollout_id", None)  # DSPy's name for "not from the cache"; no server knows it
    wanted = generations(wishes)
    explicit = wishes.pop("n", None) is not None
    wishes.pop("num_generations", None)
    form = form_of(engine, prefix, wishes)
    older, newer = wishes.pop("max_tokens", None), wishes.pop("max_completion_tokens", None)
    if older is not None or newer is not None:
        body |= limits_of(form, prefix, name, older, newer)
    if form == "lm15" and isinstance(wishes.get("stop"), str):
        wishes["stop"] = [wishes["stop"]]
    wishes.pop("extra_headers", None)  # they go into the head
    explicit = explicit and form == "litellm"  # which sends what is one as well
    extra = wishes.pop("extra_body", {})
    for key in ("temperature", "top_p"):
        if key in wishes:
            body[key] = wishes.pop(key)
    body.update(wishes)
    if wanted > 1 or explicit:
        body["n"] = wanted
    if stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    try:
        body.update(extra)
        return _written(name, messages, body), wanted
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"the request cannot be written as JSON: {error}", code="lm-setting") from error


def _written(name: str, messages: Sequence[Mapping[str, Any]], body: Mapping[str, Any]) -> bytes:
    """The body whose first two entries are the model and the messages."""
    if type(messages) is not Prompt or "model" in body or "messages" in body:
        return dump({"model": name, "messages": list(messages), **body})
    rest = _json(body)[1:] if body else "}"
    try:
        return b"".join((_before_messages(name), messages.json, b"," if body else b"", rest.encode()))
    except UnicodeEncodeError:
        return dump({"model": name, "messages": messages.messages, **body})


def generations(settings: Mapping[str, Any]) -> int:
    """How many generations the settings ask for.

    Raises:
        ConfigError: If that is no count (`lm-setting`).
    """
    wanted = settings.get("n")
    if wanted is None:
        wanted = settings.get("num_generations")  # DSPy has both names
    if wanted is None:
        return 1
    if isinstance(wanted, bool) or not isinstance(wanted, int) or not 1 <= wanted <= MAX_GENERATIONS:
        raise ConfigError(f"n must be a count from 1 to {MAX_GENERATIONS}, not {wanted!r}", code="lm-setting")
    return wanted


@lru_cache(maxsize=256)
def _before_messages(name: str) -> bytes:
    return _json({"model": name})[:-1].encode() + b',"messages":'


def dump(body: Mapping[str, Any]) -> bytes:
    """JSON in UTF-8."""
    text = _json(body)
    try:
        return text.encode()
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8, but it has a JSON escape; the server may judge it.
        return _json(body, ascii_only=True).encode()


def _json(value: Mapping[str, Any], *, ascii_only: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":"), allow_nan=False)
