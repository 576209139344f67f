"""The first answer: what one round and one trial of each variant say, and how far that holds."""

import subprocess
import sys
from pathlib import Path

import pytest

from builders import made_up_round, made_up_trial
from conftest import ROOT
from minillm_lab.records import NoTrial, Record, write_record


def told(folder: Path, **trials: Record) -> dict[str, list[str]]:
    """The table's rows by variant, of the baseline and of those that have a file of a trial."""
    for name in ("fp16", *trials):
        round_ = made_up_round(1, [10.0]).model_copy(update={"variant": name})
        write_record(folder / f"rounds/{name}.1.json", round_)
    for name, record in trials.items():
        write_record(folder / f"trials/{name}.1.json", record)
    rounds, files = (sorted((folder / kind).glob("*.json")) for kind in ("rounds", "trials"))
    done = subprocess.run(
        [sys.executable, "-m", "minillm_lab.report.provisional", "--rounds", *rounds,
         "--trials", *files, "--baseline", "fp16", "--output", folder / "provisional.md"],
        env={"PYTHONPATH": str(ROOT / "workflow")}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = (folder / "provisional.md").read_text()
    assert text.startswith("Provisional: ") and text.strip() in done.stderr
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows[2:]}


def test_it_gives_speeds_and_ratios_with_the_trials_own_interval(tmp_path: Path) -> None:
    rows = told(tmp_path, q4=made_up_trial("q4", 0.05), q8=made_up_trial("q8", 0.2))
    assert [cell.partition(" (")[0] for cell in rows["q4"][:2]] == ["20.0", "20.0"]
    assert rows["q4"][0].startswith("20.0 (×2.00, ")
    assert rows["q8"][0].startswith("5.00 (×0.50, ")
    assert rows["fp16"][:2] == ["10.0", "10.0"]
    assert rows["fp16"][2:] == ["1.00", "0.00", "–"]
    assert rows["q4"][2:] == ["1.00", "0.00", "170 · 32.0"]


def test_speeds_agree_with_their_ratios_though_the_machine_was_slower_in_one_trial(
    tmp_path: Path,
) -> None:
    slow = made_up_trial("q8", 0.05, levels=(2.97, 3.0, 3.03))
    rows = told(tmp_path, q4=made_up_trial("q4", 0.025), q8=slow)
    decode = {name: row[0].split(",")[0] for name, row in rows.items()}
    assert decode == {"fp16": "6.67", "q4": "26.7 (×4.00", "q8": "13.3 (×2.00"}


def test_a_machine_that_changed_during_a_trial_shows_how_far(tmp_path: Path) -> None:
    trial = made_up_trial("q4", 0.05)
    later = trial.blocks[1].after.model_copy(update={"memory_bytes_per_second": 5e10})
    blocks = [trial.blocks[0], trial.blocks[1].model_copy(update={"after": later})]
    rows = told(tmp_path, q4=trial.model_copy(update={"blocks": blocks}))
    assert rows["q4"][4] == "170 · 32.0 to 50.0"


def test_a_prompt_that_another_tokenizer_cuts_otherwise_counts_its_own_tokens(
    tmp_path: Path,
) -> None:
    trial = made_up_trial("other", 0.1)
    longer = trial.variant.model_copy(update={"prompt_tokens": 20})
    rows = told(tmp_path, other=trial.model_copy(update={"variant": longer}))
    assert rows["other"][0].startswith("10.0 (×1.00, ")
    assert rows["other"][1].startswith("20.0 (×2.00, ")


@pytest.mark.parametrize(
    "record",
    [
        NoTrial(trial=1, variant="big", baseline="fp16", reason="too large"),
        made_up_trial("big", 0.05, disturbed="other programs ran"),
    ],
    ids=["does not fit twice", "disturbed"],
)
def test_what_has_no_trial_that_counts_has_no_speed(record: Record, tmp_path: Path) -> None:
    rows = told(tmp_path, big=record, q4=made_up_trial("q4", 0.05))
    assert rows["big"][:2] == ["–", "–"] and rows["big"][2] == "1.00"
    assert rows["q4"][0].startswith("20.0 (×2.00")


def test_the_baseline_alone_has_a_row(tmp_path: Path) -> None:
    assert told(tmp_path)["fp16"][2] == "1.00"
