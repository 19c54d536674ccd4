"""Measures of a run as a whole, of its layers, and of an arm's runs."""

from __future__ import annotations

from dataclasses import fields

import pytest
from pydantic import BaseModel, ValidationError

from ridgeline.search import measures
from ridgeline.search.engine import measures as engine_measures
from ridgeline.search.fields import MAX_INT
from ridgeline.search.measures import Measures, WeightHistogram, flat, means, pooled, summary
from tests.measures import RELU, TANH

GAPS = {"loss_gap": 0.5, "accuracy_gap": 0.25}


def test_a_run_as_a_whole_weighs_its_layers_by_their_sizes() -> None:
    shares = {"zero_share": 0.125, "near_zero_share": 0.375}
    assert summary(RELU) == {**GAPS, **shares, "inputs_kept": 3, "dead_share": 0.25}
    assert summary(TANH) == {**GAPS, **shares, "linear_share": 0.3125}


def test_layers_have_their_names_in_what_is_told_of_them() -> None:
    told = {name: number for name, number in flat(RELU).items() if name not in summary(RELU)}
    assert told == {
        "weight_norm.layers.0.weight": 2.0,
        "zero_share.layers.0.weight": 0.5,
        "near_zero_share.layers.0.weight": 0.75,
        "weight_norm.layers.1.weight": 1.5,
        "zero_share.layers.1.weight": 0.0,
        "near_zero_share.layers.1.weight": 0.25,
        "dead_share.layers.0": 0.25,
    }
    assert flat(TANH)["linear_share.layers.1"] == 0.25


def test_means_are_of_what_every_run_has() -> None:
    other = RELU.model_copy(update={"generalisation_gap": {"accuracy": -0.25}})
    assert means([]) == {}
    assert means([RELU, other])["accuracy_gap"] == 0
    assert "loss_gap" not in means([RELU, other])
    assert "inputs_kept" not in means([RELU, TANH])


def test_quantiles_follow_from_the_bins() -> None:
    histogram = RELU.weight_histogram
    assert histogram is not None
    assert histogram.num_weights == 128
    found = {share: histogram.quantile(share) for share in (0.125, 0.15, 0.25, 0.375, 0.5, 1.0)}
    assert found == {
        0.125: 0.0,
        0.15: 2.0**-20,  # at or below that is all that is known
        0.25: pytest.approx(2.0 ** (-19 + 1 / 3)),
        0.375: 2.0**-18,
        0.5: pytest.approx(2.0**-2.6),
        1.0: 0.5,
    }
    large = WeightHistogram(num_zero=0, counts=(*[0] * 25, 7))
    assert large.quantile(0.5) == 16.0


def test_weights_of_several_runs_are_counted_together() -> None:
    assert pooled([]) is None
    uncounted = RELU.model_copy(update={"weight_histogram": None})
    assert pooled([RELU, uncounted]) is None, "of half the runs nothing is told"
    both = pooled([RELU, TANH])
    assert both is not None
    assert (both.num_zero, both.counts[:3]) == (32, (16, 0, 48))


def test_what_an_earlier_version_stored_is_read() -> None:
    stored = RELU.model_dump(exclude={"weight_histogram"})
    assert Measures.model_validate(stored).weight_histogram is None


def test_the_bins_are_those_of_the_engine() -> None:
    edges = measures.LEAST_EXPONENT, measures.GREATEST_EXPONENT
    assert edges == (engine_measures.LEAST_EXPONENT, engine_measures.GREATEST_EXPONENT)
    for num_bins in (25, 27):
        with pytest.raises(ValidationError, match="counts"):
            WeightHistogram(num_zero=0, counts=(0,) * num_bins)


@pytest.mark.parametrize(
    "name", ["Measures", "InputMeasures", "LayerMeasures", "UnitMeasures", "WeightHistogram"]
)
def test_what_is_sent_is_what_the_engine_sees(name: str) -> None:
    sent: type[BaseModel] = getattr(measures, name)
    seen = getattr(engine_measures, name)
    assert [*sent.model_fields] == [field.name for field in fields(seen)]


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("layers", "zero_share", 1.5),
        ("layers", "weight_norm", float("nan")),
        ("units", "num_units", 0),
        ("units", "num_dead", -1),
    ],
)
def test_numbers_that_cannot_be_are_refused(part: str, field: str, value: float) -> None:
    told = RELU.model_dump()
    next(iter(told[part].values()))[field] = value
    with pytest.raises(ValidationError, match=field):
        Measures.model_validate(told)


def test_means_and_sums_of_numbers_of_any_size() -> None:
    counts = (MAX_INT, *[0] * 25)
    its = RELU.model_copy(
        update={
            "generalisation_gap": {"loss": 1.7e308},
            "weight_histogram": WeightHistogram(num_zero=MAX_INT, counts=counts),
        }
    )
    assert means([its, its])["loss_gap"] == 1.7e308
    assert pooled([its, its]) == its.weight_histogram
