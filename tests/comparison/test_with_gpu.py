"""Variants on a GPU: its memory is told, and what it computes in part is no step of a speed-up."""

from pathlib import Path

from builders import around, compared, made_up
from minillm_lab.report import tables
from minillm_lab.report.front import front
from minillm_lab.result import Metric, Result

MEMORY = "Memory on the GPU, peak"


def on_gpu(variant: str, quantization: str, decode: float, layers: int = 31) -> Result:
    """A variant of a model of 30 layers; llama.cpp counts the output as one more."""
    result = made_up(variant, quantization=quantization, decode=around(decode), backend="CUDA")
    result.runtime["settings"] |= {"gpu_layers": layers, "layers": 30}
    result.machine["accelerators"] = [{"name": "NVIDIA X", "driver": "1", "memory": "8 MiB"}]
    taken = 1e7 * layers
    result.metrics["accelerator_memory_peak_bytes"] = Metric(
        value=taken, unit="B", ci95=(taken, taken), n=3, samples=[[taken]] * 3
    )
    return result


def test_a_model_that_a_gpu_computes_in_part_has_no_factor() -> None:
    whole, part = on_gpu("q4", "Q4_K_M", 1000), on_gpu("part", "Q4_K_M", 500, layers=15)
    found = compared(on_gpu("f16", "F16", 900), whole, part)
    (factor,) = found.factors["q4"]
    assert factor.change == "quantization"
    assert found.factors["part"] == []
    text = tables.markdown(found)
    (row,) = [line for line in text.splitlines() if line.startswith("| Layers on the GPU")]
    assert [cell.strip() for cell in row.split("|")[2:-1]] == ["31", "31", "15 of 31"]


def test_the_memory_of_a_gpu_is_told_wherever_memory_is() -> None:
    found = compared(on_gpu("f16", "F16", 500), on_gpu("q4", "Q4_K_M", 1000, layers=31))
    assert MEMORY in tables.markdown(found) and "Linux 6, NVIDIA X" in tables.markdown(found)
    page = front(found, Path("README.md"), with_picture=False)
    assert MEMORY in page
    assert "decodes 1000 tokens per second (×2.00), takes up to" in page
    assert "MB of memory and 310 MB on the GPU" in page


def test_where_all_compute_on_the_cpu_no_gpu_is_named() -> None:
    found = compared(made_up("f16", quantization="F16"), made_up("q4", quantization="Q4_K_M"))
    page = front(found, Path("README.md"), with_picture=False)
    assert "GPU" not in page and "GPU" not in tables.markdown(found)
