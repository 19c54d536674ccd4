"""Reports of studies whose good trials lie along a ridge, whatever the parameters are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ridgeline.search.space import Config, Space
from ridgeline.service import reporting, trials
from ridgeline.service.external_protocol import CompleteRequest, SuggestRequest
from ridgeline.service.reports.findings import gather
from ridgeline.service.reports.html import as_html
from ridgeline.service.reports.markdown import as_markdown
from ridgeline.service.reports.study import study_report
from ridgeline.service.store.session import Store
from tests.reports.reading import check
from tests.service.factory import external, post

SIZES = {"type": "values", "values": [16, 32, 64, 128]}
LOG = {"type": "float", "low": 1e-4, "high": 1.0, "log": True}
LISTED = {"type": "values", "values": [0.0, 1e-4, 1e-3, 3e-3, 1e-2, 0.03, 0.1, 1.0]}
ZERO = {**LOG, "zero": True}
WHOLE = {"type": "int", "low": 1, "high": 4_096, "log": True}


def trained(store: Store, space: dict[str, Any], along: tuple[str, str], sign: float) -> str:
    """A study whose best value of the first is the root of the second; its report."""
    direction = "minimize" if sign > 0 else "maximize"
    objective = {"metric": "score", "direction": direction}
    post(store, external(space=space, objective=objective, budget={"trials": 60}))
    rng = np.random.default_rng(0)
    parsed = Space.model_validate(space)
    configs: list[Config] = [
        parsed.decode({name: rng.random() for name in space}) for _ in range(60)
    ]
    with store.transaction() as tx:
        trials.enqueue(tx, "s", configs)
    across, up = along
    middle = [math.log(float(parsed[name].decode(0.5)) or 1e-2) for name in along]
    for trial in trials.suggest(store, "s", SuggestRequest(count=60)).trials:
        x, y = (math.log(float(trial.config[name]) or 1e-6) for name in (across, up))
        off = x - middle[0] - 0.5 * (y - middle[1])
        value = sign * (off**2 + 0.01 * rng.standard_normal())
        request = CompleteRequest.model_validate({"attempt": trial.attempt, "value": value})
        with store.transaction() as tx:
            reporting.complete(tx, "s", trial.number, request, max_charges=1)
    with store.reading() as tx:
        report = study_report(gather(tx, "s"))
    html = as_html(report)
    check(html)
    assert "nan" not in html
    assert ' class="ridge"' in html
    return as_markdown(report)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(
    ("space", "along"),
    [
        ({"learning_rate": LOG, "batch_size": SIZES}, ("learning_rate", "batch_size")),
        ({"learning_rate": LISTED, "batch_size": SIZES}, ("learning_rate", "batch_size")),
        ({"learning_rate": LOG, "l2": ZERO}, ("learning_rate", "l2")),
        ({"learning_rate": LISTED, "l2": LISTED}, ("learning_rate", "l2")),
        ({"width": WHOLE, "depth": WHOLE}, ("width", "depth")),
    ],
)
def test_the_ridge_is_drawn_and_told(
    store: Store, space: dict[str, Any], along: tuple[str, str], sign: float
) -> None:
    across, up = along
    told = trained(store, space, along, sign)
    if across != "width":  # which of two comes first depends on how important they are
        assert f"with {up} doubled, the best {across} is 1." in told
    assert "Good trials lie along a ridge" in told
