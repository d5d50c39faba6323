"""Calls that cannot be made: each is one clear error to its caller, and nobody else notices."""

# A table reads best with a row on a line.
# ruff: noqa: E501

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import pytest
from tests.support.pools import Chat, OpenPool
from tests.support.requests import Raw

from dspex import LM, Predict, Runtime, errors
from dspex.pool import EchoRequest, FunctionRequest
from dspex.pool._call import Call
from dspex.protocol.requests import AdapterName
from dspex.router import Operation
from dspex.testing import ChatRequest, HttpError, ScriptedLM
from dspex.worker.operations import adapters


class Evil(Mapping[str, Any]):
    """A mapping that looks plain until it is read."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("nobody looks inside")

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("nobody looks inside")

    def __len__(self) -> int:
        return 1


WORK = "tests.support.work:"
PROGRAM = "tests.support.programs:"
MODULE = {"signature": {"text": "question -> answer"}, "inputs": {"question": "?"}}

# name, the operation, its payload, settings of the call, the error's class and code, what it says
BAD: list[tuple[str, Any, Any, dict[str, Any], type[errors.DspexError], str, str]] = [
    ("an operation that is a number", 5, 1, {}, errors.ConfigError, "bad-call", "is given a request"),
    ("an operation that is a list", ["x"], 1, {}, errors.ConfigError, "bad-call", "is given a request"),
    ("an unknown operation", "ecko", 1, {}, errors.WireError, "unknown-operation", "there are: echo, function"),
    ("a session that is a list", "echo", 1, {"session": []}, errors.ConfigError, "bad-call", "session="),
    ("host calls in a list", "echo", 1, {"host_functions": [print]}, errors.ConfigError, "bad-call", "by their names"),
    ("a host call that is none", "echo", 1, {"host_functions": {"f": 5}}, errors.ConfigError, "bad-call", "functions"),
    ("input_streams in a list", "function", {}, {"input_streams": [[1]]}, errors.ConfigError, "bad-input-stream", "by the names"),
    ("a time that is a list", "echo", 1, {"timeout": [1]}, errors.ConfigError, "bad-timeout", "number of seconds"),
    ("a trace that is a number", "echo", 1, {"trace": 5}, errors.ConfigError, "bad-trace", "int"),
    ("a payload that raises", "echo", {"x": [Evil()]}, {}, errors.WireError, "not-encodable", "$.x[0]: tests.faults.test_bad_calls.Evil"),
]  # fmt: skip


def predict(**parts: Any) -> tuple[str, dict[str, Any]]:
    return "predict", {**MODULE, **parts}


def module(cls: str, **parts: Any) -> tuple[str, dict[str, Any]]:
    return "module", {"module": cls, **MODULE, **parts}


def signed(text: str = "question -> answer", **parts: Any) -> tuple[str, dict[str, Any]]:
    return predict(signature={"text": text, **parts})


FUNCTION = {"function": "os:getpid"}

# name, the operation and its payload, the place of what is wrong, what is said of it
BAD_PAYLOADS: list[tuple[str, tuple[str, Any], str, str]] = [
    ("a list for a function", ("function", [1]), "$", "of type list"),
    ("no function", ("function", {}), "$", "no 'function'"),
    ("a function that is a number", ("function", {"function": 5}), "$.function", "of type int"),
    ("arguments that are a number", ("function", {**FUNCTION, "args": 5}), "$.args", "of type int"),
    ("arguments with a number for a name", ("function", {**FUNCTION, "kwargs": {1: 2}}), "$.kwargs", "the key 1"),
    ("a part with a typo", ("function", {**FUNCTION, "arg": []}), "$", "did you mean 'args'"),
    ("a part with a number for a name", ("function", {**FUNCTION, 5: []}), "$", "a part 5"),
    ("input_streams that are numbers", ("function", {**FUNCTION, "input_streams": [5]}), "$.input_streams[0]", "of type int"),
    ("a text for a module", ("module", "x -> y"), "$", "of type str"),
    ("nothing for a module", ("module", None), "$", "of type NoneType"),
    ("no inputs", ("predict", {"signature": {"text": "q -> a"}}), "$", "no 'inputs'"),
    ("no signature", ("predict", {"inputs": {}}), "$", "no 'signature'"),
    ("a signature without a text", predict(signature={}), "$.signature", "no 'text'"),
    ("no inputs for a program", ("module", {"module": PROGRAM + "Both"}), "$", "no 'inputs'"),
    ("inputs that are a list", predict(inputs=[]), "$.inputs", "of type list"),
    ("an input with a number for a name", predict(inputs={1: 2}), "$.inputs", "the key 1"),
    ("a signature that is a list", predict(signature=[]), "$.signature", "of type list"),
    ("a signature that is a text", predict(signature="q -> a"), "$.signature", "of type str"),
    ("a signature that is a mapping", predict(signature={"q": "str"}), "$.signature", "a part 'q'"),
    ("a class that is a number", ("module", {**MODULE, "module": 5}), "$.module", "of type int"),
    ("instructions that are a list", signed(instructions=["Do."]), "$.signature.instructions", "of type list"),
    ("a type by no path", signed(types={"P": 5}), "$.signature.types.P", "of type int"),
    ("a bar that is a number", signed(unions={"answer": [1]}), "$.signature.unions.answer[0]", "of type int"),
    ("a field's texts as a text", signed(fields={"answer": "one word"}), "$.signature.fields.answer", "of type str"),
    ("defaults that are a list", signed(defaults=[1]), "$.signature.defaults", "of type list"),
    ("arguments that are a list", module("dspy.ReAct", args=[1]), "$.args", "of type list"),
    ("an import that is a number", module("dspy.Refine", imports={"f": 5}), "$.imports.f", "of type int"),
    ("an import of numbers", module("dspy.Refine", imports={"f": [5]}), "$.imports.f[0]", "of type int"),
    ("tools that are a mapping", module("dspy.ReAct", tools={}), "$.tools", "of type dict"),
    ("a tool that is a path", module("dspy.ReAct", tools=["my:tool"]), "$.tools[0]", "of type str"),
    ("a tool without a function", module("dspy.ReAct", tools=[{"name": "f"}]), "$.tools[0]", "no 'function' and no 'host_function'"),
    ("a tool of two places", module("dspy.ReAct", tools=[{"function": "a:b", "host_function": "c"}]), "$.tools[0]", "'function' and 'host_function'"),
    ("a tool's argument by its type", module("dspy.ReAct", tools=[{"host_function": "c", "args": {"x": "str"}}]), "$.tools[0].args.x", "of type str"),
    ("a state that is a list", module("dspy.Predict", state=[]), "$.state", "of type list"),
    ("examples that are a mapping", predict(demos={"q": "?"}), "$.demos", "of type dict"),
    ("an example that is a text", predict(demos=[{}, "q"]), "$.demos[1]", "of type str"),
    ("settings that are a list", predict(config=[1]), "$.config", "of type list"),
    ("an unknown adapter", predict(adapter="jsno"), "$.adapter", "did you mean 'json'"),
    ("an adapter that is a number", predict(adapter=5), "$.adapter", "of type int"),
    ("an unknown way of reading", predict(parsing="strict"), "$.parsing", "'strict'"),
    ("an LM by its name", predict(lm="openai/x"), "$.lm", "of type str"),
    ("a second LM by its name", predict(adapter="two_step", extraction_lm="x"), "$.extraction_lm", "of type str"),
    ("messages that are texts", predict(messages=["hello"]), "$.messages[0]", "of type str"),
    ("a message without a role", predict(messages=[{"content": "x"}]), "$.messages[0]", "no 'role'"),
    ("typed inputs by a text", predict(custom={"inputs": "q"}), "$.custom.inputs", "of type str"),
    ("typed inputs that are not there", predict(custom={"inputs": ["p"]}), "$.inputs", "no value 'p'"),
    ("typed examples that are not there", predict(custom={"demos": [["p"]]}), "$.custom.demos[0]", "no example"),
    ("a wish for a stream by a text", predict(stream={"fields": "answer"}), "$.stream.fields", "of type str"),
    ("a stream's part with a typo", predict(stream={"field": []}), "$.stream", "did you mean 'fields'"),
]  # fmt: skip

# name, the operation and its payload, the error's class and code, what is said
REFUSED: list[tuple[str, tuple[str, Any], type[errors.DspexError], str, str]] = [
    ("a signature that is none", signed("q"), errors.SignatureError, "missing-arrow", "q"),
    ("a name nobody knows", signed("question: Nope -> answer"), errors.SignatureError, "unknown-name", "Nope"),
    ("a name of the code around", signed("question: Handle -> answer"), errors.SignatureError, "unknown-name", "Handle"),
    ("a type by a wrong path", signed(types={"P": "nowhere:P"}), errors.ConfigError, "bad-import-path", "nowhere"),
    ("texts for no field", signed(fields={"other": {"desc": "x"}}), errors.SignatureError, "no-such-field", "other"),
    ("a default for no field", signed(defaults={"other": 1}), errors.SignatureError, "no-such-field", "$.signature.defaults"),
    ("bars for no field", signed(unions={"other": [True]}), errors.SignatureError, "no-such-field", "$.signature.unions"),
    ("no value for an input", predict(inputs={}), errors.InputError, "input", "`question` is missing"),
    ("no value for a module's input", module("dspy.ChainOfThought", inputs={}), errors.InputError, "input", "`question` is missing"),
    ("a typed input of another type", predict(inputs={"question": 5}, custom={"inputs": ["question"]}), errors.InputError, "input-type", "$.inputs.question"),
    ("inputs that a program does not take", ("module", {"module": PROGRAM + "Both", "inputs": {"first": "?"}}), errors.InputError, "arguments", "'second'"),
    ("arguments that a function does not take", ("function", {"function": "tests.support.work:add", "args": [1]}), errors.InputError, "arguments", "takes no such arguments"),
    ("a function that is none", ("function", {"function": "os:sep"}), errors.ConfigError, "bad-import-path", "no function"),
    ("a class that is no module", module("dspy.Example"), errors.ConfigError, "not-a-module", "Example"),
    ("a state that is none", module("dspy.Predict", state={"demos": 5}), errors.ConfigError, "bad-module", "KeyError"),
]  # fmt: skip


async def test_a_payload_with_something_wrong_is_one_error_with_its_place_before_any_work(
    open_pool: OpenPool, chat: Chat
) -> None:
    pool = await open_pool(lm=chat.lm())
    for name, (op, payload), place, says in BAD_PAYLOADS:
        with pytest.raises(errors.ConfigError) as caught:
            await pool.call(Raw(op, payload), timeout=20)
        assert (caught.value.code, caught.value.place) == ("bad-payload", place), name
        assert f"the call: {place} " in str(caught.value), name
        assert says in str(caught.value), f"{name}: {caught.value}"
        if op == "function" or not isinstance(payload, dict):
            continue
        with pytest.raises(errors.ConfigError) as streamed:
            await anext(pool.stream(Raw(op, payload), timeout=20))
        assert streamed.value.message == caught.value.message, name
    assert chat.bodies == []
    assert pool.status().deaths == 0


async def test_a_call_that_fits_no_signature_class_or_function_is_refused_before_a_model_is_asked(
    open_pool: OpenPool, chat: Chat
) -> None:
    pool = await open_pool(lm=chat.lm())
    for name, (op, payload), error, code, says in REFUSED:
        with pytest.raises(error) as caught:
            await pool.call(Raw(op, payload), timeout=20)
        assert (type(caught.value), caught.value.code) == (error, code), f"{name}: {caught.value}"
        assert says in str(caught.value), f"{name}: {caught.value}"
    assert chat.bodies == []


@pytest.mark.parametrize("cls", ["dspy.Predict", "dspy.ChainOfThought"])
@pytest.mark.parametrize("part", ["signature", "args"])
async def test_no_text_of_a_signature_makes_a_worker_import_a_module(
    open_pool: OpenPool, chat: Chat, cls: str, part: str
) -> None:
    pool = await open_pool(lm=chat.lm())
    text = "question: tests.support.imported.Thing -> answer"
    made: Any = {"signature": text} if part == "signature" else {"args": {"signature": text}}
    with pytest.raises(errors.SignatureError) as caught:
        await pool.with_options(timeout=20).module(cls, {"question": "?"}, **made)
    assert caught.value.code == "unknown-name"
    loaded = await pool.run(WORK + "is_loaded", "tests.support.imported")
    assert loaded is False


async def test_a_call_that_cannot_be_made_says_why_and_costs_nobody_else_anything(
    open_pool: OpenPool,
) -> None:
    pool = await open_pool(workers=1, max_inflight=8)
    witness = asyncio.ensure_future(pool.run(f"{WORK}wait_for_ever"))
    for name, op, payload, settings, error, code, says in BAD:
        with pytest.raises(error) as caught:
            await pool.call(Raw(op, payload), **{"timeout": 20, **settings})
        assert caught.value.code == code, name
        assert says in str(caught.value), f"{name}: {caught.value}"
        assert await pool.call(EchoRequest(name), timeout=20) == name
    assert not witness.done()
    assert pool.status().deaths == 0
    witness.cancel()


async def test_a_payload_that_raises_in_the_queue_does_not_cost_the_call_before_it_its_answer(
    open_pool: OpenPool,
) -> None:
    """It is encoded when its turn comes, which is when another call has its answer."""
    pool = await open_pool(workers=1, max_inflight=1)
    before = asyncio.ensure_future(pool.call(FunctionRequest.of(f"{WORK}add", 2, 3), timeout=20))
    evil = asyncio.ensure_future(pool.call(EchoRequest(Evil()), timeout=20))
    after = asyncio.ensure_future(pool.call(EchoRequest("mine"), timeout=20))

    assert (await before, await after) == (5, "mine")
    with pytest.raises(errors.WireError, match="Evil"):
        await evil
    assert pool.status().deaths == 0


async def test_what_the_iterator_of_a_batch_raises_is_raised(open_pool: OpenPool) -> None:
    def requests() -> Iterator[EchoRequest]:
        yield EchoRequest(1)
        raise LookupError("no more rows")

    pool = await open_pool(workers=1)
    with pytest.raises(LookupError, match="no more rows"):
        await pool.batch(requests())
    assert await pool.batch([EchoRequest(1), EchoRequest(2)]) == [1, 2]


def test_a_request_may_name_every_adapter_that_a_worker_has() -> None:
    assert {*get_args(AdapterName)} == {*adapters.ADAPTERS, adapters.TWO_STEP}


@pytest.mark.parametrize("way", ["call", "stream", "runtime", "server"])
async def test_a_call_that_failed_lets_go_of_its_payload_at_once(
    way: str, open_pool: OpenPool, chat: Chat
) -> None:
    """Not only when somebody collects garbage: sixty payloads of four megabytes are a quarter of a gigabyte."""
    pool = await open_pool()

    def refuse(request: ChatRequest) -> str:
        raise errors.LMServerError("out of order")

    lm = ScriptedLM(refuse) if way == "runtime" else LM("openai/test", api_base=chat.server.api_base)
    chat.server.faults.push(*[HttpError(500)] * 3)

    async def fail() -> None:
        ask = FunctionRequest.of("tests.support.work:fail", "x" * 1000)
        if way == "stream":
            _ = [part async for part in pool.stream(ask)]
        elif way in ("runtime", "server"):
            await qa.acall(question="x")
        else:
            await pool.call(ask)

    async with Runtime(lm, pools=0) as runtime:
        qa = Predict("question -> answer", runtime=runtime)
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                with pytest.raises(errors.DspexError):
                    await fail()
            await asyncio.sleep(0)
            kept = [each for each in gc.get_objects() if isinstance(each, (Call, Operation))]
        finally:
            gc.enable()
    assert kept == []
