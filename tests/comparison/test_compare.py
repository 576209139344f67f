"""The comparison says what the figures support: factors, ties, and nothing across machines."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from builders import around, compared, made_up
from minillm_lab.comparison.compare import compare
from minillm_lab.comparison.shapes import Comparison
from minillm_lab.records import read_record, write_record
from minillm_lab.report import table, tables
from minillm_lab.report.learnings import learnings
from minillm_lab.report.legend import precision_line
from minillm_lab.report.readme import details
from minillm_lab.result import QualityMetric, Result

FP16 = made_up(
    "fp16", runtime="transformers", quantization="safetensors", decode=around(10), size=2 * 10**8
)
F16 = made_up("f16", quantization="F16", decode=around(20), size=2 * 10**8)
F16_GPU = made_up("f16_gpu", quantization="F16", backend="Metal", decode=around(60))
Q4 = made_up("q4", quantization="Q4_K_M", backend="Metal", decode=around(90), size=5 * 10**7)


def test_the_speed_up_is_told_apart_into_its_factors() -> None:
    factors = compared(FP16, F16, F16_GPU, Q4).factors["q4"]
    assert [f.change for f in factors] == ["runtime", "device", "quantization"]
    assert [f.decode.value for f in factors] == pytest.approx([2.0, 3.0, 1.5])
    assert [(f.start, f.end) for f in factors] == [
        ("fp16", "f16"),
        ("f16", "f16_gpu"),
        ("f16_gpu", "q4"),
    ]


def test_changes_without_a_variant_between_them_stay_together() -> None:
    comparison = compared(FP16, Q4)
    (factor,) = comparison.factors["q4"]
    assert factor.change == "runtime and device and quantization"
    assert factor.decode.value == pytest.approx(9.0)
    assert any("cannot be told apart" in line for line in learnings(comparison))


def test_a_tie_is_no_winner() -> None:
    noisy = [[19.0, 22.0, 20.0], [23.0, 18.0, 20.5], [20.0, 19.5, 21.0]]
    comparison = compared(F16, made_up("q8", decode=noisy), baseline="f16")
    assert comparison.ratios["q8"]["decode_tokens_per_second"].tie
    assert set(comparison.best["decode_tokens_per_second"]) == {"f16", "q8"}
    decode = next(r for r in table.rows(comparison) if r[0].startswith("Decode"))
    assert "≈" in decode[2]
    assert any("no measurable change of decode speed" in line for line in learnings(comparison))


def test_the_speed_up_told_is_that_of_one_that_is_measurably_faster() -> None:
    noisy = [[26.0] * 3, [33.0] * 3, [41.0] * 3]
    others = [made_up(f"v{i}", quantization=f"Q{i}_K", decode=around(20)) for i in (2, 3, 5, 6)]
    steady = made_up("q8", quantization="Q8_0", decode=around(30))
    wild = made_up("q4", quantization="Q4_K_M", decode=noisy)
    comparison = compared(F16, *others, steady, wild, baseline="f16")
    ratios = {n: comparison.ratios[n]["decode_tokens_per_second"] for n in ("q8", "q4")}
    assert ratios["q4"].value > ratios["q8"].value > 1
    assert ratios["q4"].tie and not ratios["q8"].tie
    said = learnings(comparison)
    assert any(line.startswith("`q8` decodes ×1.50 ") for line in said)
    assert not any("No variant decodes measurably faster" in line for line in said)


def test_a_mixture_is_no_stock_type_and_no_other_mixture() -> None:
    def mixture(variant: str, tensors: dict[str, str], **conditions: Any) -> Result:
        types = {"Q5_0": 0.6, "Q4_K": 0.4}
        made = made_up(variant, quantization="Q4_K_M", tensor_types=types, **conditions)
        return made.model_copy(update={"model": made.model.model_copy(update={"tensors": tensors})})

    down = mixture("down", {"ffn_down": "Q5_0"})
    on_gpu = mixture("on_gpu", {"ffn_up": "Q5_0"}, backend="CUDA", decode=around(60))
    for slower in (down, made_up("stock", quantization="Q4_K_M")):
        (factor,) = compared(slower, on_gpu, baseline=slower.variant).factors["on_gpu"]
        assert factor.change == "device and quantization"
    said = [line for line in learnings(compared(F16, down, baseline="f16")) if "here is" in line]
    assert said == [
        "`down`: The mixture on Q4_K_M here is 60 % Q5_0, 40 % Q4_K, because tensors of its mixture"
        " have other types."
    ]


def test_nothing_is_compared_across_machines() -> None:
    elsewhere = made_up("q4", quantization="Q4_K_M", decode=around(90), machine="bbbbbbbbbbbb")
    comparison = compared(FP16, F16, elsewhere)
    assert comparison.ratios["q4"] == {} and comparison.factors["q4"] == []
    assert comparison.best["decode_tokens_per_second"] == ["f16"]
    here, there = tables.markdown(comparison).split("**Machine `bbbbbbbbbbbb`**")
    assert "**Machine `aaaaaaaaaaaa`**" in here and "| f16" in here and "| q4" not in here
    assert "| q4" in there and "| f16" not in there
    assert "several machines" in there


def test_steps_do_not_cross_machines() -> None:
    elsewhere = [
        made_up("f16", quantization="F16", decode=around(20), machine="bbbbbbbbbbbb"),
        made_up("q4", quantization="Q4_K_M", decode=around(30), machine="bbbbbbbbbbbb"),
    ]
    comparison = compared(FP16, *elsewhere)
    assert comparison.factors == {"f16": [], "q4": []}
    assert learnings(comparison)


def test_more_threads_are_not_called_quantization() -> None:
    other = made_up("q4", quantization="Q4_K_M", decode=around(30))
    other.runtime["threads"] = 1
    assert compared(F16, other, baseline="f16").factors["q4"] == []


def test_the_page_cache_is_blamed_only_where_it_shows() -> None:
    assert not any("page cache" in line for line in learnings(compared(FP16, F16)))
    slow = made_up("f16", quantization="F16")
    slow.metrics["load_cold_seconds"].samples = [[3.0], [3.1], [2.9]]
    assert any("page cache matters: `f16`" in line for line in learnings(compared(FP16, slow)))


def test_precision_says_how_many_trials_would_reach_it() -> None:
    uneven = made_up("f16", quantization="F16", decode=[[19.0], [20.0], [21.0]])
    loose = compared(FP16, uneven, goal=0.5).precision
    tight = compared(FP16, uneven, goal=0.01).precision
    assert loose is not None and loose.trials == 3  # reached with the trials there are
    assert tight is not None and tight.trials is not None and tight.trials > 3
    line = precision_line(tight)
    assert f"about {tight.trials} trials" in line and "--config trials=" in line
    assert "as asked" in precision_line(loose)


def test_more_trials_are_asked_for_than_were_taken_in_all_states() -> None:
    """Three of ten were in the state whose figures stand in the table."""
    uneven = made_up("f16", quantization="F16", decode=[[19.0], [20.0], [21.0]])
    uneven.protocol["trials"] = 10
    found = compared(FP16, uneven, goal=0.01).precision
    assert found is not None and found.trials is not None and found.trials > 10
    assert f"about {found.trials} trials in all" in precision_line(found)
    assert "an estimate" in precision_line(found)


def test_a_file_that_is_something_else_is_flagged() -> None:
    types = {"Q5_0": 0.58, "Q8_0": 0.22, "Q4_K": 0.11, "Q6_K": 0.09}
    q4 = made_up("q4", quantization="Q4_K_M", tensor_types=types)
    comparison = compared(FP16, q4)
    assert "⚠ 58 % Q5_0, 22 % Q8_0, 11 % Q4_K, 9 % Q6_K" in tables.markdown(comparison)
    assert any("Q4_K_M here is 58 % Q5_0, 22 % Q8_0" in line for line in learnings(comparison))


def test_up_to_six_variants_are_columns_and_more_are_rows() -> None:
    few = compared(*(made_up(f"v{i}") for i in range(6)), baseline="v0")
    many = compared(*(made_up(f"v{i}") for i in range(7)), baseline="v0")
    assert tables.markdown(few).splitlines()[0].count("|") == 8
    first_cells = [line.split("|")[1].strip() for line in tables.markdown(many).splitlines()[2:9]]
    assert first_cells == ["v0 (baseline)", "v1", "v2", "v3", "v4", "v5", "v6"]


def test_a_metric_that_could_not_be_measured_is_no_zero() -> None:
    blind = made_up("q4")
    cold = blind.metrics["load_cold_seconds"]
    cold.value, cold.ci95, cold.n, cold.samples = None, None, 0, []
    comparison = compared(FP16, blind)
    row = next(r for r in table.rows(comparison) if r[0].startswith("Load, cold"))
    assert row[2] == "–"
    assert "load_cold_seconds" not in comparison.ratios["q4"]


def test_csv_holds_the_same_figures() -> None:
    comparison = compared(FP16, F16)
    lines = csv.DictReader(io.StringIO(tables.csv_of(comparison)))
    found = {(line["variant"], line["metric"]): line for line in lines}
    decode = found["f16", "decode_tokens_per_second"]
    shown = comparison.results["f16"].metrics["decode_tokens_per_second"]
    assert float(decode["value"]) == shown.value == pytest.approx(20, rel=0.01)
    assert float(decode["ratio"]) == pytest.approx(2.0)
    assert found["fp16", "decode_tokens_per_second"]["ratio"] == ""


def test_what_is_written_is_strict_json_and_reads_back(tmp_path: Path) -> None:
    comparison = compared(FP16, F16)
    write_record(tmp_path / "c.json", comparison)
    json.loads((tmp_path / "c.json").read_text(), parse_constant=pytest.fail)
    assert read_record(tmp_path / "c.json", Comparison) == comparison


def test_without_the_baseline_there_are_figures_and_no_ratios() -> None:
    left = compare({"f16": F16}, "fp16", "snakemake", goal=0.02, failed={"fp16": "why"})
    text = tables.markdown(left)
    assert left.ratios == {"f16": {}} and left.factors == {} and left.precision is None
    assert "| fp16" in text and "**failed**" in text and "- **Failed**, `fp16`: why" in text
    assert learnings(left)


def test_where_every_variant_failed_the_table_says_so() -> None:
    none = compare({}, "fp16", "snakemake", failed={"fp16": "why"})
    assert tables.markdown(none) == "No variant has a result.\n\n- **Failed**, `fp16`: why"
    assert details(none).endswith("- **Failed**, `fp16`: why")
    assert "fp16,failed,why" in tables.csv_of(none)


def test_one_number_of_bits_is_told_by_method_where_several_runtimes_have_it() -> None:
    def losing(nats: float, variant: str, **conditions: Any) -> Result:
        result = made_up(variant, **conditions)
        loss = QualityMetric(value=nats, unit="nats", ci95=None, n=100)
        return result.model_copy(update={"quality": {"kld_mean": loss}})

    base = losing(0.0, "f16", quantization="F16", decode=around(20))
    gguf = losing(0.05, "q4", quantization="Q4_0", decode=around(50), size=5 * 10**7)
    nf4 = losing(
        0.25,
        "nf4",
        runtime="transformers",
        quantization="bnb-nf4",
        decode=around(10),
        size=6 * 10**7,
    )
    eight = losing(0.01, "q8", quantization="Q8_0", decode=around(30))

    def told(*results: Result) -> list[str]:
        found = learnings(compared(*results, baseline="f16"))
        return [line for line in found if "by several methods" in line]

    assert told(base, gguf, eight) == []
    (line,) = told(base, nf4, gguf, eight)
    assert line.startswith(
        "4 bits by several methods, the least divergence first: `q4` (llama.cpp)"
    )
    assert "0.25 nats, 60.0 MB, 10.0 t/s" in line
    steps = compared(base, nf4, gguf, baseline="f16").factors
    assert [f.change for f in steps["q4"]] == ["quantization"]
    assert [f.change for f in steps["nf4"]] == ["runtime and quantization"]
