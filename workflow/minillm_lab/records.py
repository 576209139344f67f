"""The JSON that jobs hand to each other: rounds, trials, prompts and scores.

A change here makes everything that was measured stale; ``result.py`` has what is made of it.
"""

import json
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import write_text

R = TypeVar("R", bound="Record")
TOKENS_AT_DEPTH = 16  # tokens decoded after a prompt of each of the depths


class Record(BaseModel):
    """A mapping in a results file; an unknown key or NaN is an error."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Memory(Record):
    """Memory of the process, in bytes; a part is null where the system does not report it."""

    resident: int = Field(description="It is the resident set; on macOS, the physical footprint.")
    anonymous: int | None = Field(
        description="This part (heap and stacks) has no file behind it and cannot be dropped."
    )
    file_backed: int | None = Field(
        description="This part is mapped files and shared memory; the system can drop clean pages."
    )


class Repetition(Record):
    """One answer to the prompt, with its times in seconds."""

    prefill_seconds: float
    first_token_seconds: float = Field(
        description="It includes prefill and choosing the first token."
    )
    decode_seconds: list[float] = Field(
        description="It holds the engine's time for each later token, without choosing it."
    )
    generate_seconds: float = Field(
        description="It includes the prompt, every token and choosing them."
    )


class Depth(Record):
    """A prompt of another length and some tokens after it, with times in seconds."""

    prompt_tokens: int
    prefill_seconds: float
    first_token_seconds: float = Field(
        description="It includes prefill and choosing the first token."
    )
    decode_seconds: list[float] = Field(
        description="It holds the engine's time for each token after the prompt."
    )
    memory: Memory


class Reading(Record):
    """The machine's speed at a moment, by the two yardsticks (docs/measurement.md)."""

    compute_flops: float = Field(
        gt=0, description="The machine computes this many float32 operations per second in cache."
    )
    memory_bytes_per_second: float = Field(
        gt=0, description="The machine reads this many bytes per second from memory."
    )


class Conditions(Record):
    """Other work on the machine during a round; null where the system does not report it."""

    other_load_cores: float = Field(description="Other processes kept this many cores busy.")
    stolen_share: float | None = Field(
        description="The hypervisor took this share of the CPU time, from 0 to 1."
    )
    frequency_change: float | None = Field(
        description="It is the CPU clock after the answers over the clock before them."
    )
    governor: str | None = Field(description="Linux's CPU frequency governor had this name.")
    on_battery: bool | None = Field(description="The machine ran on its battery.")


class Round(Record):
    """The measurements of one fresh process."""

    schema_version: Literal[2] = 2
    variant: str
    round: int
    measured_at: str
    machine: dict[str, Any]
    runtime: dict[str, Any]
    prompt_tokens: int
    generated_tokens: int
    scratch: bool = Field(False, description="The weights were a copy on the machine's own disk.")
    load_cold_seconds: float | None
    load_cold_read_bytes: int | None = Field(
        description="The process read this many bytes from storage during that load."
    )
    load_warm_seconds: float | None
    load_warm_read_bytes: int | None
    memory_before_load: Memory
    memory_after_load: Memory
    memory_after_generation: Memory
    memory_peak_bytes: int | None
    accelerator_memory_peak_bytes: int | None
    warmups: list[Repetition]
    repetitions: list[Repetition]
    depths: list[Depth]
    conditions: Conditions
    before: Reading = Field(description="The yardsticks were read before the round.")
    after: Reading = Field(description="The yardsticks were read after the round.")
    output: "Output"
    warnings: list[str]


class Slices(Record):
    """The times of one side of a trial in a block, in seconds, one value per slice."""

    prefill_seconds: list[float]
    first_token_seconds: list[float] = Field(
        description="It includes prefill and choosing the first token."
    )
    decode_seconds: list[float] = Field(
        description="It is the engine's time for one token, without choosing it."
    )
    step_seconds: list[float] = Field(
        description="It is the time for one token, choosing it included."
    )


class Block(Record):
    """Cycles of a trial between two readings of the yardsticks."""

    before: Reading
    after: Reading
    variant: Slices
    baseline: Slices


class Side(Record):
    """One of the two processes of a trial."""

    variant: str
    runtime: dict[str, Any]
    prompt_tokens: int


class Trial(Record):
    """``results/trials/<variant>.<n>.json``: a variant and the baseline, taking turns."""

    schema_version: Literal[1] = 1
    trial: int
    measured_at: str
    machine: dict[str, Any]
    generated_tokens: int = Field(description="The time of an answer is for this many tokens.")
    attempts: int = Field(
        description="The trial was taken this many times; the last attempt is the one kept."
    )
    other_load_cores: float = Field(description="Other processes kept this many cores busy.")
    disturbed: str | None = Field(
        description="It says why the trial does not count; null if the trial counts."
    )
    variant: Side
    baseline: Side
    blocks: list[Block]


class NoTrial(Record):
    """The same file, where the two models do not fit into memory together."""

    schema_version: Literal[1] = 1
    trial: int
    variant: str
    baseline: str
    reason: str


class Output(Record):
    """The model's answer to the prompt."""

    text: str
    token_ids: list[int]
    flaw: str | None = Field(
        default=None,
        description="It says why the answer means nothing; null if it has no such flaw.",
    )


class Prompt(Record):
    """The prompt as every variant of a model is given it."""

    text: str
    token_ids: list[int]
    chat_template: bool = Field(description="The text was made by the model's own chat template.")
    tokenizer: str


class QualityMetric(Record):
    """A figure of quality with its 95 % interval; docs/quality.md has the formulas."""

    value: float | None
    unit: str
    ci95: tuple[float, float] | None = None
    n: int = Field(description="It was computed over this many tokens, questions or prompts.")


class HurtToken(Record):
    """A token of the text at which the variant is far from the reference."""

    kld: float = Field(description="The KL divergence at this token is in nats.")
    section: str | None = Field(
        description="The token is in this section; null if the text has no sections."
    )
    before: str = Field(description="This text stands before the token.")
    text: str = Field(description="The text goes on with this token.")
    reference: str = Field(description="The reference finds this token most likely.")
    variant: str = Field(description="The variant finds this token most likely.")


class Score(Record):
    """``results/quality/<variant>.json``: a variant's quality."""

    schema_version: Literal[2] = 2
    variant: str
    protocol: dict[str, Any]
    metrics: dict[str, QualityMetric]
    by_chunk: dict[str, list[float]] = Field(
        description="It holds each chunk's means: kld_mean, same_top, and surprise in nats per"
        " token."
    )
    by_section: dict[str, QualityMetric] = Field(
        description="It holds kld_mean for each section of the text."
    )
    by_position: dict[str, QualityMetric] = Field(
        {}, description="It holds kld_mean for parts of the longest passage of the long text."
    )
    bits_by_block: list[tuple[float, float, int]] = Field(
        description="It holds the variant's bits, the reference's bits and the bytes of each block"
        " of the text."
    )
    hurt_most: list[HurtToken] = Field(
        description="It holds the tokens with the largest divergence, the largest first."
    )
    answers: list[int] = Field(
        description="It holds the number of the variant's choice by question."
    )
    warnings: list[str] = Field(default_factory=list)


def write_record(path: Path, record: Record) -> None:
    """Write a record as JSON, as a whole or not at all."""
    write_text(
        path,
        json.dumps(record.model_dump(mode="json"), ensure_ascii=False, indent=1, allow_nan=False)
        + "\n",
    )


def read_record(path: Path, shape: type[R]) -> R:
    """Read a record. Raises LabError with one line where the file does not hold one."""
    try:
        return shape.model_validate_json(path.read_bytes())
    except OSError as error:
        raise LabError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(p) for p in first["loc"])
        raise LabError(
            f"{path}: not a results file of this version ({key}: {first['msg']});"
            " delete it, and it is made again"
        ) from error
