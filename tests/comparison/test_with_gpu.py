"""Variants on a GPU: its memory is told, and what it computes in part is no step of a speed-up."""

from pathlib import Path

from builders import around, compared, made_up, made_up_round
from minillm_lab.benchmark.collect import metrics_of
from minillm_lab.report import tables
from minillm_lab.report.front import front
from minillm_lab.report.learnings import learnings
from minillm_lab.report.pages import summary
from minillm_lab.result import Metric, Result

MEMORY = "Memory on the GPU, peak"


def on_gpu(variant: str, quantization: str, decode: float, layers: int = 31) -> Result:
    """A variant of a model of 30 layers; llama.cpp counts the output as one more."""
    result = made_up(variant, quantization=quantization, decode=around(decode), backend="CUDA")
    result.runtime["settings"] |= {"gpu_layers": layers, "layers": 30}
    result.machine["accelerators"] = [{"name": "NVIDIA X", "driver": "1", "memory": "8 MiB"}]
    taken = (1 if quantization == "F16" else 0.5) * 1e7 * layers
    result.metrics["accelerator_memory_peak_bytes"] = Metric(
        value=taken, unit="B", ci95=(taken, taken), n=3, samples=[[taken]] * 3
    )
    return result


def test_a_model_that_a_gpu_computes_in_part_has_no_factor() -> None:
    whole, part = on_gpu("q4", "Q4_K_M", 1000), on_gpu("part", "Q4_K_M", 500, layers=30)
    found = compared(on_gpu("f16", "F16", 900), whole, part)
    (factor,) = found.factors["q4"]
    assert factor.change == "quantization"
    assert found.factors["part"] == []
    of_parts = compared(on_gpu("f16", "F16", 300, layers=30), part)
    assert of_parts.factors["part"] == []
    assert not any("Quantization alone" in line for line in learnings(of_parts))
    text = tables.markdown(found)
    (row,) = [line for line in text.splitlines() if line.startswith("| Layers on the GPU")]
    assert [cell.strip() for cell in row.split("|")[2:-1]] == ["31", "31", "30 of 31"]


def test_a_faster_variant_without_factors_is_not_called_slower() -> None:
    part = on_gpu("part", "Q4_K_M", 500, layers=15)
    said = learnings(compared(made_up("f16", quantization="F16", decode=around(100)), part))
    assert not any("No variant decodes measurably faster" in line for line in said)


def test_the_memory_of_a_gpu_is_told_wherever_memory_is() -> None:
    found = compared(
        on_gpu("f16", "F16", 500), on_gpu("q4", "Q4_K_M", 1000), made_up("cpu", decode=around(20))
    )
    text = tables.markdown(found)
    assert text.count("Linux 6, NVIDIA X") == 1
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {MEMORY}")]
    assert [cell.strip() for cell in row.split("|")[2:-1]] == ["310", "**155** (×0.50)", "–"]
    page = front(found, Path("README.md"), with_picture=False)
    assert MEMORY in page
    assert "decodes 1000 tokens per second (×2.00), takes" in page
    assert "MB of memory at its peak and 155 MB on the GPU" in page


def test_where_all_compute_on_the_cpu_no_gpu_is_named() -> None:
    found = compared(made_up("f16", quantization="F16"), made_up("q4", quantization="Q4_K_M"))
    page = front(found, Path("README.md"), with_picture=False)
    assert "GPU" not in page and "GPU" not in tables.markdown(found)
    assert "GPU" not in str(summary(found))


def test_a_gpu_that_nvidia_does_not_know_is_named_by_the_runtime() -> None:
    result = made_up("q4", quantization="Q4_K_M", backend="Metal")
    result.runtime["device"] = "Apple M2"
    text = tables.markdown(compared(made_up("f16", quantization="F16"), result))
    assert text.count("- Machine") == 1 and "Linux 6, Apple M2" in text


def test_less_memory_than_before_on_a_shared_gpu_is_no_figure() -> None:
    shared = made_up_round(1, [10.0]).model_copy(
        update={"accelerator_memory_peak_bytes": -(1 << 20)}
    )
    assert metrics_of([shared])["accelerator_memory_peak_bytes"].value is None
