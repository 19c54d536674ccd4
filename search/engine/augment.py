"""Augmentation: batches changed on the device before a model learns from them, as each slot says.

All of it is drawn from `rng.Stream.AUGMENTATION` by (seed, step, place in the batch), the steps
counted over a run's life; `augment_memory` tells which draw has which index.  In what follows u are
draws, uniform in [0, 1), one for each `Draw`, and s is the strength of the slot for that kind.

Kinds in use are applied in this order:

* `flip`: left and right are swapped where u < s.
* `rotation`: by one of 1,024 angles, s·(2·(⌊1024·u⌋ + ½)/1024 - 1) degrees counterclockwise about
  the image's centre, interpolated bilinearly.
* `shift`: down and to the right by ⌊u·(2s + 1) - s⌋ pixels each.  For whole s these are the numbers
  from -s to s, equally likely: the crop of an image that was padded by s pixels (Krizhevsky,
  "Learning multiple layers of features from tiny images", 2009).  Other s fall between, so that a
  search sees no jumps.
* `contrast`: x ← m + (1 + s·(2u - 1))·(x - m), m being the mean of the image.
* `brightness`: x ← x + s·(2u - 1).
* `input_noise`: x ← x + s·z for each number, with z from `normal_quantiles` (Bishop, "Training with
  noise is equivalent to Tikhonov regularization", 1995).
* `cutout`: 0 in a rectangle of the image's proportions and s times its area.  Its centre may be
  anywhere in the image, so a part may lie outside (DeVries and Taylor, "Improved regularization of
  convolutional neural networks with cutout", 2017).
* `mixup`: x ← x + m·(x' - x); the loss is 1 - m times that by the row's own target and m times
  that by the target of x' (Zhang et al., "mixup: beyond empirical risk minimization", 2018).
  m = min(λ, 1 - λ) with λ from Beta(s, s): the sample with the larger share is the row's own, and
  the score is of its target.  x' is the batch's next row, after its last the first: the order of
  the samples is random already.

An image that moves leaves its outermost pixels behind, repeated (`padding_mode="border"` of torch).
That is right for data of any scale; zeros would be a grey frame about digits once standardised.

# K slots, B rows of a batch, C channels, H and W pixels, D numbers of a sample
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ridgeline.search.engine import rng
from ridgeline.search.engine.augment_memory import (
    KINDS,
    MOVES,
    NUM_PLACES,
    Draw,
    Table,
    draws_of,
)
from ridgeline.search.engine.config import Augmentation
from ridgeline.search.engine.losses import Judged, Loss
from ridgeline.search.engine.models.base import Rows
from ridgeline.search.engine.normal import normal_numbers


class Mixture(NamedTuple):
    """Which row of its batch each row is mixed with, and the share of that row, up to 1/2."""

    partners_KB: Tensor
    shares_KB: Tensor


class Augmenting:
    """Augments the batches of a pack.

    Args:
        kinds: those in use.
        tensors: of `AugmentationMemory.inputs`.
    """

    def __init__(
        self,
        kinds: Sequence[Augmentation],
        sample_shape: Sequence[int],
        tensors: Mapping[str, Tensor],
    ) -> None:
        self._kinds, self._tensors = frozenset(kinds), tensors
        self._draws = draws_of(kinds)
        strengths_KA = tensors["strengths"]
        self._dtype = strengths_KA.dtype
        self._slots_K1 = torch.arange(strengths_KA.shape[0], device=strengths_KA.device)[:, None]
        self._rows_H = self._columns_W = strengths_KA
        if len(sample_shape) == 3:
            self._rows_H, self._columns_W = (
                torch.arange(size, dtype=self._dtype, device=strengths_KA.device)
                for size in sample_shape[1:]
            )

    def __call__(
        self, at: tuple[Tensor, Tensor], x_KB: Tensor, rows: Rows
    ) -> tuple[Tensor, Mixture | None]:
        """The batch, changed; it may be overwritten.

        Args:
            at: numbers of the slots [K] and of the steps of their epochs [K].
            x_KB: samples [K, B, …].

        Returns:
            the samples, mixed already, and with what; None where they are not.
        """
        keys_K, kinds = self._tensors["keys"][at], self._kinds
        draws_KJB = rng.draw(keys_K, self._tensors["draws"])
        uniform_KJB = rng.as_uniform(draws_KJB, self._dtype)
        u = dict(zip(self._draws, uniform_KJB.unbind(dim=1), strict=True))
        if kinds & MOVES:
            x_KB = self._moved(x_KB, u)
        if "contrast" in kinds:
            factors_KB = 1 + self._up_to("contrast", u[Draw.CONTRAST])
            means_KB = x_KB.flatten(2).mean(dim=2)
            shape = (*means_KB.shape, 1, 1, 1)
            means = means_KB.view(shape)
            x_KB = (x_KB - means).mul_(factors_KB.view(shape)).add_(means)
        if "brightness" in kinds:
            x_KB = x_KB + self._up_to("brightness", u[Draw.BRIGHTNESS])[:, :, None, None, None]
        if "input_noise" in kinds:
            x_KB = x_KB + self._noise(keys_K).view_as(x_KB)
        if "cutout" in kinds:
            x_KB = x_KB.masked_fill(self._cut(u)[:, :, None], 0)
        if "mixup" not in kinds:
            return x_KB, None
        mixture = self._mixture(u[Draw.MIXUP], rows)
        shares = mixture.shares_KB.view(*mixture.shares_KB.shape, *(1,) * (x_KB.dim() - 2))
        others_KB = x_KB[self._slots_K1, mixture.partners_KB]
        return x_KB + others_KB.sub_(x_KB).mul_(shares), mixture

    def _strength(self, kind: Augmentation) -> Tensor:
        """Of each slot, [K, 1]."""
        return self._tensors["strengths"][:, KINDS.index(kind), None]

    def _up_to(self, kind: Augmentation, u_KB: Tensor) -> Tensor:
        """Uniform from minus to plus the strength of each slot, [K, B]."""
        return (u_KB * 2 - 1).mul_(self._strength(kind))

    def _from_table(self, table: Table, u_KB: Tensor) -> Tensor:
        """What stands in each slot's table where the draws fall, [K, B]."""
        places_KB = (u_KB * NUM_PLACES).long()
        return self._tensors["tables"][:, table].gather(1, places_KB)

    def _moved(self, x_KBCHW: Tensor, u: Mapping[Draw, Tensor]) -> Tensor:
        """Flipped, turned and shifted."""
        height, width = x_KBCHW.shape[3:]
        rows_KBH, columns_KBW = self._rows_H[None, None], self._columns_W[None, None]
        if "shift" in self._kinds:
            strength_K1 = self._strength("shift")
            down_KB, right_KB = (
                (u[draw] * (strength_K1 * 2 + 1) - strength_K1).floor_()
                for draw in (Draw.SHIFT_DOWN, Draw.SHIFT_RIGHT)
            )
            rows_KBH = rows_KBH - down_KB[:, :, None]
            columns_KBW = columns_KBW - right_KB[:, :, None]
        rows, columns = rows_KBH[:, :, :, None], columns_KBW[:, :, None, :]
        if "rotation" in self._kinds:
            cosine, sine = (
                self._from_table(table, u[Draw.ROTATION])[:, :, None, None]
                for table in (Table.COSINE, Table.SINE)
            )
            row_centre, column_centre = (height - 1) / 2, (width - 1) / 2
            down, right = rows - row_centre, columns - column_centre
            rows = right * sine + down * cosine + row_centre
            columns = right * cosine - down * sine + column_centre
        if "flip" in self._kinds:
            is_flipped = (u[Draw.FLIP] < self._strength("flip"))[:, :, None, None]
            columns = torch.where(is_flipped, width - 1 - columns, columns)
        rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
        if "rotation" not in self._kinds:
            return _pixels(x_KBCHW, rows.long(), columns.long())
        first_rows, first_columns = rows.floor(), columns.floor()
        down, right = (rows - first_rows)[:, :, None], (columns - first_columns)[:, :, None]
        top, left = first_rows.long(), first_columns.long()
        bottom, end = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)

        def between(row: Tensor) -> Tensor:
            near, far = _pixels(x_KBCHW, row, left), _pixels(x_KBCHW, row, end)
            return near + far.sub_(near).mul_(right)

        upper, lower = between(top), between(bottom)
        return upper + lower.sub_(upper).mul_(down)

    def _noise(self, keys_K: Tensor) -> Tensor:
        """[K, B, D]."""
        draws_KBD = rng.draw(keys_K, self._tensors["noise"])
        normal_KBD = normal_numbers(draws_KBD, self._tensors["normal"])
        return normal_KBD.mul_(self._strength("input_noise")[:, :, None])

    def _cut(self, u: Mapping[Draw, Tensor]) -> Tensor:
        """Which pixels are cut out, [K, B, H, W]."""
        half_share_K1 = self._strength("cutout").sqrt() / 2
        rows_KBH, columns_KBW = (
            (pixels + 0.5 - u[draw][:, :, None] * len(pixels)).abs()
            < (half_share_K1 * len(pixels))[:, :, None]
            for pixels, draw in (
                (self._rows_H, Draw.CUT_ROW),
                (self._columns_W, Draw.CUT_COLUMN),
            )
        )
        return rows_KBH[:, :, :, None] & columns_KBW[:, :, None, :]

    def _mixture(self, u_KB: Tensor, rows: Rows) -> Mixture:
        next_B = torch.arange(1, u_KB.shape[1] + 1, device=u_KB.device)
        num_valid_K1 = rows.num_valid_K11[:, :, 0]
        partners_KB = torch.where(next_B < num_valid_K1, next_B, 0)
        return Mixture(partners_KB, self._from_table(Table.SHARE, u_KB))


class MixedLoss(Loss):
    """Of two targets for each row of one batch, each by its share; see `mixup` above.

    Args:
        others_KB: the second targets, as the loss has them.
        shares_KB: of the second targets, from 0 up to 1/2.
    """

    def __init__(self, loss: Loss, others_KB: Tensor, shares_KB: Tensor) -> None:
        self._loss, self._others_KB, self._shares_KB = loss, others_KB, shares_KB

    def judge(
        self, outputs_KCB: Tensor, targets_KB: Tensor, rows: Rows, smoothing_K: Tensor | None = None
    ) -> Judged:
        own = self._loss.judge(outputs_KCB, targets_KB, rows, smoothing_K)
        other = self._loss.judge(outputs_KCB, self._others_KB, rows, smoothing_K)
        shares_KB = self._shares_KB
        # By selection: 0·inf is NaN.
        losses_KB = own.losses_KB + (other.losses_KB - own.losses_KB) * shares_KB
        return Judged(
            own.gradient_KCB + (other.gradient_KCB - own.gradient_KCB) * shares_KB[:, None],
            torch.where(shares_KB > 0, losses_KB, own.losses_KB),
            own.scores_KB,
        )

    def evaluate(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return self._loss.evaluate(outputs, targets)

    def of_slot(self, slot: int) -> Loss:
        its = slice(slot, slot + 1)
        return MixedLoss(self._loss.of_slot(slot), self._others_KB[its], self._shares_KB[its])


def _pixels(x_KBCHW: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The pixels at these places of each image, the same in all of its channels.

    Args:
        rows, columns: int64, to be broadcast to [K, B, H, W].
    """
    num_slots, num_rows, num_channels, height, width = x_KBCHW.shape
    places = (rows * width + columns).expand(num_slots, num_rows, height, width)
    index = places.reshape(num_slots, num_rows, 1, height * width)
    return x_KBCHW.flatten(3).gather(3, index.expand(-1, -1, num_channels, -1)).view_as(x_KBCHW)
