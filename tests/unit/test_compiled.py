"""Compiled programs: what cannot be exported, what is refused, and what runs without its class or DSPy."""

from __future__ import annotations

import copy
import enum
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pydantic
import pytest
from tests.support.route_types import Numbers, Page, Percent

import dspex
from dspex.compiled import Program, schema
from dspex.compiled._document import Document, sealed
from dspex.errors import ConfigError, InputError
from dspex.testing import ModelServer, ScriptedLM

ROOT = Path(dspex.__file__).parents[2]


class RAG(dspex.Module):
    """Drafts, then answers."""

    def __init__(self) -> None:
        self.draft = dspex.ChainOfThought("question -> query")
        self.steps = [dspex.Predict("query -> passages: list[str]", temperature=0.5)]
        self.answer = dspex.Predict("question, context: list[str] -> answer")

    def forward(self, question: Any, style: str = "short") -> Any:
        query = self.draft(question=question).query
        passages = self.steps[0](query=query).passages
        made = self.answer(question=question, context=passages)
        return dspex.Prediction(answer=made.answer, context=passages, style=style)


REPLY = (
    "[[ ## reasoning ## ]]\nr\n\n[[ ## query ## ]]\nq\n\n"
    '[[ ## passages ## ]]\n["p1", "p2"]\n\n[[ ## answer ## ]]\nblue'
)


def exported(program: Any, folder: Path, **settings: Any) -> Path:
    path = folder / "program.dspex.json"
    dspex.export(program, path, **settings)
    return path


# -- it runs ------------------------------------------------------------------------------------------


def test_it_runs_without_its_class_and_without_dspy(tmp_path: Path) -> None:
    rag = RAG()
    rag.answer.demos = [{"question": "Sky?", "context": ["c"], "answer": "blue"}]
    path = exported(rag, tmp_path)
    code = f"""
import sys
class None_:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("dspy", "tests"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, None_())
import dspex
from dspex.testing import ScriptedLM
program = dspex.load({str(path)!r})
with dspex.Runtime(ScriptedLM(lambda asked: {REPLY!r})):
    made = program(question="What?")
assert (made.answer, made.context, made.style) == ("blue", ["p1", "p2"], "short"), made
assert "dspy" not in sys.modules
print(program)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], timeout=60, check=True, capture_output=True, text=True
    )
    assert done.stdout.startswith("<RAG>\ndraft.predict = Predict(")


def test_its_streams_name_the_fields_by_the_paths_of_the_program(tmp_path: Path) -> None:
    program = dspex.load(exported(RAG(), tmp_path))
    with dspex.Runtime(ScriptedLM(lambda asked: REPLY)):
        asked = program.with_options(stream_fields=["answer.answer"])
        events: list[Any] = list(asked.stream(question="What?"))
    texts = [event for event in events if isinstance(event, dspex.streaming.TextDelta)]
    assert {event.predictor for event in texts} == {"answer"}
    assert "".join(event.text for event in texts) == "blue"
    assert events[-1].answer == "blue"


def test_inputs_that_do_not_fit_are_one_error_that_names_them_all(tmp_path: Path) -> None:
    program = dspex.load(exported(RAG(), tmp_path))
    with pytest.raises(InputError) as found:
        program(qestion="What?")
    assert [name for name, _ in found.value.problems] == ["qestion", "question"]
    with pytest.raises(InputError, match="2 inputs came without names, and there are 1") as found:
        dspex.load(exported(Chain(), tmp_path))("a", "b")
    assert isinstance(program, Program)
    assert program.input_types == {"question": str, "style": Any}


class Chain(dspex.Module):
    """Asks twice, asynchronously."""

    def __init__(self) -> None:
        self.by_name = {"first": dspex.Predict("q -> a"), "second": dspex.Predict("q -> a")}

    async def aforward(self, q: Any) -> Any:
        first = await self.by_name["first"].acall(q=q)
        return await self.by_name["second"].acall(q=first["a"])


def test_an_async_program_can_be_called_both_ways(tmp_path: Path) -> None:
    program = dspex.load(exported(Chain(), tmp_path))
    with dspex.Runtime(ScriptedLM(lambda asked: "[[ ## a ## ]]\nA")):
        assert program("Q").a == "A"
        assert program.batch([{"q": "Q"}] * 3) == [dspex.Prediction(a="A")] * 3


class Compare(dspex.Module):
    """Compares attempts."""

    def __init__(self) -> None:
        self.tries = dspex.ChainOfThought("q -> a", n=2)
        self.compare = dspex.MultiChainComparison("q -> a", M=2)

    def forward(self, q: Any) -> Any:
        return self.compare(self.tries(q=q).completions, q=q)


def test_attempts_are_compared_as_in_the_program_itself(tmp_path: Path) -> None:
    asked: list[Any] = []
    reply = "[[ ## reasoning ## ]]\nr\n\n[[ ## rationale ## ]]\nr\n\n[[ ## a ## ]]\nA"

    def answer(request: Any) -> str:
        asked.append((request.messages, request.settings))
        return reply

    runs = []
    program = Compare()
    for each in (program, dspex.load(exported(program, tmp_path))):
        asked.clear()
        with dspex.Runtime(ScriptedLM(answer)):
            assert each(q="Q").a == "A"
        runs.append(list(asked))
    assert runs[0] == runs[1]
    assert len(runs[0]) >= 2


def test_a_loaded_program_is_one_like_any_other(tmp_path: Path) -> None:
    program = dspex.load(exported(RAG(), tmp_path))
    assert program.dump_state() == RAG().dump_state()
    twin = program.deepcopy()
    twin.predictors()[0].demos = [{"question": "q"}]
    assert not program.predictors()[0].demos
    state = twin.dump_state()
    assert len(program.load_state(state).predictors()[0].demos) == 1
    dspex.export(program, tmp_path / "again.dspex.json")
    assert dspex.load(tmp_path / "again.dspex.json").dump_state() == state


def test_the_file_names_the_model_and_no_address_header_or_key(tmp_path: Path) -> None:
    predict = dspex.Predict("q -> a", temperature=0.1)
    predict.lm = dspex.LM(
        "openai/m",
        api_key="sk-key",
        api_base="http://local.test/v1",
        temperature=0.5,
        user="sk-user",
    )
    path = exported(predict, tmp_path)
    assert "sk-" not in path.read_text()
    assert "local.test" not in path.read_text()
    plain: Any = dspex.load(path)
    assert plain.lm is None
    asked: Any = dspex.load(path, lm=True)
    assert (asked.lm.model, asked.lm.settings) == ("openai/m", {"temperature": 0.5})


# -- what cannot be exported ------------------------------------------------------------------------


def program_of(forward: Callable[..., Any], **parts: Any) -> dspex.Module:
    def start(self: Any) -> None:
        self.ask = dspex.Predict("q -> a")
        for name, part in parts.items():
            setattr(self, name, part)

    return type("P", (dspex.Module,), {"__init__": start, "forward": forward})()  # type: ignore[no-any-return]


def condition(self: Any, q: Any) -> Any:
    return self.ask(q=q) if q else self.ask(q="nothing")


def comparison(self: Any, q: Any) -> Any:
    made = self.ask(q=q)
    return made if made.a == "yes" else self.ask(q=made.a)


def is_none(self: Any, q: Any) -> Any:
    made = self.ask(q=q)
    return made if made.a is not None else self.ask(q=q)


def is_none_inside(self: Any, q: Any) -> Any:
    def asked(value: Any) -> Any:
        return self.ask(q="nothing" if value is None else value)

    return asked(q)


def loop(self: Any, q: Any) -> Any:
    return [self.ask(q=each) for each in q]


def text_of(self: Any, q: Any) -> Any:
    return self.ask(q=f"About {q}")


def joined(self: Any, q: Any) -> Any:
    return self.ask(q="About " + q)


def kind(self: Any, q: Any) -> Any:
    return self.ask(q=q if isinstance(q, str) else "no text")


def caught(self: Any, q: Any) -> Any:
    try:
        return self.ask(q=q.strip())
    except Exception:  # noqa: BLE001 - as careless code does
        return self.ask(q=q)


def left_out(self: Any, q: Any = "") -> Any:
    return self.ask(q=q) if q != "" else self.ask(q="default")


def by_default(self: Any, q: Any, more: Any = False) -> Any:
    return self.ask(q=q) if more in (False, True) else self.ask(q=more)


def options(self: Any, q: Any) -> Any:
    return self.ask(q=q, lm=dspex.LM("openai/m", api_key="k"))


def header(self: Any, q: Any) -> Any:
    return self.ask(q=q, config={"extra_headers": {"x": "y"}})


def twin(self: Any, q: Any) -> Any:
    return self.ask.with_options(timeout=3)(q=q)


def handle(self: Any, q: Any) -> Any:
    return self.ask(q=object())


def anything(self: Any, **inputs: Any) -> Any:
    return self.ask(**inputs)


def well(self: Any, q: Any) -> Any:
    return self.ask(q=q)


def shared() -> dspex.Module:
    program = program_of(well)
    program.again = program.ask  # type: ignore[attr-defined]
    return program


class Checked(pydantic.BaseModel):
    """A model of which the default of a field is made by code."""

    n: int = pydantic.Field(default_factory=lambda: 3)


class Node(pydantic.BaseModel):
    """A tree."""

    children: list[Node] = []


class Serial(pydantic.BaseModel):
    """A model that shows itself in its own way."""

    n: int

    @pydantic.field_serializer("n")
    def shown(self, n: int) -> str:
        """A text."""
        return f"#{n}"


class Opened(pydantic.BaseModel):
    """A model with work to do when it is made."""

    n: int

    def model_post_init(self, context: Any) -> None:
        """Nothing much."""


class Fallback(enum.Enum):
    """An enum that takes what is no value of it."""

    A = "a"

    @classmethod
    def _missing_(cls, value: object) -> Any:
        return cls.A


def checked(value: str) -> str:
    return value.upper()


def with_header() -> dspex.Module:
    predict = dspex.Predict("q -> a")
    predict.config["extra_headers"] = {"a": "b"}
    return predict


def of_type(kind: Any) -> dspex.Module:
    return dspex.Predict({"q": dspex.InputField(), "a": (kind, dspex.OutputField())})


REFUSED: list[tuple[str, Callable[[], Any], str]] = [
    ("a condition", lambda: program_of(condition), "needs the value of the input 'q' (__bool__)"),
    ("a comparison", lambda: program_of(comparison), "the field 'a' of a prediction (__eq__)"),
    ("is None", lambda: program_of(is_none), "asks what a value is (test_compiled.py:"),
    ("is None, in a function inside", lambda: program_of(is_none_inside), "asks what a value is"),
    ("a loop", lambda: program_of(loop), "(__iter__)"),
    ("a format string", lambda: program_of(text_of), "(__format__)"),
    ("a sum of texts", lambda: program_of(joined), "(__radd__)"),
    ("isinstance", lambda: program_of(kind), "asks for the type of a value"),
    ("an error that is caught", lambda: program_of(caught), "uses .strip of the input 'q'"),
    ("a default that is compared", lambda: program_of(left_out), "(__ne__)"),
    ("a default that decides", lambda: program_of(by_default), "(__eq__)"),
    ("a model of its own in a call", lambda: program_of(options), "gives a call lm=..."),
    ("a header in a call", lambda: program_of(header), "more than how a model samples"),
    ("a method of a part", lambda: program_of(twin), "uses .with_options of a module"),
    ("an object", lambda: program_of(handle), "an object of type object is no data"),
    ("inputs without names", lambda: program_of(anything), "takes *inputs"),
    ("no forward", type("Empty", (dspex.Module,), {}), "neither forward nor aforward"),
    ("a part in two places", shared, "it is the module at program.ask again"),
    ("a reward", lambda: dspex.BestOfN(dspex.Predict("q -> a"), 2, lambda *_: 1, 1), "a BestOfN runs code"),
    ("a worker's class", lambda: dspex.program("my_app:RAG"), "a RemoteModule runs code"),
    ("no module", lambda: "question -> answer", "it is no module"),
    (
        "a setting that may be a secret",
        lambda: with_header(),
        "extra_headers",
    ),
    (
        "an adapter of DSPy's",
        lambda: dspex.Predict("q -> a", adapter="two_step"),
        "'two_step' is DSPy's alone",
    ),
    ("a validator", lambda: of_type(Percent), "field_validators are code"),
    ("a serializer", lambda: of_type(Serial), "field_serializers are code"),
    ("a hook", lambda: of_type(Opened), "its model_post_init is code"),
    ("a factory", lambda: of_type(Checked), "its default_factory is code"),
    ("a tree", lambda: of_type(Node), "a field of its own class"),
    ("a generic model", lambda: of_type(Page[int]), "it is generic"),
    ("a root model", lambda: of_type(Numbers), "it is a root model"),
    ("an enum with a hook", lambda: of_type(Fallback), "its _missing_ is code"),
    (
        "a note that is code",
        lambda: of_type(Annotated[str, pydantic.AfterValidator(checked)]),
        "AfterValidator",
    ),
]


@pytest.mark.parametrize(("make", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_is_code_is_refused_by_its_place_and_no_file_is_left(
    make: Callable[[], Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as found:
        exported(make(), tmp_path)
    assert found.value.code == "program-export"
    assert message in found.value.message
    assert list(tmp_path.iterdir()) == []


def test_a_type_of_dspy_s_is_refused(tmp_path: Path) -> None:
    import dspy

    with pytest.raises(ConfigError, match=r"program.a cannot be exported: Image is DSPy's"):
        exported(of_type(list[dspy.Image]), tmp_path)


# -- what is refused when it is read ------------------------------------------------------------------


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    text = exported(RAG(), tmp_path_factory.mktemp("content")).read_text()
    return json.loads(text)  # type: ignore[no-any-return]


def at(content: Any, *way: Any) -> Any:
    for each in way:
        content = content[each]
    return content


FIRST = ("program", "parts", "steps", "items", 0)
FLOW = ("program", "flow")


def put(*way: Any, value: Any) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        at(content, *way[:-1])[way[-1]] = value

    return change


def typed(text: str) -> Callable[[Any], None]:
    return put(*FIRST, "signature", "fields", 1, "type", value=text)


def asked(**value: Any) -> Callable[[Any], None]:
    return put(*FLOW, "steps", 0, "inputs", "question", value=value)


def within_itself(content: Any) -> None:
    content["types"] = {"A": {"kind": "model", "fields": [{"name": "a", "type": "A"}]}}
    typed("A")(content)


def deep(content: Any) -> None:
    value: Any = 0
    for _ in range(200):
        value = [value]
    at(content, *FIRST)["demos"] = [{"query": value}]


RESEALED: list[tuple[str, Callable[[Any], None], str, str]] = [
    ("another format", put("format", value="x"), "program-file", '"format": "dspex-program"'),
    (
        "a newer version",
        put("version", value=2),
        "program-version",
        "is of version 2, and this dspex reads 1",
    ),
    ("a version that is none", put("version", value="1"), "program-file", "$.version"),
    ("a key too many", put("code", value="print()"), "program-file", "$.code: Extra inputs"),
    ("too deep", deep, "program-file", "deeper than 100 levels"),
    ("an unknown module", put("program", "module", value="Exec"), "program-file", "$.program"),
    ("an unknown dialect", put("dialect", value="2.0"), "unknown-dialect", "2.0"),
    (
        "other instructions",
        put(*FIRST, "signature", "instructions", value="Lie."),
        "program-prompts",
        "the prompt of program.parts.steps.items[0]",
    ),
    (
        "another demo",
        put(*FIRST, "demos", value=[{"query": "q", "passages": ["p"]}]),
        "program-prompts",
        "prompt",
    ),
    ("a type out of a module", typed("os.PathLike"), "program-file", "fields[1]"),
    ("a type of DSPy's", typed("dspy.Image"), "program-file", "dspy"),
    ("two types in one", typed("int, b: int"), "program-file", "is not one type"),
    ("a type that imports", typed("pydantic.ImportString"), "program-file", "would make code of a text"),
    (
        "a field of a reserved name",
        put(*FIRST, "signature", "fields", 1, "name", value="signature"),
        "program-file",
        "cannot name a field",
    ),
    (
        "a header",
        put(*FIRST, "settings", value={"extra_headers": {"a": "b"}}),
        "program-file",
        "extra_headers",
    ),
    (
        "an address",
        put(*FIRST, "settings", value={"api_base": "http://evil.test"}),
        "program-file",
        "api_base",
    ),
    (
        "a call of what is no part",
        put(*FLOW, "steps", 0, "call", value=["forward"]),
        "program-file",
        "there is no module 'forward'",
    ),
    (
        "a call of what is private",
        put(*FLOW, "steps", 0, "call", value=["__class__", "mro"]),
        "program-file",
        "there is no module",
    ),
    ("an answer of a later step", asked(kind="answer", step=2), "program-file", "step 2 has not been run"),
    ("an unknown input", asked(kind="input", name="x"), "program-file", "there is no input 'x'"),
    (
        "a default that asks",
        put(*FLOW, "inputs", 1, "default", value={"kind": "input", "name": "question"}),
        "program-file",
        "there is no input",
    ),
    (
        "a part over a method",
        lambda content: at(content, "program", "parts").update(acall=at(content, *FIRST)),
        "program-file",
        "a part cannot be called 'acall'",
    ),
    ("a type within itself", within_itself, "program-file", "A is a part of itself"),
]


@pytest.mark.parametrize(
    ("change", "code", "message"), [row[1:] for row in RESEALED], ids=[row[0] for row in RESEALED]
)
def test_a_file_that_somebody_wrote_is_refused_with_its_reason(
    content: dict[str, Any], change: Callable[[Any], None], code: str, message: str, tmp_path: Path
) -> None:
    changed = copy.deepcopy(content)
    change(changed)
    path = tmp_path / "p.dspex.json"
    path.write_text(resealed(changed))
    with pytest.raises(ConfigError) as found:
        dspex.load(path)
    assert found.value.code == code
    assert message in found.value.message


def resealed(content: dict[str, Any]) -> str:
    rest = {key: value for key, value in content.items() if key != "hash"}
    compact = json.dumps(rest, ensure_ascii=False, separators=(",", ":"))
    return json.dumps({**content, "hash": "sha256:" + hashlib.sha256(compact.encode()).hexdigest()})


def test_what_the_test_above_seals_is_sealed_as_an_export_is(content: dict[str, Any]) -> None:
    head = ("format", "version", "hash")
    rest = {key: value for key, value in content.items() if key not in head}
    assert json.loads(sealed(rest)) == content == json.loads(resealed(content))


RAW: list[tuple[str, bytes, str, str]] = [
    ("no JSON", b"{", "program-file", "it is no JSON"),
    ("no text", b"\xff\xfe", "program-file", "it is no JSON"),
    ("not a number", b'{"format": NaN}', "program-file", "NaN is no JSON"),
    ("a list", b"[]", "program-file", '"format"'),
    ("too deep to read", b"[" * 100_000, "program-file", "it is no JSON"),
    ("too large", b" " * (64 * 1024 * 1024 + 1), "program-file", "67108864 are the most"),
]


@pytest.mark.parametrize(("text", "code", "message"), [row[1:] for row in RAW], ids=[row[0] for row in RAW])
def test_what_is_no_file_of_this_form_is_refused(
    text: bytes, code: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "p.dspex.json").write_bytes(text)
    with pytest.raises(ConfigError) as found:
        dspex.load(tmp_path / "p.dspex.json")
    assert (found.value.code, message in found.value.message) == (code, True)


def test_a_change_by_hand_is_found_wherever_it_is(content: dict[str, Any], tmp_path: Path) -> None:
    leaves: list[tuple[Any, Any]] = []

    def look(value: Any) -> None:
        items = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        for key, item in list(items):
            if isinstance(item, str):
                leaves.append((value, key))
            look(item)

    changed = copy.deepcopy(content)
    look(changed)
    path = tmp_path / "p.dspex.json"
    assert len(leaves) > 40
    for place, key in leaves:
        kept = place[key]
        place[key] = kept + "0"
        path.write_text(json.dumps(changed))
        with pytest.raises(ConfigError):
            dspex.load(path)
        place[key] = kept
    path.write_text(json.dumps(changed))  # other white space, the same content
    dspex.load(path)


def test_a_path_of_another_kind_is_told_what_reads_it(tmp_path: Path) -> None:
    for name in ("rag.json", "rag", "rag.pkl"):
        with pytest.raises(ConfigError, match=r"does not end in \.dspex\.json") as found:
            dspex.load(tmp_path / name)
        assert found.value.code == "program-file"
        with pytest.raises(ConfigError, match=r"does not end in \.dspex\.json"):
            dspex.export(RAG(), tmp_path / name)
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        dspex.load(tmp_path / "none.dspex.json")
    with pytest.raises(ConfigError, match="cannot be written"):
        dspex.export(RAG(), tmp_path / "none" / "p.dspex.json")


def test_the_published_schema_is_that_of_the_code(content: dict[str, Any]) -> None:
    published = json.loads((ROOT / "docs" / "program.schema.json").read_text())
    assert published == schema()
    assert Document.model_validate(content)


# -- the command --------------------------------------------------------------------------------------


def test_the_command_writes_a_file_that_the_command_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dspex.cli import main

    rag = RAG()
    rag.answer.demos = [{"question": "Sky?", "context": ["c"], "answer": "blue"}]
    rag.save(tmp_path / "rag.json")
    path = tmp_path / "rag.dspex.json"
    target = "tests.unit.test_compiled:RAG"
    assert main(["export", target, "--state", str(tmp_path / "rag.json"), "-o", str(path)]) == 0
    told = capsys.readouterr().out
    assert "answer: question, context: list[str] -> answer (1 demos)" in told
    assert f"{path}: {path.stat().st_size:,} bytes" in told
    with ModelServer(lambda asked: REPLY) as server:
        lm = ["--lm", "openai/m", "--api-base", server.api_base]
        code = main(["run", str(path), *lm, "--input", "question=What?", "--json", "--route", "native"])
    assert code == 0
    assert json.loads(capsys.readouterr().out)["prediction"]["answer"] == "blue"


def test_the_command_makes_a_program_of_dspy_s_native(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dspex.cli import main

    path = tmp_path / "p.dspex.json"
    assert main(["export", "tests.support.programs:TwoSteps", "-o", str(path)]) == 0
    capsys.readouterr()
    assert main(["export", "tests.support.programs:Both", "-o", str(path)]) == 2
    assert "[program-export]" in capsys.readouterr().err
