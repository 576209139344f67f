"""One trial: two live processes take turns, one stopped while the other works; none is left."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, cycle, pairwise, repeat
from pathlib import Path
from typing import Any

import psutil
import pytest

from builders import STEADY, made_up_trial
from conftest import ROOT
from minillm_lab.benchmark import machine, slices, trial
from minillm_lab.benchmark.collect import read_trial, samples_of
from minillm_lab.jobs import limits
from minillm_lab.records import NoTrial, Reading, Trial
from tiny_model import PROMPT

SETTINGS = {"runtime": "llama.cpp", "device": "cpu", "threads": 1, "context": 64, "generate": 8}
SETTINGS |= {"seconds": 0.3}
ENDLESS = 600.0  # seconds, for tests that end it themselves
LATEST = 60.0  # seconds after which a test gives up waiting for a process

# What the processes of a trial run first: of one that holds a model, WEIGHTS is its file.
PATCH = """
import os, signal, sys, time
from pathlib import Path
modules = [a for a in sys.orig_argv if a.startswith("minillm_lab.benchmark.")]
module = modules[0].rpartition(".")[2] if modules else ""
WEIGHTS = sys.orig_argv[sys.orig_argv.index("--weights") + 1] if module == "slices" else ""

def around_decode(before):
    from minillm_lab import runtimes
    opened = runtimes.open_runtime
    def patched(name):
        engine = opened(name)
        decode = engine.decode
        def decode_after(token):
            before()
            decode(token)
        engine.decode = decode_after
        return engine
    runtimes.open_runtime = patched
"""


def command(folder: Path, weights: list[Path], **settings: Any) -> list[str]:
    (folder / "prompt.json").write_text(json.dumps(PROMPT))
    prompts = [str(folder / "prompt.json")] * 2
    runtimes = ["transformers" if path.is_dir() else "llama.cpp" for path in weights]
    given = [json.dumps(SETTINGS | {"runtime": r} | settings) for r in runtimes]
    return [
        *(sys.executable, "-m", "minillm_lab.benchmark.trial", "--trial", "1"),
        *("--variant", "v", "--baseline", "b", "--weights", *map(str, weights)),
        *("--prompts", *prompts, "--settings", *given),
        *("--output", str(folder / "trial.json"), "--log", str(folder / "log")),
    ]


def environment(folder: Path, patch: str = "") -> dict[str, str]:
    """Where ``patch`` is Python that every process of the trial runs before anything else."""
    (folder / "patch").mkdir(exist_ok=True)
    (folder / "patch/sitecustomize.py").write_text(PATCH + patch)
    paths = [str(folder / "patch")] * bool(patch) + [str(ROOT / "workflow")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def start(
    folder: Path, weights: list[Path], patch: str = "", **settings: Any
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, weights, **settings),
        env=environment(folder, patch),
        capture_output=True,
        text=True,
        timeout=10 * LATEST,
    )


def wait(what: Callable[[], Any]) -> Any:
    """The first true value of ``what``, which another process makes true."""
    end = time.monotonic() + LATEST
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.01)
    raise AssertionError("it did not happen")


def sides_of(process: psutil.Process) -> list[psutil.Process]:
    return [c for c in process.children() if "minillm_lab.benchmark.slices" in c.cmdline()]


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@contextmanager
def at_work(
    folder: Path, weights: list[Path], patch: str = ""
) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A trial that does not end, and the processes of its sides, once slices are being done."""
    told = f"\nif WEIGHTS: around_decode(lambda: open({str(folder / 'decodes')!r}, 'a').write('x'))"
    with subprocess.Popen(
        command(folder, weights, seconds=ENDLESS),
        env=environment(folder, patch or told),
        stderr=subprocess.PIPE,
        text=True,
    ) as started:
        try:
            wait(lambda: (folder / "decodes").exists() or started.poll() is not None)
            yield started, sides_of(psutil.Process(started.pid))
        finally:
            started.kill()


@pytest.fixture(scope="module")
def twins(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The tiny model twice, as two files."""
    folder = tmp_path_factory.mktemp("twins")
    return [Path(shutil.copy(tiny_gguf, folder / f"{name}.gguf")) for name in ("ours", "theirs")]


def read(folder: Path) -> Trial:
    found = read_trial(folder / "trial.json")
    assert isinstance(found, Trial)
    return found


def test_both_runtimes_do_the_same_work_in_turns(
    tiny_gguf: Path, tiny_safetensors: Path, tmp_path: Path
) -> None:
    done = start(tmp_path, [tiny_safetensors, tiny_gguf])
    assert done.returncode == 0, done.stderr
    found = read(tmp_path)
    ours, theirs = found.variant, found.baseline
    assert (ours.variant, ours.runtime["name"]) == ("v", "transformers")
    assert (theirs.variant, theirs.runtime["name"]) == ("b", "llama.cpp")
    assert ours.prompt_tokens == theirs.prompt_tokens == len(PROMPT["token_ids"])
    for side in (s for block in found.blocks for s in (block.variant, block.baseline)):
        assert len(side.prefill_seconds) == len(side.first_token_seconds) > 1
        assert len(side.decode_seconds) == len(side.step_seconds) > 0
        for part, whole in (("prefill", "first_token"), ("decode", "step")):
            pairs = zip(
                getattr(side, f"{part}_seconds"), getattr(side, f"{whole}_seconds"), strict=True
            )
            assert all(0 < inner <= outer for inner, outer in pairs)
    assert len(found.blocks) >= trial.BLOCKS
    for block in found.blocks:
        assert len(block.variant.prefill_seconds) == len(block.baseline.prefill_seconds)
        assert len(block.variant.decode_seconds) == len(block.baseline.decode_seconds)
    for block, following in pairwise(found.blocks):
        assert block.after == following.before
    assert found.machine["fingerprint"] and found.attempts >= 1
    sample, *_ = samples_of(found)
    assert sample.speeds.keys() == sample.ratios.keys() == sample.baseline_speeds.keys()


def test_what_slows_decoding_down_on_one_side_shows_in_its_decoding_alone(
    twins: list[Path], tmp_path: Path
) -> None:
    slow = f"\nif WEIGHTS == {str(twins[0])!r}: around_decode(lambda: time.sleep(0.1))"
    done = start(tmp_path, twins, slow, generate=3, seconds=0.1)
    assert done.returncode == 0, done.stderr
    ours, theirs = read(tmp_path).blocks[0].variant, read(tmp_path).blocks[0].baseline
    assert min(ours.decode_seconds) >= 0.1 > min(theirs.decode_seconds)
    assert min(ours.prefill_seconds) < 0.1 and min(theirs.prefill_seconds) < 0.1
    assert min(ours.first_token_seconds) < 0.1


STOPPED = """
import psutil
def others_are_stopped():
    waiting = [c for c in psutil.Process(os.getppid()).children()
               if c.pid != os.getpid() and "minillm_lab.benchmark.slices" in c.cmdline()]
    end = time.monotonic() + 20
    while waiting and time.monotonic() < end:
        if all(Path(f"/proc/{c.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
               for c in waiting):
            break
        time.sleep(0.001)
    else:
        waiting = ["not stopped"]
    with open(NOTES, "a") as notes:
        notes.write(f"{module} {len(waiting)} {'not' if 'not stopped' in waiting else 'all'}\\n")
if module == "slices":
    around_decode(others_are_stopped)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_waits_is_stopped_while_a_side_works(twins: list[Path], tmp_path: Path) -> None:
    notes = f"\nNOTES = {str(tmp_path / 'notes')!r}"
    done = start(tmp_path, twins, notes + STOPPED, generate=4, seconds=0.1)
    assert done.returncode == 0, done.stderr
    told = (tmp_path / "notes").read_text().splitlines()
    assert set(told) == {"slices 1 all"}


def test_a_model_that_cannot_be_loaded_has_a_line_of_its_own(
    tiny_gguf: Path, tmp_path: Path
) -> None:
    (broken := tmp_path / "broken.gguf").write_bytes(tiny_gguf.read_bytes()[:5000])
    done = start(tmp_path, [broken, tiny_gguf])
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and line.startswith("error: ") and "broken.gguf" in line
    assert not (tmp_path / "trial.json").exists()
    children = [
        p for p in psutil.process_iter(["cmdline"]) if str(broken) in (p.info["cmdline"] or [])
    ]
    assert not children


DIES = {
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
    "crashes": ("os.abort()", "SIGABRT"),
    "ends": ("os._exit(3)", "status 3"),
    "fails": ("exec(\"raise RuntimeError('an engine broke')\")", "an engine broke"),
}


@pytest.mark.parametrize(("dies", "said"), DIES.values(), ids=DIES.keys())
def test_a_side_that_dies_at_work_is_one_line_with_its_name_and_file(
    dies: str, said: str, twins: list[Path], tmp_path: Path
) -> None:
    patch = f"\nif WEIGHTS == {str(twins[1])!r}: around_decode(lambda: {dies})"
    done = start(tmp_path, twins, patch)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and line.startswith(f"error: b: {twins[1]}: ") and said in line
    assert not (tmp_path / "trial.json").exists()


def test_a_side_that_dies_while_it_waits_is_one_line_too(twins: list[Path], tmp_path: Path) -> None:
    with at_work(tmp_path, twins) as (started, sides):
        started.send_signal(signal.SIGSTOP)  # so that it wakes nobody meanwhile
        side = wait(lambda: next((s for s in sides if s.status() == psutil.STATUS_STOPPED), None))
        name = "v" if str(twins[0]) in side.cmdline() else "b"
        side.kill()
        wait(lambda: gone(side))
        started.send_signal(signal.SIGCONT)
        said = started.communicate(timeout=LATEST)[1]
    assert "Traceback" not in said, said
    (line,) = said.splitlines()
    assert line.startswith(f"error: {name}: {twins['vb'.index(name)]}: ") and "SIGKILL" in line
    assert all(gone(side) for side in sides)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_one_that_conducts(
    number: signal.Signals, twins: list[Path], tmp_path: Path
) -> None:
    with at_work(tmp_path, twins) as (started, sides):
        assert len(sides) == 2
        started.send_signal(number)
        started.wait(LATEST)
        wait(lambda: all(gone(side) for side in sides))
    assert not (tmp_path / "trial.json").exists()


@pytest.mark.parametrize(
    "settings",
    [{}, {"gpu_layers": 1}, {"device": "gpu", "gpu_layers": 0}],
    ids=["", "gpu_layers, which a CPU leaves", "no layer on the GPU"],
)
def test_two_models_that_do_not_fit_together_are_no_trial_and_no_error(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    weights = [tmp_path / f"{name}.gguf" for name in ("big", "bigger")]
    for path in weights:
        with path.open("wb") as file:
            file.truncate(int(0.6 * limits.memory_limit()))  # without a block on the disk
    done = start(tmp_path, weights, **settings)
    assert done.returncode == 0, done.stderr
    found = read_trial(tmp_path / "trial.json")
    assert isinstance(found, NoTrial) and (found.variant, found.baseline) == ("v", "b")
    assert "v and b do not fit into memory together" in found.reason
    (line,) = done.stderr.splitlines()
    assert found.reason in line and "from rounds" in line


def test_models_that_do_not_fit_into_the_gpu_together_are_no_trial(
    twins: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All layers of a model of two are three: its output is one too."""
    smi = tmp_path / "nvidia-smi"
    smi.write_text('#!/bin/sh\ncase "$*" in *=memory.total*) echo 0; esac\n')  # MiB
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for layers in (None, 3, 99):
        done = start(tmp_path, twins, device="gpu", gpu_layers=layers)
        found = read_trial(tmp_path / "trial.json")
        assert isinstance(found, NoTrial), done.stderr
        assert "v and b do not fit into the GPU's memory together" in found.reason
    parts = tmp_path / "parts"
    parts.mkdir()
    done = start(parts, twins, device="gpu", gpu_layers=2)
    assert isinstance(read_trial(parts / "trial.json"), Trial), done.stderr


@pytest.mark.parametrize("layers", [(1, 1), (2, 0), (0, 99)], ids=["parts", "a part", "apart"])
def test_models_that_no_memory_holds_both_of_are_tried(
    layers: tuple[int, int], twins: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "memory_limit", lambda: 1)
    monkeypatch.setattr(machine, "accelerator_memory", lambda _: [1])
    sides = {
        name: (weights, {"device": "gpu", "gpu_layers": offered})
        for name, weights, offered in zip("vb", twins, layers, strict=True)
    }
    assert trial.fits_twice(sides) is None


CALM, OTHER = STEADY, Reading(compute_flops=1.3e11, memory_bytes_per_second=5e10)


def measured(
    twins: list[Path],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    loads: Iterator[float],
    readings: Iterator[Reading],
) -> Trial:
    """A trial with these loads by other programs and readings of the yardsticks, in turn."""

    @contextmanager
    def told(threads: int) -> Iterator[Callable[[], Reading]]:
        yield lambda: next(readings)

    monkeypatch.setattr(machine.Watch, "other_load", lambda *_: next(loads))
    monkeypatch.setattr(trial, "yardsticks", told)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "workflow"))
    (prompt := folder / "prompt.json").write_text(json.dumps(PROMPT))
    settings = [json.dumps(SETTINGS | {"seconds": 0.1, "generate": 4})] * 2
    found = trial.measure_trial(1, ["v", "b"], twins, [prompt] * 2, settings)
    assert isinstance(found, Trial)
    return found


@pytest.mark.parametrize(
    ("disturbed", "attempts", "said"),
    [(0, 1, None), (1, 2, None), (9, 3, "other processes kept 9.0 cores busy")],
    ids=["quiet", "a burst passes", "it stays busy"],
)
def test_a_disturbed_trial_is_taken_again_and_set_aside_in_the_end(
    disturbed: int,
    attempts: int,
    said: str | None,
    twins: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    busy = iter([True] * disturbed)  # by attempt
    real = trial.disturbance
    monkeypatch.setattr(
        trial, "disturbance", lambda load, threads: real(9.0 * next(busy, False), threads)
    )
    found = measured(twins, tmp_path, monkeypatch, repeat(0.0), repeat(CALM))
    assert found.attempts == attempts
    assert (found.disturbed or "").startswith(said or "") and bool(said) == bool(found.disturbed)


def test_a_trial_goes_on_until_two_blocks_began_and_ended_in_one_state(
    twins: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changing = chain([CALM, OTHER, OTHER, CALM], repeat(CALM))
    found = measured(twins, tmp_path, monkeypatch, repeat(0.0), changing)
    steady = [b for b in found.blocks if b.before == b.after]
    assert found.disturbed is None and len(steady) >= 2 and len(found.blocks) >= 4


def test_a_machine_that_changes_all_the_time_ends_a_trial_all_the_same(
    twins: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measured(twins, tmp_path, monkeypatch, repeat(0.0), cycle([CALM, OTHER]))
    assert len(found.blocks) >= trial.MOST


@pytest.mark.parametrize(
    ("prefill", "step", "generate", "prefills", "slices", "skips"),
    [
        (0.2, 0.01, 80, 2, ["decode 3 0"] * 29, 0),  # the answer starts over
        (0.3, 0.025, 80, 2, ["decode 3 0"] * 15, 19),
        (0.3, 0.04, 80, 2, ["decode 3 0"] * 9, 43),
        (20.0, 0.9, 80, 1, ["decode 3 0"] * 6, 55),  # the slowest block has six slices
        (0.2, 0.02, 400, 2, ["decode 3 0"] * 18, 327),
        (0.2, 0.01, 8, 2, ["decode 2 0"] * 11, 0),
        (0.2, 0.01, 3, 2, ["decode 1 0"] * 6, 0),
    ],
    ids=["fast", "slower", "slow", "very slow", "a long answer", "a short answer", "the shortest"],
)
def test_a_block_takes_its_time_and_covers_both_ends_of_the_answer(
    prefill: float, step: float, generate: int, prefills: int, slices: list[str], skips: int
) -> None:
    slices[len(slices) // 2] = slices[0][:-1] + str(skips)
    assert trial.commands(prefill, step, generate, 1.5) == ["prefill"] * prefills + slices


@pytest.mark.parametrize("runtime", ["llama.cpp", "transformers"])
def test_a_slice_goes_on_where_the_skipped_tokens_end(
    runtime: str, tiny_gguf: Path, tiny_safetensors: Path, tmp_path: Path
) -> None:
    weights = tiny_gguf if runtime == "llama.cpp" else tiny_safetensors
    prompt = PROMPT["token_ids"]
    side = slices.Slices(weights, prompt, SETTINGS | {"runtime": runtime, "generate": 40})
    engine, processed = side.runtime, list[int]()
    decode, prefill = engine.decode, engine.prefill

    def one(token: int) -> None:
        processed.append(1)
        decode(token)

    def many(ids: list[int]) -> None:
        processed.append(len(ids))
        prefill(ids)

    engine.decode, engine.prefill = one, many  # type: ignore[method-assign]
    for _ in range(4):
        assert side.decode(2, 10)["decode_seconds"] > 0
    assert processed == [10, 1, 1, 1] * 3 + [len(prompt), 10, 1, 1, 1]


def test_what_hits_both_sides_alike_is_not_in_a_ratio() -> None:
    levels = (1.0, 3.0, 0.5, 0.8, 1.4)
    sample, *_ = samples_of(made_up_trial("v", 0.05, levels=levels))
    for metric, ratio in sample.ratios.items():
        assert ratio == pytest.approx(2.0 if "per_second" in metric else 0.5), metric
    assert sample.speeds["decode_tokens_per_second"] == pytest.approx(20)
    assert sample.speeds["generate_seconds"] == pytest.approx(0.5 + 79 * 0.05)
