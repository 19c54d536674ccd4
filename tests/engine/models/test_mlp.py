"""What holds for the multilayer perceptron beyond the contract."""

from __future__ import annotations

import torch

from ridgeline.search.engine import Mlp
from ridgeline.search.engine.layout import ParameterLayout
from tests.engine.sets import CPU


def test_initial_parameters_are_distributed_as_torchs() -> None:
    shape = Mlp(400, (300,), 10, batch_norm=True)
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


def test_flops_are_those_of_the_products() -> None:
    model = Mlp(784, (128,), 10)
    assert model.forward_flops(32) == 2 * 32 * (784 * 128 + 128 * 10)
    # Two products for the first layer, three for the second.
    assert model.step_flops(32) == 2 * 32 * (2 * 784 * 128 + 3 * 128 * 10)
    assert Mlp(64, (), 10).step_flops(8) == 2 * Mlp(64, (), 10).forward_flops(8)


def test_perceptrons_with_relu_and_cross_entropy_have_native_steps() -> None:
    assert Mlp(4, (3,), 2).native("cross_entropy") is not None
    for model, loss in (
        (Mlp(4, (3,), 2), "mean_squared_error"),
        (Mlp(4, (3,), 2, activation="tanh"), "cross_entropy"),
        (Mlp(4, (3,), 2, batch_norm=True), "cross_entropy"),
    ):
        assert model.native(loss) is None
