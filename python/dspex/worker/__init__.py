"""The child side: a process that runs real DSPy for a service and dies with it.

``python -m dspex.worker`` is started by a pool and by nothing else, which passes four descriptors.

::

    socket    frames, both ways
    lifeline  a pipe nobody writes to: its end of file means that the service is gone
    heartbeat     heartbeats, written by a thread that lives while the work blocks
    (1, 2)    standard output and error, a pipe the service reads: nothing of it touches the wire

`parent_watch` starts before anything else is imported. `server` cuts frames and keeps one task per
call; `operations` has what can be asked for; `failures` turns what went wrong into the tree of
`dspex.errors`.
"""
