"""What a service and its workers share: frames, codecs, and the wire form of everything that is sent.

`dspex.pool` and `dspex.worker` both import from here, and neither imports the other. A file holds both ends
of what it is about: whoever changes what is written sees what reads it. Names are imported from their files,
so that a worker's first lines, which tie its life to its service's, need not wait for the rest.
"""
