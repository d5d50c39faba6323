"""Every way a call over HTTP can fail, and the one error each becomes."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import aiohttp

from dspex.errors import (
    LMAuthError,
    LMConnectionError,
    LMError,
    LMRateLimitError,
    LMRequestError,
    LMResponseError,
    LMServerError,
    LMTimeoutError,
)

__all__ = ["from_exception", "from_status", "retry_after", "server_message"]

MESSAGE_LIMIT = 500
"""Characters of a server's own words that an error repeats; a proxy's HTML page says little beyond."""


class _Refusal(NamedTuple):
    error: type[LMError]
    said: str
    hint: str


_STATUS: Mapping[int, _Refusal] = {
    401: _Refusal(LMAuthError, "refused the key", "check {variable} or api_key="),
    403: _Refusal(LMAuthError, "refused access", "the key may lack the right to use {model!r}"),
    404: _Refusal(
        LMRequestError, "knows no such model or address", "check the model's name and api_base={base!r}"
    ),
    408: _Refusal(LMTimeoutError, "gave up waiting for the request", ""),
    413: _Refusal(LMRequestError, "says the request is too large", "send a shorter prompt or fewer demos"),
    429: _Refusal(LMRateLimitError, "asks to slow down", "wait `retry_after` seconds, or send fewer at once"),
}
_RANGES: Mapping[int, _Refusal] = {
    3: _Refusal(LMResponseError, "sent a redirect", "put the final address in api_base; none is followed"),
    4: _Refusal(LMRequestError, "refused the request", ""),
    5: _Refusal(LMServerError, "failed", ""),
}
_UNEXPECTED = _Refusal(LMResponseError, "answered with an unexpected status", "")


class _Break(NamedTuple):
    error: type[LMError]
    code: str
    said: str


_BREAKS: Mapping[type[BaseException], _Break] = {
    # The first class that fits names the error: a timeout of aiohttp's is a connection error as well.
    aiohttp.ConnectionTimeoutError: _Break(
        LMTimeoutError, "lm-connect-timeout", "did not accept a connection in time"
    ),
    TimeoutError: _Break(LMTimeoutError, "lm-timeout", "did not answer in time"),
    aiohttp.ClientConnectorCertificateError: _Break(
        LMConnectionError, "lm-certificate", "has a certificate that is not trusted"
    ),
    aiohttp.ClientConnectorDNSError: _Break(
        LMConnectionError, "lm-unknown-host", "has a name that does not resolve"
    ),
    aiohttp.ClientConnectorError: _Break(LMConnectionError, "lm-unreachable", "cannot be reached"),
    aiohttp.ClientPayloadError: _Break(LMConnectionError, "lm-cut", "broke off in the middle of its answer"),
    aiohttp.ServerDisconnectedError: _Break(
        LMConnectionError, "lm-cut", "closed the connection without an answer"
    ),
    aiohttp.ClientResponseError: _Break(LMResponseError, "lm-not-http", "sent something that is not HTTP"),
}
_BROKEN = _Break(LMConnectionError, "lm-connection", "dropped the connection")


def from_exception(error: BaseException, *, base: str, model: str) -> LMError:
    """The error for an exception of the HTTP client or of the socket below it."""
    broken = next((entry for cls, entry in _BREAKS.items() if isinstance(error, cls)), _BROKEN)
    return broken.error(f"the LM server {base} {broken.said}", code=broken.code, model=model, api_base=base)


def from_status(
    status: int,
    body: bytes,
    headers: Mapping[str, str],
    *,
    base: str,
    model: str,
    variable: str,
    secret: str | None,
) -> LMError:
    """The error for an answer whose status is not 200."""
    refusal = _STATUS.get(status) or _RANGES.get(status // 100, _UNEXPECTED)
    said, code = server_message(body, secret)
    details: dict[str, Any] = {"status": status, "model": model, "api_base": base, "server_message": said}
    if refusal.error is LMRateLimitError:
        details["retry_after"] = retry_after(headers.get("Retry-After"))
    if code == "context_length_exceeded":
        refusal = _Refusal(
            LMRequestError, "says the prompt is too long for the model", "shorten the inputs or demos"
        )
        details["code"] = "lm-context-length"
    text = f"the LM server {base} {refusal.said} (HTTP {status})" + (f": {said}" if said else "")
    hint = refusal.hint.format(variable=variable, model=model, base=base)
    return refusal.error(text, hint=hint, **details)


def retry_after(value: str | None, now: float | None = None) -> float | None:
    """Seconds to wait by a `Retry-After` header: a number, or a date; None if there is none to read.

    Args:
        value: The header's text.
        now: Seconds since the epoch, to measure a date from; the present when None.
    """
    if value is None:
        return None
    value = value.strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        # A date in the obsolete "-0000" zone comes without one; HTTP dates are UTC by definition.
        date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
        return max(0.0, date.timestamp() - (time.time() if now is None else now))
    return seconds if 0 <= seconds < float("inf") else None


def server_message(body: bytes, secret: str | None) -> tuple[str, str]:
    """The server's own words in an error body, bounded and without the key, and its error code."""
    text = body.decode("utf-8", "replace")
    code = ""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        data = None
    if isinstance(data, dict):
        error = data.get("error", data)
        if isinstance(error, dict):
            code = str(error.get("code") or "")
            error = error.get("message") or error.get("detail") or text
        text = error if isinstance(error, str) else text
    if secret:
        text = text.replace(secret, "***")
    text = " ".join(text.split())
    return (text if len(text) <= MESSAGE_LIMIT else text[:MESSAGE_LIMIT] + "..."), code
