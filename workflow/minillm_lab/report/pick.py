"""Which variant to take, given limits, from the measured figures and their intervals.

A limit is met when the whole interval of the figure is within it. Where only the median is, the
limit is said to be met by the median alone, and such a variant is taken only where none is safe.
Loss is judged by the verdict's word (docs/quality.md). Of the variants that meet the limits and are
not worse than another in everything, the fastest in decoding is taken; of those that the data
cannot tell from the fastest, the one that lost least, then the one that takes least memory.
"""

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf, log

import psutil

from minillm_lab import machine
from minillm_lab.quality.verdict import LEVELS, verdict
from minillm_lab.report import folder
from minillm_lab.report.comparison import Comparison, Group, Ratio, by_machine
from minillm_lab.report.inert import code
from minillm_lab.report.learnings import times
from minillm_lab.report.table import number, size_of
from minillm_lab.result import Metric, Result
from minillm_lab.statistics import quotient

SPEED, MEMORY = "decode_tokens_per_second", "memory_peak_bytes"
WORDS = [level.partition(" ")[0] for level in LEVELS]  # as --max-loss takes them
DEFAULT_LOSS = "minor"
BYTES = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
SAFE, BY_MEDIAN, FAILED, UNKNOWN = range(4)


@dataclass(frozen=True)
class Limits:
    """What a variant may cost at most, and how fast it must be; None: no limit."""

    memory: float | None = None  # bytes that the process takes at most
    speed: float | None = None  # tokens decoded per second, at least
    loss: str | None = None  # one of WORDS
    size: float | None = None  # bytes of the file


@dataclass(frozen=True)
class Check:
    """How one figure stands to its limit."""

    outcome: int
    beyond: float  # log of the figure over its limit, the worse the larger
    text: str


@dataclass(frozen=True)
class Choice:
    """The variant to take and the next; None where there is none. ``nearest`` to the limits."""

    taken: str | None
    runner_up: str | None
    nearest: str | None
    tied: list[str]  # with the fastest, the fastest included
    beaten: dict[str, str]  # by another that meets the limits as well
    checks: dict[str, list[Check]]  # by variant


def against(what: str, unit: str, measured: Metric | None, limit: float) -> Check:
    """A measured figure against a limit: at least for speed (t/s), at most for bytes (MB)."""
    if measured is None or measured.value is None:
        return Check(UNKNOWN, inf, f"its {what} was not measured, so it cannot be judged")
    speed = unit == "t/s"

    def shown(value: float) -> str:
        return f"{number(value if speed else value / 1e6)} {unit}"

    ratio_ = measured.value / limit if limit else inf
    beyond = -log(ratio_) if speed else log(ratio_)
    low, high = measured.ci95 or (measured.value, measured.value)
    worst_is_within = low >= limit if speed else high <= limit
    said, asked = f"{what} {shown(measured.value)}", f"the {shown(limit)} asked for"
    if beyond > 0:
        how_far = f" by {100 * abs(1 - ratio_):.0f} %" if limit else ""
        relation = "is short of" if speed else "is over"
        return Check(FAILED, beyond, f"{said} {relation} {asked}{how_far}")
    if measured.ci95 is None:
        return Check(
            BY_MEDIAN, beyond, f"{said} meets {asked}, but measured once it has no interval"
        )
    if not worst_is_within:
        end = shown(low if speed else high)
        text = f"{said} meets {asked} by its median alone: the interval goes to {end}"
        return Check(BY_MEDIAN, beyond, text)
    return Check(SAFE, beyond, f"{said} meets {asked}")


def loss_of(result: Result) -> int | None:
    """The verdict as a level, 0 for indistinguishable; None where quality was not measured."""
    said = verdict(result.quality)
    return None if said is None else LEVELS.index(said)


def checks_of(result: Result, limits: Limits) -> Iterator[Check]:
    """Every limit that is set, and that there is a speed to rank by."""
    metrics = result.metrics
    if limits.memory is not None:
        yield against("memory", "MB", metrics.get(MEMORY), limits.memory)
    if limits.size is not None:
        size = float(size_of(result))
        exact = Metric(value=size, unit="B", ci95=(size, size), n=1, samples=[])
        yield against("file", "MB", exact, limits.size)
    if limits.speed is not None:
        yield against("decode speed", "t/s", metrics.get(SPEED), limits.speed)
    elif metrics[SPEED].value is None:
        yield Check(UNKNOWN, inf, "its decode speed was not measured, so it cannot be ranked")
    if limits.loss is not None:
        level, most = loss_of(result), WORDS.index(limits.loss)
        if level is None:
            yield Check(UNKNOWN, inf, "its quality was not measured, so its loss cannot be judged")
        elif level > most:
            text = f"{LEVELS[level]} is more than the {LEVELS[most]} asked for"
            yield Check(FAILED, (level - most) * log(2), text)
        else:
            yield Check(SAFE, 0.0, LEVELS[level])


def figures(result: Result) -> tuple[float, ...]:
    """What a variant costs, each the lower the better: time, memory, size, loss."""
    speed, memory = result.metrics[SPEED].value, result.metrics[MEMORY].value
    lost = (result.quality or {}).get("kld_mean")
    return (
        -(speed or 0),
        inf if memory is None else memory,
        size_of(result),
        inf if lost is None or lost.value is None else lost.value,
    )


def beaten(names: list[str], results: dict[str, Result]) -> dict[str, str]:
    """Variants than which another is as good in everything and better in something, and which."""
    costs = {n: figures(results[n]) for n in names}
    return {
        name: other
        for name, mine in costs.items()
        for other, theirs in costs.items()
        if theirs != mine and all(a <= b for a, b in zip(theirs, mine, strict=True))
    }


def first(names: list[str], tied: list[str], results: dict[str, Result]) -> str:
    """The one to take: of those that tie with the fastest, the least loss, the least memory.

    Where nothing was tested, the fastest by its figure.
    """
    if not (preferred := [n for n in names if n in tied]):
        return min(names, key=lambda n: figures(results[n]))
    return min(preferred, key=lambda n: (loss_of(results[n]) or 0, figures(results[n])[1]))


def choose(group: Group, limits: Limits) -> Choice:
    """The variant to take among the results of one machine, and the next best."""
    results = group.results
    checks = {name: list(checks_of(result, limits)) for name, result in results.items()}
    worst = {n: max((c.outcome for c in found), default=SAFE) for n, found in checks.items()}
    order: list[str] = []
    equals: list[str] = []
    out: dict[str, str] = {}
    for outcome in (SAFE, BY_MEDIAN):
        fitting = [n for n in results if worst[n] == outcome]
        out |= beaten(fitting, results)
        left = [n for n in fitting if n not in out]
        while left and len(order) < 2:
            tied = group.tied(SPEED, [n for n in fitting if n not in order])
            equals = equals or tied
            order.append(first(left, tied, results))
            left.remove(order[-1])

    def distance(name: str) -> tuple[int, float]:
        failed = [c for c in checks[name] if c.outcome >= FAILED]
        return len(failed), sum(c.beyond for c in failed)

    return Choice(
        taken=order[0] if order else None,
        runner_up=order[1] if len(order) > 1 else None,
        nearest=None if order or not results else min(results, key=distance),
        tied=equals,
        beaten=out,
        checks=checks,
    )


def in_short(name: str, result: Result) -> str:
    """A variant's figures in one line: speed with its interval, memory, size, verdict."""
    speed, memory = result.metrics[SPEED], result.metrics[MEMORY]
    text = f"{code(name)}: decodes {number(speed.value or 0)} t/s"
    if speed.ci95:
        text += f" ({number(speed.ci95[0])} to {number(speed.ci95[1])})"
    if memory.value is not None:
        text += f", takes {number(memory.value / 1e6)} MB of memory at most"
    text += f", {number(size_of(result) / 1e6)} MB file"
    accelerator = result.metrics.get("accelerator_memory_peak_bytes")
    if accelerator and accelerator.value:
        text += f", and {number(accelerator.value / 1e6)} MB on the accelerator"
    return text + f", {verdict(result.quality) or 'quality not measured'}"


def why(choice: Choice, group: Group) -> str:
    """What put the taken variant before the others."""
    results = group.results
    taken, runner_up = choice.taken, choice.runner_up
    assert taken is not None
    outcomes = {n: max((c.outcome for c in cs), default=SAFE) for n, cs in choice.checks.items()}
    fitting = sum(outcome == outcomes[taken] for outcome in outcomes.values())
    if fitting == 1:
        return "it is the only one that " + (
            "meets every limit." if outcomes[taken] == SAFE else "may meet every limit."
        )
    others = [n for n in choice.tied if n != taken]
    if taken in choice.tied and others:
        listed = ", ".join(code(n) for n in others)
        by_loss = len({loss_of(results[n]) for n in choice.tied}) > 1
        decided = "lost least" if by_loss else "takes least memory"
        return f"a tie in decode speed with {listed}; of them it {decided}."
    ratios = group.ratios(SPEED)
    if runner_up is None or not {taken, runner_up} <= ratios.keys():
        return "it is the fastest that meets the limits."
    found = quotient(ratios[taken], ratios[runner_up])
    if found.ci95 is None:
        return "it is the fastest that meets the limits, by its figure: it was not tested."
    ratio = Ratio(value=found.value, ci95=found.ci95, tie=not found.excludes(1))
    return f"it is the fastest that meets the limits, {times(ratio)} as fast as the runner-up."


def advice(group: Group, limits: Limits) -> str:
    """What to take and why, as Markdown."""
    choice, results = choose(group, limits), group.results
    if choice.taken is None:
        lines = ["**No variant meets these limits.**", ""]
        if choice.nearest:
            lines += [f"- Nearest: {in_short(choice.nearest, results[choice.nearest])}"]
    else:
        lines = [f"**Take {in_short(choice.taken, results[choice.taken])}.**", ""]
        lines += [f"- Why: {why(choice, group)}"]
        if choice.runner_up:
            lines += [f"- Runner-up: {in_short(choice.runner_up, results[choice.runner_up])}"]
    shown = {choice.taken, choice.runner_up}
    for name, checks in choice.checks.items():
        doubts = [c.text for c in checks if c.outcome != SAFE]
        if name in choice.beaten:
            doubts.append(f"{code(choice.beaten[name])} is as good or better in everything")
        if doubts:
            mark = "but" if name in shown else "out"
            lines.append(f"- {code(name)} {mark}: {'; '.join(doubts)}")
    return "\n".join(lines)


def recommendation(comparison: Comparison) -> str:
    """The README's line: what to take on each machine measured, with no limit but loss."""
    groups = by_machine(comparison.results)
    lines = []
    for fingerprint, results in groups.items():
        measured = any(loss_of(r) is not None for r in results.values())
        group = Group(results, comparison.baseline)
        choice = choose(group, Limits(loss=DEFAULT_LOSS if measured else None))
        where = f" on {code(fingerprint)}" if len(groups) > 1 else ""
        limit = f" with at most {DEFAULT_LOSS} loss" if measured else ", quality not measured"
        if choice.taken is None:
            lines.append(f"**Recommended{where}**: nothing{limit}.")
            continue
        text = f"**Recommended{where}**{limit}: {in_short(choice.taken, results[choice.taken])}."
        text += f" Why: {why(choice, group)}"
        if choice.runner_up:
            text += f" Runner-up: {code(choice.runner_up)}."
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
    parser.add_argument("--max-loss", choices=WORDS, help=f"default: {DEFAULT_LOSS}")
    parser.add_argument("--max-size", type=bytes_of, help="of the model's file")
    folder.add_arguments(parser)


def main(arguments: argparse.Namespace) -> None:
    comparison = folder.read_comparison(arguments.results)
    here = machine.describe()["fingerprint"]
    results = folder.of_one_machine(comparison.results, arguments.machine, here)
    limits = Limits(
        arguments.max_memory, arguments.min_speed, arguments.max_loss, arguments.max_size
    )
    notes = []
    if limits.memory is None:
        limits = replace(limits, memory=float(psutil.virtual_memory().available))
        notes.append(f"memory at most the {number((limits.memory or 0) / 1e6)} MB free here now")
    if limits.loss is None and any(loss_of(r) is not None for r in results.values()):
        limits = replace(limits, loss=DEFAULT_LOSS)
        notes.append(f"loss at most {DEFAULT_LOSS}")
    elif limits.loss is None:
        notes.append("loss not considered, since quality was not measured")
    lines = [advice(Group(results, comparison.baseline), limits), ""]
    if notes:
        lines.append(f"Assumed: {'; '.join(notes)}.")
    measured = next(iter(results.values())).machine["fingerprint"]
    other = "" if measured == here else f", which is not this one ({code(here)})"
    lines.append(f"Measured on machine {code(measured)}{other}.")
    print("\n".join(lines))
