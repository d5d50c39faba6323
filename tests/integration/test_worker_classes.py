"""DSPy's classes by their dotted names, and programs with saved state, as in a process of one's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import dspy
import pytest
from tests.support import programs
from tests.support.pools import Chat, OpenPool

from dspex import errors
from dspex.pool import ModuleRequest
from dspex.testing import ChatRequest

PROGRAMS = "tests.support.programs:"
ASK = "question -> answer"
CODE = "```python\ntotal = sum(range(11))\nSUBMIT({'answer': total})\n```"


def fields(**values: Any) -> str:
    return "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in {**values, "completed": ""}.items())


def reply(request: ChatRequest) -> str:
    """Fills each output field that the prompt asks for; its first answers have too many words."""
    asked = str(request.messages[0]["content"])
    answers = {
        "rationale": "they agree",
        "reasoning": "it scatters",
        "generated_code": CODE,
        "advice": '{"self": "be brief"}',
        "discussion": "too long",
        "draft": "a draft",
        "answer": "blue" if (request.settings.get("temperature") or 0) < 1 else "a pale blue",
    }
    outputs = asked.split("Your output fields are:")[1].split("All interactions")[0]
    return fields(**{name: text for name, text in answers.items() if f"`{name}`" in outputs})


REWARDED = {"module": PROGRAMS + "qa", "reward_fn": PROGRAMS + "one_word"}
MAKE_LOCAL = {"interpreter_factory": "dspy:LocalInterpreter"}

# the class, its payload, what makes it here, its inputs
CLASSES: list[tuple[str, dict[str, Any], Any, dict[str, Any]]] = [
    ("dspy.Predict", {"signature": ASK}, lambda: dspy.Predict(ASK), {"question": "sky?"}),
    ("dspy.ChainOfThought", {"signature": ASK}, lambda: dspy.ChainOfThought(ASK), {"question": "sky?"}),
    (
        "dspy.MultiChainComparison",
        {"signature": ASK, "args": {"M": 2, "temperature": 0.4}},
        lambda: dspy.MultiChainComparison(ASK, M=2, temperature=0.4),
        {"completions": [{"reasoning": f"see {n}", "answer": f"{n}"} for n in "ab"], "question": "sky?"},
    ),
    (
        "dspy.BestOfN",
        {"args": {"N": 2, "threshold": 1.0}, "imports": REWARDED},
        lambda: dspy.BestOfN(module=programs.qa, N=2, threshold=1.0, reward_fn=programs.one_word),
        {"question": "sky?"},
    ),
    (
        "dspy.Refine",
        {"args": {"N": 2, "threshold": 1.0}, "imports": REWARDED},
        lambda: dspy.Refine(module=programs.qa, N=2, threshold=1.0, reward_fn=programs.one_word),
        {"question": "sky?"},
    ),
    (
        "dspy.ProgramOfThought",
        {"signature": "question -> answer: int", "imports": MAKE_LOCAL},
        lambda: dspy.ProgramOfThought("question -> answer: int", interpreter_factory=dspy.LocalInterpreter),
        {"question": "What is the sum of 1 to 10?"},
    ),
    (PROGRAMS + "Both", {}, programs.Both, {"first": "one?", "second": "two?"}),
    (
        PROGRAMS + "TwoSteps",
        {"args": {"tone": "dry"}},
        lambda: programs.TwoSteps(tone="dry"),
        {"question": "sky?"},
    ),
]


@pytest.mark.parametrize(("name", "payload", "make", "inputs"), CLASSES, ids=[row[0] for row in CLASSES])
@pytest.mark.filterwarnings("ignore::DeprecationWarning:dspy", "ignore:ProgramOfThought is deprecated")
async def test_a_class_gives_in_a_worker_what_it_gives_here(
    open_pool: OpenPool, chat: Chat, name: str, payload: dict[str, Any], make: Any, inputs: dict[str, Any]
) -> None:
    if payload.get("imports") is MAKE_LOCAL and not hasattr(dspy, "LocalInterpreter"):
        pytest.skip("this DSPy has no interpreter but the sandbox, which has to be downloaded")
    number = "55" if "int" in payload.get("signature", "") else None
    chat.reply = (lambda r: reply(r).replace("\nblue", f"\n{number}")) if number else reply
    pool = await open_pool(lm=chat.lm())

    answer = await pool.call(ModuleRequest.of(name, inputs, **payload), timeout=40)
    theirs = chat.bodies
    with dspy.context(lm=dspy.LM(**chat.lm(), cache=False), adapter=dspy.ChatAdapter()):
        expected = await dspy.asyncify(make())(**inputs)

    assert answer["completions"] == [dict(expected)]
    ours = chat.bodies[len(theirs) :]
    assert sorted(map(str, theirs)) == sorted(map(str, ours))
    assert theirs
    if number:
        assert answer["completions"][0]["answer"] == 55
        assert '{\\"answer\\": 55}' in str(theirs[-1]) or '{"answer": 55}' in str(theirs[-1])


async def test_an_optimizer_asks_the_service_for_its_metric_from_all_its_threads(
    open_pool: OpenPool, chat: Chat
) -> None:
    asked: list[tuple[str, str]] = []
    progress: list[int] = []

    def metric(expected: str, answer: str) -> bool:
        asked.append((expected, answer))
        return expected == answer

    chat.reply = lambda request: fields(answer=request.prompt.split("colour of ")[1].split("?")[0][::-1])
    names = ["grass", "snow", "coal", "sky", "sand", "blood"]
    questions = [{"question": f"colour of {name}?", "answer": name[::-1]} for name in names]
    questions[0]["answer"] = "green"  # the LM says otherwise
    pool = await open_pool(lm=chat.lm())

    answer = await pool.call(
        ModuleRequest.of(PROGRAMS + "Optimize", {"questions": questions}),
        host_functions={"metric": metric, "progress": progress.append},
        timeout="optimizer",
    )

    (row,) = answer["completions"]
    assert row["score"] == pytest.approx(100 * 5 / 6, abs=0.01)
    assert progress == [2]
    assert len(row["state"]["demos"]) == 2
    assert sorted(asked[-6:]) == sorted(
        (q["answer"], name[::-1]) for q, name in zip(questions, names, strict=True)
    )
    assert 80_000 < row["left"] <= 86_400
    again = await pool.module(
        "dspy.Predict", {"question": "colour of ice?"}, signature=ASK, state=row["state"]
    )
    assert again["completions"] == [{"answer": "eci"}]
    assert "colour of snow" in str(chat.bodies[-1]["messages"])


async def test_a_program_of_thought_without_its_sandbox_says_what_to_install(
    open_pool: OpenPool, chat: Chat, tmp_path: Path
) -> None:
    chat.reply = reply
    (tmp_path / "deno").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "deno").chmod(0o755)
    pool = await open_pool(lm=chat.lm(), env={"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"})
    request = ModuleRequest.of("dspy.ProgramOfThought", {"question": "?"}, signature=ASK)
    with pytest.raises(errors.ConfigError) as refused:
        await pool.call(request, timeout=40)
    assert refused.value.code == "no-code-interpreter"
    assert "dspy[deno]" in refused.value.hint
    assert await pool.echo(1) == 1


async def test_a_state_is_read_from_the_file_that_save_wrote_and_again_when_it_has_changed(
    open_pool: OpenPool, chat: Chat, tmp_path: Path
) -> None:
    chat.reply = reply
    file = tmp_path / "two_steps.json"
    program = programs.TwoSteps()
    program.draft.demos = [{"question": "grass?", "draft": "green, I think"}]
    program.save(file)
    pool = await open_pool(lm=chat.lm())
    request = ModuleRequest.of(PROGRAMS + "TwoSteps", {"question": "sky?"}, state=str(file))

    await pool.call(request)
    assert "green, I think" in str(chat.bodies[0])

    program.draft.demos = [{"question": "snow?", "draft": "white, as far as I know"}]
    program.save(file)
    await pool.call(request)
    assert "white, as far as I know" in str(chat.bodies[2])


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("program.pkl", "read from a .json file"),
        ("nothing_here.json", "cannot be read"),
        ("empty.json", "refuses"),
    ],
)
async def test_a_state_that_cannot_be_read_is_one_clear_error(
    open_pool: OpenPool, chat: Chat, tmp_path: Path, file: str, says: str
) -> None:
    (tmp_path / "program.pkl").write_bytes(b"\x80\x04.")
    (tmp_path / "empty.json").write_text("{}")
    pool = await open_pool(lm=chat.lm())
    request = ModuleRequest.of(PROGRAMS + "TwoSteps", {"question": "?"}, state=str(tmp_path / file))
    with pytest.raises(errors.ConfigError, match=says):
        await pool.call(request)
    assert chat.bodies == []
