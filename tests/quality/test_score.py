from math import exp
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from minillm_lab.jobs.errors import LabError
from minillm_lab.models.quantize import quantize
from minillm_lab.quality.evaluation import REPLY, opened
from minillm_lab.quality.metrics import BLOCK
from minillm_lab.quality.reference import Reference
from minillm_lab.quality.score import score
from minillm_lab.quality.text import EvaluationText
from minillm_lab.records import write_record
from minillm_lab.runtimes import Passage, replied
from quality_lab import FLOAT32, LLAMA, SHORT, TEXT, make_reference, prepared, scored, value
from tiny_model import write_tiny_gguf


@pytest.fixture(scope="module")
def quantized(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("quantized")
    found = {type_: folder / f"{type_}.gguf" for type_ in ("Q8_0", "Q6_K", "Q4_K_M", "Q2_K")}
    for type_, path in found.items():
        quantize(tiny_gguf, type_, path)
    return found


def test_the_reference_has_no_distance_from_itself(
    text: EvaluationText, tiny_safetensors: Path, reference: Path
) -> None:
    found = scored(tiny_safetensors, text, reference, FLOAT32)
    assert abs(value(found, "kld_mean")) < 1e-6
    assert value(found, "same_top") == 1
    assert value(found, "perplexity_ratio") == pytest.approx(1, abs=1e-6)
    assert value(found, "answer_flips") == 0
    assert value(found, "first_divergence_token") == REPLY
    assert value(found, "divergent_tokens_share") == 0


def test_a_reference_of_a_model_by_another_name_is_taken_with_a_warning(
    text: EvaluationText, tiny_gguf: Path, reference: Path
) -> None:
    assert scored(tiny_gguf, text, reference).warnings == []
    (warning,) = score("variant", "second", tiny_gguf, text, LLAMA, reference).warnings
    assert "was made of a model named 'tiny'" in warning and "its model 'second'" in warning


def test_f16_in_the_other_runtime_is_close(
    text: EvaluationText, tiny_gguf: Path, reference: Path
) -> None:
    found = scored(tiny_gguf, text, reference)
    assert abs(value(found, "kld_mean")) < 1e-4
    assert value(found, "same_top") > 0.98


def test_fewer_bits_lose_more(
    text: EvaluationText, quantized: dict[str, Path], reference: Path
) -> None:
    losses = [value(scored(path, text, reference), "kld_mean") for path in quantized.values()]
    assert losses == sorted(losses)
    assert losses[-1] > 10 * losses[0] > 0


def test_compact_and_exact_references_agree(
    text: EvaluationText, tiny_safetensors: Path, quantized: dict[str, Path], reference: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    whole = tmp_path / "exact.npz"
    make_reference("tiny", tiny_safetensors, text, FLOAT32, whole, exact=True)
    for path in quantized.values():
        exact, compact = scored(path, text, whole), scored(path, text, reference)
        assert value(compact, "kld_mean") == pytest.approx(value(exact, "kld_mean"), rel=0.05)
        for name in ("same_top", "perplexity"):
            assert value(compact, name) == pytest.approx(value(exact, name), rel=1e-6)


def test_intervals_hold_their_values_and_count_tokens(
    text: EvaluationText, quantized: dict[str, Path], reference: Path
) -> None:
    metrics = scored(quantized["Q4_K_M"], text, reference).metrics
    for name in ("kld_mean", "kld_p99", "same_top", "perplexity", "perplexity_ratio"):
        metric = metrics[name]
        assert metric.ci95 and metric.value is not None
        assert metric.ci95[0] <= metric.value <= metric.ci95[1]
        assert metric.n == len(text.chunks) * text.protocol.scored
    assert metrics["kld_max"].ci95 is None


def test_each_chunks_means_are_kept_and_have_the_figures_as_their_mean(
    text: EvaluationText, quantized: dict[str, Path], reference: Path
) -> None:
    found = scored(quantized["Q4_K_M"], text, reference)
    assert {len(values) for values in found.by_chunk.values()} == {len(text.chunks)}
    for name in ("kld_mean", "same_top"):
        assert fmean(found.by_chunk[name]) == pytest.approx(value(found, name))
    assert exp(fmean(found.by_chunk["surprise"])) == pytest.approx(value(found, "perplexity"))


def test_figures_of_probability_and_bytes_are_what_they_are_defined_as(
    text: EvaluationText, quantized: dict[str, Path], reference: Path, tiny_safetensors: Path
) -> None:
    found = scored(quantized["Q2_K"], text, reference)
    first, surprises = text.protocol.score_from + 1, []
    for weights, settings in ((quantized["Q2_K"], LLAMA), (tiny_safetensors, FLOAT32)):
        with opened(weights, settings, 64) as loaded:
            rows = [
                loaded.runtime.logits_of([Passage(c[:-1], first - 1)]).copy() for c in text.chunks
            ]
        log_p = [x - np.logaddexp.reduce(x.astype(float), axis=1)[:, None] for x in rows]
        targets = [c[first:] for c in text.chunks]
        each = [x[np.arange(len(t)), t] for x, t in zip(log_p, targets, strict=True)]
        surprises.append(-np.concatenate(each))
    ours, theirs = surprises
    delta = np.exp(-ours) - np.exp(-theirs)
    expected = {
        "delta_p_mean": delta.mean(),
        "delta_p_rms": np.sqrt((delta**2).mean()),
        "delta_p_p01": np.quantile(delta, 0.01),
        "delta_p_p99": np.quantile(delta, 0.99),
    }
    sizes = [size for chunk in text.bytes or [] for size in chunk[first:]]
    expected["bits_per_byte"] = ours.sum() / np.log(2) / sum(sizes)
    expected["bits_per_byte_reference"] = theirs.sum() / np.log(2) / sum(sizes)
    for name, figure in expected.items():
        assert value(found, name) == pytest.approx(figure, rel=0.01, abs=1e-6)
    bits, reference_bits, bytes_ = (
        sum(column) for column in zip(*found.bits_by_block, strict=True)
    )
    assert bytes_ == sum(sizes)
    assert bits == pytest.approx(ours.sum() / np.log(2), rel=0.01)
    assert reference_bits == pytest.approx(theirs.sum() / np.log(2), rel=0.01)
    *before, _ = (text.bytes or [[]])[-1]
    assert len(found.bits_by_block) == (text.starts[-1] + sum(before)) // BLOCK + 1
    assert 0 < value(found, "kld_p99") < value(found, "kld_p999") < value(found, "kld_max")


def test_replies_diverge_where_the_variants_own_answer_leaves_the_references(
    text: EvaluationText, quantized: dict[str, Path], reference: Path
) -> None:
    found = scored(quantized["Q2_K"], text, reference)
    with Reference(reference) as opened_reference:
        replies = opened_reference.facts.replies
    with opened(quantized["Q2_K"], LLAMA, 512) as loaded:
        own = [replied(loaded.runtime, prompt, REPLY) for prompt in text.prompts]
    first = [
        next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b), REPLY)
        for ours, theirs in zip(own, replies, strict=True)
    ]
    metric = found.metrics["first_divergence_token"]
    assert metric.value == pytest.approx(fmean(first), abs=1) and metric.n == len(text.prompts) == 8
    assert metric.ci95 and metric.ci95[0] < fmean(first) < metric.ci95[1]
    ended = sum(count < REPLY for count in first) / (len(first) * REPLY)
    assert ended <= value(found, "divergent_tokens_share") < 1


def test_where_it_hurts_is_said_by_section_and_token(
    text: EvaluationText, quantized: dict[str, Path], reference: Path
) -> None:
    found = scored(quantized["Q2_K"], text, reference)
    assert found.by_section.keys() == {"first", "second"}
    counted = sum(metric.n for metric in found.by_section.values())
    assert 0 < counted < found.metrics["kld_mean"].n  # Line 0 and 1 belong to no section
    losses = [token.kld for token in found.hurt_most]
    assert len(losses) == 10 and losses == sorted(losses, reverse=True)
    assert losses[0] == value(found, "kld_max")
    for token in found.hurt_most:
        assert token.before + token.text in TEXT
        assert token.section in {"first", "second", None}


def test_two_chunks_give_figures_without_intervals(
    tiny_gguf: Path, tiny_safetensors: Path, tmp_path: Path
) -> None:
    few = prepared(tiny_gguf, tmp_path, SHORT.model_copy(update={"chunks": 2}))
    make_reference("tiny", tiny_safetensors, few, FLOAT32, tmp_path / "reference.npz")
    metrics = scored(tiny_gguf, few, tmp_path / "reference.npz").metrics
    others = ("question", "answer", "first_divergence", "divergent_tokens")
    over_tokens = {name: m for name, m in metrics.items() if not name.startswith(others)}
    assert len(over_tokens) > 5
    assert all(m.ci95 is None and m.value is not None for m in over_tokens.values())


def test_a_reference_of_another_text_is_refused(
    text: EvaluationText, tiny_gguf: Path, reference: Path
) -> None:
    other = text.model_copy(update={"text_sha256": "0" * 64})
    with pytest.raises(LabError, match="another text") as caught:
        scored(tiny_gguf, other, reference, LLAMA)
    assert "\n" not in str(caught.value)


def test_values_that_are_not_numbers_are_said_and_give_no_figure(
    text: EvaluationText, reference: Path, tmp_path: Path
) -> None:
    write_tiny_gguf(tmp_path / "nan.gguf", output=float("nan"))
    found = scored(tmp_path / "nan.gguf", text, reference)
    assert found.metrics == {} and "not numbers" in found.warnings[0]
    write_record(tmp_path / "score.json", found)
    assert "NaN" not in (tmp_path / "score.json").read_text()


def test_a_model_that_is_wildly_wrong_has_figures_that_json_holds(
    text: EvaluationText, reference: Path, tmp_path: Path
) -> None:
    write_tiny_gguf(tmp_path / "wild.gguf", output=1e4)
    found = scored(tmp_path / "wild.gguf", text, reference)
    write_record(tmp_path / "score.json", found)
    assert value(found, "kld_mean") > 1000
    assert found.metrics["perplexity"].value is None
