"""What jobs hand to each other: the shapes of rounds, trials, prompts and scores, as JSON.

A change here makes everything that was measured stale; what is made of it is in ``result.py``.
"""

import json
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import write_text

R = TypeVar("R", bound="Record")
TOKENS_AT_DEPTH = 16  # decoded after a prompt of each of the depths


class Record(BaseModel):
    """A mapping in a results file: unknown keys and NaN are errors."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Memory(Record):
    """Memory of the process, in bytes; a part is null where the system does not tell it."""

    resident: int = Field(description="resident set; on macOS the physical footprint")
    anonymous: int | None = Field(description="heap and the like: cannot be dropped")
    file_backed: int | None = Field(description="mapped files, shared memory included")


class Repetition(Record):
    """One answer: times in seconds."""

    prefill_seconds: float
    first_token_seconds: float = Field(description="prefill and the choice of the first token")
    decode_seconds: list[float] = Field(description="of each later token, without sampling")
    generate_seconds: float = Field(description="the whole answer, prompt and sampling included")


class Depth(Record):
    """Speed with a prompt of another length: times in seconds."""

    prompt_tokens: int
    prefill_seconds: float
    decode_seconds: list[float] = Field(description="of each token after the prompt")


class Reading(Record):
    """What the two yardsticks read: docs/measurement.md."""

    compute_flops: float = Field(gt=0, description="float32 operations per second, in cache")
    memory_bytes_per_second: float = Field(gt=0, description="bytes read from memory per second")


class Conditions(Record):
    """What else the machine did during a round; null where the system does not tell."""

    other_load_cores: float = Field(description="CPU time of all other processes, in cores")
    stolen_share: float | None = Field(description="CPU time that the hypervisor took, 0 to 1")
    frequency_change: float | None = Field(description="CPU clock after the answers over before")
    governor: str | None
    on_battery: bool | None


class Round(Record):
    """What one fresh process measured."""

    schema_version: Literal[2] = 2
    variant: str
    round: int
    measured_at: str
    machine: dict[str, Any]
    runtime: dict[str, Any]
    prompt_tokens: int
    generated_tokens: int
    scratch: bool = Field(False, description="read from a copy on the machine's own disk")
    load_cold_seconds: float | None
    load_cold_read_bytes: int | None = Field(description="read from storage during that load")
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
    before: Reading = Field(description="the machine before the round")
    after: Reading = Field(description="the machine after it")
    output: "Output"
    warnings: list[str]


class Slices(Record):
    """What one side of a trial did in a block: seconds, one value per slice."""

    prefill_seconds: list[float]
    first_token_seconds: list[float] = Field(description="prefill and the choice of a token")
    decode_seconds: list[float] = Field(description="of one token, without choosing it")
    step_seconds: list[float] = Field(description="of one token, choosing it included")


class Block(Record):
    """Some cycles of a trial, between two readings of the yardsticks."""

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
    generated_tokens: int = Field(description="that an answer is reckoned with")
    attempts: int = Field(description="how often it was taken, the last one counts")
    other_load_cores: float = Field(description="CPU time of all other processes, in cores")
    disturbed: str | None = Field(description="why it does not count, in words; null: it does")
    variant: Side
    baseline: Side
    blocks: list[Block]


class NoTrial(Record):
    """The same file where the two do not fit into memory together."""

    schema_version: Literal[1] = 1
    trial: int
    variant: str
    baseline: str
    reason: str


class Output(Record):
    """What the model said."""

    text: str
    token_ids: list[int]
    flaw: str | None = Field(
        default=None, description="why it means nothing, in words; null: it does"
    )


class Prompt(Record):
    """The prompt as every variant of a model gets it."""

    text: str
    token_ids: list[int]
    chat_template: bool = Field(description="whether the model's own was used")
    tokenizer: str


class QualityMetric(Record):
    """A figure about quality with its 95 % interval; formulas: docs/quality.md."""

    value: float | None
    unit: str
    ci95: tuple[float, float] | None = None
    n: int = Field(description="what it was counted over: tokens, questions")


class HurtToken(Record):
    """A token of the text at which the variant is far from the reference."""

    kld: float = Field(description="nats")
    section: str | None = Field(description="of the text; null: it has none")
    before: str = Field(description="the text before it")
    text: str = Field(description="the text's own token")
    reference: str = Field(description="the token that the reference finds most likely")
    variant: str = Field(description="the token that the variant finds most likely")


class Score(Record):
    """``results/quality/<variant>.json``."""

    schema_version: Literal[2] = 2
    variant: str
    protocol: dict[str, Any]
    metrics: dict[str, QualityMetric]
    by_chunk: dict[str, list[float]] = Field(
        description="means of each chunk: kld_mean, same_top, surprise (nats per token)"
    )
    by_section: dict[str, QualityMetric] = Field(description="kld_mean of parts of the text")
    bits_by_block: list[tuple[float, float, int]] = Field(
        description="of blocks of the text: the variant's bits, the reference's, and bytes"
    )
    hurt_most: list[HurtToken] = Field(description="the tokens of the largest divergence")
    answers: list[int]
    warnings: list[str] = Field(default_factory=list)


def write_record(path: Path, record: Record) -> None:
    """Write a record as JSON, whole or not at all."""
    write_text(
        path,
        json.dumps(record.model_dump(mode="json"), ensure_ascii=False, indent=1, allow_nan=False)
        + "\n",
    )


def read_record(path: Path, shape: type[R]) -> R:
    """Read a record. Raises LabError with one line when it is not one."""
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
