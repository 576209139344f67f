"""The page from trials: figures of each state, one story in every cell, nothing made up."""

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from builders import STEADY, around, by_round, compared, made_up, trial, with_trials
from minillm_lab import estimates
from minillm_lab.commands.export import model_card
from minillm_lab.comparison.compare import compare
from minillm_lab.comparison.group import group_of
from minillm_lab.comparison.shapes import Comparison
from minillm_lab.comparison.trials import METRICS
from minillm_lab.records import Reading
from minillm_lab.report import pages, table, tables
from minillm_lab.report.charts.catalogue import chart
from minillm_lab.report.front import front
from minillm_lab.report.learnings import learnings
from minillm_lab.report.legend import legend, states_in_short
from minillm_lab.report.readme import details
from minillm_lab.report.recommendation import recommendation
from minillm_lab.result import Metric, Result

DECODE, PREFILL = "decode_tokens_per_second", "prefill_tokens_per_second"
OTHER = Reading(compute_flops=1.33e11, memory_bytes_per_second=5e10)
ROWS_OF_SPEED = ("Time for", "Throughput", "Prefill", "Decode", "Time to first token")
RANDOM = np.random.RandomState()


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Each test draws the same numbers, whichever ran before it."""
    RANDOM.seed(1)


def noisy(value: float, rounds: int = 6, spread: float = 0.01) -> list[list[float]]:
    return [[value * float(x)] for x in RANDOM.lognormal(0, spread, rounds)]


def measured(variant: str, decode: float, spread: float = 0.01, rounds: int = 6) -> Result:
    """A result whose every speed scatters from round to round."""
    result = made_up(variant, decode=noisy(decode, rounds, spread))
    for metric in set(METRICS) - {DECODE}:
        level = decode if "per_second" in metric else 1 / decode
        samples = noisy(level, rounds, spread)
        value = float(np.median(samples))
        unit = result.metrics[metric].unit
        result.metrics[metric] = Metric(
            value=value, unit=unit, ci95=None, n=len(samples), samples=samples
        )
    return result


def in_two_states() -> Comparison:
    """Six trials each in one state, in which ``q8`` is twice as fast; four in one of 1.5 times."""
    results = with_trials([measured("fp16", 10), measured("q8", 20), measured("q4", 30)], "fp16")
    for name, speed in {"q8": 24.0, "q4": 40.0}.items():
        pairs = [by_round(measured(n, s, rounds=4)) for n, s in ((name, speed), ("fp16", 16.0))]
        more = [
            trial(7 + i, *both, before=OTHER) for i, both in enumerate(zip(*pairs, strict=True))
        ]
        results[name].trials.extend(more)
    return compare(results, "fp16", "snakemake --cores 1")


def cells(text: str) -> dict[tuple[str, str], str]:
    """A Markdown table's cells by the beginning of their row and by their column."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    names = [name.removesuffix(" (baseline)") for name in rows[0]]
    return {
        (row[0].partition(" ↑")[0].partition(" ↓")[0], name): cell
        for row in rows[2:]
        for name, cell in list(zip(names, row, strict=True))[1:]
    }


def test_two_states_have_a_table_each_and_a_sentence_together() -> None:
    first, second = tables.markdown(in_two_states()).split("**State B**")
    assert (
        cells(first)["Decode", "q8"].endswith("(×2.00)") or "(×1.9" in cells(first)["Decode", "q8"]
    )
    assert "(×1.5" in cells(second)["Decode", "q8"] or "(×1.4" in cells(second)["Decode", "q8"]
    assert ("Load, warm cache", "q8") in cells(first)
    assert ("Load, warm cache", "q8") not in cells(second)  # loads are not of trials
    assert ("Decode", "fp16") in cells(second)
    (line,) = [line for line in first.splitlines() if line.startswith("- State")]
    assert "in 2" in line and "170 GF/s" in line and "133 GF/s" in line
    assert "32.0 GB/s" in line and "50.0 GB/s" in line
    assert "(trials: q8 4, q4 4)" in second.replace("\n", " ")


def test_every_page_says_whose_state_its_speeds_are_and_what_the_advice_is_worth_in_the_other() -> (
    None
):
    found = in_two_states()
    page = front(found, Path("README.md"), with_picture=False)
    share = f"{found.states['aaaaaaaaaaaa'][0].share:.0%}".replace("%", " %")
    first = f"the most frequent with trials ({share} of the readings)"
    whose = f"Speeds are of state A of the machine, {first}"
    assert whose in page and "[RESULTS.md](RESULTS.md) has those of the others" in page
    assert "ratios on this page are of state A (trials: q8 6, q4 6)" in details(found)
    for text in (page, details(found)):
        (line,) = [line for line in text.splitlines() if "Why: " in line]
        (told,) = re.findall(r"state B it decodes ×(\S+) \([^)]*\) as fast as `fp16`\.", line)
        assert float(told) == pytest.approx(40 / 16, rel=0.03)
    for context in (pages.opening(found), pages.summary(found)):
        assert whose in context["states"]
    subtitle = chart("tradeoff", found).to_dict()["title"]["subtitle"]
    assert f"Speeds in state A of the machine, {share} of the readings" in subtitle
    card = model_card(found.results, found)
    assert f"Speeds are of one state of the machine, {first}: 170 GF/s" in card
    one = compared(measured("fp16", 10), measured("q8", 20))
    page = front(one, Path("README.md"), with_picture=False)
    assert "state" not in page + model_card(one.results, one)


def slower_and_faster(of_q8: float, its_memory: float = 3e8) -> Comparison:
    """``q4`` is fastest in state A and no better than ``fp16`` in B, where ``q8`` is so fast."""
    speeds = {"fp16": (10.0, 10.0), "q8": (15.0, of_q8), "q4": (20.0, 10.0)}
    results = with_trials([measured(name, of_a) for name, (of_a, _) in speeds.items()], "fp16")
    for result, memory in zip(results.values(), (4e8, its_memory, 2e8), strict=True):
        peak = result.metrics["memory_peak_bytes"]
        result.metrics["memory_peak_bytes"] = peak.model_copy(update={"value": memory})
    for name in ("q8", "q4"):
        pairs = [by_round(measured(n, speeds[n][1], rounds=4)) for n in (name, "fp16")]
        results[name].trials += [
            trial(7 + i, *both, before=OTHER) for i, both in enumerate(zip(*pairs, strict=True))
        ]
    return compare(results, "fp16", "snakemake --cores 1")


def test_advice_tells_a_tie_and_who_is_faster_in_another_state() -> None:
    tied, beaten = (recommendation(slower_and_faster(q8)) for q8 in (10.0, 15.0))
    for text in (tied, beaten):
        assert "**`q4`**" in text and re.search(r"state B it decodes ×\S+ \(.*\) as fast as", text)
        assert ", a tie" in text
    assert "`q8` decodes" not in tied
    assert re.search(r"; `q8` decodes ×1\.[45]\d \(.*\) as fast as `q4`\.", beaten)
    beside = recommendation(slower_and_faster(15.0, its_memory=1e8))  # it is the runner-up
    assert re.search(r"state B it decodes ×0\.6\d \(.*\) as fast as `q8`\. Runner-up", beside)


def test_an_unsteady_machine_is_said_beside_every_speed() -> None:
    found = compared(measured("fp16", 10), measured("q8", 20))
    assert not states_in_short(found, "others")
    ((state,),) = found.states.values()
    state.compute_range, state.memory_range = (1.6e11, 1.7e11), (3e10, 5e10)
    told = (
        "The machine was unsteady: nine of ten readings within 160 to 170 GF/s, 30.0 to 50.0 GB/s."
    )
    assert told in front(found, Path("README.md"), with_picture=False)


def test_of_several_machines_each_has_its_own_state_a() -> None:
    found = in_two_states()
    (states,) = found.states.values()
    found.states |= {"bbbbbbbbbbbb": states[:1]}
    assert "of state A of their machine, its most frequent with trials;" in states_in_short(
        found, "others"
    )
    assert "state A of the machine, " in states_in_short(found, "others", "aaaaaaaaaaaa")
    assert not states_in_short(found, "others", "bbbbbbbbbbbb")


def test_nothing_is_averaged_across_states() -> None:
    found = in_two_states()
    main, other = found.states["aaaaaaaaaaaa"]
    assert (main.trials, other.trials) == ({"q8": 6, "q4": 6}, {"q8": 4, "q4": 4})
    assert found.ratios["q8"][DECODE].value == main.ratios["q8"][DECODE].value
    for state, ratio, base in ((main, 2.0, 10.0), (other, 1.5, 16.0)):
        assert state.ratios["q8"][DECODE].value == pytest.approx(ratio, rel=0.02)
        assert state.metrics["fp16"][DECODE].value == pytest.approx(base, rel=0.02)
        low, high = state.ratios["q8"][DECODE].ci95 or (0, 0)
        assert 0.95 * ratio < low < ratio < high < 1.05 * ratio


def three() -> dict[str, Result]:
    """Six trials each of q8, twice as fast as f16, and of q4, three times as fast."""
    found = [measured(name, 10 * i) for i, name in enumerate(("f16", "q8", "q4"), 1)]
    return with_trials(found, "f16")


def wide(found: Comparison, name: str) -> float:
    """How far the interval of a decode ratio reaches, in parts of it."""
    low, high = found.ratios[name][DECODE].ci95 or (0, 0)
    return (high - low) / found.ratios[name][DECODE].value


@pytest.mark.parametrize(
    ("key", "other"), [("name", "transformers"), ("backend", "CUDA"), ("threads", 1)]
)
def test_variants_that_compute_in_another_way_have_a_spread_of_their_own(
    key: str, other: str | int
) -> None:
    calm = [measured(name, speed) for name, speed in (("f16", 10), ("q8", 20), ("q4", 30))]
    wild, like = measured("wild", 5, spread=0.2), measured("like", 5, spread=0.2)
    wild.runtime[key] = other
    alone, both = compared(*calm), compared(*calm, wild)
    assert wide(both, "q8") == pytest.approx(wide(alone, "q8"))
    assert wide(both, "wild") > 5 * wide(both, "q8")
    assert wide(compared(*calm, like), "q8") > 3 * wide(alone, "q8")


def test_few_trials_of_a_runtime_have_the_spread_of_all() -> None:
    results = three()
    results["q4"].runtime["threads"] = 1
    for left in (2, 1):
        results["q4"].trials = results["q4"].trials[:left]
        found = compare(results, "f16", "snakemake", goal=0.001)
        assert 0.01 < wide(found, "q4") < 0.25 and found.best[DECODE] == ["q4"]
        assert found.precision and found.precision.trials and found.precision.trials > 6


@pytest.mark.parametrize(("left", "own"), [(4, False), (5, True)])
def test_a_runtime_has_a_spread_of_its_own_from_five_trials_of_one_variant_on(
    left: int, own: bool
) -> None:
    results = three()
    results["q4"].runtime["threads"] = 1
    results["q4"].trials = results["q4"].trials[:left]
    samples = {n: [t.ratios[DECODE] for t in results[n].trials] for n in ("q8", "q4")}
    pooled = estimates.together(samples if not own else {"q4": samples["q4"]})["q4"]
    found = compare(results, "f16", "snakemake").ratios["q4"][DECODE]
    assert found.ci95 == pytest.approx(pooled.ci95)


@pytest.mark.parametrize("yardstick", ["compute_flops", "memory_bytes_per_second"])
def test_ratios_follow_the_machine_within_a_state_and_are_those_at_its_mean(yardstick: str) -> None:
    """The machine changes during the run, a variant gains, and the trials of q4 come later."""
    results = three()
    at = {"q8": (0, 2, 4, 6, 8, 10), "q4": (3, 5, 7, 9, 11, 13)}
    level = getattr(STEADY, yardstick)
    for name, places in at.items():
        sides = zip(by_round(results[name]), by_round(results["f16"]), strict=True)
        results[name].trials = [
            trial(
                i,
                {m: v * 1.02 ** (place - 6.5) for m, v in ours.items()},
                theirs,
                before=STEADY.model_copy(update={yardstick: level * 1.02 ** (place - aside)}),
                after=STEADY.model_copy(update={yardstick: level * 1.02 ** (place + aside)}),
            )
            for i, (place, (ours, theirs)) in enumerate(zip(places, sides, strict=True))
            for aside in [1.5 * (-1) ** i]
        ]
    found = compare(results, "f16", "snakemake")
    assert len(found.states["aaaaaaaaaaaa"]) == 1
    for name, ratio in (("q8", 2.0), ("q4", 3.0)):
        assert found.ratios[name][DECODE].value == pytest.approx(ratio, rel=0.012)
        assert wide(found, name) < 0.06  # 15 % and more by the trials as they come


def test_one_state_has_one_table_and_is_said() -> None:
    text = tables.markdown(compared(measured("fp16", 10), measured("q8", 20)))
    (line,) = [line for line in text.splitlines() if line.startswith("- State")]
    assert "one, 170 GF/s" in line and "**State" not in text and "unsteady" not in line


@pytest.mark.parametrize(("step", "unsteady"), [(1.007, False), (1.009, True)])
def test_one_state_is_called_unsteady_from_a_quarter_on(step: float, unsteady: bool) -> None:
    results = with_trials([measured("fp16", 10, rounds=30), measured("q8", 20, rounds=30)], "fp16")
    sides = [by_round(results[name]) for name in ("q8", "fp16")]
    results["q8"].trials = [
        trial(i, *both, before=STEADY.model_copy(update={"compute_flops": 1.5e11 * step**i}))
        for i, both in enumerate(zip(*sides, strict=True), 1)
    ]
    assert ("unsteady" in tables.markdown(compare(results, "fp16", "snakemake"))) == unsteady


def test_one_state_that_goes_up_and_down_is_called_unsteady() -> None:
    results = with_trials([measured("fp16", 10, rounds=30), measured("q8", 20, rounds=30)], "fp16")
    sides = [by_round(results[name]) for name in ("q8", "fp16")]
    results["q8"].trials = [
        trial(i, *both, before=STEADY.model_copy(update={"compute_flops": 1.2e11 * 1.02**i}))
        for i, both in enumerate(zip(*sides, strict=True), 1)
    ]
    text = tables.markdown(compare(results, "fp16", "snakemake"))
    (line,) = [line for line in text.splitlines() if line.startswith("- State")]
    assert "unsteady: nine of ten readings within 1" in line and "32.0 to 32.0 GB/s" in line
    low, high = map(float, line.partition("within ")[2].split(" GF/s")[0].split(" to "))
    assert 120 < low < 135 and 190 < high < 220


def test_a_speed_is_the_baselines_times_the_ratio_in_every_cell() -> None:
    found = in_two_states()
    places = [(found.results["fp16"].metrics, {n: r.metrics for n, r in found.results.items()},
               found.ratios)]  # fmt: skip
    places += [(s.metrics["fp16"], s.metrics, s.ratios) for s in found.states["aaaaaaaaaaaa"]]
    for base, speeds, ratios in places:
        for name in ("q8", "q4"):
            for metric in METRICS:
                told, value = base[metric].value, speeds[name][metric].value
                assert told and value == pytest.approx(told * ratios[name][metric].value)


@pytest.mark.parametrize("in_other", [0, 4], ids=["the other state is rare", "it is frequent"])
def test_a_trial_in_which_the_state_changed_is_set_aside(in_other: int) -> None:
    results = with_trials([measured("fp16", 10), measured("q8", 20)], "fp16")
    (ours, *_), (theirs, *_) = (by_round(results[name]) for name in ("q8", "fp16"))
    odd = {m: 100 * v for m, v in ours.items()}
    results["q8"].trials.append(trial(7, odd, theirs, before=STEADY, after=OTHER))
    results["q8"].trials.append(trial(8, odd, theirs, before=OTHER, after=STEADY))
    results["q8"].trials.extend(trial(9 + i, ours, theirs, before=OTHER) for i in range(in_other))
    found = compare(results, "fp16", "snakemake")
    assert found.ratios["q8"][DECODE].value == pytest.approx(2.0, rel=0.02)
    counted = [state.trials["q8"] for state in found.states["aaaaaaaaaaaa"]]
    assert counted == ([6, in_other] if in_other else [6])


def disturbed(result: Result) -> Result:
    told = [t.model_copy(update={"disturbed": "other programs ran"}) for t in result.trials]
    return result.model_copy(update={"trials": told})


def test_a_variant_whose_every_trial_was_disturbed_has_no_speed_and_no_ratio() -> None:
    results = with_trials([measured("fp16", 10), measured("q8", 20), measured("q4", 30)], "fp16")
    found = compare(results | {"q8": disturbed(results["q8"])}, "fp16", "snakemake", goal=0.01)
    text = tables.markdown(found)
    shown = cells(text)
    speeds = {row for row, _ in shown if row.startswith(ROWS_OF_SPEED)}
    assert len(speeds) == 5 and all(shown[row, "q8"] == "–" for row in speeds)
    assert all(shown[row, "q4"] != "–" for row in speeds)
    assert not found.ratios["q8"].keys() & {*METRICS}
    assert found.ratios["q8"].keys() >= {"load_warm_seconds", "memory_peak_bytes"}
    (warning,) = [w for w in found.results["q8"].warnings if "trials" in w]
    assert "none of 6 trials counts: other programs ran" in warning and warning in text
    assert not any("`q8` decodes" in sentence for sentence in learnings(found))
    assert "`q8`" not in recommendation(found) and details(found)


def test_where_every_trial_was_disturbed_no_speed_is_told_and_none_recommended() -> None:
    results = with_trials([measured("fp16", 10), measured("q8", 20)], "fp16")
    found = compare(results | {"q8": disturbed(results["q8"])}, "fp16", "snakemake", goal=0.01)
    shown = cells(tables.markdown(found))
    for row, name in shown:
        if row.startswith(ROWS_OF_SPEED):
            assert shown[row, name] == "–", (row, name)
    assert "decodes" not in recommendation(found)


@pytest.mark.parametrize(("minutes", "compared_"), [(50, True), (70, False)])
def test_rounds_more_than_an_hour_apart_form_no_load_ratio(minutes: int, compared_: bool) -> None:
    late = measured("q8", 20)
    late.round_times = [f"2026-01-01T{minutes // 60:02}:{minutes % 60:02}:00+00:00"] * 3
    found = compared(measured("fp16", 10), late)
    loads = {"load_cold_seconds", "load_warm_seconds"}
    assert found.ratios["q8"].keys() & loads == (loads if compared_ else set())
    assert DECODE in found.ratios["q8"]
    shown = cells(tables.markdown(found))["Load, warm cache", "q8"]
    assert ("(" in shown) == compared_ and shown != "–"


def test_rounds_of_the_same_hour_alone_form_a_ratio() -> None:
    base, late = measured("fp16", 10), measured("q8", 20)
    late.metrics["load_warm_seconds"].samples = [[2.0], [2.0], [50.0]]
    late.round_times[2] = "2026-01-02T00:00:00+00:00"
    assert compared(base, late).ratios["q8"]["load_warm_seconds"].value == pytest.approx(2.0)


def test_what_does_not_fit_twice_has_ratios_from_rounds() -> None:
    big = measured("big", 5)
    big.no_trials = "big and fp16 do not fit into memory together"
    big.warnings = [f"{big.no_trials}; its ratios are from rounds"]
    results = with_trials([measured("fp16", 10), measured("q8", 20)], "fp16") | {"big": big}
    for block in results["q8"].trials:  # trials found the machine faster than rounds did
        for speeds in (block.speeds, block.baseline_speeds):
            speeds.update({metric: 1.5 * value for metric, value in speeds.items()})
    found = compare(results, "fp16", "snakemake")
    assert found.ratios["big"][DECODE].value == pytest.approx(0.5, rel=0.03)
    assert found.ratios["q8"][DECODE].value == pytest.approx(2.0, rel=0.02)
    text = tables.markdown(found)
    assert "(×0.5" in cells(text)["Decode", "big"] or "(×0.4" in cells(text)["Decode", "big"]
    assert "Warning, `big`: big and fp16 do not fit into memory together" in text
    speeds = {n: r.metrics[DECODE].value or 0 for n, r in found.results.items()}
    assert speeds["big"] / speeds["fp16"] == pytest.approx(found.ratios["big"][DECODE].value)
    again = group_of(found, found.results).ratios(DECODE)["big"]
    assert again.value == pytest.approx(found.ratios["big"][DECODE].value)  # what pick goes by
    alone = compare({n: results[n] for n in ("fp16", "big")}, "fp16", "snakemake")
    assert alone.ratios["big"][DECODE].value == pytest.approx(0.5, rel=0.03)


def test_what_was_not_tested_is_neither_tied_nor_best() -> None:
    small = measured("q8", 10, rounds=1)
    small.model.files[0].bytes //= 2
    found = compared(measured("fp16", 20, rounds=1), small)
    ratio = found.ratios["q8"][DECODE]
    assert ratio.ci95 is None and not ratio.tie and not found.best[DECODE]
    for (row, _), cell in cells(tables.markdown(found)).items():
        assert not row.startswith(ROWS_OF_SPEED) or ("≈" not in cell and "**" not in cell)
    assert "not tested" in recommendation(found)


@pytest.mark.parametrize(("more", "tied"), [(1.015, True), (0.985, True), (1.05, False)])
def test_memory_ties_within_its_resolution_without_an_interval(more: float, tied: bool) -> None:
    base, other = made_up("fp16"), made_up("q8")
    for result, bytes_ in ((base, 1e8), (other, more * 1e8)):
        result.metrics["memory_after_load_bytes"] = Metric(
            value=bytes_, unit="B", ci95=None, n=1, samples=[[bytes_]]
        )
    found = compared(base, other)
    ratio = found.ratios["q8"]["memory_after_load_bytes"]
    assert ratio.ci95 is None and ratio.tie == tied
    cell = cells(tables.markdown(found))["Memory after load", "q8"]
    assert ("≈" in cell) == tied and ("×" in cell) != tied


def test_speeds_at_other_prompt_lengths_have_no_ratio() -> None:
    results = [made_up("fp16"), made_up("q8")]
    for result in results:
        result.metrics[f"{DECODE}_at_512"] = result.metrics[DECODE]
    found = compared(*results)
    shown = cells(tables.markdown(found))
    assert shown["Decode, prompt of 512", "q8"] == "10.0"
    assert f"{DECODE}_at_512" not in found.ratios["q8"]
    assert "that is named come from rounds." in legend(found)
    few = Metric(value=10.0, unit="t/s", ci95=None, n=2, samples=[[9.0], [11.0]])
    for result in results:
        result.metrics[f"{DECODE}_at_512"] = few
        result.protocol["rounds"] = 2
    few.samples[0][0] = 9.5
    results[1].metrics[f"{DECODE}_at_512"] = few.model_copy(update={"samples": [[11.0], [9.0]]})
    told = "with 2 rounds, no test tells a factor of two between two variants from chance"
    assert f"that is named come from rounds: {told}." in legend(compared(*results))


def test_pages_of_equal_variants_claim_a_difference_in_one_of_twenty_at_most() -> None:
    claimed = 0
    for _ in range(40):
        names = ["fp16", *(f"v{i}" for i in range(7))]
        found = compared(*(measured(name, 10, spread=0.02) for name in names))
        differ = [r for of in found.ratios.values() for r in of.values() if r.ci95 and not r.tie]
        left_out = [n for n in names if n not in found.best[DECODE]]
        claimed += bool(differ or left_out)
    assert claimed <= 2


def test_how_much_of_the_memorys_speed_decoding_takes_is_shown() -> None:
    results = [made_up("fp16", decode=around(40)), made_up("q8", decode=around(160))]
    for result in results:
        result.model.read_bytes = 10**8
    found = compared(*results)
    (row,) = [r for r in table.rows(found) if r[0].startswith("Memory read")]
    first, second = (int(cell.removesuffix(" %")) for cell in row[1:])
    assert 11 <= first <= 14 and 48 <= second <= 52  # of 32 GB/s
    (sentence,) = [line for line in learnings(found) if line.startswith("Memory as a limit")]
    assert sentence.index("`q8`") < sentence.index("`fp16`") and "16.0 GB/s" in sentence


def test_how_near_memory_is_as_a_limit_is_told_of_each_state() -> None:
    found = in_two_states()
    for result in found.results.values():
        result.model.read_bytes = 10**9
    (sentence,) = [line for line in learnings(found) if line.startswith("Memory as a limit")]
    shares = [int(s) for s in re.findall(r"(\d+) %", sentence)]
    expected = [100 * x for x in (30 / 32, 40 / 50, 10 / 32, 16 / 50)]  # of GB/s, in A and in B
    assert shares == pytest.approx(expected, rel=0.05)
    assert sentence.count("% in state B") == 2


def test_a_model_that_caches_may_hold_is_not_held_against_memory() -> None:
    results = [measured("fp16", 4000), measured("q8", 16000)]
    for result in results:
        result.model.read_bytes = 2_000_000
    found = compared(*results)
    assert not [row for row in table.rows(found) if row[0].startswith("Memory read")]
    assert not [line for line in learnings(found) if line.startswith("Memory as a limit")]


def test_states_come_the_most_frequent_first() -> None:
    shares = [state.share for state in in_two_states().states["aaaaaaaaaaaa"]]
    assert all(a >= b for a, b in pairwise(shares)) and sum(shares) == pytest.approx(1)
