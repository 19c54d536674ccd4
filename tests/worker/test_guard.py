"""The parts of a guard, alone."""

from __future__ import annotations

import os

import pytest

from ridgeline.service.worker.functions.guarded import environment
from ridgeline.service.worker.functions.lines import MAX_LINE_BYTES, LineReader, encoded
from ridgeline.service.worker.functions.output import HEAD_BYTES, TAIL_BYTES, Output


@pytest.mark.parametrize("num_bytes", [0, 1, HEAD_BYTES, HEAD_BYTES + TAIL_BYTES])
@pytest.mark.parametrize("size", [1, 1_000, 100_000])
def test_a_short_output_is_kept_as_a_whole(num_bytes: int, size: int) -> None:
    text = ("0123456789" * num_bytes)[:num_bytes]
    output = Output()
    for start in range(0, num_bytes, size):
        output.add(text[start : start + size].encode())
    assert output.text == text


def test_of_a_long_output_the_ends_are_kept_and_what_is_left_out_is_counted() -> None:
    output = Output()
    for _ in range(1_000):
        output.add(b"x" * 100)
    output.add(b"\xfflast")
    left_out = 100_005 - HEAD_BYTES - TAIL_BYTES
    assert output.text.startswith("x" * HEAD_BYTES + f"\n[... {left_out} bytes left out ...]\nx")
    assert output.text.endswith("x\ufffdlast")


def test_lines_are_read_as_they_come() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    reader = LineReader(reading)
    assert (reader.read(), reader.has_ended) == ([], False)
    line = encoded({"text": "a\nb", "number": 1e-300})
    os.write(writing, line + line[:5])
    assert reader.read() == [{"text": "a\nb", "number": 1e-300}]
    os.write(writing, line[5:])
    assert reader.read() == [{"text": "a\nb", "number": 1e-300}]
    os.close(writing)
    assert (reader.read(), reader.has_ended) == ([], True)
    os.close(reading)


@pytest.mark.parametrize("text", [b"[]\n", b"nonsense\n", b"\xff\n", b"x" * (MAX_LINE_BYTES + 9)])
def test_what_is_no_line_is_refused(text: bytes) -> None:
    with open(os.memfd_create("lines"), "wb+", buffering=0) as file:
        file.write(text)
        file.seek(0)
        reader = LineReader(file.fileno())
        with pytest.raises(ValueError, match=r"line|Expecting|decode"):
            reader.wait()


def test_secrets_stay_with_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = [
        "RIDGELINE_DATABASE_URL",
        "RIDGELINE_TOKEN",
        "HF_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "PGPASSWORD",
        "OPENAI_API_KEY",
        "my_credentials",
    ]
    for name in secrets:
        monkeypatch.setenv(name, "canary")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["here", "/there"]))
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    found = environment(3, None)
    assert "canary" not in found.values()
    assert found["CUDA_VISIBLE_DEVICES"] == "1"
    assert found["PYTHONPATH"] == os.pathsep.join([os.path.abspath("here"), "/there"])
    assert found["OMP_NUM_THREADS"] == "3"
