"""LSTMs: that of ours against torch's, and modules that have one in packs."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from ridgeline.search.engine.models.module import ModuleModel
from ridgeline.search.engine.models.module_packing import unpackable
from ridgeline.search.engine.models.module_substitutes import Substitutes
from tests.engine.models.test_odd_nets import assert_trains
from tests.engine.sets import CPU

NUM_ROWS, NUM_STEPS, NUM_INPUTS, NUM_UNITS = 5, 4, 3, 6


class Remembers(nn.Module):
    """Reads the numbers of a row one by one."""

    def __init__(self, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, 8, layers, dropout=dropout, batch_first=True)
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        flow, _ = self.lstm(x[:, :, None])
        result: Tensor = self.last(flow[:, -1])
        return result


def substitutes(factors: Tensor | None = None) -> Substitutes:
    return Substitutes(torch.tensor(float(NUM_ROWS)), None, factors)


@pytest.mark.parametrize("form", [*product((1, 2), *((False, True),) * 3, (0, 2))])
def test_an_lstm_is_that_of_torch(form: tuple[int, bool, bool, bool, int]) -> None:
    layers, bidirectional, batch_first, bias, projections = form
    torch.manual_seed(0)
    module = nn.LSTM(
        NUM_INPUTS, NUM_UNITS, layers, bias=bias, bidirectional=bidirectional,
        batch_first=batch_first, proj_size=projections, dtype=torch.float64,
    )  # fmt: skip
    sizes = (NUM_ROWS, NUM_STEPS) if batch_first else (NUM_STEPS, NUM_ROWS)
    x = torch.randn(*sizes, NUM_INPUTS, dtype=torch.float64)
    starts = tuple(
        torch.randn(layers * (1 + bidirectional), NUM_ROWS, size, dtype=torch.float64)
        for size in (projections or NUM_UNITS, NUM_UNITS)
    )
    expected = module(x, starts)
    with substitutes():
        assert_close(module(x, starts), expected)


def test_rows_of_many_lengths_are_left_to_torch() -> None:
    module = nn.LSTM(NUM_INPUTS, NUM_UNITS)
    x = torch.randn(NUM_STEPS, NUM_ROWS, NUM_INPUTS)
    packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([4, 4, 3, 2, 1]))
    expected, _ = module(packed)
    with substitutes():
        found, _ = module(packed)
    assert found.data.equal(expected.data)


def test_dropout_between_layers_has_the_factors_of_the_run() -> None:
    module = nn.LSTM(NUM_INPUTS, NUM_UNITS, 2, dropout=0.3, batch_first=True)
    x = torch.randn(NUM_ROWS, NUM_STEPS, NUM_INPUTS)
    num_draws = NUM_STEPS * NUM_UNITS
    mode = substitutes(torch.zeros(num_draws, NUM_ROWS))
    with mode:
        found, _ = module(x)
    assert [(site.probability, site.num_draws) for site in mode.sites] == [(0.3, num_draws)]
    second = nn.LSTM(NUM_UNITS, NUM_UNITS, batch_first=True)
    weights = dict(module.named_parameters())
    second.load_state_dict(
        {name: weights[name.replace("l0", "l1")] for name, _ in second.named_parameters()}
    )
    expected, _ = second(torch.zeros(NUM_ROWS, NUM_STEPS, NUM_UNITS))
    assert_close(found, expected)


@pytest.mark.parametrize(("layers", "dropout"), [(1, 0.0), (2, 0.3)])
def test_a_module_with_an_lstm_trains_in_packs(layers: int, dropout: float) -> None:
    model = ModuleModel.of(Remembers, (5,), 3, layers=layers, dropout=dropout)
    assert unpackable(model, 2, 16, CPU, torch.float32) is None
    assert model.num_draws == (5 * 8 if dropout else 0)
    assert_trains(model)
