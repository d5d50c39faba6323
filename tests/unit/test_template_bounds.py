"""Templates that grow a value without end: each ends with an error of ours, and none ends its process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dspex import Template, errors


def grow(first: str, times: int, step: str, end: str = "") -> str:
    """A value in a namespace, `n.x`, made anew so many times, and what is done with it then."""
    loop = f"{{% for i in range({times}) %}}{{% set n.x = {step} %}}{{% endfor %}}"
    return f"{{% set n = namespace(x={first}) %}}{loop}{end}"


def double(end: str) -> str:
    return grow("['a']", 64, "[n.x, n.x]", end)


TWICE = double("{% set m = n.x %}") + double("")
TEXT = "{% set a = 'x' * 1000000 %}"

VALUE, FUEL, DEPTH, OPERATION = "template-value", "template-fuel", "template-depth", "template-operation"

HOSTILE = {
    # lists that grow
    "x + x": (grow("[1]", 40, "n.x + n.x"), VALUE),
    "x + x, written out": ("{% set x = [1] %}" + "{% set x = x + x %}" * 40, VALUE),
    "constants that are added": ("{{ " + " + ".join(["[1] * 100000000"] * 40) + " }}", VALUE),
    "a constant as text": ("{{ ([1] * 100000000) ~ '' }}", VALUE),
    "constants that are compared": ("{{ ([1] * 100000000) == ([1] * 100000000) }}", VALUE),
    "x * n": ("{{ ([1] * 100000000) | list | length }}", VALUE),
    "a tuple times n": ("{% set n = 1 %}{{ ((n,) * 100000000) | length }}", FUEL),
    "tuples": (grow("(1, 2)", 40, "n.x + n.x"), FUEL),
    "chain": (grow("[1]", 40, "n.x | chain(n.x)"), VALUE),
    "chain of maps": (grow("{'a': 1}", 40, "n.x | chain(n.x)", "{{ n.x.b is defined }}"), "text"),
    "sum of lists": ("{{ ([[1]] * 100000) | sum(start=[]) | length }}", OPERATION),
    "sum of texts": ("{{ (['x' * 1000] * 10000) | sum(start='') | length }}", OPERATION),
    "range": ("{{ range(10 ** 9) | list | length }}", OPERATION),
    "batch": ("{{ [1] | batch(1000000000, 'x') | list | length }}", FUEL),
    "slice": ("{{ [1] | slice(1000000000) | list | length }}", FUEL),
    "split": ("{{ ('a,' * 10000000) | split(',') | list | length }}", FUEL),
    "lines": ("{{ ('\n' * 30000000) | lines | length }}", FUEL),
    "map": (TEXT + "{{ ([a] * 1000000) | map('upper') | list | length }}", VALUE),
    "zip": ("{{ range(90000) | zip(*([range(90000)] * 100)) | list | length }}", VALUE),
    # parts that are shared
    "x ~ ''": (double("{{ n.x ~ '' }}"), VALUE),
    "x | upper": (double("{{ n.x | upper }}"), VALUE),
    "x | join": (double("{{ n.x | join }}"), VALUE),
    "a map of itself": (grow("{'a': 1}", 40, "{'a': n.x, 'b': n.x}", "{{ n.x ~ '' }}"), VALUE),
    "dict()": (grow("1", 40, "dict(a=n.x, b=n.x)", "{{ n.x ~ '' }}"), VALUE),
    "x == y": (TWICE + "{{ n.x == m }}", VALUE),
    "x <= y <= z": (TWICE + "{{ m <= n.x <= m }}", VALUE),
    "x in y": (TWICE + "{{ n.x in [m] }}", VALUE),
    "x is eq(y)": (TWICE + "{{ n.x is eq(m) }}", VALUE),
    "sort": (TWICE + "{{ [n.x, m] | sort | length }}", VALUE),
    "a list as a key": ("{{ {[1]: 1} }}", OPERATION),
    "a list as an index": ("{{ {'a': 1}[[1]] is defined }}", OPERATION),
    "comparing over and over": (
        "{% set a = range(90000) | list %}{% set b = range(90000) | list %}"
        "{% set p = [a, a, a, a] %}{% set q = [b, b, b, b] %}"
        "{% for i in range(90000) %}{% set z = p == q %}{% endfor %}",
        FUEL,
    ),
    # depth
    "a list in a list": (grow("[]", 90_000, "[n.x]"), DEPTH),
    "a map in a map": (grow("{}", 90_000, "{'a': n.x}"), DEPTH),
    "a tuple in a tuple": (grow("1", 90_000, "(n.x, 1)"), DEPTH),
    "a slice of a slice": (grow("[1]", 90_000, "n.x[0:]", "{% for a in n.x %}{{ a }}{% endfor %}"), FUEL),
    "a slice backwards": (grow("[1]", 90_000, "n.x[::-1]", "{% for a in n.x %}{{ a }}{% endfor %}"), FUEL),
    "x + []": (grow("[1]", 90_000, "n.x + []", "{{ n.x }}"), FUEL),
    "a batch of a batch": (grow("[1]", 60_000, "n.x | batch(1)"), DEPTH),
    "a namespace in a namespace": (grow("1", 90_000, "namespace(x=n.x)"), OPERATION),
    "namespaces, one by one": ("{% set a = 1 %}" + "{% set a = namespace(p=a) %}" * 20_000, OPERATION),
    "a loop in a loop": (
        grow("1", 60_000, "1").replace(
            "{% set n.x = 1 %}", "{% for y in [n.x] %}{% set n.x = loop %}{% endfor %}"
        ),
        OPERATION,
    ),
    "loops that keep each other": (
        "{% for a in [1] %}{% set l = loop %}{% for b in [1] %}{{ loop.changed(l) }}{% endfor %}{% endfor %}",
        OPERATION,
    ),
    "a namespace that holds itself": (
        "{% set n = namespace() %}{% set n.x = n %}{{ n ~ '' }}{{ n | upper }}",
        OPERATION,
    ),
    "a namespace in a list of its own": ("{% set n = namespace() %}{% set n.x = [n] %}{{ n.x }}", OPERATION),
    "namespaces that hold each other": (
        "{% set n = namespace() %}{% set m = namespace(x=n) %}{% set n.x = m %}{{ n == m }}",
        OPERATION,
    ),
    # texts
    "x ~ x": (grow("'ab'", 64, "n.x ~ n.x"), FUEL),
    "texts that are added": (grow("'ab'", 64, "n.x + n.x"), FUEL),
    "a text times n": ("{{ 'a' * 10 ** 9 }}", FUEL),
    "replace": (TEXT + "{{ a | replace('x', a) | length }}", FUEL),
    "replace of nothing": (TEXT + "{{ a | replace('', a) | length }}", FUEL),
    "join with a text": (TEXT + "{{ ([1] * 100000) | join(a) | length }}", FUEL),
    "join of texts": (TEXT + "{{ ([a] * 100000) | join | length }}", VALUE),
    "format with a width": ("{{ '%1000000000d' | format(1) | length }}", FUEL),
    "format with digits": ("{{ '%.1000000000f' | format(1) | length }}", FUEL),
    "format of one value": (TEXT + "{{ ('%(a)s' * 10000) | format(a=a) | length }}", VALUE),
    "format of many values": (TEXT + "{{ ('%s' * 10000) | format(*([a] * 10000)) | length }}", VALUE),
    "indent": ("{{ ('\n' * 1000000) | indent(1000000, true, true) | length }}", FUEL),
    "a block": (
        grow("'a'", 60, "1").replace(
            "{% set n.x = 1 %}", "{% set y %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = y %}"
        ),
        FUEL,
    ),
    "a macro": (
        "{% macro m(n, x) %}{% if n %}{{ m(n - 1, x ~ x) }}{% endif %}{{ x }}{% endmacro %}{{ m(24, 'ab') }}",
        DEPTH,
    ),
    # values that were given
    "a given list, shared": (grow("docs", 64, "[n.x, n.x]", "{{ n.x ~ '' }}"), VALUE),
    "a given list as text, in many lists": ("{{ ([docs] * 100000) | map('upper') | list | length }}", FUEL),
    "many given lists as one text": ("{{ ([docs] * 100000) | list | upper | length }}", FUEL),
    "many given lists joined": ("{{ ([docs] * 100000) | join | length }}", FUEL),
    "a given list as text, over and over": (
        "{% for i in range(90000) %}{% set x = docs ~ '' %}{% endfor %}",
        FUEL,
    ),
}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """How each of the templates ended."""
    script = Path(__file__).parents[1] / "support" / "hostile_templates.py"
    sources = json.dumps({name: source for name, (source, _) in HOSTILE.items()})
    done = subprocess.run([sys.executable, script], input=sources, capture_output=True, text=True, check=True)
    outcomes: dict[str, str] = json.loads(done.stdout)
    return outcomes


@pytest.mark.skipif(sys.platform != "linux", reason="bounds the address space as Linux does")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_template_that_grows_without_end_ends_with_an_error(name: str, outcomes: dict[str, str]) -> None:
    assert outcomes[name] == HOSTILE[name][1]


@pytest.mark.parametrize("written", ["", "|json", "|string", "|text|length", "|numbered"])
def test_the_text_of_a_value_is_bounded_too(written: str) -> None:
    source = grow("['a']", 12, "[n.x, n.x]", f"{{{{ n.x{written} }}}}")
    Template(source).render()
    with pytest.raises(errors.TemplateError) as caught:
        Template(source, max_output=10_000).render()
    assert caught.value.code == "template-output"


def test_a_value_may_be_as_large_as_the_output() -> None:
    source = "{% set x = ['x' * 1000000] * 40 %}{{ x | length }}"
    with pytest.raises(errors.TemplateError) as caught:
        Template(source).render()
    assert (caught.value.code, caught.value.span) == ("template-value", (11, 31))
    assert Template(source, max_output=50_000_000).render() == "40"


FINE = [
    ("{% set n = namespace(x=[]) %}{% for i in range(2000) %}{% set n.x = n.x + [i] %}{% endfor %}"
     "{{ n.x | length }}{{ n.x[-1] }}", "20001999"),
    ("{{ [1, 2] + [3] }}{{ [1] * 3 }}{{ (1, 2) + (3,) }}{{ 'a' + 'b' }}{{ 1 + 2.5 }}",
     "[1, 2, 3][1, 1, 1][1, 2, 3]ab3.5"),
    ("{{ [1, 2] == [1, 2] }}{{ (1, 2) == [1, 2] }}{{ 1 < 2 < 3 }}{{ [1] in [[1]] }}", "TrueFalseTrueTrue"),
    ("{{ 'a' ~ 1 ~ none ~ [1] ~ 1e20 }}", "a1None[1]1e+20"),
    ("{% set a, (b, c) = 1, (2, 3) %}{{ a }}{{ b }}{{ c }}", "123"),
    ("{% for k, v in {'a': 1, 'b': [2]} | items %}{{ k }}{{ v }}{% endfor %}", "a1b[2]"),
    ("{% for a in [[1, [2, [3]]]] recursive %}{{ loop(a) if a is sequence else a }}{% endfor %}", "123"),
    ("{% macro m(x) %}<{{ x }}{{ caller() }}>{% endmacro %}{% call m([1]) %}!{% endcall %}", "<[1]!>"),
    ("{% set y | upper %}a{% endset %}{{ y }}{% filter replace('a', 'b') %}a{% endfilter %}", "Ab"),
    ("{{ [3, 1, 2] | sort | map('string') | join('-') }}{{ [1, 2, 3] | sum }}", "1-2-36"),
    ("{{ {'b': 1, 'a': 2} | dictsort }}{{ [{'k': 1}, {'k': 2}] | map(attribute='k') | list }}",
     '[["a", 2], ["b", 1]][1, 2]'),
    ("{% for a in [1, 2] %}{{ loop.cycle('x', 'y') }}{{ loop.changed(a) }}{% endfor %}", "xTrueyTrue"),
    ("{{ [1, 2, 3][1:] }}{{ 'abc'[1:] }}{{ [1, 2, 3][::-1] }}{{ range(3)[1] }}", "[2, 3]bc[3, 2, 1]1"),
    ("{% with a = [1], b = a %}{{ a }}{{ b }}{% endwith %}", "[1][1]"),
    ("{{ '%s-%(a)s' if false else '%d' | format(3) }}", "3"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "text"), FINE)
def test_what_is_bounded_means_what_it_meant(source: str, text: str) -> None:
    assert Template(source).render(a=1) == text


def test_names_are_found_wherever_they_stand() -> None:
    source = """
{{ a[b:c] }}{% for x in d if e %}{{ x }}{{ loop.index }}{% else %}{{ f }}{% endfor %}
{% set g | replace(h, i) %}{{ j }}{% endset %}{{ g }}
{% macro k(l, m=n) %}{{ l }}{{ m }}{{ caller() }}{{ o }}{% endmacro %}
{% call k(p, *q, r=s, **t) %}{{ u }}{% endcall %}
{{ v[w].x is eq(y) }}{{ {z: [aa, (bb,)]} | join(cc) }}
{% with dd = ee %}{{ dd }}{% endwith %}{% filter indent(ff) %}{{ gg }}{% endfilter %}
{% if hh < ii < jj %}{{ kk ~ ll + mm if nn else -oo }}{% endif %}
{% set pp, qq = rr %}{{ pp }}{{ qq }}{{ namespace(a=ss) }}
"""
    given = "a b c d e f h i j n o p q s t u v w y z aa bb cc ee ff gg hh ii jj kk ll mm nn oo rr ss"
    assert set(Template(source).variables) == set(given.split())


def test_a_lookup_that_raises_ends_the_rendering_there() -> None:
    reached = []

    class Broken:
        def __str__(self) -> str:
            raise ZeroDivisionError("mine")

    class Later:
        def __str__(self) -> str:
            reached.append(self)
            return ""

    sources = [
        "{{ x | default('d') }}{{ later }}",
        "{% if x is defined %}{% endif %}{{ later }}",
        "{{ y[0] is defined }}{{ later }}",
        "{{ d.x is undefined }}{{ later }}",
        "{% for k in k %}{{ k }}{% endfor %}{{ later }}",
    ]
    for source in sources:
        with pytest.raises(ZeroDivisionError, match="mine"):
            Template(source).render(
                x=Broken(), y=[Broken()], d={"x": Broken()}, k={Broken(): 1}, later=Later()
            )
    assert not reached


def test_a_value_that_raises_inside_a_filter_reaches_the_caller() -> None:
    class Broken:
        def __str__(self) -> str:
            raise ZeroDivisionError("mine")

        __repr__ = __str__

    for source in (
        "{{ x ~ '' }}",
        "{{ x | upper }}",
        "{{ x | join }}",
        "{{ [x] | upper }}",
        "{{ [x] ~ '' }}",
    ):
        with pytest.raises(ZeroDivisionError, match="mine"):
            Template(source).render(x=[Broken()])


def test_what_a_value_says_is_not_taken_for_a_limit() -> None:
    with pytest.raises(errors.TemplateError) as caught:
        Template("{{ [1] | batch(**{'recursion limit exceeded': 1}) }}").render()
    assert caught.value.code == "template-operation"
