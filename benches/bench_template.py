"""Rendering a template beside its peers, in one run: `python benches/bench_template.py`.

The template has six variables, a loop of eight and makes 1,355 characters. Absolute figures wander
between machines and runs; what counts is the column of ratios. Every peer's text is checked before it is
timed. A peer that is not installed is left out.
"""

from __future__ import annotations

import importlib.util
import statistics
import timeit
from collections.abc import Callable
from typing import Any

from dspex import Template, _core
from dspex.template import FUEL, MAX_DEPTH, MAX_OUTPUT

POLICY = (
    "Follow the policy below to the letter, and say so where it does not cover the question. Never promise "
    "what it does not promise, and never ask for a password. "
)
RULES = (
    "Keep it short, name the passages you used, and do not invent anything that is not written there. If two "
    "passages contradict each other, say which one is newer. "
    "End with the name of the one who can help if it fails. "
)
SOURCE = (
    "You answer customers of {{ product }}.\n"
    + POLICY
    + "\n\nCustomer: {{ name }} ({{ tier }})\nQuestion: {{ question }}\n\n"
    "{% for passage in passages %}[{{ loop.index }}] {{ passage.title }}: {{ passage.text }}\n{% endfor %}\n"
    "Answer in {{ language }}. " + RULES
)
VALUES: dict[str, Any] = {
    "product": "Acme Cloud",
    "name": "Jo Doe",
    "tier": "gold",
    "question": "How do I rotate the key of a service account, and when should I?",
    "language": "English",
    "passages": [
        {
            "title": f"Passage {i}",
            "text": "Keys can be rotated in the console, under Security, at any time; old ones end in a day.",
        }
        for i in range(8)
    ],
}
ROUNDS = 300
CALLS = 50


def by_hand(
    product: str, name: str, tier: str, question: str, language: str, passages: list[dict[str, str]]
) -> str:
    listed = "".join(f"[{i}] {p['title']}: {p['text']}\n" for i, p in enumerate(passages, 1))
    return (
        f"You answer customers of {product}.\n{POLICY}\n\nCustomer: {name} ({tier})\nQuestion: {question}\n\n"
        f"{listed}\nAnswer in {language}. {RULES}"
    )


def contenders() -> dict[str, Callable[[], str]]:
    ours = Template(SOURCE)
    found: dict[str, Callable[[], str]] = {
        "dspex.Template": lambda: ours.render(VALUES),
        "f-string by hand": lambda: by_hand(**VALUES),
    }
    if importlib.util.find_spec("jinja2"):
        import jinja2

        jinja = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
        compiled = jinja.from_string(SOURCE)
        found["Jinja2"] = lambda: compiled.render(VALUES)
    if importlib.util.find_spec("minijinja"):
        import minijinja

        other = minijinja.Environment(templates={"t": SOURCE}, undefined_behavior="strict")
        found["minijinja for Python"] = lambda: other.render_template("t", **VALUES)
    return found


def main() -> None:
    if _core._debug_build:
        raise SystemExit("build the release extension first: make build")
    runs = contenders()
    expected = by_hand(**VALUES)
    for name, run in runs.items():
        assert run() == expected, name
    # Rounds take turns, so that a slow moment of the machine falls on all of them.
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            taken[name].append(timeit.timeit(run, number=CALLS) / CALLS * 1e6)
    ours = statistics.median(taken["dspex.Template"])
    print(f"{len(expected)} characters, medians of {ROUNDS} rounds of {CALLS} renderings")
    for name, times in sorted(taken.items(), key=lambda item: statistics.median(item[1])):
        median = statistics.median(times)
        print(f"{name:24}{median:8.2f} us{median / ours:8.2f} x")
    compiling = timeit.repeat(
        lambda: _core.Template(SOURCE, fuel=FUEL, max_output=MAX_OUTPUT, max_depth=MAX_DEPTH),
        number=20,
        repeat=ROUNDS,
    )
    print(f"{'compiling, not cached':24}{statistics.median(compiling) / 20 * 1e6:8.2f} us")


if __name__ == "__main__":
    main()
