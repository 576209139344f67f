"""A sample that the machine slept through, or the process stood still in, is thrown away."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import ROOT
from minillm_lab.benchmark import machine
from minillm_lab.benchmark.round import undisturbed
from minillm_lab.jobs.errors import LabError
from tiny_model import PROMPT

AWAKE = machine.Interruptions(5.0, 0)
SLEPT = machine.Interruptions(65.0, 0)


def at(monkeypatch: pytest.MonkeyPatch, *readings: machine.Interruptions) -> None:
    """What the clocks say, one reading before and one after each sample."""
    left = iter(readings)
    monkeypatch.setattr(machine, "interruptions", lambda: next(left))


def test_a_sample_over_a_suspend_is_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, AWAKE, SLEPT, SLEPT, SLEPT)
    samples, warnings = iter([100.0, 1.0]), list[str]()
    assert undisturbed(lambda: next(samples), "repetition 1", warnings) == 1.0
    assert warnings == [
        "repetition 1: the machine slept for 60.0 s during the sample, which was taken again"
    ]


def test_a_quiet_sample_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, AWAKE, machine.Interruptions(5.00001, 0))
    warnings: list[str] = []
    assert undisturbed(lambda: 1.0, "repetition 1", warnings) == 1.0 and not warnings


@pytest.mark.parametrize(
    ("loads", "taken"),
    [([1.0, 0.0], 2.0), ([0.1], 1.0), ([None], 1.0), ([1.0, 1.0, 1.0], 3.0)],
    ids=["a burst passes", "a quiet machine", "too short to tell", "it stays busy"],
)
def test_a_sample_beside_other_work_is_taken_again(
    loads: list[float | None], taken: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, samples = iter(loads), itertools.count(1.0)
    monkeypatch.setattr(machine.Watch, "other_load", lambda self: next(told))
    assert undisturbed(lambda: next(samples), "repetition 1", []) == taken


def test_a_machine_that_does_not_stay_awake_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = (machine.Interruptions(60.0 * i, 0) for i in itertools.count())
    monkeypatch.setattr(machine, "interruptions", lambda: next(readings))
    with pytest.raises(LabError, match="interrupted 3 times"):
        undisturbed(lambda: 1.0, "repetition 1", [])


def test_this_machine_has_not_slept_between_two_readings() -> None:
    before = machine.interruptions()
    assert machine.interruptions().since(before) is None


def test_no_measured_time_comes_from_a_clock_that_steps() -> None:
    for file in (ROOT / "workflow/minillm_lab").rglob("*.py"):
        assert "time.time()" not in file.read_text(), file


def test_a_round_that_was_stopped_measures_that_sample_again(
    tiny_gguf: Path, tmp_path: Path
) -> None:
    (tmp_path / "prompt.json").write_text(json.dumps(PROMPT))
    settings = {"runtime": "llama.cpp", "device": "cpu", "threads": 1, "context": 2048}
    settings |= {"generate": 1000, "repetitions": 1, "warmups": 0, "depths": []}
    with subprocess.Popen(
        [sys.executable, "-m", "minillm_lab.benchmark.round", "--variant", "v", "--round", "1",
         "--weights", tiny_gguf, "--prompt", tmp_path / "prompt.json",
         "--settings", json.dumps(settings), "--output", tmp_path / "round.json",
         "--log", tmp_path / "log"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "workflow")},
    ) as started:  # fmt: skip
        log = tmp_path / "log"
        while started.poll() is None and not (log.exists() and "repetition 1" in log.read_text()):
            time.sleep(0.01)
        for _ in range(2):  # the first may come before the sample begins
            started.send_signal(signal.SIGSTOP)
            time.sleep(0.1)
            started.send_signal(signal.SIGCONT)
            time.sleep(0.1)
    found = json.loads((tmp_path / "round.json").read_text())
    assert [w for w in found["warnings"] if "the process was stopped during the sample" in w]
    assert len(found["repetitions"]) == 1
