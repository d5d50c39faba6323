"""A drop-in obeys whoever changes a method of DSPy's adapters, however and whenever it is done."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest import mock

import dspy
import pytest
from tests.parity.test_adapter_types import TYPES
from tests.parity.test_dropins import NAMES, Scripted, outcome

import dspex.dspy as dropins
from dspex.dspy import _adapters
from dspex.testing import ModelServer

# The old interface for models of one's own is the one that both DSPy 3.3 and 3.4 have.
pytestmark = pytest.mark.filterwarnings("ignore:Implementing custom LMs:DeprecationWarning")

# What an adapter is made of, and no hook in the making of a prompt or the reading of a reply.
OTHERS = {
    *("__init__", "__call__", "acall", "__init_subclass__", "__module__", "__doc__", "format_finetune_data"),
    # How a model is called: DSPy's own code, which the drop-ins leave alone.
    *("_call_preprocess", "_call_postprocess", "_prepare_response_format", "_json_adapter_call_common"),
    *("_render_request", "_call_lm", "_acall_lm", "_legacy_call_kwargs", "_coerce_lm_messages"),
    *("_chat_dict_to_lm_message", "_normalize_legacy_outputs"),
    *("_get_tool_call_input_field_name", "_get_tool_call_output_field_name"),
}


def hooks_of(cls: type) -> list[str]:
    """Every method of an adapter of DSPy's, its bases' included."""
    classes = [base for base in cls.__mro__ if issubclass(base, dspy.Adapter)]
    names = {name for base in classes for name, value in vars(base).items() if callable(getattr(cls, name))}
    return sorted(names - OTHERS)


HOOKS = [(name, hook) for name in NAMES for hook in hooks_of(getattr(dspy, name))]

SIGNATURE = dspy.Signature("q, history: History -> a, l: list[int], d: dict[str, int]", custom_types=TYPES)
INPUTS = {
    "q": "what?",
    "history": dspy.History(messages=[{"q": "then?", "a": "so", "l": [1], "d": {"k": 1}}]),
}
DEMOS = [{"q": "one?", "a": "1", "l": [1], "d": {}}, {"q": "two?", "a": "2", "l": [2]}]
REPLIES = {
    "ChatAdapter": "[[ ## a ## ]]\nyes\n[[ ## l ## ]]\n[1]\n[[ ## d ## ]]\n{}",
    "JSONAdapter": '{"a": "yes", "l": [1], "d": {}}',
    "XMLAdapter": "<a>yes</a><l><item>1</item></l><d><k>1</k></d>",
}


def changed(value: Any) -> Any:
    """Something else than what DSPy's method gives, that can stand in its place."""
    match value:
        case str():
            return value + "\nas changed"
        case list():
            return [*value, {"role": "user", "content": "as changed"}]
        case {**fields}:
            return {**fields, "a": "as changed"}
        case dspy.JSONAdapter():
            return dspy.XMLAdapter()
        case bool():
            return not value
        case _:
            return None


def other(cls: type, hook: str) -> Any:
    """DSPy's method with another result: a function, or a class or static method, as DSPy's is one."""
    kind = inspect.getattr_static(cls, hook)
    theirs = getattr(kind, "__func__", kind)
    while hasattr(theirs, "__wrapped__"):
        theirs = theirs.__wrapped__

    def method(*args: Any, **kwargs: Any) -> Any:
        value = theirs(*args, **kwargs)
        return value if hook in ("_elements_to_value", "_group_children") and not value else changed(value)

    return type(kind)(method) if isinstance(kind, (classmethod, staticmethod)) else method


Way = Callable[[type, type, str], AbstractContextManager[Any]]


def in_a_subclass(base: type, theirs: type, hook: str) -> AbstractContextManager[Any]:
    return nullcontext(type(theirs.__name__, (base,), {hook: other(theirs, hook)})())


def in_a_class_before(base: type, theirs: type, hook: str) -> AbstractContextManager[Any]:
    mixin = type("Mixin", (), {hook: other(theirs, hook)})
    return nullcontext(type(theirs.__name__, (mixin, base), {})())


def in_a_subclass_later(base: type, theirs: type, hook: str) -> AbstractContextManager[Any]:
    cls = type(theirs.__name__, (base,), {})
    adapter = cls()
    adapter.format(SIGNATURE, DEMOS, INPUTS)
    setattr(cls, hook, other(theirs, hook))
    return nullcontext(adapter)


def on_an_instance(base: type, theirs: type, hook: str) -> AbstractContextManager[Any]:
    adapter = base()
    method = other(theirs, hook)
    setattr(adapter, hook, method.__get__(adapter, type(adapter)))
    return nullcontext(adapter)


@contextmanager
def in_dspys_class(base: type, theirs: type, hook: str) -> Iterator[Any]:
    owner = next(cls for cls in theirs.__mro__ if hook in vars(cls))
    with mock.patch.object(owner, hook, other(theirs, hook)):
        yield base()


@contextmanager
def by_a_mock(base: type, theirs: type, hook: str) -> Iterator[Any]:
    owner = next(cls for cls in theirs.__mro__ if hook in vars(cls))
    value = [] if hook in ("format", "format_demos", "format_conversation_history") else "mocked"
    with mock.patch.object(owner, hook, return_value=None if hook.startswith("_get") else value):
        yield base()


WAYS = [
    in_a_subclass,
    in_a_class_before,
    in_a_subclass_later,
    on_an_instance,
    in_dspys_class,
    by_a_mock,
]


def run(adapter: Any, name: str) -> list[Any]:
    lm = Scripted(REPLIES[name], REPLIES["JSONAdapter"], REPLIES["XMLAdapter"])
    with dspy.context(lm=lm, adapter=adapter):
        predicted = outcome(lambda: dspy.Predict(SIGNATURE)(**INPUTS).toDict())
    return [
        outcome(lambda: adapter.format(SIGNATURE, DEMOS, INPUTS)),
        outcome(lambda: adapter.format(signature=SIGNATURE, demos=[], inputs=INPUTS)),
        outcome(lambda: adapter.parse(SIGNATURE, REPLIES[name])),
        outcome(lambda: adapter.parse(SIGNATURE, "garbage")),
        lm.requests,
        predicted,
    ]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "hook"), HOOKS)
def test_a_hook_is_honoured_however_it_was_set(name: str, hook: str, way: Way) -> None:
    theirs, ours = getattr(dspy, name), getattr(dropins, name)
    with way(theirs, theirs, hook) as adapter:
        expected = run(adapter, name)
    with way(ours, theirs, hook) as adapter:
        assert run(adapter, name) == expected
    # And once it is gone, all is as before.
    assert run(ours(), name) == run(theirs(), name)


class Proxy:
    """Stands for a function as the wrappers of tracing libraries do: it says that it is what it wraps."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __eq__(self, other: object) -> bool:
        return self.function == other

    def __hash__(self) -> int:
        return hash(self.function)

    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else lambda *args: changed(self.function(instance, *args))


@pytest.mark.parametrize("name", NAMES)
def test_a_proxy_that_equals_the_hook_it_replaces_is_obeyed(name: str) -> None:
    theirs, ours = getattr(dspy, name), getattr(dropins, name)
    owner = next(cls for cls in theirs.__mro__ if "format_task_description" in vars(cls))
    with mock.patch.object(owner, "format_task_description", Proxy(owner.format_task_description)):
        expected = run(theirs(), name)
        assert "as changed" in str(expected)
        assert run(ours(), name) == expected


def test_the_hooks_that_are_compared_are_all_that_there_are() -> None:
    """What DSPy adds shows here: is it a part of `format` or `parse`? Then the drop-ins must look at it."""
    known = {
        *_adapters._FORMAT,
        *_adapters._PARSE,
        "format",
        "parse",
        "_make_json_adapter_fallback",
    }
    assert {hook for _, hook in HOOKS} <= known


@pytest.mark.parametrize("name", NAMES)
def test_an_adapter_that_looks_up_its_methods_itself_is_obeyed(name: str) -> None:
    def make(base: Any) -> Any:
        def look(self: Any, attribute: str) -> Any:
            if attribute == "format_task_description":
                return lambda signature: "as looked up"
            return base.__getattribute__(self, attribute)

        cls = type("Mine", (base,), {"__getattribute__": look})
        return cls()

    theirs, ours = make(getattr(dspy, name)), make(getattr(dropins, name))
    assert ours.format(SIGNATURE, [], INPUTS) == theirs.format(SIGNATURE, [], INPUTS)


@pytest.mark.parametrize("way", [in_a_subclass, in_a_class_before, on_an_instance, in_dspys_class])
@pytest.mark.parametrize("hook", ["format_task_description", "parse"])
@pytest.mark.parametrize("name", NAMES)
async def test_a_hook_is_honoured_in_a_stream(name: str, hook: str, way: Way) -> None:
    reply = {
        "ChatAdapter": "[[ ## a ## ]]\nParis is it\n\n[[ ## completed ## ]]",
        "JSONAdapter": '{"a": "Paris is it"}',
        "XMLAdapter": "<a>\nParis is it\n</a>",
    }[name]
    told: list[Any] = []
    with ModelServer(lambda _: reply) as server:
        for base in (getattr(dspy, name), getattr(dropins, name)):
            lm = dspy.LM("openai/scripted", api_base=server.api_base, api_key="k", cache=False, num_retries=0)
            with way(base, getattr(dspy, name), hook) as adapter, dspy.context(lm=lm, adapter=adapter):
                listener = dspy.streaming.StreamListener(signature_field_name="a")
                program = dspy.streamify(dspy.Predict("q -> a"), stream_listeners=[listener])
                parts = []
                try:
                    async for part in program(q="Where?"):
                        is_whole = isinstance(part, dspy.Prediction)
                        parts.append(part.toDict() if is_whole else (part.chunk, part.is_last_chunk))
                except ValueError as error:  # DSPy streams for its own classes only, by their names
                    parts.append(str(error))
                assert len(parts) > 1 or hook == "parse"
                told.append((parts, server.requests[-1].messages))
    assert told[0] == told[1]
