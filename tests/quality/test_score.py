from pathlib import Path

import pytest

from minillm_lab.errors import LabError
from minillm_lab.models.quantize import quantize
from minillm_lab.quality.text import EvaluationText
from minillm_lab.records import write_record
from quality_lab import FLOAT32, LLAMA, make_reference, scored, value
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
    for name in ("kld_mean", "kld_p99", "kld_max", "same_top", "perplexity_ratio"):
        metric = metrics[name]
        assert metric.ci95 and metric.value is not None
        assert metric.ci95[0] <= metric.value <= metric.ci95[1]
        assert metric.n == len(text.chunks) * text.protocol.scored


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
