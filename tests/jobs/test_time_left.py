"""How long a run takes is told by the time that such jobs took before."""

import os
import time
from pathlib import Path

import pytest

from minillm_lab.jobs import time_left

TRIALS = [f"results/trials/{v}.{n}.json" for v in ("q8", "q4") for n in (1, 2)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(output: str) -> None:
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    Path(output).touch()


def test_a_trial_takes_as_long_as_the_variants_last_one() -> None:
    for output, seconds in zip(TRIALS, (10, 12, 20, 30), strict=True):
        time_left.note(output, seconds)
    assert time_left.forecast(["results/trials/q8.3.json"]) == 12
    assert time_left.forecast([f"results/trials/q4.{n}.json" for n in (3, 4)]) == 60


def test_a_variant_without_one_takes_as_long_as_the_others() -> None:
    time_left.note(TRIALS[0], 10)
    time_left.note(TRIALS[2], 20)
    assert time_left.forecast(["results/trials/new.1.json"]) == 15


def test_where_nothing_ran_no_time_is_made_up() -> None:
    assert time_left.forecast(TRIALS) is None
    time_left.note(TRIALS[0], 10)
    assert time_left.forecast([*TRIALS, "results/quality/q8.json"]) is not None


def test_a_search_takes_what_it_is_given() -> None:
    search = "models/m/sensitivity+imatrix.json"
    time_left.note("models/m/Q8_0.gguf", 5)
    assert time_left.forecast([search], 900) == 900
    time_left.note(search, 300)
    assert time_left.forecast([search], 900) == 300


def test_another_experiments_times_tell_nothing_since_its_models_are_others() -> None:
    time_left.note("results/large/trials/q8.1.json", 3000)
    assert time_left.forecast(["results/small/trials/q8.1.json"]) is None


def test_a_line_that_a_killed_job_left_is_passed_over() -> None:
    time_left.note(TRIALS[0], 10)
    with time_left.TIMES.open("a") as file:
        file.write('["results/trials/q8.2')
    assert time_left.forecast(TRIALS[:1]) == 10


def test_what_is_left_is_what_this_run_has_not_made() -> None:
    make(TRIALS[0])  # by an earlier run: it is made again
    os.utime(TRIALS[0], (time.time() - 100,) * 2)
    time_left.begin(TRIALS)
    assert time_left.left() == "0 of 4 jobs done"
    time_left.note(TRIALS[2], 120)
    make(TRIALS[2])
    assert time_left.left() == "1 of 4 jobs done, about 6 min left"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(1, "10 s"), (44, "40 s"), (61, "1 min"), (3570, "1 h"), (7810, "2 h 10 min")],
)
def test_times_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert time_left.in_words(seconds) == said
