"""A full disk is one line; nothing half-written is left, and what was there is kept."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import ROOT
from minillm_lab.benchmark.scratch import copied
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import check_space, write_text
from minillm_lab.models.convert import convert
from minillm_lab.models.quantize import quantize
from minillm_lab.models.safetensors import write_safetensors
from minillm_lab.quality.reference import make_reference
from minillm_lab.quality.text import EvaluationText
from quality_lab import LLAMA


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if sys.platform != "linux" or os.geteuid() or subprocess.run(mount).returncode:
        pytest.skip("needs Linux and the right to mount")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill(disk: Path) -> None:
    (disk / "filler").write_bytes(bytes(1 << 20))


def test_space_is_asked_for_before_a_large_step(tmp_path: Path) -> None:
    check_space(tmp_path / "new" / "file", 1)
    with pytest.raises(LabError, match=r"file: it needs 4611686018427\.4 MB, and its disk has"):
        check_space(tmp_path / "new" / "file", 1 << 62)


def test_no_large_file_is_begun_where_it_does_not_fit(
    small_disk: Path, tiny_gguf: Path, tiny_safetensors: Path, text: EvaluationText
) -> None:
    steps: dict[str, Callable[[Path], None]] = {
        "quantize": lambda out: quantize(tiny_gguf, "Q8_0", out),
        "safetensors": lambda out: write_safetensors(tiny_gguf, out),
        "convert": lambda out: convert(tiny_safetensors, tiny_safetensors, out),
        "reference": lambda out: make_reference("tiny", tiny_gguf, text, LLAMA, out, exact=True),
    }
    (small_disk / "half").write_bytes(bytes(1 << 19))
    for name, step in steps.items():
        with pytest.raises(LabError, match=rf"cannot write .*{name}: it needs .* MB left"):
            step(small_disk / name)
    assert [file.name for file in small_disk.iterdir()] == ["half"]


def test_no_copy_is_begun_where_it_does_not_fit(small_disk: Path, tmp_path: Path) -> None:
    (weights := tmp_path / "big.gguf").write_bytes(bytes(2 << 20))
    with (
        pytest.raises(LabError, match=r"cannot write .*big\.gguf: it needs 2\.1 MB, and its disk"),
        copied(weights, str(small_disk)),
    ):
        raise AssertionError("it was copied")
    assert not list(small_disk.iterdir())


def test_a_disk_that_fills_while_writing_keeps_what_was_there(small_disk: Path) -> None:
    good = small_disk / "result.json"
    write_text(good, "good\n")
    with pytest.raises(LabError, match=r"cannot write .*result\.json: No space left on device"):
        write_text(good, "x" * (2 << 20))
    assert good.read_text() == "good\n"
    assert [file.name for file in small_disk.iterdir()] == ["result.json"]


def test_a_round_that_cannot_be_written_is_one_line(small_disk: Path, tiny_gguf: Path) -> None:
    (prompt := small_disk.parent / "prompt.json").write_text(
        '{"text": "a", "token_ids": [65], "chat_template": false, "tokenizer": "t"}'
    )
    fill_and_run = [sys.executable, "-m", "minillm_lab.benchmark.round", "--variant", "v"]
    options = {
        "round": "1",
        "weights": str(tiny_gguf),
        "prompt": str(prompt),
        "settings": '{"runtime": "llama.cpp", "device": "cpu", "threads": 1, "context": 64,'
        ' "generate": 2, "repetitions": 1, "warmups": 0, "depths": []}',
        "output": str(small_disk / "round.json"),
        "log": str(small_disk / "round.log"),
    }
    fill(small_disk)
    done = subprocess.run(
        fill_and_run + [f"--{name}={value}" for name, value in options.items()],
        env=os.environ | {"PYTHONPATH": str(ROOT / "workflow")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == f"error: cannot write {small_disk}/round.json: No space left on device"
    assert "Traceback" not in done.stderr
    assert not (small_disk / "round.json").exists()
