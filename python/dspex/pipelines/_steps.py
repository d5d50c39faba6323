"""Steps as their author writes them: data that says what runs, and nothing about how it is run.

::

    Step
    ├── Call       a module, a function, or a pipeline with options of its own
    ├── Chain      one step after the other                  a | b
    ├── Parallel   branches side by side                     parallel(docs=..., facts=...), a & b
    ├── Branch     one of two                                branch(condition, then, otherwise)
    ├── Map        one step for every item of a list         map(step, over="docs", item="doc")
    └── Loop       one step again and again                  loop(step, until=..., at_most=3)

Every step has `Options`: its name, how its fields are called, and the modifiers, which wrap it in one order,
from outside in: cache, fallback, retry, timeout. All of it is immutable, so that one step may be part of
several pipelines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Self, TypedDict

from dspex._composition import Composable, Composition
from dspex._timeouts import check_seconds, shown
from dspex.errors import PipelineError, did_you_mean
from dspex.modules import Module
from dspex.pipelines._conditions import Condition
from dspex.router import Retry

__all__ = [
    "Branch",
    "Call",
    "Chain",
    "Loop",
    "Map",
    "Options",
    "Parallel",
    "Step",
    "StepOptions",
    "bad_step",
    "branch",
    "loop",
    "map",
    "mapped",
    "parallel",
    "step",
    "step_of",
]

MOST_ROUNDS: Final = 10_000
"""Rounds of a loop: beyond that it is a mistake, and its rows would fill a store."""


class StepOptions(TypedDict, total=False):
    """What every step can be told.

    Attributes:
        name: What the step is called in paths. By default the first field that it gives, or the function's
            name.
        inputs: Which field goes into which input: `{"query": "question"}` gives the input `query` what the
            pipeline calls `question`. A dot reaches into a record: `"facts.answer"`. A list of names for what
            does not say itself what it takes.
        outputs: What the step gives: names for what a function returns (one name for its one value, several
            for a mapping of them), or new names, `{"answer": "draft"}`.
        pure: Whether it has no effect but what it returns, so that it may run beside other steps.
        thread: Whether a function that is not `async` runs in a thread, which is the default; False for
            one that is done at once.
        timeout: Seconds for each attempt.
        retry: How often it is tried, a count or a `dspex.router.Retry`.
        fallback: What runs when it has failed: a step, or several, one after the other.
        cache: Whether an outcome is kept and given again for equal inputs; seconds that it is kept, or a
            `dspex.pipelines.StepCache` to keep it in.
    """

    name: str | None
    inputs: Mapping[str, str] | Sequence[str] | None
    outputs: str | Sequence[str] | Mapping[str, str] | None
    pure: bool
    thread: bool | None
    timeout: float | None
    retry: int | Retry | None
    fallback: Any
    cache: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`StepOptions`, checked."""

    name: str | None = None
    inputs: Mapping[str, str] | None = None
    outputs: tuple[str, ...] | None = None
    renames: Mapping[str, str] | None = None
    pure: bool = False
    thread: bool | None = None
    timeout: float | None = None
    retry: Retry | None = None
    fallback: tuple[Step, ...] = ()
    cache: Any = None

    def over(self, given: Mapping[str, Any]) -> Options:
        """These options with others over them.

        Raises:
            PipelineError: If there is none of a name (`bad-step`), or a value makes no sense.
        """
        changes: dict[str, Any] = {}
        for name, value in given.items():
            if name not in StepOptions.__annotations__:
                raise bad_step(
                    f"a step has no option {name!r}",
                    did_you_mean(name, StepOptions.__annotations__).strip()
                    or f"it has {', '.join(StepOptions.__annotations__)}",
                )
            if value is not None:
                changes.update(_READERS[name](value))
        return replace(self, **changes) if changes else self

    @property
    def modified(self) -> bool:
        """Whether a modifier wraps the step."""
        return bool(self.timeout or self.retry or self.fallback or self.cache is not None)


NO_OPTIONS: Final = Options()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step(Composable):
    """What all kinds of steps have."""

    kind: ClassVar[str]
    options: Options = NO_OPTIONS

    def with_options(self, options: Mapping[str, Any]) -> Self:
        """The same step with these `StepOptions` over its own."""
        return replace(self, options=self.options.over(options))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call(Step):
    """One call of a module, a function or a pipeline."""

    kind = "call"
    target: Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chain(Step):
    """Steps one after the other."""

    kind = "chain"
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parallel(Step):
    """Branches side by side; one without a key gives its fields as they are."""

    kind = "parallel"
    branches: tuple[tuple[str | None, Step], ...]
    reduce: Callable[..., Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Branch(Step):
    """One of two steps, or one or none."""

    kind = "branch"
    condition: Condition | bool
    then: Step
    otherwise: Step | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Map(Step):
    """One step for every item of a list."""

    kind = "map"
    step: Step
    over: str
    item: str = "item"
    concurrency: int = 16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Loop(Step):
    """One step again and again."""

    kind = "loop"
    step: Step
    until: Condition
    at_most: int


# -- how they are written ---------------------------------------------------------------------------


def step(target: Any, /, **options: Any) -> Step:
    """A step with options; see `dspex.pipelines.StepOptions`.

    Args:
        target: What runs: a module, a pipeline, a function, or a step of any kind.
        **options: `name`, `inputs`, `outputs`, `pure`, `thread`, `timeout`, `retry`, `fallback`, `cache`.

    Raises:
        PipelineError: If it is nothing that runs, or an option makes no sense (`bad-step`).

    Example:
        ```python
        dspex.step(search, outputs="docs", inputs={"query": "question"}, retry=3, timeout=2)
        ```
    """
    return step_of(target).with_options(options)


def parallel(*beside: Any, reduce: Callable[..., Any] | None = None, **branches: Any) -> Step:
    """Steps that run side by side.

    A branch with a key gives one field, named by the key: the value of its one field, or a record of several.
    A branch without a key gives its fields as they are; two that give the same field are refused.

    Args:
        *beside: Branches without keys; or mappings of keys to branches, for keys that are no names of
            arguments.
        reduce: Makes one outcome of those of all branches, by their keys: `reduce(docs, facts)`. Its
            parameters are the branches' keys, or one that takes all values as a list: `reduce(*values)`.
        **branches: Branches by key.

    Raises:
        PipelineError: If there are none, or one is nothing that runs (`bad-step`).

    Example:
        ```python
        dspex.parallel(docs=search, facts=dspex.remote("dspy.ChainOfThought", "query -> facts: list[str]"))
        ```
    """
    found: list[tuple[str | None, Step]] = []
    for each in beside:
        if isinstance(each, Mapping):
            found += [(_key(key), step_of(branch)) for key, branch in each.items()]
        else:
            found.append((None, step_of(each)))
    found += [(key, step_of(branch)) for key, branch in branches.items()]
    if not found:
        raise bad_step("parallel has no branches", "write parallel(docs=search, facts=...)")
    keys = [key for key, _ in found if key is not None]
    for key in keys:
        if keys.count(key) > 1:
            raise bad_step(f"parallel has two branches with the key {key!r}", "name them apart")
    if reduce is not None and not callable(reduce):
        raise bad_step(f"reduce must be a function, not {shown(reduce)}", "write reduce=lambda a, b: ...")
    return Parallel(branches=tuple(found), reduce=reduce)


def branch(condition: Any, then: Any, otherwise: Any = None, /) -> Step:
    """One step or another, by a condition.

    A field that both give is there afterwards; one that only one gives is there if it was there before.

    Args:
        condition: A function of fields, by the names of its parameters, or an expression in the syntax of
            templates: `"confidence < 0.5"`.
        then: What runs where it holds.
        otherwise: What runs where it does not; nothing unless given.

    Raises:
        PipelineError: If a part is none (`bad-step`), or the condition can only come out one way
            (`unreachable`).
    """
    made = condition if isinstance(condition, bool) else Condition.of(condition)
    return Branch(
        condition=made, then=step_of(then), otherwise=None if otherwise is None else step_of(otherwise)
    )


def map(  # noqa: A001 - it is `dspex.map`
    step: Any, /, over: str, item: str = "item", concurrency: int = 16
) -> Step:
    """One step for every item of a list; each field that it gives becomes a list, in the items' order.

    Args:
        step: What runs for each.
        over: The field that has the items; a dot reaches into a record.
        item: What the step calls an item.
        concurrency: How many run at once, at most.

    Raises:
        PipelineError: If a part is none (`bad-step`).

    Example:
        ```python
        dspex.map(dspex.Predict("question, doc -> note"), over="docs", item="doc")
        ```
    """
    for what, name in (("over", over), ("item", item)):
        if not isinstance(name, str) or not name:
            raise bad_step(f"{what} must be the name of a field, not {shown(name)}", 'write over="docs"')
    return Map(
        step=step_of(step), over=over, item=item, concurrency=_count("concurrency", concurrency, 10_000)
    )


def loop(step: Any, /, until: Any, at_most: int) -> Step:
    """One step again and again, until a condition holds after it.

    What a round gives, the next one takes. After the last round its fields are there whether the condition
    holds or not.

    Args:
        step: What runs.
        until: When it ends: as the condition of `branch`; asked after every round.
        at_most: How many rounds there are, at most.

    Raises:
        PipelineError: If a part is none (`bad-step`).

    Example:
        ```python
        dspex.loop(draft | critique, until="ok", at_most=3)
        ```
    """
    if isinstance(until, bool):
        raise bad_step(f"until must be a condition, not {until}", 'write until="confidence > 0.8"')
    rounds = _count("at_most", at_most, MOST_ROUNDS)
    return Loop(step=step_of(step), until=Condition.of(until), at_most=rounds)


def step_of(given: Any) -> Step:
    """What was written, as a step.

    Raises:
        PipelineError: If it is nothing that runs (`bad-step`).
    """
    if isinstance(given, Step):
        return given
    if isinstance(given, Composition):
        parts = tuple(step_of(part) for part in given.parts)
        if given.operator == "|":
            return Chain(steps=parts)
        return Parallel(branches=tuple((None, part) for part in parts))
    if isinstance(given, list | tuple):
        from dspex.pipelines._forms import step_of_form  # most pipelines are written in Python

        return step_of_form(given)
    if isinstance(given, type) and issubclass(given, Module):
        raise bad_step(
            f"{given.__name__} is a class, and a step is an object of it",
            f"write {given.__name__}(...)",
        )
    if not callable(given):
        raise bad_step(
            f"a step must be a module, a function or a pipeline, not {shown(given)}",
            "write dspex.Predict(...), a function, or dspex.parallel(...)",
        )
    return Call(target=given)


def mapped(step: Step, change: Callable[[Any], Any]) -> Step:
    """The same step with `change` of each module and function in the place of it."""
    options = step.options
    if options.fallback:
        fallback = tuple(mapped(each, change) for each in options.fallback)
        step = replace(step, options=replace(options, fallback=fallback))
    if isinstance(step, Call):
        return replace(step, target=change(step.target))
    if isinstance(step, Chain):
        return replace(step, steps=tuple(mapped(each, change) for each in step.steps))
    if isinstance(step, Parallel):
        return replace(step, branches=tuple((key, mapped(each, change)) for key, each in step.branches))
    if isinstance(step, Branch):
        otherwise = None if step.otherwise is None else mapped(step.otherwise, change)
        return replace(step, then=mapped(step.then, change), otherwise=otherwise)
    if isinstance(step, Map | Loop):
        return replace(step, step=mapped(step.step, change))
    return step


def bad_step(message: str, hint: str, step: str = "") -> PipelineError:
    """The error for what is no step."""
    return PipelineError(message, code="bad-step", hint=hint, step=step)


def _key(key: Any) -> str:
    if not isinstance(key, str) or not key.isidentifier():
        raise bad_step(f"the key of a branch must be a name, not {shown(key)}", 'write {"docs": search}')
    return key


def _count(name: str, value: Any, most: int) -> int:
    if type(value) is not int or not 1 <= value <= most:
        raise bad_step(
            f"{name} must be a whole number from 1 to {most:,}, not {shown(value)}", f"write {name}=3"
        )
    return value


# -- how options are read ---------------------------------------------------------------------------


def _name(value: Any) -> dict[str, Any]:
    if not isinstance(value, str) or not value or set(value) & set("/[]"):
        raise bad_step(
            f"the name of a step must be a text without '/', '[' and ']', not {shown(value)}",
            'write name="draft"',
        )
    return {"name": value}


def _inputs(value: Any) -> dict[str, Any]:
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        value = {name: name for name in value}
    texts = isinstance(value, Mapping) and all(
        isinstance(text, str) for pair in value.items() for text in pair
    )
    if not texts:
        raise bad_step(
            f"inputs must map a step's inputs to fields, not be {shown(value)}",
            'write inputs={"query": "question"}',
        )
    return {"inputs": dict(value)}


def _outputs(value: Any) -> dict[str, Any]:
    hint = 'write outputs="docs", outputs=["answer", "score"], or outputs={"answer": "draft"} for other names'
    if isinstance(value, Mapping):
        names = [text for pair in value.items() for text in pair]
        if not value or not all(isinstance(name, str) and name.isidentifier() for name in names):
            raise bad_step(f"outputs must be names, not {shown(value)}", hint)
        return {"renames": dict(value)}
    names = [value] if isinstance(value, str) else list(value) if isinstance(value, Sequence) else [value]
    if not all(isinstance(name, str) and name.isidentifier() for name in names):
        raise bad_step(f"outputs must be names, not {shown(value)}", hint)
    if len(set(names)) < len(names):
        raise bad_step(f"outputs has a name twice: {', '.join(names)}", hint)
    return {"outputs": tuple(names)}


def _flag(name: str) -> Callable[[Any], dict[str, Any]]:
    def read(value: Any) -> dict[str, Any]:
        if not isinstance(value, bool):
            raise bad_step(f"{name} must be True or False, not {shown(value)}", f"write {name}=True")
        return {name: value}

    return read


def _retry(value: Any) -> dict[str, Any]:
    if isinstance(value, Retry):
        return {"retry": value}
    return {"retry": Retry(attempts=_count("retry", value, 20))}


def _fallback(value: Any) -> dict[str, Any]:
    several = value if isinstance(value, list) else [value]
    return {"fallback": tuple(step_of(each) for each in several)}


def _cache(value: Any) -> dict[str, Any]:
    from dspex.pipelines._cache import cache_of  # few steps have one

    return {"cache": cache_of(value)}


_READERS: Final[Mapping[str, Callable[[Any], dict[str, Any]]]] = {
    "name": _name,
    "inputs": _inputs,
    "outputs": _outputs,
    "pure": _flag("pure"),
    "thread": _flag("thread"),
    "timeout": lambda value: {"timeout": check_seconds(value)},
    "retry": _retry,
    "fallback": _fallback,
    "cache": _cache,
}
