"""Renders templates that would take all memory, stack or time, each in a process of its own.

Reads a JSON object of templates by name from standard input and writes one of outcomes: the code of the
error, `text` for one that was rendered, or how the process ended.
"""

from __future__ import annotations

import json
import os
import resource
import sys

from dspex import Template, errors

ROOM = 400 << 20
"""Bytes of address space that a rendering may take beyond what the process has."""
SECONDS = 20
"""Seconds of processor time. What is bounded needs less than one."""

DOCS = ["x" * 1000] * 1000


def render(source: str) -> str:
    try:
        Template(source).render(docs=DOCS)
    except errors.TemplateError as error:
        return error.code
    return "text"


def in_a_process(source: str) -> str:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with open("/proc/self/statm") as statm:
            room = int(statm.read().split()[0]) * resource.getpagesize() + ROOM
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.write(writer, render(source).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as outcome:
        said = outcome.read()
    _, status = os.waitpid(child, 0)
    return said if status == 0 else f"ended with status {status}"


if __name__ == "__main__":
    json.dump({name: in_a_process(source) for name, source in json.load(sys.stdin).items()}, sys.stdout)
