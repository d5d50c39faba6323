from __future__ import annotations

import dspy
import pytest
from dspy.utils import exceptions as foreign

from dspex import errors
from dspex.worker.failures import LM_ERRORS, to_dspex_error


def every_subclass(cls: type) -> set[type]:
    return {cls}.union(*map(every_subclass, cls.__subclasses__()))


def test_every_lm_error_of_dspy_has_a_row() -> None:
    assert set(LM_ERRORS) == every_subclass(foreign.LMError)


@pytest.mark.parametrize("cls", LM_ERRORS, ids=lambda cls: cls.__name__)
def test_an_lm_error_keeps_what_programs_need(cls: type[foreign.LMError]) -> None:
    error = to_dspex_error(cls(message="went wrong", status=429, retry_after=2.5, model="openai/x"))

    assert type(error) is LM_ERRORS[cls]
    assert error.message == "went wrong"
    assert (error.status, error.retry_after, error.type) == (429, 2.5, cls.__name__)


def test_a_subclass_from_elsewhere_is_what_its_parent_is() -> None:
    class Overloaded(foreign.LMServerError):
        pass

    try:
        assert type(to_dspex_error(Overloaded("busy"))) is errors.LMServerError
    finally:
        del Overloaded


def test_a_parse_error_becomes_a_reply_error_with_what_could_be_read() -> None:
    signature = dspy.Signature("q -> a, b")
    error = to_dspex_error(
        dspy.AdapterParseError("ChatAdapter", signature, "[[ ## a ## ]]\n1", parsed_result={"a": "1"})
    )
    assert isinstance(error, errors.ReplyError)
    assert (error.reply, error.fields) == ("[[ ## a ## ]]\n1", ["a"])


def test_anything_else_is_a_remote_error_with_its_traceback() -> None:
    def broken() -> None:
        raise KeyError("answer")

    with pytest.raises(KeyError) as raised:
        broken()
    error = to_dspex_error(raised.value)

    assert isinstance(error, errors.RemoteError)
    assert error.type == "KeyError"
    assert "in broken" in error.traceback


def test_an_error_of_ours_stays_itself() -> None:
    ours = errors.ConfigError("no", code="bad-lm")
    assert to_dspex_error(ours) is ours


def test_secrets_are_cut_out_wherever_they_are() -> None:
    error = to_dspex_error(ValueError("key sk-abc refused for sk-abc"), secrets=("sk-abc",))
    assert "sk-abc" not in repr(error.to_dict())
    assert error.message == "ValueError: key *** refused for ***"
