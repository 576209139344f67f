"""What people read: tables, charts, the README's section, the report's pages."""

from __future__ import annotations  # the experiment is for type checkers only

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minillm_lab.experiment.config import Experiment

CHARTS = {  # name: title
    "tradeoff": "Quality loss against speed",
    "questions": "Questions wrong against speed",
    "load": "Load time, cold and warm",
    "memory": "Memory by part",
    "lengths": "Speed and memory against prompt length",
    "factors": "Where the speed-up comes from",
    "divergence": "Divergence from the reference",
    "contexts": "Divergence in long contexts",
    "accuracy": "Questions right, by group",
    "recipes": "Which tensors a recipe spends bits on",
}
PAGES = {
    "summary": "1. Summary",
    "charts": "2. Charts",
    "answers": "3. Answers",
    "details": "4. Files and machine",
}  # name: category


def charts_of(experiment: Experiment) -> list[str]:
    """The charts that an experiment measures something for."""
    missing = set() if experiment.quality else {"divergence"}
    if not (experiment.quality and experiment.quality.long_contexts):
        missing.add("contexts")
    if not (experiment.quality and experiment.quality.questions):
        missing |= {"accuracy", "questions"}
    if not any(getattr(v, "quantization", "") == "recipe" for v in experiment.variants.values()):
        missing.add("recipes")
    if len(experiment.models_run) == 1:
        missing.add("questions")  # two models are compared by them
    return [name for name in CHARTS if name not in missing]
