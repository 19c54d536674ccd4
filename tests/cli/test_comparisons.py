"""The commands for comparisons, on the real app without a socket."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ridgeline.search.measures import Measures
from ridgeline.service.client import Client
from ridgeline.service.comparisons import advance_all
from ridgeline.service.store.session import Store
from tests.api.calling import sqlite_only
from tests.cli.conftest import Ridgeline
from tests.cli.test_commands import client, open_client
from tests.measures import RELU, TANH
from tests.service.factory import ended
from tests.service.test_comparisons import SPEC, train

__all__ = ["client", "open_client"]  # the fixtures
pytestmark = sqlite_only


@pytest.fixture
def done(client: Client, store: Store) -> None:
    """The comparison c, trained to its end."""
    client.create_comparison(SPEC)
    for _ in range(2):
        train(store)
        advance_all(store)


def test_a_comparison_is_paused_resumed_and_cancelled(ridgeline: Ridgeline, client: Client) -> None:
    client.create_comparison(SPEC)
    assert ridgeline("comparison", "pause", "c").stdout == "c is PAUSED.\n"
    assert ridgeline("comparison", "show", "c").stdout.splitlines() == [
        "c is PAUSED: paused; resume it to go on",
        "arm none is PAUSED: paused; resume it to go on",
        "arm l2 is PAUSED: paused; resume it to go on",
    ]
    assert ridgeline("comparison", "resume", "c").stdout == "c is QUEUED.\n"
    assert ridgeline("comparison", "cancel", "c").stdout == "c is CANCELLED.\n"
    refused = ridgeline("comparison", "resume", "c")
    assert refused.exit_code == 1
    assert "cancelled for good" in refused.stderr


def test_comparisons_are_listed(ridgeline: Ridgeline, client: Client) -> None:
    client.create_comparison(SPEC)
    client.create_comparison({**SPEC, "name": "d", "arms": ["none", "dropout+l2"]})
    heading, _, newest, oldest = ridgeline("comparisons").stdout.strip().splitlines()
    assert heading.split() == ["comparison", "state", "arms", "task"]
    assert newest.split() == ["d", "QUEUED", "none,", "dropout+l2", "mlp", "on", "digits"]
    assert oldest.split()[0] == "c"


@pytest.mark.usefixtures("done")
def test_the_table_of_one_that_is_done(ridgeline: Ridgeline, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(SPEC))
    followed = ridgeline("compare", "c.yaml")
    assert (followed.exit_code, followed.stderr) == (0, "")
    table = followed.stdout[followed.stdout.index(" arm ") :]
    assert "best of the search" in table
    assert "\nnone and l2 cannot be told apart: test_accuracy differs by -0.1" in table
    shown = ridgeline("comparison", "show", "c").stdout
    assert shown.startswith("c is COMPLETED\narm none is COMPLETED\n")
    assert shown.endswith(table)
    assert ridgeline("comparison", "show", "c", "--follow").stdout.endswith(table)


@pytest.mark.parametrize(
    ("measures", "shown"),
    [
        (RELU, {"accuracy gap": "0.25", "weights near 0": "37.5 %", "inputs kept": "3",
                "dead units": "25.0 %"}),
        (TANH, {"in the linear zone": "31.2 %"}),
    ],
)  # fmt: skip
def test_the_table_and_the_report_call_measures_alike(
    ridgeline: Ridgeline,
    client: Client,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    measures: Measures,
    shown: dict[str, str],
) -> None:
    monkeypatch.setattr(
        "tests.service.test_comparisons._end",
        lambda order, outcome: ended(order, measures=measures),
    )
    client.create_comparison(SPEC)
    for _ in range(2):
        train(store)
        advance_all(store)
    table = ridgeline("comparison", "show", "c").stdout
    report = client.comparison_report("c", format="md")
    for label, value in shown.items():
        assert label in table
        assert value in table
        assert f"| {label} | {value} | {value} |" in report
    assert "| weights at 0 | 12.5 % | 12.5 % |" in report
    assert "_share" not in table + report


@pytest.mark.usefixtures("done")
def test_one_that_is_done_gets_more_to_do(ridgeline: Ridgeline, client: Client) -> None:
    assert ridgeline("comparison", "extend", "c", "--trials", "2").stdout == (
        "c is QUEUED.\nWatch it with: ridgeline comparison show c --follow\n"
    )
    assert client.study("c-search.l2").num_trials == 4
    added = ridgeline("comparison", "add", "c", "wide", "--set", "task.hidden=[64]")
    assert added.stdout.startswith("c is QUEUED.\n")
    assert client.comparison("c").arms[2].search.spec.task.model_dump()["hidden"] == (64,)
    assert client.study("c-search.wide").num_trials == 4
    assert ridgeline("comparison", "add", "c", "dropout").exit_code == 0
    refused = ridgeline("comparison", "add", "c", "dropuot")
    assert refused.exit_code == 1
    assert "arms.dropuot: there is no ready-made arm dropuot" in refused.stderr
    refused = ridgeline("comparison", "extend", "c")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("ridgeline: --trials: is missing")


@pytest.mark.usefixtures("done")
def test_a_comparison_is_deleted_on_purpose(ridgeline: Ridgeline, client: Client) -> None:
    asked = ridgeline("comparison", "delete", "c")
    assert asked.exit_code == 2
    assert "the studies of its 2 arms would be gone" in asked.stderr
    assert ridgeline("comparison", "delete", "c", "--yes").stdout == "c is deleted.\n"
    assert list(client.comparisons()) == []
    assert list(client.studies()) == []


def test_ctrl_c_leaves_a_comparison_running(
    ridgeline: Ridgeline, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.create_comparison(SPEC)

    def sleep(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ridgeline.service.cli.follow.time.sleep", sleep)
    stopped = ridgeline("comparison", "show", "c", "--follow")
    assert stopped.exit_code == 130
    assert "c-search.l2: QUEUED, 0/2 trials" in stopped.stdout
    assert stopped.stderr == "\nc goes on. Watch it with: ridgeline comparison show c --follow\n"


@pytest.mark.parametrize("name", ["nobody", "../c"])
def test_one_that_is_not_there(name: str, ridgeline: Ridgeline) -> None:
    for verb in ("show", "pause", "resume", "cancel", "delete"):
        refused = ridgeline("comparison", verb, name)
        assert refused.exit_code == 1
        assert "there is no comparison named" in refused.stderr
