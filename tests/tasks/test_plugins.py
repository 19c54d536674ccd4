"""Tasks that other packages bring by entry points."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from ridgeline.search.tasks.registry import BUILT_IN
from ridgeline.service import projection
from ridgeline.service.store import migrate
from tests.sites import install

pytestmark = pytest.mark.slow

NAMES = [task.name for task in BUILT_IN]

OWN_TASK = '''
from typing import Literal

from ridgeline.search.tasks.base import DataChoice, EngineRun, EngineTask
from ridgeline.search.tasks.domain import Domain
from ridgeline.search.tasks.settings import DatasetName, Split, TaskSettings


class WideSettings(TaskSettings):
    """A softmax regression of somebody else's."""

    name: Literal["wide"]
    dataset: DatasetName = "digits"


class Wide(EngineTask[WideSettings]):
    name = "wide"
    settings = WideSettings
    parameters = {
        "learning_rate": Domain("float", "step size", low=0, open_low=True, high=10),
        "epochs": Domain("int", "passes over the rows", low=1, high=100),
    }
    metrics = {"validation_loss": "minimize"}
    features = frozenset({"image"})
    targets = frozenset({"classes"})
    example = {"name": "wide"}

    def defaults(self, settings):
        return {"learning_rate": 0.01}

    def data(self, settings):
        return DataChoice(settings.dataset, Split())

    def prepare(self, run, features, targets):
        from ridgeline.search.engine.config import RunConfig
        from ridgeline.search.engine.models.mlp import Mlp

        num_features = features.channels * features.height * features.width
        config = RunConfig(seed=run.seed, batch_size=32, monitor="validation_loss",
                           direction="minimize", **run.config)
        return EngineRun(config, Mlp(num_features, (), targets.count))


task = Wide()
no_task = 5
'''
BROKEN = {
    "raises": ("raises_at_import", "raise RuntimeError('no\\nGPU \\x1b here')"),
    "leaves": ("leaves_at_import", "import sys; sys.exit('not today')"),
    "cancels": ("cancels_at_import", "import asyncio; raise asyncio.CancelledError('no loop')"),
    "interrupts": ("interrupts_at_import", "raise KeyboardInterrupt('by itself')"),
    "skips": ("skips_at_import", "import pytest; pytest.skip('no GPU', allow_module_level=True)"),
    "exits": ("exits_at_import", "import os; os._exit(0)"),
    "lacks": ("lacks_the_object", ""),
    "number": ("own_task:no_task", None),
    "renamed": ("own_task:task", None),
    "mlp": ("own_task:task", None),
    "missing": ("nowhere_to_be_found:task", None),
}
SPEC = {
    "name": "wide-one",
    "task": {"name": "wide", "dataset": "digits"},
    "space": {"learning_rate": {"type": "float", "low": 0.001, "high": 1, "log": True}},
    "sampler": {"name": "random"},
    "objective": {"metric": "validation_loss", "direction": "minimize"},
    "budget": {"trials": 2, "epochs": 2},
}


OTHER = {
    **SPEC,
    "name": "other",
    "task": {"name": "linear", "dataset": "digits"},
    "budget": {"trials": 1, "epochs": 1},
}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with a good package."""
    folder = tmp_path / "site"
    install(folder, "own-package", {"wide": "own_task:task"})
    (folder / "own_task.py").write_text(OWN_TASK)
    return folder


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'test.db'}"
    migrate.upgrade(url, prepare=projection.prepare)
    return url


def python(program: str, *sites: Path) -> tuple[Any, str]:
    """What the program prints last, as JSON, and its log, where packages lie in these folders."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sites))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


SERVED = """
    import asyncio, json, sys
    import httpx
    from ridgeline.service import projection
    from ridgeline.service.api.app import create_app
    from ridgeline.service.settings import Settings
    from ridgeline.service.store.session import DatabaseClock, Store

    async def main():
        store = Store({url!r}, clock=DatabaseClock(), project=projection.project)
        app = create_app(Settings(_env_file=None), store)
        http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app), base_url="http://localhost"
        )
        async with app.router.lifespan_context(app), http as client:
            told = dict(
                tasks=(await client.get("/v1/tasks")).json()["tasks"],
                document=(await client.get("/openapi.json")).status_code,
            )
            for name, spec in {specs!r}.items():
                told[name] = (await client.post("/v1/studies", json=spec)).json()
            told["read"] = (await client.get("/v1/studies")).json()["studies"]
            extended = await client.post("/v1/studies/wide-one:extend", json={{"trials": 1}})
            told["extended"] = extended.status_code
            told["metrics"] = (await client.get("/metrics")).status_code
        print(json.dumps({{**told, "torch": "torch" in sys.modules}}))

    asyncio.run(main())
"""


def served(url: str, *sites: Path, create: bool) -> tuple[Any, str]:
    wrong = {**SPEC, "name": "wrong", "task": {"name": "wide", "colour": 1}}
    specs = {"created": SPEC, "wrong": wrong} if create else {"again": {**SPEC, "name": "again"}}
    return python(SERVED.format(url=url, specs=specs), *sites)


def test_a_task_of_a_package_is_served_and_trained(site: Path, url: str) -> None:
    found, log = served(url, site, create=True)
    assert "left out" not in log
    assert [task["name"] for task in found["tasks"]] == [*NAMES, "wide"]
    wide = found["tasks"][-1]
    assert wide["description"] == "A softmax regression of somebody else's."
    assert wide["metrics"] == {"validation_loss": "minimize"}
    assert {one["name"]: one["default"] for one in wide["parameters"]} == {
        "learning_rate": 0.01,
        "epochs": None,
    }
    assert found["created"]["spec"]["task"] == SPEC["task"]
    assert found["wrong"]["errors"] == [{"field": "task.colour", "message": "is not a field here"}]
    assert (found["document"], found["metrics"]) == (200, 200)
    assert not found["torch"]

    trained, _ = python(
        f"""
        import json
        from ridgeline.search.engine import TrainingRun
        from ridgeline.search.spec import parse_spec
        from ridgeline.search.tasks.base import RunInput
        from ridgeline.search.tasks.registry import of_workers
        from ridgeline.search.tasks.training import Preparer, open_device

        spec = parse_spec({SPEC!r})
        config = spec.run_config({{}})
        run = RunInput(spec.task, config, 1, spec.objective, None, spec.penalty, None)
        preparer = Preparer(None, open_device("cpu:0"))
        epochs = TrainingRun(*preparer.prepare(run)).epochs()
        losses = [epoch.metrics["validation_loss"] for epoch in epochs]
        try:
            vectors = spec.task.model_copy(update={{"dataset": "breast-cancer"}})
            preparer.prepare(RunInput(**{{**vars(run), "task": vectors}}))
        except ValueError as exc:
            names = [task.name for task in of_workers()]
            print(json.dumps([names, losses, type(exc).__name__, str(exc)]))
        """,
        site,
    )
    names, losses, error, reason = trained
    assert names == [*(name for name in NAMES if name != "external"), "wide"]
    assert len(losses) == 2
    assert losses[1] < losses[0] < 2.3
    assert error == "UnfitDataset"
    assert reason == (
        "data set breast-cancer: its features are vector, but the task wide needs image"
    )


def test_studies_of_a_task_that_has_gone_can_still_be_read(site: Path, url: str) -> None:
    served(url, site, create=True)
    found, _ = served(url, create=False)
    assert [task["name"] for task in found["tasks"]] == NAMES
    first = {study["name"]: study for study in found["read"]}["wide-one"]
    assert first["spec"]["task"] == SPEC["task"]
    assert first["reason"] == "the task wide is not installed where the api runs"
    assert found["again"]["errors"] == [
        {"field": "task.name", "message": f"'wide' is not one of {', '.join(map(repr, NAMES))}"}
    ]
    assert found["extended"] == 422
    assert found["metrics"] == 200


def test_studies_whose_settings_its_task_takes_no_more_can_still_be_read(
    site: Path, url: str
) -> None:
    served(url, site, create=True)
    (site / "own_task.py").write_text(OWN_TASK.replace("    dataset: DatasetName", "    data: str"))
    found, _ = served(url, site, create=False)
    first = {study["name"]: study for study in found["read"]}["wide-one"]
    assert first["spec"]["task"] == SPEC["task"]
    assert found["metrics"] == 200


def test_broken_packages_are_left_out_with_the_reason(site: Path, url: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    for name, (module, content) in BROKEN.items():
        install(broken, f"package-{name}", {name: module})
        if content is not None:
            (broken / f"{module}.py").write_text(content)
    found, log = served(url, site, broken, create=True)
    assert [task["name"] for task in found["tasks"]] == [*NAMES, "wide"]
    reasons = {
        "raises": "RuntimeError: no GPU here",
        "leaves": "SystemExit: not today",
        "cancels": "CancelledError: no loop",
        "interrupts": "KeyboardInterrupt: by itself",
        "skips": "Skipped: no GPU",
        "exits": "importing it ends the process with code 0",
        "lacks": "is no Task but module",
        "number": "is no Task but int",
        "renamed": "the task is called 'wide', its entry point 'renamed'",
        "mlp": "mlp is the name of a built-in task",
        "missing": "ModuleNotFoundError: No module named 'nowhere_to_be_found'",
    }
    assert reasons.keys() == BROKEN.keys()
    for name, reason in reasons.items():
        line = f"left out: the task {name} of package-{name} ({BROKEN[name][0]}): {reason}"
        assert line in log.splitlines()


def test_of_two_packages_with_one_name_neither_is_taken(
    site: Path, url: str, tmp_path: Path
) -> None:
    second = tmp_path / "second"
    install(second, "copy", {"wide": "own_task:task"})
    found, log = served(url, site, second, create=False)
    assert [task["name"] for task in found["tasks"]] == NAMES
    assert log.count("several packages have a task wide") == 2


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('Literal["wide"]', "str", 'the name of its settings is not Literal["wide"]'),
        ("settings = WideSettings", "settings = dict", "its settings are no TaskSettings"),
        (
            'example = {"name": "wide"}',
            'example = {"name": "wide", "dataset": "../x"}',
            "ValidationError",
        ),
        ("    def data(self, settings):", "    def data_of(self, settings):", "TypeError"),
        ('return {"learning_rate": 0.01}', "return settings.rate", "AttributeError"),
        ("return DataChoice(settings.dataset, Split())", "raise OSError('gone')", "OSError: gone"),
        ('metrics = {"validation_loss": "minimize"}', "metrics = 5", "TypeError"),
    ],
)
def test_a_task_that_does_not_keep_to_the_port_is_left_out(
    site: Path, old: str, new: str, reason: str
) -> None:
    (site / "own_task.py").write_text(OWN_TASK.replace(old, new))
    left_out, _ = python(
        """
        import json
        from ridgeline.search.tasks.registry import installed
        print(json.dumps(dict(installed().left_out)))
        """,
        site,
    )
    assert list(left_out) == ["wide of own-package (own_task:task)"]
    assert reason in next(iter(left_out.values()))


def test_why_a_task_is_not_there_is_said_to_whoever_posts_it(site: Path, tmp_path: Path) -> None:
    (tmp_path / "later").mkdir()
    for path in site.iterdir():
        path.rename(tmp_path / "later" / path.name)
    told, _ = python(
        f"""
        import json, sys
        from ridgeline.search.problems import validation_problems
        from ridgeline.search.tasks.any_settings import settings_of
        from pydantic import ValidationError

        told = []
        for path in [], [{str(tmp_path / "later")!r}]:
            sys.path += path
            try:
                settings_of({{"name": "wide"}})
            except ValidationError as exc:
                told += validation_problems(exc)
        print(json.dumps(told))
        """,
    )
    (_, before), (_, after) = told
    assert before.startswith("'wide' is not one of 'mlp', ")
    assert after == f"{before}; wide was installed after this program had started: start it again"


def test_why_a_task_is_left_out_is_said_to_whoever_posts_it(site: Path, url: str) -> None:
    (site / "own_task.py").write_text("raise RuntimeError('no licence')")
    found, _ = served(url, site, create=True)
    (error,) = found["created"]["errors"]
    assert error["message"].endswith(
        "; the task wide of own-package (own_task:task) cannot be used: RuntimeError: no licence"
    )


def test_a_real_interrupt_is_no_fault_of_a_package(tmp_path: Path) -> None:
    install(tmp_path, "slow-package", {"slow": "slow_at_import"})
    (tmp_path / "slow_at_import.py").write_text(
        "import os, signal, sys\n"
        "if sys.argv[0] == '-c':\n"  # not where its import is tried first
        "    os.kill(os.getpid(), signal.SIGINT)\n"
    )
    found, _ = python(
        """
        import json
        from ridgeline.search.tasks.registry import installed
        try:
            print(json.dumps(dict(installed().left_out)))
        except KeyboardInterrupt:
            print(json.dumps("interrupted"))
        """,
        tmp_path,
    )
    assert found == "interrupted"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    def data(self, settings):", "    def problems(self, settings, spec):\n        {}\n"),
        (
            "        return DataChoice",
            "        if settings.dataset == 'wine': {}\n        return DataChoice",
        ),
    ],
    ids=["problems", "data"],
)
def test_what_a_task_raises_of_a_study_is_told_to_whoever_posts_it(
    site: Path, url: str, old: str, new: str
) -> None:
    kept = f"\n{old}" if old.startswith("    def") else ""
    raising = new.format("raise RuntimeError('no\\nlicence')") + kept
    (site / "own_task.py").write_text(OWN_TASK.replace(old, raising))
    bad = SPEC if "problems" in new else {**SPEC, "task": {"name": "wide", "dataset": "wine"}}
    found, log = python(SERVED.format(url=url, specs={"bad": bad, "good": OTHER}), site)
    assert "left out" not in log
    (error,) = found["bad"]["errors"]
    assert error == {
        "field": "task",
        "message": "the code of the task wide fails: RuntimeError: no licence",
    }
    assert found["good"]["name"] == "other"
