"""What an optimizer asks a module, `dspex.Module` answers as `dspy.Module` does."""

from __future__ import annotations

from typing import Any

import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.generated import fewer

import dspex
from dspex.errors import ConfigError
from dspex.modules._listening import Listener

LEAVES = st.sampled_from(["Predict", "ChainOfThought", "again", 3, None])
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=2).map(tuple),
        st.dictionaries(st.sampled_from(["k", "two words"]), inner, max_size=2),
        st.tuples(
            st.just("Module"), st.booleans(), st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
        ),
    ),
    max_leaves=12,
)
ROOTS = st.tuples(st.just("Module"), st.booleans(), st.dictionaries(st.sampled_from("abcd"), TREES))


def made_of(lib: Any, tree: Any, known: list[Any]) -> Any:
    """A tree of either library; `again` is a predictor that is somewhere else already."""
    match tree:
        case ("Module", frozen, parts):
            module = lib.Module()
            for name, part in parts.items():
                setattr(module, name, made_of(lib, part, known))
            if frozen:
                module._compiled = True
            return module
        case "Predict" | "ChainOfThought":
            known.append(getattr(lib, tree)("q -> a"))
            return known[-1]
        case "again":
            return known[0] if known else None
        case list() | tuple():
            return type(tree)(made_of(lib, part, known) for part in tree)
        case dict():
            return {name: made_of(lib, part, known) for name, part in tree.items()}
    return tree


def answers(lib: Any, tree: Any) -> Any:
    """What the module says of itself, in words."""
    module = made_of(lib, tree, [])
    kinds = {
        type_: [(path, type(part).__name__) for path, part in module.named_sub_modules(**asked)]
        for type_, asked in {
            "all": {},
            "unfrozen": {"skip_compiled": True},
            "predictors": {"type_": lib.Predict},
            "thoughts": {"type_": lib.ChainOfThought, "skip_compiled": True},
            "numbers": {"type_": int},
        }.items()
    }
    for number, predictor in enumerate(module.parameters()):
        predictor.demos = [{"q": str(number), "a": "A"}]
    twin = module.reset_copy()
    # DSPy looks into its predictors too, where there are no modules but flags and lists.
    kinds["numbers"] = [path for path, _ in kinds["numbers"] if path.count(".") == 1 and "_" not in path]
    return (
        module._compiled,
        [path for path, _ in module.named_parameters()],
        [path for path, _ in module.named_predictors()],
        [type(part).__name__ for part in module.parameters()],
        list(module.dump_state()),
        kinds,
        [len(predictor.demos) for predictor in twin.parameters()],
        [len(part.demos) for _, part in twin.named_sub_modules(type_=lib.Predict)],
    )


@fewer(5)
@given(tree=ROOTS)
def test_a_module_names_its_parts_as_dspy_s_does_and_keeps_frozen_ones(tree: Any) -> None:
    assert answers(dspex, tree) == answers(dspy, tree)


@pytest.mark.parametrize("lib", [dspex, dspy])
def test_a_predictor_is_its_own_parameter_and_the_root_is_never_frozen(lib: Any) -> None:
    predict = lib.Predict("q -> a")
    assert predict.named_parameters() == [("self", predict)]
    predict._compiled = True
    assert predict.parameters() == [predict]
    thought = lib.ChainOfThought("q -> a")
    thought._compiled = True
    assert thought.parameters() == [thought.predict]
    outer = lib.Module()
    outer.inner = thought
    assert outer.parameters() == []


def test_a_frozen_module_keeps_its_model_and_is_streamed_all_the_same() -> None:
    outer: Any = dspex.Module()
    outer.frozen, outer.free = dspex.ChainOfThought("q -> a"), dspex.Predict("q -> b")
    outer.frozen._compiled = True
    outer.set_lm("openai/x")
    assert outer.frozen.predict.lm is None
    assert outer.get_lm() == outer.free.lm == dspex.LM("openai/x")
    listener = Listener(outer, ["a", "free.b"])
    sink = listener.sink_of(outer.frozen.predict, outer.frozen.predict.signature)
    assert sink is not None
    assert sink.predictor == "frozen.predict"


@fewer(10)
@given(
    first=st.dictionaries(st.sampled_from(["temperature", "n", "seed", "own"]), st.integers(1, 3)),
    more=st.lists(
        st.dictionaries(st.sampled_from(["temperature", "n", "max_tokens", "own"]), st.integers(1, 3)),
        max_size=3,
    ),
)
def test_settings_are_added_to_those_that_are_there(first: Any, more: Any) -> None:
    found = []
    for lib in (dspy, dspex):
        predict = lib.Predict("q -> a", **first)
        before = predict.get_config()
        kept = dict(before)
        for config in more:
            predict.update_config(**config)
        assert before == kept
        assert predict.get_config() is predict.config
        found.append(predict.get_config())
    assert found[0] == found[1]


def test_a_slip_in_a_setting_is_refused_and_changes_nothing() -> None:
    predict = dspex.Predict("q -> a", seed=1)
    with pytest.raises(ConfigError, match="did you mean 'temperature'"):
        predict.update_config(seed=2, temprature=1)  # type: ignore[call-arg]
    assert predict.get_config() == {"seed": 1}
