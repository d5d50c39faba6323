"""A remote module gives what the same class gives in process, and asks the model for the same."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import programs
from tests.support.generated import fewer
from tests.support.programs import look_up

import dspex
from dspex.testing import ChatRequest, ModelServer

PROGRAMS = "tests.support.programs:"
ASK = "question -> answer"
MAKE_LOCAL = {"interpreter_factory": "dspy:LocalInterpreter"}
NO_LOCAL = not hasattr(dspy, "LocalInterpreter")

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:dspy"),
    pytest.mark.filterwarnings("ignore:ProgramOfThought is deprecated"),
    pytest.mark.filterwarnings("ignore:CodeAct is deprecated"),
]


def fields(**values: Any) -> str:
    return "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in {**values, "completed": ""}.items())


def asked_for(request: ChatRequest) -> str:
    """The part of a prompt that names the output fields."""
    system = str(request.messages[0]["content"])
    return system.split("Your output fields are:")[1].split("All interactions")[0]


def filled(**answers: Any) -> Callable[[ChatRequest], str]:
    """A model that fills each output field that a prompt asks for."""

    def reply(request: ChatRequest) -> str:
        outputs = asked_for(request)
        brief = "hint_" in str(request.messages[0]["content"]) or request.settings.get("rollout_id") == 1
        more = {"answer": "blue" if brief else "a pale blue", **answers}
        return fields(**{name: text for name, text in more.items() if f"`{name}`" in outputs})

    return reply


def one_word(args: dict[str, Any], prediction: Any) -> float:
    return 1.0 if len(prediction.answer.split()) == 1 else 0.0


def add(a: int, b: int = 2) -> int:
    """Adds two numbers.

    Both are whole.
    """
    return a + b


CHAIN = dspex.remote("dspy.ChainOfThought", ASK)
WORDS: dict[str, Any] = {"reasoning": "it scatters", "rationale": "they agree"}
ADVICE = {"advice": '{"self": "be brief", "predict": "be brief"}', "discussion": "too long"}
CODE = "```python\ntotal = sum(range(11))\nSUBMIT({'answer': total})\n```"
ACT = "```python\nprint(look_up('Rome'))\n```"
EXPLORE = "```python\nSUBMIT(answer=str(add(a=1)))\n```"
NUMBER = "question -> answer: int"

# what makes it remote, what makes it here, its inputs, what the model says
ROWS: dict[str, tuple[Any, Any, dict[str, Any], dict[str, Any]]] = {
    "Predict": (
        lambda: dspex.remote("dspy.Predict", ASK),
        lambda: dspy.Predict(ASK),
        {"question": "sky?"},
        {},
    ),
    "ChainOfThought": (lambda: CHAIN, lambda: dspy.ChainOfThought(ASK), {"question": "sky?"}, WORDS),
    "MultiChainComparison": (
        lambda: dspex.remote("dspy.MultiChainComparison", ASK, M=2, temperature=0.4),
        lambda: dspy.MultiChainComparison(ASK, M=2, temperature=0.4),
        {"completions": [{"reasoning": f"see {n}", "answer": n} for n in "ab"], "question": "sky?"},
        WORDS,
    ),
    "BestOfN": (
        lambda: dspex.remote("dspy.BestOfN", module=CHAIN, N=3, threshold=1.0, reward_fn=one_word),
        lambda: dspy.BestOfN(module=dspy.ChainOfThought(ASK), N=3, threshold=1.0, reward_fn=one_word),
        {"question": "sky?"},
        WORDS,
    ),
    "BestOfN of a Predict": (
        lambda: dspex.remote(
            "dspy.BestOfN", module=dspex.remote("dspy.Predict", ASK), N=2, threshold=1.0, reward_fn=one_word
        ),
        lambda: dspy.BestOfN(module=dspy.Predict(ASK), N=2, threshold=1.0, reward_fn=one_word),
        {"question": "sky?"},
        {},
    ),
    "Refine": (
        lambda: dspex.remote("dspy.Refine", module=CHAIN, N=2, threshold=1.0, reward_fn=one_word),
        lambda: dspy.Refine(module=dspy.ChainOfThought(ASK), N=2, threshold=1.0, reward_fn=one_word),
        {"question": "sky?"},
        {**WORDS, **ADVICE},
    ),
    "ProgramOfThought": (
        lambda: dspex.remote("dspy.ProgramOfThought", NUMBER, imports=MAKE_LOCAL),
        lambda: dspy.ProgramOfThought(NUMBER, interpreter_factory=dspy.LocalInterpreter),
        {"question": "The sum of 1 to 10?"},
        {**WORDS, "generated_code": CODE, "answer": 55},
    ),
    "CodeAct": (
        lambda: dspex.remote("dspy.CodeAct", ASK, tools=[PROGRAMS + "look_up"], imports=MAKE_LOCAL),
        lambda: dspy.CodeAct(ASK, tools=[look_up], interpreter_factory=dspy.LocalInterpreter),
        {"question": "weather in Rome?"},
        {**WORDS, "generated_code": ACT, "finished": True},
    ),
    "RLM": (
        lambda: dspex.remote("dspy.RLM", ASK, tools=[add], imports=MAKE_LOCAL),
        lambda: dspy.RLM(ASK, tools=[add], interpreter_factory=dspy.LocalInterpreter),
        {"question": "1 and 2?"},
        {"reasoning": "add them", "code": EXPLORE},
    ),
    "a program": (
        lambda: dspex.program(PROGRAMS + "TwoSteps", tone="dry"),
        lambda: programs.TwoSteps(tone="dry"),
        {"question": "sky?"},
        {"draft": "a draft"},
    ),
    "an async program": (
        lambda: dspex.program(PROGRAMS + "AsyncAnswer"),
        programs.AsyncAnswer,
        {"question": "sky?"},
        {},
    ),
}


def here(api_base: str, module: Any, inputs: dict[str, Any]) -> Any:
    """What DSPy gives in this process; it asks once, as dspex does."""
    lm = dspy.LM("openai/local", api_base=api_base, api_key="k", cache=False, num_retries=0)
    adapter = dspy.ChatAdapter(use_json_adapter_fallback=False)
    with dspy.context(lm=lm, adapter=adapter):
        return module(**inputs) if hasattr(type(module), "forward") else asyncio.run(module.acall(**inputs))


@pytest.mark.parametrize("name", ROWS)
def test_a_class_gives_and_asks_what_it_does_in_process(name: str) -> None:
    remote, local, inputs, words = ROWS[name]
    if NO_LOCAL and name in ("ProgramOfThought", "CodeAct", "RLM"):
        pytest.skip("this DSPy has no interpreter but the sandbox, which has to be downloaded")
    with ModelServer(filled(**words)) as server:
        lm = dspex.LM("openai/local", api_base=server.api_base, api_key="k")
        with dspex.Runtime(lm, pools=dspex.PoolSpec(workers=1)):
            ours = remote()(**inputs)
        sent = [request.body for request in server.requests]
        server.requests.clear()
        theirs = here(server.api_base, local(), inputs)
        assert sent == [request.body for request in server.requests]
        assert sent
    assert ours.to_dict() == plain(theirs)


def plain(value: Any) -> Any:
    if isinstance(value, dspy.Example | dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


class Turns:
    """A model that goes through a script, whoever asks."""

    def __init__(self) -> None:
        self.turns: list[str] = []
        self.at = 0

    def __call__(self, request: ChatRequest) -> str:
        if "`next_tool_name`" not in asked_for(request):
            return fields(reasoning="seen", answer=f"after {self.at}")
        self.at += 1
        return self.turns[self.at - 1]


def turn(tool: str, args: Any) -> str:
    return fields(next_thought=f"use {tool}", next_tool_name=tool, next_tool_args=json.dumps(args))


async def shout(words: list[str], twice: bool = False) -> Any:
    """Says it louder."""
    return [word.upper() for word in words * (2 if twice else 1)]


ADDS = st.fixed_dictionaries({"a": st.integers()}, optional={"b": st.integers()})
SHOUTS = st.fixed_dictionaries(
    {"words": st.lists(st.text(max_size=4), max_size=2)}, optional={"twice": st.booleans()}
)
USES = st.one_of(
    st.builds(turn, st.just("add"), ADDS),
    st.builds(turn, st.just("shout"), SHOUTS),
    st.builds(turn, st.just("look_up"), st.fixed_dictionaries({"city": st.text(max_size=5)})),
)
ENDS = st.sampled_from(
    [
        turn("finish", {}),
        fields(next_thought="no such tool", next_tool_name="nothing", next_tool_args="{}"),
    ]
)


@pytest.fixture(scope="module")
def scripted() -> Iterator[tuple[Turns, ModelServer]]:
    turns = Turns()
    with ModelServer(turns) as server:
        yield turns, server


@fewer(40, least=8)
@given(uses=st.lists(USES, max_size=3), end=ENDS, limit=st.integers(1, 4))
def test_react_goes_the_way_that_dspy_s_goes(
    runtime: dspex.Runtime, scripted: tuple[Turns, ModelServer], uses: list[str], end: str, limit: int
) -> None:
    turns, server = scripted
    turns.turns = [*uses, end, turn("finish", {})]
    tools = [add, shout, look_up]
    lm = dspex.LM("openai/local", api_base=server.api_base, api_key="k")
    agent = dspex.remote("dspy.ReAct", ASK, tools=tools, max_iters=limit, lm=lm, parsing="dspy")
    gave, sent = [], []
    calls: list[Callable[[], Any]] = [
        lambda: agent(question="?").to_dict(),
        lambda: in_process(server, dspy.ReAct(ASK, tools=tools, max_iters=limit)),
    ]
    for call in calls:
        turns.at = 0
        server.requests.clear()
        try:
            gave.append(call())
        except (dspex.DspexError, dspy.AdapterParseError):
            gave.append(None)
        sent.append([request.body["messages"] for request in server.requests])
    assert without_frames(sent[0]) == without_frames(sent[1])
    assert without_frames(gave[0]) == without_frames(gave[1])


def in_process(server: ModelServer, module: Any) -> Any:
    lm = dspy.LM("openai/local", api_base=server.api_base, api_key="k", cache=False, num_retries=0)
    with dspy.context(lm=lm, adapter=dspy.ChatAdapter(use_json_adapter_fallback=False)):
        return dict(asyncio.run(module.acall(question="?")))


def without_frames(value: Any) -> str:
    """A value's text without the frames of tracebacks, which are each process's own."""
    return re.sub(r"Traceback \(most recent call last\):.*?(?=\w+Error: )", "", repr(value), flags=re.DOTALL)
