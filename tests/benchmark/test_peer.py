"""The lab against llama-bench: a fake one here, the lab's own slices are real."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from minillm_lab.benchmark.peer import GENERATE, PROMPT, REPETITIONS, compare

SETTINGS = {"runtime": "llama.cpp", "threads": 1, "context": 512, "device": "cpu"}
ROWS = """
common = {"build_commit": "abc1234", "build_number": 7, "cpu_info": "A fast one", "gpu_info": ""}
rows = [
    {**common, "n_prompt": 256, "n_gen": 0, "samples_ts": [1000.0, 1010.0]},
    {**common, "n_prompt": 0, "n_gen": 64, "samples_ts": [50.0, 52.0]},
]
"""


def fake(folder: Path, then: str) -> Path:
    """A llama-bench that notes its arguments, then does as told."""
    program = folder / "llama-bench"
    program.write_text(
        f"#!{sys.executable}\nimport json, sys\n{ROWS}\n"
        f"open({str(folder / 'calls')!r}, 'a').write(json.dumps(sys.argv[1:]) + '\\n')\n{then}\n"
    )
    program.chmod(0o755)
    return program


def start(
    folder: Path, program: Path, weights: Path, pairs: int = 3, **settings: Any
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "minillm_lab.benchmark.peer", "--llama-bench", program,
         "--weights", weights, "--settings", json.dumps(SETTINGS | settings),
         "--pairs", str(pairs), "--output", folder / "peer.json", "--log", folder / "log"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "workflow")},
        capture_output=True,
        text=True,
    )  # fmt: skip


def test_ratios_and_fields(tiny_gguf: Path, tmp_path: Path) -> None:
    done = start(tmp_path, fake(tmp_path, "print(json.dumps(rows))"), tiny_gguf)
    assert done.returncode == 0, done.stderr
    assert f"{tiny_gguf.name} decode: " in done.stderr
    found = json.loads((tmp_path / "peer.json").read_text())
    facts = {"pairs": 3, "threads": 1, "build_commit": "abc1234", "cpu_info": "A fast one"}
    assert found.items() >= (facts | {"weights": str(tiny_gguf)}).items()
    for phase, theirs in {"prefill": [1000.0, 1010.0], "decode": [50.0, 52.0]}.items():
        part = found[phase]
        assert part["llama_bench_tokens_per_second"] == [theirs] * 3
        ours = part["lab_tokens_per_second"]
        assert [len(samples) for samples in ours] == [REPETITIONS] * 3
        ratios = [statistics.median(samples) / statistics.median(theirs) for samples in ours]
        assert min(ratios) <= part["ratio"] <= max(ratios)
        low, high = part["ratio_ci95"]
        assert 0 < low <= part["ratio"] <= high


def test_llama_bench_runs_with_the_layout_that_the_record_names(
    tiny_gguf: Path, tmp_path: Path
) -> None:
    say = "import os; rows[0]['build_commit'] = os.environ['MALLOC_MMAP_THRESHOLD_']"
    program = fake(tmp_path, f"{say}; rows.reverse(); print(json.dumps(rows))")
    start(tmp_path, program, tiny_gguf, pairs=1)
    found = json.loads((tmp_path / "peer.json").read_text())
    assert found["environment"] == {"MALLOC_MMAP_THRESHOLD_": found["build_commit"]}


def test_llama_bench_is_asked_for_the_same_work(tiny_gguf: Path, tmp_path: Path) -> None:
    program = fake(tmp_path, "print(json.dumps(rows))")
    start(tmp_path, program, tiny_gguf, pairs=1, flash_attention="off")
    start(tmp_path, program, tiny_gguf, pairs=1, flash_attention="auto", device="gpu")
    off, auto = map(json.loads, (tmp_path / "calls").read_text().splitlines())
    asked = dict(zip(off[::2], off[1::2], strict=True))
    assert asked == {
        "-m": str(tiny_gguf), "-t": "1", "-p": str(PROMPT), "-n": str(GENERATE),
        "-r": str(REPETITIONS), "-o": "json", "-ngl": "0", "-fa": "off",
        "-nkvo": "1", "-nopo": "1",
    }  # fmt: skip
    assert "-fa" not in auto and auto[auto.index("-ngl") + 1] == "99"


def test_they_take_turns_at_going_first(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # compare sets it; this puts it back
    calls, before = tmp_path / "calls", []

    def lab(*_: object) -> dict[str, list[float]]:
        before.append(len(calls.read_text().splitlines()))  # llama-bench's slices so far
        return {"prefill": [500.0, 510.0], "decode": [25.0, 26.0]}

    monkeypatch.setattr("minillm_lab.benchmark.peer.lab_slice", lab)
    program = fake(tmp_path, "print(json.dumps(rows))")
    found = compare(program, tiny_gguf, json.dumps(SETTINGS), 2)
    assert before == [1, 1]
    assert found["decode"]["ratio"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("then", "reason"),
    [
        ("sys.exit('llama_bench: error: no such model')", "failed: llama_bench: error: no such"),
        ("sys.exit(3)", "failed: exit status 3"),
        ("print('| model | size |')", "did not print llama-bench's JSON for both tests"),
        ("print(json.dumps(rows[:1]))", "did not print llama-bench's JSON for both tests"),
        ("rows[0]['samples_ts'] = [0.0]; print(json.dumps(rows))", "did not print 2 speeds"),
    ],
)
def test_a_broken_llama_bench_is_one_line(
    then: str, reason: str, tiny_gguf: Path, tmp_path: Path
) -> None:
    done = start(tmp_path, fake(tmp_path, then), tiny_gguf)
    assert done.returncode == 1 and reason in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in done.stderr
    assert not (tmp_path / "peer.json").exists()


def test_no_llama_bench_is_one_line(tiny_gguf: Path, tmp_path: Path) -> None:
    done = start(tmp_path, tmp_path / "absent", tiny_gguf)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"error: cannot run {tmp_path / 'absent'}: No such file" in done.stderr


def test_weights_that_the_lab_cannot_load_are_one_line(tiny_gguf: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(tiny_gguf.read_bytes()[:5000])
    done = start(tmp_path, fake(tmp_path, "print(json.dumps(rows))"), broken)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "error: the lab's slice failed: " in done.stderr and str(broken) in done.stderr
    assert not (tmp_path / "peer.json").exists()
