"""The written-out backward pass against autograd on an independent forward pass."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from ridgeline.search.engine import ModelShape
from ridgeline.search.engine.layers import Rows, StackedMlp
from ridgeline.search.engine.layout import ParameterLayout, Stacks, StatisticsLayout
from ridgeline.search.engine.spec import ALIGNMENT
from tests.engine.sets import CPU

K, B, D, C = 3, 8, 5, 4


@pytest.mark.parametrize(
    ("activation", "batch_norm", "dropout", "hidden"),
    list(itertools.product(["relu", "tanh"], [False, True], [False, True], [(), (6,), (6, 9)])),
)
def test_gradients_are_those_of_autograd(
    activation: str, batch_norm: bool, dropout: bool, hidden: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = ModelShape(D, hidden, C, activation, batch_norm)
    layout, statistics_layout = ParameterLayout(shape), StatisticsLayout(shape)
    parameters = layout.initial_rows(range(K), CPU, torch.float64)
    for name, view in layout.views(parameters).items():
        if name.startswith("norms."):
            view.add_(torch.rand(view.shape, generator=generator, dtype=torch.float64))
    gradients = torch.full_like(parameters, 7.0)
    statistics = torch.stack([statistics_layout.initial_row(CPU, torch.float64)] * K)
    x = torch.randn(K, B, D, generator=generator, dtype=torch.float64)
    y = torch.randint(C, (K, B), generator=generator)
    num_valid = torch.tensor([8, 5, 2])
    invalid = torch.arange(B)[None, :] >= num_valid[:, None]
    x[invalid] = 1e3  # What stands in padded rows must not matter.
    scales = None
    if dropout:
        kept = torch.rand(K, sum(hidden), B, generator=generator) > 0.4
        scales = kept.double() / 0.6

    model = StackedMlp(
        shape,
        layout.views(parameters),
        layout.views(gradients),
        statistics_layout.views(statistics),
    )
    rows = Rows(invalid, num_valid.double()[:, None, None])
    log_p = model.loss_gradients(x.clone(), y, rows, scales)

    views = layout.views(gradients)
    for slot in range(K):
        n = int(num_valid[slot])
        leaves = {
            name: view[slot].clone().requires_grad_()
            for name, view in layout.views(parameters).items()
        }
        flow = x[slot, :n]
        masks = [] if scales is None else torch.split(scales[slot, :, :n].T, list(hidden), dim=1)
        for i in range(len(hidden)):
            flow = F.linear(flow, leaves[f"layers.{i}.weight"], leaves[f"layers.{i}.bias"])
            if batch_norm:
                flow = F.batch_norm(
                    flow,
                    None,
                    None,
                    leaves[f"norms.{i}.weight"],
                    leaves[f"norms.{i}.bias"],
                    training=True,
                )
            flow = torch.relu(flow) if activation == "relu" else torch.tanh(flow)
            if scales is not None:
                flow = flow * masks[i]
        i = len(hidden)
        logits = F.linear(flow, leaves[f"layers.{i}.weight"], leaves[f"layers.{i}.bias"])
        F.cross_entropy(logits, y[slot, :n]).backward()
        expected = torch.log_softmax(logits.detach(), 1)
        assert_close(log_p[slot, :, :n].T, expected, rtol=1e-10, atol=1e-12)
        for name, leaf in leaves.items():
            assert_close(views[name][slot], leaf.grad, rtol=1e-9, atol=1e-12)


def test_initial_parameters_are_distributed_as_torchs() -> None:
    shape = ModelShape(400, (300,), 10, batch_norm=True)
    layout = ParameterLayout(shape)
    rows = layout.initial_rows([3, 4], CPU, torch.float64)
    views = {name: view[0] for name, view in layout.views(rows).items()}
    for name, units_in in (("layers.0", 400), ("layers.1", 300)):
        bound = units_in**-0.5
        weight = views[f"{name}.weight"]
        assert weight.abs().max() <= bound
        assert views[f"{name}.bias"].abs().max() <= bound
        # 5 standard errors of the mean and of the standard deviation of a uniform distribution.
        error = 5 * bound / (3 * weight.numel()) ** 0.5
        assert abs(weight.mean()) < error
        assert abs(weight.std() - bound / 3**0.5) < error
    assert (views["norms.0.weight"] == 1).all()
    assert (views["norms.0.bias"] == 0).all()
    assert not torch.equal(*rows)
    assert torch.equal(rows[1:], layout.initial_rows([4], CPU, torch.float64)), (
        "whoever else is drawn"
    )


def test_parameters_are_aligned_and_matrices_come_first() -> None:
    layout = ParameterLayout(ModelShape(5, (3, 7), 2, batch_norm=True))
    rows = torch.zeros(2, layout.row_size)
    views = layout.views(rows)
    assert layout.row_size % ALIGNMENT == 0
    assert all(view.storage_offset() % ALIGNMENT == 0 for view in views.values())
    for name, view in views.items():
        is_matrix = view.dim() == 3
        assert (view.storage_offset() < layout.stretches[-1].start) == is_matrix, name
    assert layout.num_matrix_entries == 5 * 3 + 3 * 7 + 7 * 2


def test_stacks_hold_rows_and_each_matrix_in_one_block() -> None:
    layout = ParameterLayout(ModelShape(16, (3, 7), 2, batch_norm=True))
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
