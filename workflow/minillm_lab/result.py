"""The shape of a variant's result: ``results/<variant>.json``."""

import re
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field

from minillm_lab.recipe import Recipe
from minillm_lab.records import HurtToken, Output, QualityMetric, Reading, Record

# How the name of a GGUF file of quantized weights ends, in parts or whole, by a matrix or without.
QUANTIZED = re.compile(
    r"(?:(?:^|[-_.])(?:I?Q\d|TQ\d|MXFP4)\w*(?:\+imatrix(?:-\w+)?)?(?:\+tensors-\w+)?"
    r"|^recipe(?:\+imatrix(?:-\w+)?)?\+size-\w+)"
    r"(?:-\d+-of-\d+)?\.gguf$",
    re.I,
)
# What most tensors of a file are stored in, where its type is named otherwise (llama-quant.cpp).
MAIN_TYPES = {
    "IQ3_XS": "IQ3_S", "IQ3_M": "IQ3_S", "IQ2_M": "IQ2_S", "IQ2_S": "IQ2_XS", "MXFP4_MOE": "MXFP4",
}  # fmt: skip
OF_CONTEXT = "kld_mean_at_"  # how the figures of long contexts begin, before the tokens


def main_type(type_: str) -> str:
    """The type that most tensors of a file of a type are to be stored in: Q4_K for Q4_K_M."""
    return MAIN_TYPES.get(type_, re.sub("(?<=K)_[SML]$", "", type_))


class TrialSample(Record):
    """A block of a trial: by metric, the median over its slices."""

    trial: int
    measured_at: str
    fingerprint: str = Field(description="The trial ran on the machine with this fingerprint.")
    before: Reading
    after: Reading
    disturbed: str | None = Field(
        description="It says why the trial does not count; null if the trial counts."
    )
    speeds: dict[str, float] = Field(description="It holds the variant's times and speeds.")
    baseline_speeds: dict[str, float] = Field(
        description="It holds the baseline's times and speeds."
    )
    ratios: dict[str, float] = Field(
        description="It holds the variant's values over the baseline's, centred over cycles."
    )


class ModelFile(Record):
    """A file that holds weights, with its size in bytes."""

    path: str
    bytes: int
    sha256: str


class ModelFacts(Record):
    """The model, and what its file really holds."""

    name: str
    source: dict[str, Any]
    revision: str | None
    files: list[ModelFile]
    format: Literal["gguf", "safetensors", "openvino", "onnx"]
    quantization: str = Field(
        description="The config asked for this type, or a file taken as published has it by its"
        " header; tensor_types says what the file holds."
    )
    label: str | None = Field(
        None,
        description="The config names a file taken as published by this key; null if the key is"
        " its type, or the file was made by the lab.",
    )
    imatrix: dict[str, str | int] | None = Field(
        None,
        description="It holds what the file's header says of the importance matrix that it was made"
        " with; null without one.",
    )
    tensors: dict[str, str] = Field(
        {},
        description="The config asked for a mixture: types of tensors, by patterns of their names;"
        " the first pattern found in a name decides. It is empty without one.",
    )
    recipe: Recipe | None = Field(
        None,
        description="The types of tensors were chosen to lose least at a size, in a time, or both;"
        " null if they were not.",
    )
    parameters: int
    bits_per_weight: float
    tensor_types: dict[str, float] = Field(
        description="It holds the share of the parameters that each type stores."
    )
    rows_not_of_256: dict[str, float] = Field(
        {},
        description="It holds the share of the parameters in rows of each length that 256 does not"
        " divide.",
    )
    context: int | None = Field(
        None,
        description="The model is made for this many tokens of context; null if its files do not"
        " say.",
    )
    read_bytes: int | None = Field(
        None,
        description="Decoding a token reads this many bytes of weights; null if that depends on the"
        " token.",
    )

    @property
    def type_name(self) -> str:
        """The type, whether by a matrix or a mixture, and the label of a file that has one."""
        type_ = self.quantization + (", imatrix" if self.imatrix is not None else "")
        type_ += ", mixture" if self.tensors and not self.recipe else ""
        return f"{self.label} ({type_})" if self.label else type_

    @property
    def size(self) -> int:
        """Bytes of the weights on disk."""
        return sum(file.bytes for file in self.files)

    @property
    def share_of_named_type(self) -> float:
        """The share of the parameters stored in the type of the file's name.

        It is 1 for safetensors and for recipes, which are named by no type.
        """
        if self.format != "gguf" or self.recipe:
            return 1.0
        return self.tensor_types.get(main_type(self.quantization), 0.0)


class Metric(Record):
    """A figure with its 95 % interval; ``samples`` are the raw values, by round."""

    value: float | None
    unit: str
    ci95: tuple[float, float] | None
    n: int
    samples: list[list[float]]


class Result(Record):
    """``results/<variant>.json``: a variant's result, in SI base units and strict JSON."""

    schema_version: Literal[2] = 2
    lab_version: str = Field(description="This version of minillm-lab put the result together.")
    variant: str
    model: ModelFacts
    runtime: dict[str, Any]
    machine: dict[str, Any]
    protocol: dict[str, Any]
    metrics: dict[str, Metric] = Field(description="The metrics are those of the rounds.")
    round_readings: list[tuple[Reading, Reading]] = Field(
        description="The yardsticks were read before and after each round."
    )
    round_times: list[str] = Field(description="Each round was measured at this time (UTC).")
    trials: list[TrialSample] = Field(
        description="It holds the blocks of all trials against the baseline; the baseline has none."
    )
    no_trials: str | None = Field(
        None,
        description="It says why trials could not be made; null if they were or none were asked"
        " for.",
    )
    decode_seconds_by_token: list[float] = Field(
        description="It holds the median time of each token along the answer, from the second on."
    )
    quality: dict[str, QualityMetric] | None = Field(
        None, description="It is null if quality was not measured."
    )
    quality_by_chunk: dict[str, list[float]] = Field(
        {},
        description="It holds each chunk's means: kld_mean, same_top, and surprise in nats per"
        " token.",
    )
    quality_by_section: dict[str, QualityMetric] = Field(
        {}, description="It holds kld_mean for each section of the text."
    )
    quality_by_position: dict[str, QualityMetric] = Field(
        {},
        description="It holds kld_mean for parts of the longest passage of the long text, by their"
        " first and last position.",
    )
    quality_bits_by_block: list[tuple[float, float, int]] = Field(
        [],
        description="It holds the variant's bits, the reference's bits and the bytes of each block"
        " of the text.",
    )
    quality_hurt_most: list[HurtToken] = Field(
        [], description="It holds the tokens with the largest divergence, the largest first."
    )
    output: Output
    measured_at: str
    warnings: list[str]

    @property
    def reference_files(self) -> dict[str, str]:
        """The SHA-256 of each file that the reference was computed from, by its name."""
        quality = self.protocol.get("quality") or {}
        found: dict[str, str] = quality.get("reference", {}).get("weights", {})
        return found

    @property
    def is_reference(self) -> bool:
        """Whether quality is measured against this variant's own weights."""
        own = {file.sha256 for file in self.model.files}
        return bool(own) and own == {*self.reference_files.values()}


def quantized_in(names: Iterable[str]) -> str | None:
    """The first of a reference's files whose name says that its weights are quantized."""
    return next((name for name in sorted(names) if QUANTIZED.search(name)), None)


def depths(*results: Result) -> list[int]:
    """The prompt lengths, other than the prompt's own, at which speed was measured; sorted."""
    found = {
        (int(metric.rpartition("_at_")[2]), r.protocol["prompt_tokens"])
        for r in results
        for metric in r.metrics
        if "_at_" in metric
    }
    return sorted({length for length, prompt in found if length != prompt})


def long_contexts(*results: Result) -> list[int]:
    """The long contexts in which quality was measured, shortest first."""
    names = {name for r in results for name in r.quality or {} if name.startswith(OF_CONTEXT)}
    return sorted(int(name.removeprefix(OF_CONTEXT)) for name in names)
