"""Rounds that measure a copy of the weights on the machine's own disk."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_round import start

from conftest import ROOT
from minillm_lab.benchmark.scratch import PREFIX
from minillm_lab.records import Round, read_record
from tiny_model import PROMPT


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (folder := tmp_path / "scratch").mkdir()
    return folder


@pytest.mark.parametrize("runtime", ["llama.cpp", "transformers"])
def test_the_cold_load_evicts_the_copy_alone_and_nothing_is_left(
    runtime: str, tiny_gguf: Path, tiny_safetensors: Path, scratch: Path, tmp_path: Path
) -> None:
    (left_over := scratch / f"{PREFIX}killed").mkdir()
    (left_over / "half.gguf").write_bytes(b"half")
    weights = tiny_gguf if runtime == "llama.cpp" else tiny_safetensors
    told = (
        "from minillm_lab.benchmark import memory; evict = memory.evict\n"
        "memory.evict = lambda files: print(*files, sep='\\n') or evict(files)"
    )
    done = start(tmp_path, weights, PROMPT, told, runtime=runtime, scratch=str(scratch))
    assert done.returncode == 0, done.stderr
    found = read_record(tmp_path / "round.json", Round)
    assert found.scratch and not list(scratch.iterdir())
    evicted = [Path(line) for line in done.stdout.splitlines()]
    assert evicted and all(scratch in file.parents for file in evicted)


def test_a_copy_in_use_stays_and_a_failed_round_leaves_none(
    tiny_gguf: Path, scratch: Path, tmp_path: Path
) -> None:
    hold = (
        "import sys; from pathlib import Path; from minillm_lab.benchmark.scratch import copied\n"
        "with copied(Path(sys.argv[1]), sys.argv[2]) as own: print(own, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, tiny_gguf, scratch],
        env=os.environ | {"PYTHONPATH": str(ROOT / "workflow")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout
        own = Path(other.stdout.readline().rstrip("\n"))
        (broken := tmp_path / "broken.gguf").write_bytes(tiny_gguf.read_bytes()[:5000])
        done = start(tmp_path, broken, PROMPT, runtime="llama.cpp", scratch=str(scratch))
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert list(scratch.iterdir()) == [own.parent]
        assert own.read_bytes() == tiny_gguf.read_bytes()
        other.communicate("\n")
    assert not list(scratch.iterdir())


def test_a_folder_that_is_not_there_is_one_line(tiny_gguf: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    done = start(tmp_path, tiny_gguf, PROMPT, runtime="llama.cpp", scratch=str(nowhere))
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: scratch: {nowhere} is not a folder on this machine")
    assert not nowhere.exists()
