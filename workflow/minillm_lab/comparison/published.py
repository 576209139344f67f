"""Published results: one small JSON file without samples and without answers.

It may come from anyone, so reading it trusts nothing: its size is limited before it is parsed,
every text and list has a largest length, numbers are limited, and an unknown key is an error. A
figure beyond 1e18, as of a broken variant's perplexity, is not published.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from minillm_lab.comparison.factors import SETTINGS
from minillm_lab.comparison.shapes import Comparison, StateFigures
from minillm_lab.experiment.sources import NAME
from minillm_lab.jobs.errors import LabError
from minillm_lab.records import QualityMetric, Record
from minillm_lab.result import Metric, Result, depths
from minillm_lab.wording import visible

LARGEST = 1 << 24  # bytes of a published file; a variant takes about 2 kB
MOST = 5000  # variants in it
METRICS = ("load_cold_seconds", "load_warm_seconds", "memory_peak_bytes")
SPEEDS = "prefill_tokens_per_second|decode_tokens_per_second"
QUALITY = ("kld_mean", "same_top", "perplexity_ratio", "question_accuracy", "answer_flips")

BY_CHUNK = ("kld_mean", "same_top", "surprise")
ARITHMETIC = (*SETTINGS.values(), "dtype", "activations", "scored_by")

Text = Annotated[str, Field(max_length=200)]
Name = Annotated[str, Field(max_length=100, pattern=rf"^{NAME}$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
BEYOND = 1e18
Number = Annotated[float, Field(ge=-BEYOND, le=BEYOND)]
Count = Annotated[int, Field(ge=0, le=10**15)]


class Untrusted(Record):
    """A mapping in a file from someone else; types are not converted."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)


class Figure(Untrusted):
    """A value with its 95 % interval, which is null where one round gives none."""

    value: Number
    ci95: Annotated[list[Number], Field(min_length=2, max_length=2)] | None

    @model_validator(mode="after")
    def _value_within_its_interval(self) -> "Figure":
        if self.ci95 and not self.ci95[0] <= self.value <= self.ci95[1]:
            raise ValueError("the value lies outside its own interval")
        return self


TIMED = Field(pattern=f"^({'|'.join(METRICS)}|({SPEEDS})(_at_[0-9]{{1,7}})?)$")
COMPARED = Field(pattern=f"^({SPEEDS})$")
CHUNKED = Field(pattern=f"^({'|'.join(BY_CHUNK)})$")
SCORED = Field(pattern=f"^({'|'.join(QUALITY)})$")


class Machine(Untrusted):
    """The machine that measured."""

    fingerprint: Annotated[str, Field(pattern="^[0-9a-z]{1,32}$")]
    cpu: Text
    cores: Count
    memory_bytes: Count
    os: Text


class Protocol(Untrusted):
    """The protocol: figures are compared only where it is equal; and the number of rounds."""

    prompt_tokens: Count
    generated_tokens: Count
    context: Count | None
    rounds: Annotated[int, Field(ge=1, le=10**6)]
    text: Text | None = Field(
        description="It is a checksum of the evaluation text, its protocol and the reference."
    )
    questions: Text | None = Field(description="It is a checksum of the questions.")
    scratch: bool = Field(False, description="The weights were a copy on the machine's own disk.")


class InState(Untrusted):
    """Speeds in one state of the machine, from trials, and their ratios to the baseline."""

    compute_flops: Annotated[float, Field(gt=0, le=1e18)]
    memory_bytes_per_second: Annotated[float, Field(gt=0, le=1e18)]
    metrics: Annotated[dict[Annotated[str, COMPARED], Figure], Field(max_length=2)]
    ratios: Annotated[dict[Annotated[str, COMPARED], Figure], Field(max_length=2)]


class Variant(Untrusted):
    """One variant's figures, with its model, runtime, machine and protocol."""

    model: Text
    quantization: Text
    bytes: Count
    sha256: Annotated[list[Digest], Field(max_length=10_000)]
    bits_per_weight: Number
    runtime: Text
    versions: Annotated[dict[Text, Text], Field(max_length=10)]
    backend: Text
    threads: Count
    settings: Annotated[dict[Text, Text], Field(max_length=20)] = Field(
        {}, description="It holds what changes a runtime's arithmetic, as the runtime resolved it."
    )
    machine: Machine
    protocol: Protocol
    metrics: Annotated[dict[Annotated[str, TIMED], Figure], Field(max_length=10_000)]
    states: Annotated[list[InState], Field(max_length=1000)]  # the most frequent first
    quality: dict[Annotated[str, SCORED], Figure]
    quality_by_chunk: dict[
        Annotated[str, CHUNKED], Annotated[list[Number], Field(max_length=1_000_000)]
    ] = Field(
        {}, description="It holds each chunk's means, so that two runs are compared in pairs."
    )
    measured_at: Text


class Published(Untrusted):
    """The whole file."""

    format: Literal["minillm-lab results"] = "minillm-lab results"
    schema_version: Literal[2] = 2
    baseline: Name
    variants: Annotated[dict[Name, Variant], Field(min_length=1, max_length=MOST)]


def rounded(value: float) -> float:
    """A number with six significant digits; more would only make the file longer."""
    return float(f"{value:.6g}")


def figure(measured: Metric | QualityMetric | Any) -> Figure | None:
    """A measured figure as it is published; None where it was not measured, or is beyond limits."""
    if measured is None or measured.value is None:
        return None
    if max(map(abs, (measured.value, *(measured.ci95 or ())))) > BEYOND:
        return None
    ends = measured.ci95 and [rounded(end) for end in measured.ci95]
    value = rounded(measured.value)
    return Figure(value=value, ci95=ends and [min(ends[0], value), max(ends[1], value)])


def figures(measured: dict[str, Any], names: list[str]) -> dict[str, Figure]:
    found = {name: figure(measured.get(name)) for name in names}
    return {name: f for name, f in found.items() if f}


def in_state(state: StateFigures, name: str) -> InState:
    speeds = SPEEDS.split("|")
    return InState(
        compute_flops=rounded(state.compute_flops),
        memory_bytes_per_second=rounded(state.memory_bytes_per_second),
        metrics=figures(state.metrics[name], speeds),
        ratios=figures(state.ratios[name], speeds),
    )


def published_variant(result: Result, states: list[StateFigures]) -> Variant:
    """A variant as published; without trials its speeds are those of rounds."""
    model, machine, protocol = result.model, result.machine, result.protocol
    quality = protocol.get("quality") or {}
    keys = ("context", "score_from", "text_sha256")
    weights = (quality.get("reference") or {}).get("weights")
    text = [*(quality.get(key) for key in keys), weights]
    return Variant(
        model=model.name,
        quantization=f"{model.quantization} of {model.recipe.bounds}"
        if model.recipe
        else model.quantization,
        bytes=result.model.size,
        sha256=[file.sha256 for file in model.files],
        bits_per_weight=rounded(model.bits_per_weight),
        runtime=result.runtime["name"],
        versions=result.runtime["version"],
        backend=result.runtime["backend"],
        threads=result.runtime["threads"],
        settings={
            key: str(result.runtime["settings"][key])[:200]
            for key in ARITHMETIC
            if key in result.runtime["settings"]
        },
        machine=Machine(**{key: machine[key] for key in Machine.model_fields}),
        protocol=Protocol(
            prompt_tokens=protocol["prompt_tokens"],
            generated_tokens=protocol["generated_tokens"],
            context=protocol.get("context"),
            rounds=protocol["rounds"],
            text=digest(text) if quality else None,
            questions=quality.get("questions_sha256"),
            scratch=protocol.get("scratch", False),
        ),
        metrics=figures(
            result.metrics,
            [
                *METRICS,
                *(() if states else SPEEDS.split("|")),
                *(f"{speed}_at_{n}" for speed in SPEEDS.split("|") for n in depths(result)),
            ],
        ),
        states=[in_state(state, result.variant) for state in states],
        quality=figures(result.quality or {}, list(QUALITY)),
        quality_by_chunk={
            name: [rounded(mean) for mean in means]
            for name, means in result.quality_by_chunk.items()
            if name in BY_CHUNK
        },
        measured_at=result.measured_at,
    )


def digest(value: Any) -> str:
    """Sixteen hexadecimal digits that are equal where the values are."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def publish(comparison: Comparison) -> Published:
    """A comparison as it is published. Raises LabError where it is more than a file may hold."""
    if (number := len(comparison.results)) > MOST:
        raise LabError(
            f"{number} variants are too many for one file, which holds {MOST}; publish fewer"
        )
    variants = {}
    for name, result in comparison.results.items():
        states = comparison.states[result.machine["fingerprint"]]
        try:
            variants[name] = published_variant(result, [s for s in states if name in s.metrics])
        except ValidationError as error:
            raise LabError(f"{name}: cannot be published: {first_of(error)}") from error
    return Published(baseline=comparison.baseline, variants=variants)


def first_of(error: ValidationError) -> str:
    """The first of the mistakes that were found, with its place, in one line."""
    first = error.errors()[0]
    key = visible(".".join(str(part) for part in first["loc"]))[:100]
    return f"{key}: {visible(first['msg'])[:200]}"


def read_published(path: Path) -> Published:
    """Read a published file from a stranger. Raises LabError with one line where it is not one."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise LabError(f"{visible(str(path))}: {error.strerror}") from error
    if len(content) > LARGEST:
        raise LabError(
            f"{visible(str(path))}: has more than {LARGEST} bytes, so it is no published results"
            " file; name a file that `minillm-lab export --format results` wrote"
        )
    try:
        return Published.model_validate_json(content)
    except ValidationError as error:
        raise LabError(
            f"{visible(str(path))}: not a published results file of this version"
            f" ({first_of(error)}); export it again with this version"
        ) from error
