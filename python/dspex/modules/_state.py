"""The state of a program: what an optimizer finds out about its predictors, as DSPy saves it.

The form is that of `dspy.Module.save`, so that both sides read what the other has written::

    {"draft.predict": {"traces": [], "train": [], "demos": [...], "signature": {...}, "lm": null},
     "metadata": {"dependency_versions": {"python": "3.11", "dspy": "3.4.1", ...}}}

The keys are the paths of the predictors; the state of a predictor itself stands at the top. A signature's
state has its texts, not its names and types: those are the program's own, and the fields go by their order.

    read --> check everything --> apply            one wrong part, and nothing is changed

A state may come from anywhere, so nothing in it is imported, called, or taken for an address. Of a language
model it may name the model and how it samples; `lm=True` asks for that.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dspex import dialects
from dspex._depth import deeper
from dspex._settings import REQUEST_SETTINGS
from dspex.errors import ConfigError, SignatureError

if TYPE_CHECKING:
    from dspex.lm import LanguageModel
    from dspex.modules._predict import Predict
    from dspex.signature import Signature

__all__ = [
    "SAMPLING",
    "apply_state",
    "lm_state",
    "no_pickle",
    "of_remote",
    "plain_rows",
    "read_state",
    "replacing",
    "sampling_lm",
    "state_of",
    "write_state",
]

_log = logging.getLogger("dspex.modules")

_MOST_BYTES: Final = 64 * 1024 * 1024
"""Some ten thousand long examples; no program has more, and it is still harmless to read."""

_DEPTH: Final = 100
"""How deep a state may nest. A value of an example nests a few levels."""

_KEYS: Final = frozenset({"traces", "train", "demos", "signature", "lm", "fields"})

_NOT_SAVED: Final = frozenset(
    {"cache", "extra_body", "extra_headers", "metadata", "user", "safety_identifier", "rollout_id"}
)
"""Settings that say something else than how a model samples; a value of theirs may be a secret."""

SAMPLING: Final = REQUEST_SETTINGS - _NOT_SAVED
"""Settings that say how a model samples."""

_OF_THE_MODEL: Final = frozenset({"_dspy_lm_class", "model", "model_type", "cache", "num_retries"})
"""What a saved model is, beside how it samples."""


# -- writing ----------------------------------------------------------------------------------------


def state_of(predictors: list[tuple[str, Predict]]) -> dict[str, Any]:
    """The state of these predictors, by their paths; of one that is a program itself, its own.

    Raises:
        ConfigError: If a value of an example has no JSON (`program-state`).
    """
    if [path for path, _ in predictors] == ["self"]:
        return _state_of(*predictors[0])
    return {path: _state_of(path, predictor) for path, predictor in predictors}


def _state_of(path: str, predictor: Predict) -> dict[str, Any]:
    return {
        "traces": [],
        "train": [],
        "demos": plain_rows(path, predictor.demos),
        "signature": predictor.signature.dump_state(),
        "lm": lm_state(predictor.lm),
    }


def plain_rows(path: str, demos: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Demos as JSON has them; a model becomes a dict, as in DSPy.

    Raises:
        ConfigError: If a value has no JSON (`program-state`).
    """
    return [
        {name: _plain(demo[name], f"{path}: demos[{place}].{name}") for name in demo.keys()}  # noqa: SIM118
        for place, demo in enumerate(demos)
    ]


def _plain(value: Any, at: str) -> Any:
    """A value as JSON has it."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item, at) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, at) for key, item in value.items()}
    if hasattr(value, "toDict"):  # an example inside an example
        return _plain(value.toDict(), at)
    from pydantic_core import to_jsonable_python  # only for those whose examples hold more

    try:
        return to_jsonable_python(value)
    except Exception as error:  # a serializer of the user's may raise anything
        raise ConfigError(
            f"{at} cannot be saved: {error}",
            code="program-state",
            hint="examples are saved as JSON: give it a value that has one",
        ) from error


def lm_state(lm: LanguageModel | None) -> dict[str, Any] | None:
    """What DSPy makes a `dspy.LM` of: the model and how it samples, no address and no key."""
    model = getattr(lm, "model", None)
    if not isinstance(model, str) or not hasattr(lm, "settings_for_worker"):
        return None  # none, or an object that only this process has
    settings = getattr(lm, "settings", {})
    return {
        "_dspy_lm_class": "dspy.clients.lm.LM",
        "model": model,
        "model_type": getattr(lm, "model_type", "chat"),
        "cache": True,
        "num_retries": 3,
        **{name: settings[name] for name in sorted(settings.keys() & SAMPLING)},
    }


def write_state(state: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a state to a file, whole or not at all.

    Raises:
        ConfigError: If the file is no `.json` (`program-pickle`, `program-file`), or cannot be written.
    """
    target = _json_file(path)
    whole = {**state, "metadata": {"dependency_versions": _versions()}}
    try:
        text = json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        with replacing(target) as file:
            file.write(text.encode())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the program cannot be saved to {target}: {error}",
            code="program-file",
            hint="look at the path, and at the values of the examples",
        ) from error


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Any]:
    """A file beside the target that takes its place when it is whole."""
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with open(beside, "xb") as file:
            yield file
        os.replace(beside, target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _versions() -> dict[str, str]:
    """What DSPy compares when it loads the file; it knows no other names."""
    from importlib.metadata import PackageNotFoundError, version  # with half of the library's mail parser

    versions = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    for package in ("dspy", "cloudpickle"):
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    if "cloudpickle" in versions:
        versions["cloudpickle"] = ".".join(versions["cloudpickle"].split(".")[:2])
    return versions


# -- reading ----------------------------------------------------------------------------------------


def read_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a file says, its metadata looked at and left out.

    Raises:
        ConfigError: If it is no state of a program (`program-pickle`, `program-file`).
    """
    source = _json_file(path)
    try:
        size = source.stat().st_size
        if size > _MOST_BYTES:
            raise ValueError(f"it has {size} bytes, and {_MOST_BYTES} are the most")
        state = json.loads(source.read_bytes(), parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{source} cannot be read as a saved program: {error}",
            code="program-file",
            hint='it has to be what `program.save("program.json")` wrote, here or in DSPy',
        ) from error
    if not isinstance(state, dict):
        raise _misfit([f"it is a {type(state).__name__} and not an object"])
    _compare(source, state.pop("metadata", None))
    return state


def _json_file(path: str | os.PathLike[str]) -> Path:
    file = Path(path)
    if file.suffix in (".pkl", ".pickle"):
        raise no_pickle(str(file))
    if file.suffix != ".json":
        raise ConfigError(
            f"{file} does not end in .json", code="program-file", hint="programs are saved as JSON files"
        )
    return file


def no_pickle(what: str) -> ConfigError:
    """The error for what is a pickle, or is asked to become one."""
    return ConfigError(
        f"{what} is a pickle, which runs whatever it holds",
        code="program-pickle",
        hint='save the program as JSON: program.save("program.json"), here or in DSPy',
    )


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _compare(source: Path, metadata: Any) -> None:
    versions = metadata.get("dependency_versions") if isinstance(metadata, dict) else None
    saved = versions.get("dspy") if isinstance(versions, dict) else None
    here = dialects.chosen(None)
    if isinstance(saved, str) and here is not None and dialects.dialect_of(saved) != here:
        _log.warning(
            "%s was saved with DSPy %.40s; the prompts here are those of %s, for which it was not optimised",
            source,
            saved,
            here,
        )


def of_remote(state: Any, *, lm: bool) -> dict[str, Any]:
    """A state for a program in a worker, whose paths and fields are looked at there.

    Args:
        state: What `dump_state` gave, here or in DSPy.
        lm: Whether the models that it names stay, each with what it samples by. Nothing else of them does.

    Raises:
        ConfigError: If it is no state (`program-state`).
    """
    if not isinstance(state, Mapping):
        raise _misfit([f"it is a {type(state).__name__} and not a mapping"])
    if "signature" in state and "demos" in state:  # of a predictor itself
        return _without_address({key: value for key, value in state.items() if key != "metadata"}, lm=lm)
    parts = {path: part for path, part in state.items() if path != "metadata"}
    problems = [
        f"{path!r:.80}: it is a {type(part).__name__} and not a mapping"
        for path, part in parts.items()
        if not isinstance(part, Mapping)
    ]
    if problems:
        raise _misfit(problems)
    return {path: _without_address(part, lm=lm) for path, part in parts.items()}


def _without_address(part: Mapping[str, Any], *, lm: bool) -> dict[str, Any]:
    model = part.get("lm")
    if not (lm and isinstance(model, Mapping)):
        return {**part, "lm": None} if model is not None else dict(part)
    return {**part, "lm": {key: value for key, value in model.items() if key in SAMPLING | _OF_THE_MODEL}}


class _Change(NamedTuple):
    """What a state makes of a predictor."""

    predictor: Predict
    signature: Signature
    demos: list[dict[str, Any]]
    lm: LanguageModel | None


def apply_state(predictors: list[tuple[str, Predict]], state: Any, *, lm: bool) -> None:
    """Give the predictors what a state has for them.

    Args:
        predictors: All of a program, by their paths.
        state: What `dump_state` gave, here or in DSPy.
        lm: Whether they get the language models that it names.

    Raises:
        ConfigError: If it is not that of this program (`program-state`); nothing has been changed then.
    """
    if not isinstance(state, Mapping):
        raise _misfit([f"it is a {type(state).__name__} and not a mapping"])
    if [path for path, _ in predictors] == ["self"]:
        states: Mapping[str, Any] = {"self": {k: v for k, v in state.items() if k != "metadata"}}
    else:
        states = {path: part for path, part in state.items() if path != "metadata"}
    known = [path for path, _ in predictors]
    problems = [f"it has nothing for {path!r}" for path in known if path not in states]
    problems += [f"the program has no predictor {path!r:.80}" for path in states if path not in known]
    changes: list[_Change] = []
    for path, predictor in predictors:
        if path in states:
            changes += _change(path, predictor, states[path], lm, problems)
    if problems:
        raise _misfit(problems)
    for change in changes:
        change.predictor.signature = change.signature
        change.predictor.demos = change.demos
        if lm:
            change.predictor.lm = change.lm


def _change(path: str, predictor: Predict, state: Any, lm: bool, problems: list[str]) -> Iterator[_Change]:
    if not isinstance(state, Mapping):
        problems.append(f"{path}: it is a {type(state).__name__} and not a mapping")
        return
    problems += [f"{path}: nobody knows what {key!r:.80} is" for key in state if key not in _KEYS]
    if state.get("fields"):
        problems.append(f"{path}: it has decision criteria (`fields`), which only DSPy itself has")
    found = len(problems)
    demos = _demos(path, state.get("demos"), problems)
    signature = _signature(path, predictor.signature, state.get("signature"), problems)
    model = _model(path, state.get("lm"), problems) if lm else None
    if state.get("lm") and not lm:
        name = state["lm"].get("model") if isinstance(state["lm"], Mapping) else None
        _log.info("%s was saved with the model %.80s; load(..., lm=True) takes it over", path, name)
    if len(problems) == found and signature is not None:
        yield _Change(predictor, signature, demos, model)


def _demos(path: str, demos: Any, problems: list[str]) -> list[dict[str, Any]]:
    if not isinstance(demos, list | tuple):
        problems.append(f"{path}: `demos` is no list")
        return []
    rows: list[dict[str, Any]] = []
    for place, demo in enumerate(demos):
        if not hasattr(demo, "keys") or not all(isinstance(name, str) for name in demo.keys()):  # noqa: SIM118
            problems.append(f"{path}: demos[{place}] maps no names to values")
            continue
        row = {name: demo[name] for name in demo.keys()}  # noqa: SIM118 - as in `rows_of`
        if deeper(row, _DEPTH):
            problems.append(f"{path}: demos[{place}] nests deeper than {_DEPTH} levels")
        rows.append(row)
    return rows


def _signature(path: str, signature: Signature, state: Any, problems: list[str]) -> Signature | None:
    fields = state.get("fields") if isinstance(state, Mapping) else None
    if not isinstance(state, Mapping) or not isinstance(fields, list | tuple):
        problems.append(f"{path}: `signature` has no list of fields")
    elif len(fields) != len(signature.fields):
        names = ", ".join(signature.fields)
        problems.append(f"{path}: it has texts for {len(fields)} fields, and the signature's are {names}")
    else:
        try:
            return signature.load_state(state)
        except SignatureError as error:
            problems.append(f"{path}: {error.message}")
    return None


def _model(path: str, state: Any, problems: list[str]) -> LanguageModel | None:
    if state is None:
        return None
    try:
        return sampling_lm(state)
    except ConfigError as error:
        problems.append(f"{path}: {error.message}")
        return None


def sampling_lm(state: Any) -> LanguageModel:
    """The language model that a state names, with how it samples; key and address come from the environment.

    Raises:
        ConfigError: If it names none.
    """
    name = state.get("model") if isinstance(state, Mapping) else None
    if not isinstance(name, str):
        raise ConfigError("`lm` names no model", code="program-state")
    from dspex.lm import LM

    known = SAMPLING | {"model_type"}
    return LM(name, **{key: value for key, value in state.items() if key in known and value is not None})


def _misfit(problems: list[str]) -> ConfigError:
    shown = problems[:10] + [f"and {len(problems) - 10} more"] * (len(problems) > 10)
    return ConfigError(
        "the state is not that of this program:\n" + "\n".join(f"  {problem}" for problem in shown),
        code="program-state",
        hint="load it into the program that it was saved from; its paths are those of named_predictors()",
    )
