"""Downloads from servers on loopback that do what servers and networks do."""

from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from ridgeline.search.tasks.data_root import DataRoot
from ridgeline.search.tasks.datasets import load
from ridgeline.search.tasks.kinds import Image
from ridgeline.service.downloads import (
    SOURCES,
    DownloadError,
    RemoteFile,
    Source,
    download,
    unpack_cifar,
)
from tests.tasks.idx_files import encode, toy_arrays
from tests.tasks.real_data import needs_real_data, real_root

IMAGES, LABELS = toy_arrays(30)
CONTENTS = {
    "train-images-idx3-ubyte.gz": gzip.compress(encode(IMAGES), mtime=0),
    "train-labels-idx1-ubyte.gz": gzip.compress(encode(LABELS), mtime=0),
}
FIRST = next(iter(CONTENTS))


@dataclass
class Server:
    """What it does with the next requests for a path, and which it has had."""

    url: str = ""
    faults: dict[str, list[str]] = field(default_factory=dict)
    ranges: list[tuple[str, str | None]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def paths(self) -> list[str]:
        return [path for path, _ in self.ranges]


@pytest.fixture
def server() -> Iterator[Server]:
    its = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.rsplit("/", 1)[1]
            its.ranges.append((path, self.headers["Range"]))
            faults = its.faults.get(path, [])
            answer(self, its, CONTENTS[path], faults.pop(0) if faults else "")

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    its.url = f"http://127.0.0.1:{http.server_port}"
    yield its
    its.released.set()
    http.shutdown()
    thread.join()
    http.server_close()


def answer(handler: BaseHTTPRequestHandler, its: Server, content: bytes, fault: str) -> None:
    half = len(content) // 2
    wanted = handler.headers["Range"]
    start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
    if fault == "404":
        handler.send_error(404)
        return
    if fault == "416":
        handler.send_error(416)
        return
    goes_on = wanted is not None and fault != "no ranges"
    handler.send_response(206 if goes_on else 200)
    body = content[start:] if goes_on else content
    if fault == "other content":
        body = bytes(len(body))
    if fault == "longer":
        body += b"more"
    if fault != "no length":
        handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if fault in ("truncated", "no length"):
        body = body[:half]
    if fault == "hangs":
        handler.wfile.write(body[:half])
        handler.wfile.flush()
        its.released.wait()
        return
    handler.wfile.write(body)


def source_of(server: Server, *, mirrors: int = 1) -> Source:
    return Source(
        tuple(
            RemoteFile(
                name,
                len(content),
                hashlib.sha256(content).hexdigest(),
                tuple(f"{server.url}/{mirror}/{name}" for mirror in range(mirrors)),
            )
            for name, content in CONTENTS.items()
        )
    )


def test_a_data_set_is_brought_once(tmp_path: Path, server: Server) -> None:
    told: list[str] = []
    assert download("toys", source_of(server), tmp_path, tell=told.append)
    assert [line.split(",")[0] for line in told] == list(CONTENTS)
    np.testing.assert_array_equal(load("toys", tmp_path).x, IMAGES)
    assert not download("toys", source_of(server), tmp_path)
    assert server.paths() == list(CONTENTS)
    found = DataRoot(tmp_path).look()
    assert ([card.name for card in found.cards], found.left_out) == (["toys"], {})


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("404", "status 404"),
        ("other content", "it has another SHA-256"),
        ("longer", r"it has more than \d+ bytes"),
        ("truncated", "peer closed connection"),
        ("no length", r"it ends after \d+ of \d+ bytes"),
        ("hangs", "timed out"),
    ],
)
def test_a_server_with_a_fault_is_named_and_the_next_one_asked(
    tmp_path: Path, server: Server, fault: str, reason: str
) -> None:
    server.faults[FIRST] = [fault]
    with pytest.raises(
        DownloadError, match=rf"^{FIRST} could not be got: .*/0/{FIRST}: .*{reason}"
    ):
        download("toys", source_of(server), tmp_path, timeout_seconds=0.5)
    assert not (tmp_path / "toys").exists()
    assert DataRoot(tmp_path).look().cards == []
    server.faults[FIRST] = [fault]
    assert download("toys", source_of(server, mirrors=2), tmp_path, timeout_seconds=0.5)
    np.testing.assert_array_equal(load("toys", tmp_path).x, IMAGES)


@pytest.mark.parametrize("then", ["", "no ranges", "416", "other content"])
def test_what_was_cut_short_goes_on(tmp_path: Path, server: Server, then: str) -> None:
    server.faults[FIRST] = ["truncated"]
    with pytest.raises(DownloadError):
        download("toys", source_of(server), tmp_path)
    server.faults[FIRST] = [then]
    assert download("toys", source_of(server), tmp_path)
    np.testing.assert_array_equal(load("toys", tmp_path).x, IMAGES)
    half = f"bytes={len(CONTENTS[FIRST]) // 2}-"
    its = [wanted for path, wanted in server.ranges if path == FIRST]
    assert its == [None, half, None] if then in ("416", "other content") else [None, half]


def test_a_part_that_somebody_spoilt_is_got_again(tmp_path: Path, server: Server) -> None:
    part = tmp_path / ".toys.part" / f"{FIRST}.part"
    part.parent.mkdir()
    for spoilt in (bytes(7), bytes(len(CONTENTS[FIRST])), bytes(9_000_000)):
        part.write_bytes(spoilt)
        server.faults["train-labels-idx1-ubyte.gz"] = ["404"]
        with pytest.raises(DownloadError, match="train-labels"):
            download("toys", source_of(server), tmp_path)
        assert (part.parent / FIRST).read_bytes() == CONTENTS[FIRST]
        (part.parent / FIRST).unlink()


def test_nobody_there_is_told(tmp_path: Path) -> None:
    file = RemoteFile("a", 1, "0" * 64, ("http://127.0.0.1:1/a",))
    with pytest.raises(DownloadError, match=r"http://127\.0\.0\.1:1/a: .*refused"):
        download("toys", Source((file,)), tmp_path)


def test_processes_at_once_bring_it_once(tmp_path: Path, server: Server) -> None:
    program = f"""
from pathlib import Path
from ridgeline.service.downloads import RemoteFile, Source, download
print(download("toys", {source_of(server)!r}, Path({str(tmp_path)!r})))
"""
    started = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    told = [process.communicate()[0].strip() for process in started]
    assert sorted(told) == ["False", "False", "True"]
    assert server.paths() == list(CONTENTS)


def test_an_archive_of_cifar_becomes_images(tmp_path: Path, server: Server) -> None:
    chance = np.random.Generator(np.random.PCG64(0))
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    batches = {name: chance.integers(0, 256, (8, 3_073), dtype=np.uint8) for name in names}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, rows in batches.items():
            rows[:, 0] = np.arange(8) % 2
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            info.size = rows.nbytes
            archive.addfile(info, io.BytesIO(rows.tobytes()))
    content = packed.getvalue()
    name = "cifar-10-binary.tar.gz"
    CONTENTS[name] = content
    try:
        remote = RemoteFile(
            name, len(content), hashlib.sha256(content).hexdigest(), (f"{server.url}/{name}",)
        )
        assert download("cifar", Source((remote,), unpack_cifar), tmp_path)
    finally:
        del CONTENTS[name]
    cifar = load("cifar", tmp_path)
    assert cifar.features == Image(3, 32, 32)
    rows = np.concatenate([batches[name] for name in names[:5]])
    np.testing.assert_array_equal(cifar.x, rows[:, 1:].reshape(-1, 3, 32, 32))
    np.testing.assert_array_equal(cifar.y, rows[:, 0])
    np.testing.assert_array_equal(cifar.test_y, batches["test_batch"][:, 0])
    assert sorted(path.name for path in tmp_path.iterdir()) == [".downloads.lock", "cifar"]


def test_the_known_files_are_told_whole() -> None:
    for source in SOURCES.values():
        for file in source.files:
            assert len(bytes.fromhex(file.sha256)) == 32
            assert all(url.endswith(f"/{file.name}") for url in file.urls)


@needs_real_data
def test_the_checksums_of_mnist_are_those_of_its_files() -> None:
    for file in SOURCES["mnist"].files:
        content = (real_root() / "mnist" / file.name).read_bytes()
        assert len(content) == file.num_bytes
        assert hashlib.sha256(content).hexdigest() == file.sha256
