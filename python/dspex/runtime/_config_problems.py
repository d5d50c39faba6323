"""What is wrong with a configuration: gathered as it is read, and told all at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from dspex._timeouts import shown
from dspex.errors import ConfigError, did_you_mean

__all__ = ["Problem", "Problems", "inside"]

_MOST = 50
"""Problems that an error lists."""


class Problem(NamedTuple):
    """One thing that is wrong.

    Attributes:
        path: Where, such as `pools[1].limits.memory`.
        what: What is wrong there, and what is allowed.
    """

    path: str
    what: str


class Problems:
    """Those that were found so far, in their order."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, path: str, what: str, hint: str = "") -> None:
        """Note one."""
        whole = f"{what}; {hint}" if hint else what
        self.found.append(Problem(path, whole))

    def refused(self, path: str, error: ConfigError) -> None:
        """Note that a setting's own rule refuses it."""
        self.add(path, error.message, error.hint)

    def unknown(self, path: str, name: str, known: Iterable[str], what: str = "setting") -> None:
        """Note a name that there is not, with the one that is nearest to it."""
        known = list(known)
        near = did_you_mean(name, known)
        self.add(inside(path, name), f"there is no such {what}", f"{near}there are: {', '.join(known)}")

    def of_kind(self, path: str, value: object, what: str) -> None:
        """Note a value of another kind than it should be."""
        self.add(path, f"it must be {what}, not {shown(value)}")

    def error(self, where: str) -> ConfigError:
        """The error that tells all of them.

        Args:
            where: The file they are in; empty for none.
        """
        count = len(self.found)
        lines = [f"  {problem.path}: {problem.what}" for problem in self.found[:_MOST]]
        if count > _MOST:
            lines.append(f"  and {count - _MOST} more")
        settings = "1 setting is wrong" if count == 1 else f"{count} settings are wrong"
        head = f"{where}: {settings}" if where else settings
        return ConfigError(
            "\n".join([head, *lines]),
            code="bad-config",
            hint="docs/configuration.md has every section",
            path=self.found[0].path,
            file=where,
            problems=[(problem.path, problem.what) for problem in self.found],
        )


def inside(path: str, name: str) -> str:
    """The path of a name inside a table; a name that is none of TOML's bare ones is put in quotes."""
    bare = name.replace("-", "").replace("_", "").isalnum() and name.isascii()
    shown_name = name if bare and len(name) <= 60 else repr(name[:60])
    return f"{path}.{shown_name}" if path else shown_name
