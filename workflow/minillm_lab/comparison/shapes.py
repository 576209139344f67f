"""The shape of ``results/comparison.json``, which holds everything that the pages say."""

from pydantic import Field

from minillm_lab.records import Record
from minillm_lab.result import Metric, Result


class Ratio(Record):
    """A metric of one variant over that of another; its interval is null if it was not tested."""

    value: float
    ci95: tuple[float, float] | None
    tie: bool = Field(
        description="The ratio was tested, and the data do not support a difference from 1."
    )


class Factor(Record):
    """One step on the way from the baseline to a variant, and its effect on decode speed."""

    change: str = Field(
        description="The step changes the runtime, the device, the quantization, or several of"
        " them."
    )
    start: str = Field(description="The step starts from this variant.")
    end: str = Field(description="The step ends at this variant.")
    decode: Ratio = Field(description="It is the decode speed at the end over that at the start.")


class Precision(Record):
    """The precision of the decode ratios, beside the goal that the config sets."""

    goal: float = Field(
        description="It is the interval's half-width over the value, such as 0.02 for 2%."
    )
    reached: dict[str, float | None] = Field(
        description="It holds each variant's precision; null if one trial gives none."
    )
    trials: int | None = Field(
        description="This many trials in all would bring every variant within the goal."
    )


class StateFigures(Record):
    """A state of the machine, and the figures of the trials in it, by variant."""

    compute_flops: float = Field(
        description="It is the median of the compute yardstick in this state."
    )
    memory_bytes_per_second: float = Field(
        description="It is the median of the memory yardstick in this state."
    )
    compute_range: tuple[float, float] | None = Field(
        default=None,
        description="Nine of ten readings of the compute yardstick in this state are within it.",
    )
    memory_range: tuple[float, float] | None = Field(
        default=None,
        description="Nine of ten readings of the memory yardstick in this state are within it.",
    )
    share: float = Field(
        description="This share of all readings of the yardsticks is in the state."
    )
    trials: dict[str, int] = Field(description="It holds each variant's number of trials.")
    metrics: dict[str, dict[str, Metric]] = Field(description="It holds each variant's metrics.")
    ratios: dict[str, dict[str, Ratio]] = Field(
        description="It holds each variant's ratios to the baseline, by metric."
    )


class Comparison(Record):
    """``results/comparison.json``: all variants of an experiment, compared.

    The speeds in ``results`` are those of trials in the most frequent state of their machine.
    """

    schema_version: int = 2
    baseline: str
    command: str
    results: dict[str, Result] = Field(
        description="It holds each variant's result, model by model, in the config's order."
    )
    ratios: dict[str, dict[str, Ratio]] = Field(
        description="It holds each variant's ratios to the baseline, by metric."
    )
    best: dict[str, list[str]] = Field(
        description="For each metric, it names the best variant and those tied with it."
    )
    factors: dict[str, list[Factor]] = Field(
        description="It holds the steps from the baseline to each variant."
    )
    cold_loads: dict[str, Ratio] = Field(
        description="It holds each variant's cold load over its warm load."
    )
    states: dict[str, list[StateFigures]] = Field(
        description="It holds the states of each machine by its fingerprint, the most frequent"
        " first."
    )
    claims: int = Field(description="The page makes this many comparisons.")
    cutoff: float = Field(
        description="It is the largest p-value of a difference that the page claims; 0 if it claims"
        " none."
    )
    precision: Precision | None = Field(description="It is null if the config sets no goal.")
    failed: dict[str, str] = Field(
        {}, description="For each variant that has no result, it says why."
    )
