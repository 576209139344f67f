"""Two models in one experiment: nothing on the page sets one reference against the other."""

import json
from pathlib import Path
from typing import Any

import pytest

from builders import around, blocks, compared, made_up
from minillm_lab.comparison.shapes import Comparison
from minillm_lab.records import QualityMetric
from minillm_lab.report.charts.catalogue import chart
from minillm_lab.report.front import short
from minillm_lab.report.learnings import learnings
from minillm_lab.report.readme import details
from minillm_lab.report.table import rows
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
    assert "by each model's reference: large 1.095" in page
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
    for name, result in one.results.items():
        result.protocol["quality"]["reference"]["weights"] = {f"{name}.safetensors": "0" * 64}
    assert "Bits per byte of the evaluation text, by" not in details(one)


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


def mixed() -> Comparison:
    """Two models whose variants are listed by turns."""
    made = {
        "small-q8_0": of_model("small-q8_0", "small", 90, 0.001, 1.9, 150 * 10**6),
        "large-q8_0": of_model("large-q8_0", "large", 30, 0.01, 1.1, 500 * 10**6),
        "small-q4_k": of_model("small-q4_k", "small", 110, 0.05, 1.95, 100 * 10**6),
        "large-q2_k": of_model("large-q2_k", "large", 80, 0.9, 2.1, 300 * 10**6),
    }
    for name, right in zip(made, (0.4, 0.8, 0.35, 0.3), strict=True):
        quality = made[name].quality or {}
        quality["question_accuracy"] = QualityMetric(
            value=right, unit="1", ci95=(right - 0.1, right + 0.1), n=150
        )
    return compared(*made.values())


def test_variants_of_a_model_stand_beside_each_other(tmp_path: Path) -> None:
    body = rows(mixed())
    assert body[0][1:] == ["small-q8_0 (baseline)", "small-q4_k", "large-q8_0", "large-q2_k"]
    assert body[1] == ["Model", "small", "small", "large", "large"]
    shown = {label: cells for label, *cells in short(mixed(), list(mixed().results), tmp_path)}
    assert shown["Model"] == body[1][1:]
    assert shown["Bits per byte of the text ↓"] == ["1.900", "1.950", "1.100", "2.100"]
    alone = compared(*(r for r in mixed().results.values() if r.model.name == "small"))
    assert "Model" not in [label for label, *_ in rows(alone)]


@pytest.mark.parametrize(
    ("name", "front"),
    [
        ("tradeoff", ["small-q8_0", "small-q4_k", "large-q8_0"]),
        ("questions", ["small-q8_0", "small-q4_k", "large-q8_0"]),
    ],
)
def test_one_front_joins_both_models_by_values_and_says_so(name: str, front: list[str]) -> None:
    """A file that no other of its model beats, and one of the other model does, is not on it."""
    drawn = chart(name, mixed())
    marked = {row["variant"]: row["front"] for row in values(drawn, "front")}
    assert [variant for variant, on in marked.items() if on] == front
    (line,) = {row["of"] for row in values(drawn, "of")}
    assert line == "all"
    said = json.dumps(drawn.to_dict())
    assert "by values alone: no variant of any model is both faster and" in said


def test_questions_are_drawn_as_the_share_that_is_wrong() -> None:
    shown = {row["variant"]: row for row in values(chart("questions", mixed()), "loss")}
    assert shown["large-q8_0"]["loss"] == pytest.approx(20)
    assert shown["large-q8_0"]["loss low"] == pytest.approx(10)
    assert shown["large-q8_0"]["loss high"] == pytest.approx(30)
