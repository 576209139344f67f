"""Two runs side by side: a known difference is found, none is claimed where there is none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import STEADY, compared, made_up
from minillm_lab import estimates
from minillm_lab.commands.diff import markdown, read_either
from minillm_lab.comparison.diff import Difference, compare_runs
from minillm_lab.comparison.published import LARGEST, publish, read_published
from minillm_lab.comparison.shapes import Comparison
from minillm_lab.jobs.errors import LabError
from minillm_lab.records import QualityMetric, Reading, write_record
from minillm_lab.result import Result

ELSEWHERE = Reading(compute_flops=1.3e11, memory_bytes_per_second=5e10)
NOISY = ("load_warm_seconds", "prefill_tokens_per_second", "decode_tokens_per_second")


def measured(
    seed: int, faster: float = 1.0, drift: float = 1.0, reading: Reading = STEADY
) -> Comparison:
    """Four variants as a run measures them in one state of the machine.

    ``faster``: the factor of q4's decode speed. ``drift``: that of everything.
    """
    random = np.random.default_rng(seed)
    results: dict[str, Result] = {}
    for name in ("fp16", "f16", "q8_0", "q4"):
        result = made_up(name)
        for metric in NOISY:
            at = 100.0 * drift
            if (name, metric) == ("q4", "decode_tokens_per_second"):
                at *= faster
            rounds = at * np.exp(random.normal(0, 0.02, (3, 1)) + random.normal(0, 0.01, (3, 3)))
            found = estimates.of_rounds(rounds.tolist())
            m = result.metrics[metric]
            m.value, m.ci95, m.n, m.samples = found.value, found.ci95, 3, rounds.tolist()
        kld = float(np.exp(random.normal(0, 0.05)) / 100)
        result.quality = {
            "kld_mean": QualityMetric(
                value=kld, unit="nat", ci95=(kld - 0.001, kld + 0.001), n=4790
            )
        }
        result.protocol["quality"] = {"context": 512, "score_from": 32, "text_sha256": "a" * 64}
        results[name] = result
    return compared(*results.values(), reading=reading)


def between(before: Comparison, after: Comparison) -> Difference:
    return compare_runs(publish(before), publish(after))


def claims(difference: Difference) -> set[tuple[str, str, str]]:
    return {(c.pair.variant, c.pair.kind, c.pair.metric) for c in difference.changed}


def test_two_runs_of_one_thing_claim_no_difference() -> None:
    """Twenty pairs of runs, some on a machine that got 15 % slower: at most one claims anything."""
    found = [
        between(measured(2 * i), measured(2 * i + 1, drift=1.0 if i % 2 else 0.85))
        for i in range(20)
    ]
    assert sum(bool(difference.changed) for difference in found) <= 1
    assert all(len(difference.unchanged) > 20 for difference in found)


def test_a_known_difference_is_found_and_nothing_else() -> None:
    difference = between(measured(1), measured(2, faster=1.8))
    assert claims(difference) == {
        ("q4", "metrics", "decode_tokens_per_second"),
        ("q4", "ratios", "decode_tokens_per_second"),
    }
    change = difference.changed[0]
    assert change.ci95[0] < 1.8 < change.ci95[1]
    text = markdown(difference, "before", "after")
    assert "| `q4`" in text and "| decode, to the baseline" in text
    assert "Same machine, versions, model files and protocol." in text


def test_speeds_of_two_states_are_not_compared() -> None:
    before, after = measured(1), measured(2, faster=1.8, reading=ELSEWHERE)
    difference = between(before, after)
    assert not claims(difference)
    assert not [c for c in difference.unchanged if c.pair.kind == "ratios"]
    text = markdown(difference, "before", "after")
    assert "`q4`, speeds: the two runs have no state of the machine in common" in text


def test_memory_and_quality_that_changed_are_found() -> None:
    before, after = measured(1), measured(2)
    memory = after.results["q8_0"].metrics["memory_peak_bytes"]
    memory.value, memory.ci95, memory.samples = 1.1, (1.1, 1.1), [[1.1]] * 3
    after.results["f16"].quality = {
        "kld_mean": QualityMetric(value=0.05, unit="nat", ci95=(0.045, 0.055), n=4790)
    }
    assert claims(between(before, after)) == {
        ("q8_0", "metrics", "memory_peak_bytes"),
        ("f16", "quality", "kld_mean"),
    }


def with_chunks(comparison: Comparison, factor: float = 1.0) -> Comparison:
    """The same with a divergence per chunk of the text, q4's times a factor."""
    random = np.random.default_rng(7)
    for name, result in comparison.results.items():
        each = 0.06 * np.exp(random.normal(0, 0.3, 10)) * (factor if name == "q4" else 1.0)
        result.quality_by_chunk = {"kld_mean": each.tolist()}
        mean = float(each.mean())
        result.quality = {
            "kld_mean": QualityMetric(value=mean, unit="nat", ci95=(0.8 * mean, 1.2 * mean), n=99)
        }
    return comparison


def test_a_divergence_is_compared_chunk_by_chunk() -> None:
    """Five percent more on the same text is found, though the two intervals overlap widely."""
    before, after = with_chunks(measured(1)), with_chunks(measured(2), 1.05)
    assert claims(between(before, after)) == {("q4", "quality", "kld_mean")}
    assert not claims(between(before, with_chunks(measured(2))))
    text = markdown(between(before, after), "a", "b")
    assert "+0.00" in text and "+0.0000" not in text  # three digits that count
    assert not claims(between(before, with_chunks(measured(2), 1.0005)))  # the order of sums
    (change,) = between(before, after).changed
    kld = before.results["q4"].quality["kld_mean"].value  # type: ignore[index]
    assert change.value == pytest.approx(0.05 * kld, rel=1e-4)


def test_a_figure_of_one_run_alone_is_named() -> None:
    before, after = with_chunks(measured(1)), with_chunks(measured(2))
    for comparison in (before, after):
        for result in comparison.results.values():
            assert result.quality
            result.quality["same_top"] = result.quality["kld_mean"]
    assert after.results["q4"].quality
    del after.results["q4"].quality["same_top"]
    text = markdown(between(before, after), "a", "b")
    assert "- `q4`, same top: only before" in text


def test_where_the_text_has_too_few_chunks_to_see_any_growth_it_is_said() -> None:
    def first(count: int, comparison: Comparison) -> Comparison:
        for result in comparison.results.values():
            result.quality_by_chunk["kld_mean"] = result.quality_by_chunk["kld_mean"][:count]
        return comparison

    for count, seen in ((3, False), (10, True)):
        difference = between(
            first(count, with_chunks(measured(1))), first(count, with_chunks(measured(2), 2.0))
        )
        assert (("q4", "quality", "kld_mean") in claims(difference)) == seen
        said = "The text has too few chunks" in markdown(difference, "a", "b")
        assert said != seen


def test_a_change_is_claimed_from_the_smallest_on_that_is_said() -> None:
    key = ("q4", "metrics", "decode_tokens_per_second")
    sizes = set()
    for i in range(1, 15):
        difference = between(measured(2 * i), measured(2 * i + 1, faster=1.2 + 0.04 * i))
        smallest = difference.smallest(0.2)["q4"]
        (found,) = [
            c
            for c in (*difference.changed, *difference.unchanged)
            if (c.pair.variant, c.pair.kind, c.pair.metric) == key
        ]
        larger = found.value - 1 > smallest
        assert larger <= (key in claims(difference))  # another claim may lower what is asked
        sizes.add(larger)
    assert sizes == {True, False}
    text = markdown(between(measured(1), measured(2)), "a", "b")
    assert "The smallest change of decode speed that would have been claimed: `fp16`" in text


def test_what_was_measured_otherwise_is_not_compared() -> None:
    before, after = measured(1), measured(2, faster=3.0)
    for result in after.results.values():
        result.protocol["prompt_tokens"] = 99
        result.protocol["quality"]["text_sha256"] = "b" * 64
        result.protocol["scratch"] = True
    difference = between(before, after)
    assert not claims(difference)
    text = markdown(difference, "before", "after")
    assert "prompt tokens 10 → 99" in text
    assert "`q4`, decode: measured with another prompt_tokens" in text
    assert "`q4`, kld mean: measured with another text" in text
    assert "`q4`, load cold: measured with another scratch" in text


def test_machines_versions_files_and_variants_that_differ_are_said_first() -> None:
    before, after = measured(1), measured(2)
    for result in before.results.values():
        result.runtime["settings"] |= {"flash_attention": "disabled"}
    for result in after.results.values():
        result.machine |= {"fingerprint": "bbbbbbbbbbbb", "cpu": "Another <b>CPU</b>"}
        result.runtime["version"] = {"llama.cpp": "2.0"}
        result.runtime["settings"] |= {"flash_attention": "enabled"}
    after.states["bbbbbbbbbbbb"] = after.states.pop("aaaaaaaaaaaa")
    after.results["q8_0"].model.files[0].sha256 = "1" * 64
    after.results["new"] = after.results.pop("q4")
    after.ratios["new"] = after.ratios.pop("q4")
    text = markdown(between(before, after), "before", "after")
    assert "another machine: A CPU" in text and r"Another \<b\>CPU\</b\>" in text
    assert "versions llama.cpp 1.0 → llama.cpp 2.0" in text
    assert "`q8_0`: another model file" in text
    assert "flash attention disabled → enabled" in text
    assert "`q4`: only before" in text and "`new`: only after" in text


def test_one_round_gives_nothing_to_judge_by() -> None:
    single = measured(1)
    of_states = [m for s in single.states["aaaaaaaaaaaa"] for m in s.metrics.values()]
    for metrics in (*(r.metrics for r in single.results.values()), *of_states):
        for metric in metrics.values():
            metric.ci95 = None
    difference = between(single, measured(2, faster=3.0))
    assert not [c for c in difference.changed if c.pair.kind == "metrics"]
    assert any("no interval" in line for line in difference.not_compared)


def published(tmp_path: Path, **changes: Any) -> Path:
    content = publish(measured(1)).model_dump(mode="json") | changes
    path = tmp_path / "published.json"
    path.write_text(json.dumps(content))
    return path


def test_a_published_file_stands_in_for_its_folder(tmp_path: Path) -> None:
    write_record(tmp_path / "comparison.json", measured(1))
    assert read_either(tmp_path) == read_either(published(tmp_path))
    assert (tmp_path / "published.json").stat().st_size < 8000


def first_variant(path: Path, key: str, value: Any) -> None:
    content = json.loads(path.read_text())
    content["variants"]["fp16"][key] = value
    path.write_text(json.dumps(content))


def first_state(path: Path, key: str, value: Any) -> None:
    content = json.loads(path.read_text())
    content["variants"]["fp16"]["states"][0][key] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "key, value",
    [
        ("model", "x" * 201),
        ("bytes", -1),
        ("bytes", "5"),
        ("metrics", {"decode_tokens_per_second": {"value": float("nan"), "ci95": None}}),
        ("metrics", {"decode_tokens_per_second": {"value": 1e300, "ci95": None}}),
        ("metrics", {"decode_tokens_per_second": {"value": 1, "ci95": [2, 3]}}),
        ("metrics", {"\x1b[2J": {"value": 1, "ci95": None}}),
        ("metrics", {f"m{i}": {"value": 1, "ci95": None} for i in range(61)}),
        ("metrics", {"speed_bytes": {"value": 1, "ci95": None}}),
        ("states", [{"compute_flops": 0, "memory_bytes_per_second": 1, "metrics": {}}]),
        ("states", [{}] * 27),
        ("unknown", 1),
    ],
)
def test_a_hostile_file_is_refused_in_one_line(key: str, value: Any, tmp_path: Path) -> None:
    path = published(tmp_path)
    first_variant(path, key, value)
    with pytest.raises(LabError, match="not a published results file") as caught:
        read_published(path)
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "[" * 10000, '{"variants": {"a|b`": {}}}', "\x00"])
def test_what_is_no_results_file_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(LabError, match="not a published results file"):
        read_published(path)


def test_a_large_file_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(" " * (LARGEST + 1))
    with pytest.raises(LabError, match=f"more than {LARGEST} bytes"):
        read_published(path)


@pytest.mark.parametrize("value", [0, 1e-300, 1e18])
def test_absurd_figures_are_survived(value: float, tmp_path: Path) -> None:
    path = published(tmp_path)
    wide = {"value": value, "ci95": [0, 1e18]}
    first_state(path, "metrics", {"decode_tokens_per_second": wide})
    difference = compare_runs(publish(measured(1)), read_published(path))
    assert ("fp16", "metrics", "decode_tokens_per_second") not in claims(difference)
    assert "no interval" in markdown(difference, "a", "b")


@pytest.mark.parametrize("value", [5e-324, 1e18])
@pytest.mark.parametrize("yardstick", ["compute_flops", "memory_bytes_per_second"])
def test_an_absurd_state_is_another_state(yardstick: str, value: float, tmp_path: Path) -> None:
    path = published(tmp_path)
    first_state(path, yardstick, value)
    mine, theirs = publish(measured(1)), read_published(path)
    for pair in ((mine, theirs), (theirs, mine)):
        text = markdown(compare_runs(*pair), "a", "b")
        assert "`fp16`, speeds: the two runs have no state of the machine in common" in text


def test_text_from_a_stranger_shows_as_text(tmp_path: Path) -> None:
    path = published(tmp_path)
    first_variant(path, "runtime", "<script>|`\u202e\x1b[31m[x](y)")
    text = markdown(compare_runs(publish(measured(1)), read_published(path)), "a", "b|`c`")
    assert r"\<script\>\|\`\u{202e}\u{1b}\[31m\[x\](y)" in text
    assert "\x1b" not in text and "\u202e" not in text and r"b\|\`c\`" in text
