"""The cache of signatures: never stale, no dearer for the hundredth class, and it keeps nothing alive."""

from __future__ import annotations

import gc
import importlib
import sys
import threading
import types
import typing
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import pytest

import dspex
from dspex.signature import InputField, OutputField, Signature
from dspex.signature import _names as names


@pytest.fixture(autouse=True)
def empty_cache() -> Iterator[None]:
    Signature.cache_clear()
    yield
    Signature.cache_clear()


def answer(name: str = "Answer") -> type[pydantic.BaseModel]:
    return pydantic.create_model(name, x=(int, ...))


def annotation(signature: Signature, field: str = "a") -> Any:
    return signature.fields[field].annotation


# --- no stale class ----------------------------------------------------------------------------------


def test_a_name_in_a_module_that_is_bound_again_means_the_new_class() -> None:
    m: Any = types.ModuleType("m")
    made: Any
    for made in (answer(), answer(), answer()):
        m.Answer = made
        assert annotation(Signature("q -> a: m.Answer")) is made
        assert annotation(Signature("q -> a: list[m.Answer]")) == list[made]
        assert annotation(Signature("q -> a: list['m.Answer']")) == list[made]
        assert annotation(Signature("q -> a: Sequence[m.Answer]")) == typing.Sequence[made]


def test_a_reloaded_module_gives_the_class_it_has_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "reloaded_answers.py"
    source.write_text(
        "class Inner: pass\nclass Answer:\n    Kind = __import__('enum').Enum('Kind', 'GOOD')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = importlib.import_module("reloaded_answers")
    monkeypatch.setitem(globals(), "reloaded_answers", module)
    text = "q -> a: reloaded_answers.Answer.Kind, b: Literal[reloaded_answers.Answer.Kind.GOOD]"
    before = Signature(text)

    importlib.reload(module)
    after = Signature(text)

    assert annotation(before) is not module.Answer.Kind
    assert annotation(after) is module.Answer.Kind
    assert annotation(after, "b") == Literal[module.Answer.Kind.GOOD]


def test_a_local_class_that_is_defined_again_is_the_new_one() -> None:
    def cell(number: int) -> tuple[type, Signature]:
        class Answer(pydantic.BaseModel):
            x: int = number

        return Answer, Signature("q -> a: Answer")

    for number in range(3):
        made, signature = cell(number)
        assert annotation(signature) is made


def test_types_go_by_identity_too() -> None:
    holders = [types.SimpleNamespace(Answer=answer()) for _ in range(3)]
    for holder in (*holders, *holders):
        assert annotation(Signature("q -> a: m.Answer", types={"m": holder})) is holder.Answer
        assert annotation(Signature("q -> a: T", types={"T": holder.Answer})) is holder.Answer
    assert Signature.cache_info().hits == 6


def test_a_name_that_is_there_no_more_is_an_error_and_not_what_it_was() -> None:
    m: Any = types.ModuleType("m")
    m.Answer = answer()
    Signature("q -> a: m.Answer")
    del m.Answer
    with pytest.raises(dspex.errors.SignatureError) as caught:
        Signature("q -> a: m.Answer")
    assert caught.value.code == "unknown-attribute"


def test_an_attribute_of_what_has_no_name_is_read_each_time() -> None:
    class Page:
        Item = answer()

        def __class_getitem__(cls, _item: Any) -> type:
            return cls

    assert annotation(Signature("q -> a: Page[int].Item")) is Page.Item
    Page.Item = answer()
    assert annotation(Signature("q -> a: Page[int].Item")) is Page.Item


def test_a_value_in_a_note_that_is_bound_again_is_the_new_one() -> None:
    m = types.SimpleNamespace()
    for m.limit in (1000, 2000):
        given = {"m": m, "Field": pydantic.Field}
        signature = Signature("q: Annotated[int, Field(gt=m.limit)] -> a", types=given)
        signature.validate_inputs({"q": m.limit + 1})
        with pytest.raises(dspex.errors.InputError):
            signature.validate_inputs({"q": m.limit})


def test_threads_with_a_class_each_never_see_anothers() -> None:
    wrong: list[object] = []
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        for _ in range(200):
            m = types.SimpleNamespace(Answer=type("Answer", (pydantic.BaseModel,), {}))
            for _ in range(2):
                found = annotation(Signature("q -> a: m.Answer"))
                if found is not m.Answer:
                    wrong.append(found)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- what many classes cost --------------------------------------------------------------------------


def lookups(call: Callable[[], object]) -> int:
    """How often Python is asked for a name during a call."""
    count = 0

    def profile(frame: types.FrameType, event: str, _arg: object) -> None:
        nonlocal count
        count += event == "call" and frame.f_code is names.find.__code__

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return count


def test_the_last_of_hundreds_of_classes_under_one_text_costs_what_the_second_did() -> None:
    counts = []
    for _ in range(300):
        m = types.SimpleNamespace(Answer=answer(), Other=answer())
        counts.append(lookups(lambda m=m: Signature("q -> a: m.Answer, b: m.Other, c: m.Answer")))  # type: ignore[misc]
        assert m
    # The one name that has to be looked for, `m`, once for each call.
    assert set(counts) == {1}


def test_one_text_has_few_meanings_in_the_cache_and_those_in_use_stay() -> None:
    kept = answer()
    gc.disable()  # a collection of the oldest objects would take these signatures out of the cache
    try:
        for _ in range(50):
            Signature("q -> a: T", types={"T": answer()})
            Signature("q -> a: T", types={"T": kept})
        info = Signature.cache_info()
    finally:
        gc.enable()
    assert info.size <= 8
    assert info.hits == 49


def test_instructions_do_not_push_each_other_out() -> None:
    for _ in range(2):
        for number in range(50):
            assert Signature("q -> a", f"Do {number}.").instructions == f"Do {number}."
    assert Signature.cache_info()[:3] == (50, 50, 50)


def test_what_stands_behind_a_nul_is_not_taken_for_instructions() -> None:
    Signature("q -> a", "Do it.")
    with pytest.raises(dspex.errors.SignatureError):
        Signature("q -> a\0Do it.")


def test_signatures_over_different_classes_have_different_hashes() -> None:
    signatures = [Signature("q -> a: T", types={"T": answer()}) for _ in range(300)]
    assert len({hash(signature) for signature in signatures}) > 290
    assert len(set(signatures)) == 300


def test_equal_signatures_have_equal_hashes() -> None:
    class Unhashable(type):
        __hash__ = None  # type: ignore[assignment]

        def __eq__(cls, other: object) -> bool:
            return True

    odd, other = Unhashable("Odd", (), {}), Unhashable("Odd", (), {})

    class Model(pydantic.BaseModel):
        pass

    for made in (
        Model,
        Annotated[int, pydantic.Field(gt=2)],
        Literal["a"],
        Sequence[Model],
        dict[str, Model],
    ):
        fields = [{"q": (str, InputField()), "a": (made, OutputField(desc="d"))} for _ in range(2)]
        one, two = map(Signature, fields)
        assert one == two
        assert hash(one) == hash(two)
    config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    holders = [pydantic.create_model("Holder", __config__=config, x=(kind, ...)) for kind in (odd, other)]
    assert len({Signature("q -> a: T", types={"T": holder}) for holder in holders}) == 2


def test_a_metaclass_that_calls_all_its_classes_equal_does_not_mix_them() -> None:
    class Same(type(pydantic.BaseModel)):  # type: ignore[misc]
        def __eq__(cls, other: object) -> bool:
            return True

        def __hash__(cls) -> int:
            return 1

    one, two = (Same("Answer", (pydantic.BaseModel,), {"__module__": __name__}) for _ in range(2))
    first, second = (Signature("q -> a: T", types={"T": made}) for made in (one, two))
    assert first != second
    assert annotation(second) is two
    assert dspex.ChatAdapter().parse(second, "[[ ## a ## ]]\n{}")["a"].__class__ is two


# --- what is kept alive -----------------------------------------------------------------------------


def keeps_its_signature() -> list[Callable[[], Any]]:
    """Ways in which a class comes to hold something that refers to it."""

    def text() -> Any:
        made: Any = answer()
        made.kept = Signature("q -> a: T", types={"T": made})
        return made

    def fields() -> Any:
        made: Any = answer()
        made.kept = Signature({"a": (list[made], OutputField(default=[made(x=1)]))})
        return made

    def operations() -> Any:
        made: Any = answer()
        kept = Signature("q -> a").append("b", OutputField(), made).with_instructions("x")
        made.kept = [kept, kept.fields, kept.fields["b"], kept.delete("a"), Signature.of(kept)]
        return made

    def checked() -> Any:
        made: Any = answer()
        made.kept = Signature("q: T -> a: T", types={"T": made})
        made.kept.validate_inputs({"q": made(x=1)})
        assert made.kept.fields["a"].annotation is made
        hash(made.kept)
        return made

    def plan() -> Any:
        made: Any = answer()
        adapter = dspex.JSONAdapter()
        kept = Signature("q: T -> a: T", types={"T": made})
        made.kept = adapter.compile(kept)
        adapter.format(kept, [{"q": made(x=1), "a": made(x=2)}], {"q": made(x=1)})
        adapter.parse(kept, '{"a": {"x": 1}}')
        return made

    def stream() -> Any:
        made: Any = answer()
        made.kept = dspex.ChatAdapter().stream(Signature("q -> a: T", types={"T": made}))
        made.kept.feed('[[ ## a ## ]]\n{"x": 1}\n\n[[ ## completed ## ]]')
        made.kept.finish()
        made.kept.read()
        return made

    def class_signature() -> Any:
        made: Any = answer()

        class Asks(Signature):
            q: str = InputField()
            a: made = OutputField()

        made.kept = Asks
        return made

    return [text, fields, operations, checked, plan, stream, class_signature]


@pytest.mark.parametrize("make", keeps_its_signature(), ids=lambda make: make.__name__)
def test_a_class_that_keeps_a_signature_over_itself_is_collected(make: Callable[[], type]) -> None:
    kept = weakref.ref(make())
    gc.collect()
    assert kept() is None


def test_a_stream_whose_value_holds_the_stream_is_collected() -> None:
    def make() -> weakref.ref[type]:
        streams: list[Any] = []

        class Odd(pydantic.BaseModel):
            x: int
            _kept: Any = None

            def model_post_init(self, _context: Any) -> None:
                self._kept = tuple(streams)

        streams.append(dspex.ChatAdapter().stream(Signature("q -> a: T", types={"T": Odd})))
        streams[0].feed('[[ ## a ## ]]\n{"x": 1}\n\n[[ ## completed ## ]]')
        streams[0].finish()
        streams[:] = []
        return weakref.ref(Odd)

    gone = make()
    gc.collect()
    assert gone() is None


def test_signatures_without_classes_stay_in_the_cache_over_a_collection() -> None:
    Signature("q -> a: int")
    Signature("q -> a: T", types={"T": answer()})
    gc.collect()
    assert Signature.cache_info().size == 1
    Signature("q -> a: int")
    assert Signature.cache_info().hits == 1
