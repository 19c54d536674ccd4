"""What the doctor says of checkpoints, their runs and their files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from ridgeline.service import checkpoints, doctor
from ridgeline.service.artifacts.base import Content
from ridgeline.service.artifacts.folder import FolderArtifacts
from ridgeline.service.checkpoints import Holder
from ridgeline.service.protocol import RunReport
from ridgeline.service.store.session import Store
from tests.service.factory import SETTINGS, FakeWorker, ended, post, spec

DATA = b"the state of a run"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


@pytest.fixture
def kept(store: Store, folder: Path) -> Store:
    """A run that waits, one in training that went on, and one that has ended; all were saved."""
    post(store, spec(budget={"trials": 6, "epochs": 2}))
    worker = FakeWorker(store, num_slots=3)
    worker.sync()
    keys = [{"run": order.run, "attempt": order.attempt} for order in worker.held.values()]
    worker.sync(
        held=[{**key, "device": "cpu:0", "program": "p"} for key in keys],
        reports=[
            RunReport(**key, epoch=epoch, metrics={"validation_accuracy": 0.5})
            for key in keys
            for epoch in (1, 2)
        ],
    )
    for key in keys:
        holder = Holder(worker.id, key["run"], key["attempt"])
        row, _ = checkpoints.announce(store, holder, epoch=1, program="p", content=Content.of(DATA))
        checkpoints.keep(store, FolderArtifacts(folder), holder, row, [DATA])
    waits, goes_on, ends = worker.held.values()
    end = ended(ends, metrics={"validation_accuracy": 0.5}, value=0.5)
    worker.sync(ended=[end, ended(goes_on, "released")], free_slots={})
    worker.sync(free_slots={"cpu:0": 1})
    (again,) = (order for order in worker.held.values() if order.attempt == 2)
    report = RunReport(run=again.run, attempt=2, epoch=2, metrics={"validation_accuracy": 0.5})
    worker.sync(reports=[report], ended=[ended(waits, "released")], free_slots={})
    assert again.run == goes_on.run
    return store


def examined(store: Store, folder: Path) -> list[tuple[str, str]]:
    found = doctor.examine(store, FolderArtifacts(folder), SETTINGS)
    return [(one.check, one.wrong) for one in found if one.check != "folders"]


def test_nothing_is_wrong_with_runs_that_were_saved(kept: Store, folder: Path) -> None:
    assert examined(kept, folder) == []
    assert len(list(FolderArtifacts(folder).keys())) == 3  # one of them is to be deleted
    while checkpoints.sweep(kept, FolderArtifacts(folder)):
        pass
    assert examined(kept, folder) == []
    assert len(list(FolderArtifacts(folder).keys())) == 2


OF_OTHERS = (
    "study s: runs 0/0 have checkpoints of epochs that were not reported, or of another program"
)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (
            "UPDATE rl_artifacts SET state = 'WHOLE' WHERE state = 'DOOMED'",
            ("checkpoints", "study s: runs 2/0 have ended, and checkpoints of them are kept"),
        ),
        ("UPDATE rl_artifacts SET epoch = 2 WHERE run_id = 1", ("checkpoints", OF_OTHERS)),
        ("UPDATE rl_artifacts SET program = 'q' WHERE run_id = 1", ("checkpoints", OF_OTHERS)),
        ("UPDATE rl_runs SET program = NULL WHERE id = 1", ("checkpoints", OF_OTHERS)),
        ("UPDATE rl_artifacts SET attempt = 9 WHERE run_id = 1", ("checkpoints", OF_OTHERS)),
        (
            "UPDATE rl_artifacts SET state = 'DOOMED' WHERE run_id = 1",
            ("run-states", "study s: runs 0/0 wait, and have a holder, a program or a result"),
        ),
        (
            "UPDATE rl_artifacts SET state = 'DOOMED' WHERE run_id = 1",
            (
                "reports",
                "study s: runs 0/0 have reports of later attempts, or wait and have some past any "
                "checkpoint",
            ),
        ),
        (
            "UPDATE rl_reports SET attempt = 2 WHERE run_id = 2 AND epoch = 1; "
            "UPDATE rl_reports SET attempt = 1 WHERE run_id = 2 AND epoch = 2",
            (
                "reports",
                "study s: runs 1/0 have reports of later attempts, or wait and have some past any "
                "checkpoint",
            ),
        ),
    ],
)
def test_what_is_wrong_with_rows_is_told(
    kept: Store, folder: Path, statement: str, expected: tuple[str, str]
) -> None:
    with kept.transaction() as tx:
        for one in statement.split(";"):
            tx.connection.execute(text(one))
    assert expected in examined(kept, folder)


def truncate(folder: Path) -> None:
    (path,) = (folder / "files" / "checkpoints").glob("1-*")
    path.write_bytes(DATA[:-1])


def alter(folder: Path) -> None:
    (path,) = (folder / "files" / "checkpoints").glob("1-*")
    path.write_bytes(DATA.upper())


def remove(folder: Path) -> None:
    (path,) = (folder / "files" / "checkpoints").glob("1-*")
    path.unlink()


@pytest.mark.parametrize("damage", [truncate, alter, remove])
def test_a_file_that_is_not_as_it_was_kept_is_told(
    kept: Store, folder: Path, damage: Callable[[Path], None]
) -> None:
    damage(folder)
    ((check, wrong),) = examined(kept, folder)
    assert check == "artifacts"
    assert wrong.startswith("the files checkpoints/1-1-1-")
    assert wrong.endswith(" are missing, or not as they were kept")


def test_a_file_that_nobody_knows_is_told(kept: Store, folder: Path) -> None:
    FolderArtifacts(folder).put("checkpoints/strange", [DATA], Content.of(DATA))
    wrong = "the files checkpoints/strange are in no row of this database"
    assert examined(kept, folder) == [("artifacts", wrong)]


def test_a_store_that_cannot_be_read_is_told(kept: Store, folder: Path) -> None:
    (path,) = (folder / "files" / "checkpoints").glob("1-*")
    path.unlink()
    path.symlink_to("/etc/hosts")
    ((check, wrong),) = examined(kept, folder)
    assert check == "artifacts"
    assert "the artifact store cannot read checkpoints/1-1-1-" in wrong
