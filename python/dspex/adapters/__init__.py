"""Adapters: from a signature and values to messages, and from a reply to the output fields.

The text is DSPy's, byte for byte; the work is done in Rust, from a plan that is compiled once for each
signature.

>>> from dspex.adapters import ChatAdapter
>>> messages = ChatAdapter().format("question -> answer", [], {"question": "Why?"})
>>> [message["role"] for message in messages]
['system', 'user']
"""

from dspex.adapters._adapter import (
    Adapter,
    AdapterLike,
    ChatAdapter,
    JSONAdapter,
    Layout,
    Markers,
    Parsing,
    Reply,
    XMLAdapter,
)
from dspex.adapters._remote import BAMLAdapter, TwoStepAdapter

__all__ = [
    "Adapter",
    "AdapterLike",
    "BAMLAdapter",
    "ChatAdapter",
    "JSONAdapter",
    "Layout",
    "Markers",
    "Parsing",
    "Reply",
    "TwoStepAdapter",
    "XMLAdapter",
]
