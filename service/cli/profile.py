"""`ridgeline worker --profile`: how fast packs of each width train on a device."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from search.spec import Objective, Penalty
from search.tasks.settings import MlpDefaults, MlpSettings
from service.settings import Settings
from service.worker.agent import device_specs
from service.worker.mlp import MlpBackend

if TYPE_CHECKING:
    from search.engine.admission import Measurement
    from search.engine.program import Form

BATCH_SIZES = (16, 256)
MAX_WIDTH = 64
COMPILED_WIDTHS = (1, 8, 32)
"""Few: each is a program to compile."""


def print_profile(device: str | None, settings: Settings) -> None:
    """Measure the model and data set that a study has by default, batch size by batch size.

    Compiled programs are made for the occasion, six of them in some 15 s each.

    Raises:
        ValueError: there is no such device here.
    """
    from search.engine.admission import WIDTHS, best_width, measure
    from search.engine.spec import StepSpec
    from search.tasks.training import RunInput, Trainer

    (spec,) = device_specs(settings.data_root, None if device is None else [device], None)
    name = device or MlpBackend().devices()[0]
    trainer = Trainer(settings.data_root, name, settings.device_threads or spec.threads)
    console = Console(highlight=False)
    console.print(f"{name}: digits, 64-64-10, Adam; samples a second by the width of the pack")
    for batch_size in BATCH_SIZES:
        config, shape, data = trainer.prepare(
            RunInput(
                task=MlpSettings(name="mlp", dataset="digits"),
                config={**MlpDefaults(batch_size=batch_size).model_dump(), "epochs": 1_000},
                seed=0,
                objective=Objective(),
                early_stopping=None,
                penalty=Penalty(),
                data_fingerprint=None,
            )
        )
        step = StepSpec.of(config, shape, data.train.num_samples, "float32")
        limit = settings.pack_width or MAX_WIDTH
        plans: list[tuple[Form, Sequence[int]]] = [("eager", WIDTHS)]
        if settings.compile:
            plans.append(("compiled", COMPILED_WIDTHS))
        measured = []
        with tempfile.TemporaryDirectory() as folder, console.status("measuring ...") as status:
            for form, all_widths in plans:
                widths = [width for width in all_widths if width <= limit]
                for one in measure(
                    step, data, config, form=form, widths=widths, folder=Path(folder)
                ):
                    measured.append(one)
                    status.update(f"batch size {batch_size}, {one.form}, width {one.width} ...")
        console.print(_table(batch_size, measured))
        for form in dict.fromkeys(one.form for one in measured):
            console.print(f"best {form} width: {best_width(measured, form)}")


def _table(batch_size: int, measured: list[Measurement]) -> Table:
    table = Table(title=f"batch size {batch_size}", title_justify="left")
    for heading in ("form", "width", "samples/s", "against width 1", "MiB"):
        table.add_column(heading, justify="left" if heading == "form" else "right")
    solo = {one.form: one.samples_per_s for one in measured if one.width == 1}
    for one in measured:
        ratio = one.samples_per_s / solo[one.form]
        size = one.bytes / 2**20
        table.add_row(
            one.form, str(one.width), f"{one.samples_per_s:,.0f}", f"{ratio:.2f}", f"{size:.1f}"
        )
    return table
