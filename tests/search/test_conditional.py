"""Parameters that belong to some configurations only, from the spec to the copy for Optuna."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline.search.fields import SamplerName
from ridgeline.search.history import History, TrialStatus
from ridgeline.search.importance import importances
from ridgeline.search.optuna_space import distributions, from_optuna, to_optuna
from ridgeline.search.samplers import sampler_for
from ridgeline.search.space import Config, Space
from ridgeline.search.spec import parse_spec
from ridgeline.search.tasks.domain import Domain
from ridgeline.search.tasks.function import FunctionTask
from tests.search.specs import BASE, EXTERNAL, changed, problems_of

SPACE = Space.model_validate(
    {
        "momentum": {
            "type": "float", "low": 0.5, "high": 0.9, "step": 0.2, "when": {"optimizer": "sgd"},
        },
        "optimizer": {"type": "values", "values": ["sgd", "adam", "adamw"]},
        "beta": {"type": "values", "values": [0.9, 0.99], "when": {"optimizer": ["adam", "adamw"]}},
        "layers": {"type": "values", "values": [1, 2]},
        "width_2": {"type": "int", "low": 1, "high": 3, "when": {"layers": 2, "optimizer": "sgd"}},
        "decay": {"type": "float", "low": 1, "high": 2, "step": 1, "zero": True,
                  "when": {"beta": 0.99}},
    }
)  # fmt: skip
FINITE = {name: parameter.model_dump() for name, parameter in SPACE.items()}
ENDLESS = Space.model_validate(
    {**FINITE, "rate": {"type": "float", "low": 1e-4, "high": 1, "log": True,
                        "when": {"layers": 2}}}
)  # fmt: skip


def _configs(space: Space) -> list[Config]:
    """All configurations of a finite space, without the code that is tested."""
    grids = [[p.grid_value(i) for i in range(p.grid_size or 0)] for _, p in space.items()]
    found: list[Config] = []
    for values in itertools.product(*grids):
        whole = dict(zip(space.names, values, strict=True))

        def is_there(name: str, whole: Config = whole) -> bool:
            when = space[name].when or {}
            return all(is_there(o) and whole[o] in allowed for o, allowed in when.items())

        config = {name: value for name, value in whole.items() if is_there(name)}
        if config not in found:
            found.append(config)
    return found


def _value(config: Config) -> float:
    return sum(float(hash(str(item)) % 7) for item in sorted(config.items()))


def test_a_grid_has_each_configuration_once() -> None:
    assert SPACE.num_cells == 28
    cells = [SPACE.cell(index) for index in range(28)]
    key = repr
    assert sorted(map(key, cells)) == sorted(map(key, _configs(SPACE)))
    assert all(SPACE.problems(cell) == [] for cell in cells)
    spec = parse_spec({**EXTERNAL, "space": FINITE, "sampler": {"name": "grid"}, "budget": {}})
    assert spec.num_trials == 28


@st.composite
def _spaces(draw: st.DrawFn) -> Space:
    """Up to five lists, each of which may depend on others before or behind it."""
    names = ["a", "b", "c", "d", "e"][: draw(st.integers(2, 5))]
    space: dict[str, Any] = {}
    for name in names:
        space[name] = {"type": "values", "values": list(range(draw(st.integers(1, 3))))}
    rank = draw(st.permutations(names))
    for index, name in enumerate(rank[1:], start=1):
        others = draw(st.lists(st.sampled_from(rank[:index]), unique=True, max_size=2))
        if others:
            space[name]["when"] = {
                other: draw(st.lists(st.sampled_from(space[other]["values"]), min_size=1))
                for other in others
            }
    return Space.model_validate(space)


@given(_spaces())
def test_cells_are_what_counting_by_hand_gives(space: Space) -> None:
    expected = _configs(space)
    assert space.num_cells == len(expected)
    cells = [space.cell(index) for index in range(len(expected))]
    assert sorted(map(repr, cells)) == sorted(map(repr, expected))
    with pytest.raises(IndexError):
        space.cell(len(expected))


def test_a_grid_too_large_to_be_counted() -> None:
    space = {f"p{i}": {"type": "int", "low": 1, "high": 1000} for i in range(8)}
    space |= {"a": {"type": "values", "values": [1, 2]}}
    space["p0"]["when"] = {"a": [1]}
    grid = {**EXTERNAL, "space": space, "sampler": {"name": "grid"}, "budget": {}}
    assert problems_of(grid) == [
        ("space", "the grid has over 100000 cells; at most 100000 can be tried")
    ]
    spec = parse_spec({**grid, "budget": {"trials": 1_000}})
    history = History(spec.space)
    suggested = sampler_for("grid").suggest(spec.space, history, range(1_000), 0, "minimize")
    assert len({repr(one.config) for one in suggested}) == 1_000


@pytest.mark.parametrize("name", ["random", "gp", "tpe", "auto"])
@pytest.mark.parametrize("space", [SPACE, ENDLESS], ids=["finite", "endless"])
def test_samplers_suggest_configurations(name: SamplerName, space: Space) -> None:
    sampler, history = sampler_for(name), History(space)
    while len(history) < 28:
        numbers = range(len(history), len(history) + 2)
        for one in sampler.suggest(space, history, numbers, 5, "minimize"):
            assert space.problems(one.config) == []
            assert repr(space.ordered(one.config)) == repr(one.config)
            history.put(one.number, one.config, enqueued=False, state=TrialStatus.COMPLETE,
                        value=_value(one.config))  # fmt: skip
            assert history.config(one.number) == one.config
    seen = {repr(history.config(number)) for number in range(28)}
    if space is ENDLESS:
        assert {"momentum", "beta", "width_2", "decay", "rate"} <= set().union(
            *(history.config(number) for number in range(28))
        )
    else:
        assert len(seen) == 28


@pytest.mark.parametrize("name", ["random", "gp", "tpe"])
def test_what_is_given_decides_what_else_is_there(name: SamplerName) -> None:
    space, history = ENDLESS, History(ENDLESS)
    for number, one in enumerate(_configs(SPACE)[:12]):
        config = {**one, "rate": 0.1} if one["layers"] == 2 else one
        history.put(number, config, enqueued=False, state=TrialStatus.COMPLETE, value=number)
    given: dict[int, Config] = {12: {"optimizer": "sgd", "layers": 2}, 13: {"optimizer": "adamw"}}
    found = sampler_for(name).suggest(space, history, [12, 13], 0, "minimize", given)
    for suggestion in found:
        assert space.problems(suggestion.config) == []
        assert given[suggestion.number].items() <= suggestion.config.items()
        assert suggestion.given == tuple(given[suggestion.number])
    assert {"momentum", "width_2", "rate"} <= set(found[0].config)


def test_mistakes_are_told_by_their_field() -> None:
    values = {"type": "values", "values": [1, 2]}
    space = {
        "a": {**values, "when": {"b": 1, "nobody": 1}},
        "b": {"type": "int", "low": 1, "high": 2},
        "c": {**values, "when": {"d": [1, 3]}},
        "d": values,
        "e": {**values, "when": {"e": 1}},
    }
    assert problems_of({**EXTERNAL, "space": space}) == [
        ("space.a.when.b", "must be a parameter of type values"),
        ("space.a.when.nobody", "is not a parameter of the space"),
        ("space.c.when.d.1", "must be one of 1, 2"),
    ]
    circle = {"a": {**values, "when": {"b": 1}}, "b": {**values, "when": {"a": 1}}, "c": values}
    assert [field for field, _ in problems_of({**EXTERNAL, "space": circle})] == [
        "space.a.when",
        "space.b.when",
    ]
    bad: list[object] = [5, "a", [], {}, {"b": []}, {"b": None}, {"b": {"c": 1}}, {"b": [[1]]}]
    for wrong in bad:
        ((field, _),) = problems_of({**EXTERNAL, "space": {"a": {**values, "when": wrong}}})
        assert field.startswith("space.a.when")


def test_configurations_that_are_none() -> None:
    assert SPACE.problems({"optimizer": "adam", "momentum": 0.5, "layers": 1}) == [
        ("momentum", 'belongs only where optimizer is "sgd"'),
        ("beta", "is missing"),
    ]
    assert SPACE.problems({"momentum": 0.5}, missing=None) == [
        ("momentum", 'belongs only where optimizer is "sgd"; give optimizer too')
    ]
    assert SPACE.problems({"optimizer": "sgd"}, missing=None) == []
    assert not SPACE.lacks({"optimizer": "adam", "beta": 0.9, "layers": 2})
    assert SPACE.lacks({"optimizer": "sgd", "layers": 1})


def test_copies_for_optuna_lack_what_trials_lack() -> None:
    for config in _configs(SPACE):
        params = to_optuna(SPACE, config)
        assert from_optuna(SPACE, params) == config
        assert ("momentum" in params) == (config["optimizer"] == "sgd")
        assert ("decay_zero" in params) == ("decay" in config)
        assert set(params) <= set(distributions(SPACE))


def test_importances_of_parameters_that_some_trials_have() -> None:
    configs: list[Config] = [
        {**one, "rate": 10 ** (-i % 4)} if one["layers"] == 2 else one
        for i, one in enumerate(_configs(SPACE) * 2)
    ]
    shares = importances(ENDLESS, sorted(configs, key=lambda c: str(c["optimizer"])))
    assert shares is not None
    assert set(shares) == set(ENDLESS.names)
    assert sum(shares.values()) == pytest.approx(1)


def test_tasks_give_what_is_lacking_its_default() -> None:
    data = changed(BASE, "space.optimizer", {"type": "values", "values": ["sgd", "adam"]})
    data = changed(
        data,
        "space.momentum",
        {"type": "float", "low": 0, "high": 0.5, "when": {"optimizer": "sgd"}},
    )
    data = changed(
        data, "space.epochs", {"type": "int", "low": 1, "high": 5, "when": {"optimizer": "sgd"}}
    )
    spec = parse_spec(data)
    config = spec.run_config({"learning_rate": 0.1, "batch_size": 32, "optimizer": "adam"})
    assert (config["momentum"], config["epochs"]) == (0.9, spec.budget.epochs)
    assert spec.max_epochs == spec.budget.epochs


def _train(params: dict[str, Any], report: object) -> float:
    return 0.0


TASK = FunctionTask(
    "f",
    _train,
    parameters={
        "kind": Domain("choice", "which", choices=("a", "b")),
        "depth": Domain("int", "how deep"),
    },
    metric="drag",
    direction="minimize",
)


def test_a_function_may_lack_what_has_no_default() -> None:
    assert TASK.params({"kind": "a"}, 1) == {"kind": "a", "seed": 1}
    assert TASK.params({"kind": "a", "depth": 2}, 1)["depth"] == 2
    with pytest.raises(ValueError, match="must not have other"):
        TASK.params({"kind": "a", "other": 2}, 1)


def test_another_task_without_a_default_needs_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ridgeline.search.spec.task_of", lambda settings: TASK)
    kind = {"type": "values", "values": ["a", "b"]}
    depth = {"type": "int", "low": 1, "high": 4, "when": {"kind": "a"}}
    data = {**EXTERNAL, "space": {"kind": kind, "depth": depth}}
    parse_spec(data)
    monkeypatch.setattr(FunctionTask, "takes_gaps", False)
    assert problems_of(data) == [
        ("space.depth.when", "the task f has no default, so each trial needs a value")
    ]
