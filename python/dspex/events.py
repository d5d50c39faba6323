"""What a call sends while it runs: one set of events for replies, language models, modules and workers.

- `adapter.stream`, fed a reply: `FieldStart`, `TextDelta`, `PartialValue`, `FieldEnd`, `Correction`.
- `LM.stream`, and that of any `LanguageModel`: `LMDelta`.
- `stream` and `astream` of a module, and `Pool.stream` with `"predict"` or `"module"`: the events of fields,
  `Status`, at last a `dspex.Prediction`.
- `stream` and `astream` of a pipeline: `StepStarted`, `StepEvent` with an event of a module in it,
  `StepEnded`, at last a `dspex.pipelines.RunResult`.

For each field comes `FieldStart`; then its text in `TextDelta`s, or a value that is no text in
`PartialValue`s, each of which contains the one before; then `FieldEnd`. The last delta or value of a field
has `is_last_chunk`. A predictor that is called again, in a loop, starts its fields again, and `turn` counts
its replies. When a reply is over, there is a `Correction` for every field whose value differs from its
events.

Events are values: frozen, compared by their class and contents, and safe to pickle. They are made with names
or in the order given here; attributes that are added later come last and have a default.

>>> from dspex.events import TextDelta
>>> match TextDelta("answer", "blue"):
...     case TextDelta(field="answer", text=text):
...         print(text)
blue
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as _with
from typing import Any

from dspex.prediction import Prediction

__all__ = [
    "Correction",
    "Event",
    "FieldEnd",
    "FieldStart",
    "LMDelta",
    "LMToolCallDelta",
    "PartialValue",
    "PipelineEvent",
    "ReplyEvent",
    "Status",
    "StepEnded",
    "StepEvent",
    "StepRestarted",
    "StepStarted",
    "TextDelta",
]


@dataclass(frozen=True, slots=True)
class FieldStart:
    """An output field begins.

    Attributes:
        field: The field.
        predictor: The predictor whose reply it is, by its path in the module as DSPy's `named_predictors`
            has it; `"self"` where the module is a predictor itself, empty where it is none of the module's.
        turn: Which of the predictor's replies in this stream it is, from 0.
    """

    field: str
    predictor: str = "self"
    turn: int = 0


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The text of a field goes on. All deltas of a field together are its value.

    Attributes:
        field: The field.
        text: What has come, maybe nothing.
        is_last_chunk: Whether the text ends with it, as in DSPy's `StreamResponse`.
        predictor: As in `FieldStart`.
        turn: As in `FieldStart`.
    """

    field: str
    text: str
    is_last_chunk: bool = False
    predictor: str = "self"
    turn: int = 0


@dataclass(frozen=True, slots=True)
class PartialValue:
    """As much of a value that is not a text as is certain by now.

    Attributes:
        field: The field.
        value: While it grows a list or a mapping of plain values, a model as a dict: numbers, constants and
            choices when they are whole, texts as far as they have come. At last the value, of its type; of a
            program in a worker a plain one.
        is_last_chunk: Whether it is the value itself.
        predictor: As in `FieldStart`.
        turn: As in `FieldStart`.
    """

    field: str
    value: Any
    is_last_chunk: bool = False
    predictor: str = "self"
    turn: int = 0


@dataclass(frozen=True, slots=True)
class FieldEnd:
    """A field has ended: no more of it follows.

    Attributes:
        field: The field.
        complete: Whether the reply marked its end; False where the reply broke off.
        predictor: As in `FieldStart`.
        turn: As in `FieldStart`.
    """

    field: str
    complete: bool = True
    predictor: str = "self"
    turn: int = 0


@dataclass(frozen=True, slots=True)
class Correction:
    """The reply is over, and the value of a field differs from its events, or it had none.

    That happens where only the whole reply shows how to read it: broken JSON that was repaired, a marker
    that did not look like one, a field that was left out.

    Attributes:
        field: The field.
        value: Its value, of its type.
        predictor: As in `FieldStart`.
        turn: As in `FieldStart`.
    """

    field: str
    value: Any
    predictor: str = "self"
    turn: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """A message of progress: a tool is called, a model was asked.

    Attributes:
        text: The message, as DSPy's `StatusMessageProvider` or the program's own words it.
    """

    text: str


@dataclass(frozen=True, slots=True)
class LMToolCallDelta:
    """A piece of a call of a tool. All pieces of one `index` together are the call.

    Attributes:
        index: Which of the generation's calls it belongs to, from 0.
        id: The server's name for the call, on one of its pieces.
        name: The tool, on one of its pieces.
        arguments: What was added to the text of its arguments, maybe nothing.
    """

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class LMDelta:
    """A piece of a language model's answer, not yet divided into fields.

    Attributes:
        text: What was added, maybe nothing.
        index: Which generation it belongs to, from 0.
        finish_reason: Why the generation ended (`"stop"`, `"length"`, ...), on its last piece.
        usage: The server's token counts, on the one piece that carries them.
        tool_calls: Pieces of the calls of tools it asks for; `dspex.lm.assemble` puts them together.
        reasoning: What was added to a reasoning model's thoughts, maybe nothing.
        waited: Seconds that the call waited before it was sent, on its first piece; see `LMResponse`.
        cached: On the first piece of an answer that a cache gives; see `LMResponse`.
        refusal: What was added to the model's refusal, maybe nothing.
        logprobs: The probabilities of the piece's tokens as the server gave them, where they were asked for.
        annotations: Notes to the text as the server gave them, such as the pages that it cites.
        raw: The server's event where there was more in it than text, with whatever else it says; that of the
            usage has `id`, `system_fingerprint` and what else all events repeat.
    """

    text: str
    index: int = 0
    finish_reason: str | None = None
    usage: Mapping[str, Any] = _with(default_factory=dict)
    tool_calls: tuple[LMToolCallDelta, ...] = ()
    reasoning: str = ""
    waited: float = 0.0
    cached: bool = False
    refusal: str = ""
    logprobs: Mapping[str, Any] | None = None
    annotations: tuple[Mapping[str, Any], ...] = ()
    raw: Mapping[str, Any] = _with(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step of a pipeline begins.

    Attributes:
        step: Its path: `answer`, `map[17]/note`.
    """

    step: str


@dataclass(frozen=True, slots=True)
class StepEvent:
    """What a step of a pipeline tells while it runs.

    Attributes:
        step: Its path.
        event: What it tells, as a stream of the module itself would.
    """

    step: str
    event: FieldStart | TextDelta | PartialValue | FieldEnd | Correction | Status


@dataclass(frozen=True, slots=True)
class StepRestarted:
    """A step that has told something has failed and is tried again: what it told before counts no more.

    Attributes:
        step: Its path.
    """

    step: str


@dataclass(frozen=True, slots=True)
class StepEnded:
    """A step of a pipeline has ended.

    Attributes:
        step: Its path.
        status: How: `"ok"`, `"failed"`, `"timed_out"`, `"skipped"`, `"cancelled"`, `"cached"`, `"resumed"`.
        seconds: How long it took.
        outputs: The fields that it gave, by its own names.
        error: What it failed with, in words.
    """

    step: str
    status: str
    seconds: float
    outputs: Mapping[str, Any] = _with(default_factory=dict)
    error: str = ""


ReplyEvent = FieldStart | TextDelta | PartialValue | FieldEnd | Correction
"""The events of a reply's fields."""

PipelineEvent = StepStarted | StepEvent | StepRestarted | StepEnded | Prediction
"""All that the stream of a pipeline may give; the last is the result."""

Event = ReplyEvent | Status | LMDelta | PipelineEvent
"""All that a stream may give; where there is a prediction, it is the last.

A pipeline is a module: what streams any module may be given the events of steps."""
