"""Two models in one experiment: nothing on the page sets one reference against the other."""

import json
from typing import Any

import pytest

from builders import around, blocks, compared, made_up
from minillm_lab.comparison.shapes import Comparison
from minillm_lab.records import QualityMetric
from minillm_lab.report.charts.catalogue import chart
from minillm_lab.report.learnings import learnings
from minillm_lab.report.readme import details
from minillm_lab.result import Result


def of_model(name: str, model: str, speed: float, kld: float, bits: float, size: int) -> Result:
    found = made_up(name, decode=around(speed), quantization=name.split("-")[-1].upper(), size=size)
    found.model.name = model
    found.protocol["quality"] = {
        "text_sha256": "0" * 64,
        "context": 512,
        "chunks": 10,
        "reference": {"runtime": {"name": "transformers", "settings": {"dtype": "float32"}}},
    }
    figures = {"kld_mean": kld, "same_top": 1 - kld, "bits_per_byte": bits}
    figures["bits_per_byte_reference"] = {"small": 1.895, "large": 1.095}[model]
    found.quality = {
        key: QualityMetric(value=v, unit="1", ci95=(0.99 * v, 1.01 * v), n=4790)
        for key, v in figures.items()
    }
    found.quality_bits_by_block = blocks(bits, figures["bits_per_byte_reference"])
    return found


@pytest.fixture(scope="module")
def two() -> Comparison:
    """The small model's larger file lost less, by its own reference, than the large one's."""
    return compared(
        of_model("small-q8_0", "small", 90, 0.001, 1.9, 150 * 10**6),
        of_model("small-q4_k", "small", 110, 0.05, 1.95, 100 * 10**6),
        of_model("large-q8_0", "large", 30, 0.01, 1.1, 500 * 10**6),
        of_model("large-q4_k", "large", 40, 0.09, 1.15, 300 * 10**6),
    )


def test_the_page_says_what_may_be_compared(two: Comparison) -> None:
    page = details(two)
    assert "compare them within a model" in page
    assert "| Bits per byte of the text ↓" in page
    assert "Bits per byte of the evaluation text, unquantized: large 1.095" in page
    assert "large predicts it best" in page


def test_no_file_of_one_model_is_called_a_better_choice_than_the_others(two: Comparison) -> None:
    said = [line for line in learnings(two) if "is larger than" in line]
    assert not said  # the larger model's file is larger and farther from another reference
    nearer = compared(
        of_model("small-q8_0", "small", 90, 0.001, 1.9, 150 * 10**6),
        of_model("small-q4_k", "small", 110, 0.0005, 1.9, 100 * 10**6),
    )
    assert any("`small-q8_0` is larger than `small-q4_k`" in line for line in learnings(nearer))


def test_one_reference_under_two_names_says_nothing_of_two_models(two: Comparison) -> None:
    one = two.model_copy(deep=True)
    for result in one.results.values():
        result.protocol["quality"]["reference"]["weights"] = {"model.safetensors": "0" * 64}
    assert "Bits per byte of the evaluation text, unquantized" not in details(one)


def values(chart: Any, key: str) -> list[dict[str, Any]]:
    """The rows of a figure's specification that hold a key."""
    text = json.dumps(chart.to_dict())
    found: list[dict[str, Any]] = []
    json.loads(text, object_hook=lambda part: found.append(part) if key in part else part)
    return found


def test_the_picture_draws_bits_per_byte_where_there_are_two_models(two: Comparison) -> None:
    shown = {row["variant"]: row["loss"] for row in values(chart("tradeoff", two), "loss")}
    assert shown == {"small-q8_0": 1.9, "small-q4_k": 1.95, "large-q8_0": 1.1, "large-q4_k": 1.15}
    said = json.dumps(chart("tradeoff", two).to_dict())
    assert "Bits per byte" in said and "KL divergence" not in said


def test_divergences_of_two_models_are_drawn_apart(two: Comparison) -> None:
    panels = chart("divergence", two).to_dict()["vconcat"]
    assert len(panels) == 2
    for panel, model in zip(panels, ("small", "large"), strict=True):
        text = json.dumps(panel)
        assert f", {model}" in text
