"""A language model as plain data that may lie in a file, and back: without its key or any secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from dspex._breaker import Breaker
from dspex.errors import ConfigError
from dspex.lm._client import LM
from dspex.lm._deployment import Deployment
from dspex.lm._group import LMGroup
from dspex.lm._protocol import LanguageModel
from dspex.lm._rate_limit import RateLimit
from dspex.protocol.secrets import secrets_in

__all__ = ["lm_of", "state_of"]


def state_of(lm: LanguageModel) -> dict[str, Any]:
    """What `lm_of` makes an equal language model of.

    A key, a proxy with a password and settings that hold a secret are left out; callbacks too.

    Raises:
        ConfigError: If it is none of dspex's own, or has what no file can hold (`lm-unsaved`).
    """
    if isinstance(lm, LM):
        return _of_lm(lm)
    if isinstance(lm, LMGroup):
        deployments, settings = lm.__reduce__()[1]
        breaker = settings["breaker"]
        return {
            **settings,
            "breaker": None if breaker is None else asdict(breaker),
            "deployments": [_of_deployment(deployment) for deployment in deployments],
        }
    raise _unsaved(type(lm).__name__, "only a dspex.LM and groups of them can be saved")


def lm_of(state: Mapping[str, Any]) -> LanguageModel:
    """The language model that was saved; it reads its key from the environment.

    Raises:
        ConfigError: If it is none.
    """
    if not isinstance(state, Mapping):
        raise ConfigError(f"a saved LM is a dict, not a {type(state).__name__}", code="lm-state")
    given = dict(state)
    try:
        if "deployments" not in given:
            limits = given.pop("limits", None)
            return LM(**given, limits=None if limits is None else RateLimit(**limits))
        deployments, breaker = given.pop("deployments"), given.pop("breaker", None)
        return LMGroup(
            [Deployment(**{**each, "lm": lm_of(each["lm"])}) for each in deployments],
            **given,
            breaker=None if breaker is None else Breaker(**breaker),
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"this is no saved LM: {error}", code="lm-state") from error


def _of_lm(lm: LM) -> dict[str, Any]:
    arguments = lm._arguments()
    for name in ("tls", "transport"):
        if name in arguments:
            raise _unsaved(lm.model, f"its {name}= cannot")
    if not isinstance(arguments.get("cache"), str | bool):
        arguments.pop("cache", None)  # one of the process's own; an engine asks none
    if "@" in arguments.get("proxy", ""):
        del arguments["proxy"]
    limits = arguments.pop("limits", None)
    state = {name: value for name, value in arguments.items() if not secrets_in({name: value})}
    return state if limits is None else {**state, "limits": asdict(limits)}


def _of_deployment(deployment: Deployment) -> dict[str, Any]:
    lm = deployment.lm
    return {
        "lm": state_of(LM(lm) if isinstance(lm, str) else lm),
        "weight": deployment.weight,
        "concurrency": deployment.concurrency,
        "name": deployment.name,
    }


def _unsaved(what: str, why: str) -> ConfigError:
    return ConfigError(
        f"{what} cannot be saved: {why}",
        code="lm-unsaved",
        hint="save the program without its LM, and set that again after loading",
    )
