"""Every mistake in the steps of a pipeline, with its whole message."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dspex
from dspex import errors
from dspex.pipelines import Pipeline, PipelineWarning


async def search(query: str) -> list[str]:
    return [query]


async def size(docs: list[str]) -> int:
    return len(docs)


async def bare(query):  # type: ignore[no-untyped-def]
    return query


def slow(query: str) -> str:
    return query


async def nothing(query: str) -> None:
    pass


def by_position(query: str, /) -> str:
    return query


async def rate(answer: str) -> float:
    return len(answer) / 10


docs = dspex.step(search, outputs="docs")
ask = dspex.Predict("question -> query")

TABLE: dict[str, tuple[Callable[[], Any], str]] = {
    "an input that nothing gives": (
        lambda: dspex.pipeline(ask, dspex.Predict("question, docs -> answer")),
        "answer takes 'docs', and no step before it gives that [missing-input]\n"
        '  hint: there are: query, question; rename one with inputs={"docs": ...}, or add it to the pipeline '
        "with inputs=[...]",
    ),
    "an input whose name is a slip": (
        lambda: dspex.pipeline(ask, dspex.Predict("qeury -> answer")),
        "answer takes 'qeury', and no step before it gives that [missing-input]\n"
        "  hint: did you mean 'query'? there are: query, question; rename one with "
        'inputs={"qeury": ...}, or add it to the pipeline with inputs=[...]',
    ),
    "a part that a record does not have": (
        lambda: dspex.pipeline(
            dspex.parallel(both=dspex.Predict("query -> a, b")),
            dspex.step(search, outputs="docs", inputs={"query": "both.c"}),
        ),
        "docs takes 'c' of 'both', which has no such field [missing-input]\n  hint: it has: a, b",
    ),
    "a type that does not fit": (
        lambda: dspex.pipeline(docs, dspex.Predict("docs -> answer")),
        "'docs' is list[str] (from docs), and answer takes it as str [type-clash]\n"
        "  hint: declare it there, docs: list[str], or put a step between them that converts it",
    ),
    "a type of a round that does not fit the next": (
        lambda: dspex.pipeline(
            dspex.loop(dspex.step(rate, outputs="answer"), until="answer > 1", at_most=2),
        ),
        "'answer' is float (from loop[]/answer), and loop takes it as str [type-clash]\n"
        "  hint: declare it there, answer: float, or put a step between them that converts it",
    ),
    "two branches that give one field": (
        lambda: dspex.pipeline(dspex.Predict("q -> a") & dspex.Predict("q -> a")),
        "parallel/a and parallel/a_2 run side by side and both give 'a' [two-writers]\n"
        "  hint: give one another name, outputs={'a': ...}, or the branches keys",
    ),
    "a branch that can never be reached": (
        lambda: dspex.pipeline(dspex.branch(True, ask, docs)),
        "the condition True of branch comes out one way whatever the fields are, so one branch can never be "
        "reached [unreachable]\n"
        "  hint: let the condition name a field, or leave the branch out",
    ),
    "a condition of constants": (
        lambda: dspex.pipeline(dspex.branch("1 > 2", ask)),
        "the condition 1 > 2 of branch comes out one way whatever the fields are, so one branch can never be "
        "reached [unreachable]\n"
        "  hint: let the condition name a field, or leave the branch out",
    ),
    "a loop whose condition is a constant": (
        lambda: dspex.pipeline(dspex.loop(ask, until="false", at_most=2)),
        "the condition false of loop comes out one way whatever the fields are [unreachable]\n"
        "  hint: let the condition name a field",
    ),
    "a timeout on a function in a thread": (
        lambda: dspex.pipeline(dspex.step(slow, outputs="docs", timeout=1)),
        "docs has a timeout, and runs in a thread, which cannot be stopped [timeout-in-thread]\n"
        "  hint: make the function async, run it in a worker by dspex.remote, or leave the timeout out",
    ),
    "a timeout around a function in a thread": (
        lambda: dspex.pipeline(dspex.step(dspex.parallel(a=slow, b=search), timeout=1, name="both")),
        "both has a timeout, and both/a runs in a thread, which cannot be stopped [timeout-in-thread]\n"
        "  hint: make the function async, run it in a worker by dspex.remote, or leave the timeout out",
    ),
    "a value without a name": (
        lambda: dspex.pipeline(search),
        "search gives one value without a name [no-outputs]\n"
        '  hint: name it: dspex.step(function, outputs="docs"); a function with no result says `-> None`',
    ),
    "a pipeline that gives nothing": (
        lambda: dspex.pipeline(ask, nothing),
        "the last step gives nothing, so the pipeline would give nothing [no-outputs]\n"
        "  hint: write outputs=[...] with some of: query, question",
    ),
    "an output of the pipeline that nothing gives": (
        lambda: dspex.pipeline(ask, outputs=["qeury"]),
        "the pipeline is to give 'qeury', and no step gives it [unknown-output]\n"
        "  hint: did you mean 'query'? there are: query, question",
    ),
    "an output that the step does not give": (
        lambda: dspex.pipeline(dspex.step(ask, outputs={"answer": "draft"})),
        "draft does not give 'answer' [unknown-output]\n  hint: it gives: query",
    ),
    "an input that the step does not have": (
        lambda: dspex.pipeline(dspex.step(ask, inputs={"questoin": "text"})),
        "query has no input 'questoin' [unknown-input]\n  hint: did you mean 'question'? it has: question",
    ),
    "a module that does not say what it takes": (
        lambda: dspex.pipeline(dspex.program("my_app:RAG")),
        "RemoteModule does not say what it takes [no-inputs]\n"
        '  hint: say it: dspex.step(module, inputs=["question"], outputs=["answer"])',
    ),
    "a field of one side of a branch": (
        lambda: dspex.pipeline(
            ask, dspex.branch("query", docs), dspex.step(size, outputs="count"), outputs=["count"]
        ),
        "count takes 'docs', which is there only where the condition of branch holds [maybe-missing]\n"
        "  hint: let the other branch give it too, or give it a value before",
    ),
    "an output of one side of a branch": (
        lambda: dspex.pipeline(ask, dspex.branch("query", docs), outputs=["docs"]),
        "the pipeline is to give 'docs', which is there only where the condition of branch holds "
        "[maybe-missing]\n"
        "  hint: let the other branch give it too, or give it a value before",
    ),
    "a fallback that gives less": (
        lambda: dspex.pipeline(dspex.step(docs, fallback=dspex.Predict("query -> answer"))),
        "docs gives 'docs', and what stands in for it, docs/fallback, does not [fallback-outputs]\n"
        "  hint: it gives: answer; rename one with outputs={...: 'docs'}",
    ),
    "a map over a text": (
        lambda: dspex.pipeline(ask, dspex.map(docs, over="query", item="query")),
        "map goes over 'query', which is str and no list [not-a-list]\n"
        "  hint: give over= a field that is a list",
    ),
    "a map whose step does not take the item": (
        lambda: dspex.pipeline(
            docs, dspex.map(dspex.Predict("doc -> note"), over="docs"), inputs={"query": str, "doc": str}
        ),
        "map gives each item of 'docs' as 'item', and its step does not take that [missing-input]\n"
        '  hint: say what the step calls it: item="doc"',
    ),
    "a reduction of what no branch gives": (
        lambda: dspex.pipeline(dspex.step(dspex.parallel(a=search, reduce=size), outputs="n")),
        "parallel/reduce takes 'docs', and no branch gives that [missing-input]\n"
        "  hint: the branches give: a",
    ),
    "nothing that runs": (
        lambda: dspex.pipeline(3),
        "a step must be a module, a function or a pipeline, not 3 [bad-step]\n"
        "  hint: write dspex.Predict(...), a function, or dspex.parallel(...)",
    ),
    "a class in the place of a module": (
        lambda: dspex.pipeline(dspex.Predict),
        "Predict is a class, and a step is an object of it [bad-step]\n  hint: write Predict(...)",
    ),
    "no steps": (
        lambda: dspex.pipeline(),
        "a pipeline needs at least one step [bad-step]\n  hint: write dspex.pipeline(step, ...)",
    ),
    "a function that takes fields by position": (
        lambda: dspex.pipeline(by_position),
        "by_position takes 'query' by position, and steps are given fields by name [bad-step]\n"
        "  hint: wrap it in a function with named parameters",
    ),
    "an option that there is not": (
        lambda: dspex.step(search, retries=3),
        "a step has no option 'retries' [bad-step]\n  hint: did you mean 'retry'?",
    ),
    "two steps of one name": (
        lambda: dspex.pipeline(dspex.step(ask, name="a"), dspex.step(docs, name="a")),
        "two steps are named 'a' [bad-step]\n"
        "  hint: name them apart: their paths are what runs are resumed by",
    ),
    "a condition that is none": (
        lambda: dspex.branch(3, ask),
        "a condition must be a function or an expression, not 3 [bad-condition]\n"
        '  hint: write a function such as `lambda confidence: confidence < 0.5`, or "confidence < 0.5"',
    ),
    "an expression that is more than one": (
        lambda: dspex.branch("a %}{% endif %}{{ b }}{% if c", ask),
        "a condition must be one expression, not 'a %}{% endif %}{{ b }}{% if c' [bad-condition]\n"
        '  hint: write a function such as `lambda confidence: confidence < 0.5`, or "confidence < 0.5"',
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_a_mistake_has_one_clear_message(name: str) -> None:
    make, message = TABLE[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PipelineWarning)
        with pytest.raises(errors.PipelineError) as raised:
            make()
    assert str(raised.value) == message


WARNED: dict[str, tuple[list[Any], dict[str, Any], str, str]] = {
    "a field that nothing uses": (
        [ask, docs],
        {"outputs": ["query"]},
        "docs: nothing uses the field 'docs'; take it in a later step, name it in outputs=, or leave it out",
        "unused-output",
    ),
    "a type that nobody knows": (
        [dspex.step(bare, outputs="docs"), dspex.step(size, outputs="count")],
        {},
        "count: nobody knows whether 'docs' (of an unknown type, from docs) is list[str]; "
        "declare what docs gives",
        "unknown-type",
    ),
}


@pytest.mark.parametrize("name", WARNED)
def test_what_looks_wrong_warns_or_is_an_error_where_that_was_asked_for(name: str) -> None:
    steps, options, message, code = WARNED[name]
    with pytest.warns(PipelineWarning) as caught:
        Pipeline(steps, **options)
    assert [str(each.message) for each in caught] == [message]
    with pytest.raises(errors.PipelineError) as raised:
        Pipeline(steps, strict=True, **options)
    assert raised.value.code == code


def test_a_pipeline_s_file_says_where_its_mistake_is(tmp_path: Path) -> None:
    table: dict[str, tuple[dict[str, Any], str]] = {
        "no kind": (
            {"steps": [{"native": "a -> b"}, {"parallel": {"x": {"nativ": "b -> c"}}}]},
            "steps[1].parallel.x: a step has no kind [bad-step]",
        ),
        "two kinds": (
            {"steps": [{"native": "a -> b", "call": "x:y"}]},
            "steps[0]: a step has several kinds, native, call [bad-step]",
        ),
        "not allowed": (
            {"steps": [{"call": "os:system", "outputs": "x"}]},
            "'os' is not among the modules that may be imported for a pipeline [import-not-allowed]",
        ),
        "a class that is not allowed": (
            {"steps": [{"python": "os:Popen", "signature": "a -> b"}]},
            "'os.Popen' is not among the modules that may be imported for a pipeline [import-not-allowed]",
        ),
        "what data does not say": (
            {"steps": [{"python": "dspy.ReAct", "signature": "a -> b", "tools": ["os:system"]}]},
            "'tools' cannot be said in data [bad-step]",
        ),
        "a private name": (
            {"steps": [{"call": "os:_exit", "outputs": "x"}]},
            "'os:_exit' is no path of a function [bad-step]",
        ),
        "an unknown key": ({"step": []}, "a pipeline has no 'step' [bad-step]"),
        "no steps": ({"steps": []}, "steps must be a list of tables [bad-step]"),
        "a loop without an end": (
            {"steps": [{"loop": {"native": "a -> b"}, "at_most": 2}]},
            "steps[0]: a loop needs until [bad-step]",
        ),
    }
    for name, (config, message) in table.items():
        with pytest.raises(errors.PipelineError) as raised:
            Pipeline.from_config(config)
        said = str(raised.value).partition("\n")[0]
        assert said in (message, f"{raised.value.step}: {message}"), name
    (tmp_path / "broken.toml").write_text("steps = [")
    with pytest.raises(errors.ConfigError) as broken:
        Pipeline.from_file(tmp_path / "broken.toml")
    assert broken.value.code == "bad-pipeline-file"


def test_what_an_allowed_module_has_imported_is_not_allowed_by_that() -> None:
    config = {"steps": [{"call": f"{__name__}:Path", "outputs": "x"}]}
    with pytest.raises(errors.PipelineError) as raised:
        Pipeline.from_config(config, allow=[__name__])
    assert raised.value.code == "import-not-allowed"
    allowed = {"steps": [{"call": f"{__name__}:search", "outputs": "docs"}]}
    assert Pipeline.from_config(allowed, allow=[__name__]).run(query="q").docs == ["q"]


def test_a_module_that_is_not_allowed_is_not_imported() -> None:
    with pytest.raises(errors.PipelineError):
        Pipeline.from_config({"steps": [{"call": "antigravity:fly"}]}, allow=["anti"])
    assert "antigravity" not in sys.modules


def test_the_same_pipeline_from_python_tuples_toml_and_json(tmp_path: Path) -> None:
    def explained(pipeline: Pipeline) -> str:
        return str(pipeline.explain("tree"))

    written = dspex.pipeline(
        dspex.Predict("question -> query"),
        dspex.parallel(
            docs=dspex.remote("dspy.ChainOfThought", "query -> docs: list[str]"),
            facts=dspex.Predict("query -> facts"),
        ),
        dspex.step(
            dspex.loop(dspex.Predict("question, docs: list[str], facts -> answer"), until="answer", at_most=2)
        ),
    )
    tuples = dspex.pipeline(
        [
            ("native", "question -> query"),
            (
                "parallel",
                {
                    "docs": ("python", "dspy.ChainOfThought", "query -> docs: list[str]"),
                    "facts": ("native", "query -> facts"),
                },
            ),
            (
                "loop",
                ("native", "question, docs: list[str], facts -> answer"),
                {"until": "answer", "at_most": 2},
            ),
        ]
    )
    (tmp_path / "qa.toml").write_text(
        """
[[steps]]
native = "question -> query"
[[steps]]
parallel.docs = {python = "dspy.ChainOfThought", signature = "query -> docs: list[str]"}
parallel.facts = {native = "query -> facts"}
[[steps]]
loop = {native = "question, docs: list[str], facts -> answer"}
until = "answer"
at_most = 2
"""
    )
    (tmp_path / "qa.json").write_text(
        """{"steps": [
        {"native": "question -> query"},
        {"parallel": {"docs": {"python": "dspy.ChainOfThought", "signature": "query -> docs: list[str]"},
                      "facts": {"native": "query -> facts"}}},
        {"loop": {"native": "question, docs: list[str], facts -> answer"},
         "until": "answer", "at_most": 2}]}"""
    )
    others = [tuples, *(Pipeline.from_file(tmp_path / f"qa.{kind}") for kind in ("toml", "json"))]
    assert {explained(each) for each in others} == {explained(written)}
    assert [each.fingerprints for each in others] == [written.fingerprints] * 3
