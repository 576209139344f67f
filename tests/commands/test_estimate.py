"""Estimates on results whose speeds are computed from known costs per token."""

from math import ceil

import pytest

from builders import made_up
from minillm_lab import estimates
from minillm_lab.commands.estimate import described, estimate
from minillm_lab.jobs.errors import LabError
from minillm_lab.result import Metric, Result

ROUNDS = (1 / 1.02, 1.0, 1.02)  # the machine's speed in each
CHOOSING = 1e-4


def read(tokens: int) -> float:
    return 0.01 + 1e-3 * tokens + 1e-7 * tokens**2


def step(position: int, runtime: str = "llama.cpp") -> float:
    """Seconds of the token at a position: llama.cpp attends to its cache in steps of 256."""
    cells = ceil((position + 1) / 256) * 256 if runtime == "llama.cpp" else position + 1
    return 5e-3 + 4e-6 * cells


def known(depths: tuple[int, ...] = (128, 512), runtime: str = "llama.cpp") -> Result:
    """A result with a prompt of 10 tokens and an answer of 80."""
    result = made_up("q8_0", runtime=runtime)
    decoding = sum(step(10 + i, runtime) for i in range(79))

    def put(metric: str, unit: str, value: float, power: int) -> None:
        samples = [[value * level**power] * 2 for level in ROUNDS]
        found = estimates.of_rounds(samples)
        result.metrics[metric] = Metric(
            value=found.value, unit=unit, ci95=found.ci95, n=found.n, samples=samples
        )

    for at in ("", "_at_10"):
        put(f"prefill_tokens_per_second{at}", "t/s", 10 / read(10), 1)
        put(f"decode_tokens_per_second{at}", "t/s", 79 / decoding, 1)
    put("generate_seconds", "s", read(10) + decoding + 80 * CHOOSING, -1)
    put("load_cold_seconds", "s", 0.5, -1)
    for depth in depths:
        put(f"prefill_tokens_per_second_at_{depth}", "t/s", depth / read(depth), 1)
        steps = sum(step(depth + i, runtime) for i in range(16))
        put(f"decode_tokens_per_second_at_{depth}", "t/s", 16 / steps, 1)
    return result


@pytest.mark.parametrize("runtime", ["llama.cpp", "transformers"])
def test_costs_that_grow_with_the_context_are_summed_over_positions(runtime: str) -> None:
    found = estimate(known(runtime=runtime), 1000, 500)
    answer = sum(step(1000 + i, runtime) for i in range(499)) + 500 * CHOOSING
    assert found.prompt.value == pytest.approx(read(1000), rel=1e-5)
    assert found.answer.value == pytest.approx(answer, rel=1e-5)
    assert found.whole.value == pytest.approx(read(1000) + answer, rel=1e-5)
    assert found.whole.ci95 is not None and found.whole.ci95[1] < 2 * found.whole.value


def test_a_cold_load_comes_on_top_when_asked_for() -> None:
    warm, cold = estimate(known(), 100, 100), estimate(known(), 100, 100, cold=True)
    assert cold.whole.value - warm.whole.value == pytest.approx(0.5, rel=1e-3)
    blind = known()
    cold_load = blind.metrics["load_cold_seconds"]
    cold_load.value, cold_load.samples = None, []
    with pytest.raises(LabError, match="leave out --cold"):
        estimate(blind, 100, 100, cold=True)


def test_a_speed_that_seems_to_rise_with_the_context_is_taken_for_noise() -> None:
    odd = known()
    odd.metrics["decode_tokens_per_second_at_512"].samples = [[900.0, 900.0]] * 3
    long = estimate(odd, 1000, 500).answer.value
    assert long >= estimate(odd, 100, 500).answer.value > 0


def test_extrapolation_is_said_and_has_an_end() -> None:
    assert "extrapolated" not in described(known(), 200, 200, False)
    assert "measured up to 512 tokens" in described(known(), 1000, 500, False)
    with pytest.raises(LabError, match="more than 4 times the 512"):
        estimate(known(), 2000, 500)
    with pytest.raises(LabError, match="one prompt length only"):
        estimate(known(()), 10, 20)


def test_the_models_own_context_is_the_end() -> None:
    small = known()
    small.model.context = 1024
    with pytest.raises(LabError, match="1500 tokens exceed the 1024"):
        estimate(small, 1000, 500)
    assert estimate(small, 1000, 24).whole.value > 0


def test_one_round_gives_no_interval_and_says_so() -> None:
    single = known()
    single.protocol["rounds"] = 1
    for metric in single.metrics.values():
        metric.samples = metric.samples[:1]
    assert "No interval: one round" in described(single, 100, 100, False)


def test_rounds_that_disagree_are_said() -> None:
    assert "disagree" not in described(known(), 100, 100, False)
    disturbed = known()
    for name, metric in disturbed.metrics.items():
        if "per_second" in name:
            metric.samples[0] = [speed / 3 for speed in metric.samples[0]]
    assert "The rounds disagree" in described(disturbed, 100, 100, False)


def test_two_rounds_that_differ_a_little_are_too_few_and_do_not_disagree() -> None:
    result = known()
    result.protocol["rounds"] = 2
    for metric in result.metrics.values():
        metric.samples = [[1.1 * x for x in metric.samples[0]], *metric.samples[1:2]]
    said = described(result, 100, 100, False)
    assert "The interval is wide since 2 rounds are few" in said and "disagree" not in said
    for metric in result.metrics.values():
        metric.samples = [[x / 2 for x in metric.samples[0]], *metric.samples[1:]]
    assert "The rounds disagree" in described(result, 100, 100, False)
    assert "from trials" not in said
    decode = result.metrics["decode_tokens_per_second"]
    result.metrics["decode_tokens_per_second"] = decode.model_copy(update={"value": 99.0})
    assert "and the table's speeds from trials." in described(result, 100, 100, False)
