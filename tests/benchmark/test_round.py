"""One round, measured on a tiny model by both real runtimes."""

import json
import mmap
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from minillm_lab.benchmark import memory
from minillm_lab.benchmark.round import answer
from minillm_lab.jobs.files import weight_files
from minillm_lab.models.prompt import from_gguf
from minillm_lab.records import Round, read_record
from minillm_lab.runtimes import Options, open_runtime

RUNTIMES = ["llama.cpp", "transformers"]
SETTINGS = {
    "device": "cpu",
    "threads": 2,
    "context": 128,
    "generate": 12,
    "repetitions": 3,
    "warmups": 1,
    "depths": [64],
}


@pytest.fixture(scope="module")
def prompt(tiny_gguf: Path) -> dict[str, Any]:
    return from_gguf(tiny_gguf, "hello in the end?")


@pytest.fixture(scope="module")
def weights(tiny_gguf: Path, tiny_safetensors: Path) -> dict[str, Path]:
    return {"llama.cpp": tiny_gguf, "transformers": tiny_safetensors}


def start(
    folder: Path, weights: Path, prompt: dict[str, Any], before: str = "", **settings: Any
) -> subprocess.CompletedProcess[str]:
    """Run one round; ``before`` is Python that its process runs first."""
    module = "import runpy; runpy.run_module('minillm_lab.benchmark.round', run_name='__main__')"
    (folder / "prompt.json").write_text(json.dumps(prompt))
    return subprocess.run(
        [sys.executable, "-c", f"{before}\n{module}", "--variant", "v", "--round", "1",
         "--weights", weights, "--prompt", folder / "prompt.json",
         "--settings", json.dumps(SETTINGS | settings), "--output", folder / "round.json",
         "--log", folder / "log"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "workflow")},
        capture_output=True,
        text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def rounds(
    weights: dict[str, Path], prompt: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Round]:
    found = {}
    for runtime in RUNTIMES:
        folder = tmp_path_factory.mktemp("round")
        done = start(folder, weights[runtime], prompt, runtime=runtime)
        assert done.returncode == 0, done.stderr
        found[runtime] = read_record(folder / "round.json", Round)
    return found


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_exactly_the_tokens_asked_for(runtime: str, rounds: dict[str, Round]) -> None:
    r = rounds[runtime]
    assert r.generated_tokens == len(r.output.token_ids) == 12
    assert len(r.repetitions) == 3 and len(r.warmups) == 1
    assert all(len(x.decode_seconds) == 11 for x in r.repetitions + r.warmups)


def test_both_runtimes_get_the_same_tokens_and_say_the_same(rounds: dict[str, Round]) -> None:
    ours, theirs = rounds.values()
    assert ours.prompt_tokens == theirs.prompt_tokens
    assert ours.output == theirs.output  # float16 both, and far from a tie
    assert all(w.startswith("load_") for w in ours.warnings + theirs.warnings)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_clocks_contain_each_other(runtime: str, rounds: dict[str, Round]) -> None:
    for x in rounds[runtime].repetitions:
        assert 0 < x.prefill_seconds <= x.first_token_seconds
        assert x.first_token_seconds + sum(x.decode_seconds) <= x.generate_seconds


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_memory_adds_up(runtime: str, rounds: dict[str, Round]) -> None:
    r = rounds[runtime]
    for m in (r.memory_before_load, r.memory_after_load, r.memory_after_generation):
        assert m.anonymous is not None and m.file_backed is not None
        assert m.anonymous + m.file_backed == m.resident
    assert r.memory_peak_bytes is not None
    assert r.memory_peak_bytes >= r.memory_after_load.resident > r.memory_before_load.resident


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_cold_reads_the_file_from_storage_and_warm_does_not(
    runtime: str, rounds: dict[str, Round], weights: dict[str, Path]
) -> None:
    r = rounds[runtime]
    size = sum(f.stat().st_size for f in weight_files(weights[runtime]))
    if r.load_cold_seconds is None:
        assert any(w.startswith("load_cold_seconds: ") for w in r.warnings)
    else:
        assert 0.95 * size <= (r.load_cold_read_bytes or 0) <= 1.05 * size
    if r.load_warm_seconds is None:
        assert any(w.startswith("load_warm_seconds: ") for w in r.warnings)
    else:
        assert r.load_warm_read_bytes is None or r.load_warm_read_bytes < 0.01 * size


STEPS = """
import atexit
from minillm_lab.jobs import limits
from minillm_lab import runtimes
from minillm_lab.benchmark import memory
steps = []
def noted(holder, name, step):
    inner = getattr(holder, name)
    def outer(*given, **named):
        steps.append(step)
        return inner(*given, **named)
    setattr(holder, name, outer)
for step in ("measure", "evict"):
    noted(memory, step, step)
noted(limits, "peak", "peak")
opened = runtimes.open_runtime
def watched(name):
    engine = opened(name)
    for step in ("prepare", "load", "unload"):
        noted(engine, step, step)
    noted(engine, "prefill", "answer")
    return engine
runtimes.open_runtime = watched
atexit.register(lambda: print(*steps))
"""


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_memory_is_that_of_one_load_and_no_timed_load_is_the_first(
    runtime: str, weights: dict[str, Path], prompt: dict[str, Any], tmp_path: Path
) -> None:
    evidence = bytes_read(weights[runtime], 1, 0)
    done = start(
        tmp_path, weights[runtime], prompt, evidence + STEPS, runtime=runtime, repetitions=1
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        *("prepare", "measure", "load", "measure"),
        *("answer", "answer", "measure"),  # a warm-up and an answer
        *("answer", "answer", "measure", "peak"),  # the depth, twice
        *("unload", "evict", "load"),  # cold
        *("unload", "load"),  # warm
        "unload",
    ]
    assert read_record(tmp_path / "round.json", Round).load_cold_read_bytes is not None


def bytes_read(weights: Path, *shares: float) -> str:
    """Python by which the system tells: each timed load read this share of the weights."""
    size = sum(f.stat().st_size for f in weight_files(weights))
    ends = [round(size * share) for share in shares]
    return f"""
import itertools
from minillm_lab.benchmark import machine
from minillm_lab.benchmark import memory
machine.OTHER_LOAD = 1000  # no sample is taken again for what else runs
told = itertools.chain.from_iterable((0, end) for end in {ends})
memory.storage_bytes_read = lambda: next(told)
kept = memory.evict
memory.evict = lambda files: kept(files) and None
"""


@pytest.mark.parametrize(
    ("cold", "reason"),
    [([1.06, 1.06], "it read other data too"), ([0.9, 0.94], "or had some in memory")],
)
def test_a_load_that_read_too_much_or_too_little_is_not_cold(
    cold: list[float], reason: str, tiny_gguf: Path, prompt: dict[str, Any], tmp_path: Path
) -> None:
    start(tmp_path, tiny_gguf, prompt, bytes_read(tiny_gguf, *cold, 0.009), runtime="llama.cpp")
    found = read_record(tmp_path / "round.json", Round)
    assert found.load_cold_seconds is None and found.load_warm_seconds is not None
    size = tiny_gguf.stat().st_size
    assert found.warnings == [
        f"load_cold_seconds: the load read {cold[-1] * size / 1e6:.1f} MB from storage, and the"
        f" weights hold {size / 1e6:.1f} MB: " + found.warnings[0].rpartition(": ")[2]
    ]
    assert found.warnings[0].endswith(reason)
    assert found.load_cold_read_bytes == round(cold[-1] * size)


def test_a_load_that_does_not_count_is_taken_again(
    tiny_gguf: Path, prompt: dict[str, Any], tmp_path: Path
) -> None:
    told = bytes_read(tiny_gguf, 1.2, 0.96, 0.01, 0.0)
    start(tmp_path, tiny_gguf, prompt, told, runtime="llama.cpp")
    found = read_record(tmp_path / "round.json", Round)
    assert found.load_cold_seconds is not None and found.load_warm_seconds is not None
    assert not found.warnings


def test_a_load_that_read_from_storage_is_not_warm(
    tiny_gguf: Path, prompt: dict[str, Any], tmp_path: Path
) -> None:
    start(tmp_path, tiny_gguf, prompt, bytes_read(tiny_gguf, 1, 0.5, 0.5), runtime="llama.cpp")
    found = read_record(tmp_path / "round.json", Round)
    assert found.load_warm_seconds is None
    (warning,) = found.warnings
    assert warning.startswith("load_warm_seconds: ") and "not all in memory" in warning


def test_a_system_that_does_not_tell_bytes_read_has_no_cold_load(
    tiny_gguf: Path, prompt: dict[str, Any], tmp_path: Path
) -> None:
    told = bytes_read(tiny_gguf) + "memory.storage_bytes_read = lambda: None"
    start(tmp_path, tiny_gguf, prompt, told, runtime="llama.cpp")
    found = read_record(tmp_path / "round.json", Round)
    assert found.load_cold_seconds is None
    assert found.load_warm_seconds is not None  # it follows a load of the same file
    assert found.warnings == [
        "load_cold_seconds: this system does not report how many bytes a load reads from storage"
    ]


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="needs posix_fadvise")
def test_a_file_that_another_program_holds_is_not_called_cold(
    tiny_gguf: Path, prompt: dict[str, Any], tmp_path: Path
) -> None:
    with tiny_gguf.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as held:
        assert held[:] and memory.evict([tiny_gguf]) is not None
        start(tmp_path, tiny_gguf, prompt, runtime="llama.cpp")
    found = read_record(tmp_path / "round.json", Round)
    assert found.load_cold_seconds is None and found.load_cold_read_bytes is None
    assert "of the file stayed in the page cache: mapped by " in found.warnings[0]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_repeating_the_prompt_is_not_free(
    runtime: str, weights: dict[str, Path], prompt: dict[str, Any]
) -> None:
    """Every answer evaluates every token of the prompt again, and says the same."""
    engine: Any = open_runtime(runtime)
    engine.load(weights[runtime], Options(threads=2, context=128))
    process, evaluated = engine._process, []

    def counted(ids: Any) -> None:
        evaluated.append(ids.shape[1] if hasattr(ids, "shape") else len(ids))
        process(ids)

    engine._process = counted
    answers = [answer(engine, prompt["token_ids"], 5)[1] for _ in range(3)]
    assert evaluated == 3 * [len(prompt["token_ids"]), 1, 1, 1, 1]
    assert answers[0] == answers[1] == answers[2]
    engine.unload()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_depths_are_measured(runtime: str, rounds: dict[str, Round]) -> None:
    (depth,) = rounds[runtime].depths
    assert depth.prompt_tokens == 64 and len(depth.decode_seconds) == 16


def test_the_peak_is_the_systems_own(
    weights: dict[str, Path], prompt: dict[str, Any], tmp_path: Path
) -> None:
    """The lab's high-water mark against what the kernel accounts to the finished process.

    The kernel counts the largest of the process and its children, and the yardsticks are one: so
    this takes the runtime whose imports alone are larger.
    """
    runtime = "transformers"
    (tmp_path / "prompt.json").write_text(json.dumps(prompt))
    arguments = [
        sys.executable, "-m", "minillm_lab.benchmark.round", "--variant", "v", "--round", "1",
        "--weights", str(weights[runtime]), "--prompt", str(tmp_path / "prompt.json"),
        "--settings", json.dumps(SETTINGS | {"runtime": runtime}),
        "--output", str(tmp_path / "round.json"),
    ]  # fmt: skip
    # A small process waits for it: ru_maxrss counts what a large parent held before the exec.
    wait = (
        "import os, sys; pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ);"
        " print(os.wait4(pid, 0)[2].ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", wait, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT / "workflow")},
        capture_output=True,
        text=True,
        check=True,
    )
    peak = read_record(tmp_path / "round.json", Round).memory_peak_bytes
    assert peak == pytest.approx(int(done.stdout) * 1024, rel=0.02)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_backend_is_what_ran(runtime: str, rounds: dict[str, Round]) -> None:
    assert rounds[runtime].runtime["backend"] == "CPU"
    assert rounds[runtime].runtime["threads"] == 2


def test_flash_attention_is_recorded_as_resolved(
    weights: dict[str, Path], prompt: dict[str, Any], tmp_path: Path, rounds: dict[str, Round]
) -> None:
    asked_auto = rounds["llama.cpp"].runtime["settings"]["flash_attention"]
    assert asked_auto in ("enabled", "disabled")
    start(tmp_path, weights["llama.cpp"], prompt, runtime="llama.cpp", flash_attention="off")
    off = read_record(tmp_path / "round.json", Round).runtime["settings"]["flash_attention"]
    assert off in ("off", "disabled")


def test_a_gpu_that_is_not_there_is_said(
    weights: dict[str, Path], prompt: dict[str, Any], tmp_path: Path
) -> None:
    start(tmp_path, weights["llama.cpp"], prompt, runtime="llama.cpp", device="gpu")
    found = read_record(tmp_path / "round.json", Round)
    if found.runtime["backend"] == "CPU":
        assert "gpu was asked for" in found.warnings[0]
    else:
        assert found.runtime["settings"]["gpu_layers"] > 0


def test_tokenizers_that_disagree_are_a_warning(
    weights: dict[str, Path], prompt: dict[str, Any], tmp_path: Path
) -> None:
    other = prompt | {"token_ids": [*prompt["token_ids"], 5]}
    start(tmp_path, weights["llama.cpp"], other, runtime="llama.cpp")
    found = read_record(tmp_path / "round.json", Round)
    assert "tokenizers disagree" in found.warnings[0]
    assert found.prompt_tokens == len(other["token_ids"])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_broken_file_is_one_line(
    runtime: str, weights: dict[str, Path], prompt: dict[str, Any], tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    if runtime == "llama.cpp":
        broken.write_bytes(weights[runtime].read_bytes()[:5000])
    else:
        broken.mkdir()
        for file in weights[runtime].iterdir():
            content = file.read_bytes()
            (broken / file.name).write_bytes(content[:5000] if len(content) > 10**5 else content)
    done = start(tmp_path, broken, prompt, runtime=runtime)
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert str(broken) in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "round.json").exists()


def test_a_context_too_small_says_what_to_raise(
    weights: dict[str, Path], prompt: dict[str, Any], tmp_path: Path
) -> None:
    done = start(tmp_path, weights["llama.cpp"], prompt, runtime="llama.cpp", context=32)
    assert "exceed the context of 32; raise 'context'" in done.stderr


def test_evicted_pages_are_gone_and_read_ones_are_there(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(os.urandom(1 << 22))
    assert memory.resident_share(file) == 1
    kept = memory.evict([file])
    assert (kept is None) == (memory.resident_share(file) < 0.01)
    file.read_bytes()
    assert memory.resident_share(file) == 1
