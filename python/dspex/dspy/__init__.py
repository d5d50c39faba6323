"""dspex in programs that already use DSPy: its adapters with dspex's core, and an engine for `dspy.LM`.

::

    dspy.configure(adapter=dspex.dspy.ChatAdapter())
    dspy.configure(lm=dspy.LM("openai/<name>", engine=dspex.dspy.Engine("openai/<name>", api_base=...)))

The adapters: the same messages, the same results and errors, callbacks, streaming, fallback and native tool
calling as before, in less time. The engine: the same requests over dspex's connections, limits and groups.
Importing this module imports DSPy.
"""

from dspex._lazy import names_of
from dspex.dspy._adapters import ChatAdapter, JSONAdapter, XMLAdapter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dspex.dspy._engine import AsyncEngine, Engine

__all__ = ["AsyncEngine", "ChatAdapter", "Engine", "JSONAdapter", "XMLAdapter"]

if (
    not TYPE_CHECKING
):  # loaded with the first use: DSPy has engines since 3.4, and the adapters need no client
    __getattr__ = names_of(__name__, {"AsyncEngine": "dspex.dspy._engine", "Engine": "dspex.dspy._engine"})
