"""The shape of ``results/comparison.json``: everything that the pages say, computed once."""

from pydantic import Field

from minillm_lab.records import Record
from minillm_lab.result import Metric, Result


class Ratio(Record):
    """One variant's metric over another's, with its 95 % interval; null: it was not tested."""

    value: float
    ci95: tuple[float, float] | None
    tie: bool = Field(description="tested, and the data do not support a difference")


class Factor(Record):
    """One step between the baseline and a variant, and what it does to decode speed."""

    change: str = Field(description="runtime, device, quantization, or several together")
    start: str = Field(description="the variant before the step")
    end: str = Field(description="the variant after it")
    decode: Ratio


class Precision(Record):
    """How near the decode ratios are to the precision asked for."""

    goal: float = Field(description="half-width of the interval over the value: 0.02 for 2%")
    reached: dict[str, float | None] = Field(description="by variant; null: one trial only")
    trials: int | None = Field(description="trials in all that would reach it for every variant")


class StateFigures(Record):
    """A state of the machine, and the figures of trials in it."""

    compute_flops: float = Field(description="median of the compute yardstick in this state")
    memory_bytes_per_second: float = Field(description="median of the memory yardstick in it")
    share: float = Field(description="of all readings of the yardsticks")
    trials: dict[str, int] = Field(description="by variant")
    metrics: dict[str, dict[str, Metric]] = Field(description="by variant, by metric")
    ratios: dict[str, dict[str, Ratio]] = Field(description="to the baseline, by variant")


class Comparison(Record):
    """``results/comparison.json``.

    Speeds in ``results`` are those of trials in the most frequent state of their machine.
    """

    schema_version: int = 2
    baseline: str
    command: str
    results: dict[str, Result] = Field(description="by variant, in the config's order")
    ratios: dict[str, dict[str, Ratio]] = Field(description="to the baseline, by variant")
    best: dict[str, list[str]] = Field(description="by metric: the best, and who ties with it")
    factors: dict[str, list[Factor]]
    cold_loads: dict[str, Ratio] = Field(description="cold over warm load, by variant")
    states: dict[str, list[StateFigures]] = Field(
        description="by the machine's fingerprint, the most frequent first"
    )
    claims: int = Field(description="how many comparisons the page makes")
    cutoff: float = Field(description="the largest p-value of what the page claims; 0: nothing")
    precision: Precision | None = Field(description="null: no goal was set")
    failed: dict[str, str] = Field({}, description="why a variant has no result, by variant")
