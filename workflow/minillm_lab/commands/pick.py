"""Choose the variant to take on this machine, within limits, and say why."""

import argparse
import re
from dataclasses import replace

from minillm_lab.benchmark import machine
from minillm_lab.commands import folder
from minillm_lab.comparison.group import group_of
from minillm_lab.comparison.limits import DEFAULT_LOSS, Limits, default_limits
from minillm_lab.jobs.limits import memory_available
from minillm_lab.quality.verdict import LEVELS
from minillm_lab.report.legend import states_in_short
from minillm_lab.report.recommendation import advice
from minillm_lab.wording import as_code, number

BYTES = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

EXAMPLES = (
    "minillm-lab pick",
    "minillm-lab pick --max-memory 600MB --min-speed 20 --max-loss minor",
    "minillm-lab pick --results results/qwen2.5-0.5b-instruct --max-size 1GiB",
)


def bytes_of(given: str) -> float:
    """A size on the command line (600MB, 1.5GiB, …) in bytes."""
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?) ?([a-zA-Z]+)", given, re.ASCII)
    units = {unit.lower(): factor for unit, factor in BYTES.items()}
    if not found or found[2].lower() not in units:
        raise argparse.ArgumentTypeError(f"{given!r} is not a size; write it as 600MB or 1.5GiB")
    return float(found[1]) * units[found[2].lower()]


def speed_of(given: str) -> float:
    """A speed on the command line: tokens per second, not below zero."""
    if not re.fullmatch(r"\d{1,9}(\.\d{1,6})?", given, re.ASCII):
        raise argparse.ArgumentTypeError(
            f"{given!r} is not a speed; write tokens per second, as 20"
        )
    return float(given)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-memory", type=bytes_of, help="default: this machine's free memory")
    parser.add_argument(
        "--min-speed", type=speed_of, help="least decode speed, in tokens per second"
    )
    parser.add_argument(
        "--max-accelerator-memory", type=bytes_of, help="default: this accelerator's free memory"
    )
    parser.add_argument("--max-loss", choices=LEVELS, help=f"default: {DEFAULT_LOSS}")
    parser.add_argument("--max-size", type=bytes_of, help="largest model file; default: any")
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
        notes.append(f"at most the {number((limits.memory or 0) / 1e6)} MB of memory free here now")
    on_accelerator = any(r.runtime["backend"] != "CPU" for r in results.values())
    free = machine.accelerator_memory("free") if on_accelerator else []
    if limits.accelerator is None and free:
        most = max(free)
        limits = replace(limits, accelerator=float(most))
        notes.append(f"at most the {number(most / 1e6)} MB of accelerator memory free here now")
    if limits.loss is None and (default := default_limits(results).loss):
        limits = replace(limits, loss=default, loss_is_assumed=True)
        notes.append(f"at most {default} loss")
    elif limits.loss is None:
        notes.append("any loss, since quality was not measured")
    lines = [advice(group_of(comparison, results), limits), ""]
    if notes:
        lines.append(f"Assumed: {'; '.join(notes)}.")
    measured = next(iter(results.values())).machine["fingerprint"]
    other = "" if measured == here else f", which is not this machine ({as_code(here)})"
    lines.append(f"Measured on machine {as_code(measured)}{other}.")
    lines += filter(
        None, [states_in_short(comparison, "the page has those of the others", measured)]
    )
    print("\n".join(lines))
