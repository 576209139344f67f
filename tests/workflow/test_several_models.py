"""Two models in one experiment: ``minillm-lab new``, the workflow, the page and ``pick``."""

import shutil
from itertools import permutations, takewhile
from pathlib import Path

import pytest
import yaml

from conftest import ROOT, Lab
from minillm_lab.comparison.closeness import closer, predicts_better
from minillm_lab.comparison.shapes import Comparison
from minillm_lab.models.quantize import quantize
from minillm_lab.records import read_record, write_record
from minillm_lab.report.charts.catalogue import chart
from minillm_lab.report.charts.draw import svg
from minillm_lab.report.picture import described
from minillm_lab.result import Metric
from tiny_model import write_tiny_gguf


def experiment(lab: Lab, name: str, *arguments: str) -> str:
    """Write an experiment with ``new``, shorten it by hand, run it; what ``new`` said."""
    said = lab.program("new", *arguments, "--name", name)
    every = yaml.safe_load((ROOT / "workflow/minillm_lab/quality/questions.yaml").read_text())
    lab.path("questions.yaml").write_text(yaml.safe_dump({"questions": every["questions"][:8]}))
    lab.shorten(name, "  questions: questions.yaml\n  chunks: 6\n  context: 128")
    lab.snakemake("--cores", "1", "--configfile", f"experiments/{name}.yaml")
    return said


def compared(lab: Lab, name: str) -> Comparison:
    return read_record(lab.path(f"results/{name}/comparison.json"), Comparison)


def with_speeds(lab: Lab, name: str) -> Comparison:
    """The run's comparison as if every variant decoded as fast.

    The one short trial of a run on a busy machine may not count, and then there is no speed.
    """
    found = compared(lab, name)
    for result in found.results.values():
        speed = Metric(value=100.0, unit="t/s", ci95=(99.0, 101.0), n=3, samples=[])
        result.metrics["decode_tokens_per_second"] = speed
    return found


def pick(lab: Lab, name: str) -> str:
    """What ``pick`` says of the run at those speeds."""
    lab.path("picked").mkdir(exist_ok=True)
    write_record(lab.path("picked/comparison.json"), with_speeds(lab, name))
    return lab.program("pick", "--results", "picked", "--max-memory", "100GB")


def pages(lab: Lab, name: str) -> str:
    """The page and that of details, as one text."""
    return "".join(path.read_text() for path in sorted(lab.path("experiments").glob(f"{name}*.md")))


@pytest.fixture(scope="module")
def itself(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A model beside a copy of itself."""
    lab = Lab(tmp_path_factory.mktemp("itself") / "lab", {})
    for name in ("one", "two"):
        shutil.copy(tiny_gguf, lab.path(f"{name}-F16.gguf"))
    experiment(lab, "itself", "one-F16.gguf", "two-F16.gguf", "--apart", "--types", "Q4_K_M")
    return lab


def test_a_model_against_itself_has_the_same_quality_twice(itself: Lab) -> None:
    results = compared(itself, "itself").results
    assert list(results) == ["one-f16", "one-q4_k_m", "two-f16", "two-q4_k_m"]
    for type_ in ("f16", "q4_k_m"):
        one, two = (results[f"{name}-{type_}"] for name in ("one", "two"))
        assert one.quality and one.quality == two.quality
        assert {"bits_per_byte", "question_accuracy", "kld_mean"} <= one.quality.keys()
        for a, b in permutations((one, two)):
            assert predicts_better(a, b) is False  # known, and a tie
            assert closer(a, b) is None  # of two references


def test_no_difference_in_quality_is_claimed_between_a_model_and_itself(itself: Lab) -> None:
    text = pages(itself, "itself")
    assert "| Bits per byte of the text ↓" in text
    assert "by each model's reference" not in text  # it is one
    assert "predicts it best" not in text and "predicts the evaluation text best" not in text
    assert "is larger than" not in text and "farther from the reference" not in text
    said = pick(itself, "itself")
    assert "the models' bits per byte do not differ measurably" in said
    assert "best, by bits per byte" not in said


@pytest.fixture(scope="module")
def different(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Two models: files of one with its F16, a quantized file of a larger one alone."""
    lab = Lab(tmp_path_factory.mktemp("different") / "lab", {})
    shutil.copy(tiny_gguf, lab.path("small-F16.gguf"))
    quantize(tiny_gguf, "Q8_0", lab.path("small-Q8_0.gguf"))
    write_tiny_gguf(lab.folder / "whole.gguf", layers=3)
    quantize(lab.folder / "whole.gguf", "Q4_K_M", lab.path("deep-Q4_K_M.gguf"))
    said = experiment(
        lab, "different", "small-F16.gguf", "deep-Q4_K_M.gguf", "small-Q8_0.gguf"
    )  # fmt: skip
    assert "deep: None of the GGUF files is unquantized." in said
    return lab


def test_each_model_is_scored_against_its_own_reference(different: Lab) -> None:
    results = compared(different, "different").results
    weights = {
        name: result.protocol["quality"]["reference"]["weights"] for name, result in results.items()
    }
    assert weights["small-f16"] == weights["small-q8_0"] != weights["deep-q4_k_m"]
    for name in ("small-f16", "deep-q4_k_m"):  # the references themselves
        assert (results[name].quality or {})["kld_mean"].value < 1e-6
    assert (results["small-q8_0"].quality or {})["kld_mean"].value > 1e-6


def test_the_tables_and_the_picture_show_both_models(different: Lab) -> None:
    text = different.path("results/different/comparison.md").read_text()
    lines = takewhile(lambda line: line.startswith("|"), text.splitlines())
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in lines]
    names, models = cells[0], next(row for row in cells if row[0] == "Model")
    assert names[1:] == ["small-f16 (baseline)", "small-q8_0", "deep-q4_k_m"]
    assert models[1:] == ["small", "small", "deep"]
    page = different.path("experiments/different.md").read_text()
    assert "| Model " in page
    timed = with_speeds(different, "different")
    assert "Bits per byte of the evaluation text against" in described(timed, [*timed.results])
    for name in ("tradeoff", "questions"):
        assert different.path(f"results/different/{name}.svg").exists()
        drawn = svg(chart(name, timed))
        assert "deep-q4_k_m" in drawn and "no variant of any model is both faster" in drawn


def test_losses_against_two_references_are_not_compared(different: Lab) -> None:
    text = pages(different, "different")
    assert "by each model's reference: deep 31." in text
    assert "is larger than" not in text
    assert "compare them within a model" in text
    said = pick(different, "different")
    assert "bits per byte" in said and "- Of " in said
    assert "is measurably better in something" not in said  # of two models none is left out


def test_the_run_again_does_nothing(different: Lab) -> None:
    run = ("--cores", "1", "--configfile", "experiments/different.yaml")
    assert "Nothing to be done" in different.snakemake(*run).stderr
