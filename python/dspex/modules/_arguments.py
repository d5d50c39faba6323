"""What a module was given: taken as it is meant, or refused before any work with what to write instead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from dspex._settings import check_idempotent, check_spelling
from dspex._timeouts import check_seconds
from dspex.errors import ConfigError, InputError
from dspex.router import checked_order

if TYPE_CHECKING:
    from dspex.lm import LanguageModel

__all__ = [
    "OWN",
    "OwnModel",
    "check_names",
    "check_runtime",
    "lm_of",
    "mapping_of",
    "options_of",
    "positional",
    "rows_of",
    "stream_fields_of",
]

_ELSEWHERE: Final[Mapping[str, str]] = {
    "timeout": "give it to a call, qa(..., timeout=5), or to all: qa.with_options(timeout=5)",
    "route": 'give it to a call, qa(..., route="python"), or to all: qa.with_options(route="python")',
    "strategy": 'give it to a call, qa(..., strategy="fastest"), or to all: qa.with_options(strategy=...)',
    "idempotent": "say so of all calls of a copy: qa.with_options(idempotent=True)",
    "config": "write the settings themselves: Predict(..., temperature=0.5)",
}
"""Names that are arguments of something else, of DSPy's `Predict` among others."""

OWN: Final = frozenset(
    {
        "adapter",
        "callbacks",
        "config",
        "demos",
        "lm",
        "parsing",
        "route",
        "runtime",
        "signature",
        "strategy",
        "timeout",
        "validate",
    }
)
"""The arguments that every module has, and the options of its calls."""


def check_names(config: Mapping[str, Any], module: str, own: frozenset[str]) -> None:
    """Refuse a keyword that is no setting of the LM but an argument that belongs elsewhere, or a slip.

    Args:
        config: The keywords.
        module: The class they were given to, for the message.
        own: The arguments that it has.

    Raises:
        ConfigError: If one is (`unknown-setting`).
    """
    for name in config.keys() & _ELSEWHERE.keys():
        raise ConfigError(f"{module}(...) takes no {name!r}", code="unknown-setting", hint=_ELSEWHERE[name])
    check_spelling(config, own, module)


def check_runtime(runtime: Any) -> None:
    """Refuse what cannot run calls.

    Raises:
        ConfigError: If it cannot (`bad-runtime`).
    """
    ways = (getattr(runtime, "run", None), getattr(runtime, "arun", None))
    if runtime is not None and (isinstance(runtime, type) or not all(map(callable, ways))):
        raise ConfigError(
            f"runtime must be a Runtime, not {_kind(runtime)}",
            code="bad-runtime",
            hint="make one: runtime=dspex.Runtime(lm=...)",
        )


class OwnModel:
    """What a module has that may ask a language model of its own."""

    _lm: LanguageModel | None

    @property
    def lm(self) -> LanguageModel | None:
        """The language model of every call; None for the runtime's."""
        return self._lm

    @lm.setter
    def lm(self, lm: str | LanguageModel | None) -> None:
        self._lm = lm_of(lm)


def options_of(**given: Any) -> dict[str, Any]:
    """The options of calls that `with_options` was given, each as it is meant; None is as if left out.

    Raises:
        InputError: If the demos are none.
        ConfigError: If another option is none.
    """
    return {name: _READERS[name](value) for name, value in given.items() if value is not None}


def lm_of(lm: Any) -> LanguageModel | None:
    """A module's or a call's own language model; None is the runtime's.

    Raises:
        ConfigError: If it is none; see `dspex.lm.language_model`.
    """
    if lm is None:
        return None
    from dspex.lm import language_model  # with the client, which most modules leave to the runtime

    return language_model(lm)


def rows_of(demos: Any) -> list[Mapping[str, Any]]:
    """The demos as a list of their own; None is none.

    A row is a mapping, or has what makes one, as DSPy's examples and predictions have.

    Raises:
        InputError: If they are not a sequence of such rows, or a name in one is no text (`bad-demos`).
    """
    if demos is None:
        return []
    if isinstance(demos, str | bytes) or hasattr(demos, "keys") or not isinstance(demos, Iterable):
        raise _bad_demos(
            f"demos must be a list of examples, not {_kind(demos)}",
            "put the one example into a list: demos=[example]" if hasattr(demos, "keys") else "",
        )
    rows = list(demos)
    for place, row in enumerate(rows):
        if not (hasattr(row, "keys") and hasattr(row, "__getitem__")) or isinstance(row, type):
            raise _bad_demos(f"demos[{place}] must map field names to values, not be {_kind(row)}")
        for name in row.keys():  # noqa: SIM118 - an example of DSPy's yields no keys by itself
            if not isinstance(name, str):
                raise _bad_demos(f"demos[{place}] has a name that is no text: {name!r}")
    return rows


def _bad_demos(message: str, hint: str = "") -> InputError:
    return InputError(
        message, code="bad-demos", hint=hint or 'write demos=[{"question": "...", "answer": "..."}]'
    )


def mapping_of(config: Any) -> dict[str, Any]:
    """A call's settings for the LM; None is none.

    Raises:
        ConfigError: If it is no mapping of them (`lm-setting`), or one is a slip (`unknown-setting`).
    """
    if config is None:
        return {}
    if not isinstance(config, Mapping) or not all(isinstance(name, str) for name in config):
        raise ConfigError(
            f"config must map names of the LM's settings to values, not {config!r}"[:200],
            code="lm-setting",
            hint='write config={"temperature": 0.5}',
        )
    check_spelling(config, (), "the LM")
    return dict(config)


def stream_fields_of(fields: Any) -> tuple[str, ...]:
    """The fields to stream; whether a predictor has them is seen when a stream is made.

    Raises:
        ConfigError: If they are no names (`bad-stream`).
    """
    is_list = isinstance(fields, Iterable) and not isinstance(fields, str | bytes)
    names = tuple(fields) if is_list else ()
    if not is_list or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f"stream_fields must be a list of names of output fields, not {fields!r}"[:200],
            code="bad-stream",
            hint='write stream_fields=["answer"], or with the predictor\'s path, ["draft.answer"]',
        )
    return names


def positional(values: tuple[Any, ...], fields: Iterable[str]) -> InputError:
    """The error for inputs without their names."""
    names = list(fields)
    example = ", ".join(f"{name}=..." for name in names)
    return InputError(
        f"inputs are given by name, and {len(values)} came without",
        code="positional-inputs",
        hint=f"write {example}" if names else "the signature has no inputs",
    )


def _kind(value: Any) -> str:
    return (
        f"the class {value.__name__}"
        if isinstance(value, type)
        else f"an object of type {type(value).__name__}"
    )


_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "route": lambda route: route,  # the router knows which there are
    "strategy": checked_order,
    "timeout": check_seconds,
    "idempotent": check_idempotent,
    "demos": rows_of,
    "config": mapping_of,
    "lm": lm_of,
    "stream_fields": stream_fields_of,
}
"""What an option of calls is read by."""
