"""The first answer: a table of the first round and trial of every variant, long before the last.

Its intervals come from the slices of one trial: they hold for that moment alone.
"""

import argparse
from pathlib import Path
from statistics import median

from tabulate import tabulate

from minillm_lab import estimates
from minillm_lab.benchmark.collect import read_trial, samples_of
from minillm_lab.estimates import Estimate
from minillm_lab.jobs.command import run, say
from minillm_lab.jobs.files import write_text
from minillm_lab.records import Round, Trial, read_record
from minillm_lab.wording import number

HEADER = ["", "Decode ↑, t/s", "Prefill ↑, t/s", "Load, warm cache ↓, s", "Memory after load ↓, MB"]


def ratio(trial: Trial, what: str) -> Estimate:
    """Speed over the baseline's, with an interval from the trial's own cycles."""
    sides = ((getattr(b.variant, what), getattr(b.baseline, what)) for b in trial.blocks)
    pairs = [pair for ours, theirs in sides for pair in zip(ours, theirs, strict=True)]
    return estimates.of_rounds([[theirs / ours] for ours, theirs in pairs])


def median_of(trial: Trial, metric: str, baseline: bool = False) -> float:
    """The variant's speed in a trial, or the baseline's."""
    blocks = samples_of(trial)
    return median((b.baseline_speeds if baseline else b.speeds)[metric] for b in blocks)


def speed(trial: Trial | None, what: str, metric: str) -> str:
    """A speed, its ratio to the baseline with its interval; – without a trial."""
    if trial is None:
        return "–"
    found = ratio(trial, what)
    text = f"{number(median_of(trial, metric))} (×{number(found.value)}"
    return text + (f", {number(found.ci95[0])} to {number(found.ci95[1])})" if found.ci95 else ")")


def table(rounds: list[Round], trials: dict[str, Trial], baseline: str) -> str:
    """The table as Markdown."""
    rows = []
    for r in rounds:
        trial = trials.get(r.variant)
        cells = [
            speed(trial, "decode_seconds", "decode_tokens_per_second"),
            speed(trial, "prefill_seconds", "prefill_tokens_per_second"),
        ]
        if r.variant == baseline and trials:
            first = next(iter(trials.values()))
            names = [f"{what}_tokens_per_second" for what in ("decode", "prefill")]
            cells = [number(median_of(first, name, baseline=True)) for name in names]
        loaded = "–" if r.load_warm_seconds is None else number(r.load_warm_seconds)
        rows.append([r.variant, *cells, loaded, number(r.memory_after_load.resident / 1e6)])
    drawn = tabulate(rows, headers=HEADER, tablefmt="github", disable_numparse=True)
    return (
        "Provisional: one round and one trial of each variant; in brackets, the ratio to"
        f" `{baseline}` and its interval within that trial.\n\n{drawn}"
    )


def main(arguments: argparse.Namespace) -> None:
    read = [read_trial(path) for path in arguments.trials]
    trials = {t.variant.variant: t for t in read if isinstance(t, Trial) and not t.disturbed}
    rounds = [read_record(path, Round) for path in arguments.rounds]
    text = table(rounds, trials, arguments.baseline)
    write_text(arguments.output, text + "\n")
    say(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=Path, nargs="+", required=True)
    parser.add_argument("--trials", type=Path, nargs="*", default=[])
    parser.add_argument("--baseline", required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
