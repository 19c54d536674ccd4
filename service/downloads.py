"""Well-known data sets, brought from where they are published into a data root.

What a file has to be is known here, by its size and SHA-256, so it does not matter what a server,
or somebody on the way, sends.  A data set appears in the root once it is whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import struct
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import httpx

TIMEOUT_SECONDS = 30.0
"""How long a server may be silent."""

Tell = Callable[[str], None]
"""Takes lines for people."""


class DownloadError(Exception):
    """A data set could not be brought; the text says which file and why, server by server."""


@dataclass(frozen=True)
class RemoteFile:
    """A file by its contents, and the URLs to get it from, in the order in which to try them."""

    name: str
    num_bytes: int
    sha256: str
    urls: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """The files of a data set.

    Attributes:
        unpack: makes a data set's folder, the second argument, of the folder with the files; None:
            they are one.
    """

    files: tuple[RemoteFile, ...]
    unpack: Callable[[Path, Path], None] | None = None


def download(
    name: str,
    source: Source,
    data_root: Path,
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
    tell: Tell = lambda line: None,
) -> bool:
    """Bring a data set into a folder `name` of the data root, unless there is one.

    What has been brought before an interruption or a failure is not brought again.  Processes that
    want the same do it one after the other, and so only once.

    Returns:
        Whether it was brought; False: there is a folder of that name.

    Raises:
        DownloadError: a file could not be got from any server.
        OSError: the folder cannot be written.
    """
    target, partial, ready = (data_root / form for form in (name, f".{name}.part", f".{name}.new"))
    with _alone(data_root / ".downloads.lock", tell):
        if target.exists():
            return False
        partial.mkdir(exist_ok=True)
        with httpx.Client(timeout=timeout_seconds, follow_redirects=True) as http:
            for file in source.files:
                if not (partial / file.name).exists():
                    _fetch(http, file, partial, tell)
        if source.unpack is not None:
            shutil.rmtree(ready, ignore_errors=True)
            ready.mkdir()
            source.unpack(partial, ready)
            ready.rename(target)
            shutil.rmtree(partial)
        else:
            partial.rename(target)
    return True


@contextmanager
def _alone(path: Path, tell: Tell) -> Iterator[None]:
    """Wait until no other process is within such a block."""
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell("another process downloads into this folder; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class _Refused(Exception):
    """What a server sends is of no use."""


def _fetch(http: httpx.Client, file: RemoteFile, folder: Path, tell: Tell) -> None:
    """A file, from the first server that has it."""
    part = folder / f"{file.name}.part"
    reasons = []
    for url in file.urls:
        tell(f"{file.name}, {file.num_bytes / 1e6:.1f} MB, from {httpx.URL(url).host}")
        try:
            while not _is_whole(http, url, file, part):
                pass
        except (_Refused, httpx.HTTPError) as exc:
            reasons.append(f"{url}: {str(exc) or type(exc).__name__}")
            continue
        part.rename(folder / file.name)
        return
    raise DownloadError(f"{file.name} could not be got: {'; '.join(reasons)}")


def _is_whole(http: httpx.Client, url: str, file: RemoteFile, part: Path) -> bool:
    """Get what a part of a file lacks; False where that part was no use, and has been removed.

    Raises:
        _Refused: what the server has is not the file.
        httpx.HTTPError: the server could not be reached, or fell silent.
    """
    there = part.stat().st_size if part.exists() else 0
    if there < file.num_bytes:
        # Encodings would be undone, but sizes and checksums are of the files as they are.
        headers = {"Accept-Encoding": "identity"}
        if there:
            headers["Range"] = f"bytes={there}-"
        with http.stream("GET", url, headers=headers) as response:
            goes_on = response.status_code == httpx.codes.PARTIAL_CONTENT
            if there and response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.unlink()
                return False
            if response.status_code != httpx.codes.OK and not (there and goes_on):
                raise _Refused(f"status {response.status_code}")
            with part.open("ab" if goes_on else "wb") as out:
                for chunk in response.iter_raw():
                    out.write(chunk)
                    if out.tell() > file.num_bytes:
                        break
                out.flush()
                os.fsync(out.fileno())
    num_bytes = part.stat().st_size
    if num_bytes < file.num_bytes:
        raise _Refused(f"it ends after {num_bytes:,} of {file.num_bytes:,} bytes")
    with part.open("rb") as content:
        is_right = hashlib.file_digest(content, "sha256").hexdigest() == file.sha256
    if num_bytes == file.num_bytes and is_right:
        return True
    part.unlink()
    if there:
        return False  # the fault may be in what was there before
    what = (
        "another SHA-256" if num_bytes == file.num_bytes else f"more than {file.num_bytes:,} bytes"
    )
    raise _Refused(f"it has {what}")


_CIFAR_ROW = 1 + 3 * 32 * 32
"""Bytes: a label, and then the pixels by channel (https://www.cs.toronto.edu/~kriz/cifar.html)."""


def unpack_cifar(folder: Path, target: Path) -> None:
    """The archive of CIFAR-10's binary version as the four files of MNIST's format."""
    batches = {"train": [f"data_batch_{number}" for number in range(1, 6)], "t10k": ["test_batch"]}
    with tarfile.open(folder / _CIFAR_ARCHIVE) as archive:
        for part, names in batches.items():
            content = b""
            for name in names:
                file = archive.extractfile(f"cifar-10-batches-bin/{name}.bin")
                assert file is not None, "its checksum says that it is there"
                content += file.read()
            starts = range(0, len(content), _CIFAR_ROW)
            images = b"".join(content[start + 1 : start + _CIFAR_ROW] for start in starts)
            labels = content[::_CIFAR_ROW]
            _write_idx(target / f"{part}-images-idx4-ubyte", (len(starts), 3, 32, 32), images)
            _write_idx(target / f"{part}-labels-idx1-ubyte", (len(starts),), labels)


def _write_idx(path: Path, shape: tuple[int, ...], content: bytes) -> None:
    with path.open("wb") as file:
        file.write(struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape) + content)
        file.flush()
        os.fsync(file.fileno())


def _idx(mirrors: tuple[str, ...], *files: tuple[str, int, str]) -> Source:
    return Source(
        tuple(
            RemoteFile(f"{name}.gz", size, sha256, tuple(f"{at}/{name}.gz" for at in mirrors))
            for name, size, sha256 in files
        )
    )


_CIFAR_ARCHIVE = "cifar-10-binary.tar.gz"

SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "mnist": _idx(
            (
                "https://ossci-datasets.s3.amazonaws.com/mnist",
                "https://storage.googleapis.com/cvdf-datasets/mnist",
            ),
            (
                "train-images-idx3-ubyte",
                9_912_422,
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            (
                "train-labels-idx1-ubyte",
                28_881,
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
            (
                "t10k-images-idx3-ubyte",
                1_648_877,
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            (
                "t10k-labels-idx1-ubyte",
                4_542,
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ),
        "fashion-mnist": _idx(
            (
                "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            ),
            (
                "train-images-idx3-ubyte",
                26_421_880,
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            ),
            (
                "train-labels-idx1-ubyte",
                29_515,
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            ),
            (
                "t10k-images-idx3-ubyte",
                4_422_102,
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            ),
            (
                "t10k-labels-idx1-ubyte",
                5_148,
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        ),
        "cifar-10": Source(
            (
                RemoteFile(
                    _CIFAR_ARCHIVE,
                    170_052_171,
                    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                    (f"https://www.cs.toronto.edu/~kriz/{_CIFAR_ARCHIVE}",),
                ),
            ),
            unpack_cifar,
        ),
    }
)
"""By the name that the data set has afterwards.

The checksums are of the files as published: those of MNIST were taken of the files, those of the
others agree in many places that also give the MD5 of the publisher.
"""
