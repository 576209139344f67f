"""Out of memory is named as such, with what was needed and what there was."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from minillm_lab.jobs import limits
from minillm_lab.jobs.errors import LabError
from minillm_lab.runtimes import Options, check_memory, size_in

MEGABYTE = 10**6


def test_a_model_larger_than_the_memory_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "big.gguf").open("wb") as file:
        file.truncate(1 << 42)  # without a single block on the disk
    with pytest.raises(LabError, match=r"big\.gguf: does not fit .* need 4398047 MB of the"):
        check_memory(tmp_path / "big.gguf", Options(threads=1))


def test_float32_takes_twice_what_float16_does(tiny_safetensors: Path) -> None:
    half = size_in(tiny_safetensors, "float16")
    assert half == (tiny_safetensors / "model.safetensors").stat().st_size
    assert size_in(tiny_safetensors, "float32") == 2 * half


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(f"{300 * MEGABYTE}\n")
    assert limits.memory_limit(tmp_path) == 300 * MEGABYTE
    (tmp_path / "memory.max").write_text("max\n")
    assert limits.memory_limit(tmp_path) > 300 * MEGABYTE


def test_what_a_container_holds_is_not_free(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(f"{300 * MEGABYTE}\n")
    (tmp_path / "memory.current").write_text(f"{250 * MEGABYTE}\n")
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {20 * MEGABYTE}\n")
    assert limits.memory_available(tmp_path) == 70 * MEGABYTE
    (tmp_path / "memory.current").write_text(f"{400 * MEGABYTE}\n")
    assert limits.memory_available(tmp_path) == 0


def test_memory_that_runs_out_is_named(tmp_path: Path, tiny_gguf: Path) -> None:
    """A context of two million tokens in a process that may take one gigabyte."""
    settings = {"runtime": "llama.cpp", "device": "cpu", "threads": 1, "context": 2 * MEGABYTE}
    settings |= {"generate": 2, "repetitions": 1, "warmups": 0, "depths": []}
    prompt = tmp_path / "prompt.json"
    prompt.write_text('{"text": "a", "token_ids": [65], "chat_template": false, "tokenizer": "t"}')
    command = [sys.executable, "-m", "minillm_lab.benchmark.round", "--variant", "v", "--round=1"]
    command += ["--weights", str(tiny_gguf), "--prompt", str(prompt)]
    command += ["--settings", json.dumps(settings), "--output", str(tmp_path / "round.json")]
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": str(ROOT / "workflow")},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert "failed to allocate buffer of size 2048131072: out of memory" in said
    assert "of 1000 MB" in said
    assert not (tmp_path / "round.json").exists()
