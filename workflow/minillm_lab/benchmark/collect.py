"""Collect a variant's rounds, trials, score and file facts into ``results/<variant>.json``."""

import argparse
import json
from collections.abc import Callable, Sequence
from math import exp, log
from pathlib import Path
from statistics import median
from typing import Any

from minillm_lab import __version__, estimates
from minillm_lab.benchmark.stability import instabilities
from minillm_lab.experiment.libraries import library_of
from minillm_lab.experiment.sources import QUANTIZATION_TYPES, Model, type_of
from minillm_lab.jobs.command import run
from minillm_lab.jobs.errors import LabError
from minillm_lab.quality.answer import answer_metrics
from minillm_lab.recipe import Recipe
from minillm_lab.records import (
    Block,
    NoTrial,
    Output,
    QualityMetric,
    Repetition,
    Round,
    Score,
    Slices,
    Trial,
    read_record,
    write_record,
)
from minillm_lab.result import Metric, ModelFacts, Result, TrialSample, quantized_in

UNPACKED = "the source ships only quantized weights; F16 unpacked from them"


def taken_on_accelerator(round_: Round) -> float | None:
    """Bytes on the accelerator; None where it was shared and less was taken in the end."""
    taken = round_.accelerator_memory_peak_bytes
    return taken if taken is None or taken > 0 else None


PER_ROUND: dict[str, tuple[str, Callable[[Round], float | None]]] = {
    "load_cold_seconds": ("s", lambda r: r.load_cold_seconds),
    "load_warm_seconds": ("s", lambda r: r.load_warm_seconds),
    "memory_before_load_bytes": ("B", lambda r: r.memory_before_load.resident),
    "memory_after_load_bytes": ("B", lambda r: r.memory_after_load.resident),
    "memory_after_generation_bytes": ("B", lambda r: r.memory_after_generation.resident),
    "memory_peak_bytes": ("B", lambda r: r.memory_peak_bytes),
    "memory_model_bytes": (
        "B",
        lambda r: r.memory_after_generation.resident - r.memory_before_load.resident,
    ),
    "memory_anonymous_bytes": ("B", lambda r: r.memory_after_generation.anonymous),
    "memory_file_backed_bytes": ("B", lambda r: r.memory_after_generation.file_backed),
    "accelerator_memory_peak_bytes": ("B", taken_on_accelerator),
}
PER_REPETITION: dict[str, tuple[str, Callable[[Round, Repetition], float]]] = {
    "first_token_seconds": ("s", lambda r, x: x.first_token_seconds),
    "prefill_tokens_per_second": ("t/s", lambda r, x: r.prompt_tokens / x.prefill_seconds),
    "decode_tokens_per_second": (
        "t/s",
        lambda r, x: len(x.decode_seconds) / sum(x.decode_seconds),
    ),
    "generate_seconds": ("s", lambda r, x: x.generate_seconds),
    "generate_tokens_per_second": ("t/s", lambda r, x: r.generated_tokens / x.generate_seconds),
}


def metrics_of(rounds: list[Round]) -> dict[str, Metric]:
    """Every metric of the rounds: its estimate, interval, and raw samples by round."""
    samples: dict[str, tuple[str, list[list[float]]]] = {}
    for name, (unit, of_round) in PER_ROUND.items():
        values = [of_round(r) for r in rounds]
        samples[name] = (unit, [[] if v is None else [float(v)] for v in values])
    for name, (unit, of_repetition) in PER_REPETITION.items():
        samples[name] = (unit, [[of_repetition(r, x) for x in r.repetitions] for r in rounds])
    for i, depth in enumerate(rounds[0].depths):
        at = [r.depths[i] for r in rounds]
        tokens = depth.prompt_tokens
        samples[f"prefill_tokens_per_second_at_{tokens}"] = (
            "t/s",
            [[tokens / d.prefill_seconds] for d in at],
        )
        samples[f"decode_tokens_per_second_at_{tokens}"] = (
            "t/s",
            [[len(d.decode_seconds) / sum(d.decode_seconds)] for d in at],
        )
        samples[f"first_token_seconds_at_{tokens}"] = ("s", [[d.first_token_seconds] for d in at])
        held = [[float(d.memory.resident)] for d in at]
        samples[f"memory_bytes_at_{tokens}"] = ("B", held)
    prompt = rounds[0].prompt_tokens  # trials measure at this length too; these are the rounds' own
    for name in ("prefill_tokens_per_second", "decode_tokens_per_second", "first_token_seconds"):
        samples.setdefault(f"{name}_at_{prompt}", samples[name])
    found = {}
    for name, (unit, by_round) in samples.items():
        if not any(by_round):
            found[name] = Metric(value=None, unit=unit, ci95=None, n=0, samples=[])
            continue
        estimate = estimates.of_rounds(by_round)
        found[name] = Metric(
            value=estimate.value, unit=unit, ci95=estimate.ci95, n=estimate.n, samples=by_round
        )
    return found


def samples_of(trial: Trial) -> list[TrialSample]:
    """A trial's figures by block: medians over slices, and for ratios over cycles."""
    return [
        TrialSample(
            trial=trial.trial,
            measured_at=trial.measured_at,
            fingerprint=trial.machine["fingerprint"],
            before=block.before,
            after=block.after,
            disturbed=trial.disturbed,
            **figures_of(trial, block),
        )
        for block in trial.blocks
    ]


def figures_of(trial: Trial, block: Block) -> dict[str, dict[str, float]]:
    """Both sides' speeds in a block, and the ratios of the variant's to the baseline's."""
    ours = speeds_of(block.variant, trial.variant.prompt_tokens, trial.generated_tokens)
    theirs = speeds_of(block.baseline, trial.baseline.prompt_tokens, trial.generated_tokens)
    tokens = trial.variant.prompt_tokens / trial.baseline.prompt_tokens
    ratios = {
        "first_token_seconds": by_cycle(block, "first_token_seconds"),
        "prefill_tokens_per_second": tokens / by_cycle(block, "prefill_seconds"),
        "decode_tokens_per_second": 1 / by_cycle(block, "decode_seconds"),
        "generate_seconds": ours["generate_seconds"] / theirs["generate_seconds"],
        "generate_tokens_per_second": theirs["generate_seconds"] / ours["generate_seconds"],
    }
    return {"speeds": ours, "baseline_speeds": theirs, "ratios": ratios}


def speeds_of(side: Slices, prompt: int, tokens: int) -> dict[str, float]:
    """One side's figures; an answer takes its first token and a step for each other token."""
    first, step = median(side.first_token_seconds), median(side.step_seconds)
    answer = first + (tokens - 1) * step
    return {
        "first_token_seconds": first,
        "prefill_tokens_per_second": prompt / median(side.prefill_seconds),
        "decode_tokens_per_second": 1 / median(side.decode_seconds),
        "generate_seconds": answer,
        "generate_tokens_per_second": tokens / answer,
    }


def by_cycle(block: Block, timed: str) -> float:
    """The variant's seconds over the baseline's, for one field: the centre over cycles."""
    pairs = zip(getattr(block.variant, timed), getattr(block.baseline, timed), strict=True)
    return exp(estimates.centre([log(ours / theirs) for ours, theirs in pairs]))


def collect(
    rounds: list[Round],
    model: ModelFacts,
    score: Score | None = None,
    answer: Output | None = None,
    trials: Sequence[Trial | NoTrial] = (),
) -> Result:
    """The result of a variant. Raises LabError if its rounds ran on several machines."""
    first = rounds[0]
    machines = {r.machine["fingerprint"] for r in rounds}
    if len(machines) > 1:
        raise LabError(
            f"{first.variant}: its rounds come from {len(machines)} machines; delete the rounds of"
            " all but one (results/rounds/) to measure them again; on a cluster, name the kind of"
            " node (docs/scaling.md)"
        )
    warnings = list(dict.fromkeys(w for r in rounds for w in r.warnings)) + instabilities(rounds)
    if any(r.output.token_ids != first.output.token_ids for r in rounds):
        warnings.append("greedy answers differ between rounds; the result has the first")
    if flaw := next((r.output.flaw for r in rounds if r.output.flaw), None):
        warnings.insert(0, f"the answer means nothing: {flaw}; no figure of this variant is ranked")
    taken = [trial for trial in trials if isinstance(trial, Trial)]
    samples = [sample for trial in taken for sample in samples_of(trial)]
    no_trials = next((t.reason for t in trials if isinstance(t, NoTrial)), None)
    if no_trials:
        warnings.append(
            f"{no_trials}; its ratios are from rounds, its speeds the baseline's times these"
        )
        samples = []
    warnings += score.warnings if score else []
    warnings += [answer.flaw] if answer and answer.flaw else []
    if disturbed := [t.disturbed for t in taken if t.disturbed]:
        warnings.append(f"{len(disturbed)} of {len(taken)} trials are set aside: {disturbed[0]}")
    return Result(
        lab_version=__version__,
        variant=first.variant,
        model=model,
        runtime=first.runtime,
        machine=first.machine,
        protocol={
            "prompt_tokens": first.prompt_tokens,
            "generated_tokens": first.generated_tokens,
            "rounds": len(rounds),
            "repetitions": len(first.repetitions),
            "trials": len(taken),
            "warmups": len(first.warmups),
            "context": first.runtime["settings"]["context"],
            "sampling": "greedy, end of text ignored",
            **({"scratch": True} if first.scratch else {}),
            **({"quality": score.protocol} if score and score.protocol else {}),
        },
        metrics=metrics_of(rounds),
        round_readings=[(r.before, r.after) for r in rounds],
        round_times=[r.measured_at for r in rounds],
        trials=samples,
        no_trials=no_trials,
        decode_seconds_by_token=[
            median(steps)
            for steps in zip(
                *(x.decode_seconds for r in rounds for x in r.repetitions), strict=True
            )
        ],
        quality=quality_of(first.output, score, answer),
        quality_by_chunk=score.by_chunk if score else {},
        quality_by_position=score.by_position if score else {},
        quality_by_section=score.by_section if score else {},
        quality_bits_by_block=score.bits_by_block if score else [],
        quality_hurt_most=score.hurt_most if score else [],
        output=first.output.model_copy(update={"flaw": flaw}),
        measured_at=max(r.measured_at for r in rounds),
        warnings=list(dict.fromkeys(warnings)) + unpacked(model, score),
    )


def unpacked(model: ModelFacts, score: Score | None) -> list[str]:
    """The warning about a quantized reference, or about a source of quantized weights alone."""
    source = Model.model_validate(model.source)
    compared = score.protocol.get("reference", {}).get("weights", {}) if score else {}
    published = {name for file in source.listed_gguf.values() for name in file.names}
    quantized = quantized_in(compared)
    if compared and source.unpacked and compared.keys() <= published:
        quantized = min(compared)
    if quantized:
        return [f"the reference is {quantized}, whose weights are quantized themselves"]
    if not source.unpacked:
        return []
    if not compared and {Path(file.path).name for file in model.files} <= published:
        return []  # nothing was unpacked
    moved = f", each weight {source.moved}," if source.moved else ""
    return [f"{UNPACKED}{moved} counts as unquantized"]


def quality_of(
    output: Output, score: Score | None, answer: Output | None
) -> dict[str, QualityMetric] | None:
    """The variant's score, and its answer compared with the reference's; None if not measured."""
    if score is None or not score.metrics:
        return None
    compared = (
        answer_metrics(output.token_ids, answer.token_ids) if answer and not answer.flaw else {}
    )
    return score.metrics | compared


def revision_of(source: dict[str, Any], form: str) -> str | None:
    """The version or commit that a form of a model comes from; None for a local file."""
    if "package" in source:
        return str(source["package"]["version"])
    hub = source.get("hub", {})
    gguf = hub.get("gguf", {})
    published = gguf.get("files", {}).get(form)
    revision: str | None = hub.get("revision") or gguf.get("revision")
    return published.get("revision") or gguf["revision"] if published else revision


def read_trial(path: Path) -> Trial | NoTrial:
    """Read a trial, or the record that says why there is none."""
    try:
        without = "reason" in json.loads(path.read_bytes())
    except (OSError, ValueError, TypeError):
        without = False  # the error comes from reading it as a trial
    return read_record(path, NoTrial) if without else read_record(path, Trial)


def main(arguments: argparse.Namespace) -> None:
    rounds = [read_record(path, Round) for path in arguments.rounds]
    source = json.loads(arguments.source)
    try:
        facts = json.loads(arguments.facts.read_bytes())
        type_ = facts.pop("type")
        made = type_of(arguments.form)
        recipe = read_record(arguments.recipe, Recipe) if arguments.recipe else None
        known = ("safetensors", "unknown", "recipe", *QUANTIZATION_TYPES)
        labelled = made not in known and not library_of(made)
        model = ModelFacts(
            name=arguments.model,
            source=source,
            revision=revision_of(source, arguments.form),
            quantization=type_ if labelled else made,
            label=arguments.form if labelled else None,
            recipe=recipe,
            tensors=recipe.tensors if recipe else json.loads(arguments.tensors),
            **facts,
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise LabError(
            f"{arguments.facts}: not the facts of a model file; delete it to make it again"
        ) from error
    score = read_record(arguments.score, Score) if arguments.score else None
    answer = read_record(arguments.answer, Output) if arguments.answer else None
    trials = [read_trial(path) for path in arguments.trials]
    write_record(arguments.output, collect(rounds, model, score, answer, trials))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=Path, nargs="+", required=True)
    parser.add_argument("--trials", type=Path, nargs="*", default=[])
    parser.add_argument("--facts", type=Path, required=True, help="facts of the model file")
    parser.add_argument("--score", type=Path, nargs="?", help="the variant's quality")
    parser.add_argument("--answer", type=Path, nargs="?", help="the reference's answer")
    parser.add_argument("--model", required=True, help="the model's name")
    parser.add_argument("--source", required=True, help="the model's entry in the config, as JSON")
    parser.add_argument("--form", required=True, help="a type or label of a GGUF, or safetensors")
    parser.add_argument("--tensors", default="{}", help="types by patterns of names, as JSON")
    parser.add_argument("--recipe", type=Path, nargs="?", help="the recipe of its file")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
