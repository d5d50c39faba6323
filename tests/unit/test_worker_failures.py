from __future__ import annotations

import dspy
import pytest
from dspy.utils import exceptions as foreign

from dspex import errors
from dspex.worker.failures import to_dspex_error
from dspex.worker.lm_failures import LM_ERRORS


def every_subclass(cls: type) -> set[type]:
    return {cls}.union(*map(every_subclass, cls.__subclasses__()))


def test_every_lm_error_of_dspy_has_a_row() -> None:
    assert set(LM_ERRORS) == every_subclass(foreign.LMError)


@pytest.mark.parametrize("cls", LM_ERRORS, ids=lambda cls: cls.__name__)
def test_an_lm_error_keeps_what_programs_need(cls: type[foreign.LMError]) -> None:
    error = to_dspex_error(cls(message="went wrong", retry_after=2.5, model="openai/x"))

    assert type(error) is LM_ERRORS[cls]
    assert isinstance(error, errors.LMError)
    assert error.model == "openai/x"
    assert error.hint
    # A key that is not there, and a connection that broke, are not in anybody's words.
    assert "went wrong" in error.message or error.code in ("lm-no-key", "lm-connection")
    if type(error) is errors.LMRateLimitError:
        assert error.retry_after == 2.5


@pytest.mark.parametrize("cls", LM_ERRORS, ids=lambda cls: cls.__name__)
def test_the_status_of_an_answer_says_more_than_the_class(cls: type[foreign.LMError]) -> None:
    error = to_dspex_error(cls(message="slow down", status=429, retry_after=2.5, model="openai/x"))

    code, does = {
        "ContextWindowExceededError": ("lm-context-length", "says the prompt is too long for the model"),
        "LMBillingError": ("lm-billing", "says the account is not paid for"),
    }.get(cls.__name__, ("lm-rate-limit", "asks to slow down"))
    assert error.code == code
    assert error.message == f"the server of openai/x {does} (HTTP 429): slow down"


def test_advice_of_a_client_that_the_caller_does_not_see_is_left_out() -> None:
    for words in (
        "slow down\n\n  To fix:\n    - Retry in your application layer (lm15 never retries for you)\n",
        "litellm.RateLimitError: RateLimitError: OpenAIException - slow down",
    ):
        error = to_dspex_error(foreign.LMRateLimitError(words, model="openai/x", status=429))
        assert error.message == "the server of openai/x asks to slow down (HTTP 429): slow down"


def test_a_failure_that_was_raised_while_another_was_handled_is_not_taken_for_it() -> None:
    def ask_again() -> None:
        try:
            raise foreign.LMTransportError("no such host") from OSError("gone")
        except foreign.LMError:
            raise foreign.LMServerError("busy")  # noqa: B904 - the context is the point

    with pytest.raises(foreign.LMServerError) as raised:
        ask_again()

    assert type(to_dspex_error(raised.value)) is errors.LMServerError


def test_a_key_at_the_place_where_words_are_cut_off_does_not_show_its_beginning() -> None:
    words = "x" * 495 + "sk-0123456789abcdef"
    error = to_dspex_error(foreign.LMServerError(words, status=500), secrets=("sk-0123456789abcdef",))
    assert "sk-" not in repr(error.to_dict())


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


def test_an_error_of_our_own_below_dspys_is_the_error() -> None:
    ours = errors.LMConnectionError("it broke", code="lm-cut", model="openai/x")
    theirs = foreign.LMTransportError(message="it broke", model="openai/x")
    theirs.__cause__ = RuntimeError("of the engine")
    theirs.__cause__.__cause__ = ours
    assert to_dspex_error(theirs) is ours
