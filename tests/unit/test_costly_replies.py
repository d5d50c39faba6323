"""A reply costs time in proportion to its length, whatever it says: what would cost more is refused."""

from __future__ import annotations

import contextlib
import random
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex import ChatAdapter, JSONAdapter, XMLAdapter
from dspex._core import guess_json
from dspex.errors import ReplyError

ADAPTERS = {"chat": ChatAdapter, "json": JSONAdapter, "xml": XMLAdapter}

# With each of these json_repair, Python's parser or a search of ours took time that grew with the square of
# the text, or faster, or gave an error that is nobody's.
COSTLY = [
    *[
        "{",
        "[",
        "(",
        '"',
        "'",
        "`",
        "*",
        "-",
        "- ",
        "1,",
        '("',
        '["x',
        '"a',
        '""a',
        '{"a": "',
        "{{1;}",
        "(1, ",
        "[[ ##",
    ],
    *[
        '<![CDATA[{"answer": ',
        '{"answer": ',
        "'{'",
        '"b", ',
        "},{",
        "/*",
        "#{",
        "//[",
        '\\"',
        "“",
        "„",
        '{x: "',
        '": "',
    ],
    *[
        'a"ba,',
        "u'1,<a>",
        '[1, \n"a.',
        "1 if 1 else ",
        "lambda:",
        "not ",
        "1+",
        "~",
        "f'{",
        "9",
        "\x00",
        "not[",
        '"a" ',
    ],
]
TYPES = [
    "list[str]",
    "dict[str, int]",
    "float",
    "bool",
    "int",
    "Literal['x', 'y']",
    "Optional[list[int]]",
    "Any",
]


def reply_of(layout: str, value: str) -> str:
    return {
        "chat": f"[[ ## answer ## ]]\n{value}",
        "json": f'{{"answer": {value}',
        "xml": f"<answer>{value}</answer>",
    }[layout]


def cost(plan: Any, reply: str) -> float:
    """Seconds of processor time."""
    start = time.process_time()
    with contextlib.suppress(ReplyError):
        plan.parse(reply)
    return time.process_time() - start


@pytest.mark.parametrize("parsing", ["dspy", "tolerant"])
@pytest.mark.parametrize("layout", ADAPTERS)
def test_every_reply_for_every_type_is_a_value_or_a_reply_error(layout: str, parsing: Any) -> None:
    for kind in TYPES:
        plan = ADAPTERS[layout](parsing=parsing).compile(f"question -> answer: {kind}")
        for piece in COSTLY:
            for text in (piece * (3_000 // len(piece)), piece):
                for reply in (text, reply_of(layout, text)):
                    with contextlib.suppress(ReplyError):
                        assert plan.parse(reply).keys() == {"answer"}


@pytest.mark.parametrize("parsing", ["dspy", "tolerant"])
@pytest.mark.parametrize("layout", ADAPTERS)
def test_four_times_the_garbage_takes_four_times_the_time(layout: str, parsing: Any) -> None:
    # What takes but a few milliseconds says nothing, and on a busy machine it takes twice as many.
    # Eight times that is still no harm.
    least = 0.012
    for kind in ("list[str]", "float", "Optional[list[int]]"):
        plan = ADAPTERS[layout](parsing=parsing).compile(f"question -> answer: {kind}")
        cost(plan, reply_of(layout, "{{1;}"))
        for piece in COSTLY:
            short, long = (reply_of(layout, piece * (size // len(piece))) for size in (5_000, 20_000))
            taken = cost(plan, long)
            if taken >= 8 * least:
                # Look again: something else may have had the processor.
                taken = min(taken, cost(plan, long), cost(plan, long))
                assert taken < 8 * max(least, cost(plan, short)), (kind, piece)


@pytest.mark.parametrize("parsing", ["dspy", "tolerant"])
@pytest.mark.parametrize(
    ("adapter", "kind", "reply"),
    [
        (ChatAdapter, "dict[str, int]", "[[ ## answer ## ]]\n<![CDATA[" + '{"answer": ' * 1800),
        (ChatAdapter, "list[str]", "[[ ## answer ## ]]\n[" + '"' + '"a' * 9_000),
        (JSONAdapter, "str", '["' + '"a' * 9_000),
        (JSONAdapter, "list[str]", '{"answer": ' + '("' * 9_000),
        (XMLAdapter, "list[str]", "<answer>[" + '"x[' * 6_000 + "</answer>"),
    ],
)
def test_a_reply_that_would_take_too_many_steps_says_so(
    adapter: Any, kind: str, reply: str, parsing: Any
) -> None:
    with pytest.raises(ReplyError) as raised:
        adapter(parsing=parsing).parse(f"question -> answer: {kind}", reply)
    assert raised.value.code == "reply-too-costly"
    assert raised.value.reply == reply
    assert raised.value.field in (None, "answer")


def test_a_stream_of_garbage_is_told_and_then_refused() -> None:
    stream = ChatAdapter().stream("question -> answer: list[str]")
    reply = '[[ ## answer ## ]]\n["' + '"a' * 9_000
    for at in range(0, len(reply), 1_000):
        stream.feed(reply[at : at + 1_000])
    stream.finish()
    with pytest.raises(ReplyError) as raised:
        stream.read()
    assert raised.value.code == "reply-too-costly"


@pytest.mark.parametrize("text", ["-" * 5_976, "\x00", "(" * 300, "-" * 100_000, "not " * 3_000])
@pytest.mark.parametrize("kind", ["float", "int", "bool", "list[int]"])
def test_what_pythons_parser_cannot_hold_is_no_value(kind: str, text: str) -> None:
    with pytest.raises(ReplyError) as raised:
        ChatAdapter().parse(f"question -> answer: {kind}", f"[[ ## answer ## ]]\n{text}")
    assert raised.value.code == "reply-field-value"


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("list[int]", "1, 2, 3", [1, 2, 3]),
        ("int", "1_000", 1000),
        ("int", "0x1f", 31),
        ("list[int]", "set()", []),
        ("float", ".5", 0.5),
        ("Any", "'a' \"b\"", "ab"),
        ("Any", "1,\t'x'", (1, "x")),
        ("Any", "1 or 2", "1 or 2"),
    ],
)
def test_a_constant_of_pythons_is_read(kind: str, text: str, value: Any, recwarn: Any) -> None:
    adapter = ChatAdapter(parsing="dspy")
    assert adapter.parse(f"q -> a: {kind}", f"[[ ## a ## ]]\n{text}") == {"a": value}
    assert not recwarn.list


# --- counted ----------------------------------------------------------------------------------------------

# From rust/core/src/response/guess: what any text may take, and each of its characters.
LEAST, PER_CHAR = 1_000_000, 500
FRAGMENTS = [
    *"{}[](),:\"'\\\n #/*`ae1-.",
    *[
        "“",
        "„",
        "```json",
        '\\"',
        '"a": ',
        '{"a": ',
        '", "',
        "true",
        "//",
        "/*",
        "[x",
        '"}',
        "},",
        "é",
        "{x: ",
    ],
]


@given(st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=5).map("".join), st.sampled_from([300, 900]))
def test_no_shape_of_text_takes_more_steps_than_its_length_allows(fragment: str, count: int) -> None:
    for text in (fragment * count, "[" + fragment * 2 * count, '{"a": "' + fragment * 2 * count):
        try:
            steps = guess_json(text)[1]
        except (ReplyError, RecursionError, ValueError):
            continue
        assert steps <= LEAST + PER_CHAR * len(text)


def test_an_honest_reply_takes_a_fifth_of_what_it_may_at_most() -> None:
    some = random.Random(3)
    words = [
        "the",
        "quick",
        '"brown"',
        "fox,",
        "it's",
        "[a]",
        "test:",
        "{x}",
        "on;",
        "a/b",
        "#",
        "'yes'",
        "(5",
        "km)\n",
    ]
    for length in (100, 1_000, 8_000, 20_000):
        prose = " ".join(some.choice(words) for _ in range(length // 5))
        prose = prose[:length]
        plain = prose.replace('"', "").replace("'", "")
        for text in (
            f'{{"answer": "{prose}", "score": 3}}',
            f'{{"answer": "{plain}", "score": 3',
            f"{{'answer': '{plain}', 'score': 3,}}",
            f'Sure: ["{plain[: length // 2]}", "{plain[length // 2 :]}" "more"]',
        ):
            assert guess_json(text)[1] <= (LEAST + PER_CHAR * len(text)) / 5, text[:80]
