"""Every way a call to a model over HTTP can fail, and the one error each becomes, on both routes.

The client of `dspex.lm` and the worker, where DSPy's clients ask, read the same tables: a failure is the same
error wherever it happened. The exceptions of HTTP clients are known by the names of their classes, so that
nothing of a client is imported here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

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

__all__ = [
    "BROKEN",
    "CUT_STREAM",
    "Failure",
    "find_break",
    "from_answer",
    "from_exception",
    "from_failure",
    "from_rejected",
    "from_status",
    "no_key",
    "retry_after",
    "server_message",
]

MESSAGE_LIMIT = 500
"""Characters of a server's own words that an error repeats; a proxy's HTML page says little beyond."""


class Failure(NamedTuple):
    """One way to fail.

    Attributes:
        error: The class.
        code: The code.
        did: What the server did, behind "the LM server ...".
        hint: What to do; `{base}`, `{model}` and `{variable}` stand for the server's address, the model's
            name and the environment variable of the key.
    """

    error: type[LMError]
    code: str
    did: str
    hint: str


_AGAIN = "try again; if it stays so, look at {where}"
_STATUS: Mapping[int, Failure] = {
    401: Failure(LMAuthError, "lm-auth", "refused the key", "check {variable} or api_key="),
    402: Failure(
        LMRequestError, "lm-billing", "says the account is not paid for", "look at the account's billing"
    ),
    403: Failure(LMAuthError, "lm-auth", "refused access", "the key may lack the right to use {model!r}"),
    404: Failure(
        LMRequestError,
        "lm-not-found",
        "knows no such model or address",
        "check the model's name and api_base={base!r}",
    ),
    408: Failure(
        LMTimeoutError, "lm-timeout", "gave up waiting for the request", _AGAIN.format(where="the network")
    ),
    413: Failure(
        LMRequestError,
        "lm-request-too-large",
        "says the request is too large",
        "send a shorter prompt or fewer demos",
    ),
    429: Failure(
        LMRateLimitError,
        "lm-rate-limit",
        "asks to slow down",
        "wait `retry_after` seconds, or send fewer at once",
    ),
}
_RANGES: Mapping[int, Failure] = {
    3: Failure(
        LMResponseError,
        "lm-response",
        "sent a redirect",
        "put the final address in api_base=; none is followed",
    ),
    4: Failure(
        LMRequestError,
        "lm-request",
        "refused the request",
        "its own words say why; often the model does not know a setting",
    ),
    5: Failure(LMServerError, "lm-server", "failed", _AGAIN.format(where="the server's log")),
}
_NO_ROOM = frozenset({503, 529})
"""Statuses by which a server says that it takes no requests now, and may say when it will."""
_UNEXPECTED = Failure(
    LMResponseError,
    "lm-response",
    "answered with an unexpected status",
    "check that api_base={base!r} is the address of an OpenAI-compatible API",
)
_CONTEXT = Failure(
    LMRequestError,
    "lm-context-length",
    "says the prompt is too long for the model",
    "shorten the inputs or demos",
)
_UNPAID = _STATUS[402]

_ANSWER_HINTS: Mapping[str, str] = {
    "lm-no-content": "look at its finish_reason: a filter, or max_tokens used up",
    "lm-refusal": "change what the model is asked",
    "lm-tool-calls": "ask whoever runs the server: each call of a tool needs a function with a name",
    "lm-response-too-large": "raise max_response_bytes= if such answers are meant, or set max_tokens=",
}

CONNECT_TIMEOUT = Failure(
    LMTimeoutError,
    "lm-connect-timeout",
    "did not accept a connection in time",
    "check that the server of api_base={base!r} runs, or raise connect_timeout=",
)
TIMEOUT = Failure(
    LMTimeoutError, "lm-timeout", "did not answer in time", "raise the LM's timeout=, or ask for fewer tokens"
)
FIRST_BYTE_TIMEOUT = Failure(
    LMTimeoutError,
    "lm-first-byte-timeout",
    "accepted the request and did not begin to answer in time",
    "raise the LM's first_byte_timeout=, or ask a server that is less busy",
)
FIRST_TEXT_TIMEOUT = Failure(
    LMTimeoutError,
    "lm-first-text-timeout",
    "began its stream and sent no text in time",
    "raise the LM's first_text_timeout=; a model that reasons thinks before it writes",
)
CHUNK_TIMEOUT = Failure(
    LMTimeoutError,
    "lm-chunk-timeout",
    "stopped in the middle of its stream",
    "raise the LM's chunk_timeout= if such pauses are meant, else try again",
)
CERTIFICATE = Failure(
    LMConnectionError,
    "lm-certificate",
    "has a certificate that is not trusted",
    "install the authority that signed it, or correct api_base={base!r}",
)
NOT_TLS = Failure(
    LMConnectionError,
    "lm-tls-failed",
    "does not agree with us on TLS",
    "check that api_base={base!r} is https and not http, and which versions of TLS the server speaks",
)
UNKNOWN_HOST = Failure(
    LMConnectionError,
    "lm-unknown-host",
    "has a name that does not resolve",
    "check the host in api_base={base!r}",
)
UNREACHABLE = Failure(
    LMConnectionError,
    "lm-unreachable",
    "cannot be reached",
    "check that the server runs, and host and port in api_base={base!r}",
)
CUT_MIDWAY = Failure(
    LMConnectionError,
    "lm-cut",
    "broke off in the middle of its answer",
    _AGAIN.format(where="the server's log, or at the limits of a proxy before it"),
)
CUT = CUT_MIDWAY._replace(did="closed the connection without an answer")
CUT_STREAM = CUT_MIDWAY._replace(did="broke off in the middle of its stream")
NOT_HTTP = Failure(
    LMResponseError,
    "lm-not-http",
    "sent something that is not HTTP",
    "check host and port in api_base={base!r}, and whether it is http or https",
)
PROXY = Failure(
    LMConnectionError,
    "lm-proxy",
    "cannot be reached through the proxy",
    "check proxy=, or https_proxy and no_proxy in the environment",
)
DESCRIPTORS = Failure(
    LMConnectionError,
    "lm-descriptors",
    "cannot be connected to: the process has no file descriptors left",
    "raise `ulimit -n`, or make fewer calls at once",
)
TOO_LARGE = Failure(
    LMResponseError,
    "lm-response-too-large",
    "sent more than the LM reads",
    "raise max_response_bytes= if such answers are meant, or set max_tokens=",
)
BROKEN = Failure(
    LMConnectionError, "lm-connection", "dropped the connection", _AGAIN.format(where="the network")
)

_PROTOCOL = NOT_HTTP._replace()
"""httpx and DSPy's client have one class for what is not HTTP and for what closed too early."""

_FIRST: Mapping[str, Failure] = {
    # The cause, wherever it is: what is raised above it only says that there is no connection.
    "gaierror": UNKNOWN_HOST,
    "ClientConnectorDNSError": UNKNOWN_HOST,
    "SSLCertVerificationError": CERTIFICATE,
    "ClientConnectorCertificateError": CERTIFICATE,
    "ReplyTooLarge": TOO_LARGE,
    # Below it is a plain TimeoutError.
    "ConnectionTimeoutError": CONNECT_TIMEOUT,
    "ConnectTimeout": CONNECT_TIMEOUT,
}
_BREAKS: Mapping[str, Failure] = {
    # aiohttp's, which is the client of dspex.lm and, below others, of LiteLLM
    "ClientConnectorError": UNREACHABLE,
    "ClientPayloadError": CUT_MIDWAY,
    "ServerDisconnectedError": CUT,
    "ClientResponseError": NOT_HTTP,
    "TimeoutError": TIMEOUT,
    # those of httpx, httpcore and DSPy's own client, which share their names
    "ReadTimeout": TIMEOUT,
    "WriteTimeout": TIMEOUT,
    "PoolTimeout": TIMEOUT,
    "ConnectError": UNREACHABLE,
    "ReadError": CUT,
    "WriteError": CUT,
    "RemoteProtocolError": _PROTOCOL,
    "ProtocolError": _PROTOCOL,
}


def find_break(chain: Sequence[BaseException]) -> Failure | None:
    """The failure of a connection that these exceptions tell of; None if they tell of none.

    Args:
        chain: An exception, and the causes of it that are known to belong to the call.
    """
    for table in (_FIRST, _BREAKS):
        # The innermost knows most.
        for error in reversed(chain):
            names = (cls.__name__ for cls in type(error).__mro__)
            failure = next((table[name] for name in names if name in table), None)
            if failure is _PROTOCOL and "clos" in str(error):
                return CUT_MIDWAY
            if failure is not None:
                return failure
    return None


def from_exception(error: BaseException, *, base: str, model: str) -> LMError:
    """The error for an exception of the HTTP client or of the socket below it."""
    chain = [error] if error.__cause__ is None else [error, error.__cause__]
    return from_failure(find_break(chain) or BROKEN, base=base, model=model)


def from_failure(failure: Failure, *, base: str, model: str, detail: str = "") -> LMError:
    """The error for a failure that has no answer; `detail` says more of what was wrong."""
    return failure.error(
        f"{_server(base, model)} {failure.did}{detail and f' ({detail})'}",
        code=failure.code,
        hint=failure.hint.format(base=base, model=model),
        model=model,
        api_base=base,
    )


def from_status(
    status: int,
    body: bytes,
    headers: Mapping[str, str],
    *,
    base: str,
    model: str,
    variable: str,
    secrets: Iterable[str],
) -> LMError:
    """The error for an answer whose status is not 200; the names of its headers are in lower case."""
    said, code = server_message(body, secrets)
    wait = retry_after(headers.get("retry-after"))
    return from_answer(status, said, code, wait, base=base, model=model, variable=variable)


def from_answer(
    status: int,
    said: str,
    code: str,
    wait: float | None,
    *,
    base: str,
    model: str,
    variable: str,
) -> LMError:
    """The error for an answer whose status is not 200, once it is read.

    Args:
        status: The HTTP status.
        said: The server's own words, bounded and without the key.
        code: The API's code for the error; empty if there was none.
        wait: Seconds of the `Retry-After` header.
        base: The server's address.
        model: The model's name.
        variable: The environment variable of the key.
    """
    failure = _STATUS.get(status) or _RANGES.get(status // 100, _UNEXPECTED)
    if code == "context_length_exceeded":
        failure = _CONTEXT
    elif code == "insufficient_quota":
        failure = _UNPAID  # it comes as a 429, but waiting does not help
    details: dict[str, Any] = {"status": status, "model": model, "api_base": base, "server_message": said}
    if failure.error is LMRateLimitError or (wait is not None and status in _NO_ROOM):
        details["retry_after"] = wait
    hint = failure.hint.format(variable=variable, model=model, base=base)
    if status == 404 and not urlsplit(base).path.strip("/"):
        # The mistake that is made most: a server's address as it stands in a browser.
        hint = f"api_base has no path; most servers want api_base='{base}/v1'. Else {hint}"
    if (
        status < 500 and "v1/responses" in said
    ):  # OpenAI serves some models, or tools of theirs, by that alone
        hint = "the model is asked by Responses: write dspex.LM(..., model_type='responses')"
    text = f"{_server(base, model)} {failure.did} (HTTP {status})" + (f": {said}" if said else "")
    return failure.error(text, code=failure.code, hint=hint, **details)


def from_rejected(what: str, code: str | None, *, base: str, model: str, hint: str = "") -> LMError:
    """The error for an answer that came whole and is not a chat completion.

    Args:
        what: Why it is none, as a sentence that begins with "it".
        code: The code; None for the class's own.
        base: The server's address.
        model: The model's name.
        hint: What to do, if it is not what the code's failures have in common.
    """
    return LMResponseError(
        f"the answer of {base or model} is not a chat completion: {what}",
        code=code,
        hint=hint or hint_for_answer(code, base),
        model=model,
        api_base=base,
    )


def no_key(base: str, variable: str, model: str) -> LMAuthError:
    """The error for a server that needs a key when there is none."""
    return LMAuthError(
        f"no key for {base or model}: neither api_key= nor {variable} is set",
        code="lm-no-key",
        hint=f"set {variable}, or pass api_key=; a server that needs none takes any text",
        variable=variable,
        model=model,
        api_base=base,
    )


def _server(base: str, model: str) -> str:
    return f"the LM server {base}" if base else f"the server of {model}"


def hint_for_answer(code: str | None, base: str) -> str:
    """What to do about an answer that came whole and is not a chat completion."""
    wrong_address = f"check that api_base={base!r} is the address of an OpenAI-compatible API"
    return _ANSWER_HINTS.get(code or "", wrong_address)


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
            from datetime import UTC  # few servers write a date
            from email.utils import parsedate_to_datetime

            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        # A date in the obsolete "-0000" zone comes without one; HTTP dates are UTC by definition.
        date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
        return max(0.0, date.timestamp() - (time.time() if now is None else now))
    return seconds if 0 <= seconds < float("inf") else None


def server_message(body: bytes | str, secrets: Iterable[str]) -> tuple[str, str]:
    """The server's own words in an error body, bounded and without the secrets, and its error code."""
    text = body if isinstance(body, str) else body.decode("utf-8", "replace")
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
    for secret in secrets:
        text = text.replace(secret, "***")
        code = code.replace(secret, "***")
    text = " ".join(text.split())
    return (text if len(text) <= MESSAGE_LIMIT else text[:MESSAGE_LIMIT] + "..."), code
