"""Entry of a worker process. The guard comes first: from here on the worker cannot outlive the service."""

from __future__ import annotations

import sys

from dspex.worker.guard import Descriptors, stand_guard


def main() -> None:
    """Read the descriptors from the command line and serve until the service says stop or goes away."""
    numbers = sys.argv[1:]
    if len(numbers) != 4 or not all(number.isdigit() for number in numbers):
        sys.exit("dspex.worker is started by a pool: python -m dspex.worker PARENT SOCKET LIFELINE PULSE")
    parent, socket, lifeline, pulse = map(int, numbers)
    descriptors = Descriptors(socket, lifeline, pulse)
    stand_guard(descriptors, parent=parent)

    from dspex.worker.server import serve

    serve(descriptors)


if __name__ == "__main__":
    main()
