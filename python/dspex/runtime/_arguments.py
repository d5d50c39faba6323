"""The pools that a runtime is made with, or an error that says what to write instead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from dspex.errors import ConfigError

if TYPE_CHECKING:
    from dspex.pool import PoolSpec

__all__ = ["pool_specs"]


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
