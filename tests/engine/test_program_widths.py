"""Which compiled program a lane of modules wants, by the number of its runs."""

from __future__ import annotations

import pytest
import torch

from ridgeline.search.engine import LaneOptions, admission
from ridgeline.search.engine.admission import Widths
from ridgeline.search.engine.lane import Lane
from ridgeline.search.engine.models.module import ModuleModel
from ridgeline.search.engine.open_pack import Waiting
from ridgeline.search.engine.programs import Programs
from tests.engine.models import nets
from tests.engine.sets import config, samples, step_spec


@pytest.mark.parametrize("threads", [1, 2])
def test_packs_are_as_wide_as_the_runs_fill_more_than_half_of(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where wider ones are faster; the runs are shared out among the threads."""
    monkeypatch.setattr(admission, "_samples_per_second", lambda pack, _: float(pack.width))
    model = ModuleModel.of(nets.Drops, (5,), 3)
    data, run = samples(model, num_train=49, dtype=torch.float32), config(batch_size=15)
    lane = Lane(
        step_spec(run, model, data),
        data,
        LaneOptions(threads=threads),
        Programs(None),
        widest={},
        widths=Widths(None),
        pinned=False,
    )
    wanted = []
    for key in range(40 * threads):
        lane.add(Waiting(key, run, group=None, bracket=0, keep_weights=False))
        sizes = lane.job.sizes
        assert sizes is not None
        wanted.append(sizes.width)
    changes = [i + 1 for i in range(1, len(wanted)) if wanted[i] != wanted[i - 1]]
    assert sorted({*wanted}) == [1, 4, 16, 32]
    assert changes == [width * threads // 2 + 1 for width in (4, 16, 32)]
    assert wanted == sorted(wanted)
