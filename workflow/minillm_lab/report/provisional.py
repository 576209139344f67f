"""The first answer: a table of the first round and trial of every variant, long before the last.

Its intervals come from the slices of one trial: they hold for that moment alone.
"""

import argparse
from collections.abc import Iterable
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

UNSTEADY = 1.25  # the highest reading of a yardstick over the lowest
SPEEDS = {"Decode": "decode", "Prefill": "prefill"}
HEADER = ["", *(f"{name} ↑, t/s" for name in SPEEDS)]
HEADER += ["Load, warm cache ↓, s", "Memory after load ↓, MB", "Machine, GF/s · GB/s"]


def ratio(trial: Trial, what: str) -> Estimate:
    """Speed over the baseline's, with an interval from the trial's own cycles."""
    sides = (
        (getattr(b.variant, f"{what}_seconds"), getattr(b.baseline, f"{what}_seconds"))
        for b in trial.blocks
    )
    pairs = [pair for ours, theirs in sides for pair in zip(ours, theirs, strict=True)]
    is_prompt = what == "prefill"  # of another tokenizer it has another number of tokens
    tokens = trial.variant.prompt_tokens / trial.baseline.prompt_tokens if is_prompt else 1.0
    return estimates.of_rounds([[tokens * theirs / ours] for ours, theirs in pairs])


def of_baseline(trials: Iterable[Trial], what: str) -> float:
    """The baseline's speed: the median over trials of the median over a trial's blocks."""
    metric = f"{what}_tokens_per_second"
    return median(median(b.baseline_speeds[metric] for b in samples_of(t)) for t in trials)


def speed(trial: Trial, what: str, baseline: float) -> str:
    """The baseline's speed times the ratio, and the ratio with its interval."""
    found = ratio(trial, what)
    text = f"{number(baseline * found.value)} (×{number(found.value)}"
    return text + (f", {number(found.ci95[0])} to {number(found.ci95[1])})" if found.ci95 else ")")


def machine_in(trial: Trial) -> str:
    """What the yardsticks read during a trial: operations and bytes per second, in billions.

    Where a reading is a quarter above another, how far they went.
    """
    readings = [trial.blocks[0].before, *(b.after for b in trial.blocks)]

    def told(values: list[float]) -> str:
        low, high = (number(end / 1e9) for end in (min(values), max(values)))
        steady = max(values) < UNSTEADY * min(values)
        return number(median(values) / 1e9) if steady else f"{low} to {high}"

    compute = told([r.compute_flops for r in readings])
    return f"{compute} · {told([r.memory_bytes_per_second for r in readings])}"


def table(rounds: list[Round], trials: dict[str, Trial], baseline: str) -> str:
    """The table as Markdown."""
    base = {what: of_baseline(trials.values(), what) for what in SPEEDS.values() if trials}
    rows = []
    for r in rounds:
        trial = trials.get(r.variant)
        if trial:
            speeds = [speed(trial, what, of_it) for what, of_it in base.items()]
        elif r.variant == baseline and trials:
            speeds = [*map(number, base.values())]
        else:
            speeds = ["–"] * len(SPEEDS)
        loaded = "–" if r.load_warm_seconds is None else number(r.load_warm_seconds)
        memory = number(r.memory_after_load.resident / 1e6)
        rows.append([r.variant, *speeds, loaded, memory, machine_in(trial) if trial else "–"])
    drawn = tabulate(rows, headers=HEADER, tablefmt="github", disable_numparse=True)
    return (
        "Provisional: one round and one trial of each variant. In brackets, the ratio to"
        f" `{baseline}` and its interval within that trial; a speed is the baseline's, over all"
        " these trials, times the ratio. The last column is what the yardsticks read during the"
        f" trial: in another state of the machine, the ratio is another.\n\n{drawn}"
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
