"""Hypothesis strategies for the text of signatures: a grammar of valid ones, and mistakes made in them."""

from __future__ import annotations

from hypothesis import strategies as st

NAMES = [
    "a",
    "b2",
    "question",
    "camelCase",
    "HTMLPage",
    "text2number",
    "a_",
    "b__c",
    "iOS",
    "userID2",
    "match",
    "type",
    "copy",
    "json",
    "x1y2",
    "été",
    "straße",
    "größe",
    "名前",
    "\u03a3\u03b1\u03c2",
    "\ufb01n",
    "\u017ft",
    "\u01c6a",
    "\u1fb3x",
    "x\u0663y",
    "\u2160\u2161",
    "\uff41\uff42",
    "ÅÅ",
    "i\u0307x",
    "ŉa",
    "x\u0301y",
]
BAD_NAMES = [
    "class",
    "None",
    "_a",
    "fields",
    "instructions",
    "1a",
    "a-b",
    "a.b",
    "\uff41 b",
    "model_config",
    "__x",
    "\u2028",
]
SIMPLE = [
    "str",
    "int",
    "float",
    "bool",
    "complex",
    "bytes",
    "Any",
    "NoneType",
    "list",
    "dict",
    "tuple",
    "set",
    "frozenset",
    "Text",
    "typing.Any",
    "datetime.date",
    "uuid.UUID",
    "decimal.Decimal",
    "typing.Text",
]
BAD_TYPES = [
    "Nope",
    "object",
    "bytearray",
    "List",
    "Union",
    "5",
    "'str'",
    "None.x",
    "(int, str)",
    "[int]",
    "f()",
    "int & str",
    "-1",
    "...",
    "Optional[()]",
    "dict[str]",
    "Literal[-1]",
    "lambda: 0",
    "int[str]",
    "typing.int",
    "datetime.nope",
    "not int",
    "{}",
    "()",
    "Optional[int, str]",
    "list[3]",
    "Annotated[int]",
    "a.b",
    "int if 1 else 2",
    "*int",
]
JUNK = [*"()[]{},:=|.'\"\\#-+*/&;@!?$`~<>%^ \n\0", "->", "...", "or", " x ", "1", "é", "\u00a0", "\ufeff"]
BLANKS = st.sampled_from(["", "", "", " ", "  ", "\n", "\t", "\r\n", " \\\n", " # note\n", "\f"])

_string = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6).filter(
    lambda s: "->" not in repr(s)
)
_constants = st.one_of(
    _string.map(repr),
    _string.map(lambda s: '"""' + s.replace("\\", "").replace('"', "") + '"""').filter(
        lambda s: "->" not in s
    ),
    st.text("abc\\n'\"", max_size=4).map(lambda s: "r" + repr(s.replace("\\", "").replace("'", ""))),
    st.integers(0, 10**30).map(str),
    st.integers(0, 10**20).map(hex),
    st.integers(0, 999).map(lambda n: f"0b{n:b}"),
    st.integers(0, 10**12).map(lambda n: f"{n:_}"),
    st.floats(0, allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(
        [
            "True",
            "False",
            "None",
            "b'x'",
            "rb'\\d'",
            'B"\\x41"',
            "'x' 'y'",
            "u'z'",
            "1e400",
            ".5",
            "5.",
            "1_0.0_1e-3",
            "0o17",
            "00",
            "'\\101'",
            "'\\u00e9'",
            "'\\q'",
            "'a\\\nb'",
            "'''a\nb'''",
            "'tab\\t'",
        ]
    ),
)
literals = st.one_of(
    st.lists(_constants, min_size=1, max_size=4).map(lambda items: f"Literal[{', '.join(items)}]"),
    st.lists(_constants, min_size=2, max_size=3).map(lambda items: f"Literal[({', '.join(items)})]"),
    _constants.map(lambda item: f"Literal[Literal[{item}], 'other']"),
    _constants.map(lambda item: f"typing.Literal[{item},]"),
)


def _nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    one = st.sampled_from(
        [
            "list[{}]",
            "List[{}]",
            "set[{}]",
            "Set[{}]",
            "frozenset[{}]",
            "FrozenSet[{}]",
            "Optional[{}]",
            "{} | None",
            "None | {}",
            "Union[{}]",
            "Union[{}, None]",
            "tuple[{}]",
            "tuple[{}, ...]",
            "Tuple[{}, ...]",
            "({})",
            "typing.List[{}]",
            "typing.Optional[{}]",
            "Sequence[{}]",
            "Iterable[{}]",
            "list[{},]",
        ]
    )
    two = st.sampled_from(
        [
            "dict[{}, {}]",
            "Dict[{}, {}]",
            "tuple[{}, {}]",
            "Tuple[{}, {}]",
            "Union[{}, {}]",
            "{} | {}",
            "Optional[{} | {}]",
            "Mapping[{}, {}]",
            "dict[({}, {})]",
            "typing.Union[{}, {}]",
            "({}) | {}",
        ]
    )
    return st.one_of(
        st.tuples(one, inner).map(lambda pair: pair[0].format(pair[1])),
        st.tuples(two, inner, inner).map(lambda parts: parts[0].format(*parts[1:])),
        st.tuples(inner, _string.map(repr)).map(lambda pair: f"Annotated[{pair[0]}, {pair[1]}]"),
    )


types = st.recursive(st.one_of(st.sampled_from(SIMPLE), st.just("None"), literals), _nested, max_leaves=4)
hints: st.SearchStrategy[str | None] = st.one_of(st.none(), types)


@st.composite
def fields(draw: st.DrawFn, names: list[str]) -> str:
    parts = []
    for name in names:
        annotation = draw(hints)
        text = f"{draw(BLANKS)}{name}{draw(BLANKS)}"
        parts.append(text if annotation is None else f"{text}:{draw(BLANKS)}{annotation}{draw(BLANKS)}")
    defaults = draw(st.integers(0, 8))
    if parts and defaults == 0:
        parts[-1] += draw(st.sampled_from(["= 5", "=None", " = 'x'", "= [1, {'a': 2}]", "= -1.5"]))
    comma = "," if bool(parts) and draw(st.booleans()) else ""
    return ",".join(parts) + comma


@st.composite
def signatures(draw: st.DrawFn) -> str:
    """A signature that follows the grammar; DSPy may still refuse what its types mean."""
    names = draw(st.lists(st.sampled_from(NAMES), max_size=5, unique=True))
    cut = draw(st.integers(0, len(names)))
    return f"{draw(fields(names[:cut]))}{draw(BLANKS)}->{draw(BLANKS)}{draw(fields(names[cut:]))}"


@st.composite
def mistakes(draw: st.DrawFn) -> str:
    """A signature with something wrong put into it, or cut out of it."""
    text = draw(signatures())
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(text)))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            text = text[:at] + text[at + draw(st.integers(1, 4)) :]
        elif kind == 1:
            junk = st.sampled_from(
                [
                    *"()[]{},:=|.'\"\\#-+*/&;@!?$`~<>%^ \n\0",
                    "->",
                    "...",
                    "or",
                    " x ",
                    "1",
                    "é",
                    "\u00a0",
                    "\ufeff",
                ]
            )
            text = text[:at] + draw(junk) + text[at:]
        elif kind == 2:
            text = text.replace(":", f": {draw(st.sampled_from(BAD_TYPES))} ,", 1)
        else:
            text = f"{draw(st.sampled_from(BAD_NAMES))}, {text}"
    return text
