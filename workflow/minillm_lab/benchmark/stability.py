"""Warnings about doubtful figures: spread, other load, throttling, power.

The thresholds follow pyperf's rules (a standard deviation over 10 % of the mean is unstable). The
scatter of trials is in their intervals, and the states of the machine are shown under the table.
"""

from collections.abc import Iterator
from itertools import chain
from statistics import median

from minillm_lab.benchmark.machine import OTHER_LOAD
from minillm_lab.records import Repetition, Round

SPREAD = 0.10  # of decode speed between repetitions of a round
STOLEN = 0.02  # of the CPU time
SLOWDOWN = 0.05  # of decode speed from the first answer of a round to its last
CLOCK_DROP = 0.10


def instabilities(rounds: list[Round]) -> list[str]:
    """Warnings about a variant's rounds, the most important first; empty if all was quiet."""
    return list(chain(_surroundings(rounds), _slowdown(rounds), _spread(rounds)))


def decode_speed(repetition: Repetition) -> float:
    """The engine's decode speed in one answer, in tokens per second."""
    return len(repetition.decode_seconds) / sum(repetition.decode_seconds)


def _surroundings(rounds: list[Round]) -> Iterator[str]:
    conditions = [r.conditions for r in rounds]
    load = [c.other_load_cores for c in conditions]
    busy = sum(x > OTHER_LOAD for x in load)
    if busy:
        yield (
            f"other load on the machine in {busy} of {len(rounds)} rounds: other processes kept"
            f" up to {max(load):.1f} cores busy; close them and run again, or lower 'threads' to"
            " the"
            " cores that they leave"
        )
    stolen = max((c.stolen_share for c in conditions if c.stolen_share is not None), default=0)
    if stolen > STOLEN:
        yield f"the hypervisor took up to {stolen:.0%} of the CPU time for other machines"
    changes = [c.frequency_change for c in conditions if c.frequency_change]
    if changes and min(changes) < 1 - CLOCK_DROP:
        yield f"the CPU clock fell during a round, to {min(changes):.0%} of what it was"
    if any(c.governor == "powersave" for c in conditions):
        yield "the CPU governor is powersave; with performance, figures are steadier"
    if any(c.on_battery for c in conditions):
        yield "measured on battery power; plug in and run again"


def _slowdown(rounds: list[Round]) -> Iterator[str]:
    """Throttling shows in the last answer of a round compared with its first, warm-ups included."""
    answers = [[decode_speed(x) for x in (*r.warmups, *r.repetitions)] for r in rounds]
    change = median(speeds[-1] / speeds[0] for speeds in answers)
    if change < 1 - SLOWDOWN:
        yield (
            f"decode slows down within a round, to {change:.0%} from the first answer to the last;"
            " the machine may be throttling"
        )


def _spread(rounds: list[Round]) -> Iterator[str]:
    speeds = [[decode_speed(x) for x in r.repetitions] for r in rounds]
    within = max((max(s) - min(s)) / median(s) for s in speeds)
    if within > SPREAD:
        yield f"decode speed differs by {within:.0%} between repetitions of one round"
