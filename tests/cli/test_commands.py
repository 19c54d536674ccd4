"""The commands of people who search, on the real app without a socket."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import BinaryIO, TextIO, cast
from unittest.mock import Mock

import pytest

from ridgeline.service.cli.app import app
from ridgeline.service.cli.follow import follow
from ridgeline.service.client import ApiError, Client
from ridgeline.service.lifecycle import FailReason
from ridgeline.service.resources import Study
from tests.api.calling import EXTERNAL, sqlite_only
from tests.cli.conftest import Ridgeline
from tests.client.conftest import client

__all__ = ["client"]  # the fixture
pytestmark = sqlite_only

STUDY_FILE = """\
name: x
task: {name: external}
space:
  depth: {type: int, low: 1, high: 9}
sampler: {name: random}
objective: {metric: error, direction: minimize}
budget: {trials: 3}
"""


@pytest.fixture(autouse=True)
def open_client(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands get a client of the app; they close it, so its closing must wait for the test."""
    monkeypatch.setattr(client, "close", lambda: None)
    for module in ("studies", "compare", "comparisons"):
        monkeypatch.setattr(f"ridgeline.service.cli.{module}.open_client", lambda: client)


def train(client: Client, count: int, *, fail: bool = False) -> None:
    """Train the next trials of the study x as a program would."""
    for trial in client.suggest("x", count=count).trials:
        client.complete(
            "x",
            trial.number,
            attempt=trial.attempt,
            state="FAIL" if fail else "COMPLETE",
            value=None if fail else 10.0 - float(trial.config["depth"]),
            reason=FailReason.DIVERGED if fail else None,
            error="no\x1b[31m memory\nleft" if fail else None,
            metrics={} if fail else {"test_error": 0.25},
        )


def follow_with(monkeypatch: pytest.MonkeyPatch, sleep: Callable[[float], None]) -> None:
    """Have `--follow` call `sleep` between its looks."""
    monkeypatch.setattr(
        "ridgeline.service.cli.studies.follow_studies", partial(follow, sleep=sleep)
    )


def test_run_posts_a_study(ridgeline: Ridgeline, client: Client, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(STUDY_FILE)
    result = ridgeline("run", "x.yaml")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "x is queued, 3 trials.",
        "Watch it with: ridgeline show x --follow",
    ]
    assert client.study("x").num_trials == 3
    again = ridgeline("run", "x.yaml")
    assert again.exit_code == 1
    assert again.stderr.startswith("ridgeline: there is a study named x already")
    assert "--name" in again.stderr
    assert "ridgeline delete x" in again.stderr
    assert ridgeline("run", "x.yaml", "--name", "y").stdout.startswith("y is queued")
    wrong = ridgeline("run", "x.yaml", "--name", "a/b")
    assert (wrong.exit_code, wrong.stderr.startswith("ridgeline: --name: ")) == (2, True)


@pytest.mark.parametrize(("ending", "status"), [("train", 0), ("fail", 1), ("cancel", 1)])
def test_following_tells_how_the_study_ended(
    ending: str,
    status: int,
    ridgeline: Ridgeline,
    client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ask = client.study

    def study(name: str) -> Study:
        """Each look finds the study a step further."""
        before = ask(name)
        if ending == "cancel":
            client.cancel(name)
        else:
            train(client, 1, fail=ending == "fail")
        return before

    monkeypatch.setattr(client, "study", study)
    follow_with(monkeypatch, lambda _seconds: None)
    (tmp_path / "x.yaml").write_text(STUDY_FILE)
    result = ridgeline("run", "x.yaml", "--follow")
    assert result.exit_code == status
    lines = result.stdout.splitlines()
    assert lines[0].startswith("x: QUEUED, 0/3 trials: waits for a program")
    state = {"train": "COMPLETED", "fail": "FAILED", "cancel": "CANCELLED"}[ending]
    assert any(line.startswith(f"x is {state}") for line in lines)


def test_ctrl_c_leaves_the_study_running(
    ridgeline: Ridgeline, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    client.create_study(EXTERNAL)
    follow_with(monkeypatch, interrupt)
    result = ridgeline("show", "x", "--follow")
    assert result.exit_code == 130
    assert "x goes on. Watch it with: ridgeline show x --follow" in result.stderr
    assert client.study("x").state == "QUEUED"


def test_show_tells_why_a_study_waits(ridgeline: Ridgeline, client: Client) -> None:
    client.create_study(EXTERNAL)
    lines = ridgeline("show", "x").stdout.splitlines()
    assert lines == [
        "x is QUEUED: waits for a program to call trials:suggest",
        "task external, sampler random, to minimize error",
        "0 of 4 trials done (none begun), 0.0 s of device time",
    ]


def test_show_tells_what_a_study_has_taken_over(ridgeline: Ridgeline, client: Client) -> None:
    client.create_study(EXTERNAL)
    train(client, 3)
    client.create_study({**EXTERNAL, "name": "y", "sampler": {"name": "tpe"}, "warm_start": ["x"]})
    told = "warm start: 3 trials of x, by depth"
    assert told in ridgeline("show", "y").stdout.splitlines()
    ridgeline("clone", "y", "z")
    assert told in ridgeline("show", "z").stdout.splitlines()


def test_show_lists_the_best_trials_and_their_test_metrics(
    ridgeline: Ridgeline, client: Client
) -> None:
    client.create_study(EXTERNAL)
    client.enqueue("x", [{"depth": depth} for depth in (3, 8, 5)])
    train(client, 3)
    train(client, 1, fail=True)
    result = ridgeline("show", "x")
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines() if line.strip()]
    assert ["trial", "depth", "error", "test_error"] in rows
    assert [row[:4] for row in rows if row[0] in "012"] == [
        ["1", "8", "2", "0.25"],
        ["2", "5", "5", "0.25"],
        ["0", "3", "7", "0.25"],
    ]
    # What a program says of its failure is not obeyed by the terminal.
    assert "trial 3 was the first to fail, diverged: no [31m memory left" in result.stdout


NAMES = ("test_f1[/macro]", "test_acc[top1]", "test_acc[top5]", "test_:bomb:", "test_[red]")


def test_nobodys_text_is_markup(ridgeline: Ridgeline, client: Client) -> None:
    texts = ["[/b]", ":bomb:", "a\x9b31m"]
    client.create_study(
        {
            **EXTERNAL,
            "space": {"text": {"type": "values", "values": texts}},
            "objective": {"metric": "er[b]ror[/b]", "direction": "minimize"},
        }
    )
    client.enqueue("x", [{"text": text} for text in texts])
    for trial in client.suggest("x", count=3).trials:
        metrics = {**dict.fromkeys(NAMES, 0.25), "test_\x9b": 0.5}
        client.complete("x", trial.number, attempt=trial.attempt, value=1.0, metrics=metrics)
    out = ridgeline("show", "x").stdout
    for text in ("er[b]ror[/b]", *NAMES, "[/b]", ":bomb:"):
        assert text in out
    assert "\x9b" not in out


def test_studies_lists_them_all(ridgeline: Ridgeline, client: Client) -> None:
    client.create_study(EXTERNAL)
    client.create_study({**EXTERNAL, "name": "y"})
    train(client, 1)
    rows = [line.split() for line in ridgeline("studies").stdout.splitlines() if line.strip()]
    assert rows[0] == ["study", "state", "trials", "best", "sampler", "task"]
    assert rows[2] == ["y", "QUEUED", "0/4", "random", "external"]
    assert rows[3][:3] == ["x", "RUNNING", "1/4"]


def test_cancel(ridgeline: Ridgeline, client: Client) -> None:
    client.create_study(EXTERNAL)
    assert ridgeline("cancel", "x").stdout == "x is CANCELLED.\n"
    assert client.study("x").state == "CANCELLED"
    assert ridgeline("cancel", "nobody").exit_code == 1


def test_what_the_service_refuses_is_told_with_its_line(
    ridgeline: Ridgeline, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.yaml").write_text(STUDY_FILE)
    error = ApiError(422, "no", "no", [("space.depth.high", "is too deep"), ("budget.trials", "x")])
    monkeypatch.setattr(client, "create_study", Mock(side_effect=error))
    result = ridgeline("run", "x.yaml")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "ridgeline: x.yaml:4: space.depth.high: is too deep",
        "ridgeline: x.yaml:7: budget.trials: x",
    ]


def test_a_study_cancelled_early_shows_what_it_was_to_do(
    ridgeline: Ridgeline, client: Client
) -> None:
    client.create_study(EXTERNAL)
    train(client, 1)
    train(client, 1, fail=True)
    client.cancel("x")
    assert "2 of 4 trials done (1 complete, 1 failed)" in ridgeline("show", "x").stdout


def printed_to(
    out: TextIO, *args: str, capsys: pytest.CaptureFixture[str]
) -> tuple[int | str | None, str]:
    """The exit status of a command whose standard output is `out`, and its standard error."""
    # Closing writes what is in the buffer, as the interpreter does at its end.
    with out, redirect_stdout(out), pytest.raises(SystemExit) as caught:
        app(args, prog_name="ridgeline")
    return caught.value.code, capsys.readouterr().err


COMMANDS = ["--version", "--help", "studies", "show x", "cancel x", "export x", "run x.yaml"]


def arguments_of(command: str, client: Client, folder: Path) -> list[str]:
    """The command's words, once there is all that it asks for."""
    client.create_study({**EXTERNAL, "name": "x" if command != "run x.yaml" else "y"})
    (folder / "x.yaml").write_text(STUDY_FILE)
    return command.replace("x.yaml", str(folder / "x.yaml")).split()


@pytest.mark.parametrize("command", COMMANDS)
def test_output_that_cannot_be_written_is_told(
    command: str, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = arguments_of(command, client, tmp_path)
    status, told = printed_to(
        os.fdopen(os.open("/dev/full", os.O_WRONLY), "w"), *args, capsys=capsys
    )
    assert told == "ridgeline: cannot write to standard output: No space left on device\n"
    assert status == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_that_has_gone_is_no_error_to_tell(
    command: str, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = arguments_of(command, client, tmp_path)
    reader, writer = os.pipe()
    os.close(reader)
    assert printed_to(os.fdopen(writer, "w"), *args, capsys=capsys) == (1, "")


def test_output_without_a_buffer(capsys: pytest.CaptureFixture[str]) -> None:
    """As with PYTHONUNBUFFERED: /dev/full refuses even the empty text that typer tries it with."""
    raw = os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb", buffering=0)
    out = io.TextIOWrapper(cast(BinaryIO, raw), write_through=True)
    status, told = printed_to(out, "--version", capsys=capsys)
    assert told == "ridgeline: cannot write to standard output: No space left on device\n"
    assert status == 1


def test_an_encoding_that_lacks_a_character_is_told(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {"type": "values", "values": ["λ"]}
    client.create_study({**EXTERNAL, "space": {"x": values}})
    client.enqueue("x", [{"x": "λ"}])
    out = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    status, told = printed_to(out, "export", "x", capsys=capsys)
    assert status == 1
    assert told.startswith(
        r"ridgeline: cannot write '\u03bb' to standard output, whose encoding is"
    )


def test_export(ridgeline: Ridgeline, client: Client, tmp_path: Path) -> None:
    client.create_study(EXTERNAL)
    train(client, 2)
    text = ridgeline("export", "x").stdout
    assert text.splitlines()[0].startswith("number,trial_state")
    assert len(text.splitlines()) == 3
    assert ridgeline("export", "x", "-o", "x.csv").stdout == ""
    assert (tmp_path / "x.csv").read_text() == text
    result = ridgeline("export", "x", "-o", "absent/x.csv")
    assert result.exit_code == 1
    assert result.stderr == "ridgeline: cannot write absent/x.csv: No such file or directory\n"


def test_a_study_is_paused_and_goes_on(ridgeline: Ridgeline, client: Client) -> None:
    client.create_study(EXTERNAL)
    train(client, 1)
    client.suggest("x")
    assert ridgeline("pause", "x").stdout == "x is PAUSED.\n"
    assert ridgeline("resume", "x").stdout == "x is RUNNING.\n"
    assert ridgeline("stop", "x").stdout == (
        "x is RUNNING, and stops once its running trials have ended.\n"
    )


def test_a_study_is_extended(ridgeline: Ridgeline, client: Client) -> None:
    client.create_study(EXTERNAL)
    train(client, 4)
    assert ridgeline("extend", "x", "--trials", "2").stdout.splitlines()[0] == (
        "x is queued, 6 trials."
    )
    refused = ridgeline("extend", "x")
    assert (refused.exit_code, refused.stderr) == (
        2,
        "ridgeline: --trials: is missing; give trials, seconds or space\n",
    )
    refused = ridgeline("extend", "x", "--trials", "100000")
    assert refused.stderr.startswith("ridgeline: --trials: the budget would come to 100")
    refused = ridgeline("extend", "x", "--seconds", "0")
    assert (refused.exit_code, refused.stderr.startswith("ridgeline: --seconds: ")) == (2, True)


def test_a_space_is_extended(ridgeline: Ridgeline, client: Client) -> None:
    client.create_study(EXTERNAL)
    refused = ridgeline("extend", "x", "--set", "budget.trials=9")
    assert (refused.exit_code, refused.stderr) == (
        2,
        "ridgeline: --set budget: only the space can be set here; clone the study to change more\n",
    )
    refused = ridgeline("extend", "x", "--set", "space.depth.values=[1]")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("ridgeline: --set space.depth.")
    grown = ridgeline("extend", "x", "--trials", "1", "--set", "space.depth.high=64")
    assert grown.stdout.splitlines()[0].endswith("5 trials.")
    assert client.study("x").spec.space["depth"].num_values == 64


def test_failures_are_tried_again(ridgeline: Ridgeline, client: Client) -> None:
    client.create_study(EXTERNAL)
    train(client, 1, fail=True)
    train(client, 3)
    assert ridgeline("retry", "x").stdout == "x is COMPLETED still: it has nothing more to do.\n"
    again = ridgeline("retry", "x", "--reason", "diverged")
    assert again.stdout.splitlines()[0] == "x is queued, 5 trials."
    assert client.trial("x", 4).retry_of == 0


def test_a_study_is_cloned(ridgeline: Ridgeline, client: Client) -> None:
    client.create_study(EXTERNAL)
    space = "space.depth={type: int, low: 2, high: 3}"
    cloned = ridgeline("clone", "x", "y", "--set", "budget.trials=9", "--set", space)
    assert cloned.stdout.splitlines()[0] == "y is queued, 9 trials."
    spec = client.study("y").spec
    assert (spec.num_trials, spec.space["depth"].low) == (9, 2)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("budget.trials", "--set budget.trials: must be like budget.trials=50"),
        (".=3", "--set .=3: must be like budget.trials=50"),
        ("budget.trials={", "--set:1: "),
        ("budget.trials=-1", "budget.trials: "),
    ],
)
def test_a_change_that_cannot_be_made_is_told(
    change: str, told: str, ridgeline: Ridgeline, client: Client
) -> None:
    client.create_study(EXTERNAL)
    refused = ridgeline("clone", "x", "y", "--set", change)
    assert refused.exit_code != 0
    assert refused.stderr.startswith(f"ridgeline: {told}")
    whole = ridgeline("clone", "x", "y", "--set", "budget=3", "--set", "budget.trials=3")
    assert "budget is set as a whole already" in whole.stderr
    for first in ("budget.trials=3", "budget={}"):
        field = first.partition("=")[0]
        again = ridgeline("clone", "x", "y", "--set", first, "--set", f"{field}=4")
        assert again.stderr == f"ridgeline: --set {field}=4: {field} is set already\n"
    named = ridgeline("clone", "x", "y", "--set", "name=z")
    assert named.stderr == "ridgeline: --set name: the name is y, as given before it\n"


def test_a_study_is_deleted_where_one_means_it(ridgeline: Ridgeline, client: Client) -> None:
    client.create_study(EXTERNAL)
    asked = ridgeline("delete", "x")
    assert (asked.exit_code, asked.stderr) == (
        2,
        "ridgeline: x and its 4 trials would be gone for good; to delete them: "
        "ridgeline delete x --yes\n",
    )
    open_ = ridgeline("delete", "x", "--yes")
    assert (open_.exit_code, "; cancel it before" in open_.stderr) == (1, True)
    client.cancel("x")
    assert ridgeline("delete", "x", "--yes").stdout == "x is deleted.\n"
    assert ridgeline("show", "x").exit_code == 1


def test_an_ended_study_is_archived(ridgeline: Ridgeline, client: Client) -> None:
    client.create_study(EXTERNAL)
    refused = ridgeline("archive", "x")
    assert (refused.exit_code, "cannot be told to archive" in refused.stderr) == (1, True)
    client.cancel("x")
    told = ridgeline("archive", "x").stdout
    assert told == "x is archived; ridgeline studies --all shows it.\n"
    assert "CANCELLED" not in ridgeline("studies").stdout
    assert "CANCELLED, archived" in ridgeline("studies", "--all").stdout
    assert "x is CANCELLED, archived" in ridgeline("show", "x").stdout
    assert ridgeline("unarchive", "x").stdout == "x is archived no more.\n"
    assert "CANCELLED" in ridgeline("studies").stdout


def test_a_trial_is_explained(ridgeline: Ridgeline, client: Client) -> None:
    spec = {**EXTERNAL, "sampler": {"name": "auto", "seed": 3}}
    client.create_study({**spec, "budget": {"trials": 20, "max_parallel": 1}})
    client.enqueue("x", [{"depth": 2}])
    for _ in range(11):
        (trial,) = client.suggest("x").trials
        depth = trial.config["depth"]
        assert isinstance(depth, int)
        client.complete("x", trial.number, attempt=trial.attempt, value=(depth - 3.0) ** 2)
    given = ridgeline("explain", "x", "0").stdout
    assert given == "trial 0 of x: depth=2\nA person gave the whole configuration.\n"
    spread = ridgeline("explain", "x", "1").stdout.splitlines()
    assert spread[1:3] == [
        "The sampler auto/1 chose it. Trials that had ended: 1; in flight: 0.",
        "No model was asked: it was drawn, spread evenly, or a cell of a grid.",
    ]
    chosen = ridgeline("explain", "x", "10").stdout
    assert "candidates it was the most promising." in chosen
    assert re.search(r"expected \S+, between \S+ and \S+ with 95 %\.\nThe trial came to", chosen)
    assert "nearest trial" in chosen
    missing = ridgeline("explain", "x", "40")
    assert missing.stderr == "ridgeline: x has no trial 40 (HTTP 404)\n"


def test_what_an_enqueued_trial_leaves_out_is_told(ridgeline: Ridgeline, client: Client) -> None:
    width = {"type": "values", "values": ["narrow", "wide"]}
    client.create_study({**EXTERNAL, "space": {**EXTERNAL["space"], "width": width}})
    told = ridgeline("enqueue", "x", "--set", "depth=3")
    chosen = client.trial("x", 0)
    assert (chosen.given, chosen.config["depth"]) == (("depth",), 3)
    assert told.stdout == (
        f"trial 0 of x: depth=3, width={chosen.config['width']} (the sampler chose width)\n"
    )
    told = ridgeline("enqueue", "x", "--set", "width=wide", "--set", "depth=4")
    assert told.stdout == "trial 1 of x: depth=4, width=wide\n"


def test_the_configurations_of_a_file_are_enqueued(
    ridgeline: Ridgeline, client: Client, tmp_path: Path
) -> None:
    client.create_study(EXTERNAL)
    (tmp_path / "best.yaml").write_text("- {depth: 3}\n- {depth: 4}\n")
    told = ridgeline("enqueue", "x", "--file", "best.yaml")
    assert told.stdout.splitlines() == ["trial 0 of x: depth=3", "trial 1 of x: depth=4"]
    both = ridgeline("enqueue", "x", "--file", "best.yaml", "--set", "depth=5")
    assert (both.exit_code, both.stderr) == (
        2,
        "ridgeline: --file: the values are in the file, so leave --set out\n",
    )
    (tmp_path / "best.yaml").write_text("depth: 3\n")
    other = ridgeline("enqueue", "x", "--file", "best.yaml")
    assert other.exit_code == 2
    assert other.stderr.startswith("ridgeline: best.yaml: must be a list of mappings, such as ")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (["depth"], "--set depth: must be like learning_rate=0.01"),
        (["depth=1", "depth=2"], "--set depth=2: depth is set already"),
        (["depth=70"], "configs.0.depth: "),
        (["dept=7"], "configs.0.dept: is not a parameter of this study's space"),
    ],
)
def test_a_configuration_that_cannot_be_is_told(
    values: list[str], told: str, ridgeline: Ridgeline, client: Client
) -> None:
    client.create_study(EXTERNAL)
    refused = ridgeline("enqueue", "x", *(word for value in values for word in ("--set", value)))
    assert refused.exit_code != 0
    assert refused.stderr.startswith(f"ridgeline: {told}")
