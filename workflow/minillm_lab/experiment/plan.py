"""The plan of an experiment: the files that its jobs read, their settings, when each job is due.

The rules ask the plan, with the names in their wildcards. All paths are relative to the working
folder.
"""

import itertools
import json
import sys
from collections.abc import Callable, Iterable
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any
from zlib import crc32

from minillm_lab.experiment.config import Experiment
from minillm_lab.experiment.messages import existing
from minillm_lab.experiment.model_files import ModelFiles
from minillm_lab.experiment.quality import Texts
from minillm_lab.experiment.reference import ReferenceFile, ReferenceOnHub
from minillm_lab.experiment.settings import Node
from minillm_lab.experiment.sources import recipe_of
from minillm_lab.experiment.variants import AnyVariant, LlamaCppVariant, form_in
from minillm_lab.jobs import cluster
from minillm_lab.jobs.staleness import stamp
from minillm_lab.records import TOKENS_AT_DEPTH

OWN_CHUNKS = 16  # of the lab's calibration text, for a matrix (docs/quantization.md)
PLACES = 1000  # places in the order of the rounds and trials of one number
MODELS_FIRST = 2_000_000  # the priority of jobs that make models
MEASURED_NEXT = 1_500_000  # the priority of rounds and trials, from which their turn is subtracted
Tokens = Callable[[Any, Any], tuple[int, int]]  # from wildcards and input: in batches, one by one
ENVIRONMENTS = ("transformers", "llama.cpp", "more")  # conda files; each holds those before it
BY_NODE = {  # the Slurm executor's name for each key of a node
    "account": "slurm_account",
    "partition": "slurm_partition",
    "constraint": "constraint",
    "gpus": "gpu",
}


def due(number: int, kind: str = "", variant: str = "") -> int:
    """The priority of a round or trial: by its number, and within a number in a shuffled order.

    It is below that of jobs that make models. The order never changes, so the plan is stable.
    """
    place = crc32(f"{number} {kind} {variant}".encode()) % PLACES if kind else 0
    return MEASURED_NEXT - number * PLACES - place


def conda_file(*runtimes: str) -> str:
    """The conda file in which runtimes are found, as the rules name it."""
    files = [name if name in ENVIRONMENTS else "more" for name in runtimes]
    return f"../../envs/{max(files, key=ENVIRONMENTS.index)}.yaml"


def no_tokens(wildcards: Any, input: Any) -> tuple[int, int]:
    return 0, 0


def known(name: str, names: Iterable[str], kind: str) -> str:
    """The name, if the experiment has such a variant or model; else exit with one line."""
    if name in names:
        return name
    first = list(itertools.islice(names, 31))
    listed = ", ".join(first[:30]) + (", …" if len(first) > 30 else "")
    sys.exit(f"error: no {kind} {name!r} in this experiment; choose one of: {listed}")


class Plan:
    """The plan of an experiment.

    ``lab``: the folder of the lab's own files. ``asks``: jobs say which memory, time and node they
    need, for a scheduler that asks.
    """

    def __init__(self, experiment: Experiment, lab: str, asks: bool = False) -> None:
        self.experiment, self.lab, self.asks = experiment, lab, asks
        self.results = experiment.results
        references = map(experiment.reference_of, experiment.models_run)
        settings = [*experiment.variants.values(), *references]
        made = [one for one in settings if isinstance(one, LlamaCppVariant)]
        imatrices = {recipe_of(one.recipe)[0]: one.imatrix for one in made}
        imatrices |= {"": "none", "+imatrix": "own"}
        mixtures = {recipe_of(one.recipe)[1]: one.tensors for one in made} | {"": {}}
        recipes = {recipe_of(v.recipe)[1]: v for v in made if v.quantization == "recipe"}
        self.models = ModelFiles(experiment.models, imatrices, mixtures, recipes)
        self.trial_settings = cache(self._trial_settings)  # every trial asks for the baseline's
        self.stamp = cache(stamp)

    @property
    def texts(self) -> Texts:
        """What quality is measured on, where it is measured."""
        assert self.experiment.quality is not None
        return Texts(self.experiment.quality, self.lab)

    # What a variant is.

    def variant(self, name: str) -> AnyVariant:
        """A variant's settings; exits with one line if there is no such variant."""
        return self.experiment.variants[known(name, self.experiment.variants, "variant")]

    def model(self, variant: str) -> str:
        """The name of a variant's model."""
        name = self.variant(variant).model or self.experiment.model
        assert name is not None  # the config was checked
        return name

    def known_model(self, name: str) -> str:
        """A model's name; exits with one line if there is no such model."""
        return known(name, self.experiment.models, "model")

    def runtime(self, variant: str) -> str:
        """The name of a variant's runtime, with the library that it needs besides."""
        return self.variant(variant).engine

    @property
    def runtimes(self) -> list[str]:
        """The names of all runtimes that variants name."""
        return sorted({variant.engine for variant in self.experiment.variants.values()})

    def form(self, variant: str) -> str:
        """The form that a variant's runtime reads, as ``ModelFiles`` names it."""
        return self.form_of(self.variant(variant), self.model(variant))

    def form_of(self, settings: AnyVariant, model: str) -> str:
        """The form of a model that its runtime reads with these settings."""
        return form_in(settings, self.experiment.models[model])

    def weights(self, variant: str) -> str:
        """The model file or folder that a variant runs."""
        return self.models.path(self.model(variant), self.form(variant))

    def pair(self, variant: str) -> tuple[str, str]:
        """The two sides of a trial: the variant and the baseline."""
        return variant, self.experiment.baseline

    def trial_conda_file(self, variant: str) -> str:
        """The conda file in which both sides of a trial run."""
        return conda_file(*map(self.runtime, self.pair(variant)))

    def by_variant(self, found: Callable[[str], Any]) -> Any:
        """What ``found`` says of a job's variant, as a rule takes it.

        One value where all variants share it: Snakemake would ask a function for each of thousands
        of jobs. But it would read the braces of a text as wildcards.
        """
        values = {name: found(name) for name in self.experiment.variants}
        first, *others = values.values()
        texts = [first] if isinstance(first, str) else first
        braces = any(isinstance(text, str) and "{" in text for text in texts)
        if all(other == first for other in others) and not braces:
            return first

        def of_job(wildcards: Any) -> Any:
            return values.get(wildcards.variant) or found(wildcards.variant)  # it may be unknown

        of_job.__signature__ = signature(of_job)  # type: ignore[attr-defined] # asked at each call
        return of_job

    # How a variant is measured, as sorted JSON, and how often.

    def settings(self, variant: str) -> str:
        """All settings that a round of a variant needs, as sorted JSON."""
        experiment, settings = self.experiment, self.variant(variant)
        chosen = settings.model_dump(exclude={"model", "node"} | settings.OF_THE_FILE)
        if settings.node:  # a variant that moves to another node is measured again
            chosen["node"] = self.node(variant).model_dump(exclude={"account"}, exclude_none=True)
        chosen["threads"] = chosen["threads"] or experiment.threads
        chosen["context"] = self.context(variant)
        for key in ("generate", "repetitions", "warmups"):
            chosen[key] = getattr(experiment, key)
        if experiment.scratch:
            chosen["scratch"] = experiment.scratch
        chosen["depths"] = self.depths(variant)
        return json.dumps(chosen, sort_keys=True)

    def _trial_settings(self, variant: str) -> str:
        """The settings of a variant in a trial, as sorted JSON."""
        chosen = json.loads(self.settings(variant))
        for key in ("repetitions", "warmups", "depths", "scratch"):
            chosen.pop(key, None)
        return json.dumps(chosen | {"seconds": self.experiment.trial_seconds}, sort_keys=True)

    def runtime_settings(self, variant: str) -> str:
        """The settings with which a variant computes, without those of measuring its speed."""
        return self._computing(self.variant(variant))

    def _computing(self, settings: AnyVariant) -> str:
        chosen = settings.model_dump(exclude={"model", "context", "node"} | settings.OF_THE_FILE)
        chosen["threads"] = chosen["threads"] or self.experiment.threads
        return json.dumps(chosen, sort_keys=True)

    def context(self, variant: str) -> int:
        """The size of a variant's context in tokens."""
        return self.variant(variant).context or self.experiment.context

    def depths(self, variant: str) -> list[int]:
        """The other prompt lengths at which a variant is measured, if its context holds them."""
        room = self.context(variant) - TOKENS_AT_DEPTH
        return sorted({depth for depth in self.experiment.depths if depth <= room})

    def trials(self, variant: str) -> list[str]:
        """The files of a variant's trials.

        The baseline and variants on another kind of node than the baseline's have none.
        """
        elsewhere = self.node(variant) != self.node(self.experiment.baseline)
        if variant == self.experiment.baseline or elsewhere:
            return []
        numbers = range(1, self.experiment.trials + 1)
        return [f"{self.results}/trials/{variant}.{n}.json" for n in numbers]

    # The resources that a job asks of a cluster.

    def node(self, variant: str) -> Node:
        """The kind of node that a variant names; an empty one if it names none."""
        name = self.variant(variant).node
        return self.experiment.nodes[name] if name else Node.model_validate({})

    def reading_model(
        self, tokens: Tokens = no_tokens, models: int = 1, minutes: int = 0
    ) -> dict[str, Any]:
        """Memory and time, as Snakemake's resources, of a job whose first inputs are models.

        ``minutes``: what it takes besides, whatever the model.
        """
        if not self.asks:
            return {}
        return {
            "mem_mb": lambda wildcards, input, attempt: cluster.megabytes(input[:models], attempt),
            "runtime": lambda wildcards, input, attempt: (
                cluster.minutes(input[:models], *tokens(wildcards, input), attempt)
                + attempt * minutes
            ),
        }

    def on_node(self, tokens: Tokens, models: int = 1) -> dict[str, Any]:
        """The resources of ``reading_model``, and those of the node that the variant names."""

        def asked(key: str) -> Callable[[Any], Any]:
            return lambda wildcards: getattr(self.node(wildcards.variant), key)

        if not self.asks:
            return {}
        used = {key for node in self.experiment.nodes.values() for key, value in node if value}
        asks = {BY_NODE[key]: asked(key) for key in sorted(used)}
        return {**self.reading_model(tokens, models), **asks}

    def tokens_of_round(self, wildcards: Any, input: Any) -> tuple[int, int]:
        """The tokens of a round in batches and one by one; the prompt counts as a full context."""
        experiment, depths = self.experiment, self.depths(wildcards.variant)
        answers = experiment.warmups + experiment.repetitions
        prompts = answers * self.context(wildcards.variant) + 2 * sum(depths)
        return prompts, answers * experiment.generate + len(depths) * TOKENS_AT_DEPTH

    def tokens_of_trial(self, wildcards: Any, input: Any) -> tuple[int, int]:
        """The tokens of a trial: for each side three attempts of four blocks."""
        prompts, single = self.tokens_of_round(wildcards, input)
        return 24 * prompts, 12 * single

    def tokens_of_text(self, wildcards: Any, input: Any) -> tuple[int, int]:
        return cluster.tokens_in(input.text), 0

    @property
    def with_imatrix(self) -> list[str]:
        """The models of which an importance matrix is made here."""
        forms = {(self.model(name), self.form(name)) for name in self.experiment.variants}
        forms |= {(m, self.form_of(self.computed(m), m)) for m in self.with_reference}
        return sorted({model for model, form in forms if self.models.makes_imatrix(form)})

    def imatrix(self, model: str, form: str) -> str | list[str]:
        """The importance matrix that a form is made with; exits where the config's is not there."""
        found = self.models.imatrix(model, form)
        made_here = isinstance(found, list) or self.models.makes_imatrix(form)
        return found if made_here else existing("imatrix", str(found))

    def calibration(self, of: str) -> str:
        """The text that an importance matrix is made from: the lab's own, or another file."""
        path = self.models.calibration(of)
        own = f"{self.lab}/minillm_lab/models/calibration.txt"
        return own if path == "own" else existing("imatrix", path)

    def tokens_of_calibration(self, wildcards: Any, input: Any) -> tuple[int, int]:
        """The tokens of a calibration text, at three bytes each."""
        return Path(input.text).stat().st_size // 3, 0

    # Quality.

    def reference(self, model: str) -> AnyVariant | None:
        """The settings that compute a model's reference; None if it is made elsewhere, or none."""
        reference = self.experiment.reference_of(self.known_model(model))
        if isinstance(reference, ReferenceFile | ReferenceOnHub):
            return None
        return self.experiment.variants[reference] if isinstance(reference, str) else reference

    @property
    def with_reference(self) -> list[str]:
        """The models that variants run whose references are computed here."""
        models = dict.fromkeys(map(self.model, self.experiment.variants))
        return [model for model in models if self.reference(model)]

    @property
    def reference_runtimes(self) -> list[str]:
        """The names of the runtimes that compute them."""
        return sorted({self.computed(model).engine for model in self.with_reference})

    def computed(self, model: str) -> AnyVariant:
        """The same as ``reference``; exits with one line if it is not computed here."""
        missing = f"error: the reference of {model} is not computed here"
        return self.reference(model) or sys.exit(missing)

    def reference_weights(self, model: str) -> str:
        """The model file or folder that the reference is computed from."""
        return self.models.path(model, self.form_of(self.computed(model), model))

    def reference_settings(self, model: str) -> str:
        """The settings with which a model's reference computes, as sorted JSON."""
        return self._computing(self.computed(model))

    def reference_file(self, variant: str) -> str:
        """The file of the reference of a variant's model, made here or elsewhere."""
        model = self.model(variant)
        reference = self.experiment.reference_of(model)
        if isinstance(reference, ReferenceFile):
            own = self.experiment.models[model].reference
            key = f"models.{model}.reference" if own else "quality.reference"
            return existing(key, reference.of(model))
        if isinstance(reference, ReferenceOnHub):
            return reference.of(model).path
        return f"{self.results}/quality/reference.{model}.npz"

    def shared_reference(self, variant: str) -> str:
        """A stamp of a reference in a file here, which changes if it is replaced; else empty."""
        reference = self.experiment.reference_of(self.model(variant))
        here = isinstance(reference, ReferenceFile)
        return self.stamp(self.reference_file(variant)) if here else ""

    def score(self, variant: str) -> str | list[str]:
        """The file of a variant's score, if quality is measured."""
        return f"{self.results}/quality/{variant}.json" if self.experiment.quality else []

    def answer(self, model: str) -> str | list[str]:
        """The file of the reference's answer to the prompt, if a reference is computed."""
        return f"{self.results}/quality/answers/{model}.json" if self.reference(model) else []

    def answers(self) -> list[str]:
        """The files of the references' answers for all models that variants run."""
        return [str(self.answer(model)) for model in self.with_reference]
