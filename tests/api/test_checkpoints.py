"""Checkpoints over HTTP, on both databases."""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from ridgeline.service import file_headers
from ridgeline.service.api import examples, uploads
from ridgeline.service.api.app import create_app, sweep
from ridgeline.service.api.context import MAX_UPLOADS, Context
from ridgeline.service.client import ApiError, Client
from ridgeline.service.settings import Settings
from ridgeline.service.store.session import Store
from tests.api.calling import SPEC, fields, ok, problem, sqlite_only
from tests.api.conftest import ClientOf
from tests.api.serving import serving

PROGRAM = "eager/1 torch cpu λ & width-8"
DATA = bytes(range(256)) * 300


def digest(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """With a limit on bodies that is below one on files."""
    return Settings(
        _env_file=None,
        max_body_bytes=10_000,
        max_artifact_bytes=100_000,
        artifacts=str(tmp_path / "artifacts"),
    )


class Held:
    """A worker with one run, whose first epoch is told."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        ok(client.post("/v1/studies", json=SPEC), 201)
        self.worker = str(ok(client.post("/v1/workers", json=examples.REGISTRATION), 201)["id"])
        self.sync_seq = 0
        (order,) = self.sync(free_slots={"cpu:0": 1})["start"]
        self.run = order["run"]
        self.tell(1)

    def sync(self, **statement: Any) -> Any:
        self.sync_seq += 1
        body = {"sync_seq": self.sync_seq, **statement}
        return ok(self.client.post(f"/v1/workers/{self.worker}:sync", json=body))

    def tell(self, epoch: int) -> None:
        key = {"run": self.run, "attempt": 1}
        metrics = {"validation_accuracy": 0.5}
        held = [{**key, "device": "cpu:0", "program": PROGRAM}]
        self.sync(held=held, reports=[{**key, "epoch": epoch, "metrics": metrics}])

    @property
    def path(self) -> str:
        return f"/v1/workers/{self.worker}/runs/{self.run}/checkpoint"

    def put(self, data: bytes = DATA, *, epoch: int = 1, **changes: Any) -> httpx.Response:
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Digest": digest(data),
            **changes.pop("headers", {}),
        }
        params = {"attempt": 1, "epoch": epoch, "program": PROGRAM, **changes.pop("params", {})}
        content = changes.pop("content", data)
        if changes.pop("is_chunked", False):
            content = iter([data])
        headers = {name: value for name, value in headers.items() if value is not None}
        return self.client.put(self.path, params=params, headers=headers, content=content)

    def get(self, **params: Any) -> httpx.Response:
        return self.client.get(self.path, params={"attempt": 1, **params})


@pytest.fixture
def held(client: httpx.Client) -> Held:
    return Held(client)


def kept(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "artifacts" / "files").rglob("*-*"))


def test_a_checkpoint_comes_back_as_it_was_sent(held: Held, tmp_path: Path) -> None:
    problem(held.get(), 404)
    for _ in range(2):
        assert ok(held.put()) == {
            "epoch": 1,
            "attempt": 1,
            "program": PROGRAM,
            "num_bytes": len(DATA),
            "sha256": hashlib.sha256(DATA).hexdigest(),
        }
    assert [path.read_bytes() for path in kept(tmp_path)] == [DATA]
    answer = held.get()
    assert answer.content == DATA
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Length"] == str(len(DATA))
    assert answer.headers["Content-Digest"] == digest(DATA)
    assert answer.headers["Ridgeline-Epoch"] == "1"
    assert held.client.head(held.path, params={"attempt": 1}).status_code == 200


def test_the_next_attempt_is_ordered_to_go_on_from_it(held: Held) -> None:
    sent = ok(held.put())
    held.tell(2)
    end = {"run": held.run, "attempt": 1, "outcome": "released"}
    held.sync(ended=[end])
    (order,) = held.sync(free_slots={"cpu:0": 1})["start"]
    assert (order["run"], order["attempt"], order["checkpoint"]) == (held.run, 2, sent)
    problem(held.get(), 409)
    assert held.get(attempt=2).content == DATA
    trial = ok(held.client.get(f"/v1/studies/s/trials/{order['trial']}"))
    assert [epoch["epoch"] for epoch in trial["epochs"]] == [1]


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"params": {"attempt": 2}}, 409, "at attempt 1"),
        ({"epoch": 2}, 409, "epoch 2 of run"),
        ({"params": {"program": "other"}}, 409, "is trained by eager/1"),
        ({"headers": {"Content-Type": "application/json"}}, 415, "octet-stream"),
        ({"headers": {"Content-Type": None}}, 415, "octet-stream"),
        ({"headers": {"Content-Encoding": "gzip"}}, 415, "Content-Encoding"),
        ({"is_chunked": True}, 411, "Content-Length"),
        ({"data": bytes(100_001)}, 413, "RIDGELINE_MAX_ARTIFACT_BYTES"),
        ({"data": b""}, 422, "at least"),
        ({"content": DATA[:-1]}, 422, "is not that of the body"),
        ({"content": DATA[:-1] + b"x"}, 422, "is not that of the body"),
        ({"headers": {"Content-Digest": "sha-256=:AA==:"}}, 422, "content-digest"),
        ({"headers": {"Content-Digest": f"sha-256=:{'A' * 42}B=:"}}, 422, ""),
        ({"headers": {"Content-Digest": None}}, 422, "content-digest"),
        ({"params": {"epoch": 0}}, 422, "epoch"),
        ({"params": {"attempt": "x"}}, 422, "attempt"),
        ({"params": {"program": "a\nb"}}, 422, "program"),
        ({"params": {"program": "a" * 129}}, 422, "program"),
    ],
)
def test_what_is_refused(
    held: Held, tmp_path: Path, changes: dict[str, Any], status: int, words: str
) -> None:
    answer = held.put(**changes)
    assert words in str(problem(answer, status))
    problem(held.get(), 404)
    assert kept(tmp_path) == []


def test_of_whom_nothing_is_taken(held: Held, tmp_path: Path) -> None:
    nobody = held.path.replace(held.worker, "nobody")
    missing = held.path.replace(f"runs/{held.run}", "runs/999")
    stranger = str(ok(held.client.post("/v1/workers", json=examples.REGISTRATION), 201)["id"])
    headers = {"Content-Type": file_headers.MEDIA_TYPE, "Content-Digest": digest(DATA)}
    params: dict[str, int | str] = {"attempt": 1, "epoch": 1, "program": PROGRAM}
    for path, status in (
        (nobody, 404),
        (missing, 404),
        (held.path.replace(held.worker, stranger), 409),
        (held.path.replace(f"runs/{held.run}", "runs/x"), 422),
        (held.path.replace(f"runs/{held.run}", "runs/0"), 422),
    ):
        problem(held.client.put(path, params=params, headers=headers, content=DATA), status)
        problem(held.client.get(path, params={"attempt": 1}), status)
    ok(held.client.post("/v1/studies/s:cancel", json={}))
    problem(held.put(), 409)
    assert kept(tmp_path) == []


def test_a_damaged_one_is_not_sent(held: Held, tmp_path: Path) -> None:
    ok(held.put(b"first"))
    held.tell(2)
    ok(held.put(b"second", epoch=2))
    (newest,) = (path for path in kept(tmp_path) if path.read_bytes() == b"second")
    newest.write_bytes(b"Second")
    answer = held.get()
    assert (answer.content, answer.headers["Ridgeline-Epoch"]) == (b"first", "1")


@sqlite_only
def test_files_of_runs_that_have_ended_are_deleted(
    app: FastAPI, store: Store, held: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ridgeline.service.api.app.SWEEP_SECONDS", 0)
    ok(held.put())
    ok(held.client.post("/v1/studies/s:cancel", json={}))
    assert len(kept(tmp_path)) == 1
    context: Context = app.state.context
    stopping = threading.Event()

    class Noticing:
        """The artifact store, until it has deleted something."""

        def delete(self, key: str) -> None:
            context.artifacts.delete(key)
            stopping.set()

    sweep(store, Noticing(), stopping)  # type: ignore[arg-type]
    assert kept(tmp_path) == []


# ---- through a socket


@pytest.fixture
def served(app: FastAPI, held: Held) -> Iterator[str]:
    with serving(app) as url:
        yield url


@sqlite_only
def test_the_client_sends_and_gets_one(served: str, held: Held) -> None:
    data = bytes(100_000)
    with Client(served) as client:
        for _ in range(2):
            info = client.put_checkpoint(
                held.worker, held.run, attempt=1, epoch=1, program=PROGRAM, content=data
            )
        assert (info.epoch, info.num_bytes) == (1, 100_000)
        assert client.get_checkpoint(held.worker, held.run, attempt=1) == (1, data)
        with pytest.raises(ApiError) as refused:
            client.put_checkpoint(
                held.worker, held.run, attempt=1, epoch=1, program=PROGRAM, content=data + b"x"
            )
        assert refused.value.status == 413
        with pytest.raises(ApiError) as refused:
            client.get_checkpoint("nobody", held.run, attempt=1)
        assert refused.value.status == 404


def half_sent(url: str, held: Held) -> socket.socket:
    """A connection on which half of a checkpoint has been sent."""
    address = httpx.URL(url)
    connection = socket.create_connection((address.host, address.port or 80))
    query = httpx.QueryParams({"attempt": 1, "epoch": 1, "program": PROGRAM})
    head = (
        f"PUT {held.path}?{query} HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: {file_headers.MEDIA_TYPE}\r\nContent-Length: {len(DATA)}\r\n"
        f"Content-Digest: {digest(DATA)}\r\n\r\n"
    )
    connection.sendall(head.encode() + DATA[: len(DATA) // 2])
    return connection


def is_drafted(tmp_path: Path, number: int) -> bool:
    folder = tmp_path / "artifacts" / "drafts"
    return folder.exists() and len(list(folder.iterdir())) == number


def wait_until_drafted(held: Held, tmp_path: Path, number: int) -> None:
    for _ in range(10_000):
        if is_drafted(tmp_path, number):
            return
        ok(held.client.get("/healthz"))
    raise AssertionError("waited in vain")


@sqlite_only
def test_who_hangs_up_leaves_nothing(served: str, held: Held, tmp_path: Path) -> None:
    with half_sent(served, held):
        wait_until_drafted(held, tmp_path, 1)
    wait_until_drafted(held, tmp_path, 0)
    assert kept(tmp_path) == []
    ok(held.put())


@sqlite_only
def test_who_falls_silent_is_not_waited_for(
    served: str, held: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "SILENCE_SECONDS", 0.1)
    with half_sent(served, held) as connection:
        assert connection.recv(1_000).startswith(b"HTTP/1.1 408 ")
    assert is_drafted(tmp_path, 0)
    assert kept(tmp_path) == []


@sqlite_only
def test_uploads_that_stand_still_keep_no_other_call_waiting(
    served: str, held: Held, tmp_path: Path
) -> None:
    connections = [half_sent(served, held) for _ in range(MAX_UPLOADS + 40)]
    wait_until_drafted(held, tmp_path, MAX_UPLOADS)
    with Client(served) as client:
        assert client.study("s").name == "s"
    for connection in connections:
        connection.close()
    wait_until_drafted(held, tmp_path, 0)


@sqlite_only
def test_a_full_store_is_told(
    settings: Settings, store: Store, client_of: ClientOf, tmp_path: Path
) -> None:
    (tmp_path / "artifacts").write_text("no folder")
    held = Held(client_of(create_app(settings, store)))
    answer = held.put()
    assert "artifact store cannot keep" in problem(answer, 503)["detail"]
    assert fields(held.put(params={"epoch": 0}))
