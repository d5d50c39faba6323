"""A prediction gives as plain data what DSPy's gives."""

from __future__ import annotations

from typing import Any

import dspy
import pydantic
from hypothesis import given
from hypothesis import strategies as st
from tests.support.generated import fewer

import dspex


class Point(pydantic.BaseModel):
    x: int
    inner: Any = None


VALUES = st.recursive(
    st.none() | st.integers(0, 9) | st.text(max_size=3) | st.sampled_from([("a", 1), {1, 2}, 0.5]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.lists(inner, max_size=2).map(tuple),
        st.dictionaries(st.text(max_size=2), inner, max_size=2),
        st.builds(Point, x=st.integers(0, 3), inner=inner),
        st.dictionaries(st.sampled_from("ab"), inner, max_size=2).map(lambda fields: dspy.Example(**fields)),
    ),
    max_leaves=6,
)


@fewer(2)
@given(fields=st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=3))
def test_its_fields_as_plain_data_are_dspy_s(fields: dict[str, Any]) -> None:
    ours = dspex.Prediction(fields)
    assert ours.toDict() == dspy.Prediction(**fields).toDict()
    assert dspex.Prediction(outer=[ours]).toDict() == {"outer": [ours.toDict()]}
    assert all(value is fields[name] for name, value in ours.to_dict().items())
