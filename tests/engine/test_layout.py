"""Where parameters lie: each slot's on lines of memory, those that are penalised first."""

from __future__ import annotations

import torch

from ridgeline.search.engine import Mlp
from ridgeline.search.engine.alignment import ALIGNMENT
from ridgeline.search.engine.layout import ParameterLayout, Stacks
from tests.engine.sets import CPU


def test_parameters_are_aligned_and_penalised_ones_come_first() -> None:
    layout = ParameterLayout(Mlp(5, (3, 7), 2, batch_norm=True))
    rows = torch.zeros(2, layout.row_size)
    views = layout.views(rows)
    assert layout.row_size % ALIGNMENT == 0
    assert all(view.storage_offset() % ALIGNMENT == 0 for view in views.values())
    for name, view in views.items():
        is_first = view.storage_offset() < layout.stretches[-1].start
        assert is_first == (name in layout.penalised) == (view.dim() == 3), name
    assert layout.num_penalised == 5 * 3 + 3 * 7 + 7 * 2


def test_stacks_hold_rows_and_each_matrix_in_one_block() -> None:
    layout = ParameterLayout(Mlp(16, (3, 7), 2, batch_norm=True))
    stacks = Stacks(layout, 2, device=CPU, dtype=torch.float32)
    rows = torch.arange(2.0 * layout.row_size).view(2, -1)
    for slot in range(2):
        stacks.set_row(slot, rows[slot])
    assert all(torch.equal(stacks.row(slot), rows[slot]) for slot in range(2))
    expected = layout.views(rows)
    assert stacks.views().keys() == expected.keys()
    for name, view in stacks.views().items():
        assert torch.equal(view, expected[name]), name
        assert view.data_ptr() % (4 * ALIGNMENT) == 0
        assert view.stride(0) % ALIGNMENT == 0
    assert stacks.views()["layers.0.weight"].is_contiguous()  # of a multiple of ALIGNMENT

    others = Stacks(layout, 3, device=CPU, dtype=torch.float32)
    others.set_rows(stacks, torch.tensor([1, 0]))
    assert torch.equal(others.row(0), rows[1])
    assert torch.equal(others.row(1), rows[0])
    assert not others.row(2).any()
