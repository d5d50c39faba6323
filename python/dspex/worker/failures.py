"""What goes wrong in a worker, as the tree of `dspex.errors`. DSPy's errors are converted by one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import dspy
from dspy.utils import exceptions as foreign

from dspex import errors
from dspex.wire import redacted, remote_error

__all__ = ["LM_ERRORS", "to_dspex_error"]

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
    "LMStreamAssemblyError": errors.LMResponseError,
    "LMAuthError": errors.LMAuthError,
    "LMBillingError": errors.LMRequestError,
    "LMRateLimitError": errors.LMRateLimitError,
    "LMInvalidRequestError": errors.LMRequestError,
    "ContextWindowExceededError": errors.LMRequestError,
    "LMUnsupportedModelError": errors.LMRequestError,
    "LMTimeoutError": errors.LMTimeoutError,
    "LMServerError": errors.LMServerError,
}

LM_ERRORS: Final[Mapping[type[foreign.LMError], type[errors.LMError]]] = {
    # By name, because a version of DSPy need not have them all.
    getattr(foreign, name): ours
    for name, ours in _BY_NAME.items()
    if hasattr(foreign, name)
}
"""Every LM error of DSPy and what it is here; a class that is not listed is what its parent is."""


def to_dspex_error(error: BaseException, *, secrets: tuple[str, ...] = ()) -> errors.DspexError:
    """The error of the tree that says what `error` says.

    Args:
        error: What the work raised.
        secrets: Texts that must not be in a message that leaves the worker.
    """
    try:
        converted = _convert(error)
    except Exception as failure:  # noqa: BLE001 - it has asked an error of the user's for its text
        name = type(error).__name__
        converted = errors.RemoteError(f"{name}, whose text is a {type(failure).__name__}", type=name)
    said = converted.to_dict()
    shown = redacted(said, secrets)
    return converted if shown == said else errors.from_dict(shown)


def _convert(error: BaseException) -> errors.DspexError:
    if isinstance(error, dspy.AdapterParseError):
        return errors.ReplyError(
            "the reply could not be read as the output fields",
            hint="the reply is in `reply`; a clearer field description or a stronger model helps most",
            reply=error.lm_response,
            fields=list(error.parsed_result or ()),
        )
    if isinstance(error, foreign.LMError):
        cls = next(LM_ERRORS[base] for base in type(error).__mro__ if base in LM_ERRORS)
        return cls(
            error.message or type(error).__name__,
            status=error.status,
            retry_after=error.retry_after,
            model=error.model,
            type=type(error).__name__,
        )
    if isinstance(error, dspy.CodeInterpreterError) and "Deno" in str(error):
        return errors.ConfigError(
            f"the worker has no interpreter for the code of a program: {error}",
            code="no-code-interpreter",
            hint="`pip install 'dspy[deno]'` where the workers run, or name one that is no sandbox by "
            'imports={"interpreter_factory": "dspy:LocalInterpreter"}',
        )
    return remote_error(error)
