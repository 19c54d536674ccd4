"""Constraints between parameters: read, told of, and kept by every sampler."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from ridgeline.search.constraints import BadConstraint, parse
from ridgeline.search.fields import SamplerName
from ridgeline.search.history import History, TrialStatus
from ridgeline.search.samplers import sampler_for
from ridgeline.search.space import Config
from ridgeline.search.spec import StudySpec, parse_spec
from tests.search.specs import EXTERNAL, problems_of


def _int(low: int, high: int, **fields: Any) -> dict[str, Any]:
    return {"type": "int", "low": low, "high": high, **fields}


def _float(low: float, high: float, **fields: Any) -> dict[str, Any]:
    return {"type": "float", "low": low, "high": high, **fields}


def _values(*values: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "values", "values": values, **fields}


def spec(space: dict[str, Any], *constraints: str, sampler: str = "random") -> StudySpec:
    budget = {} if sampler == "grid" else {"trials": 100}
    return parse_spec({
        **EXTERNAL, "space": space, "constraints": constraints, "sampler": {"name": sampler},
        "budget": budget,
    })  # fmt: skip


FINITE = {
    "a": _int(0, 6),
    "b": _values(0.5, 2, 4, 8),
    "mode": _values("x", "y"),
    "c": _float(0.1, 0.5, step=0.1, zero=True, when={"mode": "y"}),
}
FINITE_RULES = ("a <= b", "2*a + 10*c < 11", "c >= 0.1*a")
ENDLESS = {
    "low": _float(1e-4, 1, log=True),
    "high": _float(1e-4, 1, log=True),
    "mode": _values("x", "y"),
    "n": _int(1, 10**6, log=True, when={"mode": "y"}),
    "share": _float(0, 1, zero=False),
}
ENDLESS_RULES = ("low <= high", "n/1000 + share < 2", "share + high > 0.2")
THIN = {"x": _float(0, 1), "y": _float(1e-6, 1, log=True), "z": _int(0, 10**9)}
THIN_RULES = ("x + y < 0.0001", "z <= 5", "x >= 0.00005")


@pytest.mark.parametrize(
    ("text", "terms", "constant", "is_strict"),
    [
        ("a <= b", {"a": 1, "b": -1}, 0, False),
        ("a>b", {"b": 1, "a": -1}, 0, True),
        ("2*x + y < 10", {"x": 2, "y": 1}, -10, True),
        ("-(x - 3)/2 >= 1e-1*y.z", {"y.z": 0.1, "x": 0.5}, -1.5, False),
        ("3 * (2 * lambda) - lambda < +.5", {"lambda": 5}, -0.5, True),
    ],
)
def test_what_is_read(text: str, terms: dict[str, float], constant: float, is_strict: bool) -> None:
    found = parse(text)
    assert dict(found.terms) == pytest.approx(terms)
    assert found.constant == pytest.approx(constant)
    assert found.is_strict == is_strict


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("a", 2, "needs one of"),
        ("a <", 4, "needs a number"),
        ("a <= b <= c", 8, "two comparisons"),
        ("a == b", 3, "is no part"),
        ("a < b; import os", 6, "is no part"),
        ("a*b < 1", 2, "linear"),
        ("1/a < 1", 2, "divided by"),
        ("a/0 < 1", 2, "by 0"),
        ("2a < 1", 2, "needs one of"),
        ("(a < 1", 4, r"needs a \)"),
        ("a < a", 3, "no parameter"),
        ("1 < 2", 3, "no parameter"),
        ("f(x) < 1", 2, "needs one of"),
        ("1e300*1e300*a < 1", 15, "too large"),
        ("__import__ < 1", 1, "is no part"),
        ("a < " + "(" * 490 + "1", 25, "brackets deep"),
    ],
)
def test_mistakes_are_told_by_their_place(text: str, position: int, reason: str) -> None:
    with pytest.raises(BadConstraint, match=f"^at character {position}: .*{reason}"):
        parse(text)


def test_specs_name_the_constraint() -> None:
    def told(*constraints: object, **changes: Any) -> list[tuple[str, str]]:
        space = {"a": _int(0, 3), "b": _float(0, 3), "m": _values("x", "y")}
        return problems_of({**EXTERNAL, "space": space, "constraints": constraints, **changes})

    assert told("a <= b", "a <= c", "a + m < 3", "a <") == [
        ("constraints.3", "at character 4: needs a number or a parameter here")
    ]
    assert told("a <= b", "a <= c", "a + m < 3") == [
        ("constraints.1", "at character 6: c is not a parameter of the space"),
        ("constraints.2", "at character 5: m is not a parameter of numbers"),
    ]
    assert told("a > 3") == [("constraints", "no configuration was found that keeps them all")]
    assert told("b + a > 7")[0][0] == "constraints"
    bad: list[object] = [5, None, "", [], "a" * 501]
    for wrong in bad:
        ((field, _),) = told(wrong)
        assert field == "constraints.0"
    grid = {"sampler": {"name": "grid"}, "budget": {}, "space": {"a": _int(0, 3), "b": _int(0, 3)}}
    assert told("a + b > 6", **grid) == [("constraints", "no cell of the grid keeps them all")]
    large = {**grid, "space": {f"p{i}": _int(0, 999) for i in range(6)}}
    assert told("p0 < p1", "p1 < p2", "p2 + p3 < 2", **large)[0][0] == "constraints"


def test_a_grid_leaves_out_what_breaks_a_constraint() -> None:
    study = spec(FINITE, *FINITE_RULES, sampler="grid")
    every = itertools.product(range(7), [0.5, 2, 4, 8], ["x", "y"], [0, 0.1, 0.2, 0.3, 0.4, 0.5])
    kept = {
        (a, b, mode, c if mode == "y" else None)
        for a, b, mode, c in every
        if a <= b and (mode == "x" or (2 * a + 10 * c < 11 - 1e-9 and c >= 0.1 * a - 1e-9))
    }
    cells = [study.space.cell(index) for index in range(study.num_trials)]
    found = [(cell["a"], cell["b"], cell["mode"], cell.get("c")) for cell in cells]
    assert len(found) == len(set(found))
    assert set(found) == kept
    assert spec({"x": _float(0.1, 0.3, step=0.1), "y": _float(0.1, 0.3, step=0.1)},
                 "x + y <= 0.3", sampler="grid").num_trials == 3  # fmt: skip


CASES = {
    "finite": (FINITE, FINITE_RULES),
    "endless": (ENDLESS, ENDLESS_RULES),
    "thin": (THIN, THIN_RULES),
    "line": ({"x": _float(0, 1), "y": _float(0, 1)}, ("x <= y", "y <= x", "x + y >= 1.5")),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["random", "gp", "tpe"])
def test_samplers_keep_them(name: SamplerName, case: str) -> None:
    space = spec(CASES[case][0], *CASES[case][1]).space
    sampler, history, seen = sampler_for(name), History(space), set()
    for _ in range(6):
        numbers = range(len(history), len(history) + 10)
        given: dict[int, Config] = {numbers[3]: {"x": 0.8}} if case == "line" else {}
        for one in sampler.suggest(space, history, numbers, 3, "minimize", given):
            assert space.problems(one.config) == []
            assert given.get(one.number, {}).items() <= one.config.items()
            seen.add(repr(one.config))
            history.put(one.number, one.config, enqueued=False, state=TrialStatus.COMPLETE,
                        value=float(len(repr(one.config))))  # fmt: skip
    assert len(seen) > 20 or case == "line"


def test_what_is_given_is_refused_with_the_constraint() -> None:
    space = spec(FINITE, *FINITE_RULES).space
    config: Config = {"a": 3, "b": 2, "mode": "x"}
    assert space.problems(config) == [("a", "breaks the constraint a <= b")]
    assert space.problems({"a": 3, "b": 2}, missing=None)[0][0] == "a"
    assert space.problems({"a": 3, "b": 4, "mode": "x"}) == []
