"""Whether anybody listens to what dspex tells of calls.

Most processes have no listener, so a call looks at `given`, and does nothing else where it is False.
`dspex.telemetry.attach` sets it.
"""

from __future__ import annotations

given = False
"""Whether a handler is attached in this process."""
