"""What either library saves of a program the other loads, and no file changes a program by half."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path
from typing import Any

import dspy
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.generated import fewer

import dspex
from dspex.errors import ConfigError


class Point(pydantic.BaseModel):
    x: int
    names: list[str] = []


def program(lib: Any) -> Any:
    class Program(lib.Module):
        def __init__(self) -> None:
            super().__init__()
            self.draft = lib.ChainOfThought("question -> draft")
            self.steps = [lib.Predict("draft, hint: list[str] -> answer"), lib.Predict("a -> b")]
            self.by_name = {"x": lib.Predict("c -> d: int")}

    return Program()


def texts(made: Any) -> Any:
    """What a state decides: the demos, and all that a prompt shows of the signature."""
    return [
        (path, [dict(demo) for demo in predictor.demos], predictor.signature.dump_state())
        for path, predictor in made.named_predictors()
    ]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.text(max_size=3), inner, max_size=2)
        | st.builds(Point, x=st.integers(0, 3), names=st.lists(st.text(max_size=2), max_size=2))
    ),
    max_leaves=5,
)
NAMES = st.sampled_from(["question", "reasoning", "draft", "answer", "augmented", "a", "b"])
DEMOS = st.lists(st.dictionaries(NAMES, VALUES, max_size=3), max_size=3)


@fewer(10)
@given(data=st.data())
def test_what_either_saves_the_other_loads(data: st.DataObject, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("state")
    theirs = program(dspy)
    for _, predictor in theirs.named_predictors():
        demos = data.draw(DEMOS)
        as_examples = data.draw(st.booleans())
        predictor.demos = [dspy.Example(**demo) for demo in demos] if as_examples else demos
        instructions = data.draw(st.text(max_size=10))
        predictor.signature = predictor.signature.with_instructions(instructions)
        name = data.draw(st.sampled_from(list(predictor.signature.fields)))
        desc = data.draw(st.text(max_size=10))
        predictor.signature = predictor.signature.with_updated_fields(name, desc=desc, prefix=f"{name}?")
    theirs.save(folder / "theirs.json")

    ours = program(dspex).load(folder / "theirs.json")
    saved = json.loads((folder / "theirs.json").read_text())
    assert ours.dump_state() == {path: state for path, state in saved.items() if path != "metadata"}
    assert program(dspex).load_state(theirs.dump_state()).dump_state() == ours.dump_state()

    ours.save(folder / "ours.json")
    again = program(dspy)
    again.load(folder / "ours.json")
    expected = program(dspy)
    expected.load(folder / "theirs.json")
    assert texts(again) == texts(expected)
    written = json.loads((folder / "ours.json").read_text())
    assert written == saved


def test_examples_inside_examples_are_saved_as_dspy_saves_them(tmp_path: Path) -> None:
    inner = dspy.Example(q="Q", a=Point(x=1), deep=[dspy.Example(q="D")])
    demos = [dspy.Example(q=[inner, inner], a={"k": inner}).with_inputs("q")]
    states = []
    for lib in (dspy, dspex):
        predict = lib.Predict("q -> a")
        predict.demos = demos
        predict.save(tmp_path / "p.json", save_program=False)
        states.append(json.loads((tmp_path / "p.json").read_text())["demos"])
        again = lib.Predict("q -> a")
        again.load(tmp_path / "p.json", allow_pickle=False)
        assert again.demos == states[-1]
    assert states[0] == states[1]
    assert states[1][0]["a"]["k"]["deep"] == [{"q": "D"}]


def test_a_predictor_by_itself_has_its_state_at_the_top(tmp_path: Path) -> None:
    theirs = dspy.Predict("q -> a")
    theirs.demos = [dspy.Example(q="Q", a=Point(x=1)).with_inputs("q")]
    theirs.save(tmp_path / "p.json")
    ours = dspex.Predict("q -> a").load(tmp_path / "p.json")
    assert ours.demos == [{"q": "Q", "a": {"x": 1, "names": []}}]
    ours.save(tmp_path / "p.json")
    dspy.Predict("q -> a").load(tmp_path / "p.json")


def test_a_model_is_taken_over_when_it_is_asked_for_and_never_an_address_or_a_header(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = dspy.Predict("q -> a")
    theirs.lm = dspy.LM(
        "openai/m",
        temperature=0.3,
        api_key="sk-key",
        api_base="http://evil.test/v1",
        extra_headers={"authorization": "sk-header"},
    )
    theirs.save(tmp_path / "p.json")
    with caplog.at_level(logging.INFO, logger="dspex.modules"):
        assert dspex.Predict("q -> a").load(tmp_path / "p.json").lm is None
    assert "openai/m" in caplog.text
    ours = dspex.Predict("q -> a").load(tmp_path / "p.json", lm=True)
    lm: Any = ours.lm
    assert (lm.model, lm.settings) == ("openai/m", {"temperature": 0.3})
    assert "evil" not in lm.api_base

    ours.lm = dspex.LM(
        "openai/m", api_key="sk-key", api_base="http://local.test/v1", temperature=0.5, user="sk-user"
    )
    ours.save(tmp_path / "p.json")
    text = (tmp_path / "p.json").read_text()
    assert "sk-" not in text
    assert "local.test" not in text
    again = dspy.Predict("q -> a")
    again.load(tmp_path / "p.json")
    assert (again.lm.model, again.lm.kwargs["temperature"]) == ("openai/m", 0.5)


def test_a_file_of_a_dspy_with_other_prompts_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    predict = dspex.Predict("q -> a")
    predict.save(tmp_path / "p.json")
    other = "3.3.1" if dspex.dialects.chosen(None) != "3.3" else "3.4.1"
    state = json.loads((tmp_path / "p.json").read_text())
    state["metadata"]["dependency_versions"]["dspy"] = other
    (tmp_path / "p.json").write_text(json.dumps(state))
    predict.load(tmp_path / "p.json")
    assert f"saved with DSPy {other}" in caplog.text


def good() -> dict[str, Any]:
    return program(dspex).dump_state()  # type: ignore[no-any-return]


def changed(**at: Any) -> dict[str, Any]:
    state = good()
    state["draft.predict"] |= at
    return state


WRONG: list[tuple[Any, str]] = [
    ([], "it is a list and not a mapping"),
    ({}, "it has nothing for 'draft.predict'"),
    (good() | {"other": {}}, "the program has no predictor 'other'"),
    (good() | {"draft.predict": 5}, "draft.predict: it is a int and not a mapping"),
    (changed(config={}), "nobody knows what 'config' is"),
    (changed(fields={"draft": {"criteria": "x"}}), "decision criteria"),
    (changed(demos={"a": 1}), "`demos` is no list"),
    (changed(demos=[1]), "demos[0] maps no names to values"),
    (changed(demos=[{1: 2}]), "demos[0] maps no names to values"),
    (changed(signature=None), "`signature` has no list of fields"),
    (changed(signature={"instructions": "x", "fields": []}), "it has texts for 0 fields"),
    (changed(signature={"instructions": 5, "fields": [{}, {}, {}]}), "the saved state cannot be read"),
]


@pytest.mark.parametrize(("state", "problem"), WRONG, ids=[problem for _, problem in WRONG])
def test_a_state_of_another_program_is_refused_and_changes_nothing(state: Any, problem: str) -> None:
    ours = program(dspex)
    ours.steps[1].demos = [{"a": "1", "b": "2"}]
    before = copy.deepcopy(ours.dump_state())
    with pytest.raises(ConfigError) as caught:
        ours.load_state(state)
    assert caught.value.code == "program-state"
    assert problem in caught.value.message
    assert ours.dump_state() == before


def test_all_that_is_wrong_is_said_at_once() -> None:
    state = changed(demos=1, signature=None)
    del state["steps[1]"]
    with pytest.raises(ConfigError) as caught:
        program(dspex).load_state(state)
    assert caught.value.message.count("\n") == 3


def test_a_model_that_is_none_is_refused_only_where_it_is_wanted() -> None:
    state = changed(lm={"model": 5})
    program(dspex).load_state(state)
    with pytest.raises(ConfigError, match="`lm` names no model"):
        program(dspex).load_state(state, lm=True)


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("p.pkl", b"\x80\x04.", "program-pickle"),
        ("p.txt", b"{}", "program-file"),
        ("missing.json", None, "program-file"),
        ("p.json", b"{", "program-file"),
        ("p.json", b"\xff", "program-file"),
        ("p.json", b'{"a": NaN}', "program-file"),
        ("p.json", b"[" * 100_000, "program-file"),
        ("p.json", b"[]", "program-state"),
    ],
)
def test_a_file_that_is_no_saved_program_is_refused(
    tmp_path: Path, name: str, content: bytes | None, code: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        program(dspex).load(tmp_path / name)
    assert caught.value.code == code


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "p.json").open("wb") as file:
        file.truncate(65 * 1024 * 1024)
    with pytest.raises(ConfigError, match="are the most"):
        program(dspex).load(tmp_path / "p.json")


def test_what_cannot_be_saved_leaves_the_file_before_in_its_place(tmp_path: Path) -> None:
    predict = dspex.Predict("q -> a")
    predict.save(tmp_path / "p.json")
    before = (tmp_path / "p.json").read_bytes()
    for value in (object(), float("nan")):
        predict.demos = [{"q": value}]
        with pytest.raises(ConfigError):
            predict.save(tmp_path / "p.json")
    for pickled in (
        lambda: predict.save(tmp_path / "p.pkl"),
        lambda: predict.save(tmp_path, save_program=True),
        lambda: predict.load(tmp_path / "p.pkl", allow_pickle=True),
    ):
        with pytest.raises(ConfigError) as caught:
            pickled()
        assert caught.value.code == "program-pickle"
    with pytest.raises(ConfigError):
        predict.save(tmp_path / "no" / "p.json")
    assert [file.name for file in tmp_path.iterdir()] == ["p.json"]
    assert (tmp_path / "p.json").read_bytes() == before


def test_a_nest_of_values_that_is_too_deep_is_refused() -> None:
    deep: Any = "x"
    for _ in range(150):
        deep = [deep]
    with pytest.raises(ConfigError, match="nests deeper than 100 levels"):
        program(dspex).load_state(changed(demos=[{"question": deep}]))
