"""Entry of a worker process. The guard comes first: from here on it cannot outlive the service."""

from __future__ import annotations

import sys

from dspex.worker.parent_watch import Descriptors, die_with_parent, watch_parent


def main() -> None:
    """Read the descriptors from the command line and serve until the service sends STOP or goes away."""
    match sys.argv[1:]:
        case ["worker", parent, *numbers] if len(numbers) in (3, 4):
            descriptors = Descriptors(*map(int, numbers))
            watch_parent(descriptors, service=int(parent), parent=True)

            from dspex.worker.server import serve

            serve(descriptors)
        case ["connect-back", host, port]:
            from dspex.protocol.connect_back import ConnectInfo
            from dspex.worker.connect_back import connect_back

            # The token comes by a pipe: command lines and environments can be read by others.
            connect_back(ConnectInfo(host, int(port), sys.stdin.buffer.read(32)))
        case ["forkserver", parent, control, lifeline]:
            die_with_parent(int(parent))

            from dspex.worker.forkserver import run

            run(int(control), int(lifeline), service=int(parent))
        case _:
            sys.exit("a pool starts this: python -m dspex.worker worker|forkserver|connect-back ...")


if __name__ == "__main__":
    main()
