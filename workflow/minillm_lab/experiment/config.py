"""What config.yaml may say: the single source of its format, and the check of a config.

``workflow/schemas/`` is generated from it (``python -m minillm_lab.experiment.schemas``), so every
description here is a full sentence for people who write a config.
"""

from typing import Annotated, Any, cast

from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from minillm_lab.experiment.libraries import library_of
from minillm_lab.experiment.messages import described
from minillm_lab.experiment.onnx import OnnxVariant
from minillm_lab.experiment.openvino import OpenVinoVariant
from minillm_lab.experiment.quality import Quality
from minillm_lab.experiment.recipes import OfVariant
from minillm_lab.experiment.reference import (
    PublishedFile,
    Reference,
    ReferenceFile,
    ReferenceOnHub,
)
from minillm_lab.experiment.settings import Node, Settings, Threads
from minillm_lab.experiment.sources import (
    LONGEST,
    AbsolutePath,
    AnyPath,
    GgufFile,
    Hub,
    HubGguf,
    Model,
    Name,
    Package,
    Part,
    RelativePath,
    Strict,
)
from minillm_lab.experiment.sweeps import with_sweeps
from minillm_lab.experiment.values import check_values
from minillm_lab.experiment.variants import (
    KvCache,
    LlamaCppVariant,
    MlxVariant,
    TransformersVariant,
    Variant,
    can_have_file,
    fits_context,
    form_in,
)
from minillm_lab.jobs.errors import LabError
from minillm_lab.records import TOKENS_AT_DEPTH

RESERVED = {"all", "comparison", "provisional", "readme", "reference", "report"}


class ComparedModel(Model):
    """A model comes from exactly one of package, hub and path."""

    reference: Reference | None = Field(
        None,
        description="Quality of this model is measured against this reference in place of"
        " quality.reference; it is given in the same ways.",
    )


class Experiment(Strict):
    """An experiment names models, the variants to compare, and how they are measured."""

    model: Name | None = Field(
        None, description="A variant that names no model of its own runs this entry of models."
    )
    models: dict[Name, ComparedModel] = Field(
        min_length=1, description="Each entry names a model and says where it comes from."
    )
    nodes: dict[Name, Node] = Field(
        {}, description="Each entry names a kind of cluster node, which variants may then name."
    )
    variants: dict[Name, Variant] = Field(
        min_length=1,
        description="Each entry is a row of the table: a model in a runtime, with its settings. A"
        " list in it makes one variant for each of its values.",
    )
    baseline: Name = Field(description="Ratios are computed against this variant.")
    prompt: str = Field(
        min_length=1,
        max_length=20_000,
        pattern=r"^[^\x00]*$",
        description="Every variant answers this prompt, put through the model's own chat template.",
    )
    generate: int = Field(
        80,
        ge=2,
        le=LONGEST,
        description="An answer has exactly this many new tokens; the end of the text is ignored.",
    )
    context: int = Field(
        1024, ge=16, le=LONGEST, description="The context holds this many tokens in every variant."
    )
    threads: Threads = Field(
        "auto",
        description="Inference uses this many threads; auto takes the physical cores that the"
        " process may use.",
    )
    rounds: int = Field(
        2,
        ge=1,
        le=1000,
        description="Each variant gets this many rounds; a round is a fresh process that measures"
        " load times and memory and keeps the answer.",
    )
    trials: int = Field(
        6,
        ge=1,
        le=1000,
        description="Each variant gets this many trials; in a trial it takes turns with the"
        " baseline, which gives its speeds and ratios.",
    )
    trial_seconds: float = Field(
        3.0,
        ge=0.1,
        le=3600,
        strict=False,
        description="The two sides of a trial take turns for at least this many seconds.",
    )
    repetitions: int = Field(1, ge=1, le=1000, description="Each round measures this many answers.")
    warmups: int = Field(
        1,
        ge=0,
        le=100,
        description="Each round generates this many full-length answers before the measured ones.",
    )
    depths: list[Annotated[int, Field(ge=TOKENS_AT_DEPTH, le=LONGEST)]] = Field(
        [128, 512],
        description="Rounds also measure prefill and decode with prompts of these lengths in"
        " tokens, where the context holds them.",
    )
    search: str = Field(
        "15min",
        pattern=r"^[1-9]\d{0,4}min$",
        description="For recipes, what each group of tensors loses is measured for about this long;"
        " a shorter search takes larger groups.",
    )
    precision: str | None = Field(
        None,
        pattern=r"^([1-9][0-9]?|0\.[0-9]*[1-9]|[1-9]\.[0-9]+)%$",
        description="The intervals of decode ratios shall be this narrow, such as 2%; the table"
        " says how many trials that takes.",
    )
    quality: Annotated[
        Quality | None,
        BeforeValidator(lambda found: None if found in (False, "false", "null") else found),
    ] = Field(
        Quality.model_validate({}),
        description="Quality is measured by these settings; null or false leaves it out.",
    )
    scratch: AbsolutePath | None = Field(
        None,
        description="Rounds copy the weights to this folder on the machine's own disk and measure"
        " the copy.",
    )
    results: RelativePath = Field("results", description="Results go to this folder.")
    readme: AnyPath | None = Field(
        "README.md",
        description="The results go into the section between two markers of this page; null writes"
        " no page.",
    )

    @field_validator("models")
    @classmethod
    def types_are_the_files_own(cls, models: dict[str, ComparedModel]) -> dict[str, ComparedModel]:
        return {name: cast(ComparedModel, m.of_its_header()) for name, m in models.items()}

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
                raise ValueError(
                    f"variants.{name}: names no model, and the experiment has none; set 'model'"
                )
            if model not in self.models:
                raise ValueError(
                    f"variants.{name}: no model {model!r}; models: {', '.join(self.models)}"
                )
            can_have_file(f"variants.{name}", variant, self.models[model])
            fits_context(f"variants.{name}", variant, self.context)
            self.check_bounds(f"variants.{name}", variant, model)
            if variant.node is not None and variant.node not in self.nodes:
                raise ValueError(
                    f"variants.{name}: no node {variant.node!r};"
                    f" nodes: {', '.join(self.nodes) or 'none'}"
                )
        for name, entry in self.models.items():
            if entry.dither and not entry.unpacked:
                raise ValueError(
                    f"models.{name}.dither: the source ships unquantized weights, and those are"
                    " never moved; leave it out"
                )
        self.check_references()
        return self

    def check_bounds(self, place: str, settings: Settings, model: str) -> None:
        """Raise ValueError if a recipe's size or time is that of a variant that it cannot be.

        A recipe is named by its bounds, so it is told here which of the model's files the other
        variant runs, and how many threads it is timed with.
        """
        if not isinstance(settings, LlamaCppVariant):
            return
        settings.usual_threads(self.threads)
        for key, such in (("size", "a size such as 105MB"), ("time", "a time such as 20ms")):
            if not isinstance(bound := getattr(settings, key), OfVariant):
                continue
            at, name, other = f"{place}.{key}.of", bound.of, self.variants.get(bound.of)
            if other is None:
                raise ValueError(f"{at}: no variant {name!r}; variants: {', '.join(self.variants)}")
            if not isinstance(other, LlamaCppVariant) or other.quantization == "recipe":
                raise ValueError(
                    f"{at}: {name!r} is no file of a type in llama.cpp; name a variant that is, or"
                    f" {such}"
                )
            if (other.model or self.model) != model:
                raise ValueError(f"{at}: {name!r} is of another model; name one of the same")
            bound.found(form_in(other, self.models[model]))

    def check_references(self) -> None:
        """Raise ValueError unless each model's reference can be its own."""
        general = self.quality.reference if self.quality else None
        own = {name: entry.reference for name, entry in self.models.items() if entry.reference}
        keys = {f"models.{name}.reference": reference for name, reference in own.items()}
        for key, reference in {"quality.reference": general, **keys}.items():
            if isinstance(reference, str) and reference not in self.variants:
                raise ValueError(
                    f"{key}: no variant {reference!r}; variants: {', '.join(self.variants)}"
                )
        for key, reference in {"quality.reference": general, **keys}.items():
            settings = self.variants[reference] if isinstance(reference, str) else reference
            if isinstance(settings, Settings) and library_of(settings.form):
                raise ValueError(
                    f"{key}: {settings.form} cannot be a reference; name a variant in llama.cpp, or"
                    " one in transformers without quantization"
                )
        for name, reference in own.items():
            variant = self.variants[reference] if isinstance(reference, str) else None
            if variant and (other := variant.model or self.model) != name:
                raise ValueError(
                    f"models.{name}.reference: {reference!r} is a variant of {other}; name one of"
                    f" {name}"
                )
        used = self.models_run
        for name in used:
            if isinstance(reference := own.get(name, general), LlamaCppVariant):
                key = f"models.{name}.reference" if name in own else "quality.reference"
                can_have_file(key, reference, self.models[name])
                self.check_bounds(key, reference, name)
        shared = (ReferenceFile, ReferenceOnHub)
        if isinstance(general, shared):
            general.serves("quality.reference", used - own.keys())
        for name, reference in own.items():
            if isinstance(reference, shared):
                reference.serves(f"models.{name}.reference", [name])

    @property
    def models_run(self) -> set[str]:
        """The models that variants run."""
        return {variant.model or self.model or "" for variant in self.variants.values()}

    def reference_of(self, model: str) -> Reference | None:
        """What a model's quality is measured against: its own reference, else that of all."""
        if self.quality is None:
            return None
        return self.models[model].reference or self.quality.reference

    def published_references(self) -> list[PublishedFile]:
        """The references that come from the hub, of the models that variants run."""
        found = {model: self.reference_of(model) for model in sorted(self.models_run)}
        return [one.of(m) for m, one in found.items() if isinstance(one, ReferenceOnHub)]


def load_experiment(config: dict[str, Any], origin: str = "config") -> Experiment:
    """Check a config that was read from YAML.

    Raises LabError with one line per problem: the key, what is wrong, what is allowed.
    """
    check_values(config, origin)
    try:
        return Experiment.model_validate(with_sweeps(config, origin))
    except ValidationError as error:
        lines = [described(origin, e, keys_allowed(e["loc"])) for e in error.errors()]
        raise LabError("\n".join(lines)) from None


def keys_allowed(place: tuple[int | str, ...]) -> list[str]:
    """The keys that may stand where an unknown one was found."""
    shapes: dict[str, type[Strict]] = {
        "transformers": TransformersVariant,
        "llama.cpp": LlamaCppVariant,
        "mlx": MlxVariant,
        "openvino": OpenVinoVariant,
        "onnx": OnnxVariant,
        "package": Package,
        "gguf": HubGguf,
        "files": GgufFile,
        "parts": Part,
        "hub": Hub,
        "models": ComparedModel,
        "a file": ReferenceFile,
        "on the hub": ReferenceOnHub,
        "on the hub.hub": PublishedFile,
        "nodes": Node,
        "kv_cache": KvCache,
        "size": OfVariant,
        "time": OfVariant,
        "quality": Quality,
    }
    parents = [str(p) for p in place[:-1]]
    if parents[-2:] == ["on the hub", "hub"]:  # not a model's
        parents = ["on the hub.hub"]
    found = next((shapes[p] for p in reversed(parents) if p in shapes), Experiment)
    return list(found.model_fields)
