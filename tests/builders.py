"""Results made up for tests of what is computed from them."""

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from minillm_lab import estimates
from minillm_lab.benchmark.collect import PER_REPETITION, PER_ROUND
from minillm_lab.comparison.compare import compare
from minillm_lab.comparison.shapes import Comparison
from minillm_lab.comparison.trials import METRICS as TRIED
from minillm_lab.records import (
    Block,
    Conditions,
    Memory,
    Output,
    Reading,
    Repetition,
    Round,
    Side,
    Slices,
    Trial,
)
from minillm_lab.result import Metric, ModelFacts, ModelFile, Result, TrialSample

STEADY = Reading(compute_flops=1.7e11, memory_bytes_per_second=3.2e10)
UNITS = {name: unit for name, (unit, _) in (PER_ROUND | PER_REPETITION).items()}


def made_up(
    variant: str,
    *,
    decode: Sequence[Sequence[float]] = ((10.0, 10.0), (10.0, 10.0), (10.0, 10.0)),
    runtime: str = "llama.cpp",
    backend: str = "CPU",
    quantization: str = "Q8_0",
    size: int = 10**8,
    tensor_types: dict[str, float] | None = None,
    machine: str = "aaaaaaaaaaaa",
    answer: str = "An answer.",
) -> Result:
    samples = {name: [[1.0], [1.0], [1.0]] for name in UNITS}
    samples["decode_tokens_per_second"] = [list(r) for r in decode]
    if backend == "CPU":
        del samples["accelerator_memory_peak_bytes"]
    metrics = {}
    for name, rounds in samples.items():
        estimate = estimates.of_rounds(rounds)
        metrics[name] = Metric(
            value=estimate.value,
            unit=UNITS[name],
            ci95=estimate.ci95,
            n=estimate.n,
            samples=rounds,
        )
    for what in ("prefill", "decode"):  # the rounds' own, whatever trials say
        metrics[f"{what}_tokens_per_second_at_10"] = metrics[f"{what}_tokens_per_second"]
    return Result(
        lab_version="0.1.0",
        variant=variant,
        model=ModelFacts(
            name="m",
            source={"path": "m.gguf"},
            revision=None,
            files=[ModelFile(path="m", bytes=size, sha256="0" * 64)],
            format="safetensors" if runtime == "transformers" else "gguf",
            quantization=quantization,
            parameters=10**8,
            bits_per_weight=8 * size / 10**8,
            tensor_types=tensor_types or {quantization: 1.0},
        ),
        runtime={
            "name": runtime,
            "version": {runtime: "1.0"},
            "threads": 2,
            "backend": backend,
            "device": backend,
            "settings": {"context": 128},
        },
        machine={
            "fingerprint": machine,
            "cpu": "A CPU",
            "cores": 2,
            "memory_bytes": 2**33,
            "os": "Linux 6",
            "python": "3.11.7",
            "accelerators": [],
        },
        protocol={
            "prompt_tokens": 10,
            "generated_tokens": 80,
            "rounds": 3,
            "repetitions": 2,
            "trials": 0,
            "warmups": 1,
        },
        metrics=metrics,
        round_readings=[(STEADY, STEADY)] * 3,
        round_times=["2026-01-01T00:00:00+00:00"] * 3,
        trials=[],
        decode_seconds_by_token=[0.1] * 79,
        output=Output(text=answer, token_ids=[1, 2, 3]),
        measured_at="2026-01-01T00:00:00+00:00",
        warnings=[],
    )


def blocks(bits: float, reference: float, noise: float = 0.01) -> list[tuple[float, float, int]]:
    """Blocks of a text that is harder in some places, for every model, and noise of this model."""
    found = []
    for i, level in enumerate((0.5, 0.8, 0.9, 1.0, 1.0, 1.1, 1.2, 1.5)):
        own = level * (1 + noise * (-1) ** i)
        found.append((2048 * bits * own, 2048 * reference * own, 2048))
    return found


def trial(
    number: int,
    ours: dict[str, float],
    theirs: dict[str, float],
    *,
    before: Reading = STEADY,
    after: Reading | None = None,
    machine: str = "aaaaaaaaaaaa",
    disturbed: str | None = None,
) -> TrialSample:
    """A trial with the figures of both sides; where no ``after`` is given, in one state."""
    return TrialSample(
        trial=number,
        measured_at="2026-01-01T00:00:00+00:00",
        fingerprint=machine,
        before=before,
        after=after or before,
        disturbed=disturbed,
        speeds=ours,
        baseline_speeds=theirs,
        ratios={metric: ours[metric] / theirs[metric] for metric in ours},
    )


def by_round(result: Result) -> list[dict[str, float]]:
    """What a trial measures, as each round of a result has it; the median of its repetitions."""
    samples = [result.metrics[metric].samples for metric in TRIED]
    return [
        dict(zip(TRIED, map(median, of_round), strict=True))
        for of_round in zip(*samples, strict=False)
    ]


def with_trials(
    results: Iterable[Result], baseline: str, reading: Reading = STEADY
) -> dict[str, Result]:
    """Results by name, each with a trial for each of its rounds, whose figures are the round's."""
    found = {r.variant: r for r in results}
    theirs = by_round(found[baseline]) if baseline in found else []
    for name, result in found.items():
        pairs = zip(by_round(result), theirs, strict=False) if name != baseline else ()
        trials = [
            trial(i, *pair, before=reading, machine=result.machine["fingerprint"])
            for i, pair in enumerate(pairs, 1)
        ]
        readings = [(reading, reading)] * len(result.round_readings)
        found[name] = result.model_copy(update={"trials": trials, "round_readings": readings})
    return found


def compared(
    *results: Result, baseline: str | None = None, reading: Reading = STEADY, **more: Any
) -> Comparison:
    """The comparison of results, measured in trials against the first, or another."""
    base = baseline or results[0].variant
    return compare(with_trials(results, base, reading), base, "snakemake --cores 1", **more)


QUIET = {
    "other_load_cores": 0.02,
    "stolen_share": 0.0,
    "frequency_change": 1.0,
    "governor": "performance",
    "on_battery": False,
}
NOTHING = Memory(resident=0, anonymous=0, file_backed=0)


def made_up_round(number: int, speeds: list[float], **conditions: object) -> Round:
    """A round of a variant ``v``, with a repetition of ten steps for each of the decode speeds."""
    repetitions = [
        Repetition(
            prefill_seconds=1,
            first_token_seconds=1,
            decode_seconds=[1 / s] * 10,
            generate_seconds=1 + 10 / s,
        )
        for s in speeds
    ]
    return Round(
        variant="v",
        round=number,
        measured_at="2026-01-01T00:00:00+00:00",
        machine={"fingerprint": "aaaaaaaaaaaa"},
        runtime={"settings": {"context": 128}},
        prompt_tokens=1,
        generated_tokens=11,
        load_cold_seconds=1,
        load_cold_read_bytes=1,
        load_warm_seconds=1,
        load_warm_read_bytes=0,
        memory_before_load=NOTHING,
        memory_after_load=NOTHING,
        memory_after_generation=NOTHING,
        memory_peak_bytes=0,
        accelerator_memory_peak_bytes=None,
        warmups=[],
        repetitions=repetitions,
        depths=[],
        conditions=Conditions.model_validate(QUIET | conditions),
        before=STEADY,
        after=STEADY,
        output=Output(text="", token_ids=[]),
        warnings=[],
    )


def made_up_trial(
    variant: str,
    seconds: float,
    disturbed: str | None = None,
    levels: Sequence[float] = (0.99, 1.0, 1.01),
) -> Trial:
    """A trial against ``fp16``, which takes 0.1 s a token; the machine's level hits both sides."""

    def slices(seconds: float) -> Slices:
        each = [seconds * level for level in levels]
        return Slices(
            prefill_seconds=[10 * s for s in each],
            first_token_seconds=[10 * s for s in each],
            decode_seconds=each,
            step_seconds=each,
        )

    block = Block(before=STEADY, after=STEADY, variant=slices(seconds), baseline=slices(0.1))
    return Trial(
        trial=1,
        measured_at="2026-01-01T00:00:00+00:00",
        machine={"fingerprint": "aaaaaaaaaaaa"},
        generated_tokens=80,
        attempts=1,
        other_load_cores=0,
        disturbed=disturbed,
        variant=Side(variant=variant, runtime={}, prompt_tokens=10),
        baseline=Side(variant="fp16", runtime={}, prompt_tokens=10),
        blocks=[block] * 2,
    )


def around(value: float) -> list[list[float]]:
    """Three rounds of three repetitions with one percent of spread."""
    return [[value * level * x for x in (0.99, 1.0, 1.01)] for level in (0.995, 1.0, 1.005)]
