import pytest

from minillm_lab.quality.answer import answer_metrics
from minillm_lab.quality.verdict import loss, verdict
from minillm_lab.records import QualityMetric


def metric(value: float, reach: float = 0.0) -> QualityMetric:
    return QualityMetric(value=value, unit="1", ci95=(value - reach, value + reach), n=100)


@pytest.mark.parametrize(
    ("kld", "top", "flips", "expected"),
    [
        (0.001, 0.985, 0.0, "negligible loss"),
        (0.03, 0.92, 0.05, "minor loss"),
        (0.10, 0.86, 0.12, "noticeable loss"),
        (0.45, 0.71, 0.30, "severe loss"),
    ],
)
def test_figures_of_published_quantizations(
    kld: float, top: float, flips: float, expected: str
) -> None:
    quality = {"kld_mean": metric(kld), "same_top": metric(top), "answer_flips": metric(flips)}
    assert verdict(quality) == expected


def test_one_figure_alone_decides_nothing() -> None:
    good = {"kld_mean": metric(0.001), "same_top": metric(0.99), "answer_flips": metric(0.0)}
    for name, awful in {"kld_mean": 3.0, "same_top": 0.1, "answer_flips": 0.9}.items():
        assert verdict(good | {name: metric(awful)}) == "negligible loss"
    assert verdict({"kld_mean": metric(3.0)}) is None
    assert verdict(None) is None


def between(low: float, value: float, high: float) -> QualityMetric:
    return QualityMetric(value=value, unit="1", ci95=(low, high), n=100)


def test_what_the_intervals_leave_open_is_said() -> None:
    top, flips = metric(0.985), metric(0.0)
    noisy = {"kld_mean": between(0.005, 0.3, 1.2), "same_top": between(0.7, 0.9, 0.99)}
    assert verdict(noisy) == "negligible to severe loss"
    assert verdict(noisy | {"answer_flips": flips}) == "negligible to severe loss"
    assert verdict(noisy | {"same_top": top, "answer_flips": flips}) == "negligible loss"
    edge = {"kld_mean": between(0.0048, 0.0054, 0.0062), "same_top": between(0.955, 0.963, 0.97)}
    assert verdict(edge) == "negligible or minor loss"


def test_measuring_less_never_gives_a_better_word() -> None:
    measured = {"kld_mean": between(0.05, 0.06, 0.07), "same_top": between(0.85, 0.87, 0.89)}
    assert verdict(measured) == "noticeable loss"
    once = {n: m.model_copy(update={"ci95": None}) for n, m in measured.items()}
    found = loss(once)
    assert found and (found.worst, found.by_value) == (3, 2)
    assert str(found) == "negligible to severe loss"
    good = {"kld_mean": metric(0.005), "same_top": metric(0.70), "answer_flips": metric(0.1)}
    for left_out in good:
        less = loss({name: found for name, found in good.items() if name != left_out})
        whole = loss(good)
        assert less and whole and less.worst >= whole.worst and less.by_value >= whole.by_value
    assert verdict({n: m for n, m in good.items() if n != "answer_flips"}) == (
        "negligible to severe loss"
    )


def test_an_answer_beside_the_references() -> None:
    found = answer_metrics([1, 2, 3, 4, 5, 6], [1, 2, 9, 4, 5, 5])
    assert found["answer_first_divergence_token"].value == 2
    assert found["answer_tokens_in_common"].value == pytest.approx(4 / 6)
    same = answer_metrics([1, 2, 3], [1, 2, 3])["answer_first_divergence_token"]
    assert same.value == same.n == 3


def test_repeated_4_grams_are_counted() -> None:
    looping = answer_metrics([1, 2, 3, 4] * 5, [0] * 20)["answer_repetition"]
    assert looping.value == pytest.approx(13 / 17)
    assert answer_metrics([*range(20)], [0] * 20)["answer_repetition"].value == 0
