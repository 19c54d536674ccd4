"""`ridgeline worker --profile`: how fast packs of each width train on a device."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from ridgeline.search.objective import Objective, Penalty
from ridgeline.search.tasks.registry import first_of_workers
from ridgeline.service.cli.tables import plain_console
from ridgeline.service.settings import Settings

if TYPE_CHECKING:
    from ridgeline.search.engine.admission import Measurement
    from ridgeline.search.engine.program import Form

BATCH_SIZES = (16, 256)
MAX_WIDTH = 64


def print_profile(device: str | None, settings: Settings) -> None:
    """Measure the model and data set that a study has by default, batch size by batch size.

    Kernels and two programs are compiled for the occasion, in some 15 s each.

    Raises:
        ValueError: there is no such device here.
    """
    from ridgeline.search.engine.admission import WIDTHS, best_width, measure
    from ridgeline.search.engine.spec import StepSpec
    from ridgeline.search.tasks.base import RunInput
    from ridgeline.search.tasks.training import Preparer, device_names, open_device

    name = device or device_names()[0]
    preparer = Preparer(settings.data_root, open_device(name))
    task = first_of_workers()
    task_settings = task.settings.model_validate(dict(task.example))
    console = plain_console()
    told = ", ".join(f"{key} {value}" for key, value in task.example.items() if key != "name")
    console.print(f"{name}: {task.name}, {told}; samples a second by the width of the pack")
    for batch_size in BATCH_SIZES:
        defaults = task.defaults(task_settings)
        config, model, data = preparer.prepare(
            RunInput(
                task=task_settings,
                config={**defaults, "batch_size": batch_size, "epochs": 1_000},
                seed=0,
                objective=Objective(),
                early_stopping=None,
                penalty=Penalty(),
                data_fingerprint=None,
            )
        )
        step = StepSpec.of(config, model, data.train.num_samples, "float32")
        limit = settings.pack_width or MAX_WIDTH
        forms: list[Form] = ["eager"]
        if settings.compile:
            forms += ["native", "compiled"] if name == "cpu:0" else ["compiled"]
        widths = [width for width in WIDTHS if width <= limit]
        measured = []
        with tempfile.TemporaryDirectory() as folder, console.status("measuring ...") as status:
            for form in forms:
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
