"""Augmentation: as a plain loop has it, by draws of each slot's own, and in training alone."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from ridgeline.search.engine import Mlp, RunConfig, TrainingRun
from ridgeline.search.engine.augment import Augmenting, MixedLoss
from ridgeline.search.engine.augment_memory import AugmentationMemory, mixup_shares
from ridgeline.search.engine.batch import Batches
from ridgeline.search.engine.compiled import CompiledProgram, Job, step_inputs
from ridgeline.search.engine.config import Augmentation
from ridgeline.search.engine.losses import LOSSES
from ridgeline.search.engine.memory import PackMemory, bytes_per_slot
from ridgeline.search.engine.models.base import Rows
from ridgeline.search.engine.models.module import ModuleModel
from ridgeline.search.engine.native import Kernels
from ridgeline.search.engine.normal import normal_quantiles
from ridgeline.search.engine.pack import Pack
from ridgeline.search.engine.step import TracedStep
from tests.engine.models import nets
from tests.engine.models.toy import Toy
from tests.engine.plain_augment import augmented, uniform_of
from tests.engine.program_checks import (
    CaseOfKinds,
    check_that_a_slot_without_a_run_is_frozen,
    check_that_it_agrees_with_the_plain_loop,
    check_that_neighbours_slots_and_refills_change_no_bit,
)
from tests.engine.sets import CPU, config, samples, step_spec
from tests.parallel import locked

IMAGE = Toy((2, 5, 7), 3)
VECTOR = Mlp(13, (33, 7), 3)
CONVOLUTIONS = ModuleModel.of(nets.convolutional, (2, 6, 6), 3)
BRANCHES = ModuleModel.of(nets.Branches, (5,), 3)

STRENGTHS: dict[Augmentation, tuple[float, float, float, float]] = {
    "shift": (1, 2, 0.3, 9),
    "flip": (0.5, 1, 0.1, 0.3),
    "rotation": (15, 180, 1e-6, 90),
    "cutout": (0.25, 1, 0.03, 0.6),
    "brightness": (0.2, 1, 0.01, 3),
    "contrast": (0.3, 1, 0.01, 0.7),
    "input_noise": (0.1, 1, 1e-3, 0.5),
    "mixup": (0.2, 1, 0.01, 4),
}
"""Of each of the four runs of a case."""

KINDS: tuple[Augmentation, ...] = get_args(Augmentation)


Augmented = partial(CaseOfKinds, STRENGTHS)
"""Runs that augment alike."""


SINGLE, DOUBLE = torch.float32, torch.float64
ALL_OF_VECTORS: tuple[Augmentation, ...] = ("input_noise", "mixup")
PLAIN = {
    **{kind: Augmented(IMAGE, (kind,), dtype=DOUBLE) for kind in KINDS},
    "all": Augmented(IMAGE, KINDS, dtype=DOUBLE, optimizer="sgd", dropout=0.2),
    "vectors": Augmented(VECTOR, ALL_OF_VECTORS, dtype=DOUBLE, dropout=0.2, clip_norm=1.0),
    "moves of convolutions": Augmented(CONVOLUTIONS, ("shift", "flip", "rotation"), dtype=DOUBLE),
    "slot by slot": Augmented(BRANCHES, ALL_OF_VECTORS, dtype=DOUBLE),
}
BITS = {
    "all": Augmented(IMAGE, KINDS, dtype=SINGLE, dropout=0.2),
    "all64": Augmented(Toy((3, 9, 1), 3), KINDS, dtype=DOUBLE),
    "shift and flip": Augmented(Toy((1, 11, 4), 2), ("shift", "flip"), dtype=SINGLE),
    "batches of one row": Augmented(IMAGE, KINDS, dtype=SINGLE, num_train=5, batch_size=1),
    "a last batch of one row": Augmented(IMAGE, KINDS, dtype=SINGLE, num_train=116),
    "vectors": Augmented(VECTOR, ALL_OF_VECTORS, dtype=SINGLE, dropout=0.2),
    "convolutions": Augmented(CONVOLUTIONS, KINDS, dtype=SINGLE, num_train=70),
}


@pytest.mark.parametrize("name", PLAIN)
def test_it_agrees_with_a_plain_loop(name: str, program: dict[str, Any]) -> None:
    check_that_it_agrees_with_the_plain_loop(PLAIN[name], program)


@pytest.mark.parametrize("name", BITS)
def test_neighbours_slots_and_refills_change_no_bit(name: str, program: dict[str, Any]) -> None:
    check_that_neighbours_slots_and_refills_change_no_bit(BITS[name], program)


def test_a_slot_without_a_run_is_frozen(program: dict[str, Any]) -> None:
    check_that_a_slot_without_a_run_is_frozen(BITS["all"], program)


# Of the compiler itself, which a worker runs in a process of its own.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_a_compiled_program_keeps_to_all_of_this(shared_folder: Path, kernels: Kernels) -> None:
    for check, case in (
        (check_that_neighbours_slots_and_refills_change_no_bit, BITS["vectors"]),
        (check_that_it_agrees_with_the_plain_loop, PLAIN["vectors"]),
    ):
        job = Job.of(case.spec, case.data, threads=1)
        folder = shared_folder / job.name
        with locked(shared_folder / f"{job.name}.lock"):
            if not folder.exists():
                job.compile(folder, shared_folder)
        check(case, {"compiled": CompiledProgram(folder, kernels, job)})


@pytest.mark.parametrize("name", BITS)
def test_the_compiled_form_computes_the_same_step(name: str) -> None:
    case = BITS[name]
    if not case.shape.compiles:
        pytest.skip("the model has no compiled form")
    eager = Pack(case.spec, case.data, width=4)
    traced = PackMemory(case.spec, 4, case.data)
    for slot, run_config in enumerate(case.configs):
        eager.load(slot, run_config)
    eager.tick(1)
    for mine, its in zip(traced._by_slot(), eager._memory._by_slot(), strict=True):
        mine.copy_(its)
    eager.tick(1)
    batch = Batches(traced.inputs())(padding=True)
    TracedStep(case.spec, updates=True)(step_inputs(traced, batch, None))
    for key, tensor in traced.inputs().items():
        assert_close(tensor, eager._memory.inputs()[key], rtol=1e-4, atol=1e-5)


def test_a_job_says_which_kinds_are_in_use() -> None:
    case = PLAIN["vectors"]
    job = Job.of(case.spec, case.data, threads=1)
    assert job.augments == ALL_OF_VECTORS
    assert Job.from_json(job.as_json()) == job
    assert replace(job, augments=()).name != job.name


def test_a_strength_of_0_is_none() -> None:
    run_config = config()
    assert run_config.augmentations == ()
    data = samples(IMAGE, num_train=20, dtype=SINGLE)
    spec = step_spec(run_config, IMAGE, data)
    assert spec.augments == ()
    assert not any(name.startswith("augment") for name in PackMemory(spec, 2, data).inputs())
    assert config(cutout=0.1, shift=2).augmentations == ("shift", "cutout")


def test_native_steps_are_for_runs_that_do_not_augment() -> None:
    data = samples(VECTOR, num_train=20, dtype=SINGLE)
    assert step_spec(config(), VECTOR, data).native() is not None
    assert step_spec(config(mixup=1), VECTOR, data).native() is None


def test_a_pack_takes_runs_that_augment_in_its_ways_alone() -> None:
    data = samples(VECTOR, num_train=20, dtype=SINGLE)
    pack = Pack(step_spec(config(mixup=0.2), VECTOR, data), data, width=2)
    pack.load(0, config(mixup=0.7))
    for other in (config(), config(input_noise=0.1), config(mixup=0.2, input_noise=0.1)):
        with pytest.raises(ValueError, match="augments"):
            pack.load(1, other)


def test_what_is_for_images_is_refused_for_others() -> None:
    data = samples(VECTOR, num_train=20, dtype=SINGLE)
    for kind in KINDS:
        run_config = config(**{kind: 1.0})
        if kind in ALL_OF_VECTORS:
            step_spec(run_config, VECTOR, data)
            continue
        with pytest.raises(ValueError, match=rf"^{kind} must be 0: it is for images"):
            step_spec(run_config, VECTOR, data)
    tokens = ModuleModel.of(nets.embedding_bag, (4,), 3, 11)
    with pytest.raises(ValueError, match="mixup must be 0: the samples are ids"):
        step_spec(config(mixup=0.2), tokens, data)


def test_evaluation_sees_the_data_as_they_are() -> None:
    """With a learning rate of next to nothing both runs have the same weights."""
    data = samples(IMAGE, num_train=50, dtype=DOUBLE)
    strengths = dict.fromkeys(KINDS, 0.9)
    metrics = []
    for changes in ({}, strengths):
        run = TrainingRun(config(learning_rate=1e-300, epochs=1, **changes), IMAGE, data)
        (report,) = run.epochs()
        metrics.append(report.metrics | run.outcome().metrics)
    plain, changed = metrics
    assert plain["train_loss"] != changed["train_loss"]
    for key in plain:
        if not key.startswith("train"):
            assert plain[key] == changed[key], key


def test_a_run_goes_on_from_a_checkpoint_to_the_same_end() -> None:
    case = BITS["all"]
    whole = TrainingRun(case.configs[0], IMAGE, case.data, width=4)
    list(whole.epochs())
    first = TrainingRun(case.configs[0], IMAGE, case.data, width=4)
    next(first.epochs())
    second = TrainingRun(case.configs[0], IMAGE, case.data, width=4, checkpoint=first.checkpoint())
    list(second.epochs())
    for key, weight in whole.outcome().weights.items():
        assert torch.equal(weight, second.outcome().weights[key]), key


def batch(
    run_config: RunConfig, x: Tensor, step: int = 0, num_valid: int | None = None
) -> tuple[Tensor, Tensor]:
    """A batch as the engine augments it, and the shares of the next rows."""
    kinds = run_config.augmentations
    memory = AugmentationMemory(kinds, (1, 1, len(x)), x.shape[1:], CPU, x.dtype)
    slots = torch.zeros(1, dtype=torch.int64)
    memory.write_constants(slots, [run_config])
    memory.write_keys(slots, [run_config.seed], [step])
    rows = Rows(None, torch.full((1, 1, 1), num_valid or len(x), dtype=x.dtype))
    augmenting = Augmenting(kinds, x.shape[1:], memory.inputs())
    changed, mixture = augmenting((slots, slots), x[None].clone(), rows)
    return changed[0], torch.zeros(len(x)) if mixture is None else mixture.shares_KB[0]


def test_a_sample_depends_on_its_run_step_and_place_alone() -> None:
    x = torch.randn(9, 2, 5, 7, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    strengths = {kind: STRENGTHS[kind][0] for kind in KINDS if kind != "mixup"}
    changed, _ = batch(config(**strengths), x)
    shorter, _ = batch(config(**strengths, learning_rate=1), x[:4])
    assert torch.equal(changed[:4], shorter)
    assert_close(changed, augmented(config(**strengths), 0, x)[0], rtol=1e-12, atol=1e-12)
    for other in (batch(config(**strengths, seed=8), x), batch(config(**strengths), x, step=1)):
        assert not torch.equal(changed, other[0])
    # The draws of a kind are the same whichever others are in use.
    for kind in strengths:
        alone = config(**{kind: strengths[kind]})
        assert_close(batch(alone, x)[0], augmented(alone, 0, x)[0], rtol=1e-12, atol=1e-12)


def test_the_last_row_that_counts_is_mixed_with_the_first() -> None:
    x = torch.arange(6.0, dtype=DOUBLE)[:, None]
    changed, shares = batch(config(mixup=1.0), x, num_valid=4)
    assert (shares > 0).all()
    for row, partner in ((0, 1), (2, 3), (3, 0)):
        assert changed[row] == x[row] + (x[partner] - x[row]) * shares[row]


def chi_squared(counts: Tensor | np.ndarray[Any, Any], expected: Any = None) -> float:
    return float(scipy.stats.chisquare(np.asarray(counts), expected).pvalue)


NUM_DRAWS = 20_000


@pytest.mark.parametrize(("strength", "expected"), [
    (2.0, [0, 0.2, 0.2, 0.2, 0.2, 0.2, 0]),
    (0.5, [0, 0, 0.25, 0.5, 0.25, 0, 0]),
    (2.25, [0.25 / 5.5, *[1 / 5.5] * 5, 0.25 / 5.5]),
])  # fmt: skip
def test_shifts_are_equally_likely(strength: float, expected: list[float]) -> None:
    x = torch.zeros(NUM_DRAWS, 1, 9, 9)
    x[:, 0, 4, 4] = 1
    changed, _ = batch(config(shift=strength), x)
    places = changed.flatten(1).argmax(1)
    for shifts in (places // 9 - 4, places % 9 - 4):
        counts = torch.bincount(shifts + 3, minlength=7)
        wanted = np.array(expected) * NUM_DRAWS
        assert not counts[wanted == 0].any()
        assert chi_squared(counts[wanted > 0], wanted[wanted > 0]) > 1e-3
    both = torch.stack([places // 9, places % 9]).double()
    assert abs(torch.corrcoef(both)[0, 1]) < 4 / math.sqrt(NUM_DRAWS)


@pytest.mark.parametrize("probability", [0.1, 0.5, 1.0])
def test_flips_have_their_probability(probability: float) -> None:
    x = torch.zeros(NUM_DRAWS, 1, 1, 2)
    x[..., 1] = 1
    changed, _ = batch(config(flip=probability), x)
    num_flipped = int(changed[..., 0].sum())
    assert scipy.stats.binomtest(num_flipped, NUM_DRAWS, probability).pvalue > 1e-3


def test_angles_are_uniform_about_0() -> None:
    x = torch.linspace(-1, 1, 21, dtype=DOUBLE).expand(NUM_DRAWS // 10, 1, 21, 21)
    changed, _ = batch(config(rotation=30.0), x)
    middle = changed[:, 0, 9:12, 9:12]
    across, down = middle[:, 1, 2] - middle[:, 1, 0], middle[:, 2, 1] - middle[:, 0, 1]
    angles = torch.rad2deg(torch.atan2(down, across))
    assert angles.abs().max() <= 30
    assert scipy.stats.kstest(angles.numpy(), "uniform", (-30, 60)).pvalue > 1e-3


def test_an_image_turns_counterclockwise_by_positive_angles() -> None:
    """What is on the right goes up, or down by a negative angle."""
    x = torch.zeros(50, 1, 5, 5, dtype=DOUBLE)
    x[:, :, 2, 4] = 1
    changed, _ = batch(config(rotation=90.0), x)
    up, down = changed[:, 0, :2].sum((1, 2)), changed[:, 0, 3:].sum((1, 2))
    angles = uniform_of(config(), 0, 50, 25)[:, 3] - 0.5
    is_far = angles.abs() > 0.1
    assert torch.equal((up > down)[is_far], (angles > 0)[is_far])


def test_what_is_cut_out_has_its_size_and_lies_anywhere() -> None:
    changed, _ = batch(config(cutout=0.25), torch.ones(NUM_DRAWS, 1, 8, 8))
    is_cut = changed[:, 0] == 0
    heights = is_cut.any(2).sum(1)
    inside = (is_cut[:, 0].sum(1) == 0) & (is_cut[:, -1].sum(1) == 0)
    assert (heights[inside] == 4).all()
    # A row is within 2 rows of a centre that is uniform over 8.
    rows = is_cut.any(2).double().mean(0)
    near = torch.tensor([2.5, 3.5, 4, 4, 4, 4, 3.5, 2.5], dtype=DOUBLE) / 8
    assert_close(rows, near, rtol=0, atol=4 * 0.5 / math.sqrt(NUM_DRAWS))


def test_brightness_and_contrast_are_uniform_about_none() -> None:
    x = torch.tensor([-1.0, 3.0], dtype=DOUBLE).expand(NUM_DRAWS, 1, 1, 2)
    changed, _ = batch(config(brightness=0.5, contrast=0.25), x)
    added = (changed.mean((1, 2, 3)) - 1).numpy()
    factors = ((changed[..., 1] - changed[..., 0]) / 4).flatten().numpy()
    assert scipy.stats.kstest(added, "uniform", (-0.5, 1)).pvalue > 1e-3
    assert scipy.stats.kstest(factors, "uniform", (0.75, 0.5)).pvalue > 1e-3
    assert abs(np.corrcoef(added, factors)[0, 1]) < 4 / math.sqrt(NUM_DRAWS)


def test_noise_is_normal() -> None:
    quantiles = normal_quantiles()
    expected = scipy.stats.norm.ppf((np.arange(4096) + 0.5) / 4096)
    np.testing.assert_allclose(quantiles, expected, rtol=2e-3)
    assert abs(np.square(quantiles).mean() - 1) < 1e-6
    assert (np.diff(quantiles) > 0).all()
    assert np.array_equal(quantiles.astype(np.float32), quantiles)
    x = torch.zeros(NUM_DRAWS // 4, 4, dtype=DOUBLE)
    first, second = (batch(config(input_noise=0.5), x, step=step)[0] for step in (0, 1))
    assert scipy.stats.kstest(first.flatten().numpy() / 0.5, "norm").pvalue > 1e-3
    bound = 4 / math.sqrt(NUM_DRAWS // 4)
    columns = torch.cat([first, second], dim=1).T
    assert ((torch.corrcoef(columns) - torch.eye(8)).abs() < bound).all()


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 1.0, 2.0, 16.0])
def test_shares_of_mixup_are_of_the_beta_distribution(alpha: float) -> None:
    places = (np.arange(1024) + 0.5) / 1024
    # min(λ, 1 - λ) has twice the density of λ below 1/2.
    expected = scipy.stats.beta.ppf(places / 2, alpha, alpha)
    np.testing.assert_allclose(mixup_shares(alpha), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("alpha", [1e-300, 5e-324, 1e-3])
def test_the_least_alphas_mix_next_to_nothing(alpha: float) -> None:
    shares = mixup_shares(alpha)
    assert np.isfinite(shares).all()
    assert (shares[:500] < 1e-100).all()
    assert (shares <= 0.5).all()


@pytest.mark.parametrize("smoothing", [None, 0.2])
@pytest.mark.parametrize("name", LOSSES)
def test_a_mixed_loss_is_that_of_both_targets(name: str, smoothing: float | None) -> None:
    loss = LOSSES[name]
    if smoothing is not None and not loss.takes_smoothing:
        pytest.skip("the loss takes no smoothing")
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(2, 3, 5, dtype=DOUBLE, generator=generator, requires_grad=True)
    shares = torch.rand(2, 5, dtype=DOUBLE, generator=generator) / 2
    shares[0, 0] = 0
    kind = {"cross_entropy": F.cross_entropy, "mean_squared_error": F.mse_loss}
    plain = kind.get(name, F.binary_cross_entropy_with_logits)
    if loss.targets == "classes":
        own, other = (torch.randint(3, (2, 5), generator=generator) for _ in range(2))
    else:
        own, other = (torch.rand(2, 3, 5, dtype=DOUBLE, generator=generator) for _ in range(2))
    rows = Rows(None, torch.full((2, 1, 1), 5.0, dtype=DOUBLE))
    smoothing_K = None if smoothing is None else torch.full((2,), smoothing, dtype=DOUBLE)
    judged = MixedLoss(loss, other, shares).judge(outputs.detach(), own, rows, smoothing_K)

    def losses_of(targets: Tensor) -> Tensor:
        if loss.targets == "classes":
            return plain(outputs, targets, reduction="none", label_smoothing=smoothing or 0.0)
        wanted = targets if smoothing is None else targets * (1 - smoothing) + smoothing / 2
        return plain(outputs, wanted, reduction="none").mean(1)

    losses = (1 - shares) * losses_of(own) + shares * losses_of(other)
    (gradient,) = torch.autograd.grad(losses.mean(1).sum(), outputs)
    assert_close(judged.losses_KB, losses.detach(), rtol=1e-12, atol=1e-12)
    assert_close(judged.gradient_KCB, gradient, rtol=1e-12, atol=1e-12)
    scores = loss.judge(outputs.detach(), own, rows).scores_KB
    assert torch.equal(judged.scores_KB, scores)


def test_memory_is_counted() -> None:
    data = samples(IMAGE, num_train=50, dtype=SINGLE)
    sizes = [
        bytes_per_slot(step_spec(config(**changes), IMAGE, data), 4)
        for changes in ({}, {"flip": 0.5}, {"flip": 0.5, "rotation": 9.0})
    ]
    assert sizes == sorted({*sizes})
