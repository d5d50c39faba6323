"""What a time-out may be: one rule for every setting, argument and request that takes seconds."""

from __future__ import annotations

from typing import Any, Final

from dspex.errors import ConfigError

__all__ = ["LONGEST_SECONDS", "check_seconds", "shown", "without_frames"]

LONGEST_SECONDS: Final = 1e9
"""Some thirty years. A wait beyond what the platform's locks can count raises `OverflowError` where it is
made, long after the setting was taken."""


def check_seconds(value: Any, name: str = "timeout", *, zero: bool = False) -> float:
    """The seconds that a setting says, as a float.

    Args:
        value: What was given: an int, a float, or another real number such as numpy's.
        name: The setting's name, for the error.
        zero: Whether nought is allowed, where it means "at once".

    Raises:
        ConfigError: If it is no number of seconds above 0 (`bad-timeout`): text, a bool, zero, a negative
            number, nan, infinity or more than `LONGEST_SECONDS`.
    """
    kind = type(value)
    if (kind is float or kind is int) and 0 < value <= LONGEST_SECONDS:
        return float(value)
    from numbers import Real  # nearly all that are given are an int or a float

    # numpy's numbers and fractions are real numbers too; a bool is one by accident.
    number: Any = value if isinstance(value, Real) and kind is not bool else None
    if number is not None and (0 < number <= LONGEST_SECONDS or (zero and number == 0)):
        return float(number)
    least = "from 0" if zero else "above 0"
    raise ConfigError(
        f"{name} must be a number of seconds {least}, not {shown(value)}",
        code="bad-timeout",
        hint=_hint(value, name),
    )


def without_frames(error: BaseException) -> BaseException:
    """The error, and what it came from, without tracebacks.

    A time-out's frames know its task, which holds the error that is made of it, and so all that its call was
    given, until a collection finds the circle.
    """
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


def shown(value: Any) -> str:
    """A refused value for a message: as it is written, or its type where that is too long or impossible."""
    try:
        text = repr(value)
        text.encode()
    except Exception:  # noqa: BLE001 - too many digits, too deep, or a `__repr__` of the caller's that fails
        text = ""
    return text if 0 < len(text) <= 60 else f"a {type(value).__name__}"


def _hint(value: Any, name: str) -> str:
    if isinstance(value, str):
        try:
            return f"write {name}={check_seconds(float(value)):g}, a number and not a text"
        except (ValueError, ConfigError):
            pass
    if hasattr(value, "total_seconds"):
        return f"write {name}=<it>.total_seconds()"
    return f"give an int or a float, at most {LONGEST_SECONDS:g}"
