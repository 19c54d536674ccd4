"""Gaussian-process regression against scikit-learn, quadrature and itself."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from ridgeline.search.samplers.gaussian_process import (
    Kernel,
    Posterior,
    fitted,
    log_expected_improvement,
)

NUMBERS = np.zeros(2, np.bool_)
KERNEL = Kernel(np.array([0.3, 0.8]), NUMBERS, 1.3, 0.05)
GENERATOR = np.random.default_rng(4)
X_NF, X_MF = GENERATOR.random((15, 2)), GENERATOR.random((7, 2))
Y_N = np.sin(5 * X_NF[:, 0]) + X_NF[:, 1]


def test_the_posterior_is_that_of_scikit_learn() -> None:
    kernel = ConstantKernel(KERNEL.signal, "fixed") * Matern(KERNEL.length_f, "fixed", nu=2.5)
    theirs = GaussianProcessRegressor(kernel, alpha=KERNEL.nugget, optimizer=None).fit(X_NF, Y_N)
    posterior = Posterior(KERNEL, X_NF, Y_N, X_MF, 0)
    mean_m, deviation_m = theirs.predict(X_MF, return_std=True)
    assert posterior.mean_m == pytest.approx(mean_m, abs=1e-9)
    assert posterior.variance_m == pytest.approx(deviation_m**2, abs=1e-9)
    assert posterior.mean_n == pytest.approx(theirs.predict(X_NF), abs=1e-9)


def test_fantasies_are_observations_of_what_was_expected() -> None:
    posterior = Posterior(KERNEL, X_NF, Y_N, X_MF, 3)
    before_m = posterior.mean_m.copy()
    expected = [posterior.take_in(x_f) for x_f in X_MF[:3]]
    assert expected == pytest.approx(before_m[:3].tolist())
    x_nf, y_n = np.concatenate([X_NF, X_MF[:3]]), np.concatenate([Y_N, expected])
    whole = Posterior(KERNEL, x_nf, y_n, X_MF, 0)
    assert posterior.mean_m == pytest.approx(whole.mean_m, abs=1e-8)
    assert posterior.variance_m == pytest.approx(whole.variance_m, abs=1e-8)


def test_the_kernel_found_is_about_that_of_the_data() -> None:
    """Values that depend on the first feature alone, nearly without noise."""
    x_nf = np.random.default_rng(0).random((60, 2))
    y_n = np.sin(8 * x_nf[:, 0])
    kernel = fitted(x_nf, [False, False], (y_n - y_n.mean()) / y_n.std())
    assert kernel.length_f[1] > 4 * kernel.length_f[0]
    assert kernel.noise < 0.01
    random_n = np.random.default_rng(1).standard_normal(60)
    assert fitted(x_nf, [False, False], random_n).noise > 0.1


def test_no_kernel_near_the_one_that_is_found_is_more_likely() -> None:
    y_n = (Y_N - Y_N.mean()) / Y_N.std()
    found = fitted(X_NF, [False, False], y_n)
    best = _log_posterior(found, y_n)
    for factor in (0.8, 1.25):
        for index in (0, 1):
            length_f = found.length_f.copy()
            length_f[index] *= factor
            assert _log_posterior(Kernel(length_f, NUMBERS, found.signal, found.noise), y_n) < best
        assert (
            _log_posterior(Kernel(found.length_f, NUMBERS, found.signal * factor, found.noise), y_n)
            < best
        )
        assert (
            _log_posterior(Kernel(found.length_f, NUMBERS, found.signal, found.noise * factor), y_n)
            < best
        )


def _log_posterior(kernel: Kernel, y_n: np.ndarray) -> float:
    """By scikit-learn's likelihood and the priors that the docstrings state."""
    theirs = GaussianProcessRegressor(
        ConstantKernel(kernel.signal) * Matern(kernel.length_f, nu=2.5),
        alpha=kernel.nugget,
        optimizer=None,
    ).fit(X_NF, y_n)
    prior = norm(np.log(0.25) + 0.5 * np.log(2), 0.9).logpdf(np.log(kernel.length_f)).sum()
    prior += norm(0, 0.7).logpdf(np.log(kernel.signal))
    prior += norm(np.log(0.02), 1.2).logpdf(np.log(kernel.noise))
    return float(theirs.log_marginal_likelihood_value_ + prior)


def test_categories_are_1_apart() -> None:
    """As indicators are that share a length scale, of sqrt(1/2) in place of 1."""
    generator = np.random.default_rng(0)
    kind_n, number_n = generator.integers(4, size=20), generator.random(20)
    x_nf = np.column_stack([number_n, kind_n.astype(np.float64)])
    indicators_nf = np.column_stack([number_n, np.eye(4)[kind_n] / np.sqrt(2)])
    y_n = np.sin(5 * number_n) + (kind_n == 2)
    kernel = Kernel(np.array([0.3, 0.8]), np.array([False, True]), 1.3, 0.05)
    expected = Kernel(np.array([0.3] + [0.8] * 4), np.zeros(5, np.bool_), 1.3, 0.05)
    found = Posterior(kernel, x_nf[:15], y_n[:15], x_nf[15:], 0)
    theirs = Posterior(expected, indicators_nf[:15], y_n[:15], indicators_nf[15:], 0)
    assert found.mean_m == pytest.approx(theirs.mean_m, abs=1e-9)
    assert found.variance_m == pytest.approx(theirs.variance_m, abs=1e-9)
    by_kind = fitted(x_nf, [False, True], (kind_n == 2) - np.mean(kind_n == 2))
    assert by_kind.length_f[0] > 4 * by_kind.length_f[1]


@pytest.mark.parametrize("mean", [-1.0, 0.3, 2.0, 5.5, 6.5])
def test_the_expected_improvement_is_an_integral(mean: float) -> None:
    deviation, best = 0.7, 0.2
    exact, _ = quad(
        lambda value: (best - value) * norm(mean, deviation).pdf(value),
        mean - 40 * deviation,
        best,
        epsabs=0,
        epsrel=1e-10,
        points=[min(best, mean), best - deviation / 4],
    )
    found = log_expected_improvement(np.array([mean]), np.array([deviation**2]), best)
    # The asymptote, beyond six deviations, is 3/36 off at most.
    assert found[0] == pytest.approx(np.log(exact), rel=1e-6 if mean < 4.4 else 0.01)


def test_an_improvement_that_nobody_can_expect_has_an_order_still() -> None:
    found = log_expected_improvement(np.array([50.0, 60.0, 70.0]), np.ones(3), 0.0)
    assert np.isfinite(found).all()
    assert (np.diff(found) < 0).all()
