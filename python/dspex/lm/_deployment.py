"""`Deployment`: one of the endpoints or models behind a group's name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from dspex._timeouts import shown
from dspex.errors import ConfigError
from dspex.lm._given import language_model
from dspex.lm._protocol import LanguageModel

__all__ = ["Deployment", "DeploymentCounts", "deployment_of", "name_of"]

MOST_CALLS = 1_000_000


@dataclass(frozen=True, slots=True)
class Deployment:
    """A language model of a group, and its part of the calls.

    Attributes:
        lm: The language model: `"openai/<name>"`, a `dspex.LM`, or any object with its protocol.
        weight: Its part of the calls where they are shared out by weight. One of 0 gets calls only when no
            other can take them.
        concurrency: How many calls may be under way there; calls beyond that go to the others. None for any
            number.
        name: What counts, logs and errors call it; by default the model and its server,
            `openai/gpt-4o@host:port`.

    Raises:
        ConfigError: If a value is none (`bad-group`).
    """

    lm: str | LanguageModel
    weight: float = 1.0
    concurrency: int | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        weight, most = self.weight, self.concurrency
        if isinstance(weight, bool) or not (isinstance(weight, int | float) and 0 <= weight < math.inf):
            raise _bad("weight", weight, "a number from 0")
        if most is not None and not (type(most) is int and 1 <= most <= MOST_CALLS):
            raise _bad("concurrency", most, f"a count from 1 to {MOST_CALLS:,}")
        if self.name is not None and not (isinstance(self.name, str) and self.name):
            raise _bad("name", self.name, "a text")


class DeploymentCounts(NamedTuple):
    """What one deployment has done since it was added.

    Attributes:
        name: Its name.
        in_flight: Calls that are under way there.
        served: Calls that it answered.
        failed: Calls that it failed at.
        refused: Calls that ended with an error that says nothing about it, such as a mistake in the request.
        cancelled: Calls whose caller went away.
        state: The state of its breaker; `closed` where it has none.
    """

    name: str
    in_flight: int
    served: int
    failed: int
    refused: int
    cancelled: int
    state: Literal["closed", "open", "half-open", "forced-open", "forced-closed"]


def deployment_of(given: Any) -> tuple[Deployment, LanguageModel]:
    """What was given as a deployment, and its language model.

    Raises:
        ConfigError: If it is none.
        RouteError: If only DSPy speaks to its provider, so that this process cannot ask it (`lm-needs-dspy`).
    """
    deployment = given if isinstance(given, Deployment) else Deployment(given)
    lm = language_model(deployment.lm)
    refusal = getattr(lm, "refusal", None)
    if refusal is not None and (why := refusal()) is not None:
        raise why
    return deployment, lm


def name_of(deployment: Deployment, lm: LanguageModel, taken: frozenset[str]) -> str:
    """The name of a deployment.

    Args:
        deployment: It.
        lm: Its language model.
        taken: Names of others.

    Raises:
        ConfigError: If it has a name of its own, which another has too (`bad-group`).
    """
    name = deployment.name
    if name is None:
        model, base = getattr(lm, "model", None), getattr(lm, "api_base", None)
        name = model if isinstance(model, str) and model else type(lm).__name__
        if isinstance(base, str) and base:
            name = f"{name}@{urlsplit(base).netloc}"
        plain, number = name, 2
        while name in taken:
            name, number = f"{plain} ({number})", number + 1
    if name in taken:
        raise ConfigError(
            f"there is a deployment {name!r} already",
            code="bad-group",
            hint="give each deployment a name of its own",
        )
    return name


def _bad(name: str, value: object, what: str) -> ConfigError:
    return ConfigError(
        f"{name} of a deployment must be {what}, not {shown(value)}",
        code="bad-group",
        hint="see dspex.lm.Deployment",
    )
