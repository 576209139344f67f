"""Results made up for tests of what is computed from them."""

from collections.abc import Sequence

from minillm_lab import statistics
from minillm_lab.benchmark.collect import PER_REPETITION, PER_ROUND
from minillm_lab.result import Metric, ModelFacts, ModelFile, Output, Result

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
    metrics = {}
    for name, rounds in samples.items():
        estimate = statistics.median(rounds)
        metrics[name] = Metric(
            value=estimate.value,
            unit=UNITS[name],
            ci95=estimate.ci95,
            n=estimate.n,
            samples=rounds,
        )
    return Result(
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
        },
        protocol={
            "prompt_tokens": 10,
            "generated_tokens": 80,
            "rounds": 3,
            "repetitions": 2,
            "warmups": 1,
        },
        metrics=metrics,
        decode_seconds_by_token=[0.1] * 79,
        output=Output(text=answer, token_ids=[1, 2, 3]),
        measured_at="2026-01-01T00:00:00+00:00",
        warnings=[],
    )


def around(value: float) -> list[list[float]]:
    """Three rounds of three repetitions with one percent of spread."""
    return [[value * level * x for x in (0.99, 1.0, 1.01)] for level in (0.995, 1.0, 1.005)]
