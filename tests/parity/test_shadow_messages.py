"""What a shadow compares: the messages that a worker tells are DSPy's, and those of the native side."""

from __future__ import annotations

from typing import Any

import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.parity import adapter_cases as cases
from tests.support.generated import fewer
from tests.support.models import Said

import dspex
from dspex.adapters import Adapter
from dspex.errors import InputError
from dspex.router import Operation
from dspex.runtime._pool_target import PoolTarget
from dspex.runtime._shadow_difference import message_that_differs

THEIRS = {"chat": dspy.ChatAdapter, "json": dspy.JSONAdapter, "xml": dspy.XMLAdapter}


def told(runtime: dspex.Runtime, operation: Operation) -> Any:
    """The messages that the worker's DSPy writes, without a model; or the error that there are none."""
    (pool,) = runtime._pools
    assert isinstance(pool, PoolTarget)
    try:
        return runtime.submit(pool.told(operation, 60.0, answers=False)).result().messages
    except InputError:
        return InputError


@pytest.mark.parametrize("layout", THEIRS)
@fewer(10)
@given(data=st.data())
def test_what_the_worker_tells_are_the_messages_of_dspy_and_no_model_is_asked(
    runtime: dspex.Runtime, said: Said, layout: str, data: st.DataObject
) -> None:
    said.server.requests.clear()
    theirs, ours = data.draw(cases.signatures())
    names = list(theirs.fields)
    inputs = data.draw(cases.records(names))
    demos = data.draw(st.lists(cases.records(names), max_size=2))
    adapter = Adapter.of(layout)  # type: ignore[arg-type]
    operation = Operation(signature=ours, inputs=inputs, demos=demos, adapter=adapter)
    try:
        expected: Any = THEIRS[layout]().format(theirs, demos, inputs)
    except (TypeError, AttributeError):  # of a list whose items are no texts, in a field of type str
        expected = InputError
    found = told(runtime, operation)
    assert found == expected
    assert said.server.requests == []
    if expected is not InputError:
        native = adapter.compile(ours).render(inputs, demos)
        assert message_that_differs(native, found, 80, texts=True) is None
