"""`ridgeline task`: what an installed task is worth, told to its author."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ridgeline.search.objective import Objective, Penalty
from ridgeline.service.cli.environment import load_settings
from ridgeline.service.cli.help_text import Command
from ridgeline.service.cli.problems import (
    OneLineErrors,
    Problem,
    input_problems,
    needs_torch,
)
from ridgeline.service.texts import printable

if TYPE_CHECKING:
    from ridgeline.search.engine.models.base import Model
    from ridgeline.search.engine.spec import StepSpec
    from ridgeline.search.tasks.base import EngineTask, Task
    from ridgeline.search.tasks.training import PreparedRun
    from ridgeline.service.settings import Settings

WIDTH = 4
"""Of the pack that a task is tried in."""

STEPS = 8
"""That a run is trained: enough for one difference of a bit to spread."""

MAX_REASON = 500
"""Characters of what a task raises that are told: some texts of torch fill pages."""

app = typer.Typer(cls=OneLineErrors, help="Find out about tasks that are installed here.")


@app.callback()
def _root() -> None:
    """Without it typer would take the only command for the group itself."""


@app.command(cls=Command)
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The task, as studies name it.")],
    dataset: Annotated[
        str | None, typer.Option(help="What to train on; the task's own example where left out.")
    ] = None,
) -> None:
    """Train a task for some steps: whether it can be trained, packs, and what that costs.

    The exit status is 0 where the task can be trained, in packs or run by run, and 1 where not.
    """
    from ridgeline.search.tasks.base import EngineTask

    settings = load_settings()
    task = _installed(name)
    if task.needs_process:
        typer.echo(f"{name} is a function: each of its runs is called in a process of its own.")
        return
    if not isinstance(task, EngineTask):
        raise Problem(f"the task {name} is not trained by workers")
    needs_torch()
    run = _prepared(task, dataset, settings)
    for line in _findings(task, run):
        typer.echo(printable(line))


def _installed(name: str) -> Task[Any]:
    """The task of that name.

    Raises:
        Problem: none is installed, or it is left out.
    """
    from ridgeline.search.tasks.registry import installed, why_not_installed

    tasks = installed().tasks
    if name in tasks:
        return tasks[name]
    names = ", ".join(tasks)
    raise Problem(why_not_installed(name) or f"no task {name!r} is installed here, only {names}")


def _prepared(task: EngineTask[Any], dataset: str | None, settings: Settings) -> PreparedRun:
    """A run of the task with its defaults, on the first device and a data set or its own example's.

    Raises:
        Problem: it cannot be prepared.
    """
    from ridgeline.search.tasks.base import RunInput
    from ridgeline.search.tasks.data import DatasetError
    from ridgeline.search.tasks.datasets import load
    from ridgeline.search.tasks.training import Preparer, device_names, open_device

    said = {} if dataset is None else {"dataset": dataset}
    with input_problems(lambda field: "--dataset" if field == "dataset" else field):
        its = task.settings.model_validate({**task.example, **said})
    preparer = Preparer(settings.data_root, open_device(device_names()[0]))
    try:
        targets = load(task.data(its).dataset, settings.data_root).targets
        metric, direction = next(iter(task.metrics_of(targets).items()))
        return preparer.prepare(
            RunInput(
                task=its,
                config={**task.defaults(its), "epochs": 1_000},
                seed=0,
                objective=Objective(metric=metric, direction=direction),
                early_stopping=None,
                penalty=Penalty(),
                data_fingerprint=None,
            )
        )
    except DatasetError as exc:
        hint = "; --dataset names another one to train on" if dataset is None else ""
        raise Problem(f"{exc}{hint}") from exc


def _findings(task: EngineTask[Any], run: PreparedRun) -> Iterator[str]:
    """What there is to tell, line by line, each as soon as it is found out.

    Raises:
        Problem: the task cannot be trained.
    """
    from ridgeline.search.engine.admission import measure
    from ridgeline.search.engine.spec import StepSpec

    name, (config, model, data) = task.name, run
    with _its_problems(name):
        dtype = str(data.dtype).removeprefix("torch.")
        spec = StepSpec.of(config, model, data.train.num_samples, dtype)
        model.initial([config.seed + 1])  # which may show that it is another model for each seed
        if not _is_finite(run, spec):
            raise Problem(
                f"the task {name} diverges within {STEPS} steps with its defaults: its weights "
                "are no longer finite"
            )
        yield f"{name} can be trained."
        if (reason := _obstacle(model, spec.num_rows(WIDTH), run)) is not None:
            yield f"It does not pack, so its runs train one by one: {reason.rstrip('.')}."
        elif not model.packs(data.device.type):
            yield (
                f"It packs, but on {data.device.type} its runs train one by one: packs of "
                "convolutions were never faster there."
            )
        else:
            yield "It packs."
        is_equal = _packed_is_solo(run, spec)
        if reason is None:
            said = "yes" if is_equal else "no"
            yield (
                f"Packed equals solo to the bit: {said}, in {STEPS} steps of a pack of {WIDTH}, "
                "alone and beside others."
            )
        if reason is None and model.packs(data.device.type):
            speeds = [
                one.samples_per_s
                for one in measure(spec, data, config, form="eager", widths=(1, WIDTH))
            ]
            if len(speeds) == 2:
                yield (
                    f"A pack of {WIDTH} trains {speeds[1] / speeds[0]:.2f} times as many samples a "
                    "second as a run alone; measured just now, without a compiled program."
                )
        if "dropout" in task.parameters and not model.num_draws:
            yield "It drops nothing: its parameter dropout changes nothing."
    if not is_equal:
        raise Problem(
            f"what a run of {name} comes to depends on its neighbours in a pack: that is a fault "
            "of Ridgeline's, so please report the module"
        )


@contextmanager
def _its_problems(name: str) -> Iterator[None]:
    """Tell whatever the code of a task raises in one line."""
    try:
        yield
    except Problem:
        raise
    except Exception as exc:
        reason = str(exc) if type(exc) is ValueError else f"{type(exc).__name__}: {exc}"
        reason = " ".join(reason.split())
        if len(reason) > MAX_REASON:
            reason = f"{reason[:MAX_REASON]} …"
        raise Problem(f"the task {name} cannot be trained: {reason}") from exc


def _obstacle(model: Model, num_rows: int, run: PreparedRun) -> str | None:
    """Why slots of the model cannot be computed at once; None where they can."""
    from ridgeline.search.engine.models.module import ModuleModel
    from ridgeline.search.engine.models.module_packing import unpackable

    if not isinstance(model, ModuleModel):
        return None
    return unpackable(model, WIDTH, num_rows, run.data.device, run.data.dtype)


def _is_finite(run: PreparedRun, spec: StepSpec) -> bool:
    """Whether a run has numbers after some steps."""
    from ridgeline.search.engine.pack import Pack

    pack = Pack(spec, run.data, width=1)
    pack.load(0, run.config)
    pack.tick(min(STEPS, pack.ticks_to_epoch_end))
    return bool(pack.weights(0).parameters_P.isfinite().all())


def _packed_is_solo(run: PreparedRun, spec: StepSpec) -> bool:
    """Whether a run has the same weights alone in a pack, and in another slot beside others."""
    from dataclasses import replace

    from ridgeline.search.engine.pack import Pack

    alone, beside = (Pack(spec, run.data, width=WIDTH) for _ in range(2))
    alone.load(0, run.config)
    for slot in range(WIDTH - 1):
        neighbour = replace(run.config, seed=slot + 1, learning_rate=1e30 if slot else 1e-4)
        beside.load(slot, neighbour)
    beside.load(WIDTH - 1, run.config)
    for pack in (alone, beside):
        pack.tick(min(STEPS, pack.ticks_to_epoch_end))
    mine, its = alone.weights(0), beside.weights(WIDTH - 1)
    return mine.parameters_P.equal(its.parameters_P) and mine.statistics_Q.equal(its.statistics_Q)
