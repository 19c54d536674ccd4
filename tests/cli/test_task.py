"""`ridgeline task check`: what it tells the authors of tasks, good and bad."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sites import install
from tests.worker import odd_functions, odd_modules

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with odd tasks, as installed."""
    site = tmp_path_factory.mktemp("site")
    install(site, "odd-modules", odd_modules.ENTRY_POINTS)
    functions = {"square": odd_functions.ENTRY_POINTS["square"]}
    install(site, "odd-functions", {**functions, "gone": "nowhere_to_be_found:task"})
    return site


def check(site: Path, *words: str) -> tuple[int, str, str]:
    """The exit status, and what stands on standard output and standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "ridgeline.service.cli", "task", "check", *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT, site]))},
        cwd=site,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_module_that_packs(site: Path) -> None:
    status, told, complaint = check(site, "linear-module", "--dataset", "breast-cancer")
    assert (status, complaint) == (0, "")
    can, packs, equal, speed, drops = told.splitlines()
    assert (can, packs) == ("linear-module can be trained.", "It packs.")
    assert equal.startswith("Packed equals solo to the bit: yes, in 8 steps of a pack of 4")
    assert re.match(r"A pack of 4 trains \d+\.\d\d times as many samples a second as", speed)
    assert drops == "It drops nothing: its parameter dropout changes nothing."


def test_a_module_that_does_not(site: Path) -> None:
    status, told, complaint = check(site, "by-data")
    assert (status, complaint) == (0, "")
    assert (
        "It does not pack, so its runs train one by one: ByData: its own forward reads a value "
        "out of a tensor, as control flow that depends on the data does"
    ) in told
    assert "Packed equals solo" not in told
    assert "times as many" not in told


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("raises-at-build", "cannot be trained: RuntimeError: no licence for this network"),
        ("raises-in-forward", "cannot be trained: KeyError: 'attention'"),
        ("exits", "cannot be trained: RuntimeError: SystemExit: no licence"),
        ("cancels", "cannot be trained: RuntimeError: CancelledError: by the loop"),
        ("raises-pages", "cannot be trained: RuntimeError: a text without end"),
        (
            "wrong-shape",
            "cannot be trained: WrongShape must give 10 outputs a row, [4, 10] for 4 "
            "rows, not [4, 9]",
        ),
        (
            "shuffles",
            "cannot be trained: order, a buffer of whole numbers, must be the same for every seed",
        ),
        ("nan", "diverges within 8 steps with its defaults"),
        ("parameterless", "cannot be trained: the module has no parameters to train"),
        (
            "no-module",
            "cannot be trained: tests.worker.odd_networks:no_module must give an nn.Module, not 5",
        ),
        (
            "missing-module",
            "cannot be trained: tests.worker.odd_networks:Missing cannot be imported",
        ),
        ("external", "is not trained by workers"),
        ("gone", "cannot be used: ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
    ],
)
def test_what_cannot_be_trained_is_told_in_a_line(site: Path, name: str, reason: str) -> None:
    status, told, complaint = check(site, name)
    assert status == 1
    assert told == ""
    (line,) = complaint.splitlines()
    assert line.startswith(f"ridgeline: the task {name} ")
    assert reason in line
    assert len(line) < 600


def test_other_tasks_and_names(site: Path) -> None:
    status, told, _ = check(site, "square")
    assert (status, told.splitlines()) == (
        0,
        ["square is a function: each of its runs is called in a process of its own."],
    )
    status, told, _ = check(site, "linear")  # which has no parameter dropout
    assert (status, len(told.splitlines())) == (0, 4)
    status, _, complaint = check(site, "nope")
    assert status == 1
    assert complaint.startswith("ridgeline: no task 'nope' is installed here, only mlp, ")
    status, _, complaint = check(site, "linear-module", "--dataset", "no/name")
    assert status == 2
    assert complaint.startswith("ridgeline: --dataset: ")
    status, _, complaint = check(site, "cnn", "--dataset", "diabetes")
    assert status == 1
    assert complaint == (
        "ridgeline: data set diabetes: its features are vector, but the task cnn needs image\n"
    )
