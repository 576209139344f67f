"""The limits that a variant must meet, and how its figures stand to them."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, log

from minillm_lab.comparison.group import RESOLUTION, value_of
from minillm_lab.quality.verdict import LEVELS, loss
from minillm_lab.result import Metric, Result
from minillm_lab.wording import number

SPEED, MEMORY = "decode_tokens_per_second", "memory_peak_bytes"
ACCELERATOR = "accelerator_memory_peak_bytes"
DEFAULT_LOSS = "minor"
SAFE, BY_VALUE, FAILED, UNKNOWN = range(4)


@dataclass(frozen=True)
class Limits:
    """The limits that a variant must meet; None stands for no limit."""

    memory: float | None = None  # most bytes that the process may take
    accelerator: float | None = None  # most bytes on the accelerator
    speed: float | None = None  # least tokens decoded per second
    loss: str | None = None  # worst loss, one of LEVELS
    size: float | None = None  # most bytes of the file
    loss_is_assumed: bool = False  # nobody asked for that loss


def taken_on_gpu(result: Result) -> float | None:
    """Bytes that a variant took on a GPU; None where none was seen to be taken."""
    taken = value_of(result, ACCELERATOR)
    return taken if taken and taken > 0 else None


def default_limits(results: dict[str, Result]) -> Limits:
    """The limits without a user's own: at most minor loss, if quality was measured."""
    measured = any(loss(result.quality) for result in results.values())
    return Limits(loss=DEFAULT_LOSS if measured else None, loss_is_assumed=True)


@dataclass(frozen=True)
class Check:
    """The comparison of one figure with its limit."""

    outcome: int
    beyond: float  # log of the figure over its limit; larger is worse
    text: str


def interval(metric: Metric, speed: bool) -> tuple[float, float] | None:
    """The range of a figure: a speed's interval; of memory its samples, at least ``RESOLUTION``."""
    if speed or not metric.samples:
        return metric.ci95
    value = metric.value or 0.0
    found = [x for of_round in metric.samples for x in of_round]
    return min(*found, value / (1 + RESOLUTION)), max(*found, value * (1 + RESOLUTION))


def apart(limit: float, *figures: float) -> list[str]:
    """A limit, as it was asked for, and figures, with the decimals that tell them from it."""
    every, texts = [limit, *figures], list[str]()
    for decimals in range(7):
        texts = [max(number(x), f"{x:.{decimals}f}", key=places) for x in every]
        as_asked = abs(float(texts[0]) - limit) <= 5e-4 * abs(limit)
        if as_asked and len({*texts}) == len({*every}):
            break
    return texts


def places(text: str) -> int:
    """The number of decimals of a written number."""
    return len(text.partition(".")[2])


def limit_check(name: str, unit: str, measured: Metric | None, limit: float) -> Check:
    """A figure compared with its limit: a least speed (``unit`` t/s), or most bytes (MB)."""
    if measured is None or measured.value is None or measured.value <= 0:
        return Check(UNKNOWN, inf, f"its {name} was not measured, so it cannot be judged")
    speed = unit == "t/s"
    scale = 1.0 if speed else 1e-6
    ratio_ = measured.value / max(limit, 1e-9)
    beyond = -log(ratio_) if speed else log(ratio_)
    ends = interval(measured, speed)
    low, high = ends or (measured.value, measured.value)
    worst_is_within = low >= limit if speed else high <= limit
    end = low if speed else high
    wanted, is_, may_be = apart(*(scale * x for x in (limit, measured.value, end)))
    said, asked = f"{name} {is_} {unit}", f"the {wanted} {unit} asked for"
    if beyond > 0:
        how_far = f" by {100 * abs(1 - ratio_):.0f} %" if limit and abs(1 - ratio_) > 0.005 else ""
        relation = "is short of" if speed else "is over"
        return Check(FAILED, beyond, f"{said} {relation} {asked}{how_far}")
    if ends is None:
        text = f"{said} meets {asked}, but one measurement gives no interval"
        return Check(BY_VALUE, beyond, text)
    if not worst_is_within:
        text = f"{said} meets {asked} by its value, but it may be {may_be} {unit}"
        return Check(BY_VALUE, beyond, text)
    return Check(SAFE, beyond, f"{said} meets {asked}")


def loss_check(result: Result, limit: str) -> Check:
    """The verdict compared with the worst level allowed."""
    found, most = loss(result.quality), LEVELS.index(limit)
    if found is None:
        return Check(UNKNOWN, inf, "its quality was not measured, so its loss cannot be judged")
    if found.by_value > most or found.best > most:
        worse = max(found.by_value, found.best)
        text = f"{found} is more than the {limit} loss asked for"
        if found.best <= most:
            text = f"{found}: its values show more than the {limit} loss asked for"
        return Check(FAILED, (worse - most) * log(2), text)
    if found.worst > most:
        return Check(BY_VALUE, 0.0, f"{found}: at most {limit} loss is not proven")
    return Check(SAFE, 0.0, str(found))


def checks_of(result: Result, limits: Limits) -> Iterator[Check]:
    """The checks of every limit that is set, of the answer's sense, and of a measured speed."""
    metrics = result.metrics
    if result.output.flaw:
        yield Check(FAILED, inf, f"its answer means nothing: {result.output.flaw}")
    if limits.memory is not None:
        yield limit_check("memory", "MB", metrics.get(MEMORY), limits.memory)
    if limits.accelerator is not None and result.runtime["backend"] != "CPU":
        yield limit_check("accelerator memory", "MB", metrics.get(ACCELERATOR), limits.accelerator)
    if limits.size is not None:
        size = float(result.model.size)
        exact = Metric(value=size, unit="B", ci95=(size, size), n=1, samples=[])
        yield limit_check("file", "MB", exact, limits.size)
    if limits.speed is not None:
        yield limit_check("decode speed", "t/s", metrics.get(SPEED), limits.speed)
    elif metrics[SPEED].value is None:
        yield Check(UNKNOWN, inf, "its decode speed was not measured, so it cannot be ranked")
    if limits.loss is not None:
        yield loss_check(result, limits.loss)
