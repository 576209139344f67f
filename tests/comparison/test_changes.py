"""What one setting changed: which variants are a pair, and the ratio of their divergences."""

from typing import Any

import pytest

from builders import compared, made_up
from minillm_lab.comparison.changes import changes
from minillm_lab.recipe import Chosen, Recipe
from minillm_lab.records import QualityMetric
from minillm_lab.report.learnings import learnings
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


def baked(name: str, level: float, size: int, noise: float = 0.0, **settings: Any) -> Result:
    """A recipe of a size; ``noise``: how far its chunks are from those of the others."""
    found = variant(name, level, **settings)
    found.model.quantization, found.model.files[0].bytes = "recipe", size
    of_group: dict[str, Any] = {"weights": 4 * 10**7, "type": "Q8_0", "loss": 0.01}
    found.model.recipe = Recipe(
        lab="0", size=size, bytes=size, type="Q8_0", tensors={"ffn": "Q8_0"}, predicted=level,
        measured=level, candidates=[], same="Q4_0", groups=[
            Chosen(role="ffn_down", layers=[0], loss_in_same=0.09, **of_group),
            Chosen(role="ffn_up", layers=[0], loss_in_same=0.01, **of_group),
        ],
    )  # fmt: skip
    signs = (1, -1, 1, -1, 1)
    chunks = found.quality_by_chunk["kld_mean"]
    found.quality_by_chunk["kld_mean"] = [
        value * (1 + noise * sign) for value, sign in zip(chunks, signs, strict=True)
    ]
    return found


def test_a_recipe_by_a_matrix_is_held_against_a_type_that_no_matrix_changes() -> None:
    mine = baked("mine", 0.004, 144_000_000)
    mine.model.imatrix = {"dataset": "calibration.txt", "entries_count": 210}
    plain = stock("q8_0", 0.005, 145_000_000), stock("q6_k", 0.014, 140_000_000)
    found = [c for c in changes(named(*plain, mine)) if c.setting == "recipe"]
    assert [(c.start, c.end) for c in found] == [("q8_0", "mine")]


def stock(name: str, level: float, size: int) -> Result:
    found = variant(name, level)
    found.model.quantization, found.model.files[0].bytes = name.upper(), size
    return found


def test_a_recipe_is_held_against_the_stock_type_of_nearest_size() -> None:
    assert baked("mine", 0.04, 104_000_000).model.share_of_named_type == 1  # no type is promised
    results = named(
        stock("f16", 0.00001, 98_000_000), stock("q5_k_m", 0.04, 112_000_000),
        stock("q4_k_m", 0.08, 105_000_000), baked("mine", 0.04, 104_000_000),
        baked("cached", 0.05, 104_000_000, kv_cache="q8_0"),
    )  # fmt: skip
    found = [c for c in changes(results) if c.setting == "recipe"]
    assert [(c.start, c.end, c.before, c.after) for c in found] == [
        ("q4_k_m", "mine", "Q4_K_M, 105 MB", "own, 104 MB")
    ]  # with another cache there is no stock type beside it
    assert found[0].ratio.value == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("level", "noise", "said"),
    [(0.04, 0.0, "."), (0.08, 0.3, ": no gain is shown."), (0.12, 0.0, ", so it loses more.")],
)
def test_a_recipe_without_a_gain_is_said_to_have_none(
    level: float, noise: float, said: str
) -> None:
    mine = baked("mine", level, 104_000_000, noise)
    results = [stock("f16", 0.00001, 270_000_000), stock("q4_k_m", 0.08, 105_000_000), mine]
    sentences = learnings(compared(*results, baseline="f16"))
    (line,) = [line for line in sentences if line.startswith("Recipe `mine` (104 MB) diverges ×")]
    assert line.endswith(f") as much as `q4_k_m` (Q4_K_M, 105 MB){said}")
    lost = "in Q4_0 on the calibration text, `ffn_down` loses 90.0 % with 40.0 % of the model's"
    assert any(lost in sentence for sentence in sentences)
