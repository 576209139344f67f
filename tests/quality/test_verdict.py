import pytest

from minillm_lab.quality.answer import beside
from minillm_lab.quality.verdict import LEVELS, verdict
from minillm_lab.result import QualityMetric


def metric(value: float, reach: float = 0.0) -> QualityMetric:
    return QualityMetric(value=value, unit="1", ci95=(value - reach, value + reach), n=100)


@pytest.mark.parametrize(
    ("kld", "top", "flips", "expected"),
    [
        (0.001, 0.985, 0.0, "indistinguishable"),
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
        assert verdict(good | {name: metric(awful)}) == LEVELS[0]
    assert verdict({"kld_mean": metric(3.0)}) is None
    assert verdict(None) is None


def test_a_noisy_figure_counts_for_what_it_supports() -> None:
    noisy = {"kld_mean": metric(0.05, 0.05), "same_top": metric(0.9, 0.2)}
    assert verdict(noisy) == LEVELS[0]


def test_an_answer_beside_the_references() -> None:
    found = beside([1, 2, 3, 4, 5, 6], [1, 2, 9, 4, 5, 5])
    assert found["answer_first_divergence_token"].value == 2
    assert found["answer_tokens_in_common"].value == pytest.approx(4 / 6)
    same = beside([1, 2, 3], [1, 2, 3])["answer_first_divergence_token"]
    assert same.value == same.n == 3


def test_repeated_4_grams_are_counted() -> None:
    looping = beside([1, 2, 3, 4] * 5, [0] * 20)["answer_repetition"]
    assert looping.value == pytest.approx(13 / 17)
    assert beside([*range(20)], [0] * 20)["answer_repetition"].value == 0
