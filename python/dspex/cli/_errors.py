"""`dspex errors`: what a code means and what to do; without one, the page `docs/errors.md`."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from dspex import errors
from dspex.error_codes import CODES, Code
from dspex.errors import Category, ConfigError, DspexError, did_you_mean

__all__ = ["add", "page"]


_WIDTH: Final = 110


class _Duty(NamedTuple):
    wrong: str
    who: str
    status: str


_DUTIES: Final[dict[Category, _Duty]] = {
    "caller": _Duty(
        "the inputs, the texts or the options of this call; others would do",
        "the caller",
        "422, or 413 for too much at once",
    ),
    "operator": _Duty(
        "a setting, a key, a pool, or the way the service uses dspex; no other inputs help",
        "the operator",
        "500, or 503 where the pool is not open",
    ),
    "transient": _Duty(
        "nothing that lasts: too many calls, a server that failed, a worker that died",
        "nobody, it passes",
        "429, 502 or 503",
    ),
    "timeout": _Duty("it took too long", "who set the limit", "504"),
    "resource": _Duty("a pool has no worker", "the operator", "503"),
    "remote": _Duty(
        "what the model or the program did cannot be used", "who writes prompt or program", "502"
    ),
    "internal": _Duty("a mistake in dspex itself", "the authors of dspex", "500"),
}

_HEAD: Final = """\
# Errors

<!-- Made of python/dspex/errors.py and error_codes.py by `make errors-page`. Change those, not this. -->

Everything dspex raises on purpose is a `dspex.DspexError`. Each error has

- `code`: stable, for programs; `dspex errors CODE` explains one in the shell;
- `message` and `hint`: what happened and what to do, for people; `str(error)` has both;
- `category`: who must act, and with it `http_status`: what a service may answer its client with;
- `retryable`: whether the same call may be made again as it is;
- fields of its class, listed below; a field that was not given has its default;
- `to_dict()` for logs, and `to_public_dict()` for a client: fixed sentences and codes, and of the fields
  only the names of the inputs that are wrong and the seconds to wait. No address, no words of a model's
  server, no reply and no traceback of a worker is part of it.

All errors survive pickling and the way from a worker to the service. A worker of another version may send a
class that is not known here: it arrives as a `RemoteError` whose `type` names it.

```python
from dspex.errors import DspexError, InputError


def answer_for(error: DspexError) -> tuple[int, dict[str, object]]:
    return error.http_status, error.to_public_dict()


status, body = answer_for(InputError("`question` is missing", problems=[("question", "it is missing")]))
assert (status, body["code"], body["details"]) == (422, "input", {"fields": ["question"]})
```

## Categories
"""

_NOTE: Final = """
The last line of an entry says whether the error is `retryable`. `worker-died` is retryable where the call
was declared idempotent, since otherwise its effect may have happened. `deadline-exceeded` is retryable there
too, and also where nothing of the call was done, because it waited in a queue or for its pool to start, or
where only the LM's answer was late.
"""

_SOMETIMES: Final = {
    "worker-died": "if idempotent",
    "deadline-exceeded": "if idempotent, or nothing was done",
}


def add(commands: Any) -> None:
    """Declare the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "errors", help="explain the code of an error, or all codes"
    )
    parser.add_argument(
        "code", nargs="?", help="the code, such as lm-cut; without it, a page about all of them"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what is known of a code, or the page.

    Returns:
        0.

    Raises:
        ConfigError: If there is no such code (`no-such-code`).
    """
    if arguments.code is None:
        print(page(), end="")
        return 0
    known = {row.code: row for row in CODES}
    row = known.get(arguments.code)
    if row is None:
        raise ConfigError(
            f"no error has the code {arguments.code!r}",
            code="no-such-code",
            hint=did_you_mean(arguments.code, known) + "`dspex errors` lists all of them",
        )
    for name in row.classes.split():
        error = _example(name, row)
        print(f"{name} [{row.code}]: HTTP {error.http_status}; who acts: {_DUTIES[error.category].who}")
    print(f"  cause: {row.cause}\n  cure:  {row.cure}")
    return 0


def page() -> str:
    """The text of `docs/errors.md`."""
    duties = [
        _item(f"`{category}`: {duty.wrong}. Who acts: {duty.who}. HTTP {duty.status}.")
        for category, duty in _DUTIES.items()
    ]
    return "\n".join([_HEAD, *duties, _NOTE, *_sections()])


def _sections() -> Iterator[str]:
    for cls in _tree(DspexError):
        name = cls.__name__
        base = cls.__mro__[1].__name__
        yield f"## {name}\n"
        yield (
            f"{(cls.__doc__ or '').splitlines()[0]}"
            + (f" A `{base}`." if cls is not DspexError else "")
            + "\n"
        )
        if cls._fields:
            yield f"Fields: {', '.join(f'`{field}`' for field in cls._fields)}.\n"
        for row in CODES:
            if name in row.classes.split():
                yield from _entry(name, row)


def _entry(name: str, row: Code) -> Iterator[str]:
    error = _example(name, row)
    again = "yes" if error.retryable else _SOMETIMES.get(row.code, "no")
    yield f"### `{row.code}`\n"
    yield _item(f"Cause: {row.cause}")
    yield _item(f"Cure: {row.cure}")
    yield _item(f"Who acts: {_DUTIES[error.category].who}. HTTP {error.http_status}. Retryable: {again}.")
    yield ""


def _item(text: str) -> str:
    """An item of a list, in lines that can be read without a renderer."""
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent="- ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _example(name: str, row: Code) -> DspexError:
    cls: type[DspexError] = getattr(errors, name)
    return cls(row.cause, code=row.code)


def _tree(cls: type[DspexError]) -> Iterator[type[DspexError]]:
    """The classes of the tree, as it is drawn; not what others derived from them."""
    yield cls
    for sub in cls.__subclasses__():
        if sub.__module__ == errors.__name__:
            yield from _tree(sub)
