"""The life of a study by commands alone, on both databases."""

from __future__ import annotations

from ridgeline.service.client import Client
from tests.api.calling import EXTERNAL
from tests.cli.conftest import Ridgeline
from tests.cli.test_commands import open_client, train
from tests.client.conftest import client

__all__ = ["client", "open_client"]  # fixtures


def test_the_life_of_a_study(ridgeline: Ridgeline, client: Client) -> None:
    def told(*args: str) -> str:
        result = ridgeline(*args)
        assert result.exit_code == 0, result.stderr
        return result.stdout.splitlines()[0]

    client.create_study(EXTERNAL)
    assert told("pause", "x") == "x is PAUSED."
    assert told("resume", "x") == "x is QUEUED."
    assert told("enqueue", "x", "--set", "depth=3") == "trial 0 of x: depth=3"
    train(client, 3)
    train(client, 1, fail=True)
    assert told("extend", "x", "--trials", "2") == "x is queued, 6 trials."
    assert told("retry", "x", "--reason", "diverged") == "x is queued, 7 trials."
    assert told("clone", "x", "y") == "y is queued, 7 trials."
    assert told("stop", "x") == "x is COMPLETED."
    assert told("archive", "x") == "x is archived; ridgeline studies --all shows it."
    assert "y" in ridgeline("studies").stdout
    assert told("unarchive", "x") == "x is archived no more."
    assert told("delete", "x", "--yes") == "x is deleted."
    assert [study.name for study in client.studies()] == ["y"]
