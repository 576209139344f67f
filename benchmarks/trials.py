"""What trials can tell: many of them, of known pairs, in a shuffled order; then whole comparisons.

    python benchmarks/trials.py run FOLDER --minutes 30    # take trials until the time is over
    python benchmarks/trials.py show FOLDER                # the table, and FOLDER/states.svg

Needs the models and the prompt of the default experiment, which `snakemake --cores 1` makes. The
pairs: Q4_K_M with itself; with itself slowed down by 2 and 4 % (a wait behind each call of the
engine); Q4_K_M and F16; F16 in llama.cpp and FP16 in Transformers.
"""

import argparse
import os
import random
import subprocess
import sys
import time
from datetime import datetime
from itertools import product
from pathlib import Path
from string import ascii_uppercase

import altair as alt
import numpy as np
import vl_convert

from lab import ROOT, default_plan, made
from minillm_lab import estimates
from minillm_lab.benchmark.collect import read_trial, samples_of
from minillm_lab.comparison.states import find_states
from minillm_lab.experiment.plan import Plan
from minillm_lab.jobs.command import run as run_command
from minillm_lab.jobs.errors import LabError
from minillm_lab.records import Trial

SPEEDS = ("decode_tokens_per_second", "prefill_tokens_per_second")
PAIRS = {  # name: variant, baseline, how much slower the variant is made, weight in the shuffle
    "same": ("q4_k_m", "q4_k_m", 0.0, 4),
    "2 % slower": ("q4_k_m", "q4_k_m", 0.02, 2),
    "4 % slower": ("q4_k_m", "q4_k_m", 0.04, 2),
    "Q4_K_M to F16": ("q4_k_m", "f16", 0.0, 2),
    "F16 to FP16": ("f16", "fp16", 0.0, 2),
}
SLOW = """
import sys
if "slices" in (line := " ".join(sys.orig_argv)) and "/slowed." in line:
    import time
    from minillm_lab.runtimes.llama_cpp import LlamaCpp
    def slowed(method):
        def call(self, *arguments):
            start = time.perf_counter()
            method(self, *arguments)
            end = time.perf_counter()
            while time.perf_counter() < end + {share} * (end - start):
                pass
        return call
    LlamaCpp.prefill, LlamaCpp.decode = slowed(LlamaCpp.prefill), slowed(LlamaCpp.decode)
"""


def take(plan: Plan, pair: str, number: int, folder: Path) -> None:
    """Run one trial of a pair, as the workflow does."""
    variant, baseline, slower, _ = PAIRS[pair]
    weights = [made(plan.weights(v)) for v in (variant, baseline)]
    paths = [str(ROOT / "workflow")]
    if slower:
        slow = folder / f"slow-{slower}"
        slow.mkdir(exist_ok=True)
        (slow / "sitecustomize.py").write_text(SLOW.replace("{share}", str(slower)))
        link = slow / f"slowed.{weights[0].name}"
        if not link.exists():
            link.symlink_to(weights[0])
        weights[0], paths = link, [str(slow), *paths]
    prompt = str(made(f"{plan.results}/prompts/{plan.model(variant)}.json"))
    output = folder / f"{pair}.{number}.json"
    command = [
        *(sys.executable, "-m", "minillm_lab.benchmark.trial", "--trial", str(number)),
        *("--variant", variant, "--baseline", baseline, "--weights", *map(str, weights)),
        *("--prompts", prompt, prompt, "--output", str(output)),
        *("--settings", *(plan.trial_settings(v) for v in (variant, baseline))),
    ]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}, check=True)


def run(folder: Path, minutes: float, pairs: list[str]) -> None:
    plan = default_plan()
    for variant in ("fp16", "f16", "q4_k_m"):
        made(plan.weights(variant))
    folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * minutes
    order = [name for name in pairs for _ in range(PAIRS[name][3])]
    numbers = {p: len([*folder.glob(f"{p}.*.json")]) for p in PAIRS}
    shuffle = random.Random(sum(numbers.values()))
    while True:
        for pair in shuffle.sample(order, len(order)):
            if time.monotonic() > end:
                return
            numbers[pair] += 1
            take(plan, pair, numbers[pair], folder)


def show(folder: Path, size: int) -> None:
    """Whole comparisons of ``size`` trials each, that follow each other in one state."""
    read = [(path.name.split(".")[0], read_trial(path)) for path in folder.glob("*.json")]
    trials = [(pair, trial) for pair, trial in read if isinstance(trial, Trial)]
    trials.sort(key=lambda t: t[1].measured_at)
    if not trials:
        raise LabError(f"{folder}: holds no trials; `run` takes them")
    blocks = [(i, pair, b) for i, (pair, t) in enumerate(trials) for b in samples_of(t)]
    states, labels = find_states([r for _, _, b in blocks for r in (b.before, b.after)])
    for letter, found_state in zip(ascii_uppercase, states, strict=False):
        print(
            f"state {letter}: {found_state.share:.0%} of the readings,"
            f" {found_state.compute_flops / 1e9:.0f} GF/s,"
            f" {found_state.memory_bytes_per_second / 1e9:.1f} GB/s"
        )
    ends = list(zip(labels[::2], labels[1::2], strict=True))
    mixed = sum(a != b or a is None for a, b in ends)
    disturbed = sum(t.disturbed is not None for _, t in trials)
    print(f"{len(trials)} trials, {disturbed} disturbed; {len(blocks)} blocks, {mixed} in no state")
    for metric, state, pair in product(SPEEDS, range(len(states)), PAIRS):
        found: dict[int, list[float]] = {}
        for (i, name, b), ab in zip(blocks, ends, strict=True):
            if name == pair and ab == (state, state) and not b.disturbed:
                found.setdefault(i, []).append(float(np.log(b.ratios[metric])))
        values = [float(np.exp(estimates.centre(logs))) for logs in found.values()]
        if len(values) < size:
            continue
        whole = [values[k : k + size] for k in range(0, len(values) - size + 1, size)]
        each = [estimates.of_rounds([[v] for v in some]) for some in whole]
        half = [e.ci95[1] / e.value - 1 for e in each if e.ci95]
        claims = [e for e in each if (p := e.p()) is not None and p <= estimates.LEVEL]
        print(
            f"{metric.partition('_')[0]} {ascii_uppercase[state]} {pair}: {len(values)} trials,"
            f" ×{np.exp(np.mean(np.log(values))):.4f}, one ±{np.std(np.log(values), ddof=1):.2%};"
            f" {len(claims)} of {len(whole)} comparisons of {size} claim a difference,"
            f" signs {sorted({e.value > 1 for e in claims})}; half-width {np.median(half):.2%}"
        )
    draw(folder / "states.svg", trials)


def draw(path: Path, trials: list[tuple[str, Trial]]) -> None:
    """The yardsticks and the ratio of Q4_K_M to F16, by block, against time."""
    start = datetime.fromisoformat(trials[0][1].measured_at)
    rows = []
    for pair, trial in trials:
        minutes = (datetime.fromisoformat(trial.measured_at) - start).total_seconds() / 60
        for b in samples_of(trial):
            memory = (b.before.memory_bytes_per_second * b.after.memory_bytes_per_second) ** 0.5
            compute = (b.before.compute_flops * b.after.compute_flops) ** 0.5
            row = {"minutes": minutes, "memory, GB/s": memory / 1e9, "compute, GF/s": compute / 1e9}
            if pair == "Q4_K_M to F16":
                row["Q4_K_M to F16"] = b.ratios["decode_tokens_per_second"]
            rows.append(row)
    base = alt.Chart(alt.Data(values=rows)).mark_circle(size=18).properties(width=620, height=130)
    parts = [
        base.encode(x="minutes:Q", y=alt.Y(f"{what}:Q", scale=alt.Scale(zero=False)))
        for what in ("compute, GF/s", "memory, GB/s", "Q4_K_M to F16")
    ]
    path.write_text(vl_convert.vegalite_to_svg(alt.vconcat(*parts).to_json()))


def main(given: argparse.Namespace) -> None:
    run(given.folder, given.minutes, given.pairs) if given.what == "run" else show(
        given.folder, given.size
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("run", "show"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--pairs", nargs="+", choices=PAIRS, default=[*PAIRS], help="of run")
    parser.add_argument("--size", type=int, default=6, help="trials in a comparison")
    run_command(main, parser)
