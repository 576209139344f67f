"""What the config says of quality: texts, questions, how they are cut and scored, the reference."""

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from minillm_lab.experiment.messages import existing
from minillm_lab.experiment.reference import Reference
from minillm_lab.experiment.sources import LONGEST, AnyPath, Strict
from minillm_lab.experiment.variants import TransformersVariant
from minillm_lab.jobs.files import sha256_of


class Quality(Strict):
    """Quality is a variant's distance from the reference; docs/quality.md says how it is taken."""

    text: AnyPath = Field(
        "own",
        description="Variants are scored on the text file at this path; own stands for the lab's.",
    )
    questions: AnyPath | None = Field(
        "own",
        description="Variants are asked the multiple-choice questions in the YAML file at this"
        " path; own stands for the lab's, null for none.",
    )
    protocol: Literal["lab", "llama-perplexity"] = Field(
        "lab",
        description="With lab, each chunk is scored from score_from on; with llama-perplexity, its"
        " second half is, as that program does.",
    )
    context: int = Field(
        512, ge=4, le=LONGEST, description="The text is cut into chunks of this many tokens."
    )
    score_from: int | None = Field(
        None,
        ge=1,
        le=LONGEST,
        description="This many tokens at a chunk's start are not scored; without it, 32 (or half of"
        " a context below 64).",
    )
    chunks: int | None = Field(
        None,
        ge=2,
        le=LONGEST,
        description="At most this many chunks are scored, spread evenly over the text; null scores"
        " all.",
    )
    long_contexts: list[Annotated[int, Field(ge=64, le=LONGEST)]] = Field(
        [],
        description="The end of one long text is scored too, in contexts of these many tokens; a"
        " context longer than the model is made for is left out.",
    )
    long_text: AnyPath = Field(
        "own",
        description="The long text is the file at this path; own stands for the lab's.",
    )
    reference: Reference = Field(
        TransformersVariant.model_validate({"runtime": "transformers", "dtype": "float32"}),
        description="Quality is measured against this reference; it is given as a runtime with its"
        " settings, as a variant's name, or as a file made elsewhere, here or on the hub.",
    )
    exact: bool = Field(
        False,
        description="The reference keeps whole probability vectors; each scored token then takes"
        " 4 bytes times the vocabulary.",
    )

    @field_validator("long_contexts")
    @classmethod
    def each_once(cls, contexts: list[int]) -> list[int]:
        return sorted({*contexts})

    @model_validator(mode="after")
    def fits_together(self) -> "Quality":
        if self.protocol == "llama-perplexity" and self.score_from is not None:
            raise ValueError("score_from is set by protocol: llama-perplexity; leave one out")
        if self.first_scored >= self.context - 1:
            raise ValueError(
                f"score_from leaves no token of a context of {self.context} to score; lower it"
            )
        return self

    @property
    def first_scored(self) -> int:
        """The first position of a chunk whose prediction is scored."""
        if self.protocol == "llama-perplexity":
            return self.context // 2
        return self.score_from or min(32, self.context // 2)


class Texts:
    """The files of texts and questions that quality is measured on."""

    def __init__(self, quality: Quality, lab: str) -> None:
        """``lab``: the folder that holds the package."""
        self.quality, self.own = quality, f"{lab}/minillm_lab/quality"

    def protocol(self) -> str:
        """The protocol by which the texts are cut and scored, as sorted JSON."""
        q = self.quality
        protocol = {"name": q.protocol, "context": q.context, "score_from": q.first_scored}
        more = {"chunks": q.chunks, "long_contexts": q.long_contexts}
        return json.dumps(protocol | more, sort_keys=True)

    def text(self) -> str:
        """The evaluation text: the lab's own, or another file."""
        return self._own_or("quality.text", self.quality.text, "text.txt")

    def long_text(self) -> str | list[str]:
        """The long text: the lab's own, or another file; none without long contexts."""
        key, path = "quality.long_text", self.quality.long_text
        return self._own_or(key, path, "long.txt") if self.quality.long_contexts else []

    def questions(self) -> str | list[str]:
        """The questions: the lab's own, another file, or none."""
        path = self.quality.questions
        return self._own_or("quality.questions", path, "questions.yaml") if path else []

    def _own_or(self, key: str, path: str, own: str) -> str:
        return f"{self.own}/{own}" if path == "own" else existing(key, path)

    def sections(self) -> str | list[str]:
        """The file beside the evaluation text that names its sections, if there is one."""
        beside = Path(self.text()).with_suffix(".sections.yaml")
        return str(beside) if beside.exists() else []

    def stamps(self) -> list[str]:
        """The checksums of the config's own texts and questions, whatever their dates."""
        q = self.quality
        named = {"quality.text": q.text, "quality.questions": q.questions}
        named |= {"quality.long_text": q.long_text} if q.long_contexts else {}
        return [
            f"{path} {sha256_of(Path(existing(key, path)))}"
            for key, path in named.items()
            if path and path != "own"
        ]
