"""The recommendation on made-up results: what it takes, what it says, what it cannot judge."""

import argparse
import random
from dataclasses import replace
from pathlib import Path

import pytest

from builders import around, blocks, compared, made_up
from minillm_lab.benchmark import machine
from minillm_lab.commands import folder, pick
from minillm_lab.comparison.advice import beaten, choose, dominates, faster
from minillm_lab.comparison.closeness import closer
from minillm_lab.comparison.group import Group, group_of
from minillm_lab.comparison.limits import Limits
from minillm_lab.jobs.errors import LabError
from minillm_lab.records import QualityMetric, write_record
from minillm_lab.report.front import front
from minillm_lab.report.learnings import learnings
from minillm_lab.report.readme import details
from minillm_lab.report.recommendation import advice, recommendation
from minillm_lab.result import Metric, Result


def variant(
    name: str, speed: float, memory: float, kld: float | None = 0.001, **more: object
) -> Result:
    """A result whose speed and memory have narrow intervals; ``kld`` decides the verdict."""
    result = made_up(name, decode=more.pop("decode", around(speed)), **more)  # type: ignore[arg-type]
    result.metrics["memory_peak_bytes"] = Metric(
        value=memory, unit="B", ci95=(0.99 * memory, 1.01 * memory), n=3, samples=[[memory]] * 3
    )
    if kld is not None:
        top = 0.99 if kld < 0.01 else 0.5
        result.quality = {
            "kld_mean": QualityMetric(value=kld, unit="nat", ci95=(kld, kld), n=99),
            "same_top": QualityMetric(value=top, unit="1", ci95=(top, top), n=99),
        }
        result.protocol["quality"] = {"text_sha256": "0" * 64, "context": 512, "chunks": 2}
    return result


def named(*results: Result) -> Group:
    """The results of one machine, in trials against the first."""
    found = compared(*results)
    return group_of(found, found.results)


BIG = variant("big", 20, 8e8, 0.0001)
MID = variant("mid", 40, 4e8)
SMALL = variant("small", 60, 2e8, 0.9)
ALL = named(BIG, MID, SMALL)


def test_the_fastest_within_the_limits_is_taken_and_the_next_named() -> None:
    choice = choose(ALL, Limits(memory=1e9, speed=15, loss="minor"))
    assert (choice.taken, choice.runner_up) == ("mid", "big")
    text = advice(ALL, Limits(memory=1e9, speed=15, loss="minor"))
    assert "Take `mid`" in text and "×2.00" in text
    assert "`small` out: severe loss is more than the minor loss asked for" in text


def test_a_tie_is_said_and_goes_to_the_one_that_takes_less_memory() -> None:
    noisy = [[39.0, 44.0, 40.0], [43.0, 37.0, 41.5], [38.0, 39.5, 42.0]]
    lean = variant("lean", 0, 3e8, 0.001, decode=noisy, size=12 * 10**7)
    text = advice(named(MID, lean), Limits())
    assert "Take `lean`" in text and "its decode speed is tied with that of `mid`" in text
    assert "takes least memory" in text and "Runner-up: `mid`" in text
    leaner = variant("lean", 0, 3e8, 0.001, decode=noisy)
    text = advice(named(MID, leaner), Limits())
    assert "Take `lean`" in text and "`mid` out: `lean` is measurably better" in text
    assert "every other" in text and "not tested" not in text


def test_a_tie_goes_to_less_loss_before_less_memory() -> None:
    lossy = variant("lossy", 40, 3e8, 0.9)
    assert choose(named(MID, lossy), Limits()).taken == "mid"
    assert "lost least" in advice(named(MID, lossy), Limits())


def test_the_pick_and_the_learnings_agree_where_a_larger_file_lost_more() -> None:
    """A megabyte less of memory decides nothing; the smaller and measurably closer file does."""
    larger = variant("q5_k_m", 60, 2.00e8, 0.076, size=112 * 10**6, quantization="Q5_K_M")
    closer = variant("q4_k_m", 60, 2.01e8, 0.061, size=105 * 10**6, quantization="Q4_K_M")
    base = variant("f16", 20, 8e8, 0.0001, size=270 * 10**6, quantization="F16")
    group = named(base, larger, closer)
    limits = Limits(memory=2.4e8, loss="severe")
    assert choose(group, limits).taken == "q4_k_m"
    assert "`q5_k_m` out: `q4_k_m` is measurably better" in advice(group, limits)
    said = learnings(compared(base, larger, closer))
    assert any("`q5_k_m` is larger than `q4_k_m`" in s and "smaller one is" in s for s in said)


def test_losses_are_told_apart_chunk_by_chunk_where_their_intervals_overlap() -> None:
    def chunks(name: str, levels: tuple[float, ...], memory: float) -> Result:
        found = variant(name, 60, memory, 0.06, quantization=name.upper())
        assert found.quality
        found.quality["kld_mean"].ci95 = (0.04, 0.08)
        found.quality_by_chunk = {"kld_mean": [0.06 * level for level in levels]}
        return found

    text = (0.5, 0.8, 1.0, 1.3, 1.6)  # how hard each chunk is, for both
    near = chunks("near", text, 2.2e8)
    far = chunks("far", tuple(1.1 * level for level in text), 2e8)
    other = chunks("other", (1.6, 1.1, 1.0, 0.9, 0.6), 2e8)
    assert choose(named(BIG, near, far), Limits(memory=2.4e8)).taken == "near"
    assert choose(named(BIG, near, other), Limits(memory=2.4e8)).taken == "other"


@pytest.mark.parametrize(("file", "known"), [("Q8_0.gguf", None), ("F32.gguf", True)])
def test_finer_weights_do_not_lose_to_a_quantized_reference_by_being_finer(
    file: str, known: bool | None
) -> None:
    """Where Q8_0 is the reference, it has no divergence from itself, and F16 has."""
    found = {}
    for name, level, size, sha256 in (("f16", 0.003, 270, "1"), ("q8_0", 0.0, 145, "2")):
        made = variant(name, 60, 2e8, level, size=size * 10**6, quantization=name.upper())
        made.quality_by_chunk = {"kld_mean": [level * k for k in (0.9, 1.0, 1.1, 1.0)]}
        made.model.files[0].sha256 = sha256 * 64
        made.protocol["quality"]["reference"] = {"weights": {file: "2" * 64}}
        found[name] = made
    assert closer(found["q8_0"], found["f16"]) is known
    said = advice(named(found["f16"], found["q8_0"]), Limits())
    assert ("`f16` out" in said) == bool(known)


def test_a_larger_file_that_lost_more_but_is_faster_is_not_called_the_worse_choice() -> None:
    larger = variant("q5_k_m", 80, 2e8, 0.076, size=112 * 10**6, quantization="Q5_K_M")
    closer = variant("q4_k_m", 60, 2e8, 0.061, size=105 * 10**6, quantization="Q4_K_M")
    base = variant("f16", 20, 8e8, 0.0001, size=270 * 10**6, quantization="F16")
    said = learnings(compared(base, larger, closer))
    assert any("`q5_k_m` is larger" in s and "its speed is its only advantage" in s for s in said)
    assert choose(named(BIG, larger, closer), Limits()).taken == "q5_k_m"


def test_a_file_whose_answer_means_nothing_is_no_better_choice() -> None:
    larger = variant("q5_k_m", 60, 2e8, 0.076, size=112 * 10**6, quantization="Q5_K_M")
    broken = variant("q4_k_m", 60, 2e8, 0.061, size=105 * 10**6, quantization="Q4_K_M")
    broken.output.flaw = "it repeats one token"
    base = variant("f16", 20, 8e8, 0.0001, size=270 * 10**6, quantization="F16")
    found = compared(base, larger, broken)
    assert not [line for line in learnings(found) if "better choice" in line]
    assert "⚠ its answer means nothing" in front(found, Path("README.md"))


@pytest.mark.parametrize("factor", [1.02, 1.05, 1.1, 1.2, 1.4])
def test_the_pick_claims_a_faster_variant_where_the_page_does(factor: float) -> None:
    """Of so many variants some differences would be claimed alone and not on the whole page."""
    level = {"a": (0.97, 1.0, 1.03), "b": (1.03, 0.96, 1.0), "c": (1.0, 1.02, 0.98)}
    found = compared(
        variant("f16", 0, 4e8, 0.0001, decode=[[40.0 * x] for x in level["a"]]),
        variant("q8_0", 0, 3e8, 0.001, decode=[[40.0 * factor * x] for x in level["b"]]),
        variant("q6_k", 0, 3e8, 0.002, decode=[[39.0 * x] for x in level["c"]]),
    )
    tie = found.ratios["q8_0"]["decode_tokens_per_second"].tie
    choice = choose(group_of(found, found.results), Limits(loss="minor"))
    assert ("as fast as the runner-up" in choice.why) <= (not tie or choice.runner_up != "f16")
    said = recommendation(found)
    assert not (tie and "it is the fastest that meets" in said and "Runner-up: `f16`" in said)


def test_what_is_said_of_the_only_one_left_is_said_of_those_within_the_limits() -> None:
    """A variant that loses too much may well be smaller and faster."""
    near = variant("near", 40, 4e8, 0.0001, size=3 * 10**8)
    worse = variant("worse", 30, 5e8, 0.0001, size=3 * 10**8)
    results = named(near, worse, variant("fast", 90, 1e8, 0.9, size=10**8))
    why = choose(results, Limits(loss="minor")).why
    assert why.startswith("every other variant that meets the limits")
    alone = named(near, variant("fast", 90, 1e8, 0.9, size=10**8))
    assert "the only one that meets every limit" in choose(alone, Limits(loss="minor")).why


def test_less_than_two_percent_of_memory_decides_nothing() -> None:
    lean = variant("lean", 40, 3.95e8, 0.001, size=99 * 10**6)
    choice = choose(named(MID, lean), Limits())
    assert "is the fastest by its value alone" in choice.why
    assert "least memory" not in choice.why and "smallest" not in choice.why


def test_a_variant_whose_answer_means_nothing_is_never_taken() -> None:
    broken = variant("broken", 90, 1e8)
    broken.output.flaw = "it repeats one token"
    assert choose(named(MID, broken), Limits()).taken == "mid"
    text = advice(named(MID, broken), Limits())
    assert "`broken` out: its answer means nothing: it repeats one token" in text


def test_a_loss_that_is_not_proven_is_second_choice_and_said() -> None:
    unproven = variant("unproven", 90, 1e8, 0.001)
    for name, ends in {"kld_mean": (0.0001, 0.3), "same_top": (0.7, 0.999)}.items():
        assert unproven.quality
        unproven.quality[name].ci95 = ends
    results = named(MID, unproven)
    assert choose(results, Limits(loss="negligible")).taken == "mid"
    assert choose(named(unproven), Limits(loss="negligible")).taken == "unproven"
    assert "negligible to severe loss: at most negligible loss is not proven" in advice(
        named(unproven), Limits(loss="negligible")
    )


def once(name: str, speed: float, memory: float, kld: float | None = None) -> Result:
    """A variant of which one round and one trial were measured."""
    found = variant(name, 0, memory, kld, decode=[[speed]])
    for metric, m in found.metrics.items():
        value = memory if metric == "memory_peak_bytes" else m.value
        found.metrics[metric] = m.model_copy(
            update={"value": value, "ci95": None, "n": 1, "samples": [[value]]}
        )
    return found


def test_one_round_ties_nothing_and_says_what_was_not_tested() -> None:
    slow, fast = once("slow", 3.92, 1393e6), once("fast", 49.5, 390e6)
    found = compared(slow, fast)
    assert choose(group_of(found, found.results), Limits()).taken == "fast"
    page = front(found, Path("README.md")) + details(found)
    assert "decode speeds were not tested" in page
    assert "≈12.6" not in page and "×12.6" in page
    decode = next(line for line in page.splitlines() if line.startswith("| Decode ↑"))
    assert "**" not in decode
    assert "≈0.28" not in page


def test_the_fastest_is_said_of_what_is_measurably_faster_than_all_others_alone() -> None:
    """Of two that tie in speed, the smaller and closer one beats the other."""
    near = variant("near", 0, 2e8, 0.001, decode=[[48.0], [46.0], [47.0]], size=10**8)
    far = variant("far", 0, 3e8, 0.002, decode=[[47.0], [49.0], [48.0]], size=2 * 10**8)
    slow = variant("slow", 20, 1e8, 0.0001, size=5 * 10**8)
    far.model.name = near.model.name
    choice = choose(named(slow, near, far), Limits())
    assert choice.taken == "near" and "far" not in (choice.taken, choice.runner_up)
    assert choice.why.startswith("none that meets the limits is measurably faster")


def test_what_is_left_out_is_beaten_by_something_that_is_not() -> None:
    """b beats a, and c beats b by memory; c lost more than a, which then stays."""
    a = variant("a", 0, 3e8, 0.05, decode=[[50.0], [52.0], [51.0]], size=3 * 10**8)
    b = variant("b", 0, 2e8, 0.05, decode=[[51.0], [50.0], [52.0]], size=2 * 10**8)
    c = variant("c", 0, 1e8, 0.06, decode=[[52.0], [51.0], [50.0]], size=10**8)
    for result, ends in ((a, (0.049, 0.051)), (b, (0.049, 0.056)), (c, (0.0555, 0.065))):
        assert result.quality
        result.quality["kld_mean"].ci95 = ends
    c.quality["kld_mean"].ci95 = (0.0515, 0.065)  # type: ignore[index]
    group = named(BIG, a, b, c)
    assert dominates("b", "a", group) and dominates("c", "b", group)
    assert not dominates("c", "a", group)
    assert beaten(["a", "b", "c"], group) == {"b": "c"}


def test_one_trial_gives_no_ratio_in_the_recommendation() -> None:
    slow, fast = once("slow", 20, 1393e6), once("fast", 40, 390e6)
    said = recommendation(compared(slow, fast))
    assert "×" not in said and "decode speeds were not tested" in said


def test_a_claim_that_the_table_shows_is_a_claim_of_the_pick_to_the_last_digit() -> None:
    """The last claim that holds sets the cutoff, which the pick computes in another order."""
    told = 0
    for seed in range(60):
        rng = random.Random(seed)

        def noisy(speed: float, rng: random.Random = rng) -> list[list[float]]:
            return [[speed * rng.gauss(1, 0.01)] for _ in range(3)]

        found = compared(
            variant("f16", 0, 8e8, 0.0001, decode=noisy(20)),
            variant("q5_k_m", 0, 2e8, 0.002, decode=noisy(64), size=10**8),
            variant("q4_k_m", 0, 2e8, 0.002, decode=noisy(60), size=10**8),
        )
        if found.best["decode_tokens_per_second"] == ["q5_k_m"]:
            told += 1
            assert faster("q5_k_m", "q4_k_m", group_of(found, found.results)), seed
            assert "`q4_k_m` out" not in recommendation(found)
    assert told > 10


def test_a_variant_whose_loss_was_not_measured_is_not_called_worse_in_nothing() -> None:
    q8 = variant("q8_0", 40, 4e8, None, size=3 * 10**8)
    q2 = variant("q2_k", 60, 2e8, None, size=10**8)
    q2.model.files[0].sha256 = "1" * 64
    group = named(q8, q2)
    assert "measurably worse" not in recommendation(compared(q8, q2))
    assert "`q8_0` out" not in advice(group, Limits())
    q2.model.files[0].sha256 = q8.model.files[0].sha256  # the same weights lose the same
    assert "`q8_0` out: `q2_k` is measurably better" in advice(named(q8, q2), Limits())


def test_a_limit_that_is_met_by_value_alone_is_said_with_the_recommendation() -> None:
    base, unproven = variant("f16", 20, 9e8, 0.9), variant("q8_0", 90, 1e8, 0.001)
    for name, ends in {"kld_mean": (0.0001, 0.3), "same_top": (0.7, 0.999)}.items():
        assert unproven.quality
        unproven.quality[name].ci95 = ends
    said = recommendation(compared(base, unproven))
    assert "at most minor loss is not proven" in said
    assert "that meets the limits" not in said and "meets every limit" not in said


def test_with_one_trial_the_learnings_and_the_pick_say_the_same() -> None:
    large = once("q5_k_m", 90, 2e8, 0.076)
    small = once("q4_k_m", 50, 2e8, 0.061)
    for result, size in ((large, 112), (small, 105)):
        result.model.quantization, result.model.files[0].bytes = (
            result.variant.upper(),
            size * 10**6,
        )
    base = once("f16", 20, 8e8, 0.0001)
    base.model.quantization = "F16"
    found = compared(base, large, small)
    assert choose(group_of(found, found.results), Limits()).taken == "q5_k_m"
    said = next(line for line in learnings(found) if "is larger than" in line)
    assert said.endswith("its speed, which was not tested, is its only advantage.")


def test_a_larger_file_that_takes_less_memory_is_not_called_the_worse_choice() -> None:
    large = variant("q5_k_m", 60, 1.8e8, 0.076, size=112 * 10**6, quantization="Q5_K_M")
    small = variant("q4_k_m", 60, 2.3e8, 0.061, size=105 * 10**6, quantization="Q4_K_M")
    base = variant("f16", 20, 8e8, 0.0001, size=270 * 10**6, quantization="F16")
    said = next(s for s in learnings(compared(base, large, small)) if "is larger than" in s)
    assert said.endswith("its smaller memory is its only advantage.")


def test_memory_of_an_accelerator_that_was_not_seen_to_grow_cannot_be_judged() -> None:
    """What is free on a GPU that others share may rise while a model is loaded."""
    shared = variant("q8_0", 90, 1e8, backend="CUDA")
    shared.metrics["accelerator_memory_peak_bytes"] = Metric(
        value=-1e6, unit="B", ci95=None, n=1, samples=[[-1e6]]
    )
    text = advice(named(BIG, shared), Limits(accelerator=8e9))
    assert "its accelerator memory was not measured" in text


def test_a_variant_alone_is_not_said_to_lack_trials() -> None:
    assert "not tested" not in advice(named(MID), Limits())


def of_model(result: Result, model: str, bits: float, noise: float = 0.01) -> Result:
    """The result as one of another model, whose reference is another too.

    The intervals of any two models overlap: some parts of the text are hard for both.
    """
    assert result.quality
    result.model.name = model
    result.quality["bits_per_byte"] = QualityMetric(
        value=bits, unit="bit/B", ci95=(0.5 * bits, 1.5 * bits), n=99
    )
    result.quality_bits_by_block = blocks(bits, bits, noise)
    return result


def test_models_are_compared_by_bits_per_byte_and_never_by_divergence() -> None:
    """The small model lost less against its own reference, is faster, and predicts worse."""
    tiny = of_model(variant("tiny-q8", 90, 1e8, 0.0001), "tiny", 1.1)
    large = of_model(variant("large-q4", 30, 4e8, 0.005), "large", 1.0)
    large.protocol["quality"]["chunks"] = 9  # its tokenizer makes fewer tokens of the same text
    group = named(tiny, large)
    choice = choose(group, Limits(loss="minor"))
    assert (choice.taken, choice.of_models) == ("large-q4", {"tiny": "tiny-q8"})
    assert not choice.beaten  # tiny is better in all but what the models are compared by
    assert "by bits per byte" in choice.why
    text = advice(group, Limits(loss="minor"))
    assert "Of tiny: `tiny-q8`" in text and "1.100 (0.550–1.650) bits per byte" in text
    assert choose(group, Limits(memory=2e8)).taken == "tiny-q8"


def test_models_that_predict_alike_are_chosen_by_speed_and_it_is_said() -> None:
    one = of_model(variant("one-q8", 90, 1e8, 0.0001), "one", 1.01, 0.05)
    other = of_model(variant("other-q8", 30, 4e8, 0.0001), "other", 1.0, -0.05)
    choice = choose(named(one, other), Limits())
    assert choice.taken == "one-q8" and "do not differ measurably" in choice.why


def test_of_three_models_the_two_that_predict_alike_are_named() -> None:
    one = of_model(variant("one-q8", 90, 1e8, 0.0001), "one", 1.01, 0.05)
    other = of_model(variant("other-q8", 30, 4e8, 0.0001), "other", 1.0, -0.05)
    worse = of_model(variant("worse-q8", 95, 1e8, 0.0001), "worse", 2.0, 0.01)
    choice = choose(named(one, other, worse), Limits())
    assert choice.taken == "one-q8"
    assert "the bits per byte of one and other are the least and do not differ" in choice.why


def test_models_that_predict_alike_and_are_as_fast_are_chosen_by_memory() -> None:
    one = of_model(variant("one-q8", 30.2, 5e8, 0.0001), "one", 1.01, 0.05)
    other = of_model(variant("other-q8", 30.0, 1.5e8, 0.0001), "other", 1.0, -0.05)
    for result, ratio in ((one, 1.01), (other, 1.0)):
        speeds = [[30 * x * ratio] for x in ((0.9, 1.1, 1.0) if result is one else (1.1, 0.9, 1.0))]
        result.metrics.update(
            variant("x", 0, 1, decode=speeds).metrics
            | {"memory_peak_bytes": result.metrics["memory_peak_bytes"]}
        )
    choice = choose(named(one, other), Limits())
    assert choice.taken == "other-q8"
    assert "its decode speed is tied with that of `one-q8`" in choice.why


def test_nothing_fits_says_which_limit_fails_by_how_much_and_what_is_nearest() -> None:
    text = advice(ALL, Limits(memory=3.6e8, loss="minor"))
    assert text.startswith("**No variant meets these limits.**")
    assert "Nearest: `mid`" in text
    assert "`mid` out: memory 400 MB is over the 360 MB asked for by 11 %" in text
    assert "`big` out: memory 800 MB is over the 360 MB asked for by 122 %" in text


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Limits(memory=3.9995e8), "`mid` out: memory 400.0 MB is over the 399.9 MB asked for\n"),
        (Limits(memory=4.005e8), "400.0 MB meets the 400.5 MB asked for by its value, but it may"),
        (Limits(memory=4.0799e8), "the 407.99 MB asked for by its value, but it may be 408.00 MB"),
        (Limits(speed=40.3), "decode speed 40.0 t/s is short of the 40.3 t/s asked for by 1 %"),
    ],
)
def test_a_figure_and_its_limit_have_the_digits_that_tell_them_apart(
    limits: Limits, said: str
) -> None:
    assert said in advice(ALL, limits) + "\n"


def test_sizes_of_gigabytes_have_no_exponent() -> None:
    large = named(variant("large", 40, 12345.1e6))
    said = advice(large, Limits(memory=12344.9e6))
    assert "memory 12345.1 MB is over the 12344.9 MB asked for" in said


def test_a_dominated_variant_is_never_taken_nor_runner_up() -> None:
    worse = variant("worse", 39, 5e8, 0.002, size=2 * 10**8)
    choice = choose(named(worse, MID, BIG), Limits())
    assert (choice.taken, choice.runner_up) == ("mid", "big")
    text = advice(named(worse, MID, BIG), Limits())
    assert "`worse` out: `mid` is measurably better in something and worse in nothing" in text


def test_what_was_not_measured_cannot_be_judged() -> None:
    unscored = variant("unscored", 90, 1e8, None)
    mute = variant("mute", 10, 1e8)
    mute.metrics["decode_tokens_per_second"] = Metric(
        value=None, unit="t/s", ci95=None, n=0, samples=[]
    )
    results = named(MID, unscored, mute)
    assert choose(results, Limits(loss="minor")).taken == "mid"
    text = advice(results, Limits(loss="minor", speed=5))
    assert "`unscored` out: its quality was not measured" in text
    assert "`mute` out: its decode speed was not measured" in text
    assert choose(results, Limits()).taken == "unscored"


def test_where_no_speed_was_measured_the_page_says_so_and_not_that_all_lost_too_much() -> None:
    mute = variant("mute", 10, 1e8)
    mute.metrics["decode_tokens_per_second"] = Metric(
        value=None, unit="t/s", ci95=None, n=0, samples=[]
    )
    found = compared(mute)
    page = front(found, Path("README.md"))
    assert "`mute`, the nearest: its decode speed was not measured" in page
    assert "Nothing is drawn: no variant has a decode speed." in page
    text = advice(group_of(found, found.results), Limits())
    assert "decode speed not measured" in text and "0.00 t/s" not in text


def test_a_budget_between_two_variants_takes_the_one_below_it() -> None:
    assert choose(ALL, Limits(memory=6e8, loss="minor")).taken == "mid"
    assert choose(ALL, Limits(memory=3e8)).taken == "small"


def test_meeting_a_limit_by_its_value_alone_is_second_choice_and_said() -> None:
    wide = variant("wide", 0, 1e8, decode=[[35.0], [50.0], [50.0**2 / 35]])
    results = named(MID, wide)
    assert choose(results, Limits(speed=35)).taken == "mid"
    choice = choose(results, Limits(speed=45))
    assert choice.taken == "wide"
    assert "`wide` but: decode speed 50.0 t/s meets" in advice(results, Limits(speed=45))
    assert "meets the 45.0 t/s asked for by its value, but" in advice(results, Limits(speed=45))


def test_machines_are_never_mixed(tmp_path: Path) -> None:
    there = variant("small", 90, 1e8, machine="bbbbbbbbbbbb")
    both = compared(BIG, MID, there).results
    assert list(folder.of_one_machine(both, None, "aaaaaaaaaaaa")) == ["big", "mid"]
    assert list(folder.of_one_machine(both, "bbbbbbbbbbbb", "aaaaaaaaaaaa")) == ["small"]
    with pytest.raises(LabError, match=r"--machine: `aaaaaaaaaaaa`, `bbbbbbbbbbbb`"):
        folder.of_one_machine(both, None, "cccccccccccc")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    parser = argparse.ArgumentParser()
    pick.add_arguments(parser)
    pick.main(parser.parse_args(arguments))
    return capsys.readouterr().out


def test_the_command_says_what_it_assumed_and_where_it_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_record(tmp_path / "comparison.json", compared(*ALL.results.values()))
    text = run(capsys, "--results", str(tmp_path))
    assert "Take `mid`" in text  # small lost too much for the default
    assert "MB of memory free here now; at most minor loss" in text
    assert "machine `aaaaaaaaaaaa`, which is not this machine" in text
    assert "Take `small`" in run(
        capsys, "--results", str(tmp_path), "--max-memory", "300MB", "--max-loss", "severe"
    )


def test_what_is_free_in_a_container_and_on_the_accelerator_is_the_default_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpu = variant("on_gpu", 200, 1e8, backend="CUDA")
    taken = on_gpu.metrics["accelerator_memory_peak_bytes"]
    taken.value, taken.ci95, taken.samples = 3e9, None, [[3e9]] * 3
    write_record(tmp_path / "comparison.json", compared(BIG, MID, on_gpu))
    monkeypatch.setattr(pick, "memory_available", lambda: 500_000_000)
    monkeypatch.setattr(machine, "accelerator_memory", lambda _: [8 << 30])
    assert "Take `on_gpu`" in run(capsys, "--results", str(tmp_path))
    monkeypatch.setattr(machine, "accelerator_memory", lambda _: [2 << 30, 1 << 30])
    text = run(capsys, "--results", str(tmp_path))
    assert "Take `mid`" in text and "at most the 500 MB of memory free here now" in text
    assert "`on_gpu` out: accelerator memory 3000 MB is over the 2147 MB asked for" in text
    assert "`big` out: memory 800 MB is over the 500 MB asked for" in text


@pytest.mark.parametrize("given, bytes_", [("600MB", 6e8), ("1.5GiB", 1.5 * 2**30), ("7 kb", 7e3)])
def test_sizes_are_read_with_their_unit(given: str, bytes_: float) -> None:
    assert pick.bytes_of(given) == bytes_


@pytest.mark.parametrize("given", ["600", "600XB", "-1MB", "nanMB", "1e9B", ""])
def test_what_is_no_size_is_refused(given: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a size"):
        pick.bytes_of(given)


def test_the_readmes_line_names_the_pick_of_each_machine() -> None:
    line = recommendation(compared(*ALL.results.values()))
    assert "with at most minor loss: **`mid`** decodes" in line and "Runner-up: `big`" in line
    there = variant("small", 90, 1e8, machine="bbbbbbbbbbbb")
    lines = recommendation(compared(MID, there))
    assert "on `aaaaaaaaaaaa`**" in lines and "on `bbbbbbbbbbbb`**" in lines


def test_a_coarse_file_of_a_larger_model_may_be_the_better_choice_within_a_memory() -> None:
    """0.5B at Q8_0 or 1.5B at Q3_K_M? The loss against its own reference does not decide."""
    fine = of_model(variant("small-q8", 60, 6e8, 0.0001), "small", 1.2)
    coarse = of_model(variant("large-q3", 25, 9e8, 0.2), "large", 1.0)
    coarser = of_model(variant("large-q2", 35, 8e8, 0.9), "large", 1.5)
    whole = of_model(variant("large-q8", 15, 16e8, 0.0001), "large", 0.9)
    group = named(fine, coarse, coarser, whole)
    assumed = Limits(memory=1e9, loss="minor", loss_is_assumed=True)
    choice = choose(group, assumed)
    assert (choice.taken, choice.of_models) == ("large-q3", {"small": "small-q8"})
    assert "by bits per byte" in choice.why and "none of its model meets" in choice.why
    text = advice(group, assumed)
    assert "Take `large-q3`" in text and "`large-q3` but: " in text  # its loss is said
    asked = choose(group, Limits(memory=1e9, loss="minor"))  # who asks for a loss gets it
    assert asked.taken == "small-q8" and not asked.of_models
    assert choose(group, replace(assumed, memory=2e9)).taken == "large-q8"
    worse = of_model(variant("large-q3", 25, 9e8, 0.2), "large", 1.3)
    assert choose(named(fine, worse), assumed).taken == "small-q8"
    page = recommendation(compared(fine, coarse, coarser))
    assert "with at most minor loss" not in page and "But: " in page
