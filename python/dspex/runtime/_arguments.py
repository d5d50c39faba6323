"""What a runtime is made of: its LM and its pools, or an error that says what to write instead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from dspex.errors import ConfigError
from dspex.lm import LM, LanguageModel

if TYPE_CHECKING:
    from dspex.pool import PoolSpec

__all__ = ["language_model", "pool_specs"]

_METHODS: Final = ("complete", "stream", "aclose")


def language_model(given: Any) -> LanguageModel:
    """The language model that a setting names or is.

    Raises:
        ConfigError: If it names none or is none (`no-lm`, `lm-model`, `bad-lm`), or is one of DSPy's
            (`lm-of-dspy`).
    """
    if isinstance(given, LM):
        return given
    if isinstance(given, str):
        return LM(given)
    if given is None:
        raise ConfigError(
            "a runtime needs a language model",
            code="no-lm",
            hint='give it lm="openai/<name>" or a dspex.LM',
        )
    if isinstance(given, type):
        raise ConfigError(
            f"lm must be a language model, not the class {given.__name__}",
            code="bad-lm",
            hint=f'make one of it: {given.__name__}("openai/<name>")',
        )
    if any(cls.__module__.partition(".")[0] == "dspy" for cls in type(given).__mro__):
        raise ConfigError(
            f"lm is a {type(given).__name__} of DSPy's, which lives in this process and serves DSPy alone",
            code="lm-of-dspy",
            hint=f"write {_equivalent(given)}, the key by api_key= or from the environment",
        )
    missing = [name for name in _METHODS if not callable(getattr(given, name, None))]
    if missing:
        raise ConfigError(
            f"lm must be a language model, and {type(given).__name__} has no {', '.join(missing)}",
            code="bad-lm",
            hint='give "openai/<name>", a dspex.LM, or an object with the methods of dspex.lm.LanguageModel',
        )
    model: LanguageModel = given
    return model


def _equivalent(given: Any) -> str:
    """How one of DSPy's LMs is written here, without the key and what may hold another secret."""
    model, settings = getattr(given, "model", "openai/<name>"), getattr(given, "kwargs", None)
    shown: dict[str, Any] = {}
    for name, value in (settings if isinstance(settings, dict) else {}).items():
        if name == "api_base" and isinstance(value, str):
            address = urlsplit(value)
            if address.scheme and not (address.username or address.password or address.query):
                shown[name] = value
        elif isinstance(value, bool | int | float):  # what is text may be a secret by any name
            shown[name] = value
    return f"dspex.LM({', '.join([repr(model), *(f'{name}={value!r}' for name, value in shown.items())])})"


def pool_specs(pools: Any) -> Sequence[PoolSpec | None]:
    """The pools that a setting says: by default one, `general`, whose settings are None.

    Raises:
        ConfigError: If it says none (`bad-pools`), a number of workers that there cannot be
            (`bad-pool-setting`), or one name twice (`pool-name`).
    """
    if pools is None:
        return [None]
    from dspex.pool import PoolSpec  # what it needs is for those who have one to make

    if isinstance(pools, int) and not isinstance(pools, bool):
        return [PoolSpec(workers=pools)] if pools else []
    if isinstance(pools, PoolSpec):
        return [pools]
    if (
        isinstance(pools, str | bytes | bool | type)
        or hasattr(pools, "keys")
        or not isinstance(pools, Iterable)
    ):
        raise _bad_pools(pools)
    specs = list(pools)
    names: set[str] = set()
    for place, spec in enumerate(specs):
        if not isinstance(spec, PoolSpec):
            raise ConfigError(
                f"pools[{place}] must be a PoolSpec, not {spec!r}"[:200],
                code="bad-pools",
                hint='write pools=[dspex.PoolSpec(name="general", workers=4), ...], one for each pool',
            )
        if spec.name in names:
            raise ConfigError(
                f"two pools have the name {spec.name!r}", code="pool-name", hint="rename one of them"
            )
        names.add(spec.name)
    return specs


def _bad_pools(pools: Any) -> ConfigError:
    hint = "write pools=4, pools=dspex.PoolSpec(workers=4, ...), or a list of PoolSpecs; pools=0 for none"
    shown = repr(pools)
    if isinstance(pools, str) and pools.strip().isdecimal():
        hint = f"write pools={int(pools)}, a number and not a text"
    elif isinstance(pools, bool):
        hint = "write pools=0 for none, or leave it out for the usual one"
    elif hasattr(pools, "keys"):
        # Values may be secrets: a pool's settings hold an environment.
        shown = f"a {type(pools).__name__}"
        hint = f"write pools=dspex.PoolSpec({', '.join(f'{name}=...' for name in pools.keys())})"  # noqa: SIM118
    return ConfigError(
        f"pools must be a number of workers, a PoolSpec or several, not {shown}"[:200],
        code="bad-pools",
        hint=hint,
    )
