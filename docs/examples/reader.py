"""What the demo's stand-in for a model knows: which sentence tells, and which words in it were asked for.

No model and no knowledge: it counts shared words, and knows for each kind of question the shape of its
answers. It is right for nine of ten questions of the demo, so that what a way to run the program gets wrong
shows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from dspex.testing import Finding

__all__ = ["find"]

_STOP = frozenset(
    re.findall(
        r"\w+",
        """a about after all also an and any are as at be been before between but by can could did do does
        during each for from had has have he her him his how i if in into is it its many may more most much no
        not of on one or other our out over she so some such than that the their them then there these they
        this those to under until up was we were what when where which while who whom whose why will with
        would year you your name called known""",
    )
)
_WORD = re.compile(r"[^\W_]+(?:['\u2019.\-][^\W_]+)*")
_SENTENCE_END = re.compile(
    r"(?<=[.!?])(?<!\b[A-Z]\.)(?<!\b(?:Dr|Mr|St|Jr)\.)(?<!\bMrs\.)\s+(?=[\"“(]?[A-Z0-9])"
)
_MONTH = "January|February|March|April|May|June|July|August|September|October|November|December"
_DATE = re.compile(
    rf"\b(?:(?:\d{{1,2}} )?(?:{_MONTH})(?: \d{{1,2}})?,? )?\d{{3,4}}(?: BCE| BC| AD)?\b"
    rf"|\b\d{{1,3}} (?:BCE|BC|AD)\b|\b\d{{1,2}}(?:st|nd|rd|th) century\b|\b\d{{1,2}} (?:{_MONTH})\b"
)
_COUNT_WORDS = (
    "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen"
    "|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|one hundred|a hundred"
)
_NUMBER = re.compile(
    r"(?<![\w.,])(?:\d[\d,]*(?:\.\d+)?(?: (?:million|billion|trillion|thousand))?"
    rf"|(?:{_COUNT_WORDS}))(?![\w])",
    re.IGNORECASE,
)
_UNIT = re.compile(r"\s?(?:%|°[CF]?|(?:(?:square|cubic|light|degrees) )?[a-zà-ÿ]+(?: per [a-z]+)?)")
_PARTICLE = r"(?:of the|of|the|de la|de|da|del|di|la|van der|van|von|al|and)"
_CAPITAL = r"[A-ZÀ-Þ][\w'\u2019\-]*(?:\.(?=\s[A-Z]))?"
_NAME = re.compile(rf"\b{_CAPITAL}(?:(?:\s{_PARTICLE})?\s{_CAPITAL})*")
_CALENDAR = frozenset(f"{_MONTH}|Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday".split("|"))
_PLACE_BEFORE = re.compile(r"\b(?:in|at|on|near|from|to|into|of|between)(?: the)? $")
_IS = re.compile(r"\b(?:is|was|are|were|means|became|remains)\b")
_NAMED = re.compile(r"\b(?:called|known as|named|nicknamed|abbreviated|written|symbol|titled|means) $")
_CLAUSE_END = re.compile(
    r"[,;:(]|\.$| (?:which|that|who|whose|where|when|while|because|but|and (?:is|was|it|has)|by which|in|at"
    r"|on|for|from|with|by|since|after|before|between|during|about) "
)


def find(question: str, passages: Sequence[str]) -> Finding:
    """The answer to a question, out of these passages."""
    sentence, confidence = _best_sentence(question, passages)
    return Finding(_span_for(question, sentence), sentence, confidence)


# --- which sentence -------------------------------------------------------------------------------------


def _stem(word: str) -> str:
    """A word without its commonest endings, so that "invented" meets "invention"."""
    word = word.lower().removesuffix("'s").removesuffix("\u2019s")
    for ending in (
        "ations",
        "ation",
        "ions",
        "ion",
        "ings",
        "ing",
        "ers",
        "ies",
        "ed",
        "er",
        "es",
        "or",
        "s",
        "e",
    ):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word


def _stems(text: str) -> set[str]:
    return {_stem(word) for word in _WORD.findall(text) if word.lower() not in _STOP}


def _best_sentence(question: str, passages: Sequence[str]) -> tuple[str, float]:
    """The sentence that shares most with the question, and the share of the question it covers."""
    asked = _stems(question)
    rows = [(sentence, index) for index, passage in enumerate(passages) for sentence in _sentences(passage)]
    if not rows:
        return "", 0.0
    known = [_stems(sentence) for sentence, _ in rows]
    around = [_stems(passage) for passage in passages]
    # A word that few sentences have is a better sign of where the answer is.
    weight = {word: math.log(1 + len(rows) / (1 + sum(word in words for words in known))) for word in asked}
    subject = [_stems(" ".join(_NAME.findall(passage))) for passage in passages]
    total = sum(weight.values()) or 1.0

    def share(words: set[str]) -> float:
        return sum(weight[word] for word in asked & words) / total

    def score(row: int) -> tuple[float, int]:
        sentence, passage = rows[row]
        # The passage says whether the subject is right: its other sentences write "it" for it. So words of
        # the subject count once, for the passage; the sentence is chosen by the rest, and by holding anything
        # of the kind that is asked for.
        rest = known[row] - subject[passage]
        fits = 0.3 if any(_of_kind(question, sentence)) else 0.0
        return share(around[passage]) + 0.2 * share(known[row]) + share(rest) + fits, -row

    best = max(range(len(rows)), key=score)
    sentence, passage = rows[best]
    covered = (share(known[best]) + share(known[best] | around[passage])) / 2
    return sentence, round(min(0.99, max(0.01, covered)), 2)


def _sentences(text: str) -> list[str]:
    return [part.strip() for line in text.splitlines() for part in _SENTENCE_END.split(line) if part.strip()]


# --- which words ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Candidate:
    text: str
    start: int
    bonus: float = 0.0


def _span_for(question: str, sentence: str) -> str:
    """The words of the sentence that answer the question, or else all of it."""
    candidates = list(_candidates(question, sentence))
    if not candidates:
        return sentence.rstrip(".")
    asked = _stems(question)
    shared = [match.start() for match in _WORD.finditer(sentence) if _stem(match[0]) in asked]

    def score(candidate: _Candidate) -> tuple[float, int]:
        near = sum(1 / (1 + abs(candidate.start - at) / 12) for at in shared)
        return near + candidate.bonus, -candidate.start

    return max(candidates, key=score).text


def _candidates(question: str, sentence: str) -> Iterator[_Candidate]:
    """The words of the sentence that the question may ask for: of its kind, or else all of them."""
    found = list(_of_kind(question, sentence))
    yield from found or _things(question, sentence)


def _of_kind(question: str, sentence: str) -> Iterator[_Candidate]:
    """The words of the kind that the question's own words ask for; none if it leaves the kind open."""
    asked = question.lower()
    for pattern, find in _KINDS:
        if pattern.search(asked):
            return find(question, sentence)
    return iter(())


def _dates(question: str, sentence: str) -> Iterator[_Candidate]:
    only_year = "year" in question.lower()
    for match in _DATE.finditer(sentence):
        if match[0] in question:
            continue
        year = re.search(r"\d{3,4}(?: BCE| BC| AD)?$", match[0])
        yield _Candidate(year[0] if only_year and year else match[0], match.start())


def _counts(question: str, sentence: str) -> Iterator[_Candidate]:
    counted = re.search(r"how (?:many|much) ([\w-]+)", question.lower())
    unit = _stem(counted[1]) if counted else None
    for match in _NUMBER.finditer(sentence):
        following = [_stem(word) for word in _WORD.findall(sentence[match.end() :])[:4]]
        if match[0] not in question and not re.search(r"[A-Z]\w* $", sentence[: match.start()]):
            year = bool(re.fullmatch(r"1\d{3}|20\d\d", match[0]))
            yield _Candidate(match[0], match.start(), 2.0 * (unit in following) - 1.0 * year)


def _measures(question: str, sentence: str) -> Iterator[_Candidate]:
    for candidate in _counts(question, sentence):
        unit = _UNIT.match(sentence, candidate.start + len(candidate.text))
        unwanted = unit is None or unit[0].strip() in _STOP
        bonus = candidate.bonus - 1.0 if unwanted else candidate.bonus
        yield _Candidate(
            candidate.text + ("" if unit is None or unwanted else unit[0]), candidate.start, bonus
        )


def _names(question: str, sentence: str) -> Iterator[_Candidate]:
    asked = {_stem(word) for word in _WORD.findall(question)}
    for match in _NAME.finditer(sentence):
        name, start = match[0], match.start()
        if start == 0:
            first, _, rest = name.partition(" ")
            if first.lower() in _STOP:
                name, start = rest, len(first) + 1
        words = [word for word in _WORD.findall(name) if word.lower() not in _STOP]
        if not words or words[0] in _CALENDAR or all(_stem(word) in asked for word in words):
            continue
        yield _Candidate(re.sub(r"['\u2019]s$", "", name), start)


def _persons(question: str, sentence: str) -> Iterator[_Candidate]:
    for candidate in _names(question, sentence):
        by = bool(re.search(r"\bby (?:[a-z]+ ){0,4}$", sentence[: candidate.start]))
        first = candidate.start < 5
        full = " " in candidate.text
        yield _Candidate(candidate.text, candidate.start, 1.0 * by + 0.5 * first + 0.5 * full)


def _places(question: str, sentence: str) -> Iterator[_Candidate]:
    for candidate in _names(question, sentence):
        placed = bool(_PLACE_BEFORE.search(sentence[: candidate.start]))
        yield _Candidate(candidate.text, candidate.start, 1.0 * placed)


def _things(question: str, sentence: str) -> Iterator[_Candidate]:
    """A name that the question does not have, what is called so, or the other side of an "is"."""
    asked = _stems(question)
    for candidate in _names(question, sentence):
        named = bool(_NAMED.search(sentence[: candidate.start]))
        yield _Candidate(candidate.text, candidate.start, 0.3 + 1.0 * named)
    for match in re.finditer(r"\b(?:called|known as|named(?! after)|nicknamed) ", sentence):
        yield _Candidate(_clause(sentence[match.end() :]), match.end(), 2.0)
    if re.search(r"\b(?:symbol|number)\b", question):
        for match in re.finditer(r"\b(?:symbol|number) (\w+)", sentence):
            yield _Candidate(match[1], match.start(1), 3.0)
    for match in re.finditer(r"\b(?:after|on|from)(?: mainly| the)? (?=\w)", sentence):
        if match[0].split()[0] in question.rstrip("?").split()[-2:]:
            name = _NAME.search(sentence, match.end())
            yield _Candidate(name[0] if name else _clause(sentence[match.end() :]), match.end(), 2.0)
    verb = _IS.search(sentence)
    if verb is None:
        return
    before, after = sentence[: verb.start()].strip(), sentence[verb.end() :].strip()
    said_before, said_after = len(_stems(before) & asked), len(_stems(after) & asked)
    if said_after > said_before:
        clause = re.split(r", (?:and|but) ", before)[-1]
        yield _Candidate(_bare(clause), 0, 1.2)
    else:
        yield _Candidate(_bare(_clause(after)), verb.end() + 1, 0.8)


def _clause(text: str) -> str:
    end = _CLAUSE_END.search(text)
    return _bare(text[: end.start()] if end else text)


def _bare(text: str) -> str:
    return re.sub(r"^(?:the|a|an) ", "", text.strip().rstrip("."), flags=re.IGNORECASE)


_KINDS: tuple[tuple[re.Pattern[str], Callable[[str, str], Iterator[_Candidate]]], ...] = (
    (re.compile(r"\bhow (?:many|much)\b"), _counts),
    (
        re.compile(
            r"\bhow (?:long|far|tall|high|deep|old|fast|wide|large|big|heavy|hot|cold)\b"
            r"|\bwhat (?:temperature|speed|height|length)\b"
        ),
        _measures,
    ),
    (re.compile(r"\bwhen\b|\b(?:what|which) (?:year|date|century|decade)\b"), _dates),
    (re.compile(r"\bwho(?:m|se)?\b"), _persons),
    (
        re.compile(
            r"\bwhere\b"
            r"|\b(?:what|which) (?:city|country|continent|ocean|sea|state|island|river|town|region)\b"
        ),
        _places,
    ),
)
