"""What one setting changed: which variants are a pair, and the ratio of their divergences."""

from typing import Any

import pytest

from builders import compared, made_up
from minillm_lab.comparison.changes import changes
from minillm_lab.records import QualityMetric
from minillm_lab.report.readme import details
from minillm_lab.result import Result

TEXT = (0.5, 0.8, 1.0, 1.3, 1.4)  # how hard each chunk is, for every variant


def variant(name: str, level: float, imatrix: str | None = None, **settings: Any) -> Result:
    found = made_up(name, quantization="Q4_K_M", runtime="llama.cpp")
    found.model.imatrix = imatrix and {"dataset": imatrix, "entries_count": 210}
    found.runtime["settings"] |= {"kv_cache": "f16", "flash_attention": "enabled"} | settings
    found.quality = {"kld_mean": QualityMetric(value=level, unit="nat", n=1000)}
    found.quality_by_chunk = {"kld_mean": [level * hard for hard in TEXT]}
    found.protocol["quality"] = {"text_sha256": "a" * 64}
    return found


def named(*results: Result) -> dict[str, Result]:
    return {result.variant: result for result in results}


def test_a_pair_differs_in_one_setting_and_goes_from_what_is_usual() -> None:
    own, plain = variant("own", 0.06, "calibration.txt"), variant("plain", 0.08)
    small, both = (
        variant("small", 0.05, kv_cache="q8_0"),
        variant("both", 1, "other.txt", kv_cache="q4_0"),
    )
    found = [
        (c.setting, c.start, c.end, c.before, c.after)
        for c in changes(named(own, plain, small, both))
    ]
    assert found == [
        ("importance matrix", "plain", "own", "none", "calibration.txt"),
        ("cache of keys/values", "plain", "small", "f16", "q8_0"),
    ]  # "both" differs from every other in two


def test_a_mixture_is_held_against_the_file_without_one() -> None:
    mixed = variant("mixed", 0.07)
    mixed.model.tensors = {"attn_v": "Q8_0"}
    (change,) = changes(named(mixed, variant("plain", 0.08)))
    assert (change.setting, change.start, change.after) == ("mixture", "plain", "attn_v: Q8_0")


def test_two_texts_of_one_name_and_two_numbers_of_threads_are_no_pair() -> None:
    one, two = variant("one", 0.06, "cal.txt"), variant("two", 0.07, "cal.txt", kv_cache="q8_0")
    for result, file in ((one, "imatrix-00000001.gguf"), (two, "imatrix-00000002.gguf")):
        assert result.model.imatrix
        result.model.imatrix["file"] = file
    assert not [*changes(named(one, two))]
    slow, fast = variant("slow", 0.06), variant("fast", 0.07, kv_cache="q8_0")
    fast.runtime["threads"] = 4
    assert not [*changes(named(slow, fast))]


def test_the_dtype_of_transformers_is_no_setting_of_the_cache() -> None:
    both = [variant(name, 0.06, kv_cache=name) for name in ("float16", "bfloat16")]
    for result in both:
        result.runtime["name"] = "transformers"
        result.runtime["settings"]["dtype"] = result.variant
    assert not [*changes(named(*both))]


def test_a_divergence_of_rounding_alone_is_nothing_to_compare_with() -> None:
    assert not [*changes(named(variant("own", 1e-11), variant("other", 0.06, kv_cache="q8_0")))]


def test_the_ratio_is_paired_so_that_hard_chunks_do_not_widen_it() -> None:
    (change,) = changes(named(variant("plain", 0.08), variant("own", 0.06, "calibration.txt")))
    assert change.ratio.value == pytest.approx(0.75)
    assert change.ratio.ci95 == pytest.approx((0.75, 0.75))


@pytest.mark.parametrize(
    "change",
    [
        lambda r: setattr(r.model, "quantization", "Q5_K_M"),
        lambda r: setattr(r.model, "name", "other"),
        lambda r: r.machine.update(fingerprint="b" * 12),
        lambda r: r.protocol.update(quality={"text_sha256": "b" * 64}),
        lambda r: r.quality_by_chunk.clear(),
    ],
    ids=["type", "model", "machine", "text", "not measured"],
)
def test_what_differs_in_anything_else_is_no_pair(change: Any) -> None:
    other = variant("own", 0.06, "calibration.txt")
    change(other)
    assert not [*changes(named(variant("plain", 0.08), other))]


def test_the_details_have_the_table_where_there_is_a_pair() -> None:
    plain, own = variant("plain", 0.08), variant("own", 0.06, "calibration.txt")
    runtime = {"name": "transformers", "settings": {"dtype": "float32"}}
    for result in (plain, own):
        more = {"reference": {"runtime": runtime}, "chunks": 5, "context": 512}
        result.protocol["quality"] |= more
    page = details(compared(plain, own))
    assert "### One setting at a time" in page
    assert "plain (none)" in page and "own (calibration.txt)" in page
    assert "0.08 → 0.06" in page and "×0.75" in page
    assert "One setting at a time" not in details(compared(plain))
