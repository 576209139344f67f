"""What config.yaml may say, checked: the single source of its format.

``workflow/schemas/`` is generated from it (``python -m minillm_lab.experiment.schemas``).
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from minillm_lab.experiment.messages import described
from minillm_lab.experiment.sources import (
    AbsolutePath,
    AnyPath,
    Hub,
    HubFile,
    HubGguf,
    Model,
    Name,
    Package,
    QuantizationType,
    RelativePath,
    Strict,
)
from minillm_lab.experiment.sweeps import with_sweeps
from minillm_lab.jobs.errors import LabError
from minillm_lab.records import TOKENS_AT_DEPTH

RESERVED = {"all", "comparison", "provisional", "readme", "reference", "report"}
LONGEST = 2**31 - 1  # tokens; llama.cpp counts them in 32 bits
SECRET = r"\bhf_[A-Za-z0-9]{20,}|://[^/\s]+@"


class Node(Strict):
    """A kind of node of a Slurm cluster, as sbatch names it: docs/scaling.md."""

    account: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    partition: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._,-]*$")
    constraint: str | None = Field(
        None, pattern=r"^[A-Za-z0-9(\[][A-Za-z0-9._&|*()\[\]-]*$", description="of its features"
    )
    gpus: int | None = Field(None, ge=1, le=64)


class Settings(Strict):
    """What every variant may set for itself."""

    model: Name | None = Field(None, description="the model, where not the experiment's own")
    device: Literal["cpu", "gpu"] = Field("cpu", description="what to run on, if it is there")
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None, description="inference threads, where not the experiment's own"
    )
    context: int | None = Field(
        None,
        ge=16,
        le=LONGEST,
        description="context size in tokens, where not the experiment's own",
    )
    node: Name | None = Field(None, description="on Slurm, the kind of node it is measured on")


class TransformersVariant(Settings):
    """Safetensors in PyTorch through Transformers."""

    runtime: Literal["transformers"]
    dtype: Literal["float16", "bfloat16", "float32"] = Field(
        "float16", description="what the weights are held and computed in"
    )


class LlamaCppVariant(Settings):
    """A GGUF file in llama.cpp through llama-cpp-python."""

    runtime: Literal["llama.cpp"]
    quantization: QuantizationType = Field(description="as llama.cpp spells it: Q4_K_M, Q8_0, …")
    gpu_layers: int | None = Field(
        None,
        ge=0,
        le=10_000,
        description="layers offered to the GPU; all of them where device is gpu",
    )
    flash_attention: Literal["auto", "on", "off"] = Field(
        "auto", description="auto is llama.cpp's own default"
    )


def form_of(settings: TransformersVariant | LlamaCppVariant) -> str:
    """What a runtime reads: ``safetensors``, or a quantization type as GGUF."""
    return settings.quantization if settings.runtime == "llama.cpp" else "safetensors"


Variant = Annotated[TransformersVariant | LlamaCppVariant, Discriminator("runtime")]


class ReferenceFile(Strict):
    """A reference made elsewhere, for a machine on which the unquantized model does not fit."""

    file: str = Field(
        pattern=r"^([^{}\x00-\x1f]|\{model\})+$",
        description="an .npz file; {model} stands for the model's name",
    )


def kind_of_reference(reference: Any) -> str | None:
    """Which of the forms a ``reference`` takes."""
    if not isinstance(reference, dict):
        runtime = getattr(reference, "runtime", None)
        return runtime or ("a file" if isinstance(reference, ReferenceFile) else "a name")
    runtime = reference.get("runtime")
    return runtime if isinstance(runtime, str) else "a file" if "file" in reference else None


class Quality(Strict):
    """How far variants are from the reference: docs/quality.md."""

    text: AnyPath = Field("own", description="evaluation text, a path; own: the lab's")
    questions: AnyPath | None = Field(
        "own",
        description="multiple-choice questions, a path to a YAML file; own: the lab's; null: none",
    )
    protocol: Literal["lab", "llama-perplexity"] = Field(
        "lab", description="llama-perplexity scores the second half of every chunk"
    )
    context: int = Field(
        512, ge=4, le=LONGEST, description="length of a chunk of the text in tokens"
    )
    score_from: int | None = Field(
        None,
        ge=1,
        le=LONGEST,
        description="tokens at a chunk's start that are not scored; 32 if not set",
    )
    chunks: int | None = Field(
        None,
        ge=2,
        le=LONGEST,
        description="at most so many, spread evenly over the text; null: all",
    )
    reference: Annotated[
        Annotated[Name, Tag("a name")]
        | Annotated[TransformersVariant, Tag("transformers")]
        | Annotated[LlamaCppVariant, Tag("llama.cpp")]
        | Annotated[ReferenceFile, Tag("a file")],
        Discriminator(kind_of_reference),
    ] = Field(
        TransformersVariant.model_validate({"runtime": "transformers", "dtype": "float32"}),
        description="what quality is measured against: settings, a variant's name, or a file",
    )
    exact: bool = Field(False, description="keep whole probability vectors: 4 bytes × vocabulary")

    @model_validator(mode="after")
    def fits_together(self) -> "Quality":
        if self.protocol == "llama-perplexity" and self.score_from is not None:
            raise ValueError("score_from is set by protocol: llama-perplexity; leave one out")
        if self.first_scored >= self.context - 1:
            raise ValueError(f"score_from leaves no token of a context of {self.context} to score")
        return self

    @property
    def first_scored(self) -> int:
        """The first position of a chunk whose prediction is scored."""
        if self.protocol == "llama-perplexity":
            return self.context // 2
        return self.score_from or min(32, self.context // 2)


class Experiment(Strict):
    """One experiment: models, the variants made of them, and how they are measured."""

    model: Name | None = Field(None, description="the model of every variant that names no other")
    models: dict[Name, Model] = Field(min_length=1)
    nodes: dict[Name, Node] = Field({}, description="kinds of node that variants may name")
    variants: dict[Name, Variant] = Field(min_length=1)
    baseline: Name = Field(description="the variant that ratios are computed against")
    prompt: str = Field(
        min_length=1,
        max_length=20_000,
        pattern=r"^[^\x00]*$",
        description="asked through the model's own chat template",
    )
    generate: int = Field(80, ge=2, le=LONGEST, description="new tokens, exactly")
    context: int = Field(1024, ge=16, le=LONGEST, description="context size in tokens")
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = Field(
        "auto", description="inference threads; auto: the physical cores this process may use"
    )
    rounds: int = Field(
        2, ge=1, le=1000, description="fresh processes per variant: loads, memory, its answer"
    )
    trials: int = Field(
        6, ge=1, le=1000, description="live comparisons per variant with the baseline: its speeds"
    )
    trial_seconds: float = Field(
        3.0, ge=0.1, le=3600, strict=False, description="at least, for the slices of a trial"
    )
    repetitions: int = Field(1, ge=1, le=1000, description="measured answers in each round")
    warmups: int = Field(1, ge=0, le=100, description="full-length answers before them")
    depths: list[Annotated[int, Field(ge=TOKENS_AT_DEPTH, le=LONGEST)]] = Field(
        [128, 512], description="prompt lengths at which prefill and decode are measured besides"
    )
    precision: str | None = Field(
        None,
        pattern=r"^([1-9][0-9]?|0\.[0-9]*[1-9]|[1-9]\.[0-9]+)%$",
        description="a goal for decode ratios, as 2%: the table says how many trials reach it",
    )
    quality: Annotated[
        Quality | None,
        BeforeValidator(lambda found: None if found in (False, "false", "null") else found),
    ] = Field(Quality.model_validate({}), description="null or false: not measured")
    scratch: AbsolutePath | None = Field(
        None,
        description="folder on the machine's own disk, where rounds measure a copy of the weights",
    )
    results: RelativePath = Field("results", description="folder of results")
    readme: AnyPath | None = Field("README.md", description="page whose section the table goes to")

    @field_validator("models")
    @classmethod
    def types_are_the_files_own(cls, models: dict[str, Model]) -> dict[str, Model]:
        return {name: model.of_its_header() for name, model in models.items()}

    @field_validator("variants")
    @classmethod
    def names_are_free(cls, variants: dict[str, Any]) -> dict[str, Any]:
        if taken := RESERVED & variants.keys():
            raise ValueError(f"the name {sorted(taken)[0]!r} is reserved; choose another")
        return variants

    @model_validator(mode="after")
    def refers_to_what_exists(self) -> "Experiment":
        if self.baseline not in self.variants:
            raise ValueError(
                f"baseline: no variant {self.baseline!r}; variants: {', '.join(self.variants)}"
            )
        for name, variant in self.variants.items():
            model = variant.model or self.model
            if model is None:
                raise ValueError(f"variants.{name}: names no model, and the experiment has none")
            if model not in self.models:
                raise ValueError(
                    f"variants.{name}: no model {model!r}; models: {', '.join(self.models)}"
                )
            if variant.node is not None and variant.node not in self.nodes:
                raise ValueError(
                    f"variants.{name}: no node {variant.node!r};"
                    f" nodes: {', '.join(self.nodes) or 'none'}"
                )
        for name, entry in self.models.items():
            if entry.dither and not entry.unpacked:
                raise ValueError(
                    f"models.{name}.dither: the source ships unquantized weights, and those are"
                    " not moved; leave it out"
                )
        reference = self.quality.reference if self.quality else None
        if isinstance(reference, str) and reference not in self.variants:
            raise ValueError(
                f"quality.reference: no variant {reference!r}; variants: {', '.join(self.variants)}"
            )
        return self


def load_experiment(config: dict[str, Any], origin: str = "config") -> Experiment:
    """Check a config that was read from YAML.

    Raises LabError with one line per problem: the key, what is wrong, what is allowed.
    """
    if key := place_of(is_endless, config):
        raise LabError(f"{origin}: {key}: is a number of more than 18 digits")
    if key := place_of(is_secret, config):
        raise LabError(
            f"{origin}: {key}: holds a token or password, and a config is no place for one;"
            " set the environment variable HF_TOKEN, or run 'hf auth login'"
        )
    try:
        return Experiment.model_validate(with_sweeps(config, origin))
    except ValidationError as error:
        lines = [described(origin, e, keys_allowed(e["loc"])) for e in error.errors()]
        raise LabError("\n".join(lines)) from None


def place_of(wrong: Callable[[Any], bool], value: Any) -> str | None:
    """The key of the first thing in a config that is ``wrong``, keys among them; None: of none."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if wrong(key):
                return "a key"
            if (place := place_of(wrong, inner)) is not None:
                return f"{key}.{place}".rstrip(".")
    if isinstance(value, list | tuple | set):  # YAML makes all three
        return next((p for p in (place_of(wrong, v) for v in value) if p is not None), None)
    return "" if wrong(value) else None


def is_endless(value: Any) -> bool:
    """An integer that no key has use for, and that Python may refuse to print."""
    return isinstance(value, int) and abs(value) >= 10**18


def is_secret(value: Any) -> bool:
    """What looks like a secret: a hub's token, or a URL with a password."""
    return isinstance(value, str) and bool(re.search(SECRET, value))


def keys_allowed(place: tuple[int | str, ...]) -> list[str]:
    """The keys that may stand where an unknown one was found."""
    shapes: dict[str, type[Strict]] = {
        "transformers": TransformersVariant,
        "llama.cpp": LlamaCppVariant,
        "package": Package,
        "gguf": HubGguf,
        "files": HubFile,
        "hub": Hub,
        "models": Model,
        "a file": ReferenceFile,
        "nodes": Node,
        "quality": Quality,
    }
    parents = [str(p) for p in place[:-1]]
    found = next((shapes[p] for p in reversed(parents) if p in shapes), Experiment)
    return list(found.model_fields)
