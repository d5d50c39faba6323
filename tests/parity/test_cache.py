"""Which calls a cache answers, and with what: as DSPy's does, but for the differences that are named here.

What DSPy's own tests of its cache (`tests/clients/test_cache.py`) claim of keys, hits, usage, memory in front
of disk and a directory that cannot be made holds here for calls of an LM. Not for us are those of the
decorator `request_cache` and of saving the memory to a file: neither exists, and the latter is a pickle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.parity.versions import NEWER_THAN_33
from tests.support.generated import fewer

import dspex
from dspex import LM
from dspex.lm import Cache, LMRequest
from dspex.testing import ChatRequest, ModelServer

# DSPy calls this way of asking deprecated; it is the one that takes messages as they are.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:rollout_id has no effect:UserWarning"),
    pytest.mark.skipif(not NEWER_THAN_33, reason="DSPy 3.3 asks through LiteLLM"),
]

Ask = Callable[[str, dict[str, Any]], str]


@pytest.fixture(scope="module", autouse=True)
def own_cache_of_dspy() -> Iterator[None]:
    """A cache of DSPy's in memory, for this module alone."""
    import dspy

    before = dspy.cache
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=True)
    yield
    dspy.cache = before


class Both:
    """The same model asked by dspex and by DSPy, each with a cache that is empty at the beginning."""

    def __init__(self, answer: Any = None) -> None:
        self.count = 0
        self.server = ModelServer(answer=answer or self.numbered)

    def numbered(self, request: ChatRequest) -> str:
        self.count += 1
        return f"{request.prompt} {request.settings.get('temperature')} {request.choice}"

    def asks(self) -> dict[str, Ask]:
        import dspy

        dspy.cache.reset_memory_cache()
        self.ours = LM("openai/m", api_base=self.server.api_base, api_key="k", cache=Cache())
        self.runtime = dspex.Runtime(self.ours, pools=0).open()
        theirs = dspy.LM("openai/m", api_base=self.server.api_base, api_key="k", num_retries=0)

        def by_dspex(content: str, settings: dict[str, Any]) -> str:
            request = LMRequest(messages(content), settings)
            response = self.ours.complete_now(request)
            if response is None:
                response = self.runtime.submit(self.ours.complete(request)).result(30)
            return response.texts[0]

        def by_dspy(content: str, settings: dict[str, Any]) -> str:
            return str(theirs(messages=messages(content), **settings)[0])

        return {"dspex": by_dspex, "dspy": by_dspy}


def messages(content: str) -> list[dict[str, Any]]:
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}]


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    both = Both()
    with both.server:
        yield both


settings = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0.0, 0.5, 1.0]),
        "max_tokens": st.sampled_from([5, 6]),
        "seed": st.sampled_from([0, 1]),
        "stop": st.sampled_from([["x"], ["x", "y"]]),
        "rollout_id": st.sampled_from([0, 1, 2]),
        "cache": st.booleans(),
    },
)
calls = st.tuples(st.sampled_from(["a", "b", "é"]), settings)


@given(st.lists(calls, min_size=2, max_size=12))
@fewer(25)
def test_the_same_calls_are_hits_and_have_the_same_answers(both: Both, asked: list[Any]) -> None:
    asks = both.asks()
    found: dict[str, list[Any]] = {}
    try:
        for name, ask in asks.items():
            for content, settings in asked:
                before = both.count
                answer = ask(content, dict(settings))
                found.setdefault(name, []).append((answer, both.count - before))
    finally:
        both.runtime.close()
    assert found["dspex"] == found["dspy"]


DIFFERENT: list[tuple[str, list[dict[str, Any]], list[int], list[int]]] = [
    # What a server cannot tell apart is one request here, and two to DSPy.
    ("a text in place of a list", [{"stop": "x"}, {"stop": ["x"]}], [1, 0], [1, 1]),
    ("None in place of nothing", [{}, {"seed": None}], [1, 0], [1, 1]),
    ("one generation asked for", [{}, {"n": 1}], [1, 0], [1, 1]),
]


@pytest.mark.parametrize(("name", "asked", "ours", "theirs"), DIFFERENT, ids=[each[0] for each in DIFFERENT])
def test_where_they_differ(
    both: Both, name: str, asked: list[dict[str, Any]], ours: list[int], theirs: list[int]
) -> None:
    asks = both.asks()
    found: dict[str, list[int]] = {}
    try:
        for side, ask in asks.items():
            for settings in asked:
                before = both.count
                ask("a", dict(settings))
                found.setdefault(side, []).append(both.count - before)
    finally:
        both.runtime.close()
    assert found == {"dspex": ours, "dspy": theirs}


def test_another_server_answers_for_this_one_under_dspy_and_never_here() -> None:
    import dspy

    with ModelServer(answer="of one") as one, ModelServer(answer="of two") as two:
        dspy.cache.reset_memory_cache()
        theirs = [
            dspy.LM("openai/m", api_base=each.api_base, api_key="k", num_retries=0) for each in (one, two)
        ]
        assert [lm(messages=messages("a"))[0] for lm in theirs] == ["of one", "of one"]
        cache = Cache()
        for server, said in ((one, "of one"), (two, "of two")):
            lm = LM("openai/m", api_base=server.api_base, api_key="k", cache=cache)
            with dspex.Runtime(lm, pools=0) as runtime:
                request = LMRequest(messages("a"))
                assert runtime.submit(lm.complete(request)).result(30).texts == (said,)


def test_a_prediction_of_a_hit_is_the_one_that_dspy_gives(tmp_path: Path) -> None:
    """Fields and usage, from memory and from disk; DSPy empties the usage too."""
    import dspy

    with ModelServer(answer="[[ ## answer ## ]]\nblue\n\n[[ ## completed ## ]]") as server:
        before = dspy.cache
        dspy.configure_cache(enable_disk_cache=True, disk_cache_dir=str(tmp_path / "theirs"))
        try:
            model = dspy.LM("openai/m", api_base=server.api_base, api_key="k", num_retries=0)
            cache = Cache("disk", directory=tmp_path / "ours")
            lm = LM("openai/m", api_base=server.api_base, api_key="k", cache=cache)
            with dspy.context(lm=model, track_usage=True), dspex.Runtime(lm, pools=0):
                theirs, ours = dspy.Predict("question -> answer"), dspex.Predict("question -> answer")
                asked = len(server.requests)
                for count in (2, 2, 2):
                    made = [each(question="?") for each in (theirs, ours)]
                    assert made[0].answer == made[1].answer == "blue"
                    assert len(server.requests) == asked + count
                    assert bool(made[1].usage) is (not any(cache.stats()[:2]))
                    dspy.cache.reset_memory_cache()
                    assert cache._state.disk is not None
                    assert cache._state.disk.flush(30)
                    cache._state.memory.clear()
                assert model.history[-1]["usage"] == {}
            cache.close()
        finally:
            dspy.cache = before
