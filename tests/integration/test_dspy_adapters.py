"""The adapters that only real DSPy has: a worker serves them, and the native route says why it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import dspy
import pydantic
import pytest
from dspy.adapters.baml_adapter import BAMLAdapter
from tests.support.pools import Chat, OpenPool

import dspex
from dspex import dialects
from dspex.errors import ConfigError, DialectWarning, LMError, ReplyError, RouteError
from dspex.testing import ChatRequest, ModelServer, ScriptedLM

SIGNATURE = "question, context: list[str] -> answer: str, sure: Literal['yes', 'no'], n: int"
INPUTS = {"question": "Who?", "context": ["Ada did."]}
JSON = '{"answer": "Ada", "sure": "yes", "n": 1}'
CHAT = "[[ ## answer ## ]]\nAda\n\n[[ ## sure ## ]]\nyes\n\n[[ ## n ## ]]\n1"
FIELDS = {"answer": "Ada", "sure": "yes", "n": 1}


class Model:
    """A model that answers each request by its own name's script."""

    def __init__(self) -> None:
        self.replies: dict[str, str] = {}
        self.server = ModelServer(self.reply)

    def reply(self, request: ChatRequest) -> str:
        return self.replies[request.model]

    def lm(self, name: str, **settings: Any) -> dspex.LM:
        return dspex.LM(f"openai/{name}", api_base=self.server.api_base, api_key="key-of-test", **settings)

    def take(self) -> list[dict[str, Any]]:
        bodies = [request.body for request in self.server.requests]
        self.server.requests.clear()
        return bodies


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    model = Model()
    with model.server:
        yield model


@pytest.fixture(scope="module")
def runtime(model: Model) -> Iterator[dspex.Runtime]:
    with dspex.Runtime(model.lm("main", temperature=0.5), pools=1, adapter="baml") as runtime:
        yield runtime


def theirs(model: Model, adapter: dspy.Adapter) -> dict[str, Any]:
    """The same call, as a user of DSPy writes it."""
    lm = dspy.LM(
        "openai/main",
        api_base=model.server.api_base,
        api_key="k",
        cache=False,
        num_retries=0,
        temperature=0.5,
    )
    with dspy.context(lm=lm, adapter=adapter):
        return dict(dspy.Predict(SIGNATURE)(**INPUTS).items())


def test_baml_goes_to_a_worker_by_itself_and_says_why(runtime: dspex.Runtime, model: Model) -> None:
    model.replies = {"main": JSON}
    model.take()
    prediction = dspex.Predict(SIGNATURE, runtime=runtime)(**INPUTS)
    (sent,) = model.take()
    assert (prediction.to_dict(), prediction.route) == (FIELDS, "pool:general")
    assert prediction.route_reason == "BAMLAdapter is real DSPy's alone and cannot run natively"

    assert theirs(model, BAMLAdapter()) == FIELDS
    assert sent["messages"] == model.take()[0]["messages"]
    assert "Output field `n` should be of type: int" in sent["messages"][0]["content"]


def test_near_misses_are_read_in_baml_as_in_json(runtime: dspex.Runtime, model: Model) -> None:
    model.replies = {"main": '{"answer": "Ada", "sure": "YES", "n": "1 km"}'}
    prediction = dspex.Predict(SIGNATURE, runtime=runtime)(**INPUTS)
    assert prediction.to_dict() == FIELDS
    assert [repair.code for repair in prediction.repairs] == ["case", "number"]
    model.take()
    with pytest.raises(ReplyError) as refused:
        dspex.Predict(SIGNATURE, runtime=runtime, parsing="dspy")(**INPUTS)
    assert refused.value.code == "reply-field-value"
    assert len(model.take()) == 1, "nothing is asked twice"


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(description="in full")


class Ask(dspex.Signature):
    """Who is it?"""

    question: str = dspex.InputField()
    person: Person = dspex.OutputField()


def test_baml_shows_a_model_in_its_own_form(runtime: dspex.Runtime, model: Model) -> None:
    model.replies = {"main": '{"person": {"name": "Ada"}}'}
    model.take()
    prediction = dspex.Predict(Ask, runtime=runtime)(question="Who?")
    assert prediction.person == Person(name="Ada")
    assert "# in full" in model.take()[0]["messages"][0]["content"]


@pytest.mark.parametrize("given", ["own", "other", "none"])
def test_two_step_asks_the_model_and_then_the_one_that_extracts(
    runtime: dspex.Runtime, model: Model, given: str
) -> None:
    model.replies = {"main": "It was Ada, yes, once.", "other": CHAT}
    if given == "none":
        model.replies["main"] = CHAT
    lm = {"own": model.lm("other"), "other": model.lm("other", max_tokens=9), "none": None}[given]
    model.take()
    module = dspex.Predict(SIGNATURE, runtime=runtime, adapter=dspex.TwoStepAdapter(lm))
    prediction = module(**INPUTS)
    first, second = model.take()
    assert (prediction.to_dict(), prediction.route) == (FIELDS, "pool:general")
    assert prediction.route_reason.startswith("TwoStepAdapter is real DSPy's alone")
    assert (first["model"], second["model"]) == ("main", "main" if given == "none" else "other")
    assert first["temperature"] == 0.5
    assert ("temperature" in second) == (given == "none"), "an LM of its own has settings of its own"
    assert model.replies["main"] in second["messages"][-1]["content"]

    inner = dspy.LM(f"openai/{second['model']}", api_base=model.server.api_base, api_key="k", cache=False)
    assert theirs(model, dspy.TwoStepAdapter(inner)) == FIELDS
    assert [body["messages"] for body in model.take()] == [first["messages"], second["messages"]]


async def test_a_request_may_name_them(open_pool: OpenPool, chat: Chat) -> None:
    answers = {"test": ["blue, I say", '{"answer": "blue"}'], "extractor": ["[[ ## answer ## ]]\nblue"]}
    chat.reply = lambda request: answers[request.model].pop(0)
    pool = await open_pool(lm=chat.lm(), workers=1)
    ask = "question -> answer", {"question": "the sky?"}
    answer = await pool.predict(*ask, adapter="two_step", extraction_lm={"model": "openai/extractor"})
    assert answer["completions"] == [{"answer": "blue"}]
    assert [body["model"] for body in chat.bodies] == ["test", "extractor"]
    assert (await pool.predict(*ask, adapter="baml"))["completions"] == [{"answer": "blue"}]


REFUSALS: list[Callable[[Any, Any], Any]] = [
    lambda adapter, _: adapter.compile("q -> a"),
    lambda adapter, _: adapter.format("q -> a", [], {"q": "?"}),
    lambda adapter, _: adapter.parse("q -> a", "x"),
    lambda adapter, _: adapter.read("q -> a", "x"),
    lambda adapter, _: adapter.stream("q -> a"),
    lambda adapter, runtime: dspex.Predict("q -> a", runtime=runtime, adapter=adapter)(q="?", route="native"),
    lambda adapter, _: dspex.Runtime(ScriptedLM("x"), adapter=adapter),
    lambda adapter, _: dspex.Runtime("openai/x", pools=0, adapter=adapter),
    lambda adapter, _: dspex.Runtime("openai/x", pools=0, adapter=adapter.layout),
]


@pytest.mark.parametrize("adapter", [dspex.BAMLAdapter(), dspex.TwoStepAdapter()], ids=["baml", "two_step"])
@pytest.mark.parametrize("refused", range(len(REFUSALS)))
def test_natively_there_is_one_refusal_everywhere(runtime: dspex.Runtime, adapter: Any, refused: int) -> None:
    with pytest.raises(RouteError, match=r"real DSPy's alone and cannot run natively") as caught:
        REFUSALS[refused](adapter, runtime)
    assert caught.value.code == "adapter-needs-dspy"
    assert caught.value.adapter == adapter.layout
    assert "a worker serves it" in caught.value.hint


def test_a_module_without_pools_is_refused_when_it_is_called() -> None:
    with dspex.Runtime(ScriptedLM("x")) as runtime, pytest.raises(RouteError) as caught:
        dspex.Predict("q -> a", runtime=runtime, adapter="baml")(q="?")
    assert caught.value.code == "adapter-needs-dspy"


@pytest.mark.parametrize("adapter", ["yaml", BAMLAdapter(), dspy.ChatAdapter(), None])
def test_an_adapter_of_somebody_else_s_is_refused_with_the_names_there_are(adapter: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        dspex.Runtime("openai/x", adapter=adapter)
    assert caught.value.code == "adapter"
    assert '"baml", "two_step"' in caught.value.hint


def test_a_model_of_this_process_cannot_extract_in_another() -> None:
    with pytest.raises(ConfigError) as caught:
        dspex.TwoStepAdapter(ScriptedLM("x"))  # type: ignore[arg-type]
    assert caught.value.code == "lm-not-for-workers"


def test_the_key_of_the_second_model_is_in_no_error(runtime: dspex.Runtime, model: Model) -> None:
    model.replies = {"main": "x"}  # the other has nothing to say: its server fails
    secret = dspex.LM("openai/other", api_base=model.server.api_base, api_key="sk-second-secret")
    module = dspex.Predict(SIGNATURE, runtime=runtime, adapter=dspex.TwoStepAdapter(secret))
    with pytest.raises(LMError) as caught:
        module(**INPUTS)
    assert "sk-second-secret" not in f"{caught.value!r} {caught.value.to_dict()} {module.adapter!r}"


# --- dialects of a runtime -------------------------------------------------------------------------------


class Talk(dspex.Signature):
    """Talk."""

    n: int | None = dspex.InputField()
    a: str = dspex.OutputField()


def test_a_runtime_s_dialect_is_its_native_side_s(model: Model) -> None:
    model.replies = {"main": "[[ ## a ## ]]\nyes"}
    sent = {}
    for dialect in dialects.KNOWN:
        with dspex.Runtime(model.lm("main"), pools=0, dialect=dialect) as runtime:
            model.take()
            assert dspex.Predict(Talk, runtime=runtime)(n=1).a == "yes"
            sent[dialect] = model.take()[0]["messages"][0]["content"]
            own = dspex.Predict(Talk, runtime=runtime, adapter=dspex.ChatAdapter(dialect="3.3"))
            own(n=1)
            assert model.take()[0]["messages"][0]["content"] == sent["3.3"]
    assert "UnionType[int, NoneType]" in sent["3.3"]
    assert sent["3.4"] == sent["3.3"].replace("UnionType", "Union")
    with pytest.raises(ConfigError) as caught:
        dspex.Runtime("openai/x", dialect="3.9")
    assert caught.value.code == "unknown-dialect"


def test_with_an_unknown_dspy_calls_go_to_real_dspy_after_a_warning(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.replies = {"main": "[[ ## a ## ]]\nyes"}
    monkeypatch.setattr(dialects, "installed", lambda: "3.5.0")
    dialects._warn.cache_clear()
    with pytest.warns(DialectWarning, match=r"DSPy 3\.5\.0 is installed.*calls go to real DSPy in a worker"):
        runtime = dspex.Runtime(model.lm("main"), pools=1)
    with runtime:
        module = dspex.Predict("q -> a", runtime=runtime)
        prediction = module(q="?")
        assert (prediction.a, prediction.route) == ("yes", "pool:general")
        assert prediction.route_reason == "DSPy 3.5.0 is installed, and dspex does not know its prompts"
        with pytest.raises(ConfigError, match=r"DSPy 3\.5\.0 is installed") as caught:
            module(q="?", route="native")
        assert caught.value.code == "unknown-dspy"
        forced = dspex.Predict("q -> a", runtime=runtime, adapter=dspex.ChatAdapter(dialect="3.4"))
        assert (forced(q="?").route, forced(q="?").route_reason) == ("native", "")
        assert module(q="?", route="python").route_reason == ""
    dspex.Runtime(model.lm("main"), pools=1)  # a second warning would be an error here


def test_a_pool_with_another_dspy_than_the_native_side_s_is_a_warning(model: Model) -> None:
    other: Literal["3.3", "3.4"] = "3.3" if dialects.chosen() == "3.4" else "3.4"
    dialects._warn.cache_clear()
    expected = pytest.warns(DialectWarning, match=f"pool:general has DSPy .* writes the prompts of {other}")
    with dspex.Runtime(model.lm("main"), pools=1, dialect=other) as runtime, expected:
        runtime.warmup()


@pytest.mark.parametrize(
    ("adapter", "instead"),
    [
        (dspex.ChatAdapter(), "dspex.dspy.ChatAdapter()"),
        (dspex.JSONAdapter(), "dspex.dspy.JSONAdapter()"),
        (dspex.XMLAdapter(), "dspex.dspy.XMLAdapter()"),
        (dspex.BAMLAdapter(), "DSPy's own adapter"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_dspy_with_an_adapter_of_dspex_s_modules_is_told_which_to_use(
    adapter: Any, instead: Any
) -> None:
    with dspy.context(lm=dspy.utils.DummyLM([{"answer": "never asked"}]), adapter=adapter):
        with pytest.raises(ConfigError) as called:
            dspy.Predict("question -> answer")(question="Who?")
        with pytest.raises(ConfigError) as awaited:
            await dspy.ChainOfThought("question -> answer").acall(question="Who?")

    for caught in (called, awaited):
        assert caught.value.code == "adapter-of-dspex"
        assert instead in caught.value.hint
