"""The key of an LM: a text, or a function that gives one for each request.

A function is for tokens that rotate. It is called for every request, on the event loop that makes it, and may
be asynchronous; where the token has to be fetched, it should be, and keep the token while it is good. What it
gives is sent, and remembered for nothing but to be kept out of errors.

A worker's `dspy.LM` has a key for as long as it lives. So a worker is not started with one: each call brings
it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from dspex.errors import ConfigError, DspexError, LMAuthError

if TYPE_CHECKING:
    from dspex.lm._address import Address

__all__ = ["Key", "KeySource", "asked", "checked_key"]

KeySource = Callable[[], "str | Awaitable[str]"]
Key = str | KeySource


def checked_key(given: Any) -> Key | None:
    """The key as given.

    Raises:
        ConfigError: If it can be none (`lm-setting`).
    """
    if given is None or isinstance(given, str) or callable(given):
        result: Key | None = given
        return result
    raise ConfigError(  # it may be the key, though of a wrong type, so that it is not repeated
        f"api_key must be a text, or a function that gives one, not of type {type(given).__name__}",
        code="lm-setting",
    )


async def asked(source: KeySource, address: Address, until: float | None = None) -> str:
    """The key that a function gives now.

    Args:
        source: The function.
        address: Where the key will be sent.
        until: When it has to be there, by the loop's clock; None for whenever it is.

    Raises:
        TimeoutError: If it is not there in time.
        LMAuthError: If the function fails (`lm-key-failed`) or gives no key (`lm-bad-key`).
    """
    scope = asyncio.timeout_at(until)
    try:
        given = source()
        if inspect.isawaitable(given):
            async with scope:
                given = await given
    except DspexError:
        raise
    except Exception as error:
        if isinstance(error, TimeoutError) and scope.expired():
            raise
        name = type(error).__name__  # its text is not repeated: who knows what a server of tokens said
        raise LMAuthError(
            f"the function given as api_key= for {address.base or address.model} raised {name}",
            code="lm-key-failed",
            hint="the cause says why; the function is called for each request",
            model=address.model,
            api_base=address.base,
        ) from error
    if not isinstance(given, str) or not given:
        raise LMAuthError(
            f"the function given as api_key= for {address.base or address.model} gave "
            + ("an empty text" if isinstance(given, str) else f"a value of type {type(given).__name__}"),
            code="lm-bad-key",
            hint="it has to give the key as a text",
            model=address.model,
            api_base=address.base,
        )
    return address.checked_key(given)
