"""Compiled programs: one file that holds all of a program, and runs without its class and without DSPy.

>>> import dspex
>>> dspex.export(dspex.ChainOfThought("question -> answer"), "answer.dspex.json")
>>> program = dspex.load("answer.dspex.json")

`docs/compiled_programs.md` says what can be exported, what is in a file, and what is refused.
"""

from dspex.compiled._document import schema
from dspex.compiled._files import export, load
from dspex.compiled._flow import Program

__all__ = ["Program", "export", "load", "schema"]
