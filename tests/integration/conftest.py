from __future__ import annotations

from tests.support.models import runtime, said
from tests.support.pools import chat, open_pool

__all__ = ["chat", "open_pool", "runtime", "said"]
