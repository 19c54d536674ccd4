"""What every artifact store must do, asked of each of them."""

from __future__ import annotations

import os
import resource
import signal
import stat
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import fsspec
import pytest

from ridgeline.service.artifacts.base import ArtifactStore, Content, Damaged, Missing
from ridgeline.service.artifacts.folder import DRAFT_SECONDS, FolderArtifacts
from ridgeline.service.artifacts.url import UrlArtifacts
from ridgeline.service.errors import Unavailable

OLD, NEW = b"old" * 1_000, b"new!" * 100_000
KINDS = ("folder", "file", "memory")

Tamper = Callable[[str, Callable[[bytes], bytes]], None]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(kind: str, tmp_path: Path) -> Iterator[str]:
    url = f"memory://{uuid.uuid4()}/x" if kind == "memory" else f"file://{tmp_path / 'x'}"
    yield url
    if kind == "memory":
        fsspec.filesystem("memory").store.clear()


@pytest.fixture
def opened(kind: str, url: str, tmp_path: Path) -> Callable[[], ArtifactStore]:
    """Opens the same store once more, as another process does."""
    if kind == "folder":
        return lambda: FolderArtifacts(tmp_path / "x")
    return lambda: UrlArtifacts(url)


@pytest.fixture
def store(opened: Callable[[], ArtifactStore]) -> ArtifactStore:
    return opened()


@pytest.fixture
def tamper(url: str) -> Tamper:
    """Changes what lies under a key, past the store."""

    def tamper(key: str, change: Callable[[bytes], bytes]) -> None:
        files, root = fsspec.core.url_to_fs(url)
        files.pipe(f"{root}/files/{key}", change(files.cat_file(f"{root}/files/{key}")))

    return tamper


def put(store: ArtifactStore, key: str, data: bytes) -> None:
    store.put(key, [data[:10], data[10:]], Content.of(data))


def get(store: ArtifactStore, key: str, data: bytes) -> bytes:
    with store.get(key, Content.of(data)) as file:
        return file.read()


def drafts(url: str) -> list[str]:
    files, root = fsspec.core.url_to_fs(url)
    return list(files.find(f"{root}/drafts")) if files.exists(f"{root}/drafts") else []


@contextmanager
def full_disk() -> Iterator[None]:
    """The kernel writes no file of this process beyond the length of the old content."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(OLD), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_what_was_put_is_there_for_every_process(opened: Callable[[], ArtifactStore]) -> None:
    put(opened(), "checkpoints/1-1-5", OLD)
    assert get(opened(), "checkpoints/1-1-5", OLD) == OLD
    assert list(opened().keys()) == ["checkpoints/1-1-5"]


def test_a_new_content_replaces_the_old_one(store: ArtifactStore) -> None:
    put(store, "a/b", OLD)
    with store.get("a/b", Content.of(OLD)) as reading:
        put(store, "a/b", NEW)
        assert reading.read() == OLD  # who reads it already reads on
    assert get(store, "a/b", NEW) == NEW
    with pytest.raises(Damaged):
        store.get("a/b", Content.of(OLD))
    assert list(store.keys()) == ["a/b"]


def test_an_empty_content_is_one(store: ArtifactStore) -> None:
    store.put("empty", [], Content.of(b""))
    assert get(store, "empty", b"") == b""


def test_what_is_missing(store: ArtifactStore) -> None:
    assert list(store.keys()) == []
    with pytest.raises(Missing):
        store.get("a/b", Content.of(OLD))
    store.delete("a/b")
    put(store, "a/b", OLD)
    for _ in range(2):
        store.delete("a/b")
    with pytest.raises(Missing):
        store.get("a/b", Content.of(OLD))
    assert list(store.keys()) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: data + b"x",
        lambda data: data[:7] + b"\0" + data[8:],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    ],
    ids=["truncated", "emptied", "lengthened", "altered", "one bit"],
)
def test_what_was_changed_is_noticed(
    store: ArtifactStore, tamper: Tamper, change: Callable[[bytes], bytes]
) -> None:
    put(store, "a/b", NEW)
    tamper("a/b", change)
    with pytest.raises(Damaged):
        store.get("a/b", Content.of(NEW))
    put(store, "a/b", NEW)
    assert get(store, "a/b", NEW) == NEW


@pytest.mark.parametrize("data", [NEW[:-1], NEW + b"x", NEW[:-1] + b"x", b""])
def test_a_content_that_is_not_as_announced_is_not_kept(
    store: ArtifactStore, url: str, data: bytes
) -> None:
    put(store, "a/b", OLD)
    with pytest.raises(Damaged):
        store.put("a/b", [data], Content.of(NEW))
    with pytest.raises(Damaged):
        store.put("a/c", [data], Content.of(NEW))
    assert get(store, "a/b", OLD) == OLD
    assert list(store.keys()) == ["a/b"]
    assert drafts(url) == []


@pytest.mark.parametrize("error", [RuntimeError("the worker hung up"), OSError(9, "not ours")])
def test_who_breaks_off_leaves_what_was_there(
    store: ArtifactStore, url: str, error: Exception
) -> None:
    def chunks() -> Iterator[bytes]:
        yield NEW[:100]
        raise error

    put(store, "a/b", OLD)
    with pytest.raises(type(error)) as raised:
        store.put("a/b", chunks(), Content.of(NEW))
    assert raised.value is error
    assert get(store, "a/b", OLD) == OLD
    assert drafts(url) == []


@pytest.mark.parametrize("kind", ["folder", "file"], indirect=True)
def test_a_full_disk_leaves_what_was_there(store: ArtifactStore, url: str) -> None:
    put(store, "a/b", OLD)
    with full_disk(), pytest.raises(Unavailable, match="keep a/b"):
        put(store, "a/b", NEW)
    assert get(store, "a/b", OLD) == OLD
    assert list(store.keys()) == ["a/b"]
    assert drafts(url) == []
    put(store, "a/b", NEW)
    assert get(store, "a/b", NEW) == NEW


def test_of_several_at_once_one_is_kept_as_a_whole(opened: Callable[[], ArtifactStore]) -> None:
    contents = [bytes([index]) * (50_000 + index) for index in range(8)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda data: put(opened(), "a/b", data), contents))
    whole = []
    for data in contents:
        try:
            whole.append(get(opened(), "a/b", data))
        except Damaged:
            continue
    assert len(whole) == 1
    assert whole[0] in contents
    assert list(opened().keys()) == ["a/b"]


def test_readers_see_a_whole_content_while_it_is_replaced(
    opened: Callable[[], ArtifactStore],
) -> None:
    contents = [bytes([index]) * 50_000 for index in (1, 2)]

    def replace() -> None:
        for index in range(100):
            put(opened(), "a/b", contents[index % 2])

    put(opened(), "a/b", contents[0])
    with ThreadPoolExecutor(1) as thread:
        writing = thread.submit(replace)
        while not writing.done():
            for data in contents:
                with suppress(Damaged):
                    assert get(opened(), "a/b", data) == data
            with pytest.raises(Damaged, match="SHA-256"):  # never a part of one
                get(opened(), "a/b", bytes(50_000))
        writing.result()
    assert get(opened(), "a/b", contents[1]) == contents[1]


@pytest.mark.parametrize(
    "key",
    [
        *("", "/", ".", "..", "../x", "a/../../x", "/etc/passwd", "a//b", "a/", "/a", ".x", "a/.x"),
        *("a\\b", "C:x", "a\0b", "a\nb", "a b", "a?b", "a#b", "a%2fb", "é", "A", "~", "-x", "*"),
        *("x" * 101, "/".join(["x" * 100] * 5), "😀", "\ud800", "a/b\n"),
    ],
)
def test_what_cannot_be_a_key(store: ArtifactStore, tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="cannot be the key"):
        put(store, key, OLD)
    with pytest.raises(ValueError, match="cannot be the key"):
        store.get(key, Content.of(OLD))
    with pytest.raises(ValueError, match="cannot be the key"):
        store.delete(key)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["0", "x" * 100, "/".join(["x" * 99] * 5), "a..b/c-d_e.f", "con"])
def test_what_can_be_a_key(store: ArtifactStore, key: str) -> None:
    put(store, key, OLD)
    assert get(store, key, OLD) == OLD
    assert list(store.keys()) == [key]


# ---- of a folder


def test_nobody_else_can_read_a_folder(tmp_path: Path) -> None:
    old_mask = os.umask(0)
    try:
        put(FolderArtifacts(tmp_path / "x"), "a/b", OLD)
    finally:
        os.umask(old_mask)
    for path in (tmp_path / "x", *(tmp_path / "x").rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_folder_that_others_may_change_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x").chmod(0o777)
    with pytest.raises(Unavailable, match="others may write to"):
        put(FolderArtifacts(tmp_path / "x"), "a/b", OLD)


def test_links_are_not_followed(tmp_path: Path) -> None:
    store = FolderArtifacts(tmp_path / "x")
    put(store, "a", OLD)
    (tmp_path / "secret").write_bytes(NEW)
    (tmp_path / "x" / "files" / "b").symlink_to(tmp_path / "secret")
    with pytest.raises(Unavailable, match="is a link"):
        store.get("b", Content.of(NEW))


def test_a_pipe_is_no_content_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    store = FolderArtifacts(tmp_path / "x")
    put(store, "a", OLD)
    (tmp_path / "x" / "files" / "a").unlink()
    os.mkfifo(tmp_path / "x" / "files" / "a")
    with pytest.raises(Unavailable, match="a is not a file"):
        store.get("a", Content.of(OLD))
    put(store, "a", NEW)
    assert get(store, "a", NEW) == NEW


def test_drafts_of_the_dead_are_removed(tmp_path: Path) -> None:
    store = FolderArtifacts(tmp_path / "x")
    put(store, "a", OLD)
    dead, living = (tmp_path / "x" / "drafts" / name for name in ("dead", "living"))
    for draft in (dead, living):
        draft.write_bytes(NEW)
    written_at = dead.stat().st_mtime - DRAFT_SECONDS - 1
    os.utime(dead, (written_at, written_at))
    put(store, "a", OLD)
    assert (dead.exists(), living.exists()) == (False, True)


# ---- of URLs


def test_a_url_that_fsspec_does_not_know() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        UrlArtifacts("nonsense://x")
