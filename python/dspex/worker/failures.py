"""What goes wrong in a worker, as the tree of `dspex.errors`. Errors of LMs are `lm_failures`'."""

from __future__ import annotations

from typing import Final

import dspy
from dspy.utils import exceptions as dspy_errors

from dspex import errors
from dspex.protocol.errors import remote_error
from dspex.protocol.secrets import redacted
from dspex.worker.lm_failures import to_lm_error

__all__ = ["to_dspex_error"]

_EMPTY: Final = "The LM returned an empty or null response"
"""How DSPy's message about a reply without text begins; it has no class for it."""


def to_dspex_error(error: BaseException, *, secrets: tuple[str, ...] = ()) -> errors.DspexError:
    """The error of dspex's tree for `error`.

    Args:
        error: What the work raised.
        secrets: Texts that must not be in a message that leaves the worker.
    """
    try:
        converted = _convert(error, secrets)
    except Exception as failure:  # noqa: BLE001 - it has asked an error of the user's for its text
        name = type(error).__name__
        converted = errors.RemoteError(f"{name}, whose text is a {type(failure).__name__}", type=name)
    whole = converted.to_dict()
    shown = redacted(whole, secrets)
    return converted if shown == whole else errors.from_dict(shown)


def _convert(error: BaseException, secrets: tuple[str, ...]) -> errors.DspexError:
    if isinstance(error, dspy.AdapterParseError):
        if (error.message or "").startswith(_EMPTY):
            return errors.ReplyError.empty()
        return errors.ReplyError(
            "the reply could not be read as the output fields",
            hint="the reply is in `reply`; a clearer field description or a stronger model helps most",
            reply=error.lm_response,
            fields=list(error.parsed_result or ()),
        )
    if isinstance(error, dspy_errors.LMError):
        return to_lm_error(error, secrets)
    if isinstance(error, dspy.CodeInterpreterError) and "Deno" in str(error):
        return errors.ConfigError(
            f"the worker has no interpreter for the code of a program: {error}",
            code="no-code-interpreter",
            hint="`pip install 'dspy[deno]'` where the workers run, or name one that is no sandbox by "
            'imports={"interpreter_factory": "dspy:LocalInterpreter"}',
        )
    return remote_error(error)
