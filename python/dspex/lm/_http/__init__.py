"""How a request reaches a model's server, and its answer comes back: HTTP/1.1 over connections that are kept.

`transport.py` says what an LM asks of a transport, and which failures there are. `native.py` is ours: a pool
of connections for each server and event loop (`pool.py`), made by `connect.py` (names, proxies, TLS) and
served by `connection.py`, whose framing the core does. `through_aiohttp.py` is the same over aiohttp.

    LM --> Transport.fetch / open --> pool: an idle connection, a new one, or a turn in line
                                       |
                                       +--> connection: write, then wait for the answer by its limits
                                             |
                       idle again <----------+----------> closed: the answer was broken, late or not waited
                       for

A connection belongs to the event loop that opened it, and to the process: after a fork the child closes its
copies and opens its own. Each wait has a limit, kept by one timer for each connection, not for each call.
"""
