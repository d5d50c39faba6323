"""Keys that functions give, as a request takes them to a worker.

A worker's `dspy.LM` keeps its key. Where a function gives the key, each call brings the one of now, over the
settings that the pool was started with; the worker makes an LM anew when it is another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dspex._timeouts import without_frames
from dspex.errors import DeadlineExceeded
from dspex.protocol.optimization import OptimizeRequest

if TYPE_CHECKING:
    from dspex.protocol.requests import ModuleRequest, PredictRequest

__all__ = ["with_keys"]


async def with_keys(
    request: PredictRequest | ModuleRequest | OptimizeRequest,
    sources: Mapping[str, Any],
    timeout: float,
) -> PredictRequest | ModuleRequest | OptimizeRequest:
    """The request with the keys of now.

    Args:
        request: It, without them.
        sources: What gives the key of `lm`, of `extraction_lm`, or of a model that an optimizer names.
        timeout: Seconds that this may take.

    Raises:
        DeadlineExceeded: If it takes longer.
        LMAuthError: If a function fails (`lm-key-failed`) or gives no key (`lm-bad-key`).
    """
    scope = asyncio.timeout(timeout)
    try:
        async with scope:
            keys = {name: {"api_key": await source()} for name, source in sources.items()}
    except TimeoutError as error:
        if not scope.expired():
            raise
        raise DeadlineExceeded(
            f"the call's {timeout:g} s ran out while the function given as api_key= was asked for the key",
            hint="it is called for each request: let it keep the key for as long as it is good",
            retryable=True,
            timeout=timeout,
            stage="lm",
        ) from without_frames(error)
    program = request.program if isinstance(request, OptimizeRequest) else request
    own: dict[str, Any] = {
        name: {**getattr(program, name), **keys[name]} for name in ("lm", "extraction_lm") if name in keys
    }
    if not isinstance(request, OptimizeRequest):
        return replace(request, **own)
    models = {name: {**model, **keys.get(name, {})} for name, model in request.models.items()}
    return replace(request, program=replace(request.program, **own), models=models)
