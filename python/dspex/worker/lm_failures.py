"""What DSPy's language models raise, as the errors that `dspex.LM` raises for the same.

DSPy asks servers through a client of its own or through LiteLLM. What those raise says little and in words of
their own; but the chain of causes below it has the answer of the server, or what broke the connection, and
the tables of `dspex._lm_failures` say what becomes of that.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from dspy.utils import exceptions as dspy_errors

from dspex import _lm_failures as failures
from dspex import errors
from dspex.protocol.secrets import redacted

__all__ = ["LM_ERRORS", "to_lm_error"]

_BY_NAME: Final[Mapping[str, type[errors.LMError]]] = {
    "LMError": errors.LMError,
    "LMTransportError": errors.LMConnectionError,
    "LMLockTimeoutError": errors.LMTimeoutError,
    "LMCollectionLimitError": errors.LMResponseError,
    "LMConfigurationError": errors.LMRequestError,
    "LMNotConfiguredError": errors.LMAuthError,
    "LMUnsupportedFeatureError": errors.LMRequestError,
    "LMProviderError": errors.LMResponseError,
    "LMUnexpectedError": errors.LMError,
    "LMStreamAssemblyError": errors.LMConnectionError,
    "LMAuthError": errors.LMAuthError,
    "LMBillingError": errors.LMRequestError,
    "LMRateLimitError": errors.LMRateLimitError,
    "LMInvalidRequestError": errors.LMRequestError,
    "ContextWindowExceededError": errors.LMRequestError,
    "LMUnsupportedModelError": errors.LMRequestError,
    "LMTimeoutError": errors.LMTimeoutError,
    "LMServerError": errors.LMServerError,
}

LM_ERRORS: Final[Mapping[type[dspy_errors.LMError], type[errors.LMError]]] = {
    # By name, because a version of DSPy need not have them all.
    getattr(dspy_errors, name): ours
    for name, ours in _BY_NAME.items()
    if hasattr(dspy_errors, name)
}
"""Every LM error of DSPy and what it is here if nothing more is known; a class that is not listed is what its
parent is."""

_STATUS: Final[Mapping[str, int]] = {
    # What a server must have answered for DSPy to raise this, where it does not say with which status.
    "LMAuthError": 401,
    "LMBillingError": 402,
    "LMRateLimitError": 429,
    "ContextWindowExceededError": 400,
}
_API_CODES: Final[Mapping[str, str]] = {
    "ContextWindowExceededError": "context_length_exceeded",
    "LMBillingError": "insufficient_quota",
}

_LITELLM: Final = re.compile(r"^litellm\.\w+: (?:[A-Za-z ]+: )?(?:\w+Exception - )?")
_NO_KEY: Final = re.compile(
    r"missing credentials|api_key client option must be set|no api key", re.IGNORECASE
)
_NO_OBJECT: Final = re.compile(
    r"invalid response from LLM endpoint|response body is a JSON object|the reply \(.*\) is not JSON"
)
_LONG_LINE: Final = re.compile(r"SSE (?:line|event) exceeds limit")
"""How DSPy's clients put what they have no class for."""


class _Server(NamedTuple):
    """Whom an LM asks."""

    base: str
    model: str
    variable: str

    @classmethod
    def of(cls, error: dspy_errors.LMError) -> _Server:
        """The server of the LM that raised `error`; without an address if it is not known."""
        lm = getattr(error, "dspex_lm", None)
        settings: Mapping[str, Any] = getattr(lm, "kwargs", {})
        model = str(error.model or getattr(lm, "model", ""))
        prefix = model.partition("/")[0]
        base = settings.get("api_base") or settings.get("base_url")
        if base is None and lm is not None and prefix == "openai":
            base = os.environ.get("OPENAI_API_BASE") or os.environ.get("OPENAI_BASE_URL")
            base = base or "https://api.openai.com/v1"
        return cls(str(base or "").rstrip("/"), model, f"{prefix.upper().replace('-', '_')}_API_KEY")


class _Answer(NamedTuple):
    """A server's refusal."""

    status: int
    said: str
    code: str
    wait: float | None


def to_lm_error(error: dspy_errors.LMError, secrets: Sequence[str] = ()) -> errors.LMError:
    """The error that `dspex.LM` raises where DSPy raises `error`.

    Args:
        error: What DSPy raised.
        secrets: Texts to take out of what the server said, before it is cut to a length.
    """
    server = _Server.of(error)
    chain = list(_chain(error))
    for cause in chain:
        if isinstance(cause, errors.LMError):  # the program's LM asks by an engine of ours
            return cause
    answer = _answer(chain, secrets) or _answer_of_dspy(error, chain, secrets)
    if answer is not None:
        return failures.from_answer(*answer, **server._asdict())
    if isinstance(error, _NOT_CONFIGURED) or any(_NO_KEY.search(str(cause)) for cause in chain):
        return failures.no_key(server.base, server.variable, server.model)
    return _broken(error, chain, server) or _other(error, server, secrets)


_NOT_CONFIGURED: Final = getattr(dspy_errors, "LMNotConfiguredError", ())


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, up to another failure of an LM in whose handling it was raised."""
    inner: BaseException | None = error
    seen: set[int] = set()
    while inner is not None and id(inner) not in seen:
        seen.add(id(inner))
        yield inner
        inner = inner.__cause__ or (None if inner.__suppress_context__ else inner.__context__)
        if isinstance(inner, dspy_errors.LMError):
            return


def _answer(chain: Sequence[BaseException], secrets: Sequence[str]) -> _Answer | None:
    """The server's answer, as LiteLLM's client has kept it, or our own part in DSPy's."""
    for error in chain:
        response: Any = getattr(error, "response", None)
        status = getattr(response, "status_code", None)
        # LiteLLM's own errors have a response too: one that it made up.
        if type(error).__module__.startswith("litellm") or not isinstance(status, int):
            continue
        try:
            body = response.text
        except Exception:  # noqa: BLE001 - each provider has a client of its own, and this answer is not read
            body = ""
        said, code = _bounded(body if isinstance(body, str) else "", secrets)
        wait = getattr(response, "headers", {}).get("Retry-After")
        return _Answer(status, said, code, failures.retry_after(wait))
    return None


def _answer_of_dspy(
    error: dspy_errors.LMError, chain: Sequence[BaseException], secrets: Sequence[str]
) -> _Answer | None:
    """The server's answer by what DSPy's own client keeps of it: a status and words."""
    name = type(error).__name__
    if name not in _STATUS and any(type(cause).__module__.startswith("litellm") for cause in chain):
        return None  # its statuses stand for broken connections too
    status = error.status or _STATUS.get(name)
    if status is None or status < 300:
        return None
    code = _API_CODES.get(name) or str(error.provider_code or "")
    return _Answer(status, _words(error, secrets), code, error.retry_after)


def _broken(
    error: dspy_errors.LMError, chain: Sequence[BaseException], server: _Server
) -> errors.LMError | None:
    base, model = server.base, server.model
    if any(isinstance(cause, json.JSONDecodeError) or _NO_OBJECT.search(str(cause)) for cause in chain):
        return failures.from_rejected("it is not a JSON object", "lm-not-json", base=base, model=model)
    failure = failures.find_break(chain)
    if any(_LONG_LINE.search(str(cause)) for cause in chain):
        failure = failures.TOO_LARGE._replace(
            hint="DSPy reads lines of 64 kB and events of 1 MB in a stream; natively there is more"
        )
    if failure is None and isinstance(error, dspy_errors.LMTransportError):
        failure = failures.BROKEN
    return None if failure is None else failures.from_failure(failure, base=base, model=model)


def _other(error: dspy_errors.LMError, server: _Server, secrets: Sequence[str]) -> errors.LMError:
    """What is none of these, such as a setting that DSPy refuses."""
    cls = next(LM_ERRORS[base] for base in type(error).__mro__ if base in LM_ERRORS)
    said = _words(error, secrets)
    return cls(
        f"a call to {server.base or server.model or 'the model'} failed" + (f": {said}" if said else ""),
        hint="the LM of a worker is DSPy's; look at its settings",
        status=error.status,
        retry_after=error.retry_after,
        model=server.model,
        api_base=server.base,
    )


def _words(error: dspy_errors.LMError, secrets: Sequence[str]) -> str:
    """What the server said, without what a client put around it."""
    if _NO_OBJECT.search(error.message or ""):
        return ""
    # Advice stands behind an empty line, in words of a library that the caller does not see.
    return _bounded(_LITELLM.sub("", error.message or "").partition("\n\n")[0], secrets)[0]


def _bounded(text: str, secrets: Sequence[str]) -> tuple[str, str]:
    return failures.server_message(redacted(text, secrets).encode("utf-8", "replace"), ())
