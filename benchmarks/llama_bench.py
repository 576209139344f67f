"""The lab's prefill and decode speeds held against llama-bench's, by state of the machine.

    python benchmarks/llama_bench.py --llama-bench PATH

Both run in short slices, each a fresh process, since memory layout differs between processes.
Slices come in pairs that take turns at going first: a ratio within a pair is free of the machine's
drift. The yardsticks are read between pairs; a pair is in a state when the readings before and
after it are. Files and layouts of memory take turns too, so that each sees all states. Prints a
table of lab / llama-bench, where a pair's ratio is that of the medians of its repetitions; and one
of what a layout does to llama-bench itself, against the layout as it comes.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from string import ascii_uppercase

from pydantic import BaseModel, TypeAdapter, ValidationError

from lab import GGUF, default_plan, output_of, program, weights_of
from minillm_lab.benchmark.yardsticks import yardsticks
from minillm_lab.comparison.states import find_states
from minillm_lab.estimates import Estimate, of_rounds
from minillm_lab.jobs.command import progress, run
from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import write_text
from minillm_lab.records import Reading
from minillm_lab.runtimes import Options, resolved

PROMPT, GENERATE, REPETITIONS = 256, 64, 2  # llama-bench's -p, -n, -r
PHASES = ("decode", "prefill")

# Where malloc puts llama.cpp's work buffer decides 2 to 4 % of prefill, and differs from program to
# program. With its threshold fixed, at its first value, glibc maps large buffers, all alike.
# By number: so many bytes past a cache line, by work_buffer.cpp.
MAPPED, FREE = "mapped", "as it comes"
LAYOUTS = {MAPPED: {"MALLOC_MMAP_THRESHOLD_": "131072"}, FREE: {}}
LAYOUTS |= {place: {"BUFFER_PLACE": place} for place in ("0", "16", "32", "48")}

Speeds = dict[str, list[float]]  # tokens per second of each repetition, by phase


class Row(BaseModel):
    """What is needed of one test in llama-bench's JSON output."""

    build_commit: str
    cpu_info: str
    n_prompt: int
    n_gen: int
    samples_ts: list[float]


@dataclass
class Pair:
    """A slice of each, and the numbers of the readings before and after them are ``at``, + 1."""

    file: str
    layout: str
    lab: Speeds
    llama_bench: Speeds
    at: int


def peer_slice(binary: str, weights: Path, options: Options, layout: str) -> tuple[Row, Speeds]:
    """Run llama-bench once; a row of its facts, and the speeds of both tests."""
    layers = 99 if options.gpu_layers is None else options.gpu_layers
    command: list[str | Path] = [
        binary, "-m", weights, "-t", str(options.threads), "-p", str(PROMPT), "-n", str(GENERATE),
        "-r", str(REPETITIONS), "-o", "json", "-ngl", str(layers if options.device == "gpu" else 0),
    ]  # fmt: skip
    if options.device == "cpu":  # on a GPU build llama-bench would offload work all the same
        command += ["-nkvo", "1", "-nopo", "1"]
    if options.flash_attention != "auto":  # llama-bench's default
        command += ["-fa", options.flash_attention]
    if options.micro_batch:
        command += ["-ub", str(options.micro_batch), "-b", str(max(2048, options.micro_batch))]
    if options.mmap is not None:
        command += ["-lm", "mmap" if options.mmap else "none"]
    printed, _ = output_of(command, LAYOUTS[layout])
    try:
        rows = TypeAdapter(list[Row]).validate_json(printed)
        tests = {(row.n_prompt, row.n_gen): row for row in rows}
        prefill, decode = tests[PROMPT, 0], tests[0, GENERATE]
    except (ValidationError, KeyError) as error:
        raise LabError(f"{binary} did not print llama-bench's JSON for both tests") from error
    return prefill, {"prefill": prefill.samples_ts, "decode": decode.samples_ts}


def lab_slice(weights: Path, settings: str, layout: str) -> Speeds:
    """Run the lab's slice once, in a process of its own."""
    command: list[str | Path] = [
        sys.executable, Path(__file__).with_name("lab_slice.py"), "--weights", weights,
        "--settings", settings, "--prompt", str(PROMPT), "--generate", str(GENERATE),
        "--repetitions", str(REPETITIONS),
    ]  # fmt: skip
    speeds: Speeds = json.loads(output_of(command, LAYOUTS[layout])[0])
    return speeds


def table(pairs: list[Pair], readings: list[Reading]) -> list[str]:
    """The states, then each file's ratios by layout: of all pairs, and of those in a state."""
    states, labels = find_states(readings)
    lines = [
        f"State {letter}: {state.share:.0%} of the readings, {state.compute_flops / 1e9:.0f} GF/s,"
        f" {state.memory_bytes_per_second / 1e9:.1f} GB/s"
        for letter, state in zip(ascii_uppercase, states, strict=False)
    ]
    lines += ["", f"| file | layout | state | pairs | {' | '.join(PHASES)} |", "|---" * 6 + "|"]
    for file, layout in dict.fromkeys((p.file, p.layout) for p in pairs):
        own = [p for p in pairs if (p.file, p.layout) == (file, layout)]
        within = {"all": own}
        for number, letter in zip(range(len(states)), ascii_uppercase, strict=False):
            within[letter] = [p for p in own if labels[p.at] == labels[p.at + 1] == number]
        for name, some in within.items():
            if some:
                ratios = " | ".join(ratio(some, phase) for phase in PHASES)
                lines.append(f"| {file} | {layout} | {name} | {len(some)} | {ratios} |")
    return lines


def ratio(pairs: list[Pair], phase: str) -> str:
    """Lab / llama-bench with its interval."""
    return shown(in_pairs([p.lab[phase] for p in pairs], [p.llama_bench[phase] for p in pairs]))


def in_pairs(ours: list[list[float]], theirs: list[list[float]]) -> Estimate:
    """The ratio of each pair's medians, as an estimate."""
    return of_rounds([[median(a) / median(b)] for a, b in zip(ours, theirs, strict=True)])


def shown(estimate: Estimate) -> str:
    """A ratio with its interval."""
    if estimate.ci95 is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.ci95[0]:.3f} to {estimate.ci95[1]:.3f})"


def layout_table(pairs: list[Pair]) -> list[str]:
    """llama-bench's prefill in each layout over that of the same number as it comes."""
    layouts = [name for name in dict.fromkeys(p.layout for p in pairs) if name != FREE]
    lines = [
        f"| llama-bench's prefill | {' | '.join(layouts)} |",
        "|---" * (1 + len(layouts)) + "|",
    ]
    for file in dict.fromkeys(p.file for p in pairs):
        found = {
            layout: [
                p.llama_bench["prefill"] for p in pairs if (p.file, p.layout) == (file, layout)
            ]
            for layout in (*layouts, FREE)
        }
        cells = [shown(in_pairs(found[layout], found[FREE])) for layout in layouts]
        lines.append(f"| {file} | {' | '.join(cells)} |")
    return lines


def built(folder: Path) -> Path:
    """work_buffer.cpp as a library."""
    library, source = folder / "work_buffer.so", Path(__file__).with_name("work_buffer.cpp")
    output_of([program("c++"), "-O2", "-shared", "-fPIC", source, "-o", library])
    return library


def main(arguments: argparse.Namespace) -> None:
    plan, binary = default_plan(), program(arguments.llama_bench)
    files = weights_of(plan, arguments.variants)
    pairs: list[Pair] = []
    work = [
        (variant, layout, i)
        for i in range(arguments.pairs)
        for variant in files
        for layout in arguments.layouts
    ]
    threads = resolved(json.loads(plan.runtime_settings(arguments.variants[0]))).threads
    with (
        tempfile.TemporaryDirectory() as folder,
        yardsticks(threads) as read,
        progress("lab and llama-bench", len(work), "pairs") as advance,
    ):
        if preloaded := [name for name in arguments.layouts if name not in (MAPPED, FREE)]:
            library = str(built(Path(folder)))
            for name in preloaded:
                LAYOUTS[name]["LD_PRELOAD"] = library
        readings = [read()]
        for variant, layout, i in work:
            weights, settings = files[variant], plan.trial_settings(variant)
            if i % 2:
                lab = lab_slice(weights, settings, layout)
            facts, theirs = peer_slice(binary, weights, resolved(json.loads(settings)), layout)
            if not i % 2:
                lab = lab_slice(weights, settings, layout)
            pairs.append(Pair(weights.stem, layout, lab, theirs, len(readings) - 1))
            readings.append(read())
            advance(1)
    print(f"{facts.cpu_info}, {threads} threads; llama-bench of llama.cpp {facts.build_commit}\n")
    print("\n".join(table(pairs, readings)))
    if FREE in arguments.layouts and len(arguments.layouts) > 1:
        print("\n" + "\n".join(layout_table(pairs)))
    if arguments.output:
        record = {
            "facts": {"cpu": facts.cpu_info, "llama_cpp": facts.build_commit, "threads": threads},
            "pairs": [asdict(pair) for pair in pairs],
            "readings": [reading.model_dump() for reading in readings],
        }
        write_text(arguments.output, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--llama-bench", required=True, help="the program to run")
    parser.add_argument("--variants", nargs="+", default=[v for v in GGUF if v != "q5_k_m"])
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=[MAPPED, FREE])
    parser.add_argument("--pairs", type=int, default=30, help="of each variant and layout")
    parser.add_argument("--output", type=Path, help="every sample, as JSON")
    run(main, parser)
