"""The console's and the page's words on which variant to take: choice.py takes it."""

import argparse
import re
from dataclasses import replace

from minillm_lab import machine
from minillm_lab.limits import memory_available
from minillm_lab.quality.verdict import LEVELS, verdict
from minillm_lab.report import folder, quality
from minillm_lab.report.choice import (
    ACCELERATOR,
    DEFAULT_LOSS,
    FAILED,
    MEMORY,
    SAFE,
    SPEED,
    Choice,
    Limits,
    choose,
    default_limits,
)
from minillm_lab.report.comparison import Comparison, Group, by_machine, group_of
from minillm_lab.report.inert import code, inert
from minillm_lab.report.table import number, size_of
from minillm_lab.result import Result

BYTES = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def in_short(name: str, result: Result) -> str:
    """A variant's figures in one line: speed with its interval, memory, size, verdict."""
    speed, memory = result.metrics[SPEED], result.metrics[MEMORY]
    decoded = "decode speed not measured"
    if speed.value is not None:
        decoded = f"decodes {number(speed.value)} t/s"
    text = f"{code(name)}: {decoded}"
    if speed.ci95:
        text += f" ({number(speed.ci95[0])} to {number(speed.ci95[1])})"
    if memory.value is not None:
        text += f", takes {number(memory.value / 1e6)} MB of memory at most"
    text += f", {number(size_of(result) / 1e6)} MB file"
    accelerator = result.metrics.get(ACCELERATOR)
    if accelerator and accelerator.value:
        text += f", and {number(accelerator.value / 1e6)} MB on the accelerator"
    text += f", {verdict(result.quality) or 'quality not measured'}"
    if bits := (result.quality or {}).get("bits_per_byte"):
        text += f", {quality.cell(bits, 1, 3)} bits per byte of text"
    return text


def advice(group: Group, limits: Limits) -> str:
    """What to take and why, as Markdown."""
    choice, results = choose(group, limits), group.results
    if choice.taken is None:
        lines = ["**No variant meets these limits.**", ""]
        if choice.nearest:
            lines += [f"- Nearest: {in_short(choice.nearest, results[choice.nearest])}"]
    else:
        lines = [f"**Take {in_short(choice.taken, results[choice.taken])}.**", ""]
        lines += [f"- Why: {choice.why}."]
        if choice.runner_up:
            lines += [f"- Runner-up: {in_short(choice.runner_up, results[choice.runner_up])}"]
        lines += between(choice, results)
    shown = {choice.taken, choice.runner_up, *choice.of_models.values()}
    for name, checks in choice.checks.items():
        doubts = [c.text for c in checks if c.outcome != SAFE]
        if name in choice.beaten:
            other = code(choice.beaten[name])
            doubts.append(f"{other} is measurably better in something and worse in nothing")
        if doubts:
            out = name in choice.beaten or any(c.outcome >= FAILED for c in checks)
            mark = "but" if name in shown else "out" if out else "not taken"
            lines.append(f"- {code(name)} {mark}: {'; '.join(doubts)}")
    return "\n".join(lines)


def between(choice: Choice, results: dict[str, Result]) -> list[str]:
    """What to take of each model but the one chosen, and how the models compare."""
    return [
        f"- Of {inert(model)}: {in_short(name, results[name])}"
        for model, name in choice.of_models.items()
    ]


def recommendation(comparison: Comparison) -> str:
    """The README's line: what to take on each machine measured, with no limit but loss."""
    groups = by_machine(comparison.results)
    lines = []
    for fingerprint, results in groups.items():
        limits = default_limits(results)
        choice = choose(group_of(comparison, results), limits)
        where = f" on {code(fingerprint)}" if len(groups) > 1 else ""
        limit = f" with at most {limits.loss} loss" if limits.loss else ", quality not measured"
        if choice.taken is None:
            nearest = choice.nearest or ""
            why = [c.text for c in choice.checks.get(nearest, []) if c.outcome != SAFE]
            said = f" {code(nearest)}, the nearest: {'; '.join(why)}." if why else ""
            lines.append(f"**Recommended{where}**: nothing{limit}.{said}")
            continue
        text = f"**Recommended{where}**{limit}: {in_short(choice.taken, results[choice.taken])}."
        text += f" Why: {choice.why}."
        if choice.runner_up:
            text += f" Runner-up: {code(choice.runner_up)}."
        for model, name in choice.of_models.items():
            text += f" Of {inert(model)}: {in_short(name, results[name])}."
        lines.append(text)
    return "\n\n".join(lines) + " With limits of your own: `minillm-lab pick`."


def bytes_of(given: str) -> float:
    """600MB, 1.5GiB, … in bytes."""
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?) ?([a-zA-Z]+)", given, re.ASCII)
    units = {unit.lower(): factor for unit, factor in BYTES.items()}
    if not found or found[2].lower() not in units:
        raise argparse.ArgumentTypeError(f"{given!r} is no size; write it as 600MB or 1.5GiB")
    return float(found[1]) * units[found[2].lower()]


def speed_of(given: str) -> float:
    """Tokens per second: a number, not below zero."""
    if not re.fullmatch(r"\d{1,9}(\.\d{1,6})?", given, re.ASCII):
        raise argparse.ArgumentTypeError(f"{given!r} is no speed; write tokens per second, as 20")
    return float(given)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-memory", type=bytes_of, help="default: this machine's free memory")
    parser.add_argument("--min-speed", type=speed_of, help="of decoding, in tokens per second")
    parser.add_argument(
        "--max-accelerator-memory", type=bytes_of, help="default: this accelerator's free memory"
    )
    parser.add_argument("--max-loss", choices=LEVELS, help=f"default: {DEFAULT_LOSS}")
    parser.add_argument("--max-size", type=bytes_of, help="of the model's file")
    folder.add_arguments(parser)


def main(arguments: argparse.Namespace) -> None:
    comparison = folder.read_comparison(arguments.results)
    here = machine.describe()["fingerprint"]
    results = folder.of_one_machine(comparison.results, arguments.machine, here)
    limits = Limits(
        memory=arguments.max_memory,
        accelerator=arguments.max_accelerator_memory,
        speed=arguments.min_speed,
        loss=arguments.max_loss,
        size=arguments.max_size,
    )
    notes = []
    if limits.memory is None:
        limits = replace(limits, memory=float(memory_available()))
        notes.append(f"memory at most the {number((limits.memory or 0) / 1e6)} MB free here now")
    on_accelerator = any(r.runtime["backend"] != "CPU" for r in results.values())
    if (
        limits.accelerator is None
        and on_accelerator
        and (free := machine.accelerator_memory_free())
    ):
        limits = replace(limits, accelerator=float(free))
        notes.append(f"accelerator memory at most the {number(free / 1e6)} MB free here now")
    if limits.loss is None and (default := default_limits(results).loss):
        limits = replace(limits, loss=default)
        notes.append(f"loss at most {default}")
    elif limits.loss is None:
        notes.append("loss not considered, since quality was not measured")
    lines = [advice(group_of(comparison, results), limits), ""]
    if notes:
        lines.append(f"Assumed: {'; '.join(notes)}.")
    measured = next(iter(results.values())).machine["fingerprint"]
    other = "" if measured == here else f", which is not this one ({code(here)})"
    lines.append(f"Measured on machine {code(measured)}{other}.")
    print("\n".join(lines))
