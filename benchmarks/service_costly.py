"""Measure how others are answered while the api works on requests that cost as much as they can.

    python -m benchmarks.service_costly --database sqlite postgresql \
        --out benchmarks/results/service_costly.jsonl

Starts an api of its own for each database, with default settings, on loopback.  Prints a row of
JSON for each kind of request: its status and seconds, those of the calls that others make meanwhile
(`…_seconds`: the median, `…_seconds_most`: the longest), and the largest memory that the api's
process has had until then.  Callers and api share the machine's cores.

* `values`: four bodies at once of 16 MB that hold nothing but empty objects;
* `allowed_values`: four bodies at once of small objects, just as many as are read;
* `errors`: four bodies at once of just as many values, each of which is wrong;
* `free_slots`: a worker without runs that has 6,400 free slots;
* `reports`: 50,000 epochs of one trial in one call;
* `trials`: 50,000 epochs of 1,000 trials in one call, which ends them too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import torch

from benchmarks.rows import Row, header, tell, write
from benchmarks.service_api import ApiProcess, serving
from ridgeline.service.api.bodies import MAX_VALUES, MAX_VALUES_IN_BULK

DATABASES = ("sqlite", "postgresql")
BODY_BYTES = 16_000_000
NUM_EPOCHS = 50_000
NUM_TRIALS = 1_000
SPACE = {"x": {"type": "float", "low": 0.0, "high": 1.0}}
EXTERNAL = {
    "task": {"name": "external"},
    "space": SPACE,
    "sampler": {"name": "random"},
    "objective": {"metric": "error", "direction": "minimize"},
    "budget": {"trials": NUM_TRIALS},
}
TRAINED = {
    "name": "trained",
    "task": {"name": "mlp", "dataset": "digits"},
    "space": {"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True}},
    "sampler": {"name": "random"},
    "budget": {"trials": 50_000},
}

Send = Callable[[httpx.Client], httpx.Response]


def main() -> None:
    arguments = _arguments()
    write(header("service_costly", torch.device("cpu")), arguments.out)
    for database in arguments.database:
        with serving(database) as api:
            for row in _measure(api, arguments.kinds):
                write({"database": database, **row}, arguments.out)


def _measure(api: ApiProcess, kinds: list[str]) -> Iterator[Row]:
    with _client(api) as client:
        for name in ("other", "one", "many"):
            _post(client, "/v1/studies", {**EXTERNAL, "name": name})
        for kind in kinds:
            tell(kind)
            sends = PREPARED[kind](client)
            yield {"row": kind, **_attack(api, sends), "api_peak_mb": api.peak_megabytes()}


def _empty_objects(_client: httpx.Client) -> list[Send]:
    body = b'{"a":[' + b"{}," * (BODY_BYTES // 3) + b"{}]}"
    return [lambda client: _send(client, "/v1/studies", body)] * 4


def _allowed_values(_client: httpx.Client) -> list[Send]:
    objects = b'{"a":1},' * (MAX_VALUES_IN_BULK // 2 - 2)
    body = b'{"held":[' + objects + b"{}]}"
    return [lambda client: _send(client, "/v1/workers/nobody:sync", body)] * 4


def _errors(_client: httpx.Client) -> list[Send]:
    values = b"[]," * (MAX_VALUES // 2 - 4)
    body = b'{"space":{"a":{"type":"values","values":[' + values + b"[]]}}}"
    return [lambda client: _send(client, "/v1/studies", body)] * 4


def _free_slots(client: httpx.Client) -> list[Send]:
    devices = [
        {"name": f"cpu:{n}", "kind": "cpu", "description": "none", "num_slots": 100}
        for n in range(64)
    ]
    digits = {
        "name": "digits",
        "fingerprint": "ab" * 32,
        "num_rows": 1_797,
        "num_features": 64,
        "num_classes": 10,
        "has_test_part": False,
    }
    worker = {"name": "wide", "devices": devices, "tasks": ["mlp"], "datasets": [digits]}
    path = f"/v1/workers/{_post(client, '/v1/workers', worker)['id']}:sync"
    _post(client, "/v1/studies", TRAINED)
    statement = {"sync_seq": 1, "free_slots": {device["name"]: 100 for device in devices}}
    return [lambda client: client.post(path, json=statement)]


def _reports(client: httpx.Client) -> list[Send]:
    path = "/v1/studies/one/trials"
    _post(client, f"{path}:suggest", {})
    body = {"trials": [{"number": 0, "attempt": 1, "epochs": _epochs(NUM_EPOCHS)}]}
    return [lambda client: client.post(f"{path}:report", json=body)]


def _trials(client: httpx.Client) -> list[Send]:
    path = "/v1/studies/many/trials"
    given = _post(client, f"{path}:suggest", {"count": NUM_TRIALS})["trials"]
    body = {
        "trials": [
            {
                "number": trial["number"],
                "attempt": trial["attempt"],
                "epochs": _epochs(NUM_EPOCHS // NUM_TRIALS),
                "end": {"value": 0.5},
            }
            for trial in given
        ]
    }
    return [lambda client: client.post(f"{path}:report", json=body)]


PREPARED: dict[str, Callable[[httpx.Client], list[Send]]] = {
    "values": _empty_objects,
    "allowed_values": _allowed_values,
    "errors": _errors,
    "free_slots": _free_slots,
    "reports": _reports,
    "trials": _trials,
}


def _epochs(count: int) -> list[dict[str, Any]]:
    return [{"epoch": epoch, "metrics": {"error": 1 / epoch}} for epoch in range(1, count + 1)]


def _attack(api: ApiProcess, sends: list[Send]) -> Row:
    """Send costly requests at once; how long they and the calls of others took."""
    done = threading.Event()
    with ThreadPoolExecutor() as pool:
        probes = {
            "healthz": pool.submit(_probe, api, done, lambda c: c.get("/healthz")),
            "get_study": pool.submit(_probe, api, done, lambda c: c.get("/v1/studies/other")),
            "write": pool.submit(
                _probe, api, done, lambda c: c.post("/v1/studies/other/trials:suggest")
            ),
        }
        answers = [pool.submit(_timed, api, send) for send in sends]
        statuses, seconds = zip(*(answer.result() for answer in answers), strict=True)
        done.set()
        row: Row = {"statuses": sorted(set(statuses)), "seconds": round(max(seconds), 2)}
        for name, probe in probes.items():
            taken = probe.result()
            row[f"{name}_seconds"] = round(statistics.median(taken), 4)
            row[f"{name}_seconds_most"] = round(max(taken), 3)
    return row


def _probe(api: ApiProcess, done: threading.Event, send: Send) -> list[float]:
    """Make one call after the other, with a short pause; the seconds of each."""
    taken: list[float] = []
    with _client(api) as client:
        while not done.wait(0.02) or not taken:
            began = time.perf_counter()
            answer = send(client)
            taken.append(time.perf_counter() - began)
            assert answer.status_code == 200, answer.text
    return taken


def _timed(api: ApiProcess, send: Send) -> tuple[int, float]:
    with _client(api) as client:
        began = time.perf_counter()
        answer = send(client)
        return answer.status_code, time.perf_counter() - began


def _client(api: ApiProcess) -> httpx.Client:
    return httpx.Client(base_url=api.url, timeout=600, trust_env=False)


def _send(client: httpx.Client, path: str, body: bytes) -> httpx.Response:
    return client.post(path, content=body, headers={"Content-Type": "application/json"})


def _post(client: httpx.Client, path: str, body: Any) -> Any:
    answer = _send(client, path, json.dumps(body).encode())
    assert answer.is_success, answer.text
    return answer.json()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.service_costly",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--database", nargs="*", choices=DATABASES, default=["sqlite"])
    parser.add_argument("--kinds", nargs="*", choices=list(PREPARED), default=[*PREPARED])
    parser.add_argument("--out", type=Path, help="a file to append the rows to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
