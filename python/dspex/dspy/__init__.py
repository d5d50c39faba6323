"""DSPy's adapters with dspex's engine, for programs that already use DSPy.

::

    dspy.configure(adapter=dspex.dspy.ChatAdapter())

One line: the same messages, the same results and errors, callbacks, streaming, fallback and native tool
calling as before, in less time. Importing this module imports DSPy.
"""

from dspex.dspy._adapters import ChatAdapter, JSONAdapter, XMLAdapter

__all__ = ["ChatAdapter", "JSONAdapter", "XMLAdapter"]
