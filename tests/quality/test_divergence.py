import numpy as np
import pytest

from minillm_lab.quality.divergence import (
    compress,
    divergence,
    exact_divergence,
    log_normalizer,
)


def distributions(rows: int = 8, vocabulary: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    reference = random.normal(0, 2.5, (rows, vocabulary)).astype(np.float32)
    variant = reference + random.normal(0, 0.6, reference.shape).astype(np.float32)
    return reference, variant


def exact(reference: np.ndarray, variant: np.ndarray) -> np.ndarray:
    log_p = (reference - log_normalizer(reference)[:, None]).astype(np.float32)
    return exact_divergence(log_p, variant, log_normalizer(variant))


def test_log_normalizer_is_the_log_sum_exp_whatever_the_scale() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (50, 70_000)).astype(np.float32)
    logits[0] += 500
    expected = np.logaddexp.reduce(logits.astype(np.float64), axis=1)
    assert log_normalizer(logits) == pytest.approx(expected, abs=1e-5)


def test_the_compact_divergence_is_unbiased() -> None:
    reference, variant = distributions()
    normalizers = log_normalizer(reference)
    estimates = np.array(
        [
            divergence(
                compress(reference, normalizers, np.random.default_rng(seed), 20, 8),
                variant,
                log_normalizer(variant),
            )
            for seed in range(400)
        ]
    )
    error = estimates.std(axis=0, ddof=1) / np.sqrt(len(estimates))
    assert (np.abs(estimates.mean(axis=0) - exact(reference, variant)) < 5 * error).all()


def test_nothing_is_estimated_where_the_top_is_everything() -> None:
    reference, variant = distributions(vocabulary=100)
    kept = compress(reference, log_normalizer(reference), np.random.default_rng(0), 256, 128)
    assert kept.tail_ids.shape == (len(reference), 0)
    found = divergence(kept, variant, log_normalizer(variant))
    assert found == pytest.approx(exact(reference, variant), abs=1e-5)


def test_the_most_likely_token_comes_first() -> None:
    reference, _ = distributions()
    kept = compress(reference, log_normalizer(reference), np.random.default_rng(0), 20, 8)
    assert (kept.top_ids[:, 0] == reference.argmax(axis=1)).all()
    assert (np.diff(kept.top, axis=1) <= 0).all()


def test_a_near_exact_variant_is_estimated_as_exactly_as_it_is_near() -> None:
    reference, _ = distributions(rows=400)
    rounding = np.random.default_rng(2).normal(0, 2e-3, reference.shape)
    variant = (reference + rounding).astype(np.float32)
    kept = compress(reference, log_normalizer(reference), np.random.default_rng(0), 256, 128)
    found = divergence(kept, variant, log_normalizer(variant))
    whole = exact(reference, variant)
    assert found.min() >= 0 and whole.min() >= 0
    for level in (0.5, 0.99):
        assert np.quantile(found, level) == pytest.approx(np.quantile(whole, level), rel=0.05)
    assert whole.mean() == pytest.approx(0.5 * 2e-3**2, rel=0.1)  # half the variance of d


def test_a_token_that_the_reference_hardly_knows_is_not_missed() -> None:
    reference, variant = distributions(rows=100)
    variant[np.arange(100), reference.argmin(axis=1)] += 25  # never drawn, and now the likeliest
    kept = compress(reference, log_normalizer(reference), np.random.default_rng(0), 256, 128)
    found = divergence(kept, variant, log_normalizer(variant))
    assert found == pytest.approx(exact(reference, variant), rel=0.05)


def test_distributions_that_share_nothing_have_a_divergence_that_is_a_number() -> None:
    reference = np.full((2, 3000), -2000, np.float32)
    variant = reference.copy()
    reference[:, 0] = variant[:, 2999] = 2000
    kept = compress(reference, log_normalizer(reference), np.random.default_rng(0), 256, 128)
    for found in (divergence(kept, variant, log_normalizer(variant)), exact(reference, variant)):
        assert found == pytest.approx(4000, rel=0.001)
