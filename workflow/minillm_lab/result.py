"""The shape of a variant's result: ``results/<variant>.json``."""

import re
from typing import Any, Literal

from pydantic import Field

from minillm_lab.records import HurtToken, Output, QualityMetric, Reading, Record


class TrialSample(Record):
    """A block of a trial in a result: the median over its slices, by metric."""

    trial: int
    measured_at: str
    fingerprint: str = Field(description="of the machine")
    before: Reading
    after: Reading
    disturbed: str | None = Field(description="why it is set aside, in words; null: it is not")
    speeds: dict[str, float] = Field(description="the variant's")
    baseline_speeds: dict[str, float]
    ratios: dict[str, float] = Field(description="the variant's over the baseline's, by slice")


class ModelFile(Record):
    """One file of the weights."""

    path: str
    bytes: int
    sha256: str


class ModelFacts(Record):
    """Which model, and what its file really holds."""

    name: str
    source: dict[str, Any]
    revision: str | None
    files: list[ModelFile]
    format: Literal["gguf", "safetensors"]
    quantization: str = Field(description="as asked for: the file's name, not its content")
    parameters: int
    bits_per_weight: float
    tensor_types: dict[str, float] = Field(description="share of the parameters in each type")
    rows_not_of_256: dict[str, float] = Field(
        {}, description="row lengths that 256 does not divide: share of the parameters"
    )
    context: int | None = Field(None, description="tokens the model is made for; null: not said")
    read_bytes: int | None = Field(
        None, description="of weights, that decoding a token reads; null: it depends on the token"
    )

    @property
    def size(self) -> int:
        """Bytes of the weights on disk."""
        return sum(file.bytes for file in self.files)

    @property
    def share_of_named_type(self) -> float:
        """The share of the parameters in the type the file is named for; 1 where it names none."""
        if self.format != "gguf":
            return 1.0
        return self.tensor_types.get(re.sub("_[SML]$", "", self.quantization), 0.0)


class Metric(Record):
    """A figure: the median, its 95 % interval, and the raw samples by round."""

    value: float | None
    unit: str
    ci95: tuple[float, float] | None
    n: int
    samples: list[list[float]]


class Result(Record):
    """``results/<variant>.json``: SI base units, strict JSON."""

    schema_version: Literal[2] = 2
    lab_version: str = Field(description="of minillm-lab, when the result was put together")
    variant: str
    model: ModelFacts
    runtime: dict[str, Any]
    machine: dict[str, Any]
    protocol: dict[str, Any]
    metrics: dict[str, Metric] = Field(description="of the rounds")
    round_readings: list[tuple[Reading, Reading]] = Field(
        description="the yardsticks before and after each round"
    )
    round_times: list[str] = Field(description="when each round was measured")
    trials: list[TrialSample] = Field(
        description="blocks of trials against the baseline; none of itself"
    )
    no_trials: str | None = Field(None, description="why there are none, where some were asked for")
    decode_seconds_by_token: list[float] = Field(
        description="median time of each token along the answer, from the second on"
    )
    quality: dict[str, QualityMetric] | None = Field(None, description="null: not measured")
    quality_by_chunk: dict[str, list[float]] = Field(
        {}, description="kld_mean, same_top and surprise (nats per token) of each chunk"
    )
    quality_by_section: dict[str, QualityMetric] = Field(
        {}, description="kld_mean of parts of the text, where it has any"
    )
    quality_bits_by_block: list[tuple[float, float, int]] = Field(
        [], description="of blocks of the text: the variant's bits, the reference's, and bytes"
    )
    quality_hurt_most: list[HurtToken] = Field(
        [], description="the tokens of the largest divergence"
    )
    output: Output
    measured_at: str
    warnings: list[str]


def depths(*results: Result) -> list[int]:
    """The prompt lengths at which speed was measured besides the prompt, shortest first."""
    found = {
        (int(metric.rpartition("_at_")[2]), r.protocol["prompt_tokens"])
        for r in results
        for metric in r.metrics
        if "_at_" in metric
    }
    return sorted({length for length, prompt in found if length != prompt})
