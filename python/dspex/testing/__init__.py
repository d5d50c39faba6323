"""Test doubles for programs that call a language model.

`ScriptedLM` answers inside the process. `ModelServer` is a local OpenAI-compatible server, with faults on
demand, for whatever speaks HTTP; ``python -m dspex.testing`` runs one by itself. Both answer by a
function, a table, a list or, when given nothing, by reading the prompt: `read_prompt_and_answer`.

`dspex.testing.stores`, which needs pytest, has the tests of a store of one's own.
"""

from dspex.testing._answers import Answer, ChatRequest
from dspex.testing._events import CapturedEvents, captured_events
from dspex.testing._faults import (
    Cut,
    Delay,
    EmptyChoices,
    Fault,
    FaultSchedule,
    HttpError,
    MalformedJSON,
    NullContent,
    SlowDrip,
    Stall,
    WrongContentType,
)
from dspex.testing._model_server import ModelServer, ReceivedRequest
from dspex.testing._reader import Finding, read_prompt_and_answer
from dspex.testing._scripted import ScriptedLM
from dspex.testing._waiting import no_waiting

__all__ = [
    "Answer",
    "CapturedEvents",
    "ChatRequest",
    "Cut",
    "Delay",
    "EmptyChoices",
    "Fault",
    "FaultSchedule",
    "Finding",
    "HttpError",
    "MalformedJSON",
    "ModelServer",
    "NullContent",
    "ReceivedRequest",
    "ScriptedLM",
    "SlowDrip",
    "Stall",
    "WrongContentType",
    "captured_events",
    "no_waiting",
    "read_prompt_and_answer",
]
