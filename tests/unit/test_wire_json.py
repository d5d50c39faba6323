from __future__ import annotations

import contextlib
import json
from collections import OrderedDict, defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.wire_values import CLASSES, Colour, Level, Word

from dspex.errors import WireError
from dspex.wire._json import Json


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, 1.0, True, None, "é"]}, '{"a":[1,1.0,true,null,"é"]}'),
        ((1, {2}), '{"$":"tuple","v":[1,{"$":"set","v":[2]}]}'),
        (b"\x00\xff", '{"$":"bytes","v":"AP8="}'),
        (bytearray(b"a"), '{"$":"bytes","v":"YQ=="}'),
        (float("nan"), '{"$":"float","v":"nan"}'),
        (float("-inf"), '{"$":"float","v":"-inf"}'),
        ("\ud83d", '{"$":"text","v":"7aC9"}'),
        (2**64 - 1, "18446744073709551615"),
        (2**64, '{"$":"int","v":"0x10000000000000000"}'),
        ({1: "a"}, '{"$":"dict","v":[[1,"a"]]}'),
        ({"$": "a"}, '{"$":"dict","v":[["$","a"]]}'),
    ],
    ids=repr,
)
def test_what_json_lacks_is_an_object_that_names_it(value: Any, text: str) -> None:
    assert Json().encode(value).decode() == text


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Level.HIGH, 9),
        (Word.YES, "yes"),
        ({Word.YES: 1}, {"yes": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
    ],
    ids=["int-enum", "str-enum", "a key", "ordered-dict", "defaultdict"],
)
def test_a_subclass_travels_as_what_it_is_a_kind_of(value: Any, plain: Any) -> None:
    """An enum too, unless its class is allowed."""
    back = Json().decode(Json().encode(value))
    assert (type(back), back) == (type(plain), plain)


def test_what_cannot_be_sent_is_named_with_its_place() -> None:
    with pytest.raises(WireError) as refused:
        Json().encode({"rows": [{"ok": 1}, {"bad": ({3}, object())}]})

    assert (refused.value.code, refused.value.place) == ("not-encodable", "$.rows[1].bad[1]")


@pytest.mark.parametrize("value", [Colour.RED, [Level.HIGH]], ids=["enum", "int-enum"])
def test_a_class_crosses_only_where_both_ends_allow_it(value: Any) -> None:
    body = Json(CLASSES).encode(value)

    assert Json(CLASSES).decode(body) == value
    with pytest.raises(WireError, match="in no module of the allow-list"):
        Json().decode(body)


def test_a_value_nested_too_deeply_and_one_within_itself_are_refused() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    itself: list[Any] = []
    itself += [itself, itself]
    for value in (deep, itself):
        with pytest.raises(WireError, match="more than 200 levels"):
            Json().encode(value)


def test_what_is_nested_as_deep_as_may_be_crosses() -> None:
    value: list[Any] = [[]]
    for _ in range(198):
        value = [value]
    assert Json().decode(Json().encode(value)) == value


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"nope",
        b"[1,]",
        b"1 2",
        b"NaN",
        b"[-Infinity]",
        b'"a\xff"',
        b'\xef\xbb\xbf"bom"',
        "[1]".encode("utf-16"),
        b'{"a":1,"a":2}',
        b'{"$":"tuple"}',
        b'{"$":"tuple","v":[],"w":1}',
        b'{"$":"tuple","$":"set","v":[]}',
        b'{"$":["tuple"],"v":[]}',
        b'{"$":"no-such-type","v":[]}',
        b'{"$":"__class__","v":[]}',
        b'{"$":"tuple","v":3}',
        b'{"$":"int","v":"nine"}',
        b'{"$":"int","v":9}',
        b'{"$":"float","v":"1.5"}',
        b'{"$":"float","v":[]}',
        b'{"$":"bytes","v":"a"}',
        b'{"$":"bytes","v":"YQ=="\x00}',
        b'{"$":"bytes","v":"Y Q=="}',
        '{"$":"bytes","v":"é"}'.encode(),
        b'{"$":"text","v":"/w=="}',
        b'{"$":"dict","v":{"a":1}}',
        b'{"$":"dict","v":[[1,2],[1,3]]}',
        b'{"$":"dict","v":[[[],2]]}',
        b'{"$":"set","v":[[]]}',
        b'{"$":"uuid","v":"00000000-0000-0000-0000-000000000000"}',
        b'{"$":"enum","v":["os:environ","PATH"]}',
        b'{"$":"dataclass","v":["subprocess:Popen",{}]}',
        b"9" * 5000,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"$":"tuple","v":[' * 100_000,
    ],
    ids=lambda body: repr(body[:30]),
)
def test_a_hostile_body_is_refused(body: bytes) -> None:
    with pytest.raises(WireError) as refused:
        Json().decode(body)
    assert refused.value.code == "bad-body"
    assert len(str(refused.value)) < 1000


@settings(max_examples=300)
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode(errors="surrogatepass")))
def test_any_bytes_decode_to_a_value_or_are_refused(body: bytes) -> None:
    with contextlib.suppress(WireError):
        Json().decode(body)


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.builds(
            lambda name, plain: {"$": name, "v": plain},
            st.sampled_from(
                ["tuple", "set", "dict", "bytes", "array", "model", "path", "time", "arrow", "x"]
            ),
            inner,
        )
    ),
    max_leaves=10,
)


@settings(max_examples=300)
@given(TREES)
def test_any_tree_of_json_decodes_to_a_value_or_is_refused(tree: Any) -> None:
    with contextlib.suppress(WireError):
        Json(CLASSES).decode(json.dumps(tree).encode())
